"""What dropping examples does: the theory of a perceptron that learns from a ranked set, and curves of measured errors.

Sorscher, Geirhos, Shekhar, Ganguli, Morcos 2022 (arXiv 2206.14486). Theory (their section 2): a teacher T labels Gaussian points;
a probe at an angle theta from T ranks them by margin; the student is the perceptron of greatest margin on the fraction kept, and
errs with probability angle(student, T) / pi. With few points the easy ones serve best, with many the hard ones.

The student is found by Newton's method on the squared hinge with a penalty that grows towards the hard margin (Keerthi and
DeCoste, JMLR 6, 2005), which for some hundred dimensions takes milliseconds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from unlabeled.core.errors import UserError
from unlabeled.scale.fit import Fit, fit_law
from unlabeled.scale.laws import Columns, Law, power
from unlabeled.scale.result import Result
from unlabeled.scale.table import Excluded, Table

__all__ = ["Keep", "PruningCurve", "exponential", "fit_pruning", "largest_margin", "perceptron"]

Keep = Literal["hard", "easy", "random"]


def perceptron(
    alpha: float,
    fraction: float = 1.0,
    keep: Keep = "hard",
    *,
    theta: float = 0.0,
    size: int = 100,
    seeds: Sequence[int] = (0, 1, 2),
) -> float:
    """Test error of the student, a mean over seeds.

    alpha: examples for each of `size` dimensions before pruning. fraction: that is kept: the smallest margins (hard), the
    greatest (easy) or any (random). theta: angle in radians between the probe that ranks and the teacher; 0 is a perfect ranking.
    """
    errors = []
    for seed in seeds:
        random = np.random.default_rng(seed)
        teacher = random.standard_normal(size)
        teacher /= np.linalg.norm(teacher)
        points = random.standard_normal((max(1, round(alpha * size)), size))
        labels = np.sign(points @ teacher)
        across = random.standard_normal(size)
        across -= across @ teacher * teacher
        probe = math.cos(theta) * teacher + math.sin(theta) * across / np.linalg.norm(across)
        margin = np.abs(points @ probe)
        if keep == "random":
            margin = random.random(len(points))
        order = np.argsort(-margin if keep == "easy" else margin, kind="stable")[
            : max(1, round(fraction * len(points)))
        ]
        student = largest_margin(points[order], labels[order])
        cosine = student @ teacher / np.linalg.norm(student)
        errors.append(math.acos(float(np.clip(cosine, -1, 1))) / math.pi)
    return float(np.mean(errors))


def largest_margin(points: np.ndarray, labels: np.ndarray, *, penalty: float = 1e6) -> np.ndarray:
    """The direction (size,) of greatest margin through the origin, for points (n, size) and labels -1 or 1 that a plane divides.

    Minimises |w|^2 / 2 + penalty / 2 sum max(0, 1 - y w.x)^2, whose minimum goes to the hard margin as the penalty grows.
    """
    signed = points * labels[:, None]
    size = points.shape[1]
    weights = np.zeros(size)
    for strength in np.geomspace(1.0, penalty, 7):
        for _ in range(100):
            short = 1 - signed @ weights
            inside = signed[short > 0]
            slope = weights - strength * (short[short > 0] @ inside)
            if np.linalg.norm(slope) <= 1e-9 * max(strength, 1.0) * max(1.0, float(np.linalg.norm(weights))):
                break
            if len(inside) < size:  # the smaller of the two systems (Woodbury)
                inner = inside @ inside.T + np.eye(len(inside)) / strength
                step = -slope + inside.T @ np.linalg.solve(inner, inside @ slope)
            else:
                step = -np.linalg.solve(np.eye(size) + strength * inside.T @ inside, slope)
            length = _exact(short, -(signed @ step), weights, step, strength)
            weights = weights + length * step
            if length * np.linalg.norm(step) <= 1e-12 * np.linalg.norm(weights):
                break
    return weights


def _exact(short: np.ndarray, change: np.ndarray, weights: np.ndarray, step: np.ndarray, strength: float) -> float:
    """Length along the step at which the (convex, piecewise quadratic) cost is least; short(t) = short + t change."""
    low, high = 0.0, 1.0
    ahead, square = float(weights @ step), float(step @ step)

    def slope(t: float) -> float:
        gap = short + t * change
        over = gap > 0
        return ahead + t * square + strength * float(gap[over] @ change[over])

    while slope(high) < 0 and high < 1e6:
        low, high = high, 2 * high
    if low == 0.0 and abs(slope(1.0)) <= 1e-12 * abs(slope(0.0)):
        return 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return (low + high) / 2


# --- measured curves --------------------------------------------------------------------------------------------------------


def exponential(column: str = "examples", target: str = "loss") -> Law:
    """y = A exp(-x / c): what a power law becomes where the best fraction is kept at every size (their section 2.3)."""

    def starts(columns: Columns, y: Tensor) -> Tensor:
        x = columns[column]
        rates = (0.1, 1.0, 3.0, 10.0)
        return torch.tensor([[float(y.max().log()), r / float(x.max())] for r in rates], dtype=torch.float64)

    return Law(
        name="exponential",
        formula=f"{target} = A exp(-{column} / c)",
        source="Sorscher et al. 2022, arXiv 2206.14486",
        inputs=(column,),
        parameters=("a", "rate"),
        shown=lambda t: {"A": t[:, 0].exp(), "c": 1 / t[:, 1]},
        starts=starts,
        units={"A": f"unit of {target}", "c": column},
        terms=lambda c: [torch.stack([torch.ones_like(c[column]), -c[column]], 1)],
        target=target,
    )


@dataclass(frozen=True, kw_only=True)
class PruningCurve(Result):
    """The frontier of error against kept examples, by the law that foretells its largest sizes better. power, exponential: both
    fits. frontier: (points, 3) kept examples, error, fraction kept."""

    power: Fit
    exponential: Fit
    frontier: np.ndarray


def fit_pruning(table: Table, *, draws: int = 1000, level: float = 0.9, seed: int = 0) -> PruningCurve:
    """For each kept size the least error over fractions and directions, then a power law against an exponential.

    table: columns examples (kept) and loss (an error), and optionally kept (the fraction) and the label keep
    (hard, easy, random). The law with the smaller held-out error is the result.

    Raises:
        UserError: where the frontier has fewer than five sizes.
    """
    table.need(("examples",))
    sizes = np.unique(table["examples"])
    rows = np.array(
        [np.flatnonzero(table["examples"] == s)[table["loss"][table["examples"] == s].argmin()] for s in sizes]
    )
    if len(rows) < 5:
        raise UserError(
            f"{table.source} has {len(rows)} numbers of kept examples; five are the least to tell two laws apart."
        )
    beaten = np.setdiff1d(np.arange(len(table)), rows)
    gone = tuple(Excluded(table.names[i], "another run kept as many examples and errs less") for i in beaten)
    best = table.rows(rows)
    # a frontier only falls: a larger set that errs more is no part of it
    lowest = np.minimum.accumulate(best["loss"])
    rising = best["loss"] > lowest
    best = best.without(rising, "fewer examples err less")
    if len(best) < 5:
        raise UserError(
            f"{table.source}: the frontier has {len(best)} sizes; five are the least to tell two laws apart."
        )
    slow = fit_law(best, power("examples", floor=False), draws=draws, level=level, seed=seed)
    fast = fit_law(best, exponential("examples"), draws=draws, level=level, seed=seed)
    errors = {f.law: (f.heldout.mean_error if f.heldout else math.nan) for f in (slow, fast)}
    chosen = fast if errors["exponential"] < errors["power"] else slow
    said = [s for s in chosen.verdict if "straight line" not in s]  # of a power law that IS the line
    close = abs(errors["exponential"] - errors["power"]) < 0.2 * max(errors.values())
    if close:
        said.append(
            "Power law and exponential foretell the largest sizes about equally well: this range does not tell them apart."
        )
    details = {"heldout_error": errors, "chosen": chosen.law, "directions": _directions(table)}
    kept = best["kept"] if "kept" in best else np.full(len(best), math.nan)
    return PruningCurve(
        law="pruning",
        formula=f"{chosen.formula} on the frontier; against {fast.formula if chosen is slow else slow.formula}",
        source="Sorscher et al. 2022, arXiv 2206.14486",
        parameters=chosen.parameters,
        objective=chosen.objective,
        rows_used=len(best),
        rows_excluded=(*best.excluded, *gone),
        intervals=chosen.intervals,
        errors=chosen.errors,
        level=level,
        heldout=chosen.heldout,
        verdict=tuple(said),
        units=chosen.units,
        notes=(*table.notes, "examples are those kept."),
        details=details,
        power=slow,
        exponential=fast,
        frontier=np.stack([best["examples"], best["loss"], kept], 1),
    )


def _directions(table: Table) -> list[dict[str, float | str]]:
    """Mean error of each fraction and direction, less that of random at the same fraction and size."""
    if "keep" not in table.labels or "kept" not in table:
        return []
    found: list[dict[str, float | str]] = []
    for size in np.unique(table["examples"]):
        for fraction in np.unique(table["kept"]):
            same = (table["examples"] == size) & (table["kept"] == fraction)
            chance = table["loss"][same & (table.labels["keep"] == "random")]
            for keep in sorted(set(table.labels["keep"][same]) - {"random"}):
                mine = table["loss"][same & (table.labels["keep"] == keep)]
                if len(chance) and len(mine):
                    gain = float(chance.mean() - mine.mean())
                    found.append({"examples": float(size), "kept": float(fraction), "keep": str(keep), "gain": gain})
    return found
