"""The linear probe: ridge regression to the classes, in closed form, with all labels or a few per class."""

from __future__ import annotations

import numpy as np
import torch

__all__ = ["draw", "few_labels", "predict"]

PENALTY = 0.1  # times the number of labelled rows


def predict(train: np.ndarray, labels: np.ndarray, queries: np.ndarray, penalty: float = PENALTY) -> np.ndarray:
    """(m,) int64 classes by least squares on standardised features and centred one-hot targets.

        W = (X'X + penalty n I)^-1 X'Y,    class = argmax (x W + mean of the one-hot targets)

    train: (n, d). labels: (n,) int64 from 0. queries: (m, d). Features are standardised by the mean and deviation of
    `train`; those that do not vary there are left out. Solved in the smaller of n and d dimensions, in float64.
    """
    x, q = torch.from_numpy(np.asarray(train, np.float64)), torch.from_numpy(np.asarray(queries, np.float64))
    deviation, mean = torch.std_mean(x, 0, correction=0)
    scale = torch.where(deviation > 1e-6 * deviation.max().clamp(min=1e-30), 1 / deviation, 0)
    x, q = (x - mean) * scale, (q - mean) * scale
    y = torch.nn.functional.one_hot(torch.from_numpy(np.asarray(labels, np.int64))).double()
    centre = y.mean(0)
    n, d = x.shape
    if d <= n:
        gram = x.T @ x
        gram.diagonal().add_(penalty * n)
        scores = q @ torch.linalg.solve(gram, x.T @ (y - centre))
    else:
        gram = x @ x.T
        gram.diagonal().add_(penalty * n)
        scores = q @ (x.T @ torch.linalg.solve(gram, y - centre))
    return (scores + centre).argmax(1).numpy()


def draw(labels: np.ndarray, per_class: int, seed: int) -> np.ndarray:
    """Sorted indices of `per_class` rows of every class, or of all of a class that has fewer."""
    rng = np.random.default_rng(seed)
    found = (np.flatnonzero(labels == c) for c in np.unique(labels))
    return np.sort(np.concatenate([rng.choice(f, min(per_class, len(f)), replace=False) for f in found]))


def few_labels(
    train: np.ndarray,
    labels: np.ndarray,
    queries: np.ndarray,
    answers: np.ndarray,
    per_class: int,
    *,
    draws: int = 5,
    seed: int = 0,
) -> tuple[float, float]:
    """Mean and standard deviation (of the draws, n - 1) of the accuracy in [0, 1] with a few labels per class.

    The draw with number i is the same for every kind of features.
    """
    got = []
    for i in range(draws):
        rows = draw(labels, per_class, seed * 1000 + i)
        got.append(float((predict(train[rows], labels[rows], queries) == answers).mean()))
    return float(np.mean(got)), float(np.std(got, ddof=1)) if draws > 1 else 0.0
