"""Near duplicates: documents whose sets of n-grams have a large Jaccard similarity, by MinHash and banding.

MinHash: Broder 1997; banding: Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, chapter 3. A pair of similarity
s shares at least one of the keys with probability 1 - (1 - s^rows)^bands. Presets: `PRESETS`.

Where we differ from the tools that the presets come from:

- Words are white-space chunks in lower case without punctuation (`hashing.folded`); an n-gram's hash is a polynomial of the
  hashes of its words, no strings are built. The modes `compat="datatrove"` and `"datasketch"` do as these packages do, to
  the last bit, for corpora whose signatures exist already; they are slower by an order of magnitude.
- The k minima do not come from k permutations of all n-grams. The hashes are sorted once and cut into k equal ranges; the
  minimum of a range that holds one is its value, as in one-permutation hashing (Li, Owen and Zhang 2012). A range that
  is empty is filled by another such round and, after the last, by a permutation of its own over all n-grams. That is
  fast similarity sketching (Dahlgaard, Knudsen and Thorup 2017) with fewer rounds; unlike densification, which
  borrows from neighbours, every value agrees with probability s exactly and values of short documents do not hang together.
  Ranges draw without replacement, which makes the curve a little steeper than the formula: among 12,000 pairs each of 60
  to 1000 n-grams, 14 x 8 found 0.929 to 0.936 at s = 0.8 (formula 0.924) and 0.557 to 0.569 at s = 0.7 (0.565).
- A document of fewer than n words is one shingle of all its words (datatrove passes it over); one without
  words has no keys and is a near duplicate of nothing.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from unlabeled.core.errors import UserError, suggest
from unlabeled.curate.dedup.compat import datasketch, datatrove, grams
from unlabeled.curate.dedup.hashing import drawn, folded, mix, rolled
from unlabeled.curate.document import Document

__all__ = ["PRESETS", "Near", "jaccard", "optimal", "preset", "probability", "shingles", "signature"]

Unit = Literal["words", "characters", "raw characters"]
Compat = Literal["", "datasketch", "datatrove"]

_BLOCK = 1 << 15  # products held at a time while a range is filled: 256 KB, in the second-level cache
_ROUND = 256  # values for which one round of ranges is made: more rounds fill more ranges, fewer cost less
_WHITE = re.compile(r"\s+")
_ASCII_MARKS = str.maketrans("", "", "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")


@dataclass(frozen=True)
class Near:
    """Join documents that share a key in any band; of each group all but the best go.

    shingle: length of an n-gram. unit: of what, "words" (`hashing.folded`), "characters" (in lower case, without ASCII
    punctuation, white space to one blank) or "raw characters". bands, rows: keys a document, values a key.
    scope: "all", or "source" where copies in other sources do not count. keep: which of a group stays (`steps.rank_of`).
    verify: if not None, true similarity that a pair must have to be joined; `same` says whether it has.
    compat: "datatrove" or "datasketch", whose shingles and signatures are made instead of ours. seed: of all that is drawn.

    Raises:
        UserError: where a length, a number of bands or of rows is below 1, or a name is unknown.
    """

    shingle: int = 5
    bands: int = 14
    rows: int = 8
    scope: Literal["all", "source"] = "all"
    keep: str = "earliest"
    unit: Unit = "words"
    verify: float | None = None
    compat: Compat = ""
    seed: int = 1
    name: str = "near duplicates"
    reason: str = "near duplicate"

    def __post_init__(self) -> None:
        if min(self.shingle, self.bands, self.rows) < 1:
            raise UserError("Near duplicates need a shingle, bands and rows of 1 at least.")
        if self.unit not in ("words", "characters", "raw characters"):
            raise UserError(f"Shingles are of words, characters or raw characters, not of {self.unit!r}.")
        if self.compat not in ("", "datasketch", "datatrove"):
            raise UserError(f"compat is empty, datasketch or datatrove, not {self.compat!r}.")
        if self.verify is not None and not 0 <= self.verify <= 1:
            raise UserError(f"A Jaccard similarity lies between 0 and 1; verify is {self.verify}.")

    def keys(self, document: Document) -> np.ndarray:
        """(bands,) uint64; (0,) for a document without a shingle."""
        values = self.signature(document)
        return self.banded(values) if len(values) else values

    def banded(self, values: np.ndarray) -> np.ndarray:
        """(bands,) uint64, the hashes of `rows` values each of a signature, (bands * rows,) uint64."""
        return mix((values.reshape(self.bands, self.rows) * _weights(self.bands, self.rows)).sum(axis=1))

    def signature(self, document: Document) -> np.ndarray:
        """(bands * rows,) uint64, the minima; (0,) for a document without a shingle."""
        count = self.bands * self.rows
        if self.compat == "datatrove":
            return datatrove(document.text, count, self.shingle, self.seed)
        if self.compat == "datasketch":
            return datasketch(grams(document.text, self.shingle), count, self.seed).astype(np.uint64)
        return signature(shingles(document, self.shingle, self.unit), count, self.seed)

    def same(self, one: Document, other: Document) -> bool:
        """Whether two documents that share a key are to be joined: at least `verify` alike, if that is asked."""
        if self.verify is None:
            return True
        return jaccard(*(shingles(d, self.shingle, self.unit) for d in (one, other))) >= self.verify

    def verified(self, pairs: np.ndarray, documents: Iterable[tuple[int, Document]]) -> np.ndarray:
        """(m,) bool, `same` for many pairs, (m, 2) of numbers, from one reading of documents with their numbers.

        A document's shingles, 8 bytes a word, are held from when it is read until its last partner is. A pair of
        which one is not among the documents is not verified.
        """
        found = np.full(len(pairs), self.verify is None)
        if self.verify is None:
            return found
        waiting: dict[int, list[int]] = {}  # number: places of its pairs
        for place, pair in enumerate(pairs.tolist()):
            for number in pair:
                waiting.setdefault(number, []).append(place)
        held: dict[int, tuple[np.ndarray, set[int]]] = {}
        for number, document in documents:
            if number not in waiting:
                continue
            own, open_pairs = shingles(document, self.shingle, self.unit), set(waiting.pop(number))
            held[number] = own, open_pairs
            for place in sorted(open_pairs):
                one, other = pairs[place].tolist()
                if (partner := other if number == one else one) in held:
                    found[place] = jaccard(held[partner][0], own) >= self.verify
                    for member in {number, partner}:
                        held[member][1].discard(place)
                        if not held[member][1]:
                            del held[member]
        return found


# By the formula 20 x 450 joins from 0.993 on. Lee et al. check candidates by Jaccard and by edit similarity, both above 0.8;
# here `verify=0.8` asks for the former, the latter is not computed, and unless asked nothing is checked.
PRESETS: Mapping[str, Near] = {
    "fineweb": Near(5, 14, 8),  # arXiv 2406.17557; datatrove's default: threshold 0.719
    "refinedweb": Near(5, 20, 450),  # arXiv 2306.01116, after Lee et al., arXiv 2107.06499
    "gpt3-like": Near(5, 25, 10),  # 256 permutations at 0.7 by `optimal`, as text-dedup cuts them
    "nemo": Near(24, 20, 13, unit="raw characters"),  # NeMo Curator's defaults: threshold 0.794
    "slimpajama": Near(13, 9, 13, unit="characters"),  # 128 permutations at 0.8 by `optimal`; see `preset`
}


def preset(name: str, **changed: Any) -> Near:
    """The near-duplicate step of a published corpus, with fields changed if any are named.

    SlimPajama's paper speaks of 13-grams of preprocessed lower-case text; its code (Cerebras modelzoo, `to_hash.py`) takes
    them of a string, that is of characters. So do we.

    Raises:
        UserError: where there is none of that name.
    """
    if name not in PRESETS:
        raise UserError(f"There is no preset {name!r} for near duplicates{suggest(name, PRESETS) or '.'}")
    return dataclasses.replace(PRESETS[name], **changed)


# ---- shingles -----------------------------------------------------------------------------------------------


def shingles(document: Document, size: int = 5, unit: Unit = "words") -> np.ndarray:
    """(m,) uint64, the hashes of all runs of `size` words or characters, in order, repeats included.

    Fewer than `size` of them are one shingle; none give (0,). Equal in every process.
    """
    if unit == "words":
        atoms = folded(document.text)
    else:
        text = document.text
        if unit == "characters":
            text = _WHITE.sub(" ", text.lower().translate(_ASCII_MARKS).strip())
        code_points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
        atoms = mix(code_points.astype(np.uint64))
    return mix(rolled(atoms, min(size, len(atoms)))) if len(atoms) else np.zeros(0, np.uint64)


def jaccard(one: np.ndarray, other: np.ndarray) -> float:
    """Similarity of two sets of shingles given with repeats: common ones by all. Two empty sets are equal: 1."""
    one, other = np.unique(one), np.unique(other)
    common = len(np.intersect1d(one, other, assume_unique=True))
    return common / total if (total := len(one) + len(other) - common) else 1.0


# ---- signatures ---------------------------------------------------------------------------------------------


def signature(hashes: np.ndarray, count: int, seed: int = 1) -> np.ndarray:
    """(count,) uint64 of a set of hashes, (m,) uint64 well mixed; (0,) of none.

    The i-th values of two sets are equal with the probability of their Jaccard similarity.
    """
    if not len(hashes):
        return np.zeros(0, np.uint64)
    a, b = _permutations(count, seed)
    values, open_ranges = np.zeros(count, np.uint64), np.ones(count, bool)
    for turn in range(max(1, count // _ROUND)):
        drawn_anew = hashes ^ a[turn]
        ordered = np.sort(mix(drawn_anew) if turn else drawn_anew)
        # 52 bits times the count are below the count in double precision too
        ranges = ((ordered >> np.uint64(12)).astype(np.float64) * (count * 2.0**-52)).astype(np.int64)
        first = np.append(0, np.flatnonzero(ranges[1:] != ranges[:-1]) + 1)
        first = first[open_ranges[ranges[first]]]
        values[ranges[first]] = ordered[first]
        open_ranges[ranges[first]] = False
        if not open_ranges.any():
            return values
    empty = np.flatnonzero(open_ranges)
    for start in range(0, len(empty), step := max(1, _BLOCK // min(len(hashes), _BLOCK))):
        some = empty[start : start + step]
        lowest = np.full(len(some), np.iinfo(np.uint64).max)
        for at in range(0, len(hashes), _BLOCK):
            products = a[some, None] * hashes[at : at + _BLOCK]
            products += b[some, None]
            np.minimum(lowest, products.min(axis=1), out=lowest)
        values[some] = lowest
    return values


@functools.lru_cache(maxsize=8)
def _permutations(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Odd factors and summands, (count,) uint64 each: x -> a x + b mod 2^64."""
    both = drawn(2 * count, f"permutations {seed}")
    return both[:count] | np.uint64(1), both[count:]


