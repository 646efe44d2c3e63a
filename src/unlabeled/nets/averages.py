"""Copies that follow: EMA teachers of a method, averaged weights of the engine."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

__all__ = ["follow"]


@torch.no_grad()
def follow(copies: Iterable[Tensor], originals: Iterable[Tensor], decay: float) -> None:
    """copy <- decay * copy + (1 - decay) * original, in place; works on local shards without communication."""
    torch._foreach_lerp_(list(copies), [t.detach() for t in originals], 1 - decay)
