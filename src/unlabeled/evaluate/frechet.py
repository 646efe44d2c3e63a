"""How far samples are from data, in a space of features.

Fréchet distance: Heusel et al., NeurIPS 2017. KID: Bińkowski et al., ICLR 2018. Precision and recall:
Kynkäänniemi et al., NeurIPS 2019. Density and coverage: Naeem et al., ICML 2020.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

__all__ = ["Manifold", "frechet", "frechet_of_moments", "kid", "manifold"]

_ROWS = 1024


class Manifold(NamedTuple):
    """Each in [0, 1], density from 0 without bound. Two draws of one distribution do not reach 1 in the first two."""

    precision: float  # share of samples inside a ball of the data
    recall: float  # share of data inside a ball of the samples
    density: float  # how many balls of the data a sample lies in, over k
    coverage: float  # share of balls of the data that hold a sample


def frechet(x: np.ndarray, y: np.ndarray) -> float:
    """Squared Fréchet distance of the Gaussians fitted to (n, d) and (m, d) features.

    It is biased upwards, for one isotropic Gaussian by about (d^2 / 4 + d)(1 / n + 1 / m): give n with the number.
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    return frechet_of_moments(x.mean(0), np.cov(x.T), y.mean(0), np.cov(y.T))


def frechet_of_moments(mean1: np.ndarray, cov1: np.ndarray, mean2: np.ndarray, cov2: np.ndarray) -> float:
    """|m1 - m2|^2 + tr(C1 + C2 - 2 (C1^1/2 C2 C1^1/2)^1/2), in float64; negative eigenvalues are rounding, clipped."""
    cov1, cov2 = np.atleast_2d(cov1), np.atleast_2d(cov2)
    values, vectors = np.linalg.eigh(cov1)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ cov2 @ root).clip(min=0)).sum()
    return float(np.square(mean1 - mean2).sum() + np.trace(cov1) + np.trace(cov2) - 2 * cross)


def kid(x: np.ndarray, y: np.ndarray, *, subsets: int = 100, size: int = 1000, seed: int = 0) -> tuple[float, float]:
    """Mean and deviation over subsets of the unbiased squared MMD with kernel (x.y / d + 1)^3; may fall below zero.

    x: (n, d), y: (m, d). size is cut to the smaller of n and m.
    """
    rng = np.random.default_rng(seed)
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    size, d = min(size, len(x), len(y)), x.shape[1]
    got = []
    for _ in range(subsets):
        a, b = x[rng.choice(len(x), size, replace=False)], y[rng.choice(len(y), size, replace=False)]
        aa, bb, ab = ((p @ q.T / d + 1) ** 3 for p, q in ((a, a), (b, b), (a, b)))
        within = (aa.sum() - np.trace(aa) + bb.sum() - np.trace(bb)) / (size * (size - 1))
        got.append(within - 2 * ab.mean())
    return float(np.mean(got)), float(np.std(got))


def manifold(real: np.ndarray, fake: np.ndarray, k: int = 5) -> Manifold:
    """Precision, recall, density and coverage by balls that reach to the k-th neighbour; "inside" is strictly so.

    real: (n, d), fake: (m, d); both must have more than k rows. Distances are taken in chunks.
    """
    r, f = (torch.from_numpy(np.asarray(rows, np.float32)).double() for rows in (real, fake))
    reach_real, reach_fake = _reach(r, k), _reach(f, k)
    inside = torch.zeros(len(f), dtype=torch.float64)
    recalled, covered = [], []
    for start in range(0, len(r), _ROWS):
        part = slice(start, start + _ROWS)
        distance = torch.cdist(r[part], f)
        inside += (distance < reach_real[part, None]).sum(0)
        recalled.append((distance < reach_fake).any(1))
        covered.append(distance.amin(1) < reach_real[part])
    return Manifold(
        float((inside > 0).double().mean()),
        float(torch.cat(recalled).double().mean()),
        float(inside.mean() / k),
        float(torch.cat(covered).double().mean()),
    )


def _reach(rows: torch.Tensor, k: int) -> torch.Tensor:
    """(n,) distance to the k-th nearest other row."""
    near = []
    for start in range(0, len(rows), _ROWS):
        distance = torch.cdist(rows[start : start + _ROWS], rows)
        mine = torch.arange(len(distance))
        distance[mine, mine + start] = 0.0  # exactly: the product behind cdist leaves rounding there
        near.append(distance.kthvalue(k + 1, dim=1).values)
    return torch.cat(near)
