"""The pictures of an evaluation: neighbours, samples, a map, curves. Names say what they are; others are left out."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from html import escape
from typing import Any

import numpy as np

from unlabeled.report.draw import bars, chart, grid, picture, png, scatter

__all__ = ["figure"]


def figure(name: str, value: Any) -> tuple[str, str]:
    """Title and HTML of one entry of an evaluation's figures; empty where its kind is unknown.

    {"kind": "neighbours", "rows": [{"query": item, "neighbours": [item, ...]}, ...]}
    {"kind": "samples", "items": [item, ...]}
    {"kind": "map", "points": [[x, y], ...], "labels": [...] or None, "classes": [...]}
    {"kind": "lines", "lines": {name: [[x, y], ...]}, "across": what x is}
    {"kind": "bars", "values": {name: number}}

    Each may have "title" and "note". An item is text, or an image as a uint8 array or list (height, width[, channels])
    or as {"png": base64}; or {"item": ..., "name": text below it}.
    """
    if not isinstance(value, Mapping) or value.get("kind") not in _DRAWN:
        return "", ""
    title = value.get("title") or name.replace("_", " ").capitalize()
    note = f'<p class="note">{escape(value["note"])}</p>' if value.get("note") else ""
    html = _DRAWN[value["kind"]](value, title)
    return title, html + note if html else ""


def _neighbours(value: Mapping[str, Any], title: str) -> str:
    rows = []
    for row in value["rows"]:
        shown = [_item(row["query"], "query"), *(_item(n, "neighbour") for n in row["neighbours"])]
        rows.append(f'<div class="row">{"".join(shown)}</div>')
    return "".join(rows)


def _samples(value: Mapping[str, Any], title: str) -> str:
    items = value["items"]
    if len(items) and not isinstance(items[0], (str, Mapping)):
        images = np.stack([_array(i) for i in items])
        return picture(grid(images), f"{len(images)} samples", "sheet")
    return "".join(_item(i, "sample") for i in items)


def _map(value: Mapping[str, Any], title: str) -> str:
    points = np.asarray(value["points"], dtype=np.float64)
    return scatter(points, value.get("labels"), list(value.get("classes") or ()), title) if len(points) else ""


def _lines(value: Mapping[str, Any], title: str) -> str:
    lines = {n: [(float(x), float(y)) for x, y in ps] for n, ps in value["lines"].items()}
    return f'<div class="charts">{chart(lines, value.get("across", ""), title)}</div>'


def _bars(value: Mapping[str, Any], title: str) -> str:
    return bars({n: float(v) for n, v in value["values"].items()}, title)


def _item(item: Any, kind: str) -> str:
    name = ""
    if isinstance(item, Mapping) and "item" in item:
        item, name = item["item"], str(item.get("name", ""))
    if isinstance(item, str):
        below = f'<span class="soft"> {escape(name)}</span>' if name else ""
        return f'<blockquote class="{kind}">{escape(item)}{below}</blockquote>'
    if isinstance(item, Mapping):
        return picture(base64.b64decode(item["png"]), name or kind, kind)
    return picture(png(_array(item)), name or kind, kind)


def _array(item: Any) -> np.ndarray:
    array = np.asarray(item, dtype=np.uint8)
    return array if array.ndim == 3 else array[..., None]


_DRAWN = {"neighbours": _neighbours, "samples": _samples, "map": _map, "lines": _lines, "bars": _bars}
