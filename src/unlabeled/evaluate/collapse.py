"""Whether features have fallen together, seen without labels.

Alignment and uniformity: Wang, Isola, ICML 2020. RankMe: Garrido, Balestriero, Najman, LeCun, ICML 2023.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.nn.functional import normalize

__all__ = ["alignment", "diagnosis", "rankme", "spread", "uniformity", "verdict"]


def diagnosis(rows: np.ndarray) -> dict[str, Any]:
    """What an evaluation says of features (n, d): the verdict and the figures behind it; finite or not."""
    width = rows.shape[1]
    if not np.isfinite(rows).all():
        return {"verdict": verdict(float("nan"), width, float("nan"))}
    rank, wide = rankme(rows), spread(rows)
    return {
        "verdict": verdict(rank, width, wide),
        "effective_rank": round(rank, 2),
        "feature_width": width,
        "uniformity": round(uniformity(rows), 4) if len(rows) > 1 else None,
        "spread": round(wide, 4),
        "diagnosed_on": len(rows),
    }


def alignment(a: np.ndarray, b: np.ndarray) -> float:
    """Mean squared distance of normalised pairs (n, d), (n, d): 0 if pairs coincide, 2 if they are unrelated."""
    return float((_unit(a) - _unit(b)).square().sum(1).mean())


def uniformity(rows: np.ndarray, t: float = 2.0) -> float:
    """log E exp(-t |x - y|^2) over all distinct pairs of normalised rows: 0 if collapsed, near -2 t if spread out."""
    return float(torch.pdist(_unit(rows)).square().mul(-t).exp().mean().log())


def rankme(rows: np.ndarray, eps: float = 1e-7) -> float:
    """Effective number of directions, in [1, min(n, d)]: exp of the entropy of the singular values of (n, d) rows.

    The rows are neither centred nor normalised; p_k = sigma_k / sum + eps, as in the paper.
    """
    # The squares of the singular values from the smaller product would cost half the digits; n is a few thousand.
    sigma = torch.linalg.svdvals(torch.from_numpy(np.asarray(rows, np.float64)))
    if not float(sigma.sum()):
        return 1.0
    p = sigma / sigma.sum() + eps
    return float((-(p * p.log()).sum()).exp())


def spread(rows: np.ndarray) -> float:
    """Mean standard deviation of the coordinates of normalised rows, times sqrt(d): 1 if spread out, 0 if collapsed."""
    return float(_unit(rows).std(0, correction=0).mean() * rows.shape[1] ** 0.5)


def verdict(rank: float, width: int, wide: float) -> str:
    """One sentence. rank: `rankme` of features of that width; wide: their `spread`."""
    if not np.isfinite(rank + wide):
        return "Broken: the features are not finite."
    if wide < 0.05 or rank < 1.5:
        return "Collapsed: all inputs get nearly the same features."
    if rank < max(3.0, 0.02 * width):
        return f"Partly collapsed: the features use about {rank:.0f} of {width} directions."
    return f"No sign of collapse: the features use about {rank:.0f} of {width} directions."


def _unit(rows: np.ndarray) -> torch.Tensor:
    return normalize(torch.from_numpy(np.asarray(rows, np.float64)), eps=1e-12)
