"""The parameters of a law for a table: all starts at once, the best of them polished, degenerate optima refused, and the same
for resamples of the runs."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from unlabeled.core.errors import UserError
from unlabeled.scale.laws import Law
from unlabeled.scale.minimise import Minimum, by_autograd, minimise
from unlabeled.scale.objective import by_formula, huber, of_function, whitening
from unlabeled.scale.table import Table

__all__ = ["DELTA", "POLISHED", "bootstrap", "chosen", "degenerate", "minimised", "search", "tensors"]

DELTA = 1e-3  # where Huber's loss of a log residual becomes linear (Hoffmann et al. 2022)
POLISHED = 64  # of the ends of the starts, minimised again to the last digit
_SCOUT, _POLISH = 1e-7, 1e-13  # share of the objective that two steps in a row must bring
_NEGLIGIBLE = 1e-6  # of the target at every run: a term of the law that does nothing


def tensors(table: Table, law: Law) -> tuple[dict[str, Tensor], Tensor]:
    """The law's inputs and its target, (runs,) each."""
    columns = {name: torch.from_numpy(np.ascontiguousarray(table[name])) for name in law.inputs}
    return columns, torch.from_numpy(np.ascontiguousarray(table[law.target]))


def minimised(
    law: Law,
    columns: Mapping[str, Tensor],
    target: Tensor,
    starts: Tensor,
    delta: float,
    weights: Tensor | None = None,
    decrease: float = _POLISH,
) -> Minimum:
    """From each start, in theta; weights: (starts, points)."""
    if law.terms is None:

        def log_law(theta: Tensor) -> Tensor:
            return law.log_predict(theta, columns)

        function = of_function(log_law, target, misfit=law.misfit, delta=delta, weights=weights)
        # autograd keeps several arrays for each term
        return minimise(function, starts, points=len(target), decrease=decrease)
    terms = law.terms(columns)
    to = whitening(terms, law.power)
    offsets = law.offsets(columns) if law.offsets else None
    function = by_formula(
        [t @ to for t in terms],
        target,
        misfit=law.misfit,
        delta=delta,
        weights=weights,
        power=None if law.power is None else _place(to, law.power),
        offsets=offsets,
    )
    found = minimise(function, torch.linalg.solve(to, starts.T).T, points=len(target), decrease=decrease)
    return Minimum(found.points @ to.T, found.values, found.converged, found.steps)


def _place(to: Tensor, power: int) -> int:
    """Where the power is among the whitened parameters: it is mixed with no other, so its row has one entry."""
    return int(to[power].abs().argmax())


def search(
    law: Law, columns: Mapping[str, Tensor], target: Tensor, starts: Tensor | None, delta: float
) -> tuple[Minimum, list[str]]:
    """All starts roughly, the best of them to the last digit."""
    notes: list[str] = []
    if starts is None:
        starts = law.starts(columns, target)
    if law.first is not None:
        base, note = _base(law.first, columns, target, delta)
        notes.append(note)
        found = _second(law, columns, target, base.expand(len(starts), -1), starts, delta)
        return found, notes
    found = minimised(law, columns, target, starts, delta, decrease=_SCOUT)
    order = found.values.argsort()[:POLISHED]
    fine = minimised(law, columns, target, found.points[order], delta)
    points, values = found.points.clone(), found.values.clone()
    points[order], values[order] = fine.points, fine.values
    return Minimum(points, values, found.converged, found.steps), notes


def _base(law: Law, columns: Mapping[str, Tensor], target: Tensor, delta: float) -> tuple[Tensor, str]:
    """The first law's parameters, from the runs that saw each token once.

    Raises:
        UserError: where there are too few of these.
    """
    once = _once(columns)
    if int(once.sum()) <= len(law.parameters):
        raise UserError(
            f"Only {int(once.sum())} runs saw their tokens once (tokens no more than unique_tokens); the law needs more than "
            f"{len(law.parameters)} of them to know what a new token is worth, so add some."
        )
    part = {k: v[once] for k, v in columns.items()}
    ends, _ = search(law, part, target[once], None, delta)
    best, _ = chosen(law, ends, part, target[once])
    return ends.points[best], f"{', '.join(law.parameters)} come from the {int(once.sum())} runs of one epoch."


