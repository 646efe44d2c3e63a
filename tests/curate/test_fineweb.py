import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unlabeled.curate.document import Document
from unlabeled.curate.recipe import Drop
from unlabeled.curate.rules.fineweb import LINES, QUALITY

# 31 characters and six words each, all different
LONG = [f"some line of words number {i:05d}" for i in range(100)]


def failing(text):
    return {rule.name for rule in QUALITY if isinstance(rule(Document("d", text)), Drop)}


def values(text):
    return {rule.name: rule.measure(Document("d", text)) for rule in QUALITY}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("punctuated_lines", "\n".join([*LONG[:8], LONG[8] + "."])),
        ("punctuated_lines", "\n".join([*LONG[:9], LONG[9] + ". "])),  # a blank at the end is no end mark
        ("short_lines", "\n".join([*(f"short line, in six words {i}." for i in range(7)), *LONG[:3]])),
        ("repeated_line_characters", "\n".join([*(line + "!" for line in LONG[:90]), LONG[0] + "!"])),
        ("newlines_per_word", "\n".join(f"{'word' * 8}{i} {'more' * 5}。" for i in range(9)) + "\n\n"),
    ],
)
def test_each_rule_has_a_document_that_it_alone_drops(name, text):
    assert failing(text) == {name}


@pytest.mark.parametrize("text", ["", " \n\t\n "])
def test_blank_documents_go_for_want_of_lines(text):
    assert next(rule for rule in QUALITY if rule(Document("d", text))).name == "filled_lines"


def test_documents_on_the_very_limit_stay():
    three_of_25 = "\n".join([*(line + "." for line in LONG[:3]), *LONG[3:25]])
    assert values(three_of_25)["punctuated_lines"] == 0.12
    assert failing(three_of_25) == set()
    two_of_three = "\n\n".join(
        ["a line of 30 characters, in it."[1:], LONG[0] + "。", "and another of the short lines"]
    )
    assert values(two_of_three)["short_lines"] == 2 / 3
    one_in_a_hundred = "\n".join([*(f"{line}." for line in LONG[:98]), LONG[98] + "?" * 33, LONG[0] + "."])
    assert values(one_in_a_hundred)["repeated_line_characters"] == 32 / (99 * 32 + 64)
    assert failing(one_in_a_hundred) == set()
    assert values("a b\nc d e f g h i j\n\n")["newlines_per_word"] == 0.3


def test_end_marks_of_all_scripts_count():
    assert values("그것은。\nهل هذا؟\nक्या यह।\nno")["punctuated_lines"] == 0.75


def test_its_c4_asks_no_end_marks_but_5_sentences():
    text = "\n".join(LONG[:5])
    assert LINES(Document("d", text)) is None
    assert LINES(Document("d", "\n".join(LONG[:4]))).reason == "fewer than 5 sentences"


@given(st.one_of(st.text(max_size=300), st.text("ab. \n\u2028!", max_size=100)))
def test_any_text_is_measured(text):
    for rule in QUALITY:
        value = rule.measure(Document("d", text))
        assert math.isfinite(value) and value >= 0
        rule(Document("d", text))
