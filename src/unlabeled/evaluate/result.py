"""What an evaluation gives: a sentence, tables, further figures, pictures; and how much of its time is left."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

__all__ = ["Evaluation", "Table", "TimeLimit"]

_AS_LISTS = 100_000  # pixels that JSON holds as numbers; more go in as PNG files


@dataclass
class Table:
    """rows: cells are text, numbers or None, as many as columns. own: index of the row that is the model's own."""

    title: str
    columns: list[str]
    rows: list[list[Any]]
    note: str = ""
    own: int | None = 0

    def to_dict(self) -> dict[str, Any]:
        return {"title": self.title, "columns": self.columns, "rows": self.rows, "note": self.note, "own": self.own}


@dataclass(eq=False)
class Evaluation(Mapping[str, Any]):
    """Also reads as the mapping that `to_dict` gives.

    diagnostics: name to number or sentence. figures: name to {"kind": "samples" | "neighbours" | "map", ...} as
    `report.figures` draws them, images in them being uint8 arrays. seconds: what measuring took.
    """

    headline: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    diagnostics: dict[str, Any] = field(default_factory=dict)
    figures: dict[str, dict[str, Any]] = field(default_factory=dict)
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """JSON types only; images become numbers or, where there are many, PNG files."""
        return {
            "headline": self.headline,
            "tables": [t.to_dict() for t in self.tables],
            "diagnostics": _plain(self.diagnostics),
            "figures": _plain(self.figures),
            "seconds": self.seconds,
        }

    def __getitem__(self, key: str) -> Any:
        return self.to_dict()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(("headline", "tables", "diagnostics", "figures", "seconds"))

    def __len__(self) -> int:
        return 5


class TimeLimit:
    """Seconds that an evaluation may take, or no limit; it also passes on what is being done."""

    def __init__(self, seconds: float | None, progress: Callable[[str], None] | None = None) -> None:
        self._start, self._seconds, self._progress = time.perf_counter(), seconds, progress

    @property
    def left(self) -> float:
        """Seconds; infinite without a limit, never below zero."""
        return float("inf") if self._seconds is None else max(0.0, self._seconds - self.spent)

    @property
    def spent(self) -> float:
        return time.perf_counter() - self._start

    def part(self, share: float) -> TimeLimit:
        """A limit that begins now and ends after a share of what is left."""
        return TimeLimit(None if self._seconds is None else share * self.left, self._progress)

    def say(self, doing: str) -> None:
        if self._progress is not None:
            self._progress(doing)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, np.generic):
        return value.item()
    if not isinstance(value, np.ndarray):
        return value
    if value.dtype == np.uint8 and value.ndim == 3:
        return _png(value)
    if value.dtype == np.uint8 and value.ndim == 4 and value.size > _AS_LISTS:
        return [_png(image) for image in value]
    return value.tolist()


def _png(image: np.ndarray) -> dict[str, str]:
    """(height, width, 1 or 3) uint8 as {"png": base64}."""
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(out, "PNG")
    return {"png": base64.b64encode(out.getvalue()).decode()}
