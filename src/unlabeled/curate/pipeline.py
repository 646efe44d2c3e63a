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
import pickle
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unlabeled.core.errors import UserError
from unlabeled.curate import keys, ledger
from unlabeled.curate.document import Document
from unlabeled.curate.finish import Finish, deal, gather, held
from unlabeled.curate.ledger import Tally, number_of
from unlabeled.curate.recipe import Bound, Drop, Edit, Edited, Recipe, Where
from unlabeled.curate.runner import Engine, Runner, cores, runner
from unlabeled.curate.steps import kind_of, rank_of
from unlabeled.curate.words import splitter
from unlabeled.curate.written import Documents, Rows, batches, put, stored

__all__ = ["Result", "curate"]

TASK_BYTES = 32 << 20  # of input in one task
RANGE_RECORDS = 8 << 20  # key records grouped at a time: about 300 MB while they are sorted
PART_BYTES = 128 << 20  # of text in one file of a shuffled corpus

Progress = Callable[[str, int, int], object]


@dataclass(frozen=True)
class Result:
    """Where a curated corpus is and what was done. totals: as in `totals.json`."""

    out: Path
    totals: Mapping[str, Any]

    @property
    def corpus(self) -> Path:
        """The folder that `train` and `fit` read (they take `out` itself as well)."""
        return self.out / "corpus"


@dataclass(frozen=True)
class _Plan:
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


def curate(
    places: Sequence[tuple[str, Path]],
    recipe: Recipe,
    out: Path,
    *,
    workers: int = 0,
    engine: Engine = "local",
    task_bytes: int = TASK_BYTES,
    progress: Progress = lambda what, done, count: None,
) -> Result:
    """Curate the data at some places into the folder `out`, or go on with it where it was interrupted.

    places: (name of the source or "", path) in order of precedence. workers: processes, all cores if 0; with Ray tasks at a
    time. progress: called with what is being done, jobs done, jobs in all.

    Raises:
        UserError: where nothing can be read, nothing is kept, or `out` holds something else.
    """
    from unlabeled.curate import read

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
    plan = _Plan(out, prepared, priority, tasks)
    with runner(engine, min(workers or cores(), len(tasks)) if engine == "local" else workers) as run:
        summaries = _passes(plan, run, progress)
        totals = _write(plan, run, summaries, refused, progress)
    totals = {"recipe": recipe.name, "about": recipe.about, "paper": recipe.paper, **totals, "identity": identity}
    put(out / "totals.json", json.dumps(totals, indent=1, ensure_ascii=False))
    shutil.rmtree(plan.work)
    return Result(out, totals)


# ---- before the first pass ----------------------------------------------------------------------------------


def _with_extraction(recipe: Recipe) -> Recipe:
    from unlabeled.curate.extract import extract

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
        told = hashlib.sha256(code.co_code + repr(code.co_consts).encode()).hexdigest()[:16] if code else ""
        return f"{value.__module__}.{getattr(value, '__qualname__', type(value).__qualname__)} {told}".strip()
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


def _identity(recipe: Recipe, tasks: Sequence[Any]) -> str:
    """Digest of the recipe, the input and the version: who has the same gets the same bytes."""
    about = [_described(recipe), [task.fingerprint for task in tasks], importlib.metadata.version("unlabeled")]
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


def _passes(plan: _Plan, run: Runner, progress: Progress) -> list[list[dict[str, Any]]]:
    """All passes and groupings; for each pass a summary of each task."""
    segments = plan.segments()
    shared = plan.work / "plan.pickle"
    plan.work.mkdir(parents=True, exist_ok=True)
    try:
        put(shared, pickle.dumps(plan))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise UserError(
            f"The recipe {plan.recipe.name} cannot be sent to workers ({error}): put its functions into a file and give "
            "that as --recipe."
        ) from error
    passed: list[list[dict[str, Any]]] = []
    for number, (_, _, following) in enumerate(segments):
        said = f"pass {number + 1} of {len(segments)}"
        paths = _all(run, _pass, _jobs(plan, number, len(plan.tasks)), _folder(plan, number), progress, said)
        passed.append(_summaries(paths))
        if following is None:
            break
        if kind_of(following) == "selection":
            _select(plan, number, following, passed[-1], progress)
        else:
            if hasattr(following, "sketch"):
                _sketched(plan, run, number, following, progress)
            _group(plan, run, number, following, passed[0], progress)
        if number:  # what the pass before wrote has been read
            shutil.rmtree(_folder(plan, number - 1) / "documents", ignore_errors=True)
    return passed


