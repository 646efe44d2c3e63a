"""The n-gram floor against a plain dictionary version and values worked out by hand; xz against its definition."""

import importlib.util
import lzma
import math
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest

_PATH = Path(__file__).resolve().parents[2] / "benchmarks" / "floors_text.py"
_SPEC = importlib.util.spec_from_file_location("floors_text", _PATH)
floors = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(floors)


def dictionary_bits(train: bytes, test: bytes, order: int) -> float:
    counts = defaultdict(Counter)
    for k in range(order):
        for i in range(k, len(train)):
            counts[train[i - k : i]][train[i]] += 1

    def p(history: bytes, byte: int) -> float:
        lower = p(history[1:], byte) if history else 1 / 256
        after = counts.get(history)
        if after is None:
            return lower
        return (after[byte] + len(after) * lower) / (after.total() + len(after))

    return -sum(math.log2(p(test[max(0, i - order + 1) : i], test[i])) for i in range(len(test))) / len(test)


def test_unigram_and_bigram_by_hand():
    # "aab": a twice of three, two kinds.
    a = (2 + 2 / 256) / 5
    assert floors.ngram_bits_per_byte(b"aab", b"a", 1) == pytest.approx(-math.log2(a), rel=1e-12)
    # After "a" came one a and one b; "zz" is unseen: (0 + 2/256) / 5, and no history z to lean on.
    assert floors.ngram_bits_per_byte(b"aab", b"aa", 2) == pytest.approx(
        -(math.log2(a) + math.log2((1 + 2 * a) / 4)) / 2, rel=1e-12
    )
    assert floors.ngram_bits_per_byte(b"aab", b"zz", 2) == pytest.approx(-math.log2(2 / 256 / 5), rel=1e-12)


@pytest.mark.parametrize("order", [1, 2, 3, 5, 8])
def test_it_is_the_dictionary_version(order):
    rng = np.random.default_rng(order)
    train = bytes(rng.choice(list(b"abc \xff\x00"), 400).astype(np.uint8))
    test = bytes(rng.choice(list(b"abcd \xff\x00"), 150).astype(np.uint8))
    assert floors.ngram_bits_per_byte(train, test, order) == pytest.approx(
        dictionary_bits(train, test, order), rel=1e-10
    )


def test_the_probabilities_of_the_next_byte_sum_to_one():
    train, before = b"the cat sat on the mat and the rat", b"the "
    bits = floors.ngram_bits_per_byte(train, before, 5) * len(before)
    after = [floors.ngram_bits_per_byte(train, before + bytes([b]), 5) * (len(before) + 1) for b in range(256)]
    assert sum(2 ** -(a - bits) for a in after) == pytest.approx(1, abs=1e-9)


def test_no_training_text_leaves_eight_bits():
    assert floors.ngram_bits_per_byte(b"", b"anything", 5) == 8


def test_orders_past_a_word_and_empty_texts_are_refused():
    with pytest.raises(ValueError, match="order"):
        floors.ngram_bits_per_byte(b"a", b"a", 9)
    with pytest.raises(ValueError, match="no byte"):
        floors.ngram_bits_per_byte(b"a", b"", 5)


def test_xz_alone_and_primed():
    text = bytes(np.random.default_rng(0).integers(0, 256, 5000, dtype=np.uint8))
    assert floors.xz_bits_per_byte(b"", text) == 8 * len(lzma.compress(text, preset=9)) / len(text)
    assert floors.xz_bits_per_byte(b"", text) > 8  # noise grows
    assert floors.xz_bits_per_byte(text, text) < 0.2  # seen before
