"""Start several processes' worth of training under torchrun; the identity on one process."""

from __future__ import annotations

import gc
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["device", "rank", "started", "together", "world"]


def world() -> int:
    """How many processes train together; 1 without torchrun."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of them this is; 0 without torchrun."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def device() -> torch.device:
    """The accelerator of this process, or the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("cpu")


@contextmanager
def started() -> Iterator[None]:
    """Join the process group that torchrun describes in the environment; leave it at the end."""
    if "RANK" not in os.environ or dist.is_initialized():
        yield
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(device())
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield
    finally:
        # Sharded networks hold on to their groups in cycles; groups that outlive this call keep threads that may ask for
        # the interpreter while it ends, which aborts the process.
        gc.collect()
        dist.destroy_process_group()


def together() -> None:
    """Wait until every process is here."""
    if world() > 1:
        dist.barrier()
