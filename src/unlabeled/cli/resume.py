"""Go on with a run that was stopped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from unlabeled.cli.parse import parse

__all__ = ["main"]


@dataclass(frozen=True)
class Resume:
    """Go on with a run from its last checkpoint, as if it had never stopped.

    Example: unlabeled resume runs/simclr-fashion-1 --budget 30m
    """

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of the run."""
    budget: str | None = None
    """A longer budget than it was begun with, such as 30m or 5000steps."""
    json: bool = False
    """Print one JSON object."""


def main(words: Sequence[str]) -> dict[str, Any]:
    got = parse(Resume, words, "resume")

    from unlabeled.cli.progress import console
    from unlabeled.cli.train import finished
    from unlabeled.engine.recipe import resume, system_of

    with console(system_of(got.run)) as observers:
        return finished(resume(got.run, budget=got.budget, observers=observers))
