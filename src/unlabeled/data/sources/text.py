"""Text in one file: `.txt` as blocks of whole lines, `.jsonl` as one document a line."""

from __future__ import annotations

import codecs
import json
import mmap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unlabeled.core.batch import Record, Spec
from unlabeled.core.errors import BadRecord, UserError
from unlabeled.data.recognise import split_by_name
from unlabeled.data.source import Quarantined, Source
from unlabeled.data.sources.files import FILE_LIMIT, digest_of_files, labels_of, printable, refused, splits

__all__ = ["BLOCK_BYTES", "TEXT_FIELDS", "JsonLines", "TextFile", "checked_text", "read_text"]

BLOCK_BYTES = 16 * 1024
TEXT_FIELDS = ("text", "content", "body")  # names that are taken first
_FEWEST_BLOCKS = 40  # a short file is cut finer, so that a tenth can be held out


def read_text(content: bytes) -> str:
    """UTF-8 bytes to text, strictly; a byte-order mark at the start is dropped, all else is kept.

    Raises:
        BadRecord: where it is not UTF-8, holds NUL, or is empty.
    """
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise BadRecord("is not UTF-8 text (its mark says UTF-16)")
    try:
        text = content.removeprefix(codecs.BOM_UTF8).decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadRecord(f"is not UTF-8 text (byte {content[error.start]:#04x} at {error.start:,})") from error
    return checked_text(text)


def checked_text(text: object) -> str:
    """The text, if it is one that can be encoded and trained on.

    Raises:
        BadRecord: where it is no string, is empty, holds NUL or half a surrogate pair.
    """
    if not isinstance(text, str):
        raise BadRecord(f"is {type(text).__name__}, not text")
    if not text:
        raise BadRecord("is empty")
    if "\0" in text:
        raise BadRecord("is not UTF-8 text (it holds NUL characters)")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise BadRecord("is not UTF-8 text (it holds half a surrogate pair)") from error
    return text


class TextFile(Source):
    """One text file; records are runs of whole lines of about 16 KB, in order; the last tenth is the test."""

    kind = "text"

    def __init__(self, path: Path, quarantined: Sequence[Quarantined] = ()) -> None:
        self.path, self.name, self.quarantined = path, printable(path.name), quarantined
        self._bounds = _blocks(path)
        count = len(self)
        if count >= 2:
            cut = min(max(round(0.9 * count), 1), count - 1)
            self.official = {"train": np.arange(cut), "test": np.arange(cut, count)}

    def __len__(self) -> int:
        return len(self._bounds) - 1

    def group(self, index: int) -> str:
        return f"{self.name}:{index}"

    def __getitem__(self, index: int) -> Record:
        start, stop = int(self._bounds[index]), int(self._bounds[index + 1])
        try:
            with self.path.open("rb") as file:
                file.seek(start)
                return Record(self.group(index), {"text": read_text(file.read(stop - start))})
        except OSError as error:
            raise refused(self.group(index), f"cannot be read ({error.strerror})") from error
        except BadRecord as error:
            raise refused(self.group(index), str(error)) from error

    def spec(self) -> Spec:
        return Spec(kind="text", examples=len(self), longest=int(np.diff(self._bounds).max(initial=0)))

    def identity(self) -> str:
        return digest_of_files([self.path])


