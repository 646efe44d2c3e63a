"""The whole, on methods made for it: what it measures follows from what they can do."""

import json
from typing import ClassVar

import numpy as np
import pytest
import torch

from unlabeled.core.batch import Spec
from unlabeled.core.config import MethodConfig
from unlabeled.core.method import Method
from unlabeled.data.sources.memory import ImagesInMemory, TextsInMemory
from unlabeled.data.text import ByteTokenizer
from unlabeled.evaluate import encoder, evaluate, features
from unlabeled.model import Model

LABELS = np.arange(400) % 4


class Seen(Method):
    """Images as they are."""

    Config, variants, takes = MethodConfig, {"tiny": {}}, ("image",)

    def prepare(self, record, rng):
        return {"image": record.fields["image"]}


class Sees(Seen):
    """Knows the brightest row and little else, once its gain is set; before, nothing."""

    gain_when_trained: ClassVar[float] = 1.0

    def __init__(self, config, spec, given=None):
        super().__init__(config, spec)
        self.gain = torch.nn.Parameter(torch.zeros(()))
        self.noise = torch.nn.Linear(64, 12)

    def embed(self, batch):
        image = batch["image"].float().mean(3) / 255
        known = torch.nn.functional.one_hot(image.mean(2).argmax(1), 8).float()
        return torch.cat([self.gain * 10 * known, 1e-2 * self.noise(image.flatten(1))], 1)


class Falls(Sees):
    def embed(self, batch):
        return torch.ones(len(batch["image"]), 16)


class Copies(Seen):
    """Gives back images it was made with."""

    def __init__(self, config, spec, given=None):
        super().__init__(config, spec)
        self.register_buffer("kept", torch.randint(0, 256, (100, 8, 8, 1), dtype=torch.uint8))

    def sample(self, n, *, condition=None, steps=None, guidance=None):
        return {"image": self.kept[torch.randint(100, (n,))]}


class Reads(Method):
    """Every byte is as likely as any other, until it knows the letter a."""

    Config, variants, takes = MethodConfig, {"tiny": {}}, ("text",)

    def __init__(self, config, spec, given=None):
        super().__init__(config, spec)
        self.logits = torch.nn.Parameter(torch.zeros(257))

    def prepare(self, record, rng):
        return {"tokens": self.spec.tokenizer.encode(record.fields["text"])}

    def window(self):
        return 16

    def score(self, batch):
        return self.logits.log_softmax(0)[batch["tokens"][:, 1:]].sum(1)

    def sample(self, n, *, condition=None, steps=None, guidance=None):
        return {"text": ["a" * steps] * n}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("UNLABELED_CACHE", str(tmp_path))
    monkeypatch.setitem(features.RECIPE, "examples", 640)


def _source(labels: bool = True) -> ImagesInMemory:
    images = np.random.default_rng(0).integers(0, 200, (400, 8, 8, 1), dtype=np.uint8)
    images[np.arange(400), 2 * LABELS] += 55  # rows of classes are a little brighter
    return ImagesInMemory(images, LABELS if labels else None)


def _model(kind, source) -> Model:
    torch.manual_seed(0)
    return Model(kind.__name__.lower(), kind(MethodConfig(), source.spec()), source=source)


def _encoder(kind=Sees, labels: bool = True) -> Model:
    model = _model(kind, _source(labels))
    model.method.gain.data.fill_(1.0)
    return model


def test_an_encoder_stands_beside_its_baselines():
    heard: list[str] = []
    found = evaluate(_encoder(), quick=True, progress=heard.append)
    (table,) = found.tables
    assert [row[0] for row in table.rows] == [
        "sees, trained",
        "sees, random weights",
        "pixels",
        "whitened PCA-128 of pixels",
    ]
    assert all(len(row) == len(table.columns) for row in table.rows)
    own, fresh = table.rows[0], table.rows[1]
    assert own[5] > fresh[5] + 20  # all labels, in %
    assert "±" in own[3] and float(own[4].split()[0]) > float(fresh[4].split()[0]) + 20
    assert "5 draws" in table.note and "rarest class" in table.note
    assert f"right on {own[4].split()[0]} %" in found.headline[0]
    assert found.diagnostics["effective_rank"] > 3
    assert heard


def test_figures_show_the_neighbours_that_the_features_name():
    model = _encoder()
    found = evaluate(model, quick=True)
    rows = found.figures["neighbours"]["rows"]
    assert len(rows) == 6 and all(len(r["neighbours"]) == 5 for r in rows)
    for row in rows:
        assert [image.mean((1, 2)).argmax() for image in row["neighbours"]] == [row["query"].mean((1, 2)).argmax()] * 5
    points = found.figures["map"]["points"]
    assert points.shape[1] == 2 and len(points) == len(found.figures["map"]["labels"])


def test_collapse_is_named_and_loses_to_every_baseline():
    found = evaluate(_encoder(Falls), quick=True)
    assert found.diagnostics["verdict"].startswith("Collapsed")
    assert "That is below" in found.headline[0]


