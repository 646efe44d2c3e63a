"""Old file formats that no kept library reads: IDX arrays (MNIST and its kin) and dictd dictionaries."""

from __future__ import annotations

import gzip
import io
import math
import zlib
from pathlib import Path
from typing import IO, cast

import numpy as np

from unlabeled.core.errors import BadRecord

__all__ = ["read_dictd", "read_idx"]

# Third byte of the header; everything is stored big-endian.
_IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_IDX_LIMIT = 1 << 34  # bytes unpacked; a hostile header may ask for any size, and a few gzip bytes can deliver it
_PIECE = 1 << 24  # bytes read at a time, so that memory follows what the file has and not what its header says
_BASE64 = {letter: n for n, letter in enumerate("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")}


def read_idx(source: Path | str | bytes) -> np.ndarray:
    """Read an IDX array, plain or gzip, from a file or from its bytes.

    Two zero bytes, one for the type, one for the number of dimensions n, n big-endian uint32 sizes, then the data.
    Returns an array of that shape in native byte order, writable.

    Raises:
        BadRecord: if it is not IDX, is cut short, has bytes left over, or says it is larger than 16 GiB.
    """
    try:
        with io.BytesIO(source) if isinstance(source, bytes) else Path(source).open("rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            return _idx(cast(IO[bytes], gzip.GzipFile(fileobj=raw) if packed else raw))
    except (OSError, EOFError, zlib.error) as error:  # gzip.BadGzipFile is an OSError
        raise BadRecord(f"unreadable IDX: {error}") from error


def _idx(stream: IO[bytes]) -> np.ndarray:
    head = stream.read(4)
    if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in _IDX_TYPES or not head[3]:
        raise BadRecord("not an IDX file")
    sizes = stream.read(4 * head[3])
    if len(sizes) < 4 * head[3]:
        raise BadRecord("IDX header cut short")
    kind, shape = np.dtype(_IDX_TYPES[head[2]]), tuple(int(n) for n in np.frombuffer(sizes, ">u4"))
    wanted = math.prod(shape) * kind.itemsize
    if wanted > _IDX_LIMIT:
        raise BadRecord(f"IDX header asks for {wanted:,} bytes")
    data = bytearray()
    while len(data) <= wanted and (piece := stream.read(min(_PIECE, wanted + 1 - len(data)))):
        data += piece
    if len(data) != wanted:
        found = f"only {len(data):,}" if len(data) < wanted else "more"
        raise BadRecord(f"IDX header promises {wanted:,} bytes, the file has {found}")
    return np.frombuffer(data, kind).reshape(shape).astype(kind.newbyteorder("="), copy=False)


def read_dictd(text: Path, index: Path) -> list[tuple[str, str]]:
    """Read a dictd dictionary: (headword, article) once per article, in the order of the articles.

    text: the articles end to end, plain or `.dz` (which is gzip), UTF-8 with single lines of latin-1 tolerated.
    index: `headword TAB offset TAB length` per line, numbers in base 64 with A-Z a-z 0-9 + / as digits; several
        headwords may point to one article, which then goes by the first. Lines on the dictionary itself (`00-database-`
        and the like) are left out.

    Raises:
        BadRecord: if the index is malformed or points outside the text.
    """
    data = text.read_bytes()
    if data[:2] == b"\x1f\x8b":
        data = gzip.decompress(data)
    articles: dict[tuple[int, int], str] = {}
    for number, line in enumerate(index.read_text(encoding="utf-8").splitlines(), 1):
        try:
            word, *place = line.split("\t")
            offset, length = (_from_base64(digits) for digits in place)
        except (ValueError, KeyError) as error:
            raise BadRecord(f"line {number} of {index.name} is not `word TAB offset TAB length`") from error
        if offset + length > len(data):
            raise BadRecord(f"line {number} of {index.name} points behind the end of {text.name}")
        if not word.startswith("00-"):
            articles.setdefault((offset, length), word)
    return [(word, _text(data[at : at + length])) for (at, length), word in sorted(articles.items())]


def _from_base64(digits: str) -> int:
    value = 0
    for digit in digits:
        value = value * 64 + _BASE64[digit]
    return value


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")
