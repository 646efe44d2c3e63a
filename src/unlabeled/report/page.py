"""The page of a run: one HTML file that opens offline, from what the run and its evaluation recorded."""

from __future__ import annotations

import datetime
import json
import os
import shlex
from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

from unlabeled.engine.console import duration, quantity
from unlabeled.engine.record import Run
from unlabeled.report.draw import chart
from unlabeled.report.figures import figure

__all__ = ["again", "cell", "energy", "html_table", "is_sentence", "page", "section"]

# Watts of a busy processor core with its share of memory and supply, and of an accelerator near its limit. Round
# numbers of server hardware, no measurement; the page says so.
CORE_WATTS, ACCELERATOR_WATTS = 10.0, 500.0
OWN_ROW = "own"  # key of a table: index of the row that is the model's own


def page(run: Run, evaluation: Mapping[str, Any]) -> str:
    """The whole page as HTML; everything that comes from data, names or settings is escaped."""
    config, rows, status = run.config, run.metrics(), run.status
    system, data = config["system"], config["data"]["name"]
    figures = evaluation.get("figures", {})
    body = [
        f'<header><p class="where">{_e(datetime.date.today().isoformat())} · {_e(run.path.name)}</p>'
        f"<h1>{_e(system)} on {_e(data)}</h1>",
        *(f'<p class="learned">{_e(sentence)}</p>' for sentence in _listed(evaluation.get("headline", ""))),
        "</header>",
        section("Beside the baselines", "".join(html_table(t) for t in evaluation.get("tables", ()))),
        section("Forecast and reached", _forecast(config)),
        section("How it went", _curves(rows, config)),
        *(section(title, html) for title, html in (figure(name, value) for name, value in figures.items())),
        section("Other measurements", _facts(evaluation.get("diagnostics", {}))),
        section("What it cost", _cost(run, rows, status, evaluation)),
        section("Data", _data(run)),
        section("Again", _again(config)),
    ]
    style = resources.files("unlabeled.report").joinpath("page.css").read_text()
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_e(system)} on {_e(data)}</title><style>{style}</style></head>\n"
        f"<body><main>{''.join(body)}</main></body></html>\n"
    )


def cell(value: Any) -> str:
    """One value of a table as text: numbers short, nothing as a dash, spreads as they come."""
    if value is None or value == "":
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        if value != value:
            return "–"
        size = abs(value)
        return f"{value:.0f}" if size >= 1000 else f"{value:.1f}" if size >= 10 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def again(config: Mapping[str, Any]) -> str:
    """The command that trains such a run again: variant, changed settings, budget, seed.

    A setting is named where it differs from the variant's.
    """
    from unlabeled.core import catalogue
    from unlabeled.core.config import resolve, to_dict

    words = ["unlabeled", "train", config["system"], config["data"]["path"] or "DATA"]
    if config["variant"]:
        words += ["--variant", config["variant"]]
    settings = config["settings"]
    words += ["--budget", str(settings["budget"]), "--seed", str(settings["seed"])]
    usual = to_dict(resolve(catalogue.method(config["system"]), config["variant"]))
    for name, value in config["config"].items():
        if value != usual.get(name):
            values = value if isinstance(value, list) else [value]
            words += [f"--{name.replace('_', '-')}", *map(str, values)]
    return shlex.join([*words, *(["--given", *config["built_on"]] if config.get("built_on") else [])])


def is_sentence(value: Any) -> bool:
    """Whether a cell of a table is to be read as text: from the left, over several lines."""
    return isinstance(value, str) and len(value) > 40


def energy(seconds: float, cores: int, accelerators: int = 0) -> float:
    """Watt-hours, estimated from assumed powers; no measurement."""
    return seconds * (ACCELERATOR_WATTS * accelerators or CORE_WATTS * cores) / 3600


def section(title: str, html: str) -> str:
    """A part of a page; nothing where there is nothing to show."""
    return f"<section><h2>{_e(title)}</h2>{html}</section>" if html else ""


def html_table(table: Mapping[str, Any]) -> str:
    """{"columns", "rows", "title", "note", `OWN_ROW`} as HTML; only the first two are needed."""
    head = "".join(f"<th>{_e(c)}</th>" for c in table["columns"])
    body = []
    for i, row in enumerate(table["rows"]):
        kind = ' class="own"' if i == table.get(OWN_ROW) else ""
        cells = (f"<td{' class=said' if is_sentence(v) else ''}>{_e(cell(v))}</td>" for v in row)
        body.append(f"<tr{kind}>{''.join(cells)}</tr>")
    note = f'<p class="note">{_e(table["note"])}</p>' if table.get("note") else ""
    caption = f'<p class="caption">{_e(table["title"])}</p>' if table.get("title") else ""
    return (
        f'{caption}<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'
        f"{note}"
    )


def _forecast(config: Mapping[str, Any]) -> str:
    """What pilots foretold, beside what came out; nothing where there were none."""
    told = (config.get("fit") or {}).get("forecast")
    if not told:
        return ""
    return f"<p>{_e(told['said'])}.</p>{html_table(told['table'])}"


