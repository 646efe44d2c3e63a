import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unlabeled.data.order import mix, permute, positions_to_examples


@given(st.integers(1, 3000), st.integers(0, 2**62))
@settings(max_examples=60, deadline=None)
def test_every_epoch_is_a_permutation(n, key):
    assert np.array_equal(np.sort(permute(np.arange(n), n, key)), np.arange(n))


def test_it_shuffles_like_a_random_permutation():
    n = 4096
    order = permute(np.arange(n), n, 7)
    # A random permutation has about one fixed point and correlation with the identity of about 1 / sqrt(n).
    assert (order == np.arange(n)).sum() < 8
    assert abs(np.corrcoef(order, np.arange(n))[0, 1]) < 4 / np.sqrt(n)
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 4 / np.sqrt(n)
    assert not np.array_equal(order, permute(np.arange(n), n, 8))


def test_huge_data_need_no_memory():
    positions = np.arange(10**12 - 5, 10**12)
    out = permute(positions, 10**12, 3)
    assert len(set(out.tolist())) == 5 and out.min() >= 0 and out.max() < 10**12


def test_positions_cross_epochs():
    out = positions_to_examples(np.arange(25), 10, seed=0)
    assert sorted(out[:10]) == sorted(out[10:20]) == list(range(10))
    assert not np.array_equal(out[:10], out[10:20])
    assert np.array_equal(out[13:17], positions_to_examples(np.arange(13, 17), 10, seed=0))


@pytest.mark.parametrize("parts", [(0,), (1, 2), (2, 1), (-1,)])
def test_seeds_are_63_bits_and_told_apart(parts):
    assert 0 <= mix(*parts) < 2**63
    assert mix(1, 2) != mix(2, 1) and mix(0) != mix(0, 0)
