"""Raw documents from folders and files, as a stream: `plan` cuts the input into tasks, `documents` reads one of them.

What is one document:
- a text, Markdown, reStructuredText, HTML, code or e-mail file is one, whatever its length up to `DOCUMENT_BYTES`;
- .jsonl and .ndjson (and .json whose first line is an object by itself, as C4 is published) hold one a line, in the
  field "text", "content" or "body", else in the field with most text; blank lines are none;
- .parquet holds one a row, in a column chosen likewise; other scalar fields and columns go into `about`;
- .warc and .wet hold one a response (status 200, HTML or text), resource or conversion record; requests, revisits and
  metadata are not documents and are passed over;
- .tar and .zip hold all of these but parquet and archives; .gz, .zst, .bz2 and .xz may be put around any of them.
A .txt, .text or .log of more than `DOCUMENT_BYTES` cannot be one document. If its first MiB has no blank line and
lines of more than 200 bytes on average, each line is a document (what corpora of one document a line look like, and
wrapped prose does not); else it is quarantined, because every cut would be a guess.

Ids say where a text lies: `web/pages.jsonl.gz:17` (line, from 1), `a.parquet:12` (row, from 0), `x.warc.gz:RECORD-ID`,
`src/a.py`, `a.tar!b.txt`. All that is met becomes a `Document` or a `Quarantined`; a container that breaks off gives
what came before the break and one `Quarantined` for the rest. Only hidden names (`.git`) are left out silently.
Memory does not grow with the input: at most one document of `DOCUMENT_BYTES` is held, and one line longer than that is
counted, not kept.

WARC is framed here, because the two libraries for it hide truncation (tried: FastWARC 2.0.1, warcio 1.8.1): a record
cut by the end of a .warc.gz is returned empty by the one and left out by the other, without an error, and neither goes
on behind garbage between records.
"""

from __future__ import annotations

import bz2
import codecs
import hashlib
import itertools
import json
import lzma
import os
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

from unlabeled.core.errors import BadRecord, UserError
from unlabeled.curate.document import Document
from unlabeled.data.recognise import HEAD_BYTES, describe, sniff
from unlabeled.data.source import Quarantined
from unlabeled.data.sources.files import printable
from unlabeled.data.sources.folder import Listed, walk
from unlabeled.data.sources.text import TEXT_FIELDS, checked_text, read_text

__all__ = ["DOCUMENT_BYTES", "TASK_BYTES", "Part", "Task", "documents", "plan"]

DOCUMENT_BYTES = 32 << 20  # of one document, unpacked; more is a container or a mistake
TASK_BYTES = 32 << 20  # of input that one task is meant to have, packed files counted as four times their size

_BLOCK = 1 << 20  # bytes read at once
_FIELD_ROWS = 100  # rows that decide which field holds the text
_ABOUT_CHARACTERS = 2048  # of a scalar field; longer ones are content beside the text, not a description of it
_MOST_OPENINGS = 2_000_000  # brackets in one line of JSON: each becomes an object of about 64 bytes
_UNPACKED = (1 << 30, 300)  # a packed file may give so many bytes, or so many times its size if that is more
_HEADER_BYTES = 1 << 20  # of one record of WARC or of one extended header of tar
_LONG_LINES = 200  # mean bytes of the lines of a file that has one document a line
_XZ_MEMORY = 256 << 20  # bytes; `xz -9` needs 65 MB