def _curves(rows: Sequence[Mapping[str, Any]], config: Mapping[str, Any]) -> str:
    """One chart per quantity of metrics.jsonl, losses first, over training time in minutes or seconds."""
    if len(rows) < 2:
        return ""
    plain = {"step", "examples", "tokens", "seconds", "progress", "epoch", "memory_bytes", "seconds_left"}
    plain |= {"flops_per_second", "ceiling_share"}
    names = [k for k in dict.fromkeys(k for r in rows for k in r) if k not in plain and _number_in(rows, k)]
    names.sort(key=lambda n: (not n.endswith("loss"), n == "items_per_second"))
    unit, scale = ("minutes", 60) if rows[-1]["seconds"] >= 180 else ("seconds", 1)
    # The first rows hold start-up: their speed says nothing, and a first loss would squeeze the rest of its curve.
    skipped = {"items_per_second": rows[1:]}
    drawn = (
        chart({n: [(r["seconds"] / scale, r[n]) for r in skipped.get(n, rows) if n in r]}, unit, n.replace("_", " "))
        for n in names
    )
    return f'<div class="charts">{"".join(drawn)}</div>'


def _number_in(rows: Sequence[Mapping[str, Any]], key: str) -> bool:
    return any(isinstance(r.get(key), (int, float)) for r in rows)


def _facts(facts: Mapping[str, Any]) -> str:
    lines = []
    for name, value in facts.items():
        shown = json.dumps(value) if isinstance(value, (dict, list)) else cell(value)
        lines.append(f"<dt>{_e(name.replace('_', ' '))}</dt><dd>{_e(shown)}</dd>")
    return f"<dl>{''.join(lines)}</dl>" if lines else ""


def _cost(run: Run, rows: Sequence[Mapping[str, Any]], status: Mapping[str, Any], evaluation: Mapping[str, Any]) -> str:
    import torch

    last = rows[-1] if rows else {}
    seconds = float(status.get("seconds") or last.get("seconds") or 0)
    evaluated = float(evaluation.get("seconds") or 0)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    accelerators = status.get("processes", 1) if torch.cuda.is_available() else 0
    watts = f"{ACCELERATOR_WATTS:g} W per accelerator" if accelerators else f"{CORE_WATTS:g} W per core, {cores} cores"
    share = last.get("ceiling_share")
    facts = {
        "Training": f"{duration(seconds)}, {last.get('step', 0):,} steps, {last.get('examples', 0):,} examples",
        "Evaluation": duration(evaluated) if evaluated else None,
        "Computation": f"{quantity(float(status.get('flops') or 0))}FLOP in training, counted from matrix products and "
        "convolutions" + (f"; lately {share:.0%} of this machine's measured ceiling" if share is not None else ""),
        "Memory": f"{last['memory_bytes'] / 2**30:.2f} GiB at most" if "memory_bytes" in last else None,
        "Weights": _weights(run.path / "model" / "model.safetensors"),
        "Energy": f"about {energy(seconds + evaluated, cores, accelerators):.2g} Wh: an estimate that assumes {watts}, "
        "not a measurement",
    }
    return _facts({k: v for k, v in facts.items() if v is not None})


def _weights(file: Path) -> str | None:
    return f"{quantity(file.stat().st_size)}B" if file.exists() else None


def _data(run: Run) -> str:
    config = run.config
    spec = {k: v for k, v in config["spec"].items() if v and k not in ("kind", "tokenizer")}
    facts = {"Source": config["data"]["path"] or f"{config['data']['name']} (given in memory)"}
    facts["Measured"] = f"{config['spec']['kind']}: " + ", ".join(
        f"{k.replace('_', ' ')} {v:,}" if isinstance(v, int) else f"{k} {v}" for k, v in spec.items()
    )
    refused = _quarantined(run.path / "quarantine.jsonl")
    facts["Left out"] = f"{len(refused):,} files or records" if refused else "nothing"
    shown = "".join(f"<li>{_e(q.get('id', ''))}: {_e(q.get('reason', ''))}</li>" for q in refused[:20])
    if len(refused) > 20:
        shown += f"<li>and {len(refused) - 20:,} more in quarantine.jsonl</li>"
    return _facts(facts) + (
        f"<details><summary>What was left out, and why</summary><ul>{shown}</ul></details>" if shown else ""
    )


def _quarantined(file: Path) -> list[dict[str, Any]]:
    try:
        return [json.loads(line) for line in file.read_text().splitlines()]
    except (OSError, ValueError):
        return []


def _again(config: Mapping[str, Any]) -> str:
    kept = json.dumps({k: config[k] for k in ("config", "settings") if k in config}, indent=2)
    timed = str(config["settings"]["budget"])[-1:] in "smh" and not str(config["settings"]["budget"]).endswith("steps")
    note = (
        '<p class="note">A budget in time gives as many steps as this machine has time for; for the same weights, give '
        "the number of steps above as the budget in both runs.</p>"
        if timed
        else ""
    )
    whole, chosen = "", ""
    if "fit" in config:
        asked = config["fit"]
        words = ["unlabeled", "fit", config["data"]["path"] or "DATA", "--budget", asked["budget"]]
        words += ["--goal", asked["goal"]] if asked["goal"] else []
        words += [] if asked.get("pilots", True) else ["--no-pilots"]
        whole = f"{_e(shlex.join([*words, '--seed', str(config['settings']['seed'])]))}\n\n# or the training alone\n"
        chosen = "<ul>" + "".join(f"<li>{_e(reason)}</li>" for reason in asked["why"]) + "</ul>"
    made = f"unlabeled {config.get('unlabeled', '')}, torch {config.get('torch', '')}"
    return (
        f"{chosen}<pre>{whole}{_e(again(config))}</pre>{note}<details><summary>Every setting ({_e(made)})</summary>"
        f"<pre>{_e(kept)}</pre></details>"
    )


def _listed(headline: Any) -> list[str]:
    return [headline] if isinstance(headline, str) else list(headline)


def _e(text: Any) -> str:
    return escape(str(text), True)
