import math

import pytest
import torch
import torch.nn.functional as F

from unlabeled.nets.gumbel import GumbelQuantiser, gumbel_noise, perplexity


def quantiser(groups=2, entries=5, code_width=6):
    torch.manual_seed(0)
    return GumbelQuantiser(7, groups, entries, code_width)


def test_the_noise_is_gumbels():
    torch.manual_seed(0)
    noise = gumbel_noise(500, 1000, device=torch.device("cpu"))
    assert noise.isfinite().all() and noise.dtype == torch.float32
    assert noise.mean().item() == pytest.approx(0.57722, abs=0.01)  # Euler's constant
    assert noise.var().item() == pytest.approx(math.pi**2 / 6, rel=0.01)
    assert (noise < 0).float().mean().item() == pytest.approx(math.exp(-1), abs=0.005)


def test_entries_are_chosen_as_often_as_their_softmax_says():
    q = quantiser(groups=1, entries=5, code_width=3)
    x = torch.randn(1, 7).expand(40_000, 7)
    out = q(x, gumbel_noise(40_000, 5, device=x.device))
    often = F.one_hot(out.codes[:, 0], 5).float().mean(0)
    torch.testing.assert_close(often, out.probabilities[0, 0], atol=0.01, rtol=0)


def test_vectors_are_exactly_the_chosen_entries_side_by_side():
    q = quantiser()
    x, noise = torch.randn(50, 7), gumbel_noise(50, 10, device=torch.device("cpu"))
    out = q(x, noise, temperature=0.7)
    chosen = torch.cat([q.codebook[g][out.codes[:, g]] for g in range(2)], 1)
    assert torch.equal(out.vectors, chosen) and out.vectors.shape == (50, 6)
    logits = q.logits(x).view(50, 2, 5)
    assert torch.equal(out.codes, (logits + noise.view(50, 2, 5)).argmax(-1))
    assert torch.equal(q(x).codes, logits.argmax(-1))  # without noise, the likeliest
    torch.testing.assert_close(out.probabilities, logits.softmax(-1))


def test_the_gradient_is_that_of_the_mean_entry_under_the_softmax():
    q = quantiser()
    x, noise = torch.randn(20, 7, requires_grad=True), gumbel_noise(20, 10, device=torch.device("cpu"))
    seen = torch.randn(20, 6)
    (q(x, noise, temperature=0.7).vectors * seen).sum().backward()
    got, codebook, q_logits = x.grad.clone(), q.codebook.grad.clone(), q.logits.weight.grad.clone()
    x.grad = None
    q.zero_grad()
    soft = ((q.logits(x) + noise).view(20, 2, 5) / 0.7).softmax(-1)
    mean = torch.einsum("ngv,gvd->ngd", soft, q.codebook.detach()).flatten(1)
    (mean * seen).sum().backward()
    torch.testing.assert_close(got, x.grad)
    torch.testing.assert_close(q_logits, q.logits.weight.grad)
    hard = F.one_hot(q(x, noise).codes, 5).float()
    torch.testing.assert_close(codebook, torch.einsum("ngv,ngd->gvd", hard, seen.view(20, 2, 3)))


def test_torch_chooses_the_same():
    # torch draws the noise itself, from the same generator and by the same formula.
    q = quantiser(groups=1, entries=5, code_width=3)
    x = torch.randn(30, 7)
    torch.manual_seed(3)
    theirs = F.gumbel_softmax(q.logits(x), tau=0.5, hard=True)
    torch.manual_seed(3)
    ours = q(x, gumbel_noise(30, 5, device=x.device), 0.5)
    assert torch.equal(theirs.argmax(-1), ours.codes[:, 0])


def test_perplexity_lies_between_one_and_the_number_of_entries():
    even = torch.full((3, 8), 1 / 8)
    torch.testing.assert_close(perplexity(even), torch.full((3,), 8.0), rtol=1e-5, atol=0)
    single = F.one_hot(torch.tensor(2), 8).float()
    assert perplexity(single).item() == pytest.approx(1, abs=1e-5)
    half = torch.tensor([0.5, 0.5, 0, 0])
    assert perplexity(half).item() == pytest.approx(2, abs=1e-4)


def test_starting_weights_are_the_published_ones():
    torch.manual_seed(0)
    q = GumbelQuantiser(512, 2, 320, 256)
    assert sum(p.numel() for p in q.parameters()) == 410_240 and q.codebook.shape == (2, 320, 128)
    assert q.logits.weight.std().item() == pytest.approx(1, rel=0.01) and not q.logits.bias.any()
    assert q.codebook.min() >= 0 and q.codebook.max() <= 1 and q.codebook.mean().item() == pytest.approx(0.5, abs=0.01)
