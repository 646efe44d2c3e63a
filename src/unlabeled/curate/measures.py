"""Statistics of one document, which the rules for prose bound.

Published in Rae et al. 2021 (Gopher, arXiv 2112.11446, appendix A.1.1 and table A1) and Penedo et al. 2024 (FineWeb,
arXiv 2406.17557, section 3.6). The papers leave open what a word is, what the denominators are and how repeated n-grams
that overlap are counted; here all of it is as in datatrove 0.10.1, whose numbers these are, digit for digit, where words
are split by spaCy. In particular characters are shares of the whole text, white space included; the most frequent n-gram
counts with one space between its words, even if it occurs once, and of several equally frequent ones it is the one that
comes first; repeated n-grams are found from left to right, jumping behind each find, and compared without spaces, so that
"ab c" repeats "a bc".

n-grams are compared by 64-bit hashes of their words, never built: of a text of 10^5 n-grams, two differing ones are taken
for equal with a probability of about 10^-10.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from unlabeled.curate.document import Document, once
from unlabeled.curate.words import TERMINAL

__all__ = [
    "bullet_lines",
    "characters",
    "duplicate_line_characters",
    "duplicate_lines",
    "duplicate_ngram",
    "duplicate_paragraph_characters",
    "duplicate_paragraphs",
    "ellipses_per_word",
    "ellipsis_lines",
    "filled_lines",
    "hashes_per_word",
    "mean_word_length",
    "newlines_per_word",
    "punctuated_lines",
    "repeated_line_characters",
    "rolled_ngrams",
    "sentences",
    "short_lines",
    "stop_words",
    "top_ngram",
    "words",
    "words_with_letter",
]

STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")  # Gopher, appendix A.1.1
_PARAGRAPH = re.compile(r"\n{2,}")
_BULLETS, _ELLIPSES = ("•", "-"), ("...", "…")
_ODD = np.uint64(0xD6E8FEB86659FD93)  # an odd multiplier (Rrmxmx, P. Evensen 2018); any would do


def characters(document: Document) -> float:
    """Characters of the text."""
    return len(document.text)


def words(document: Document) -> float:
    """Words that are not punctuation alone."""
    return _word_facts(document)[0]


def mean_word_length(document: Document) -> float:
    """Mean length in characters of the words that are not punctuation alone; 0 without any."""
    number, length, _ = _word_facts(document)
    return length / number if number else 0.0


def words_with_letter(document: Document) -> float:
    """Share of the words, punctuation among them, that have a letter; 0 without words."""
    return _share(_word_facts(document)[2], len(document.words))


def hashes_per_word(document: Document) -> float:
    """How many number signs there are to a word."""
    return _share(document.text.count("#"), len(document.words))


def ellipses_per_word(document: Document) -> float:
    """How many ellipses, of three full stops or one character, there are to a word."""
    return _share(sum(map(document.text.count, _ELLIPSES)), len(document.words))


def bullet_lines(document: Document) -> float:
    """Share of lines that begin with a bullet or a hyphen."""
    lines = document.lines
    if not any(mark in document.text for mark in _BULLETS):
        return 0.0
    return _share(sum(line.lstrip().startswith(_BULLETS) for line in lines), len(lines))


def ellipsis_lines(document: Document) -> float:
    """Share of lines that end in an ellipsis."""
    lines = document.lines
    if not any(mark in document.text for mark in _ELLIPSES):
        return 0.0
    return _share(sum(line.rstrip().endswith(_ELLIPSES) for line in lines), len(lines))


def stop_words(document: Document) -> float:
    """How many different words of STOP_WORDS occur, in lower case."""
    return int((document.words.among(STOP_WORDS) > 0).sum())


def sentences(document: Document) -> float:
    """Sentences of the whole text (see `sentences.py`)."""
    from unlabeled.curate.sentences import count

    return count(document.text, document.splitter)


def duplicate_lines(document: Document) -> float:
    """Share of lines, runs of line feeds being one end of line, that occurred before."""
    return _line_facts(document)[0]


def duplicate_line_characters(document: Document) -> float:
    """Share of the text's characters that is in lines that occurred before."""
    return _line_facts(document)[1]


def duplicate_paragraphs(document: Document) -> float:
    """Share of paragraphs, which blank lines divide, that occurred before."""
    return _paragraph_facts(document)[0]


def duplicate_paragraph_characters(document: Document) -> float:
    """Share of the text's characters that is in paragraphs that occurred before."""
    return _paragraph_facts(document)[1]


def top_ngram(document: Document, n: int) -> float:
    """Share of the text's characters that the most frequent sequence of n words covers, 0 if there is none."""
    ids = document.words.ids
    if len(ids) < n:
        return 0.0
    grams = rolled_ngrams(document.words.hashes, n)
    repeated, counts = _repeated(grams)
    most, place = 1, 0  # nothing repeats: all are most frequent, and the first comes first
    if len(repeated):
        most = int(counts.max())
        place = int(np.flatnonzero(_among(grams, repeated[counts == most]))[0])
    length = int(document.words.length[place : place + n].sum()) + n - 1
    return length * most / len(document.text)


