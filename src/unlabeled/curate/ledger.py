"""What happened to every document: one row each on disk, totals by rule with examples, and the answer to "why?".

The ledger is the folder `ledger/` of a run: parquet files with a row for each document and each thing that could not be
read, in the order of reading. A document's number is (file of the ledger, row within it), so that one row can name another.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unlabeled.core.errors import UserError
from unlabeled.curate.document import Document
from unlabeled.curate.recipe import Bound, Drop, Edited

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["EXAMPLES", "Tally", "explain", "merge", "number_of", "place_of", "rows", "schema"]

EXAMPLES = 10  # documents shown for each rule, and as many nearest to its limit
_SHOWN = 400  # characters of an example


def number_of(task: int, row: int) -> int:
    """The number of a document: 32 bits of the file of the ledger, 32 bits of the row."""
    return task << 32 | row


def place_of(number: int) -> tuple[int, int]:
    """File and row of a document's number."""
    return number >> 32, number & 0xFFFFFFFF


def schema() -> pa.Schema:
    """Columns of the ledger.

    outcome: kept, dropped or quarantined. rule, reason, value: what decided, in words and as measured. instead: the
    number of the document that stays in its place, or null; match: what else it was found to be like (the item of an
    evaluation set). read, kept: characters as read and at the end.
    edits: JSON, what was changed how often. copies: times it stands in the corpus.
    """
    import pyarrow as pa

    text, whole = pa.string(), pa.int64()
    fields = {"number": pa.uint64(), "id": text, "source": text, "outcome": text, "rule": text, "reason": text}
    fields |= {"value": pa.float64(), "instead": pa.uint64(), "match": text, "read": whole, "kept": whole}
    return pa.schema([*fields.items(), ("edits", text), ("copies", pa.int32())])


def _draw(id: str, rule: str) -> int:
    """A number by which examples are chosen: as good as random, the same in every run."""
    return int.from_bytes(hashlib.blake2b(f"{rule}\0{id}".encode("utf-8", "replace"), digest_size=8).digest(), "big")


@dataclass
class Tally:
    """What one rule did: counts of documents and characters, reasons, values, examples. Adds up over jobs."""

    seen: int = 0
    dropped: int = 0
    changed: int = 0
    characters: int = 0  # of all that were seen
    lost: int = 0  # characters, by dropping and by changing
    reasons: Counter[str] = field(default_factory=Counter)
    edits: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)  # documents dropped, by source
    values: Counter[str] = field(default_factory=Counter)  # the measure, to two digits, and how many documents had it
    examples: list[tuple[int, str, str, str]] = field(default_factory=list)  # draw, id, reason, beginning of the text
    close: list[tuple[float, str, str, str]] = field(
        default_factory=list
    )  # distance to the limit, id, value, beginning

    def note(self, rule: Any, document: Document, outcome: Drop | Edited | None, value: float | None = None) -> None:
        """Count what a rule decided. value: what a `Bound` measured."""
        self.seen += 1
        length = len(document.text)
        self.characters += length
        if value is not None:
            self.values[f"{value:.2g}"] += 1
            self._near(rule, document, value)
        if isinstance(outcome, Drop):
            self.dropped += 1
            self.lost += length
            self.reasons[outcome.reason] += 1
            self.sources[document.source] += 1
            self._example(rule, document, outcome.reason)
        elif isinstance(outcome, Edited):
            self.changed += 1
            self.lost += length - len(outcome.text)
            self.edits.update(outcome.counts)
            self._example(rule, document, ", ".join(f"{n} × {what}" for what, n in outcome.counts.items()))

    def _example(self, rule: Any, document: Document, why: str) -> None:
        draw = _draw(document.id, rule.name)
        if len(self.examples) < EXAMPLES or draw < self.examples[-1][0]:
            self.examples = sorted([*self.examples, (draw, document.id, why, document.text[:_SHOWN])])[:EXAMPLES]

    def _near(self, rule: Bound, document: Document, value: float) -> None:
        limits = [limit for limit in (rule.at_least, rule.at_most) if math.isfinite(limit)]
        distance = min((abs(value - limit) / (abs(limit) or 1) for limit in limits), default=math.inf)
        if math.isfinite(distance) and (len(self.close) < EXAMPLES or distance < self.close[-1][0]):
            new = (distance, document.id, f"{value:.6g}", document.text[:_SHOWN])
            self.close = sorted([*self.close, new])[:EXAMPLES]

    def plain(self) -> dict[str, Any]:
        """As JSON takes it, in a fixed order."""
        counts = {name: dict(sorted(getattr(self, name).items())) for name in ("reasons", "edits", "sources", "values")}
        kept = {name: getattr(self, name) for name in ("seen", "dropped", "changed", "characters", "lost")}
        return {**kept, **counts, "examples": self.examples, "close": self.close}


