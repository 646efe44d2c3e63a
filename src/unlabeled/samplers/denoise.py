"""From noise to data with a denoiser: ancestral steps, DDIM, and Euler or Heun on any flow.

A denoiser D(x, t) gives the expected clean example for noisy ones: x (n, ...), t (n,), result like x. Samplers are
iterators over (x after the step, clean example as seen in it); `final` runs one to its end. Noise comes from torch's
global generator.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Literal, Protocol

import torch
from torch import Tensor

__all__ = ["Denoiser", "ancestral", "ddim", "ddim_times", "edm_sigmas", "final", "sigma_slope", "solve"]

Denoiser = Callable[[Tensor, Tensor], Tensor]
Steps = Iterator[tuple[Tensor, Tensor]]


class DiscreteChain(Protocol):
    """What the samplers in discrete time need of `objectives.diffusion.Chain`."""

    @property
    def alpha_bar(self) -> Tensor: ...

    def posterior_mean(self, x0: Tensor, x_t: Tensor, t: Tensor) -> Tensor: ...

    def log_variance(self, kind: Literal["large", "small"]) -> Tensor: ...


def final(steps: Steps) -> Tensor:
    """The last x of a sampler."""
    return deque(steps, maxlen=1)[0][0]


def ancestral(
    denoise: Denoiser, x: Tensor, chain: DiscreteChain, variance: Literal["large", "small"] = "large"
) -> Steps:
    """All T steps of DDPM's algorithm 2, from x ~ N(0, I); no noise in the last."""
    scale = (chain.log_variance(variance) / 2).exp().tolist()
    for t in reversed(range(len(scale))):
        index = torch.full((len(x),), t, device=x.device)
        clean = denoise(x, index)
        x = chain.posterior_mean(clean, x, index)
        if t:
            x = x + scale[t] * torch.randn_like(x)
        yield x, clean


def ddim_times(total: int, steps: int, spacing: Literal["leading", "trailing", "linspace"]) -> list[int]:
    """The indices that DDIM visits, from most to least noise.

    leading: multiples of total // steps, down to 0 (the authors'). trailing: from total - 1 down in equal strides, so
    that it starts from what training calls pure noise. linspace: both ends.
    """
    if not 1 <= steps <= total:
        raise ValueError(f"DDIM takes between 1 and {total} steps, not {steps}.")
    if spacing == "leading":
        return [i * (total // steps) for i in reversed(range(steps))]
    if spacing == "trailing":
        return [round(total - i * total / steps) - 1 for i in range(steps)]
    return [round(i * (total - 1) / max(1, steps - 1)) for i in reversed(range(steps))]


def ddim(
    denoise: Denoiser,
    x: Tensor,
    chain: DiscreteChain,
    steps: int,
    eta: float = 0.0,
    spacing: Literal["leading", "trailing", "linspace"] = "trailing",
) -> Steps:
    """Song, Meng, Ermon, ICLR 2021, eq. 12, from x ~ N(0, I); eta 0 adds no noise, 1 the small variance of DDPM.

    The noise is derived from the denoiser's answer, so that a clipped answer has a noise that fits it. The step after
    the last index leads to no noise at all.
    """
    times = ddim_times(len(chain.alpha_bar), steps, spacing)
    left = [float(chain.alpha_bar[t]) for t in times] + [1.0]
    for i, t in enumerate(times):
        now, then = left[i], left[i + 1]
        clean = denoise(x, torch.full((len(x),), t, device=x.device))
        noise = (x - now**0.5 * clean) / (1 - now) ** 0.5
        fresh = eta * ((1 - now / then) * (1 - then) / (1 - now)) ** 0.5
        x = then**0.5 * clean + max(0.0, 1 - then - fresh**2) ** 0.5 * noise
        if fresh:
            x = x + fresh * torch.randn_like(x)
        yield x, clean


def edm_sigmas(steps: int, smallest: float = 0.002, largest: float = 80.0, rho: float = 7.0) -> list[float]:
    """`steps` noise levels, largest first, and a final 0: Karras et al., NeurIPS 2022, eq. 5."""
    top, bottom = largest ** (1 / rho), smallest ** (1 / rho)
    return [(top + i / max(1, steps - 1) * (bottom - top)) ** rho for i in range(steps)] + [0.0]


def sigma_slope(denoise: Denoiser) -> Denoiser:
    """dx/dsigma = (x - D(x, sigma)) / sigma of the probability flow, for x = data + sigma noise; not for sigma = 0."""

    def slope(x: Tensor, sigma: Tensor) -> Tensor:
        return (x - denoise(x, sigma)) / sigma.view(-1, *[1] * (x.ndim - 1))

    return slope


def solve(
    slope: Denoiser, x: Tensor, times: Sequence[float], *, order: Literal[1, 2] = 2, open_end: bool = False
) -> Steps:
    """Follow dx/dt = slope(x, t) through `times`, by Euler (order 1) or Heun (order 2). Yields (x, slope at start).

    Flow matching: the learned velocity and times from 0 (noise) to 1 (data). EDM: `sigma_slope` of the denoiser,
    `edm_sigmas`, and open_end, since there is no slope at sigma 0: the last step is Euler's.
    """
    stops = len(times) - 1
    for i, (now, then) in enumerate(pairwise(times)):
        here = slope(x, torch.full((len(x),), now, dtype=x.dtype, device=x.device))
        ahead = x + (then - now) * here
        if order == 2 and not (open_end and i == stops - 1):
            there = slope(ahead, torch.full((len(x),), then, dtype=x.dtype, device=x.device))
            ahead = x + (then - now) / 2 * (here + there)
        x = ahead
        yield x, here
