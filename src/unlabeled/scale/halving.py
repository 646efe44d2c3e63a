"""Which of several candidates will be best at the end of a long run, told from short runs: successive halving by forecast.

Successive halving (Jamieson and Talwalkar 2016, arXiv 1502.07943): every candidate runs for an equal time, the better half goes
on for twice as long, until one is left. Differs from it in:

- A pilot is a short run with a complete schedule, not a long one that is stopped: only then is it a point of a law.
- "Better" is the loss that the law of the pilots (`forecast.py`) foretells for the full length; the pilots' own losses favour
  whatever is small and quick, the more so the shorter they are.
- Candidates that are too slow for a pilot can be chosen all the same, by the law and by a speed carried on from the others.

What is run, and how it is measured, is `pilots.py`; here is arithmetic only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from unlabeled.scale.forecast import PRIOR, Forecast, Point, Posterior, Prior, effective, posterior

__all__ = ["FEWEST_STEPS", "Candidate", "Pilot", "Setting", "Told", "better_half", "chosen", "halve", "rungs", "tell"]

# Of a pilot. At first GPT-2 learns only how frequent tokens are, which is no point of a power law: on moby-dick, 64 wide, runs of
# 12, 25, 50, 100 and 200 steps end at 7.14, 6.55, 6.37, 5.75 and 5.30 nats per token. A law of the runs of at most 50 steps of
# three widths foretold 5.93 (5.59 to 6.25) for 200; one of two widths at 50 and one at 100 steps, 5.36 (5.06 to 5.75).
FEWEST_STEPS = 50
REACH = 8  # times as many parameters as the largest pilot, or as few, may a size without one have
FEWEST_FULL_STEPS = 50  # of the run that is chosen: with fewer its schedule is mostly warm-up
# A run that is so many times worse than the best is no point of the law: it has hardly begun to learn. GPT-2 in bytes on 24 MB of
# documentation (benchmarks/results/scale-study-gpt2.jsonl, 35 runs, budgets from 7.4e11 to 6.9e13 FLOPs): the runs of the fifth
# budget, foretold from all runs of the first two, three, four, miss by 10.2, 6.0 and 4.3 % on average; without those 25 % worse
# than the best by 1.5, 3.1 and 2.3 %, and the size that is then chosen is 0.6 % from the best instead of 5.4 %. 20 and 30 % do
# about as well, 15 % is worse. Decided on these runs alone.
FAR = 1.25
TIE = 0.01  # of the loss: about what two seeds differ by, so candidates this near are equal


@dataclass(frozen=True)
class Candidate:
    """What could be trained. overrides: of the variant. size: what tells it from others of its system, in words. params: with
    the head. flops: of a step. items: tokens or examples of a step."""

    system: str
    variant: str
    overrides: Mapping[str, Any]
    size: str
    params: int
    flops: float
    items: int

    @property
    def name(self) -> str:
        return f"{self.system} {self.size}".strip()


@dataclass(frozen=True)
class Pilot:
    """One short run. step_seconds: of a step, on average. seconds: all that it cost. loss: on training examples that no pilot
    trains on, which choose; tested: on the test split, which only the forecast is of. failed: why it does not count, or ""."""

    candidate: Candidate
    steps: int
    step_seconds: float
    seconds: float
    loss: float = math.nan
    tested: float = math.nan
    failed: str = ""

    @property
    def items(self) -> int:
        return self.steps * self.candidate.items

    def to_dict(self) -> dict[str, Any]:
        measured = {} if self.failed else {"loss": self.loss, "tested": self.tested}
        return {
            "name": self.candidate.name,
            "params": self.candidate.params,
            "steps": self.steps,
            "items": self.items,
            "step_seconds": self.step_seconds,
            "seconds": self.seconds,
            **measured,
            "failed": self.failed,
        }


@dataclass(frozen=True)
class Setting:
    """What a candidate meets at full length. training: seconds. unique: different items, where repetition counts less, or None.
    any_size: whether candidates without a pilot may be chosen. guess: seconds of a step before any pilot, which say how those of
    candidates without one lie to the others'; None where seconds are in proportion to FLOPs."""

    training: float
    unique: float | None = None
    any_size: bool = True
    guess: Callable[[Candidate], float] | None = None
    prior: Prior = PRIOR
    seed: int = 0

    def worth(self, items: float) -> float:
        return items if self.unique is None else effective(items, self.unique)


@dataclass(frozen=True)
class Told:
    """A candidate at full length: steps that there is time for, and the loss it is foretold to have."""

    candidate: Candidate
    steps: int
    forecast: Forecast
    pilots: tuple[Pilot, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.candidate.name,
            "params": self.candidate.params,
            "steps": self.steps,
            "forecast": self.forecast.to_dict(),
            "pilots": len(self.pilots),
        }


