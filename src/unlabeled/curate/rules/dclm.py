"""The heuristics of DCLM-Baseline (Li, Fang et al. 2024, arXiv 2406.11794, section 4.2 and appendix): RefinedWeb re-made.

As in mlfoundations/dclm, `baselines_configs/dclm_baseline_refinedweb.yaml`. The names are Gopher's, the measures are not:
words are what white space parts (the first bound: what begins with a letter or a digit), stop words count as often as they
occur and in upper case too, "●" and "*" are bullets, ". . ." is an ellipsis, every copy of a repeated line or n-gram counts
and not the second alone, characters are shares of the compared parts and not of the text, and an n-gram that occurs once
is no repetition.

Where we differ: n-grams are of the recipe's words that are not punctuation alone, DCLM takes those of `uniseg`. DCLM also
deletes IP addresses from the text, and URLs where the page happens to begin with the letters of a top-level domain (its
test is anchored at the start); neither is done here. Its classifier, which makes DCLM-Baseline of the documents that are
left (those above a quantile of its score), is a step of its own: `unlabeled.curate.quality`.
"""

from __future__ import annotations

from collections import Counter
from functools import partial

import numpy as np

from unlabeled.curate import measures as of
from unlabeled.curate.dedup.bloom import Ngrams
from unlabeled.curate.document import Document, once
from unlabeled.curate.language import Language
from unlabeled.curate.recipe import Bound, Edit, Recipe
from unlabeled.curate.rules.refinedweb import correct, few_newlines, number_of_words

__all__ = ["QUALITY", "RECIPE", "REPETITION"]

_BULLETS, _ELLIPSES = ("●", "•", "*", "-"), ("...", ". . .", "…")


def words(document: Document) -> float:
    """Words between white space that begin with a letter or a digit."""
    return number_of_words(document.text)


def mean_chunk_length(document: Document) -> float:
    """Mean length in characters of what white space parts; 0 without any."""
    chunks = _chunks(document)
    return sum(map(len, chunks)) / len(chunks) if chunks else 0.0


def symbols_per_chunk(document: Document) -> float:
    """Number signs and ellipses to a word between white space."""
    chunks = _chunks(document)
    return sum(map(document.text.count, ("#", *_ELLIPSES))) / len(chunks) if chunks else 0.0


def bullet_lines(document: Document) -> float:
    """Share of filled lines that begin with a bullet, an asterisk or a hyphen."""
    lines = _lines(document)
    return sum(line.startswith(_BULLETS) for line in lines) / len(lines) if lines else 0.0


def ellipsis_lines(document: Document) -> float:
    """Share of filled lines that end in an ellipsis."""
    lines = _lines(document)
    return sum(line.endswith(_ELLIPSES) for line in lines) / len(lines) if lines else 0.0


def chunks_without_letter(document: Document) -> float:
    """Share of what white space parts that has no letter; 0 without any."""
    chunks = _chunks(document)
    without = sum(not (chunk.isalpha() or any(map(str.isalpha, chunk))) for chunk in chunks)
    return without / len(chunks) if chunks else 0.0


def stop_words(document: Document) -> float:
    """How often words of `measures.STOP_WORDS` occur between white space, in upper or lower case."""
    return sum(map(_STOP_WORDS.__contains__, document.text.lower().split()))


_STOP_WORDS = frozenset(of.STOP_WORDS)


def repeated_parts(document: Document, separator: str) -> float:
    """Share of filled lines or paragraphs that occur more than once."""
    return _repeated(document, separator)[0]


def repeated_part_characters(document: Document, separator: str) -> float:
    """Share of the characters of all filled lines or paragraphs that is in those that occur more than once."""
    return _repeated(document, separator)[1]


