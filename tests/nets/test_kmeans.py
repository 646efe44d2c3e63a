"""k-means: scikit-learn's result from the same start, every limit of k, the sphere, chunks, empty clusters."""

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans

from unlabeled.core.errors import UserError
from unlabeled.nets import kmeans as module
from unlabeled.nets.kmeans import assign, kmeans, plus_plus


def blobs(n=600, centres=6, width=5, spread=0.3, seed=0):
    rng = np.random.default_rng(seed)
    middle = rng.standard_normal((centres, width)) * 4
    which = rng.integers(0, centres, n)
    return torch.from_numpy((middle[which] + spread * rng.standard_normal((n, width))).astype(np.float32)), which


def test_the_same_as_scikit_learn_from_the_same_start():
    points = torch.randn(2000, 7, generator=torch.Generator().manual_seed(1)) + 100  # far off: digits are lost there
    start = points[:12].clone()
    ours = kmeans(points, 12, start=start, sample=None, rounds=500, tolerance=0)
    peer = KMeans(12, init=start.double().numpy(), n_init=1, max_iter=500, tol=0, algorithm="lloyd").fit(
        points.double().numpy()
    )
    assert np.array_equal(assign(points, ours.centroids)[0].numpy(), peer.labels_)
    np.testing.assert_allclose(ours.centroids.numpy(), peer.cluster_centers_, rtol=1e-6)
    assert ours.inertia == pytest.approx(peer.inertia_ / 2000, rel=1e-4)


def test_own_start_finds_blobs_and_does_as_well_as_scikit_learn():
    points, which = blobs()
    got = kmeans(points, 6, restarts=10)
    assert got.inertia <= KMeans(6, n_init=10, random_state=0).fit(points.numpy()).inertia_ / 600 * (1 + 1e-4)
    labels = assign(points, got.centroids)[0].numpy()
    assert all(len(set(labels[which == c])) == 1 for c in range(6)) and len(set(labels)) == 6


def test_inertia_never_rises_with_more_rounds_or_restarts():
    points = torch.randn(500, 8, generator=torch.Generator().manual_seed(0))
    by_rounds = [kmeans(points, 9, rounds=r, tolerance=0).inertia for r in (1, 2, 4, 8, 16)]
    assert by_rounds == sorted(by_rounds, reverse=True)
    pairs = [(kmeans(points, 9, restarts=8, seed=s).inertia, kmeans(points, 9, seed=s).inertia) for s in range(4)]
    assert all(best <= first for best, first in pairs) and any(best < first for best, first in pairs)


def test_one_cluster_is_the_mean_and_one_for_each_point_the_points():
    points, _ = blobs(40)
    torch.testing.assert_close(kmeans(points, 1).centroids[0], points.mean(0))
    assert kmeans(points, 40).inertia == pytest.approx(0, abs=1e-9)


def test_on_the_sphere_lengths_do_not_matter():
    points, _ = blobs(seed=3)
    scale = torch.rand(len(points), 1, generator=torch.Generator().manual_seed(0)) * 9 + 0.1
    a, b = kmeans(points, 6, spherical=True), kmeans(points * scale, 6, spherical=True)
    torch.testing.assert_close(a.centroids, b.centroids, atol=1e-5, rtol=0)
    torch.testing.assert_close(a.centroids.norm(dim=1), torch.ones(6))
    which, distance = assign(points, a.centroids, spherical=True)
    cosine = torch.nn.functional.normalize(points) @ a.centroids.T
    assert torch.equal(which, cosine.argmax(1))
    torch.testing.assert_close(distance, 2 - 2 * cosine.max(1).values, atol=2e-6, rtol=0)


def test_nothing_depends_on_the_size_of_chunks(monkeypatch):
    points, _ = blobs()
    whole = kmeans(points, 6)
    monkeypatch.setattr(module, "_ENTRIES", 100)
    torch.testing.assert_close(kmeans(points, 6).centroids, whole.centroids)


def test_the_same_seed_gives_the_same_and_another_another():
    points = torch.randn(400, 6, generator=torch.Generator().manual_seed(0))
    assert torch.equal(kmeans(points, 8, seed=4).centroids, kmeans(points, 8, seed=4).centroids)
    assert not torch.equal(kmeans(points, 8, seed=4).centroids, kmeans(points, 8, seed=5).centroids)


def test_empty_clusters_take_far_points():
    points = torch.cat([torch.zeros(50, 2), torch.full((50, 2), 10.0), torch.tensor([[40.0, 0.0]])])
    points += torch.randn(points.shape, generator=torch.Generator().manual_seed(0)) * 0.01
    start = torch.tensor([[0.0, 0.0], [500.0, 500.0], [900.0, 900.0]])  # two that nothing falls to
    got = kmeans(points, 3, start=start, tolerance=0)
    assert torch.bincount(assign(points, got.centroids)[0]).sort().values.tolist() == [1, 50, 50]


def test_fewer_distinct_points_than_clusters():
    points = torch.tensor([[0.0, 1.0], [2.0, 3.0]]).repeat(10, 1)
    got = kmeans(points, 5)
    assert torch.isfinite(got.centroids).all() and got.inertia == 0


def test_a_sample_is_enough():
    points, _ = blobs(6000)
    few, all_ = kmeans(points, 6, sample=50, restarts=5), kmeans(points, 6, sample=None, restarts=5)
    ours, whole = (float(assign(points, c.centroids)[1].mean()) for c in (few, all_))
    assert whole < ours < 1.05 * whole


def test_seeds_are_spread():
    """k-means++ against seeds drawn evenly: less than half of the squared distance on clear blobs."""
    points, _ = blobs(600, centres=20)
    draw = torch.Generator().manual_seed(0)
    spread = np.mean([float(assign(points, plus_plus(points, 20, draw))[1].mean()) for _ in range(20)])
    even = np.mean(
        [float(assign(points, points[torch.randperm(600, generator=draw)[:20]])[1].mean()) for _ in range(20)]
    )
    assert spread < even / 2


def test_mistakes_are_told():
    with pytest.raises(UserError, match="cannot form 5 clusters"):
        kmeans(torch.zeros(4, 2), 5)
    with pytest.raises(UserError, match="not finite"):
        kmeans(torch.full((4, 2), float("nan")), 2)
