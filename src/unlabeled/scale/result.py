"""What a fit returns, whichever law it is of: parameters with intervals, what was left out, how well it foretells, what speaks
against it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from unlabeled.scale.table import Excluded

__all__ = ["HeldOut", "Interval", "Result", "interval"]

Interval = tuple[float, float]


@dataclass(frozen=True)
class HeldOut:
    """How well the law, fitted without the largest runs, foretells them.

    what: on which column runs were held out, and from which value on. fitted, runs: how many were used and foretold. reach:
    largest held-out value over the largest fitted. mean_error, largest_error: relative errors of the target. baselines: mean
    relative error of `last` (the target of the largest fitted run) and `line` (a straight line, or plane, in the logarithms).
    covered: share of held-out runs inside the prediction interval, None without one. parameters: of the law fitted without
    them. points: of each held-out run its name, the value of the column, the target as measured and as foretold, and the
    prediction interval (nan without a bootstrap).
    """

    what: str
    fitted: int
    runs: int
    reach: float
    mean_error: float
    largest_error: float
    baselines: Mapping[str, float]
    parameters: Mapping[str, float]
    covered: float | None = None
    points: tuple[tuple[str, float, float, float, float, float], ...] = ()

    def json(self) -> dict[str, Any]:
        told = {k: dict(v) if isinstance(v, Mapping) else v for k, v in self.__dict__.items()}
        names = ("run", "at", "measured", "foretold", "low", "high")
        return told | {"points": [dict(zip(names, point)) for point in self.points]}


@dataclass(frozen=True, kw_only=True)
class Result:
    """law, formula, source: which law and where it is published. parameters: name -> value as people read it. objective: the
    misfit at the optimum, summed over runs. rows_used: runs fitted; rows_excluded: the others and why. level: of the intervals,
    which are percentiles of a bootstrap over runs; errors: standard deviations of the same. verdict: sentences on why the fit
    should not be trusted; none where nothing speaks against it. details: what this kind of fit has besides."""

    law: str
    formula: str
    source: str
    parameters: Mapping[str, float]
    objective: float
    rows_used: int
    rows_excluded: tuple[Excluded, ...] = ()
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    errors: Mapping[str, float] = field(default_factory=dict)
    level: float = 0.9
    heldout: HeldOut | None = None
    verdict: tuple[str, ...] = ()
    convention: str = ""
    units: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def trusted(self) -> bool:
        return not self.verdict

    def json(self) -> dict[str, Any]:
        """Plain values, nothing rounded; numbers that are none become null."""
        return _plain(
            {
                "law": self.law,
                "formula": self.formula,
                "source": self.source,
                "parameters": dict(self.parameters),
                "units": dict(self.units),
                "convention": self.convention,
                "objective": self.objective,
                "rows_used": self.rows_used,
                "rows_excluded": [{"run": e.run, "why": e.why} for e in self.rows_excluded],
                "intervals": dict(self.intervals),
                "level": self.level,
                "standard_errors": dict(self.errors),
                "heldout": self.heldout.json() if self.heldout else None,
                "verdict": {"trusted": self.trusted, "reasons": list(self.verdict)},
                "notes": list(self.notes),
                "details": dict(self.details),
            }
        )


def interval(draws: np.ndarray, level: float) -> Interval:
    """The middle share `level` of the draws that are finite; (nan, nan) where none is."""
    finite = draws[np.isfinite(draws)]
    if not len(finite):
        return math.nan, math.nan
    low, high = np.quantile(finite, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
