"""The Bloom filter keeps its rate; n-grams that came before go, by the stream and by the pipeline's way alike."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unlabeled.core.errors import UserError
from unlabeled.curate.dedup.bloom import BloomFilter, Ngrams, bff
from unlabeled.curate.document import Document
from unlabeled.curate.recipe import Drop, Edited, Outcome


@pytest.mark.parametrize("p", [0.1, 0.01, 0.001])
@pytest.mark.parametrize("structured", [False, True])
def test_false_positives_are_within_a_tenth_of_p(p: float, structured: bool) -> None:
    count, probes = 200_000, int(400 / p) * 5  # 2,000 false positives expected: 2.2 % of standard deviation
    keys = np.arange(count + probes, dtype=np.uint64)
    if not structured:
        keys = np.random.default_rng(0).integers(0, 2**64, count + probes, np.uint64)
    bloom = BloomFilter(count, p)
    bloom.add(keys[:count])
    assert bloom.has(keys[:count]).all()
    assert bloom.has(keys[count:]).mean() == pytest.approx(p, rel=0.1)
    assert len(bloom.table) == pytest.approx(-count * np.log(p) / np.log(2) ** 2 / 8, abs=1)


def words(seed: int, count: int) -> str:
    r = random.Random(seed)
    return " ".join("".join(r.choices("abcdefghij", k=r.randrange(3, 9))) for _ in range(count))


def grouped(texts: list[str], step: Ngrams, folder: Path | None = None) -> list[Outcome]:
    """By sketch, merge, keys and settle, as a pipeline does."""
    documents = [Document(str(i), text) for i, text in enumerate(texts)]
    if folder is not None:
        np.save(folder / "table.npy", step.merge([step.sketch(documents[i::3]) for i in range(3)]))
        step = step.prepared(folder / "table.npy")
    known: set[int] = set()
    out = []
    for document in documents:
        repeated = []
        for key in step.keys(document).tolist():
            repeated.append(key in known)
            known.add(key)
        out.append(step.settle(document, np.array(repeated, bool)))
    return out


def streamed(texts: list[str], p: float = 1e-9) -> list[Outcome]:
    return list(bff([Document("", text) for text in texts], 100_000, p=p))


def both(texts: list[str]) -> list[Outcome]:
    stream = streamed(texts)
    assert grouped(texts, Ngrams()) == stream
    return stream


def test_paragraphs_and_documents_that_came_before_go() -> None:
    a, b, c, d = (words(i, 40) for i in range(4))
    assert both([a, a]) == [None, Drop("n-grams that came before", 1.0)]
    assert both([a, f"{b}\n{a}\n{c}"]) == [None, Edited(f"{b}\n{c}", {"paragraphs that came before": 1})]
    assert both([f"{a}\n{b}\n{a}"]) == [Edited(f"{a}\n{b}", {"paragraphs that came before": 1})]
    assert both([f"{a} {a}", d]) == [None, None]  # within a paragraph nothing came before


def test_more_than_the_share_not_the_share_itself_goes() -> None:
    start = words(0, 12).split()  # no n-gram yet
    for seen, goes in ((8, False), (9, True)):
        first = start + words(1, seen).split()
        second = first + words(2, 10 - seen).split()  # 10 n-grams, of which `seen` came before
        assert (both([" ".join(first), " ".join(second)])[1] is not None) == goes


def test_short_paragraphs_stay() -> None:
    short = words(0, 12)
    assert both([short, short, f"{short}\n{short}"]) == [None, None, None]


def test_the_order_decides() -> None:
    a, b = words(0, 40), words(1, 40)
    assert both([a, f"{a}\n{b}"])[1] == Edited(b, {"paragraphs that came before": 1})
    assert both([f"{a}\n{b}", a])[1] == Drop("n-grams that came before", 1.0)


def quoting(seed: int, count: int) -> list[str]:
    """Documents whose paragraphs are quoted whole or in part from 40 others, half of the time."""
    r = random.Random(seed)
    stock = [words(i, r.randrange(10, 80)).split() for i in range(40)]
    texts = []
    for _ in range(count):
        parts = []
        for _ in range(r.randrange(1, 8)):
            part = words(r.randrange(1 << 30), r.randrange(5, 60)).split()
            if r.random() < 0.5:
                quoted = r.choice(stock)
                part = quoted[: r.randrange(len(quoted))] + part[: r.randrange(len(part))]
            parts.append(" ".join(part))
        texts.append("\n".join(parts))
    return texts


def lost(texts: list[str], outcomes: list[Outcome]) -> list[set[tuple[int, int]]]:
    """(document, paragraph) of what went; texts whose paragraphs are all different."""
    out = []
    for number, (text, outcome) in enumerate(zip(texts, outcomes)):
        kept = text.split("\n") if outcome is None else [] if isinstance(outcome, Drop) else outcome.text.split("\n")
        out.append({(number, i) for i, p in enumerate(text.split("\n")) if p not in kept})
    return out


def test_grouping_loses_all_that_the_stream_does_and_little_more(tmp_path: Path) -> None:
    texts = quoting(0, 800)
    stream, group = set().union(*lost(texts, streamed(texts))), set().union(*lost(texts, grouped(texts, Ngrams())))
    assert stream <= group
    assert len(stream) > 100
    assert len(group) < 1.1 * len(stream)


@pytest.mark.parametrize("memory", [1 << 12, 1 << 24])
def test_the_table_changes_nothing_but_the_number_of_keys(tmp_path: Path, memory: int) -> None:
    texts = quoting(1, 200)
    step = Ngrams(memory=memory)
    assert grouped(texts, step, tmp_path) == grouped(texts, Ngrams())
    ready, documents = step.prepared(tmp_path / "table.npy"), [Document("", text) for text in texts]
    few, every = (sum(len(s.keys(d)) for d in documents) for s in (ready, step))
    if memory == 1 << 24:
        hashes = np.concatenate([step.keys(d) for d in documents])
        often = dict(zip(*np.unique(hashes, return_counts=True)))
        once = sum(n == 1 for n in often.values())
        assert few <= every - once + 0.02 * once  # p of them for each of the two filters
    assert len(np.load(tmp_path / "table.npy")) <= memory


@settings(max_examples=80, deadline=None)
@given(st.lists(st.text("ab \n", max_size=120) | st.text(max_size=80) | st.just("x " * 30), max_size=4))
def test_any_text_gets_an_answer(texts: list[str]) -> None:
    for outcomes in (streamed(texts), grouped(texts, Ngrams(ngram=3))):
        assert len(outcomes) == len(texts)
        assert all(isinstance(outcome, Drop | Edited | None) for outcome in outcomes)


def test_impossible_filters_are_refused() -> None:
    with pytest.raises(UserError, match="between 0 and 1"):
        BloomFilter(10, 1.0)