_CODECS = {"gz": "gzip", "gzip": "gzip", "zst": "zstd", "zstd": "zstd", "bz2": "bzip2", "xz": "xz", "lzma": "xz"}
_TARS = {"tgz": "tar.gz", "tbz2": "tar.bz2", "txz": "tar.xz", "tzst": "tar.zst"}
_FORMATS = {
    **dict.fromkeys("txt text log tex org adoc csv tsv eml mbox mbx".split(), "text"),
    **dict.fromkeys("md markdown".split(), "markdown"),
    "rst": "rst",
    **dict.fromkeys("html htm xhtml".split(), "html"),
}
_CUTTABLE = ("txt", "text", "log")  # whose lines may be documents if there are too many for one
_LANGUAGES = {
    "python": "py pyi pyx", "notebook": "ipynb", "c": "c h", "c++": "cc cpp cxx hh hpp", "cuda": "cu", "java": "java",
    "kotlin": "kt", "scala": "scala", "javascript": "js jsx mjs", "typescript": "ts tsx", "go": "go", "rust": "rs",
    "ruby": "rb", "php": "php", "perl": "pl pm", "lua": "lua", "r": "r", "julia": "jl", "swift": "swift",
    "haskell": "hs", "ocaml": "ml mli", "f#": "fs", "c#": "cs", "visual basic": "vb", "sql": "sql",
    "shell": "sh bash zsh fish", "powershell": "ps1", "batch": "bat", "lisp": "el lisp", "clojure": "clj",
    "erlang": "erl", "elixir": "ex exs", "fortran": "f f90", "objective-c": "m mm", "dart": "dart", "assembly": "asm s",
    "verilog": "v", "vhdl": "vhd", "protobuf": "proto", "cmake": "cmake", "json": "json", "xml": "xml", "yaml": "yaml yml",
    "toml": "toml", "ini": "ini cfg conf", "css": "css",
}  # fmt: skip
_LANGUAGE_OF = {ending: language for language, endings in _LANGUAGES.items() for ending in endings.split()}

Item = Document | Quarantined


@dataclass(frozen=True, slots=True)
class Part:
    """A file, or a range of one. path: where it lies; name: what its documents' ids begin with; size, changed_ns: of the
    whole file. kind: "file" (all of it), "lines" (bytes start to stop, whole lines, the first of which has the number
    `first`) or "rows" (row groups start to stop of a parquet file, `first` being the number of the first row)."""

    source: str
    path: str
    name: str
    size: int
    changed_ns: int
    kind: str = "file"
    start: int = 0
    stop: int = 0
    first: int = 0


@dataclass(frozen=True, slots=True)
class Task:
    """What one worker reads in one go. `dataclasses.asdict` makes JSON of it and `Task.of` brings it back."""

    parts: tuple[Part, ...]

    @staticmethod
    def of(fields: dict[str, Any]) -> Task:
        return Task(tuple(Part(**part) for part in fields["parts"]))

    @property
    def fingerprint(self) -> str:
        """Hexadecimal digest of names, ranges, sizes and times of change, not of the folder's own place."""
        rows = [{k: v for k, v in asdict(part).items() if k != "path"} for part in self.parts]
        return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()


# ---- the plan -------------------------------------------------------------------------------------------------------


def plan(
    places: Sequence[tuple[str, Path]], bytes_per_task: int = TASK_BYTES
) -> tuple[list[Task], list[Quarantined]]:
    """Tasks over all files of some places, and what was refused by its listing; the order depends on the input alone.

    places: (name, folder or file). With a name, it is the source of all documents and their ids begin with `NAME/`.
        With an empty name, the source is the first folder below the place in which a file lies, the place's own name
        for files at its top, and ids are relative to the place (they begin with its name where there are several).
    Small files share a task, lines and row groups of large ones are cut; packed files and archives are not cut. Files
    of lines larger than a task are read once, to count lines.

    Raises:
        UserError: where a place is missing or unreadable, or two places would give equal ids.
    """
    parts: list[Part] = []
    refused: list[Quarantined] = []
    prefixes: set[str] = set()
    for name, place in places:
        place = Path(place)
        own = printable(place.resolve().name)
        prefix = f"{name or own}/" if name or (len(places) > 1 and place.is_dir()) else ""
        key = prefix or own
        if key in prefixes:
            raise UserError(f"Two sources are called {key.rstrip('/')}; give each its own name, as in NAME={place}.")
        prefixes.add(key)
        files, bad = _listed(place)
        refused += [Quarantined(prefix + q.id, q.reason) for q in bad]
        root = place if place.is_dir() else place.parent
        for file in files:
            top = file.path.partition("/")[0] if "/" in file.path else ""
            source = name or printable(top) or (own if place.is_dir() else own.partition(".")[0])
            whole = Part(source, str(root / file.path), prefix + printable(file.path), file.size, file.changed_ns)
            try:
                parts += _cut(whole, bytes_per_task)
            except BadRecord as error:
                refused.append(Quarantined(whole.name, str(error)))
            except OSError as error:
                refused.append(Quarantined(whole.name, f"cannot be read ({error.strerror})"))
    return _grouped(parts, bytes_per_task), refused


