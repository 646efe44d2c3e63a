"""Pairs by a plain loop, whole words by the greedy rule in Python, random numbers by their distribution."""

import math

import torch

from unlabeled.data.cloze import digest, pairs, uniform, whole_words

CLS, SEP = 2, 3


def generator(seed):
    return torch.Generator().manual_seed(seed)


def made(n=64, width=40, seed=0):
    """Ids 5-14 end sentences, 40-49 continue words, a few SEP."""
    rows = torch.randint(5, 50, (n, width), generator=generator(seed))
    rows[torch.rand(n, width, generator=generator(seed + 1)) < 0.03] = SEP
    return rows, (rows < 40), (rows < 15) & (rows >= 5)


def test_pairs_are_windows_cut_at_a_border_or_with_another_end():
    rows, begins, ends = made()
    torch.manual_seed(0)
    tokens, segments, other = pairs(rows, begins, ends, CLS, SEP, lambda w, stream: torch.rand(len(rows), w))
    assert tokens.shape == segments.shape == (64, 43)
    assert 0.3 < other.float().mean() < 0.7
    for i, (row, segment, elsewhere) in enumerate(zip(tokens.tolist(), segments.tolist(), other.tolist())):
        cut = segment.index(1) - 2
        assert segment == [0] * (cut + 2) + [1] * (41 - cut)
        assert row[0] == CLS and row[cut + 1] == row[-1] == SEP and 10 <= cut <= 30
        first, second = row[1 : cut + 1], row[cut + 2 : -1]
        assert first == rows[i, :cut].tolist() and first[-1] != SEP and second[0] != SEP and second[0] < 40
        before = rows[i - 1].tolist()
        if not elsewhere:
            assert second == rows[i, cut:].tolist()
            borders = [5 <= rows[i, j - 1] < 15 and 3 < rows[i, j] < 40 for j in range(10, 31)]
            assert 5 <= first[-1] < 15 or not any(borders)
        else:
            starts = [j for j in range(1, cut + 1) if before[j : j + len(second)] == second]
            assert any((5 <= before[j - 1] < 15) == (5 <= rows[i, cut - 1] < 15) for j in starts)


def test_a_window_without_another_border_keeps_its_own_end():
    rows = torch.full((2, 16), 45)  # pieces that go on with a word
    tokens, _, other = pairs(rows, rows < 40, rows < 10, CLS, SEP, lambda w, stream: torch.zeros(2, w))
    assert (tokens[:, 1:-1] == 45).sum() == 32
    assert other.tolist() == [1, 1]  # inside a word both times: the same kind, and no tell-tale
    rows[1] = torch.tensor([20] + [SEP] * 15)
    assert pairs(rows, rows < 40, rows < 10, CLS, SEP, lambda w, stream: torch.zeros(2, w))[2].tolist() == [1, 1]
    rows[1, :], rows[0, 8] = 45, 20  # only the first can be cut at a word, and the second has none to offer
    assert pairs(rows, rows < 40, rows < 10, CLS, SEP, lambda w, stream: torch.zeros(2, w))[2].tolist()[0] == 0


def test_whole_words_are_the_greedy_choice_of_the_official_rule():
    length, count = 30, 6
    order = torch.rand(200, length, generator=generator(0))
    barred = torch.rand(200, length, generator=generator(1)) < 0.1
    continues = torch.rand(200, length, generator=generator(2)) < 0.5
    got = whole_words(order.masked_fill(barred, -1), continues, count) >= 0
    for row in range(200):
        words = []
        for j in range(length):
            if barred[row, j]:
                continue
            if words and continues[row, j] and j and not barred[row, j - 1]:
                words[-1].append(j)
            else:
                words.append([j])
        words.sort(key=lambda word: -max(float(order[row, j]) for j in word))
        wanted = set()
        for word in words:
            if len(wanted) + len(word) <= count:
                wanted |= set(word)
        assert set(got[row].nonzero()[:, 0].tolist()) == wanted


def test_seeded_numbers_are_uniform_and_belong_to_the_content():
    rows = torch.randint(4096, (500, 126), generator=generator(0))
    seeds = digest(rows, 0)
    assert len(seeds.unique()) == 500
    drawn = uniform(seeds, rows, 1000, 3)
    assert drawn.min() >= 0 and drawn.max() < 1
    error = 5 / math.sqrt(12 * drawn.numel())
    assert abs(float(drawn.mean()) - 0.5) < error
    assert (drawn.mean(0) - 0.5).abs().max() < 5 / math.sqrt(12 * 500)
    assert (drawn.mean(1) - 0.5).abs().max() < 5 / math.sqrt(12 * 1000)
    tenths = torch.histc(drawn, 10, 0, 1) / drawn.numel()
    assert (tenths - 0.1).abs().max() < 5 * math.sqrt(0.09 / drawn.numel())
    neighbours = torch.corrcoef(torch.stack([drawn[:, :-1].flatten(), drawn[:, 1:].flatten()]))[0, 1]
    assert abs(float(neighbours)) < 5 / math.sqrt(drawn.numel())
    assert torch.equal(uniform(digest(rows[7:9], 0), rows[7:9], 1000, 3), drawn[7:9])  # whatever stands beside
    for others in (uniform(digest(rows, 1), rows, 1000, 3), uniform(seeds, rows, 1000, 4)):
        assert (others == drawn).float().mean() < 1e-4
    swapped = rows[:1].clone()
    swapped[0, 3], swapped[0, 4] = rows[0, 4], rows[0, 3]
    assert digest(swapped, 0) != seeds[0] or rows[0, 3] == rows[0, 4]
