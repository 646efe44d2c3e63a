"""A survey made up by arithmetic, so that plans are tested without measuring anything."""

import pytest

from unlabeled.scale.survey import Size, Survey


@pytest.fixture(scope="session")
def survey():
    """Decoders without embeddings: N = 24 w^2, 6N FLOPs a token of which an example has 128, at 1e11 FLOP/s and 5 ms a step."""
    sizes = []
    for width in range(16, 361, 8):
        n = 24 * width * width
        counts = dict.fromkeys(("total", "non_embedding", "with_head", "active"), n)
        flops = 6.0 * n * 128
        sizes.append(Size({"width": width}, counts, flops, 0.005 + 16 * flops / 1e11, flops / 3e11, 0.32 / width))
    return Survey(
        system="gpt2", variant=None, data="moby-dick", sizes=tuple(sizes), batch=16, tokens=128, unique=10_000, held_out=500,
        unit="nats per token", overhead=2.0, workers=1, threads=1, convention="with_head", items=20.0, warmup="share", lr_rule="",
    )  # fmt: skip
