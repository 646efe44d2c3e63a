"""Cut what is repeated word for word: ExactSubstr of Lee et al. 2022 (arXiv 2107.06499, section 4.1), in bounded memory.

A string of at least T bytes that occurs twice is cut where it occurs again; the first occurrence stays. The paper finds
repeats with a suffix array over the whole corpus, which must be held in memory (more than 600 GB for C4). But the
bytes covered by repeated strings of at least T bytes are just those covered by repeated windows of exactly T bytes, so
that grouping the windows by a hash gives the same answer, and grouping is what can be done in parts, on disk. Two
passes keep the number of windows small:

1. `sketch`. Each window is represented by its minimizer, the smallest hash among the strings of T/2 bytes in it
   (Schleimer et al. 2003; Roberts et al. 2004): equal windows have equal ones, and neighbours mostly share one, so that
   there are about 26 times fewer of them than bytes at T = 100. `merge` marks those that were met at two places in a
   table of fixed size, which may mark too many, never too few.
2. `keys`. Windows with a marked minimizer, and no others, are grouped by a 64-bit hash of their T bytes.

Which windows are equal is therefore decided by 64 bits and not by comparing bytes: n different windows among the keys
are expected to hold n^2 / 2^65 equal pairs, that is 3e-4 wrong cuts for n = 1e8 and 0.03 for n = 1e9.

The rule in full. Let the window at p have its first occurrence in the corpus at f, before p. Where f lies in another
document, the bytes [p, p + T) are cut; where it lies in the same one, [max(p, f + T), p + T): a first occurrence is not
cut by a repeat that overlaps it, and "aaaa..." ends as T letters, not as one. Characters of several bytes are cut whole
or not at all. Afterwards no text of T bytes or more occurs twice, unless it reaches over a seam where something was cut.

Differences: the paper counts 50 tokens of two bytes, T = 100 here counts bytes of UTF-8. Its suffix array runs over the
concatenated documents; here no window reaches over the end of one.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from unlabeled.core.errors import UserError
from unlabeled.curate.document import Document
from unlabeled.curate.recipe import Drop, Edited, Outcome

__all__ = ["Substrings", "cut", "firsts", "mapped"]

_CHUNK = 1 << 15  # windows worked on at a time: its arrays of 256 KB stay in the cache of a core
_PLACE = np.uint64(2 * _CHUNK - 1)  # bits of a hash that make room for a place, so that a minimum tells where it was
_ODD = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio, the multiplier of Fibonacci hashing (Knuth, vol. 3, 6.4)
_MIX = np.uint64(0xBF58476D1CE4E5B9)  # a multiplier of SplitMix64's finaliser (Steele et al. 2014)


@dataclass(frozen=True)
class Substrings:
    """Cut every string of `at_least` bytes (UTF-8) that occurred before.

    keep: which document of those that share a string keeps it. memory: bytes that `merge` may use; the more, the fewer
    windows are grouped in vain. scope: "all", or "source" for repeats within a source only. table: where the result of
    `merge` was saved (`.npy`); without it every window is a key, and the result is the same.
    """

    at_least: int = 100
    keep: str = "earliest"
    memory: int = 1 << 30
    scope: Literal["all", "source"] = "all"
    table: str = ""
    name: str = "substrings"
    always: ClassVar[bool] = True  # `settle` is to be called for every document: it may repeat itself

    def __post_init__(self) -> None:
        if not 8 <= self.at_least <= _CHUNK:
            raise UserError(f"Repeated strings of {self.at_least} bytes cannot be sought; give 8 to {_CHUNK:,}.")
        if self.memory < 1 << 16:
            raise UserError(f"{self.memory:,} bytes of memory are too few to find repeats in; give 65,536 or more.")

    def sketch(self, documents: Iterable[Document]) -> np.ndarray:
        """(k,) uint64, sorted: the minimizers of some documents, each once, or twice if met at two places or more."""
        found = [np.empty(0, np.uint64)]
        for document in documents:
            found += [grams[anchors] for _, grams, _, anchors in _windows(_bytes(document.text), self.at_least)]
        hashes = np.sort(np.concatenate(found))
        third = np.zeros(len(hashes), np.bool_)
        third[2:] = hashes[2:] == hashes[:-2]
        return hashes[~third]

    def merge(self, sketches: Sequence[np.ndarray]) -> np.ndarray:
        """(bytes,) uint8, one bit for each of its slots for minimizers: met twice. Sketches are read in order, in parts
        (they may be memory maps); the order of them does not matter."""
        wanted = 4 * sum(map(len, sketches))  # bytes of a table of which 1/32 is used
        size = 1 << max(10, min(wanted, self.memory // 4).bit_length() - 1)
        part = self.memory // 128  # minimizers at a time, with about five arrays of 8 bytes each: a third of the memory
        once, twice = np.zeros(size, np.uint8), np.zeros(size, np.uint8)
        for sketch in sketches:
            for start in range(0, len(sketch), part):
                slots = np.sort(_slots(np.asarray(sketch[start : start + part]), size))
                again = np.concatenate([[False], slots[1:] == slots[:-1]])
                _set(twice, slots[again])
                slots = slots[~again]
                _set(twice, slots[_is_set(once, slots)])
                _set(once, slots)
        return twice

    def prepared(self, table: str | Path) -> Substrings:
        """The same step that knows where the table of `merge` lies (`.npy`)."""
        return replace(self, table=str(table))

    def keys(self, document: Document) -> np.ndarray:
        """(k,) uint64, hashes of the windows that may occur twice, all different, in order of their first places."""
        every = _candidates(_bytes(document.text), self.at_least, self._marks)[0]
        return every[firsts(every)[0]]

    def settle(self, document: Document, repeated: np.ndarray) -> Outcome:
        """Cut, given (k,) bool for `keys`: another document keeps an equal one. Windows that came before in this one go in
        any case."""
        content = _bytes(document.text)
        keys, places = _candidates(content, self.at_least, self._marks)
        first, which = firsts(keys)
        every = np.ones(len(keys), np.bool_)
        every[first] = False
        every |= repeated[which]
        if not every.any():
            return None
        gone = _characters(content, _covered(len(content), keys, places, every, self.at_least))
        text, ranges = _without(document.text, gone)
        if not text or text.isspace():
            return Drop("nothing but repeated strings", float(gone.mean()))
        return Edited(text, {"repeated strings": ranges, "repeated characters": int(gone.sum())}) if ranges else None

    @property
    def _marks(self) -> np.ndarray | None:
        return mapped(self.table) if self.table else None


def cut(texts: Sequence[str], at_least: int = 100, memory: int = 1 << 30) -> list[str]:
    """The texts without what is repeated, in their order, which says what comes first; "" where nothing is left.

    memory: bytes for the table and for grouping, which is done in as many rounds over the texts as that takes; a mask
    of one byte for each window that may occur twice comes on top.
    """
    step = Substrings(at_least, memory=memory)
    contents = [_bytes(text) for text in texts]
    marks = step.merge([step.sketch([Document("", text)]) for text in texts])
    masks = [np.zeros(len(_candidates(content, at_least, marks)[0]), np.bool_) for content in contents]
    rounds = 1 + 40 * sum(map(len, masks)) // memory  # a key, its copy, its place, and what sorting needs
    for turn in range(rounds):
        mine, keys = [], []
        for content in contents:
            every = _candidates(content, at_least, marks)[0]
            mine.append(every % np.uint64(rounds) == turn)
            keys.append(every[mine[-1]])
        later = np.ones(sum(map(len, keys)), np.bool_)
        later[np.unique(np.concatenate([*keys, np.empty(0, np.uint64)]), return_index=True)[1]] = False
        for mask, own, part in zip(masks, mine, np.split(later, np.cumsum([len(k) for k in keys])[:-1])):
            mask[own] = part
    out = []
    for text, content, mask in zip(texts, contents, masks):
        keys, places = _candidates(content, at_least, marks)
        out.append(_without(text, _characters(content, _covered(len(content), keys, places, mask, at_least)))[0])
    return out


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


@functools.cache
def _of_byte() -> np.ndarray:
    """(256,) uint64, a random number for each byte."""
    return np.random.default_rng(0).integers(0, 2**64, 256, np.uint64)


def _pair(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """(n,) uint64, hashes of the strings made of two parts, from the hashes of these."""
    hashes = left * _ODD
    hashes += right
    hashes ^= hashes >> np.uint64(32)
    hashes *= _MIX
    hashes ^= hashes >> np.uint64(29)
    return hashes


def _windows(content: bytes, length: int) -> Iterator[tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
    """All windows of `length` bytes, some at a time: where the first of these n windows begins; (n + length // 2,)
    uint64, hashes of the strings of half the length; and the runs of windows with the same minimizer, as (runs,)
    int64 places of the first window of each and of the minimizer, counted from the beginning of the part."""
    gram = length - length // 2
    for start in range(0, len(content) - length + 1, _CHUNK):
        grams = _of_byte()[np.frombuffer(content[start : start + _CHUNK + length - 1], np.uint8)]
        for width in _doubling(gram):  # a string is known by its two halves, which overlap in the last step
            grams = _pair(grams[:-width], grams[width:])
        least = grams & ~_PLACE
        least |= _PLACE - np.arange(len(grams), dtype=np.uint64)  # of equal ones the last is the least
        for width in _doubling(length // 2 + 1):
            least = np.minimum(least[:-width], least[width:])
        anchors = (_PLACE - (least & _PLACE)).astype(np.int64)
        runs = np.flatnonzero(np.concatenate([[True], anchors[1:] != anchors[:-1]]))
        yield start, grams, runs, anchors[runs]


def _doubling(length: int) -> list[int]:
    """Steps 1, 2, 4, ... of which the last is shorter, so that intervals of 1 grow to intervals of `length`."""
    steps, reached = [], 1
    while reached < length:
        steps.append(min(reached, length - reached))
        reached += steps[-1]
    return steps


def _candidates(content: bytes, length: int, marks: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """(k,) uint64 hashes and (k,) int64 places of the windows whose minimizers are marked, or of all."""
    keys, places = [np.empty(0, np.uint64)], [np.empty(0, np.int64)]
    for start, grams, runs, anchors in _windows(content, length):
        windows = len(grams) - length // 2
        found = np.arange(windows)
        if marks is not None:
            marked = _is_set(marks, _slots(grams[anchors], len(marks)))
            if not marked.any():
                continue
            found = np.flatnonzero(np.repeat(marked, np.diff(runs, append=windows)))
        keys.append(_pair(grams[found], grams[found + length // 2]))
        places.append(found + start)
    return np.concatenate(keys), np.concatenate(places)


def _slots(hashes: np.ndarray, size: int) -> np.ndarray:
    """(n,) uint64, the bits of a table of `size` bytes, a power of two. Minimizers are small numbers: mix them first."""
    return (hashes * _ODD) >> np.uint64(64 - (8 * size).bit_length() + 1)


def _is_set(table: np.ndarray, slots: np.ndarray) -> np.ndarray:
    return (table[slots >> np.uint64(3)] >> (slots & np.uint64(7)).astype(np.uint8) & np.uint8(1)).astype(np.bool_)


def _set(table: np.ndarray, slots: np.ndarray) -> None:
    bits = np.left_shift(np.uint8(1), (slots & np.uint64(7)).astype(np.uint8))
    np.bitwise_or.at(table, (slots >> np.uint64(3)).astype(np.intp), bits)


def firsts(hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places of the first of equal hashes, (u,) int64 in order, and which of these each hash equals, (n,) int64."""
    _, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return first[order], rank[inverse]


def mapped(table: str) -> np.ndarray:
    """A saved array as a memory map, opened once in a process and anew where the file was replaced."""
    about = Path(table).stat()
    return _mapped(table, about.st_ino, about.st_mtime_ns)


@functools.lru_cache(maxsize=4)
def _mapped(table: str, inode: int, changed_ns: int) -> np.ndarray:
    return np.load(table, mmap_mode="r", allow_pickle=False)


def _covered(size: int, keys: np.ndarray, places: np.ndarray, repeated: np.ndarray, length: int) -> np.ndarray:
    """(size,) bool, the bytes that go; keys, places, repeated: (k,) of the candidates."""
    first, order = keys[~repeated], np.argsort(keys[~repeated], kind="stable")
    starts, ends = places[repeated], places[repeated] + length
    if len(first):  # the first occurrences that lie in this document
        near = np.searchsorted(first[order], keys[repeated]).clip(max=len(first) - 1)
        same = first[order][near] == keys[repeated]
        starts = np.where(same, np.maximum(starts, places[~repeated][order][near] + length), starts)
    depth = np.bincount(starts, minlength=size + 1) - np.bincount(ends, minlength=size + 1)
    return np.cumsum(depth[:size]) > 0


def _characters(content: bytes, covered: np.ndarray) -> np.ndarray:
    """(characters,) bool, those all of whose bytes are covered."""
    first = np.flatnonzero((np.frombuffer(content, np.uint8) & 0xC0) != 0x80)
    return covered if len(first) == len(covered) else np.logical_and.reduceat(covered, first)


def _without(text: str, gone: np.ndarray) -> tuple[str, int]:
    """The text without some of its characters, and in how many ranges these lie."""
    edges = np.flatnonzero(np.diff(gone.view(np.int8), prepend=0, append=0)).tolist()
    kept = zip([0, *edges[1::2]], [*edges[::2], len(text)])
    return "".join([text[start:end] for start, end in kept]), len(edges) // 2
