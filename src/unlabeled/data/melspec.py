"""Spectra of sound as speech recognisers took them before features were learned: log-mel energies and cepstra.

Frames of 25 ms every 10 ms that lie wholly within the sound: mean removed, pre-emphasis x[n] - 0.97 x[n-1], Povey's
window (Hann ** 0.85), power spectrum of 512 points, triangles evenly spaced on the mel scale 1127 log(1 + f / 700) from
20 Hz to half the rate, logarithm. Cepstra are the first 13 of the orthonormal cosine transform of 23 of them, lifted
by 1 + 11 sin(pi n / 22). All is as in Kaldi's `compute-fbank-feats` and `compute-mfcc-feats` without dither and with
C0 instead of the energy; samples are multiplied by 32,768 first, as those of 16-bit files are there.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["deltas", "log_mel", "mfcc", "per_recording", "stacked"]

PRE_EMPHASIS, LOWEST_HZ, LIFTER = 0.97, 20.0, 22.0
_SMALLEST = torch.finfo(torch.float32).eps  # of an energy, so that silence has a logarithm; Kaldi's floor


def log_mel(wave: Tensor, rate_hz: int = 16_000, bins: int = 80) -> Tensor:
    """(..., samples) float in [-1, 1] to (..., frames, bins) float32; no frames where there are less than 25 ms."""
    window, shift = rate_hz // 40, rate_hz // 100
    points = 1 << (window - 1).bit_length()
    if wave.shape[-1] < window:
        return wave.new_zeros(*wave.shape[:-1], 0, bins, dtype=torch.float32)
    frames = wave.float().unfold(-1, window, shift) * 32_768
    frames = frames - frames.mean(-1, keepdim=True)
    before = torch.cat([frames[..., :1], frames[..., :-1]], -1)
    shape = torch.hann_window(window, periodic=False, dtype=torch.float64, device=wave.device).pow(0.85).float()
    power = torch.fft.rfft((frames - PRE_EMPHASIS * before) * shape, points).abs().square()
    filters = _triangles(bins, rate_hz, points).to(wave.device)
    return (power @ filters).clamp(min=_SMALLEST).log()


def mfcc(wave: Tensor, rate_hz: int = 16_000, *, cepstra: int = 13, bins: int = 23) -> Tensor:
    """(..., samples) to (..., frames, cepstra) float32, C0 first."""
    n = torch.arange(cepstra, dtype=torch.float64)
    angle = math.pi / bins * n * (torch.arange(bins, dtype=torch.float64)[:, None] + 0.5)
    cosines = angle.cos() * torch.where(n == 0, 1 / bins, 2 / bins).sqrt()
    lift = 1 + LIFTER / 2 * (math.pi * n / LIFTER).sin()
    return log_mel(wave, rate_hz, bins) @ (cosines * lift).float().to(wave.device)


def deltas(x: Tensor, reach: int = 2) -> Tensor:
    """Slopes over time of (frames, width): sum_k k (x[t+k] - x[t-k]) / (2 sum_k k^2), the edges repeated."""
    weight = sum(2 * k * k for k in range(1, reach + 1))
    around = _repeat_edges(x, reach)
    length = len(x)
    return torch.stack(
        [k / weight * (around[reach + k :][:length] - around[reach - k :][:length]) for k in range(1, reach + 1)]
    ).sum(0)


def stacked(x: Tensor, frames: int) -> Tensor:
    """(n, width) to (n, frames * width): each frame between its neighbours, an odd number in all, edges repeated."""
    around = _repeat_edges(x, frames // 2)
    return around.unfold(0, frames, 1).transpose(1, 2).flatten(1) if len(x) else x.new_zeros(0, frames * x.shape[1])


def per_recording(x: Tensor) -> Tensor:
    """(frames, width) at mean 0 and variance 1 over its frames."""
    deviation, mean = torch.std_mean(x, 0, correction=0)
    return (x - mean) / deviation.clamp(min=1e-5)


def _repeat_edges(x: Tensor, by: int) -> Tensor:
    at = torch.arange(-by, len(x) + by, device=x.device)
    return x[at.clamp(0, max(len(x) - 1, 0))] if len(x) else x


@lru_cache(maxsize=8)
def _triangles(bins: int, rate_hz: int, points: int) -> Tensor:
    """(points // 2 + 1, bins) float32: the weight of each frequency in each triangle."""

    def mel(hertz: Tensor) -> Tensor:
        return 1127 * torch.log1p(hertz / 700)

    limits = torch.tensor([LOWEST_HZ, rate_hz / 2], dtype=torch.float64)
    lowest, highest = mel(limits)
    corners = torch.linspace(float(lowest), float(highest), bins + 2, dtype=torch.float64)
    at = mel(torch.arange(points // 2 + 1, dtype=torch.float64) * (rate_hz / points))[:, None]
    left, middle, right = corners[:-2], corners[1:-1], corners[2:]
    rise, fall = (at - left) / (middle - left), (right - at) / (right - middle)
    return F.relu(torch.minimum(rise, fall)).float()
