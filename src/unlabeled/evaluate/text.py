"""How well a model predicts held-out text, beside compressors that have seen as much."""

from __future__ import annotations

import bz2
import lzma
import math

import numpy as np
import torch

from unlabeled.core.batch import Batch
from unlabeled.core.clock import Clock
from unlabeled.core.method import Method

__all__ = ["Surprise", "byte_entropy", "bz2_bits", "surprise", "xz_bits"]


class Surprise:
    """Sums over batches in float64, so that they do not depend on how windows are put in batches.

    nats, tokens: over all predicted tokens, ends of documents included. counted_nats, bytes: over those tokens that
    stand for bytes; where the method cannot tell them apart, `counted_nats` is `nats` and `exact` is False.
    """

    def __init__(self) -> None:
        self.nats = self.counted_nats = 0.0
        self.tokens = self.bytes = 0
        self.exact = True

    @property
    def bits_per_byte(self) -> float:
        return self.counted_nats / (math.log(2) * self.bytes) if self.bytes else float("nan")

    @property
    def perplexity(self) -> float:
        """Per token, ends of documents included."""
        return math.exp(min(700.0, self.nats / self.tokens))


def surprise(method: Method, batch: Batch, total: Surprise) -> None:
    """Add one batch {"tokens": (n, T + 1) int64} of windows; the first token of each is context only."""
    targets = batch["tokens"][:, 1:]
    with torch.no_grad():
        nats = -float(method.score(batch).double().sum())  # type: ignore[attr-defined]
        total.nats += nats
        total.tokens += targets.numel()
        if method.spec.tokenizer is None:
            return
        lengths = method.spec.tokenizer.bytes_per_id()[targets.cpu().numpy()]
        count = int(lengths.sum())
        total.bytes += count
        if (lengths > 0).all():
            total.counted_nats += nats
            return
        # Its loss leaves out the nats of special tokens when it logs this; `score` gives only their sum.
        logged = method.loss(batch, "main", Clock()).logs.get("bits_per_byte") if count else None
    if logged is None:
        total.exact = False
        total.counted_nats += nats
    else:
        total.counted_nats += float(logged.double()) * math.log(2) * count


def byte_entropy(data: bytes) -> float:
    """Bits per byte of the best model that knows only how frequent each byte is, fitted to this very text."""
    counts = np.bincount(np.frombuffer(data, np.uint8), minlength=256)
    p = counts[counts > 0] / len(data)
    return float(-(p * np.log2(p)).sum())


def bz2_bits(data: bytes) -> float:
    """Bits per byte of `bzip2 -9`."""
    return 8 * len(bz2.compress(data, 9)) / len(data)


def xz_bits(data: bytes, before: bytes = b"") -> float:
    """Bits per byte of `xz -9`: of the text alone, or what it adds to the text `before` it, which has been seen."""

    def size(text: bytes) -> int:
        return len(lzma.compress(text, preset=9))

    return 8 * (size(before + data) - (size(before) if before else 0)) / len(data)
