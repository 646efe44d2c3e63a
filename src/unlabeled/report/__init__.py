"""The report of a run: one self-contained HTML page, and the same figures as text for the terminal."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unlabeled.core.errors import UserError

if TYPE_CHECKING:
    from unlabeled.engine.record import Run
    from unlabeled.model import Model

__all__ = ["grid", "keep", "kept", "text_of", "write"]


def write(run: Model | Run, evaluation: Any) -> Path:
    """Write RUN/report.html and return its path.

    run: a run, or a model that came from one. evaluation: an `Evaluation` or its JSON form.

    Raises:
        UserError: where the model has no run folder.
    """
    from unlabeled.engine.record import Run, write_atomically
    from unlabeled.report.page import page

    found = run if isinstance(run, Run) else run.run
    if found is None:
        raise UserError("A report is of a run; this model came without one.")
    path = found.path / "report.html"
    write_atomically(path, page(found, _as_dict(evaluation)))
    return path


def keep(run: Run, evaluation: Any) -> dict[str, Any]:
    """Write RUN/evaluation.json and return what is in it."""
    from unlabeled.engine.record import write_atomically

    values = _as_dict(evaluation)
    write_atomically(run.path / "evaluation.json", json.dumps(values))
    return values


def kept(run: Run) -> dict[str, Any] | None:
    """The evaluation that was kept last, or None."""
    try:
        return json.loads((run.path / "evaluation.json").read_text())
    except (OSError, ValueError):
        return None


def text_of(evaluation: Mapping[str, Any]) -> str:
    """Headline and tables for a terminal."""
    from unlabeled.report.page import _listed, cell, is_sentence

    parts = [" ".join(_listed(evaluation.get("headline", "")))]
    for table in evaluation.get("tables", ()):
        head, rows = list(table["columns"]), [[cell(v) for v in row] for row in table["rows"]]
        widths = [max(map(len, column)) for column in zip(head, *rows)]
        left = [i == 0 or any(is_sentence(row[i]) for row in rows) for i in range(len(head))]
        lines = [head, ["-" * w for w in widths], *rows]
        text = "\n".join(
            "  ".join(c.ljust(w) if leftward else c.rjust(w) for c, w, leftward in zip(line, widths, left)).rstrip()
            for line in lines
        )
        parts.append("\n".join(x for x in (table.get("title"), text, table.get("note")) if x))
    return "\n\n".join(p for p in parts if p)


def grid(images: Any) -> bytes:
    """(n, height, width, channels) uint8 images as one PNG file."""
    from unlabeled.report.draw import grid

    return grid(images)


def _as_dict(evaluation: Any) -> dict[str, Any]:
    return dict(evaluation) if isinstance(evaluation, Mapping) else evaluation.to_dict()
