"""Say what this machine has and what to fix."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from unlabeled.cli.parse import parse

__all__ = ["broken_torchvision", "main"]

OPTIONAL = {
    "scikit-learn": "unlabeled.sklearn.Encoder, and the built-in digits",
    "onnx": "unlabeled export --to onnx",
    "onnxruntime": "unlabeled export --to onnx",
    "transformers": "nothing here; it opens what export --to hf writes",
}
SPACE_GIB = 2.0  # below this, checkpoints of a mid-sized run and prepared data do not fit together


@dataclass(frozen=True)
class Doctor:
    """Say what this machine has (threads, number formats, measured ceilings, packages, cache) and what to fix.

    Example: unlabeled doctor
    """

    json: bool = False
    """Print one JSON object."""


def main(words: Sequence[str]) -> dict[str, Any]:
    parse(Doctor, words, "doctor")

    import torch

    from unlabeled.core.places import cache
    from unlabeled.engine.machine import ceiling, processor
    from unlabeled.engine.precision import has_bf16

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    folder = cache()
    free = shutil.disk_usage(folder).free / 2**30
    ceilings = {str(d).removeprefix("torch."): ceiling(d) for d in (torch.float32, torch.bfloat16)}
    versions = {name: _version(name) for name in OPTIONAL}
    found: dict[str, Any] = {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "processor": processor(),
        "accelerators": torch.cuda.device_count(),
        "cores": cores,
        "threads": torch.get_num_threads(),
        "native_bf16": has_bf16(),
        "flops_per_second": ceilings,
        "cache": str(folder),
        "free_gib": round(free, 1),
        "optional": versions,
    }
    found["fix"] = _fixes(cores, torch.get_num_threads(), free, str(folder))
    _print(found)
    return found


def broken_torchvision() -> bool:
    """Whether torchvision is installed and cannot be imported, which breaks packages that only look for it."""
    if importlib.util.find_spec("torchvision") is None:
        return False
    import subprocess
    import sys

    # In a process of its own: a failing import leaves half-registered operators behind.
    return subprocess.run([sys.executable, "-c", "import torchvision"], capture_output=True).returncode != 0


def _fixes(cores: int, threads: int, free_gib: float, folder: str) -> list[str]:
    said = []
    if threads > cores:
        said.append(
            f"torch uses {threads} threads on {cores} cores and will wait for itself; set OMP_NUM_THREADS={cores}."
        )
    if threads < cores and "OMP_NUM_THREADS" in os.environ:
        said.append(f"OMP_NUM_THREADS keeps torch to {threads} of {cores} cores; unset it to use them all.")
    if broken_torchvision():
        said.append("torchvision is installed but does not fit this torch, which breaks transformers and torchmetrics "
                    "too; remove it: pip uninstall torchvision")  # fmt: skip
    if free_gib < SPACE_GIB:
        said.append(f"Only {free_gib:.1f} GiB are free at {folder}; make room, or set UNLABELED_CACHE to another disk.")
    return said


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _print(found: dict[str, Any]) -> None:
    from unlabeled.engine.console import quantity

    print(f"Python      {found['python']}, torch {found['torch']}")
    print(f"Processor   {found['processor']}")
    print(
        f"            {found['cores']} cores, {found['threads']} threads in torch, {found['accelerators']} accelerators"
    )
    print(
        f"bfloat16    {'native: products run in it' if found['native_bf16'] else 'not native: products run in float32'}"
    )
    for dtype, speed in found["flops_per_second"].items():
        print(f"ceiling     {quantity(speed)}FLOP/s in {dtype} (a large matrix product)")
    print(f"Cache       {found['cache']}, {found['free_gib']} GiB free (UNLABELED_CACHE sets another folder)")
    for name, version in found["optional"].items():
        print(f"{'has' if version else 'has not':<11} {name} {version or ''}".rstrip() + f": {OPTIONAL[name]}")
    print("\n" + "\n".join(f"To fix: {line}" for line in found["fix"]) if found["fix"] else "\nNothing to fix.")
