"""Measure a trained model, always beside what costs nothing: random weights, raw data, compressors."""

from __future__ import annotations

from collections.abc import Callable

from unlabeled.core.errors import UserError
from unlabeled.evaluate.result import Evaluation, Table, TimeLimit
from unlabeled.model import Model

__all__ = ["Evaluation", "Table", "evaluate"]


def evaluate(
    model: Model,
    *,
    quick: bool = False,
    seed: int = 0,
    budget_seconds: float | None = None,
    progress: Callable[[str], None] | None = None,
) -> Evaluation:
    """All that the capabilities of the model let one measure, on the train and test splits of its data.

    quick: fewer examples and samples. seed: of draws of labels, of examples and of samples. budget_seconds: how long it
    may take; the notes of the tables say what was cut for it. progress: called with what is being done.

    Raises:
        UserError: where the model does not know its data.
    """
    limit = TimeLimit(budget_seconds, progress)
    kind, found = model.source.kind, Evaluation()
    if kind == "image" and model.can("sample"):
        from unlabeled.evaluate import generator

        _try(generator.measure, model, found, quick, seed, limit)
    if kind == "text" and model.can("score"):
        from unlabeled.evaluate import language

        _try(language.measure, model, found, quick, seed, limit)
    if kind == "text" and model.can("sample"):
        from unlabeled.evaluate import language

        _try(language.show_samples, model, found, quick, seed, limit)
    # Windows of text are not examples that one could name or compare.
    if model.can("embed") and model.method.window() is None and not (kind == "image" and model.can("sample")):
        from unlabeled.evaluate import encoder

        _try(encoder.measure, model, found, quick, seed, limit)
    if not (found.headline or found.figures):
        found.headline.append(
            f"Nothing can be measured about {model.system} on {kind}s: it offers no known capability."
        )
    found.seconds = round(limit.spent, 3)
    return found


def _try(
    measure: Callable[..., None], model: Model, found: Evaluation, quick: bool, seed: int, limit: TimeLimit
) -> None:
    """A split too small to be measured is a finding, not a failure of the run behind it."""
    try:
        measure(model, found, quick=quick, seed=seed, limit=limit)
    except UserError as error:
        found.headline.append(f"Something could not be measured: {error}")
