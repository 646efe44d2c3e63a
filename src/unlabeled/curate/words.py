"""Texts to words, fast: whitespace chunks are looked up in a table that knows the words of each and what they are.

A natural text repeats its chunks (Zipf), so that the splitting of a chunk, and every fact about its words (length,
letters, symbols, hash), is worked out once per distinct chunk; a document becomes arrays of integers, and counts over
it are sums of array lookups. Exact as long as words never reach over white space. Ours do not. spaCy's tokenizer cuts
at white space first too, with one way out: a sequence of marks that it knows as one emoticon is looked for across single
spaces as well; nothing is joined there, but a true find that overlaps such a one is given up.
"""

from __future__ import annotations

import functools
import hashlib
import re
import string
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from unlabeled.core.errors import UserError

__all__ = ["TERMINAL", "Splitter", "Words", "fold", "hash_of", "plain", "spacy", "splitter"]

_KEPT_CHUNKS = 1 << 19  # distinct chunks remembered before the table is begun anew: about 200 MB
_KEPT_CHARACTERS = 1 << 26  # of distinct words; the second reason to begin anew, met by texts without white space
_LONGEST_CHUNK = 1 << 12  # characters; longer ones (base64, minified code) are split but not remembered
_BASE = 0x9E3779B97F4A7C15  # odd, of the polynomial hash of characters: 2^64 over the golden ratio (Knuth, TAOCP 6.4)
_MASK = (1 << 64) - 1


def _characters(ranges: str) -> frozenset[str]:
    """ "21 2e 61-7a" to the characters of these code points."""
    ends = (part.partition("-") for part in ranges.split())
    return frozenset(chr(c) for a, _, b in ends for c in range(int(a, 16), int(b or a, 16) + 1))


# What ends a sentence, in many scripts: Unicode's property Sentence_Terminal as far as datatrove 0.10.1 counts it (the
# same but for three Khmer signs more and a dozen characters of Unicode 16 less).
TERMINAL = _characters(
    "21 2e 3f 589 61d-61f 6d4 700-702 7f9 837 839 83d-83e 964-965 104a-104b 1362 1367-1368 166e 1735-1736 17d4-17d6 "
    "17d9-17da 1803 1809 1944-1945 1aa8-1aab 1b5a-1b5b 1b5e-1b5f 1b7d-1b7e 1c3b-1c3c 1c7e-1c7f 203c-203d 2047-2049 "
    "2e2e 2e3c 2e53-2e54 3002 a4ff a60e-a60f a6f3 a6f7 a876-a877 a8ce-a8cf a92f a9c8-a9c9 aa5d-aa5f aaf0-aaf1 abeb "
    "fe52 fe56-fe57 ff01 ff0e ff1f ff61 10a56-10a57 10f55-10f59 10f86-10f89 11047-11048 110be-110c1 11141-11143 "
    "111c5-111c6 111cd 111de-111df 11238-11239 1123b-1123c 112a9 1144b-1144c 115c2-115c3 115c9-115d7 11641-11642 "
    "1173c-1173e 11944 11946 11a42-11a43 11a9b-11a9c 11c41-11c42 11ef7-11ef8 11f43-11f44 16a6e-16a6f 16af5 16b37-16b38 "
    "16b44 16e98 1bc9f 1da88"
)
# What datatrove 0.10.1 counts as punctuation: ASCII's, controls, a choice of typographic marks (a full-width 1 among
# them, which stems from CCNet's list), and what ends a sentence. The bullet and the euro sign are not in it.
_DATATROVE_MARKS = (
    frozenset(string.punctuation)
    | _characters("0-8 b-1f 7f-9f ab b4 bb 2013-2014 2019 201c-201e 2026 2236 2501 25ba 3001-3002 3008-300d 3010-3011")
    | _characters("ff01 ff05 ff08-ff09 ff0c ff0e ff11 ff1a-ff1b ff1f ff5e")
    | TERMINAL
)

