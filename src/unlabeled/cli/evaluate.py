"""Measure a run against named baselines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from unlabeled.cli.parse import parse

__all__ = ["main"]


@dataclass(frozen=True)
class Evaluate:
    """Measure a run beside random weights, raw data and the other named baselines; results go into the run folder.

    Example: unlabeled evaluate runs/simclr-fashion-1 --json
    """

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of a run, or of a model in the Hugging Face layout."""
    quick: bool = False
    """Fewer examples and draws: seconds instead of minutes."""
    seed: int = 0
    """Of the draws of labels and of samples."""
    json: bool = False
    """Print one JSON object."""


def main(words: Sequence[str]) -> dict[str, Any]:
    got = parse(Evaluate, words, "evaluate")

    from unlabeled.model import load

    model = load(got.run)

    from unlabeled.evaluate import evaluate
    from unlabeled.report import keep, text_of

    result = evaluate(model, quick=got.quick, seed=got.seed)
    if model.run is not None:
        keep(model.run, result)
    print(text_of(result))
    return {"run": str(got.run), **result}
