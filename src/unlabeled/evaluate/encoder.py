"""Measure an encoder: probes beside baselines where there are labels, diagnostics and neighbours in any case."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from unlabeled.core.batch import Batch
from unlabeled.evaluate import baselines, collapse, knn, linear
from unlabeled.evaluate.examples import Examples, batches, chosen, embedded, images
from unlabeled.evaluate.result import Evaluation, Table, TimeLimit
from unlabeled.model import Model

__all__ = ["measure", "probe"]

FEW = (10, 100)  # labels per class
DIAGNOSED = 2000  # rows; pairs grow with the square
MAPPED = 1000
QUERIES, NEIGHBOURS = 6, 5


def measure(model: Model, into: Evaluation, *, quick: bool, seed: int, limit: TimeLimit) -> None:
    """Add tables, diagnostics and figures about the features of `model`."""
    train, test, said = _examples(model, quick, seed, limit)
    limit.say(f"embedding {len(train):,} + {len(test):,} examples")
    bank, queries = embedded(model.method, train), embedded(model.method, test)
    pictures = (images(train), images(test)) if model.spec.kind == "image" else None
    _diagnose(model, test, queries, into)
    if not (np.isfinite(bank).all() and np.isfinite(queries).all()):
        into.headline.append("The features are not finite: training has failed.")
        return
    known, answers = _known(train), _known(test)
    if known is not None and answers is not None:
        features: list[tuple[str, np.ndarray, np.ndarray]] = [(f"{model.system}, trained", bank, queries)]
        # As initialised: normalising it by the statistics of each batch makes it worse by 4 points on Fashion-MNIST,
        # and a baseline must not be made weaker than it is.
        fresh = model.fresh(seed)
        limit.say("embedding with random weights")
        features.append((f"{model.system}, random weights", embedded(fresh, train), embedded(fresh, test)))
        if pictures is not None:
            flat = baselines.pixels(pictures[0]), baselines.pixels(pictures[1])
            features.append(("pixels", *flat))
            whitened = baselines.whitening(flat[0])
            features.append(("whitened PCA-128 of pixels", whitened(flat[0]), whitened(flat[1])))
        probe(features, train, test, into, seed=seed, said=said, limit=limit)
    else:
        into.headline.append(
            "There are no labels in this data, so no accuracy can be given; look at the nearest neighbours. "
            + into.diagnostics["verdict"]
        )
    if pictures is not None:
        into.figures["neighbours"] = _neighbours(bank, queries, pictures)
    if len(queries) > 2:
        into.figures["map"] = _map(model, test, queries)


def _examples(model: Model, quick: bool, seed: int, limit: TimeLimit) -> tuple[Examples, Examples, list[str]]:
    """Train and test examples as many as time allows, and what was cut."""
    parts = [model.source.split(part) for part in ("train", "test")]
    sizes = (4000, 2000) if quick else (60_000, 10_000)
    train, test = (chosen(p, model.store(p), n, seed) for p, n in zip(parts, sizes))
    said = [f"{len(train):,} training and {len(test):,} held-out examples"]
    if len(train) < len(train.store) or len(test) < len(test.store):
        said[0] += f" drawn from {len(train.store):,} and {len(test.store):,}"
    if limit.left < float("inf"):
        embedded(model.method, test.first(64))
        start = time.perf_counter()
        embedded(model.method, test.first(64))
        each = (time.perf_counter() - start) / min(64, len(test))
        # Twice, for the random weights; as much time again goes to probes, baselines and pictures.
        share = 0.5 * limit.left / (2 * each * (len(train) + len(test)))
        if share < 1:
            train, test = train.first(max(1000, int(share * len(train)))), test.first(max(500, int(share * len(test))))
            said = [f"{len(train):,} training and {len(test):,} held-out examples, fewer for lack of time"]
    return train, test, said


def _known(examples: Examples) -> np.ndarray | None:
    """Which rows have labels; None where they are of fewer than two classes."""
    if examples.labels is None:
        return None
    known = examples.labels >= 0
    return known if len(np.unique(examples.labels[known])) > 1 else None


def probe(
    features: Sequence[tuple[str, np.ndarray, np.ndarray]],  # name, of train, of test
    train: Examples,
    test: Examples,
    into: Evaluation,
    *,
    seed: int,
    said: list[str],
    limit: TimeLimit,
) -> None:
    """Add a table with a row for each kind of features, the model's own first, and a headline that compares them.

    said: of the examples, for the note below the table.
    """
    assert train.labels is not None and test.labels is not None
    labels, answers = train.labels, test.labels
    draws = 5 if limit.left > 4 else 3
    rows: list[list[Any]] = []
    few: dict[str, tuple[float, float]] = {}
    # Large images may not all be in memory; all rows of the table are about the same examples.
    count, asked = (min(len(f[i]) for f in features) for i in (1, 2))
    seen, open_ = labels[:count] >= 0, answers[:asked] >= 0
    y, a = labels[:count][seen], answers[:asked][open_]
    for name, bank, queries in features:
        limit.say(f"probing {name}")
        x, q = bank[:count][seen], queries[:asked][open_]
        near = [float((knn.predict(x, y, q, k=k) == a).mean()) for k in (20, 1)]
        drawn = [linear.few_labels(x, y, q, a, n, draws=draws, seed=seed) for n in FEW]
        few[name] = drawn[1]
        whole = float((linear.predict(x, y, q) == a).mean())
        spreads = [f"{100 * mean:.1f} ± {100 * sd:.1f}" for mean, sd in drawn]
        rows.append([name, *(_percent(v) for v in near), *spreads, _percent(whole)])
    columns = ["features", "kNN, k=20", "1-NN", *(f"linear, {n} labels a class" for n in FEW), "linear, all labels"]
    smallest = int(np.bincount(y)[np.unique(y)].min())
    note = [
        "Accuracy on held-out examples, in %",
        *said,
        f"mean ± standard deviation of {draws} draws of labels",
        "kNN: cosine, weights exp(similarity / 0.07); linear: ridge with penalty 0.1 n on standardised features",
    ]
    if smallest < max(FEW):
        note.append(f"the rarest class has only {smallest} labels, all of which are used where more are asked for")
    into.tables.append(Table("What the features know about the labels", columns, rows, "; ".join(note) + "."))
    into.headline.append(_headline(few, len(a)))


def _headline(few: dict[str, tuple[float, float]], asked: int) -> str:
    """few: mean and deviation of the accuracy with 100 labels a class, the model's own first; asked: test examples.

    A difference counts where it exceeds twice what draws of labels and the choice of test examples make of it.
    """
    (_, own), *others = ((name.split(", ")[-1], value) for name, value in few.items())
    best, rival = max(others, key=lambda other: other[1][0])
    noise = sum(sd**2 + mean * (1 - mean) / asked for mean, sd in (own, rival)) ** 0.5
    gap = own[0] - rival[0]
    result = f"not distinguishable from {best}"
    if abs(gap) > 2 * noise:
        result = "above all of them" if gap > 0 else f"below {best}"
    listed = ", ".join(f"{name} {100 * mean:.1f} %" for name, (mean, _) in others)
    return (
        f"With 100 labels a class, a linear probe on the learned features is right on {100 * own[0]:.1f} % "
        f"(± {100 * own[1]:.1f}) of held-out examples; without learning: {listed}. That is {result}."
    )


def _percent(share: float) -> float:
    return round(100 * share, 2)


def _diagnose(model: Model, test: Examples, queries: np.ndarray, into: Evaluation) -> None:
    rows = queries[:DIAGNOSED]
    into.diagnostics |= collapse.diagnosis(rows)
    if model.spec.kind == "image" and np.isfinite(rows).all():
        some = test.first(min(512, len(rows)))
        with torch.no_grad():
            moved = [model.method.embed(_shifted(b)).float().cpu().numpy() for b in batches(model.method, some)]  # type: ignore[attr-defined]
        value = collapse.alignment(rows[: len(some)], np.concatenate(moved))
        into.diagnostics["alignment_under_a_shift_by_two_pixels"] = round(value, 4)


def _shifted(batch: Batch) -> Batch:
    """Images two pixels down and to the right, edges repeated."""
    height, width = batch["image"].shape[1:3]
    rows, columns = (torch.arange(n, device=batch["image"].device).sub(2).clamp(min=0) for n in (height, width))
    return batch | {"image": batch["image"][:, rows][:, :, columns]}


def _neighbours(bank: np.ndarray, queries: np.ndarray, pictures: tuple[np.ndarray, np.ndarray]) -> dict[str, Any]:
    _, index = knn.nearest(bank[: len(pictures[0])], queries[:QUERIES], NEIGHBOURS)
    rows = [
        {"query": query, "neighbours": [pictures[0][i] for i in near], "indices": near}
        for query, near in zip(pictures[1], index)
    ]
    return {
        "kind": "neighbours",
        "title": "Nearest neighbours",
        "rows": rows,
        "note": "Left, held-out images; beside each, the training images whose features are nearest to its own.",
    }


def _map(model: Model, test: Examples, queries: np.ndarray) -> dict[str, Any]:
    rows = np.asarray(queries[:MAPPED], np.float64)
    rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    left, sigma, _ = np.linalg.svd(rows - rows.mean(0), full_matrices=False)
    points = np.zeros((len(rows), 2))
    points[:, : min(2, len(sigma))] = (left * sigma)[:, :2]
    return {
        "kind": "map",
        "title": "Map of the features",
        "points": points.round(5),
        "labels": None if test.labels is None else test.labels[: len(rows)],
        "classes": list(model.source.classes),
        "note": f"{len(rows):,} held-out examples by the two principal components of their features.",
    }
