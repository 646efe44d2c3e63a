"""Documents in the bytes of one file, one member of an archive, or one whole archive."""

from __future__ import annotations

import itertools
import re
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Any

from unlabeled.core.errors import BadRecord, UserError
from unlabeled.curate.document import Document
from unlabeled.curate.reading.decode import (
    CUTTABLE,
    DOCUMENT_BYTES,
    FORMATS,
    LANGUAGES,
    describes,
    is_document_a_line,
    is_object_a_line,
    kind_of,
    known,
    lines_of,
    row_of,
    sample_of,
    short,
    text_field,
    text_of,
    utf8,
    wide,
)
from unlabeled.curate.reading.unpack import (
    BLOCK,
    UNPACKED,
    Budget,
    Reader,
    blocks_of,
    broken,
    line_of,
    opened,
    plain_errors,
    unpacked,
)
from unlabeled.curate.reading.warc import page_of, records_of
from unlabeled.curate.words import hash_of
from unlabeled.data.recognise import HEAD_BYTES, describe, sniff
from unlabeled.data.source import Quarantined
from unlabeled.data.sources.files import printable
from unlabeled.data.sources.text import TEXT_FIELDS, checked_text, read_text

__all__ = ["Content", "Item", "members_of_zip"]

Item = Document | Quarantined

_HEADER_BYTES = 1 << 20  # of one extended header of a tar


class Content:
    """Turns the bytes of one file or member into documents. size: bytes as stored, 0 where they are not known."""

    def __init__(self, name: str, source: str, about: dict[str, Any] | None = None, size: int = 0) -> None:
        self.name, self.source, self.about, self.size = name, source, about or {}, size

    def read(self, kind: str, codec: str, blocks: Iterator[bytes]) -> Iterator[Item]:
        """All documents; kind and codec as `_kind` tells them.

        Raises:
            BadRecord: where nothing can be read, or nothing more.
        """
        if codec:
            blocks = unpacked(blocks, codec, max(UNPACKED[0], UNPACKED[1] * self.size))
        if kind == "jsonl":
            yield from self.lines(blocks, 1)
        elif kind in ("warc", "wet"):
            yield from self.records(Reader(blocks))
        elif kind == "tar":
            yield from self.members(Reader(blocks))
        elif kind in ("zip", "parquet"):
            raise BadRecord("is an archive or table inside an archive; unpack it")
        else:
            yield from self.whole(kind, blocks)

    def whole(self, kind: str, blocks: Iterator[bytes]) -> Iterator[Item]:
        held: list[bytes] = []
        length, torn = 0, ""
        try:
            for block in blocks:
                if not held and not known(kind) and not wide(block) and sniff(block[:HEAD_BYTES]) != "text":
                    raise BadRecord(f"is {describe(block[:HEAD_BYTES])}")
                held.append(block)
                if (length := length + len(block)) > DOCUMENT_BYTES:
                    break
        except BadRecord as error:
            torn = str(error)
        content = b"".join(held)
        long = length > DOCUMENT_BYTES
        if (kind == "json" and is_object_a_line(content)) or (
            long and kind in CUTTABLE and is_document_a_line(content[:BLOCK])
        ):
            rest = broken(torn) if torn else blocks
            yield from self.lines(itertools.chain([content], rest), 1, kind="jsonl" if kind == "json" else kind)
            return
        if long:
            size = f"{self.size:,} bytes, more" if self.size > DOCUMENT_BYTES else "more bytes"
            raise BadRecord(
                f"has {size} than one document may have ({DOCUMENT_BYTES:,}); cut it into files or into lines of .jsonl"
            )
        if torn and content:  # what came before the break is a document too, up to its last whole line
            whole_lines = content[: content.rfind(b"\n") + 1]
            try:
                text = text_of(whole_lines or content, kind)
            except BadRecord as error:
                raise BadRecord(torn) from error
            yield self._document(self.name, text, kind)
            yield Quarantined(f"{self.name}:rest", torn)
        elif torn:
            raise BadRecord(torn)
        else:
            yield self._document(self.name, text_of(content, kind), kind)

    def _document(self, id: str, text: str, kind: str) -> Document:
        told = dict(self.about)
        if format := FORMATS.get(kind):
            told["format"] = format
        elif language := LANGUAGES.get(kind):
            told |= {"format": "code", "language": language}
        return Document(id, text, self.source, told)

    # ---- lines

    def lines(self, blocks: Iterable[bytes], first: int, path: str = "", kind: str = "") -> Iterator[Item]:
        """One document a line. path: the file from whose beginning the text's field is to be learnt, if not from here."""
        lines = lines_of(utf8(blocks) if first == 1 else blocks, first)
        if (kind or kind_of(self.name)[0]) in CUTTABLE:
            yield from self._texts(lines)
            return
        if path:
            with opened(path) as file:
                sample = list(sample_of(lines_of(utf8(blocks_of(file.read)), 1))[0])
        else:
            sample, lines = sample_of(lines)
        field = text_field(row for _, line in sample if isinstance(row := row_of(line), dict))
        del sample
        for number, line in lines:
            id = f"{self.name}:{number}"
            row = row_of(line)
            if isinstance(row, str):
                yield Quarantined(id, row)
                continue
            found = next((key for key in (field, *TEXT_FIELDS) if key in row), None)
            try:
                if found is None:
                    raise BadRecord(f"has no field {field!r}" if field else "has no text field such as 'text'")
                text = checked_text(row[found])
                if text.isspace():
                    raise BadRecord("is blank")
            except BadRecord as error:
                yield Quarantined(id, str(error))
                continue
            about = {key: value for key, value in row.items() if key != found and describes(value)}
            yield Document(id, text, self.source, about)

    def _texts(self, lines: Iterable[tuple[int, bytes | int]]) -> Iterator[Item]:
        for number, line in lines:
            try:
                yield Document(f"{self.name}:{number}", read_text(short(line)), self.source, {"format": "text"})
            except BadRecord as error:
                yield Quarantined(f"{self.name}:{number}", str(error))

    # ---- WARC

    def records(self, reader: Reader) -> Iterator[Item]:
        seen: set[int] = set()
        for number, record in enumerate(records_of(reader), 1):
            key = re.sub(r"^<?(urn:uuid:)?|>$", "", record.about.get("warc-record-id", "")) or f"#{number}"
            id = f"{self.name}:{printable(key)}"
            try:
                if record.reason:
                    raise BadRecord(record.reason)
                if record.about.get("warc-type") not in ("response", "resource", "conversion"):
                    continue
                text, format = page_of(record)
                if not first_time(id, seen):
                    raise BadRecord("has the id of an earlier record")
                told = {"url": record.about.get("warc-target-uri", ""), "date": record.about.get("warc-date", "")}
                language = record.about.get("warc-identified-content-language", "").partition(",")[0]
                told = {key: value for key, value in {**told, "language": language}.items() if value}
                yield Document(id, text, self.source, {**told, "format": format})
            except BadRecord as error:
                yield Quarantined(id, str(error))

    # ---- archives

    def members(self, reader: Reader) -> Iterator[Item]:
        seen: set[int] = set()
        try:
            with tarfile.open(fileobj=reader, mode="r|", tarinfo=_TarInfo, bufsize=1 << 18) as tar:  # type: ignore[arg-type]
                while (info := tar.next()) is not None:
                    tar.members.clear()  # type: ignore[attr-defined]  # else it grows with the archive
                    if info.isdir() or _hidden(info.name):
                        continue
                    if not info.isreg() or info.issparse():
                        yield Quarantined(self._member(info.name), "is a link, a device or a sparse file")
                        continue
                    file = tar.extractfile(info)
                    assert file is not None  # a regular file
                    yield from self._inside(info.name, info.size, plain_errors(file.read), seen)
                if reader.given < tar.offset + tarfile.BLOCKSIZE:  # tarfile takes this for an end
                    raise BadRecord("breaks off: the mark of its end is missing")
        except (BadRecord, UserError):
            raise
        except Exception as error:  # tarfile has its own kinds, and lets through those of what it calls
            raise BadRecord(f"cannot be read as an archive to its end ({line_of(error)})") from error

    def _member(self, name: str) -> str:
        return f"{self.name}!{printable(name.removeprefix('./'))}"

    def _inside(self, name: str, size: int, read: Callable[[int], bytes], seen: set[int]) -> Iterator[Item]:
        id = self._member(name)
        kind, codec = kind_of(name)
        try:
            if not first_time(id, seen):
                raise BadRecord("has a name that occurs twice")
            if kind == "tar":
                raise BadRecord("is an archive inside an archive; unpack it")
            if not size:
                raise BadRecord("is empty")
            inside = Content(id, self.source, {**self.about, "path": printable(name)}, size)
            yield from inside.read(kind, codec, blocks_of(read))
        except BadRecord as error:
            yield Quarantined(id, str(error))


