"""What a person sees while a run goes on: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

__all__ = ["Console", "duration", "quantity"]


def quantity(value: float) -> str:
    """1234567 -> "1.23M"."""
    for size, letter in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def duration(seconds: float) -> str:
    """95 -> "1m35s"."""
    whole = max(0, round(seconds))
    if whole >= 3600:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 60}m{whole % 60:02d}s" if whole >= 60 else f"{whole}s"


class Console:
    """An observer of a run that writes to standard error; use as a context."""

    def __init__(self, unit: str, every_seconds: float = 10.0) -> None:
        """unit: the name of items, such as "images" or "tokens"; every_seconds: between plain lines."""
        self.unit, self.every = unit, every_seconds
        self._last = 0.0
        self._live: Any = None

    def __enter__(self) -> Console:
        if sys.stderr.isatty():
            from rich.console import Console as Terminal
            from rich.progress import BarColumn, Progress, TextColumn

            terminal = Terminal(stderr=True)
            self._live = Progress(
                TextColumn("training"),
                BarColumn(),
                TextColumn("{task.percentage:3.0f}%  {task.description}"),
                console=terminal,
            )
            self._task = self._live.add_task("starting", total=1.0)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def __call__(self, row: Mapping[str, Any]) -> None:
        if "message" in row:
            self._print(row["message"])
            return
        text = self.line(row)
        if self._live is not None:
            self._live.update(self._task, completed=row["progress"], description=text)
        elif time.perf_counter() - self._last >= self.every or row["progress"] >= 1:
            self._last = time.perf_counter()
            self._print(f"{row['progress']:4.0%}  {text}")

    def line(self, row: Mapping[str, Any]) -> str:
        """One row of metrics in words."""
        losses = "  ".join(f"{k} {v:.4g}" for k, v in row.items() if k.endswith("loss"))
        return (
            f"step {row['step']:,}  {losses}  {quantity(row['items_per_second'])} {self.unit}/s  "
            f"{quantity(row['flops_per_second'])}FLOP/s ({row['ceiling_share']:.0%} of this machine's ceiling)  "
            f"{row['memory_bytes'] / 2**30:.1f} GiB  {duration(row['seconds_left'])} left"
        )

    def _print(self, text: str) -> None:
        if self._live is not None:
            self._live.console.print(text)
        else:
            print(text, file=sys.stderr, flush=True)
