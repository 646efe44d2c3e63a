import re
import sysconfig
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unlabeled.curate.document import Document
from unlabeled.curate.pii import PII, masked, replaced
from unlabeled.curate.recipe import Drop, Edited

# What the patterns are made of, so that random texts come near to matching.
NEARLY = st.text("ab1Z@@..-_é[]:(), \n25#!\x00", max_size=60)
ADDRESSES = st.lists(
    st.sampled_from(
        [
            "a.b@c.de",
            "x@y",
            "@",
            "..",
            " ",
            "\n",
            "8.8.8.8",
            "10.0.0.1",
            "300.1.1.1",
            "1.2.3.4.5",
            "é",
            "a@[1.2.3.4]",
            "(",
            "-",
        ]
    )
).map("".join)


def test_addresses_give_way_in_rotation_and_are_counted():
    text = "Ann@site.org, bob@site.org and eve@site.org log in from 8.8.8.8, not from 192.168.0.1."
    outcome = PII()(Document("d", text))
    assert isinstance(outcome, Edited)
    assert outcome.text == (
        "email@example.com, firstname.lastname@example.org and email@example.com log in from 22.214.171.124, "
        "not from 192.168.0.1."
    )
    assert outcome.counts == {"e-mail address": 3, "IPv4 address": 1}


def test_the_rotation_begins_anew_with_every_document_so_that_order_does_not_matter():
    one, two = Document("1", "a@b.cc"), Document("2", "d@e.ff")
    assert PII()(one).text == PII()(two).text == "email@example.com"


def test_kinds_can_be_left_out_and_private_addresses_taken_in():
    text = "a@b.cc 8.8.8.8 10.0.0.1"
    assert PII(emails=False)(Document("d", text)).text == "a@b.cc 22.214.171.124 10.0.0.1"
    assert PII(ipv4s=False)(Document("d", text)).text == "email@example.com 8.8.8.8 10.0.0.1"
    assert PII(public=False)(Document("d", text)).text == "email@example.com 22.214.171.124 126.96.36.199"


def test_replacing_twice_changes_nothing_more():
    # Not so where a match ends within a word ("a@[1.2.3.4]b"), in datatrove as here.
    once, _ = replaced("Mail me@here.org, you@there.org or 8.8.8.8, 9.9.9.9")
    assert replaced(once)[0] == once


@given(st.one_of(NEARLY, ADDRESSES, st.text()))
def test_replacing_agrees_with_datatrove(text):
    formatter = pytest.importorskip("datatrove.pipeline.formatters.pii").PIIFormatter
    assert replaced(text)[0] == formatter().format(text)
    assert replaced(text, public=False)[0] == formatter(only_remove_public_ips=False).format(text)


def test_replacing_agrees_with_datatrove_on_real_files():
    formatter = pytest.importorskip("datatrove.pipeline.formatters.pii").PIIFormatter
    library = Path(sysconfig.get_paths()["stdlib"])
    texts = [path.read_text("utf8", "replace") for path in sorted(library.glob("*/*.py"))[:300]]
    assert sum(1 for text in texts if replaced(text)[1]) > 10
    assert all(replaced(text)[0] == formatter().format(text) for text in texts)


def test_masks_take_marks_and_white_space_with_them_as_dolma_s_do():
    text = "Write to: bob@site.org, or call (212) 555-0123 or ring 2125550123.\nHost 1.2.3.4 is up; x@nodot here"
    outcome = PII("mask")(Document("d", text))
    assert outcome.text == (
        "Write to |||EMAIL_ADDRESS||| or call |||PHONE_NUMBER|||  or ring |||PHONE_NUMBER||| .\n"
        "Host  |||IP_ADDRESS|||  is up; x@nodot here"
    )
    assert outcome.counts == {"e-mail address": 1, "telephone number": 2, "IPv4 address": 1}


def test_a_telephone_number_at_the_start_of_a_line_is_not_seen():
    assert masked("a\n212-555-0123 b")[1] == {}  # Dolma's pattern wants white space before, within the line
    assert masked("a 212-555-0123 b")[1] == {"telephone number": 1}


@pytest.mark.parametrize(("hits", "dropped"), [(5, False), (6, True)])
def test_a_document_with_more_than_five_hits_goes(hits, dropped):
    outcome = PII("mask")(Document("d", "me@host.org \n" * hits))
    assert isinstance(outcome, Drop) is dropped
    assert not dropped or outcome.value == hits


def test_version_numbers_are_taken_for_addresses():
    # A known false positive, shared with both references.
    assert replaced("release 2.4.1.8")[1] == {"IPv4 address": 1}
    assert replaced("release 2.4.1")[1] == {}


def test_no_document_of_persons_is_left_alone():
    assert PII()(Document("d", "Nothing here @ all, 1.2.3 4")) is None
    assert PII("mask")(Document("d", "")) is None


@given(st.one_of(NEARLY, ADDRESSES, st.text()))
def test_masking_finds_what_dolma_s_pattern_of_one_piece_finds_line_by_line(text):
    marks = r".\s@,?!;:)("
    pattern = re.compile(rf"[{marks}]*([^\s@]+@[^\s@,?!;:)(]+?)[{marks}]?\s")
    found = 0
    for line in re.findall(r"[^\n]*\n|[^\n]+$", text):
        for match in pattern.finditer(line):
            name, _, domain = match[1].partition("@")
            found += name != "(" and "." in domain
    assert masked(text)[1].get("e-mail address", 0) == found


@given(st.one_of(NEARLY, ADDRESSES, st.text()))
def test_any_text_is_masked_without_error(text):
    new, counts = masked(text)
    assert bool(counts) == (new != text)


@pytest.mark.parametrize(
    "text",
    [
        "a-" * 2_000_000,
        "@" * 100_000,
        "a@" * 100_000,
        " " * 4_000_000 + "@",
        "1." * 500_000,
        "x" * 4_000_000 + "@",
        "a@" + "a." * 500_000,
    ],
    ids=["letters", "ats", "words", "spaces", "numbers", "long", "domains"],
)
def test_long_lines_take_no_more_time_than_their_length(text):
    began = time.process_time()
    PII()(Document("d", text))
    PII("mask")(Document("d", text))
    assert (
        time.process_time() - began < 4
    )  # seconds; sought from the left, most of these take the square of their length
