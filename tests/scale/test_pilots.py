"""Pilots of real systems, of the smallest kind."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unlabeled.core import catalogue
from unlabeled.core.config import resolve
from unlabeled.core.errors import UserError
from unlabeled.core.method import Method
from unlabeled.data.source import Source
from unlabeled.data.store import Store, build
from unlabeled.model import source_of
from unlabeled.scale import halving, outlook, pilots
from unlabeled.scale.forecast import PRIOR, Forecast
from unlabeled.scale.halving import Candidate, Pilot, Setting, Told
from unlabeled.scale.outlook import Outlook, look_out
from unlabeled.scale.pilots import Bench, Ladder, Part, slices


def prepared(system: str, data: object, **overrides) -> tuple[Method, Source, Source, Store, Store]:
    kind = catalogue.method(system)
    whole = source_of(data)
    train, test = whole.split("train"), whole.split("test")
    config = resolve(kind, "tiny", overrides)
    method = kind(config, kind.measure(config, train), {})
    return method, train, test, build(train, method), build(test, method)


@pytest.fixture(scope="module")
def text() -> Bench:
    method, _, _, store, test = prepared("gpt2", "moby-dick", tokenizer="bytes")
    return Bench("gpt2", "tiny", {"tokenizer": "bytes"}, method.spec, store, test)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small sizes, few steps, and time that stands still while other processes have the processor."""
    monkeypatch.setattr(time, "perf_counter", time.process_time)
    sizes = Ladder((16, 32, 48), lambda n: {"width": n, "layers": 1, "heads": 1}, "{} wide")
    monkeypatch.setitem(pilots.LADDERS, "gpt2", sizes)
    monkeypatch.setattr(halving, "FEWEST_STEPS", 2)
    monkeypatch.setattr(halving, "FEWEST_FULL_STEPS", 5)


@given(st.integers(0, 20_000), st.integers(1, 2000))
def test_slices_share_nothing_and_lose_nothing(count: int, size: int) -> None:
    learned, held = slices(count, size)
    assert sorted([*learned, *held]) == list(range(count))
    assert len(held) <= min(size, count / 10)
    if count >= 10 * size and size >= 16:
        assert len(held) > size / 2
        assert held.max() - held.min() > 0.8 * count  # from all over the data, which is often sorted


def test_a_part_is_the_same_examples_under_other_numbers(text: Bench) -> None:
    indices = np.array([5, 2, 9])
    part = Part(text.store, indices)
    assert len(part) == 3
    assert (part.batch(np.array([1, 2]))["tokens"] == text.store.batch(indices[[1, 2]])["tokens"]).all()
    again = Part(part, np.array([2, 0]))
    assert (again.batch(np.array([0]))["tokens"] == text.store.batch(np.array([9]))["tokens"]).all()


def test_a_part_of_ragged_examples() -> None:
    rng = np.random.default_rng(0)
    whole = source_of(["one text", "another one", "a third " * 5, "x"] * 30)
    kind = catalogue.method("gpt2")
    config = resolve(kind, "tiny", {"tokenizer": "bytes"})
    method = kind(config, kind.measure(config, whole), {})
    store = build(whole, method, whole=True)
    indices = rng.permutation(len(store))[:7]
    got, expected = (
        Part(store, indices).batch(np.arange(3), beside=np.arange(7)),
        store.batch(indices[:3], beside=indices),
    )
    assert all((got[name] == expected[name]).all() for name in expected)
    assert (Part(store, indices).rows == store.rows[indices]).all()


def test_a_pilot_is_a_whole_short_run(text: Bench, short: None) -> None:
    candidate = Bench("gpt2", "tiny", text.base, text.spec, text.store, text.test).candidates()[0]
    measured = text.measure(text.build(candidate.overrides)).loss
    assert measured == pytest.approx(math.log(text.spec.vocabulary), rel=0.05)  # untrained: any byte is as likely
    began = time.perf_counter()
    pilot = text.run(candidate, 1.0, 0.01)
    assert time.perf_counter() - began == pytest.approx(pilot.seconds, abs=0.1)
    assert pilot.steps > 3 and not pilot.failed
    assert 0.1 < pilot.steps * pilot.step_seconds < 1.5
    assert max(pilot.loss, pilot.tested) < measured - 0.3
    assert pilot.items == pilot.steps * 8 * 32


