"""Gopher's rules for MassiveWeb (Rae et al. 2021, arXiv 2112.11446, appendix A.1): quality, then repetition.

Everyone who filters web text starts from them. What the paper leaves open (what a word is, the denominators, overlapping
repetitions) is as in datatrove 0.10.1's `GopherQualityFilter` and `GopherRepetitionFilter`: with words="spacy" the same
documents stay, and the others go for the same first reason, in the order of the lists here. One known exception: spaCy 3.8
fails on texts with the word IS_ALPHA once it has met one, and datatrove then deletes that word, where we keep it.

The paper asks for 2 of 8 stop words; so does this, different ones (RefinedWeb as read by DCLM counts occurrences:
`rules/refinedweb.py`). Left out: the paper's removal of documents by Google's SafeSearch, for want of it.
"""

from __future__ import annotations

from functools import partial

from unlabeled.curate import measures as of
from unlabeled.curate.dedup.near import Near
from unlabeled.curate.recipe import Bound, Recipe

__all__ = ["QUALITY", "RECIPE", "REPETITION"]

QUALITY = (
    Bound(of.words, at_least=50, at_most=100_000),
    Bound(of.mean_word_length, at_least=3, at_most=10),
    Bound(of.hashes_per_word, at_most=0.1),
    Bound(of.ellipses_per_word, at_most=0.1),
    Bound(of.bullet_lines, at_most=0.9),
    Bound(of.ellipsis_lines, at_most=0.3),
    Bound(of.words_with_letter, at_least=0.8),
    Bound(of.stop_words, at_least=2),
)

REPETITION = (  # table A1
    Bound(of.characters, at_least=1),
    Bound(of.duplicate_paragraphs, at_most=0.3),
    Bound(of.duplicate_paragraph_characters, at_most=0.2),
    Bound(of.duplicate_lines, at_most=0.3),
    Bound(of.duplicate_line_characters, at_most=0.2),
    *(
        Bound(partial(of.top_ngram, n=n), at_most=most, name=f"top_{n}_gram")
        for n, most in ((2, 0.2), (3, 0.18), (4, 0.16))
    ),
    *(
        Bound(partial(of.duplicate_ngram, n=n), at_most=most, name=f"duplicate_{n}_gram")
        for n, most in ((5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.1))
    ),
)

RECIPE = Recipe(
    "gopher",
    (*QUALITY, *REPETITION, Near(13, 9, 13, verify=0.8)),  # 13-grams and 0.8 are the paper's, 9 x 13 keys ours
    about="the quality and repetition rules of MassiveWeb, then near-duplicates",
    paper="Rae et al. 2021, arXiv 2112.11446, appendix A.1",
)