def _once(columns: Mapping[str, Tensor]) -> Tensor:
    return columns["tokens"] <= columns["unique_tokens"] * 1.001


def _second(
    law: Law,
    columns: Mapping[str, Tensor],
    target: Tensor,
    base: Tensor,
    starts: Tensor,
    delta: float,
    weights: Tensor | None = None,
) -> Minimum:
    """The law's last parameters where the first ones stay: base (rows, first parameters), starts (rows, the others)."""

    def value(x: Tensor, rows: Tensor) -> Tensor:
        log = law.log_predict(torch.cat([base[rows], x], 1), columns)
        residual = log - target.log()
        cost = huber(residual, delta)
        # R beyond what can be told apart from "no decay" is flat; a slight pull keeps it finite
        cost = cost if weights is None else cost * weights[rows]
        return cost.sum(1) / (len(target) * delta**2) + 1e-6 * x.square().sum(1)

    found = minimise(by_autograd(value), starts, points=len(target))
    return Minimum(torch.cat([base, found.points], 1), found.values, found.converged, found.steps)


def chosen(law: Law, ends: Minimum, columns: Mapping[str, Tensor], target: Tensor) -> tuple[int, int]:
    """The best end that is a law and no degenerate one, and how many better ones were refused."""
    order = ends.values.argsort()
    if not math.isfinite(float(ends.values[order[0]])):
        raise UserError(
            "The law is not finite at any start; look at the units of the columns (params and tokens in units of one)."
        )
    for refused, place in enumerate(order[: 4 * POLISHED].tolist()):
        if not degenerate(law, ends.points[place], columns, target):
            return place, refused
    return int(order[0]), 0


def degenerate(law: Law, theta: Tensor, columns: Mapping[str, Tensor], target: Tensor) -> str:
    """Why an optimum is no law, or an empty string."""
    shown = {k: float(v[0]) for k, v in law.shown(theta[None]).items()}
    for name in law.exponents:
        if not 0 < shown[name] < 3:
            return f"the exponent {name} is {shown[name]:.3g}, outside 0 to 3"
    if law.floor and shown[law.floor] > float(target.min()):
        return f"the floor {law.floor} = {shown[law.floor]:.4g} lies above the smallest {law.target} {float(target.min()):.4g}"
    if law.terms is not None and law.power is None:
        for place, term in enumerate(law.terms(columns)):
            constant = bool((term == term[:1]).all())
            part = (theta @ term.T).exp() / target
            if not constant and float(part.max()) < _NEGLIGIBLE:
                return f"the term of {law.parameters[place]} vanishes at every run"
    return ""


def bootstrap(
    law: Law, columns: Mapping[str, Tensor], target: Tensor, theta: Tensor, draws: int, delta: float, seed: int
) -> Tensor:
    """(draws, parameters): the law refitted to runs drawn with replacement, from the optimum of all runs."""
    if not draws:
        return torch.empty(0, len(theta), dtype=torch.float64)
    weights = torch.from_numpy(_resamples(len(target), draws, len(theta), np.random.default_rng(seed)))
    if law.first is not None:
        once, head = _once(columns), len(law.first.parameters)
        part = {k: v[once] for k, v in columns.items()}
        start = theta[:head].expand(draws, -1)
        base = minimised(law.first, part, target[once], start, delta, weights[:, once], _SCOUT / 100)
        found = _second(law, columns, target, base.points, theta[head:].expand(draws, -1), delta, weights)
    else:
        found = minimised(law, columns, target, theta.expand(draws, -1), delta, weights, _SCOUT / 100)
    return found.points[torch.isfinite(found.values)]


def _resamples(runs: int, draws: int, distinct: int, random: np.random.Generator) -> np.ndarray:
    """(draws, runs) how often each run is drawn; a draw with fewer distinct runs than parameters is drawn again."""
    found: list[np.ndarray] = []
    while len(found) < draws:
        drawn = random.integers(0, runs, (draws, runs))
        counts = np.stack([np.bincount(row, minlength=runs) for row in drawn])
        found += list(counts[(counts > 0).sum(1) >= min(distinct, runs)])
    return np.array(found[:draws], np.float64)