def _listed(place: Path) -> tuple[list[Listed], list[Quarantined]]:
    if place.is_dir():
        files, bad = walk(place)
        # `walk` refuses single texts of more than 256 MB, which may be files of one document a line here.
        long = [q for q in bad if q.reason.startswith("has ") and (place / q.id).is_file()]
        for q in long:
            status = (place / q.id).stat()
            files.append(Listed(q.id, status.st_size, status.st_mtime_ns))
        return sorted(files), [q for q in bad if q not in long]
    try:
        status = place.stat()
    except OSError as error:
        raise UserError(f"There is no file or folder {place} ({error.strerror}).") from error
    if not stat.S_ISREG(status.st_mode):
        raise UserError(f"{place} is a pipe, a socket or a device; give a folder or a file.")
    if not status.st_size:
        return [], [Quarantined(printable(place.name), "is empty")]
    return [Listed(place.name, status.st_size, status.st_mtime_ns)], []


def _cut(part: Part, bytes_per_task: int) -> Iterable[Part]:
    """A file as parts of about `bytes_per_task`, or whole where it cannot be cut.

    Raises:
        BadRecord: where it is known already that nothing can be read of it.
    """
    kind, codec = _kind(part.path)
    if kind == "parquet" and not codec:
        return _row_groups(part, bytes_per_task)
    if codec or part.size <= bytes_per_task:
        return [part]
    with _opened(part.path) as file:
        head = file.read(_BLOCK)
        if kind == "json" and _is_object(head):
            kind = "jsonl"
        lines = kind == "jsonl" or (kind in _CUTTABLE and part.size > DOCUMENT_BYTES and _one_a_line(head))
        if not lines or _wide(head):
            return [part]
        file.seek(0)
        bounds = _line_bounds(file, part.size, bytes_per_task)
    return [
        _but(part, kind="lines", start=start, stop=stop, first=first)
        for (start, first), (stop, _) in itertools.pairwise(bounds)
    ]


def _but(part: Part, **changes: Any) -> Part:
    return Part(**{**asdict(part), **changes})


def _line_bounds(file: IO[bytes], size: int, step: int) -> list[tuple[int, int]]:
    """(offset, number of the line that begins there) about every `step` bytes, from (0, 1) to the end of the file."""
    bounds, line, place = [(0, 1)], 1, 0
    while block := file.read(_BLOCK):
        done = 0
        while (wanted := bounds[-1][0] + step - 1) < place + len(block):
            end = block.find(b"\n", max(done, wanted - place)) + 1
            if not end:
                break
            line += block.count(b"\n", done, end)
            done = end
            bounds.append((place + done, line))
        line += block.count(b"\n", done)
        place += len(block)
    if bounds[-1][0] < size:
        bounds.append((size, line))
    return bounds


def _row_groups(part: Part, bytes_per_task: int) -> list[Part]:
    table = _parquet(part.path)
    cuts, room, rows = [(0, 0)], 0, 0  # row group, number of its first row
    for group in range(table.num_row_groups):
        about = table.metadata.row_group(group)
        if room and room + about.total_byte_size > bytes_per_task:
            cuts.append((group, rows))
            room = 0
        room, rows = room + about.total_byte_size, rows + about.num_rows
    cuts.append((table.num_row_groups, rows))
    return [_but(part, kind="rows", start=a, stop=b, first=row) for (a, row), (b, _) in itertools.pairwise(cuts)]


def _grouped(parts: Iterable[Part], bytes_per_task: int) -> list[Task]:
    tasks: list[Task] = []
    group: list[Part] = []
    room = 0
    for part in parts:
        if part.kind == "file":
            weight = part.size * (4 if _kind(part.path)[1] else 1)
        elif part.kind == "lines":
            weight = part.stop - part.start
        else:  # row groups were weighed before: a short file of them may share its task, others stand alone
            weight = part.size if part.start == 0 and part.first == 0 else bytes_per_task
        if group and room + weight > bytes_per_task:
            tasks.append(Task(tuple(group)))
            group, room = [], 0
        group.append(part)
        room += weight
    return [*tasks, Task(tuple(group))] if group else tasks


