"""Fit a law to a table of runs: from many starts, with a bootstrap over runs, a check on the largest runs, and a verdict.

The objective is the sum of Huber losses of log residuals with delta = 1e-3 (Hoffmann et al. 2022, arXiv 2203.15556, section 3.3),
unless the law's paper has another. Single starts do not do: from a third of the classical grid only one reaches the optimum's
value within a percent. Intervals resample whole runs and begin at the optimum, as Besiroglu et al. 2024 (arXiv 2404.10102) did.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from unlabeled.core.errors import UserError
from unlabeled.scale import laws
from unlabeled.scale.laws import Law
from unlabeled.scale.objective import huber
from unlabeled.scale.result import HeldOut, Interval, Result, interval
from unlabeled.scale.solve import DELTA, POLISHED, bootstrap, chosen, degenerate, minimised, search, tensors
from unlabeled.scale.table import Table

__all__ = ["DELTA", "Allocation", "Fit", "Prediction", "fit", "fit_law", "score"]

_DECADES = {"params": 1.0, "tokens": 1.0, "flops": 2.0}  # that the runs should span at least; others half a decade
_SAME_BUDGET = 0.01  # of compute: runs that differ by less have one budget
_UNLIKELY = (
    0.01  # chance, were the intervals right, of so few held-out runs inside them, below which the verdict says so
)


@dataclass(frozen=True)
class Prediction:
    """The law's value for a new run, and the interval in which the run itself will lie; note: on the reach, or empty."""

    value: float
    low: float
    high: float
    note: str = ""


@dataclass(frozen=True)
class Allocation:
    """The best split of a compute budget with C = 6 N D; intervals over the bootstrap."""

    compute: float
    params: float
    tokens: float
    loss: float
    params_interval: Interval
    tokens_interval: Interval
    loss_interval: Interval
    note: str = ""

    @property
    def tokens_per_param(self) -> float:
        return self.tokens / self.params


@dataclass(frozen=True, kw_only=True)
class Fit(Result):
    """A law with its parameters. theta: (parameters,) as laws.py has them. samples: (draws, parameters) of the bootstrap.
    residuals: (runs,) log of measured over fitted, enlarged for the parameters that were fitted."""

    form: Law
    theta: Tensor
    samples: Tensor
    residuals: np.ndarray
    table: Table

    @property
    def degenerate(self) -> str:
        """Why the optimum is no law, or an empty string."""
        return degenerate(self.form, self.theta, *tensors(self.table, self.form))

    def predict(self, *, level: float | None = None, seed: int = 0, **inputs: float) -> Prediction:
        """The target of a run with these inputs, such as params=1e9, tokens=2e10.

        Raises:
            UserError: where an input of the law is missing or not positive.
        """
        columns = {}
        for name in self.form.inputs:
            if name not in inputs or not inputs[name] > 0:
                raise UserError(
                    f"A prediction of {self.law} needs a positive {name}; give {', '.join(self.form.inputs)}."
                )
            columns[name] = torch.tensor([inputs[name]], dtype=torch.float64)
        value = float(self.form.log_predict(self.theta[None], columns).exp())
        low = high = math.nan
        if len(self.samples):
            draws = self.form.log_predict(self.samples, columns)[:, 0].numpy()
            noise = np.random.default_rng(seed).choice(self.residuals, len(draws))
            low, high = interval(np.exp(draws + noise), level or self.level)
        return Prediction(value, low, high, self.reach(inputs))

    def optimum(self, compute: float) -> Allocation:
        """The params and tokens of least loss for a compute budget in FLOPs.

        Raises:
            UserError: for a law that is not one of both params and tokens.
        """
        budget = torch.tensor([compute], dtype=torch.float64)
        params, tokens = self.form.allocation(self.theta[None], budget)
        loss = self._loss(self.theta[None], params, tokens)
        many = self.form.allocation(self.samples, budget) if len(self.samples) else (torch.empty(0), torch.empty(0))
        losses = self._loss(self.samples, *many) if len(self.samples) else torch.empty(0)
        found = [interval(t.flatten().numpy(), self.level) for t in (*many, losses)]
        note = self.reach({"flops": compute, "params": float(params), "tokens": float(tokens)})
        return Allocation(compute, float(params), float(tokens), float(loss), found[0], found[1], found[2], note)

    def _loss(self, theta: Tensor, params: Tensor, tokens: Tensor) -> Tensor:
        """(rows, 1): of each row of theta at its own params and tokens."""
        rows = []
        for t, n, d in zip(theta, params[:, 0], tokens[:, 0]):
            columns = {"params": n[None], "tokens": d[None], "unique_tokens": d[None]}
            rows.append(self.form.log_predict(t[None], columns).exp()[0])
        return torch.stack(rows)

    def reach(self, inputs: Mapping[str, float]) -> str:
        """A sentence on the inputs (and flops) that lie more than ten times beyond the runs; empty where none does."""
        far = []
        for name, value in inputs.items():
            if name not in self.table or name not in (*self.form.inputs, "flops"):
                continue
            column = self.table[name]
            factor = max(value / column.max(), column.min() / value)
            if factor > 10:
                side = "above the largest" if value > column.max() else "below the smallest"
                far.append(f"{name} is {factor:,.0f} times {side} that was fitted")
        return (
            f"Extrapolation: {' and '.join(far)}; the interval knows nothing of what may change there." if far else ""
        )


