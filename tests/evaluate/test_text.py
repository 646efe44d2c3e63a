import bz2
import lzma
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from unlabeled.core.method import Outcome
from unlabeled.evaluate import text


class Uniform:
    """Every token, the end 256 included, has the same likelihood."""

    spec = SimpleNamespace(tokenizer=SimpleNamespace(bytes_per_id=lambda: np.r_[np.ones(256, np.int64), 0]))

    def __init__(self, logs: bool = True) -> None:
        self.logs = logs

    def score(self, batch):
        return torch.full((len(batch["tokens"]),), -math.log(256.0) * (batch["tokens"].shape[1] - 1))

    def loss(self, batch, part, clock):
        return Outcome(torch.tensor(0.0), {"bits_per_byte": torch.tensor(8.0)} if self.logs else {})


def _sum(method, tokens, size):
    total = text.Surprise()
    for part in tokens.split(size):
        text.surprise(method, {"tokens": part}, total)
    return total


def test_a_uniform_model_needs_eight_bits_in_any_batching():
    tokens = torch.randint(256, (24, 17), generator=torch.Generator().manual_seed(0))
    for size in (1, 7, 24):
        total = _sum(Uniform(), tokens, size)
        assert (total.tokens, total.bytes) == (24 * 16, 24 * 16)
        assert total.bits_per_byte == pytest.approx(8, abs=1e-6)
        assert total.perplexity == pytest.approx(256, rel=1e-5)


def test_special_tokens_count_in_neither_sum_where_the_method_tells_them_apart():
    tokens = torch.zeros(4, 9, dtype=torch.int64)
    tokens[:, 3] = 256
    total = _sum(Uniform(), tokens, 2)
    assert (total.tokens, total.bytes, total.exact) == (32, 28, True)
    assert total.bits_per_byte == pytest.approx(8, abs=1e-6)
    vague = _sum(Uniform(logs=False), tokens, 2)
    assert not vague.exact
    assert vague.bits_per_byte == pytest.approx(8 * 32 / 28, abs=1e-5)


def test_the_first_token_is_context_only():
    tokens = torch.zeros(1, 3, dtype=torch.int64)
    tokens[0, 0] = 256
    assert _sum(Uniform(), tokens, 1).bytes == 2


def test_entropy_and_compressors():
    assert text.byte_entropy(bytes(range(256)) * 3) == pytest.approx(8)
    assert text.byte_entropy(b"aabb") == pytest.approx(1)
    assert text.byte_entropy(b"aaaa") == 0
    rng = np.random.default_rng(0)
    data = rng.integers(97, 105, 5000, dtype=np.uint8).tobytes()
    assert text.xz_bits(data) == 8 * len(lzma.compress(data, preset=9)) / 5000
    assert text.bz2_bits(data) == 8 * len(bz2.compress(data, 9)) / 5000
    assert 2.9 < text.xz_bits(data) < 4.5
    assert text.xz_bits(data, before=data) < 0.2
