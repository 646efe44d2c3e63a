"""The front door."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from unlabeled.cli.parse import parse

__all__ = ["main"]


@dataclass(frozen=True)
class Fit:
    """Look at the data, choose a system, train within the budget, evaluate against baselines, write a report.

    Example: unlabeled fit photos/ --budget 10m --goal represent
    """

    data: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
    """A folder, a file or a built-in name such as fashion, moby-dick or python."""
    budget: str = "10m"
    """Wall clock in all, evaluation and report included: 60s, 10m, 2h."""
    goal: Annotated[
        Literal["represent", "generate"] | None,
        tyro.conf.arg(help_behavior_hint="(default: what the kind of data is mostly used for)"),
    ] = None
    """represent: features for search and classification. generate: new examples."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="(default: runs/SYSTEM-DATA-N)")] = None
    """Folder of the run."""
    seed: int = 0
    """Of weights, order and augmentation."""
    pilots: bool = True
    """Choose a size by short runs where there is time for them; with --no-pilots by rules alone."""
    json: bool = False
    """Print one JSON object."""


def main(words: Sequence[str]) -> dict[str, Any]:
    got = parse(Fit, words, "fit")
    running = _seconds_running()

    from unlabeled.fit import carry_out

    done = carry_out(
        got.data,
        budget=got.budget,
        goal=got.goal,
        out=got.out,
        seed=got.seed,
        pilots=got.pilots,
        since=time.perf_counter() - running,
    )
    return done.to_dict()


def _seconds_running() -> float:
    """How long this process has been running: starting Python and importing is part of the budget too."""
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        import os

        return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK"))
    except (OSError, ValueError, IndexError, AttributeError):
        return time.process_time()  # other systems: what it has computed so far is most of it
