"""Union-find by whole arrays against a dictionary of sets."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unlabeled.curate.dedup.components import Components, best, edges


def by_hand(count, pairs):
    group = {i: {i} for i in range(count)}
    for a, b in pairs:
        if group[a] is not group[b]:
            group[a] |= group[b]
            for member in group[b]:
                group[member] = group[a]
    return [min(group[i]) for i in range(count)]


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_groups_are_those_of_sets_whatever_the_order_and_the_batches(data):
    count = data.draw(st.integers(1, 30))
    number = st.integers(0, count - 1)
    pairs = data.draw(st.lists(st.tuples(number, number), max_size=60))
    cut = data.draw(st.integers(0, len(pairs)))
    groups = Components(count)
    for batch in (pairs[cut:], pairs[:cut]):
        left, right = np.array(batch, np.int64).reshape(-1, 2).T
        groups.add(left, right)
    expected = by_hand(count, pairs)
    asked = np.array(data.draw(st.lists(number, max_size=5)), np.int64)
    assert groups.roots(asked).tolist() == [expected[i] for i in asked]
    assert groups.roots().tolist() == expected


@pytest.mark.parametrize("order", ["ascending", "descending", "drawn", "star"])
def test_long_chains_and_stars_are_one_group(order):
    count = 20_000
    at = np.arange(count)
    if order == "descending":
        at = at[::-1]
    elif order == "drawn":
        at = np.random.default_rng(0).permutation(count)
    groups = Components(count + 1)
    if order == "star":
        groups.add(np.full(count - 1, count - 1), at[:-1])
    else:
        groups.add(at[1:], at[:-1])
    assert (groups.roots()[:-1] == 0).all()
    assert groups.roots()[-1] == count


def test_the_best_has_the_smallest_rank_and_of_equal_ones_comes_first():
    roots = np.array([0, 1, 0, 1, 0, 5])
    rank = np.array([3.0, 2.0, 1.0, 2.0, 1.0, 9.0])
    assert best(roots, rank).tolist() == [2, 1, 2, 1, 2, 5]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 9)), max_size=40))
def test_edges_join_exactly_the_owners_of_equal_keys(owned):
    keys = np.array([k for k, _ in owned], np.uint64)
    owners = np.array([o for _, o in owned], np.int64)
    groups = Components(10)
    groups.add(*edges(keys, owners))
    pairs = [(a, b) for k, a in owned for l, b in owned if k == l]  # noqa: E741
    assert groups.roots().tolist() == by_hand(10, pairs)
