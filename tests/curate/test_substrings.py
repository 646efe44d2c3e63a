"""Exact substrings: the same answer as brute force and as a suffix array, within the memory given."""

from __future__ import annotations

import itertools
import random
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unlabeled.core.errors import UserError
from unlabeled.curate.dedup.substrings import Substrings, cut
from unlabeled.curate.document import Document
from unlabeled.curate.recipe import Drop, Edited


def encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def brute(texts: list[str], length: int) -> list[str]:
    """The rule as the module's docstring words it, with a dictionary of all windows."""
    first: dict[bytes, tuple[int, int]] = {}
    out = []
    for number, text in enumerate(texts):
        content = encoded(text)
        gone = bytearray(len(content))
        for place in range(len(content) - length + 1):
            where = first.setdefault(content[place : place + length], (number, place))
            if where != (number, place):
                start = max(place, where[1] + length) if where[0] == number else place
                gone[start : place + length] = b"\1" * (place + length - start)
        ends = [0, *itertools.accumulate(len(encoded(c)) for c in text)]
        out.append("".join(c for c, a, b in zip(text, ends, ends[1:]) if not all(gone[a:b])))
    return out


def mixed(size: int, seed: int, parts: int = 40) -> list[str]:
    """Documents of about `size` bytes in all, half of which is quoted from 30 phrases of 20 to 400 characters."""
    r = random.Random(seed)
    letters = "abcdefghij klmnop\nqrstuvwxyzäß€漢字😀"
    phrases = ["".join(r.choices(letters, k=r.randrange(20, 400))) for _ in range(30)]
    texts = []
    for _ in range(parts):
        text = ""
        while len(encoded(text)) < size // parts:
            text += r.choice(phrases) if r.random() < 0.5 else "".join(r.choices(letters, k=200))
        texts.append(text)
    return texts


def test_brute_force_on_100_kilobytes() -> None:
    texts = [*mixed(100_000, 0), "".join(mixed(100_000, 1, 1))]  # the last one is longer than a part of the arrays
    expected = brute(texts, 50)
    assert sum(map(len, expected)) < 0.8 * sum(map(len, texts))
    assert cut(texts, 50) == expected


def test_suffix_array_marks_the_same_bytes() -> None:
    pydivsufsort = pytest.importorskip("pydivsufsort")
    text = "".join(mixed(100_000, 2, 1))
    content, length = encoded(text), 100
    order = pydivsufsort.divsufsort(content)
    common = pydivsufsort.kasai(content, order)  # of each suffix and the next in order
    gone, group = np.zeros(len(content), bool), []
    for place, shared in zip(order.tolist(), common.tolist()):
        group.append(place)
        if shared < length:
            for later in sorted(group)[1:]:
                gone[max(later, min(group) + length) : later + length] = True
            group = []
    ends = np.cumsum([0, *(len(encoded(c)) for c in text)])
    expected = "".join(c for c, a, b in zip(text, ends, ends[1:]) if not gone[a:b].all())
    assert 0.1 < gone.mean() < 0.9
    assert cut([text], length) == [expected]


def stretches(text: str, length: int, known: set[bytes]) -> tuple[str, list[str]]:
    """What the rule leaves of a text, whole and cut at the seams; windows met before are known, and the text's added."""
    step, document, content = Substrings(length), Document("", text), encoded(text)
    repeated, gone, first = [], np.zeros(len(content), bool), {}
    for place in range(len(content) - length + 1):
        window = content[place : place + length]
        if window not in first:
            first[window] = place if window not in known else -length  # it may be cut from its beginning
            repeated.append(window in known)
        if place != first[window]:
            gone[max(place, first[window] + length) : place + length] = True
    known.update(first)
    outcome = step.settle(document, np.array(repeated, bool))
    rest = outcome.text if isinstance(outcome, Edited) else "" if isinstance(outcome, Drop) else text
    ends = [0, *itertools.accumulate(len(encoded(c)) for c in text)]
    lost = [bool(gone[a:b].all()) for a, b in itertools.pairwise(ends)]
    return rest, ["".join(c for c, _ in g) for k, g in itertools.groupby(zip(text, lost), lambda x: x[1]) if not k]


@pytest.mark.parametrize("length", [20, 64, 100])
def test_no_text_of_the_length_is_left_twice_within_seams(length: int) -> None:
    known: set[bytes] = set()
    seen: set[str] = set()
    for text in mixed(60_000, length):
        rest, parts = stretches(text, length, known)
        assert "".join(parts) == rest
        for part in parts:
            for start in range(len(part)):  # the shortest text of whole characters from here on
                size, end = 0, start
                while size < length and end < len(part):
                    size, end = size + len(encoded(part[end])), end + 1
                if size < length:
                    break
                assert part[start:end] not in seen
                seen.add(part[start:end])
    assert len(seen) > 1000


def test_a_second_pass_changes_only_what_lies_across_seams() -> None:
    texts = mixed(100_000, 7)
    once = cut(texts, 50)
    twice = cut(once, 50)
    lost, lost_again = (sum(map(len, a)) - sum(map(len, b)) for a, b in ((texts, once), (once, twice)))
    assert lost_again < 0.05 * lost