# An address; a word with marks before it or inside it that English text does not cut at ("don't", "3.14", "/usr", "x-1", but
# "well", "-", "known"); a run of dots, or of marks such as hyphens and slashes; and every other mark by itself. Near to
# spaCy's English, so that limits on shares of words mean about the same; exactly so is the splitter "spacy".
_WORD = re.compile(
    r"(?:https?|ftp)://\S*\w/?"
    r"|[-/\\|^~@+`.]*\w+(?:(?:[.,:](?=\d)|[.@'’+&\\|^~`]|(?<=\d)-|[-/](?=\d))+\w+)*"
    r"|\.{2,}|[-/\\|^~@+`]+|[^\w\s]"
)


def hash_of(text: str) -> int:
    """64 bits of a text, the same on every machine and in every process; never 0."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little") or 1


def _rolled(word: str) -> int:
    """Polynomial hash of characters mod 2^64: that of a + b is rolled(a) * base^len(b) + rolled(b)."""
    if len(word) > 256:
        codes = np.frombuffer(word.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64) + np.uint64(1)
        powers = np.cumprod(np.full(len(codes), _BASE, np.uint64))  # base^1 ... base^n
        return int((codes[:-1] * powers[-2::-1]).sum() + codes[-1]) & _MASK
    value = 0
    for character in word:
        value = value * _BASE + ord(character) + 1 & _MASK
    return value


def fold(chunk: str) -> str:
    """A chunk as near-duplicates are compared: NFC, lower case, without marks of punctuation; may be empty."""
    if chunk.isascii() and chunk.isalnum():
        return chunk.lower()
    return "".join(c for c in unicodedata.normalize("NFC", chunk.lower()) if c.isalnum() or unicodedata.combining(c))


class Words:
    """The words of one text, as numbers into a table. n words, m chunks between white space.

    ids: (n,) int64, equal for equal words. chunks: (m,) int64, equal for equal chunks.
    """

    def __init__(self, table: _Table, chunks: np.ndarray) -> None:
        self._table, self.chunks = table, chunks

    @functools.cached_property
    def ids(self) -> np.ndarray:
        """(n,) int64; worked out when it is first asked for, since near-duplicates need the chunks alone."""
        starts, counts = self._table.starts[self.chunks], self._table.counts[self.chunks]
        # the words of each chunk one after the other: first place, first place + 1, ...
        ends = np.cumsum(counts)
        places = np.arange(int(ends[-1]) if len(ends) else 0) + np.repeat(starts - (ends - counts), counts)
        return self._table.members[places]

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
    def rolled(self) -> tuple[np.ndarray, np.ndarray]:
        """(n,) uint64 each: polynomial hash h of the characters of each word, and the factor f that makes room for it.

        The hash of words a, b written together is h_a * f_b + h_b mod 2^64, wherever the border between them lies.
        """
        return self._table.rolled[self.ids], self._table.factor[self.ids]

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
    """Splits texts by the words of their chunks. name: "plain" or "spacy"; cut: chunks to the words of each."""

    def __init__(
        self, name: str, cut: Callable[[Sequence[str]], Iterable[Sequence[str]]], is_symbol: Callable[[str], bool]
    ) -> None:
        self.name, self.cut, self.is_symbol = name, cut, is_symbol
        self._table = _Table(self)

    def __call__(self, text: str) -> Words:
        if len(self._table.of) > _KEPT_CHUNKS or self._table.characters > _KEPT_CHARACTERS:
            self._table = _Table(self)  # texts that are still in use keep the old one
        return Words(self._table, self._table.places(text.split()))

    def parts(self, chunk: str) -> list[str]:
        """The words of one chunk, from the table."""
        return Words(self._table, self._table.places([chunk])).strings


class _Growing:
    """An array that grows at its end."""

    def __init__(self, dtype: type) -> None:
        self._room = np.zeros(1024, dtype)
        self.size = 0

    def extend(self, values: Sequence[int]) -> None:
        end = self.size + len(values)
        if end > len(self._room):
            room = np.zeros(max(end, 2 * len(self._room)), self._room.dtype)
            room[: self.size] = self._room[: self.size]
            self._room = room
        self._room[self.size : end] = values
        self.size = end

    def __getitem__(self, places: np.ndarray) -> np.ndarray:
        return self._room[places]


class _Table:
    """Everything known of the chunks met so far and of their words."""

    def __init__(self, splitter: Splitter) -> None:
        self._splitter = splitter
        self.of: dict[str, int] = {}
        self.starts, self.counts, self.folded = _Growing(np.int64), _Growing(np.int64), _Growing(np.uint64)
        self.members = _Growing(np.int64)  # words of all chunks end to end
        self.words: list[str] = []
        self.place_of: dict[str, int] = {}
        self.length, self.symbol, self.letter = _Growing(np.int64), _Growing(np.bool_), _Growing(np.bool_)
        self.hashes, self.rolled, self.factor = _Growing(np.uint64), _Growing(np.uint64), _Growing(np.uint64)
        self.characters = 0

    def places(self, chunks: Sequence[str]) -> np.ndarray:
        """(chunks,) int64, where each is in the table."""
        places = list(map(self.of.get, chunks))
        if None in places:
            unknown = list(dict.fromkeys(c for c, place in zip(chunks, places, strict=True) if place is None))
            new = dict(zip(unknown, range(self.starts.size, self.starts.size + len(unknown)), strict=True))
            self._learn(unknown)
            self.of.update(new if all(len(c) <= _LONGEST_CHUNK for c in new) else _short(new))
            places = [new[c] if place is None else place for c, place in zip(chunks, places, strict=True)]
        return np.array(places, np.int64)

    def _learn(self, chunks: Sequence[str]) -> None:
        known, place_of = len(self.words), self.place_of
        counts, members = [], []
        for words in self._splitter.cut(chunks):
            counts.append(len(words))
            for word in words:
                place = place_of.get(word)
                if place is None:
                    place = place_of[word] = len(place_of)
                    self.words.append(word)
                members.append(place)
        ends = self.members.size + np.cumsum(counts)
        self.starts.extend(ends - counts)
        self.counts.extend(counts)
        self.members.extend(members)
        self.folded.extend([hash_of(folded) if folded else 0 for folded in map(fold, chunks)])
        new = self.words[known:]
        lengths = list(map(len, new))
        self.length.extend(lengths)
        self.symbol.extend(list(map(self._splitter.is_symbol, new)))
        self.letter.extend([word.isalpha() or any(map(str.isalpha, word)) for word in new])
        self.hashes.extend(list(map(hash_of, new)))
        self.rolled.extend(list(map(_rolled, new)))
        self.factor.extend([pow(_BASE, length, 1 << 64) for length in lengths])
        self.characters += sum(lengths)


def _short(places: Mapping[str, int]) -> dict[str, int]:
    return {chunk: place for chunk, place in places.items() if len(chunk) <= _LONGEST_CHUNK}


def _only_marks(word: str) -> bool:
    return not any(map(str.isalnum, word))


@functools.cache
def plain() -> Splitter:
    """The splitter of one regular expression; no language is presumed."""
    return Splitter("plain", lambda chunks: map(_WORD.findall, chunks), _only_marks)


@functools.cache
def spacy() -> Splitter:
    """The tokenizer of spaCy's blank English, as datatrove counts words.

    Raises:
        UserError: where spaCy is not installed.
    """
    try:
        from spacy.lang.en import English
    except ImportError as error:
        raise UserError("Words by spaCy need it: `pip install spacy`, or take --words plain.") from error

    def fresh() -> Any:
        tokenizer: Any = English().tokenizer
        tokenizer.vocab.lex_attr_getters = {}  # what else spaCy would find out of each new word; splitting asks none of it
        return tokenizer

    tokenizer, taught = fresh(), 0

    def cut(chunks: Sequence[str]) -> list[list[str]]:
        nonlocal tokenizer, taught
        taught += len(chunks)
        if taught > _KEPT_CHUNKS:  # its vocabulary never forgets
            tokenizer, taught = fresh(), len(chunks)
        joined = "\n".join(chunks)
        if not joined.isascii():  # half a surrogate pair, of which spaCy makes no word, becomes a question mark
            joined = joined.encode("utf-8", "replace").decode()
        words: list[list[str]] = [[]]
        start = 0
        for end in np.cumsum(tokenizer(joined).to_array("LENGTH")).tolist():
            word, start = joined[start:end], end
            if word == "\n":
                words.append([])
            else:
                words[-1].append(word)
        return words

    return Splitter("spacy", cut, _DATATROVE_MARKS.issuperset)


def splitter(name: str) -> Splitter:
    """ "plain" or "spacy"."""
    return {"plain": plain, "spacy": spacy}[name]()