def rungs(count: int) -> list[int]:
    """How many candidates run on each rung: all, half, a quarter, until one."""
    found = [count]
    while found[-1] > 1:
        found.append(found[-1] // 2)
    return found


def _share(left: float, plan: Sequence[int], overhead: float) -> float:
    """Seconds of training for a pilot of the first rung of the plan, the rungs after it taking twice as long each."""
    return (left - overhead * sum(plan)) / sum(count * 2**rung for rung, count in enumerate(plan))


def halve(
    candidates: Sequence[Candidate],
    run: Callable[[Candidate, float], Pilot],
    left: Callable[[], float],
    step_seconds: Callable[[Candidate], float],
    setting: Setting,
    overhead: float = 0.3,
) -> list[Pilot]:
    """Run pilots; [] where there is no time for two candidates.

    candidates: where there is not time for all, the first ones stay. run: trains a candidate for so many seconds and measures
    it. left: seconds left for all of it. step_seconds: a guess before the first pilot. overhead: a guess of what a pilot costs
    besides training. Ends early where the time is gone.
    """
    going = list(candidates)
    while len(going) > 1 and _share(left(), rungs(len(going)), overhead) < FEWEST_STEPS * max(map(step_seconds, going)):
        going.pop()
    pilots: list[Pilot] = []
    if len(going) < 2:
        return pilots
    plan = rungs(len(going))
    costs: list[float] = []
    for rung in range(len(plan)):
        for place, candidate in enumerate(going):
            rest = [len(going) - place, *plan[rung + 1 :]]
            share = _share(left(), rest, overhead)
            known = [p.step_seconds for p in pilots if p.candidate.name == candidate.name and not p.failed]
            if share < FEWEST_STEPS * (known[-1] if known else step_seconds(candidate)):
                if pilots:
                    continue
                return pilots
            pilots.append(run(candidate, share))
            if not pilots[-1].failed:
                costs.append(max(0.0, pilots[-1].seconds - pilots[-1].steps * pilots[-1].step_seconds))
                overhead = float(np.mean(costs))
        if rung + 1 < len(plan):
            going = better_half(going, pilots, setting, plan[rung + 1])
            if not going:
                break
    return pilots


def better_half(going: Sequence[Candidate], pilots: Sequence[Pilot], setting: Setting, count: int) -> list[Candidate]:
    """The candidates that go on: foretold to be best at full length; where there is no law, best until now."""
    failed = {p.candidate.name for p in pilots if p.failed}
    sound = [c for c in going if c.name not in failed and any(p.candidate.name == c.name for p in pilots)]
    told = {t.candidate.name: t.forecast.value for t in tell(sound, pilots, setting)}
    if len(told) < len(sound):
        told = {c.name: min(p.loss for p in pilots if p.candidate.name == c.name) for c in sound}
    return sorted(sound, key=lambda c: told[c.name])[:count]


def tell(candidates: Sequence[Candidate], pilots: Sequence[Pilot], setting: Setting, test: bool = False) -> list[Told]:
    """The forecast of each candidate, system by system, by the pilots' losses, or by those on the test split; without those of
    which there is none: a failed pilot, no pilot of the system, no law, no time."""
    told: list[Told] = []
    for system in dict.fromkeys(c.system for c in candidates):
        sound = [p for p in pilots if p.candidate.system == system and not p.failed]
        failed = {p.candidate.name for p in pilots if p.failed}
        own = [c for c in candidates if c.system == system and c.name not in failed]
        near = [p.candidate.params for p in sound]
        own = [c for c in own if near and min(near) / REACH <= c.params <= max(near) * REACH]
        if not setting.any_size:
            own = [c for c in own if any(p.candidate.name == c.name for p in sound)]
        steps = {c.name: int(setting.training / _seconds(c, sound, setting.guess)) for c in own} if sound else {}
        own = [c for c in own if steps.get(c.name, 0) >= FEWEST_FULL_STEPS]
        law = _law(own, sound, steps, setting, test)
        for c in own if law else ():
            assert law is not None
            forecast = law.forecast(c.params, setting.worth(steps[c.name] * c.items))
            told.append(Told(c, steps[c.name], forecast, tuple(p for p in sound if p.candidate.name == c.name)))
    return told


def _law(
    own: Sequence[Candidate], sound: Sequence[Pilot], steps: Mapping[str, int], setting: Setting, test: bool
) -> Posterior | None:
    points = [
        Point(p.candidate.params, setting.worth(p.items), p.tested if test else p.loss)
        for p in sound
        if math.isfinite(p.tested if test else p.loss) and (p.tested if test else p.loss) > 0
    ]
    if not own or not points:
        return None
    least = min(p.loss for p in points)
    points = [p for p in points if p.loss <= FAR * least]
    middle = np.exp(
        np.mean([[math.log(c.params), math.log(setting.worth(steps[c.name] * c.items))] for c in own], axis=0)
    )
    sized = len({c.params for c in own} | {p.params for p in points}) > 1
    return posterior(points, *middle.tolist(), seed=setting.seed, prior=setting.prior, sized=sized)


def _seconds(candidate: Candidate, pilots: Sequence[Pilot], guess: Callable[[Candidate], float] | None) -> float:
    """Of a step of a candidate: as its longest pilot had it, else as guessed, times how much slower than guessed the pilots
    were that are nearest to it in FLOPs."""
    own = [p for p in pilots if p.candidate.name == candidate.name]
    if own:
        return max(own, key=lambda p: p.steps).step_seconds

    def of(c: Candidate) -> float:
        return c.flops if guess is None else guess(c)

    near = min(pilots, key=lambda p: (abs(math.log(p.candidate.flops / candidate.flops)), -p.steps))
    return of(candidate) * near.step_seconds / of(near.candidate)


def chosen(told: Sequence[Told], usual: Candidate) -> tuple[Told, list[Told]]:
    """What is foretold to be best, and all that are as good: within `TIE` of it. Of equals the usual one, which the rules alone
    would have taken; else the middle one by size.

    Raises:
        ValueError: where nothing was told.
    """
    best = min(t.forecast.value for t in told)
    equal = sorted((t for t in told if t.forecast.value <= best * (1 + TIE)), key=lambda t: t.candidate.params)
    same = [t for t in equal if t.candidate.name == usual.name]
    return (same or [equal[(len(equal) - 1) // 2]])[0], equal
