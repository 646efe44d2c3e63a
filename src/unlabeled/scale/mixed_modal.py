"""What two modalities do to each other in one model: competition for capacity, or synergy.

Aghajanyan et al. 2023 (arXiv 2301.03728, sections 4 and 5): each modality alone follows L(N, D_j) = E_j + A_j / N^alpha_j +
B_j / D_j^beta_j; a model of two, with as many tokens of each, has the mean of both laws, less the greatest synergy C, plus
A / N^alpha + B / (D_i + D_j)^beta of competition. Where the three cancel is the barrier: beyond it the joint model is better.

A run of both must be compared with single runs of the same tokens PER MODALITY, which the law does by evaluating them at half of
its tokens. The interaction is of the size of the noise between seeds (0.01 to 0.02 nats): a sign is claimed only where the
bootstrap's interval leaves out zero.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from unlabeled.core.errors import UserError
from unlabeled.scale.fit import DELTA, Fit, fit_law
from unlabeled.scale.laws import CHINCHILLA
from unlabeled.scale.minimise import by_autograd, minimise
from unlabeled.scale.objective import huber
from unlabeled.scale.result import HeldOut, Interval, Result, interval
from unlabeled.scale.table import Table

__all__ = ["MixedModal", "fit_mixed_modal"]

_PARAMETERS = ("log_c", "log_a", "log_b", "alpha", "beta")
_FEWEST = 6  # runs of both modalities for the five constants of their interaction
_CORNER = 3  # runs that a corner (one size, one number of tokens) should have, as seeds


@dataclass(frozen=True, kw_only=True)
class MixedModal(Result):
    """parameters: E, A, B, alpha, beta of each modality (with its name behind a dot), then C, A, B, alpha, beta of the pair.
    single: the laws of the modalities. theta: (5,) log C, log A, log B, alpha, beta. samples: (draws, 5)."""

    single: Mapping[str, Fit]
    theta: Tensor
    samples: Tensor
    pair: tuple[str, str]

    def interaction(self, params: float, tokens: float) -> tuple[float, Interval]:
        """C - A / N^alpha - B / D^beta in nats, D the tokens of both: above zero the joint model is better; with its interval."""
        value = -float(_penalty(self.theta[None], *_points(params, tokens)))
        drawn = -_penalty(self.samples, *_points(params, tokens))[:, 0].numpy() if len(self.samples) else np.empty(0)
        return value, interval(drawn, self.level)

    def predict(self, params: float, tokens: float) -> float:
        """Loss of a joint run with so many tokens of both together."""
        n, d = _points(params, tokens)
        return float(_mean(self.single, self.pair, n, d) + _penalty(self.theta[None], n, d)[0])

    def barrier(self, tokens: Sequence[float]) -> list[float]:
        """N at which competition and synergy cancel, for so many tokens of both; inf where they never do, nan where synergy is
        ahead from one parameter on."""
        c, a, b, alpha, beta = self.theta.tolist()
        found = []
        for d in tokens:
            left = math.exp(c) - math.exp(b - beta * math.log(d))
            found.append(math.inf if left <= 0 or alpha <= 0 else math.exp((a - math.log(left)) / alpha))
        return [n if n > 1 else math.nan for n in found]


def _points(params: float, tokens: float) -> tuple[Tensor, Tensor]:
    return torch.tensor([params], dtype=torch.float64), torch.tensor([tokens], dtype=torch.float64)


def _penalty(theta: Tensor, n: Tensor, d: Tensor) -> Tensor:
    """A / N^alpha + B / D^beta - C: theta (rows, 5), n and d (points,) -> (rows, points)."""
    c, a, b, alpha, beta = (t[:, None] for t in theta.unbind(1))
    return (a - alpha * n.log()).exp() + (b - beta * d.log()).exp() - c.exp()


def _mean(single: Mapping[str, Fit], pair: Sequence[str], n: Tensor, d: Tensor) -> Tensor:
    """(points,) mean of both single laws, each at half of the tokens."""
    columns = {"params": n, "tokens": d / 2}
    return torch.stack([CHINCHILLA.log_predict(single[m].theta[None], columns)[0].exp() for m in pair]).mean(0)


def fit_mixed_modal(
    table: Table,
    *,
    draws: int = 1000,
    level: float = 0.9,
    delta: float = DELTA,
    seed: int = 0,
    starts: Tensor | None = None,
) -> MixedModal:
    """Both single laws, then the interaction on what they leave over.

    table: with a label `modality`: one name for a run of one modality, two joined by + (text+speech) for a run of both; params,
    tokens (of both together) and loss. starts: of the single laws.

    Raises:
        UserError: where there is no such label, not one pair, or a modality of it is missing alone.
    """
    table.need(("params", "tokens"))
    if "modality" not in table.labels:
        raise UserError(
            f"{table.source} lacks the column modality (text, speech, text+speech ...), which says what each run was trained on."
        )
    names = table.labels["modality"]
    pairs = sorted({str(n) for n in names if n.count("+") == 1})
    if len(pairs) != 1:
        raise UserError(
            f"{table.source} has {len(pairs)} pairs of modalities ({', '.join(pairs) or 'none'}); keep the runs of one pair, "
            "named like text+speech, and of its two modalities alone."
        )
    first, second = pairs[0].split("+")
    missing = [m for m in (first, second) if m not in names]
    if missing:
        raise UserError(
            f"{table.source} has no run of {missing[0]} alone, which the pair {pairs[0]} is compared with; add some."
        )
    unused = ~np.isin(names, (first, second, pairs[0]))
    used = table.without(unused, f"neither of {pairs[0]} nor of one of the two")
    single = {
        m: fit_law(used.where(modality=m), CHINCHILLA, draws=draws, level=level, delta=delta, seed=seed, starts=starts)
        for m in (first, second)
    }
    both = used.where(modality=pairs[0])
    both.need(("params", "tokens"), least=_FEWEST)
    return _fitted(used, both, single, (first, second), draws, level, delta, seed)


def _starts(single: Mapping[str, Fit], rest: Tensor, n: Tensor, d: Tensor) -> Tensor:
    """Exponents around the parents', coefficients so that each part is of the size of the residual."""
    size = float(rest.abs().mean()) + 1e-6
    low = [min(f.parameters[k] for f in single.values()) for k in ("alpha", "beta")]
    high = [max(f.parameters[k] for f in single.values()) for k in ("alpha", "beta")]
    rows = []
    choices = [sorted({lo / 2, lo, (lo + hi) / 2, hi, 1.5 * hi}) for lo, hi in zip(low, high)]
    for synergy, share, other, alpha, beta in itertools.product(
        (0.1, 1.0, 3.0), (0.2, 1.0, 3.0), (0.2, 1.0, 3.0), *choices
    ):
        a = math.log(share * size) + alpha * float(n.log().mean())
        b = math.log(other * size) + beta * float(d.log().mean())
        rows.append([math.log(synergy * size), a, b, alpha, beta])
    return torch.tensor(rows, dtype=torch.float64)


