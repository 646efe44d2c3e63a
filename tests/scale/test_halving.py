"""Choosing from pilots that are made up by a law, on a clock that is made up too."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st

from unlabeled.scale.forecast import Forecast
from unlabeled.scale.halving import (
    FEWEST_STEPS,
    Candidate,
    Pilot,
    Setting,
    Told,
    better_half,
    chosen,
    halve,
    rungs,
    tell,
)

RATE = 1e10  # FLOPs a second
BATCH = 1000


def candidates(*params: int, system: str = "gpt2") -> list[Candidate]:
    return [Candidate(system, "laptop", {"width": n}, f"{n}", n, 6 * n * BATCH, BATCH) for n in params]


SIZES = candidates(100_000, 300_000, 1_000_000, 3_000_000)


def loss(params: float, items: float) -> float:
    return 1.5 + 150 / params**0.5 + 300 / items**0.5


class World:
    """A clock, and pilots that take their time of it."""

    def __init__(self, seconds: float, overhead: float = 0.2, broken: tuple[str, ...] = ()) -> None:
        self.seconds, self.overhead, self.broken, self.ran = seconds, overhead, broken, []

    def left(self) -> float:
        return self.seconds

    def guess(self, candidate: Candidate) -> float:
        return candidate.flops / RATE

    def run(self, candidate: Candidate, seconds: float) -> Pilot:
        steps = max(1, round(seconds / self.guess(candidate)))
        cost = steps * self.guess(candidate) + self.overhead
        self.seconds -= cost
        if candidate.name in self.broken:
            pilot = Pilot(candidate, 0, math.nan, cost, failed="the loss was no finite number")
        else:
            at = loss(candidate.params, steps * BATCH)
            pilot = Pilot(candidate, steps, self.guess(candidate), cost, at, at + 0.01)
        self.ran.append(pilot)
        return pilot


def pilots_of(world: World, setting: Setting) -> list[Pilot]:
    return halve(SIZES, world.run, world.left, world.guess, setting)


def test_the_rungs_halve() -> None:
    assert rungs(6) == [6, 3, 1] and rungs(4) == [4, 2, 1] and rungs(3) == [3, 1] and rungs(2) == [2, 1]


def test_the_forecast_decides_and_not_the_loss_of_the_pilots() -> None:
    setting = Setting(training=40_000)
    pilots = pilots_of(World(2000), setting)
    first = {p.candidate.name: p.loss for p in pilots[:4]}
    told = tell(SIZES, pilots, setting)
    best, _ = chosen(told, SIZES[0])
    full = {c.name: loss(c.params, 40_000 / (c.flops / RATE) * BATCH) for c in SIZES}
    least = min(full.values())
    assert full[min(first, key=first.__getitem__)] > 1.08 * least  # short runs favour small models
    assert full[best.candidate.name] < 1.03 * least
    assert best.forecast.holds(full[best.candidate.name])


def test_runs_that_have_hardly_begun_are_no_points_of_the_law() -> None:
    """Large models stay on a plateau for their first steps; a law that goes through it foretells too much."""
    setting, pilots = Setting(training=40_000), pilots_of(World(2000), Setting(training=40_000))
    stuck = [replace(p, loss=p.loss + 2, tested=p.tested + 2) if p.steps < 300 else p for p in pilots]
    assert 0 < sum(a is not b for a, b in zip(pilots, stuck)) < len(pilots) - 2
    clean = [p for p in pilots if p.steps >= 300]
    assert [t.forecast for t in tell(SIZES[:3], stuck, setting)] == [
        t.forecast for t in tell(SIZES[:3], clean, setting)
    ]


def test_each_rung_takes_twice_the_time_and_half_the_candidates() -> None:
    pilots = pilots_of(World(2000), Setting(training=12000))
    assert len(pilots) == 7
    times = [p.steps * p.step_seconds for p in pilots]
    assert times[:4] == pytest.approx([times[0]] * 4, rel=0.1)
    assert times[4:6] == pytest.approx([2 * times[0]] * 2, rel=0.1)
    assert times[6] == pytest.approx(4 * times[0], rel=0.1)


@effort(max_examples=40, deadline=None)
@given(seconds=st.floats(0.1, 1500), overhead=st.floats(0, 5))
def test_pilots_keep_to_their_time(seconds: float, overhead: float) -> None:
    world = World(seconds, overhead)
    pilots = halve(SIZES, world.run, world.left, world.guess, Setting(training=1000), overhead=overhead)
    assert world.seconds >= -max([p.step_seconds for p in pilots], default=0)
    assert all(p.steps >= FEWEST_STEPS - 1 for p in pilots)


def test_no_time_for_two_is_no_pilots() -> None:
    world = World(1.0)
    assert pilots_of(world, Setting(training=1000)) == [] and world.seconds == 1.0


def test_a_guess_of_the_overhead_that_is_too_low_costs_pilots_and_no_time() -> None:
    world = World(200, overhead=4)
    pilots = pilots_of(world, Setting(training=1000))
    assert 1 <= len(pilots) < 12
    assert world.seconds > -5


def test_a_pilot_that_diverged_is_out() -> None:
    world, setting = World(2000, broken=("gpt2 3000000",)), Setting(training=12000)
    pilots = pilots_of(world, setting)
    assert [p.failed for p in pilots].count("the loss was no finite number") == 1  # and was not tried again
    told = tell(SIZES, pilots, setting)
    assert "gpt2 3000000" not in {t.candidate.name for t in told}
    assert len(told) == 3
    assert better_half(SIZES, pilots, setting, 4) and SIZES[3] not in better_half(SIZES, pilots, setting, 4)


def test_all_diverged_is_nothing_told() -> None:
    world = World(2000, broken=tuple(c.name for c in SIZES))
    assert tell(SIZES, pilots_of(world, Setting(training=600)), Setting(training=600)) == []


def test_a_size_without_pilot_is_told_by_law_and_speed() -> None:
    setting = Setting(training=12000)
    world = World(500)
    pilots = halve(SIZES[:3], world.run, world.left, world.guess, setting)
    told = {t.candidate.name: t for t in tell([*SIZES, *candidates(9_000_000)], pilots, setting)}
    assert "gpt2 9000000" not in told  # nine times the largest pilot
    far = told["gpt2 3000000"]
    assert far.steps == pytest.approx(12000 / (SIZES[3].flops / RATE), rel=0.01) and not far.pilots
    assert far.forecast.holds(loss(3e6, far.steps * BATCH))
    only = tell(SIZES, pilots, Setting(training=12000, any_size=False))
    assert {t.candidate.name for t in only} == {c.name for c in SIZES[:3]}


def test_a_size_with_no_time_for_its_schedule_is_not_told() -> None:
    pilots = pilots_of(World(2000), Setting(training=12000))
    assert {t.candidate.name for t in tell(SIZES, pilots, Setting(training=24))} == {"gpt2 100000", "gpt2 300000"}


def test_repeated_text_makes_a_longer_run_worth_less() -> None:
    pilots = pilots_of(World(2000), Setting(training=12000))
    endless, short = (tell(SIZES, pilots, Setting(12000, unique=u)) for u in (None, 1e5))
    assert all(a.forecast.value < b.forecast.value for a, b in zip(endless, short) if a.steps * BATCH > 1e6)


def test_two_systems_have_laws_of_their_own() -> None:
    other = candidates(100_000, 300_000, system="other")
    setting = Setting(training=600)

    def run(candidate: Candidate, steps: int) -> Pilot:
        at = loss(candidate.params, steps * BATCH) + (1 if candidate.system == "other" else 0)
        return Pilot(candidate, steps, candidate.flops / RATE, 1, at, at)

    pilots = [run(c, steps) for c in [*SIZES[:2], *other] for steps in (20, 40, 80)]
    told = {t.candidate.name: t.forecast.value for t in tell([*SIZES[:2], *other], pilots, setting)}
    assert told["other 100000"] - told["gpt2 100000"] == pytest.approx(1, abs=0.2)


def told(*values: float) -> list[Told]:
    return [Told(c, 1000, Forecast(v, v - 0.1, v + 0.1)) for c, v in zip(SIZES, values)]


def test_of_equals_the_usual_or_the_middle_one() -> None:
    assert chosen(told(2.0, 1.5, 1.6, 1.7), SIZES[0])[0].candidate is SIZES[1]
    best, equal = chosen(told(1.505, 1.5, 1.51, 1.7), SIZES[2])
    assert best.candidate is SIZES[2] and len(equal) == 3
    assert chosen(told(1.505, 1.5, 1.51, 1.7), SIZES[3])[0].candidate is SIZES[1]
    assert chosen(told(1.51, 1.6, 1.5, 1.7), SIZES[3])[0].candidate is SIZES[0]


def test_the_first_candidates_stay_where_there_is_not_time_for_all() -> None:
    world, setting = World(150), Setting(training=12000)
    pilots = halve([SIZES[1], SIZES[0], *SIZES[2:]], world.run, world.left, world.guess, setting)
    assert {p.candidate.name for p in pilots} == {"gpt2 300000", "gpt2 100000"}
    world = World(150)  # the slow one is first and takes too long beside any other
    assert halve([SIZES[3], SIZES[0]], world.run, world.left, world.guess, setting) == []


def test_the_speed_of_a_size_without_pilot_is_guessed_from_the_nearest() -> None:
    """A step costs something whatever its size: in proportion to FLOPs, large candidates would seem too slow."""
    small, larger = SIZES[0], SIZES[1]
    pilots = [Pilot(small, steps, 0.4, 40, at, at) for steps, at in ((100, 3.0), (200, 2.8))]

    def guess(candidate: Candidate) -> float:
        return 0.1 + candidate.flops / RATE  # 0.16 and 0.28 s; what ran was two and a half times as slow

    steps = {t.candidate.name: t.steps for t in tell([small, larger], pilots, Setting(1000, guess=guess))}
    assert steps == {small.name: 2500, larger.name: int(1000 / (0.28 * 0.4 / 0.16))}
    steps = {t.candidate.name: t.steps for t in tell([small, larger], pilots, Setting(1000))}
    assert steps[larger.name] == int(1000 / 1.2)
