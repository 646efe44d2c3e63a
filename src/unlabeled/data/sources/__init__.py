"""One way to any data: `source(name_or_path)`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from unlabeled.core.errors import UserError, suggest
from unlabeled.data.source import Quarantined, Source
from unlabeled.data.sources.files import printable

__all__ = ["builtin_names", "source"]

_READ = "a folder of images, text or sound, .txt, .jsonl, .parquet, .npz, .npy, IDX, .tar, .tar.gz or .zip"


def builtin_names() -> list[str]:
    """Names of the data sets that come along or can be fetched."""
    from unlabeled.data.fetch import fetched_names
    from unlabeled.data.sources import builtin

    return [*builtin.builtin_names(), *fetched_names()]


def source(name_or_path: str | Path) -> Source:
    """Open data by the name of a built-in set or by the path of a folder or file.

    A name comes before a path; write `./fashion` for a folder called so. Nothing is decoded and nothing is changed.
    Of what a folder mixes, the kind that most files have is taken; the rest is in `.quarantined` with reasons.

    Raises:
        UserError: where there is no such data, or nothing in it can be used.
    """
    try:
        path = Path(name_or_path).expanduser()
        if isinstance(name_or_path, str) and (name_or_path in builtin_names() or not path.exists()):
            from unlabeled.data.sources import builtin

            if (found := builtin.open_builtin(name_or_path)) is not None:
                return found
        if path.is_dir():
            if (path / "curate.json").is_file() and (path / "corpus").is_dir():  # what `unlabeled curate` has made
                path = path / "corpus"
            found = _open_folder(path)
        elif path.is_file():
            found = _open_file(path)
        elif path.exists():
            raise UserError(f"{path} is a pipe, a socket or a device; give a folder or a file.")
        else:
            raise UserError(_unknown(str(name_or_path), path))
    except (OSError, ValueError) as error:  # no permission, a name too long, NUL in it
        said = getattr(error, "strerror", None) or str(error)
        raise UserError(f"{printable(str(name_or_path))!r} cannot be opened: {said}.") from error
    if not len(found):
        raise UserError(_nothing(found.name, found.quarantined))
    return found


def _unknown(name: str, path: Path) -> str:
    from unlabeled.data.fetch import FETCHED

    names = sorted({*builtin_names(), *FETCHED})
    if hint := suggest(name, names):
        return f"There is no data called {name!r}{hint}"
    beside = path.parent
    if beside.is_dir() and (hint := suggest(path.name, [p.name for p in beside.iterdir()])):
        return f"There is no folder or file {name!r}{hint}"
    return f"There is no folder or file {name!r}, and no built-in data of that name; there are {', '.join(names)}."


def _nothing(name: str, refused: Sequence[Quarantined]) -> str:
    if not refused:
        return f"There is nothing in {name}; give {_READ}."
    first = f"{refused[0].id} {refused[0].reason}"
    return f"Nothing in {name} can be used: all {len(refused)} files were refused, the first because {first}."


def _container(path: Path, head: bytes) -> str | None:
    """Which kind of file that holds many records this is, by name and first bytes; None for all others."""
    from unlabeled.data.sources.array import is_idx

    name = path.name.lower()
    if is_idx(path, head):
        return "idx"
    if head.startswith(b"PAR1"):
        return "parquet"
    if name.endswith((".jsonl", ".ndjson")):
        return "jsonl"
    if name.endswith(".npz") and head.startswith(b"PK"):
        return "npz"
    if head[257:262] == b"ustar" or name.endswith((".tar", ".tar.gz", ".tgz")) or head.startswith(b"PK\3\4"):
        return "archive"
    return None


def _open_containers(kind: str, paths: Sequence[Path], name: str, bad: Sequence[Quarantined] = ()) -> Source:
    if kind == "idx":
        from unlabeled.data.sources.array import open_idx

        return open_idx(paths, name, bad)
    if kind == "parquet":
        from unlabeled.data.sources.table import Table

        return Table(paths, name, bad)
    if kind == "jsonl":
        from unlabeled.data.sources.text import JsonLines

        return JsonLines(paths, name, bad)
    from unlabeled.data.sources.archive import Archive

    return Archive(paths, name, bad)


def _open_file(path: Path) -> Source:
    from unlabeled.data.recognise import kind_by_name, sniff
    from unlabeled.data.sources.files import head_of

    head, name = head_of(path), printable(path.name)
    if not head:
        raise UserError(f"{name} is empty or cannot be read; give {_READ}.")
    container = _container(path, head)
    if container == "npz":
        from unlabeled.data.sources.array import open_npz

        return open_npz(path)
    if container:
        return _open_containers(container, [path], name)
    if head.startswith(b"\x93NUMPY"):
        from unlabeled.data.sources.array import open_npy

        return open_npy(path)
    found = sniff(head)
    # A file called text is one, whatever its bytes: its bad blocks are then listed one by one.
    if found == "text" or (found is None and kind_by_name(path.name) == "text"):
        from unlabeled.data.sources.text import TextFile

        return TextFile(path)
    if found:
        raise UserError(f"{name} is a single {'image' if found == 'image' else 'recording'}; give the folder it is in.")
    raise UserError(f"{name} is of no kind that can be read; give {_READ}.")


def _open_folder(root: Path) -> Source:
    """Files of one kind, or, where they hold more than half of the bytes, containers of one kind (shards)."""
    from unlabeled.data.recognise import describe, kind_by_name
    from unlabeled.data.sources.files import head_of
    from unlabeled.data.sources.folder import PLURALS, Folder, choose_kind, walk
    from unlabeled.data.sources.pieces import in_pieces

    files, bad = walk(root)
    root = root.resolve()
    held: dict[str, list[Path]] = {}
    for file in files:
        if kind_by_name(file.path) is None and (found := _container(root / file.path, head_of(root / file.path))):
            held.setdefault(found, []).append(root / file.path)
    held.pop("npz", None)  # one at a time: their arrays need not belong together
    size = {root / f.path: f.size for f in files}
    bytes_of = {kind: sum(size[p] for p in paths) for kind, paths in held.items()}
    loose = sum(f.size for f in files if kind_by_name(f.path) is not None)
    if held and max(bytes_of.values()) > loose:
        kind = max(bytes_of, key=lambda k: bytes_of[k])
        taken = set(held[kind])
        for path in size:
            if path not in taken:
                shown = printable(path.relative_to(root).as_posix())
                bad.append(Quarantined(shown, f"is {describe(head_of(path))}, the folder is {kind} files"))
        return _open_containers(kind, sorted(taken), printable(root.name), bad)
    kind, kept, others = choose_kind(root, files)
    bad += others
    if kind is None:
        raise UserError(_nothing(printable(root.name), bad))
    if kind == "text" and len(kept) == 1:
        from unlabeled.data.sources.text import TextFile

        return TextFile(root / kept[0].path, bad)
    if not kept:
        raise UserError(f"{root} has no {PLURALS[kind]} that can be used.")
    return in_pieces(Folder(root, kind, kept, bad))
