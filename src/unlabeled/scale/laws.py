"""Scaling laws as named objects: parameters, units, the form that is fitted, starting points, and the compute-optimal split.

Kaplan et al. 2020 (arXiv 2001.08361, equations 1.1 to 1.6 and 4.1): L(N), L(D), L(C), L(N, D), L(N, S), B_crit(L).
Hoffmann et al. 2022 (arXiv 2203.15556, section 3.3): L(N, D) = E + A / N^alpha + B / D^beta.
Gadre et al. 2024 (arXiv 2403.08540, section 3): the same with one exponent, in terms of N and the tokens per parameter.
Caballero et al. 2023 (arXiv 2210.14891, equation 1): smoothly broken power laws.
Muennighoff et al. 2023 (arXiv 2305.16264, section 3.1): what repeated tokens and excess parameters are worth.

A law is a function of columns of a table; a parameter vector theta holds logarithms of the coefficients, so that each coefficient
is positive and most laws become a log-sum-exp of linear forms (see objective.py). N is what the table's `params` counts: a law
means nothing without that, and exponents move by 0.1 to 0.2 with it (Porian et al. 2024, arXiv 2406.19146).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from unlabeled.core.errors import UserError, suggest
from unlabeled.scale.objective import Misfit

__all__ = [
    "CHINCHILLA",
    "DATA_CONSTRAINED",
    "FLOPS_PER_PARAM_TOKEN",
    "LAWS",
    "OVERTRAINING",
    "TIED",
    "Columns",
    "Law",
    "broken",
    "find",
    "kaplan_optimum",
    "power",
    "repeated",
    "smallest_compute",
    "smallest_steps",
]

Columns = Mapping[str, Tensor]  # name -> (points,) float64
Shown = Mapping[str, Tensor]  # name -> (rows,)

FLOPS_PER_PARAM_TOKEN = 6.0  # C = 6 N D (Kaplan et al. 2020, section 2.1)


@dataclass(frozen=True)
class Law:
    """One law.

    inputs: columns that it needs, the first the one that grows. target: the column it predicts. parameters: names of theta.
    terms: columns -> for each term its features (points, parameters); offsets: what is added to a term whatever theta is,
    (points,) or None for each. terms is None where the law has another form, and then log_law:
    (theta (rows, parameters), columns) -> log of the target (rows, points). power: place of the exponent around the sum.
    shown: theta -> what people read, by name. units: of what is shown. starts: (columns, target) -> (starts, parameters).
    exponents: names of what must lie between 0 and 3. optimum: (theta, compute (k,)) -> N and D, each (rows, k), in closed form.
    first: a law that is fitted before to the runs with one epoch, whose parameters then stay (the first of theta).
    """

    name: str
    formula: str
    source: str
    inputs: tuple[str, ...]
    parameters: tuple[str, ...]
    shown: Callable[[Tensor], Shown]
    starts: Callable[[Columns, Tensor], Tensor]
    units: Mapping[str, str] = field(default_factory=dict)
    terms: Callable[[Columns], list[Tensor]] | None = None
    offsets: Callable[[Columns], list[Tensor | None]] | None = None
    log_law: Callable[[Tensor, Columns], Tensor] | None = None
    power: int | None = None
    target: str = "loss"
    misfit: Misfit = "huber"
    exponents: tuple[str, ...] = ()
    floor: str = ""
    optimum: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None
    first: Law | None = None

    def log_predict(self, theta: Tensor, columns: Columns) -> Tensor:
        """Log of the target: theta (rows, parameters), columns (points,) -> (rows, points)."""
        if self.log_law is not None:
            return self.log_law(theta, columns)
        assert self.terms is not None
        terms = self.terms(columns)
        extra = self.offsets(columns) if self.offsets else [None] * len(terms)
        parts = [theta @ t.T if e is None else theta @ t.T + e for t, e in zip(terms, extra)]
        log = torch.logsumexp(torch.stack(parts), 0)
        return log if self.power is None else theta[:, self.power, None] * log

    def allocation(self, theta: Tensor, compute: Tensor) -> tuple[Tensor, Tensor]:
        """N and D of least loss for compute (k,) FLOPs with C = 6 N D: each (rows, k); nan where the least is at an edge.

        Raises:
            UserError: for a law that is not one of both N and D.
        """
        if self.optimum is not None:
            return self.optimum(theta, compute)
        if not {"params", "tokens"} <= set(self.inputs):
            raise UserError(
                f"The law {self.name} knows nothing of both params and tokens; fit chinchilla for an optimum."
            )
        product = (compute / FLOPS_PER_PARAM_TOKEN).log()
        share = torch.linspace(0.02, 0.98, 2001, dtype=torch.float64)  # of log(C / 6) that goes to N
        best = torch.empty(len(theta), len(product), dtype=torch.float64)
        for k, whole in enumerate(product):
            n = (share * whole).exp()
            tokens = ((1 - share) * whole).exp()
            loss = self.log_predict(theta, {"params": n, "tokens": tokens, "unique_tokens": tokens})
            at = loss.argmin(1)
            inner = at.clamp(1, len(share) - 2)
            low, mid, high = (loss.gather(1, (inner + o)[:, None])[:, 0] for o in (-1, 0, 1))
            bent = low - 2 * mid + high
            shift = torch.where(bent > 0, (low - high) / (2 * bent), 0.0).clamp(-1, 1)
            step = share[1] - share[0]
            edge = (at == 0) | (at == len(share) - 1)
            best[:, k] = torch.where(edge, torch.nan, (share[inner] + shift * step) * whole)
        return best.exp(), (product - best).exp()


def _stacked(columns: Columns, name: str, *rows: Sequence[float | Tensor]) -> list[Tensor]:
    """Features of terms, given as numbers or tensors (points,) for each parameter."""
    like = columns[name]
    return [torch.stack([torch.as_tensor(v, dtype=torch.float64).expand_as(like) for v in row], 1) for row in rows]


def _grid(*values: Sequence[float]) -> Tensor:
    return torch.tensor(list(itertools.product(*values)), dtype=torch.float64)


def _steps(low: float, high: float, step: float) -> list[float]:
    return [low + step * i for i in range(round((high - low) / step) + 1)]


# --- Kaplan -----------------------------------------------------------------------------------------------------------


def _single(name: str, column: str, symbol: str, scale: str, unit: str, formula: str, sign: int = 1) -> Law:
    """y = (X_c / x)^alpha: a line in log-log. sign -1: the exponent is shown as 1 / alpha (the critical batch)."""

    def starts(columns: Columns, target: Tensor) -> Tensor:
        # through the middle of the points, at several slopes
        x, y = columns[column].log().mean(), target.log().mean()
        return torch.tensor([[float(y + s * x), s] for s in (0.02, 0.05, 0.1, 0.3, 1.0, 3.0)], dtype=torch.float64)

    def shown(theta: Tensor) -> Shown:
        if sign < 0:
            return {scale: theta[:, 0].exp(), symbol: 1 / theta[:, 1]}
        return {scale: (theta[:, 0] / theta[:, 1]).exp(), symbol: theta[:, 1]}

    return Law(
        name=name,
        formula=formula,
        source="Kaplan et al. 2020, arXiv 2001.08361",
        inputs=(column,),
        parameters=("c", "slope"),
        shown=shown,
        starts=starts,
        units={scale: unit, symbol: ""},
        terms=lambda columns: _stacked(columns, column, (1.0, -columns[column].log())),
        target="critical_batch" if sign < 0 else "loss",
        exponents=(symbol,),
    )


def _kaplan_both_starts(columns: Columns, target: Tensor) -> Tensor:
    n, d, y = (float(t.log().mean()) for t in (columns["params"], columns["tokens"], target))
    rows = []
    for power, ratio, share in itertools.product((0.03, 0.1, 0.3, 1.0), (0.3, 0.7, 1.0, 2.0), (0.1, 0.5, 0.9)):
        rows.append([y / power + math.log(share) + ratio * n, ratio, y / power + math.log(1 - share) + d, power])
    return torch.tensor(rows, dtype=torch.float64)


def _kaplan_both_shown(theta: Tensor) -> Shown:
    return {
        "alpha_N": theta[:, 1] * theta[:, 3],
        "alpha_D": theta[:, 3],
        "N_c": (theta[:, 0] / theta[:, 1]).exp(),
        "D_c": theta[:, 2].exp(),
    }


def _kaplan_steps_starts(columns: Columns, target: Tensor) -> Tensor:
    n, s, y = (float(t.log().mean()) for t in (columns["params"], columns["steps"], target))
    rows = []
    for first, second, share in itertools.product((0.03, 0.08, 0.2, 0.5), (0.2, 0.5, 1.0), (0.5, 0.8, 0.95)):
        rows.append([y + math.log(share) + first * n, first, y + math.log(1 - share) + second * s, second])
    return torch.tensor(rows, dtype=torch.float64)


def _kaplan_laws() -> tuple[Law, ...]:
    both = Law(
        name="kaplan-nd",
        formula="L(N, D) = [(N_c / N)^(alpha_N / alpha_D) + D_c / D]^alpha_D",
        source="Kaplan et al. 2020, arXiv 2001.08361, equation 1.5",
        inputs=("params", "tokens"),
        parameters=("c", "ratio", "d", "alpha_D"),
        shown=_kaplan_both_shown,
        starts=_kaplan_both_starts,
        units={"N_c": "parameters", "D_c": "tokens"},
        terms=lambda c: _stacked(c, "params", (1.0, -c["params"].log(), 0.0, 0.0), (0.0, 0.0, 1.0, 0.0)),
        offsets=lambda c: [None, -c["tokens"].log()],
        power=3,
        exponents=("alpha_N", "alpha_D"),
    )
    steps = Law(
        name="kaplan-ns",
        formula="L(N, S) = (N_c / N)^alpha_N + (S_c / S)^alpha_S",
        source="Kaplan et al. 2020, arXiv 2001.08361, equation 1.6",
        inputs=("params", "steps"),
        parameters=("c", "alpha_N", "d", "alpha_S"),
        shown=lambda t: {
            "alpha_N": t[:, 1],
            "alpha_S": t[:, 3],
            "N_c": (t[:, 0] / t[:, 1]).exp(),
            "S_c": (t[:, 2] / t[:, 3]).exp(),
        },
        starts=_kaplan_steps_starts,
        units={"N_c": "parameters", "S_c": "steps"},
        terms=lambda c: _stacked(c, "params", (1.0, -c["params"].log(), 0.0, 0.0), (0.0, 0.0, 1.0, -c["steps"].log())),
        exponents=("alpha_N", "alpha_S"),
    )
    return (
        _single("kaplan-n", "params", "alpha_N", "N_c", "parameters", "L(N) = (N_c / N)^alpha_N"),
        _single("kaplan-d", "tokens", "alpha_D", "D_c", "tokens", "L(D) = (D_c / D)^alpha_D"),
        _single("kaplan-c", "flops", "alpha_C", "C_c", "FLOPs", "L(C) = (C_c / C)^alpha_C"),
        _single("kaplan-batch", "loss", "alpha_B", "B_star", "tokens", "B_crit(L) = B_star / L^(1 / alpha_B)", sign=-1),
        both,
        steps,
    )


def smallest_steps(steps: Tensor, batch: Tensor, critical: Tensor) -> Tensor:
    """S_min = S / (1 + B_crit / B): steps that a very large batch would have needed (Kaplan et al. 2020, equation 5.4)."""
    return steps / (1 + critical / batch)


def smallest_compute(compute: Tensor, batch: Tensor, critical: Tensor) -> Tensor:
    """C_min = C / (1 + B / B_crit): compute that a very small batch would have needed (equation 5.5)."""
    return compute / (1 + batch / critical)


def kaplan_optimum(alpha_n: float, alpha_s: float, alpha_b: float) -> dict[str, float]:
    """Exponents of the compute-optimal N, B and S in C_min from L(N, S_min) and B_crit(L) (equations 6.5 to 6.7, B.5 to B.9)."""
    whole = 1 / (1 / alpha_s + 1 / alpha_b + 1 / alpha_n)
    return {"loss": whole, "params": whole / alpha_n, "batch_tokens": whole / alpha_b, "steps": whole / alpha_s}


# --- power law with a floor ---------------------------------------------------------------------------------------------


def power(column: str, target: str = "loss", *, floor: bool = True, name: str = "") -> Law:
    """y = E + A / x^alpha, or without E: for frontiers, pruning curves, or any measure against one input."""

    def starts(columns: Columns, y: Tensor) -> Tensor:
        x, low, middle = columns[column].log(), float(y.min()), float(y.median())
        rows = []
        for slope, share in itertools.product(
            (0.05, 0.1, 0.2, 0.5, 1.0, 2.0), (0.1, 0.5, 0.9, 0.99) if floor else (0.0,)
        ):
            rise = max(middle - share * low, 1e-3 * middle)
            rows.append(
                [math.log(rise) + slope * float(x.median()), slope, *([math.log(share * low)] if floor else [])]
            )
        return torch.tensor(rows, dtype=torch.float64)

    def terms(columns: Columns) -> list[Tensor]:
        x = columns[column].log()
        return (
            _stacked(columns, column, (1.0, -x, 0.0), (0.0, 0.0, 1.0))
            if floor
            else _stacked(columns, column, (1.0, -x))
        )

    def shown(theta: Tensor) -> Shown:
        values = {"A": theta[:, 0].exp(), "alpha": theta[:, 1]}
        return values | ({"E": theta[:, 2].exp()} if floor else {})

    return Law(
        name=name or ("power-floor" if floor else "power"),
        formula=f"{target} = {'E + ' if floor else ''}A / {column}^alpha",
        source="Hoffmann et al. 2022, arXiv 2203.15556 (its one-variable form)",
        inputs=(column,),
        parameters=("a", "alpha", "e") if floor else ("a", "alpha"),
        shown=shown,
        starts=starts,
        units={"E": f"unit of {target}", "A": f"unit of {target}"},
        terms=terms,
        target=target,
        exponents=("alpha",),
        floor="E" if floor else "",
    )


# --- Chinchilla ---------------------------------------------------------------------------------------------------------


def _chinchilla_terms(c: Columns) -> list[Tensor]:
    n, d = -c["params"].log(), -c["tokens"].log()
    return _stacked(c, "params", (1.0, 0.0, 0.0, n, 0.0), (0.0, 1.0, 0.0, 0.0, d), (0.0, 0.0, 1.0, 0.0, 0.0))


def _chinchilla_shown(t: Tensor) -> Shown:
    a, b, e, alpha, beta = t.unbind(1)
    return {
        "E": e.exp(),
        "A": a.exp(),
        "B": b.exp(),
        "alpha": alpha,
        "beta": beta,
        "exponent_N": beta / (alpha + beta),
        "exponent_D": alpha / (alpha + beta),
    }


def _additive_optimum(
    a: Tensor, b: Tensor, alpha: Tensor, beta: Tensor, compute: Tensor, product: float = FLOPS_PER_PARAM_TOKEN
) -> tuple[Tensor, Tensor]:
    """Of exp(a) / N^alpha + exp(b) / D^beta along N D = C / 6 (Hoffmann et al. 2022, equation 4)."""
    g = ((alpha.log() + a - beta.log() - b) / (alpha + beta))[:, None]
    whole = (compute / product).log()
    share = (beta / (alpha + beta))[:, None]
    return (g + share * whole).exp(), ((1 - share) * whole - g).exp()


# Hoffmann et al. 2022, section 3.3: 4,500 combinations of a, b, e, alpha, beta
_CHINCHILLA_GRID = (
    _steps(0, 25, 5),
    _steps(0, 25, 5),
    _steps(-1, 1, 0.5),
    _steps(0, 2, 0.5),
    _steps(0, 2, 0.5),
)

CHINCHILLA = Law(
    name="chinchilla",
    formula="L(N, D) = E + A / N^alpha + B / D^beta",
    source="Hoffmann et al. 2022, arXiv 2203.15556, section 3.3; grid of 4,500 starts",
    inputs=("params", "tokens"),
    parameters=("a", "b", "e", "alpha", "beta"),
    shown=_chinchilla_shown,
    starts=lambda columns, target: _grid(*_CHINCHILLA_GRID),
    units={"E": "nats per token", "A": "nats per token", "B": "nats per token"},
    terms=_chinchilla_terms,
    exponents=("alpha", "beta"),
    floor="E",
    optimum=lambda t, c: _additive_optimum(t[:, 0], t[:, 1], t[:, 3], t[:, 4], c),
)


def _tied_terms(c: Columns) -> list[Tensor]:
    n, d = -c["params"].log(), -c["tokens"].log()
    return _stacked(c, "params", (1.0, 0.0, 0.0, n), (0.0, 1.0, 0.0, d), (0.0, 0.0, 1.0, 0.0))


TIED = Law(
    name="tied",
    formula="L(N, D) = E + A / N^alpha + B / D^alpha",
    source="Muennighoff et al. 2023, arXiv 2305.16264, appendix A: alpha and beta set equal",
    inputs=("params", "tokens"),
    parameters=("a", "b", "e", "alpha"),
    shown=lambda t: {"E": t[:, 2].exp(), "A": t[:, 0].exp(), "B": t[:, 1].exp(), "alpha": t[:, 3]},
    starts=lambda columns, target: _grid(_steps(0, 25, 5), _steps(0, 25, 5), _steps(-1, 1, 0.5), _steps(0, 2, 0.25)),
    units={"E": "nats per token", "A": "nats per token", "B": "nats per token"},
    terms=_tied_terms,
    exponents=("alpha",),
    floor="E",
    optimum=lambda t, c: _additive_optimum(t[:, 0], t[:, 1], t[:, 3], t[:, 3], c),
)


# --- over-training ------------------------------------------------------------------------------------------------------


def _overtraining_terms(c: Columns) -> list[Tensor]:
    # b 6^(eta / 2) (M N)^eta with eta < 0 and M N = D; the parameter here is -eta
    n, d = -c["params"].log(), -c["tokens"].log() - math.log(6) / 2
    return _stacked(c, "params", (1.0, 0.0, 0.0, n), (0.0, 1.0, 0.0, d), (0.0, 0.0, 1.0, 0.0))


OVERTRAINING = Law(
    name="overtraining",
    formula="L(N, M) = E + a N^eta + b 6^(eta/2) (M N)^eta, M = tokens / params",
    source="Gadre et al. 2024, arXiv 2403.08540, section 3, with the constants as in its code; least squares on L",
    inputs=("params", "tokens"),
    parameters=("log_a", "log_b", "e", "minus_eta"),
    shown=lambda t: {"E": t[:, 2].exp(), "a": t[:, 0].exp(), "b": t[:, 1].exp(), "eta": -t[:, 3], "minus_eta": t[:, 3]},
    starts=lambda columns, target: _grid(
        (2.0, 4.0, 6.0, 8.0), (2.0, 4.0, 6.0, 8.0), (-0.5, 0.0, 0.5, 1.0), (0.1, 0.2, 0.3, 0.5)
    ),
    units={"E": "nats per token", "a": "nats per token", "b": "nats per token"},
    terms=_overtraining_terms,
    misfit="squares",
    exponents=("minus_eta",),
    floor="E",
    optimum=lambda t, c: _additive_optimum(t[:, 0], t[:, 1] - t[:, 3] * math.log(6) / 2, t[:, 3], t[:, 3], c),
)


# --- repeated data ------------------------------------------------------------------------------------------------------


def repeated(params: Tensor, tokens: Tensor, unique: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
    """What N and D are worth where D tokens are repetitions of U unique ones: N' and D', each (rows, points).

    theta: (rows, 6) a, b, e, alpha = beta, log R_D*, log R_N*. D' = U + U R_D* (1 - exp(-R_D / R_D*)) with R_D = D / U - 1, and
    the same for parameters beyond U_N, the optimal number for U tokens (Muennighoff et al. 2023, equations 5 and 6). The
    paper takes a, b, e, alpha from runs of one epoch alone, which is right where these have no more than U_N parameters.
    """
    a, b, _, alpha, rd, rn = (column[:, None] for column in theta.unbind(1))
    g = ((a - b) / (2 * alpha)).exp()  # G of Hoffmann's optimum with equal exponents: N_opt(D) = D G^2
    unique = torch.minimum(unique, tokens)
    enough = torch.minimum(params, unique * g * g)

    def worth(base: Tensor, extra: Tensor, limit: Tensor) -> Tensor:
        return base + base * limit * -torch.expm1(-extra / limit)

    return (
        worth(enough, params / enough - 1, rn.exp()),
        worth(unique, tokens / unique - 1, rd.exp()),
    )


def _repeated_log(theta: Tensor, c: Columns) -> Tensor:
    n, d = repeated(c["params"], c["tokens"], c["unique_tokens"], theta)
    a, b, e, alpha = (column[:, None] for column in theta.unbind(1)[:4])
    parts = torch.stack([a - alpha * n.log(), b - alpha * d.log(), e.expand(-1, n.shape[1])])
    return torch.logsumexp(parts, 0)


DATA_CONSTRAINED = Law(
    name="data-constrained",
    formula="L(N, D, U) = E + A / N'^alpha + B / D'^alpha, D' = U + U R_D* (1 - exp(-(D/U - 1) / R_D*)), N' likewise",
    source="Muennighoff et al. 2023, arXiv 2305.16264: E, A, B, alpha from runs of one epoch, then R_D* and R_N*",
    inputs=("params", "tokens", "unique_tokens"),
    parameters=("a", "b", "e", "alpha", "log_rd", "log_rn"),
    shown=lambda t: {**TIED.shown(t[:, :4]), "R_D": t[:, 4].exp(), "R_N": t[:, 5].exp()},
    starts=lambda columns, target: _grid(*([math.log(v) for v in (1.0, 5.0, 15.0, 50.0)] for _ in range(2))),
    units={**TIED.units, "R_D": "epochs", "R_N": "multiples of the optimal size"},
    log_law=_repeated_log,
    exponents=("alpha",),
    floor="E",
    optimum=TIED.optimum,
    first=TIED,
)


# --- broken power laws ----------------------------------------------------------------------------------------------------


def broken(column: str = "flops", breaks: int = 1, target: str = "loss") -> Law:
    """y = a + b x^-c0 prod_i (1 + (x / d_i)^(1 / f_i))^(-c_i f_i): power laws that pass smoothly into each other at d_i.

    c_i = 0 gives the power law with a floor, f_i -> 0 a sharp corner. theta: log a, log b, c0, then c_i, log d_i, log f_i.
    """

    def log_law(theta: Tensor, c: Columns) -> Tensor:
        x = c[column].log()
        log = theta[:, 1, None] - theta[:, 2, None] * x
        for i in range(3, 3 + 3 * breaks, 3):
            bend, where, sharp = (theta[:, j, None] for j in (i, i + 1, i + 2))
            width = sharp.exp()
            log = log - bend * width * torch.nn.functional.softplus((x - where) / width)
        return torch.logaddexp(theta[:, 0, None].expand_as(log), log)

    def starts(c: Columns, y: Tensor) -> Tensor:
        x = c[column].log()
        low, high, middle = float(x.min()), float(x.max()), float(x.mean())
        rows = []
        places = [low + (high - low) * (i + 1) / (breaks + 1) for i in range(breaks)]
        shifts = [(high - low) * s for s in (-0.25 / breaks, 0.0, 0.25 / breaks)]
        for share, c0, bend, shift, width in itertools.product(
            (0.01, 0.5, 0.9), (-0.1, 0.0, 0.1, 0.3, 0.6), (-0.3, 0.0, 0.3, 0.8), shifts, (0.1, 0.5, 2.0)
        ):
            start = [math.log(share * float(y.min())), float((y.log()).mean()) + c0 * middle, c0]
            for place in places:
                start += [bend, place + shift, math.log(width)]
            rows.append(start)
        return torch.tensor(rows, dtype=torch.float64)

    def shown(t: Tensor) -> Shown:
        values = {"a": t[:, 0].exp(), "b": t[:, 1].exp(), "c0": t[:, 2]}
        for i in range(breaks):
            values |= {
                f"c{i + 1}": t[:, 3 + 3 * i],
                f"d{i + 1}": t[:, 4 + 3 * i].exp(),
                f"f{i + 1}": t[:, 5 + 3 * i].exp(),
            }
        return values

    extra = [name for i in range(1, breaks + 1) for name in (f"c{i}", f"log_d{i}", f"log_f{i}")]
    return Law(
        name="broken" if breaks == 1 else f"broken-{breaks}",
        formula=f"{target} = a + b x^-c0 prod_i (1 + (x / d_i)^(1 / f_i))^(-c_i f_i), x = {column}, {breaks} break(s)",
        source="Caballero et al. 2023, arXiv 2210.14891; mean square of log residuals",
        inputs=(column,),
        parameters=("log_a", "log_b", "c0", *extra),
        shown=shown,
        starts=starts,
        units={"a": f"unit of {target}", **{f"d{i + 1}": column for i in range(breaks)}},
        log_law=log_law,
        target=target,
        misfit="log-squares",
        floor="a",
    )


# --- by name --------------------------------------------------------------------------------------------------------------

LAWS: Mapping[str, Law] = {
    law.name: law for law in (CHINCHILLA, TIED, OVERTRAINING, DATA_CONSTRAINED, broken(), *_kaplan_laws())
}


def find(name: str, varying: Sequence[str]) -> Law:
    """The law of a name; `kaplan` and `broken` are the forms that fit the columns which vary in the table.

    Raises:
        UserError: for a name that is none.
    """
    if name in LAWS and name != "broken":
        return LAWS[name]
    if name == "broken":
        column = next((c for c in ("flops", "tokens", "params", "examples", "steps") if c in varying), "flops")
        return broken(column)
    if name == "kaplan":
        forms = ("kaplan-nd", "kaplan-ns", "kaplan-n", "kaplan-d", "kaplan-c", "kaplan-batch")
        return LAWS[next((f for f in forms if set(LAWS[f].inputs) <= set(varying)), "kaplan-nd")]
    raise UserError(f"There is no law {name}{suggest(name, [*LAWS, 'kaplan'])}; laws are kaplan, {', '.join(LAWS)}.")