def duplicate_ngram(document: Document, n: int) -> float:
    """Share of the text's characters that is in sequences of n words that occurred before."""
    grams = _written_together(document).of(n)
    repeated, _ = _repeated(grams)
    if not len(repeated):
        return 0.0
    places = np.flatnonzero(_among(grams, repeated))
    ends = _written_together(document).ends
    covered, free, seen = 0, 0, set()
    for place, gram in zip(places.tolist(), grams[places].tolist(), strict=True):
        if place < free:
            continue
        if gram in seen:
            covered += int(ends[place + n] - ends[place])
            free = place + n
        else:
            seen.add(gram)
    return covered / len(document.text)


def punctuated_lines(document: Document) -> float:
    """Share of lines that end, at their very last character, in what ends a sentence in any script."""
    lines = _filled_lines(document)
    return _share(sum(line[-1] in TERMINAL for line in lines), len(lines))


def short_lines(document: Document) -> float:
    """Share of lines of at most 30 characters."""
    lines = _filled_lines(document)
    return _share(sum(length <= 30 for length in map(len, lines)), len(lines))


def repeated_line_characters(document: Document) -> float:
    """Share of the characters, line feeds left out, that is in lines that occurred before."""
    _, covered = _duplicates(_filled_lines(document))
    return _share(covered, len(document.text) - document.text.count("\n"))


def newlines_per_word(document: Document) -> float:
    """Line feeds to a word."""
    return _share(document.text.count("\n"), len(document.words))


def filled_lines(document: Document) -> float:
    """Lines that are not blank."""
    return len(_filled_lines(document))


def rolled_ngrams(hashes: np.ndarray, n: int) -> np.ndarray:
    """(words - n + 1,) uint64, hashes of n neighbouring words each; hashes: (words,) uint64 of at least n words."""
    number = len(hashes) - n + 1
    grams = hashes[:number].copy()
    for shift in range(1, n):
        grams *= _ODD
        grams += hashes[shift : number + shift]
    return grams


def _share(part: float, whole: int) -> float:
    return part / whole if whole else 0.0


@once
def _word_facts(document: Document) -> tuple[int, int, int]:
    """Words that are not punctuation alone, their characters, and words with a letter."""
    found = document.words
    real = ~found.symbol
    return int(real.sum()), int(found.length[real].sum()), int(found.letter.sum())


@once
def _filled_lines(document: Document) -> list[str]:
    return [line for line in document.text.split("\n") if line and not line.isspace()]


def _duplicates(parts: Sequence[str]) -> tuple[int, int]:
    """How many parts equal an earlier one, and their characters."""
    different = set(parts)
    if len(different) == len(parts):
        return 0, 0
    return len(parts) - len(different), sum(map(len, parts)) - sum(map(len, different))


@once
def _line_facts(document: Document) -> tuple[float, float]:
    text = document.text
    lines = [line for line in text.split("\n") if line]
    lines += [""] * (text.startswith("\n") + text.endswith("\n") if lines else 2 if text else 1)
    number, length = _duplicates(lines)
    return number / len(lines), _share(length, len(text))


@once
def _paragraph_facts(document: Document) -> tuple[float, float]:
    paragraphs = _PARAGRAPH.split(document.text.strip())
    number, length = _duplicates(paragraphs)
    return number / len(paragraphs), _share(length, len(document.text))


def _repeated(grams: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Hashes that occur more than once, in increasing order, and how often."""
    grams = np.sort(grams)
    equal = grams[1:] == grams[:-1]
    if not equal.any():
        return grams[:0], grams[:0]
    edges = np.flatnonzero(np.diff(equal, prepend=False, append=False))  # runs of equal neighbours: begin, end, ...
    return grams[edges[::2]], edges[1::2] - edges[::2] + 1


def _among(grams: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Which hashes are among others, given in increasing order; bool like grams."""
    return wanted[np.minimum(np.searchsorted(wanted, grams), len(wanted) - 1)] == grams


class _Together:
    """Hashes of n neighbouring words written together without a space, for growing n."""

    def __init__(self, document: Document) -> None:
        self._hashes, self._factors = document.words.rolled
        self.ends = np.concatenate([[0], np.cumsum(document.words.length)])  # characters before each word
        self._made = {1: self._hashes}

    def of(self, n: int) -> np.ndarray:
        """(words - n + 1,) uint64."""
        if n not in self._made:
            shorter, last = self.of(n - 1)[:-1], slice(n - 1, None)
            self._made[n] = shorter * self._factors[last] + self._hashes[last]
        return self._made[n]


@once
def _written_together(document: Document) -> _Together:
    return _Together(document)
