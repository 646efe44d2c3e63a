"""What every job of a run knows, where its files are, and how jobs are run so that none is run twice."""

from __future__ import annotations

import functools
import json
import pickle
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unlabeled.core.errors import UserError
from unlabeled.curate import catalogue
from unlabeled.curate.recipe import Recipe
from unlabeled.curate.running.runner import Runner
from unlabeled.curate.running.written import put
from unlabeled.curate.steps import kind_of

__all__ = [
    "Plan",
    "Progress",
    "folder_of",
    "jobs_of",
    "plan_at",
    "publish",
    "run_all",
    "save",
    "summaries_of",
    "table_of",
]

Progress = Callable[[str, int, int], object]


@dataclass(frozen=True)
class Plan:
    """Everything a job needs to know, the same for all jobs of a run."""

    out: Path
    recipe: Recipe
    priority: Mapping[str, int]
    tasks: Sequence[Any]

    @property
    def work(self) -> Path:
        return self.out / "work"

    def segments(self) -> list[tuple[Any | None, list[Any], Any | None]]:
        """For each pass: the step over the corpus that is settled, the rules, the step whose keys are noted."""
        found: list[tuple[Any | None, list[Any], Any | None]] = []
        before: Any | None = None
        rules: list[Any] = []
        for step in self.recipe.steps:
            if kind_of(step) == "rule":
                rules.append(step)
            else:
                found.append((before, rules, step))
                before, rules = step, []
        return [*found, (before, rules, None)]

    def following(self, number: int) -> Any:
        """The step over the corpus that comes after a pass."""
        return self.segments()[number][2]


def folder_of(plan: Plan, number: int) -> Path:
    return plan.work / f"pass-{number}"


def table_of(plan: Plan, number: int) -> Path:
    return folder_of(plan, number) / "table.npy"


_HERE: dict[Path, Plan] = {}  # plans that cannot be sent, for jobs in this process


def publish(plan: Plan, alone: bool) -> None:
    """Put the plan where the jobs find it. alone: they run in this process, so that it need not be sent.

    Raises:
        UserError: where it must be and cannot.
    """
    path = plan.work / "plan.pickle"
    _HERE.pop(path, None)
    try:
        put(path, pickle.dumps((plan.recipe.file, pickle.dumps(plan))))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        if not alone:
            raise UserError(
                f"The recipe {plan.recipe.name} cannot be sent to workers ({error}): put its functions into a file and give "
                "that as the recipe, or use one worker."
            ) from error
        _HERE[path] = plan


def plan_at(path: Path) -> Plan:
    """The plan of a job; pickled a moment ago by the process that started it, and read by nobody else."""
    return _HERE[path] if path in _HERE else _loaded(path, path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=2)
def _loaded(path: Path, changed_ns: int) -> Plan:
    file, plan = pickle.loads(path.read_bytes())
    if file:  # functions of a user's recipe are pickled by name
        catalogue.load(Path(file))
    return pickle.loads(plan)


def run_all(
    run: Runner,
    function: Callable[[Any], None],
    jobs: Sequence[Any],
    folder: Path,
    progress: Progress,
    said: str,
    ending: str = "json",
) -> list[Path]:
    """Run the jobs that have not left their file in a folder yet; the paths of all files, in the order of the jobs."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{place:05d}.{ending}" for place in range(len(jobs))]
    missing = [job for job, path in zip(jobs, paths) if not path.exists()]
    done = len(jobs) - len(missing)
    progress(said, done, len(jobs))
    for _ in run.map(function, missing):
        progress(said, done := done + 1, len(jobs))
    return paths


def jobs_of(plan: Plan, number: int, count: int) -> list[tuple[Path, int, int]]:
    return [(plan.work / "plan.pickle", number, job) for job in range(count)]


def summaries_of(paths: Iterable[Path]) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in paths]


def save(path: Path, array: np.ndarray) -> None:
    with (temporary := path.with_suffix(".part")).open("wb") as file:
        np.save(file, array)
    temporary.replace(path)
