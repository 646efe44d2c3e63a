"""Grouping by key without holding all keys: sorted runs on disk, read back one range of keys at a time.

A job writes what it found as runs sorted by one field (`Runs`); a later job reads everything between two values of that
field from all runs (`between`). Memory is bounded by the size of a run and of a range, whatever the size of the corpus.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np

__all__ = ["EDGE", "KEY", "NOBODY", "REPEAT", "SELECTED", "Runs", "between", "duplicates", "mixed", "ranges", "total"]

RUN_BYTES = 64 << 20

# rank: smaller is kept rather; number: of the document; place: of the key within its document
KEY = np.dtype([("key", "<u8"), ("rank", "<f8"), ("number", "<u8"), ("place", "<u4")])
REPEAT = np.dtype([("number", "<u8"), ("place", "<u4"), ("first", "<u8")])
SELECTED = np.dtype([("number", "<u8"), ("value", "<f8"), ("first", "<u8")])
NOBODY = 2**64 - 1  # where no document stays in the place of another
EDGE = np.dtype([("number", "<u8"), ("rank", "<f8"), ("first", "<u8"), ("first_rank", "<f8")])


class Runs:
    """Records of one job, written as files `STEM.0.npy`, `STEM.1.npy`, ..., each sorted by the first field."""

    def __init__(self, folder: Path, stem: str, dtype: np.dtype) -> None:
        self.folder, self.stem, self.dtype = folder, stem, dtype
        self._held: list[np.ndarray] = []
        self._bytes = self._files = 0
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, records: np.ndarray) -> None:
        self._held.append(records)
        self._bytes += records.nbytes
        if self._bytes > RUN_BYTES:
            self.close()

    def close(self) -> None:
        """Write what is held."""
        if not self._bytes:
            return
        records = np.concatenate(self._held)
        names = self.dtype.names
        assert names
        records = records[np.argsort(records[names[0]], kind="stable")]
        path = self.folder / f"{self.stem}.{self._files}.npy"
        with (temporary := path.with_suffix(".part")).open("wb") as file:
            np.save(file, records)
        temporary.replace(path)
        self._held, self._bytes, self._files = [], 0, self._files + 1


def _runs(folder: Path) -> Iterator[np.ndarray]:
    for path in sorted(folder.glob("*.npy")):
        yield np.load(path, mmap_mode="r")


def total(folder: Path) -> int:
    """Number of records in all runs of a folder."""
    return sum(len(run) for run in _runs(folder))


def between(folder: Path, low: int, high: int, dtype: np.dtype) -> np.ndarray:
    """All records whose first field lies in [low, high), in the order of the names of their runs."""
    names = dtype.names
    assert names
    found = [np.zeros(0, dtype)]
    for run in _runs(folder):
        column = run[names[0]]
        start, stop = bisect.bisect_left(column, low), bisect.bisect_left(column, high)
        if stop > start:
            found.append(np.array(run[start:stop]))
    return np.concatenate(found)


def ranges(count: int) -> list[tuple[int, int]]:
    """The keys of 64 bits cut into `count` equal ranges [low, high)."""
    bounds = [2**64 * i // count for i in range(count + 1)]
    return list(itertools.pairwise(bounds))


def duplicates(records: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of `KEY` records those whose key occurs more than once, ordered by (key, rank, number, place); and for each
    the place in this order of the first of its key."""
    keys = records["key"]
    order = np.argsort(keys)
    ordered = keys[order]
    same = ordered[1:] == ordered[:-1]
    member = np.zeros(len(ordered), bool)
    member[1:] |= same
    member[:-1] |= same
    kept = records[order[member]]
    kept = kept[np.lexsort((kept["place"], kept["number"], kept["rank"], kept["key"]))]
    starts = np.ones(len(kept), bool)
    starts[1:] = kept["key"][1:] != kept["key"][:-1]
    return kept, np.maximum.accumulate(np.where(starts, np.arange(len(kept)), 0))


def mixed(keys: np.ndarray, salt: np.ndarray | int) -> np.ndarray:
    """Keys made different by a number each (a band, a source): uint64, spread evenly (the finaliser of SplitMix64)."""
    with np.errstate(over="ignore"):
        x = np.asarray(keys, np.uint64) + np.uint64(0x9E3779B97F4A7C15) * np.asarray(salt, np.uint64)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))
