"""Minimise one function from thousands of starts at once: BFGS with a row for each start.

Laws have half a dozen parameters and a few hundred points: a single minimisation is too small to keep a processor busy, all of
them together are a few large array operations. Rows that have converged leave the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Minimum", "minimise"]

# (rows, parameters), indices of the rows among the starts -> (rows,) values
Objective = Callable[[Tensor, Tensor], Tensor]

_ARMIJO = 1e-4  # share of the promised decrease that a step must bring (Nocedal and Wright 2006, section 3.1)
_CURVATURE = 1e-12  # s.y below which the curvature along a step is not believed


@dataclass(frozen=True)
class Minimum:
    """Where each start ended. points: (starts, parameters); values: (starts,); converged: (starts,) bool, the gradient
    vanished or no step brought less; steps: iterations of the whole batch."""

    points: Tensor
    values: Tensor
    converged: Tensor
    steps: int


def minimise(
    objective: Objective, starts: Tensor, *, steps: int = 500, gradient: float = 1e-9, decrease: float = 1e-13, block: int = 512
) -> Minimum:
    """Minimise from every start; float64, without gradients left behind.

    starts: (starts, parameters). gradient: a row has converged where no derivative is greater; decrease: or where two steps in
    a row bring less than this share of the value. block: rows worked on together, so that they stay in the cache.
    """
    starts = starts.detach().double()
    parts = [
        _block(objective, starts[low : low + block], torch.arange(low, min(low + block, len(starts))), steps, gradient, decrease)
        for low in range(0, len(starts), block)
    ]
    return Minimum(
        torch.cat([p.points for p in parts]),
        torch.cat([p.values for p in parts]),
        torch.cat([p.converged for p in parts]),
        max(p.steps for p in parts),
    )


def _with_gradient(objective: Objective, x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        value = objective(x, rows)
        (slope,) = torch.autograd.grad(value.sum(), x)
    return value.detach(), slope


def _block(objective: Objective, x: Tensor, rows: Tensor, steps: int, small: float, decrease: float) -> Minimum:
    points, values = x.clone(), torch.full((len(x),), torch.inf, dtype=torch.float64)
    converged = torch.zeros(len(x), dtype=torch.bool)
    place = torch.arange(len(x))  # of the rows that are still under way
    value, slope = _with_gradient(objective, x, rows)
    fit = torch.isfinite(value) & torch.isfinite(slope).all(1)
    values[:] = torch.where(fit, value, torch.inf)
    x, value, slope, place = x[fit], value[fit], slope[fit], place[fit]
    size = x.shape[1]
    eye = torch.eye(size, dtype=torch.float64)
    inverse = eye.repeat(len(x), 1, 1) / slope.norm(dim=1).clamp(min=1)[:, None, None]
    idle = torch.zeros(len(x), dtype=torch.int64)
    step = 0
    while len(x) and step < steps:
        step += 1
        direction = -(inverse @ slope[..., None])[..., 0]
        descent = (direction * slope).sum(1)
        uphill = descent >= 0
        direction = torch.where(uphill[:, None], -slope, direction)
        descent = torch.where(uphill, -(slope * slope).sum(1), descent)
        new, new_value = _searched(objective, x, value, direction, descent, rows[place])
        _, new_slope = _with_gradient(objective, new, rows[place])
        moved, change = new - x, new_slope - slope
        curvature = (moved * change).sum(1)
        believed = (curvature > _CURVATURE * moved.norm(dim=1) * change.norm(dim=1)) & torch.isfinite(new_slope).all(1)
        if step == 1:  # the scale of the first inverse is a guess; now it is known (equation 6.20)
            scale = (curvature / (change * change).sum(1)).clamp(min=1e-8, max=1e8)
            inverse = torch.where(believed[:, None, None], eye * scale[:, None, None], inverse)
        rho = torch.where(believed, 1 / curvature, torch.zeros_like(curvature))[:, None, None]
        left = eye - rho * moved[:, :, None] * change[:, None, :]
        updated = left @ inverse @ left.transpose(1, 2) + rho * moved[:, :, None] * moved[:, None, :]
        inverse = torch.where(believed[:, None, None], updated, inverse)
        gained = (value - new_value) > decrease * value.abs().clamp(min=1e-300)
        stuck = ~gained & ~uphill & (idle == 0)
        inverse = torch.where(stuck[:, None, None], eye / new_slope.norm(dim=1).clamp(min=1)[:, None, None], inverse)
        idle = torch.where(gained, 0, idle + 1)
        x, value, slope = new, new_value, new_slope
        done = (slope.abs().amax(1) <= small) | (idle >= 2)
        points[place], values[place] = x, value
        converged[place] = done
        if done.any():
            on = ~done
            x, value, slope, inverse, idle, place = x[on], value[on], slope[on], inverse[on], idle[on], place[on]
    return Minimum(points, values, converged, step)


def _searched(
    objective: Objective, x: Tensor, value: Tensor, direction: Tensor, descent: Tensor, rows: Tensor
) -> tuple[Tensor, Tensor]:
    """Backtracking along each row's direction until the value falls enough; a row for which it never does stays."""
    length = torch.ones_like(value)
    found, best = x.clone(), value.clone()
    open_ = torch.arange(len(x))
    for _ in range(30):
        tried = x[open_] + length[open_, None] * direction[open_]
        with torch.no_grad():
            reached = objective(tried, rows[open_])
        good = reached <= value[open_] + _ARMIJO * length[open_] * descent[open_]
        found[open_[good]], best[open_[good]] = tried[good], reached[good]
        # the minimum of the parabola through both values and the slope, kept between a tenth and a half
        bent = reached - value[open_] - length[open_] * descent[open_]
        share = (-length[open_] * descent[open_] / (2 * bent)).nan_to_num(0.1).clamp(0.1, 0.5)
        length[open_] = length[open_] * share
        open_ = open_[~good]
        if not len(open_):
            break
    return found, best
