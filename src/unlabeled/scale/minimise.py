"""Minimise one function from thousands of starts at once: BFGS with a row for each start.

Laws have half a dozen parameters and a few hundred points: a single minimisation is too small to keep a processor busy, many of
them together are a few large array operations. Each row has its own step length, so every evaluation serves every row; a row
that has converged makes room for the next start. Blocks are as large as what torch works on without waking other threads:
arrays stay in the cache, and a loaded machine does not spin.

BFGS after Nocedal and Wright, Numerical Optimization (2006), algorithm 6.1, with backtracking (algorithm 3.1) in place of the
Wolfe conditions and steps of doubtful curvature left out of the update.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields

import torch
from torch import Tensor

__all__ = ["Minimum", "Objective", "by_autograd", "minimise"]

# (rows, parameters), indices of the rows among the starts -> values (rows,), gradients (rows, parameters)
Objective = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]

_ARMIJO = 1e-4  # share of the promised decrease that a step must bring (Nocedal and Wright, section 3.1)
_CURVATURE = 1e-12  # s.y, as a share of |s||y|, below which the curvature along a step is not believed
_TRIES = 30  # backtracking steps of a row before it begins anew along the gradient
_GRAIN = 32768  # elements of an array above which torch shares its work among threads


@dataclass(frozen=True)
class Minimum:
    """Where each start ended. points: (starts, parameters); values: (starts,), inf where the function is not finite at the
    start; converged: (starts,) bool, the gradient vanished or no step brought less; steps: (starts,) evaluations."""

    points: Tensor
    values: Tensor
    converged: Tensor
    steps: Tensor

    @property
    def best(self) -> int:
        return int(self.values.argmin())


def by_autograd(function: Callable[[Tensor, Tensor], Tensor]) -> Objective:
    """An objective of a function that gives values (rows,) alone; rows must not depend on each other."""

    def objective(x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        x = x.detach().requires_grad_()
        with torch.enable_grad():
            value = function(x, rows)
            (slope,) = torch.autograd.grad(value.sum(), x)
        return value.detach(), slope

    return objective


@contextmanager
def _one_thread() -> Iterator[None]:
    """Small matrix products share their work too, and two threads that wait for each other lose a hundredfold on a loaded
    machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@torch.no_grad()
def minimise(
    objective: Objective,
    starts: Tensor,
    *,
    points: int = 256,
    steps: int = 500,
    gradient: float = 1e-9,
    decrease: float = 1e-13,
) -> Minimum:
    """Minimise from every start; float64.

    starts: (starts, parameters). points: elements that the objective works on for each row. steps: evaluations that a row may
    have. gradient: a row has converged where no derivative is greater; decrease: or where two steps in a row bring less than
    this share of the value.
    """
    with _one_thread():
        return _minimised(objective, starts.detach().double(), points, steps, gradient, decrease)