def _folder(plan: _Plan, number: int) -> Path:
    return plan.work / f"pass-{number}"


def _all(
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


def _jobs(plan: _Plan, number: int, count: int) -> list[tuple[Path, int, int]]:
    return [(plan.work / "plan.pickle", number, job) for job in range(count)]


def _summaries(paths: Iterable[Path]) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in paths]


@functools.lru_cache(maxsize=2)
def _loaded(path: Path, changed_ns: int) -> _Plan:
    return pickle.loads(path.read_bytes())  # our own, written a moment ago by the process that started this one


def _plan_at(path: Path) -> _Plan:
    return _loaded(path, path.stat().st_mtime_ns)


def _pass(job: tuple[Path, int, int]) -> None:
    """One task through one pass."""
    path, number, task = job
    plan = _plan_at(path)
    settled, rules, following = plan.segments()[number]
    folder = _folder(plan, number)
    tallies = [Tally() for _ in rules]
    settled_tally = Tally()
    kept, told = Documents(folder / "documents" / f"{task:05d}.arrow"), Rows(folder / "ledger" / f"{task:05d}.parquet")
    has_keys = following is not None and kind_of(following) != "selection" and not hasattr(following, "sketch")
    noted = keys.Runs(folder / "keys", f"{task:05d}", keys.KEY) if has_keys else None
    verdict = _verdict(plan, number, settled, task) if settled is not None else None
    sizes: Counter[str] = Counter()
    read = Counter[str]()
    entries = 0
    for row, document, origin in _entering(plan, number, task):
        entries = row + 1
        place = number_of(task, row)
        if document is None:  # quarantined
            told.add(place, origin.id, origin.source, "quarantined", "reading", origin.reason)
            read["quarantined"] += 1
            continue
        read["documents"] += 1
        read["characters"] += len(document.text)
        edits: Counter[str] = origin.edits
        dropped: tuple[str, Drop] | None = None
        if verdict is not None:
            outcome = verdict(place, document)
            settled_tally.note(settled, document, outcome)
            document, dropped = _applied(settled, document, outcome, edits)
        for rule, tally in zip(rules, tallies) if dropped is None else ():
            if isinstance(rule, Where):
                if not rule.holds(document):
                    continue
                rule = rule.rule
            if isinstance(rule, Bound):
                value = float(rule.measure(document))
                tally.note(rule, document, outcome := rule.judge(value), value)
            else:
                tally.note(rule, document, outcome := rule(document))
            document, dropped = _applied(rule, document, outcome, edits)
            if dropped is not None:
                break
        if dropped is not None:
            rule_name, drop = dropped
            told.add(
                place, document.id, document.source, "dropped", rule_name, drop.reason, drop.value,
                int(drop.instead) if drop.instead.isdigit() else None, origin.read, len(document.text), edits,
            )  # fmt: skip
            continue
        if noted is not None:
            noted.add(_key_records(plan, following, document, place))
        kept.add(place, document, origin.read, edits)
        sizes[document.source] += len(document.text.encode("utf-8", "surrogatepass"))
    for part in (kept, told, noted):
        if part is not None:
            part.close()
    names = [(settled.name, settled_tally)] if settled is not None else []
    put(
        folder / f"{task:05d}.json",
        json.dumps(
            {
                "tallies": [[name, t.plain()] for name, t in [*names, *((r.name, t) for r, t in zip(rules, tallies))]],
                "entries": entries,
                "read": dict(read),
                "kept": kept.count,
                "bytes": dict(sorted(sizes.items())),
            }
        ),
    )


def _applied(
    rule: Any, document: Document, outcome: Drop | Edited | None, edits: Counter[str]
) -> tuple[Document, tuple[str, Drop] | None]:
    if isinstance(outcome, Drop):
        return document, (rule.name, outcome)
    if isinstance(outcome, Edited):
        edits.update(outcome.counts)
        return document.edited(outcome.text), None
    return document, None


@dataclass
class _Origin:
    """What a document was when it was read, and what was done to it since."""

    id: str
    source: str
    read: int = 0
    reason: str = ""
    edits: Counter[str] = dataclasses.field(default_factory=Counter)


