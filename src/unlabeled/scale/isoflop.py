"""The best size for each compute budget, read off the runs: isoFLOP minima and the envelope of training curves.

Hoffmann et al. 2022 (arXiv 2203.15556, sections 3.1 and 3.2): the two approaches without a law of the loss. Porian et al. 2024
(arXiv 2406.19146, section 2 and its repository): Akima interpolation in place of the parabola, with repetitions under noise of
the size of seeds that say how well each minimum is known, and weight it. Both estimates are reported; where they differ, the
curves are too coarse. A minimum at the edge of the sizes is none, and is left out with that reason.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from unlabeled.core.errors import UserError
from unlabeled.scale.fit import Fit, fit_law
from unlabeled.scale.laws import power
from unlabeled.scale.result import HeldOut, Result, interval
from unlabeled.scale.table import Excluded, Table

__all__ = ["Envelope", "IsoFlop", "Vertex", "akima", "fit_envelope", "fit_isoflop"]

_SAME_BUDGET = math.log(
    1.15
)  # runs whose compute differs by less than this share a budget; budgets lie a factor 2 apart
_WIDEST = math.log(1.5)  # of a budget: runs of every compute, without gaps, are no budgets
_AROUND = 2  # points on each side of the lowest that the parabola goes through
_FEWEST = 4  # sizes that a budget needs
_FINE = 25  # interpolated points between two sizes (Porian et al.)
_NOISE = (
    0.002  # of the log loss between seeds, where the residuals of the parabolas say nothing (Porian et al., at loss 3)
)
_GRID = 1500  # values of compute at which the envelope is read (Hoffmann et al.)
_SMOOTH = 0.05  # half-width of the moving average over a training curve, as a share of the step (Porian et al.)


@dataclass(frozen=True)
class Vertex:
    """The minimum of one budget. params: by the parabola; akima: by interpolation, and sigma: the spread of its logarithm
    under noise. tokens, loss: there. bend: c of loss + c (log N - log params)^2, the parabola. sizes: runs of the budget."""

    flops: float
    params: float
    akima: float
    sigma: float
    tokens: float
    loss: float
    bend: float
    sizes: int


@dataclass(frozen=True, kw_only=True)
class IsoFlop(Result):
    """parameters: exponent_N and coefficient_N of N*(C) = k C^p by the weighted Akima minima, exponent_D of D*(C), and
    exponent_N_parabola. vertices: the minima. frontier: E + A / C^alpha fitted to their losses, or None."""

    vertices: tuple[Vertex, ...]
    frontier: Fit | None

    def optimum(self, compute: float) -> float:
        """N*(C)."""
        return self.parameters["coefficient_N"] * compute ** self.parameters["exponent_N"]


@dataclass(frozen=True, kw_only=True)
class Envelope(Result):
    """parameters: exponent_N, coefficient_N and the same of D. frontier: (points, 4) compute, params, tokens and loss of the best
    run at each value of compute."""

    frontier: np.ndarray


def fit_isoflop(
    table: Table, *, noise: float | None = None, draws: int = 1000, level: float = 0.9, seed: int = 0
) -> IsoFlop:
    """Minima of loss against size at each budget, and their power law in compute.

    noise: standard deviation of the log loss between seeds; by default what the parabolas leave over. draws: repetitions
    under noise.

    Raises:
        UserError: where fewer than two budgets have a minimum inside their sizes.
    """
    table.need(("params", "flops", "tokens"))
    groups = _budgets(table)
    random = np.random.default_rng(seed)
    parabolas = [_parabola(table, rows) for rows in groups]
    over = [p.residual for p in parabolas if not p.why and p.residual > 0]
    noise = noise or (float(np.sqrt(np.mean(np.square(over)))) if over else _NOISE)
    vertices: list[Vertex] = []
    repeats: list[np.ndarray] = []
    excluded = list(table.excluded)
    used = 0
    for rows, found in zip(groups, parabolas):
        flops = float(np.exp(np.log(table["flops"][rows]).mean()))
        why, drawn, best = found.why, np.empty(0), math.nan
        if not why:
            best, drawn, why = _akima_minimum(table, rows, noise, max(draws, 100), random)
        if why:
            excluded += [Excluded(table.names[i], f"budget {flops:.3g}: {why}") for i in rows]
            continue
        used += len(rows)
        size = np.log(table["params"][rows])
        tokens = float(np.exp(np.interp(found.vertex, size, np.log(table["tokens"][rows]))))
        floor = float(np.diff(size).mean()) / 3  # a spread far below the step of the sizes is not believed
        sigma = max(float(drawn.std()), floor)
        at = math.exp(found.vertex)
        vertices.append(Vertex(flops, at, math.exp(best), sigma, tokens, found.loss, found.bend, len(rows)))
        repeats.append(drawn)
    if len(vertices) < 2:
        reasons = "; ".join(dict.fromkeys(e.why for e in excluded)) or "there are too few"
        raise UserError(
            f"{table.source}: {len(vertices)} budgets have a minimum inside their sizes, and two are the least ({reasons}); "
            "train sizes on both sides of each minimum."
        )
    return _isoflop(table, vertices, repeats, excluded, used, noise, draws, level, random)


def _isoflop(
    table: Table,
    vertices: Sequence[Vertex],
    repeats: Sequence[np.ndarray],
    excluded: Sequence[Excluded],
    used: int,
    noise: float,
    draws: int,
    level: float,
    random: np.random.Generator,
) -> IsoFlop:
    compute = np.log([v.flops for v in vertices])
    sigma = np.array([v.sigma for v in vertices])
    plain, parabola = (np.log([getattr(v, name) for v in vertices]) for name in ("akima", "params"))
    tokens = np.log([v.tokens for v in vertices])
    slope, constant = _line(compute, plain, sigma)
    many = np.array([_line(compute, [random.choice(r) for r in repeats], sigma) for _ in range(draws)])
    exponents = {
        "exponent_N": slope,
        "coefficient_N": math.exp(constant),
        "exponent_D": _line(compute, tokens, sigma)[0],
        "exponent_N_parabola": _line(compute, parabola, np.ones_like(sigma))[0],
        "exponent_N_unweighted": _line(compute, plain, np.ones_like(sigma))[0],
    }
    intervals = {}
    if draws:
        intervals = {"exponent_N": interval(many[:, 0], level), "coefficient_N": interval(np.exp(many[:, 1]), level)}
    frontier = None
    minima = Table(
        {"flops": np.exp(compute), "loss": np.array([v.loss for v in vertices])},
        names=tuple(f"minimum at {v.flops:.3g}" for v in vertices),
        source="the minima",
    )
    if len(vertices) >= 5:
        frontier = fit_law(minima, power("flops"), draws=min(draws, 200), level=level)
    heldout = frontier.heldout if frontier else None
    details = {
        "noise": noise,
        "minima": [v.__dict__ for v in vertices],
        "frontier": dict(frontier.parameters) if frontier else None,
        "largest_budget_params": _foretold(compute, plain, sigma),
    }
    found = IsoFlop(
        law="isoflop",
        formula="N*(C) = coefficient_N C^exponent_N at the minimum of the loss along N D = C / 6",
        source="Hoffmann et al. 2022, arXiv 2203.15556, section 3.2; Porian et al. 2024, arXiv 2406.19146",
        parameters=exponents,
        objective=float((((plain - constant - slope * compute) / sigma) ** 2).sum()),
        rows_used=used,
        rows_excluded=tuple(excluded),
        intervals=intervals,
        errors={"exponent_N": float(many[:, 0].std())} if draws else {},
        level=level,
        heldout=heldout,
        convention=table.convention,
        units={"coefficient_N": "parameters at one FLOP"},
        notes=table.notes,
        details=details,
        vertices=tuple(vertices),
        frontier=frontier,
    )
    object.__setattr__(found, "verdict", tuple(_judged(found)))
    return found


def _judged(found: IsoFlop) -> list[str]:
    said = []
    budgets = [v.flops for v in found.vertices]
    wide = math.log10(max(budgets) / min(budgets))
    if len(budgets) < 4:
        said.append(f"{len(budgets)} budgets have a minimum inside their sizes: too few for an exponent.")
    if wide < 1.5:
        said.append(f"The budgets span {wide:.1f} decades of compute, and 1.5 is the least to see an exponent.")
    lost = {e.why for e in found.rows_excluded if e.why.startswith("budget ") and "edge" in e.why}
    if len(lost) > 1:
        said.append(
            f"{len(lost)} budgets have their minimum at an edge of the sizes: train smaller or larger models there."
        )
    low, high = found.intervals.get("exponent_N", (0.0, 0.0))
    if high - low > 0.2:
        said.append(
            f"The exponent is known to {low:.2f} to {high:.2f} only: more sizes a budget, or two seeds at the minimum."
        )
    gap = abs(found.parameters["exponent_N"] - found.parameters["exponent_N_parabola"])
    if gap > 0.05:
        said.append(f"Parabola and interpolation differ by {gap:.2f} in the exponent: the sizes lie too far apart.")
    return said


def _foretold(compute: np.ndarray, size: np.ndarray, sigma: np.ndarray) -> dict[str, float] | None:
    """Size at the largest budget, foretold from the others."""
    if len(compute) < 4:
        return None
    order = np.argsort(compute)
    slope, constant = _line(compute[order[:-1]], size[order[:-1]], sigma[order[:-1]])
    foretold = math.exp(constant + slope * compute[order[-1]])
    measured = math.exp(size[order[-1]])
    return {"foretold": foretold, "measured": measured, "relative_error": abs(foretold / measured - 1)}


def _budgets(table: Table) -> list[np.ndarray]:
    """Rows of each budget, by size; of a size that was trained several times, every run."""
    order = np.argsort(table["flops"], kind="stable")
    logs = np.log(table["flops"][order])
    cuts = np.flatnonzero(np.diff(logs) > _SAME_BUDGET) + 1
    return [rows[np.argsort(table["params"][rows], kind="stable")] for rows in np.split(order, cuts)]


@dataclass(frozen=True)
class _Parabola:
    vertex: float = math.nan
    loss: float = math.nan
    bend: float = math.nan
    residual: float = 0.0
    why: str = ""


def _merged(table: Table, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Log size, rising, and mean loss of each size."""
    size, place = np.unique(np.log(table["params"][rows]), return_inverse=True)
    return size, np.bincount(place, table["loss"][rows]) / np.bincount(place)


