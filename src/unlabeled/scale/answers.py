"""What an adviser answers: estimates with intervals over the bootstrap of a fit, one dataclass for each question."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

__all__ = [
    "Best", "Estimate", "Limited", "Margin", "Point", "Reached", "Repeated", "Scarce", "Serving", "plain",
]  # fmt: skip


@dataclass(frozen=True)
class Estimate:
    """A value and its interval; nan where there is none, inf where no amount does."""

    value: float
    low: float = math.nan
    high: float = math.nan

    @property
    def factor(self) -> float:
        """High over low."""
        return self.high / self.low if self.low > 0 else math.nan


@dataclass(frozen=True)
class Point:
    """The best model for a compute budget, as a frontier needs it."""

    compute: float
    params: Estimate
    tokens: Estimate
    loss: Estimate


@dataclass(frozen=True)
class Best:
    """The best model for `compute` FLOPs. loss: of the law there; run: the interval in which a run of this size and length will
    lie. near: sizes between which the same compute costs at most a hundredth more of the loss. isoflop: the best size by the
    minima of the table, or None; apart: whether the two intervals of the size have nothing in common."""

    compute: float
    params: Estimate
    tokens: Estimate
    ratio: Estimate
    loss: Estimate
    run: tuple[float, float]
    near: tuple[float, float]
    isoflop: Estimate | None = None
    apart: bool = False
    note: str = ""


@dataclass(frozen=True)
class Repeated:
    """The best model for a compute budget with so many unique tokens. loss: its; fresh: the loss were all tokens new; more: the
    loss with a multiple of the unique tokens, by factor."""

    compute: float
    params: Estimate
    tokens: Estimate
    epochs: Estimate
    loss: Estimate
    fresh: Estimate
    more: dict[str, Estimate]


@dataclass(frozen=True)
class Scarce:
    """unique: tokens there are. params: the size for which these are compute-optimal, seen once; compute, loss: there. repeats,
    excess: R_D* and R_N*; source: where these come from. beyond: what to do with more compute than that."""

    unique: float
    params: Estimate
    compute: Estimate
    loss: Estimate
    repeats: float
    excess: float
    source: str
    beyond: tuple[Repeated, ...]


@dataclass(frozen=True)
class Serving:
    """Training and `served` tokens. total: FLOPs of the two for the best model by training alone. params, tokens, least: the
    model that reaches the same loss with the least FLOPs in all, and how many; saved: share of total. equal_params,
    equal_tokens, equal_loss: the model of least loss for the total."""

    compute: float
    served: float
    loss: Estimate
    total: Estimate
    params: Estimate
    tokens: Estimate
    least: Estimate
    saved: Estimate
    equal_params: Estimate
    equal_tokens: Estimate
    equal_loss: Estimate


@dataclass(frozen=True)
class Limited:
    """No more than `largest` parameters. binds: whether the best model is larger. params, tokens, loss: the best allowed for the
    compute. same_tokens, extra: tokens with which it comes to the loss of the unlimited best, and how many times the compute that
    costs; inf where no number of tokens does."""

    compute: float
    largest: float
    binds: bool
    params: float
    tokens: float
    loss: Estimate
    unlimited: Estimate
    same_tokens: Estimate
    extra: Estimate


@dataclass(frozen=True)
class Margin:
    """At a model: elasticities of the loss (by how many per cent it changes with one per cent more) for parameters, tokens, and
    compute well spent. after: (what, factor, FLOPs over those now, loss). params_first: share of the bootstrap in which a FLOP
    buys more through parameters than through tokens; nan without one."""

    params: float
    tokens: float
    compute: float
    loss: Estimate
    by_params: Estimate
    by_tokens: Estimate
    by_compute: Estimate
    after: tuple[tuple[str, float, float, Estimate], ...]
    params_first: float
    first: str
    note: str = ""


@dataclass(frozen=True)
class Reached:
    """What comes to a loss for the least compute. possible: whether anything does. share: of the bootstrap in which nothing does.
    floor: what no budget goes below, None for a law without."""

    loss: float
    possible: bool
    share: float
    compute: Estimate
    params: Estimate
    tokens: Estimate
    floor: Estimate | None
    note: str = ""


def plain(value: Any) -> Any:
    """An answer in plain values; numbers that are none, or infinite, become null."""
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
