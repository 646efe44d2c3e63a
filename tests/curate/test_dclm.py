import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unlabeled.core.errors import UserError
from unlabeled.curate.document import Document
from unlabeled.curate.recipe import Drop, Edited
from unlabeled.curate.rules import dclm
from unlabeled.curate.rules.refinedweb import Blocked, correct, few_newlines, refinedweb

WORDS = [
    a + b + c
    for a in ("ka", "lo", "mi", "nu", "re")
    for b in ("ba", "do", "fi", "gu")
    for c in ("sa", "te", "vo", "xi")
]
BODY = "\n".join(" ".join(WORDS[i : i + 8]) for i in range(0, 80, 8))
PROSE = f"the {BODY} of"


def failing(rules, text):
    return {rule.name for rule in rules if isinstance(rule(Document("d", text)), Drop)}


def corrected(text):
    outcome = correct(Document("d", text))
    return outcome.text if isinstance(outcome, Edited) else outcome


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("SO IT Is", "line in capitals"),
        ("ÉÉÉé É", "line in capitals"),
        ("2024", "line of a number"),
        ("3.5K likes", "line of a counter"),
        ("→ 1,200 Followers!", "line of a counter"),
        ("Menu", "line of one word"),
    ],
)
def test_each_correction_has_a_line_that_it_alone_takes(line, what):
    outcome = correct(Document("d", f"{BODY}\n{line}\n{BODY}"))
    assert isinstance(outcome, Edited)
    assert outcome.text == f"{BODY}\n{BODY}"
    assert outcome.counts == {what: 1}


@pytest.mark.parametrize("line", ["AB a", "2024 was long", "3 likes were given", "see 3 likes", "", "of it"])
def test_lines_on_the_limit_stay(line):
    assert corrected(f"{BODY}\n{line}\n{BODY}") is None


@pytest.mark.parametrize(
    ("line", "left"),
    [
        ("There are 3 items in cart now", "There are 3 now"),
        ("A long story is told. Read more...", "A long story is told."),
        ("A long story is told. read more, ok", "A long story is told. read more, ok"),
        ("Sign-in to go on", "to go on"),
        ("Please Sign-in", "Please Sign-in"),
        (
            "one two three four five six seven eight items in cart",
            "one two three four five six seven eight items in cart",
        ),
    ],
)
def test_phrases_are_cut_from_short_lines_where_they_stand(line, left):
    assert (corrected(f"{BODY}\n{line}\n{BODY}") or f"{BODY}\n{line}\n{BODY}") == f"{BODY}\n{left}\n{BODY}"


def test_a_line_that_is_nothing_but_a_phrase_goes():
    assert corrected(f"{BODY}\nItems in cart\n{BODY}") == f"{BODY}\n{BODY}"


def test_a_document_that_loses_over_5_percent_of_its_words_goes():
    kept = "\n".join(" ".join(WORDS[:19]) for _ in range(5))  # 95 words
    assert corrected(kept + "\nONE TWO THREE FOUR FIVE") == kept
    assert corrected(kept + "\nONE TWO THREE FOUR FIVE SIX").reason == "more than 5 % of words in bad lines"
    assert corrected("ALL IN CAPITALS").reason == "no lines left"
    assert corrected("- - -").reason == "no words"


def test_blank_lines_are_one_at_a_time():
    assert few_newlines(Document("d", "a\n\n\n\nb\n\nc")).text == "a\n\nb\n\nc"
    assert few_newlines(Document("d", "a\n\nb")) is None


QUALITY = [
    ("words", " ".join(WORDS[:47]) + " the of -"),
    ("mean_chunk_length", "the of " + " ".join(a + b for a in "abcdefgh" for b in "jklmnopq")),
    ("mean_chunk_length", "the of " + " ".join(a + b for a in WORDS for b in WORDS[:1])),
    ("symbols_per_chunk", PROSE + " #of. . .it" * 10),
    ("bullet_lines", "the of\n" + "\n".join(mark + f" {word}" * 5 for mark, word in zip("●•*-" * 20, WORDS))),
    (
        "ellipsis_lines",
        "the of\n"
        + "\n".join(
            f"{' '.join(WORDS[i : i + 9])}{e}" for i, e in zip(range(0, 60, 9), ["", "...", "", " . . .", "", "…", ""])
        ),
    ),
    ("chunks_without_letter", PROSE + " 10000" * 21),
    ("stop_words", BODY + " The"),
]