# ---- reading --------------------------------------------------------------------------------------------------------


def documents(task: Task) -> Iterator[Item]:
    """Everything in a task, in order; bad data is given as `Quarantined` and never raised.

    Raises:
        UserError: where .zst is to be read and the package for it is missing.
    """
    for part in task.parts:
        try:
            if part.kind == "rows":
                yield from _rows(part)
                continue
            with _opened(part.path) as file:
                if part.kind == "lines":
                    file.seek(part.start)
                    blocks = _blocks(file.read, part.stop - part.start)
                    yield from _Content(part.name, part.source).lines(blocks, part.first, part.path)
                else:
                    yield from _file(part, file)
        except BadRecord as error:
            yield Quarantined(part.name, str(error))
        except OSError as error:
            yield Quarantined(part.name, f"cannot be read ({error.strerror or type(error).__name__})")


def _file(part: Part, file: IO[bytes]) -> Iterator[Item]:
    kind, codec = _kind(part.path)
    content = _Content(part.name, part.source, {"path": part.name}, part.size)
    if kind in ("zip", "parquet") and codec:
        raise BadRecord(f"is {kind} in another packing; unpack it")
    if kind == "zip":
        yield from _zip(content, file, part.size)
    elif kind == "parquet":  # of a plan made by hand
        yield from _rows(_row_groups(part, 1 << 62)[0])
    else:
        yield from content.read(kind, codec, _blocks(file.read))


