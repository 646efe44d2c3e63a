"""FineWeb (Penedo et al. 2024, arXiv 2406.17557, section 3), in the order of datatrove's `examples/fineweb.py`.

Language, Gopher's repetition and then quality, C4's rules without the end marks, four bounds found by ablation, near
duplicates within each source (the paper: within each dump, 5-grams, 14 bands of 8), and addresses replaced.

QUALITY is datatrove 0.10.1's `FineWebQualityFilter`: with words="spacy", as in this recipe, all its four filters and ours
keep the same documents, and drop the others for the same first reason.

Left out: datatrove's list of adult sites (`rules/refinedweb.py` has rules for URLs). FineWeb-Edu goes on with a classifier.
"""

from __future__ import annotations

from dataclasses import replace

from unlabeled.curate import measures as of
from unlabeled.curate.dedup.near import preset
from unlabeled.curate.language import Language
from unlabeled.curate.pii import PII
from unlabeled.curate.recipe import Bound, Recipe
from unlabeled.curate.rules.c4 import DATATROVE
from unlabeled.curate.rules.gopher import QUALITY as GOPHER_QUALITY
from unlabeled.curate.rules.gopher import REPETITION

__all__ = ["LINES", "QUALITY", "RECIPE"]

LINES = replace(DATATROVE, end_marks=())

QUALITY = (
    Bound(of.filled_lines, at_least=1),
    Bound(of.punctuated_lines, at_least=0.12),
    Bound(of.short_lines, at_most=0.67),
    Bound(of.repeated_line_characters, at_most=0.01),
    Bound(of.newlines_per_word, at_most=0.3),
)

RECIPE = Recipe(
    "fineweb",
    (
        Language("en", at_least=0.65, by="fasttext"),
        *REPETITION,
        *GOPHER_QUALITY,
        LINES,
        *QUALITY,
        preset("fineweb", scope="source"),
        PII(),
    ),
    about="FineWeb's filters and near duplicates within each source",
    paper="Penedo et al. 2024, arXiv 2406.17557, section 3",
    words="spacy",
    extract="trafilatura",
)
