"""Advice from a table of runs: the best model for a budget of compute, of data or of serving, what more of each would bring, and
what a loss takes.

Everything follows from one law of params and tokens fitted to the table, from what its FLOPs cost, and from the bootstrap over
runs, whose samples carry the intervals; beside it stand the minima of isoFLOP curves, which know no law. Where the rules are
published is said in `budget.py`. What speaks against the fit is part of the advice (`cautions`), and so is how far it reaches
beyond the runs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from unlabeled.core.errors import UserError
from unlabeled.scale import budget, wording
from unlabeled.scale.answers import Best, Limited, Margin, Point, Reached, Scarce, Serving, plain
from unlabeled.scale.budget import Ground
from unlabeled.scale.fit import Fit, fit, fit_law
from unlabeled.scale.isoflop import IsoFlop, fit_isoflop
from unlabeled.scale.laws import DATA_CONSTRAINED, TIED, Law
from unlabeled.scale.optimum import Cost, cost_of
from unlabeled.scale.table import Table

__all__ = ["Advice", "advise"]

# Of the unrounded fit of Muennighoff et al. 2023 to runs on C4 (repository huggingface/datablations): what repeated tokens and
# excess parameters are worth where the table does not say.
REPEATS, EXCESS = 15.387756, 5.309743
_REPEATED_RUNS = (
    8  # runs with more than one epoch, of three lengths in epochs at least, from which these two are fitted instead
)
_AS_NEW = 4.0  # epochs up to which tokens are worth about as much as new ones (Muennighoff et al. 2023)
_LEAST, _MOST = 1e3, 1e40  # FLOPs that are a budget, and any number that is asked for
_PER_DECADE = 4  # points of the frontier


@dataclass(frozen=True)
class Advice:
    """Answers, and what they stand on. item: what the table's tokens are (`tokens` or `examples`). measure, unit: what its losses
    are (`loss` or `kNN error`), and in which unit, where it says so. compute, served, largest: an answer for each compute budget.
    why_no_isoflop: where isoflop is None."""

    fit: Fit
    isoflop: IsoFlop | None
    table: Table
    cost: Cost
    item: str
    measure: str
    unit: str
    level: float
    compute: tuple[Best, ...]
    data: Scarce | None
    served: tuple[Serving, ...]
    largest: tuple[Limited, ...]
    margin: Margin
    reach: Reached | None
    frontier: tuple[Point, ...]
    why_no_isoflop: str = ""
    headline: tuple[str, ...] = ()
    cautions: tuple[str, ...] = ()
    tables: tuple[Mapping[str, Any], ...] = ()

    def json(self) -> dict[str, Any]:
        """Plain values, nothing rounded; numbers that are none, or infinite, become null."""
        told = {
            name: plain(getattr(self, name))
            for name in ("headline", "cautions", "tables", "compute", "data", "served", "largest", "margin", "reach")
        }
        return told | {
            "item": self.item,
            "measure": self.measure,
            "unit": self.unit,
            "level": self.level,
            "cost": plain(self.cost.json()),
            "frontier": plain(self.frontier),
            "fit": self.fit.json(),
            "isoflop": self.isoflop.json() if self.isoflop else None,
        }


def advise(
    table: Table,
    *,
    law: str | Law = "chinchilla",
    compute: Sequence[float] = (),
    data: float | None = None,
    served: float | None = None,
    largest: float | None = None,
    at: Mapping[str, float] | None = None,
    reach: float | None = None,
    draws: int = 1000,
    level: float = 0.9,
    seed: int = 0,
    highest: int = 0,
    incomplete: bool = False,
) -> Advice:
    """What to train, from a table of runs.

    compute: budgets in FLOPs; by default the table's largest, and 10 and 100 times that. data: unique tokens there are. served:
    tokens that the model will read and write in its life. largest: parameters that it must not exceed. at: params and tokens of
    a model whose growth is weighed; by default the best one for the table's largest budget. reach: a loss to come to. draws,
    level, seed, highest, incomplete: as those of `fit`.

    Raises:
        UserError: where the table does not serve the law, the law is none of params and tokens, or a number makes no sense.
    """
    _check(at, level, {"compute": compute, "data": data, "served": served, "largest": largest, "reach": reach})
    found = fit(table, law, highest=highest, incomplete=incomplete, draws=draws, level=level, seed=seed)
    if not isinstance(found, Fit) or not {"params", "tokens"} <= set(found.form.inputs) or found.form.target != "loss":
        raise UserError(
            f"Advice needs a law of params and tokens, and {found.law} is none; take chinchilla or kaplan-nd."
        )
    found.table.need(("params", "tokens"), "flops")
    top = float(found.table["flops"].max())
    if top < _LEAST:
        raise UserError(
            f"The largest run of {table.source} has {top:.3g} FLOPs; give params, tokens and flops in units of one."
        )
    budgets = tuple(float(c) for c in compute) or (top, 10 * top, 100 * top)
    if reach is not None and reach >= float(found.table["loss"].max()):
        raise UserError(f"Every run of {table.source} has a loss below {reach:g}; give --reach a smaller one.")
    cost = cost_of(found.table)
    ground = Ground(found, found.form, torch.cat([found.theta[None], found.samples]), cost, level)
    measure, unit = _measured(found.table)
    isoflop, why = None, ""
    try:
        isoflop = fit_isoflop(_as_new(found.table), draws=max(draws, 100), level=level, seed=seed)
    except UserError as error:
        why = str(error)
    chosen = tuple(budget.best(ground, c, isoflop, draws, seed) for c in budgets)
    if at is None:
        first = budget.best(ground, top, isoflop, draws, seed)
        at = {"params": first.params.value, "tokens": first.tokens.value}
    advice = Advice(
        fit=found,
        isoflop=isoflop,
        table=found.table,
        cost=cost,
        item="examples" if any(n.startswith("tokens are examples:") for n in found.table.notes) else "tokens",
        measure=measure,
        unit=unit,
        level=level,
        compute=chosen,
        data=None if data is None else budget.scarce(*_scarcity(ground, draws, seed), unique=data, computes=budgets),
        served=() if served is None else tuple(budget.serving(ground, c, served) for c in budgets),
        largest=() if largest is None else tuple(budget.limited(ground, c, largest) for c in budgets),
        margin=budget.margin(ground, at["params"], at["tokens"]),
        reach=None if reach is None else budget.reached(ground, reach),
        frontier=budget.frontier(ground, _along(found.table)),
        why_no_isoflop=why,
    )
    advice = replace(advice, cautions=tuple(wording.cautions(advice)))
    return replace(advice, headline=tuple(wording.headline(advice)), tables=tuple(wording.tables(advice)))


def _check(at: Mapping[str, float] | None, level: float, asked: Mapping[str, float | Sequence[float] | None]) -> None:
    """Refuse numbers that make no sense.

    Raises:
        UserError: with one sentence on the first of them.
    """
    least = {"compute": (_LEAST, "FLOPs, such as 1e15"), "reach": (0.0, "a positive loss")}
    for name, given in asked.items():
        low, what = least.get(name, (1.0, "a number of 1 or more, such as 1e6"))
        for value in given if isinstance(given, Sequence) else [given]:
            if value is not None and not (low <= value <= _MOST and value > 0):
                raise UserError(f"--{name} takes {what}, not {value:g}.")
    if not 0 < level < 1:
        raise UserError(f"--level is a share between 0 and 1, such as 0.9, not {level:g}.")
    if at is not None and (set(at) != {"params", "tokens"} or not all(1 <= v <= _MOST for v in at.values())):
        raise UserError("--at takes a model as params=NUMBER tokens=NUMBER, both 1 or more.")


def _measured(table: Table) -> tuple[str, str]:
    """What the losses are and their unit, where all runs say the same."""
    units = set(table.labels.get("unit", ()))
    unit = str(units.pop()) if len(units) == 1 else ""
    if "error" in unit:
        return unit, ""
    return "loss", "" if unit == "loss" else unit


def _as_new(table: Table) -> Table:
    """Without the runs that saw their data more than four times: they are worse for their compute at any size."""
    epochs = table.columns.get("epochs", table["tokens"] / table.columns.get("unique_tokens", table["tokens"]))
    return table.without(epochs > _AS_NEW, f"it saw its data more than {_AS_NEW:g} times")


def _along(table: Table) -> list[float]:
    """Compute from a decade below the smallest run to two above the largest."""
    low, high = (math.log10(float(f(table["flops"]))) for f in (np.min, np.max))
    return np.logspace(low - 1, high + 2, min(60, round((high - low + 3) * _PER_DECADE) + 1)).tolist()


def _scarcity(ground: Ground, draws: int, seed: int) -> tuple[Ground, tuple[torch.Tensor, torch.Tensor], str]:
    """The law, R_D* and R_N* for repeated tokens, and where they come from: the table where it repeats enough, else published."""
    found, table = ground.fit, ground.fit.table
    size = len(TIED.parameters)
    said = "R_D* and R_N* are fitted to the table's runs, with E, A, B and one exponent from those of one epoch"
    if found.form.name != DATA_CONSTRAINED.name and "unique_tokens" in table:
        epochs = table["tokens"] / table["unique_tokens"]
        again = epochs > 1.5
        if again.sum() >= _REPEATED_RUNS and len(np.unique(epochs[again].round(1))) >= 3:
            try:
                found = fit_law(table, DATA_CONSTRAINED, draws=draws, level=ground.level, held=math.inf, seed=seed)
            except UserError:
                found = ground.fit
    if found.form.name == DATA_CONSTRAINED.name:
        theta = torch.cat([found.theta[None], found.samples])
        own = Ground(ground.fit, TIED, theta[:, :size], ground.cost, ground.level)
        return own, (theta[:, size].exp(), theta[:, size + 1].exp()), said
    limits = [torch.full((len(ground.theta),), value, dtype=torch.float64) for value in (REPEATS, EXCESS)]
    said = (
        f"R_D* = {REPEATS:.3g} and R_N* = {EXCESS:.3g} are those published for text (Muennighoff et al. 2023, arXiv 2305.16264): "
        "these runs do not say their own, and the intervals do not know of it"
    )
    return ground, (limits[0], limits[1]), said
