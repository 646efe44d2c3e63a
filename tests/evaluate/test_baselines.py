import numpy as np

from unlabeled.evaluate import baselines


def test_pixels_are_shares_of_white_and_large_images_are_averaged():
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    np.testing.assert_allclose(baselines.pixels(images), images.reshape(3, -1) / 255, rtol=1e-6)
    large = np.repeat(np.repeat(images, 8, 1), 8, 2)
    expected = np.repeat(np.repeat(images, 4, 1), 4, 2).transpose(0, 3, 1, 2).reshape(3, -1) / 255
    np.testing.assert_allclose(baselines.pixels(large), expected, rtol=1e-5)


def test_whitened_components_have_unit_covariance_and_are_fitted_to_the_training_rows_alone():
    rng = np.random.default_rng(0)
    train, test = (rng.normal(size=(n, 10)) @ np.diag([*range(1, 10), 30]) + 4 for n in (500, 50))
    apply = baselines.whitening(train, components=6)
    np.testing.assert_allclose(np.cov(apply(train).T), np.eye(6), atol=1e-5)
    np.testing.assert_allclose(apply(test)[:7], apply(test[:7]))
    # The first component is the direction of the largest variance.
    assert abs(np.corrcoef(apply(train)[:, 0], train[:, 9])[0, 1]) > 0.95


def test_there_are_no_more_components_than_directions():
    flat = np.random.default_rng(0).normal(size=(40, 3)) @ np.random.default_rng(1).normal(size=(3, 20))
    assert baselines.whitening(flat)(flat).shape == (40, 3)
