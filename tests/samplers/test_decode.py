"""Choosing a token: limits and frequencies. Generating: a toy decoder whose every logit is a function of its window."""

import pytest
import torch

from unlabeled.samplers.decode import choose, generate

LOGITS = torch.tensor([[0.0, 2.0, 1.0, -1.0, 2.0]]).log_softmax(-1)


def frequencies(**options):
    draws = (torch.arange(100_000) + 0.5) / 100_000
    ids = choose(LOGITS.expand(100_000, -1), draws, **options)
    return torch.bincount(ids, minlength=5) / 100_000


def test_draws_spread_as_the_probabilities():
    torch.testing.assert_close(frequencies(), LOGITS[0].exp(), rtol=0, atol=2e-5)
    torch.testing.assert_close(frequencies(temperature=0.5), (2 * LOGITS[0]).softmax(-1), rtol=0, atol=2e-5)


def test_top_k_and_top_p_keep_the_likeliest_and_renormalise():
    p = LOGITS[0].exp()
    kept = torch.tensor([0, p[1], p[2], 0, p[4]]) / (p[1] + p[2] + p[4])
    torch.testing.assert_close(frequencies(top_k=3), kept, rtol=0, atol=2e-5)
    # The two likeliest have 0.39 each: 0.7 needs both and no more, 0.8 the third as well.
    torch.testing.assert_close(frequencies(top_p=0.7), torch.tensor([0, 0.5, 0, 0, 0.5]), rtol=0, atol=2e-5)
    torch.testing.assert_close(frequencies(top_p=0.8), kept, rtol=0, atol=2e-5)
    torch.testing.assert_close(frequencies(top_k=3, top_p=1.0), kept, rtol=0, atol=2e-5)
    assert frequencies(top_p=1e-9)[1] == 1


def test_top_k_of_more_than_there_are_is_no_limit():
    torch.testing.assert_close(frequencies(top_k=99), LOGITS[0].exp(), rtol=0, atol=2e-5)


def test_zero_temperature_takes_the_likeliest():
    assert choose(torch.tensor([[1.0, 3.0, 2.0]]), torch.tensor([0.99]), temperature=0).tolist() == [1]


@pytest.mark.parametrize("draw", [0.0, 1 - 2**-53])
def test_no_draw_gives_what_has_no_probability(draw):
    logits = torch.tensor([[-torch.inf, 0.0, 1.0, -torch.inf]])
    assert choose(logits, torch.tensor([draw], dtype=torch.float64)).item() in (1, 2)


class Toy:
    """Logits over 11 ids from a hash of all tokens in the window; the cache is the list of windows."""

    def __init__(self, context):
        self.context, self.windows_seen = context, []

    def __call__(self, tokens, lengths, cache):
        held = cache or [[] for _ in tokens]
        cache = [h + t[:n].tolist() for h, t, n in zip(held, tokens, lengths)]
        assert all(len(c) <= self.context for c in cache)
        self.windows_seen.append([list(c) for c in cache])
        return torch.stack([self.logits(c) for c in cache]), cache

    def logits(self, window):
        code = hash(tuple(window)) % 2**31
        return torch.randn(11, generator=torch.Generator().manual_seed(code))


def test_a_row_does_not_depend_on_its_batch():
    prompts, seeds = [[1, 2, 3], [4], [5, 6, 7, 8, 9]], [10, 11, 12]
    together = generate(Toy(8), prompts, new=30, context=8, seeds=seeds)
    alone = [generate(Toy(8), [p], new=30, context=8, seeds=[s])[0] for p, s in zip(prompts, seeds)]
    assert together == alone
    assert all(len(row) == 30 for row in together)
    assert generate(Toy(8), prompts, new=30, context=8, seeds=[10, 11, 13])[2] != together[2]


def test_a_full_window_goes_on_from_its_last_half():
    toy = Toy(6)
    made = generate(toy, [[1, 2]], new=12, context=6, seeds=[0])
    text = [1, 2, *made[0]]
    lengths = [len(w[0]) for w in toy.windows_seen]
    assert lengths == [2, 3, 4, 5, 6, 4, 5, 6, 4, 5, 6, 4]
    ends = range(2, 14)
    assert all(w[0] == text[end - n : end] for w, n, end in zip(toy.windows_seen, lengths, ends))


def test_the_last_part_of_a_long_prompt_is_used_and_one_token_of_context_suffices():
    toy = Toy(4)
    generate(toy, [list(range(10))], new=1, context=4, seeds=[0])
    assert toy.windows_seen[0] == [[6, 7, 8, 9]]
    assert len(generate(Toy(1), [[3]], new=5, context=1, seeds=[0])[0]) == 5


def test_a_row_stops_before_the_end_and_others_go_on():
    free = generate(Toy(8), [[1], [2]], new=20, context=8, seeds=[0, 1])
    end = free[0][3]
    stopped = generate(Toy(8), [[1], [2]], new=20, context=8, seeds=[0, 1], end=end)
    for row, whole in zip(stopped, free):
        assert row == (whole[: whole.index(end)] if end in whole else whole)


def test_greedy_follows_the_argmax():
    toy = Toy(8)
    made = generate(toy, [[1, 2]], new=3, context=8, seeds=[0], temperature=0)
    assert made[0] == [int(toy.logits(w[0]).argmax()) for w in toy.windows_seen]
