"""unlabeled scale advise: what to train, from runs that were."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from unlabeled.core.errors import UserError

if TYPE_CHECKING:
    from unlabeled.scale.advise import Advice

__all__ = ["Advise", "advise", "inputs"]


@dataclass(frozen=True)
class Advise:
    """The best model for a budget of compute, data or serving, what more of each would bring, and what a loss takes.

    RUNS is a sweep, a CSV with a header (params, tokens, loss; flops where they are not 6 x params x tokens), or a folder of
    run folders. Every number comes with an interval, and what speaks against the law is said first.

    Example: unlabeled scale advise sweep --compute 1e15 --data 2e8 --served 1e10
    """

    runs: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUNS")]
    """A CSV or a folder."""
    law: str = "chinchilla"
    """A law of params and tokens: chinchilla, tied, overtraining, kaplan-nd or data-constrained."""
    compute: tuple[float, ...] = ()
    """Budgets in FLOPs; by default the largest of the runs, and 10 and 100 times that."""
    data: float | None = None
    """Unique tokens (or examples) there are."""
    served: float | None = None
    """Tokens that the model will serve in its life."""
    largest: float | None = None
    """Parameters that the model must not exceed."""
    at: tuple[str, ...] = ()
    """A model whose growth is weighed: params=1e6 tokens=2e7; by default the best for the largest budget of the runs."""
    reach: float | None = None
    """A loss to come to."""
    highest: int = 0
    """Leave out so many runs with the greatest losses."""
    incomplete: bool = False
    """Leave out rows without a number where the law needs one, instead of refusing the table."""
    draws: int = 1000
    """Of the bootstrap over runs; 0 for no intervals."""
    level: float = 0.9
    """Of the intervals."""
    seed: int = 0
    """Of the bootstrap."""
    out: Path | None = None
    """The page; by default advice.html in RUNS, or here where RUNS is a CSV."""
    json: bool = False
    """Print one JSON object."""


def advise(got: Advise, words: Sequence[str]) -> dict[str, Any]:
    """Print advice, write its page, and return it in plain values."""
    at = inputs(got.at) if got.at else None
    if not got.runs.exists():
        raise UserError(f"There is no file or folder {got.runs}; give a CSV of runs, a sweep or a folder of runs.")
    if got.draws < 0 or got.highest < 0:
        raise UserError("--draws and --highest are 0 or more.")
    out = got.out or (got.runs if got.runs.is_dir() else Path()) / "advice.html"
    if out.is_dir():
        raise UserError(f"{out} is a folder; give --out the name of a page in it, such as {out / 'advice.html'}.")

    from unlabeled.report import text_of
    from unlabeled.report.scaling import write
    from unlabeled.scale.advise import advise
    from unlabeled.scale.table import read

    found = advise(
        read(got.runs), law=got.law, compute=got.compute, data=got.data, served=got.served, largest=got.largest, at=at,
        reach=got.reach, draws=got.draws, level=got.level, seed=got.seed, highest=got.highest, incomplete=got.incomplete,
    )  # fmt: skip
    print("\n".join(found.headline))
    if found.cautions:
        print("\n" + "\n".join(f"Mind: {caution}" for caution in found.cautions))
    print("\n" + text_of({"tables": found.tables}))
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write(found, out, shlex.join(["unlabeled", "scale", *words]))
    except OSError as error:
        raise UserError(f"The page {out} cannot be written ({error.strerror}); name another with --out.") from None
    print(f"\nThe page is {out}.")
    print(f"Next: {_next(got.runs, found)}")
    return {"page": str(out), **found.json()}


def _next(runs: Path, found: Advice) -> str:
    """A larger sweep of the same system, where the table is a sweep's; else the run that would prove the advice."""
    from unlabeled.scale.wording import flops

    whole = 10 * float(found.table["flops"].sum())
    try:
        survey = json.loads((runs / "plan.json").read_text())["survey"]
        words = [
            "unlabeled",
            "scale",
            "plan",
            str(survey["system"]),
            str(survey["data"]),
            "--budget",
            f"{flops(whole)}flops",
        ]
        largest = max(row.params.high if row.params.high > 0 else row.params.value for row in found.compute[:2])
        return shlex.join([*words, "--largest", f"{largest:.0f}", "--out", "larger.json"])
    except (OSError, ValueError, KeyError, TypeError):
        return "train the first of these models, add its run to the table, and give the same command again."


def inputs(words: Sequence[str]) -> dict[str, float]:
    """NAME=NUMBER words of --at.

    Raises:
        UserError: where one is none.
    """
    found: dict[str, float] = {}
    for word in words:
        name, _, value = word.partition("=")
        try:
            found[name] = float(value)
        except ValueError:
            raise UserError(f"--at takes NAME=NUMBER, such as params=1e9, not {word!r}.") from None
    return found
