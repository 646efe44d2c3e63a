"""What all sources made of files share: safe reading, printable names, digests, and what folders' names say."""

from __future__ import annotations

import hashlib
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from unlabeled.core.errors import BadRecord
from unlabeled.data.recognise import HEAD_BYTES, split_by_name

__all__ = [
    "FILE_LIMIT", "digest_of_files", "head_of", "labels_of", "layout", "printable", "read_file", "refused", "splits",
]  # fmt: skip

FILE_LIMIT = 256 << 20  # bytes of one document, picture or sound; more is a container or a mistake

_HASHED_WHOLE = 64 << 20  # bytes up to which a file's identity is its content's digest


def printable(name: str) -> str:
    """A name as it may be shown and stored: control characters and bytes that are not UTF-8 become escapes."""
    if name.isprintable():
        return name
    return "".join(c if c.isprintable() else f"\\x{ord(c) & 0xFF:02x}" for c in name)


def refused(record: str, reason: str) -> BadRecord:
    """The error for one record, with its id beside the reason."""
    error = BadRecord(reason)
    error.id = record
    return error


def read_file(path: str | os.PathLike[str], limit: int = FILE_LIMIT) -> bytes:
    """All bytes of a regular file; opened so that a pipe put in its place cannot block.

    Raises:
        BadRecord: where it is gone, unreadable, no regular file, empty, or longer than limit bytes.
    """
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with os.fdopen(handle, "rb") as file:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                raise BadRecord("is not a regular file")
            if status.st_size > limit:
                raise BadRecord(f"has {status.st_size:,} bytes, more than {limit:,}")
            content = file.read(limit + 1)
    except OSError as error:
        raise BadRecord(f"cannot be read ({error.strerror or type(error).__name__})") from error
    if not content:
        raise BadRecord("is empty")
    return content


def head_of(path: str | os.PathLike[str]) -> bytes:
    """The first bytes of a file for `recognise.sniff`; nothing where it cannot be read."""
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with os.fdopen(handle, "rb") as file:
            return file.read(HEAD_BYTES) or b"" if stat.S_ISREG(os.fstat(handle).st_mode) else b""
    except OSError:
        return b""


def digest_of_files(paths: Iterable[Path]) -> str:
    """Hexadecimal digest of a few files: of their content if it is short, else of name, size and time of change."""
    digest = hashlib.sha256()
    for path in paths:
        status = path.stat()
        digest.update(f"{path.name}\0{status.st_size}\0".encode("utf-8", "surrogateescape"))
        if status.st_size <= _HASHED_WHOLE:
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        else:
            digest.update(str(status.st_mtime_ns).encode())
    return digest.hexdigest()


def splits(names: Iterable[str | None]) -> dict[str, np.ndarray]:
    """Index arrays of official splits from the split of every record; empty unless there is training and test data.

    Where there is a "val" but no "test", it is the test.
    """
    of = np.array([n or "" for n in names], dtype=object)
    found = {str(s): np.flatnonzero(of == s) for s in sorted(set(of.tolist()))}
    if "test" not in found and "val" in found:
        found["test"] = found.pop("val")
    return found if "" not in found and {"train", "test"} <= set(found) else {}


def labels_of(names: Sequence[str | None]) -> tuple[np.ndarray, tuple[str, ...]]:
    """(n,) int64 places of each name among the sorted names, -1 for None; and those names."""
    classes = tuple(sorted({n for n in names if n is not None}))
    place = {c: i for i, c in enumerate(classes)}
    return np.array([-1 if n is None else place[n] for n in names], dtype=np.int64), classes


def layout(
    paths: Sequence[str], shown: Callable[[str], str] = printable
) -> tuple[np.ndarray | None, tuple[str, ...], dict[str, np.ndarray]]:
    """What the folders of relative paths say: labels, classes and official splits.

    Where all first folders are called train, test or val, they are the splits and the folders below them may be
    classes. Folders are classes where every file lies in one, there are two or more, and each has two or more files.
    """
    folders = [p.split("/")[:-1] for p in paths]
    official: dict[str, np.ndarray] = {}
    tops = {f[0] if f else "" for f in folders}
    named = {top: split_by_name(top) for top in tops}
    if all(named.values()):
        official = splits(named[f[0]] for f in folders)
        if official:
            folders = [f[1:] for f in folders]
    first = [f[0] if f else "" for f in folders]
    counts = Counter(first)
    if "" in counts or len(counts) < 2 or min(counts.values()) < 2:
        return None, (), official
    labels, classes = labels_of(first)
    return labels, tuple(shown(c) for c in classes), official