@functools.lru_cache(maxsize=8)
def _weights(bands: int, rows: int) -> np.ndarray:
    """(bands, rows) uint64, odd: the hash of a band is a sum of its values by these."""
    return drawn(bands * rows, "bands").reshape(bands, rows) | np.uint64(1)


# ---- the curve ----------------------------------------------------------------------------------------------


def probability(similarity: Any, bands: int, rows: Any) -> Any:
    """That a pair of such Jaccard similarity shares a key: 1 - (1 - s^rows)^bands. Numbers, or arrays that broadcast."""
    return 1 - (1 - similarity**rows) ** bands


def optimal(threshold: float, permutations: int, false_positives: float = 0.5) -> tuple[int, int]:
    """The (bands, rows), bands * rows <= permutations, with the least weighted sum of the area of the curve below the
    threshold and the area missing above it, all similarities being equally likely; as datasketch's `MinHashLSH`.

    false_positives: weight of the former area; the latter has 1 minus it.
    """
    nodes, weights = np.polynomial.legendre.leggauss(permutations // 2 + 1)  # exact for s^permutations
    below, above = (nodes + 1) / 2 * threshold, threshold + (nodes + 1) / 2 * (1 - threshold)
    least, found = math.inf, (1, 1)
    for bands in range(1, permutations + 1):
        rows = np.arange(1, permutations // bands + 1)[:, None]
        wrong = (probability(below, bands, rows) * weights).sum(axis=1) * threshold / 2
        missed = ((1 - probability(above, bands, rows)) * weights).sum(axis=1) * (1 - threshold) / 2
        error = false_positives * wrong + (1 - false_positives) * missed
        if error.min() < least:
            least, found = float(error.min()), (bands, int(error.argmin()) + 1)
    return found
