"""A folder of pictures, of texts or of recordings, at any depth."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from unlabeled.core.batch import Kind, Record, Spec
from unlabeled.core.errors import BadRecord, UserError
from unlabeled.data import image, sound
from unlabeled.data.recognise import describe, kind_by_name, sniff
from unlabeled.data.source import Quarantined, Source
from unlabeled.data.sources.files import FILE_LIMIT, head_of, layout, printable, read_file, refused

__all__ = ["Files", "Folder", "Listed", "choose_kind", "walk"]

_PROBED = 64  # files of each kind whose content is looked at before the kind of the folder is settled
_MEASURED = 200  # files whose headers are read for the size of pictures or the rate of sound

PLURALS: dict[Kind, str] = {"image": "images", "text": "text", "wave": "sound"}


class Listed(NamedTuple):
    """A file by its path relative to the folder, with what tells whether it has changed."""

    path: str
    size: int
    changed_ns: int


def walk(root: Path, limit: int | None = FILE_LIMIT) -> tuple[list[Listed], list[Quarantined]]:
    """All regular files below a folder, sorted by path, and what was refused; hidden names are left out silently.

    limit: bytes above which a picture, a sound or a text is refused. Links are taken if they lead to a file inside the
    folder. Nothing is opened.

    Raises:
        UserError: where the folder itself cannot be listed.
    """
    root = root.resolve()
    files: list[Listed] = []
    bad: list[Quarantined] = []
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(root / folder) as entries:
                found = list(entries)
        except OSError as error:
            if not folder:
                raise UserError(f"The folder {root} cannot be read: {error.strerror}.") from error
            bad.append(Quarantined(printable(folder), f"is a folder that cannot be read ({error.strerror})"))
            continue
        if folder and not found and kind_by_name(folder):
            bad.append(Quarantined(printable(folder), "is an empty folder with the name of a file"))
        for entry in found:
            if entry.name.startswith("."):
                continue
            path = f"{folder}/{entry.name}" if folder else entry.name
            if entry.is_dir(follow_symlinks=False):
                waiting.append(path)
                continue
            try:
                status = _status(entry, root)
                if not status.st_size:
                    raise BadRecord("is empty")
                if limit and status.st_size > limit and kind_by_name(path):
                    raise BadRecord(f"has {status.st_size:,} bytes, more than {limit:,}")
                files.append(Listed(path, status.st_size, status.st_mtime_ns))
            except BadRecord as error:
                bad.append(Quarantined(printable(path), str(error)))
            except OSError as error:
                bad.append(Quarantined(printable(path), f"cannot be read ({error.strerror})"))
    return sorted(files), sorted(bad, key=lambda q: q.id)


def _status(entry: os.DirEntry[str], root: Path) -> os.stat_result:
    """Size and time of a regular file, or of the file inside the folder that a link leads to."""
    if not entry.is_symlink():
        status = entry.stat(follow_symlinks=False)
    else:
        target = os.path.realpath(entry.path)
        if not Path(target).is_relative_to(root):
            raise BadRecord("is a link that leads out of the folder")
        try:
            status = entry.stat()
        except OSError as error:
            raise BadRecord("is a link that leads nowhere") from error
        if stat.S_ISDIR(status.st_mode):
            raise BadRecord("is a link to another folder of this folder")
    if not stat.S_ISREG(status.st_mode):
        raise BadRecord("is a pipe, a socket or a device")
    return status


def choose_kind(root: Path, files: Sequence[Listed]) -> tuple[Kind | None, list[Listed], list[Quarantined]]:
    """The kind that most files have, the files of that kind, and the others with the reason.

    Extensions count as far as a sample of their files' content agrees; files without a known extension and those
    that are not of the chosen kind by name are opened. None where no file is of any kind.
    """
    by_kind: dict[Kind | None, list[Listed]] = {}
    for file in files:
        by_kind.setdefault(kind_by_name(file.path), []).append(file)
    votes: dict[Kind, float] = {"image": 0, "wave": 0, "text": 0}
    for kind, members in by_kind.items():
        step = 1 if kind is None else max(1, len(members) // _PROBED)
        probed = [sniff(head_of(root / f.path)) for f in members[::step]]
        for found in probed:
            if found and (kind is None or found == kind):
                votes[found] += len(members) / len(probed)
    chosen = max(votes, key=lambda kind: votes[kind])
    if not votes[chosen]:
        bad = [Quarantined(printable(f.path), f"is {describe(head_of(root / f.path))}") for f in files]
        return None, [], bad
    kept, bad = list(by_kind.pop(chosen, [])), []
    for name_says, members in by_kind.items():
        for file in members:
            head = head_of(root / file.path)
            # What calls itself a picture and is text is a broken picture, not a document.
            if sniff(head) == chosen and (name_says is None or chosen != "text"):
                kept.append(file)
            else:
                bad.append(Quarantined(printable(file.path), f"is {describe(head)}, the folder is {PLURALS[chosen]}"))
    return chosen, sorted(kept), bad


class Files(Source):
    """Encoded items of one kind with known paths; those who inherit say how the bytes are read."""

    def __init__(self, name: str, kind: Kind, paths: Sequence[str], quarantined: Sequence[Quarantined]) -> None:
        self.name, self.kind, self.quarantined = name, kind, quarantined
        self.ids = [printable(path) for path in paths]
        self.labels, self.classes, self.official = layout(paths)

    def read(self, index: int) -> bytes:
        """All bytes of an item.

        Raises:
            BadRecord: where it cannot be read.
        """
        raise NotImplementedError

    def size(self, index: int) -> int:
        """Bytes of an item, without reading it."""
        raise NotImplementedError

    def caption(self, index: int) -> str:
        """Words that belong to an item; empty where there are none."""
        return ""

    def __len__(self) -> int:
        return len(self.ids)

    def group(self, index: int) -> str:
        return self.ids[index]

    def __getitem__(self, index: int) -> Record:
        from unlabeled.data.sources.text import read_text

        try:
            content = self.read(index)
            fields: dict[str, object] = {self.kind: read_text(content) if self.kind == "text" else content}
        except BadRecord as error:
            raise refused(self.ids[index], str(error)) from error
        if caption := self.caption(index):
            fields["caption"] = caption
        return Record(self.ids[index], fields, -1 if self.labels is None else int(self.labels[index]))

    def spec(self) -> Spec:
        """Measured on the headers of up to 200 items spread over the source; text by its longest file."""
        count = len(self)
        if self.kind == "text":
            return Spec(kind="text", examples=count, longest=max(map(self.size, range(count)), default=0))
        measured: list[tuple] = []
        for index in np.unique(np.linspace(0, count - 1, min(count, _MEASURED)).astype(int)):
            try:
                value = self.read(int(index))
                measured.append(image.measure(value) if self.kind == "image" else sound.measure(value))
            except BadRecord:  # is met again, and listed, when it is decoded
                continue
        if self.kind == "image":
            side, channels = image.square_of(measured)
            return Spec(kind="image", examples=count, image_size=side, channels=channels)
        rates = [rate_hz for _, rate_hz, _ in measured]
        rate_hz = max(set(rates), key=rates.count) if rates else 0
        longest = max((round(seconds * rate_hz) for seconds, _, _ in measured), default=0)
        return Spec(kind="wave", examples=count, sample_rate_hz=rate_hz, longest=longest)


class Folder(Files):
    """Files of one kind below a folder, by sorted relative path."""

    def __init__(self, root: Path, kind: Kind, files: Sequence[Listed], quarantined: Sequence[Quarantined]) -> None:
        super().__init__(printable(root.resolve().name), kind, [f.path for f in files], quarantined)
        self.root, self.files = root.resolve(), files

    def read(self, index: int) -> bytes:
        return read_file(self.root / self.files[index].path)

    def size(self, index: int) -> int:
        return self.files[index].size

    def identity(self) -> str:
        digest = hashlib.sha256()
        for file in self.files:
            line = f"{file.path}\0{file.size}\0{file.changed_ns}\n"
            digest.update(line.encode("utf-8", "surrogateescape"))
        return digest.hexdigest()
