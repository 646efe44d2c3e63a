"""What this machine can do at most: its matrix-product ceiling, measured and cached; and what a step costs."""

from __future__ import annotations

import ctypes
import json
import platform
import time
from functools import cache as cache_in_process
from pathlib import Path

import torch

from unlabeled.core.batch import Batch
from unlabeled.core.clock import Clock
from unlabeled.core.method import Method
from unlabeled.core.places import cache
from unlabeled.engine.precision import Precision
from unlabeled.engine.record import write_atomically
from unlabeled.parallel.world import device

__all__ = ["ceiling", "keep_freed_memory", "peak_memory", "processor", "step_flops"]


def processor() -> str:
    """Name of the accelerator or processor."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


@cache_in_process
def ceiling(dtype: torch.dtype) -> float:
    """FLOPs per second of a large matrix product in this format.

    The highest that was ever measured on this machine: each process measures briefly and the best is kept in the cache
    folder, since a busy machine shows less than it can do.
    """
    key = f"{processor()} | {torch.get_num_threads()} threads | torch {torch.__version__} | {dtype}"
    file = cache() / "machine.json"
    try:
        known = json.loads(file.read_text())
    except (OSError, ValueError):
        known = {}
    known[key] = max(known.get(key, 0.0), _measure(dtype))
    write_atomically(file, json.dumps(known, indent=1))
    return known[key]


def _measure(dtype: torch.dtype) -> float:
    size = 8192 if torch.cuda.is_available() else 1024
    a = torch.randn(size, size, device=device(), dtype=dtype)
    times = []
    for _ in range(12):
        start = time.perf_counter()
        a @ a
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return 2 * size**3 / min(times)


def keep_freed_memory() -> None:
    """Let glibc keep what is freed instead of returning it: a training step frees and asks for the same large blocks
    again and again, and fresh pages cost more than the arithmetic of an elementwise operation. Elsewhere, nothing."""
    if platform.system() == "Linux" and platform.libc_ver()[0] == "glibc":
        trim_threshold, mmap_threshold, largest = -1, -3, 32 * 2**20  # numbers of malloc.h; its greatest threshold
        libc = ctypes.CDLL(None)
        libc.mallopt(mmap_threshold, largest)
        libc.mallopt(trim_threshold, 2**31 - 1)


def peak_memory() -> int:
    """Most bytes this process has held so far: of the accelerator, or resident."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if platform.system() == "Darwin" else 1024)


def step_flops(method: Method, batch: Batch, clock: Clock, precision: Precision, examples: int) -> float:
    """FLOPs of one outer step of `examples` examples, counted by torch on a few of them and scaled up.

    Counts matrix products and convolutions, forward and backward, of every update. Changes nothing: gradients are
    dropped and buffers (batch statistics, queues) are put back.
    """
    from torch.utils.flop_counter import FlopCounterMode

    few = {k: v[:4] for k, v in batch.items()}
    size = len(next(iter(few.values())))
    buffers = {n: b.clone() for n, b in method.named_buffers()}
    with FlopCounterMode(display=False) as counter:
        for part, part_batch in method.updates(few, clock):
            with precision.computing():
                loss = method.loss(part_batch, part, clock).loss
            loss.backward()
    counted = counter.get_total_flops() * examples / size
    with torch.no_grad():
        for name, buffer in method.named_buffers():
            buffer.copy_(buffers[name])
    for p in method.parameters():
        p.grad = None
    return counted
