"""The same documents stay, and the others go for the same first reason, as with datatrove's filters."""

import random
import sysconfig
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unlabeled.core.places import cache
from unlabeled.curate.document import Document
from unlabeled.curate.recipe import Drop, Edited
from unlabeled.curate.rules.c4 import DATATROVE
from unlabeled.curate.rules.fineweb import LINES
from unlabeled.curate.rules.fineweb import QUALITY as FINEWEB
from unlabeled.curate.rules.gopher import QUALITY, REPETITION
from unlabeled.curate.sentences import count
from unlabeled.curate.words import _DATATROVE_MARKS, TERMINAL, spacy

pytest.importorskip("datatrove")
pytest.importorskip("spacy")

from datatrove.data import Document as Theirs
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)
from datatrove.utils.text import PUNCTUATION_SET, TERMINAL_PUNCTUATION, split_into_sentences, split_into_words

REASONS = {
    "gopher_short_doc": "words below 50",
    "gopher_long_doc": "words above 100000",
    "gopher_below_avg_threshold": "mean_word_length below 3",
    "gopher_above_avg_threshold": "mean_word_length above 10",
    "gopher_too_many_hashes": "hashes_per_word above 0.1",
    "gopher_too_many_ellipsis": "ellipses_per_word above 0.1",
    "gopher_too_many_bullets": "bullet_lines above 0.9",
    "gopher_too_many_end_ellipsis": "ellipsis_lines above 0.3",
    "gopher_below_alpha_threshold": "words_with_letter below 0.8",
    "gopher_enough_stop_words": "stop_words below 2",
    "dup_para_frac": "duplicate_paragraphs above 0.3",
    "dup_para_char_frac": "duplicate_paragraph_characters above 0.2",
    "dup_line_frac": "duplicate_lines above 0.3",
    "dup_line_char_frac": "duplicate_line_characters above 0.2",
    **{f"top_{n}_gram": f"top_{n}_gram above {most}" for n, most in ((2, 0.2), (3, 0.18), (4, 0.16))},
    **{
        f"duplicated_{n}_n_grams": f"duplicate_{n}_gram above {most}"
        for n, most in ((5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.1))
    },
    "lorem_ipsum": "lorem ipsum",
    "curly_bracket": "curly bracket",
    "too_few_sentences": "fewer than 5 sentences",
    "line_punct_ratio": "punctuated_lines below 0.12",
    "short_line_ratio": "short_lines above 0.67",
    "char_dup_ratio": "repeated_line_characters above 0.01",
    "list_ratio": "newlines_per_word above 0.3",
}
EMPTY = {"characters below 1", "filled_lines below 1"}
PAIRS = (
    (GopherRepetitionFilter(), REPETITION),
    (GopherQualityFilter(), QUALITY),
    (C4QualityFilter(), (DATATROVE,)),
    (C4QualityFilter(filter_no_terminal_punct=False), (LINES,)),
    (FineWebQualityFilter(), FINEWEB),
)


def real(number, draw):
    """Sources, descriptions and licences of the packages here, the kernel's documentation if fetched; beginnings alone."""
    here = Path(sysconfig.get_paths()["purelib"])
    kinds = [sorted(here.glob(pattern)) for pattern in ("*/*.py", "*.dist-info/METADATA", "*.dist-info/licenses/*")]
    kinds.append(sorted((cache("data") / "kernel-docs").rglob("*.rst")) or kinds[1])
    paths = [draw.choice([p for p in kind if p.is_file()]) for kind in kinds for _ in range(number // len(kinds))]
    return [p.read_text(encoding="utf-8", errors="replace")[: draw.choice((300, 2000, 6000))] for p in paths]


def spoilt(text, way, draw):
    """A text spoilt in one of the ways that the rules look for."""
    lines, words = text.split("\n")[:40], text.split()[:30] or ["a"]
    match way % 9:
        case 0:
            return "\n".join(draw.choice(lines[:8]) for _ in range(30))
        case 1:
            return "\n".join(f"- {line}" for line in lines)
        case 2:
            return "\n".join(line + draw.choice(("...", "…", "", ".", " ")) for line in lines)
        case 3:
            return " ".join(draw.choice(("the", "be", "to", "x", "[1]")) for _ in range(draw.randrange(120)))
        case 4:
            return "\n\n".join(draw.choice(text.split("\n\n")) for _ in range(12))
        case 5:
            return " ".join(draw.choice(("#tag", "...", "word", "of", "the", "end.", "123", "!!")) for _ in range(90))
        case 6:
            return " ".join(draw.choice(words) + draw.choice(("", ".", "! ")) for _ in range(200))
        case 7:
            return ".\n".join(" ".join(draw.choices(words, k=9)) for _ in range(20)) + "."
        case _:
            return "".join(draw.choice(text[:300] or " ") for _ in range(1000))


@pytest.fixture(scope="module")
def texts():
    draw = random.Random(0)
    true = real(120, draw)
    edges = ["", " ", "\n\n", "a", "[1]  [2] x.", "lorem ipsum dolor sit amet."]
    return [*true, *(spoilt(draw.choice(true), way, draw) for way in range(180)), *edges]


def theirs(rule, text):
    """Reason or None, and the text that is left."""
    document = Theirs(text=text, id="d")
    answer = rule.filter(document)
    return (None if answer is True else answer[1]), document.text


def ours(rules, text):
    document = Document("d", text, splitter=spacy())
    for rule in rules:
        outcome = rule(document)
        if isinstance(outcome, Drop):
            return outcome.reason, text
        document = document.edited(outcome.text) if isinstance(outcome, Edited) else document
    return None, document.text


def test_every_filter_decides_the_same_for_the_same_reason(texts):
    met = Counter()
    for text in texts:
        for number, (rule, rules) in enumerate(PAIRS):
            (reason, left), (our_reason, our_left) = theirs(rule, text), ours(rules, text)
            met[number, reason] += 1
            assert our_reason in EMPTY if reason == "empty" else our_reason == REASONS.get(reason, reason), text
            assert our_left == left
    assert all(met[number, None] >= 10 for number in range(len(PAIRS)))
    assert len({reason for _, reason in met}) >= 20  # the sample is worth something


def test_punctuation_is_the_same():
    assert TERMINAL == TERMINAL_PUNCTUATION
    assert _DATATROVE_MARKS == PUNCTUATION_SET


def test_words_are_those_of_spacy_on_the_whole_text(texts):
    for text in texts[::3]:
        assert spacy()(text).strings == split_into_words(text)


# Whatever white space there is, and marks that stick to words; emoticons are left out (see `words.py`).
STICKY = st.lists(
    st.sampled_from(
        [
            "a",
            "The",
            "don't",
            "e.g.",
            "U.S.",
            "3.14",
            "$5",
            "#x",
            "x@y.org",
            "http://a.b/c",
            ".",
            ",",
            '"',
            "…",
            "...",
            "!",
            "?",
            "(",
            "。",
            "—",
            " ",
            "  ",
            "\n",
            "\t",
            "\u00a0",
            "\u2028",
            "\x1c",
            "́",
        ]
    )
).map("".join)


@given(STICKY)
def test_words_and_sentences_of_any_mixture_are_those_of_spacy(text):
    assert spacy()(text).strings == split_into_words(text)
    assert count(text, spacy()) == len(split_into_sentences(text))
