"""The charts of a scaling law: loss against compute, isoFLOP curves, the best split of a budget, residuals."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from unlabeled.report.axes import compute as power
from unlabeled.report.axes import percent
from unlabeled.report.plot import Band, Line, Mark, Points, Rule, key, plot
from unlabeled.scale.fit import Fit
from unlabeled.scale.isoflop import IsoFlop, Vertex, akima
from unlabeled.scale.solve import tensors
from unlabeled.scale.wording import amount, flops

if TYPE_CHECKING:
    from unlabeled.scale.answers import Best, Point
    from unlabeled.scale.table import Table

__all__ = ["BEYOND", "Seen", "charts", "figures", "fitted", "splits"]

STEPS = 8  # colours of the sequential scale: variables --s0 (smallest) to --s7
GRID = 60  # places at which a smooth curve is drawn
BEYOND = 10.0  # times the largest run: how far that frontier reaches, and in any case the drawing of the loss
TIGHT = 30.0  # high over low: wider intervals are cut at the frame instead of squeezing the line
SAME = math.log(1.15)  # runs whose FLOPs differ by less than this share share a budget, as in `scale.isoflop`
FAR = 10.0  # times the usual residual: such runs are named in the drawing
DENSE = 120  # runs; more are drawn smaller


@dataclass(frozen=True)
class Seen:
    """What the page shows, of advice or of a fit alone. item: what tokens are; unit: of the loss, if the table says it."""

    table: Table
    fit: Fit | None
    isoflop: IsoFlop | None
    frontier: Sequence[Point] = ()
    chosen: Sequence[Best] = ()
    item: str = "tokens"
    unit: str = ""
    cost: str = ""


def charts(seen: Seen) -> str:
    """All that can be drawn of it, as HTML; empty where nothing can."""
    drawn = (draw(seen) for draw in (_loss_against_compute, _isoflops, _by_tokens, _split, _residuals, _foretold))
    html = "".join(drawn)
    return f'<div class="charts wide">{html}</div>' if html else ""


def _shades(values: np.ndarray, label: Callable[[float], str] = amount) -> tuple[np.ndarray, list[tuple[str, str]]]:
    """(runs,) group of each value, and (colour, words) of each group, rising: one group a value where there are few."""
    distinct, place = np.unique(values, return_inverse=True)
    if len(distinct) > STEPS:
        logs = np.log(values)
        width = (logs.max() - logs.min()) / STEPS
        bins = np.clip(((logs - logs.min()) / width).astype(int), 0, STEPS - 1)
        used, place = np.unique(bins, return_inverse=True)
        ends = [(values[bins == b].min(), values[bins == b].max()) for b in used]
        words = [label(low) if label(low) == label(high) else f"{label(low)} to {label(high)}" for low, high in ends]
        steps = used.tolist()
    else:
        words = [label(v) for v in distinct]
        steps = [round(i * (STEPS - 1) / max(1, len(distinct) - 1)) for i in range(len(distinct))]
    return place, [(f"var(--s{step})", said) for step, said in zip(steps, words)]


def _words(seen: Seen) -> list[str]:
    """What each run says when pointed at."""
    table, law = seen.table, fitted(seen.fit)
    said = []
    sizes = [(c, words) for c, words in (("params", "parameters"), ("tokens", seen.item)) if c in table]
    for i, name in enumerate(table.names):
        parts = [f"{amount(table[c][i])} {words}" for c, words in sizes]
        if "flops" in table:
            parts.append(f"{flops(table['flops'][i])} FLOPs")
        if "loss" in table:
            parts.append(f"loss {figures(table['loss'][i])}" + (f" (law {figures(law[i])})" if len(law) else ""))
        said.append(f"{name}: {', '.join(parts)}")
    return said


def _runs(seen: Seen, x: np.ndarray, y: np.ndarray, rows: np.ndarray, colour: str) -> Points:
    said = _words(seen)
    return Points(_pairs(x[rows], y[rows]), colour, [said[i] for i in rows], size=2.4 if len(x) > DENSE else 3.2)


def _by_group(
    seen: Seen, x: np.ndarray, y: np.ndarray, groups: np.ndarray, shades: Sequence[tuple[str, str]]
) -> list[Mark]:
    rows = (np.flatnonzero(groups == group) for group in range(len(shades)))
    return [_runs(seen, x, y, some, colour) for some, (colour, _) in zip(rows, shades)]


def _sizes(seen: Seen) -> tuple[np.ndarray, list[tuple[str, str]]]:
    """Groups by size, as `_shades`."""
    sizes = seen.table["params"] if "params" in seen.table else np.zeros(0)
    if not len(sizes) or not (np.isfinite(sizes) & (sizes > 0)).all():
        return np.zeros(len(seen.table), int), [("var(--c0)", "runs")]
    return _shades(sizes)


def _pairs(x: np.ndarray, y: np.ndarray) -> list[tuple[float, float]]:
    return list(zip(x.tolist(), y.tolist()))


def _along(seen: Seen, name: str, colour: str, end: float) -> tuple[list[Mark], list[Mark]]:
    """The band of one number of the frontier, and its line, from the smallest run on: dashed beyond the largest, up to `end`."""
    x = np.array([p.compute for p in seen.frontier])
    found = [getattr(p, name) for p in seen.frontier]
    values, low, high = (np.array([getattr(e, which) for e in found]) for which in ("value", "low", "high"))
    first, last = float(seen.table["flops"].min()), float(seen.table["flops"].max())
    start, end = max(first, x.min()), min(end, x.max())
    at = np.unique(np.clip(np.concatenate([x, [first, last], np.geomspace(start, end, GRID)]), start, end))
    with np.errstate(invalid="ignore"):  # an interval without a bound stays without one
        values, low, high = np.exp(akima(np.log(x), np.log([values, low, high]), np.log(at)))
    band = Band(list(zip(at.tolist(), low.tolist(), high.tolist())), colour, bool((high < TIGHT * low).all()))
    inside, beyond = at <= last, at >= last
    return [band], [
        Line(_pairs(at[inside], values[inside]), colour),
        Line(_pairs(at[beyond], values[beyond]), colour, dashed=True),
    ]


def _loss_against_compute(seen: Seen) -> str:
    table = seen.table
    if not {"flops", "loss"} <= set(table.columns):
        return ""
    groups, shades = _sizes(seen)
    marks = _by_group(seen, table["flops"], table["loss"], groups, shades)
    legend = [("dot", colour, said) for colour, said in shades]
    note = ""
    if seen.frontier:
        band, line = _along(seen, "loss", "var(--c1)", BEYOND * float(table["flops"].max()))
        marks = [*band, *marks, *line]
        legend += [("line", "var(--c1)", "least loss by the law"), ("dashed", "var(--c1)", "beyond the runs")]
        note = _banded(seen, "the least loss; a single run scatters more")
    return plot(
        f"{_loss_name(seen)} against compute, by parameters", marks, "FLOPs", log_x=True, log_y=True, label_x=power, note=note,
        legend=key(legend),
    )  # fmt: skip


def _isoflops(seen: Seen) -> str:
    """Loss against size, a curve for each budget that has a minimum, the parabola drawn through it."""
    if seen.isoflop is None or not {"params", "flops", "loss"} <= set(seen.table.columns):
        return ""
    table = seen.table
    vertices = sorted(seen.isoflop.vertices, key=lambda v: v.flops)
    budgets = _budgets(table)
    marks: list[Mark] = []
    legend = []
    left = np.ones(len(table), bool)
    for number, vertex in enumerate(vertices):
        rows = min(budgets, key=lambda rows: abs(np.log(table["flops"][rows]).mean() - math.log(vertex.flops)))
        left[rows] = False
        colour = f"var(--s{round(number * (STEPS - 1) / max(1, len(vertices) - 1))})"
        marks.append(Line(_parabola(table["params"][rows], table["loss"][rows], vertex), colour, fits=False))
        marks.append(_runs(seen, table["params"], table["loss"], rows, colour))
        told = f"{flops(vertex.flops)} FLOPs: least at {amount(vertex.params)} parameters, loss {vertex.loss:.4g}"
        marks.append(Points([(vertex.params, vertex.loss)], "var(--c1)", [told], ring=True))
        legend.append(("dot", colour, _flops_html(vertex.flops)))
    rest = np.flatnonzero(left)
    if len(rest):
        marks.insert(0, _runs(seen, table["params"], table["loss"], rest, "var(--faint)"))
        legend.append(("dot", "var(--faint)", "no minimum inside the sizes"))
    legend.append(("ring", "var(--c1)", "minimum of the parabola"))
    return plot(
        f"{_loss_name(seen)} against parameters, by FLOPs", marks, "parameters", log_x=True, log_y=True, label_x=amount,
        legend=key(legend),
    )  # fmt: skip


def _budgets(table: Table) -> list[np.ndarray]:
    """Rows of each isoFLOP budget."""
    order = np.argsort(table["flops"], kind="stable")
    return np.split(order, np.flatnonzero(np.diff(np.log(table["flops"][order])) > SAME) + 1)


def _parabola(params: np.ndarray, loss: np.ndarray, vertex: Vertex) -> list[tuple[float, float]]:
    """The parabola of a budget, over the five sizes around the lowest that it was fitted to."""
    size, place = np.unique(np.log(params), return_inverse=True)
    lowest = int((np.bincount(place, loss) / np.bincount(place)).argmin())
    start = max(0, min(lowest - 2, len(size) - 5))
    around = size[start : start + 5] - math.log(vertex.params)
    at = np.linspace(around.min(), around.max(), GRID)
    return _pairs(vertex.params * np.exp(at), vertex.loss + vertex.bend * at**2)


def _by_tokens(seen: Seen) -> str:
    """Loss against tokens, with the law's curve of each size."""
    table, fit = seen.table, seen.fit
    if (fit is None and seen.isoflop is not None) or not {"params", "tokens", "loss"} <= set(table.columns):
        return ""
    groups, shades = _sizes(seen)
    marks: list[Mark] = []
    note = ""
    if fit is not None and splits(fit):
        tokens = np.geomspace(table["tokens"].min(), table["tokens"].max(), GRID)
        for group, (colour, _) in enumerate(shades):
            size = float(np.exp(np.log(table["params"][groups == group]).mean()))
            marks.append(Line(_pairs(tokens, _loss(fit, size, tokens)), colour, fits=False, thin=True))
        many = len(np.unique(table["params"])) > len(shades)
        note = "Lines: the law" + (" at the mean size of each group." if many else " at each size.")
    marks += _by_group(seen, table["tokens"], table["loss"], groups, shades)
    return plot(
        f"{_loss_name(seen)} against {seen.item}, by parameters", marks, seen.item, log_x=True, log_y=True, label_x=amount,
        note=note, legend=key([("dot", colour, said) for colour, said in shades]),
    )  # fmt: skip


