"""The recipe of the value experiment, made of rules that are there, for a corpus of technical prose, code and dirt.

Fixed before any model was trained on its output, from counts of removed documents alone. Code has Codex's published rules.
For prose Gopher's published limits were tried first: they leave 0 of 72 files of Python's documentation, 12 of 223 of
the kernel's, 10 of 217 manual pages and 13 of 1028 articles of the dictionary, since they presume web prose: marks count as
words, of which 80 % are to have a letter, and the underlines of headings are the most frequent n-grams. So here the limits
on frequent n-grams are left out, those on repeated ones doubled, 40 % of words need a letter, and one of FineWeb's rules
comes in, with a limit below its published 0.12, because lists, menus and pages of tags have no sentences. Rules first and
duplicates after, since boilerplate hides duplicates.
"""

from unlabeled.curate.dedup.exact import Exact
from unlabeled.curate.dedup.near import Near
from unlabeled.curate.document import Document
from unlabeled.curate.recipe import Recipe, Where
from unlabeled.curate.rules import codex, fineweb, gopher
from unlabeled.curate.steps import kind_of

LIMITS = {
    "words_with_letter.at_least": 0.4,
    **{
        f"duplicate_{n}_gram.at_most": 2 * published
        for n, published in ((5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.1))
    },
    "punctuated_lines.at_least": 0.05,
}
PUBLISHED = [
    *(rule for rule in gopher.REPETITION if not rule.name.startswith("top_")),
    *gopher.QUALITY,
    *(rule for rule in fineweb.QUALITY if rule.name == "punctuated_lines"),
]


def is_code(document: Document) -> bool:
    return codex.language(document) == "python"


def is_prose(document: Document) -> bool:
    return not is_code(document)


RECIPE = Recipe(
    "value",
    steps=(
        *(Where(is_code, rule) for rule in codex.RECIPES["code-codex"].steps if kind_of(rule) == "rule"),
        *(Where(is_prose, rule) for rule in Recipe("prose", PUBLISHED).but(LIMITS).steps),
        Exact(),
        Near(),
    ),
    about="Codex's rules for code, some of Gopher's for all else, exact and near duplicates once",
)
