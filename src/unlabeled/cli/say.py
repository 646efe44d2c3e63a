"""What a command prints: tables for people, one JSON object for programs."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["as_json", "plain", "table"]


def plain(value: Any) -> Any:
    """A value in JSON types: numpy numbers and arrays unpacked, paths as text, numbers that are none as null."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(v) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, Path):
        return str(value)
    return str(value)


def as_json(value: Any) -> str:
    """One line of JSON that any reader accepts."""
    return json.dumps(plain(value), ensure_ascii=False, allow_nan=False)


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Columns of text: the first to the left, numbers to the right."""
    cells = [[str(c) for c in row] for row in rows]
    widths = [max(len(row[i]) for row in [list(head), *cells]) for i in range(len(head))]
    numeric = [all(_is_number(row[i]) for row in cells) for i in range(len(head))]

    def line(row: Sequence[str]) -> str:
        return "  ".join(c.rjust(w) if n else c.ljust(w) for c, w, n in zip(row, widths, numeric)).rstrip()

    return "\n".join([line(head), line(["-" * w for w in widths]), *map(line, cells)])


def _is_number(text: str) -> bool:
    return not text or text[0].isdigit() or text[0] in "-+–." or text == "nan"