def fit(
    table: Table,
    law: str | Law = "chinchilla",
    *,
    highest: int = 0,
    incomplete: bool = False,
    draws: int = 1000,
    level: float = 0.9,
    held: float | None = None,
    starts: Tensor | None = None,
    delta: float = DELTA,
    seed: int = 0,
) -> Result:
    """Fit a law by name: one of laws.LAWS, `kaplan`, or isoflop, envelope, mixed-modal, pruning.

    highest: so many runs with the greatest losses are left out first. incomplete: leave out runs without a positive number where
    the law needs one, and do not refuse the table. draws: of the bootstrap; 0 for no intervals. held: value
    of the compute (or of the law's first input) from which runs are held out for the check; by default the largest tenth, and
    with it what else has the smallest of these budgets.
    starts: (starts, parameters) instead of the law's own. seed: of the bootstrap.

    Raises:
        UserError: where the table does not serve the law.
    """
    if not 0 < level < 1 or draws < 0 or highest < 0:
        raise UserError("A level is a share between 0 and 1, such as 0.9; draws and highest are 0 or more.")
    if incomplete:
        table = table.complete("params", "tokens", "flops", "loss", "unique_tokens")
    if "loss" in table:
        table = table.without_highest(highest)
    if isinstance(law, Law):
        return fit_law(table, law, draws=draws, level=level, held=held, starts=starts, delta=delta, seed=seed)
    if law in ("isoflop", "envelope"):
        from unlabeled.scale import isoflop

        if law == "isoflop":
            return isoflop.fit_isoflop(table, draws=draws, level=level, seed=seed)
        return isoflop.fit_envelope(table, draws=draws, level=level, seed=seed)
    if law == "mixed-modal":
        from unlabeled.scale.mixed_modal import fit_mixed_modal

        return fit_mixed_modal(table, draws=draws, level=level, delta=delta, seed=seed)
    if law == "pruning":
        from unlabeled.scale.pruning import fit_pruning

        return fit_pruning(table, draws=draws, level=level, seed=seed)
    varying = [c for c in table.columns if len(np.unique(table[c])) > 1]
    form = laws.find(law, varying)
    return fit_law(table, form, draws=draws, level=level, held=held, starts=starts, delta=delta, seed=seed)


def fit_law(
    table: Table,
    law: Law,
    *,
    draws: int = 1000,
    level: float = 0.9,
    held: float | None = None,
    starts: Tensor | None = None,
    delta: float = DELTA,
    seed: int = 0,
) -> Fit:
    """`fit` for a Law."""
    size = len(law.parameters)
    table.need(law.inputs, law.target, least=size)
    columns, target = tensors(table, law)
    ends, base = search(law, columns, target, starts, delta)
    theta, refused = chosen(law, ends, columns, target)
    value = float(ends.values[theta])
    best = ends.points[theta]
    share = float((ends.values <= value * 1.01).double().mean())
    samples = bootstrap(law, columns, target, best, draws, delta, seed)
    fitted = law.log_predict(best[None], columns)[0]
    enlarged = math.sqrt(
        len(target) / max(len(target) - size, 1)
    )  # residuals of a fit are smaller than those of new runs
    residuals = ((target.log() - fitted) * enlarged).numpy()
    shown = {k: float(v[0]) for k, v in law.shown(best[None]).items()}
    drawn = {k: v.numpy() for k, v in law.shown(samples).items()} if len(samples) else {}
    intervals = {k: interval(v, level) for k, v in drawn.items()}
    with np.errstate(over="ignore"):  # a scale such as N_c of an exponent near zero is beyond all bounds
        finite = {k: v[np.isfinite(v)] for k, v in drawn.items()}
        errors = {k: float(np.std(v)) if len(v) else math.nan for k, v in finite.items()}
    good = ends.points[ends.values.argsort()[:POLISHED]]
    heldout, missing = _heldout(table, law, torch.cat([best[None], good]), held, min(draws, 200), level, delta, seed)
    notes = (*table.notes, *base, *([missing] if missing else []))
    result = Fit(
        law=law.name,
        formula=law.formula,
        source=law.source,
        parameters=shown,
        objective=score(table, law, best, delta),
        rows_used=len(table),
        rows_excluded=table.excluded,
        intervals=intervals,
        errors=errors,
        level=level,
        heldout=heldout,
        convention=table.convention,
        units=_units(law, table),
        notes=notes,
        details={"starts": len(ends.values), "share_at_optimum": share, "refused_as_degenerate": refused},
        form=law,
        theta=best,
        samples=samples,
        residuals=residuals,
        table=table,
    )
    object.__setattr__(result, "verdict", tuple(_judged(result, share)))
    far = _outliers(result)
    if len(far):
        said = f"Far from the law lie {', '.join(str(table.names[i]) for i in far[:5])}{' and others' if len(far) > 5 else ''}."
        object.__setattr__(result, "notes", (*notes, said))
    return result


