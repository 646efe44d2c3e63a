"""Bytes out of files, packed ones too, in blocks: bounded memory, and all that can be read of what breaks off.

The readers of the standard library lose what they hold when a packed stream breaks off, or end without a word; here
every block is given as soon as it is unpacked and the error comes behind the last one.
"""

from __future__ import annotations

import bz2
import lzma
import os
import stat
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Any

from unlabeled.core.errors import BadRecord, UserError
from unlabeled.data.sources.files import printable

__all__ = [
    "BLOCK",
    "UNPACKED",
    "Budget",
    "Reader",
    "blocks_of",
    "broken",
    "line_of",
    "opened",
    "plain_errors",
    "unpacked",
]

BLOCK = 1 << 20  # bytes read at once
UNPACKED = (1 << 30, 300)  # a packed file may give so many bytes, or so many times its size if that is more
_XZ_MEMORY = 256 << 20  # bytes; `xz -9` needs 65 MB


def opened(path: str) -> IO[bytes]:
    """A regular file, opened so that a pipe put in its place cannot block.

    Raises:
        BadRecord: where it is gone, unreadable or no regular file.
    """
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError) as error:
        raise BadRecord(f"cannot be read ({getattr(error, 'strerror', None) or type(error).__name__})") from error
    file = os.fdopen(handle, "rb")
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        file.close()
        raise BadRecord("is not a regular file")
    return file


def blocks_of(read: Callable[[int], bytes], length: int | None = None) -> Iterator[bytes]:
    """What is read, up to `length` bytes of it, in blocks."""
    left = length
    while left is None or left > 0:
        block = read(BLOCK if left is None else min(BLOCK, left))
        if not block:
            return
        if left is not None:
            left -= len(block)
        yield block


def broken(reason: str) -> Iterator[bytes]:
    raise BadRecord(reason)
    yield b""


class Budget:
    """Counts unpacked bytes against a limit."""

    def __init__(self, limit: int) -> None:
        self.limit, self.used = limit, 0

    def spend(self, block: bytes) -> bytes:
        self.used += len(block)
        if self.used > self.limit:
            raise BadRecord(f"unpacks to more than {self.limit:,} bytes, as bombs do")
        return block

    def watched(self, read: Callable[[int], bytes]) -> Callable[[int], bytes]:
        return lambda size: self.spend(read(size))


def plain_errors(read: Callable[[int], bytes]) -> Callable[[int], bytes]:
    """The same reading, with all that archives and their unpackers raise as BadRecord."""

    def reading(size: int) -> bytes:
        try:
            return read(size)
        except BadRecord:
            raise
        except Exception as error:
            raise BadRecord(f"is torn ({line_of(error)})") from error

    return reading


def unpacked(blocks: Iterable[bytes], codec: str, limit: int) -> Iterator[bytes]:
    """Unpacked blocks of one stream, or of several put together, each as soon as it is known.

    Raises:
        BadRecord: behind the last block that can be unpacked, where there is a rest that cannot.
    """
    budget, began = Budget(limit), False
    unpacker: Any = None
    for data in blocks:
        while data:
            if unpacker is None:
                data = data.lstrip(b"\0") if began else data  # padding between streams, as tapes and xz have
                if not data:
                    break
                unpacker = _UNPACKERS[codec]()
            try:
                for out in unpacker.feed(data):
                    began = True
                    yield budget.spend(out)
            except (BadRecord, UserError):
                raise
            except Exception as error:  # each unpacker has its own kinds
                what = "cannot be unpacked any further" if began else f"is not {codec}"
                raise BadRecord(f"{what} ({line_of(error)})") from error
            data = b""
            if unpacker.eof:
                data, unpacker, began = unpacker.rest, None, True
    if unpacker is not None:
        raise BadRecord(f"breaks off within what {codec} packed")
    if not budget.used:
        raise BadRecord("unpacks to nothing")


class _Stream:
    """A stream of the standard library, which says where it has ended and what lies behind."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    @property
    def eof(self) -> bool:
        return self._stream.eof

    @property
    def rest(self) -> bytes:
        return self._stream.unused_data


class _Zlib(_Stream):
    def __init__(self) -> None:
        super().__init__(zlib.decompressobj(31))  # 31: gzip with its header and check sum

    def feed(self, data: bytes) -> Iterator[bytes]:
        while True:
            out = self._stream.decompress(data, BLOCK)
            if out:
                yield out
            data = self._stream.unconsumed_tail
            if self._stream.eof or (not data and len(out) < BLOCK):
                return


class _Held(_Stream):
    """bz2 and xz, which hold input that they have not come to."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        while True:
            if out := self._stream.decompress(data, BLOCK):
                yield out
            data = b""
            if self._stream.eof or self._stream.needs_input:
                return


class _Zstd:
    """Fed a little at a time, because four bytes of input may be 128 KiB of output and all of it is given at once."""

    _FED = 1 << 10

    def __init__(self) -> None:
        try:
            import zstandard
        except ImportError as error:
            raise UserError("Files in .zst need a package: `pip install 'unlabeled[curate]'`.") from error
        self._stream = zstandard.ZstdDecompressor().decompressobj()
        self.eof, self.rest = False, b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        for place in range(0, len(data), self._FED):
            if out := self._stream.decompress(data[place : place + self._FED]):
                yield out
            if self._stream.eof:
                self.eof, self.rest = True, self._stream.unused_data + data[place + self._FED :]
                return


_UNPACKERS: dict[str, Callable[[], Any]] = {
    "gzip": _Zlib,
    "bzip2": lambda: _Held(bz2.BZ2Decompressor()),
    "xz": lambda: _Held(lzma.LZMADecompressor(memlimit=_XZ_MEMORY)),
    "zstd": _Zstd,
}


class Reader:
    """Blocks as a file. Where they break off, what came before is given first and the error is raised after it."""

    def __init__(self, blocks: Iterable[bytes]) -> None:
        self._blocks = iter(blocks)
        self._held, self._at = b"", 0
        self._error: BadRecord | None = None
        self.given = 0  # bytes that were read so far

    def _more(self) -> bool:
        try:
            block = next(self._blocks, b"") if self._error is None else b""
        except BadRecord as error:
            self._error, block = error, b""
        self._held, self._at = self._held[self._at :] + block, 0
        return bool(block)

    def _checked(self, data: bytes) -> bytes:
        if not data and self._error is not None:
            raise self._error
        return data

    def read(self, size: int) -> bytes:
        """`size` bytes, or fewer at the end."""
        pieces, left = [], size
        while left > 0:
            if piece := self._held[self._at : self._at + left]:
                pieces.append(piece)
                self._at += len(piece)
                left -= len(piece)
            elif not self._more():
                break
        data = b"".join(pieces)
        self.given += len(data)
        return self._checked(data) if size else b""

    def line(self, limit: int) -> bytes:
        """Up to and with the next line end, or `limit` bytes; nothing at the end."""
        while not (end := self._held.find(b"\n", self._at) + 1):
            if len(self._held) - self._at >= limit or not self._more():
                end = len(self._held)
                break
        end = min(end, self._at + limit)
        data, self._at = self._held[self._at : end], end
        return self._checked(data)

    def skip(self, size: int) -> int:
        """Pass over `size` bytes; returns how many there were."""
        left = size
        while left and (block := self.read(min(left, BLOCK))):
            left -= len(block)
        return size - left


def line_of(error: Exception) -> str:
    return printable(" ".join(str(error).split())[:100]) or type(error).__name__
