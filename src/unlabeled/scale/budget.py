"""Answers to the questions that an adviser is asked, each as numbers with intervals over the bootstrap of a fit.

    best      the model of least loss for a training budget (Hoffmann et al. 2022, arXiv 2203.15556)
    scarce    so many unique tokens and no more (Muennighoff et al. 2023, arXiv 2305.16264)
    serving   training and so many served tokens (Sardana et al. 2023, arXiv 2401.00448: 6 N D + 2 N D_served)
    limited   no more than so many parameters
    margin    what more parameters, tokens and compute would bring
    reached   what it takes to come to a loss

A served token costs a third of a trained one: its forward pass, 2 N where training costs 6 N D.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from unlabeled.core.errors import UserError
from unlabeled.scale.answers import Best, Estimate, Limited, Margin, Point, Reached, Repeated, Scarce, Serving
from unlabeled.scale.fit import Fit
from unlabeled.scale.isoflop import IsoFlop
from unlabeled.scale.laws import Law
from unlabeled.scale.optimum import Cost, allocate, least, log_loss, repeating, size_for, slopes, tokens_for, vast

__all__ = ["Ground", "best", "frontier", "limited", "margin", "measured", "reached", "scarce", "serving"]

_NEAR = 0.01  # share of the least loss that a size next to the best may cost
_FACTORS = (2.0, 10.0)  # of parameters, tokens and compute, in what more of each would bring


@dataclass(frozen=True)
class Ground:
    """What answers stand on: a law of params and tokens, its parameters (first row) and their bootstrap, the cost of training."""

    fit: Fit
    law: Law
    theta: Tensor
    cost: Cost
    level: float

    def of(self, log: Tensor, *, missing: float = math.nan) -> Estimate:
        """From logarithms (1 + draws,); samples that have no value count as `missing`."""
        values = log.exp().numpy()
        drawn = np.where(np.isnan(values[1:]), missing, values[1:])
        drawn = np.sort(drawn[~np.isnan(drawn)])
        if not len(drawn):
            return Estimate(float(values[0]))
        if np.isfinite(drawn).all():
            low, high = np.quantile(drawn, [(1 - self.level) / 2, (1 + self.level) / 2])
        else:  # between a number and infinity there is nothing to interpolate
            low, high = np.quantile(drawn, [(1 - self.level) / 2, (1 + self.level) / 2], method="inverted_cdf")
        return Estimate(float(values[0]), float(low), float(high))

    def loss(self, params: float, tokens: float) -> Estimate:
        return self.of(log_loss(self.law, self.theta, self.at(params)[:, None], self.at(tokens)[:, None])[:, 0])

    def at(self, value: float) -> Tensor:
        return torch.full((len(self.theta),), math.log(value), dtype=torch.float64)


def best(ground: Ground, compute: float, isoflop: IsoFlop | None = None, draws: int = 1000, seed: int = 0) -> Best:
    """The best model for a training budget.

    Raises:
        UserError: where the law has no best split of it.
    """
    n, d, loss = _split(ground, compute)
    params, tokens = float(n[0].exp()), float(d[0].exp())
    at = ground.fit.predict(params=params, tokens=tokens, unique_tokens=tokens, seed=seed, level=ground.level)
    size = ground.of(n)
    other = measured(isoflop, compute, draws, ground.level, seed) if isoflop else None
    apart = other is not None and (other.high < size.low or size.high < other.low)
    note = ground.fit.reach({"flops": compute, "params": params, "tokens": tokens})
    near = _near(ground, compute, n, loss)
    return Best(
        compute, size, ground.of(d), ground.of(d - n), ground.of(loss), (at.low, at.high), near, other, apart, note
    )


def frontier(ground: Ground, computes: Sequence[float]) -> tuple[Point, ...]:
    """The best models along compute; nan where the law has no best split."""
    rows = []
    for compute in computes:
        n, d, loss = allocate(ground.law, ground.theta, ground.cost, compute)
        rows.append(Point(compute, ground.of(n), ground.of(d), ground.of(loss)))
    return tuple(rows)


def _split(ground: Ground, compute: float) -> tuple[Tensor, Tensor, Tensor]:
    n, d, loss = allocate(ground.law, ground.theta, ground.cost, compute)
    if not math.isfinite(float(n[0])):
        raise UserError(
            f"The law {ground.law.name}, as fitted, has no best split of {compute:.3g} FLOPs (the larger, or the smaller, the "
            "better); look at the fit with `unlabeled scale fit`, and add runs of other sizes and lengths."
        )
    return n, d, loss


def _near(ground: Ground, compute: float, n: Tensor, loss: Tensor) -> tuple[float, float]:
    """Sizes on both sides of the best whose loss for the same compute is hardly more."""
    x = n[:1, None] + torch.linspace(-6, 6, 1201, dtype=torch.float64)
    d = math.log(compute) - ground.cost.log_rate(x) - x
    fine = (log_loss(ground.law, ground.theta[:1], x, d)[0] <= loss[0] + math.log1p(_NEAR)).nonzero()[:, 0]
    return float(x[0, fine[0]].exp()), float(x[0, fine[-1]].exp())


def measured(found: IsoFlop, compute: float, draws: int, level: float, seed: int) -> Estimate:
    """The best size by the minima of isoFLOP curves, on their weighted line; the interval moves each minimum by its own error."""
    x = np.log([v.flops for v in found.vertices])
    y, sigma = np.log([v.akima for v in found.vertices]), np.array([v.sigma for v in found.vertices])
    weight = sigma**-2 / (sigma**-2).sum()
    middle = float(weight @ x)
    lever = weight * (1 + (x - middle) * (math.log(compute) - middle) / float(weight @ (x - middle) ** 2))
    drawn = np.random.default_rng(seed).normal(y, sigma, (draws, len(y))) @ lever
    value = math.exp(float(lever @ y))
    if not draws:
        return Estimate(value)
    low, high = np.exp(np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2]))
    return Estimate(value, float(low), float(high))


def scarce(
    ground: Ground, limits: tuple[Tensor, Tensor], source: str, *, unique: float, computes: Sequence[float]
) -> Scarce:
    """The best models for so many unique tokens; limits: R_D* and R_N*, (1 + draws,)."""
    law, theta, cost = ground.law, ground.theta, ground.cost
    d, n = ground.at(unique), size_for(law, theta, cost, unique)
    if not math.isfinite(float(n[0])):
        raise UserError(
            f"The law {law.name}, as fitted, has no size for which {unique:.3g} tokens are the best number; look at the fit with "
            "`unlabeled scale fit`, and add runs of other sizes and lengths."
        )
    flops = cost.log_flops(n, d)
    beyond = []
    for compute in computes:
        if math.log(compute) <= float(flops[0]):
            continue
        _, _, fresh = _split(ground, compute)
        size, tokens, loss = allocate(law, theta, cost, compute, repeating(law, theta, cost, unique, limits))
        more = {
            f"{factor:g}": ground.of(
                allocate(law, theta, cost, compute, repeating(law, theta, cost, unique * factor, limits))[2]
            )
            for factor in _FACTORS
        }
        beyond.append(
            Repeated(
                compute,
                ground.of(size),
                ground.of(tokens),
                ground.of(tokens - d),
                ground.of(loss),
                ground.of(fresh),
                more,
            )
        )
    loss = log_loss(law, theta, n[:, None], d[:, None])[:, 0]
    repeats, excess = (float(limit[0]) for limit in limits)
    return Scarce(unique, ground.of(n), ground.of(flops), ground.of(loss), repeats, excess, source, tuple(beyond))


def serving(ground: Ground, compute: float, served: float) -> Serving:
    """The best model where so many tokens will be served besides."""
    law, theta, cost = ground.law, ground.theta, ground.cost
    n, _, loss = _split(ground, compute)

    def serve(n: Tensor) -> Tensor:
        """Log of the FLOPs of serving, at log N."""
        return cost.log_rate(n) + n + math.log(served / 3)

    whole = torch.logaddexp(torch.full_like(n, math.log(compute)), serve(n))

    def total(x: Tensor) -> Tensor:
        return torch.logaddexp(cost.log_flops(x, tokens_for(law, theta, x, loss)), serve(x))

    size = least(total, n - 12, n + 3, 46)  # serving never asks for more parameters
    tokens, spent = tokens_for(law, theta, size[:, None], loss)[:, 0], total(size[:, None])[:, 0]

    def left(x: Tensor) -> Tensor:
        """Log D that the total leaves for training."""
        remaining = whole[:, None].exp() - serve(x).exp()
        return torch.where(remaining > 0, remaining.clamp(min=1e-300).log() - cost.log_rate(x) - x, -torch.inf)

    def loss_of(x: Tensor) -> Tensor:
        d = left(x)
        return torch.where(d > 0, log_loss(law, theta, x, d.clamp(min=0)), torch.inf)

    other = least(loss_of, n - 12, n + 3, 46)
    equal = loss_of(other[:, None])[:, 0]
    saved = torch.log1p(-(spent - whole).exp().clamp(max=1 - 1e-15))
    return Serving(
        compute, served, ground.of(loss), ground.of(whole), ground.of(size), ground.of(tokens), ground.of(spent),
        ground.of(saved), ground.of(other), ground.of(left(other[:, None])[:, 0]), ground.of(equal),
    )  # fmt: skip


def limited(ground: Ground, compute: float, largest: float) -> Limited:
    """The best model that has no more than so many parameters."""
    n, _, loss = _split(ground, compute)
    binds = float(n[0].exp()) > largest
    params = largest if binds else float(n[0].exp())
    x = ground.at(params)
    d = math.log(compute) - ground.cost.log_rate(x) - x
    allowed = log_loss(ground.law, ground.theta, x[:, None], d[:, None])[:, 0]
    same = tokens_for(ground.law, ground.theta, x[:, None], loss)[:, 0]
    extra = ground.cost.log_flops(x, same) - math.log(compute)
    return Limited(
        compute, largest, binds, params, float(d[0].exp()), ground.of(allowed), ground.of(loss), ground.of(same), ground.of(extra)
    )  # fmt: skip


def margin(ground: Ground, params: float, tokens: float) -> Margin:
    """What more of each would bring at a model."""
    law, theta, cost = ground.law, ground.theta, ground.cost
    n, d = ground.at(params), ground.at(tokens)
    compute = float(cost.log_flops(n, d)[0].exp())
    by_params, by_tokens = slopes(law, theta, n, d)
    step = 0.05
    above, below = (_split(ground, compute * math.exp(s))[2] for s in (step, -step))
    frontier = (above - below) / (2 * step)
    after = []
    for factor in _FACTORS:
        more = n + math.log(factor)
        dearer = float((cost.log_flops(more, d)[0] - math.log(compute)).exp())
        after += [
            ("params", factor, dearer, ground.loss(params * factor, tokens)),
            ("tokens", factor, factor, ground.loss(params, tokens * factor)),
            ("compute", factor, factor, ground.of(_split(ground, compute * factor)[2])),
        ]
    per_flop = by_params / cost.steepness(n) - by_tokens  # below zero: a FLOP buys more through parameters
    share = float((per_flop[1:] < 0).double().mean()) if len(theta) > 1 else math.nan
    bought = float(by_params[0] / cost.steepness(n)[0]), float(by_tokens[0])
    balanced = abs(bought[0] - bought[1]) < 0.02 * abs(min(bought))
    unsure = (1 - ground.level) / 2 < share < (1 + ground.level) / 2
    first = "either" if balanced else "unknown" if unsure else "params" if bought[0] < bought[1] else "tokens"
    note = ground.fit.reach({"flops": compute, "params": params, "tokens": tokens})
    return Margin(
        params, tokens, compute, ground.loss(params, tokens), _linear(ground, by_params), _linear(ground, by_tokens),
        _linear(ground, frontier), tuple(after), share, first, note,
    )  # fmt: skip


def _linear(ground: Ground, values: Tensor) -> Estimate:
    """An estimate of values below zero."""
    found = ground.of((-values).log())
    return Estimate(-found.value, -found.high, -found.low)


def reached(ground: Ground, loss: float) -> Reached:
    """The least compute that comes to a loss."""
    law, theta, cost = ground.law, ground.theta, ground.cost
    wanted = torch.full((len(theta),), math.log(loss), dtype=torch.float64)

    def flops(x: Tensor) -> Tensor:
        return cost.log_flops(x, tokens_for(law, theta, x, wanted))

    low = torch.zeros_like(wanted)
    n = least(flops, low, torch.full_like(wanted, vast), 76)
    d = tokens_for(law, theta, n[:, None].nan_to_num(nan=vast), wanted)[:, 0]
    d = torch.where(n.isnan(), torch.nan, d)
    compute = cost.log_flops(n, d)
    floor = None
    if law.floor:
        floor = ground.of(law.shown(theta)[law.floor].log())
    found = [ground.of(x, missing=math.inf) for x in (compute, n, d)]
    possible = bool(torch.isfinite(compute[0]))
    share = float(compute[1:].isnan().double().mean()) if len(theta) > 1 else math.nan
    note = ""
    if possible:
        note = ground.fit.reach({"flops": found[0].value, "params": found[1].value, "tokens": found[2].value})
    return Reached(loss, possible, share, found[0], found[1], found[2], floor, note)