def _parabola(table: Table, rows: np.ndarray) -> _Parabola:
    """Through the points around the lowest: vertex as log N, loss there, residual of the log loss."""
    flops = table["flops"][rows]
    if math.log(flops.max() / flops.min()) > _WIDEST:
        return _Parabola(why=f"runs of {flops.min():.3g} to {flops.max():.3g} FLOPs follow each other without a gap")
    size, loss = _merged(table, rows)
    if len(size) < _FEWEST:
        return _Parabola(why=f"{len(size)} sizes, and {_FEWEST} are the least for a minimum")
    lowest = int(loss.argmin())
    if lowest in (0, len(size) - 1):
        return _Parabola(why="the minimum is at an edge of the sizes")
    width = 2 * _AROUND + 1
    low = max(0, min(lowest - _AROUND, len(size) - width))
    u, y = size[low : low + width], loss[low : low + width]
    middle = u.mean()
    bent, tilt, _ = poly = np.polyfit(u - middle, y, 2)
    if bent <= 0:
        return _Parabola(why="the curve is not bent upwards")
    vertex = middle - tilt / (2 * bent)
    if not size[0] <= vertex <= size[-1]:
        return _Parabola(why="the vertex of the parabola is outside, beyond the edge of the sizes")
    left = np.log(y) - np.log(np.polyval(poly, u - middle))
    residual = math.sqrt(float((left**2).sum()) / (len(u) - 3)) if len(u) > 3 else 0.0
    return _Parabola(float(vertex), float(np.polyval(poly, vertex - middle)), float(bent), residual)


