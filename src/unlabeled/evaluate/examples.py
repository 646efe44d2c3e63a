"""Examples of both splits for measuring: a fixed random choice, their labels, and features of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from unlabeled.core.batch import Batch
from unlabeled.core.method import Method
from unlabeled.data.source import Source
from unlabeled.data.store import Store
from unlabeled.parallel.world import device

__all__ = ["Examples", "batches", "chosen", "embedded", "images"]

_BATCH = 256
_BYTES = 1 << 29  # of images in memory at once


@dataclass(frozen=True)
class Examples:
    """Some examples of a store. labels: (n,) int64, -1 where unknown, or None."""

    store: Store
    indices: np.ndarray
    labels: np.ndarray | None

    def __len__(self) -> int:
        return len(self.indices)

    def first(self, n: int) -> Examples:
        """The first n of the random choice, in its order."""
        return Examples(self.store, self.indices[:n], None if self.labels is None else self.labels[:n])


def chosen(source: Source, store: Store, limit: int, seed: int = 0) -> Examples:
    """At most `limit` examples in random order, since sources are often sorted by class; the same for a seed."""
    indices = np.random.default_rng(seed).permutation(len(store))[:limit]
    labels = None
    if source.labels is not None and store.window is None:
        labels = np.asarray(source.labels, np.int64)[store.rows[indices]]
    return Examples(store, indices, labels)


def batches(method: Method, examples: Examples, size: int = _BATCH) -> Iterator[Batch]:
    """Collated batches on the device, in the order of the examples, of nearly equal sizes up to `size`."""
    if not len(examples):
        return
    for part in np.array_split(examples.indices, -(-len(examples) // size)):
        batch = method.collate(examples.store.batch(part))
        yield {name: tensor.to(device()) for name, tensor in batch.items()}


def embedded(method: Method, examples: Examples, size: int = _BATCH) -> np.ndarray:
    """(n, width) float32 features, of up to `size` examples at a time."""
    with torch.no_grad():
        parts = [method.embed(batch).float().cpu().numpy() for batch in batches(method, examples, size)]  # type: ignore[attr-defined]
    return np.concatenate(parts)


def images(examples: Examples) -> np.ndarray:
    """(n, height, width, channels) uint8, as the method gets them; fewer where 512 MB do not hold them all."""
    one = examples.store.batch(examples.indices[:1])["image"]
    rows = examples.indices[: max(1, _BYTES // one.nbytes)]
    return np.asarray(examples.store.batch(rows)["image"])