def _blocks(path: Path) -> np.ndarray:
    """(blocks + 1,) int64 offsets; each block ends behind a line unless a line is longer than four blocks."""
    size = path.stat().st_size
    if not size:
        return np.zeros(1, np.int64)
    block = min(BLOCK_BYTES, max(size // _FEWEST_BLOCKS, 256))
    bounds = [0]
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        while (start := bounds[-1]) < size:
            stop = content.find(b"\n", start + block - 1, start + 4 * block) + 1
            if not stop:
                stop = min(start + block, size) if start + 4 * block < size else size
                for _ in range(3):  # not inside a character: continuation bytes are 10xxxxxx
                    if stop < size and content[stop] & 0xC0 == 0x80:
                        stop += 1
            bounds.append(stop)
    return np.array(bounds, dtype=np.int64)


class JsonLines(Source):
    """`.jsonl` files; one document a line, in the field "text", "content" or "body", else in the longest text field.

    A field "label" or "class" gives labels for evaluation; files named train and test are the official splits.
    """

    kind = "text"

    def __init__(self, paths: Sequence[Path], name: str, quarantined: Sequence[Quarantined] = ()) -> None:
        self.paths, self.name, self.quarantined = list(paths), name, quarantined
        found = [_lines(path) for path in self.paths]
        self._file = np.repeat(np.arange(len(found)), [len(f) for f in found])
        self._lines = np.concatenate([*found, np.zeros((0, 3), np.int64)])  # line number, start, stop
        self.field, label = self._fields()
        if len(self.paths) > 1:
            of = [split_by_name(path.stem) for path in self.paths]
            self.official = splits(of[f] for f in self._file)
        if label:
            values = [_label(self._row_if_good(i).get(label)) for i in range(len(self))]
            self.labels, self.classes = labels_of(values)

    def _fields(self) -> tuple[str, str]:
        """Names of the fields of text and of label, as the first hundred readable lines show them."""
        rows = [row for i in range(min(len(self), 100)) if (row := self._row_if_good(i))]
        for name in TEXT_FIELDS:
            if any(isinstance(row.get(name), str) for row in rows):
                break
        else:
            lengths: dict[str, int] = {}
            for row in rows:
                for key, value in row.items():
                    if isinstance(value, str):
                        lengths[key] = lengths.get(key, 0) + len(value)
            if not lengths:
                raise UserError(f"No line of {self.name} is a JSON object with a text field such as 'text'.")
            name = max(lengths, key=lambda key: lengths[key])
        label = next((k for k in ("label", "class") if k != name and any(k in row for row in rows)), "")
        return name, label

    def _row(self, index: int) -> dict[str, Any]:
        """The object of a line.

        Raises:
            BadRecord: where it cannot be read.
        """
        _, start, stop = self._lines[index].tolist()
        if stop - start > FILE_LIMIT:
            raise BadRecord(f"has {stop - start:,} bytes, more than {FILE_LIMIT:,}")
        try:
            with self.paths[self._file[index]].open("rb") as file:
                file.seek(start)
                row = json.loads(read_text(file.read(stop - start)))
        except OSError as error:
            raise BadRecord(f"cannot be read ({error.strerror})") from error
        except (ValueError, RecursionError) as error:
            raise BadRecord("is not JSON") from error
        if not isinstance(row, dict):
            raise BadRecord("is not a JSON object")
        return row

    def _row_if_good(self, index: int) -> dict[str, Any]:
        try:
            return self._row(index)
        except BadRecord:
            return {}

    def __len__(self) -> int:
        return len(self._lines)

    def group(self, index: int) -> str:
        return f"{printable(self.paths[self._file[index]].name)}:{self._lines[index, 0]}"

    def __getitem__(self, index: int) -> Record:
        try:
            row = self._row(index)
            if self.field not in row:
                raise BadRecord(f"has no field {self.field!r}")
            label = -1 if self.labels is None else int(self.labels[index])
            return Record(self.group(index), {"text": checked_text(row[self.field])}, label)
        except BadRecord as error:
            raise refused(self.group(index), str(error)) from error

    def spec(self) -> Spec:
        longest = int((self._lines[:, 2] - self._lines[:, 1]).max(initial=0))
        return Spec(kind="text", examples=len(self), longest=longest)

    def identity(self) -> str:
        return digest_of_files(self.paths)


def _label(value: object) -> str | None:
    return str(value) if isinstance(value, str | int) else None


def _lines(path: Path) -> np.ndarray:
    """(lines, 3) int64: number from 1, start and stop of every line that is not blank."""
    found: list[tuple[int, int, int]] = []
    size = path.stat().st_size
    if size:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            start, number = 0, 1
            while start < size:
                stop = content.find(b"\n", start) + 1 or size
                if stop - start > 2 or content[start:stop].strip():
                    found.append((number, start, stop))
                start, number = stop, number + 1
    return np.array(found, dtype=np.int64).reshape(-1, 3)
