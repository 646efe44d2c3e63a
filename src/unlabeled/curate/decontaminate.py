"""Keep evaluation sets out of training data, by runs of words that both have; and say which items were in it.

Words are compared as `words.fold` leaves them: split at white space, lower case, without punctuation, which is how GPT-3
defines a gram. Three published ways (`mode`):

- "gpt3" (Brown et al. 2020, appendix C): where 13 words in a row are in an evaluation item, they and 200 characters on
  either side are cut, which splits the document; pieces of fewer than 200 characters go, and a document split into more
  than 10 pieces goes whole. Here the pieces stay one document, a blank line between them, where the paper may have
  made several. The paper also passed over runs found in more than 10 training documents, which takes a
  pass of its own and is not done here. The Janitor of lm-evaluation-harness, often taken for this rule, drops a
  document at its tenth run, not at its eleventh piece: one copied sentence of 22 words is enough for that.
- "datatrove" (0.10.1, `NGramsDecontFilter`): a document with 12 words in a row goes. Words are those of its
  `simplify_text`: marks of punctuation separate them, and every number is 0, so that 12 numbers in a row are a copy of
  any other 12. There the words are split once more by spaCy (contractions, mostly), and of an item only runs that
  reach into the answer count by default; here those of the question do as well.
- "llama3" (Dubey et al. 2024, section 5.1.4, after Singh et al. 2024, arXiv 2411.03923): an item is contaminated where a
  share of its words is in runs of 8 that occur in the corpus. The paper reports that and removes nothing; here a
  document goes that covers such a share of an item by itself. The paper chooses the share for each set by its effect
  on scores; 0.7 is what PaLM used for runs of 8 (Chowdhery et al. 2022, section 8).

An item, or one string of it, that is shorter than a run but of 8 words or more is sought whole. Shorter ones are not
sought, as in GPT-3: too many texts have them by chance. `contaminated` counts items of which nothing is sought apart.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import json
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from unlabeled.core.errors import UserError
from unlabeled.curate.dedup.compat import _simplified
from unlabeled.curate.dedup.hashing import folded, mix, rolled
from unlabeled.curate.document import Document
from unlabeled.curate.recipe import Drop, Edited, Outcome
from unlabeled.curate.words import fold, hash_of

__all__ = ["Contaminated", "Decontaminate"]

Mode = Literal["gpt3", "datatrove", "llama3"]

_NGRAM = {"gpt3": 13, "datatrove": 12, "llama3": 8}
_SHORTEST = 8  # words of an item or a field that is sought; the least N of GPT-3, appendix C
_WINDOW, _PIECE, _PIECES = 200, 200, 10  # characters around a run, characters of a piece, pieces: GPT-3, appendix C
_REMEMBERED = 1 << 18  # words whose hashes are kept, about 30 MB
_ROWS = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz", ".parquet")


@dataclass(frozen=True)
class Contaminated:
    """What of one evaluation set was met. items: of the set; short: too short to be sought; ids: of those met, in
    order; shares: of the words of each that were in runs that were met."""

    set: str
    items: int
    short: int
    ids: tuple[str, ...]
    shares: tuple[float, ...]


@dataclass(frozen=True)
class Decontaminate:
    """Cut or drop what evaluation sets contain. `index(folder)` gives the rule that can be called.

    against: files or folders of evaluation sets; of .jsonl(.gz) and .parquet all strings of a row, or those in
    `fields`, are one item; anything else that `data.sources.source` reads as text is taken record by record.
    ngram: words of a run, or 0 for the mode's own. at_least: share of an item's words, for "llama3".
    """

    against: Sequence[str | Path]
    ngram: int = 0
    mode: Mode = "gpt3"
    at_least: float = 0.7
    fields: Sequence[str] = ()
    folder: str = ""
    name: str = "decontaminate"

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode):
            raise UserError(f"There is no way {self.mode!r} to decontaminate; there are {', '.join(get_args(Mode))}.")
        if not self.against:
            raise UserError("Name at least one evaluation set to decontaminate against.")
        object.__setattr__(self, "ngram", self.ngram or _NGRAM[self.mode])
        if not 2 <= self.ngram <= 100:
            raise UserError(f"Runs of {self.ngram} words cannot be sought; give 2 to 100.")

    def index(self, folder: Path) -> Decontaminate:
        """Read the evaluation sets and lay the index of their runs into a folder of its own below this one, unless it
        is there already; the rule that workers call knows where.

        Raises:
            UserError: where a set cannot be read or has nothing in it.
        """
        sets = [(name, list(_items(path, self.fields))) for name, path in _named(self.against)]
        form = "datatrove" if self.mode == "datatrove" else "folded"
        digest = hashlib.sha256(json.dumps([form, self.ngram, sets]).encode()).hexdigest()[:16]
        place = Path(folder) / f"evaluation-{digest}"
        if not place.is_dir():
            partial = place.with_name(f".{place.name}")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            _write(sets, self.ngram, form, partial)
            partial.rename(place)
        return replace(self, folder=str(place))

    def __call__(self, document: Document) -> Outcome:
        index = self._index
        runs = index.runs(document.text)
        if not len(runs):
            return None
        if self.mode == "llama3":
            items, shares = index.shares(np.unique(runs["gram"]))
            best = int(np.argmax(shares))
            if shares[best] < self.at_least:
                return None
            return index.drop(int(items[best]), float(shares[best]))
        item = index.item_of(int(runs["gram"][0]))
        if self.mode == "datatrove":
            return index.drop(item, float(len(runs)))
        return self._split(document.text, runs, item)

    def found(self, document: Document) -> np.ndarray:
        """(k,) int64, which runs of the index are in a document, each once; input of `contaminated`, united over the
        corpus (`np.unique`)."""
        return np.unique(self._index.runs(document.text)["gram"])

    def contaminated(self, found: np.ndarray) -> list[Contaminated]:
        """Which items were met, set by set; by "llama3" those of whose words a share of `at_least` was."""
        index = self._index
        items, shares = index.shares(np.unique(np.asarray(found, np.int64)))
        enough = shares >= (self.at_least if self.mode == "llama3" else 0)
        share_of = dict(zip(items[enough].tolist(), shares[enough].tolist()))
        out = []
        for name in dict.fromkeys(item["set"] for item in index.items):
            own = [i for i, item in enumerate(index.items) if item["set"] == name]
            met = [i for i in own if i in share_of]
            out.append(
                Contaminated(
                    name,
                    len(own),
                    sum(not index.items[i]["sought"] for i in own),
                    tuple(index.items[i]["id"] for i in met),
                    tuple(share_of[i] for i in met),
                )
            )
        return out

    @property
    def _index(self) -> _Index:
        if not self.folder:
            raise UserError("Decontaminate has read no evaluation set yet: call the rule that `index(folder)` gives.")
        return _opened(self.folder)

    def _split(self, text: str, runs: np.ndarray, item: int) -> Outcome:
        spans = np.array(_spans(text), np.int64)
        starts = np.maximum(spans[runs["word"], 0] - _WINDOW, 0)
        ends = np.minimum(spans[runs["word"] + runs["length"] - 1, 1] + _WINDOW, len(text))
        order = np.argsort(starts, kind="stable")
        pieces, cuts, before = [], 0, 0
        for start, end in zip(starts[order].tolist(), ends[order].tolist()):
            if start > before or not cuts:
                cuts += 1
                pieces.append(text[before:start])
            before = max(before, end)
        pieces = [piece for piece in [*pieces, text[before:]] if piece]
        kept = [piece for piece in pieces if len(piece) >= _PIECE]
        if len(pieces) > _PIECES or not kept:
            return self._index.drop(item, float(cuts))
        return Edited("\n\n".join(kept), {f"cut around text of {self._index.items[item]['set']}": cuts})


RUN = np.dtype([("word", np.int64), ("length", np.int64), ("gram", np.int64)])  # first word, words, place in the index


class _Index:
    """Runs of words of evaluation items, mapped into memory. u different runs, m occurrences of them, n items.

    hashes: (u,) uint64, sorted. starts: (u + 1,) int64, where the occurrences of each begin. occurrences: (m, 3) int64,
    item, first word and words of each, in order of the items. items: what each is: "set", "id", "words", "sought".
    """

    def __init__(self, folder: Path) -> None:
        self.hashes, self.starts, self.occurrences = (
            np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
            for name in ("hashes", "starts", "occurrences")
        )
        about = json.loads((folder / "items.json").read_text())
        self.items: list[dict[str, Any]] = about["items"]
        self.lengths: list[int] = about["lengths"]
        self.words = _FORMS[about["form"]]
        # One bit in 16 or fewer is set, so that most runs are refused by one look into a small table.
        self._bits = min(26, max(10, (16 * len(self.hashes)).bit_length()))
        self._known = np.zeros(1 << self._bits, np.bool_)
        self._known[self.hashes >> np.uint64(64 - self._bits)] = True

    def runs(self, text: str) -> np.ndarray:
        """(k,) RUN, the runs of a text that are in the index, in order of their first words."""
        words, found = self.words(text), []
        for length in self.lengths:
            if len(words) < length:
                continue
            hashes = _grams(words, length)
            likely = np.flatnonzero(self._known[hashes >> np.uint64(64 - self._bits)])
            if not len(likely):
                continue
            places = np.searchsorted(self.hashes, hashes[likely]).clip(max=len(self.hashes) - 1)
            sure = self.hashes[places] == hashes[likely]
            runs = np.empty(int(sure.sum()), RUN)
            runs["word"], runs["length"], runs["gram"] = likely[sure], length, places[sure]
            found.append(runs)
        return np.sort(np.concatenate(found), order=["word", "length"]) if found else np.empty(0, RUN)

    def item_of(self, gram: int) -> int:
        """The first item that has a run."""
        return int(self.occurrences[self.starts[gram], 0])

    def shares(self, grams: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Items that have some of these runs, in order, (k,) int64, and the share of its words that each has in them."""
        counts = self.starts[grams + 1] - self.starts[grams]
        rows = np.repeat(self.starts[grams] - np.cumsum(counts) + counts, counts) + np.arange(int(counts.sum()))
        met = self.occurrences[rows]
        met = met[np.argsort(met[:, 0], kind="stable")]
        items, first = np.unique(met[:, 0], return_index=True)
        shares = np.zeros(len(items))
        for number, (item, part) in enumerate(zip(items.tolist(), np.split(met, first[1:]))):
            covered = np.zeros(self.items[item]["words"], np.bool_)
            for _, start, length in part.tolist():
                covered[start : start + length] = True
            shares[number] = covered.mean()
        return items, shares

    def drop(self, item: int, value: float) -> Drop:
        about = self.items[item]
        return Drop(f"text of the evaluation set {about['set']}", value, about["id"])


