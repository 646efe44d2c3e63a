"""Exact duplicates against straightforward dictionaries, and C4's builder's own steps by hand."""

import hashlib
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unlabeled.core.errors import UserError
from unlabeled.curate.dedup import exact
from unlabeled.curate.dedup.exact import Exact, Lines, Spans, hashed_url, normal_url
from unlabeled.curate.document import Document
from unlabeled.curate.recipe import Drop, Edited
from unlabeled.curate.sentences import count

LINE = st.sampled_from(
    ["One is here.", "one is here. ", "Two are here!", "", "  ", "Three? Yes. No.", "Four and five."]
)
PAGES = st.lists(st.lists(LINE, max_size=8).map("\n".join), max_size=6)


def repeats(step, documents):
    """For each document which of its keys have a better copy elsewhere or earlier in it; as the pipeline marks them."""
    seen = set()
    marked = [np.zeros(len(step.keys(d)), bool) for d in documents]
    rank = step.keep if callable(step.keep) else lambda d: 0.0
    for i in sorted(range(len(documents)), key=lambda i: (rank(documents[i]), i)):
        for place, key in enumerate(step.keys(documents[i]).tolist()):
            marked[i][place] = key in seen
            seen.add(key)
    return marked


def settled(step, documents):
    """The texts that are left, None for a document that goes."""
    left = []
    for document, repeated in zip(documents, repeats(step, documents)):
        outcome = step.settle(document, repeated)
        left.append(
            None if isinstance(outcome, Drop) else outcome.text if isinstance(outcome, Edited) else document.text
        )
    return left


def pages(texts):
    return [Document(str(i), text, about={"url": f"http://www.site{i}.org/"}) for i, text in enumerate(texts)]


def c4_lines(documents, least=3):
    """As the builder says it: every line belongs to the page with the smallest hash of its address."""
    md5 = lambda text: hashlib.md5(text.encode()).hexdigest()  # noqa: E731
    url_of = {}
    for d in documents:
        url = normal_url(d.about["url"])
        for line in d.text.split("\n"):
            key = md5(line.strip().lower())
            url_of[key] = min(url_of.get(key, url), url, key=md5)
    left = []
    for d in documents:
        mine, lines = set(), []
        for line in d.text.split("\n"):
            key = md5(line.strip().lower())
            if url_of[key] == normal_url(d.about["url"]) and key not in mine:
                mine.add(key)
                lines.append(line)
        text = "\n".join(lines)
        left.append(text if text and count(text) >= least else None)
    return left


@settings(max_examples=200, deadline=None)
@given(PAGES)
def test_lines_are_those_that_the_builder_leaves(texts):
    documents = pages(texts)
    assert settled(Lines(), documents) == c4_lines(documents)


def test_a_line_stays_once_and_short_pages_go():
    common = "Read our newsletter every single day."
    documents = pages([f"{common}\nA first thing. A second thing. A third thing {i}." for i in range(5)])
    left = settled(Lines(), documents)
    assert sum(common in text for text in left) == 1
    assert common in left[min(range(5), key=lambda i: hashed_url(documents[i]))]
    short = pages(["One. Two. Three.", "ONE. TWO. THREE.\nFour."])
    assert settled(Lines(), short).count(None) == 1
    assert settled(Lines(sentences=0), pages(["Just one."])) == ["Just one."]
    assert Lines().settle(short[0], np.array([False])) is None
    assert Lines().settle(Document("a", "Too. Short."), np.array([False])).reason == "too few sentences left"


def test_the_page_that_keeps_a_line_does_not_depend_on_the_order_of_reading():
    documents = pages([f"Said by all of them. And twice. Line {i}.\nThe same everywhere here." for i in range(6)])
    assert settled(Lines(), documents) == settled(Lines(), documents[::-1])[::-1]
    assert all(0 <= hashed_url(d) < 1 for d in documents) and len({hashed_url(d) for d in documents}) == 6


@pytest.mark.parametrize(
    ("url", "normal"),
    [
        ("https://www.a.org/b/", "a.org/b"),
        ("http://a.org/b?utm_source=x", "a.org/b"),
        ("http://a.org/b?page=2&utm_source=x", "a.org/b?page=2&utm_source=x"),
        ("https://a.org/b/?ref=c", "a.org/b"),
        ("https://a.org/?feed=rss2", "a.org"),
        ("https://a.org/?reference", "a.org"),  # the builder is not particular
        ("https://a.org/to/http://www.b.org", "a.org/to/b.org"),
        ("", ""),
    ],
)
def test_addresses_are_those_of_the_builder(url, normal):
    assert normal_url(url) == normal
    by_builder = re.sub(r"\?(utm_|ref|feed).*", "", re.sub(r"https?:\/\/(www\.)?", "", url)).rstrip("/")
    assert normal == by_builder