class _Content:
    """Turns the bytes of one file or member into documents. size: bytes as stored, 0 where they are not known."""

    def __init__(self, name: str, source: str, about: dict[str, Any] | None = None, size: int = 0) -> None:
        self.name, self.source, self.about, self.size = name, source, about or {}, size

    def read(self, kind: str, codec: str, blocks: Iterator[bytes]) -> Iterator[Item]:
        """All documents; kind and codec as `_kind` tells them.

        Raises:
            BadRecord: where nothing can be read, or nothing more.
        """
        if codec:
            blocks = _unpacked(blocks, codec, max(_UNPACKED[0], _UNPACKED[1] * self.size))
        if kind == "jsonl":
            yield from self.lines(blocks, 1)
        elif kind in ("warc", "wet"):
            yield from self.records(_Reader(blocks))
        elif kind == "tar":
            yield from self.members(_Reader(blocks))
        elif kind in ("zip", "parquet"):
            raise BadRecord("is an archive or table inside an archive; unpack it")
        else:
            yield from self.whole(kind, blocks)

    def whole(self, kind: str, blocks: Iterator[bytes]) -> Iterator[Item]:
        held, length, torn = [], 0, ""
        try:
            for block in blocks:
                held.append(block)
                if (length := length + len(block)) > DOCUMENT_BYTES:
                    break
        except BadRecord as error:
            torn = str(error)
        content = b"".join(held)
        if kind == "json" and (length > DOCUMENT_BYTES or _is_object(content)):
            kind = "jsonl"
        if kind == "jsonl" or (length > DOCUMENT_BYTES and kind in _CUTTABLE and _one_a_line(content[:_BLOCK])):
            yield from self.lines(itertools.chain([content], _broken(torn) if torn else blocks), 1, kind=kind)
            return
        if length > DOCUMENT_BYTES:
            size = f"{self.size:,} bytes, more" if self.size > DOCUMENT_BYTES else "more bytes"
            raise BadRecord(
                f"has {size} than one document may have ({DOCUMENT_BYTES:,}); cut it into files, or into .jsonl lines"
            )
        if torn:  # what came before the break is a document too, cut short
            if content:
                text = _text_of(content[: content.rfind(b"\n") + 1] or content, kind)
                yield self._document(self.name, text, kind)
            yield Quarantined(f"{self.name}:rest" if content else self.name, torn)
            return
        yield self._document(self.name, _text_of(content, kind), kind)

    def _document(self, id: str, text: str, kind: str, about: dict[str, Any] | None = None) -> Document:
        told = {**self.about, **(about or {})}
        if format := _FORMATS.get(kind):
            told["format"] = format
        elif language := _LANGUAGE_OF.get(kind):
            told |= {"format": "code", "language": language}
        return Document(id, text, self.source, told)

    # ---- lines

    def lines(self, blocks: Iterable[bytes], first: int, path: str = "", kind: str = "") -> Iterator[Item]:
        """One document a line. path: the file from whose beginning the text's field is to be learnt, if not from here."""
        kind = kind or _kind(self.name)[0]
        lines = _lines(_utf8(blocks), first)
        if kind in _CUTTABLE:
            yield from self._texts(lines)
            return
        if first > 1 and path:
            with _opened(path) as file:
                sample = _sample(_lines(_blocks(file.read), 1))[0]
        else:
            sample, lines = _sample(lines)
        field = _text_field(row for _, line in sample if isinstance(row := _row(line), dict))
        for number, line in lines:
            id = f"{self.name}:{number}"
            row = _row(line)
            if isinstance(row, str):
                yield Quarantined(id, row)
                continue
            found = next((key for key in (field, *TEXT_FIELDS) if key in row), None)
            try:
                if found is None:
                    raise BadRecord(f"has no field {field!r}" if field else "has no text field such as 'text'")
                text = checked_text(row[found])
                if not text.strip():
                    raise BadRecord("is blank")
            except BadRecord as error:
                yield Quarantined(id, str(error))
                continue
            about = {key: value for key, value in row.items() if key != found and _describes(value)}
            yield Document(id, text, self.source, about)

    def _texts(self, lines: Iterable[tuple[int, bytes | int]]) -> Iterator[Item]:
        for number, line in lines:
            try:
                yield Document(f"{self.name}:{number}", read_text(_short(line)), self.source, {"format": "text"})
            except BadRecord as error:
                yield Quarantined(f"{self.name}:{number}", str(error))

    # ---- WARC

    def records(self, reader: _Reader) -> Iterator[Item]:
        seen: set[int] = set()
        for number, record in enumerate(_warc(reader), 1):
            key = re.sub(r"^<?(urn:uuid:)?|>$", "", record.about.get("warc-record-id", "")) or f"#{number}"
            id = f"{self.name}:{printable(key)}"
            try:
                if record.reason:
                    raise BadRecord(record.reason)
                if record.about.get("warc-type") not in ("response", "resource", "conversion"):
                    continue
                text, format = _page(record)
                if not _first_time(id, seen):
                    raise BadRecord("has the id of an earlier record")
                told = {"url": record.about.get("warc-target-uri", ""), "date": record.about.get("warc-date", "")}
                language = record.about.get("warc-identified-content-language", "").partition(",")[0]
                told = {key: value for key, value in {**told, "language": language}.items() if value}
                yield Document(id, text, self.source, {**told, "format": format})
            except BadRecord as error:
                yield Quarantined(id, str(error))

    # ---- archives

    def members(self, reader: _Reader) -> Iterator[Item]:
        seen: set[int] = set()
        try:
            with tarfile.open(fileobj=reader, mode="r|", tarinfo=_TarInfo) as tar:  # type: ignore[arg-type]
                while (info := tar.next()) is not None:
                    tar.members.clear()  # type: ignore[attr-defined]  # else it grows with the archive
                    if info.isdir() or _hidden(info.name):
                        continue
                    if not info.isreg() or info.issparse():
                        yield Quarantined(self._member(info.name), "is a link, a device or a sparse file")
                        continue
                    file = tar.extractfile(info)
                    assert file is not None  # a regular file
                    yield from self._inside(info.name, info.size, file.read, seen)
        except (tarfile.TarError, ValueError, OverflowError, EOFError) as error:
            raise BadRecord(f"cannot be read as an archive to its end ({_line(error)})") from error

    def _member(self, name: str) -> str:
        return f"{self.name}!{printable(name.removeprefix('./'))}"

    def _inside(self, name: str, size: int, read: Callable[[int], bytes], seen: set[int]) -> Iterator[Item]:
        id = self._member(name)
        kind, codec = _kind(name)
        try:
            if not _first_time(id, seen):
                raise BadRecord("has a name that occurs twice")
            if kind == "tar":
                raise BadRecord("is an archive inside an archive; unpack it")
            if not size:
                raise BadRecord("is empty")
            inside = _Content(id, self.source, {**self.about, "path": printable(name)}, size)
            yield from inside.read(kind, codec, _blocks(read))
        except (BadRecord, tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError) as error:
            yield Quarantined(id, str(error) if isinstance(error, BadRecord) else f"is torn ({_line(error)})")


