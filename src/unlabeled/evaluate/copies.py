"""Whether a generator copies: its samples beside the training images that are nearest to them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

__all__ = ["Copies", "copies"]


class Copies(NamedTuple):
    """share: of samples nearer to a training row than `threshold`, in [0, 1]; about 0.01 for new draws of the data.

    threshold: the first percentile of the distance from test rows to their nearest training rows. nearest: (n,) int64
    training row of each sample. distance: (n,) float32 to it.
    """

    share: float
    threshold: float
    nearest: np.ndarray
    distance: np.ndarray


def copies(samples: np.ndarray, train: np.ndarray, test: np.ndarray) -> Copies:
    """Compare rows (n, d) of pixels or features by Euclidean distance."""
    distance, nearest = _nearest(samples, train)
    threshold = float(np.percentile(_nearest(test, train)[0], 1))
    # A test row that is in the training data makes the threshold zero; a sample that is one is a copy all the same.
    return Copies(float((distance <= threshold).mean()), threshold, nearest, distance)


def _nearest(rows: np.ndarray, bank: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mine, others = (torch.from_numpy(np.asarray(a, np.float32)) for a in (rows, bank))
    distances, indices = [], []
    for part in mine.split(512):
        index = torch.cdist(part, others).argmin(1)
        # Again without the product behind cdist, whose rounding hides exact copies.
        distances.append((part - others[index]).norm(dim=1))
        indices.append(index)
    return torch.cat(distances).numpy(), torch.cat(indices).numpy()
