"""What a fit minimises: the misfit of a law, with its gradient by formula where the law is a log-sum-exp of linear forms.

log L = s log sum_k exp(x_k . theta), with x_k the features of term k at a point (such as (1, -log N)) and s = 1 or a parameter:
of this form are most published laws. Hoffmann et al. 2022 (arXiv 2203.15556, section 3.3) minimise the SUM of Huber losses of the
residuals of log L; the mean makes optimisers stop early (Besiroglu et al. 2024, arXiv 2404.10102). Here the sum is divided by
points x delta^2 inside, so that tolerances mean the same on every table, and multiplied again before it is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from unlabeled.scale.minimise import Objective, by_autograd

__all__ = ["Misfit", "by_formula", "huber", "of_function", "whitening"]

Misfit = Literal["huber", "log-squares", "squares"]  # of log L, of log L, of L


def huber(residual: Tensor, delta: float) -> Tensor:
    """r^2 / 2 up to delta, delta (|r| - delta / 2) beyond."""
    inside = residual.clamp(-delta, delta)
    return inside * (residual - inside / 2)


def by_formula(
    terms: Sequence[Tensor],
    target: Tensor,
    *,
    misfit: Misfit = "huber",
    delta: float = 1e-3,
    weights: Tensor | None = None,
    power: int | None = None,
    offsets: Sequence[Tensor | None] | None = None,
) -> Objective:
    """The objective of log L = s log sum_k exp(x_k . theta).

    terms: for each term (points, parameters). target: (points,) L itself. weights: (rows among the starts, points), such as how
    often a resample holds a point. power: place of s among the parameters; None: s is 1. offsets: (points,) added to a term
    whatever theta is. A term whose features are the same at every point is worked out once a row.
    """
    extra = [None] * len(terms) if offsets is None else offsets
    flat = [bool((t == t[:1]).all()) and e is None for t, e in zip(terms, extra)]
    features = [t[:1].T.contiguous() if f else t.T.contiguous() for t, f in zip(terms, flat)]
    log_target = target.log()

    def objective(x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        # Without the usual shift by the greatest term: what overflows or vanishes altogether is inf, a step too far.
        parts = [(x @ f if e is None else x @ f + e).exp_() for f, e in zip(features, extra)]
        total = parts[0] if len(parts) == 1 else parts[0] + parts[1]
        for part in parts[2:]:
            total = total + part
        if total.shape[1] == 1:
            total = total.expand(len(x), len(target))
        log = total.log()
        scale = None if power is None else x[:, power, None]
        value = log if scale is None else scale * log
        if misfit == "squares":
            value = value.exp()
            residual = value - target
            pull, cost = residual * value, residual.square() / 2
        else:
            residual = value.sub_(log_target) if scale is None else value - log_target
            pull = residual if misfit == "log-squares" else residual.clamp(-delta, delta)
            cost = pull * (residual - pull / 2)
        if weights is not None:
            heavy = weights[rows]
            pull, cost = pull * heavy, cost * heavy
        ratio = pull / total if scale is None else pull * scale / total
        slope = torch.zeros_like(x)
        for part, feature, same in zip(parts, features, flat):
            if same:
                slope += (ratio.sum(1, keepdim=True) * part) @ feature.T
            else:
                slope += part.mul_(ratio) @ feature.T
        if power is not None:
            slope[:, power] += (pull * log).sum(1)
        unit = _unit(target, misfit, delta)
        return cost.sum(1) * unit, slope * unit

    return objective


def of_function(
    log_law: Callable[[Tensor], Tensor],
    target: Tensor,
    *,
    misfit: Misfit = "huber",
    delta: float = 1e-3,
    weights: Tensor | None = None,
) -> Objective:
    """The same misfit for any law: log_law takes (rows, parameters) and gives log L (rows, points); gradient by autograd."""
    log_target = target.log()

    def value(x: Tensor, rows: Tensor) -> Tensor:
        log = log_law(x)
        residual = log.exp() - target if misfit == "squares" else log - log_target
        cost = huber(residual, delta) if misfit == "huber" else residual.square() / 2
        return (cost if weights is None else cost * weights[rows]).sum(1) * _unit(target, misfit, delta)

    return by_autograd(value)


def _unit(target: Tensor, misfit: Misfit, delta: float) -> float:
    return 1 / (len(target) * (delta**2 if misfit == "huber" else 1e-6))


def whitening(terms: Sequence[Tensor], power: int | None = None) -> Tensor:
    """(parameters, parameters) T so that for theta = T phi the features of phi are uncorrelated and of unit size.

    A constant and its exponent (a and alpha of a - alpha log N) are all but collinear in theta; steps in phi are free of it.
    """
    gram = sum(
        (t.T @ t / len(t) for t in terms), torch.zeros(terms[0].shape[1], terms[0].shape[1], dtype=torch.float64)
    )
    if power is not None:
        gram[power, power] = 1.0
    size, axes = torch.linalg.eigh(gram)
    return axes / size.clamp(min=1e-9 * float(size.max())).sqrt()
