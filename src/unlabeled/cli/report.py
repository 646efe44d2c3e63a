"""Write the page of a run again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from unlabeled.cli.parse import parse

__all__ = ["main"]


@dataclass(frozen=True)
class Report:
    """Write RUN/report.html, one page that opens offline, from what the run and its evaluation recorded.

    Evaluates first where that has not been done.

    Example: unlabeled report runs/simclr-fashion-1
    """

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of the run."""
    quick: bool = False
    """Where the run has not been evaluated: do it with fewer examples and draws."""
    json: bool = False
    """Print one JSON object."""


def main(words: Sequence[str]) -> dict[str, Any]:
    got = parse(Report, words, "report")

    from unlabeled.engine.record import Run
    from unlabeled.report import keep, kept, write

    run = Run(got.run)
    evaluation = kept(run)
    if evaluation is None:
        from unlabeled.evaluate import evaluate
        from unlabeled.model import load

        evaluation = evaluate(load(got.run), quick=got.quick)
        keep(run, evaluation)
    path = write(run, evaluation)
    print(path)
    return {"run": str(got.run), "report": str(path)}