@pytest.mark.parametrize(("name", "text"), QUALITY)
def test_each_rule_of_quality_has_a_document_that_it_alone_drops(name, text):
    assert failing(dclm.QUALITY, text) == {name}


def test_stop_words_count_as_often_as_they_occur_and_documents_on_the_limit_stay():
    assert failing(dclm.QUALITY, BODY + " The the") == set()
    assert failing(dclm.QUALITY, " ".join(WORDS[:48]) + " the of") == set()
    assert dclm.chunks_without_letter(Document("d", "a b c d 5")) == 0.2
    assert dclm.symbols_per_chunk(Document("d", "a b c d e f g h i #")) == 0.1


def test_every_copy_counts_and_not_the_second_alone():
    document = Document("d", "one line\nother\n one line \n\nfourth")
    assert dclm.repeated_parts(document, "\n") == 2 / 4
    assert dclm.repeated_part_characters(document, "\n") == 16 / 27
    assert dclm.repeated_parts(document, "\n\n") == 0
    assert failing(dclm.REPETITION, "") == {
        "repeated_lines",
        "repeated_paragraphs",
        "repeated_line_characters",
        "repeated_paragraph_characters",
    }


def test_an_ngram_that_occurs_once_is_no_repetition_and_the_longest_of_several_is_taken():
    assert dclm.top_ngram(Document("d", "one two three"), 2) == 0
    assert dclm.top_ngram(Document("d", "a b cccc dddd, a b - cccc dddd"), 2) == 16 / 20
    assert dclm.repeated_ngram(Document("d", "a b c a b a b"), 2) == 6 / 7


FEW = st.text("aab .\n#-", max_size=120)


def slow(words, n):
    grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    counts = Counter(grams)
    total = sum(map(len, words))
    if not grams or max(counts.values()) == 1:
        return 0.0, 0.0
    most = max(counts.values())
    top = max(sum(map(len, gram)) for gram, count in counts.items() if count == most) * most
    covered = {j for i, gram in enumerate(grams) if counts[gram] > 1 for j in range(i, i + n)}
    return top / total, sum(len(words[j]) for j in covered) / total


@given(FEW, st.integers(2, 5))
def test_ngrams_are_counted_as_tuples_would_be(text, n):
    document = Document("d", text)
    words = [word for word in document.words.strings if any(map(str.isalnum, word))]
    assert (dclm.top_ngram(document, n), dclm.repeated_ngram(document, n)) == slow(words, n)


@given(st.one_of(st.text(max_size=300), FEW, st.text("Aa1 \n.", max_size=80)))
def test_any_text_is_measured_and_corrected(text):
    for rule in (*dclm.QUALITY, *dclm.REPETITION):
        value = rule.measure(Document("d", text))
        assert math.isfinite(value) and value >= 0
    outcome = correct(Document("d", text))
    if isinstance(outcome, Edited):
        assert outcome.text and sum(outcome.counts.values()) >= 0
    few_newlines(Document("d", text))


@pytest.mark.parametrize("text", ["a" * 10_000_000, "\ud800 " * 50, "\0" * 99, "́" * 100, "שלום עולם " * 60])
def test_odd_texts_raise_nothing(text):
    for rule in (*dclm.QUALITY, *dclm.REPETITION, correct):
        rule(Document("d", text))


def test_urls_are_blocked_by_domain_by_what_is_in_them_and_by_words(tmp_path):
    lists = {"domains": "bad.org\n", "strict": "casino\n", "hard": "poker\n", "soft": "cam\nchat\n\n"}
    files = {name: str(tmp_path / name) for name in lists}
    for name, body in lists.items():
        (tmp_path / name).write_text(body)
    rules = refinedweb(**files).steps[:4]

    def reasons(url):
        return [outcome.reason for rule in rules if (outcome := rule(Document("d", "", about={"url": url})))]

    assert reasons("https://www.BAD.org/x") == ["blocked domain"]
    assert reasons("https://notbad.org/x") == []
    assert reasons("http://best-ca.sino.com/") == ["blocked substring in the URL"]
    assert reasons("http://x.com/poker/1") == ["blocked word in the URL"] and reasons("http://x.com/pokers") == []
    assert reasons("http://x.com/chat/chat") == [] and reasons("http://x.com/chat/cam") == ["blocked word in the URL"]
    assert reasons("http://[") == [] and reasons("") == []
    with pytest.raises(UserError, match="cannot be read"):
        Blocked(str(tmp_path / "none")).index(tmp_path)
