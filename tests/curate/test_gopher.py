import itertools
import math
import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unlabeled.curate import measures as of
from unlabeled.curate.document import Document
from unlabeled.curate.recipe import Drop
from unlabeled.curate.rules.gopher import QUALITY, REPETITION

SYLLABLES = [a + b for a in "bdfgklmnprstvz" for b in "aeiou"]
OFTEN = "it is so as"  # four short words that occur thrice, so that no longer sequence is the most frequent one


def fresh():
    """Different words of six letters each, without end."""
    return ("".join(three) for three in itertools.product(SYLLABLES, repeat=3))


def prose(number, *more):
    """So many words, with two stop words and the given ones among them."""
    words = list(itertools.islice(fresh(), number - 2 - len(more)))
    return " ".join([*words, "the", *more, "of"])


def first(rules, text):
    """The name of the first rule that drops a text."""
    return next((rule.name for rule in rules if isinstance(rule(Document("d", text)), Drop)), None)


def failing(rules, text):
    return {rule.name for rule in rules if isinstance(rule(Document("d", text)), Drop)}


def lines(number, start="", end="", words=8):
    made = fresh()
    return "\n".join(start + " ".join(["the of", *itertools.islice(made, words)]) + end for _ in range(number))


ALONE = [
    ("words", prose(49)),
    ("words", prose(100_001)),
    ("mean_word_length", "the of " + " ".join(a + b for a, b in itertools.product("abcdefgh", "jklmnopq"))),
    (
        "mean_word_length",
        "the of " + " ".join(map("".join, itertools.islice(itertools.product(SYLLABLES, repeat=6), 100))),
    ),
    ("hashes_per_word", prose(101, *"#" * 12)),
    ("ellipses_per_word", prose(101, *["…"] * 6, *["..."] * 6)),
    ("bullet_lines", lines(19, "- ") + "\n\t• another"),
    ("bullet_lines", lines(20, "  • ")),
    ("ellipsis_lines", lines(6) + "\n" + lines(4, "more of it ", end="...  ")),
    ("ellipsis_lines", lines(6) + "\n" + lines(4, "more of it ", end="…")),
    ("words_with_letter", prose(200, *map(str, range(1000, 1041)))),
    ("stop_words", prose(100).replace("of", "the")),
    ("stop_words", prose(100).replace("of", "OF")),
]


@pytest.mark.parametrize(("name", "text"), ALONE)
def test_each_rule_of_quality_has_a_document_that_it_alone_drops(name, text):
    assert failing(QUALITY, text) == {name}


@pytest.mark.parametrize(
    "text",
    [
        prose(50),
        "the and " + " ".join("".join(three) for three in itertools.product("abcd", repeat=3)),
        prose(100, *"#" * 10),
        prose(100, *["…"] * 10),
        lines(18, "- ") + "\nthe of it\nthe of us",
        lines(7) + "\n" + lines(3, "more of it ", end="..."),
        prose(200, *map(str, range(1000, 1040))),
    ],
)
def test_documents_on_the_very_limit_stay(text):
    assert failing(QUALITY, text) == set()


def test_limits_are_met_exactly():
    assert of.words(Document("d", prose(50))) == 50
    assert of.mean_word_length(Document("d", "abcdefghij " * 3)) == 10
    assert of.hashes_per_word(Document("d", prose(100, *"#" * 10))) == 0.1
    assert of.bullet_lines(Document("d", "- a\n" * 9 + "b")) == 0.9
    assert of.ellipsis_lines(Document("d", "a\n" * 7 + "b…\n" * 3)) == 0.3
    assert of.words_with_letter(Document("d", "a b c d 5")) == 0.8


def repeating(n, total):
    """A text of so many words in which four blocks of n come twice and nothing else repeats but OFTEN."""
    made = fresh()
    blocks = [list(itertools.islice(made, n)) for _ in range(4)]
    text = []
    for part in [*blocks, *blocks, *([OFTEN] for _ in range(3))]:
        text += [*part, next(made), next(made)]
    return " ".join([*text, *itertools.islice(made, max(0, total - len(text)))])


def covering(n, share):
    """A text whose repeated blocks of n words are just over a share of its characters."""
    return next(text for total in range(800, 10, -1) if 4 * 6 * n / len(text := repeating(n, total)) > share)


def frequent(n, share):
    """A text in which n neighbouring words come back until they cover a share."""
    made = fresh()
    block = " ".join(itertools.islice(made, n))
    text = ""
    while len(text) < 1000 or len(block) * text.count(block) <= share * len(text):
        text += " ".join(["", block, *itertools.islice(made, 7 * n if len(text) < 1000 else 1)])
    return text.strip()


