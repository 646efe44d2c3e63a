"""Batches by step: this process's rows of the global batch, fetched one step ahead."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from unlabeled.data.order import positions_to_examples
from unlabeled.data.store import Store

__all__ = ["Loader"]


class Loader:
    """Gives the arrays of any step; keeps no state but the batch it has fetched ahead.

    Process `rank` of `world` takes the rank-th of `world` equal runs of rows, so that rows of all processes, laid in
    the order of ranks, are the global batch of one process.
    """

    def __init__(self, store: Store, *, seed: int, batch: int, rank: int, world: int) -> None:
        self.store, self.seed, self.batch = store, seed, batch
        self.rows = slice(rank * batch // world, (rank + 1) * batch // world)
        self._ahead: tuple[int, Future[dict[str, np.ndarray]]] | None = None
        self._pool = ThreadPoolExecutor(1)

    def indices(self, step: int) -> np.ndarray:
        """Examples of this process at this step; int64."""
        return self._of_all(step)[self.rows]

    def _of_all(self, step: int) -> np.ndarray:
        positions = np.arange(step * self.batch, (step + 1) * self.batch)
        return positions_to_examples(positions, len(self.store), self.seed)

    def at(self, step: int) -> dict[str, np.ndarray]:
        """The arrays of this process at this step."""
        if self._ahead is not None and self._ahead[0] == step:
            arrays = self._ahead[1].result()
        else:
            arrays = self._fetch(step)
        self._ahead = (step + 1, self._pool.submit(self._fetch, step + 1))
        return arrays

    def _fetch(self, step: int) -> dict[str, np.ndarray]:
        examples = self._of_all(step)
        return self.store.batch(examples[self.rows], beside=examples)

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)
