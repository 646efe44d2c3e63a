"""Distances and errors against the definition, spelled out slowly; what must come out of features that are known."""

import numpy as np
import pytest

from unlabeled.evaluate import abx
from unlabeled.evaluate.abx import Tokens, any_context, distances, same_context, tokens_of, wrong


def slowly(a: np.ndarray, b: np.ndarray) -> float:
    """Cost by the recursion, then back along the path: of equal steps the diagonal first, then the one along b."""
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (np.float64(a), np.float64(b))]
    d = np.arccos(np.clip(unit[0] @ unit[1].T, -1, 1)) / np.pi
    cost = np.full(d.shape, np.inf)
    for i in range(len(a)):
        for j in range(len(b)):
            before = [cost[p, q] for p, q in ((i - 1, j - 1), (i - 1, j), (i, j - 1)) if p >= 0 and q >= 0]
            cost[i, j] = d[i, j] + (min(before) if before else 0)
    i, j, steps = len(a) - 1, len(b) - 1, 1
    while i or j:
        if i and j and cost[i - 1, j - 1] <= min(cost[i - 1, j], cost[i, j - 1]):
            i, j = i - 1, j - 1
        elif j and (not i or cost[i, j - 1] <= cost[i - 1, j]):
            j -= 1
        else:
            i -= 1
        steps += 1
    return cost[-1, -1] / steps


def test_distances_are_those_of_the_definition(monkeypatch):
    rng = np.random.default_rng(0)
    segments = [rng.standard_normal((n, 3)).astype(np.float32) for n in (1, 2, 3, 5, 8, 1, 4)]
    segments.append(np.repeat(segments[1], 3, 0))  # ties everywhere
    pairs = np.array([(i, j) for i in range(8) for j in range(8)])
    expected = [slowly(segments[i], segments[j]) for i, j in pairs]
    np.testing.assert_allclose(distances(segments, pairs), expected, atol=1e-7)
    monkeypatch.setattr(abx, "_PAIRS", 5)
    np.testing.assert_allclose(distances(segments, pairs), expected, atol=1e-7)
    assert np.abs(distances(segments, pairs[pairs[:, 0] == pairs[:, 1]])).max() < 1e-7
    np.testing.assert_allclose(
        distances([5 * s for s in segments], pairs), expected, atol=1e-7
    )  # loudness is not heard
    np.testing.assert_allclose(distances([-s for s in segments], pairs), expected, atol=1e-7)


def test_opposite_frames_are_at_distance_one_and_silence_halfway():
    x = np.array([[1.0, 0]])
    found = distances([x, -x, np.array([[0.0, 1]]), 0 * x], np.array([(0, 0), (0, 1), (0, 2), (0, 3)]))
    np.testing.assert_allclose(found, [0, 1, 0.5, 0.5], atol=1e-7)


def made(seed: int = 0, count: int = 300, silence: bool = True) -> Tokens:
    rng = np.random.default_rng(seed)
    phones = rng.choice(list("aeou"), count).tolist()
    around = [
        (str(p), str(n), str(s)) for p, n, s in zip(*rng.choice(list("ptk"), (2, count)), rng.choice(["x", "y"], count))
    ]
    places = np.stack([np.zeros(count, int), 3 * np.arange(count), 3 * np.arange(count) + 3], 1)
    return Tokens(places, phones, around)


def test_known_features_give_known_errors():
    tokens = made()
    rng = np.random.default_rng(1)
    free, (close, weights) = any_context(tokens, 2000), same_context(tokens)
    told = [np.repeat(np.eye(4)[["aeou".index(p)]], 3, 0) for p in tokens.phones]
    for triples in (free, close):
        assert not wrong(told, triples).any()  # the phone itself: no error
        assert (wrong([np.ones((2, 4))] * len(tokens), triples) == 0.5).all()  # always the same: half
    noise = [rng.standard_normal((3, 8)) for _ in tokens.phones]
    assert abs(wrong(noise, free).mean() - 0.5) < 0.04
    assert abs(weights @ wrong(noise, close) - 0.5) < 0.04
    assert weights.sum() == pytest.approx(1)


def test_random_triples_are_of_different_phones_and_tokens_and_pairs_are_equally_likely():
    tokens = made()
    tokens.phones[0] = "rare"
    tokens.phones[1] = tokens.phones[2] = "seldom"
    a, b, x = any_context(tokens, 3000, seed=3).T
    of = np.array(tokens.phones)
    assert (of[a] == of[x]).all() and (of[a] != of[b]).all() and (a != x).all()
    assert "rare" not in set(of[a]) and "rare" in set(of[b])  # one token alone cannot be A and X
    names, counts = np.unique(of[a], return_counts=True)
    assert len(names) == 5 and counts.min() > 450  # 600 expected
    assert any_context(tokens, 3000, seed=3).T[0].tolist() == a.tolist()
    assert len(any_context(Tokens(tokens.places[:1], ["a"], tokens.contexts[:1]), 5)) == 0


def test_cells_are_averaged_over_contexts_then_speakers_then_pairs():
    """The error from triples and weights is that of the nested loops of the definition."""
    tokens = made(count=60)
    rng = np.random.default_rng(5)
    segments = [rng.standard_normal((2, 3)) for _ in range(60)]
    triples, weights = same_context(tokens, largest=99)
    pairs = {}
    for a in "aeou":
        for b in "aeou":
            by_speaker = {}
            for s in "xy":
                cells = []
                for p in "ptk":
                    for n in "ptk":
                        first, second = (
                            [i for i in range(60) if tokens.phones[i] == c and tokens.contexts[i] == (p, n, s)]
                            for c in (a, b)
                        )
                        scores = []
                        for i in first:
                            for x in first:
                                for j in second:
                                    if i != x and a != b:
                                        own, other = slowly(segments[i], segments[x]), slowly(segments[j], segments[x])
                                        scores.append(float(own > other))
                        if scores:
                            cells.append(np.mean(scores))
                if cells:
                    by_speaker[s] = np.mean(cells)
            if by_speaker:
                pairs[a, b] = np.mean(list(by_speaker.values()))
    assert len(pairs) > 5
    assert weights @ wrong(segments, triples) == pytest.approx(np.mean(list(pairs.values())), abs=1e-9)
    capped, _ = same_context(made(count=4000), largest=2)
    of = np.array(made(count=4000).phones)
    assert (of[capped[:, 0]] == of[capped[:, 2]]).all() and (of[capped[:, 0]] != of[capped[:, 1]]).all()
    assert len(capped) == 9 * 2 * 12 * 2 * 2  # contexts, speakers, pairs, (A, X) of two, B of two


def test_tokens_are_the_frames_within_a_phone():
    alignment = [(0.0, 0.1, "pau"), (0.1, 0.2, "a"), (0.2, 0.21, "b"), (0.21, 0.3, "c"), (0.3, 0.4, "pau")]
    times = np.arange(20) * 0.02 + 0.01  # 0.01, 0.03, ...
    tokens = tokens_of([alignment, []], [times, times], frozenset({"pau"}))
    assert tokens.phones == ["a", "c"]  # no frame lies within b
    assert tokens.places.tolist() == [[0, 5, 10], [0, 10, 15]]
    assert tokens.contexts == [("pau", "b", ""), ("b", "pau", "")]
    assert tokens.cut([times[:, None], times[:, None]])[0][:, 0].tolist() == times[5:10].tolist()
