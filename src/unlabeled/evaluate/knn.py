"""Nearest neighbours on the sphere: the probe that trains nothing.

Wu, Xiong, Yu, Lin: Unsupervised Feature Learning via Non-Parametric Instance Discrimination. CVPR 2018, section 3.4.
"""

from __future__ import annotations

import numpy as np
import torch

__all__ = ["nearest", "predict"]

_ROWS = 1024  # queries at a time; with a bank of 60,000 their similarities fill 250 MB


def nearest(bank: np.ndarray, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Cosine similarities (m, k) float32, falling, and indices (m, k) int64 of the k nearest rows of the bank.

    bank: (n, d). queries: (m, d). k is cut to n. A row of zeros is similar to nothing (0).
    """
    normal = _normalised(bank)
    similarity, index = [], []
    for part in _normalised(queries).split(_ROWS):
        best = (part @ normal.T).topk(min(k, len(normal)))
        similarity.append(best.values)
        index.append(best.indices)
    return torch.cat(similarity).numpy(), torch.cat(index).numpy()


def predict(
    bank: np.ndarray, labels: np.ndarray, queries: np.ndarray, *, k: int = 20, temperature: float = 0.07
) -> np.ndarray:
    """(m,) int64 classes: the k nearest vote with weight exp(cosine / temperature); of equals, the lowest class wins.

    labels: (n,) int64 from 0, those of the bank.
    """
    similarity, index = nearest(bank, queries, k)
    votes = torch.zeros(len(index), int(labels.max()) + 1, dtype=torch.float64)
    weight = torch.from_numpy(similarity).double().div(temperature).exp()
    return votes.scatter_add_(1, torch.from_numpy(np.asarray(labels, np.int64)[index]), weight).argmax(1).numpy()


def _normalised(rows: np.ndarray) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.from_numpy(np.ascontiguousarray(rows, np.float32)), eps=1e-12)
