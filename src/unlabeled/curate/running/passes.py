"""One task through one pass: settle what was found between the passes, apply rules, note keys."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unlabeled.curate.document import Document
from unlabeled.curate.ledger import Tally, number_of
from unlabeled.curate.recipe import Bound, Drop, Edited, Where
from unlabeled.curate.running import keys
from unlabeled.curate.running.between import key_records
from unlabeled.curate.running.plan import Plan, folder_of, plan_at, table_of
from unlabeled.curate.running.written import Documents, Rows, put, stored
from unlabeled.curate.steps import kind_of
from unlabeled.curate.words import splitter

__all__ = ["run_pass"]


def run_pass(job: tuple[Path, int, int]) -> None:
    """One task through one pass."""
    path, number, task = job
    plan = plan_at(path)
    settled, rules, following = plan.segments()[number]
    folder = folder_of(plan, number)
    tallies = [Tally() for _ in rules]
    settled_tally = Tally()
    kept, told = Documents(folder / "documents" / f"{task:05d}.arrow"), Rows(folder / "ledger" / f"{task:05d}.parquet")
    has_keys = following is not None and kind_of(following) != "selection" and not hasattr(following, "sketch")
    noted = keys.Runs(folder / "keys", f"{task:05d}", keys.KEY) if has_keys else None
    verdict = _verdict(plan, number, settled, task) if settled is not None else None
    sizes: Counter[str] = Counter()
    read = Counter[str]()
    hits: dict[str, set[int]] = {rule.name: set() for rule in rules if hasattr(rule, "found")}
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
            if rule.name in hits:
                hits[rule.name].update(rule.found(document).tolist())
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
            instead, match = (int(drop.instead), "") if drop.instead.isdigit() else (None, drop.instead)
            told.add(
                place, document.id, document.source, "dropped", rule_name, drop.reason, drop.value,
                instead, match, origin.read, len(document.text), edits,
            )  # fmt: skip
            continue
        if noted is not None:
            noted.add(key_records(plan, following, document, place))
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
                "hits": {name: sorted(places) for name, places in hits.items()},
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


def _entering(plan: Plan, number: int, task: int) -> Iterator[tuple[int, Document | None, _Origin]]:
    """(row in the ledger, document or None where it was refused, what it was) of one task, in order of reading."""
    words = splitter(plan.recipe.words)
    if number == 0:
        from unlabeled.curate.reading import read

        for row, item in enumerate(read.documents(plan.tasks[task])):
            if isinstance(item, Document):
                item.splitter = words
                yield row, item, _Origin(item.id, item.source, len(item.text))
            else:
                yield row, None, _Origin(item.id, "", reason=item.reason)
        return
    for place, document, size, edits in stored(folder_of(plan, number - 1) / "documents" / f"{task:05d}.arrow"):
        document.splitter = words
        yield place & 0xFFFFFFFF, document, _Origin(document.id, document.source, size, edits=edits)


def _verdict(plan: Plan, number: int, step: Any, task: int) -> Callable[[int, Document], Drop | Edited | None]:
    """What the grouping before this pass means for each document of a task."""
    folder = folder_of(plan, number - 1) / ("joined" if kind_of(step) == "groups" else "found")
    if hasattr(step, "prepared"):
        step = step.prepared(table_of(plan, number - 1))
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
