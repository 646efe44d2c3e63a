"""Samplers on Gaussian data with the exact denoiser, where each multiplies by a number; and against diffusers."""

import math

import pytest
import torch

from unlabeled.objectives.diffusion import Chain, predicted, recovered
from unlabeled.samplers import denoise
from unlabeled.samplers.denoise import ancestral, ddim, ddim_times, edm_sigmas, final, sigma_slope, solve

C = 0.5
LINEAR = Chain.named("linear", 1000)


def in_time(x, t):
    """Exact E[x0 | x_t] of data N(0, C^2) on the linear chain."""
    a, s = LINEAR.scales(t, x)
    return a * C**2 * x / (a**2 * C**2 + s**2)


def in_sigma(x, sigma):
    return C**2 * x / (C**2 + sigma[:, None] ** 2)


def velocity(x, t):
    """Exact E[x0 - noise | x_t] on the straight path, finite at both ends."""
    t = t[:, None]
    return x * (t * C**2 - (1 - t)) / (t**2 * C**2 + (1 - t) ** 2)


def start(std=1.0):
    return torch.full((1, 1), std, dtype=torch.float64)


def edm(steps, order):
    return float(final(solve(sigma_slope(in_sigma), start(80.0), edm_sigmas(steps), order=order, open_end=True)))


def flow(steps, order):
    return float(final(solve(velocity, start(), [i / steps for i in range(steps + 1)], order=order)))


def by_ddim(steps, spacing):
    return float(final(ddim(in_time, start(), LINEAR, steps, spacing=spacing)))


EDM_EULER = {6: 0.273902, 10: 0.365213, 18: 0.423031, 40: 0.464851, 80: 0.482320}
EDM_HEUN = {6: 0.853026, 10: 0.609798, 18: 0.527625, 40: 0.504877, 80: 0.501145}
LEADING = {10: 0.374128, 20: 0.433734, 50: 0.472439, 100: 0.485981, 1000: 0.498495}
TRAILING = {10: 0.369955, 20: 0.431368, 50: 0.471403, 100: 0.485447, 1000: 0.498495}
FLOW_EULER = {1: 0.0, 5: 0.369231, 10: 0.430783, 50: 0.485397, 100: 0.492645}
FLOW_HEUN = {1: 0.5, 5: 0.504373, 10: 0.501720, 50: 0.500089, 100: 0.500023}


@pytest.mark.parametrize(
    ("run", "table"),
    [
        (lambda n: edm(n, 1), EDM_EULER),
        (lambda n: edm(n, 2), EDM_HEUN),
        (lambda n: by_ddim(n, "leading"), LEADING),
        (lambda n: by_ddim(n, "trailing"), TRAILING),
        (lambda n: flow(n, 1), FLOW_EULER),
        (lambda n: flow(n, 2), FLOW_HEUN),
    ],
    ids=["edm euler", "edm heun", "ddim leading", "ddim trailing", "flow euler", "flow heun"],
)
def test_gaussian_bench(run, table):
    assert {n: run(n) for n in table} == pytest.approx(table, abs=1.01e-6)


def test_linspace_spacing_reads_its_next_step_from_the_list():
    # The sheet has these from 200,000 samples.
    assert by_ddim(10, "linspace") == pytest.approx(0.3617, abs=2e-3)
    assert by_ddim(50, "linspace") == pytest.approx(0.4721, abs=2e-3)


@pytest.mark.parametrize(
    ("run", "truth", "ratio"),
    [
        (lambda n: edm(n, 1), 80 * C / math.hypot(80, C), 2),
        (lambda n: edm(n, 2), 80 * C / math.hypot(80, C), 4),
        (lambda n: flow(n, 1), C, 2),
        (lambda n: flow(n, 2), C, 4),
        (lambda n: by_ddim(n, "leading"), C, 2),
    ],
    ids=["edm euler", "edm heun", "flow euler", "flow heun", "ddim"],
)
def test_order_of_convergence(run, truth, ratio):
    errors = [abs(run(n) - truth) for n in (40, 80)]
    assert errors[0] / errors[1] == pytest.approx(ratio, rel=0.15)