def merge(tallies: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The sum of several plain tallies of one rule."""
    all_ = Tally()
    examples: list[Any] = []
    close: list[Any] = []
    for tally in tallies:
        for name in ("seen", "dropped", "changed", "characters", "lost"):
            setattr(all_, name, getattr(all_, name) + tally[name])
        for name in ("reasons", "edits", "sources", "values"):
            getattr(all_, name).update(tally[name])
        examples = heapq.nsmallest(EXAMPLES, [*examples, *map(tuple, tally["examples"])])
        close = heapq.nsmallest(EXAMPLES, [*close, *map(tuple, tally["close"])])
    all_.examples, all_.close = examples, close
    return all_.plain()


def rows(out: Path, id: str) -> list[dict[str, Any]]:
    """Rows of the ledger with this id (one, unless a source names two documents alike)."""
    import pyarrow.parquet as pq

    found: list[dict[str, Any]] = []
    for path in sorted((out / "ledger").glob("*.parquet")):
        for batch in pq.ParquetFile(path).iter_batches(columns=["id"]):
            if batch.column("id").index(id).as_py() >= 0:
                found += pq.read_table(path, filters=[("id", "=", id)]).to_pylist()
                break
    return found


def explain(out: Path, id: str) -> str:
    """Why a document is in the corpus, or why not, in a few lines.

    Raises:
        UserError: where the folder holds no ledger, or no document of this id.
    """
    if not any((out / "ledger").glob("*.parquet")):
        raise UserError(f"{out} holds no ledger; give the folder of a finished `unlabeled curate` as --out.")
    found = rows(out, id)
    if not found:
        import pyarrow.parquet as pq

        parts = map(pq.ParquetFile, sorted((out / "ledger").glob("part-*.parquet")))
        some = next((b.column("id").to_pylist() for p in parts for b in p.iter_batches(3, columns=["id"])), [])
        raise UserError(
            f"There is no document {id!r} in the ledger of {out}; ids look like {', '.join(map(repr, some))}."
        )
    return "\n".join(_told(out, row) for row in found)


def _told(out: Path, row: Mapping[str, Any]) -> str:
    lines = [f"{row['id']} (of {row['source']}) was {row['outcome']}."]
    if row["edits"]:
        edits = json.loads(row["edits"])
        lines.append(f"Changed: {'; '.join(f'{n:,} × {what}' for what, n in edits.items())}.")
    if row["outcome"] == "kept":
        lines.append(
            f"It had {row['read']:,} characters and has {row['kept']:,}; copies in the corpus: {row['copies']}."
        )
    else:
        value = f" (measured: {row['value']:.6g})" if row["value"] is not None and math.isfinite(row["value"]) else ""
        lines.append(f"Rule {row['rule']}: {row['reason']}{value}.")
    if row["match"]:
        lines.append(f"It matches {row['match']}.")
    if row["instead"] is not None:
        lines.append(f"In its place stays {_id_at(out, row['instead'])}.")
    return "\n".join(lines)


def _id_at(out: Path, number: int) -> str:
    import pyarrow.parquet as pq

    task, place = place_of(number)
    file = pq.ParquetFile(out / "ledger" / f"part-{task:05d}.parquet")
    for group in range(file.num_row_groups):
        count = file.metadata.row_group(group).num_rows
        if place < count:
            return file.read_row_group(group, columns=["id"]).column("id")[place].as_py()
        place -= count
    raise UserError(f"The ledger of {out} is damaged: it has no row {number}.")