def _entering(plan: _Plan, number: int, task: int) -> Iterator[tuple[int, Document | None, _Origin]]:
    """(row in the ledger, document or None where it was refused, what it was) of one task, in order of reading."""
    words = splitter(plan.recipe.words)
    if number == 0:
        from unlabeled.curate import read

        for row, item in enumerate(read.documents(plan.tasks[task])):
            if isinstance(item, Document):
                item.splitter = words
                yield row, item, _Origin(item.id, item.source, len(item.text))
            else:
                yield row, None, _Origin(item.id, "", reason=item.reason)
        return
    for place, document, size, edits in stored(_folder(plan, number - 1) / "documents" / f"{task:05d}.arrow"):
        document.splitter = words
        yield place & 0xFFFFFFFF, document, _Origin(document.id, document.source, size, edits=edits)


# ---- between passes -----------------------------------------------------------------------------------------


def _key_records(plan: _Plan, step: Any, document: Document, place: int) -> np.ndarray:
    found = np.asarray(step.keys(document), np.uint64)
    if kind_of(step) == "groups":  # the same hash in another band means nothing
        found = keys.mixed(found, np.arange(1, len(found) + 1))
    if getattr(step, "scope", "all") == "source":
        digest = hashlib.blake2b(document.source.encode(), digest_size=8).digest()
        found = keys.mixed(found, int.from_bytes(digest, "little"))
    records = np.zeros(len(found), keys.KEY)
    records["key"], records["number"], records["place"] = found, place, np.arange(len(found))
    records["rank"] = rank_of(getattr(step, "keep", "earliest"), document, plan.priority)
    return records


def _group(
    plan: _Plan, run: Runner, number: int, step: Any, first: Sequence[Mapping[str, Any]], progress: Progress
) -> None:
    """Group the keys of a pass, range by range; for groups of documents also join what hangs together.

    first: the summaries of the first pass, which say how many documents each task has.
    """
    folder = _folder(plan, number)
    if (folder / "grouped").exists():
        return
    counted = folder / "ranges.txt"
    if not counted.exists():
        put(counted, str(max(1, math.ceil(keys.total(folder / "keys") / RANGE_RECORDS))))
    jobs = _jobs(plan, number, int(counted.read_text()))
    _all(run, _range, jobs, folder / "ranges", progress, f"{step.name}: grouping")
    if kind_of(step) == "groups":
        _join(plan, number, first)
    put(folder / "grouped", "")
    for what in ("keys", "found") if kind_of(step) == "groups" else ("keys",):
        shutil.rmtree(folder / what, ignore_errors=True)


def _sketched(plan: _Plan, run: Runner, number: int, step: Any, progress: Progress) -> None:
    """For a step whose keys would be as many as characters: find first which can be repeated at all."""
    folder = _folder(plan, number)
    if (folder / "grouped").exists():
        return
    jobs = _jobs(plan, number, len(plan.tasks))
    if not _table(plan, number).exists():
        paths = _all(run, _sketch, jobs, folder / "sketches", progress, f"{step.name}: first look", "npy")
        table = step.merge([np.load(path, mmap_mode="r") for path in paths])
        _save(_table(plan, number), table)
    _all(run, _keys_of, jobs, folder / "noted", progress, f"{step.name}: noting")
    shutil.rmtree(folder / "sketches", ignore_errors=True)


def _table(plan: _Plan, number: int) -> Path:
    return _folder(plan, number) / "table.npy"


def _save(path: Path, array: np.ndarray) -> None:
    with (temporary := path.with_suffix(".part")).open("wb") as file:
        np.save(file, array)
    temporary.replace(path)


def _sketch(job: tuple[Path, int, int]) -> None:
    path, number, task = job
    plan = _plan_at(path)
    folder = _folder(plan, number)
    texts = (document for _, document, _, _ in stored(folder / "documents" / f"{task:05d}.arrow"))
    _save(folder / "sketches" / f"{task:05d}.npy", plan.segments()[number][2].sketch(texts))


def _keys_of(job: tuple[Path, int, int]) -> None:
    path, number, task = job
    plan = _plan_at(path)
    folder = _folder(plan, number)
    step = plan.segments()[number][2].prepared(_table(plan, number))
    noted = keys.Runs(folder / "keys", f"{task:05d}", keys.KEY)
    for place, document, _, _ in stored(folder / "documents" / f"{task:05d}.arrow"):
        noted.add(_key_records(plan, step, document, place))
    noted.close()
    put(folder / "noted" / f"{task:05d}.json", "{}")


