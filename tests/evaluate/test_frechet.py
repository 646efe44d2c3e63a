import numpy as np
import pytest

from unlabeled.evaluate import frechet

RNG = np.random.default_rng(3)
X, Y = RNG.normal(size=(400, 6)), RNG.normal(size=(300, 6)) @ RNG.normal(size=(6, 6)) + 1


def test_a_known_distance():
    found = frechet.frechet_of_moments(np.zeros(2), np.diag([1.0, 4]), np.array([3.0, 0]), np.diag([4.0, 1]))
    assert found == pytest.approx(11, abs=1e-12)


def test_zero_symmetric_invariant_and_additive():
    turn, _ = np.linalg.qr(RNG.normal(size=(6, 6)))
    distance = frechet.frechet(X, Y)
    assert frechet.frechet(X, X) == pytest.approx(0, abs=1e-9)
    assert frechet.frechet(Y, X) == pytest.approx(distance)
    assert frechet.frechet(X @ turn, Y @ turn) == pytest.approx(distance)
    first = [np.zeros(2), np.diag([1.0, 4]), np.ones(2), np.diag([2.0, 3])]
    second = [np.zeros(1), np.eye(1), np.ones(1), 9 * np.eye(1)]
    both = [
        np.r_[a, b] if a.ndim == 1 else np.block([[a, np.zeros((2, 1))], [np.zeros((1, 2)), b]])
        for a, b in zip(first, second)
    ]
    assert frechet.frechet_of_moments(*both) == pytest.approx(
        frechet.frechet_of_moments(*first) + frechet.frechet_of_moments(*second)
    )


def test_it_agrees_with_the_matrix_square_root():
    linalg = pytest.importorskip("scipy.linalg")
    c1, c2 = np.cov(X.T), np.cov(Y.T)
    theirs = np.square(X.mean(0) - Y.mean(0)).sum() + np.trace(c1 + c2 - 2 * linalg.sqrtm(c1 @ c2).real)
    assert frechet.frechet(X, Y) == pytest.approx(theirs, rel=1e-8)


def test_bias_at_a_finite_number():
    a, b = RNG.normal(size=(2, 500, 64))
    assert frechet.frechet(a, b) == pytest.approx(4.27, rel=0.1)


def test_kid_is_the_unbiased_estimate():
    x, y = X[:8], Y[:8]
    k = lambda p, q: (p @ q / 6 + 1) ** 3  # noqa: E731
    pairs = [(i, j) for i in range(8) for j in range(8)]
    direct = (
        sum(k(x[i], x[j]) + k(y[i], y[j]) for i, j in pairs if i != j) / 56
        - 2 * sum(k(x[i], y[j]) for i, j in pairs) / 64
    )
    assert frechet.kid(x, y, subsets=2)[0] == pytest.approx(direct)
    means = [frechet.kid(*np.random.default_rng(s).normal(size=(2, 60, 6)), subsets=1)[0] for s in range(200)]
    assert abs(np.mean(means)) < 4 * np.std(means) / 200**0.5
    assert frechet.kid(X, Y, subsets=5, size=100)[0] > 0.1


def test_reference_numbers_of_precision_recall_density_and_coverage():
    rng = np.random.default_rng(0)
    real, fake = rng.standard_normal((2000, 64)), rng.standard_normal((2000, 64))
    assert frechet.manifold(real, fake) == pytest.approx((0.712, 0.709, 0.971, 0.963), abs=1e-3)
    few = np.repeat(real[:20], 100, 0) + 1e-3 * rng.standard_normal((2000, 64))
    assert frechet.manifold(real, few) == pytest.approx((1, 0.01, 1.66, 0.089), abs=2e-3)
    assert frechet.manifold(real[:300], real[:300]) == pytest.approx((1, 1, 1, 1))
    assert frechet.manifold(real[:300], fake[:300] + 100) == (0, 0, 0, 0)