def test_documents_are_the_same_by_text_by_words_or_by_address():
    texts = ["One, two!", "one two", "one  two", "one three", "One, two!", "1 two", "2 two", "...", "!!!"]
    documents = [Document(str(i), t, about={"url": "http://a.org" if i < 2 else ""}) for i, t in enumerate(texts)]

    def gone(step):
        return [d.id for d, text in zip(documents, settled(step, documents)) if text is None]

    assert gone(Exact("text")) == ["4"]
    assert gone(Exact("normal")) == ["1", "2", "4"]
    assert gone(Exact("normal", zero_digits=True)) == ["1", "2", "4", "6"]
    assert gone(Exact("url")) == ["1"]
    with pytest.raises(UserError, match="not by 'words'"):
        Exact("words")
    with pytest.raises(UserError, match="not in 'dump'"):
        Exact(scope="dump")


def test_one_repeated_half_of_a_key_is_no_duplicate():
    document = Document("a", "some words")
    assert len(Exact().keys(document)) == 2
    assert Exact().settle(document, np.array([True, False])) is None
    assert Exact().settle(document, np.array([True, True])) == Drop("same words")


def test_a_span_of_three_sentences_stays_once():
    span = "The cat sat down. The dog stood up! Was it late? "
    first, second = "It began so. " + span + "It ended so.", "Another start. " + span + "Another end. And more."
    left = settled(Spans(), pages([first, second, "A short. " + span.upper()]))
    assert left == [first, "Another start. Another end. And more.", None]
    two = "The cat sat down. The dog stood up! "
    apart = pages(["A start. " + two + "An end.", "Other start. " + two + "Other end."])
    assert settled(Spans(), apart) == [d.text for d in apart]


def test_what_a_span_repeats_of_itself_does_not_take_the_copy_that_stays():
    again = "So it goes on. " * 7
    left = settled(Spans(), pages([again]))
    assert left == [("So it goes on. " * 3).rstrip()]


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        (
            "  One is here. Two, e.g. this?! (Three.) Four",
            ["  One is here. ", "Two, e.g. this?! ", "(Three.) ", "Four"],
        ),
        ("A heading\n\nWrapped\nover lines.\nNext", ["A heading\n\n", "Wrapped\nover lines.\n", "Next"]),
        ('Wait... what? "Yes." No', ["Wait... what? ", '"Yes." ', "No"]),
        ("你好。再见！」完", ["你好。", "再见！」", "完"]),
        ("3.14 a.b", ["3.14 a.b"]),
        ("", []),
        (" \n ", [" \n "]),
    ],
)
def test_sentences_end_at_marks_and_empty_lines(text, ends):
    assert exact._sentences(text) == ends


def spans_by_hand(texts):
    """Lists of sentences without their repeated spans; the sentences of these texts are known beforehand."""
    where = {}
    left = []
    for page, sentences in enumerate(texts):
        gone = set()
        for i in range(len(sentences) - 2):
            page_of, start = where.setdefault(tuple(sentences[i : i + 3]), (page, i))
            if (page_of, start) != (page, i):
                kept = range(start, start + 3) if page_of == page else ()
                gone |= {j for j in range(i, i + 3) if j not in kept}
        left.append([s for j, s in enumerate(sentences) if j not in gone])
    return left


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(st.sampled_from(["Yes.", "No!", "Who?", "It is."]), max_size=12), max_size=4))
def test_spans_are_those_of_a_dictionary(texts):
    left = settled(Spans(sentences=0), pages([" ".join(sentences) for sentences in texts]))
    assert [text or "" for text in left] == [" ".join(sentences) for sentences in spans_by_hand(texts)]


@settings(max_examples=300, deadline=None)
@given(st.text(), st.data())
def test_any_text_has_keys_and_an_outcome(text, data):
    document = Document("a", text, about={"url": text})
    for step in (
        Exact("text"),
        Exact("normal"),
        Exact("normal", zero_digits=True),
        Exact("url"),
        Lines(),
        Spans(),
        Spans(1),
    ):
        keys = step.keys(document)
        assert keys.dtype == np.uint64 and keys.ndim == 1
        assert np.array_equal(keys, step.keys(Document("b", text, about={"url": text})))
        mask = np.array(data.draw(st.lists(st.booleans(), min_size=len(keys), max_size=len(keys))), bool)
        outcome = step.settle(document, mask)
        assert outcome is None or isinstance(outcome, (Drop, Edited))


@pytest.mark.parametrize("unit", ["a", ". ", "...", " ", "\n", "\0", "\u0301", "؟ שלום ", '."', "。", " \n.", "a\n"])
def test_a_long_text_of_one_kind_takes_no_more_than_linear_time(unit):
    document = Document("a", unit * 50_000)
    for step in (Exact("text"), Exact("normal"), Lines(sentences=0), Spans(sentences=0)):
        keys = step.keys(document)
        step.settle(document, np.ones(len(keys), bool))