def test_the_first_document_keeps_it() -> None:
    phrase = "the quick brown fox jumps over the lazy dog and " * 2 + "then it rests for a while in the sun."
    assert cut([f"1{phrase}2", f"3{phrase}4"]) == [f"1{phrase}2", "34"]
    assert cut([f"3{phrase}4", f"1{phrase}2"]) == [f"3{phrase}4", "12"]


def test_repeats_that_overlap_their_first_occurrence_leave_it_whole() -> None:
    assert cut(["a" * 300]) == ["a" * 100]
    assert cut(["ab" * 300]) == [("ab" * 300)[:100]]
    assert cut(["é" * 300]) == ["é" * 50]
    assert cut(["a" * 99]) == ["a" * 99]
    assert cut(["a" * 150, "a" * 120, "a" * 99]) == ["a" * 100, "", "a" * 99]


def test_a_character_that_shares_only_its_first_bytes_is_not_cut() -> None:
    # 漢 and 漣 are e6 bc a2 and e6 bc a3: 98 + 2 equal bytes.
    assert cut(["x" * 49 + "y" * 49 + "漢", "x" * 49 + "y" * 49 + "漣 end"]) == ["x" * 49 + "y" * 49 + "漢", "漣 end"]


def test_documents_do_not_run_into_each_other() -> None:
    text = "".join(random.Random(0).choices("abcdefgh", k=120))
    assert cut([text[:60], text[60:], text]) == [text[:60], text[60:], text]


small = st.lists(
    st.one_of(st.text("ab", max_size=80), st.text("aé€😀\ud800", max_size=60), st.text(max_size=40)), max_size=5
)


@settings(max_examples=150, deadline=None)
@given(small, st.sampled_from([8, 9, 11, 16]))
def test_brute_force_on_small_alphabets(texts: list[str], length: int) -> None:
    expected = brute(texts, length)
    assert cut(texts, length) == expected
    assert cut(texts, length, memory=1 << 16) == expected


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=400), st.integers(8, 40))
def test_any_text_may_be_cut_anywhere(text: str, length: int) -> None:
    step, document = Substrings(length), Document("x", text * 2)
    keys = step.keys(document)
    outcome = step.settle(document, np.ones(len(keys), bool))
    assert outcome is None or isinstance(outcome, Edited | Drop)


def test_a_table_too_small_marks_too_much_and_changes_nothing(tmp_path: Path) -> None:
    documents = [Document(str(i), text) for i, text in enumerate(mixed(400_000, 3))]
    masks = []
    for memory in (1 << 16, 1 << 24):
        step = Substrings(50, memory=memory)
        sketches = [step.sketch(documents[i : i + 7]) for i in range(0, len(documents), 7)]
        table = step.merge(sketches)
        assert np.array_equal(table, step.merge(sketches[::-1]))
        assert len(table) <= memory // 4
        np.save(tmp_path / f"{memory}.npy", table)
        ready = step.prepared(tmp_path / f"{memory}.npy")
        masks.append([set(ready.keys(d).tolist()) for d in documents])
    every = np.concatenate([Substrings(50).keys(d) for d in documents])
    repeated = {k for k, n in zip(*np.unique(every, return_counts=True)) if n > 1}
    for mask in masks:
        assert repeated <= set().union(*mask)
    small, large = (len(set().union(*mask)) for mask in masks)
    assert large < 0.2 * len(every)  # repeats, and windows around them that share a minimizer
    assert large < small < 0.5 * len(every)


def test_a_table_that_was_replaced_is_read_anew(tmp_path: Path) -> None:
    phrase, path = "".join(random.Random(0).choices("abcdefgh", k=300)), tmp_path / "table.npy"
    step, document = Substrings(), Document("", phrase)
    np.save(path, step.merge([step.sketch([document])]))
    ready = step.prepared(path)
    assert not len(ready.keys(document))
    np.save(tmp_path / "other.npy", step.merge([step.sketch([document, document])]))
    (tmp_path / "other.npy").replace(path)
    assert len(ready.keys(document)) == 201


def test_memory_stays_within_what_is_given(tmp_path: Path) -> None:
    memory = 1 << 22
    step, r = Substrings(100, memory=memory), np.random.default_rng(0)
    sketches = []
    for part in range(4):  # 16 MB of sketches, as of 50 MB of text
        np.save(tmp_path / f"{part}.npy", np.sort(r.integers(0, 2**63, 1 << 19, np.uint64)))
        sketches.append(np.load(tmp_path / f"{part}.npy", mmap_mode="r"))
    texts = mixed(2_000_000, 4, 20)
    step.keys(Document("", texts[0]))  # tables that are made once
    tracemalloc.start()
    np.save(tmp_path / "table.npy", step.merge(sketches))
    merging = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    ready, before = step.prepared(tmp_path / "table.npy"), tracemalloc.get_traced_memory()[0]
    for text in texts:
        document = Document("", text)
        ready.settle(document, np.ones(len(ready.keys(document)), bool))
    settling = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    assert merging <= memory
    assert settling <= 60 * 100_000 + (1 << 22)  # 60 bytes for each of a document, and the arrays of one part


def test_settings_out_of_range_say_what_to_do() -> None:
    with pytest.raises(UserError, match="give 8 to"):
        Substrings(5)
    with pytest.raises(UserError, match=r"65,536 or more"):
        Substrings(memory=10)
