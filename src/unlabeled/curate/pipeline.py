"""Run a recipe over a corpus of any size: passes over tasks, joined by grouping on disk.

The input is cut into tasks (`read.plan`). A pass takes each task's documents, settles what the step over the corpus before
it has found, applies the rules that follow, and notes the keys of the next step over the corpus; between two passes
the keys of all tasks are grouped, a range of keys at a time. The last pass mixes and writes. Every job writes files of
its own, put in place whole, with a summary last: so a killed run goes on where it was, a second run gives the same bytes,
any number of workers gives the same bytes, and memory is that of a task and of a range, not of the corpus.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import math
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import CodeType
from typing import Any

import numpy as np

from unlabeled.core.errors import UserError
from unlabeled.curate import catalogue, ledger
from unlabeled.curate.catalogue import FILE_MODULE
from unlabeled.curate.recipe import Bound, Edit, Recipe, Where
from unlabeled.curate.running.between import group, select, sketched
from unlabeled.curate.running.finish import Finish, deal, gather, held
from unlabeled.curate.running.passes import run_pass
from unlabeled.curate.running.plan import Plan, Progress, folder_of, jobs_of, publish, run_all, summaries_of
from unlabeled.curate.running.runner import Engine, Runner, cores, runner
from unlabeled.curate.running.written import Rows, put
from unlabeled.curate.steps import kind_of
from unlabeled.data.sources.files import digest_of_files

__all__ = ["Result", "curate"]

TASK_BYTES = 32 << 20  # of input in one task
PART_BYTES = 128 << 20  # of text in one file of a shuffled corpus


@dataclass(frozen=True)
class Result:
    """Where a curated corpus is and what was done. totals: as in `totals.json`."""

    out: Path
    totals: Mapping[str, Any]

    @property
    def corpus(self) -> Path:
        """The folder that `train` and `fit` read (they take `out` itself as well)."""
        return self.out / "corpus"


def curate(
    data: str | Path | Mapping[str, str | Path] | Sequence[tuple[str, Path]],
    recipe: Recipe | str,
    out: str | Path,
    *,
    workers: int = 0,
    engine: Engine = "local",
    task_bytes: int = TASK_BYTES,
    progress: Progress = lambda what, done, count: None,
) -> Result:
    """Curate raw documents into the folder `out`, or go on with it where it was interrupted.

        unlabeled.curate("crawl/", "fineweb", "corpus")
        unlabeled.curate({"web": "crawl/", "code": "src/"}, Recipe("mine", [Exact(), Near()]), "corpus")

    data: a folder or file; or several by the name of the source, in order of precedence, "" for no name of its own.
    recipe: one, or its name, or the path of a file. workers: processes, all cores if 0; with Ray tasks at a time. progress:
    called with what is being done, jobs done, jobs in all.

    Raises:
        UserError: where nothing can be read, or `out` holds something else.
    """
    places = [("", Path(data))] if isinstance(data, (str, Path)) else _places(data)
    recipe = catalogue.recipe(recipe) if isinstance(recipe, str) else recipe
    out = Path(out)
    from unlabeled.curate.reading import read

    tasks, refused = read.plan(places, task_bytes)
    if not tasks:
        first = f", the first because {refused[0].id} {refused[0].reason}" if refused else ""
        raise UserError(f"There is nothing to read in {', '.join(str(p) for _, p in places)}{first}.")
    recipe = _with_extraction(recipe)
    identity = _identity(recipe, tasks)
    out.mkdir(parents=True, exist_ok=True)
    if (done := _finished(out, identity)) is not None:
        return Result(out, done)
    prepared = dataclasses.replace(recipe, steps=[_prepared(step, out / "work") for step in recipe.steps])
    priority = {name: rank for rank, name in reversed(list(enumerate(name for name, _ in places if name)))}
    plan = Plan(out, prepared, priority, tasks)
    count = min(workers or cores(), len(tasks)) if engine == "local" else workers
    with runner(engine, count) as run:
        summaries = _passes(plan, run, engine == "local" and count == 1, progress)
        totals = _write(plan, run, summaries, refused, progress)
    totals = {"recipe": recipe.name, "about": recipe.about, "paper": recipe.paper, **totals, "identity": identity}
    put(out / "totals.json", json.dumps(totals, indent=1, ensure_ascii=False))
    shutil.rmtree(plan.work)
    return Result(out, totals)


def _places(data: Mapping[str, str | Path] | Sequence[tuple[str, Path]]) -> list[tuple[str, Path]]:
    return [(name, Path(path)) for name, path in (data.items() if isinstance(data, Mapping) else data)]


# ---- before the first pass ----------------------------------------------------------------------------------


def _with_extraction(recipe: Recipe) -> Recipe:
    from unlabeled.curate.reading.extract import extract

    if not recipe.extract:
        return recipe
    return dataclasses.replace(recipe, steps=[Edit(functools.partial(extract, by=recipe.extract)), *recipe.steps])


def _prepared(step: Any, work: Path) -> Any:
    """A step that builds an index first (evaluation sets, a classifier) does so here, once, for all workers."""
    if not hasattr(step, "index"):
        return step
    work.mkdir(parents=True, exist_ok=True)
    return step.index(work)


def _described(value: Any) -> Any:
    """A step as plain data that changes when what it does is set differently; functions by name."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: _described(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"": type(value).__qualname__, **fields}
    if isinstance(value, functools.partial):
        return [_described(value.func), _described(list(value.args)), _described(dict(value.keywords))]
    if isinstance(value, Mapping):
        return {str(k): _described(v) for k, v in sorted(value.items(), key=lambda item: str(item[0]))}
    if isinstance(value, (set, frozenset)):
        return sorted(map(str, value))
    if isinstance(value, Iterable) and not isinstance(value, (str, bytes)):
        return [_described(v) for v in value]
    if callable(value):
        code = getattr(getattr(value, "__wrapped__", value), "__code__", None)
        told = hashlib.sha256(repr(_code(code)).encode()).hexdigest()[:16] if code else ""
        module = "" if value.__module__.startswith(FILE_MODULE) else value.__module__
        return f"{module}.{getattr(value, '__qualname__', type(value).__qualname__)} {told}".strip()
    if isinstance(value, (str, Path)) and os.sep in str(value) and Path(value).exists():
        return [str(value), *_content(Path(value))]
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


