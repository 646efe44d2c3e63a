import numpy as np
import pytest

from unlabeled.evaluate.copies import copies
from unlabeled.evaluate.generator import gaussian_images


def test_copies_are_found_and_new_draws_are_not_called_so():
    rng = np.random.default_rng(0)
    train, test, new = (rng.normal(size=(n, 10)).astype(np.float32) for n in (800, 400, 400))
    found = copies(np.r_[train[5:105] + 1e-6, new[:300]], train, test)
    np.testing.assert_array_equal(found.nearest[:100], np.arange(5, 105))
    assert found.share == pytest.approx(0.25, abs=0.03)
    assert copies(new, train, test).share < 0.04
    exact = np.linalg.norm(new[:, None] - train[None], axis=2).min(1)
    np.testing.assert_allclose(copies(new, train, test).distance, exact, rtol=1e-4)


def test_copies_are_found_even_where_test_rows_are_copies_too():
    train = np.random.default_rng(0).normal(size=(100, 4))
    assert copies(train[:10], train, train[:50]).share == 1


def test_gaussian_images_have_the_mean_and_covariance_of_the_pixels():
    rng = np.random.default_rng(0)
    base = rng.normal(size=(500, 3)) @ rng.normal(size=(3, 16)) * 12 + 128
    images = base.clip(0, 255).astype(np.uint8).reshape(500, 4, 4, 1)
    made = gaussian_images(images, 20_000)
    assert made.shape == (20_000, 4, 4, 1) and made.dtype == np.uint8
    ours, theirs = made.reshape(-1, 16).astype(float), images.reshape(-1, 16).astype(float)
    np.testing.assert_allclose(ours.mean(0), theirs.mean(0), atol=1.5)
    scale = theirs.var(0).max()
    np.testing.assert_allclose(np.cov(ours.T) / scale, np.cov(theirs.T) / scale, atol=0.06)
