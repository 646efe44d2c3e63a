"""The chunked loss against torch's cross-entropy on whole logits."""

import math

import pytest
import torch
import torch.nn.functional as F

from unlabeled.objectives import tokens
from unlabeled.objectives.tokens import bits_per_byte, token_loss


def made(n=70, width=24, vocabulary=50, scale=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    hidden = (torch.randn(n, width, generator=generator) * scale).requires_grad_()
    weight = torch.randn(vocabulary, width, generator=generator).requires_grad_()
    return hidden, weight, torch.randint(vocabulary, (n,), generator=generator)


@pytest.mark.parametrize("rows", [1, 7, 64, 70, 1000])
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_it_is_cross_entropy_in_value_and_gradient(rows, scale, monkeypatch):
    monkeypatch.setattr(tokens, "_ROWS", rows)
    monkeypatch.setattr(tokens, "_CELLS", 1)
    hidden, weight, targets = made(scale=scale)
    logits = hidden @ weight.T
    whole = F.cross_entropy(logits, targets, reduction="none")
    (3 * whole.mean()).backward()
    wanted = hidden.grad, weight.grad
    hidden.grad = weight.grad = None
    out = token_loss(hidden, weight, targets)
    (3 * out.mean).backward()
    # Losses reach hundreds at the larger scale, hence relative to their size.
    torch.testing.assert_close(out.mean, whole.mean(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(out.nll, whole.detach(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(hidden.grad, wanted[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(weight.grad, wanted[1], rtol=1e-5, atol=1e-5 * scale)
    assert torch.equal(out.hit, logits.argmax(1) == targets)


def test_gradient_is_that_of_finite_differences():
    hidden, weight, targets = (t.detach() for t in made(n=5, width=4, vocabulary=6))
    hidden, weight = hidden.double().requires_grad_(), weight.double().requires_grad_()
    out = token_loss(hidden, weight, targets).mean
    out.backward()
    exact = F.cross_entropy(hidden.detach() @ weight.detach().T, targets)
    assert abs(out.item() - exact.item()) < 1e-6
    step = torch.zeros_like(weight)
    step[2, 1] = 1e-3
    up, down = (F.cross_entropy(hidden @ (weight + s * step).T, targets) for s in (1, -1))
    assert abs((up - down).item() / 2e-3 - weight.grad[2, 1].item()) < 1e-6


@pytest.mark.parametrize("rows", [7, 1000])
def test_a_bias_and_shares_are_those_of_the_weighted_cross_entropy(rows, monkeypatch):
    monkeypatch.setattr(tokens, "_ROWS", rows)
    monkeypatch.setattr(tokens, "_CELLS", 1)
    hidden, weight, targets = made()
    generator = torch.Generator().manual_seed(3)
    bias = torch.randn(50, generator=generator).requires_grad_()
    shares = torch.rand(70, generator=generator) * (torch.rand(70, generator=generator) > 0.3)
    whole = F.cross_entropy(F.linear(hidden, weight, bias), targets, reduction="none")
    wanted = torch.autograd.grad(3 * (whole * shares).sum(), (hidden, weight, bias))
    out = token_loss(hidden, weight, targets, bias, shares)
    got = torch.autograd.grad(3 * out.mean, (hidden, weight, bias))
    torch.testing.assert_close(out.mean, (whole * shares).sum(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(out.nll, whole.detach(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)


def test_shapes_are_those_of_the_targets_and_no_gradient_flows_through_them():
    hidden, weight, targets = made(n=12)
    out = token_loss(hidden.view(3, 4, -1), weight, targets.view(3, 4))
    assert out.nll.shape == out.hit.shape == (3, 4)
    assert not out.nll.requires_grad and not out.hit.requires_grad and out.mean.requires_grad


def test_bfloat16_products_are_reduced_in_float32():
    hidden, weight, targets = made(n=600, width=64, vocabulary=400)
    true = F.cross_entropy(hidden @ weight.T, targets)
    with torch.autocast("cpu", torch.bfloat16):
        out = token_loss(hidden, weight, targets)
    assert out.mean.dtype == out.nll.dtype == torch.float32
    # Each logit is off by one part in 2**9 at most at random; the mean over 600 rows by far less than bfloat16's own
    # spacing near the loss, which is 1/16.
    assert abs(out.mean - true) < 0.01
    out.mean.backward()
    F.cross_entropy(hidden.detach() @ (w := weight.detach().requires_grad_()).T, targets).backward()
    assert weight.grad.dtype == torch.float32
    assert F.cosine_similarity(weight.grad.flatten(), w.grad.flatten(), dim=0) > 0.999


def test_without_gradient_none_is_made():
    hidden, weight, targets = made()
    with torch.no_grad():
        out = token_loss(hidden, weight, targets)
    assert not out.mean.requires_grad
    frozen = token_loss(hidden.detach(), weight, targets).mean
    frozen.backward()
    assert weight.grad is not None and hidden.grad is None


def test_equal_logits_give_the_logarithm_of_the_vocabulary():
    out = token_loss(torch.zeros(4, 8), torch.randn(256, 8), torch.arange(4))
    torch.testing.assert_close(out.mean, torch.tensor(math.log(256)))
    assert abs(bits_per_byte(out.nll.sum(), 4) - 8) < 1e-5


def test_bits_per_byte_of_two_byte_tokens():
    assert bits_per_byte(3 * math.log(2), 6) == pytest.approx(0.5)
