"""Mixing: epochs of each source in its three forms, copies, order, the held-out parts."""

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unlabeled.core.errors import UserError
from unlabeled.curate.mix import MT5, Mix, bucket, copies, held_out, order, value_of_next, worth

SIZES = {"web": 1000.0, "code": 200.0, "books": 50.0}
some_sizes = st.dictionaries(st.text(min_size=1, max_size=4), st.floats(1, 1e15), min_size=1, max_size=6)


def shares(mix, sizes):
    return {row.source: row.weight for row in mix.table(sizes)}


# ---- the three forms ----


def test_epochs_are_taken_as_they_are():
    mix = Mix(epochs={"books": 3, "web": 0.5, "code": 1})
    assert mix.epochs_of(SIZES) == {"web": 0.5, "code": 1.0, "books": 3.0}
    assert shares(mix, SIZES) == pytest.approx({"web": 500 / 850, "code": 200 / 850, "books": 150 / 850})
    assert [row.source for row in mix.table(SIZES)] == ["web", "code", "books"]  # largest part first


def test_weights_give_the_largest_corpus_that_the_cap_allows():
    mix = Mix(weights={"web": 5, "code": 3, "books": 2}, most_epochs=4)
    epochs = mix.epochs_of(SIZES)
    assert shares(mix, SIZES) == pytest.approx({"web": 0.5, "code": 0.3, "books": 0.2})
    assert max(epochs.values()) == pytest.approx(4) and epochs["books"] == pytest.approx(4)  # 200 / 0.2 = 1000 in all
    assert sum(SIZES[s] * e for s, e in epochs.items()) == pytest.approx(1000)


def test_a_budget_outdoes_the_cap_and_is_warned_of():
    mix = Mix(weights={"web": 5, "code": 3, "books": 2}, bytes=5000)
    epochs = mix.epochs_of(SIZES)
    assert epochs == pytest.approx({"web": 2.5, "code": 7.5, "books": 20})
    warned = [row for row in mix.table(SIZES) if row.warning]
    assert [row.source for row in warned] == ["code", "books"]
    assert warned[1].warning.startswith("books is repeated 20 times, worth 11.9 of fresh text")


@given(some_sizes, st.floats(0.02, 50))
@settings(deadline=None)
def test_temperature_follows_the_power_law_unless_capped(sizes, temperature):
    mix = Mix(temperature=temperature, most_epochs=math.inf)
    got = shares(mix, sizes)
    pull = {s: (n / max(sizes.values())) ** (1 / temperature) for s, n in sizes.items()}
    for source, p in pull.items():
        assert got[source] == pytest.approx(p / sum(pull.values()), rel=1e-6, abs=1e-12)


def test_limits_of_the_temperature():
    assert Mix(temperature=1).epochs_of(SIZES) == pytest.approx(dict.fromkeys(SIZES, 1.0))
    assert shares(Mix(temperature=math.inf, most_epochs=math.inf), SIZES) == pytest.approx(dict.fromkeys(SIZES, 1 / 3))
    assert shares(Mix(temperature=1e6, most_epochs=math.inf), SIZES) == pytest.approx(
        dict.fromkeys(SIZES, 1 / 3), rel=1e-5
    )
    power = {s: n**0.3 for s, n in SIZES.items()}  # mT5's exponent
    assert shares(Mix(temperature=MT5, most_epochs=100), SIZES)["code"] == pytest.approx(
        power["code"] / sum(power.values())
    )


def unimax(sizes, budget, cap):
    """Chung et al. 2023, algorithm 1, by its text: from the smallest source on, an equal part of what is left, or the cap."""
    got, left = {}, sorted(sizes, key=sizes.get)
    for i, source in enumerate(left):
        got[source] = min(budget / (len(left) - i), cap * sizes[source])
        budget -= got[source]
    return {s: got[s] / sizes[s] for s in sizes}


@given(some_sizes, st.floats(1, 1e15), st.floats(0.1, 10))
@settings(deadline=None)
def test_an_infinite_temperature_with_a_cap_is_unimax(sizes, budget, cap):
    got = Mix(temperature=math.inf, bytes=budget, most_epochs=cap).epochs_of(sizes)
    assert got == pytest.approx(unimax(sizes, budget, cap), rel=1e-6)


@given(some_sizes, st.floats(0.02, 50), st.floats(0.1, 10))
@settings(deadline=None)
def test_the_budget_is_spent_as_far_as_the_cap_allows(sizes, temperature, cap):
    epochs = Mix(temperature=temperature, most_epochs=cap).epochs_of(sizes)
    assert max(epochs.values()) <= cap * (1 + 1e-9)
    whole = sum(sizes.values())
    assert sum(sizes[s] * e for s, e in epochs.items()) == pytest.approx(whole * min(cap, 1), rel=1e-6)


# ---- sources that one side does not know ----


def test_a_source_that_the_corpus_lacks():
    with pytest.raises(UserError, match="'wob', of which the corpus holds nothing; did you mean web"):
        Mix(epochs={"wob": 1, "code": 1, "books": 1}).epochs_of(SIZES)
    with pytest.raises(UserError, match="'books', of which the corpus holds nothing"):
        Mix(epochs=dict.fromkeys(SIZES, 1.0)).epochs_of({**SIZES, "books": 0})  # named, but empty
    assert Mix(epochs={**dict.fromkeys(SIZES, 1.0), "mail": 0}).epochs_of(SIZES)  # wants none of it


