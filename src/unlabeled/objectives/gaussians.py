"""Gaussians with independent coordinates, by mean and log-variance, elementwise and broadcasting, in nats."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["drawn", "kl", "kl_to_standard", "log_prob", "slerp"]


def kl(mean: Tensor, log_var: Tensor, other_mean: Tensor, other_log_var: Tensor) -> Tensor:
    """KL(N(mean, var) || N(other_mean, other_var))."""
    gap = log_var - other_log_var
    return 0.5 * (torch.expm1(gap) - gap + (mean - other_mean).square() * torch.exp(-other_log_var))


def kl_to_standard(mean: Tensor, log_var: Tensor) -> Tensor:
    """KL(N(mean, var) || N(0, 1)) = (mean^2 + var - 1 - log var) / 2 (Kingma & Welling 2014, appendix B)."""
    return 0.5 * (mean.square() + torch.expm1(log_var) - log_var)


def log_prob(x: Tensor, mean: Tensor, log_var: Tensor) -> Tensor:
    """Log-density of x under N(mean, var), with its constant."""
    return -0.5 * ((x - mean).square() * torch.exp(-log_var) + log_var + math.log(2 * math.pi))


def drawn(mean: Tensor, log_var: Tensor, noise: Tensor) -> Tensor:
    """mean + sigma noise, which is N(mean, var) for standard normal noise, with gradient in mean and log_var."""
    return mean + torch.exp(0.5 * log_var) * noise


def slerp(start: Tensor, end: Tensor, share: Tensor | float) -> Tensor:
    """From `start` to `end`, both (n, ...), along a great circle: share 0 gives start, 1 end (Shoemake 1985).

    The way for standard normal latents of many dimensions: a straight line passes nearer to zero than draws ever lie.
    Rows that point the same way, or oppositely, or are zero go straight.
    """
    a, b = start.flatten(1), end.flatten(1)
    share = torch.as_tensor(share, dtype=a.dtype, device=a.device)
    lengths = a.norm(dim=1, keepdim=True) * b.norm(dim=1, keepdim=True)
    cosine = (a * b).sum(1, keepdim=True) / lengths.clamp(min=1e-12)
    angle = torch.arccos(cosine.clamp(-1, 1))
    sine = torch.sin(angle)
    straight = sine < 1e-4
    safe = torch.where(straight, torch.ones_like(sine), sine)
    of_a = torch.where(straight, 1 - share, torch.sin((1 - share) * angle) / safe)
    of_b = torch.where(straight, share, torch.sin(share * angle) / safe)
    return (of_a * a + of_b * b).view_as(start)
