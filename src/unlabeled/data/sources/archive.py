"""Samples in `.tar`, `.tar.gz` and `.zip`, read in place: no member is ever written under its name anywhere.

WebDataset's layout is understood: members `shard/0001.jpg`, `shard/0001.txt`, `shard/0001.cls` are one sample, of
which the text is the caption and the class is for evaluation only.
"""

from __future__ import annotations

import gzip
import json
import os
import stat
import tarfile
import tempfile
import threading
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from unlabeled.core.batch import Kind
from unlabeled.core.errors import BadRecord, UserError
from unlabeled.data.recognise import kind_by_name, split_by_name
from unlabeled.data.source import Quarantined
from unlabeled.data.sources.files import FILE_LIMIT, digest_of_files, labels_of, layout, printable, splits
from unlabeled.data.sources.folder import PLURALS, Files

__all__ = ["Archive"]

_MOST_MEMBERS = 10_000_000
_UNPACKED = (1 << 30, 100)  # a .tar.gz may unpack to this many bytes, or to this many times its size if that is more
_SIDE_LIMIT = 1 << 20  # bytes of a caption, class or JSON beside a sample
_CHUNK = 1 << 20


class _Member(NamedTuple):
    name: str
    size: int
    place: int  # offset of the content in a tar; index in the directory of a zip


