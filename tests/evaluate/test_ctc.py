import functools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unlabeled.evaluate.ctc import Alphabet, edits, error_rate, greedy, plain, read_features, train_head


def slowly(a: str, b: str) -> int:
    @functools.cache
    def of(i: int, j: int) -> int:
        if not i or not j:
            return i + j
        return min(of(i - 1, j) + 1, of(i, j - 1) + 1, of(i - 1, j - 1) + (a[i - 1] != b[j - 1]))

    return of(len(a), len(b))


@settings(max_examples=200, deadline=None)
@given(st.text("abc ", max_size=9), st.text("abc ", max_size=9))
def test_edits_are_the_fewest(a, b):
    assert edits(a, b) == slowly(a, b) == edits(b, a)


def test_rates_are_of_the_whole_not_means_of_ratios():
    said, read = ["a b", "long sentence here"], ["a", "long sentence here"]
    assert error_rate(said, read) == pytest.approx(2 / 21)
    assert error_rate(said, read, words=True) == pytest.approx(1 / 5)
    assert error_rate(["a b c"], ["x y z w"], words=True) == pytest.approx(4 / 3)  # may exceed 1
    assert error_rate(["abc"], [""]) == 1 and error_rate([""], ["ab"]) == 2 and error_rate([], []) == 0
    assert edits(["a", "b"], ["b"]) == 1


def test_rates_are_those_of_jiwer():
    """Values by jiwer 4.0.0."""
    said = ["the cat sat on the mat", "hello world", "one two three"]
    read = ["the cat sit on mat", "hallo world again", "one two three"]
    assert error_rate(said, read, words=True) == pytest.approx(0.36363636363636365)
    assert error_rate(said, read) == pytest.approx(0.2608695652173913)


def test_texts_lose_case_and_punctuation():
    assert plain("  Скажите, - она’s 2-я:\nDon't!") == "скажите она s 2 я don't"


def test_reading_merges_repeats_and_drops_blanks():
    alphabet = Alphabet.of(["ab", "b a"])
    assert alphabet.characters == " ab" and alphabet.encode("ba?").tolist() == [3, 2]
    best = torch.tensor([0, 2, 2, 0, 2, 3, 3, 1, 0, 0])
    assert greedy(torch.nn.functional.one_hot(best, 4).float(), alphabet) == "aab "
    assert greedy(torch.zeros(0, 4), alphabet) == ""


def test_a_head_learns_to_read_features_that_tell_the_letters():
    """Letters of two to four frames between pauses, one number of the features for each."""
    rng = np.random.default_rng(0)
    texts = ["".join(rng.choice(list("abcd"), rng.integers(3, 9))) for _ in range(60)]
    alphabet = Alphabet.of(texts)

    def said(text: str) -> np.ndarray:
        rows = [
            row for c in text for row in [alphabet.encode(c).item()] * rng.integers(2, 5) + [0] * rng.integers(1, 4)
        ]
        return (3 + 5 * np.eye(5)[rows] + 0.5 * rng.standard_normal((len(rows), 5))).astype(np.float32)

    features = [said(text) for text in texts]
    head = train_head(features[:40], [alphabet.encode(t) for t in texts[:40]], alphabet, updates=300)
    assert error_rate(texts[40:], read_features(head, features[40:])) < 0.02
    deaf = train_head([0 * f for f in features[:40]], [alphabet.encode(t) for t in texts[:40]], alphabet, updates=20)
    assert error_rate(texts[40:], read_features(deaf, [0 * f for f in features[40:]])) > 0.5