def _units(law: Law, table: Table) -> Mapping[str, str]:
    """The law's units, with that of the table's losses where the runs all have one."""
    said = set(table.labels.get("unit", ()))
    if law.target != "loss" or len(said) != 1:
        return law.units
    unit = str(said.pop())
    unit = "unit of loss" if unit == "loss" else unit
    return {name: unit if known in ("nats per token", "unit of loss") else known for name, known in law.units.items()}


def score(table: Table, law: Law, theta: Tensor | Sequence[float], delta: float = DELTA) -> float:
    """The law's misfit to the table at theta, summed over runs: Huber's in log L, or half the squares where the law has those."""
    columns, target = tensors(table, law)
    log = law.log_predict(torch.as_tensor(theta, dtype=torch.float64)[None], columns)[0]
    residual = log.exp() - target if law.misfit == "squares" else log - target.log()
    if law.misfit != "huber":
        return float(residual.square().sum() / 2)
    return float(huber(residual, delta).sum())


def _heldout(
    table: Table, law: Law, starts: Tensor, held: float | None, draws: int, level: float, delta: float, seed: int
) -> tuple[HeldOut | None, str]:
    """The check on the largest runs, or why there is none."""
    key = "flops" if "flops" in table and law.target == "loss" and "loss" not in law.inputs else law.inputs[0]
    column = table[key]
    if held is None:
        count = max(1, round(len(table) / 10))
        falling = np.sort(column)[::-1]
        # A budget is held out whole: runs of the same compute say nothing of how far a law carries.
        whole = int((column >= falling[count - 1] * (1 - _SAME_BUDGET)).sum())
        held = float(falling[(whole if 3 * whole <= len(table) else count) - 1])
    large = column >= held
    small = table.rows(~large)
    distinct = min((len(np.unique(small[name])) for name in law.inputs), default=0) if len(small) else 0
    if not large.any() or len(small) <= len(law.parameters) or distinct < 2:
        return None, f"No run was held out: without the largest the law could not be fitted ({len(table)} runs)."
    columns, target = tensors(small, law)
    try:
        if law.first is not None:
            ends, _ = search(law, columns, target, None, delta)
        else:
            ends = minimised(law, columns, target, starts, delta)
        best, _ = chosen(law, ends, columns, target)
    except UserError as error:
        return None, f"No run was held out: {error}"
    theta = ends.points[best]
    new, truth = tensors(table.rows(large), law)
    foretold = law.log_predict(theta[None], new)[0].exp()
    errors = ((foretold - truth).abs() / truth).numpy()
    last = target[int(np.lexsort((target.numpy(), -small[key]))[0])]
    line = _line(
        [columns[c].log().numpy() for c in law.inputs], target.log().numpy(), [new[c].log().numpy() for c in law.inputs]
    )
    covered = None
    low = high = np.full(len(truth), math.nan)
    if draws:
        samples = bootstrap(law, columns, target, theta, draws, delta, seed)
        enlarged = math.sqrt(len(target) / max(len(target) - len(theta), 1))
        residuals = (target.log() - law.log_predict(theta[None], columns)[0]).numpy() * enlarged
        noise = np.random.default_rng(seed).choice(residuals, (len(samples), len(truth)))
        many = law.log_predict(samples, new).numpy() + noise
        low, high = np.exp(np.quantile(many, [(1 - level) / 2, (1 + level) / 2], axis=0))
        covered = float(np.mean((low <= truth.numpy()) & (truth.numpy() <= high)))
    shown = {k: float(v[0]) for k, v in law.shown(theta[None]).items()}
    found = HeldOut(
        what=f"{key} >= {held:.4g}",
        fitted=len(small),
        runs=int(large.sum()),
        reach=float(column.max() / small[key].max()),
        mean_error=float(errors.mean()),
        largest_error=float(errors.max()),
        baselines={
            "last": float(((last - truth).abs() / truth).mean()),
            "line": float(np.mean(np.abs(np.exp(line) / truth.numpy() - 1))),
        },
        parameters=shown,
        covered=covered,
        points=tuple(
            (name, float(x), float(y), float(f), float(a), float(b))
            for name, x, y, f, a, b in zip(table.rows(large).names, column[large], truth, foretold, low, high)
        ),
    )
    return found, ""