def _split(seen: Seen) -> str:
    """Best size and best number of tokens against compute, by the law and by isoFLOP minima."""
    marks: list[Mark] = []
    legend = []
    if seen.frontier:
        end = max([BEYOND * float(seen.table["flops"].max()), *(row.compute for row in seen.chosen)])
        lines = [_along(seen, name, colour, end) for name, colour in (("params", "var(--c0)"), ("tokens", "var(--c2)"))]
        marks = [mark for band, _ in lines for mark in band] + [mark for _, line in lines for mark in line]
        legend = [("line", "var(--c0)", "parameters by the law"), ("line", "var(--c2)", f"{seen.item} by the law")]
    for row in seen.chosen:
        said = (
            f"{flops(row.compute)} FLOPs: {amount(row.params.value)} parameters, {amount(row.tokens.value)} {seen.item}"
        )
        marks.append(Points([(row.compute, row.params.value)], "var(--c0)", [said]))
        marks.append(Points([(row.compute, row.tokens.value)], "var(--c2)", [said]))
    if seen.chosen:
        legend.append(("dot", "var(--soft)", "the budgets of the table"))
    vertices = seen.isoflop.vertices if seen.isoflop else ()
    if vertices:
        spread = [(v.akima * math.exp(-v.sigma), v.akima * math.exp(v.sigma)) for v in vertices]
        told = [
            f"Minimum at {flops(v.flops)} FLOPs: {amount(low)} to {amount(high)} parameters, {amount(v.tokens)} {seen.item}"
            for v, (low, high) in zip(vertices, spread)
        ]
        marks.append(Points([(v.flops, v.akima) for v in vertices], "var(--c0)", told, spread, ring=True))
        marks.append(Points([(v.flops, v.tokens) for v in vertices], "var(--c2)", told, ring=True))
        legend.append(("ring", "var(--c0)", "parameters at isoFLOP minima, with one standard deviation"))
        legend.append(("ring", "var(--c2)", f"{seen.item} there"))
    if seen.isoflop and not seen.frontier:
        ends = [f(v.flops for v in vertices) for f in (min, max)]
        marks.insert(0, Line([(c, seen.isoflop.optimum(c)) for c in ends], "var(--c0)"))
        legend.insert(0, ("line", "var(--c0)", "power law through the minima"))
    if not marks:
        return ""
    if "flops" in seen.table:
        marks.append(Rule(float(seen.table["flops"].max()), "runs end"))
    return plot(
        f"Best parameters and {seen.item} against compute", marks, "FLOPs", log_x=True, log_y=True, label_x=power, label_y=amount,
        note=_banded(seen, "the best split"), legend=key(legend),
    )  # fmt: skip