def _minimised(
    objective: Objective, starts: Tensor, points: int, steps: int, gradient: float, decrease: float
) -> Minimum:
    total = len(starts)
    found = starts.clone()
    values = torch.full((total,), torch.inf, dtype=torch.float64)
    converged = torch.zeros(total, dtype=torch.bool)
    taken = torch.zeros(total, dtype=torch.int64)
    room = max(16, _GRAIN // max(points, 1))
    state, waiting = _begun(objective, starts, torch.arange(0, min(room, total))), min(room, total)
    while True:
        state.decrease = decrease
        if len(state.place):
            state.advance(objective)
        over = state.idle >= 2
        over |= (state.slope.abs().amax(1) <= gradient) | (state.steps >= steps)
        leaving = int(over.sum())
        # joining arrays costs as much as a step, so rows leave in groups
        if leaving * 8 >= len(state.place):
            done = state.place[over]
            found[done], values[done], taken[done] = state.x[over], state.value[over], state.steps[over]
            converged[done] = state.steps[over] < steps
            state = state.rows(~over)
            if waiting < total:
                to = min(total, waiting + room - len(state.place))
                state = state.joined(_begun(objective, starts, torch.arange(waiting, to)))
                waiting = to
        if not len(state.place) and waiting >= total:
            return Minimum(found, values, converged, taken)


def _begun(objective: Objective, starts: Tensor, place: Tensor) -> _State:
    """The state of new rows; those where the function is not finite are left out."""
    x = starts[place]
    value, slope = objective(x, place)
    fit = torch.isfinite(value) & torch.isfinite(slope).all(1)
    x, value, slope, place = x[fit], value[fit], slope[fit], place[fit]
    scale = 1 / slope.norm(dim=1).clamp(min=1)
    inverse = torch.eye(x.shape[1], dtype=torch.float64) * scale[:, None, None]
    zero = torch.zeros_like(place)
    return _State(
        x, value, slope, inverse, -slope * scale[:, None], torch.ones_like(value), scale, zero, zero, zero, place
    )


@dataclass
class _State:
    """Rows under way: point, value, slope, inverse Hessian, direction, length of the next step along it, scale of the inverse
    while it is a guess (0 afterwards), tries of this step, idle steps in a row, evaluations, place among the starts."""

    x: Tensor
    value: Tensor
    slope: Tensor
    inverse: Tensor
    direction: Tensor
    length: Tensor
    guess: Tensor
    tries: Tensor
    idle: Tensor
    steps: Tensor
    place: Tensor
    decrease: float = 1e-13

    def _arrays(self) -> list[Tensor]:
        return [getattr(self, name) for name in _ARRAYS]

    def rows(self, keep: Tensor) -> _State:
        return _State(*[t[keep] for t in self._arrays()], decrease=self.decrease)

    def joined(self, other: _State) -> _State:
        pairs = zip(self._arrays(), other._arrays())
        return _State(*[torch.cat(pair) for pair in pairs], decrease=self.decrease)

    def advance(self, objective: Objective) -> None:
        """One evaluation for every row: a step where the value falls enough, a shorter try where it does not."""
        moved = self.length[:, None] * self.direction
        tried = self.x + moved
        reached, slope = objective(tried, self.place)
        promised = self.length * (self.direction * self.slope).sum(1)
        good = (reached <= self.value + _ARMIJO * promised) & torch.isfinite(slope).all(1)
        change = slope - self.slope
        curvature = (moved * change).sum(1)
        bound = (moved.square().sum(1) * change.square().sum(1)).sqrt()
        believed = good & (curvature > _CURVATURE * bound)
        # the scale of the first inverse is a guess; after a step it is known (equation 6.20)
        known = (curvature / change.square().sum(1)).clamp(1e-8, 1e8) / self.guess
        factor = torch.where(believed & (self.guess > 0), known, 1.0)
        self.guess = torch.where(believed, 0.0, self.guess)
        rho = torch.where(believed, 1 / curvature, 0.0)[:, None]
        change = torch.where(believed[:, None], change, 0.0)
        inverse = self.inverse * factor[:, None, None]
        bent = (inverse * change[:, None, :]).sum(2)
        across = (rho * (1 + rho * (change * bent).sum(1, keepdim=True)) * moved)[:, :, None] * moved[:, None, :]
        mixed = (rho * bent)[:, :, None] * moved[:, None, :]
        self.inverse = inverse + across - mixed - mixed.transpose(1, 2)

        # the minimum of the parabola through both values and the slope, kept between a tenth and a half
        share = (-promised / (2 * (reached - self.value - promised))).nan_to_num(0.1).clamp(0.1, 0.5)
        self.length = torch.where(good, 1.0, self.length * share)
        self.tries = torch.where(good, 0, self.tries + 1)
        tired = self.tries >= _TRIES
        little = good & ~(self.value - reached > self.decrease * self.value.abs())
        idle = torch.where(little | tired, self.idle + 1, torch.where(good, 0, self.idle))
        self.x = torch.where(good[:, None], tried, self.x)
        self.value = torch.where(good, reached, self.value)
        self.slope = torch.where(good[:, None], slope, self.slope)

        direction = -(self.inverse * self.slope[:, None, :]).sum(2)
        uphill = (direction * self.slope).sum(1) >= 0
        anew = tired | uphill | (little & (self.idle == 0))
        self.idle, self.steps = idle, self.steps + 1
        if anew.any():
            scale = 1 / self.slope.norm(dim=1).clamp(min=1)
            eye = torch.eye(self.x.shape[1], dtype=torch.float64) * scale[:, None, None]
            self.inverse = torch.where(anew[:, None, None], eye, self.inverse)
            self.guess = torch.where(anew, scale, self.guess)
            self.length = torch.where(tired, 1.0, self.length)
            self.tries = torch.where(tired, 0, self.tries)
            direction = torch.where(anew[:, None], -scale[:, None] * self.slope, direction)
        self.direction = torch.where((good | anew)[:, None], direction, self.direction)


_ARRAYS = [f.name for f in fields(_State) if f.name != "decrease"]
