"""How systems grow: one knob, mostly a width, that gives every size its shape, and a rule that gives it its learning rate.

The learning rate of a size is rate * (at / knob)^power. Where rates were measured, the figures stand beside them; where none
were, the rate is the variant's own, the same for all sizes, and a law that is fitted to such runs says as much of the rate as
of the size. Everything but the shape stays as the variant has it or as `fixed` says.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["FAMILIES", "Family"]


@dataclass(frozen=True)
class Family:
    """How a system grows with one knob.

    rate: None leaves the learning rate of every size as configured. items: tokens (or examples) per parameter at the first
    guess of the best size. warmup: what is set for a run by its length, see `plan`; "" leaves it as configured.
    """

    variant: str | None
    fixed: Mapping[str, Any]
    knobs: Sequence[int]
    shape: Callable[[int], Mapping[str, Any]]
    items: float
    rate: float | None = None
    at: int = 1
    power: float = 0.0
    warmup: Literal["share", "examples", ""] = ""

    def lr(self, knob: int, rate: float | None = None) -> float | None:
        """Of a size, to three digits; `rate` instead of the family's own at its `at`."""
        rate = rate or self.rate
        return None if rate is None else float(f"{rate * (self.at / knob) ** self.power:.3g}")

    def rule(self, rate: float | None = None) -> str:
        rate = rate or self.rate
        if rate is None:
            return "as configured"
        return f"{rate:g} * ({self.at} / knob)^{self.power:g}" if self.power else f"{rate:g} for all"


def _heads(width: int, each: int) -> int:
    """As many as divide the width and have about `each` numbers."""
    return min((h for h in range(1, width // 8 + 1) if width % h == 0), key=lambda h: abs(math.log(width / h / each)))


def _gpt2(width: int) -> dict[str, Any]:
    """As deep as a 32nd of the width, two blocks at least; heads of about 32 numbers."""
    return {"width": width, "layers": max(2, round(width / 32)), "heads": _heads(width, 32)}


def _bert(width: int) -> dict[str, Any]:
    return _gpt2(width) | {"inner": 4 * width}


def _vae(width: int) -> dict[str, Any]:
    return {"hidden": [width]}


def _ddpm(channels: int) -> dict[str, Any]:
    return {"channels": channels}


def _glow(width: int) -> dict[str, Any]:
    return {"width": width}


def _contrastive(width: int) -> dict[str, Any]:
    """Four convolutions, each twice as wide as the one before. Views are compared in 128 dimensions at every size, so that the
    contrastive losses of sizes mean the same."""
    return {"conv_widths": [width, 2 * width, 4 * width, 8 * width], "projector": [8 * width, 128]}


def _wav2vec2(width: int) -> dict[str, Any]:
    """The proportions of the small variant, whose width is 256: convolutions narrow where there are many steps."""
    convs = [width * n // 8 for n in (2, 3, 4, 6, 8, 8, 8)]
    return {"width": width, "inner": 4 * width, "heads": _heads(width, 64), "conv_widths": convs}


_RISING = (*range(2, 16), *range(16, 32, 2), *range(32, 129, 4))  # every size costs a counted step
_DENSE = (
    *range(4, 16),
    *range(16, 32, 2),
    *range(32, 64, 4),
    *(2**n * k // 4 for n in range(6, 11) for k in (4, 5, 6, 7)),
)


FAMILIES: Mapping[str, Family] = {
    "gpt2": Family(
        None,
        # Momentum of squares 0.99: smaller batches want a longer memory (Porian et al. 2024).
        {"tokenizer": "bytes", "context": 128, "batch": 16, "optimizer": "adamw", "beta2": 0.99},
        range(16, 513, 8),
        _gpt2,
        # Held-out nats per byte on 24 MB of documentation, rates a factor of two apart, the best by a parabola in their
        # logarithm: width 32 (600 steps of 16 windows) 0.0095, 64 (1,000 of 8) 0.0044, 128 (300 of 16) 0.0018.
        rate=9.5e-3,
        at=32,
        power=1.2,
        items=20.0,
        warmup="share",
    ),
    "bert": Family(
        "laptop",
        {"vocabulary": 1024, "tokenizer_megabytes": 2.0, "length": 64},
        range(16, 513, 16),
        _bert,
        items=20.0,
        warmup="share",
    ),
    # The paper's network; the convolutional one breaks at rates that small sizes need (2e-3 at width 40, 8e-3 at 16).
    "vae": Family(
        "mnist",
        {"score_samples": 1, "decay": "cosine"},  # score: the bound that is trained
        _DENSE,
        _vae,
        # Held-out bits per dimension of Fashion-MNIST in black and white, rates a factor of two apart, the best by a parabola in
        # their logarithm: width 16 (1,000 steps of 100 images) 0.0129, 128 (600) 0.0087, 512 (500) 0.0063.
        rate=8.7e-3,
        at=128,
        power=0.21,
        items=0.5,
    ),
    "ddpm": Family(
        "laptop", {"groups": 4}, range(8, 129, 4), _ddpm, rate=1e-3, at=32, power=0.5, items=0.5, warmup="examples"
    ),
    "glow": Family("small", {}, range(4, 257, 4), _glow, items=0.5, warmup="examples"),
    "simclr": Family(
        "small",
        {},
        _RISING,
        _contrastive,
        # Fashion-MNIST, for .015, .03, .06, .12, .48 (one seed, batches of 256): held-out nats at width 4 (250 steps) 4.06, 4.04,
        # 4.08, 4.05, 4.13, at 16 (200 steps) 3.64, 3.58, 3.75, 3.77, 3.93; kNN errors in % 24.0, 22.4, 22.6, 23.5, 24.7 and 21.2,
        # 20.7, 20.5, 22.7, 22.9. No trend with the width stands out of what neighbouring rates differ by; the variant has 0.12.
        rate=0.03,
        items=0.5,
    ),
    "moco": Family("small", {}, _RISING, _contrastive, items=0.5),
    "wav2vec2": Family("small", {}, range(16, 513, 16), _wav2vec2, items=0.02),
}