def _residuals(seen: Seen) -> str:
    """Measured over fitted loss, less one, with lines at one percent."""
    fit, table = seen.fit, seen.table
    if fit is None or len(fit.table) != len(table):
        return ""
    left = table[fit.form.target] / fitted(fit) - 1
    size = np.abs(np.log1p(left))  # as the fit itself looks for outliers
    against, label = ("flops", power) if "flops" in table else (fit.form.inputs[0], amount)
    groups, shades = _sizes(seen)
    usual = 1.4826 * float(np.median(size))  # a standard deviation, were they normal
    far = [i for i in np.argsort(-size)[:3].tolist() if size[i] > FAR * max(usual, 1e-7)]
    close = float(np.ptp(left)) < 0.4  # or lines at 1% would hide the one between
    marks: list[Mark] = [Rule(0.0, level=True, dashed=False)]
    marks += [Rule(0.01, level=True), Rule(-0.01, level=True)] if close else []
    marks += _by_group(seen, table[against], left, groups, shades)
    marks.append(
        Points(
            _pairs(table[against][far], left[far]), "var(--c1)", [_words(seen)[i] for i in far],
            named=[str(table.names[i]) for i in far], ring=True,
        )
    )  # fmt: skip
    inside = float(np.mean(np.abs(left) <= 0.01))
    half = float(np.median(np.abs(left)))
    note = f"{inside:.0%} of the runs lie within 1% of the law{' (dotted)' if close else ''}, half of all within {half:.2%}."
    return plot(
        "How far measured losses lie from the law", marks, "FLOPs" if against == "flops" else against, log_x=True,
        label_x=label, label_y=percent, note=note, legend=key([("dot", colour, said) for colour, said in shades]),
    )  # fmt: skip


