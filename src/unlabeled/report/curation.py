"""The page of a curated corpus: what each rule saw, dropped and changed, with examples; one HTML file, offline."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from typing import Any

from unlabeled.engine.console import quantity
from unlabeled.report.draw import bars, histogram
from unlabeled.report.page import html_table, section

__all__ = ["headline", "page", "tables"]


def headline(totals: Mapping[str, Any]) -> list[str]:
    """Two or three sentences that say what happened."""
    read, kept = totals["documents"]["read"], totals["documents"]["kept"]
    share = 100 * kept / max(1, read)
    said = [
        f"{kept:,} of {read:,} documents were kept ({share:.3g}%), {quantity(totals['bytes_written'])}B of text in the corpus of "
        f"{quantity(totals['characters_read'])} characters read."
    ]
    most = max(totals["rules"], key=lambda r: r["dropped"], default=None)
    if most and most["dropped"]:
        said.append(f"Most were dropped by {most['rule']}: {most['dropped']:,}.")
    if not kept:
        said.append("Nothing is left: the page and the ledger say which rule dropped what.")
    if totals["quarantined"]:
        said.append(f"{totals['quarantined']:,} things could not be read; the ledger says why.")
    emptied = _emptied(totals)
    if emptied:
        said.append(f"Beware: nine tenths or more of {', '.join(emptied)} is gone; are these the rules for it?")
    return said + totals["notes"] + [row["warning"] for row in totals["mix"] or () if row["warning"]]


def _emptied(totals: Mapping[str, Any]) -> list[str]:
    """Sources that lost nine documents of ten: most often rules for prose that were applied to code."""
    gone: dict[str, int] = {}
    for rule in totals["rules"]:
        for source, count in rule["sources"].items():
            gone[source] = gone.get(source, 0) + count
    left = totals["sources"]
    return [s for s, n in sorted(gone.items()) if n >= 20 and n >= 9 * left.get(s, {"documents": 0})["documents"]]


def tables(totals: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The tables of the page, as `report.text_of` prints them too."""
    shown = [r for r in totals["rules"] if r["seen"] and (r["dropped"] or r["changed"] or r["rule"] != "extract")]
    found = [
        {
            "title": "Rules, in the order in which they were applied",
            "columns": ["rule", "documents seen", "dropped", "of seen", "changed", "characters lost"],
            "rows": [
                [r["rule"], r["seen"], r["dropped"], f"{r['dropped'] / r['seen']:.1%}", r["changed"], r["lost"]]
                for r in shown
            ],
        },
        {
            "title": "Sources in the corpus",
            "columns": ["source", "documents", "bytes"],
            "rows": [[s, v["documents"], v["bytes"]] for s, v in totals["sources"].items()],
        },
    ]
    if totals["mix"]:
        found.append(
            {
                "title": "The mix",
                "columns": ["source", "bytes", "epochs", "share", "worth in fresh epochs"],
                "rows": [
                    [r["source"], int(r["size"]), r["epochs"], f"{r['weight']:.2%}", r["worth"]] for r in totals["mix"]
                ],
            }
        )
    for told in totals.get("contaminated", ()):
        found.append(
            {
                "title": f"Evaluation set {told['set']}: found in the corpus as it was before",
                "columns": ["items", "contaminated", "share", "such as"],
                "rows": [
                    [
                        told["items"],
                        len(told["ids"]),
                        f"{len(told['ids']) / max(1, told['items']):.1%}",
                        ", ".join(told["ids"][:5]),
                    ]
                ],
            }
        )
    return found


def page(totals: Mapping[str, Any], command: str) -> str:
    """The whole page as HTML; everything that comes from data is escaped."""
    name = totals["recipe"]
    body = [
        f'<header><p class="where">{escape(totals["paper"])}</p><h1>Corpus by {escape(name)}</h1>',
        *(f'<p class="learned">{escape(sentence)}</p>' for sentence in headline(totals)),
        "</header>",
        *(section(t["title"], html_table({k: v for k, v in t.items() if k != "title"})) for t in tables(totals)),
        section("Dropped, by source and rule", _by_source(totals)),
        section("What the rules measured", _histograms(totals["rules"])),
        section("Groups of near-duplicates", _clusters(totals["clusters"])),
        section("Documents to look at", "".join(_examples(rule) for rule in totals["rules"])),
        section("What could not be read", _quarantine(totals)),
        section("Again", f"<pre>{escape(command)}</pre>"),
    ]
    style = resources.files("unlabeled.report").joinpath("page.css").read_text()
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Corpus by {escape(name)}</title><style>{style}</style></head>\n"
        f"<body><main>{''.join(body)}</main></body></html>\n"
    )


def _by_source(totals: Mapping[str, Any]) -> str:
    rules = [r for r in totals["rules"] if r["dropped"]]
    sources = sorted({s for r in rules for s in r["sources"]})
    rows = [[s, *(r["sources"].get(s, 0) for r in rules)] for s in sources]
    return html_table({"columns": ["source", *(r["rule"] for r in rules)], "rows": rows}) if rows else ""


def _histograms(rules: Sequence[Mapping[str, Any]]) -> str:
    drawn = []
    for rule in rules:
        values = {float(v): n for v, n in rule["values"].items() if math.isfinite(float(v))}
        if len(values) > 1:
            limits = [limit for limit in rule["limits"] if limit is not None]
            drawn.append(histogram(values, limits, rule["rule"].replace("_", " ")))
    return f'<div class="charts">{"".join(drawn)}</div>' if drawn else ""


def _clusters(sizes: Mapping[str, int]) -> str:
    if not sizes:
        return ""
    shown = dict(list(sizes.items())[:12])
    largest = list(sizes)[-1]
    note = f'<p class="note">{sum(sizes.values()):,} groups; the largest has {int(largest):,} documents.</p>'
    return bars({f"{size} documents": float(n) for size, n in shown.items()}, "groups, by size") + note


def _examples(rule: Mapping[str, Any]) -> str:
    if not rule["examples"]:
        return ""
    count = f"{rule['dropped']:,} dropped, {rule['changed']:,} changed"
    shown = "".join(_shown(id, why, text) for _, id, why, text in rule["examples"])
    if rule["close"]:
        shown += '<p class="caption">Nearest to the limit, on either side</p>'
        shown += "".join(_shown(id, value, text) for _, id, value, text in rule["close"])
    reasons = "".join(f"<li>{escape(r)}: {n:,}</li>" for r, n in rule["reasons"].items())
    edits = "".join(f"<li>{escape(r)}: {n:,} times</li>" for r, n in rule["edits"].items())
    return f"<details><summary>{escape(rule['rule'])}: {count}</summary><ul>{reasons}{edits}</ul>{shown}</details>"


def _shown(id: str, why: str, text: str) -> str:
    return f'<p class="note">{escape(id)}: {escape(why)}</p><blockquote class="neighbour">{escape(text)}</blockquote>'


def _quarantine(totals: Mapping[str, Any]) -> str:
    shown = "".join(f"<li>{escape(q['id'])}: {escape(q['reason'])}</li>" for q in totals["quarantine"])
    more = totals["quarantined"] - len(totals["quarantine"])
    return f"<ul>{shown}</ul>" + (f"<p>and {more:,} more in the ledger</p>" if more else "") if shown else ""