@functools.lru_cache(maxsize=4)
def _opened(folder: str) -> _Index:
    return _Index(Path(folder))


def _grams(words: np.ndarray, length: int) -> np.ndarray:
    """(n - length + 1,) uint64, hashes of the runs of `length` words; runs of different lengths are never equal."""
    return mix(rolled(words, length) + np.uint64(length))


class _Hashes(dict[str, int]):
    """Hashes of words, remembered."""

    def __missing__(self, word: str) -> int:
        if len(self) >= _REMEMBERED:
            self.clear()
        self[word] = found = hash_of(word)
        return found


_HASHES = _Hashes()


def _simple(text: str) -> np.ndarray:
    """(n,) uint64, hashes of the words as datatrove compares them, but for what spaCy would split."""
    return np.fromiter(map(_HASHES.__getitem__, _simplified(text).split()), np.uint64)


_FORMS = {"folded": folded, "datatrove": _simple}


def _spans(text: str) -> list[tuple[int, int]]:
    """First character and end of each word that `folded` counts."""
    return [match.span() for match in re.finditer(r"\S+", text) if fold(match.group())]


def _write(sets: Sequence[tuple[str, list[tuple[str, list[str]]]]], ngram: int, form: str, folder: Path) -> None:
    items, hashes, rows = [], [np.empty(0, np.uint64)], [np.empty((0, 3), np.int64)]
    for name, members in sets:
        for id, strings in members:
            parts = [_FORMS[form](string) for string in strings]
            words = np.concatenate([*parts, np.empty(0, np.uint64)])
            wanted = [(words, 0, ngram)] if len(words) >= ngram else []
            ends = np.cumsum([len(part) for part in parts], dtype=np.int64).tolist()
            wanted += [(p, e - len(p), len(p)) for p, e in zip(parts, ends) if _SHORTEST <= len(p) < ngram]
            if not wanted and len(words) >= _SHORTEST:  # of several short strings
                wanted = [(words, 0, len(words))]
            for part, start, length in wanted:
                grams = _grams(part, length)
                row = np.empty((len(grams), 3), np.int64)
                row[:, 0], row[:, 1], row[:, 2] = len(items), start + np.arange(len(grams)), length
                hashes.append(grams)
                rows.append(row)
            items.append({"set": name, "id": id, "words": len(words), "sought": bool(wanted)})
    every, occurrences = np.concatenate(hashes), np.concatenate(rows)
    order = np.argsort(every, kind="stable")
    unique, starts = np.unique(every[order], return_index=True)
    np.save(folder / "hashes.npy", unique)
    np.save(folder / "starts.npy", np.append(starts, len(every)).astype(np.int64))
    np.save(folder / "occurrences.npy", occurrences[order])
    about = {"form": form, "lengths": np.unique(occurrences[:, 2]).tolist(), "items": items}
    (folder / "items.json").write_text(json.dumps(about))