def _foretold(seen: Seen) -> str:
    """The held-out runs as the law without them foretold them, against what was measured."""
    found = seen.fit or seen.isoflop
    check = found.heldout if found else None
    if found is None or check is None or not check.points:
        return ""
    groups, shades = _sizes(seen)
    colours = {str(name): shades[group] for name, group in zip(seen.table.names, groups)}
    marks: list[Mark] = []
    for name, _, measured, foretold, low, high in check.points:
        error = f"{100 * (foretold / measured - 1):+.2f}%"
        said = f"{name}: measured {figures(measured)}, foretold {figures(foretold)} ({error})"
        colour, _ = colours.get(name, ("var(--c0)", ""))
        marks.append(Points([(measured, foretold)], colour, [said], [(low, high)]))
    ends = [f([v for _, _, *pair, _, _ in check.points for v in pair]) for f in (min, max)]
    marks.insert(0, Line([(v, v) for v in ends], "var(--soft)", dashed=True, thin=True))
    used = {colours[p[0]] for p in check.points if p[0] in colours}
    legend = [("dot", *shade) for shade in shades if shade in used] + [("dashed", "var(--soft)", "as measured")]
    banded = any(math.isfinite(p[4]) for p in check.points)
    return plot(
        f"The {check.runs:,} largest runs as foretold by the others", marks, "measured", log_x=True, log_y=True,
        note=f"Upright lines: {found.level:.0%} intervals of what was foretold." if banded else "", legend=key(legend),
    )  # fmt: skip


def splits(fit: Fit) -> bool:
    return {"params", "tokens"} <= set(fit.form.inputs) <= {"params", "tokens", "unique_tokens"}


def _loss(fit: Fit, params: float, tokens: np.ndarray) -> np.ndarray:
    """(k,) of fresh tokens."""
    d = torch.from_numpy(tokens)
    columns = {"params": torch.full_like(d, params), "tokens": d, "unique_tokens": d}
    return fit.form.log_predict(fit.theta[None], columns)[0].exp().numpy()


def _flops_html(value: float) -> str:
    mantissa, power = f"{value:.2e}".split("e")
    return f"{float(mantissa):g}×10<sup>{int(power)}</sup>"


def fitted(fit: Fit | None) -> np.ndarray:
    """(runs,) by the law, of the runs it was fitted to; (0,) without one."""
    if fit is None:
        return np.empty(0)
    columns, _ = tensors(fit.table, fit.form)
    return fit.form.log_predict(fit.theta[None], columns)[0].exp().numpy()


def _banded(seen: Seen, words: str) -> str:
    if seen.fit is None or not any(math.isfinite(p.loss.low) for p in seen.frontier):
        return ""
    return f"Bands: {seen.fit.level:.0%} intervals of {words}."


def _loss_name(seen: Seen) -> str:
    return f"Loss ({seen.unit})" if seen.unit else "Loss"


def figures(value: float) -> str:
    """Four digits: 1.222, 3.874e4."""
    mantissa, _, exponent = f"{value:.4g}".partition("e")
    return f"{mantissa}e{int(exponent)}" if exponent else mantissa
