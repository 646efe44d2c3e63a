"""Train a named system on data."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from unlabeled.cli.describe import About, about, settings
from unlabeled.cli.parse import parse
from unlabeled.core import catalogue
from unlabeled.core.errors import UserError, suggest

__all__ = ["main"]

LOOP = Path(catalogue.__file__).parent.parent / "engine" / "loop.py"
EXAMPLE = "Example: unlabeled train {system} {data} --budget 2000steps --seed 1"


def main(words: Sequence[str]) -> dict[str, Any]:
    known = catalogue.methods()
    system = next((w for w in words if w.partition(".")[0] in known or (w.endswith(".py") and w[0] != "-")), None)
    if system is None and words and not words[0].startswith("-"):
        hint = suggest(words[0], known) or f"; the methods are {', '.join(known)}."
        raise UserError(f"There is no method {words[0]!r}{hint}")
    asked = about(system) if system is not None else None
    engine = settings(LOOP, "Settings")
    kind, overridable = _arguments(system, asked, engine)
    summary = (
        asked.summary if asked else "Train a named system on data; name one before --help to see its settings too."
    )
    example = EXAMPLE.format(system=system or "simclr", data="fashion" if system != "gpt2" else "moby-dick")
    if "--help" in words or "-h" in words:
        words = ["--help"]  # with the system among the words, tyro would leave it out of the usage
    got = parse(kind, words, "train", f"{summary}\n\n{example}")

    from unlabeled.cli.progress import console
    from unlabeled.engine.loop import Settings
    from unlabeled.engine.recipe import train

    overrides = {name: getattr(got, name) for name in overridable if getattr(got, name) is not None}
    chosen = Settings(**{s.name: getattr(got, s.name) for s in engine})
    with console(got.system) as observers:
        run = train(
            got.system,
            got.data,
            variant=got.variant,
            overrides=overrides,
            settings=chosen,
            out=got.out,
            given=got.given,
            observers=observers,
        )
    return finished(run)


def finished(run: Any) -> dict[str, Any]:
    """Say where a run lies and what can be done with it; its last figures for --json."""
    rows = run.metrics()
    print(f"{run.path} is trained. What it can do next:")
    print(f"  unlabeled evaluate {run.path}\n  unlabeled report {run.path}")
    return {
        "run": str(run.path),
        "system": run.config["system"],
        "status": run.status,
        "last": rows[-1] if rows else {},
    }


def _arguments(system: str | None, asked: About | None, engine: Sequence[Any]) -> tuple[type, list[str]]:
    """The dataclass of everything that can be said, and which of its fields are settings of the method.

    Fields of the method are None where nothing was said: the variant's own value then holds.
    """
    variants = f": {', '.join(asked.variants)}" if asked else ""
    fields: list[Any] = [
        ("system", Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SYSTEM", help=_systems())]),
        (
            "data",
            Annotated[
                str, tyro.conf.Positional, tyro.conf.arg(metavar="DATA", help="A folder, a file or a built-in name.")
            ],
        ),
        (
            "variant",
            Annotated[
                str | None,
                tyro.conf.arg(help=f"A published size or setting{variants}.", metavar="NAME", help_behavior_hint=""),
            ],
            dataclasses.field(default=None),
        ),
        (
            "out",
            Annotated[
                Path | None,
                tyro.conf.arg(
                    help="Folder of the run.", help_behavior_hint="(default: runs/SYSTEM-DATA-N)", metavar="DIR"
                ),
            ],
            dataclasses.field(default=None),
        ),
        (
            "given",
            Annotated[
                tuple[Path, ...],
                tyro.conf.arg(
                    help="Runs of earlier stages, for a stage alone.",
                    help_behavior_hint="(default: none)",
                    metavar="RUN ...",
                ),
            ],
            dataclasses.field(default=()),
        ),
        ("json", Annotated[bool, tyro.conf.arg(help="Print one JSON object.")], dataclasses.field(default=False)),
    ]
    fields += [
        (s.name, Annotated[s.type, tyro.conf.arg(help=s.help)], dataclasses.field(default=s.default)) for s in engine
    ]
    taken = {f[0] for f in fields}
    mine = [s for s in (asked.settings if asked else ()) if s.name not in taken]
    for s in mine:
        hint = tyro.conf.arg(help=s.help, help_behavior_hint=f"(default: {s.default})", metavar=_metavar(s.type))
        fields.append((s.name, Annotated[s.type | None, hint], dataclasses.field(default=None)))
    return dataclasses.make_dataclass("Train", fields, frozen=True), [s.name for s in mine]


def _metavar(kind: Any) -> str:
    """What stands for a value in the help; None, which only means that nothing was said, is not offered."""
    if typing.get_origin(kind) is Literal:
        return "{" + ",".join(str(choice) for choice in typing.get_args(kind)) + "}"
    if typing.get_origin(kind) is tuple:
        inner = typing.get_args(kind)
        return f"{_metavar(inner[0])} ..." if inner[-1] is ... else " ".join(map(_metavar, inner))
    return "True|False" if kind is bool else getattr(kind, "__name__", "value").upper()


def _systems() -> str:
    return f"One of {', '.join(catalogue.methods()) or 'the methods'}, or a path to a Python file with a Method."
