"""What a source is: records by integer, with stable ids, a length known in advance, and nothing decoded yet."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unlabeled.core.batch import Kind, Record, Spec

__all__ = ["SILENCES", "Quarantined", "Source", "Subset", "write_quarantine"]

SILENCES = frozenset({"", "#", "<sil>", "SIL", "_", "h#", "pau", "sil", "sp", "spn"})  # as alignments call them


@dataclass(frozen=True)
class Quarantined:
    """One thing that could not be used, and why."""

    id: str
    reason: str


class Source:
    """A pile of data. Subclasses give `kind`, `name`, `__len__`, `__getitem__`, `spec` and `identity`.

    labels: (n,) int64, -1 where unknown, or None; no method sees them. classes: their names.
    official: names of the splits a data set comes with, as index arrays ({"train": ..., "test": ...}), or empty.
    quarantined: what was refused while listing (wrong extension, path tricks); what fails at decoding comes later.
    """

    kind: Kind
    name: str
    classes: tuple[str, ...] = ()
    labels: np.ndarray | None = None
    official: dict[str, np.ndarray] = {}
    quarantined: Sequence[Quarantined] = ()

    def __len__(self) -> int:
        raise NotImplementedError

    def __getitem__(self, index: int) -> Record:
        raise NotImplementedError

    def spec(self) -> Spec:
        """What the data is: kind, count, image size and channels, sample rate."""
        raise NotImplementedError

    def identity(self) -> str:
        """Hexadecimal digest that changes when the data changes."""
        raise NotImplementedError

    def group(self, index: int) -> str:
        """What must stay on one side of a split (a speaker, a photograph); the record's id unless known better."""
        return self[index].id

    def transcript(self, index: int) -> str | None:
        """What is said in a recording, for evaluation only: its caption; None where it has none."""
        return self[index].fields.get("caption") if self.kind == "wave" else None

    def alignment(self, index: int) -> list[tuple[float, float, str]] | None:
        """When what is said in a recording, for evaluation only: (start, end, phone) in seconds from its beginning,
        in order and without overlap; None where it is not known. Silence is one of `SILENCES`."""
        return None

    def split(self, name: str) -> Source:
        """ "train" or "test": the official split where there is one, else a tenth by a hash of the group for test."""
        if self.official:
            return Subset(self, self.official[name], name)
        groups = [self.group(i) for i in range(len(self))]
        tenth = np.array([hashlib.sha1(group.encode()).digest()[0] % 10 == 0 for group in groups])
        if not tenth.any() or tenth.all():  # a handful of groups: the last one is held out
            tenth = np.array([group == groups[-1] for group in groups])
        if tenth.all():  # a single group: nothing but its last record can be
            tenth = np.arange(len(self)) == len(self) - 1
        return Subset(self, np.flatnonzero(tenth if name == "test" else ~tenth), name)


class Subset(Source):
    """Some records of another source, by index; names itself `source/part`."""

    def __init__(self, source: Source, indices: np.ndarray, part: str) -> None:
        self.source, self.indices, self.part = source, np.asarray(indices, dtype=np.int64), part
        self.kind, self.classes, self.name = source.kind, source.classes, f"{source.name}/{part}"
        self.labels = None if source.labels is None else source.labels[self.indices]
        self.quarantined = source.quarantined  # what listing refused belongs to no part, and must be told in each

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Record:
        return self.source[int(self.indices[index])]

    def group(self, index: int) -> str:
        return self.source.group(int(self.indices[index]))

    def transcript(self, index: int) -> str | None:
        return self.source.transcript(int(self.indices[index]))

    def alignment(self, index: int) -> list[tuple[float, float, str]] | None:
        return self.source.alignment(int(self.indices[index]))

    def spec(self) -> Spec:
        from dataclasses import replace

        return replace(self.source.spec(), examples=len(self))

    def identity(self) -> str:
        return hashlib.sha256(self.source.identity().encode() + self.indices.tobytes()).hexdigest()


def write_quarantine(path: Path, items: Sequence[Quarantined]) -> None:
    """One JSON line per refused thing: {"id": ..., "reason": ...}."""
    path.write_text("".join(json.dumps({"id": q.id, "reason": q.reason}) + "\n" for q in items))
