"""Texts to words, fast: whitespace chunks are looked up in a table that knows the words of each and what they are.

A natural text repeats its chunks (Zipf), so that the splitting of a chunk, and every fact about its words (length,
letters, symbols, hash), is worked out once per distinct chunk; a document becomes arrays of integers, and counts over
it are sums of array lookups. Exact as long as words never reach over white space, which holds for the splitters here.
"""

from __future__ import annotations

import functools
import hashlib
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from unlabeled.core.errors import UserError

__all__ = ["Splitter", "Words", "fold", "hash_of", "plain", "spacy", "splitter"]

_KEPT_CHUNKS = 1 << 19  # distinct chunks remembered before the table is begun anew: about 200 MB
_LONGEST_CHUNK = 1 << 12  # characters; longer ones (base64, minified code) are split but not remembered

# Numbers with their points, words with inner apostrophes, runs of dots, and every other mark by itself.
_WORD = re.compile(r"\d+(?:[.,:]\d+)*|\w+(?:['’]\w+)*|\.{2,}|[^\w\s]")


def hash_of(text: str) -> int:
    """64 bits of a text, the same on every machine and in every process; never 0."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little") or 1


def fold(chunk: str) -> str:
    """A chunk as near-duplicates are compared: NFC, lower case, without marks of punctuation; may be empty."""
    if chunk.isascii() and chunk.isalnum():
        return chunk.lower()
    return "".join(c for c in unicodedata.normalize("NFC", chunk.lower()) if c.isalnum() or unicodedata.combining(c))


class Words:
    """The words of one text, as numbers into a table. n words, m chunks between white space.

    ids: (n,) int64, equal for equal words. chunks: (m,) int64, equal for equal chunks.
    """

    __slots__ = ("_table", "chunks", "ids")

    def __init__(self, table: _Table, chunks: np.ndarray) -> None:
        self._table, self.chunks = table, chunks
        starts, counts = table.starts[chunks], table.counts[chunks]
        # the words of each chunk one after the other: first place, first place + 1, ...
        ends = np.cumsum(counts)
        places = np.arange(int(ends[-1]) if len(ends) else 0) + np.repeat(starts - (ends - counts), counts)
        self.ids = table.members[places]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def strings(self) -> list[str]:
        """(n,) the words themselves."""
        return [self._table.words[i] for i in self.ids.tolist()]

    @property
    def length(self) -> np.ndarray:
        """(n,) int64, characters of each word."""
        return self._table.length[self.ids]

    @property
    def symbol(self) -> np.ndarray:
        """(n,) bool, words made of punctuation alone."""
        return self._table.symbol[self.ids]

    @property
    def letter(self) -> np.ndarray:
        """(n,) bool, words with at least one letter."""
        return self._table.letter[self.ids]

    @property
    def hashes(self) -> np.ndarray:
        """(n,) uint64, of the words as they are; the same in every process."""
        return self._table.hashes[self.ids]

    @property
    def folded(self) -> np.ndarray:
        """(at most m,) uint64, hashes of the folded chunks that are not empty, in order; the same in every process."""
        folded = self._table.folded[self.chunks]
        return folded[folded != 0]

    def among(self, wanted: Sequence[str]) -> np.ndarray:
        """(len(wanted),) int64, how often each of some words occurs, upper and lower case as given."""
        places = [self._table.place_of.get(word, -1) for word in wanted]
        return np.array([int((self.ids == p).sum()) if p >= 0 else 0 for p in places], dtype=np.int64)


class Splitter:
    """Splits texts by the words of their chunks. name: "plain" or "spacy"; cut: a chunk to its words."""

    def __init__(self, name: str, cut: Callable[[str], Iterable[str]], is_symbol: Callable[[str], bool]) -> None:
        self.name, self.cut, self.is_symbol = name, cut, is_symbol
        self._table = _Table(self)

    def __call__(self, text: str) -> Words:
        if len(self._table.of) > _KEPT_CHUNKS:
            self._table = _Table(self)  # texts that are still in use keep the old one
        table = self._table
        return Words(table, np.fromiter(map(table.of.__getitem__, text.split()), np.int64))


class _Growing:
    """An array that grows at its end; `array` is the part in use."""

    def __init__(self, dtype: type) -> None:
        self._room = np.zeros(1024, dtype)
        self.size = 0

    def append(self, value: int) -> None:
        if self.size == len(self._room):
            self._room = np.concatenate([self._room, np.zeros_like(self._room)])
        self._room[self.size] = value
        self.size += 1

    @property
    def array(self) -> np.ndarray:
        return self._room[: self.size]

    def __getitem__(self, places: np.ndarray) -> np.ndarray:
        return self._room[places]


class _Table:
    """Everything known of the chunks met so far and of their words."""

    def __init__(self, splitter: Splitter) -> None:
        self._splitter = splitter
        self.of = _Chunks(self)
        self.starts, self.counts, self.folded = _Growing(np.int64), _Growing(np.int64), _Growing(np.uint64)
        self.members = _Growing(np.int64)  # words of all chunks end to end
        self.words: list[str] = []
        self.place_of: dict[str, int] = {}
        self.length, self.symbol, self.letter = _Growing(np.int64), _Growing(np.bool_), _Growing(np.bool_)
        self.hashes = _Growing(np.uint64)

    def learn(self, chunk: str) -> int:
        place, start = self.starts.size, self.members.size
        for word in self._splitter.cut(chunk):
            self.members.append(self._word(word))
        self.starts.append(start)
        self.counts.append(self.members.size - start)
        folded = fold(chunk)
        self.folded.append(hash_of(folded) if folded else 0)
        return place

    def _word(self, word: str) -> int:
        place = self.place_of.get(word)
        if place is None:
            place = self.place_of[word] = len(self.words)
            self.words.append(word)
            self.length.append(len(word))
            self.symbol.append(self._splitter.is_symbol(word))
            self.letter.append(any(map(str.isalpha, word)))
            self.hashes.append(hash_of(word))
        return place


class _Chunks(dict[str, int]):
    def __init__(self, table: _Table) -> None:
        super().__init__()
        self._table = table

    def __missing__(self, chunk: str) -> int:
        place = self._table.learn(chunk)
        if len(chunk) <= _LONGEST_CHUNK:
            self[chunk] = place
        return place


def _only_marks(word: str) -> bool:
    return not any(map(str.isalnum, word))


@functools.cache
def plain() -> Splitter:
    """The splitter of one regular expression; no language is presumed."""
    return Splitter("plain", _WORD.findall, _only_marks)


@functools.cache
def spacy() -> Splitter:
    """The tokenizer of spaCy's blank English, as datatrove counts words.

    Raises:
        UserError: where spaCy is not installed.
    """
    try:
        from spacy.lang.en import English
    except ImportError as error:
        raise UserError("Words by spaCy need it: `pip install spacy`, or leave `words` at plain.") from error
    tokenizer = English().tokenizer

    def cut(chunk: str) -> list[str]:
        return [token.text for token in tokenizer(chunk)]

    return Splitter("spacy", cut, _only_marks)


def splitter(name: str) -> Splitter:
    """ "plain" or "spacy"."""
    return {"plain": plain, "spacy": spacy}[name]()