def test_a_source_that_the_mix_does_not_name():
    with pytest.raises(UserError, match="'books', which the mix does not name"):
        Mix(weights={"web": 1, "code": 1}).epochs_of(SIZES)
    assert Mix(epochs={"web": 2}, rest=0).epochs_of(SIZES) == {"web": 2, "code": 0, "books": 0}
    assert Mix(epochs={"web": 2, "mail": 9}, rest=1).epochs_of(SIZES) == {"web": 2, "code": 1, "books": 1}
    got = Mix(weights={"web": 1, "code": 1, "mail": 2}, rest=0.5).epochs_of(SIZES)
    assert got == pytest.approx({"web": 0.8, "code": 4, "books": 0.5})
    with pytest.raises(UserError, match="none of the sources"):
        Mix(weights={"mail": 2}, rest=1).epochs_of(SIZES)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({}, "not none"),
        ({"epochs": {"a": 1}, "temperature": 1}, "epochs and temperature"),
        ({"epochs": {"a": -1}}, "a -1"),
        ({"weights": {"a": math.nan}}, "a nan"),
        ({"weights": {"a": 0}}, "All weights"),
        ({"temperature": 0}, "from 0.01"),
        ({"temperature": math.nan}, "from 0.01"),
        ({"weights": {"a": 1}, "most_epochs": 0}, "most_epochs"),
        ({"weights": {"a": 1}, "bytes": 0}, "wants 0 bytes"),
        ({"epochs": {"a": 1}, "bytes": 5}, "leave bytes out"),
        ({"epochs": {"a": 1}, "rest": -1}, "rest -1"),
    ],
)
def test_mistakes(arguments, message):
    with pytest.raises(UserError, match=message):
        Mix(**arguments)


def test_an_empty_corpus():
    assert Mix(temperature=2).epochs_of({}) == {} and Mix(temperature=2).table({"a": 0})[0].weight == 0


# ---- what repetition is worth ----


def test_worth_is_the_data_constrained_law():
    assert [worth(e) for e in (0, 0.5, 1)] == [0, 0.5, 1]
    assert worth(1 + 15.387756) == pytest.approx(1 + 15.387756 * (1 - 1 / math.e))  # section 3.1: at R = R*
    assert worth(4) == pytest.approx(1 + 15.387756 * (1 - math.exp(-3 / 15.387756)))
    assert 0.93 < worth(4) / 4 < 0.95 and worth(1e9) == pytest.approx(16.387756)
    slope = (worth(7 + 1e-6) - worth(7)) / 1e-6
    assert value_of_next(7) == pytest.approx(slope, rel=1e-5) and value_of_next(0.3) == 1


# ---- copies, order, splits ----


def test_copies_have_the_right_mean_and_only_grow():
    ids = [f"doc-{i}" for i in range(20_000)]
    for epochs in (0, 0.3, 1, 1.5, 2.75):
        got = np.array([copies(i, epochs) for i in ids])
        rest = epochs % 1
        assert set(got) <= {math.floor(epochs), math.ceil(epochs)}
        assert abs(got.mean() - epochs) <= 3 * math.sqrt(rest * (1 - rest) / len(ids))
    assert all(copies(i, 1.2) <= copies(i, 1.7) for i in ids[:2000])


def test_shares_of_the_shuffled_stream():
    """The first 1e5 documents of the mixed, shuffled corpus come from each source by its weight, within 3 sigma."""
    counts = {"a": 60_000, "b": 20_000, "c": 9_000}
    mix = Mix(epochs={"a": 1, "b": 2.5, "c": 3.5})
    weight, epochs = shares(mix, counts), mix.epochs_of(counts)
    stream = [
        (order(f"{source}/{i}", copy), source)
        for source, n in counts.items()
        for i in range(n)
        for copy in range(copies(f"{source}/{i}", epochs[source]))
    ]
    first = [source for _, source in sorted(stream)[:100_000]]
    for source, p in weight.items():
        assert abs(first.count(source) - 1e5 * p) < 3 * math.sqrt(1e5 * p * (1 - p)), source


def test_the_order_is_uniform_and_buckets_keep_it():
    places = np.array([order(f"{i}") for i in range(20_000)], np.uint64)
    counts = np.bincount([bucket(int(p), 10) for p in places], minlength=11)
    assert counts[10] == 0 and (abs(counts[:10] - 2000) < 4 * math.sqrt(2000 * 0.9)).all()
    ordered = sorted(places.tolist())
    assert [bucket(p, 7) for p in ordered] == sorted(bucket(p, 7) for p in ordered)
    assert bucket(2**64 - 1, 1) == 0 and bucket(2**64 - 1, 10**9) == 10**9 - 1
    assert len({order("x", copy, seed) for copy in range(50) for seed in range(50)}) == 2500
    assert abs(np.corrcoef(places[:-1].astype(float), places[1:].astype(float))[0, 1]) < 0.03


def test_everything_is_the_same_in_another_process():
    code = (
        "from unlabeled.curate.mix import copies, held_out, order;"
        "print([copies(f'd{i}', 1.5) for i in range(40)], [order(f'd{i}', 1, 7) for i in range(5)],"
        "[held_out(f'd{i}', 0.2) for i in range(40)])"
    )
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    here = [copies(f"d{i}", 1.5) for i in range(40)], [order(f"d{i}", 1, 7) for i in range(5)]
    assert there == " ".join(map(str, (*here, [held_out(f"d{i}", 0.2) for i in range(40)])))


def test_held_out_shares():
    got = [held_out(f"doc-{i}", 0.01) for i in range(50_000)]
    for split in ("validation", "test"):
        assert abs(got.count(split) - 500) < 3 * math.sqrt(50_000 * 0.01 * 0.99)
    more = [held_out(f"doc-{i}", 0.02) for i in range(50_000)]
    assert all(b == "validation" for a, b in zip(got, more) if a == "validation")
    assert {held_out(f"{i}", 0) for i in range(1000)} == {"train"}
    with pytest.raises(UserError, match="from 0 to"):
        held_out("a", 0.6)
