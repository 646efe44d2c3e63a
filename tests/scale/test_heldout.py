"""What laws are fitted to: the kNN error of features, on the same labelled examples for every run."""

import math

import numpy as np
import pytest
import torch

from unlabeled.core import catalogue
from unlabeled.core.errors import UserError
from unlabeled.data.sources import source
from unlabeled.data.sources.memory import ImagesInMemory
from unlabeled.data.store import build
from unlabeled.evaluate import knn
from unlabeled.scale.heldout import knn_error, labelled, unit_of


def built(part, system="simclr", variant="tiny", **overrides):
    return catalogue.build(system, variant, lambda kind, config: kind.measure(config, part), **overrides)


def parts_of(data, method):
    return {name: (part, build(part, method)) for name in ("train", "test") for part in [data.split(name)]}


@pytest.fixture(scope="module")
def fashion():
    data = source("fashion")
    method = built(data.split("train"))
    return method, parts_of(data, method)


def test_the_error_is_the_share_of_wrong_votes_with_its_binomial_error(fashion):
    method, parts = fashion
    bank, queries = labelled(method, parts, 200)
    assert (len(bank), len(queries)) == (4000, 200)
    method.train()
    found = knn_error(method, bank, queries)
    assert method.training and unit_of(method, "knn") == found.unit == "kNN error"
    method.eval()
    with torch.no_grad():
        x, q = (
            method.embed(method.collate(part[1].batch(examples.indices))).numpy()
            for part, examples in zip(parts.values(), (bank, queries))
        )
    wrong = np.mean(knn.predict(x, bank.labels, q, k=20, temperature=0.07) != queries.labels)
    assert found.loss == pytest.approx(wrong, abs=2 / 200)  # other batches round otherwise
    assert found.error == pytest.approx(math.sqrt(found.loss * (1 - found.loss) / 200))
    assert found.examples == 200 and found.seconds > 0


def test_every_size_is_asked_the_same_in_every_process(fashion):
    method, parts = fashion
    other = built(parts["train"][0], conv_widths=[4, 4, 8, 8])
    for a, b in zip(labelled(method, parts, 100), labelled(other, parts, 100)):
        assert (a.indices == b.indices).all() and (a.labels == b.labels).all()
    few, many = labelled(method, parts, 50)[1], labelled(method, parts, 100)[1]
    assert (few.indices == many.indices[:50]).all()
    assert len(np.unique(many.labels)) == 10, "drawn at random, not the first of a sorted set"


def bars(shuffled=False):
    """Images whose class is the column that is bright, ten of each in both splits; every fifth has no label."""
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 40, (400, 16, 16, 1)).astype(np.uint8)
    labels = np.arange(400) % 10
    pictures[np.arange(400), :, labels] = 255
    if shuffled:
        labels = rng.permutation(labels)
    return pictures, np.where(np.arange(400) % 5 == 4, -1, labels)


@pytest.mark.parametrize("shuffled", [False, True])
def test_features_that_hold_the_class_are_never_wrong_and_those_that_do_not_are_at_chance(shuffled, monkeypatch):
    data = ImagesInMemory(*bars(shuffled))
    method = built(data.split("train"), image_size=16)
    monkeypatch.setattr(method, "embed", lambda batch: batch["image"].flatten(1).float())
    bank, queries = labelled(method, parts_of(data, method), 1000)
    assert (bank.labels >= 0).all() and (queries.labels >= 0).all() and 0 < len(queries) < 60
    error = knn_error(method, bank, queries).loss
    assert error > 0.6 if shuffled else error == 0


def test_what_has_no_features_or_no_classes_is_refused_in_a_sentence(fashion):
    _, parts = fashion
    glow = built(parts["train"][0], "glow")
    with pytest.raises(UserError, match="glow gives no features"):
        labelled(glow, parts, 10)
    plain = ImagesInMemory(bars()[0])
    method = built(plain.split("train"), image_size=16)
    with pytest.raises(UserError, match="no two classes"):
        labelled(method, parts_of(plain, method), 10)