def test_pilots_do_not_train_on_what_they_are_measured_on(text: Bench) -> None:
    learned, held = slices(len(text.store), pilots.SLICE)
    assert len(text.training) == len(learned) and len(text.held) == len(held)
    assert not set(learned) & set(held)
    first = text.held.batch(np.array([0]))["tokens"]
    assert (first == text.store.batch(held[:1])["tokens"]).all()


def test_a_pilot_that_diverges_says_so(text: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    candidate = halving.Candidate("gpt2", "tiny", {**text.base, "lr": 1e30, "optimizer": "adamw"}, "wild", 1, 1, 1)
    pilot = text.run(candidate, 0.5, 0.01)
    assert "no finite number" in pilot.failed and math.isnan(pilot.loss)


def test_the_outlook_on_a_text(text: Bench, short: None) -> None:
    bench = Bench("gpt2", "tiny", text.base, text.spec, text.store, text.test)
    began = time.perf_counter()
    found = look_out([bench], 4.0, 20.0, usual="gpt2")
    took = time.perf_counter() - began
    assert isinstance(found, Outlook)
    assert found.seconds <= took < 5.5
    assert found.candidate.name.startswith("gpt2 ") and found.steps > 5
    assert [p.failed for p in found.pilots] == [""] * len(found.pilots)
    assert len(found.pilots) >= 2
    assert {p.candidate.name for p in found.pilots} <= {t.candidate.name for t in found.told}
    table = found.table()
    assert all(len(row) == len(table["columns"]) for row in table["rows"])
    assert table["rows"][table["own"]][0] == found.candidate.name
    assert any(f"{found.candidate.name} is foretold to reach" in reason for reason in found.why)
    said = found.to_dict(100.0)
    assert said["share"] == pytest.approx(found.seconds / 100, abs=1e-3)
    assert said["forecast"]["low"] < said["forecast"]["value"] < said["forecast"]["high"]
    middle = said["forecast"]["value"]
    assert "(inside; 9 steps" in found.compared(middle, 9)
    assert "(below;" in found.compared(said["forecast"]["low"] / 2, 9)
    assert "(above;" in found.compared(2 * said["forecast"]["high"], 9)


def test_no_time_is_said(text: Bench, short: None) -> None:
    bench = Bench("gpt2", "tiny", text.base, text.spec, text.store, text.test)
    assert "too few for pilots" in str(look_out([bench], 0.3, 20.0, usual="gpt2")) or "counting the sizes" in str(
        look_out([bench], 0.3, 20.0, usual="gpt2")
    )
    assert "counting the sizes" in str(look_out([bench], 0.0, 20.0, usual="gpt2"))


def test_encoders_are_compared_by_classes_of_training_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    method, train, test, store, tests = prepared("simclr", "fashion")
    asked = []
    monkeypatch.setattr(pilots, "knn_error", lambda m, bank, queries: asked.append((bank, queries)) or "measured")
    assert train.labels is not None and test.labels is not None
    labels = (train.labels, test.labels)
    bench = Bench("simclr", "tiny", {}, method.spec, store, tests, labels=labels)
    assert bench.unit == "kNN error"
    bench.measure(method, held=True)
    bench.measure(method)
    (bank, chooses), (same, foretold) = asked
    assert bank is same and bank.store is store and chooses.store is store and foretold.store is tests
    learned, held = slices(len(store), pilots.QUERIES)
    assert set(bank.indices) <= set(learned) and set(chooses.indices) <= set(held)
    assert (chooses.labels == np.asarray(train.labels)[store.rows[chooses.indices]]).all()


def test_too_little_data_for_pilots() -> None:
    method, _, _, store, test = prepared("ddpm", np.zeros((100, 16, 16), np.uint8))
    with pytest.raises(UserError, match="too few to hold some out"):
        Bench("ddpm", "tiny", {}, method.spec, store, test)


def test_numbers_are_short_and_their_intervals_alike() -> None:
    told = outlook.Forecast(1.5234, 1.4411, 1.6349)
    assert outlook.said(told) == "1.52 (1.44 to 1.63)"
    assert outlook.said(outlook.Forecast(0.0821, 0.06, 0.1)) == "0.0821 (0.0600 to 0.1000)"
    assert outlook.said(outlook.Forecast(152.3, 140, 163)) == "152 (140 to 163)"


def test_the_guess_of_a_step_knows_that_every_step_costs_something() -> None:
    """64, 96 and 128 wide on text in 4,096 tokens: 67, 61 (warm 54), 82 ms; in proportion to FLOPs 128 would take twice that."""
    guess = outlook._speed([(9e9, 0.9), (9e9, 0.055), (25e9, 0.085)])
    at = {flops: guess(Candidate("gpt2", "laptop", {}, "", 1, flops, 1)) for flops in (4.5e9, 9e9, 17e9, 25e9, 57e9)}
    assert at[9e9] == pytest.approx(0.055) and at[25e9] == pytest.approx(0.085)  # not the cold one
    assert at[17e9] == pytest.approx(0.07) and at[57e9] == pytest.approx(0.145) and 0.02 < at[4.5e9] <= 0.055
    turned = outlook._speed([(25e9, 0.9), (25e9, 0.085), (9e9, 0.055)])  # encoders: the other may be smaller
    assert turned(Candidate("gpt2", "laptop", {}, "", 1, 57e9, 1)) == pytest.approx(0.145)
    level = outlook._speed([(9e9, 0.9), (9e9, 0.06), (9e9, 0.05)])
    assert level(Candidate("gpt2", "laptop", {}, "", 1, 20e9, 1)) == pytest.approx(0.06)


class Encoders:
    """A bench that says what its candidates are, and reaches with each what it is told to."""

    base: dict = {}
    unit, seed, prior = "kNN error", 0, PRIOR

    def __init__(self, system: str, reached: float, slow: float = 0.01) -> None:
        self.system, self.reached, self.slow, self.store = system, reached, slow, type("", (), {"window": None})

    def candidates(self, left) -> list[Candidate]:
        made = [("of 16 channels", 1e5, {"conv_widths": 16}), ("of 32 channels", 4e5, {})]
        each = 1e4 if self.system == "simclr" else 5e3  # the other is cheaper, and comes first by cost alone
        return [Candidate(self.system, "small", over, size, int(n), n * each, 256) for size, n, over in made]

    def warm_up(self, candidate: Candidate) -> float:
        return self.slow

    def run(self, candidate: Candidate, seconds: float, each: float) -> Pilot:
        failed = "" if self.reached else "it diverged"
        return Pilot(candidate, 100, self.slow, 0.1, self.reached, self.reached, failed)


def benches(simclr: float) -> list[Any]:
    return [Encoders("simclr", simclr), Encoders("moco", 0.20)]


def test_of_encoders_what_the_rules_take_is_tried_first_and_stays_unless_it_is_beaten() -> None:
    found = look_out(benches(0.30), 20.0, 400.0, usual="simclr")
    assert isinstance(found, Outlook) and found.pilots[0].candidate.name == "simclr of 32 channels"
    assert found.candidate.system == "moco"
    untried = look_out(benches(0.0), 20.0, 400.0, usual="simclr")
    assert isinstance(untried, str) and "simclr of 32 channels, which the rules take" in untried


def test_text_that_will_be_seen_too_often_is_warned_of() -> None:
    best = Told(Candidate("gpt2", "laptop", {}, "", 1, 1.0, 4096), 1000, Forecast(4.0, 3.0, 5.0))
    assert not outlook._often(best, Setting(300.0, unique=1.1e6)) and not outlook._often(best, Setting(300.0))
    (said,) = outlook._often(best, Setting(300.0, unique=3e5))
    assert "14 times" in said and "shorter budget" in said
