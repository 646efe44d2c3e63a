"""Pages in WARC and WET files (ISO 28500).

Records are framed here, because the two libraries for it hide truncation (tried: FastWARC 2.0.1, warcio 1.8.1): a record
cut by the end of a .warc.gz is returned empty by the one and left out by the other, without an error, and neither goes
on behind garbage between records.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from unlabeled.core.errors import BadRecord
from unlabeled.curate.reading.decode import DOCUMENT_BYTES, html_of
from unlabeled.curate.reading.unpack import Reader, unpacked
from unlabeled.data.recognise import HEAD_BYTES, describe, sniff
from unlabeled.data.sources.files import printable

__all__ = ["Record", "page_of", "records_of"]

_HEADER_BYTES = 1 << 20  # of one record


class Record(NamedTuple):
    about: dict[str, str]  # header, names in lower case
    body: bytes
    reason: str = ""  # why it cannot be used


def records_of(reader: Reader) -> Iterator[Record]:
    """The records of a WARC (ISO 28500). Behind garbage, reading goes on at the next line that begins a record."""
    garbage = 0
    while line := reader.line(_HEADER_BYTES):
        if not line.startswith(b"WARC/"):
            garbage += len(line.strip())
            continue
        if garbage:
            yield Record({}, b"", f"is {garbage:,} bytes that belong to no record")
            garbage = 0
        about, reason = _headers(reader)
        length = about.get("content-length", "")
        if reason or not re.fullmatch(r"\d{1,15}", length, re.ASCII):
            yield Record(about, b"", reason or "has no length")
            continue
        size = int(length)
        try:
            body = reader.read(size) if size <= DOCUMENT_BYTES else b""
            there = len(body) if size <= DOCUMENT_BYTES else reader.skip(size)
        except BadRecord:
            body, there = b"", 0
        if there < size:
            yield Record(about, b"", f"breaks off within its {size:,} bytes")
            return
        yield Record(about, body, f"has {size:,} bytes, more than {DOCUMENT_BYTES:,}" if size > DOCUMENT_BYTES else "")
    if garbage:
        yield Record({}, b"", f"is {garbage:,} bytes that belong to no record")


def _headers(reader: Reader) -> tuple[dict[str, str], str]:
    """Names and values up to a blank line, and what is wrong with them."""
    lines: list[bytes] = []
    room = _HEADER_BYTES
    while room > 0:
        try:
            line = reader.line(room)
        except BadRecord:
            line = b""
        if not line:
            return _named(lines), "breaks off within its header"
        if not line.strip():
            return _named(lines), ""
        lines.append(line)
        room -= len(line)
    return _named(lines), f"has a header of more than {_HEADER_BYTES:,} bytes"


def _named(lines: Iterable[bytes]) -> dict[str, str]:
    about: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.decode("utf-8", "replace").partition(":")
        if colon:
            about.setdefault(name.strip().lower(), value.strip())
    return about


def page_of(record: Record) -> tuple[str, str]:
    """(text, "html" or "text") of a record.

    Raises:
        BadRecord: where it is neither, or an answer of another status than 200.
    """
    body, media = record.body, record.about.get("content-type", "")
    if record.about["warc-type"] == "response" and media.lower().startswith("application/http"):
        head, body = _halves(body)
        status = head.split(b"\n", 1)[0].split()[1:2]
        if status != [b"200"]:
            raise BadRecord(f"answers with status {printable(status[0].decode('ascii', 'replace')) if status else '?'}")
        http = _named(head.split(b"\n")[1:])
        media = http.get("content-type", "")
        if "chunked" in http.get("transfer-encoding", "").lower():
            body = _dechunked(body)
        body = _decoded(body, http.get("content-encoding", "").lower())
    media, _, options = media.partition(";")
    media = media.strip().lower() or record.about.get("warc-identified-payload-type", "").lower()
    charset = re.search(r"charset\s*=\s*([^\s;]{1,40})", options, re.IGNORECASE)
    declared = charset[1] if charset else ""
    if media in ("text/html", "application/xhtml+xml") or (not media and describe(body[:HEAD_BYTES]) == "HTML"):
        text, format = html_of(body, declared), "html"
    elif media.startswith("text/plain"):
        text, format = html_of(body, declared or "utf-8"), "text"
    else:
        raise BadRecord(f"is {printable(media) or 'of no declared type'}, not HTML or text")
    if text.isspace():
        raise BadRecord("is blank")
    return text, format


def _halves(body: bytes) -> tuple[bytes, bytes]:
    found = re.search(rb"\r?\n\r?\n", body)
    return (body[: found.start()], body[found.end() :]) if found else (body, b"")


def _dechunked(body: bytes) -> bytes:
    """A body sent in chunks; as it is where it is none (many crawlers store it joined and keep the header)."""
    pieces: list[bytes] = []
    place = 0
    while found := re.compile(rb"([0-9a-fA-F]{1,8})[^\r\n]{0,200}\r?\n").match(body, place):
        size = int(found[1], 16)
        pieces.append(body[found.end() : found.end() + size])
        place = found.end() + size
        place += 2 if body[place : place + 2] == b"\r\n" else 1
        if not size or place >= len(body):
            return b"".join(pieces)
    return b"".join(pieces) if pieces else body


def _decoded(body: bytes, coding: str) -> bytes:
    """A body unpacked; as it is where it is not packed after all.

    Raises:
        BadRecord: where it is packed as we cannot unpack, or too long.
    """
    if coding in ("gzip", "x-gzip") and body.startswith(b"\x1f\x8b"):
        pieces, length = [], 0
        for piece in unpacked([body], "gzip", DOCUMENT_BYTES):
            pieces.append(piece)
            length += len(piece)
        return b"".join(pieces)
    if coding == "deflate":
        for window in (15, -15):  # with the header of zlib, as the standard asks, and without, as many servers send
            stream = zlib.decompressobj(window)
            try:
                out = stream.decompress(body, DOCUMENT_BYTES)
            except zlib.error:
                continue
            if stream.unconsumed_tail:
                raise BadRecord(f"unpacks to more than {DOCUMENT_BYTES:,} bytes")
            return out
    if coding == "br" and (not body or sniff(body[:HEAD_BYTES]) != "text"):
        raise BadRecord("is packed with brotli")
    return body
