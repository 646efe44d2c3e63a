"""The last pass: hold out, mix, shuffle, write the corpus as parquet, and close the ledger.

Without a mix and without a held-out part the corpus keeps the order of reading, a file for each task. Else every copy of
a document has a place in a shuffled order by a hash, as The Pile shuffles in two passes: tasks deal their copies into
buckets, a bucket is sorted by itself and becomes a file.
"""

from __future__ import annotations

import functools
import heapq
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unlabeled.curate.document import Document
from unlabeled.curate.mix import bucket, copies, held_out, order
from unlabeled.curate.running.written import BATCH_CHARACTERS, Rows, batches, put, safe, stored
from unlabeled.curate.words import hash_of

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Finish", "deal", "gather", "held"]

_NAMES = {"train": "train", "validation": "val", "test": "test"}  # as data sources know splits by the names of files


@dataclass(frozen=True)
class Finish:
    """What the last jobs need to know. epochs: of each source, or None where the corpus is not mixed; share: held out for
    validation, and again for test; buckets: files of a shuffled corpus, 0 where it is not shuffled."""

    out: Path
    passes: Sequence[Path]
    epochs: Mapping[str, float] | None
    share: float
    buckets: int

    @property
    def dealt(self) -> Path:
        return self.out / "work" / "dealt"

    def documents(self, task: int) -> Iterator[tuple[int, Document, int, Counter[str]]]:
        return stored(self.passes[-1] / "documents" / f"{task:05d}.arrow")


def corpus_schema() -> pa.Schema:
    """text, and where it is from: id, source, about (JSON, as the container said)."""
    import pyarrow as pa

    return pa.schema([("text", pa.large_string()), *((n, pa.string()) for n in ("id", "source", "about"))])


def held(job: tuple[Finish, int]) -> None:
    """Note the hashes of the texts that a task holds out."""
    finish, task = job
    found = [hash_of(d.text) for _, d, _, _ in finish.documents(task) if held_out(d.id, finish.share) != "train"]
    path = finish.out / "work" / "held" / f"{task:05d}.npy"
    with (temporary := path.with_suffix(".part")).open("wb") as file:
        np.save(file, np.unique(np.array(found, np.uint64)))
    temporary.replace(path)


@functools.lru_cache(maxsize=1)
def _all_held(folder: Path) -> frozenset[int]:
    return frozenset(h for path in sorted(folder.glob("*.npy")) for h in np.load(path).tolist())


def deal(job: tuple[Finish, int]) -> None:
    """Write a task's part of the ledger, and its documents: into the corpus, or dealt into buckets."""
    finish, task = job
    others = _all_held(finish.out / "work" / "held") if finish.share else frozenset()
    part = Rows(finish.out / "ledger" / f"part-{task:05d}.parquet")
    earlier = _rows_of(finish, task)
    waiting = next(earlier, None)
    dealt = _Dealt(finish.dealt, task)
    direct = None if finish.buckets else Part(finish.out / "corpus" / f"part-{task:05d}.parquet")
    summary: Counter[str] = Counter()
    written: Counter[str] = Counter()
    for number, document, read, edits in finish.documents(task):
        while waiting is not None and waiting["number"] < number:
            part.add(**waiting)
            waiting = next(earlier, None)
        split = held_out(document.id, finish.share) if finish.share else "train"
        count = 1 if split != "train" or finish.epochs is None else copies(document.id, finish.epochs[document.source])
        outcome, rule, reason = "kept", "", ""
        if split == "train" and others and hash_of(document.text) in others:
            outcome, rule, reason, count = "dropped", "held out", "equals a held-out document", 0
        elif not count:
            outcome, rule, reason = "dropped", "mix", "not drawn for the mix"
        part.add(
            number, document.id, document.source, outcome, rule, reason, read=read, kept=len(document.text), edits=edits,
            copies=count,
        )  # fmt: skip
        summary[reason or ("kept" if split == "train" else split)] += 1
        about = json.dumps(document.about, ensure_ascii=False) if document.about else ""
        row = (safe(document.text), safe(document.id), safe(document.source), safe(about))
        if count:
            written[document.source] += count * len(row[0].encode())
            written[f"\0{document.source}"] += count
        for copy in range(count):
            if direct is not None:
                direct.add(row)
                continue
            place = order(document.id, copy)
            target = (split, bucket(place, finish.buckets) if split == "train" else 0)
            dealt.add(target, place, row)
    while waiting is not None:
        part.add(**waiting)
        waiting = next(earlier, None)
    part.close()
    if direct is not None:
        direct.close()
    else:
        dealt.close()
    put(
        finish.out / "work" / "finish" / f"{task:05d}.json",
        json.dumps({"outcomes": dict(summary), "written": dict(sorted(written.items())), "rows": part.count}),
    )