def _solved(
    rest: Tensor, n: Tensor, d: Tensor, starts: Tensor, parents: Tensor, delta: float, weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Ends and values. rest: (points,), or (starts, points) where each row has its own. parents: (2, 2) least and greatest alpha
    and beta of the single laws, which a slight pull keeps near: the residual alone may leave an exponent open."""
    middle, width = parents.mean(0), (parents[1] - parents[0]).clamp(min=0.1)

    def value(x: Tensor, rows: Tensor) -> Tensor:
        residual = _penalty(x, n, d) - (rest if rest.dim() == 1 else rest[rows])
        cost = huber(residual, delta)
        cost = cost if weights is None else cost * weights[rows]
        pull = (((x[:, 3:] - middle) / width) ** 2).sum(1)
        return cost.sum(1) / (len(n) * delta**2) + 1e-4 * pull

    found = minimise(by_autograd(value), starts, points=3 * len(n))
    return found.points, found.values


def _fitted(
    used: Table,
    both: Table,
    single: Mapping[str, Fit],
    pair: tuple[str, str],
    draws: int,
    level: float,
    delta: float,
    seed: int,
) -> MixedModal:
    n, d, loss = (torch.from_numpy(np.ascontiguousarray(both[c])) for c in ("params", "tokens", "loss"))
    rest = loss - _mean(single, pair, n, d)
    exponents = torch.tensor(
        [[f.parameters[k] for k in ("alpha", "beta")] for f in single.values()], dtype=torch.float64
    )
    parents = torch.stack([exponents.amin(0), exponents.amax(0)])
    ends, values = _solved(rest, n, d, _starts(single, rest, n, d), parents, delta)
    theta = ends[int(values.argmin())]
    samples = _resampled(single, pair, n, d, loss, theta, parents, draws, delta, seed)
    drawn = samples.numpy()
    shown = {"C": math.exp(theta[0]), "A": math.exp(theta[1]), "B": math.exp(theta[2]), "alpha": float(theta[3])}
    shown["beta"] = float(theta[4])
    spread = dict(zip(shown, [np.exp(drawn[:, 0]), np.exp(drawn[:, 1]), np.exp(drawn[:, 2]), drawn[:, 3], drawn[:, 4]]))
    parameters = {
        f"{k}.{m}": v for m, f in single.items() for k, v in f.parameters.items() if not k.startswith("exponent")
    }
    intervals = {
        f"{k}.{m}": v for m, f in single.items() for k, v in f.intervals.items() if not k.startswith("exponent")
    }
    found = MixedModal(
        law="mixed-modal",
        formula="L(N, D_i, D_j) = [L_i(N, D_i) + L_j(N, D_j)] / 2 - C + A / N^alpha + B / (D_i + D_j)^beta",
        source="Aghajanyan et al. 2023, arXiv 2301.03728",
        parameters=parameters | shown,
        objective=float(huber(_penalty(theta[None], n, d)[0] - rest, delta).sum()),
        rows_used=len(used),
        rows_excluded=used.excluded,
        intervals=intervals | ({k: interval(v, level) for k, v in spread.items()} if draws else {}),
        errors={k: float(v.std()) for k, v in spread.items()} if draws else {},
        level=level,
        heldout=_heldout(both, single, pair, parents, delta),
        convention=used.convention,
        units={"C": "nats", "A": "nats", "B": "nats"},
        notes=used.notes,
        single=single,
        theta=theta,
        samples=samples,
        pair=pair,
    )
    largest = int(np.lexsort((both["tokens"], both["params"]))[-1])
    at = (float(both["params"][largest]), float(both["tokens"][largest]))
    value, (low, high) = found.interaction(*at)
    sign = "synergy" if low > 0 else "competition" if high < 0 else "undecided"
    budgets = sorted({float(t) for t in both["tokens"]})
    details = {
        "interaction_at_largest": {
            "params": at[0],
            "tokens": at[1],
            "value": value,
            "interval": (low, high),
            "sign": sign,
        },
        "barrier": [{"tokens": t, "params": p} for t, p in zip(budgets, found.barrier(budgets))],
    }
    object.__setattr__(found, "details", details)
    object.__setattr__(found, "verdict", tuple(_judged(found, both, sign, (low, high))))
    return found


def _resampled(
    single: Mapping[str, Fit],
    pair: Sequence[str],
    n: Tensor,
    d: Tensor,
    loss: Tensor,
    theta: Tensor,
    parents: Tensor,
    draws: int,
    delta: float,
    seed: int,
) -> Tensor:
    """(draws, 5): runs of both drawn with replacement, against single laws that were resampled too."""
    if not draws:
        return torch.empty(0, 5, dtype=torch.float64)
    draws = min(draws, *(len(single[m].samples) for m in pair))
    columns = {"params": n, "tokens": d / 2}
    means = torch.stack([CHINCHILLA.log_predict(single[m].samples[:draws], columns).exp() for m in pair]).mean(0)
    random = np.random.default_rng(seed)
    counts = np.stack([np.bincount(random.integers(0, len(n), len(n)), minlength=len(n)) for _ in range(draws)])
    weights = torch.from_numpy(counts.astype(np.float64))
    ends, _ = _solved(loss - means, n, d, theta.expand(draws, -1), parents, delta, weights)
    return ends


def _heldout(
    both: Table, single: Mapping[str, Fit], pair: Sequence[str], parents: Tensor, delta: float
) -> HeldOut | None:
    """Joint runs of the largest size, foretold from the others; baselines: the mean of both laws, and the last loss."""
    size = both["params"]
    large = size == size.max()
    if (~large).sum() < _FEWEST:
        return None
    n, d, loss = (torch.from_numpy(np.ascontiguousarray(both[c])) for c in ("params", "tokens", "loss"))
    mean = _mean(single, pair, n, d)
    few, many = torch.from_numpy(~large), torch.from_numpy(large)
    rest = (loss - mean)[few]
    ends, values = _solved(rest, n[few], d[few], _starts(single, rest, n[few], d[few]), parents, delta)
    theta = ends[int(values.argmin())]
    truth = loss[many].numpy()
    foretold = (mean[many] + _penalty(theta[None], n[many], d[many])[0]).numpy()
    errors = np.abs(foretold / truth - 1)
    last = float(loss[few][int(np.lexsort((-loss[few].numpy(), n[few].numpy()))[-1])])
    return HeldOut(
        what=f"params >= {size.max():.4g} (of the runs of both)",
        fitted=int((~large).sum()),
        runs=int(large.sum()),
        reach=float(size.max() / size[~large].max()),
        mean_error=float(errors.mean()),
        largest_error=float(errors.max()),
        baselines={
            "last": float(np.abs(last / truth - 1).mean()),
            "mean of both laws": float(np.abs(mean[many].numpy() / truth - 1).mean()),
        },
        parameters=dict(zip(_PARAMETERS, theta.tolist())),
    )


def _judged(found: MixedModal, both: Table, sign: str, bounds: Interval) -> list[str]:
    said = [f"{m} alone: {reason}" for m, f in found.single.items() for reason in f.verdict]
    if sign == "undecided" and len(found.samples):
        said.append(
            f"At the largest joint run the interaction lies between {bounds[0]:.3g} and {bounds[1]:.3g} nats: neither synergy "
            "nor competition is shown."
        )
    corners = np.unique(np.stack([both["params"], both["tokens"]]), axis=1, return_counts=True)[1]
    if corners.min() < _CORNER:
        said.append(
            f"Some sizes and lengths of the pair have {corners.min()} run only: the interaction is of the size of the noise "
            f"between seeds, so train {_CORNER}."
        )
    if len(both) < 10:
        said.append(f"{len(both)} joint runs for 5 constants: they are hardly more than an interpolation.")
    return said
