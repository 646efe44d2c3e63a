"""Run a function on several processes joined by gloo, as torchrun would start them."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any

import torch
import torch.multiprocessing as mp


def _entry(rank: int, world: int, port: int, function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    from unlabeled.parallel.world import started

    with started():
        function(*arguments)


def on_processes(world: int, function: Callable[..., None], *arguments: Any) -> None:
    """Call function(*arguments), which must be importable, on `world` processes; raises what any of them raises."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.start_processes(_entry, (world, port, function, arguments), nprocs=world, start_method="spawn")