def _rows_of(finish: Finish, task: int) -> Iterator[dict[str, Any]]:
    """Rows that the passes have written of a task, by number."""
    import pyarrow.parquet as pq

    def rows(path: Path) -> Iterator[dict[str, Any]]:
        for batch in pq.ParquetFile(path).iter_batches(batch_size=4096):
            yield from batch.to_pylist()

    every = [rows(folder / "ledger" / f"{task:05d}.parquet") for folder in finish.passes]
    for row in heapq.merge(*every, key=lambda row: row["number"]):
        yield {**row, "value": math.nan if row["value"] is None else row["value"]}


class _Dealt:
    """Copies of a task's documents by bucket, written whenever enough are held: `TASK.0/train-00007.arrow`, ..."""

    def __init__(self, folder: Path, task: int) -> None:
        self._folder, self._task, self._characters, self._times = folder, task, 0, 0
        self._held: dict[tuple[str, int], list[tuple[int, tuple[str, ...]]]] = {}

    def add(self, target: tuple[str, int], place: int, row: tuple[str, ...]) -> None:
        self._held.setdefault(target, []).append((place, row))
        self._characters += len(row[0])
        if self._characters > 8 * BATCH_CHARACTERS:
            self.close()

    def close(self) -> None:
        import pyarrow as pa

        folder = self._folder / f"{self._task:05d}.{self._times}"
        folder.mkdir(parents=True, exist_ok=True)
        schema = corpus_schema()
        fields = pa.schema([("place", pa.uint64()), *schema])
        for (split, which), rows in self._held.items():
            columns = [pa.array([place for place, _ in rows], pa.uint64())]
            columns += [pa.array(column, field.type) for column, field in zip(zip(*(r for _, r in rows)), schema)]
            path = folder / f"{split}-{which:05d}.arrow"
            with pa.ipc.new_file(path, fields, options=pa.ipc.IpcWriteOptions(compression="lz4")) as file:
                file.write_table(pa.table(columns, schema=fields))
        self._held, self._characters, self._times = {}, 0, self._times + 1


def gather(job: tuple[Finish, str, int]) -> None:
    """One file of a shuffled corpus: what the tasks have dealt into a bucket, in order."""
    import pyarrow as pa

    finish, split, which = job
    found = [b for path in sorted(finish.dealt.glob(f"*/{split}-{which:05d}.arrow")) for b in batches(path)]
    name = f"{_NAMES[split]}-{which:05d}.parquet" if finish.share else f"part-{which:05d}.parquet"
    part = Part(finish.out / "corpus" / name)
    if found:
        table = pa.Table.from_batches(found)
        table = table.take(pa.array(np.argsort(table.column("place").to_numpy(), kind="stable")))
        for batch in table.drop_columns(["place"]).to_batches():
            for row in zip(*(column.to_pylist() for column in batch.columns)):
                part.add(row)
    part.close()


class Part:
    """One parquet file of the corpus; there is none where nothing was added."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows: list[tuple[str, ...]] = []
        self._characters = 0
        self._writer: Any = None
        path.parent.mkdir(parents=True, exist_ok=True)

    def add(self, row: tuple[str, ...]) -> None:
        self._rows.append(row)
        self._characters += len(row[0])
        if self._characters > BATCH_CHARACTERS:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        if not self._rows:
            return
        fields = corpus_schema()
        if self._writer is None:
            self._writer = pq.ParquetWriter(self.path.with_suffix(".part"), fields, compression="zstd")
        columns = [pa.array(column, field.type) for column, field in zip(zip(*self._rows), fields)]
        self._writer.write_table(pa.table(columns, schema=fields))
        self._rows, self._characters = [], 0

    def close(self) -> None:
        self._flush()
        if self._writer is not None:
            self._writer.close()
            self.path.with_suffix(".part").replace(self.path)
