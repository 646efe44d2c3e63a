"""Words of a command line to a dataclass, through tyro; a mistake becomes one sentence."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
import typing
from collections.abc import Sequence
from typing import Any

from unlabeled.core.errors import UserError, suggest

__all__ = ["parse"]


def parse(kind: Any, words: Sequence[str], command: str, description: str | None = None) -> Any:
    """Build `kind` (a dataclass, or a union of some for subcommands) from the words after `unlabeled command`.

    Prints help and raises SystemExit(0) where it is asked for.

    Raises:
        UserError: where the words do not fit; with a suggestion where an option is misspelt.
    """
    import tyro

    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(
                kind,
                prog=f"unlabeled {command}",
                description=description,
                args=list(words),
                config=(tyro.conf.FlagCreatePairsOff, tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes),
                compact_help=False,
            )
    except SystemExit as left:
        if not left.code:
            raise
        raise UserError(_sentence(said.getvalue(), kind, words, command)) from None


def _sentence(box: str, kind: Any, words: Sequence[str], command: str) -> str:
    """The first statement of tyro's box, without its frame (drawn in ASCII on some terminals), and what to do."""
    lines = [re.sub(r"^[│|]\s?|\s*[│|]$", "", line) for line in box.splitlines()]
    lines = [line for line in lines if not line.startswith(("╭", "╰", "+"))]
    rule = next((i for i, line in enumerate(lines) if set(line.strip()) in ({"─"}, {"-"})), len(lines))
    said = " ".join(" ".join(lines[:rule]).split()).rstrip(".") or "These options do not fit"
    if said.startswith("Missing from"):
        names = [line.strip() for line in lines[1:rule] if re.match(r"^ {4}\S", line)]
        said = f"Say also: {', '.join(names)}"
    known = [f"--{name.replace('_', '-')}" for name in _names(kind)]
    given = (w.partition("=")[0].replace("_", "-") for w in words if w.startswith("--") and len(w) > 2)
    if (unknown := next((w for w in given if w not in known), None)) is not None:
        said = f"There is no option {unknown}{suggest(unknown, known).rstrip('?')}"
    return f"{said}; `unlabeled {command} --help` lists what can be said."


def _names(kind: Any) -> list[str]:
    """Names of all fields of a dataclass, or of all members of a union of dataclasses."""
    if not dataclasses.is_dataclass(kind):
        return [name for part in typing.get_args(kind) for name in _names(part)]
    return [f.name for f in dataclasses.fields(kind)]