def _code(code: CodeType) -> list[Any]:
    """What a function does, without where it lies: its own code and that of the functions inside it."""
    constants = [
        _code(c) if isinstance(c, CodeType) else sorted(map(repr, c)) if isinstance(c, frozenset) else c
        for c in code.co_consts
    ]
    return [code.co_code, code.co_names, constants]


def _content(path: Path) -> list[str]:
    """What tells whether evaluation sets, a classifier or an encoder have changed."""
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    return [digest_of_files(files)]


def _identity(recipe: Recipe, tasks: Sequence[Any]) -> str:
    """Digest of the recipe, the input and the version: who has the same gets the same bytes."""
    about = [
        _described(dataclasses.replace(recipe, file="")),
        [task.fingerprint for task in tasks],
        importlib.metadata.version("unlabeled"),
    ]
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def _finished(out: Path, identity: str) -> Mapping[str, Any] | None:
    """The totals of a run that is complete; None where there is something to do.

    Raises:
        UserError: where the folder belongs to another run or is no curated corpus at all.
    """
    started = out / "curate.json"
    if not started.exists():
        if any(out.iterdir()):
            raise UserError(f"{out} is not empty and no curated corpus: name a new folder with --out.")
        put(started, json.dumps({"identity": identity}))
        return None
    if json.loads(started.read_text())["identity"] != identity:
        raise UserError(
            f"{out} was made from other data or by another recipe: name a new folder with --out, or delete this one."
        )
    totals = out / "totals.json"
    if not totals.exists():
        return None
    shutil.rmtree(out / "work", ignore_errors=True)  # where it was killed while tidying up
    return json.loads(totals.read_text())


# ---- passes -------------------------------------------------------------------------------------------------


def _passes(plan: Plan, run: Runner, alone: bool, progress: Progress) -> list[list[dict[str, Any]]]:
    """All passes and groupings; for each pass a summary of each task."""
    segments = plan.segments()
    plan.work.mkdir(parents=True, exist_ok=True)
    publish(plan, alone)
    passed: list[list[dict[str, Any]]] = []
    for number, (_, _, following) in enumerate(segments):
        said = f"pass {number + 1} of {len(segments)}"
        paths = run_all(run, run_pass, jobs_of(plan, number, len(plan.tasks)), folder_of(plan, number), progress, said)
        passed.append(summaries_of(paths))
        if following is None:
            break
        if kind_of(following) == "selection":
            select(plan, number, following, passed[-1], progress)
        else:
            if hasattr(following, "sketch"):
                sketched(plan, run, number, following, progress)
            group(plan, run, number, following, passed[0], progress)
        if number:  # what the pass before wrote has been read
            shutil.rmtree(folder_of(plan, number - 1) / "documents", ignore_errors=True)
    return passed


# ---- after the last pass ------------------------------------------------------------------------------------


