"""Closed forms against torch's distributions, against draws, and on circles."""

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from unlabeled.objectives import gaussians

torch.manual_seed(0)
MEAN, LOG_VAR, OTHER, OTHER_LOG_VAR = torch.randn(4, 5, 7, dtype=torch.float64)


def test_the_divergences_are_those_of_torch():
    p, q = Normal(MEAN, (LOG_VAR / 2).exp()), Normal(OTHER, (OTHER_LOG_VAR / 2).exp())
    torch.testing.assert_close(gaussians.kl(MEAN, LOG_VAR, OTHER, OTHER_LOG_VAR), kl_divergence(p, q))
    standard = Normal(torch.zeros_like(MEAN), torch.ones_like(MEAN))
    torch.testing.assert_close(gaussians.kl_to_standard(MEAN, LOG_VAR), kl_divergence(p, standard))
    assert not gaussians.kl(MEAN, LOG_VAR, MEAN, LOG_VAR).any()


def test_the_density_is_that_of_torch_and_integrates_to_one():
    torch.testing.assert_close(
        gaussians.log_prob(OTHER, MEAN, LOG_VAR), Normal(MEAN, (LOG_VAR / 2).exp()).log_prob(OTHER)
    )
    x = torch.linspace(-40, 40, 100_001, dtype=torch.float64)
    density = gaussians.log_prob(x, torch.tensor(1.5), torch.tensor(0.7)).exp()
    assert torch.trapezoid(density, x).item() == pytest.approx(1, abs=1e-9)


def test_draws_have_the_mean_the_variance_and_the_divergence():
    mean, log_var = torch.tensor(0.8), torch.tensor(-1.0)
    z = gaussians.drawn(mean, log_var, torch.randn(100_000, generator=torch.Generator().manual_seed(0)))
    assert z.mean().item() == pytest.approx(0.8, abs=0.01)
    assert z.var().item() == pytest.approx(math.exp(-1), rel=0.02)
    zero = torch.tensor(0.0)
    estimate = (gaussians.log_prob(z, mean, log_var) - gaussians.log_prob(z, zero, zero)).mean()
    assert estimate.item() == pytest.approx(gaussians.kl_to_standard(mean, log_var).item(), abs=0.01)


def test_a_great_circle_keeps_length_and_goes_at_an_even_pace():
    a, b = torch.nn.functional.normalize(torch.randn(2, 4, 9, dtype=torch.float64), dim=2)
    stops = torch.stack([gaussians.slerp(a, b, t) for t in torch.linspace(0, 1, 9).double()])
    torch.testing.assert_close(stops.norm(dim=2), torch.ones(9, 4, dtype=torch.float64))
    torch.testing.assert_close(stops[0], a)
    torch.testing.assert_close(stops[-1], b)
    steps = stops.diff(dim=0).norm(dim=2)
    torch.testing.assert_close(steps, steps[:1].expand_as(steps))


def test_latents_that_point_the_same_way_or_nowhere_go_straight():
    a = torch.randn(3, 2, 4)
    a[2] = 0
    torch.testing.assert_close(gaussians.slerp(a, 2 * a, 0.5), 1.5 * a)
    assert gaussians.slerp(a, -a, 0.25).isfinite().all()