def _zip(content: _Content, file: IO[bytes], size: int) -> Iterator[Item]:
    seen: set[int] = set()
    budget = _Budget(max(_UNPACKED[0], _UNPACKED[1] * size))
    try:
        archive = zipfile.ZipFile(file)
    except Exception as error:  # zipfile raises many kinds for what is broken
        raise BadRecord(f"cannot be read as an archive ({_line(error)})") from error
    for info in archive.infolist():
        mode = info.external_attr >> 16 if info.create_system == 3 else 0
        if info.is_dir() or _hidden(info.filename):
            continue
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
            yield Quarantined(content._member(info.filename), "is a link or a device")
        elif info.flag_bits & 1:
            yield Quarantined(content._member(info.filename), "is encrypted")
        else:
            try:
                with archive.open(info) as member:
                    read = budget.watched(_plain_errors(member.read))
                    yield from content._inside(info.filename, info.file_size, read, seen)
            except UserError:
                raise
            except Exception as error:  # an unknown method of packing, overlapping members
                yield Quarantined(content._member(info.filename), f"cannot be unpacked ({_line(error)})")


class _TarInfo(tarfile.TarInfo):
    """Members of a tar, whose extended headers are read into memory whole and so must be short."""

    def _proc_member(self, tar: tarfile.TarFile) -> Any:
        if not (self.isreg() or self.isdir()) and self.size > _HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {self.size:,} bytes")
        return super()._proc_member(tar)  # type: ignore[misc]


# ---- bytes ----------------------------------------------------------------------------------------------------------


def _opened(path: str) -> IO[bytes]:
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


def _blocks(read: Callable[[int], bytes], length: int | None = None) -> Iterator[bytes]:
    """What is read, up to `length` bytes of it, in blocks."""
    left = length
    while left is None or left > 0:
        block = read(_BLOCK if left is None else min(_BLOCK, left))
        if not block:
            return
        if left is not None:
            left -= len(block)
        yield block


def _broken(reason: str) -> Iterator[bytes]:
    raise BadRecord(reason)
    yield b""


class _Budget:
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


def _plain_errors(read: Callable[[int], bytes]) -> Callable[[int], bytes]:
    """The same reading, with all that zipfile and its unpackers raise as BadRecord."""

    def reading(size: int) -> bytes:
        try:
            return read(size)
        except Exception as error:
            raise BadRecord(f"is torn ({_line(error)})") from error

    return reading


def _unpacked(blocks: Iterator[bytes], codec: str, limit: int) -> Iterator[bytes]:
    """Unpacked blocks of one or several streams put together, each as soon as it is known.

    Raises:
        BadRecord: behind the last block that could be unpacked, where the rest cannot.
    """
    budget, began = _Budget(limit), False
    new = _UNPACKERS[codec]
    unpacker, data = new(), b""
    for block in blocks:
        data = data + block if data else block
        while data:
            if not began and codec != "gzip":
                pass
            try:
                out, data = unpacker.feed(data)
            except (zlib.error, OSError, lzma.LZMAError, ValueError, EOFError, MemoryError) as error:
                raise BadRecord(_torn(codec, began, error)) from error
            except Exception as error:  # zstandard's own
                raise BadRecord(_torn(codec, began, error)) from error
            if out:
                began = True
                yield budget.spend(out)
            if unpacker.eof:
                began = True
                data = data.lstrip(b"\0")  # padding behind a stream, as tapes and xz have
                unpacker = new()
            elif not out:
                break
    if unpacker.fed:
        raise BadRecord("breaks off: what was packed is cut short")


def _torn(codec: str, began: bool, error: Exception) -> str:
    return f"{'cannot be unpacked any further' if began else 'is not ' + codec} ({_line(error)})"
