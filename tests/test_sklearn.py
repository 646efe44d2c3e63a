"""The encoder keeps scikit-learn's contract and drops into a pipeline."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from unlabeled.sklearn import Encoder

TINY = {"variant": "tiny", "budget": "1steps"}


def images(n: int = 24, *shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, *shape), dtype=np.uint8)


@parametrize_with_checks([Encoder(**TINY)])
def test_contract(estimator: Encoder, check) -> None:
    check(estimator)


@pytest.mark.parametrize("shape", [(16, 16), (16, 16, 1), (16, 16, 3), (256,), (100,), (3,)])
def test_shapes(shape: tuple[int, ...]) -> None:
    encoder = Encoder(**TINY).fit(images(24, *shape))
    features = encoder.transform(images(5, *shape))
    assert features.shape == (5, len(encoder.get_feature_names_out()))
    assert np.isfinite(features).all()


def test_flattened_squares_are_the_images_they_were() -> None:
    square, flat = images(24, 16, 16), images(24, 16, 16).reshape(24, 256)
    a, b = Encoder(**TINY).fit(square), Encoder(**TINY).fit(flat)
    assert a.image_shape_ == b.image_shape_ == (16, 16, 1)
    np.testing.assert_array_equal(a.transform(square), b.transform(flat))


def test_bytes_and_their_floats_give_the_same_features() -> None:
    X = images(24, 16, 16)
    X[0, 0, 0], X[0, 0, 1] = 0, 255
    a, b = Encoder(**TINY).fit(X), Encoder(**TINY).fit(X / 255.0)
    np.testing.assert_array_equal(a.transform(X), b.transform(X / 255.0))


def test_same_seed_same_features_and_another_differs() -> None:
    X = images(24, 16, 16)
    a, b, c = (Encoder(**TINY, seed=s).fit_transform(X) for s in (0, 0, 1))
    np.testing.assert_array_equal(a, b)
    assert not np.allclose(a, c)


def test_pipeline_with_a_classifier() -> None:
    X, y = images(40, 16, 16), np.repeat([0, 1], 20)
    X[20:, :8] //= 8  # the upper half of one class is dark
    pipeline = make_pipeline(Encoder(variant="tiny", budget="10steps"), LogisticRegression(max_iter=500))
    assert pipeline.fit(X[::2], y[::2]).score(X[1::2], y[1::2]) > 0.8


def test_survives_cloning_and_pickling() -> None:
    X = images(24, 16, 16)
    encoder = Encoder(**TINY, settings={"batch": 8}).fit(X)
    assert clone(encoder).get_params() == encoder.get_params()
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(encoder)).transform(X), encoder.transform(X))


def test_all_rows_are_trained_on() -> None:
    # A run of its own holds out a tenth; here the caller has split already.
    encoder = Encoder(variant="tiny", budget="1steps", settings={"batch": 24}).fit(images(24, 16, 16))
    assert encoder.model_.spec.examples == 24
