"""The page of a scaling law: what a budget buys, the runs and the law in charts, how far to trust it; one HTML file, offline."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from unlabeled.report.axes import compute as flops_label
from unlabeled.report.axes import count, percent, scientific
from unlabeled.report.page import html_table, section
from unlabeled.report.plot import Band, Line, Mark, Points, Rule, key, plot
from unlabeled.scale.fit import Fit
from unlabeled.scale.isoflop import IsoFlop
from unlabeled.scale.laws import FLOPS_PER_PARAM_TOKEN
from unlabeled.scale.result import interval
from unlabeled.scale.solve import tensors

if TYPE_CHECKING:
    from unlabeled.scale.result import HeldOut, Result
    from unlabeled.scale.table import Excluded, Table

__all__ = ["Curve", "curve", "page", "page_of", "write"]

STEPS = 8  # colours of the sequential scale: variables --s0 (smallest) to --s7
GRID = 60  # places at which a curve is drawn
BEYOND = 10.0  # times the largest run's FLOPs: how far the frontier is drawn
SHOWN = 40  # runs; more are folded away
SAME = math.log(1.15)  # runs whose FLOPs differ by less than this share lie on one isoFLOP curve
FAR = 10.0  # times the usual residual: such runs are named in the drawing
AGREE = 0.05  # by which FLOPs may differ from 6 N D and still be drawn on one axis with the law's
_NONE = "none: the law was fitted without a bootstrap"


@dataclass(frozen=True)
class Curve:
    """The best split at each value of compute (k,), rising: params, tokens and loss (k,), and their intervals (k, 2)."""

    compute: np.ndarray
    params: np.ndarray
    tokens: np.ndarray
    loss: np.ndarray
    params_interval: np.ndarray
    tokens_interval: np.ndarray
    loss_interval: np.ndarray


@dataclass(frozen=True)
class _Seen:
    """What the charts show. compute: (runs,) FLOPs on the axis of the curve; rule: what they are."""

    table: Table
    fit: Fit | None
    isoflop: IsoFlop | None
    curve: Curve | None
    compute: np.ndarray
    rule: str
    exact: bool  # compute is the table's own


def write(advice: Any, path: str | Path, command: str) -> Path:
    """Write the page of advice to a file and return its path; command: what makes it again."""
    from unlabeled.engine.record import write_atomically

    write_atomically(Path(path), page(advice, command))
    return Path(path)


def page(advice: Any, command: str) -> str:
    """The whole page as HTML; everything that comes from data, names or settings is escaped."""
    seen = _seen(advice.table, advice.fit, advice.isoflop, None)
    return _page(seen, advice.fit, advice.headline, advice.cautions, advice.tables, command)


def page_of(found: Result, table: Table, command: str) -> str:
    """The page of a fit alone: of a law, or of isoFLOP minima."""
    fit = found if isinstance(found, Fit) else None
    seen = _seen(fit.table if fit else table, fit, found if isinstance(found, IsoFlop) else None, None)
    said = [f"{found.formula}, fitted to {found.rows_used:,} runs."]
    return _page(seen, found, said, found.verdict, (), command)


def curve(fit: Fit, compute: np.ndarray) -> Curve | None:
    """The law's best split with C = 6 N D, with intervals over the bootstrap; None where the law has none."""
    if not _splits(fit):
        return None
    form, budgets = fit.form, torch.from_numpy(np.ascontiguousarray(compute))
    # without a closed form the split is searched for each draw: fewer of them
    samples = fit.samples if form.optimum else fit.samples[:: max(1, len(fit.samples) // 200)]
    params, tokens = (t[0].numpy() for t in form.allocation(fit.theta[None], budgets))
    intervals = [np.full((len(compute), 2), math.nan)] * 3
    if len(samples):
        many = form.allocation(samples, budgets)
        losses = [_loss(fit, n, d, theta) for theta, n, d in zip(samples, *many)]
        drawn = (many[0].numpy(), many[1].numpy(), np.stack(losses))
        intervals = [np.array([interval(column, fit.level) for column in d.T]) for d in drawn]
    loss = _loss(fit, torch.from_numpy(params), torch.from_numpy(tokens), fit.theta)
    return Curve(compute, params, tokens, loss, *intervals)


def _splits(fit: Fit) -> bool:
    return {"params", "tokens"} <= set(fit.form.inputs) <= {"params", "tokens", "unique_tokens"}


def _loss(fit: Fit, params: torch.Tensor, tokens: torch.Tensor, theta: torch.Tensor) -> np.ndarray:
    """(k,) of fresh tokens."""
    columns = {"params": params, "tokens": tokens, "unique_tokens": tokens}
    return fit.form.log_predict(theta[None], columns)[0].exp().numpy()


def _seen(table: Table, fit: Fit | None, isoflop: IsoFlop | None, drawn: Curve | None) -> _Seen:
    """drawn: a frontier in the table's own FLOPs; without one the law's in 6 N D is worked out."""
    exact, rule = True, "FLOPs"
    compute = table["flops"] if "flops" in table else np.empty(0)
    if drawn is None and fit is not None and _splits(fit):
        ours = FLOPS_PER_PARAM_TOKEN * table["params"] * table["tokens"]
        exact = bool(len(compute) and np.abs(compute / ours - 1).max() <= AGREE)
        if not exact:
            compute, rule = ours, "FLOPs as 6 N D"
        drawn = curve(fit, np.geomspace(compute.min(), BEYOND * compute.max(), GRID))
    return _Seen(table, fit, isoflop, drawn, compute, rule, exact)


def _page(
    seen: _Seen,
    found: Result,
    headline: str | Sequence[str],
    cautions: Sequence[str],
    tables: Sequence[Mapping[str, Any]],
    command: str,
) -> str:
    said = [headline] if isinstance(headline, str) else headline
    title = f"Scaling of {len(seen.table):,} runs"
    warned = "".join(f"<li>{escape(c)}</li>" for c in cautions)
    charts = (_loss_against_compute, _isoflops, _by_tokens, _frontier, _residuals, _foretold)
    body = [
        f'<header><p class="where">{escape(found.source)} · {escape(seen.table.source)}</p><h1>{escape(title)}</h1>',
        *(f'<p class="learned">{escape(sentence)}</p>' for sentence in said),
        f'<ul class="mind">{warned}</ul>' if warned else "<p>Nothing speaks against this fit.</p>",
        "</header>",
        section("What a budget buys", "".join(map(html_table, tables))),
        section("The runs and the law", f'<div class="charts wide">{"".join(draw(seen) for draw in charts)}</div>'),
        section("The law", _law(found) + (_law(seen.isoflop) if seen.isoflop and seen.isoflop is not found else "")),
        section("Foretelling the largest runs", _heldout(found)),
        section("Runs", _runs(seen, found)),
        section("What the numbers mean", _conventions(seen, found)),
        section("Again", f"<pre>{escape(command)}</pre>"),
    ]
    style = resources.files("unlabeled.report").joinpath("page.css").read_text()
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{style}</style></head>\n"
        f"<body><main>{''.join(body)}</main></body></html>\n"
    )


# --- charts ---------------------------------------------------------------------------------------------------------------


def _shades(values: np.ndarray, label: Callable[[float], str] = count) -> tuple[np.ndarray, list[tuple[str, str]]]:
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


def _words(seen: _Seen) -> list[str]:
    """What each run says when pointed at."""
    table, fitted = seen.table, _fitted(seen.fit)
    said = []
    for i, name in enumerate(table.names):
        parts = [f"{count(table[c][i])} {words}" for c, words in _SIZES if c in table]
        if "flops" in table:
            parts.append(f"{scientific(table['flops'][i])} FLOPs")
        if "loss" in table:
            parts.append(f"loss {table['loss'][i]:.4g}" + (f" (law {fitted[i]:.4g})" if len(fitted) else ""))
        said.append(f"{name}: {', '.join(parts)}")
    return said


_SIZES = (("params", "parameters"), ("tokens", "tokens"))


def _by_group(
    seen: _Seen, x: np.ndarray, y: np.ndarray, groups: np.ndarray, shades: Sequence[tuple[str, str]]
) -> list[Mark]:
    said = _words(seen)
    marks: list[Mark] = []
    for group, (colour, _) in enumerate(shades):
        rows = np.flatnonzero(groups == group)
        marks.append(Points([(float(x[i]), float(y[i])) for i in rows], colour, [said[i] for i in rows]))
    return marks


def _sizes(seen: _Seen) -> tuple[np.ndarray, list[tuple[str, str]]]:
    return (
        _shades(seen.table["params"])
        if "params" in seen.table
        else (np.zeros(len(seen.table), int), [("var(--c0)", "runs")])
    )


def _pairs(x: np.ndarray, y: np.ndarray) -> list[tuple[float, float]]:
    return list(zip(x.tolist(), y.tolist()))


def _along(seen: _Seen, values: np.ndarray, spread: np.ndarray, colour: str) -> list[Mark]:
    """A column of the curve: its band, solid within the runs and dashed beyond."""
    assert seen.curve is not None
    x, end = seen.curve.compute, seen.compute.max() * (1 + 1e-9)
    last = max(int(np.searchsorted(x, end)), 1)
    band = list(zip(x.tolist(), spread[:, 0].tolist(), spread[:, 1].tolist()))
    return [
        Band(band, colour),
        Line(_pairs(x[:last], values[:last]), colour),
        Line(_pairs(x[last - 1 :], values[last - 1 :]), colour, dashed=True),
    ]


def _loss_against_compute(seen: _Seen) -> str:
    table = seen.table
    if not {"flops", "loss"} <= set(table.columns):
        return ""
    groups, shades = _sizes(seen)
    marks = _by_group(seen, seen.compute, table["loss"], groups, shades)
    legend = [("dot", colour, said) for colour, said in shades]
    note = ""
    if seen.curve is not None:
        marks = [*_along(seen, seen.curve.loss, seen.curve.loss_interval, "var(--c1)"), *marks]
        legend += [("line", "var(--c1)", "least loss by the law"), ("dashed", "var(--c1)", "beyond the runs")]
        note = _banded(seen, "where the frontier lies; a single run scatters more")
    return plot(
        f"Loss ({_unit(seen)}) against compute, by parameters", marks, seen.rule, log_x=True, log_y=True,
        label_x=flops_label, note=note, legend=key(legend),
    )  # fmt: skip


def _isoflops(seen: _Seen) -> str:
    """Loss against size, a curve for each budget that has a minimum, the parabola drawn through it."""
    if seen.isoflop is None or not {"params", "flops", "loss"} <= set(seen.table.columns):
        return ""
    table, said = seen.table, _words(seen)
    logs = np.log(table["flops"])
    vertices = sorted(seen.isoflop.vertices, key=lambda v: v.flops)
    marks: list[Mark] = []
    legend = []
    left = np.ones(len(table), bool)
    for number, vertex in enumerate(vertices):
        rows = np.flatnonzero(np.abs(logs - math.log(vertex.flops)) < SAME)
        left[rows] = False
        colour = f"var(--s{round(number * (STEPS - 1) / max(1, len(vertices) - 1))})"
        marks.append(Line(_parabola(table["params"][rows], table["loss"][rows], vertex), colour, fits=False))
        marks.append(Points(_pairs(table["params"][rows], table["loss"][rows]), colour, [said[i] for i in rows]))
        told = f"{scientific(vertex.flops)} FLOPs: least at {count(vertex.params)} parameters, loss {vertex.loss:.4g}"
        marks.append(Points([(vertex.params, vertex.loss)], "var(--c1)", [told], ring=True))
        legend.append(("dot", colour, flops_html(vertex.flops)))
    rest = np.flatnonzero(left)
    if len(rest):
        marks.insert(
            0, Points(_pairs(table["params"][rest], table["loss"][rest]), "var(--faint)", [said[i] for i in rest])
        )
        legend.append(("dot", "var(--faint)", "no minimum inside the sizes"))
    legend.append(("ring", "var(--c1)", "minimum of the parabola"))
    return plot(
        f"Loss ({_unit(seen)}) against parameters, by FLOPs", marks, "parameters", log_x=True, log_y=True, label_x=count,
        legend=key(legend),
    )  # fmt: skip


def _parabola(params: np.ndarray, loss: np.ndarray, vertex: Any) -> list[tuple[float, float]]:
    """Through the five sizes around the lowest, its vertex being known: what is left to find is how much it is bent."""
    size, place = np.unique(np.log(params), return_inverse=True)
    mean = np.bincount(place, loss) / np.bincount(place)
    start = max(0, min(int(mean.argmin()) - 2, len(size) - 5))
    u, y = size[start : start + 5] - math.log(vertex.params), mean[start : start + 5] - vertex.loss
    bend = float((u**2 * y).sum() / (u**4).sum())
    at = np.linspace(u.min(), u.max(), GRID)
    return _pairs(vertex.params * np.exp(at), vertex.loss + bend * at**2)


def _by_tokens(seen: _Seen) -> str:
    """Loss against tokens with the law's curve of each size, where there are no budgets with minima."""
    table, fit = seen.table, seen.fit
    if seen.isoflop is not None or not {"params", "tokens", "loss"} <= set(table.columns):
        return ""
    groups, shades = _sizes(seen)
    marks: list[Mark] = []
    note = ""
    if fit is not None and _splits(fit):
        tokens = torch.from_numpy(np.geomspace(table["tokens"].min(), table["tokens"].max(), GRID))
        for group, (colour, _) in enumerate(shades):
            size = float(np.exp(np.log(table["params"][groups == group]).mean()))
            loss = _loss(fit, torch.full_like(tokens, size), tokens, fit.theta)
            marks.append(Line(_pairs(tokens.numpy(), loss), colour, fits=False, thin=True))
        many = len(np.unique(table["params"])) > len(shades)
        note = "Lines: the law" + (" at the mean size of each group." if many else " at each size.")
    marks += _by_group(seen, table["tokens"], table["loss"], groups, shades)
    return plot(
        f"Loss ({_unit(seen)}) against tokens, by parameters", marks, "tokens", log_x=True, log_y=True, label_x=count,
        note=note, legend=key([("dot", colour, said) for colour, said in shades]),
    )  # fmt: skip


def _frontier(seen: _Seen) -> str:
    """Best size and best number of tokens against compute."""
    marks: list[Mark] = []
    legend = []
    if seen.curve is not None:
        for name, spread, colour, words in (
            (seen.curve.params, seen.curve.params_interval, "var(--c0)", "parameters by the law"),
            (seen.curve.tokens, seen.curve.tokens_interval, "var(--c2)", "tokens by the law"),
        ):
            marks += _along(seen, name, spread, colour)
            legend.append(("line", colour, words))
    vertices = seen.isoflop.vertices if seen.isoflop else ()
    if vertices:
        x = [v.flops if seen.exact else FLOPS_PER_PARAM_TOKEN * v.params * v.tokens for v in vertices]
        spread = [(v.akima * math.exp(-v.sigma), v.akima * math.exp(v.sigma)) for v in vertices]
        said = [
            f"{scientific(v.flops)} FLOPs: {count(low)} to {count(high)} parameters, {count(v.tokens)} tokens"
            for v, (low, high) in zip(vertices, spread)
        ]
        marks.append(Points([(c, v.akima) for c, v in zip(x, vertices)], "var(--c0)", said, spread, ring=True))
        marks.append(Points([(c, v.tokens) for c, v in zip(x, vertices)], "var(--c2)", said, ring=True))
        legend += [("ring", "var(--c0)", "parameters at isoFLOP minima"), ("ring", "var(--c2)", "tokens there")]
    if not marks:
        return ""
    marks.append(Rule(float(seen.compute.max()), "runs end"))
    return plot(
        "Best parameters and tokens against compute", marks, seen.rule, log_x=True, log_y=True, label_x=flops_label,
        label_y=count, note=_banded(seen, "the best split"), legend=key(legend),
    )  # fmt: skip


def _residuals(seen: _Seen) -> str:
    """Measured over fitted loss, less one, with lines at one percent."""
    fit, table = seen.fit, seen.table
    if fit is None or len(fit.table) != len(table):
        return ""
    left = table[fit.form.target] / _fitted(fit) - 1
    against = seen.compute if len(seen.compute) else table[fit.form.inputs[0]]
    across, label = (seen.rule, flops_label) if len(seen.compute) else (fit.form.inputs[0], count)
    groups, shades = _sizes(seen)
    usual = 1.4826 * float(np.median(np.abs(left)))  # a standard deviation, were they normal
    far = [i for i in np.argsort(-np.abs(left))[:3].tolist() if abs(left[i]) > FAR * max(usual, 1e-7)]
    marks: list[Mark] = [Rule(0.0, level=True, dashed=False), Rule(0.01, "1%", level=True), Rule(-0.01, level=True)]
    marks += _by_group(seen, against, left, groups, shades)
    marks.append(
        Points(
            [(float(against[i]), float(left[i])) for i in far], "var(--c1)", [_words(seen)[i] for i in far],
            named=[str(table.names[i]) for i in far], ring=True,
        )
    )  # fmt: skip
    inside = float(np.mean(np.abs(left) <= 0.01))
    note = f"{inside:.0%} of the runs lie within 1% of the law, half of them within {np.median(np.abs(left)):.2%}."
    return plot(
        "How far measured losses lie from the law", marks, across, log_x=True, label_x=label, label_y=percent, note=note,
        legend=key([("dot", colour, said) for colour, said in shades]),
    )  # fmt: skip


def _foretold(seen: _Seen) -> str:
    return ""


# --- words and tables -------------------------------------------------------------------------------------------------------


def flops_html(value: float) -> str:
    mantissa, power = f"{value:.2e}".split("e")
    return f"{float(mantissa):g}×10<sup>{int(power)}</sup>"


def _fitted(fit: Fit | None) -> np.ndarray:
    """(runs,) by the law, of the runs it was fitted to; (0,) without one."""
    if fit is None:
        return np.empty(0)
    columns, _ = tensors(fit.table, fit.form)
    return fit.form.log_predict(fit.theta[None], columns)[0].exp().numpy()


def _banded(seen: _Seen, words: str) -> str:
    curve, fit = seen.curve, seen.fit
    if curve is None or fit is None or not np.isfinite(curve.loss_interval).any():
        return ""
    return f"Bands: {fit.level:.0%} intervals over resamples of the runs, of {words}."


def _unit(seen: _Seen) -> str:
    units = set(seen.table.labels.get("unit", ()))
    if len(units) == 1:
        return str(units.pop())
    return (seen.fit.units.get("E", "") if seen.fit else "") or "as the table has it"


def _law(found: Result) -> str:
    rows = []
    for name, value in found.parameters.items():
        low, high = found.intervals.get(name, (math.nan, math.nan))
        shown = [f"{v:.4g}" if math.isfinite(v) else None for v in (value, low, high, found.errors.get(name, math.nan))]
        rows.append([name, *shown, found.units.get(name, "")])
    columns = ["parameter", "value", f"{found.level:.0%} from", "to", "standard error", "unit"]
    table = html_table({"columns": columns, "rows": rows})
    return f'<p class="caption">{escape(found.formula)} ({escape(found.source)}), {found.rows_used:,} runs</p>{table}'


def _heldout(found: Result) -> str:
    check = found.heldout
    if check is None:
        return "<p>No runs were held out: without the largest there are too few to fit.</p>"
    names = {"last": "the loss of the largest smaller run", "line": "a straight line in the logarithms"}
    rows = [["this law", f"{check.mean_error:.2%}", f"{check.largest_error:.2%}"]]
    rows += [[names.get(name, name), f"{error:.2%}", None] for name, error in check.baselines.items()]
    worst = check.mean_error > min(check.baselines.values(), default=math.inf)
    said = (
        f"The law was fitted again to the {check.fitted:,} smaller runs, and foretold the {check.runs:,} with {check.what}, "
        + (f"{check.reach:.3g} times as far as those reach." if check.reach > 1.01 else "no farther than those reach.")
    )
    if check.covered is not None:
        said += f" {check.covered:.0%} of them lie in the {found.level:.0%} interval."
    if worst:
        said += " A baseline foretells them better: this law does not extrapolate."
    table = {"columns": ["foretold by", "mean error", "largest error"], "rows": rows, "own": 0}
    return f"<p>{escape(said)}</p>{html_table(table)}{_moved(found, check)}"


def _moved(found: Result, check: HeldOut) -> str:
    rows = [
        [name, f"{value:.4g}", f"{found.parameters[name]:.4g}"]
        for name, value in check.parameters.items()
        if name in found.parameters
    ]
    columns = ["parameter", "without the largest", "with all"]
    return html_table({"columns": columns, "rows": rows, "title": "How the parameters move"}) if rows else ""


def _runs(seen: _Seen, found: Result) -> str:
    table, fitted = seen.table, _fitted(seen.fit)
    target = seen.fit.form.target if seen.fit else "loss"
    order = np.argsort(seen.compute, kind="stable") if len(seen.compute) else np.arange(len(table))
    shown = [(n, f) for n, f in _COLUMNS if n in table]
    rows = []
    for i in order:
        row = [str(table.names[i]), *(form(float(table[name][i])) for name, form in shown)]
        if len(fitted) == len(table):
            row += [f"{fitted[i]:.4g}", f"{100 * (table[target][i] / fitted[i] - 1):+.2f}%"]
        rows.append(row)
    columns = [
        "run",
        *(name for name, _ in shown),
        *(["law", "measured over law"] if len(fitted) == len(table) else []),
    ]
    html = html_table({"columns": columns, "rows": rows})
    if len(rows) > SHOWN:
        html = f"<details><summary>All {len(rows):,} runs, by compute</summary>{html}</details>"
    html += _excluded(found.rows_excluded, "Left out of the law")
    if seen.isoflop is not None and seen.isoflop is not found:
        known = set(found.rows_excluded)
        more = [e for e in seen.isoflop.rows_excluded if e not in known]
        html += _excluded(more, "Left out of the isoFLOP minima")
    return html


_COLUMNS: tuple[tuple[str, Callable[[float], str]], ...] = (
    ("params", count),
    ("tokens", count),
    ("flops", scientific),
    ("loss", "{:.4g}".format),
)


def _excluded(runs: Sequence[Excluded], title: str) -> str:
    reasons: dict[str, list[str]] = {}
    for run in runs:
        reasons.setdefault(run.why, []).append(str(run.run))
    rows = [
        [why, len(names), ", ".join(names[:8]) + (" and others" if len(names) > 8 else "")]
        for why, names in reasons.items()
    ]
    return html_table({"columns": ["reason", "runs", "which"], "rows": rows, "title": title}) if rows else ""


def _conventions(seen: _Seen, found: Result) -> str:
    table = seen.table
    facts = {"Parameters": f"N counts {found.convention}" if found.convention else "as the table counts them"}
    if {"params", "tokens", "flops"} <= set(table.columns):
        ratio = table["flops"] / (FLOPS_PER_PARAM_TOKEN * table["params"] * table["tokens"])
        low, high = float(ratio.min()), float(ratio.max())
        spread = f"{low:.3g}" if high / low < 1.005 else f"{low:.3g} to {high:.3g}"
        facts["FLOPs"] = f"of a whole training; those of the runs are {spread} times 6 N D" + (
            "" if seen.exact else ", and the charts with a frontier reckon with 6 N D"
        )
    facts["Loss"] = _unit(seen)
    draws = len(seen.fit.samples) if seen.fit else 0
    facts["Intervals"] = (
        f"{found.level:.0%}, percentiles over {draws:,} resamples of the runs, each fitted again"
        if draws
        else f"{found.level:.0%}, over repetitions under noise of the size of seeds"
        if found.intervals
        else _NONE
    )
    lines = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in facts.items())
    notes = "".join(f"<li>{escape(note)}</li>" for note in dict.fromkeys(found.notes))
    return f"<dl>{lines}</dl>" + (f"<ul>{notes}</ul>" if notes else "")