@pytest.mark.parametrize(
    ("own", "asked", "said"),
    [
        ((0.80, 0.003), 10_000, "That is above all of them."),
        ((0.80, 0.003), 100, "That is not distinguishable from whitened PCA."),
        ((0.80, 0.05), 10_000, "That is not distinguishable from whitened PCA."),
        ((0.70, 0.003), 10_000, "That is below whitened PCA."),
    ],
)
def test_the_headline_claims_no_more_than_the_noise_allows(own, asked, said):
    few = {"simclr, trained": own, "simclr, random weights": (0.6, 0.01), "whitened PCA": (0.77, 0.004)}
    assert encoder._headline(few, asked).endswith(said)


def test_features_that_are_no_numbers_are_said_to_be_broken():
    model = _encoder()
    model.method.gain.data.fill_(float("nan"))
    found = evaluate(model, quick=True)
    assert found.diagnostics["verdict"].startswith("Broken")
    assert not found.tables


def test_without_labels_it_says_so_and_shows_neighbours():
    found = evaluate(_encoder(labels=False), quick=True)
    assert not found.tables
    assert "no labels" in found.headline[0]
    assert "neighbours" in found.figures and "effective_rank" in found.diagnostics


def test_the_result_is_json_and_the_same_for_a_seed():
    first, again = (evaluate(_encoder(), quick=True, seed=3) for _ in range(2))
    values = json.loads(json.dumps(first.to_dict()))
    assert dict(first).keys() == values.keys()
    assert values["tables"] == again.to_dict()["tables"]
    assert values["figures"]["neighbours"]["rows"][0]["query"]["png"]
    assert first.tables[0].rows[2] != evaluate(_encoder(), quick=True, seed=4).tables[0].rows[2]


def test_a_copying_generator_is_found_out():
    source = _source()
    model = _model(Copies, source)
    train = source.split("train")
    model.method.kept = torch.from_numpy(np.stack([train[i].fields["image"] for i in range(100)]))
    found = evaluate(model, quick=True)
    (table,) = found.tables
    assert [row[0] for row in table.rows][1:] == [
        "copies, untrained",
        "Gaussian fitted to pixels",
        "held-out images (floor)",
    ]
    own, untrained, gaussian, floor = table.rows
    assert own[1] == 500
    assert max(own[2], gaussian[2]) < untrained[2]
    assert floor[1] == len(source.split("test")) and "The floor is over only" in table.note
    assert own[-1] == 100 and untrained[-1] < 5 and floor[-1] < 10
    assert "nearly copies" in found.headline[0]
    assert found.figures["samples"]["items"].shape == (64, 8, 8, 1)
    assert "fd-clf-" in table.note
    for row in found.figures["copies"]["rows"]:
        np.testing.assert_array_equal(row["query"], row["neighbours"][0])


def test_a_generator_keeps_to_its_time_and_says_what_it_left_out():
    model = _model(Copies, _source())
    plain = model.method.sample

    def slow(n, **options):
        import time

        time.sleep(0.01 * n)
        return plain(n, **options)

    model.method.sample = slow
    found = evaluate(model, quick=True, budget_seconds=2.0)
    assert found.tables[0].rows[0][1] < 300
    assert "fewer than 500 for lack of time" in found.tables[0].note
    assert found.seconds < 6


def test_text_stands_beside_compressors():
    source = TextsInMemory([f"{'a' * 40}{i} {'ba' * 20}" for i in range(120)])
    model = Model(
        "reads", Reads(MethodConfig(), Spec("text", vocabulary=257, tokenizer=ByteTokenizer())), source=source
    )
    model.method.logits.data[97] = 6.0
    found = evaluate(model, quick=True)
    (table,) = found.tables
    bits = {row[0]: row[1] for row in table.rows}
    assert bits["reads, untrained"] == pytest.approx(np.log2(257), abs=1e-3)
    store = model.store(source.split("test"))
    nats = -float(model.score(store).sum())
    assert bits["reads, trained"] == pytest.approx(nats / np.log(2) / (16 * len(store)), abs=1e-3)
    assert bits["xz -9, after training text"] < bits["xz -9, alone"]
    assert bits["frequencies of bytes"] < 3
    assert found.figures["samples"]["items"] == ["a" * 60] * 3
    assert "not yet as good as" in found.headline[0] or "better than" in found.headline[0]


def test_a_split_too_small_to_measure_is_a_sentence():
    source = TextsInMemory(["a" * 400, "b"])
    model = Model(
        "reads", Reads(MethodConfig(), Spec("text", vocabulary=257, tokenizer=ByteTokenizer())), source=source
    )
    found = evaluate(model, quick=True)
    assert found.headline[0].startswith("Something could not be measured")
    assert found.figures["samples"]["items"]


def test_a_method_that_can_nothing_is_told_so():
    assert evaluate(_model(Seen, _source())).headline[0].startswith("Nothing can be measured")
