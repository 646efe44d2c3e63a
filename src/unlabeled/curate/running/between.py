"""Between two passes: what the keys of all tasks say together, range by range, and steps that see everything at once."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unlabeled.curate.document import Document
from unlabeled.curate.running import keys
from unlabeled.curate.running.plan import Plan, Progress, folder_of, jobs_of, plan_at, run_all, save, table_of
from unlabeled.curate.running.runner import Runner
from unlabeled.curate.running.written import batches, put, stored
from unlabeled.curate.steps import kind_of, rank_of
from unlabeled.curate.words import splitter

__all__ = ["group", "key_records", "select", "sketched"]

RANGE_RECORDS = 8 << 20  # key records grouped at a time: about 300 MB while they are sorted


def key_records(plan: Plan, step: Any, document: Document, place: int) -> np.ndarray:
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


def group(
    plan: Plan, run: Runner, number: int, step: Any, first: Sequence[Mapping[str, Any]], progress: Progress
) -> None:
    """Group the keys of a pass, range by range; for groups of documents also join what hangs together.

    first: the summaries of the first pass, which say how many documents each task has.
    """
    folder = folder_of(plan, number)
    if (folder / "grouped").exists():
        return
    counted = folder / "ranges.txt"
    if not counted.exists():
        put(counted, str(max(1, math.ceil(keys.total(folder / "keys") / RANGE_RECORDS))))
    jobs = jobs_of(plan, number, int(counted.read_text()))
    run_all(run, _range, jobs, folder / "ranges", progress, f"{step.name}: grouping")
    if kind_of(step) == "groups":
        _join(plan, number, step, first)
    put(folder / "grouped", "")
    for what in ("keys", "found") if kind_of(step) == "groups" else ("keys",):
        shutil.rmtree(folder / what, ignore_errors=True)


def sketched(plan: Plan, run: Runner, number: int, step: Any, progress: Progress) -> None:
    """For a step whose keys would be as many as characters: find first which can be repeated at all."""
    folder = folder_of(plan, number)
    if (folder / "grouped").exists():
        return
    jobs = jobs_of(plan, number, len(plan.tasks))
    if not table_of(plan, number).exists():
        paths = run_all(run, _sketch, jobs, folder / "sketches", progress, f"{step.name}: first look", "npy")
        table = step.merge([np.load(path, mmap_mode="r") for path in paths])
        save(table_of(plan, number), table)
    run_all(run, _keys_of, jobs, folder / "noted", progress, f"{step.name}: noting")
    shutil.rmtree(folder / "sketches", ignore_errors=True)


def _sketch(job: tuple[Path, int, int]) -> None:
    path, number, task = job
    plan = plan_at(path)
    folder = folder_of(plan, number)
    texts = (document for _, document, _, _ in stored(folder / "documents" / f"{task:05d}.arrow"))
    save(folder / "sketches" / f"{task:05d}.npy", plan.following(number).sketch(texts))


def _keys_of(job: tuple[Path, int, int]) -> None:
    path, number, task = job
    plan = plan_at(path)
    folder = folder_of(plan, number)
    step = plan.following(number).prepared(table_of(plan, number))
    noted = keys.Runs(folder / "keys", f"{task:05d}", keys.KEY)
    for place, document, _, _ in stored(folder / "documents" / f"{task:05d}.arrow"):
        noted.add(key_records(plan, step, document, place))
    noted.close()
    put(folder / "noted" / f"{task:05d}.json", "{}")


def _range(job: tuple[Path, int, int]) -> None:
    """One range of keys: what is repeated, or what belongs together."""
    path, number, which = job
    plan = plan_at(path)
    folder = folder_of(plan, number)
    count = int((folder / "ranges.txt").read_text())
    low, high = keys.ranges(count)[which]
    records, firsts = keys.duplicates(keys.between(folder / "keys", low, high, keys.KEY))
    step = plan.following(number)
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


def _join(plan: Plan, number: int, step: Any, first_pass: Sequence[Mapping[str, Any]]) -> None:
    """Documents that hang together through any keys: all but the best of each group, with the best's number.

    8 bytes are held for each document of the corpus, besides the pairs found and what a step holds to verify them.
    """
    from unlabeled.curate.dedup.components import Components, best

    folder = folder_of(plan, number)
    edges = np.concatenate([np.zeros(0, keys.EDGE), *map(np.load, sorted((folder / "found").glob("*.npy")))])
    if getattr(step, "verify", None) is not None:
        pairs = np.stack([edges["first"], edges["number"]], 1).astype(np.int64)
        edges = edges[step.verified(pairs, _numbered(folder / "documents", plan))]
    ends = np.cumsum([0, *(s["entries"] for s in first_pass)]).astype(np.int64)

    def index(numbers: np.ndarray) -> np.ndarray:
        return ends[(numbers >> np.uint64(32)).astype(np.int64)] + (numbers & np.uint64(0xFFFFFFFF)).astype(np.int64)

    joined = Components(int(ends[-1]))
    joined.add(index(edges["first"]), index(edges["number"]))
    numbers, where = np.unique(np.concatenate([edges["number"], edges["first"]]), return_index=True)
    ranks = np.concatenate([edges["rank"], edges["first_rank"]])[where]
    roots = joined.roots(index(numbers))
    kept = best(roots, ranks)
    gone = kept != np.arange(len(kept))
    found = np.zeros(int(gone.sum()), keys.REPEAT)
    found["number"], found["first"] = numbers[gone], numbers[kept[gone]]
    sizes, counts = np.unique(np.unique(roots, return_counts=True)[1], return_counts=True)
    put(folder / "clusters.json", json.dumps(dict(zip(map(str, sizes.tolist()), counts.tolist()))))
    out = keys.Runs(folder / "joined", "all", keys.REPEAT)
    out.add(found)
    out.close()


def _numbered(folder: Path, plan: Plan) -> Iterator[tuple[int, Document]]:
    words = splitter(plan.recipe.words)
    for task in range(len(plan.tasks)):
        for number, document, _, _ in stored(folder / f"{task:05d}.arrow"):
            document.splitter = words
            yield number, document


def select(plan: Plan, number: int, step: Any, summaries: Sequence[Mapping[str, Any]], progress: Progress) -> None:
    """A step that must see the whole corpus decides here, in this process."""
    folder = folder_of(plan, number)
    if (folder / "found" / "selected.0.npy").exists():
        return
    corpus = _Corpus(folder / "documents", len(plan.tasks), sum(s["kept"] for s in summaries))
    progress(f"{step.name}: looking at {len(corpus):,} documents", 0, 1)
    selection = step.select(corpus)
    put(folder / "note.txt", selection.note)
    numbers = corpus.numbers()
    gone = np.flatnonzero(~np.asarray(selection.keep, bool))
    found = np.zeros(len(gone), keys.SELECTED)
    found["number"], found["value"] = numbers[gone], np.asarray(selection.value)[gone]
    instead = np.asarray(selection.instead)[gone]
    found["first"] = np.where(instead >= 0, numbers[np.maximum(instead, 0)], keys.NOBODY)
    (folder / "found").mkdir(parents=True, exist_ok=True)
    save(folder / "found" / "selected.0.npy", found[np.argsort(found["number"])])
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