def members_of_zip(content: Content, file: IO[bytes], size: int) -> Iterator[Item]:
    seen: set[int] = set()
    budget = Budget(max(UNPACKED[0], UNPACKED[1] * size))
    try:
        archive = zipfile.ZipFile(file)
    except Exception as error:  # zipfile raises many kinds for what is broken
        raise BadRecord(f"cannot be read as an archive ({line_of(error)})") from error
    for info in archive.infolist():
        mode = info.external_attr >> 16 if info.create_system == 3 else 0
        if info.filename.endswith("/") or _hidden(info.filename):  # `is_dir` fails for an empty name
            continue
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
            yield Quarantined(content._member(info.filename), "is a link or a device")
        elif info.flag_bits & 1:
            yield Quarantined(content._member(info.filename), "is encrypted")
        else:
            try:
                with archive.open(info) as member:
                    read = budget.watched(plain_errors(member.read))
                    yield from content._inside(info.filename, info.file_size, read, seen)
            except UserError:
                raise
            except Exception as error:  # an unknown method of packing, overlapping members
                yield Quarantined(content._member(info.filename), f"cannot be unpacked ({line_of(error)})")


class _TarInfo(tarfile.TarInfo):
    """Members of a tar, whose extended headers are read into memory whole and so must be short."""

    def _proc_member(self, tar: tarfile.TarFile) -> Any:
        if not (self.isreg() or self.isdir()) and self.size > _HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {self.size:,} bytes")
        return super()._proc_member(tar)  # type: ignore[misc]


def _hidden(name: str) -> bool:
    return any(part.startswith(".") and part not in (".", "..") for part in name.split("/"))


def first_time(id: str, seen: set[int]) -> bool:
    key = hash_of(id)
    if key in seen:
        return False
    seen.add(key)
    return True
