import numpy as np
import pytest

from unlabeled.evaluate import linear


def _made(n: int, d: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 4
    centres = np.random.default_rng(99).normal(size=(4, d))
    return centres[labels] * 0.5 + rng.normal(size=(n, d)), labels


@pytest.mark.parametrize(("n", "d"), [(200, 6), (30, 80)])  # both ways of solving
def test_it_is_ridge_regression_on_standardised_features(n, d):
    ridge = pytest.importorskip("sklearn.linear_model").Ridge
    x, y = _made(n, d)
    queries, _ = _made(500, d, seed=1)
    x, queries = x * 100 + 5, queries * 100 + 5
    scale = x.std(0)
    theirs = ridge(alpha=0.1 * n).fit((x - x.mean(0)) / scale, np.eye(4)[y]).predict((queries - x.mean(0)) / scale)
    np.testing.assert_array_equal(linear.predict(x, y, queries), theirs.argmax(1))


def test_features_that_do_not_vary_are_left_out():
    x, y = _made(100, 5)
    queries, _ = _made(50, 5, seed=1)
    wider = np.c_[x, np.full(100, 7.0)], np.c_[queries, np.full(50, -3e9)]
    np.testing.assert_array_equal(linear.predict(x, y, queries), linear.predict(wider[0], y, wider[1]))


def test_a_draw_has_as_many_of_each_class_and_depends_on_the_seed_only():
    labels = np.r_[np.zeros(50), np.ones(50), np.full(3, 2)].astype(int)
    rows = linear.draw(labels, 10, seed=4)
    assert np.bincount(labels[rows]).tolist() == [10, 10, 3]
    assert len(set(rows)) == 23
    np.testing.assert_array_equal(rows, linear.draw(labels, 10, seed=4))
    assert rows.tolist() != linear.draw(labels, 10, seed=5).tolist()


def test_few_labels_give_mean_and_deviation_of_the_draws():
    x, y = _made(300, 8)
    queries, answers = _made(300, 8, seed=1)
    each = []
    for i in range(3):
        rows = linear.draw(y, 10, 2000 + i)
        each.append((linear.predict(x[rows], y[rows], queries) == answers).mean())
    mean, deviation = linear.few_labels(x, y, queries, answers, 10, draws=3, seed=2)
    assert (mean, deviation) == pytest.approx((np.mean(each), np.std(each, ddof=1)))
    assert deviation > 0
    assert linear.few_labels(x, y, queries, answers, 60, draws=3)[0] > mean
