"""Raw documents from folders and files, as a stream: `plan` cuts the input into tasks, `documents` reads one of them.

What is one document:
- a text, Markdown, reStructuredText, HTML, code or e-mail file is one, whatever its length up to `DOCUMENT_BYTES`;
- .jsonl and .ndjson (and .json whose first line is an object by itself, as C4 is published) hold one a line, in the
  field "text", "content" or "body", else in the field with most text; blank lines are none;
- .parquet holds one a row, in a column chosen likewise; other scalar fields and columns go into `about` (so that
  a field "format" that says "html" makes its line a page);
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
"""

from __future__ import annotations

import hashlib
import itertools
import json
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any

from unlabeled.core.errors import BadRecord, UserError
from unlabeled.curate.reading.contents import Content, Item, members_of_zip
from unlabeled.curate.reading.decode import (
    CUTTABLE,
    DOCUMENT_BYTES,
    is_document_a_line,
    is_object_a_line,
    kind_of,
    wide,
)
from unlabeled.curate.reading.parquet import rows_of, table_of
from unlabeled.curate.reading.unpack import BLOCK, blocks_of, opened
from unlabeled.data.source import Quarantined
from unlabeled.data.sources.files import printable
from unlabeled.data.sources.folder import Listed, walk

__all__ = ["DOCUMENT_BYTES", "TASK_BYTES", "Part", "Task", "documents", "plan"]

TASK_BYTES = 32 << 20  # of input that one task is meant to have, packed files counted as four times their size


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


def plan(places: Sequence[tuple[str, Path]], bytes_per_task: int = TASK_BYTES) -> tuple[list[Task], list[Quarantined]]:
    """Tasks over all files of some places, and what was refused by its listing; the order depends on the input alone.

    places: (name, folder or file). With a name, it is the source of all documents and their ids begin with `NAME/`.
        With an empty name, the source is the first folder below the place in which a file lies, the place's own name
        for files at its top, and ids are relative to the place (they begin with its name where there are several).
    Small files share a task, lines and row groups of large ones are cut; packed files and archives are not cut. Files
    of lines larger than a task are read once, to count lines.

    Raises:
        UserError: where a place is missing or unreadable, a name has a slash, or two places would give equal ids.
    """
    parts: list[Part] = []
    refused: list[Quarantined] = []
    prefixes: set[str] = set()
    for name, place in places:
        if "/" in name:
            raise UserError(f"The name {name!r} of a source has a slash, which separates folders; leave it out.")
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
        return walk(place, limit=None)  # a text of any size may be one of a document a line
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
    kind, codec = kind_of(part.path)
    if kind == "parquet" and not codec:
        return _groups_of(part, bytes_per_task)
    if codec or part.size <= bytes_per_task:
        return [part]
    with opened(part.path) as file:
        head = file.read(BLOCK)
        if kind == "json" and is_object_a_line(head):
            kind = "jsonl"
        lines = kind == "jsonl" or (kind in CUTTABLE and part.size > DOCUMENT_BYTES and is_document_a_line(head))
        if not lines or wide(head):
            return [part]
        file.seek(0)
        bounds = _line_bounds(file, part.size, bytes_per_task)
    return [
        replace(part, kind="lines", start=start, stop=stop, first=first)
        for (start, first), (stop, _) in itertools.pairwise(bounds)
    ]


def _line_bounds(file: IO[bytes], size: int, step: int) -> list[tuple[int, int]]:
    """(offset, number of the line that begins there) about every `step` bytes, from (0, 1) to the end of the file."""
    bounds, line, place = [(0, 1)], 1, 0
    while block := file.read(BLOCK):
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


def _groups_of(part: Part, bytes_per_task: int) -> list[Part]:
    cuts, room, rows = [(0, 0)], 0, 0  # row group, number of its first row
    with table_of(part.path) as table:
        for group in range(table.num_row_groups):
            about = table.metadata.row_group(group)
            if room and room + about.total_byte_size > bytes_per_task:
                cuts.append((group, rows))
                room = 0
            room, rows = room + about.total_byte_size, rows + about.num_rows
        cuts.append((table.num_row_groups, rows))
    if not rows:
        raise BadRecord("has no rows")
    return [replace(part, kind="rows", start=a, stop=b, first=row) for (a, row), (b, _) in itertools.pairwise(cuts)]


def _grouped(parts: Iterable[Part], bytes_per_task: int) -> list[Task]:
    tasks: list[Task] = []
    group: list[Part] = []
    room = 0
    for part in parts:
        if part.kind == "file":
            weight = part.size * (4 if kind_of(part.path)[1] else 1)
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
                yield from rows_of(part.path, part.name, part.source, part.start, part.stop, part.first)
                continue
            with opened(part.path) as file:
                if part.kind == "lines":
                    file.seek(part.start)
                    blocks = blocks_of(file.read, part.stop - part.start)
                    yield from Content(part.name, part.source).lines(blocks, part.first, part.path)
                else:
                    yield from _file(part, file)
        except BadRecord as error:
            yield Quarantined(part.name, str(error))
        except OSError as error:
            yield Quarantined(part.name, f"cannot be read ({error.strerror or type(error).__name__})")


def _file(part: Part, file: IO[bytes]) -> Iterator[Item]:
    kind, codec = kind_of(part.path)
    content = Content(part.name, part.source, {"path": part.name}, part.size)
    if kind in ("zip", "parquet") and codec:
        raise BadRecord(f"is {kind} in another packing; unpack it")
    if kind == "zip":
        yield from members_of_zip(content, file, part.size)
    elif kind == "parquet":  # of a plan made by hand
        (all_,) = _groups_of(part, 1 << 62)
        yield from documents(Task((all_,)))
    else:
        yield from content.read(kind, codec, blocks_of(file.read))
