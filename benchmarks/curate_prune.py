"""Does pruning by prototypes pay? Test error on Fashion-MNIST against the share that is kept: hard, easy, random.

Scores: cosine distance to the nearest of sqrt(n) prototypes, in the features of a self-supervised run and, as the
baseline, in 64 principal components of the pixels (not whitened: there, two clusterings of 6,000 images rank them
with a correlation of 0.7 only, in the pixels 0.96); each class keeps at least half of its fair number. Learner:
multinomial logistic regression on fixed features (rectified responses to 16 patches, averaged over a 4 x 4 grid),
fitted by 60 iterations of L-BFGS over all that is kept, so that no share lacks steps. Draws of the images and of the
patches differ from seed to seed; within one, all rows see the same. Balance uses labels, the scores do not; the encoder
has seen all 60,000 training images without theirs, also where only 2,000 may be learned from.

Run: python benchmarks/curate_prune.py [--encoder RUN] [--sizes 2000 40000] [--seeds 3]      prints and records JSON
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from record import RESULTS, record
from torch import Tensor, nn
from torch.nn import functional as F

from unlabeled.curate.prune import Which, better_end, chosen, difficulty
from unlabeled.data.sources import source
from unlabeled.evaluate.baselines import pixels
from unlabeled.model import load

SHARES = (0.2, 0.4, 0.6, 0.8)
PATCHES, SIDE, GRID = 16, 6, 4
# Of the squared weights, halved and divided by the number of examples: the best of 1, 3, 10, 30 and 100, both for 1,000
# and for 8,000 examples, by 3,000 other training images.
PENALTY = 10.0
ITERATIONS = 60


def fashion(part: str) -> tuple[np.ndarray, np.ndarray]:
    """(n, 28, 28, 1) uint8 and (n,) int64."""
    data = source("fashion-mnist").split(part)
    assert data.labels is not None
    return np.stack([np.asarray(data[i].fields["image"]).reshape(28, 28, 1) for i in range(len(data))]), data.labels


def patch_features(images: np.ndarray, filters: Tensor) -> Tensor:
    """(n, 2 * 16 * 16) float32: both signs of the responses, rectified, averaged over a grid."""
    parts = []
    for i in range(0, len(images), 500):
        x = torch.from_numpy(images[i : i + 500]).permute(0, 3, 1, 2).float() / 255
        y = F.conv2d(x, filters)
        pooled = torch.cat([F.adaptive_avg_pool2d(F.relu(s * y), GRID) for s in (1, -1)], 1)
        parts.append(pooled.flatten(1))
    return torch.cat(parts)


def components(rows: np.ndarray, count: int = 64) -> np.ndarray:
    """(n, count) float32 principal components of rows (n, d), centred, with the variances they have."""
    centred = rows - rows.mean(0)
    return (centred @ np.linalg.eigh(centred.T @ centred)[1][:, : -count - 1 : -1]).astype(np.float32)


def filters_of(images: np.ndarray, draw: np.random.Generator) -> Tensor:
    """(16, 1, 6, 6): patches of the images without their mean, of unit length; flat ones are passed by."""
    found: list[np.ndarray] = []
    while len(found) < PATCHES:
        image, row, column = draw.integers(len(images)), *draw.integers(28 - SIDE + 1, size=2)
        patch = images[image, row : row + SIDE, column : column + SIDE, 0].astype(np.float32) / 255
        patch -= patch.mean()
        if np.linalg.norm(patch) > 0.5:
            found.append(patch / np.linalg.norm(patch))
    return torch.from_numpy(np.stack(found))[:, None]


def error(x: Tensor, y: Tensor, test: Tensor, answers: Tensor) -> float:
    """Share of test examples that the regression is wrong on; features standardised by those of the examples."""
    deviation, mean = torch.std_mean(x, 0, correction=0)
    scale = 1 / deviation.clamp_min(1e-3)
    x = (x - mean) * scale
    layer = nn.Linear(x.shape[1], 10)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    optimizer = torch.optim.LBFGS(
        layer.parameters(), max_iter=ITERATIONS, history_size=10, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(layer(x), y) + PENALTY * layer.weight.square().sum() / (2 * len(x))
        loss.backward()
        return loss

    optimizer.step(closure)
    with torch.no_grad():
        return float((layer((test - mean) * scale).argmax(1) != answers).float().mean())


def balance_of(labels: np.ndarray) -> float:
    """Entropy of the histogram of classes, as a share of the greatest: 1 where all are as many."""
    p = np.bincount(labels, minlength=10) / len(labels)
    return float(-(p[p > 0] * np.log(p[p > 0])).sum() / np.log(10))


def main() -> None:
    ask = argparse.ArgumentParser()
    ask.add_argument("--encoder", type=Path, help="a run folder of an encoder of images; without it, PCA alone")
    ask.add_argument("--sizes", type=int, nargs="+", default=[2000, 40_000])
    ask.add_argument("--seeds", type=int, default=3)
    ask.add_argument("--into", type=Path, default=RESULTS, help="the folder of the results")
    asked, begun = ask.parse_args(), time.perf_counter()
    (images, labels), (test, answers) = fashion("train"), fashion("test")
    draws = {
        (size, seed): np.sort(np.random.default_rng(seed).choice(len(images), size, replace=False))
        for size in asked.sizes
        for seed in range(asked.seeds)
    }
    views = {"PCA-64 of pixels": components(pixels(images))}
    if asked.encoder:
        model, used = load(asked.encoder), np.unique(np.concatenate(list(draws.values())))
        found = model.embed(images[used])
        of_all = np.zeros((len(images), found.shape[1]), np.float32)
        of_all[used] = found
        views = {model.system: of_all, **views}
    errors: dict[tuple[int, str, float, str], list[float]] = {}
    even: dict[tuple[int, str, float, str], list[float]] = {}
    for (size, seed), rows in draws.items():
        filters = filters_of(images[rows], np.random.default_rng(seed))
        x, q = patch_features(images[rows], filters), patch_features(test, filters)
        y, a = torch.from_numpy(labels[rows]), torch.from_numpy(answers)
        ranked: list[tuple[str, Which, np.ndarray]] = [("all", "random", np.zeros(size))]
        for name, features in views.items():
            value = difficulty(features[rows], seed=seed)
            ranked += [(name, "hard", value), (name, "easy", value)]
        for name, end, value in ranked:
            for share in (*SHARES, 1.0) if end == "random" else SHARES:
                kept = chosen(value, share, end, labels[rows], seed=seed)
                key = size, name, share, end
                errors.setdefault(key, []).append(error(x[kept], y[kept], q, a))
                even.setdefault(key, []).append(balance_of(labels[rows][kept]))
        print(f"{size:,} images, seed {seed}: {time.perf_counter() - begun:.0f} s", flush=True)
    table: list[dict[str, Any]] = [
        {
            "images": size,
            "features": name,
            "kept": share,
            "end": end,
            "error_percent": round(100 * float(np.mean(values)), 2),
            "deviation": round(100 * float(np.std(values, ddof=1)), 2) if len(values) > 1 else None,
            "balance_of_classes": round(float(np.mean(even[size, name, share, end])), 4),
            **({} if name == "all" else {"auto": better_end(views[name][draws[size, 0]], share, labels)}),
        }
        for (size, name, share, end), values in errors.items()
    ]
    record(
        "curate-prune",
        {"test_errors": table, "seeds": asked.seeds, "seconds": round(time.perf_counter() - begun, 1)},
        results=asked.into,
    )


if __name__ == "__main__":
    main()
