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
    """The first statement of tyro's box without the frame, and what to do."""
    lines = _statement(box)
    said = " ".join(" ".join(lines).split()).rstrip(".") or "These options do not fit"
    if said.startswith("Missing from"):
        indents = [len(line) - len(line.lstrip()) for line in lines]
        names = [line.strip() for line, indent in zip(lines, indents) if indent == indents[1]]
        said = f"Say also: {', '.join(names)}"
    elif match := re.match(r"Error parsing (\S+): no type matching .* instantiated from \['?(.*?)'?\]", said):
        said = f"{match[1]} does not take {match[2]!r}"
    elif match := re.match(r"invalid choice '(.*)' for argument '(.*)'. Expected one of (.*)", said):
        choices = sorted(set(re.findall(r"'([^']*)'", match[3])) - {"None"})
        hint = suggest(match[1], choices).rstrip("?")
        said = f"{match[2]} is one of {', '.join(choices)} and not {match[1]!r}{hint}"
    known = [f"--{name.replace('_', '-')}" for name in _names(kind)]
    given = (w.partition("=")[0].replace("_", "-") for w in words if w.startswith("--") and len(w) > 2)
    if (unknown := next((w for w in given if w not in known), None)) is not None:
        said = f"There is no option {unknown}{suggest(unknown, known).rstrip('?')}"
    return f"{said}; `unlabeled {command} --help` lists what can be said."


def _statement(box: str) -> list[str]:
    """Lines of the first block between the rules of a box, drawn with lines or, where those cannot be shown, in
    ASCII, where the title is a block of its own."""
    blocks: list[list[str]] = [[]]
    for line in box.splitlines():
        inside = re.sub(r"^│ ?|\s*│$", "", line)
        if line.startswith(("╭", "╰")):
            continue
        if inside.strip() and set(inside.strip()) <= {"─", "-"}:
            blocks.append([])
        elif inside.strip():
            blocks[-1].append(inside)
    return blocks[0] if "╭" in box or len(blocks) == 1 else blocks[1]


def _names(kind: Any) -> list[str]:
    """Names of all fields of a dataclass, or of all members of a union of dataclasses."""
    if not dataclasses.is_dataclass(kind):
        return [name for part in typing.get_args(kind) for name in _names(part)]
    return [f.name for f in dataclasses.fields(kind)]