PARAGRAPHS = [
    " ".join(["\n".join(itertools.islice(m, 3)), *itertools.islice(m, 3)]) for m in [fresh()] for _ in range(20)
]
FIRST = [
    ("characters", ""),
    ("duplicate_paragraphs", "\n\n".join(PARAGRAPHS[:6]) + "\n\nyes" * 5),
    ("duplicate_paragraph_characters", "\n\n".join([*PARAGRAPHS[:2], PARAGRAPHS[1], PARAGRAPHS[2]])),
    ("duplicate_lines", lines(5, words=20) + "\nyes" * 4),
    ("duplicate_line_characters", prose(20) + "\n" + prose(20) + "\n" + lines(3, words=4)),
    ("top_2_gram", frequent(2, 0.2)),
    ("top_3_gram", frequent(3, 0.18)),
    ("top_4_gram", frequent(4, 0.16)),
    *(
        (f"duplicate_{n}_gram", covering(n, share))
        for n, share in zip(range(5, 11), (0.15, 0.14, 0.13, 0.12, 0.11, 0.1))
    ),
]


@pytest.mark.parametrize(("name", "text"), FIRST)
def test_each_rule_of_repetition_has_a_document_that_it_is_the_first_to_drop(name, text):
    assert first(REPETITION, text) == name


@pytest.mark.parametrize("n", [7, 8, 9, 10])
def test_a_block_that_repeats_once_fails_for_its_own_length_alone(n):
    share = {7: 0.13, 8: 0.12, 9: 0.11, 10: 0.1}[n]
    assert failing(REPETITION, covering(n, share)) == {f"duplicate_{n}_gram"}


def test_the_most_frequent_ngram_is_the_first_of_several_and_counts_even_if_it_occurs_once():
    assert of.top_ngram(Document("d", "abc de f"), 2) == len("abc de") / 8
    assert of.top_ngram(Document("d", "a b cccc dddd a b cccc dddd"), 2) == 2 * len("a b") / 27
    assert of.top_ngram(Document("d", "alone"), 2) == 0


def test_repeated_ngrams_jump_behind_a_find_and_are_compared_without_spaces():
    assert of.duplicate_ngram(Document("d", "a b a b a b a"), 2) == 4 / 13  # found at 2 and at 4, not at 3
    assert of.duplicate_ngram(Document("d", "ab c x a bc y"), 2) == 3 / 13


def test_a_different_limit_is_a_different_decision():
    from unlabeled.curate.rules.gopher import RECIPE

    text = prose(101, *"#" * 12)
    assert first(RECIPE.steps[:-1], text) == "hashes_per_word"
    assert first(RECIPE.but({"hashes_per_word.at_most": 0.2}).steps[:-1], text) is None


# ---- the same counted slowly --------------------------------------------------------------------------------

FEW = st.text("aab .\n#-…é́", max_size=200)
ANY = st.one_of(st.text(max_size=300), FEW, st.text(" \n\t\x00\u2028\u00a0", max_size=9))


def slow_top(words, n, characters):
    counts = Counter(" ".join(words[i : i + n]) for i in range(len(words) - n + 1))
    if not counts:
        return 0.0
    gram, count = counts.most_common(1)[0]
    return len(gram) * count / characters


def slow_duplicates(words, n, characters):
    seen, covered, place = set(), 0, 0
    while place <= len(words) - n:
        gram = "".join(words[place : place + n])
        covered += len(gram) * (gram in seen)
        place += n if gram in seen else 1
        seen.add(gram)
    return covered / characters if characters else 0.0


@given(FEW, st.integers(2, 5))
def test_ngrams_are_counted_as_strings_would_be(text, n):
    document = Document("d", text)
    words = document.words.strings
    assert of.top_ngram(document, n) == slow_top(words, n, len(text))
    assert of.duplicate_ngram(document, n) == slow_duplicates(words, n, len(text))


@given(FEW)
def test_lines_and_paragraphs_are_cut_as_regular_expressions_would(text):
    document = Document("d", text)
    for pattern, stripped, number, covered in (
        (r"\n+", text, of.duplicate_lines, of.duplicate_line_characters),
        (r"\n{2,}", text.strip(), of.duplicate_paragraphs, of.duplicate_paragraph_characters),
    ):
        parts = re.split(pattern, stripped)
        again = [part for place, part in enumerate(parts) if part in parts[:place]]
        assert number(document) == len(again) / len(parts)
        assert covered(document) == (sum(map(len, again)) / len(text) if text else 0)


@given(ANY)
def test_any_text_is_measured(text):
    for rule in (*QUALITY, *REPETITION):
        value = rule.measure(Document("d", text))
        assert math.isfinite(value) and value >= 0


@pytest.mark.parametrize(
    "text", ["a" * 10_000_000, "\ud800\udc00 \udfff" * 50, "́" * 100, "שלום עולם " * 60, "字" * 500, "\0" * 99]
)
def test_odd_texts_raise_nothing(text):
    for rule in (*QUALITY, *REPETITION):
        rule(Document("d", text))
