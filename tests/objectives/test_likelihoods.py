"""Distributions over levels: they add up, agree with the plain formula, keep their digits in the tails."""

import math

import pytest
import torch
import torch.nn.functional as F

from unlabeled.objectives import likelihoods

LEVELS = torch.arange(256)


@pytest.mark.parametrize("mean", [-3.0, -1.0, 0.0, 0.123, 0.999, 5.0])
@pytest.mark.parametrize("log_scale", [-8.0, -7.0, -3.0, 0.0, 4.0, 12.0])
def test_a_discretised_logistic_adds_up_to_one(mean, log_scale):
    nats = likelihoods.discretised_logistic(LEVELS, torch.tensor(mean), torch.tensor(log_scale))
    assert nats.isfinite().all() and nats.dtype == torch.float32
    assert nats.double().exp().sum().item() == pytest.approx(1, abs=2e-6)


def test_it_is_the_difference_of_two_sigmoids():
    mean, log_scale = torch.tensor(0.2, dtype=torch.float64), torch.tensor(-2.0, dtype=torch.float64)
    x, s = LEVELS.double() / 127.5 - 1, math.exp(-2)
    upper = torch.where(LEVELS == 255, 1.0, torch.sigmoid((x + 1 / 255 - mean) / s))
    lower = torch.where(LEVELS == 0, 0.0, torch.sigmoid((x - 1 / 255 - mean) / s))
    torch.testing.assert_close(
        likelihoods.discretised_logistic(LEVELS, mean, log_scale), (upper - lower).log(), rtol=1e-9, atol=1e-9
    )


def test_single_precision_keeps_its_digits_far_out_and_has_a_gradient():
    mean, log_scale = torch.tensor([-4.0, 4.0], requires_grad=True), torch.tensor([-7.0, -6.0], requires_grad=True)
    nats = likelihoods.discretised_logistic(torch.tensor([[200], [17]]), mean, log_scale)
    exact = likelihoods.discretised_logistic(torch.tensor([[200], [17]]), mean.double(), log_scale.double())
    torch.testing.assert_close(nats.double(), exact, rtol=1e-5, atol=0)
    nats.sum().backward()
    assert mean.grad.isfinite().all() and log_scale.grad.isfinite().all() and mean.grad.any()


def test_autocast_does_not_take_digits():
    mean, log_scale = torch.randn(256), torch.full((256,), -4.0)
    plain = likelihoods.discretised_logistic(LEVELS, mean, log_scale)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(likelihoods.discretised_logistic(LEVELS, mean, log_scale), plain)


def test_mixtures_add_up_and_one_component_is_the_distribution_itself():
    logits, means, log_scales = torch.randn(3, 1, 5)
    nats = likelihoods.logistic_mixture(LEVELS, logits, means, log_scales - 3)
    assert nats.exp().sum().item() == pytest.approx(1, abs=1e-5)
    one = likelihoods.logistic_mixture(LEVELS, logits[:, :1], means[:, :1], log_scales[:, :1])
    torch.testing.assert_close(one, likelihoods.discretised_logistic(LEVELS, means[0, 0], log_scales[0, 0]))


def test_categorical_and_bernoulli_are_the_cross_entropies():
    logits, levels = torch.randn(6, 256), torch.randint(256, (6,))
    torch.testing.assert_close(
        likelihoods.categorical(levels, logits), -F.cross_entropy(logits, levels, reduction="none")
    )
    logit = torch.tensor([-90.0, -1.0, 0.0, 2.0, 90.0])
    both = likelihoods.bernoulli(torch.ones(5), logit).exp() + likelihoods.bernoulli(torch.zeros(5), logit).exp()
    torch.testing.assert_close(both, torch.ones(5))
    assert likelihoods.bernoulli(torch.ones(1), torch.tensor([-90.0])).item() == pytest.approx(-90)


def test_levels_that_are_equally_likely_cost_eight_bits():
    nats = likelihoods.categorical(torch.zeros(3, 784, dtype=torch.long), torch.zeros(3, 784, 256)).sum(1)
    torch.testing.assert_close(likelihoods.bits_per_dimension(nats, 784), torch.full((3,), 8.0))
