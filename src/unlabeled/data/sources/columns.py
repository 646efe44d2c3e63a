"""Data that is listed in advance, one column per field; files among it are read when they are asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from unlabeled.core.batch import Record, Spec
from unlabeled.core.errors import BadRecord
from unlabeled.data.source import Source

__all__ = ["Columns", "FileColumn", "digest", "text_of"]


class Columns(Source):
    """Records whose fields are columns of equal length: arrays, lists, or a `FileColumn`.

    spec: what is known of the kind (image size, sample rate ...); its count is filled in here.
    identity: hexadecimal digest of the data.
    groups: what must stay on one side of a split, by record; the ids unless given.
    """

    def __init__(
        self,
        name: str,
        spec: Spec,
        ids: Sequence[str],
        fields: Mapping[str, Sequence[Any] | np.ndarray],
        *,
        identity: str,
        labels: np.ndarray | None = None,
        classes: Sequence[str] = (),
        official: Mapping[str, np.ndarray] | None = None,
        groups: Sequence[str] | None = None,
    ) -> None:
        assert all(len(column) == len(ids) for column in fields.values())
        self.name, self.kind, self.ids, self.fields = name, spec.kind, ids, fields
        self.labels = None if labels is None else np.asarray(labels, dtype=np.int64)
        self.classes, self.official = tuple(classes), dict(official or {})
        self._spec, self._identity, self._groups = replace(spec, examples=len(ids)), identity, groups or ids

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Record:
        label = -1 if self.labels is None else int(self.labels[index])
        return Record(self.ids[index], {name: column[index] for name, column in self.fields.items()}, label)

    def spec(self) -> Spec:
        return self._spec

    def identity(self) -> str:
        return self._identity

    def group(self, index: int) -> str:
        return self._groups[index]


class FileColumn(Sequence[Any]):
    """Files under a folder, read on access. convert: what to make of the bytes; may raise BadRecord."""

    def __init__(self, folder: Path, names: Sequence[str], convert: Callable[[bytes], Any] = bytes) -> None:
        self.folder, self.names, self.convert = folder, names, convert

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Any:  # type: ignore[override]
        try:
            return self.convert((self.folder / self.names[index]).read_bytes())
        except OSError as error:
            reason = error.strerror or str(error)
        except BadRecord as error:
            reason = str(error)
        failure = BadRecord(reason)
        failure.id = self.names[index]  # so that the quarantine names the file, not only its group
        raise failure


def text_of(data: bytes) -> str:
    """Decode UTF-8, with or without a byte-order mark; line ends become newlines.

    Raises:
        BadRecord: if it is not UTF-8.
    """
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise BadRecord(f"not UTF-8 (byte {error.start})") from error


def digest(*parts: str | bytes) -> str:
    """SHA-256 of the parts, each with its length, as hexadecimal digits."""
    total = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        total.update(len(data).to_bytes(8, "little") + data)
    return total.hexdigest()
