"""The arithmetic of budgets: what training costs, and the sizes and lengths that a law of params and tokens then calls best.

Training costs C = (base + k N^g) N D, read off the table: for small models 6 N D (Kaplan et al. 2020, arXiv 2001.08361, section
2.1) is wrong by a third, because attention and the output do not shrink with N. With base 0, k 6 and g 0 the optima are those of
Hoffmann et al. 2022 (arXiv 2203.15556, equation 4). They are sought on a grid of log N that is refined around its least value, so
that any law serves, and for all samples of a bootstrap at once: theta is (rows, parameters) and every result (rows,).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unlabeled.scale.laws import FLOPS_PER_PARAM_TOKEN, Law
from unlabeled.scale.table import Table

__all__ = ["Cost", "allocate", "cost_of", "least", "log_loss", "repeating", "size_for", "slopes", "tokens_for", "vast"]

vast = 75.0  # log of what is beyond every budget: 4e32 parameters or tokens
_SAME = 1e-3  # of the logarithm of a cost: what rounding in a table makes of a constant
_FINE = 1e-4  # step of log N and log D for slopes


@dataclass(frozen=True)
class Cost:
    """C = (base + k N^g) N D in FLOPs. error: the largest of the table's runs, relative. floor: FLOPs of a parameter and token
    below which the rule is not believed."""

    k: float = FLOPS_PER_PARAM_TOKEN
    g: float = 0.0
    base: float = 0.0
    error: float = 0.0
    floor: float = 0.0

    @property
    def formula(self) -> str:
        power = "" if self.g == 0 else f" N^{self.g:.3g}"
        if not self.base:
            return f"C = {self.k:.4g} N D" if self.g == 0 else f"C = {self.k:.4g} N^{1 + self.g:.3g} D"
        return f"C = ({self.base:g} {'-' if self.k < 0 else '+'} {abs(self.k):.4g}{power}) N D"

    def log_rate(self, n: Tensor) -> Tensor:
        """Log of the FLOPs of a parameter and token, at log N."""
        return (self.base + self.k * (self.g * n).exp()).clamp(min=max(self.floor, 1e-30)).log()

    def log_flops(self, n: Tensor, d: Tensor) -> Tensor:
        """Log C at log N and log D."""
        return self.log_rate(n) + n + d

    def steepness(self, n: Tensor) -> Tensor:
        """dlnC / dlnN at log N and constant D; 1 for 6 N D."""
        return 1 + (self.log_rate(n + _FINE) - self.log_rate(n - _FINE)) / (2 * _FINE)

    def json(self) -> dict[str, Any]:
        return {"k": self.k, "g": self.g, "base": self.base, "largest_error": self.error, "formula": self.formula}


def cost_of(table: Table) -> Cost:
    """The rule that the table's FLOPs follow: constant, k N^g, or 6 + k N^g, whichever misses them least.

    The last tends to 6 N D for large models, as counted FLOPs of transformers do; a power law would fall below it.
    """
    size = np.log(table["params"])
    rate = table["flops"] / (table["params"] * table["tokens"])
    log = np.log(rate)
    middle = float(np.median(log))
    if np.abs(log - np.log(FLOPS_PER_PARAM_TOKEN)).max() < _SAME:
        return Cost()
    if np.abs(log - middle).max() < _SAME:
        return Cost(float(np.exp(middle)), error=float(np.abs(np.expm1(log - middle)).max()))
    floor = float(rate.min()) / 2
    slope, constant = np.polyfit(size, log, 1)
    rules = [Cost(float(np.exp(constant)), float(slope), 0.0)]
    beyond = rate - FLOPS_PER_PARAM_TOKEN
    if (beyond > 0).all() or (beyond < 0).all():
        slope, constant = np.polyfit(size, np.log(np.abs(beyond)), 1)
        if slope < 0:
            rules.append(Cost(float(np.sign(beyond[0]) * np.exp(constant)), float(slope), FLOPS_PER_PARAM_TOKEN))

    def missed(rule: Cost) -> np.ndarray:
        return rule.log_rate(torch.from_numpy(size)).numpy() - log

    best = min(rules, key=lambda rule: float(np.square(missed(rule)).mean()))
    return Cost(best.k, best.g, best.base, float(np.abs(np.expm1(missed(best))).max()), floor)


def log_loss(law: Law, theta: Tensor, n: Tensor, d: Tensor, unique: Tensor | None = None) -> Tensor:
    """Log of the loss, (rows, points), each row of theta at its own log N and log D (rows, points)."""

    def one(t: Tensor, n: Tensor, d: Tensor, u: Tensor) -> Tensor:
        return law.log_predict(t[None], {"params": n.exp(), "tokens": d.exp(), "unique_tokens": u.exp()})[0]

    return torch.vmap(one)(theta, n, d, d if unique is None else unique)


def least(value: Callable[[Tensor], Tensor], low: Tensor, high: Tensor, first: int = 151) -> Tensor:
    """Where a function (rows, points) -> (rows, points) of one number is least between low and high, (rows,) each; nan where
    that is at an edge. first: points of the first grid."""
    edge = torch.zeros(len(low), dtype=torch.bool)
    best = low
    for level, points in enumerate((first, 15, 15, 15, 15)):
        x = low[:, None] + torch.linspace(0, 1, points, dtype=torch.float64) * (high - low)[:, None]
        y = value(x).nan_to_num(nan=torch.inf)
        at = y.argmin(1)
        if not level:
            edge = (at == 0) | (at == points - 1)
        inner = at.clamp(1, points - 2)[:, None]
        low, best, high = (x.gather(1, inner + o)[:, 0] for o in (-1, 0, 1))
        before, there, after = (y.gather(1, inner + o)[:, 0] for o in (-1, 0, 1))
        bent = before - 2 * there + after
        shift = torch.where(bent > 0, (before - after) / (2 * bent), 0.0).nan_to_num(0.0).clamp(-1, 1)
        best = best + shift * (high - low) / 2
    return torch.where(edge, torch.nan, best)


def allocate(
    law: Law,
    theta: Tensor,
    cost: Cost,
    compute: float,
    loss: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """log N, log D and log loss of the best split of so many FLOPs; nan where none lies inside.

    loss: instead of the law's, (theta, log N, log D) -> log loss.
    """
    count, whole = loss or (lambda t, n, d: log_loss(law, t, n, d)), float(np.log(compute))

    def tokens(n: Tensor) -> Tensor:
        return whole - cost.log_rate(n) - n

    low, high = (torch.full((len(theta),), share * whole, dtype=torch.float64) for share in (0.02, 0.95))
    n = least(lambda x: count(theta, x, tokens(x)), low, high)
    return n, tokens(n), count(theta, n[:, None], tokens(n)[:, None])[:, 0]


def slopes(law: Law, theta: Tensor, n: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    """dlnL / dlnN and dlnL / dlnD at log N and log D, (rows,) each."""
    around = torch.tensor([_FINE, -_FINE, 0.0, 0.0], dtype=torch.float64)
    y = log_loss(law, theta, n[:, None] + around, d[:, None] + around.flip(0))
    return (y[:, 0] - y[:, 1]) / (2 * _FINE), (y[:, 3] - y[:, 2]) / (2 * _FINE)


def size_for(law: Law, theta: Tensor, cost: Cost, tokens: float) -> Tensor:
    """log N of the size for which so many tokens are compute-optimal: there a FLOP buys as much through N as through D."""
    d = torch.full((len(theta),), float(np.log(tokens)), dtype=torch.float64)
    low, high = torch.zeros_like(d), torch.full_like(d, vast)

    def excess(n: Tensor) -> Tensor:
        by_size, by_tokens = slopes(law, theta, n, d)
        return by_size - cost.steepness(n) * by_tokens

    inside = (excess(low) < 0) & (excess(high) > 0)
    for _ in range(48):
        middle = (low + high) / 2
        small = excess(middle) < 0
        low, high = torch.where(small, middle, low), torch.where(small, high, middle)
    return torch.where(inside, (low + high) / 2, torch.nan)


def tokens_for(law: Law, theta: Tensor, n: Tensor, loss: Tensor) -> Tensor:
    """log D with which sizes of log N (rows, points) come to a log loss (rows,); inf where no number of tokens does."""
    low, high = torch.zeros_like(n), torch.full_like(n, vast)
    wanted = loss[:, None]
    never = ~(log_loss(law, theta, n, high) <= wanted)
    for _ in range(36):  # to 1e-9 of the logarithm
        middle = (low + high) / 2
        short = log_loss(law, theta, n, middle) > wanted
        low, high = torch.where(short, middle, low), torch.where(short, high, middle)
    return torch.where(never, torch.inf, high)


def repeating(
    law: Law, theta: Tensor, cost: Cost, unique: float, limits: tuple[Tensor, Tensor]
) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """(theta, log N, log D) -> log loss where there are so many unique tokens only (Muennighoff et al. 2023, arXiv 2305.16264,
    equations 5 and 6). limits: R_D* and R_N*, (rows,) each.

    From runs of all the unique tokens on it is `laws.repeated`; a run of fewer is what the law without repetition says.
    Repeated tokens decay in worth, and so do parameters beyond the size for which the unique tokens are compute-optimal. The
    paper takes that size from Hoffmann's optimum with 6 N D; here it is that of the law and the cost at hand.
    """
    enough, once = size_for(law, theta, cost, unique)[:, None], float(np.log(unique))
    repeats, excess = (limit[:, None] for limit in limits)

    def worth(x: Tensor, base: Tensor | float, limit: Tensor) -> Tensor:
        more = (x - base).clamp(min=0).expm1()  # R: how many times over, beyond the first
        return torch.where(x > base, base + torch.log1p(limit * -torch.expm1(-more / limit)), x)

    return lambda theta, n, d: log_loss(law, theta, worth(n, enough, excess), worth(d, once, repeats))
