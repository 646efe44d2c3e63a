"""Plan a sweep: which sizes, each for how long, so that the whole fits a budget and a law can be fitted to it.

    isoflop   a few budgets of FLOPs; at each, sizes around the guess of the best one (Hoffmann et al. 2022, approach 2)
    grid      sizes x lengths (approach 3)
    ladder    sizes at one ratio of tokens to parameters (Gadre et al. 2024)

What a size costs is measured by the survey (`survey.py`); the rest is arithmetic on it, so that a plan can be centred anew
without measuring. Every run warms up over as many tokens as there are parameters, and at most a twentieth of the run (Porian et
al. 2024), and its learning rate decays over exactly the length of the run.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from unlabeled.core.clock import Duration
from unlabeled.core.config import from_dict
from unlabeled.core.errors import UserError, suggest
from unlabeled.engine.record import write_atomically
from unlabeled.scale.heldout import Measure
from unlabeled.scale.survey import Convention, Size, Survey, survey

__all__ = ["Design", "Plan", "Planned", "lay_out", "plan", "recentred", "target"]

Design = Literal["isoflop", "grid", "ladder", "target"]

WARMUP = 0.05  # of a run, at most
FEWEST_STEPS, FEW_STEPS = 50, 200  # of a run: refused below the first, cautioned of below the second
FEWEST_SIZES = 4  # of a budget; three points fit any parabola
FILL = 0.9  # of a budget in time is planned for: pilots are short, and runs share the machine


@dataclass(frozen=True)
class Planned:
    """One run. group: place of its budget (isoflop), length (grid) or size (ladder), from 0."""

    name: str
    group: int
    overrides: Mapping[str, Any]
    seed: int
    steps: int
    batch: int
    lr: float | None
    params: Mapping[str, int]
    examples: int
    tokens: int
    flops: float
    seconds: float


@dataclass(frozen=True)
class Plan:
    """A sweep that was decided on. cautions: sentences for whoever reads it."""

    design: Design
    budget: str
    survey: Survey
    runs: tuple[Planned, ...]
    asked: Mapping[str, Any]
    cautions: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        """Wall clock of the whole, with its workers."""
        return sum(run.seconds for run in self.runs) / self.survey.workers

    @property
    def flops(self) -> float:
        return sum(run.flops for run in self.runs)

    @property
    def groups(self) -> int:
        return 1 + max(run.group for run in self.runs)

    def to_dict(self) -> dict[str, Any]:
        said = {"unlabeled_plan": 1} | json.loads(json.dumps(asdict(self)))
        return said | {"seconds": self.seconds, "flops": self.flops}

    def write(self, path: str | Path) -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(Path(path), json.dumps(self.to_dict(), indent=1))

    @classmethod
    def read(cls, path: str | Path) -> Plan:
        """The plan of a file, or of a folder that holds plan.json.

        Raises:
            UserError: where it is none.
        """
        file = Path(path) / "plan.json" if Path(path).is_dir() else Path(path)
        try:
            said = json.loads(file.read_text())
            sizes = tuple(from_dict(Size, s) for s in said["survey"]["sizes"])
            return cls(
                said["design"],
                said["budget"],
                replace(from_dict(Survey, said["survey"]), sizes=sizes),
                tuple(from_dict(Planned, r) for r in said["runs"]),
                said["asked"],
                tuple(said["cautions"]),
            )
        except (OSError, ValueError, KeyError, TypeError, UserError) as error:
            raise UserError(f"{path} is no plan; make one with: unlabeled scale plan --out {path}") from error


# ---- planning ------------------------------------------------------------------------------------------------------------


def plan(
    system: str,
    data: str | Path,
    budget: str,
    *,
    design: Design = "isoflop",
    budgets: int = 4,
    sizes: int = 6,
    spacing: float = 1.8,
    ratio: float = 3.0,
    items_per_parameter: float | None = None,
    smallest: int = 10_000,
    largest: int = 3_000_000,
    seeds: Sequence[int] = (0,),
    workers: int = 1,
    convention: Convention = "with_head",
    measure: Measure = "loss",
    batch: int | None = None,
    lr: float | None = None,
    scored: int | None = None,
    variant: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    shapes: Sequence[Mapping[str, Any]] | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Plan:
    """Plan a sweep of a system over data that fits a budget ("2h", or "3e13flops" in all).

    budgets, ratio: isoflop's budgets (grid: lengths) and the factor between them. sizes, spacing: of each budget, and the factor
    between them. items_per_parameter: tokens or examples per parameter where the first guess of the best size is (ladder, grid:
    of the runs). measure: what laws are to be fitted to: the held-out loss or, of an encoder on data with classes, the error of
    20 nearest neighbours. lr: at the family's own width; other widths follow its rule. shapes: for a system without a family, or
    instead of it, the overrides of each size from small to large; their learning rates stay as configured, or all `lr`.

    Raises:
        UserError: where it does not fit; says what to change.
    """
    found = survey(
        system,
        data,
        smallest=smallest,
        largest=largest,
        workers=workers,
        convention=convention,
        measure=measure,
        batch=batch,
        lr=lr,
        scored=scored,
        variant=variant,
        overrides=overrides,
        shapes=shapes,
        say=say,
    )
    if items_per_parameter:
        found = replace(found, items=items_per_parameter)
    return lay_out(
        found, budget, design=design, budgets=budgets, sizes=sizes, spacing=spacing, ratio=ratio, seeds=tuple(seeds)
    )


def lay_out(
    found: Survey,
    budget: str,
    *,
    design: Design = "isoflop",
    budgets: int = 4,
    sizes: int = 6,
    spacing: float = 1.8,
    ratio: float = 3.0,
    seeds: Sequence[int] = (0,),
) -> Plan:
    """The largest sweep of this design that fits the budget; arguments as those of `plan`.

    Raises:
        UserError: where none fits, or the sizes there are do not reach around the best one.
    """
    whole = Duration.parse(budget)
    if whole.unit not in ("seconds", "flops"):
        raise UserError(f"A sweep is planned for a time or for FLOPs in all, such as 2h or 3e13flops, not {budget}.")
    if design not in ("isoflop", "grid", "ladder"):
        raise UserError(
            f"A design is isoflop, grid or ladder, not {design!r}{suggest(design, ('isoflop', 'grid', 'ladder'))}"
        )
    if not 1.2 <= spacing <= 4 or not 1.2 <= ratio <= 10 or sizes < FEWEST_SIZES or budgets < 1 or not seeds:
        raise UserError(
            f"A sweep needs {FEWEST_SIZES} sizes or more that lie a factor of 1.2 to 4 apart, and budgets a factor of 1.2 to 10."
        )
    if len(found.sizes) < FEWEST_SIZES:
        n = ", ".join(f"{found.n(s):,}" for s in found.sizes)
        raise UserError(
            f"{found.system} has only the sizes {n or 'none'} within the limits, and a law needs {FEWEST_SIZES}: widen "
            "--smallest and --largest."
        )
    asked = {"budgets": budgets, "sizes": sizes, "spacing": spacing, "ratio": ratio, "seeds": list(seeds)}

    def runs(scale: float) -> list[Planned]:
        """Every run, at a scale that is the largest budget in FLOPs (isoflop) or the largest size."""
        if design == "isoflop":
            made = _isoflop(found, [scale / ratio ** (budgets - 1 - j) for j in range(budgets)], sizes, spacing)
        else:
            made = _by_size(found, scale, design, budgets, sizes, spacing, ratio)
        return [_planned(found, *one, seed) for one in made for seed in seeds]

    def cost(scale: float) -> float:
        made = runs(scale)
        return sum(r.flops for r in made) if whole.unit == "flops" else sum(r.seconds for r in made) / found.workers

    room = whole.amount * (FILL if whole.unit == "seconds" else 1.0)
    low, high = _limits(found, design, budgets, sizes, spacing, ratio)
    if cost(low) > room:
        least = cost(low) / (FILL if whole.unit == "seconds" else 1.0)
        least_said = f"{math.ceil(least / 60)}m" if whole.unit == "seconds" else f"{least:.1e}flops"
        what = f"{budgets} budgets of {sizes} sizes" if design == "isoflop" else f"a {design} of {sizes} sizes"
        raise UserError(
            f"{budget} is too little for {what}: give {least_said} or more, or ask for less with --budgets, --sizes and --seeds."
        )
    cautions = []
    if cost(high) <= room:
        scale = high
        cautions.append(
            f"The sizes up to {found.n(found.sizes[-1]):,} parameters need a part of {budget} only; raise --largest."
        )
    else:
        scale = low
        for _ in range(40):
            middle = math.sqrt(low * high)
            low, high = (middle, high) if cost(middle) <= room else (low, middle)
            scale = low
    made = runs(scale)
    repeats = max(r.examples for r in made) / found.unique
    if repeats > 4:
        cautions.append(
            f"The longest run sees its data {repeats:.0f} times; beyond four times, repeated data is worth less than new "
            "(Muennighoff et al. 2023)."
        )
    if (shortest := min(r.steps for r in made)) < FEW_STEPS:
        cautions.append(
            f"The shortest run has {shortest} steps; with so few, the loss says as much of the batch as of the size: a longer "
            "budget or a smaller batch mends it."
        )
    return Plan(design, budget, found, tuple(made), asked, tuple(cautions))


def target(found: Survey, flops: float, params: float, seeds: Sequence[int] = (0,)) -> Plan:
    """One run, of the size next to `params` for so many FLOPs: a forecast is written down, then this is run.

    Raises:
        UserError: where it would have too few steps.
    """
    size = min(found.sizes, key=lambda s: abs(math.log(found.n(s) / params)))
    steps = round(flops / _step_flops(found, size))
    if steps < FEWEST_STEPS:
        raise UserError(
            f"{flops:.1e} FLOPs are {steps} steps of {found.n(size):,} parameters; give more, or a smaller size."
        )
    runs = tuple(_planned(found, "target", 0, size, steps, seed) for seed in seeds)
    return Plan("target", f"{flops:.6g}flops", found, runs, {"params": params, "seeds": list(seeds)})


def recentred(old: Plan, rows: Sequence[Mapping[str, Any]], done: int) -> Plan:
    """An isoFLOP plan whose budgets after the first `done` have their sizes around what the finished ones found.

    rows: of the finished runs, with `group`, `params`, `loss`. The best size of a budget is the vertex of a parabola in log size,
    or the size at the edge where the loss still falls; it goes to the next budgets by the square root of their ratio.
    """
    if old.design != "isoflop" or done >= old.groups:
        return old
    found, asked = old.survey, old.asked
    known = [(g, best) for g in range(done) if (best := _best_size([r for r in rows if r["group"] == g])) is not None]
    if not known:
        return old
    group, best = known[-1]
    totals = [next(r.flops for r in old.runs if r.group == g) for g in range(old.groups)]
    runs = [r for r in old.runs if r.group < done]
    for g in range(done, old.groups):
        centre = best * math.sqrt(totals[g] / totals[group])
        for one in _at_budget(found, totals[g], g, centre, asked["sizes"], asked["spacing"]):
            runs += [_planned(found, *one, seed) for seed in asked["seeds"]]
    return replace(old, runs=tuple(runs))


def _best_size(rows: Sequence[Mapping[str, Any]]) -> float | None:
    if len(rows) < 3:
        return None
    x = np.log([r["params"] for r in rows])
    y = np.array([r["loss"] for r in rows], float)
    near = np.abs(x - x[y.argmin()]) <= math.log(8)
    if near.sum() >= 3:
        curvature, slope, _ = np.polyfit(x[near], y[near], 2)
        if curvature > 0:
            return float(np.exp(np.clip(-slope / (2 * curvature), x.min(), x.max())))
    return float(np.exp(x[y.argmin()]))


# ---- the arithmetic ------------------------------------------------------------------------------------------------------

_Made = tuple[str, int, Size, int]  # name without the seed, group, size, steps


def _step_flops(found: Survey, size: Size) -> float:
    return size.flops * found.batch


def _guess(found: Survey, flops: float) -> float:
    """The size at which so many FLOPs buy `items` per parameter, between and beyond the sizes there are."""
    n = np.log([found.n(s) for s in found.sizes])
    cost = np.log([found.n(s) * found.items / found.per_example * s.flops for s in found.sizes])
    slope = np.polyfit(cost, n, 1)[0]
    x = math.log(flops)
    if x < cost[0]:
        return float(np.exp(n[0] + slope * (x - cost[0])))
    if x > cost[-1]:
        return float(np.exp(n[-1] + slope * (x - cost[-1])))
    return float(np.exp(np.interp(x, cost, n)))


def _window(found: Survey, centre: float, sizes: int, spacing: float) -> list[Size]:
    """So many sizes around a centre; the window is moved inside the sizes there are.

    Raises:
        UserError: where fewer than four differ.
    """
    n = np.log([found.n(s) for s in found.sizes])
    half = (sizes - 1) / 2 * math.log(spacing)
    middle = float(np.clip(math.log(centre), n[0] + half, max(n[0] + half, n[-1] - half)))
    picked = sorted({int(np.abs(n - (middle + d)).argmin()) for d in np.linspace(-half, half, sizes)})
    if len(picked) < FEWEST_SIZES:
        raise UserError(
            f"Only {len(picked)} sizes of {found.system} lie around {centre:,.0f} parameters; raise --spacing, or widen "
            "--smallest and --largest."
        )
    return [found.sizes[i] for i in picked]


def _at_budget(found: Survey, flops: float, group: int, centre: float, sizes: int, spacing: float) -> list[_Made]:
    return [
        (f"c{group + 1}-n{i + 1}", group, size, max(1, round(flops / _step_flops(found, size))))
        for i, size in enumerate(_window(found, centre, sizes, spacing))
    ]


def _isoflop(found: Survey, flops: Sequence[float], sizes: int, spacing: float) -> list[_Made]:
    return [one for g, c in enumerate(flops) for one in _at_budget(found, c, g, _guess(found, c), sizes, spacing)]


def _by_size(
    found: Survey, top: float, design: Design, lengths: int, sizes: int, spacing: float, ratio: float
) -> list[_Made]:
    """A ladder: items in proportion to the size. A grid: the same lengths for all sizes, around that of the middle one."""
    half = spacing ** ((sizes - 1) / 2)
    picked = _window(found, top / half, sizes, spacing)
    if design == "ladder":
        return [
            (f"n{i + 1}", i, s, max(1, round(found.items * found.n(s) / found.per_example / found.batch)))
            for i, s in enumerate(picked)
        ]
    middle = math.sqrt(found.n(picked[0]) * found.n(picked[-1])) * found.items / found.per_example / found.batch
    return [
        (f"d{j + 1}-n{i + 1}", j, s, max(1, round(middle * ratio ** (j - (lengths - 1) / 2))))
        for j in range(lengths)
        for i, s in enumerate(picked)
    ]


def _limits(
    found: Survey, design: Design, budgets: int, sizes: int, spacing: float, ratio: float
) -> tuple[float, float]:
    """The least and the greatest scale: no run under the fewest steps, the guess inside the window at every budget.

    Raises:
        UserError: where the sizes there are leave no room.
    """
    n_low, n_high = found.n(found.sizes[0]), found.n(found.sizes[-1])
    half = spacing ** ((sizes - 1) / 2)
    if design != "isoflop":
        low, high = n_low * half * half, float(n_high)
        if low > high * 1.05:
            raise UserError(
                f"{sizes} sizes a factor of {spacing:g} apart do not fit between {n_low:,} and {n_high:,} parameters; lower "
                "--sizes or --spacing, or raise --largest."
            )

        def enough(scale: float) -> bool:
            return min(m[3] for m in _by_size(found, scale, design, budgets, sizes, spacing, ratio)) >= FEWEST_STEPS

    else:

        def at(size: float) -> float:
            """FLOPs at which the guess is this size."""
            a, b = 1.0, 1e30
            for _ in range(100):
                m = math.sqrt(a * b)
                a, b = (m, b) if _guess(found, m) < size else (a, m)
            return a

        # The guess is one step or more from the edge of the window: at the smallest budget above, at the largest below.
        low, high = at(n_low * spacing) * ratio ** (budgets - 1), at(n_high / spacing)
        if low > high * 1.05 or n_low * half * half > n_high * 1.05:
            raise UserError(
                f"The best sizes of {budgets} budgets a factor of {ratio:g} apart do not all lie between {n_low:,} and "
                f"{n_high:,} parameters with sizes on both sides; lower --budgets or --ratio, or widen --smallest and --largest."
            )

        def enough(scale: float) -> bool:
            return min(m[3] for m in _isoflop(found, [scale / ratio ** (budgets - 1)], sizes, spacing)) >= FEWEST_STEPS

    high = max(low, high)
    while low < high and not enough(low):
        low = min(high, low * 1.1)
    if not enough(low):
        raise UserError(
            f"Runs of {found.system} would have fewer than {FEWEST_STEPS} steps of {found.batch}; give a smaller --batch or more "
            "items per parameter."
        )
    return low, high


def _planned(found: Survey, name: str, group: int, size: Size, steps: int, seed: int) -> Planned:
    examples = steps * found.batch
    overrides = dict(size.overrides)
    if found.warmup == "share":
        overrides["warmup"] = round(min(WARMUP, found.n(size) / (examples * found.per_example)), 6)
    elif found.warmup == "examples":
        overrides["warmup_examples"] = round(WARMUP * examples, 1)
    seconds = steps * size.seconds + found.held_out * size.scoring + found.overhead
    return Planned(
        f"{name}-s{seed}",
        group,
        overrides,
        seed,
        steps,
        found.batch,
        size.lr,
        size.params,
        examples,
        examples * found.tokens,
        steps * _step_flops(found, size),
        seconds,
    )
