"""Measure a trained model, always beside what costs nothing: random weights, raw data, compressors."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from unlabeled.core.errors import UserError
from unlabeled.evaluate import health
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
    limit, found = TimeLimit(budget_seconds, progress), Evaluation()
    measures = list(_measures(model))
    for done, measure in enumerate(measures):
        # A split too small to be measured is a finding, not a failure of the run behind it.
        try:
            measure(model, found, quick=quick, seed=seed, limit=limit.part(1 / (len(measures) - done)))
        except UserError as error:
            found.headline.append(f"Something could not be measured: {error}")
    health.measure(model, found)
    if not (found.headline or found.figures):
        kind = model.source.kind
        found.headline.append(
            f"Nothing can be measured about {model.system} on {kind}s: it offers no known capability."
        )
    found.seconds = round(limit.spent, 3)
    return found


def _measures(model: Model) -> Iterator[Callable[..., None]]:
    """What can be measured of a model by its capabilities, the most telling first."""
    kind = model.source.kind
    if kind == "image":
        if model.can("sample"):
            from unlabeled.evaluate import generator

            yield generator.measure
        if model.can("score") or model.can("reconstruct") or model.can("encode"):
            from unlabeled.evaluate import likelihood

            yield likelihood.measure
        if model.can("embed"):
            from unlabeled.evaluate import encoder

            yield encoder.measure
    if kind == "wave" and model.can("embed_locally"):
        from unlabeled.evaluate import speech

        yield speech.measure
    if kind == "text":
        from unlabeled.evaluate import language

        if model.can("score"):
            yield language.measure
        if model.can("sample"):
            yield language.show_samples
        if model.can("embed") and model.method.goal == "represent":
            from unlabeled.evaluate import passages

            yield passages.measure
