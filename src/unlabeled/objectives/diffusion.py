"""Gaussian diffusion in discrete time: the chain, what a network may predict, the simple loss, the bound.

Notation: x_t = a x_0 + s noise with noise ~ N(0, I); a = sqrt(alpha_bar_t), s = sqrt(1 - alpha_bar_t). Index t runs
from 0 (one step of noise) to T - 1. Ho, Jain, Abbeel, NeurIPS 2020 (DDPM); Nichol, Dhariwal, ICML 2021 (cosine).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from unlabeled.objectives.gaussians import kl

__all__ = [
    "Chain",
    "Prediction",
    "cosine_betas",
    "discretised_gaussian",
    "linear_betas",
    "predicted",
    "recovered",
    "simple_loss",
]

Prediction = Literal["noise", "x0", "v", "score", "velocity"]
Variance = Literal["large", "small"]


def linear_betas(steps: int = 1000) -> Tensor:
    """(steps,) float64 variances of the single steps, 1e-4 to 0.02 in a straight line (DDPM, section 4).

    Other lengths multiply both ends by 1000 / steps, which keeps the total noise (improved DDPM's code); at most 0.999.
    """
    scale = 1000 / steps
    return torch.linspace(1e-4 * scale, 0.02 * scale, steps, dtype=torch.float64).clamp(max=0.999)


def cosine_betas(steps: int = 1000) -> Tensor:
    """(steps,) float64: alpha_bar falls as cos^2(((t/T + 0.008) / 1.008) pi/2), each beta at most 0.999 (eq. 17)."""
    t = torch.arange(steps + 1, dtype=torch.float64) / steps
    alpha_bar = torch.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2
    return (1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=0.999)


def recovered(kind: Prediction, value: Tensor, x_t: Tensor, a: Tensor, s: Tensor) -> Tensor:
    """x_0 that a prediction of some kind stands for; all arguments broadcast against each other.

    noise: x_0 = (x_t - s noise) / a. score = -noise / s. v = a noise - s x_0, for a^2 + s^2 = 1 (Salimans, Ho 2022).
    velocity = x_0 - noise, on the straight path a + s = 1 (flow matching with data at time 1).
    """
    if kind == "noise":
        return (x_t - s * value) / a
    if kind == "score":
        return (x_t + s * s * value) / a
    if kind == "v":
        return (a * x_t - s * value) / (a * a + s * s)
    if kind == "velocity":
        return (x_t + s * value) / (a + s)
    return value


def predicted(kind: Prediction, x0: Tensor, x_t: Tensor, a: Tensor, s: Tensor) -> Tensor:
    """The inverse of `recovered`: the prediction of some kind that an x_0 stands for. Needs s > 0 but for "x0"."""
    if kind == "x0":
        return x0
    noise = (x_t - a * x0) / s
    if kind == "score":
        return -noise / s
    if kind == "v":
        return a * noise - s * x0
    return x0 - noise if kind == "velocity" else noise


@dataclass(frozen=True)
class Chain:
    """The forward process of given betas (T,), and its posterior; tables in float64."""

    betas: Tensor

    @classmethod
    def named(cls, schedule: Literal["linear", "cosine"], steps: int) -> Chain:
        return cls({"linear": linear_betas, "cosine": cosine_betas}[schedule](steps))

    def __len__(self) -> int:
        return len(self.betas)

    @cached_property
    def alpha_bar(self) -> Tensor:
        """(T,) float64: share of the signal's variance that is left at t."""
        return torch.cumprod(1 - self.betas, dim=0)

    @cached_property
    def _alpha_bar_before(self) -> Tensor:
        return F.pad(self.alpha_bar[:-1], (1, 0), value=1.0)

    @cached_property
    def posterior_variance(self) -> Tensor:
        """(T,) float64 variance of q(x_{t-1} | x_t, x_0): eq. 7; zero at t = 0."""
        return self.betas * (1 - self._alpha_bar_before) / (1 - self.alpha_bar)

    def log_variance(self, kind: Variance) -> Tensor:
        """(T,) float64 log-variance of the learned reverse step: beta ("large") or the posterior variance ("small").

        The first entry is the posterior variance at t = 1 in both, as in the authors' code: the variance of the
        decoder, where the posterior's own is zero.
        """
        rest = self.betas if kind == "large" else self.posterior_variance
        return torch.cat([self.posterior_variance[1:2], rest[1:]]).log()

    def scales(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """a and s at (n,) indices, shaped to multiply `like` (n, ...) and of its dtype."""
        return _rows(self.alpha_bar.sqrt(), t, like), _rows((1 - self.alpha_bar).sqrt(), t, like)

    def noised(self, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """A draw of q(x_t | x_0) from standard normal noise: eq. 4."""
        a, s = self.scales(t, x0)
        return a * x0 + s * noise

    def posterior_mean(self, x0: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """Mean of q(x_{t-1} | x_t, x_0): eq. 7."""
        before, left = self._alpha_bar_before, 1 - self.alpha_bar
        of_x0 = self.betas * before.sqrt() / left
        of_x_t = (1 - before) * (1 - self.betas).sqrt() / left
        return _rows(of_x0, t, x0) * x0 + _rows(of_x_t, t, x_t) * x_t

    def step_kl(self, x0: Tensor, guess: Tensor, x_t: Tensor, t: Tensor, variance: Variance) -> Tensor:
        """KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)) in nats, summed over dimensions; (n,), for t >= 1.

        guess: the x_0 that the model sees in x_t.
        """
        mean, model_mean = self.posterior_mean(x0, x_t, t), self.posterior_mean(guess, x_t, t)
        log_variance = _rows(self.log_variance("small"), t, x0)
        return kl(mean, log_variance, model_mean, _rows(self.log_variance(variance), t, x0)).flatten(1).sum(1)

    def decoder_nats(self, x0: Tensor, guess: Tensor, x_t: Tensor, t: Tensor, variance: Variance) -> Tensor:
        """-log p(x_0 | x_1) of 8-bit images, summed over dimensions; (n,), for t = 0."""
        mean = self.posterior_mean(guess, x_t, t)
        log_scale = _rows(self.log_variance(variance), t, x0) / 2
        return -discretised_gaussian(x0, mean, log_scale).flatten(1).sum(1)

    def prior_kl(self, x0: Tensor) -> Tensor:
        """KL(q(x_T | x_0) || N(0, I)) in nats, summed over dimensions; (n,)."""
        left = self.alpha_bar[-1].to(x0.device, x0.dtype)
        zero = torch.zeros((), dtype=x0.dtype, device=x0.device)
        return kl(left.sqrt() * x0, torch.log1p(-left), zero, zero).flatten(1).sum(1)


def _rows(table: Tensor, t: Tensor, like: Tensor) -> Tensor:
    """Entries of a (T,) table at (n,) indices as (n, 1, ..., 1), on the device and in the dtype of `like`."""
    return table.to(t.device)[t].to(like.dtype).view(-1, *[1] * (like.ndim - 1))


def simple_loss(noise: Tensor, prediction: Tensor) -> Tensor:
    """(n,) float32 mean over dimensions of (noise - prediction)^2: DDPM, eq. 14."""
    return (noise.float() - prediction.float()).square().flatten(1).mean(1)


def discretised_gaussian(x: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """Log-probability of the 8-bit level at x in [-1, 1] under a Gaussian, elementwise, in nats: DDPM, eq. 13.

    Bins reach 1/255 to both sides, the outermost to infinity. The authors' code takes a tanh for the normal
    distribution function and clips at 1e-12; here it is exact, and so are its tails.
    """
    inverse = torch.exp(-log_scale)
    upper = torch.where(x > 0.999, torch.inf, (x - mean + 1 / 255) * inverse)
    lower = torch.where(x < -0.999, -torch.inf, (x - mean - 1 / 255) * inverse)
    # Where both ends are on the right, the mirrored interval keeps its digits.
    mirrored = lower > 0
    upper, lower = torch.where(mirrored, -lower, upper), torch.where(mirrored, -upper, lower)
    high, low = torch.special.log_ndtr(upper), torch.special.log_ndtr(lower)
    return high + torch.log(-torch.expm1(low - high))
