import json
import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from unlabeled.core.errors import UserError
from unlabeled.curate.document import Document
from unlabeled.curate.recipe import Drop, Edited
from unlabeled.curate.rules import c4
from unlabeled.curate.rules.c4 import DATATROVE, Clean, Listed
from unlabeled.curate.sentences import count

PLAIN = Clean(bad_words="")
GOOD = ["Here is a line of words.", "Is there one more line?", 'They said: "and another one!"']
PAGE = "\n".join(GOOD)


@pytest.fixture
def words(tmp_path):
    file = tmp_path / "words.txt"
    file.write_text("Darn\n\ngosh darn it\nd4rn\n♥\n", encoding="utf-8")
    return str(file)


def cleaned(text, rule=PLAIN):
    outcome = rule(Document("d", text))
    return outcome.text if isinstance(outcome, Edited) else outcome


def test_a_page_of_sentences_stays_as_it_is():
    assert cleaned(PAGE) is None


@pytest.mark.parametrize(
    ("line", "count_of"),
    [
        ("Here is a word like " + "x" * 1001 + " so.", "line with a word of over 1000 characters"),
        ("Here is a line of words", "line without end mark"),
        ("Here is a line of...", "line without end mark"),
        ("Here is a line of words. [1]", "line without end mark"),  # deleting [1] leaves a blank at the end
        ("Here are 'too few'.", "short line"),
        ("Four words are few.", "short line"),
        ("Please enable JavaScript to see this.", "line on javascript"),
        ("Read all of our Privacy Policy now.", "line on a policy"),
        ("Read all our Terms of Use now.", "line on a policy"),
        ("This page uses cookies to follow you.", "line on a policy"),
    ],
)
def test_each_rule_of_lines_has_a_line_that_it_alone_takes(line, count_of):
    for text in (f"{PAGE}\n{line}", f"{line}\n{PAGE}"):
        outcome = PLAIN(Document("d", text))
        assert isinstance(outcome, Edited)
        assert outcome.text == PAGE
        assert {name: n for name, n in outcome.counts.items() if n and name != "citation deleted"} == {count_of: 1}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (PAGE + "\nLorem ipsum stands for later text.", "lorem ipsum"),
        (PAGE + "\nIt reads {name} in every line.", "curly bracket"),
        ("\n".join(GOOD[:2]), "fewer than 3 sentences"),
        ("", "fewer than 3 sentences"),
    ],
)
def test_each_rule_of_pages_has_a_page_that_it_drops(text, reason):
    assert PLAIN(Document("d", text)).reason == reason


def test_what_is_in_lines_that_go_anyway_does_not_drop_the_page():
    assert cleaned(PAGE + "\nfunction() { return lorem ipsum }") == PAGE
    assert cleaned(PAGE + "\nThe javascript of this { was here.") == PAGE  # the order of the builder


def test_words_of_1000_characters_and_lines_of_5_words_stay():
    line = "It says " + "x" * 1000 + " so there."
    assert cleaned(f"{PAGE}\n{line}") is None
    assert cleaned(PAGE + "\nFive words are not few.") is None


def test_citations_are_deleted_and_counted():
    outcome = PLAIN(Document("d", PAGE + "\nThis was[1][23] said[citation needed] long ago[edit]."))
    assert outcome.text == PAGE + "\nThis was said long ago."
    assert outcome.counts == {"citation deleted": 4}


def test_words_are_counted_after_citations_by_the_builder_and_before_by_datatrove():
    line = "So it [1] [2] [3] is."
    assert cleaned(f"{PAGE}\n{line}") == PAGE
    assert cleaned(f"{PAGE}\n{PAGE}\n{line}", DATATROVE) == f"{PAGE}\n{PAGE}\nSo it    is."


def test_datatrove_takes_a_quote_for_an_end_mark_and_asks_for_3_words_and_5_sentences():
    text = "\n".join([*GOOD, *GOOD[:2], "He said 'this'"])
    assert cleaned(text, DATATROVE) is None
    assert cleaned(text).endswith(GOOD[1])
    assert DATATROVE(Document("d", PAGE)).reason == "fewer than 5 sentences"


@pytest.mark.parametrize(
    "line",
    ["Then he said darn to them.", "Then, GOSH DARN IT, they went.", "So it is d4rn again.", "I ♥ you all so much."],
)
def test_a_bad_word_by_itself_drops_the_page(line, words):
    assert Clean(bad_words=words)(Document("d", f"{PAGE}\n{line}")).reason == "bad word"


@pytest.mark.parametrize(
    "line",
    ["Darn is a word at the start.", "They darned all of their socks.", "He wrote it in a d4rnd way."],
)
def test_a_bad_word_within_another_or_at_the_start_is_passed_over(line, words):
    assert cleaned(f"{PAGE}\n{line}", Clean(bad_words=words)) is None


