"""A sweep while it goes on: a live table on a terminal, a line for each finished run elsewhere. It reads run folders alone, so
that it does not matter where the runs are trained."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from unlabeled.engine.console import duration, quantity
from unlabeled.scale.plan import Plan
from unlabeled.scale.sweep import table

__all__ = ["Board"]

EVERY = 0.5  # seconds between looks
TAIL = 8192  # bytes at the end of metrics.jsonl in which the last row is found


class Board:
    """Watches a sweep and writes to standard error; use as a context and give it to `sweep.run` as `watch`."""

    def __init__(self) -> None:
        self._live: Any = None
        self._last, self._began = 0.0, time.perf_counter()
        self._told: set[str] | None = None

    def __enter__(self) -> Board:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            self._live = Live(console=Console(stderr=True), auto_refresh=False)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def __call__(self, plan: Plan, folder: Path, running: set[str]) -> None:
        now = time.perf_counter()
        if now - self._last < EVERY and running:
            return
        self._last = now
        rows = table(plan, folder)
        ended = {row["name"] for row in rows if row["state"] in ("finished", "failed")}
        new = ended - (ended if self._told is None else self._told)  # what an earlier call finished is not told again
        left = duration(self._left(plan, rows, running))
        if self._live is not None:
            self._live.update(self._drawn(plan, folder, rows, running, left), refresh=True)
        else:
            for row in (row for row in rows if row["name"] in new):
                print(
                    f"{len(ended):3} of {len(rows)}  {self.line(row)}  about {left} left", file=sys.stderr, flush=True
                )
        self._told = ended

    def line(self, row: dict[str, Any]) -> str:
        """A finished or failed run in words."""
        size = f"{row['name']}  {quantity(row['params'])} parameters  {quantity(row['flops'])}FLOPs"
        if row["state"] == "failed":
            return f"{size}  failed: {row['why']}"
        return f"{size}  {row['loss']:.4f} {row['unit']} ± {row['loss_error']:.4f}  {duration(row['seconds'])}"

    def _left(self, plan: Plan, rows: list[dict[str, Any]], running: set[str]) -> float:
        """Seconds to the end, from the plan's, corrected by how long finished runs took."""
        planned = {one.name: one.seconds for one in plan.runs}
        done = [row for row in rows if row["state"] == "finished"]
        took = sum(row["seconds"] + row["scoring_seconds"] + plan.survey.overhead for row in done)
        factor = took / sum(planned[row["name"]] for row in done) if done else 1.0
        ended = {row["name"] for row in rows if row["state"] in ("finished", "failed")}
        left = sum(s * (0.5 if name in running else 1.0) for name, s in planned.items() if name not in ended)
        return factor * left / plan.survey.workers

    def _drawn(self, plan: Plan, folder: Path, rows: list[dict[str, Any]], running: set[str], left: str) -> Any:
        from rich.table import Table

        done = sum(row["state"] == "finished" for row in rows)
        drawn = Table(
            title=f"{plan.survey.system}: {done} of {len(rows)} runs, about {left} left", title_justify="left"
        )
        for name in (
            "run",
            "parameters",
            "tokens" if plan.survey.tokens else "examples",
            "FLOPs",
            plan.survey.unit,
            "",
        ):
            drawn.add_column(name, justify="left" if name in ("run", "") else "right")
        for row in rows:
            cells = [row["name"], quantity(row["params"]), quantity(row["tokens"]), quantity(row["flops"])]
            if row["state"] == "finished":
                drawn.add_row(*cells, f"{row['loss']:.4f}", duration(row["seconds"]))
            elif row["name"] in running:
                now = _newest(folder / row["name"] / "metrics.jsonl")
                loss = f"[dim]{now['loss']:.3f}[/dim]" if "loss" in now and plan.survey.measure == "loss" else ""
                drawn.add_row(*cells, loss, f"{now.get('progress', 0):.0%}", style="bold")
            else:
                drawn.add_row(*cells, "", "" if row["state"] == "waiting" else row["state"], style="dim")
        return drawn


def _newest(file: Path) -> dict[str, Any]:
    """The last whole row of a run's metrics, or nothing."""
    try:
        with file.open("rb") as opened:
            opened.seek(max(0, opened.seek(0, 2) - TAIL))
            lines = opened.read().decode(errors="replace").splitlines()
        return next(json.loads(line) for line in reversed(lines) if line.startswith("{") and line.endswith("}"))
    except (OSError, ValueError, StopIteration):
        return {}
