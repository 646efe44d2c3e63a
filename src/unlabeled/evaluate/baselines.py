"""What costs no learning: pixels and their whitened principal components."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

__all__ = ["pixels", "whitening"]


def pixels(images: np.ndarray, side: int = 32) -> np.ndarray:
    """(n, height, width, channels) uint8 to (n, features) float32 in [0, 1]; larger sides are averaged down to `side`."""
    if max(images.shape[1:3]) > side:
        shrunk = []
        for part in np.array_split(images, max(1, len(images) // 256)):
            nchw = torch.from_numpy(np.ascontiguousarray(part)).permute(0, 3, 1, 2).float()
            shrunk.append(torch.nn.functional.adaptive_avg_pool2d(nchw, side).flatten(1).numpy())
        return np.concatenate(shrunk) / np.float32(255)
    return images.reshape(len(images), -1).astype(np.float32) / np.float32(255)


def whitening(train: np.ndarray, components: int = 128) -> Callable[[np.ndarray], np.ndarray]:
    """Fit principal components on (n, d) rows; what is returned maps (m, d) to (m, components) of unit variance.

    Fewer components where n or d allow no more, or where the variance ends.
    """
    rows = torch.from_numpy(np.asarray(train, np.float32)).double()
    mean = rows.mean(0)
    values, vectors = torch.linalg.eigh((rows - mean).T @ (rows - mean) / max(1, len(rows) - 1))
    kept = min(components, len(rows) - 1, int((values > 1e-9 * values[-1]).sum()))
    matrix = (vectors[:, -kept:] / values[-kept:].sqrt()).flip(1)

    def apply(data: np.ndarray) -> np.ndarray:
        return ((torch.from_numpy(np.asarray(data, np.float32)).double() - mean) @ matrix).float().numpy()

    return apply
