"""Three number formats of a run: of the weights, of the products, of the sums over processes."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch

from unlabeled.parallel.world import device

__all__ = ["Precision", "has_bf16", "precision"]


@dataclass(frozen=True)
class Precision:
    """weights are kept, products are computed, and gradients are summed over processes in these formats."""

    weights: torch.dtype = torch.float32
    compute: torch.dtype = torch.float32
    reduction: torch.dtype = torch.float32

    def computing(self) -> AbstractContextManager[object]:
        """The context in which losses are computed."""
        if self.compute == self.weights:
            return nullcontext()
        return torch.autocast(device().type, dtype=self.compute)


@cache
def has_bf16() -> bool:
    """Whether this processor multiplies bfloat16 matrices natively."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def precision(name: Literal["fastest", "bf16", "float32"]) -> Precision:
    """ "bf16": bfloat16 products of float32 weights; "float32": all float32; "fastest": bf16 where it is native."""
    if name == "bf16" or (name == "fastest" and has_bf16()):
        return Precision(compute=torch.bfloat16)
    return Precision()