class _Tar:
    """Contents by offset; gzip is unpacked once into a nameless temporary file, which vanishes with it."""

    def __init__(self, path: Path) -> None:
        self._file: IO[bytes] = path.open("rb")
        if self._file.read(2) == b"\x1f\x8b":
            self._file = _unpacked(path)
        self._lock = threading.Lock()

    def members(self) -> Iterator[_Member | Quarantined]:
        self._file.seek(0)
        with tarfile.open(fileobj=self._file, mode="r:") as tar:
            while (info := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # else it grows with the archive
                if info.isdir():
                    continue
                if not info.isreg() or info.issparse():
                    yield Quarantined(printable(info.name), "is a link, a device or a sparse file")
                else:
                    yield _Member(info.name, info.size, info.offset_data)

    def read(self, member: _Member) -> bytes:
        with self._lock:
            self._file.seek(member.place)
            content = self._file.read(member.size)
        if len(content) < member.size:
            raise BadRecord(f"is truncated ({len(content):,} of {member.size:,} bytes)")
        return content


def _unpacked(path: Path) -> IO[bytes]:
    limit = max(_UNPACKED[0], _UNPACKED[1] * path.stat().st_size)
    file, written = tempfile.TemporaryFile(), 0  # noqa: SIM115 (lives as long as the source)
    with gzip.open(path) as packed:
        try:
            while chunk := packed.read(_CHUNK):
                written += len(chunk)
                if written > limit:
                    raise UserError(f"{printable(path.name)} unpacks to more than {limit:,} bytes; is it a bomb?")
                file.write(chunk)
        except (EOFError, OSError, ValueError, zlib.error) as error:
            # Torn at the end: what came before can be used, and the member that is cut is refused.
            if not written:
                raise UserError(f"{printable(path.name)} cannot be unpacked; is it really a .tar.gz?") from error
    file.flush()
    return file


class _Zip:
    """Contents by place in the directory of a zip."""

    def __init__(self, path: Path) -> None:
        self._zip = zipfile.ZipFile(path)
        self._infos = self._zip.infolist()

    def members(self) -> Iterator[_Member | Quarantined]:
        for place, info in enumerate(self._infos):
            mode = info.external_attr >> 16 if info.create_system == 3 else 0
            if info.is_dir():
                continue
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
                yield Quarantined(printable(info.filename), "is a link or a device")
            elif info.flag_bits & 1:
                yield Quarantined(printable(info.filename), "is encrypted")
            else:
                yield _Member(info.filename, info.file_size, place)

    def read(self, member: _Member) -> bytes:
        try:
            with self._zip.open(self._infos[member.place]) as file:  # locked by zipfile itself
                content = file.read(FILE_LIMIT + 1)
        except Exception as error:  # bad checksums, unknown compression, overlapping members
            raise BadRecord(f"cannot be unpacked ({type(error).__name__})") from error
        if len(content) != member.size:
            raise BadRecord(f"unpacks to {len(content):,} bytes, not {member.size:,}")
        return content


def _trick(name: str) -> str:
    """What is wrong with the path of a member; empty if nothing is."""
    if "\0" in name:
        return "has a path with NUL"
    if name.startswith(("/", "\\")) or name[1:3] in (":\\", ":/"):
        return "has an absolute path"
    if ".." in name.replace("\\", "/").split("/"):
        return "has a path that leads out of the archive"
    return ""


class Archive(Files):
    """Members of one kind in one or several archives; archives named train and test are the official splits."""

    def __init__(self, paths: Sequence[Path], name: str, quarantined: Sequence[Quarantined] = ()) -> None:
        bad = list(quarantined)
        members: list[tuple[int, _Member]] = []  # number of the archive, member
        self.paths = list(paths)
        self._archives: dict[int, _Tar | _Zip] = {}
        prefixes = [f"{path.name}/" if len(self.paths) > 1 else "" for path in self.paths]
        for number, path in enumerate(self.paths):
            prefix = printable(prefixes[number])
            seen: set[str] = set()
            try:
                opened = _Zip(path) if zipfile.is_zipfile(path) and not _is_tar(path) else _Tar(path)
                self._archives[number] = opened
                for member in opened.members():
                    if isinstance(member, Quarantined):
                        bad.append(Quarantined(prefix + member.id, member.reason))
                        continue
                    clean = member.name.removeprefix("./")
                    if any(part.startswith(".") and part != ".." for part in clean.split("/")) and not _trick(clean):
                        continue  # hidden, as in folders
                    reason = _trick(clean) or ("has a name that occurs twice" if clean in seen else "")
                    if not reason and not member.size:
                        reason = "is empty"
                    if not reason and member.size > FILE_LIMIT:
                        reason = f"has {member.size:,} bytes, more than {FILE_LIMIT:,}"
                    if reason:
                        bad.append(Quarantined(prefix + printable(clean), reason))
                        continue
                    seen.add(clean)
                    members.append((number, member._replace(name=clean)))
                    if len(members) > _MOST_MEMBERS:
                        raise UserError(f"{name} has more than {_MOST_MEMBERS:,} members; split it.")
            except (tarfile.TarError, zipfile.BadZipFile, OSError, ValueError, OverflowError, EOFError) as error:
                reason = " ".join(str(error).split())[:100] or type(error).__name__
                bad.append(Quarantined(printable(path.name), f"cannot be read as an archive to its end ({reason})"))
        kind, chosen, sides = _choose(members, prefixes, bad)
        if kind is None:
            first = f": {bad[0].id} {bad[0].reason}" if bad else ""
            raise UserError(f"Nothing in {name} is an image, text or sound{first}.")
        self._members = chosen
        super().__init__(name, kind, [prefixes[n] + m.name for n, m in chosen], bad)
        if len(self.paths) > 1:  # first folders in the ids are shards, not classes
            self.labels, self.classes, _ = layout([m.name for _, m in chosen])
            self.official = splits(split_by_name(self.paths[n].name) for n, _ in chosen)
        self._sides = sides
        self._labels_beside()

    def _labels_beside(self) -> None:
        """Labels from `.cls` members, or `label` in `.json` members, where there are any."""
        names: list[str | None] = []
        for number, member in self._members:
            side = self._sides.get((number, _key(member.name)), {})
            found = self._side(side, "cls").strip()
            if not found and "json" in side:
                about = self._about(side)
                value = about.get("label", about.get("class"))
                found = str(value) if isinstance(value, int | str) else ""
            names.append(found or None)
        if any(names):
            if all(n is None or n.isdecimal() for n in names):  # numbers in the order of numbers
                values = sorted({int(n) for n in names if n is not None})
                place = {v: i for i, v in enumerate(values)}
                self.labels = np.array([-1 if n is None else place[int(n)] for n in names], dtype=np.int64)
                self.classes = tuple(map(str, values))
            else:
                self.labels, self.classes = labels_of([None if n is None else printable(n) for n in names])

    def _side(self, side: dict[str, tuple[int, _Member]], ending: str) -> str:
        """Text of what lies beside a sample; empty where there is none or it cannot be read."""
        if ending not in side or side[ending][1].size > _SIDE_LIMIT:
            return ""
        number, member = side[ending]
        try:
            return self._archives[number].read(member).decode("utf-8-sig")
        except (BadRecord, UnicodeDecodeError):
            return ""

    def _about(self, side: dict[str, tuple[int, _Member]]) -> dict:
        try:
            about = json.loads(self._side(side, "json") or "{}")
        except (ValueError, RecursionError):
            return {}
        return about if isinstance(about, dict) else {}

    def caption(self, index: int) -> str:
        number, member = self._members[index]
        side = self._sides.get((number, _key(member.name)), {})
        if self.kind == "text" or not side:
            return ""
        about = self._about(side)
        told = about.get("caption", about.get("text", ""))
        return self._side(side, "txt").strip() or (told if isinstance(told, str) else "")

    def read(self, index: int) -> bytes:
        number, member = self._members[index]
        return self._archives[number].read(member)

    def size(self, index: int) -> int:
        return self._members[index][1].size

    def identity(self) -> str:
        return digest_of_files(self.paths)


def _is_tar(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(512)
    return head[257:262] == b"ustar"


def _key(name: str) -> str:
    """What the members of one sample share: the path up to the first dot of the last part (WebDataset's rule)."""
    folder, slash, last = name.rpartition("/")
    return folder + slash + last.split(".", 1)[0]


_Sides = dict[tuple[int, str], dict[str, tuple[int, _Member]]]


def _choose(
    members: Sequence[tuple[int, _Member]], prefixes: Sequence[str], bad: list[Quarantined]
) -> tuple[Kind | None, list[tuple[int, _Member]], _Sides]:
    """The kind, its members in the order of the archive, and what lies beside them; the rest goes to `bad`.

    Pictures and sound come before text where there are as many: the text is their captions.
    """
    kinds = [kind_by_name(m.name) for _, m in members]
    counts: dict[Kind, int] = {kind: kinds.count(kind) for kind in ("image", "wave", "text")}
    sides_of_text = sum(m.name.lower().endswith(".json") for _, m in members)
    if max(counts["image"], counts["wave"]) >= counts["text"] - sides_of_text:
        counts["text"] = 0 if counts["image"] or counts["wave"] else counts["text"]
    kind = max(counts, key=lambda k: counts[k])
    if not counts[kind]:
        bad += [Quarantined(printable(prefixes[n] + m.name), "is of no known kind") for n, m in members]
        return None, [], {}
    endings = {"cls", "json", "txt"} if kind != "text" else {"cls", "json"}
    owners = {(n, _key(m.name)) for (n, m), k in zip(members, kinds) if k == kind and _ending(m.name) not in endings}
    chosen: list[tuple[int, _Member]] = []
    sides: _Sides = {}
    for (number, member), found in zip(members, kinds):
        ending, owner = _ending(member.name), (number, _key(member.name))
        if ending in endings and owner in owners:
            sides.setdefault(owner, {})[ending] = (number, member)
        elif found == kind:
            chosen.append((number, member))
        else:
            what = {"image": "an image", "text": "text", "wave": "sound", None: "of no known kind"}[found]
            bad.append(
                Quarantined(printable(prefixes[number] + member.name), f"is {what}, the archive is {PLURALS[kind]}")
            )
    return kind, chosen, sides


def _ending(name: str) -> str:
    return os.path.splitext(name)[1][1:].lower()  # noqa: PTH122 (a name in an archive, not a path here)