@pytest.mark.parametrize(("variance", "expected"), [("small", 0.496110), ("large", 0.500752)])
def test_ancestral_on_the_bench(monkeypatch, variance, expected):
    """Axis k carries the coefficient of the k-th independent draw: the final std is a norm, without sampling noise."""
    draws = iter(range(1, 1001))

    def unit(like):
        e = torch.zeros_like(like)
        e[0, next(draws)] = 1
        return e

    monkeypatch.setattr(denoise.torch, "randn_like", unit)
    x = torch.zeros(1, 1001, dtype=torch.float64)
    x[0, 0] = 1
    out = final(ancestral(in_time, x, LINEAR, variance))
    assert float(out.norm()) == pytest.approx(expected, abs=1e-6)
    assert next(draws) == 1000  # 999 draws: none at the last step


def crooked(x, t):
    """Some nonlinear function in the place of a network that predicts noise."""
    return torch.sin(3 * x) * (0.5 + t.view(-1, 1, 1, 1) / 2000) + 0.3 * x


def exact(scheduler):
    """diffusers keeps its tables in float32; with ours in their place the steps can be compared to many digits."""
    scheduler.betas, scheduler.alphas, scheduler.alphas_cumprod = LINEAR.betas, 1 - LINEAR.betas, LINEAR.alpha_bar
    scheduler.one = scheduler.final_alpha_cumprod = torch.ones((), dtype=torch.float64)
    return scheduler


def clean(x, t, clip=True):
    a, s = LINEAR.scales(t, x)
    x0 = recovered("noise", crooked(x, t), x, a, s)
    return x0.clamp(-1, 1) if clip else x0


@pytest.mark.parametrize("variance", ["large", "small"])
def test_ancestral_steps_are_those_of_diffusers(variance):
    from diffusers import DDPMScheduler

    scheduler = exact(DDPMScheduler(1000, variance_type=f"fixed_{variance}", clip_sample=True))
    scheduler.set_timesteps(1000)
    torch.manual_seed(0)
    x = torch.randn(2, 1, 4, 4, dtype=torch.float64)
    theirs, generator = x.clone(), torch.Generator().manual_seed(1)
    torch.manual_seed(1)
    for (ours, guess), t in zip(ancestral(clean, x, LINEAR, variance), scheduler.timesteps):
        out = scheduler.step(crooked(theirs, torch.full((2,), int(t))), int(t), theirs, generator=generator)
        torch.testing.assert_close(ours, out.prev_sample, atol=1e-9, rtol=0)
        torch.testing.assert_close(guess, out.pred_original_sample, atol=1e-9, rtol=0)
        theirs = ours.clone()  # each step from the same place: a crooked map would blow up rounding


@pytest.mark.parametrize("eta", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
def test_ddim_steps_are_those_of_diffusers(eta, clip, spacing):
    from diffusers import DDIMScheduler

    scheduler = exact(DDIMScheduler(1000, clip_sample=clip, timestep_spacing=spacing))
    scheduler.set_timesteps(20)
    assert scheduler.timesteps.tolist() == ddim_times(1000, 20, spacing)
    torch.manual_seed(0)
    x = torch.randn(2, 1, 4, 4, dtype=torch.float64)
    theirs, generator = x.clone(), torch.Generator().manual_seed(1)
    torch.manual_seed(1)
    steps = ddim(lambda x, t: clean(x, t, clip), x, LINEAR, 20, eta, spacing)
    for (ours, _), t in zip(steps, scheduler.timesteps):
        noise = crooked(theirs, torch.full((2,), int(t)))
        out = scheduler.step(
            noise, int(t), theirs, eta=eta, use_clipped_model_output=clip, generator=generator, return_dict=True
        )
        torch.testing.assert_close(ours, out.prev_sample, atol=1e-9, rtol=1e-9)
        theirs = ours.clone()


def test_ddim_with_eta_one_and_all_steps_is_ancestral_with_small_variance():
    torch.manual_seed(0)
    x = torch.randn(3, 2, dtype=torch.float64)
    torch.manual_seed(1)
    one = final(ddim(in_time, x, LINEAR, 1000, eta=1.0))
    torch.manual_seed(1)
    other = final(ancestral(in_time, x, LINEAR, "small"))
    torch.testing.assert_close(one, other, atol=1e-9, rtol=0)


def test_denoiser_and_noise_predictions_agree_in_the_sampler():
    x = torch.randn(2, 3, dtype=torch.float64)
    t = torch.tensor([3, 800])
    a, s = LINEAR.scales(t, x)
    noise = predicted("noise", in_time(x, t), x, a, s)
    torch.testing.assert_close(a * in_time(x, t) + s * noise, x)


def test_ddim_refuses_impossible_counts():
    with pytest.raises(ValueError, match="between 1 and 1000"):
        ddim_times(1000, 1001, "leading")
