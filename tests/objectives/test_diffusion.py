"""The chain, its posterior, the bound: against the sheet's digits, Bayes' rule and diffusers."""

import itertools
import math

import pytest
import torch
from torch.distributions import Normal

from unlabeled.objectives.diffusion import (
    Chain,
    cosine_betas,
    discretised_gaussian,
    linear_betas,
    predicted,
    recovered,
    simple_loss,
)

LINEAR = Chain.named("linear", 1000)


def test_linear_schedule_has_the_values_of_the_paper():
    assert LINEAR.alpha_bar.dtype == torch.float64
    assert float(LINEAR.alpha_bar[0]) == pytest.approx(0.9999, abs=1e-12)
    assert float(LINEAR.alpha_bar[499]) == pytest.approx(0.0785872, abs=5e-8)
    assert float(LINEAR.alpha_bar[999]) == pytest.approx(4.035830e-5, rel=1e-7)
    assert float(LINEAR.posterior_variance[1]) == pytest.approx(5.453188e-5, rel=1e-7)
    assert float(LINEAR.betas[1]) == pytest.approx(1.199199e-4, rel=1e-6)
    assert float(LINEAR.posterior_variance[0]) == 0
    assert float(linear_betas(4000)[-1]) == pytest.approx(0.005)


def test_cosine_schedule_has_the_values_of_the_paper():
    chain = Chain.named("cosine", 1000)
    assert float(chain.betas[0]) == pytest.approx(4.128422e-5, rel=1e-6)
    assert float(chain.alpha_bar[499]) == pytest.approx(0.493844, abs=5e-7)
    assert float(chain.alpha_bar[999]) == pytest.approx(2.4288e-9, rel=1e-4)
    assert int((chain.betas == 0.999).sum()) == 1
    assert float(cosine_betas(4000)[0]) == pytest.approx(9.865819e-6, rel=1e-6)
    assert float(Chain.named("cosine", 4000).alpha_bar[-1]) == pytest.approx(1.5180e-10, rel=1e-4)


def test_log_variances_differ_only_by_beta_and_share_their_first():
    large, small = LINEAR.log_variance("large").exp(), LINEAR.log_variance("small").exp()
    torch.testing.assert_close(large[1:], LINEAR.betas[1:])
    torch.testing.assert_close(small[1:], LINEAR.posterior_variance[1:])
    assert float(large[0]) == float(small[0]) == pytest.approx(5.453188e-5, rel=1e-7)


@pytest.mark.parametrize("kind", ["noise", "x0", "v", "score"])
def test_every_prediction_stands_for_its_x0(kind):
    torch.manual_seed(0)
    x0, noise = torch.randn(2, 5, 3, dtype=torch.float64)
    a, s = LINEAR.scales(torch.tensor([0, 10, 300, 700, 999]), x0)
    x_t = a * x0 + s * noise
    truth = {"noise": noise, "x0": x0, "v": a * noise - s * x0, "score": -(x_t - a * x0) / s**2}[kind]
    torch.testing.assert_close(recovered(kind, truth, x_t, a, s), x0, atol=1e-9, rtol=0)
    torch.testing.assert_close(predicted(kind, x0, x_t, a, s), truth, atol=1e-9, rtol=1e-9)


def test_velocity_on_the_straight_path():
    torch.manual_seed(0)
    x0, noise = torch.randn(2, 5, dtype=torch.float64)
    a = torch.linspace(0, 0.9, 5, dtype=torch.float64)
    x_t = a * x0 + (1 - a) * noise
    torch.testing.assert_close(predicted("velocity", x0, x_t, a, 1 - a), x0 - noise)
    torch.testing.assert_close(recovered("velocity", x0 - noise, x_t, a, 1 - a), x0)