def _akima_minimum(
    table: Table, rows: np.ndarray, noise: float, draws: int, random: np.random.Generator
) -> tuple[float, np.ndarray, str]:
    """Log size of the interpolated minimum, the same under noise (draws,), or why there is none."""
    size, loss = _merged(table, rows)
    fine = np.linspace(size[0], size[-1], _FINE * (len(size) - 1))
    curves = np.log(loss) + noise * np.concatenate(
        [np.zeros((1, len(size))), random.standard_normal((draws, len(size)))]
    )
    at = akima(size, curves, fine).argmin(1)
    inside = (at > 0) & (at < len(fine) - 1)
    if not inside[0] or inside[1:].mean() < 0.5:
        return math.nan, np.empty(0), "noise of the size of seeds moves the minimum to an edge of the sizes"
    return float(fine[at[0]]), fine[at[1:][inside[1:]]], ""


def akima(x: np.ndarray, y: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Akima's interpolation (Journal of the ACM 17, 1970): y (curves, points) over rising x (points,), at (k,) -> (curves, k).

    Cubic between points, with slopes that a single outlier does not set swinging.
    """
    steps = np.diff(y, axis=1) / np.diff(x)
    if steps.shape[1] == 1:
        return y[:, :1] + steps * (at - x[0])
    first, last = 2 * steps[:, :1] - steps[:, 1:2], 2 * steps[:, -1:] - steps[:, -2:-1]
    steps = np.concatenate([2 * first - steps[:, :1], first, steps, last, 2 * last - steps[:, -1:]], 1)
    turns = np.abs(np.diff(steps, axis=1))
    after, before = turns[:, 2:], turns[:, :-2]
    total = after + before
    even = total < 1e-9 * (turns.max(1, keepdims=True) + 1e-300)
    weighed = (after * steps[:, 1:-2] + before * steps[:, 2:-1]) / np.where(even, 1.0, total)
    slope = np.where(even, (steps[:, 1:-2] + steps[:, 2:-1]) / 2, weighed)
    place = np.clip(np.searchsorted(x, at, side="right") - 1, 0, len(x) - 2)
    width = np.diff(x)[place]
    t = (at - x[place]) / width
    left, right = y[:, place], y[:, place + 1]
    rise, fall = slope[:, place] * width, slope[:, place + 1] * width
    smooth = t * t * (3 - 2 * t)
    return left + (right - left) * smooth + t * (1 - t) * ((1 - t) * rise - t * fall)


def _line(x: np.ndarray, y: Sequence[float] | np.ndarray, sigma: np.ndarray) -> tuple[float, float]:
    """Slope and constant of the weighted least-squares line."""
    y, weight = np.asarray(y), 1 / sigma**2
    middle, high = np.average(x, weights=weight), np.average(y, weights=weight)
    slope = float((weight * (x - middle) * (y - high)).sum() / (weight * (x - middle) ** 2).sum())
    return slope, float(high - slope * middle)


# --- envelope -------------------------------------------------------------------------------------------------------------


def fit_envelope(table: Table, *, skip: float = 0.05, draws: int = 1000, level: float = 0.9, seed: int = 0) -> Envelope:
    """The run of least loss at each of 1,500 values of compute, and the power law of its size.

    table: a row for each logged step, with the label `run` (or `name`). skip: first share of each run that is warm-up. Values of
    compute at which the next smaller or the next larger size was not trained are left out: it might be better.

    Raises:
        UserError: where the rows are no curves, or no size between the smallest and the largest is ever best.
    """
    table.need(("params", "flops", "tokens"))
    label = next((name for name in ("run", "name") if name in table.labels), None)
    runs = np.unique(table.labels[label]) if label else []
    if label is None or len(table) < 4 * len(runs):
        raise UserError(
            f"{table.source} has no training curves (a column run, and a row for each logged step of it); give run folders, or "
            "fit isoflop to the ends of the runs."
        )
    logs = np.log(table["flops"])
    grid = np.linspace(logs.min(), logs.max(), _GRID)
    curves, size, ratio = [], [], []
    for run in runs:
        rows = np.flatnonzero(table.labels[label] == run)
        rows = rows[np.argsort(logs[rows], kind="stable")]
        rows = rows[table["flops"][rows] >= skip * table["flops"][rows].max()]
        smooth = _smoothed(table["flops"][rows], np.log(table["loss"][rows]))
        curves.append(np.interp(grid, logs[rows], smooth, left=np.inf, right=np.inf))
        size.append(math.log(table["params"][rows[0]]))
        ratio.append(float(np.median(logs[rows] - np.log(table["tokens"][rows]))))  # FLOPs of a token
    losses, sizes, per_token = np.array(curves), np.array(size), np.array(ratio)
    every = _followed(losses, sizes, per_token, grid)
    if every is None:
        raise UserError(
            f"{table.source}: no size is ever best between a smaller and a larger one trained for as much; "
            "train more sizes and lengths."
        )
    frontier, values = every
    random = np.random.default_rng(seed)
    many = []
    for _ in range(draws):
        some = np.unique(random.integers(0, len(runs), len(runs)))
        found = _followed(losses[some], sizes[some], per_token[some], grid)
        if found is not None:
            many.append(found[1])
    drawn = {k: np.array([m[k] for m in many]) for k in values} if many else {}
    said = []
    wide = (frontier[-1, 0] / frontier[0, 0]) if len(frontier) else 1.0
    best = len(np.unique(frontier[:, 1]))
    if math.log10(wide) < 1:
        said.append(
            f"The envelope spans {math.log10(wide):.1f} decades of compute, and 1 is the least to see an exponent."
        )
    if best < 4:
        said.append(f"{best} sizes between the smallest and the largest are ever best: too few for an exponent.")
    if draws and len(many) < draws / 2:
        said.append("Half the resamples of runs have no envelope: the intervals mean little.")
    return Envelope(
        law="envelope",
        formula="N(C) = coefficient_N C^exponent_N of the run with the least loss at C",
        source="Hoffmann et al. 2022, arXiv 2203.15556, section 3.1",
        parameters=values,
        objective=float(
            np.square(np.log(frontier[:, 1] / (values["coefficient_N"] * frontier[:, 0] ** values["exponent_N"]))).sum()
        ),
        rows_used=len(table),
        rows_excluded=table.excluded,
        intervals={k: interval(v, level) for k, v in drawn.items()},
        errors={k: float(v.std()) for k, v in drawn.items()},
        level=level,
        heldout=_envelope_heldout(frontier),
        verdict=tuple(said),
        convention=table.convention,
        notes=table.notes,
        details={"runs": len(runs), "sizes_on_the_envelope": best},
        frontier=frontier,
    )


def _smoothed(step: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Mean over a window around each point whose half-width is a share of the step."""
    total = np.concatenate([[0.0], np.cumsum(value)])
    half = np.minimum(_SMOOTH * step, step[-1] - step)  # narrower towards the end, so that the window stays centred
    low = np.searchsorted(step, step - half, side="left")
    high = np.searchsorted(step, step + half, side="right")
    return (total[high] - total[low]) / (high - low)


def _followed(
    losses: np.ndarray, size: np.ndarray, per_token: np.ndarray, grid: np.ndarray
) -> tuple[np.ndarray, dict[str, float]] | None:
    """The envelope (points, 4) where a size between the extremes is best, and its power laws."""
    best = losses.argmin(0)
    lowest = losses[best, np.arange(len(grid))]
    # a size is known to be best only where the next smaller and the next larger one were trained for as much compute
    known, place = np.unique(size, return_inverse=True)
    covered = np.array([np.isfinite(losses[place == k]).any(0) for k in range(len(known))])
    rank = place[best]
    inner = np.clip(rank, 1, max(len(known) - 2, 1))
    between = np.isfinite(lowest) & (rank > 0) & (rank < len(known) - 1)
    if len(known) < 3:
        return None
    between &= covered[inner - 1, np.arange(len(grid))] & covered[inner + 1, np.arange(len(grid))]
    if between.sum() < 2 or len(np.unique(size[best[between]])) < 2:
        return None
    compute, best = grid[between], best[between]
    ones = np.ones(len(compute))
    slope, constant = _line(compute, size[best], ones)
    tokens = compute - per_token[best]
    other, start = _line(compute, tokens, ones)
    frontier = np.stack([np.exp(compute), np.exp(size[best]), np.exp(tokens), np.exp(lowest[between])], 1)
    return frontier, {
        "exponent_N": slope,
        "coefficient_N": math.exp(constant),
        "exponent_D": other,
        "coefficient_D": math.exp(start),
    }


def _envelope_heldout(frontier: np.ndarray) -> HeldOut | None:
    """The loss of the last tenth of the envelope's compute, foretold by E + A / C^alpha from the rest."""
    rows = np.unique(np.linspace(0, len(frontier) - 1, min(len(frontier), 60)).round().astype(int))
    if len(rows) < 10:
        return None
    points = Table({"flops": frontier[rows, 0], "loss": frontier[rows, 3]}, source="the envelope")
    return fit_law(points, power("flops"), draws=0).heldout
