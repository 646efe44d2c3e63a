"""What a longer run will reach, told from a handful of short ones: L(N, D) = E + A / N^alpha + B / D^beta with a prior.

    N   trainable parameters          D   items trained on: tokens, or examples          L   held-out loss of a finished run

The law is that of Hoffmann et al. 2022 (arXiv 2203.15556, section 3.3). Its five numbers cannot be fitted to six to nine
pilots, and `scale.fit` rightly refuses; what is wanted here is no law but a number with an interval. So: given both exponents
and the size of the noise the law is linear in E, A and B. Of these a normal prior says what shares they have in the loss of the
run that is foretold, of a loss that is not known either; their posterior and the probability of the pilots are then exact (Bishop
2006, Pattern Recognition and Machine Learning, sections 3.3 and 3.4). Exponents, noise and that loss are summed over a grid
with those probabilities as weights. Draws in which one of the terms is negative are thrown away, which is exact too, the prior
being cut off in the same way. One size alone has no term in N.

Text that is seen more than once counts less, as Muennighoff et al. 2023 (arXiv 2305.16264, equation 5) measured: `effective`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["LEVEL", "PRIOR", "SCALES", "Forecast", "Point", "Posterior", "Prior", "effective", "posterior"]

LEVEL = 0.9  # of every interval
DRAWS = 4000
FEWEST_DRAWS = 400  # of DRAWS that must be positive in all terms, after many tries; with fewer the law is not believed
REPEATS = 15.39  # R_D* as Muennighoff et al. 2023 fitted it: after so many repetitions a further one is worth 1/e of a new item


@dataclass(frozen=True)
class Prior:
    """What is believed before any pilot. alpha, beta: median and standard deviation of the logarithm of the exponent. floor,
    size, length: mean and standard deviation of the shares that E, A / N^alpha and B / D^beta have in the loss of the run that
    is foretold. noise: median and standard deviation of the logarithm of the relative deviation of a run from the law."""

    alpha: tuple[float, float]
    beta: tuple[float, float]
    floor: tuple[float, float]
    size: tuple[float, float]
    length: tuple[float, float]
    noise: tuple[float, float]


# From benchmarks/results/scale-study-gpt2.jsonl (GPT-2 on 24 MB of documentation, bytes, params with head). A study of 20 runs
# has alpha 0.50 (0.28 to 0.80), beta 0.53 (0.41 to 0.78); one of 35 runs alpha 0.42 (0.18 to 0.61), beta 0.52 (0.30 to 0.69), E
# 1.16, A 41.6, B 1,293: at the best size of its largest budget (6.4e5 parameters, 1.5e7 tokens) the shares are 0.77, 0.11, 0.17.
# All made wider: the exponents so that those published for large models (0.34 and 0.28 in Hoffmann et al. 2022; 0.35 and 0.37
# in Besiroglu et al. 2024) lie inside 90 %. Used for every system, as no other has been studied here.
PRIOR = Prior(
    alpha=(0.50, 0.40), beta=(0.50, 0.40), floor=(0.7, 0.2), size=(0.15, 0.12), length=(0.15, 0.12), noise=(0.015, 0.7)
)
# The loss that is foretold, in multiples of the least of the pilots: it may have been reached already, or lie far below.
SCALES = np.geomspace(0.2, 1.1, 12)


@dataclass(frozen=True)
class Point:
    """A finished run: parameters, items it trained on, its loss."""

    params: float
    items: float
    loss: float


@dataclass(frozen=True)
class Forecast:
    """A loss that a run will have, in the middle, and between what it lies with probability `LEVEL`."""

    value: float
    low: float
    high: float

    def holds(self, reached: float) -> bool:
        return self.low <= reached <= self.high

    def to_dict(self) -> dict[str, float]:
        return {"value": self.value, "low": self.low, "high": self.high, "level": LEVEL}


@dataclass(frozen=True)
class Posterior:
    """Laws drawn from the posterior, as arrays of (draws,); terms: (draws, 3), E, A / N^alpha and B / D^beta at params, items."""

    params: float
    items: float
    terms: np.ndarray
    alpha: np.ndarray
    beta: np.ndarray
    noise: np.ndarray
    seed: int

    def losses(self, params: Any, items: Any) -> np.ndarray:
        """(draws, runs): the loss of each run by each law, without the noise of the run itself."""
        n, d = (
            np.log(np.atleast_1d(np.asarray(v, float)) / at) for v, at in ((params, self.params), (items, self.items))
        )
        floor, size, length = (self.terms[:, i, None] for i in range(3))
        return floor + size * np.exp(-self.alpha[:, None] * n) + length * np.exp(-self.beta[:, None] * d)

    def forecast(self, params: float, items: float) -> Forecast:
        """What one run will reach, its own noise included."""
        told = self.losses(params, items)[:, 0]
        told = told * (1 + self.noise * np.random.default_rng(self.seed).standard_normal(len(told)))
        low, value, high = np.quantile(told, [(1 - LEVEL) / 2, 0.5, (1 + LEVEL) / 2])
        return Forecast(float(value), float(low), float(high))


def posterior(
    points: Sequence[Point],
    params: float,
    items: float,
    *,
    seed: int = 0,
    prior: Prior = PRIOR,
    scales: np.ndarray | None = None,
    sized: bool | None = None,
) -> Posterior | None:
    """The laws that finished runs leave possible; None where they contradict it: hardly any law with positive terms is near.

    params, items: the run that is to be foretold, where the shares of the prior hold. scales: its loss, as the values between
    which nothing is preferred, by default `SCALES` times the least of the runs. sized: whether other sizes are to be foretold
    too, by default whether the runs differ in size; if not, there is no term in N.

    Raises:
        ValueError: where there is neither a run nor a scale, or a number is not positive and finite.
    """
    data = np.array([[p.params, p.items, p.loss] for p in points], float).reshape(-1, 3)
    if not (np.isfinite(data) & (data > 0)).all():
        raise ValueError("Runs of a forecast have positive, finite parameters, items and losses.")
    if scales is None:
        if not len(data):
            raise ValueError("A forecast needs a run, or the scale of its loss.")
        scales = SCALES * data[:, 2].min()
    sized = len(data) == 0 or bool(np.ptp(data[:, 0]) > 0) if sized is None else sized
    alphas, for_alpha = _grid(prior.alpha, 13) if sized else (np.array([prior.alpha[0]]), np.zeros(1))
    betas, for_beta = _grid(prior.beta, 15)
    noises, for_noise = _grid(prior.noise, 7)
    alpha, beta, noise, scale = (g.ravel() for g in np.meshgrid(alphas, betas, noises, scales, indexing="ij"))
    weight = (
        for_alpha[:, None, None, None] + for_beta[:, None, None] + for_noise[:, None] + np.zeros(len(scales))
    ).ravel()

    # loss = X w + noise, w the three terms at the run that is foretold; a row for each place of the grid.
    loss = data[:, 2]
    n, d = np.log(data[:, 0] / params), np.log(data[:, 1] / items)
    x = np.stack([np.ones((len(alpha), len(loss))), np.exp(-alpha[:, None] * n), np.exp(-beta[:, None] * d)], 2)
    mean, spread = np.array([prior.floor, prior.size, prior.length]).T
    if not sized:  # its share goes to the floor: what one size cannot get below
        x[:, :, 1], mean[0], spread[0] = 0.0, mean[0] + mean[1], math.hypot(spread[0], spread[1])
    sd = noise[:, None] * loss
    x, rest = x * (scale[:, None] / sd)[:, :, None], (loss - scale[:, None] * (x @ mean)) / sd
    precision = np.diag(spread**-2) + x.transpose(0, 2, 1) @ x
    pulled = np.linalg.solve(precision, x.transpose(0, 2, 1) @ rest[:, :, None])[:, :, 0]
    # log N(loss; X m, sd^2 + X S X'), by the determinant lemma and Woodbury's identity
    misfit = (rest**2).sum(1) - np.einsum("gi,gij,gj->g", pulled, precision, pulled)
    weight = weight - 0.5 * (misfit + np.linalg.slogdet(precision)[1]) - len(loss) * np.log(noise)
    weight = np.exp(weight - weight.max())

    rng = np.random.default_rng(seed)
    kept: list[np.ndarray] = []
    places: list[np.ndarray] = []
    for _ in range(25):
        at = rng.choice(len(weight), DRAWS, p=weight / weight.sum())
        root = np.linalg.cholesky(np.linalg.inv(precision[at]))
        drawn = mean + pulled[at] + np.einsum("gij,gj->gi", root, rng.standard_normal((DRAWS, 3)))
        if not sized:
            drawn[:, 1] = 0.0
        good = (drawn >= 0).all(1)
        kept.append(drawn[good] * scale[at[good], None])
        places.append(at[good])
        if sum(map(len, kept)) >= DRAWS:
            break
    terms, at = np.concatenate(kept)[:DRAWS], np.concatenate(places)[:DRAWS]
    if len(terms) < FEWEST_DRAWS:
        return None
    return Posterior(params, items, terms, alpha[at], beta[at], noise[at], seed)


def _grid(of: tuple[float, float], count: int) -> tuple[np.ndarray, np.ndarray]:
    """Places over 2.5 standard deviations to both sides in the logarithm, and the logarithms of their weights."""
    t = np.linspace(-2.5, 2.5, count)
    return of[0] * np.exp(of[1] * t), -0.5 * t**2


def effective(items: float, unique: float) -> float:
    """Items that are as good as `items` of which only `unique` differ."""
    if items <= unique:
        return items
    return unique + unique * REPEATS * -math.expm1(-(items / unique - 1) / REPEATS)