def test_noised_is_that_of_diffusers_and_of_its_own_steps():
    from diffusers import DDPMScheduler

    scheduler = DDPMScheduler(1000, 1e-4, 0.02, "linear")
    torch.testing.assert_close(scheduler.alphas_cumprod.double(), LINEAR.alpha_bar, atol=1e-6, rtol=0)
    scheduler.alphas_cumprod = LINEAR.alpha_bar  # theirs are float32, which shows at t = 0
    torch.manual_seed(0)
    x0, noise = torch.randn(2, 4, 1, 8, 8, dtype=torch.float64)
    t = torch.tensor([0, 1, 500, 999])
    torch.testing.assert_close(LINEAR.noised(x0, t, noise), scheduler.add_noise(x0, noise, t), atol=1e-12, rtol=0)
    mean, variance = torch.ones((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for beta in LINEAR.betas[:501]:
        mean, variance = (1 - beta).sqrt() * mean, (1 - beta) * variance + beta
    a, s = LINEAR.scales(torch.tensor([500]), mean.view(1))
    torch.testing.assert_close(mean, a[0])
    torch.testing.assert_close(variance, s[0] ** 2)


@pytest.mark.parametrize("t", [1, 2, 40, 999])
def test_posterior_is_bayes_formula(t):
    """Precision and weighted mean of two Gaussians: q(x_t-1 | x_0) and q(x_t | x_t-1) as a likelihood."""
    x0, x_t = torch.tensor([[0.3]], dtype=torch.float64), torch.tensor([[-0.8]], dtype=torch.float64)
    before, beta = LINEAR.alpha_bar[t - 1], LINEAR.betas[t]
    precision = 1 / (1 - before) + (1 - beta) / beta
    mean = (before.sqrt() * x0 / (1 - before) + (1 - beta).sqrt() * x_t / beta) / precision
    torch.testing.assert_close(LINEAR.posterior_variance[t], 1 / precision)
    torch.testing.assert_close(LINEAR.posterior_mean(x0, x_t, torch.tensor([t])), mean)


def test_posterior_at_the_first_step_is_x0():
    x0, x_t = torch.randn(2, 3, 4, dtype=torch.float64)
    torch.testing.assert_close(LINEAR.posterior_mean(x0, x_t, torch.zeros(3, dtype=torch.long)), x0)


@pytest.mark.parametrize("mean", [-3.0, -1.0, 0.123, 0.999, 5.0])
@pytest.mark.parametrize("scale", [1e-3, 7.4e-3, 0.3])
def test_decoder_bins_sum_to_one_and_have_exact_tails(mean, scale):
    levels = torch.arange(256, dtype=torch.float64) / 127.5 - 1
    log_p = discretised_gaussian(levels, *torch.tensor([mean, math.log(scale)], dtype=torch.float64))
    assert log_p.isfinite().all()
    assert float(log_p.logsumexp(0)) == pytest.approx(0, abs=1e-9)
    inside = torch.tensor([128], dtype=torch.float64) / 127.5 - 1
    if abs(mean - inside) < 4 * scale:
        normal = Normal(torch.tensor(mean, dtype=torch.float64), scale)
        p = normal.cdf(inside + 1 / 255) - normal.cdf(inside - 1 / 255)
        assert float(log_p[128].exp()) == pytest.approx(float(p), abs=1e-12)


# Data N(0, c^2) and its exact denoiser. What is measured is quadratic in (x0, noise), so that the four points
# (+-c, +-1), which have the right second moments, give expectations exactly.
def _four_points(c):
    points = torch.tensor(list(itertools.product([-c, c], [-1.0, 1.0])), dtype=torch.float64)
    return points[:, :1], points[:, 1:]


def _denoised(x_t, a, s, c):
    return a * c**2 * x_t / (a**2 * c**2 + s**2)


@pytest.mark.parametrize(("c", "expected"), [(0.5, 0.173053), (1.0, 0.275513)])
def test_simple_loss_of_the_perfect_model(c, expected):
    x0, noise = _four_points(c)
    losses = []
    for step in range(1000):
        t = torch.full((4,), step)
        a, s = LINEAR.scales(t, x0)
        x_t = LINEAR.noised(x0, t, noise)
        losses.append(float(simple_loss(noise, predicted("noise", _denoised(x_t, a, s, c), x_t, a, s)).mean()))
    assert sum(losses) / 1000 == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("variance", "expected"), [("large", 0.840461), ("small", 1.295717)])
def test_bound_of_the_perfect_model_is_above_the_entropy(variance, expected):
    c = 0.5
    x0, noise = _four_points(c)
    total = float(LINEAR.prior_kl(x0).mean())
    for step in range(1000):
        t = torch.full((4,), step)
        a, s = LINEAR.scales(t, x0)
        x_t = LINEAR.noised(x0, t, noise)
        guess = _denoised(x_t, a, s, c)
        if step:
            total += float(LINEAR.step_kl(x0, guess, x_t, t, variance).mean())
        else:  # the bench's decoder is continuous
            v = LINEAR.log_variance(variance)[0].exp()
            total += float(0.5 * ((2 * math.pi * v).log() + (x0 - guess).square().mean() / v))
    entropy = 0.5 * math.log(2 * math.pi * math.e * c**2)
    assert entropy == pytest.approx(0.725791, abs=1e-6)
    assert total == pytest.approx(expected, abs=2e-6)
    assert total > entropy


@pytest.mark.parametrize(("power", "bits"), [(0.25, 7.3e-6), (1.0, 2.9e-5)])
def test_prior_term_is_negligible(power, bits):
    x0 = torch.full((1, 1), power**0.5, dtype=torch.float64)
    assert float(LINEAR.prior_kl(x0)) / math.log(2) == pytest.approx(bits, rel=0.02)


def test_decoder_nats_sum_the_log_probabilities_of_pixels():
    torch.manual_seed(0)
    x0 = torch.randint(0, 256, (3, 1, 4, 4)).double() / 127.5 - 1
    t = torch.zeros(3, dtype=torch.long)
    guess = x0 + 0.01 * torch.randn_like(x0)
    scale = LINEAR.log_variance("large")[0] / 2
    expected = -discretised_gaussian(x0, guess, scale).sum((1, 2, 3))
    torch.testing.assert_close(LINEAR.decoder_nats(x0, guess, x0, t, "large"), expected)
