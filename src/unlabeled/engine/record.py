"""A run is a folder: config.json, status.json, metrics.jsonl, log.txt, quarantine.jsonl, checkpoints/, model/.

Everything is JSON, plain text or safetensors; opening a run executes nothing of it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from unlabeled.core.errors import UserError

__all__ = ["Run", "is_recipe", "write_atomically"]


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that a reader, or a crash, sees the old text or the new and nothing between."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")  # processes of one run may write the same file
    with partial.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def is_recipe(path: Path) -> bool:
    """Whether a folder holds the runs of several stages."""
    return (path / "recipe.json").exists()


class Run:
    """A run folder, existing or new."""

    def __init__(self, path: str | Path) -> None:
        """Open an existing run; the folder of a recipe stands for its last stage.

        Raises:
            UserError: where the folder is not a run.
        """
        self.path = Path(path)
        if is_recipe(self.path):
            self.path /= json.loads((self.path / "recipe.json").read_text())["stages"][-1]
            if not self.path.exists():
                raise UserError(f"The last stage of {path} is not begun; go on with: unlabeled resume {path}")
        try:
            self.config: dict[str, Any] = json.loads((self.path / "config.json").read_text())
            self.config["system"]
        except (OSError, ValueError, KeyError, TypeError):
            raise UserError(
                f"{path} is not a run folder (no config.json of a run); runs lie where --out said, or in runs/."
            ) from None

    @classmethod
    def create(cls, path: Path, config: Mapping[str, Any], fill: Callable[[Path], None] | None = None) -> Run:
        """Make a new run folder; refuses one that is in use.

        fill: puts more into the folder before config.json makes it a run.

        Raises:
            UserError: where the folder exists and is not empty.
        """
        if path.exists() and any(path.iterdir()):
            raise UserError(
                f"{path} is not empty; name another folder with --out, or go on with `unlabeled resume {path}`."
            )
        path.mkdir(parents=True, exist_ok=True)
        if fill is not None:
            fill(path)
        write_atomically(path / "config.json", json.dumps(config, indent=2))
        run = cls(path)
        run.set_status("running")
        return run

    @property
    def status(self) -> dict[str, Any]:
        """{"state": "running" | "finished" | "interrupted" | "non-finite", ...}; "running" with no process behind it
        means that the run was killed."""
        try:
            return json.loads((self.path / "status.json").read_text())
        except (OSError, ValueError):
            return {"state": "unknown"}

    def set_status(self, state: str, **more: Any) -> None:
        write_atomically(self.path / "status.json", json.dumps({**self.status, "state": state, **more}, indent=2))

    def log(self, text: str) -> None:
        """Add a dated line to log.txt."""
        with (self.path / "log.txt").open("a") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {text}\n")

    def add_metrics(self, row: Mapping[str, Any]) -> None:
        with (self.path / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")

    def metrics(self) -> list[dict[str, Any]]:
        """Rows in the order of steps; a line torn by a crash is left out."""
        return self._rows(lambda row: True)

    def forget_metrics_after(self, step: int) -> None:
        """Drop rows of steps that a resumed run is going to take again."""
        rows = self._rows(lambda row: row.get("step", 0) <= step)
        if (self.path / "metrics.jsonl").exists():
            write_atomically(self.path / "metrics.jsonl", "".join(json.dumps(r) + "\n" for r in rows))

    def _rows(self, keep: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
        rows = []
        try:
            lines = (self.path / "metrics.jsonl").read_text(errors="replace").splitlines()
        except OSError:
            return []
        for line in lines:
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if isinstance(row, dict) and keep(row):
                rows.append(row)
        return rows

    def change_config(self, **values: Any) -> None:
        """Set entries of config.json, such as a longer budget."""
        self.config.update(values)
        write_atomically(self.path / "config.json", json.dumps(self.config, indent=2))