def _named(against: Sequence[str | Path]) -> list[tuple[str, Path]]:
    """The sets by their files' names; by their paths where two are called the same."""
    paths = [Path(path).expanduser() for path in against]
    names = [path.name.split(".")[0] for path in paths]
    return [(str(p) if names.count(name) > 1 else name, p) for name, p in zip(names, paths)]


def _items(path: Path, fields: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """(id, strings) of each item of an evaluation set."""
    files = [path]
    if path.is_dir():
        files = sorted(f for f in path.rglob("*") if f.name.lower().endswith(_ROWS) and f.is_file())
    some = False
    try:
        if not files or not all(f.name.lower().endswith(_ROWS) for f in files):
            some = True
            yield from _texts(path)
        for file in files if not some else ():
            for number, row in _rows(file):
                strings = [s for key in fields or row for s in _strings(row.get(key))]
                if strings:
                    some = True
                    yield f"{file.name}:{number}", strings
    except (OSError, ValueError, EOFError) as error:  # JSON and Arrow raise ValueErrors
        raise UserError(f"The evaluation set {path} cannot be read: {error}.") from error
    if not some:
        wanted = f"the fields {', '.join(fields)}" if fields else "text"
        raise UserError(f"No item of the evaluation set {path} has {wanted}.")


def _rows(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    if file.name.lower().endswith(".parquet"):
        import pyarrow.parquet as pq

        with pq.ParquetFile(file) as table:
            rows = (row for batch in table.iter_batches(1024) for row in batch.to_pylist())
            yield from enumerate(rows)
        return
    opener = gzip.open if file.name.lower().endswith(".gz") else open
    with opener(file, "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                row = json.loads(line)
                yield number, row if isinstance(row, dict) else {"": row}


def _texts(path: Path) -> Iterator[tuple[str, list[str]]]:
    from unlabeled.core.errors import BadRecord
    from unlabeled.data.sources import source

    records = source(path)
    if records.kind != "text":
        raise UserError(f"The evaluation set {path} is of kind {records.kind}; give text, .jsonl or .parquet.")
    for number in range(len(records)):
        try:
            record = records[number]
        except BadRecord:
            continue
        yield record.id, [record.fields["text"]]


def _strings(value: Any) -> Iterable[str]:
    """All strings in a value of JSON or Arrow, in order."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [s for inner in value.values() for s in _strings(inner)]
    if isinstance(value, list | tuple):
        return [s for inner in value for s in _strings(inner)]
    return []