@given(st.text("dargosh it4♥.\n", max_size=60))
def test_bad_words_are_found_as_by_the_pattern_of_the_builder(tmp_path_factory, text):
    listed = ("darn", "gosh darn it", "d4rn", "♥", "so")
    quick = c4._BadWords(listed).pattern(text.lower())
    slow = re.compile(f"[^a-z]({'|'.join(listed)})[^a-z]")
    for line in text.lower().splitlines():
        assert bool(quick and quick.search(line)) == bool(slow.search(line))


def test_a_list_that_is_not_there_is_named_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setenv("UNLABELED_CACHE", str(tmp_path))
    c4._list.cache_clear()
    with pytest.raises(UserError, match="unlabeled data get naughty-words"):
        Clean().index(tmp_path)
    with pytest.raises(UserError, match=r"none\.txt cannot be read"):
        Clean(bad_words=str(tmp_path / "none.txt")).index(tmp_path)
    (tmp_path / "data" / "naughty-words").mkdir(parents=True)
    (tmp_path / "data" / "naughty-words" / "en.json").write_text(json.dumps(["darn"]))
    assert Clean().index(tmp_path) == Clean()
    c4._list.cache_clear()


def test_sites_and_addresses_can_be_listed(tmp_path):
    sites = tmp_path / "sites.json"
    sites.write_text(json.dumps({"news.org": True, "paper.co.uk": ["www", "money"]}))
    addresses = tmp_path / "addresses.txt"
    addresses.write_text("https://www.one.org/page/\nhttp://two.org/?id=3&x\n")

    def stays(rule, url):
        return rule(Document("d", "", about={"url": url})) is None

    domain = Listed(str(sites))
    assert stays(domain, "https://news.org/a") and stays(domain, "http://live.news.org:80/")
    assert stays(domain, "http://money.paper.co.uk") and not stays(domain, "http://blog.paper.co.uk")
    assert not stays(domain, "http://oldnews.org/") and not stays(domain, "http://[") and not stays(domain, "")
    address = Listed(str(addresses), by="url")
    assert stays(address, "http://one.org/page?utm_source=x") and not stays(address, "http://one.org/")
    with pytest.raises(UserError, match="cannot be read"):
        Listed(str(tmp_path / "none")).index(tmp_path)
    assert [step.name for step in c4.realnewslike(str(sites)).steps][1] == "listed"
    assert [step.name for step in c4.webtextlike(str(addresses)).steps][1] == "listed"


def test_long_lines_are_paragraphs():
    text = "\n".join(["x" * 200, "y" * 199, "z" * 300, "w" * 200])
    assert c4.long_lines(Document("d", text)) == 3


LINES = st.lists(
    st.sampled_from(
        [
            "Here is a line of words.",
            "  So is this one, too!",
            "short",
            "[1] a b c d e.",
            "{",
            "a b c d...",
            "Lorem ipsum.",
            "x\x85y\x1cz.",
            'it\'s "so" and so "and so"',
        ]
    )
).map("\n".join)


@given(st.one_of(st.text(max_size=300), LINES))
def test_cleaning_twice_is_cleaning_once(text):
    # but for citations, which the builder deletes after it has stripped the line: "[1] So it is." keeps a blank
    assume("[" not in text)
    for rule in (PLAIN, Clean(1, 0, bad_words=""), DATATROVE):
        once = cleaned(text, rule)
        if isinstance(once, str):
            assert cleaned(once, rule) is None


@given(st.one_of(st.text(max_size=300), LINES))
def test_any_text_is_cleaned_and_what_is_kept_are_lines_of_it(text):
    outcome = Clean(1, 0, bad_words="")(Document("d", text))
    assert outcome is None or isinstance(outcome, (Drop, Edited))
    if isinstance(outcome, Edited) and "[" not in text:
        assert set(outcome.text.split("\n")) <= {line.strip() for line in text.splitlines()} | {""}


@pytest.mark.parametrize("text", ["a" * 10_000_000, "\ud800 " * 50, "\0" * 99, "́." * 100, "שלום עולם. " * 60])
def test_odd_texts_raise_nothing(text):
    PLAIN(Document("d", text))


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("", 0),
        (" \n", 0),
        ("One", 1),
        ("One. Two.", 2),
        ("Mr. J. Smith came at 3.15 p.m. from the U.S. embassy.", 1),
        ("He asked 'Why?' Nobody knew. \"So be it.\" They left!", 4),
        ("Well... maybe not. Really?! Yes.", 3),
        ("これは文です。次の文です。", 2),
    ],
)
def test_sentences_are_counted(text, number):
    assert count(text) == number


def test_a_page_of_dots_is_counted_in_a_moment() -> None:
    from unlabeled.curate.sentences import count

    assert count("." * 300_000) == count("." * 300) == 1
