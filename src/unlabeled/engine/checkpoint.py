"""Checkpoints for exact resumption: torch's distributed checkpointing into safetensors files, and JSON.

A checkpoint is a folder. It is written under a partial name, flushed to disk, sealed by a manifest of checksums, and
renamed; one whose checksums fail is passed over for the one before. DCP writes one file per process and reads any
number of them on any number of processes. Its usual storage pickles the index; the safetensors one does not.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unlabeled.core.method import Method
from unlabeled.engine.optimise import Part
from unlabeled.parallel.shard import local
from unlabeled.parallel.world import rank, together, world

__all__ = ["checksum", "latest", "restore", "save", "weights"]


def save(
    folder: Path,
    step: int,
    method: Method,
    parts: dict[str, Part],
    average: dict[str, Tensor],
    facts: dict[str, Any],
    keep: int = 2,
) -> Path:
    """Write `folder/step-N` with everything that resumption needs, then drop all but the newest `keep`.

    facts: what is not a tensor (clock, seconds spent); JSON types.
    """
    import torch.distributed.checkpoint as dcp

    final, partial = folder / f"step-{step:09d}", folder / f".step-{step:09d}.partial"
    if rank() == 0:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    together()
    optimizer = {f"optimizer.{name}.{key}": t for name, part in parts.items() for key, t in part.state().items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # DCP warns that one process is one process
        dcp.save(
            {**_weights(method), **{f"average.{n}": t for n, t in average.items()}, **optimizer},
            storage_writer=dcp.HuggingFaceStorageWriter(str(partial), save_distributed=True),
            no_dist=world() == 1,
        )
    together()
    if rank() == 0:
        shapes = {name: (list(t.shape), str(t.dtype).removeprefix("torch.")) for name, t in optimizer.items()}
        (partial / "state.json").write_text(json.dumps({**facts, "step": step, "optimizer": shapes}))
        sums = {path.name: checksum(path) for path in sorted(partial.iterdir())}
        (partial / "manifest.json").write_text(json.dumps(sums))
        for path in [*partial.iterdir(), partial]:
            _flush(path)
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)
        _flush(folder)
        for old in _sorted(folder)[:-keep]:
            shutil.rmtree(old)
    together()
    return final


def latest(folder: Path) -> tuple[Path | None, list[str]]:
    """The newest checkpoint whose checksums hold, and a sentence for each newer one that was passed over."""
    problems = []
    for path in reversed(_sorted(folder)):
        problem = _problem(path)
        if problem is None:
            return path, problems
        problems.append(f"Checkpoint {path.name} is damaged ({problem}); using the one before it.")
    return None, problems


def restore(path: Path, method: Method, parts: dict[str, Part], average: dict[str, Tensor]) -> dict[str, Any]:
    """Fill method, optimisers and averages in place from a checkpoint; the facts it was saved with."""
    import torch.distributed.checkpoint as dcp

    facts = json.loads((path / "state.json").read_text())
    wanted = {**_weights(method), **{f"average.{n}": t for n, t in average.items()}}
    for name, part in parts.items():
        for optimizer in part.optimizers:  # of the first checkpoint, before any step, there is no state to go back to
            optimizer.state.clear()
        prefix = f"optimizer.{name}."
        shapes = {k.removeprefix(prefix): v for k, v in facts["optimizer"].items() if k.startswith(prefix)}
        wanted |= {prefix + key: t for key, t in part.blank_state(shapes).items()}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        dcp.load(wanted, storage_reader=dcp.HuggingFaceStorageReader(str(path)), no_dist=world() == 1)
    return facts


def weights(path: Path, method: Method) -> None:
    """Fill a method in place with the weights of a checkpoint alone, the averaged ones where there are any."""
    import torch.distributed.checkpoint as dcp

    wanted: dict[str, Any] = dict(_weights(method))
    if method.config.average:
        wanted |= {f"average.{n}": torch.empty_like(p) for n, p in method.named_parameters() if p.requires_grad}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        dcp.load(wanted, storage_reader=dcp.HuggingFaceStorageReader(str(path)), no_dist=True)
        for name, p in method.named_parameters():
            if f"average.{name}" in wanted:
                p.copy_(wanted[f"average.{name}"])


def _weights(method: Method) -> dict[str, Tensor]:
    """Parameters and buffers by name, those under two names once: they share memory."""
    seen: set[int] = set()
    out = {}
    for name, tensor in method.state_dict().items():
        if isinstance(tensor, Tensor) and _memory_of(tensor) not in seen:
            seen.add(_memory_of(tensor))
            out[f"method.{name}"] = tensor
    return out


def _memory_of(tensor: Tensor) -> int:
    """Where the memory of a tensor starts; empty ones are told apart by identity."""
    return local(tensor).data_ptr() or id(tensor)


def _sorted(folder: Path) -> list[Path]:
    return sorted(p for p in folder.glob("step-*") if p.is_dir())


def _problem(path: Path) -> str | None:
    try:
        sums = json.loads((path / "manifest.json").read_text())
        for name, expected in sums.items():
            if checksum(path / name) != expected:
                return f"{name} has another checksum"
    except (OSError, ValueError, AttributeError) as error:
        return str(error)
    return None


def checksum(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