def top_ngram(document: Document, n: int) -> float:
    """Share of the words' characters in the n-gram that occurs most, of several the longest; 0 if none occurs twice."""
    hashes, lengths = _real(document)
    grams = _ngrams(hashes, n)
    different, first, counts = np.unique(grams, return_index=True, return_counts=True)
    if not len(different) or counts.max() == 1:
        return 0.0
    ends = np.concatenate([[0], np.cumsum(lengths)])
    first = first[counts == counts.max()]
    return int((ends[first + n] - ends[first]).max()) * int(counts.max()) / int(ends[-1])


def repeated_ngram(document: Document, n: int) -> float:
    """Share of the words' characters in words that belong to an n-gram that occurs more than once."""
    hashes, lengths = _real(document)
    _, inverse, counts = np.unique(_ngrams(hashes, n), return_inverse=True, return_counts=True)
    places = np.flatnonzero(counts[inverse] > 1)
    if not len(places):
        return 0.0
    change = np.zeros(len(lengths) + 1, np.int64)
    np.add.at(change, places, 1)
    np.add.at(change, places + n, -1)
    return int(lengths[np.cumsum(change[:-1]) > 0].sum()) / int(lengths.sum())


@once
def _chunks(document: Document) -> list[str]:
    return document.text.split()


@once
def _lines(document: Document) -> list[str]:
    return [stripped for line in document.text.split("\n") if (stripped := line.strip())]


@once
def _repetitions(document: Document) -> dict[str, tuple[float, float]]:
    return {}


def _repeated(document: Document, separator: str) -> tuple[float, float]:
    known = _repetitions(document)
    if separator not in known:
        parts = [stripped for part in document.text.split(separator) if (stripped := part.strip())]
        again = [(part, count) for part, count in Counter(parts).items() if count > 1]
        if not parts:
            known[separator] = (1.0, 1.0)  # DCLM drops what has no lines
        else:
            total = sum(map(len, parts))
            known[separator] = sum(c for _, c in again) / len(parts), sum(len(p) * c for p, c in again) / total
    return known[separator]


@once
def _real(document: Document) -> tuple[np.ndarray, np.ndarray]:
    """Hashes and lengths of the words that are not punctuation alone."""
    real = ~document.words.symbol
    return document.words.hashes[real], document.words.length[real]


def _ngrams(hashes: np.ndarray, n: int) -> np.ndarray:
    """(words - n + 1,) uint64."""
    if len(hashes) < n:
        return hashes[:0]
    return of.rolled_ngrams(hashes, n)


QUALITY = (
    Bound(words, at_least=50, at_most=100_000),
    Bound(mean_chunk_length, at_least=3, at_most=10),
    Bound(symbols_per_chunk, at_most=0.1),
    Bound(bullet_lines, at_most=0.9),
    Bound(ellipsis_lines, at_most=0.3),
    Bound(chunks_without_letter, at_most=0.2),
    Bound(stop_words, at_least=2),
)

REPETITION = (
    Bound(partial(repeated_parts, separator="\n"), at_most=0.3, name="repeated_lines"),
    Bound(partial(repeated_parts, separator="\n\n"), at_most=0.3, name="repeated_paragraphs"),
    Bound(partial(repeated_part_characters, separator="\n"), at_most=0.2, name="repeated_line_characters"),
    Bound(partial(repeated_part_characters, separator="\n\n"), at_most=0.2, name="repeated_paragraph_characters"),
    *(
        Bound(partial(top_ngram, n=n), at_most=most, name=f"top_{n}_gram")
        for n, most in ((2, 0.2), (3, 0.18), (4, 0.16))
    ),
    *(
        Bound(partial(repeated_ngram, n=n), at_most=most, name=f"repeated_{n}_gram")
        for n, most in ((5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.1))
    ),
)

RECIPE = Recipe(
    "dclm",
    (
        Edit(few_newlines),
        Language("en", at_least=0.65, by="fasttext"),
        *QUALITY,
        *REPETITION,
        Edit(correct),
        Ngrams(),
    ),
    about="RefinedWeb's rules as DCLM-Baseline has them, n-grams that came before; its classifier is another step",
    paper="Li, Fang et al. 2024, arXiv 2406.11794, section 4",
)