def _write(
    plan: Plan, run: Runner, passed: Sequence[Sequence[Mapping[str, Any]]], refused: Sequence[Any], progress: Progress
) -> dict[str, Any]:
    """Mix, write the corpus and the ledger; the totals."""
    sizes: Counter[str] = Counter()
    for summary in passed[-1]:
        sizes.update(summary["bytes"])
    mix = plan.recipe.mix if sum(sizes.values()) else None
    epochs = None if mix is None else mix.epochs_of(dict(sorted(sizes.items())))
    share = plan.recipe.hold_out
    whole = sum(size * (1 if epochs is None else epochs[source]) for source, size in sizes.items())
    buckets = max(1, math.ceil(whole / PART_BYTES)) if epochs is not None or share else 0
    folders = [folder_of(plan, number) for number in range(len(passed))]
    finish = Finish(plan.out, folders, epochs, share, buckets)
    tasks = range(len(plan.tasks))
    if share:
        run_all(run, held, [(finish, t) for t in tasks], plan.work / "held", progress, "holding out", "npy")
    paths = run_all(run, deal, [(finish, t) for t in tasks], plan.work / "finish", progress, "writing")
    if buckets:
        parts = [(finish, "train", which) for which in range(buckets)]
        parts += [(finish, split, 0) for split in ("validation", "test") if share]
        for done, _ in enumerate(run.map(gather, parts), 1):
            progress("shuffling", done, len(parts))
    listed = Rows(plan.out / "ledger" / "refused.parquet")
    for thing in refused:
        listed.add(0, thing.id, "", "quarantined", "reading", thing.reason)
    listed.close()
    return _totals(plan, passed, summaries_of(paths), refused, mix, sizes)


def _totals(
    plan: Plan,
    passed: Sequence[Sequence[Mapping[str, Any]]],
    finished: Sequence[Mapping[str, Any]],
    refused: Sequence[Any],
    mix: Any,
    sizes: Mapping[str, int],
) -> dict[str, Any]:
    read: Counter[str] = Counter()
    for summary in passed[0]:
        read.update(summary["read"])
    outcomes: Counter[str] = Counter()
    written: Counter[str] = Counter()
    for summary in finished:
        outcomes.update(summary["outcomes"])
        written.update(summary["written"])
    rules: list[dict[str, Any]] = []
    limits = {step.name: [_finite(step.at_least), _finite(step.at_most)] for step in _bounds(plan.recipe.steps)}
    for summaries in passed:
        for column in zip(*(s["tallies"] for s in summaries)):
            name = column[0][0]
            told = ledger.merge(tally for _, tally in column)
            rules.append({"rule": name, "limits": limits.get(name, [None, None]), **told})
    entries, rows = sum(s["entries"] for s in passed[0]), sum(f["rows"] for f in finished)
    assert entries == rows, f"{entries} things were read and {rows} are in the ledger"
    table = None
    if mix is not None:
        table = [{**dataclasses.asdict(row), "warning": row.warning} for row in mix.table(dict(sorted(sizes.items())))]
    clusters: Counter[str] = Counter()
    for number in range(len(passed)):
        with_sizes = folder_of(plan, number) / "clusters.json"
        if with_sizes.exists():
            clusters.update(json.loads(with_sizes.read_text()))
    told = [folder_of(plan, number) / "note.txt" for number in range(len(passed))]
    kept = outcomes["kept"] + outcomes["validation"] + outcomes["test"]
    sources = sorted(s for s in written if not s.startswith("\0"))
    return {
        "documents": {"read": read["documents"], "kept": kept, "written": sum(written[f"\0{s}"] for s in sources)},
        "characters_read": read["characters"],
        "bytes_written": sum(written[s] for s in sources),
        "quarantined": read["quarantined"] + len(refused),
        "quarantine": [{"id": q.id, "reason": q.reason} for q in list(refused)[:20]],
        "outcomes": dict(sorted(outcomes.items())),
        "rules": rules,
        "sources": {s: {"documents": written[f"\0{s}"], "bytes": written[s]} for s in sources},
        "clusters": dict(sorted(clusters.items(), key=lambda item: int(item[0]))),
        "mix": table,
        "notes": [note for path in told if path.exists() and (note := path.read_text())],
        "contaminated": _contaminated(plan, passed),
    }


def _contaminated(plan: Plan, passed: Sequence[Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Of every evaluation set that the corpus was cleared of, what was found in it as it was before."""
    found: list[dict[str, Any]] = []
    for step in plan.recipe.steps:
        if hasattr(step, "contaminated"):
            hits = {place for summaries in passed for s in summaries for place in s["hits"].get(step.name, ())}
            told = step.contaminated(np.array(sorted(hits), np.int64))
            found += [{"set": t.set, "items": t.items, "ids": list(t.ids)} for t in told]
    return found


def _bounds(steps: Iterable[Any]) -> Iterator[Bound]:
    for step in steps:
        inner = step.rule if isinstance(step, Where) else step
        if isinstance(inner, Bound):
            yield inner


def _finite(limit: float) -> float | None:
    return limit if math.isfinite(limit) else None
