"""What crosses processes, with gradient: rows of all, sums over all. All are the identity on one process."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from unlabeled.parallel.world import rank, world

__all__ = ["gather", "mean", "total"]


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, rows: Tensor) -> Tensor:  # type: ignore[override]
        out = [torch.empty_like(rows) for _ in range(world())]
        dist.all_gather(out, rows.contiguous())
        return torch.cat(out)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:  # type: ignore[override]
        gradient = gradient.contiguous().clone()
        dist.all_reduce(gradient)
        rows = len(gradient) // world()
        return gradient[rank() * rows : (rank() + 1) * rows]


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx, value: Tensor) -> Tensor:  # type: ignore[override]
        value = value.contiguous().clone()
        dist.all_reduce(value)
        return value

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:  # type: ignore[override]
        gradient = gradient.contiguous().clone()
        dist.all_reduce(gradient)
        return gradient


def gather(rows: Tensor) -> Tensor:
    """(n, ...) on each process to (world * n, ...) in the order of ranks; gradient flows back to every process.

    Each process must give the same number of rows.
    """
    return rows if world() == 1 else _Gather.apply(rows)


def total(value: Tensor) -> Tensor:
    """Sum over processes, with gradient."""
    return value if world() == 1 else _Total.apply(value)


def mean(value: Tensor) -> Tensor:
    """Mean over processes, with gradient."""
    return value if world() == 1 else _Total.apply(value) / world()
