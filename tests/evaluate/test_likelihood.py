"""Bits on data whose entropy is known, and what is said of models that are good, bad or impossible."""

import math
from typing import ClassVar

import numpy as np
import pytest
import torch

from unlabeled.core.config import MethodConfig
from unlabeled.core.method import Method
from unlabeled.data.sources import source
from unlabeled.data.sources.memory import ImagesInMemory
from unlabeled.evaluate import features, likelihood
from unlabeled.evaluate.result import Evaluation, TimeLimit
from unlabeled.model import Model

RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (600, 8, 8, 1), dtype=np.uint8)


class Knows(Method):
    """Says how many bits a pixel costs; and writes an image as its pixels, with so many of them forgotten."""

    Config, variants, takes = MethodConfig, {"tiny": {}}, ("image",)
    bits: ClassVar[float] = 3.0
    forgets: ClassVar[int] = 0

    def __init__(self, config, spec, given=None):
        super().__init__(config, spec)
        self.trained = torch.nn.Parameter(torch.zeros(()))

    def prepare(self, record, rng):
        return {"image": record.fields["image"]}

    def score(self, batch):
        bits = self.bits if self.trained else 8.0
        return torch.full((len(batch["image"]),), -bits * 64 * math.log(2), dtype=torch.float64)

    def encode(self, batch):
        flat = batch["image"].flatten(1).float() / 127.5 - 1
        flat[:, : self.forgets] = 0
        return flat

    def decode(self, codes):
        return {"image": ((codes + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).view(-1, 8, 8, 1)}

    def reconstruct(self, batch):
        return self.decode(self.encode(batch))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("UNLABELED_CACHE", str(tmp_path))
    monkeypatch.setitem(features.RECIPE, "examples", 640)


def measured(kind=Knows, images=NOISE, seconds=None):
    data = ImagesInMemory(images)
    model = Model("knows", kind(MethodConfig(), data.spec()), source=data)
    model.method.trained.data.fill_(1.0)
    found = Evaluation()
    likelihood.measure(model, found, quick=True, seed=0, limit=TimeLimit(seconds))
    return found


def test_noise_costs_eight_bits_whatever_looks_at_it():
    train, test = RNG.integers(0, 256, (2, 40_000, 6, 6, 1), dtype=np.uint8)
    # A table costs about (levels - 1) / (2 log 2) bits per pixel counted in each of its contexts, here 0.03 at most.
    assert likelihood.histogram_bits(train, test) == pytest.approx(8, abs=0.001)
    assert likelihood.pixel_bits(train, test) == pytest.approx(8, abs=0.02)
    assert likelihood.neighbour_bits(train, test) == pytest.approx(8, abs=0.1)
    assert likelihood.lzma_bits(test[:4000]) == pytest.approx(8, abs=0.1)
    assert likelihood.png_bits(test[:20]) > 8
    # Uniform levels under a Gaussian of their variance: log2 of 256 plus the gap of the shapes, 0.254 bits.
    assert likelihood.gaussian_bits(train, test) == pytest.approx(
        8 + 0.5 * math.log2(2 * math.pi * math.e / 12), abs=0.02
    )


def test_tables_find_what_is_there_to_be_found():
    places = np.broadcast_to(np.arange(36, dtype=np.uint8).reshape(6, 6, 1), (3000, 6, 6, 1))
    assert likelihood.pixel_bits(places, places[:50]) < 0.05 < 4 < likelihood.histogram_bits(places, places[:50])
    flat = np.broadcast_to(RNG.integers(0, 16, (4000, 1, 1, 1), dtype=np.uint8) * 16, (4000, 6, 6, 1))
    bits = likelihood.neighbour_bits(flat, flat[:400])
    assert bits < likelihood.pixel_bits(flat, flat[:400]) / 3


def test_the_gaussian_is_the_density_averaged_over_noise():
    train, test = (RNG.normal(128, 20, (500, 3, 3, 1)).round().astype(np.uint8) for _ in range(2))
    x, y = train.reshape(500, -1).astype(float), test.reshape(500, -1).astype(float)
    covariance = np.cov(x.T, bias=True) + np.eye(9) / 12
    drawn = []
    for _ in range(200):
        gap = y + RNG.uniform(-0.5, 0.5, y.shape) - x.mean(0)
        distance = np.einsum("ni,ij,nj->n", gap, np.linalg.inv(covariance), gap)
        drawn.append(-0.5 * (distance + 9 * math.log(2 * math.pi) + np.linalg.slogdet(covariance)[1]).mean())
    assert likelihood.gaussian_bits(train, test) == pytest.approx(-np.mean(drawn) / (9 * math.log(2)), abs=1e-3)


def test_photographs_rank_the_baselines_as_they_should():
    data = source("fashion")
    parts = [data.split(p) for p in ("train", "test")]
    train, test = (np.stack([np.asarray(p[i].fields["image"]) for i in range(len(p))]) for p in parts)
    train, test = (t.reshape(len(t), 28, 28, 1) for t in (train, test))
    # Over all 70,000: 4.917, 4.588 and 3.511. From 4,000 images tables are poorer, histograms hardly.
    assert likelihood.histogram_bits(train, test) == pytest.approx(4.917, abs=0.1)
    assert 4.5 < likelihood.pixel_bits(train, test) < likelihood.histogram_bits(train, test)
    assert 3.4 < likelihood.neighbour_bits(train, test) < 3.9
    assert 6 < likelihood.gaussian_bits(train, test) < 8


def test_a_model_stands_beside_untrained_weights_tables_and_files():
    found = measured()
    table = found.tables[0]
    assert [row[3] for row in table.rows[:3]] == [3.0, 3.0, 8.0]
    assert all(row[1] == "exact" for row in table.rows[:3]) and len(table.rows) == 9
    assert all(len(row) == len(table.columns) for row in table.rows)
    assert found.diagnostics["bits_per_dimension"] == 3.0
    assert found.diagnostics["nats_per_image"] == pytest.approx(3 * 64 * math.log(2), abs=1e-2)
    assert "fewer than any of them" in found.headline[0] and len(found.tables[1].rows) == 2


def test_a_bound_is_called_one_and_a_loser_is_told_so():
    class Bounds(Knows):
        likelihood, bits = "lower bound", 9.5

    found = measured(Bounds)
    assert found.tables[0].rows[0][1] == "bound"
    assert "at most 9.50 bits" in found.headline[0] and "more than the best of them (" in found.headline[0]


def test_bits_that_cannot_be_true_are_doubted_but_not_on_images_of_two_levels():
    class Boasts(Knows):
        bits = 0.4

    assert any("too few to be true" in line for line in measured(Boasts).headline)
    assert not any("too few to be true" in line for line in measured(Boasts, (NOISE > 127) * np.uint8(255)).headline)


def test_training_images_that_cost_more_are_a_mistake():
    rows = [["a", "exact", 9, 3.0], ["b", "exact", 9, 3.5], ["c", "exact", 9, 8.0], ["d", "exact", 9, 4.0]]
    assert len(likelihood._verdict(rows, "exact", 256, gap=-0.5, spread=0.01)) == 2
    assert len(likelihood._verdict(rows, "exact", 256, gap=0.5, spread=0.01)) == 1


def test_without_time_it_scores_a_part_and_says_so():
    found = measured(seconds=1e-9)
    assert "for lack of time" in found.tables[0].note
    assert found.tables[0].rows[0][2] < 100


def test_pca_gives_back_what_lies_in_its_plane():
    plane = RNG.normal(0, 20, (400, 3)) @ np.linalg.qr(RNG.normal(size=(64, 3)))[0].T
    images = (128 + plane).round().clip(0, 255).astype(np.uint8).reshape(400, 8, 8, 1)
    error = likelihood._distortion("", images, likelihood.PCA(images, 3)(images))[1]
    fewer = likelihood._distortion("", images, likelihood.PCA(images, 1)(images))[1]
    assert error < 1e-5  # rounding
    assert fewer == pytest.approx(2 * 20**2 / 64 / 255**2, rel=0.15)  # two of three directions are lost


def test_reconstructions_and_paths_are_shown():
    class Forgets(Knows):
        forgets = 32

    found = measured(Forgets)
    own, mean = found.tables[1].rows[:2]
    assert own[1] == pytest.approx(mean[1] / 2, rel=0.1) and own[2] > mean[2]
    perfect = measured()
    assert perfect.tables[1].rows[0][1:] == [0.0, None] and "without any error" in perfect.headline[1]
    row = perfect.figures["paths"]["rows"][0]
    assert (row["query"] == row["neighbours"][0]).all()
    assert (row["neighbours"][-1] == row["neighbours"][-2]).all()
    names = [r[0] for r in perfect.tables[2].rows]
    assert names[0] == "halfway between latents" and perfect.tables[2].rows[2][2] == perfect.tables[2].rows[3][2]


def test_integer_codes_are_not_walked_between():
    class Counts(Knows):
        def encode(self, batch):
            return batch["image"].flatten(1).long()

        def decode(self, codes):
            return {"image": codes.to(torch.uint8).view(-1, 8, 8, 1)}

    found = measured(Counts)
    assert "paths" not in found.figures and "64 integers" in found.tables[1].note
    assert found.tables[1].rows[2][0] == "PCA, 16 numbers"
