import numpy as np
import pytest

from unlabeled.evaluate import collapse

INDEX = np.arange(32.0).reshape(4, 8)
A = np.sin(INDEX**2)
B = A + 0.3 * np.cos(INDEX**2 + INDEX)


def test_golden_numbers():
    assert collapse.alignment(A, B) == pytest.approx(0.0918081980, abs=1e-9)
    assert collapse.uniformity(A) == pytest.approx(-3.3164408206, abs=1e-9)
    assert collapse.rankme(A) == pytest.approx(3.8567358425, abs=1e-9)
    assert collapse.rankme(A, eps=0) == pytest.approx(3.8567351855, abs=1e-9)


def test_limits():
    same = np.ones((50, 8))
    spread = np.random.default_rng(0).normal(size=(2000, 64))
    assert collapse.uniformity(same) == pytest.approx(0, abs=1e-12)
    assert collapse.uniformity(spread) == pytest.approx(-4, abs=0.15)
    assert collapse.rankme(np.eye(5)) == pytest.approx(5, abs=1e-4)
    assert collapse.rankme(same) == pytest.approx(1, abs=1e-3)
    assert collapse.rankme(np.zeros((4, 3))) == 1
    assert collapse.spread(same) == pytest.approx(0, abs=1e-12)
    assert collapse.spread(spread) == pytest.approx(1, abs=0.02)
    assert collapse.alignment(spread, 3 * spread) == pytest.approx(0, abs=1e-12)


def test_the_verdict_tells_collapse_from_health():
    rng = np.random.default_rng(0)
    cases = {
        "Collapsed": np.ones((500, 256)) + 1e-4 * rng.normal(size=(500, 256)),
        "Partly": rng.normal(size=(500, 2)) @ rng.normal(size=(2, 256)),
        "No sign": rng.normal(size=(500, 256)),
    }
    for expected, rows in cases.items():
        assert collapse.verdict(collapse.rankme(rows), 256, collapse.spread(rows)).startswith(expected)
    assert collapse.verdict(float("nan"), 256, 1.0).startswith("Broken")
