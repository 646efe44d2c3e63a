"""k-means for any number of vectors: k-means++, Lloyd's rounds, on the sphere too; memory bounded by chunks.

Arthur and Vassilvitskii: k-means++, the Advantages of Careful Seeding. SODA 2007. Spherical: Dhillon and Modha 2001.
As in FAISS, centroids are fitted on a sample of the points; as in scikit-learn, an empty cluster takes the point that is
farthest from its centroid.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from unlabeled.core.errors import UserError

__all__ = ["Clusters", "assign", "kmeans", "plus_plus"]

SAMPLE = 256  # points per centroid that the fit looks at (FAISS's max_points_per_centroid)
_SEEDED = 16_384  # points that k-means++ draws from, or 16 per centroid: it passes over them k times
_ENTRIES = 1 << 24  # of a chunk's table of distances: 64 MB


class Clusters(NamedTuple):
    """centroids: (k, d) float32, of unit length on the sphere. inertia: mean squared distance of the points that were
    looked at to their centroid. rounds: how many it took."""

    centroids: Tensor
    inertia: float
    rounds: int


@torch.no_grad()
def kmeans(
    points: Tensor,
    k: int,
    *,
    spherical: bool = False,
    start: Tensor | None = None,
    restarts: int = 1,
    rounds: int = 100,
    tolerance: float = 1e-4,
    sample: int | None = SAMPLE,
    seed: int = 0,
) -> Clusters:
    """Centroids of points (n, d), computed in float32 where the points are; the same for the same seed and order.

    spherical: on points of unit length, by cosine. start: (k, d), instead of k-means++. restarts: of several starts the
    one of least inertia is taken. tolerance: stop where centroids move by less, squared and summed, in units of the
    mean variance of a coordinate; 0 goes on until no point changes. sample: points per centroid to fit on; None: all.

    Raises:
        UserError: where there are fewer points than centroids, or they are not finite.
    """
    if not 0 < k <= len(points):
        raise UserError(f"{len(points):,} points cannot form {k:,} clusters; ask for at most one for each point.")
    draw = torch.Generator().manual_seed(seed)
    if sample is not None and len(points) > sample * k:
        rows = torch.randperm(len(points), generator=draw)[: sample * k].sort().values
        points = points[rows.to(points.device)]
    points = F.normalize(points.float(), dim=1) if spherical else points.float()
    if not bool(torch.isfinite(points).all()):
        raise UserError("The vectors to cluster are not finite; the network that made them has failed.")
    still = tolerance * float(points.var(0, correction=0).mean())
    found: list[Clusters] = []
    for _ in range(1 if start is not None else restarts):
        centroids = plus_plus(points, k, draw) if start is None else start.to(points)
        centroids = F.normalize(centroids, dim=1) if spherical else centroids
        found.append(_lloyd(points, centroids, spherical, rounds, still))
    return min(found, key=lambda c: c.inertia)


@torch.no_grad()
def assign(points: Tensor, centroids: Tensor, *, spherical: bool = False) -> tuple[Tensor, Tensor]:
    """The nearest centroid of each point (n, d): (n,) int64, ties to the lowest, and the squared distance, (n,) float32.

    On the sphere the squared distance of unit vectors is 2 - 2 cosine.
    """
    middle = centroids.mean(0)  # distances from afar lose digits: |x|^2 - 2xc + |c|^2
    c = centroids - middle
    squares = c.square().sum(1)
    which = torch.empty(len(points), dtype=torch.int64, device=points.device)
    distance = torch.empty(len(points), device=points.device)
    rows = max(1, _ENTRIES // max(len(c), c.shape[1]))
    for first in range(0, len(points), rows):
        x = points[first : first + rows].float()
        x = (F.normalize(x, dim=1) if spherical else x) - middle
        nearest = torch.addmm(squares, x, c.T, alpha=-2).argmin(1)
        which[first : first + rows] = nearest
        distance[first : first + rows] = (x - c[nearest]).square().sum(1)
    return which, distance


def plus_plus(points: Tensor, k: int, draw: torch.Generator) -> Tensor:
    """(k, d) of the points (n, d), each drawn with probability proportional to its squared distance from those before."""
    most = max(_SEEDED, 16 * k)
    if len(points) > most:
        points = points[torch.randperm(len(points), generator=draw)[:most].to(points.device)]
    chosen = points.new_empty(k, points.shape[1])
    distance = points.new_full((len(points),), float("inf"), dtype=torch.float64)
    place = int(torch.randint(len(points), (1,), generator=draw))
    for i in range(k):
        chosen[i] = points[place]
        distance = torch.minimum(distance, (points - chosen[i]).square().sum(1).double())
        ends = distance.cumsum(0)
        aim = torch.rand(1, generator=draw, dtype=torch.float64).to(ends.device) * ends[-1]
        # Where every point is a centre already, all distances are 0 and any point does.
        place = min(int(torch.searchsorted(ends, aim, right=True)), len(points) - 1)
    return chosen


def _lloyd(points: Tensor, centroids: Tensor, spherical: bool, rounds: int, still: float) -> Clusters:
    before, taken = None, 0
    while taken < rounds:
        taken += 1
        which, distance = assign(points, centroids)
        if before is not None and torch.equal(which, before):
            break
        before = which
        moved = _means(points, _relocated(which, distance, len(centroids)), centroids)
        moved = F.normalize(moved, dim=1) if spherical else moved
        shift, centroids = float((moved - centroids).square().sum()), moved
        if shift <= still and still > 0:
            break
    return Clusters(centroids, float(assign(points, centroids)[1].double().mean()), taken)


def _relocated(which: Tensor, distance: Tensor, k: int) -> Tensor:
    """The clusters of the points, with the farthest points given to those clusters that have none."""
    empty = (torch.bincount(which, minlength=k) == 0).nonzero()[:, 0]
    if not len(empty):
        return which
    far = distance.topk(min(len(empty), len(distance)))
    far_off = far.indices[far.values > 0]
    which = which.clone()
    which[far_off] = empty[: len(far_off)]
    return which


def _means(points: Tensor, which: Tensor, before: Tensor) -> Tensor:
    """(k, d) means; a cluster without points stays. Summed in float64, so that the order of sums does not show."""
    sums = torch.zeros(before.shape, dtype=torch.float64, device=points.device)
    rows = max(1, _ENTRIES // before.shape[1])
    for first in range(0, len(points), rows):
        sums.index_add_(0, which[first : first + rows], points[first : first + rows].double())
    counts = torch.bincount(which, minlength=len(before))[:, None]
    return torch.where(counts > 0, sums / counts.clamp_min(1), before.double()).float()