def _line(inputs: list[np.ndarray], target: np.ndarray, new: list[np.ndarray]) -> np.ndarray:
    """A least-squares plane in the logarithms, at new inputs."""
    matrix = np.stack([np.ones_like(target), *inputs], 1)
    weights = np.linalg.lstsq(matrix, target, rcond=None)[0]
    return np.stack([np.ones_like(new[0]), *new], 1) @ weights


def _judged(found: Fit, share: float) -> list[str]:
    """Reasons not to trust a fit, in words."""
    law, table, size = found.form, found.table, len(found.theta)
    said = []
    if len(table) < 2 * size:
        said.append(f"{len(table)} runs for {size} parameters: the intervals mean little.")
    for name in law.inputs:
        wide = math.log10(table[name].max() / table[name].min())
        if wide < _DECADES.get(name, 0.5) * 0.999:
            said.append(
                f"The runs span {wide:.1f} decades of {name}, and {_DECADES.get(name, 0.5):g} is the least to see an exponent."
            )
    if found.degenerate:
        said.append(f"The optimum is degenerate: {found.degenerate}.")
    if share < 0.01 and found.details["starts"] >= 100:
        said.append(
            f"Only {share:.1%} of {found.details['starts']} starts reach the optimum: a better one may have been missed."
        )
    said += _flat(found)
    check = found.heldout
    if check and check.mean_error > min(check.baselines.values()):
        name, error = min(check.baselines.items(), key=lambda item: item[1])
        other = {"last": "the loss of the largest smaller run", "line": "a straight line in the logarithms"}[name]
        said.append(
            f"On the {check.runs} largest runs it errs by {check.mean_error:.1%}, {other} by {error:.1%}: it does not "
            "extrapolate."
        )
    if check and check.covered is not None and (inside := round(check.covered * check.runs)) < check.runs:
        level = found.level
        chance = sum(math.comb(check.runs, k) * level**k * (1 - level) ** (check.runs - k) for k in range(inside + 1))
        if chance < _UNLIKELY:
            said.append(
                f"{inside} of {check.runs} held-out runs lie inside their {level:.0%} prediction intervals: beyond the runs "
                "that were fitted, intervals are too narrow."
            )
    far = _outliers(found)
    if len(far) >= 0.01 * len(table) and len(far):
        names = ", ".join(str(table.names[i]) for i in far[:3])
        said.append(
            f"{len(far)} runs lie more than ten times the usual residual from the law ({names}): look at them, and see how "
            "far the parameters move without them."
        )
    return said


def _outliers(found: Fit) -> np.ndarray:
    """Rows whose residual is more than ten times the usual one, the worst first."""
    size = np.abs(found.residuals)
    usual = 1.4826 * float(np.median(size))  # a standard deviation, were they normal
    far = np.flatnonzero(size > 10 * max(usual, 1e-7))
    return far[np.argsort(-size[far])]


def _flat(found: Fit) -> list[str]:
    """Parameters that the bootstrap does not determine."""
    said = []
    law = found.form
    for name in law.exponents:
        low, high = found.intervals.get(name, (math.nan, math.nan))
        value = found.parameters[name]
        if high - low > 0.5 * abs(value):
            said.append(
                f"The basin is flat: the {found.level:.0%} interval of {name} runs from {low:.3g} to {high:.3g}; trust "
                "predictions near the runs, not this exponent."
            )
    for name, (low, high) in found.intervals.items():
        if name not in law.exponents and name != law.floor and 0 < 100 * low < high:
            said.append(f"{name} is hardly determined: its interval runs from {low:.3g} to {high:.3g}.")
    if law.floor and law.floor in found.intervals:
        low, high = found.intervals[law.floor]
        if low < 0.1 * found.table[law.target].min():
            said.append(f"The runs do not see the floor {law.floor}: its interval runs from {low:.3g} to {high:.3g}.")
    for first, second in itertools.pairwise(sorted(set(law.exponents) & {"alpha", "beta"})):
        ratio = found.parameters[first] / found.parameters[second]
        if not 1 / 5 < ratio < 5:
            said.append(
                f"{first} and {second} differ {max(ratio, 1 / ratio):.0f}-fold: one input hardly varies the loss here."
            )
    return said