def _range(job: tuple[Path, int, int]) -> None:
    """One range of keys: what is repeated, or what belongs together."""
    path, number, which = job
    plan = _plan_at(path)
    folder = _folder(plan, number)
    count = int((folder / "ranges.txt").read_text())
    low, high = keys.ranges(count)[which]
    records, firsts = keys.duplicates(keys.between(folder / "keys", low, high, keys.KEY))
    step = plan.segments()[number][2]
    later = firsts != np.arange(len(records))
    first = records[firsts]
    if kind_of(step) == "repeats":
        found = np.zeros(int(later.sum()), keys.REPEAT)
        found["number"], found["place"] = records["number"][later], records["place"][later]
        found["first"] = first["number"][later]
        out = keys.Runs(folder / "found", f"{which:05d}", keys.REPEAT)
    else:
        found = np.zeros(int(later.sum()), keys.EDGE)
        found["number"], found["rank"] = records["number"][later], records["rank"][later]
        found["first"], found["first_rank"] = first["number"][later], first["rank"][later]
        found = np.unique(found[found["number"] != found["first"]])
        out = keys.Runs(folder / "found", f"{which:05d}", keys.EDGE)
    out.add(found)
    out.close()
    put(folder / "ranges" / f"{which:05d}.json", "{}")


def _join(plan: _Plan, number: int, first_pass: Sequence[Mapping[str, Any]]) -> None:
    """Documents that hang together through any keys: all but the best of each group, with the best's number.

    8 bytes are held for each document of the corpus, besides one file of edges at a time.
    """
    from unlabeled.curate.components import Components

    folder = _folder(plan, number)
    ends = np.cumsum([0, *(s["entries"] for s in first_pass)]).astype(np.int64)

    def index(numbers: np.ndarray) -> np.ndarray:
        return ends[(numbers >> np.uint64(32)).astype(np.int64)] + (numbers & np.uint64(0xFFFFFFFF)).astype(np.int64)

    joined = Components(int(ends[-1]))
    paths = sorted((folder / "found").glob("*.npy"))
    for path in paths:
        edges = np.load(path)
        joined.add(index(edges["first"]), index(edges["number"]))
    # of every group the member that is kept rather: smallest (rank, number) over all that an edge names
    named: list[np.ndarray] = []
    for path in paths:
        edges = np.load(path)
        ends_of_edges = np.zeros(2 * len(edges), [("number", "<u8"), ("rank", "<f8")])
        ends_of_edges["number"] = np.concatenate([edges["number"], edges["first"]])
        ends_of_edges["rank"] = np.concatenate([edges["rank"], edges["first_rank"]])
        named.append(np.unique(ends_of_edges))
    members = np.unique(np.concatenate(named)) if named else np.zeros(0, [("number", "<u8"), ("rank", "<f8")])
    roots = joined.roots(index(members["number"]))
    order = np.lexsort((members["number"], members["rank"], roots))
    roots, members = roots[order], members[order]
    starts = np.ones(len(roots), bool)
    starts[1:] = roots[1:] != roots[:-1]
    first = np.maximum.accumulate(np.where(starts, np.arange(len(roots)), 0))
    found = np.zeros(int((~starts).sum()), keys.REPEAT)
    found["number"], found["first"] = members["number"][~starts], members["number"][first[~starts]]
    sizes = np.unique(np.unique(roots, return_counts=True)[1], return_counts=True)
    put(folder / "clusters.json", json.dumps({str(s): n for s, n in zip(sizes[0].tolist(), sizes[1].tolist())}))
    out = keys.Runs(folder / "joined", "all", keys.REPEAT)
    out.add(found)
    out.close()


def _select(plan: _Plan, number: int, step: Any, summaries: Sequence[Mapping[str, Any]], progress: Progress) -> None:
    """A step that must see the whole corpus decides here, in this process."""
    folder = _folder(plan, number)
    if (folder / "found" / "selected.0.npy").exists():
        return
    corpus = _Corpus(folder / "documents", len(plan.tasks), sum(s["kept"] for s in summaries))
    progress(f"{step.name}: looking at {len(corpus):,} documents", 0, 1)
    selection = step.select(corpus)
    numbers = corpus.numbers()
    gone = np.flatnonzero(~np.asarray(selection.keep, bool))
    found = np.zeros(len(gone), keys.SELECTED)
    found["number"], found["value"] = numbers[gone], np.asarray(selection.value)[gone]
    instead = np.asarray(selection.instead)[gone]
    found["first"] = np.where(instead >= 0, numbers[np.maximum(instead, 0)], keys.NOBODY)
    (folder / "found").mkdir(parents=True, exist_ok=True)
    _save(folder / "found" / "selected.0.npy", found[np.argsort(found["number"])])
    progress(f"{step.name}: looked at {len(corpus):,} documents", 1, 1)


