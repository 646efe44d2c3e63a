"""Fine-tuning: train a copy of an encoder and a linear layer on labels, beside the same from untrained weights."""

from __future__ import annotations

import copy
import time

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from unlabeled.core.method import Method
from unlabeled.evaluate.examples import Examples
from unlabeled.evaluate.result import Evaluation, Table, TimeLimit
from unlabeled.model import Model
from unlabeled.parallel.world import device

__all__ = ["accuracy", "measure"]

UPDATES, BATCH = 300, 32
WARMUP = 0.1  # share of the updates in which the rate rises; it falls in a straight line afterwards
LR, HEAD_LR = 3e-4, 3e-3
FEWEST = 30  # updates that are worth calling fine-tuning


def measure(model: Model, train: Examples, test: Examples, into: Evaluation, *, seed: int, limit: TimeLimit) -> None:
    """Add a table of accuracies after fine-tuning from trained and from untrained weights, the same number of updates.

    Left out, with a diagnostic that says so, where there is no time for some thirty updates.
    """
    weights = {"trained": model.method, "random weights": model.fresh(seed)}
    each = _seconds_per_update(model.method, train)
    updates = int(min(UPDATES, 0.8 * limit.left / (2 * each)))
    if updates < FEWEST:
        into.diagnostics["fine_tuning"] = f"left out: {FEWEST} updates would take {2 * FEWEST * each:.0f} s"
        return
    rows = []
    for name, method in weights.items():
        limit.say(f"fine-tuning from {name}")
        rows.append([f"{model.system}, {name}", round(100 * accuracy(method, train, test, updates, seed), 2)])
    assert test.labels is not None
    note = (
        f"Accuracy on {len(test):,} held-out examples, in %; {updates} updates of {BATCH} examples with AdamW on all weights, "
        f"rate {LR:g}, a new linear layer on the features {HEAD_LR:g}; one seed."
    )
    into.tables.append(Table("After fine-tuning on the labels", ["started from", "accuracy"], rows, note))


def accuracy(method: Method, train: Examples, test: Examples, updates: int, seed: int = 0) -> float:
    """Share of `test` that is right after fine-tuning a copy on `train`; both labelled from 0, and none unknown."""
    assert train.labels is not None and test.labels is not None
    tuned, labels = _copied(method), torch.from_numpy(train.labels)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        head = nn.LazyLinear(int(train.labels.max()) + 1).to(device())
        head(tuned.embed(_batch(method, train, np.arange(2))).detach())  # type: ignore[operator]
        parts = [{"params": list(tuned.parameters()), "lr": LR}, {"params": list(head.parameters()), "lr": HEAD_LR}]
        optimizer = torch.optim.AdamW(parts, weight_decay=0.01)
        rate = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda u: min((u + 1) / max(1, WARMUP * updates), (updates - u) / max(1, (1 - WARMUP) * updates))
        )
        order = np.random.default_rng(seed)
        for _ in range(updates):
            rows = order.integers(len(train), size=BATCH)
            loss = F.cross_entropy(head(tuned.embed(_batch(method, train, rows))), labels[rows].to(device()))  # type: ignore[operator]
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_([p for part in parts for p in part["params"]], 1.0)  # type: ignore[attr-defined]
            optimizer.step()
            rate.step()
    tuned.eval()
    right = 0
    with torch.no_grad():
        for rows in np.array_split(np.arange(len(test)), -(-len(test) // 256)):
            guess = head(tuned.embed(_batch(method, test, rows))).argmax(1).cpu().numpy()  # type: ignore[operator]
            right += int((guess == test.labels[rows]).sum())
    return right / len(test)


def _copied(method: Method) -> Method:
    """A copy all of whose weights move; normalisation of batches keeps its statistics."""
    tuned = copy.deepcopy(method).eval()
    for part in (p for name, p in tuned.named_parameters() if not name.startswith("given.")):
        part.requires_grad_(True)
    return tuned


def _batch(method: Method, examples: Examples, rows: np.ndarray) -> dict[str, torch.Tensor]:
    batch = method.collate(examples.store.batch(examples.indices[rows]))
    return {name: tensor.to(device()) for name, tensor in batch.items()}


def _seconds_per_update(method: Method, train: Examples) -> float:
    tuned, times = _copied(method), []
    for _ in range(2):
        start = time.perf_counter()
        tuned.embed(_batch(method, train, np.arange(min(BATCH, len(train))))).sum().backward()  # type: ignore[operator]
        times.append(time.perf_counter() - start)
    return 1.2 * min(times)  # the optimiser and the head
