import numpy as np
import pytest

from unlabeled.evaluate import knn


def test_it_votes_as_scikit_learn_does():
    neighbors = pytest.importorskip("sklearn.neighbors")
    rng = np.random.default_rng(0)
    labels, answers = rng.integers(0, 5, 400), rng.integers(0, 5, 1100)  # more queries than one chunk
    centres = rng.normal(size=(5, 12))
    bank = (centres[labels] + rng.normal(size=(400, 12))).astype(np.float32)
    queries = (centres[answers] + rng.normal(size=(1100, 12))).astype(np.float32)
    for k, temperature in ((20, 0.07), (7, 0.5), (1, 0.07)):
        theirs = neighbors.KNeighborsClassifier(
            k, metric="cosine", algorithm="brute", weights=lambda d, t=temperature: np.exp((1 - d) / t)
        ).fit(bank, labels)
        ours = knn.predict(bank, labels, queries, k=k, temperature=temperature)
        np.testing.assert_array_equal(ours, theirs.predict(queries))
        assert 0.3 < (ours == answers).mean() < 1


def test_weights_decide_against_a_majority_when_the_temperature_is_low():
    bank = np.array([[1, 0], [0.6, 0.8], [0.6, 0.8]])
    labels, query = np.array([1, 0, 0]), np.array([[1.0, 0.0]])
    assert knn.predict(bank, labels, query, k=3, temperature=0.07) == [1]
    assert knn.predict(bank, labels, query, k=3, temperature=10) == [0]


def test_equal_votes_go_to_the_lowest_class_and_scale_does_not_matter():
    bank = np.array([[3.0, 0], [0, 5.0]])
    assert knn.predict(bank, np.array([1, 0]), np.array([[1.0, 1.0]]), k=2) == [0]
    similarity, index = knn.nearest(bank, np.array([[0.0, 0.1]]), 9)
    np.testing.assert_allclose(similarity, [[1, 0]], atol=1e-6)
    assert index.tolist() == [[1, 0]]