class _Corpus:
    """The documents that a pass has left, in order of reading; can be gone through any number of times."""

    def __init__(self, folder: Path, tasks: int, count: int) -> None:
        self._paths = [folder / f"{task:05d}.arrow" for task in range(tasks)]
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Document]:
        for path in self._paths:
            for _, document, _, _ in stored(path):
                yield document

    def numbers(self) -> np.ndarray:
        """(n,) uint64, the number of each document."""
        found = [np.zeros(0, np.uint64)]
        for path in self._paths:
            found += [batch.column("number").to_numpy() for batch in batches(path)]
        return np.concatenate(found)


def _verdict(plan: _Plan, number: int, step: Any, task: int) -> Callable[[int, Document], Drop | Edited | None]:
    """What the grouping before this pass means for each document of a task."""
    folder = _folder(plan, number - 1) / ("joined" if kind_of(step) == "groups" else "found")
    if hasattr(step, "prepared"):
        step = step.prepared(_table(plan, number - 1))
    low, high = number_of(task, 0), number_of(task + 1, 0)
    kind = kind_of(step)
    found = keys.between(folder, low, high, keys.SELECTED if kind == "selection" else keys.REPEAT)
    found = found[np.argsort(found["number"], kind="stable")]
    bounds = found["number"].copy()

    def settle(place: int, document: Document) -> Drop | Edited | None:
        start, stop = np.searchsorted(bounds, [place, place + 1])
        if kind == "selection":
            if start == stop:
                return None
            first = int(found["first"][start])
            instead = "" if first == keys.NOBODY else str(first)
            return Drop(step.reason, float(found["value"][start]), instead)
        if kind == "groups":
            return None if start == stop else Drop(step.reason, instead=str(int(found["first"][start])))
        if start == stop and not getattr(step, "always", False):
            return None
        mine = found[start:stop]
        repeated = np.zeros(len(step.keys(document)), bool)
        repeated[mine["place"]] = True
        outcome = step.settle(document, repeated)
        if isinstance(outcome, Drop) and repeated.all() and len(mine) and (mine["first"] == mine["first"][0]).all():
            return dataclasses.replace(outcome, instead=str(int(mine["first"][0])))
        return outcome

    return settle


# ---- after the last pass ------------------------------------------------------------------------------------


def _write(
    plan: _Plan, run: Runner, passed: Sequence[Sequence[Mapping[str, Any]]], refused: Sequence[Any], progress: Progress
) -> dict[str, Any]:
    """Mix, write the corpus and the ledger; the totals."""
    sizes: Counter[str] = Counter()
    for summary in passed[-1]:
        sizes.update(summary["bytes"])
    if not sum(sizes.values()):
        raise UserError(
            f"Nothing is left after {plan.recipe.name}: see {plan.work} for what each rule dropped, or use another recipe."
        )
    mix = plan.recipe.mix
    epochs = None if mix is None else mix.epochs_of(dict(sorted(sizes.items())))
    share = plan.recipe.hold_out
    whole = sum(size * (1 if epochs is None else epochs[source]) for source, size in sizes.items())
    buckets = max(1, math.ceil(whole / PART_BYTES)) if epochs is not None or share else 0
    folders = [_folder(plan, number) for number in range(len(passed))]
    finish = Finish(plan.out, folders, epochs, share, buckets)
    tasks = range(len(plan.tasks))
    if share:
        _all(run, held, [(finish, t) for t in tasks], plan.work / "held", progress, "holding out", "npy")
    paths = _all(run, deal, [(finish, t) for t in tasks], plan.work / "finish", progress, "writing")
    if buckets:
        parts = [(finish, "train", which) for which in range(buckets)]
        parts += [(finish, split, 0) for split in ("validation", "test") if share]
        for done, _ in enumerate(run.map(gather, parts), 1):
            progress("shuffling", done, len(parts))
    listed = Rows(plan.out / "ledger" / "refused.parquet")
    for thing in refused:
        listed.add(0, thing.id, "", "quarantined", "reading", thing.reason)
    listed.close()
    return _totals(plan, passed, _summaries(paths), refused, mix, sizes)


def _totals(
    plan: _Plan,
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
        with_sizes = _folder(plan, number) / "clusters.json"
        if with_sizes.exists():
            clusters.update(json.loads(with_sizes.read_text()))
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
    }


def _bounds(steps: Iterable[Any]) -> Iterator[Bound]:
    for step in steps:
        inner = step.rule if isinstance(step, Where) else step
        if isinstance(inner, Bound):
            yield inner


def _finite(limit: float) -> float | None:
    return limit if math.isfinite(limit) else None
