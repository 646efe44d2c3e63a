"""The page of a scaling law: what a budget buys, the runs and the law in charts, how far to trust it; one HTML file, offline."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from unlabeled.report.page import html_table, section
from unlabeled.report.scaling_charts import BEYOND, Seen, charts, figures, fitted, splits
from unlabeled.scale.budget import Ground, frontier
from unlabeled.scale.fit import Fit
from unlabeled.scale.isoflop import IsoFlop
from unlabeled.scale.laws import FLOPS_PER_PARAM_TOKEN
from unlabeled.scale.optimum import cost_of
from unlabeled.scale.wording import amount, flops

if TYPE_CHECKING:
    from unlabeled.scale.advise import Advice
    from unlabeled.scale.answers import Point
    from unlabeled.scale.result import HeldOut, Result
    from unlabeled.scale.table import Excluded, Table

__all__ = ["page", "page_of", "write"]

PLACES = 25  # of the frontier of a fit without advice
LARGE = 4  # sentences in large type
SHOWN, FEW = 40, 12  # runs, and held-out runs; more are folded away
_NONE = "none: the law was fitted without a bootstrap"


def write(advice: Advice, path: str | Path, command: str) -> Path:
    """Write the page of advice to a file and return its path; command: what makes it again."""
    from unlabeled.engine.record import write_atomically

    write_atomically(Path(path), page(advice, command))
    return Path(path)


def page(advice: Advice, command: str) -> str:
    """The whole page as HTML; everything that comes from data, names or settings is escaped."""
    seen = Seen(
        advice.table, advice.fit, advice.isoflop, advice.frontier, advice.compute, advice.item, advice.unit, advice.cost.formula
    )  # fmt: skip
    return _page(seen, advice.fit, advice.headline, advice.cautions, advice.tables, command)


def page_of(found: Result, table: Table, command: str) -> str:
    """The page of a fit alone: of a law, or of isoFLOP minima in a table."""
    said = [f"{found.formula}, fitted to {found.rows_used:,} runs."]
    units = set(table.labels.get("unit", ())) - {"loss"}
    unit = str(units.pop()) if len(units) == 1 else ""
    item = "examples" if any(note.startswith("tokens are examples") for note in table.notes) else "tokens"
    if not isinstance(found, Fit):
        seen = Seen(table, None, found if isinstance(found, IsoFlop) else None, item=item, unit=unit)
        return _page(seen, found, said, found.verdict, (), command)
    points: tuple[Point, ...] = ()
    cost = ""
    if splits(found) and "flops" in found.table:
        rule = cost_of(found.table)
        ground = Ground(found, found.form, torch.cat([found.theta[None], found.samples]), rule, found.level)
        compute = found.table["flops"]
        points = frontier(ground, np.geomspace(compute.min(), BEYOND * compute.max(), PLACES).tolist())
        cost = rule.formula
    seen = Seen(found.table, found, None, points, item=item, unit=unit, cost=cost)
    return _page(seen, found, said, found.verdict, (), command)


def _page(
    seen: Seen,
    found: Result,
    headline: str | Sequence[str],
    cautions: Sequence[str],
    tables: Sequence[Mapping[str, Any]],
    command: str,
) -> str:
    said = [headline] if isinstance(headline, str) else headline
    title = f"Scaling of {len(seen.table):,} runs"
    beside = seen.isoflop if seen.isoflop is not found else None
    warned = "".join(f"<li>{escape(c)}</li>" for c in cautions)
    body = [
        f'<header><p class="where">{escape(seen.table.source)}</p><h1>{escape(title)}</h1>',
        *(f'<p class="learned">{escape(sentence)}</p>' for sentence in said[:LARGE]),
        *(f"<p>{escape(sentence)}</p>" for sentence in said[LARGE:]),
        f'<ul class="mind">{warned}</ul>' if warned else "<p>Nothing speaks against this fit.</p>",
        "</header>",
        section("What a budget buys", _tight("".join(map(html_table, tables)))),
        section("The runs and the law", charts(seen)),
        section("The law", _law(found) + (_law(beside) if beside else "")),
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


def _tight(html: str) -> str:
    return f'<div class="tight">{html}</div>' if html else ""


def _law(found: Result) -> str:
    rows = []
    for name, value in found.parameters.items():
        low, high = found.intervals.get(name, (math.nan, math.nan))
        shown = [figures(v) if math.isfinite(v) else None for v in (value, low, high, found.errors.get(name, math.nan))]
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
    what = check.what.replace(">=", "of at least").replace("e+", "e")
    worst = check.mean_error > min(check.baselines.values(), default=math.inf)
    said = (
        f"The law was fitted again to the {check.fitted:,} smaller runs, and foretold the {check.runs:,} with {what}, "
        + (f"{check.reach:.3g} times as far as those reach." if check.reach > 1.01 else "no farther than those reach.")
    )
    if check.covered is not None:
        said += f" {check.covered:.0%} of them lie in the {found.level:.0%} interval."
    if worst:
        said += " A baseline foretells them better: this law does not extrapolate."
    table = {"columns": ["foretold by", "mean error", "largest error"], "rows": rows, "own": 0}
    return f"<p>{escape(said)}</p>{html_table(table)}{_one_by_one(found, check)}{_moved(found, check)}"


def _one_by_one(found: Result, check: HeldOut) -> str:
    rows = [
        [name, figures(measured), figures(foretold), f"{100 * (foretold / measured - 1):+.2f}%"]
        + ([f"{figures(low)} to {figures(high)}", low <= measured <= high] if math.isfinite(low) else [None, None])
        for name, _, measured, foretold, low, high in check.points
    ]
    columns = ["run", "measured", "foretold", "error", f"{found.level:.0%} interval", "inside"]
    html = html_table({"columns": columns, "rows": rows}) if rows else ""
    return _folded(html, f"All {len(rows):,} foretold runs") if len(rows) > FEW else html


def _folded(html: str, title: str) -> str:
    return f"<details><summary>{escape(title)}</summary>{html}</details>"


def _moved(found: Result, check: HeldOut) -> str:
    rows = [
        [name, figures(value), figures(found.parameters[name])]
        for name, value in check.parameters.items()
        if name in found.parameters
    ]
    columns = ["parameter", "without the largest", "with all"]
    return html_table({"columns": columns, "rows": rows, "title": "How the parameters move"}) if rows else ""


_COLUMNS: tuple[tuple[str, Callable[[float], str]], ...] = (
    ("params", amount),
    ("tokens", amount),
    ("flops", flops),
    ("loss", figures),
)


def _runs(seen: Seen, found: Result) -> str:
    table, law = seen.table, fitted(seen.fit)
    known = len(law) == len(table) > 0
    target = seen.fit.form.target if seen.fit else "loss"
    order = np.argsort(table["flops"], kind="stable") if "flops" in table else np.arange(len(table))
    shown = [(n, f) for n, f in _COLUMNS if n in table]
    rows = []
    for i in order:
        row = [str(table.names[i]), *(form(float(table[name][i])) for name, form in shown)]
        if known:
            row += [figures(law[i]), f"{100 * (table[target][i] / law[i] - 1):+.2f}%"]
        rows.append(row)
    columns = ["run", *(name for name, _ in shown), *(["law", "measured over law"] if known else [])]
    html = html_table({"columns": columns, "rows": rows})
    if len(rows) > SHOWN:
        html = _folded(html, f"All {len(rows):,} runs, by compute")
    html += _excluded(found.rows_excluded, "Left out of the law")
    if seen.isoflop is not None and seen.isoflop is not found:
        more = [e for e in seen.isoflop.rows_excluded if e not in found.rows_excluded]
        html += _excluded(more, "Left out of the isoFLOP minima")
    return html


def _excluded(runs: Sequence[Excluded], title: str) -> str:
    reasons: dict[str, list[str]] = {}
    for run in runs:
        reasons.setdefault(run.why, []).append(str(run.run))
    rows = [
        [why, len(names), ", ".join(names[:8]) + (" and others" if len(names) > 8 else "")]
        for why, names in reasons.items()
    ]
    return html_table({"columns": ["reason", "runs", "which"], "rows": rows, "title": title}) if rows else ""


def _conventions(seen: Seen, found: Result) -> str:
    table = seen.table
    facts = {"Parameters": f"N counts {found.convention}" if found.convention else "as the table counts them"}
    if {"params", "tokens", "flops"} <= set(table.columns):
        ratio = table["flops"] / (FLOPS_PER_PARAM_TOKEN * table["params"] * table["tokens"])
        low, high = float(ratio.min()), float(ratio.max())
        spread = f"{low:.3g}" if high / low < 1.005 else f"{low:.3g} to {high:.3g}"
        facts["FLOPs"] = f"of a whole training, {spread} times 6 N D in these runs"
        if seen.cost:
            facts["FLOPs"] += f"; the best split reckons with {seen.cost}"
    facts["Loss"] = seen.unit or "as the table has it, which does not say its unit"
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
