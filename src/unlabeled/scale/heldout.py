"""The loss that laws are fitted to: of one fixed set of held-out examples, the same for every run of a sweep.

text with a likelihood      nats per token, every token but the first of its window
images with a likelihood    bits per dimension, exact or an upper bound as the method says
everything else             the method's own loss, of its first part, with noise, masks and views drawn from fixed seeds

Or, of an encoder on data with classes, how well its features tell them: the share of held-out examples that the 20 nearest of
fixed labelled training examples get wrong (Wu, Xiong, Yu, Lin 2018, section 3.4).
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch

from unlabeled.core.batch import Batch
from unlabeled.core.clock import Clock
from unlabeled.core.errors import UserError
from unlabeled.core.method import Method, capabilities
from unlabeled.data.order import mix
from unlabeled.data.source import Source
from unlabeled.data.store import Store
from unlabeled.evaluate import knn
from unlabeled.evaluate.examples import Examples, chosen, embedded
from unlabeled.parallel.world import device

__all__ = ["HeldOut", "Measure", "held_out", "knn_error", "labelled", "unit_of"]

Measure = Literal["loss", "knn"]

AT_ONCE = 64  # examples that are scored together
BANK = 10_000  # labelled training examples among which neighbours are sought
KNN_UNIT = "kNN error"


@dataclass(frozen=True)
class HeldOut:
    """loss: a mean over examples; error: its standard error, examples taken as independent; seconds: what it took."""

    loss: float
    error: float
    unit: str
    examples: int
    seconds: float


def unit_of(method: Method, measure: Measure = "loss") -> str:
    """What the loss of this method is measured in."""
    if measure == "knn":
        return KNN_UNIT
    if "score" in capabilities(method):
        if method.spec.kind == "text" and method.window():
            return "nats per token"
        if method.spec.kind == "image":
            return "bits per dimension"
    return "loss"


@torch.no_grad()
def held_out(method: Method, store: Store, examples: int) -> HeldOut:
    """Measure a method in evaluation mode on at most so many examples, spread evenly over the store."""
    began, unit = time.perf_counter(), unit_of(method)
    count = min(examples, len(store))
    chosen = np.linspace(0, len(store) - 1, count).round().astype(np.int64)
    size = min(count, method.config.batch) if method.couples else AT_ONCE
    values, weights = [], []
    training = method.training
    method.eval()
    for number, start in enumerate(range(0, count, size)):
        batch = method.collate(store.batch(chosen[start : start + size]))
        batch = {k: v.to(device()) for k, v in batch.items()}
        if unit == "loss":
            value, weight = _own_loss(method, batch, number)
            values.append(np.array([value]))
            weights.append(np.array([weight]))
            continue
        nats = -method.score(batch).double().cpu().numpy()  # type: ignore[attr-defined]
        per = method.window() if unit == "nats per token" else batch["image"][0].numel() * math.log(2)
        values.append(nats / per)
        weights.append(np.ones(len(nats)))
    method.train(training)
    value, weight = np.concatenate(values), np.concatenate(weights)
    mean = float(np.average(value, weights=weight))
    spread = float(np.sqrt(np.average((value - mean) ** 2, weights=weight) / max(1, len(value) - 1)))
    return HeldOut(mean, spread, unit, count, time.perf_counter() - began)


def labelled(method: Method, parts: Mapping[str, tuple[Source, Store]], queries: int) -> tuple[Examples, Examples]:
    """The bank and the queries: at most BANK training and so many held-out examples of a known class, the same for every run.

    parts: "train" and "test", each with what is prepared of it.

    Raises:
        UserError: where the method has no features of an example, or the data no two classes.
    """
    if "embed" not in capabilities(method):
        raise UserError(f"{method.name} gives no features, so there is no kNN error; take --measure loss.")
    found = []
    for name, most in (("train", BANK), ("test", queries)):
        every = chosen(*parts[name], len(parts[name][1]))
        if every.labels is None or len(np.unique(every.labels[every.labels >= 0])) < 2:
            raise UserError(
                f"{parts[name][0].name} has no two classes to tell apart, so there is no kNN error; take --measure loss."
            )
        known = np.flatnonzero(every.labels >= 0)[:most]
        found.append(replace(every, indices=every.indices[known], labels=every.labels[known]))
    return found[0], found[1]


def knn_error(method: Method, bank: Examples, queries: Examples) -> HeldOut:
    """The share of queries whose class the 20 nearest examples of the bank get wrong, votes weighted with exp(cosine / 0.07)."""
    assert bank.labels is not None and queries.labels is not None
    began, training = time.perf_counter(), method.training
    method.eval()
    size = min(AT_ONCE, method.config.batch) if method.ragged else AT_ONCE  # long recordings are padded to the longest
    x, q = (embedded(method, part, size) for part in (bank, queries))
    method.train(training)
    wrong = float((knn.predict(x, bank.labels, q) != queries.labels).mean())
    spread = math.sqrt(wrong * (1 - wrong) / len(queries))
    return HeldOut(wrong, spread, KNN_UNIT, len(queries), time.perf_counter() - began)


def _own_loss(method: Method, batch: Batch, number: int) -> tuple[float, float]:
    """The loss of the first part on a batch that is transformed from a seed of its own, and what it is a mean over."""
    clock, state = Clock(progress=1.0), torch.get_rng_state()
    torch.manual_seed(mix(0, number))
    name, seen = next(iter(method.updates(method.transform(batch, clock), clock)))
    loss, items = float(method.loss(seen, name, clock).loss), float(method.count(seen, name))
    torch.set_rng_state(state)
    return loss, items
