"""Prepared examples on disk: every record is decoded once, bad ones are set aside, the rest is memory-mapped.

Decoding happens before training because the order of data needs the number of usable examples, and because one
decoding is cheaper than one per epoch. Stores lie in the cache folder under a fingerprint of data and preparation
and are made again when they are missing.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unlabeled.core.config import fingerprint, to_dict
from unlabeled.core.errors import BadRecord, UserError
from unlabeled.core.places import cache
from unlabeled.data.order import mix
from unlabeled.data.source import Quarantined, Source

if TYPE_CHECKING:
    from unlabeled.core.batch import Example
    from unlabeled.core.method import Method

__all__ = ["NothingUsable", "Store", "build"]

_PREPARING = ("prepared_by", "prepare", "window")  # of a method: what decides which settings name a store
_CHUNK = 256  # records handed to the decoding threads at a time


class NothingUsable(UserError):
    """Every record was refused; `refused` says why."""

    def __init__(self, sentence: str, refused: Sequence[Quarantined]) -> None:
        super().__init__(sentence)
        self.refused = refused


class Store:
    """Examples by integer, read through memory maps.

    rows: (records,) int64, index in the source of each stored record. Fields of a method's `ragged` lie end to end,
    with where each record's part ends beside them.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        about = json.loads((folder / "store.json").read_text())
        self.window: int | None = about["window"]
        self.rows = np.load(folder / "rows.npy", allow_pickle=False)
        self.quarantined = [Quarantined(**q) for q in about["quarantined"]]
        self._fields: dict[str, np.ndarray] = {}
        self.lengths: dict[str, np.ndarray] = {}  # of ragged fields: (records,) int64, how long each record's part is
        self._starts: dict[str, np.ndarray] = {}  # and where it begins
        for name, field in about["fields"].items():
            shape = tuple(field["shape"])
            self._fields[name] = np.memmap(folder / f"{name}.bin", dtype=field["dtype"], mode="r", shape=shape)
            if "lengths" in field:
                self.lengths[name] = np.asarray(field["lengths"], np.int64)
                self._starts[name] = np.cumsum(self.lengths[name]) - self.lengths[name]
        first = next(iter(self._fields.values()))
        self._length = len(self.rows) if self.window is None else (len(first) - 1) // self.window

    def __len__(self) -> int:
        return self._length

    @property
    def items(self) -> int:
        """Tokens laid end to end in a windowed store; examples otherwise."""
        return len(self) if self.window is None else len(next(iter(self._fields.values())))

    def batch(self, indices: np.ndarray, beside: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """The stacked examples of these indices, copied out of the maps.

        Ragged fields are padded with zeros to the longest of these and of the examples `beside` them (the others of a
        batch that is divided among processes), and `NAME_length` (n,) int64 says what is real.
        """
        if self.window is None:
            out = {}
            for name, field in self._fields.items():
                if name in self._starts:
                    longest = int(self.lengths[name][indices if beside is None else beside].max())
                    out |= self._padded(name, np.asarray(indices), longest)
                else:
                    out[name] = np.asarray(field[indices])
            return out
        reach = np.asarray(indices)[:, None] * self.window + np.arange(self.window + 1)
        return {name: np.asarray(field[reach]) for name, field in self._fields.items()}

    def _padded(self, name: str, indices: np.ndarray, longest: int) -> dict[str, np.ndarray]:
        field, starts, lengths = self._fields[name], self._starts[name][indices], self.lengths[name][indices]
        padded = np.zeros((len(indices), longest, *field.shape[1:]), field.dtype)
        for row, (start, length) in enumerate(zip(starts, lengths)):
            padded[row, :length] = field[start : start + length]
        return {name: padded, f"{name}_length": lengths}


def build(
    source: Source, method: Method, progress: Callable[[int, int], None] | None = None, *, whole: bool = False
) -> Store:
    """Prepare every record of the source for the method, or open the store that a former call made.

    progress: called with (records done, records in all). whole: where a method cuts its data into windows, keep each
    record as one ragged example of at most a window instead, for features of records.

    Raises:
        UserError: where no record can be used, or all of them together do not fill one example.
    """
    spec = method.spec
    tokens = "" if spec.tokenizer is None else fingerprint(spec.tokenizer.encode("The 1 quick\n\tbrown fox.").tolist())
    spec_known = {k: v for k, v in spec.to_dict().items() if k != "examples"}
    whole = whole and method.window() is not None
    name = fingerprint(
        source.identity(),
        type(method).__name__,
        _settings(method),
        spec_known,
        tokens,
        *(["whole"] if whole else []),
    )
    folder = cache("stores") / name
    if not (folder / "store.json").exists():
        partial = folder.with_name(f".{name}.{os.getpid()}")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            _write(source, method, partial, progress, whole)
            shutil.rmtree(folder, ignore_errors=True)  # half a store that a crash left
            partial.rename(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    store = Store(folder)
    if not len(store):
        raise UserError(
            f"{source.name} holds {store.items:,} tokens in all, fewer than one example of {store.window}; "
            "give more text or a smaller --context."
        )
    return store


def _settings(method: Method) -> dict[str, Any]:
    """The settings that what is prepared depends on. A subclass that prepares in its own way must name its own."""
    kinds, every = type(method).__mro__, to_dict(method.config)
    said, prepares, cuts = (next(i for i, k in enumerate(kinds) if n in vars(k)) for n in _PREPARING)
    if method.prepared_by is None or said > min(prepares, cuts):
        return every
    return {name: every[name] for name in method.prepared_by}


def _prepared(source: Source, method: Method, index: int) -> Example | Quarantined:
    try:
        record = source[index]
    except BadRecord as error:
        return Quarantined(error.id or source.group(index), str(error))
    try:
        return method.prepare(record, np.random.default_rng(mix(index)))
    except BadRecord as error:
        return Quarantined(record.id, str(error))


def _examples(source: Source, method: Method) -> Iterator[tuple[int, Example | Quarantined]]:
    """Prepared records in the order of the source; decoding releases the interpreter lock, so threads do."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(source), _CHUNK):
            indices = range(start, min(start + _CHUNK, len(source)))
            yield from zip(indices, pool.map(lambda i: _prepared(source, method, i), indices))


def _write(
    source: Source, method: Method, folder: Path, progress: Callable[[int, int], None] | None, whole: bool
) -> None:
    window = None if whole else method.window()
    ragged: dict[str, list[int]] = {name: [] for name in method.ragged}
    files: dict[str, Any] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    dtypes: dict[str, str] = {}
    rows: list[int] = []
    lengths = 0
    refused = list(source.quarantined)
    try:
        for index, example in _examples(source, method):
            if progress and index % _CHUNK == 0:
                progress(index, len(source))
            if isinstance(example, Quarantined):
                refused.append(example)
                continue
            arrays = {name: np.ascontiguousarray(value) for name, value in example.items()}
            if whole:
                arrays = {name: array[: method.window()] for name, array in arrays.items()}
                ragged = ragged or {name: [] for name in arrays}
                if not all(len(array) for array in arrays.values()):
                    refused.append(Quarantined(source.group(index), "is empty"))
                    continue
            kinds = {n: (a.shape[1:] if n in ragged else a.shape, a.dtype.str) for n, a in arrays.items()}
            if not files:
                for name, (shape, dtype) in kinds.items():
                    files[name] = (folder / f"{name}.bin").open("wb")
                    shapes[name], dtypes[name] = shape, dtype
            if window is None and any(kinds[n] != (shapes[n], dtypes[n]) for n in arrays):
                raise UserError(f"{type(method).__name__}.prepare gave arrays of different shapes; it must give one.")
            for name, array in arrays.items():
                files[name].write(array.tobytes())
                if name in ragged:
                    ragged[name].append(len(array))
            lengths += len(next(iter(arrays.values()))) if window is not None else 1
            rows.append(index)
    finally:
        for file in files.values():
            file.close()
    if not rows:
        reason = f"; the first was refused because: {refused[0].reason}" if refused else ""
        raise NothingUsable(
            f"Nothing in {source.name} can be used: all {len(refused)} files were refused{reason}.", refused
        )
    fields: dict[str, dict[str, Any]] = {}
    for name in files:
        count = sum(ragged[name]) if name in ragged else lengths
        fields[name] = {"dtype": dtypes[name], "shape": [count, *(shapes[name] if window is None else ())]}
        fields[name] |= {"lengths": ragged[name]} if name in ragged else {}
    np.save(folder / "rows.npy", np.asarray(rows, dtype=np.int64))
    about = {"window": window, "fields": fields, "quarantined": [q.__dict__ for q in refused]}
    (folder / "store.json").write_text(json.dumps(about))
