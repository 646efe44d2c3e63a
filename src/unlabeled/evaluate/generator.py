"""Measure a generator of images: distance to the data beside baselines, and whether it copies."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from unlabeled.evaluate import baselines, frechet
from unlabeled.evaluate.copies import copies
from unlabeled.evaluate.examples import Examples, chosen, images
from unlabeled.evaluate.features import FeatureSpace, feature_space
from unlabeled.evaluate.result import Evaluation, Table, TimeLimit
from unlabeled.model import Model

__all__ = ["gaussian_images", "measure"]

STEPS = 50  # evaluations of the network per sample, where a method takes steps
REFERENCE = 10_000  # training images on the other side of the distances
SHOWN = 64
COPIES_SHOWN = 6


def measure(model: Model, into: Evaluation, *, quick: bool, seed: int, limit: TimeLimit) -> None:
    """Add the table of distances, samples and their nearest training images."""
    parts = [model.source.split(part) for part in ("train", "test")]
    sizes = (4000, 2000) if quick else (60_000, 10_000)
    train, test = (
        chosen(p, model.store(p), n) for p, n in zip(parts, sizes)
    )  # whatever the seed: one space, one floor
    bank, held = images(train), images(test)

    wanted = 500 if quick else 5000
    steps = min(STEPS, getattr(model.method.config, "noise_steps", STEPS))
    start = limit.left
    limit.say(f"drawing {wanted:,} samples")
    made = _draw(model, wanted, seed, steps, 0.55 * start)
    untrained = Model(model.system, model.fresh(seed), source=model.source)
    limit.say("drawing from the untrained model")
    noise = _draw(untrained, min(len(made), 500), seed, steps, 0.12 * start)

    limit.say("measuring distances")
    space = _space(bank, held, train, test, limit)
    real = space(bank[:REFERENCE])
    n = len(made)
    flat_bank, flat_test = baselines.pixels(bank), baselines.pixels(held)
    candidates = [
        (f"{model.system}, trained", made),
        (f"{model.system}, untrained", noise),
        ("Gaussian fitted to pixels", gaussian_images(bank[:REFERENCE], n, seed)),
        ("held-out images (floor)", held[:n]),
    ]
    rows, found = [], None
    for name, some in candidates:
        distance, row = _row(name, some, real, space, seed, quick)
        near = copies(baselines.pixels(some), flat_bank, flat_test)
        rows.append([*row, _percent(near.share)])
        if found is None:
            found = near
            into.diagnostics["frechet_distance"] = round(distance, 3)
    assert found is not None
    columns = ["images", "n", "FD", "KID x 1000", "precision", "recall", "density", "coverage", "near-copies, %"]
    fewer = f", fewer than {wanted:,} for lack of time" if n < wanted else ""
    accuracy = "" if space.accuracy is None else f", right on {100 * space.accuracy:.1f} % of held-out labels"
    note = (
        f"Distances in {space.name}{accuracy}, to {len(real):,} training images; numbers in another space, or of "
        f"another n, are not comparable. {n:,} samples{fewer}, at most {steps} steps each. FD falls with n even for "
        f"perfect samples: compare with the floor. Near-copies: samples nearer to one of {len(bank):,} training images "
        "in pixels than 99 % of held-out images are; 1 % is what new draws of the data would show."
    )
    if len(held) < n:
        note += f" The floor is over only {len(held):,} images, which makes it look higher than it is."
    into.tables.append(Table("How near the samples are to the data", columns, rows, note))
    into.diagnostics |= {"feature_space": space.name, "samples": n, "near_copies": round(found.share, 4)}
    into.headline.append(_headline(rows, found.share))
    into.figures["samples"] = {
        "kind": "samples",
        "title": "Samples",
        "items": made[:SHOWN],
        "note": f"Not chosen: the first {min(n, SHOWN)} of seed {seed}.",
    }
    into.figures["copies"] = {
        "kind": "neighbours",
        "title": "Does it copy?",
        "rows": [
            {"query": image, "neighbours": [bank[i]], "indices": [i]}
            for image, i in zip(made[:COPIES_SHOWN], found.nearest)
        ],
        "note": "Left, samples; beside each, the training image nearest to it in pixels.",
    }


def gaussian_images(pictures: np.ndarray, n: int, seed: int = 0) -> np.ndarray:
    """n images (n, height, width, channels) uint8 from a Gaussian with the mean and covariance of the pixels.

    Drawn as mean + z' X / sqrt(m) with z one normal number per centred image, which has that covariance exactly and
    never forms it.
    """
    rows = pictures[:4000].reshape(min(len(pictures), 4000), -1).astype(np.float32)
    mean = rows.mean(0)
    drawn = np.random.default_rng(seed).standard_normal((n, len(rows))).astype(np.float32)
    made = mean + drawn @ (rows - mean) / np.sqrt(np.float32(max(1, len(rows) - 1)))
    return made.round().clip(0, 255).astype(np.uint8).reshape(n, *pictures.shape[1:])


def _draw(model: Model, n: int, seed: int, steps: int, seconds: float) -> np.ndarray:
    """Up to n samples; as many as fit in the seconds, but some."""
    start, made, count, size = time.perf_counter(), [], 0, 16
    while count < n:
        begun = time.perf_counter()
        made.append(model.sample(min(size, n - count), seed=seed * 1_000_003 + count, steps=steps)["image"])
        count += len(made[-1])
        each = (time.perf_counter() - begun) / len(made[-1])
        size = int(min(250, (seconds - (time.perf_counter() - start)) / max(each, 1e-9))) if seconds < 1e9 else 250
        if size < 1:
            break
    return np.concatenate(made)


def _space(bank: np.ndarray, held: np.ndarray, train: Examples, test: Examples, limit: TimeLimit) -> FeatureSpace:
    """The space of the classifier where labels and the time to train it are there."""
    labels = train.labels if limit.left > 5 else None
    tested = None if test.labels is None else (held, test.labels[: len(held)])
    return feature_space(bank, None if labels is None else labels[: len(bank)], tested)


def _row(
    name: str, some: np.ndarray, real: np.ndarray, space: FeatureSpace, seed: int, quick: bool
) -> tuple[float, list[Any]]:
    fake = space(some)
    distance = frechet.frechet(real, fake) if len(fake) > 1 else float("nan")
    mean, _ = frechet.kid(real, fake, subsets=10 if quick else 100, seed=seed) if len(fake) > 1 else (float("nan"), 0)
    row: list[Any] = [name, len(some), round(distance, 3), round(1000 * mean, 3)]
    k = 5
    if min(len(fake), len(real)) <= k:
        return distance, [*row, None, None, None, None]
    # Balls grow as points thin out: the same number on both sides.
    size = min(len(fake), len(real))
    return distance, [*row, *(round(v, 3) for v in frechet.manifold(real[:size], fake[:size], k))]


def _headline(rows: list[list[Any]], share: float) -> str:
    own, untrained, gaussian, floor = (row[2] for row in rows)
    held = f"held-out images {floor:.3g}, " if rows[3][1] >= rows[0][1] else ""  # with fewer images FD is larger
    # A tenth is what another draw of so many samples may do to either.
    result = "nearer than" if own < 0.9 * gaussian else "no nearer than" if own > 1.1 * gaussian else "about as near as"
    copied = "They are not copies of training images."
    if share > 0.05:
        copied = f"{100 * share:.1f} % of the samples are nearly copies of training images."
    return (
        f"The samples lie {own:.3g} from the data (Fréchet distance; {held}untrained {untrained:.3g}): {result} a "
        f"Gaussian fitted to the pixels ({gaussian:.3g}). {copied}"
    )


def _percent(share: float) -> float:
    return round(100 * share, 2)
