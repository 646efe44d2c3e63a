"""Drop paragraphs and documents made of n-grams that came before: BFF, as in Dolma and DCLM, and the Bloom filter in it.

BFF (Groeneveld 2023, allenai/bff; its mode `old-both` made DCLM-Baseline, Li et al. 2024, arXiv 2406.11794) reads a corpus
once. A paragraph more than 80 % of whose 13-grams are in a Bloom filter goes; the n-grams of one that stays are put in;
a document more than 80 % of whose n-grams were in the filter goes whole. Paragraphs end at a line feed; one of fewer
than 13 words has no n-gram and stays. What goes depends on the order of reading: `bff` is this algorithm, in the
order given, in one process. (DCLM's program shuffles its files and shares the filter among threads, so that no two
runs of it need agree. Descriptions say "at least 80 %"; the code of `old-both` says more than.)

`Ngrams` is the same rule for a corpus of any size and any number of processes: which n-grams came before is found by
grouping, so that its answer depends on the order of the documents but not on who reads them, and has no false
positives. The Bloom filter only keeps out of the grouping what was met once. One difference is left: n-grams of a
paragraph that went count as seen as well, so that all goes that `bff` drops without its false positives, and a little more.

Words are those of the recipe; BFF's are the word bounds of Unicode (UAX 29). Made for web text, whose paragraphs are one
line each: in text wrapped at 70 characters most lines have no n-gram, and the few that have decide on the document.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from unlabeled.core.errors import UserError
from unlabeled.curate.dedup.hashing import mix, rolled
from unlabeled.curate.dedup.substrings import firsts, mapped
from unlabeled.curate.document import Document
from unlabeled.curate.recipe import Drop, Edited, Outcome

__all__ = ["BloomFilter", "Ngrams", "bff"]

_ODD = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio


class BloomFilter:
    """A set of 64-bit hashes that may also hold what was never put in (Bloom 1970).

    expected: hashes that will be put in, n; p: the share of others that are then taken for members. bits:
    ceil(-n ln p / (ln 2)^2); hashes: round(-log2 p) of them, h1 + i h2 (Kirsch and Mitzenmacher 2006).
    """

    def __init__(self, expected: int, p: float) -> None:
        if not 0 < p < 1 or expected < 1:
            raise UserError(f"A Bloom filter holds 1 or more at a rate between 0 and 1, not {expected:,} at {p:g}.")
        self.p, self.bits = p, math.ceil(-expected * math.log(p) / math.log(2) ** 2)
        self.table = np.zeros(-(-self.bits // 8), np.uint8)

    @classmethod
    def of(cls, table: np.ndarray, p: float) -> BloomFilter:
        """One whose table, all of it, was saved."""
        found = cls(1, p)
        found.table, found.bits = table, 8 * len(table)
        return found

    def add(self, hashes: np.ndarray) -> None:
        """Put in (k,) uint64."""
        for slots in self._slots(hashes):
            np.bitwise_or.at(self.table, (slots >> np.uint64(3)).astype(np.intp), _bit(slots))

    def __contains__(self, hashed: int) -> bool:
        return bool(self.has(np.array([hashed], np.uint64))[0])

    def has(self, hashes: np.ndarray) -> np.ndarray:
        """(k,) bool, which of (k,) uint64 are in, or seem so."""
        found = np.ones(len(hashes), np.bool_)
        for slots in self._slots(hashes):
            found &= (self.table[slots >> np.uint64(3)] & _bit(slots)) != 0
        return found

    def _slots(self, hashes: np.ndarray) -> Iterator[np.ndarray]:
        first, step = mix(hashes), mix(hashes ^ _ODD)
        for _ in range(max(1, round(-math.log2(self.p)))):
            yield first % np.uint64(self.bits)
            first = first + step


@dataclass(frozen=True)
class Ngrams:
    """Drop paragraphs, and documents, more than a `share` of whose n-grams came before.

    keep: whose n-grams come first. p: the share of n-grams met once that are grouped in vain; memory: bytes that the
    search for the others may use, at which p grows. table: where the result of `merge` was saved (`.npy`).
    """

    ngram: int = 13
    share: float = 0.8
    keep: str = "earliest"
    p: float = 0.01
    memory: int = 1 << 30
    scope: Literal["all", "source"] = "all"
    table: str = ""
    name: str = "ngrams"

    def sketch(self, documents: Iterable[Document]) -> np.ndarray:
        """(k,) uint64, sorted: the n-grams of some documents, each once, or twice if in two paragraphs or more."""
        found = [_grams(document, self.ngram).unique for document in documents]
        hashes = np.sort(np.concatenate([*found, np.empty(0, np.uint64)]))
        third = np.zeros(len(hashes), np.bool_)
        third[2:] = hashes[2:] == hashes[:-2]
        return hashes[~third]

    def merge(self, sketches: Sequence[np.ndarray]) -> np.ndarray:
        """(bytes,) uint8, the table of a Bloom filter that has the n-grams met twice; sketches are read in parts."""
        most = int(self.memory * 3 * math.log(2) ** 2 / -math.log(self.p))  # hashes that 3/8 of the memory is made for
        expected = max(64, min(most, sum(map(len, sketches))))
        once, twice = BloomFilter(expected, self.p), BloomFilter(expected, self.p)
        once.bits = twice.bits = 8 * len(once.table)
        part = max(1024, self.memory // 512)
        for sketch in sketches:
            for start in range(0, len(sketch), part):
                hashes = np.asarray(sketch[start : start + part])
                again = np.concatenate([[False], hashes[1:] == hashes[:-1]])
                twice.add(hashes[again])
                hashes = hashes[~again]
                twice.add(hashes[once.has(hashes)])
                once.add(hashes)
        return twice.table

    def prepared(self, table: str | Path) -> Ngrams:
        """The same step that knows where the table of `merge` lies."""
        return replace(self, table=str(table))

    def keys(self, document: Document) -> np.ndarray:
        """(k,) uint64, the n-grams of each paragraph that may be elsewhere too, each once for a paragraph."""
        grams = _grams(document, self.ngram)
        return grams.unique[self._likely(grams.unique)]

    def settle(self, document: Document, repeated: np.ndarray) -> Outcome:
        """Drop what came before, given (k,) bool for `keys`."""
        grams = _grams(document, self.ngram)
        seen = self._likely(grams.unique)
        seen[seen] = repeated
        return _outcome(document, grams, *_counted(grams, seen), self.share)

    def _likely(self, hashes: np.ndarray) -> np.ndarray:
        if not self.table:
            return np.ones(len(hashes), np.bool_)
        return BloomFilter.of(mapped(self.table), self.p).has(hashes)


def bff(
    documents: Iterable[Document], expected: int, *, ngram: int = 13, share: float = 0.8, p: float = 0.01
) -> Iterator[Outcome]:
    """What becomes of each document, in the order given. expected: n-grams in all; p: rate of false positives then."""
    known = BloomFilter(expected, p)
    for document in documents:
        grams = _grams(document, ngram)
        different, group = np.unique(grams.every, return_inverse=True)
        seen, kept = known.has(different), np.zeros(len(different), np.bool_)
        total = np.bincount(grams.paragraph, minlength=grams.paragraphs)
        inside, stop = np.zeros_like(total), np.cumsum(total)
        for place in np.flatnonzero(total).tolist():  # one may repeat another, which came before only if it stayed
            own = group[stop[place] - total[place] : stop[place]]
            inside[place] = np.count_nonzero(seen[own])
            if inside[place] <= share * total[place]:
                seen[own] = kept[own] = True
        known.add(different[kept])
        yield _outcome(document, grams, inside, total, share)


@dataclass(frozen=True)
class _Grams:
    """every: (g,) uint64, the n-grams of a document, none of which reaches over a line feed; paragraph: (g,) int64,
    of which one each is; unique: (u,) uint64, each once for a paragraph; inverse: (g,) int64, places in that."""

    paragraphs: int
    every: np.ndarray
    paragraph: np.ndarray
    unique: np.ndarray
    inverse: np.ndarray


def _grams(document: Document, size: int) -> _Grams:
    words, paragraphs = document.words, document.text.split("\n")
    hashes = words.hashes
    chunks = np.array([len(paragraph.split()) for paragraph in paragraphs])
    until = np.concatenate([[0], np.cumsum(words._table.counts[words.chunks])])  # words before each chunk
    of_word = np.repeat(np.arange(len(paragraphs)), np.diff(until[np.concatenate([[0], np.cumsum(chunks)])]))
    if len(hashes) < size:
        empty = np.empty(0, np.int64)
        return _Grams(len(paragraphs), np.empty(0, np.uint64), empty, np.empty(0, np.uint64), empty)
    within = of_word[: len(hashes) - size + 1] == of_word[size - 1 :]
    every, paragraph = mix(rolled(hashes, size)[within]), of_word[: len(within)][within]
    first, inverse = firsts(mix(every + paragraph.astype(np.uint64) * _ODD))
    return _Grams(len(paragraphs), every, paragraph, every[first], inverse)


def _counted(grams: _Grams, seen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each paragraph, its n-grams that came before and all of them."""
    inside = np.bincount(grams.paragraph[seen[grams.inverse]], minlength=grams.paragraphs)
    return inside, np.bincount(grams.paragraph, minlength=grams.paragraphs)


def _outcome(document: Document, grams: _Grams, inside: np.ndarray, total: np.ndarray, share: float) -> Outcome:
    every = int(total.sum())
    if inside.sum() > share * every:
        return Drop("n-grams that came before", float(inside.sum() / every))
    gone = inside > share * total
    if not gone.any():
        return None
    text = "\n".join(p for p, drop in zip(document.text.split("\n"), gone.tolist()) if not drop)
    if not text or text.isspace():
        return Drop("n-grams that came before", float(inside.sum() / every))
    return Edited(text, {"paragraphs that came before": int(gone.sum())})


def _bit(slots: np.ndarray) -> np.ndarray:
    return np.left_shift(np.uint8(1), (slots & np.uint64(7)).astype(np.uint8))
