"""Speed of the Chinchilla fit: 4,500 starts and 1,000 bootstrap resamples, against the published loop over scipy.

The published way (Besiroglu et al. 2024, repository epoch-research/analyzing-chinchilla, data_analysis.ipynb, cells 18 and 21):
for each start of the grid one scipy.optimize.minimize by L-BFGS-B with numerical gradients and scipy's tolerances, one after
another; for each resample BFGS with gradients (theirs by the package autograd, here by formula, which is faster). Beside it
L-BFGS-B by formula with tolerances that do reach the optimum, the most that a loop can be given. Of the loops a sample of
starts, drawn without preference, is timed and multiplied up; the figures say so. Ours runs whole, on one thread like them.

    python benchmarks/scale_fit.py [--sample 45] [--resamples 10]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from record import record
from scipy.optimize import minimize
from scipy.special import logsumexp

from unlabeled.scale.fit import fit_law, score
from unlabeled.scale.laws import CHINCHILLA
from unlabeled.scale.solve import DELTA, bootstrap, chosen, search, tensors
from unlabeled.scale.table import read

RUNS = Path(__file__).resolve().parent.parent / "tests" / "scale" / "data" / "chinchilla_fig4_runs.csv"
STARTS, RESAMPLES = 4500, 1000


def timed(work: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """The result, and seconds by the clock and of the processor: on a loaded machine only the latter compare."""
    wall, processor = time.perf_counter(), time.process_time()
    result = work()
    return result, {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - processor}


def objective(theta: np.ndarray, n: np.ndarray, d: np.ndarray, y: np.ndarray) -> float:
    a, b, e, alpha, beta = theta
    residual = np.abs(logsumexp([a - alpha * n, b - beta * d, np.full_like(n, e)], axis=0) - y)
    return float(np.where(residual <= 1e-3, residual**2 / 2, 1e-3 * (residual - 5e-4)).sum())


def with_gradient(theta: np.ndarray, n: np.ndarray, d: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
    a, b, e, alpha, beta = theta
    parts = np.array([a - alpha * n, b - beta * d, np.full_like(n, e)])
    fitted = logsumexp(parts, axis=0)
    residual = fitted - y
    pull = np.clip(residual, -1e-3, 1e-3)
    shares = np.exp(parts - fitted) * pull
    slope = np.array(
        [shares[0].sum(), shares[1].sum(), shares[2].sum(), -(shares[0] * n).sum(), -(shares[1] * d).sum()]
    )
    return float(
        (pull * (residual - pull / 2)).sum()
    ) * 1e3, slope * 1e3  # scaled so that the tolerances do not stop it early


Settings = tuple[Callable[..., Any], dict[str, Any]]
_TIGHT: Settings = (with_gradient, {"method": "L-BFGS-B", "jac": True, "options": {"ftol": 1e-15, "gtol": 1e-12}})
LOOPS: dict[str, tuple[Settings, Settings]] = {  # of the starts, of the resamples
    "scipy as published": ((objective, {"method": "L-BFGS-B"}), (with_gradient, {"method": "BFGS", "jac": True})),
    "scipy L-BFGS-B, gradient by formula, tight": (_TIGHT, _TIGHT),
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sample", type=int, default=45, help="starts of the loops that are timed")
    parser.add_argument("--resamples", type=int, default=10, help="resamples of the loops that are timed")
    options = parser.parse_args()
    torch.set_num_threads(1)
    table = read(RUNS).without_highest(5)
    columns, target = tensors(table, CHINCHILLA)
    fit_law(table, CHINCHILLA, draws=10, starts=CHINCHILLA.starts(columns, target)[::100])  # warm

    (ends, _), grid = timed(lambda: search(CHINCHILLA, columns, target, None, DELTA))
    best, _ = chosen(CHINCHILLA, ends, columns, target)
    theta = ends.points[best]
    samples, resampling = timed(lambda: bootstrap(CHINCHILLA, columns, target, theta, RESAMPLES, DELTA, 0))
    ours = {
        "starts": grid,
        "resamples": resampling,
        "objective": score(table, CHINCHILLA, theta),
        "alpha_error": float(samples[:, 3].std()),
    }

    arrays = (columns["params"].log().numpy(), columns["tokens"].log().numpy(), target.log().numpy())
    random = np.random.default_rng(0)
    starts = CHINCHILLA.starts(columns, target).numpy()[random.permutation(STARTS)[: options.sample]]
    drawn = random.integers(0, len(table), (options.resamples, len(table)))
    loops = {}
    for name, settings in LOOPS.items():

        def over_starts(function: Any = settings[0][0], more: Any = settings[0][1]) -> float:
            found = [minimize(function, s, args=arrays, **more).x for s in starts]
            return min(objective(x, *arrays) for x in found)

        def over_resamples(function: Any = settings[1][0], more: Any = settings[1][1]) -> None:
            for rows in drawn:
                minimize(function, theta.numpy(), args=tuple(a[rows] for a in arrays), **more)

        with np.errstate(all="ignore"):
            least, first = timed(over_starts)
            _, second = timed(over_resamples)
        first = {k: v * STARTS / options.sample for k, v in first.items()}
        second = {k: v * RESAMPLES / options.resamples for k, v in second.items()}
        cost = grid["cpu_seconds"] + resampling["cpu_seconds"]
        loops[name] = {
            "starts_scaled_up": first,
            "resamples_scaled_up": second,
            "least_objective_of_sample": least,
            "times_ours_by_processor": (first["cpu_seconds"] + second["cpu_seconds"]) / cost,
        }
    record(
        "scale-fit",
        {
            "rows": len(table),
            "starts": STARTS,
            "resamples": RESAMPLES,
            "threads": 1,
            "ours": ours,
            "loops": loops,
            "note": f"loops: {options.sample} of {STARTS} starts and {options.resamples} of {RESAMPLES} resamples were timed and "
            "multiplied up",
        },
    )


if __name__ == "__main__":
    main()
