"""Shard a network over processes (FSDP2), keep it whole for a while."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from unlabeled.parallel.world import device, world

__all__ = ["kept_whole", "local", "shard", "sync_gradients", "whole"]


def shard(network: nn.Module, forwards: Iterable[str], reduction: torch.dtype) -> None:
    """Shard the weights of `network` in place over all processes; does nothing on one process.

    reshard_after_forward is passed explicitly: a network that only runs forward (a teacher, a generator in the
    update of its discriminator) would otherwise stay gathered, and in-place averages of its weights would fail.
    """
    if world() == 1:
        return
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method

    mesh = init_device_mesh(device().type, (world(),))
    policy = MixedPrecisionPolicy(reduce_dtype=reduction, cast_forward_inputs=False)
    fully_shard(network, mesh=mesh, mp_policy=policy, reshard_after_forward=True)
    for name in forwards:
        register_fsdp_forward_method(network, name)


def sync_gradients(networks: Iterable[nn.Module], on: bool) -> None:
    """Reduce gradients over processes in the coming backward, or leave them for a later one."""
    for network in networks:
        if hasattr(network, "set_requires_gradient_sync"):
            network.set_requires_gradient_sync(on)  # type: ignore[operator]


@contextmanager
def kept_whole(network: nn.Module) -> Iterator[nn.Module]:
    """Keep the weights gathered inside the block, for generation that calls the network hundreds of times."""
    if not hasattr(network, "unshard"):
        yield network
        return
    network.set_reshard_after_forward(False)  # type: ignore[operator]
    network.unshard()  # type: ignore[operator]
    try:
        yield network
    finally:
        network.set_reshard_after_forward(True)  # type: ignore[operator]
        network.reshard()  # type: ignore[operator]


def whole(tensor: Tensor) -> Tensor:
    """The full tensor of a sharded one (a collective call), or the tensor itself."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def local(tensor: Tensor) -> Tensor:
    """This process's part of a sharded tensor, sharing its memory, or the tensor itself."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor
