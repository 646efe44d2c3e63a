"""Keep the figures of a benchmark with what is needed to judge and repeat them: one JSON line per run."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("unlabeled", "torch", "numpy", "transformers", "diffusers", "scikit-learn")


def record(name: str, figures: Mapping[str, Any], command: str | None = None, results: Path = RESULTS) -> Path:
    """Append figures to results/NAME.jsonl, print them, and return the file.

    command: what made them; by default the script that is running, with its arguments.
    """
    row = {
        "name": name,
        "command": command or shlex.join(["python", *_relative(sys.argv)]),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": _commit(),
        "machine": _machine(),
        "versions": _versions(),
        "figures": figures,
    }
    results.mkdir(parents=True, exist_ok=True)
    file = results / f"{name}.jsonl"
    with file.open("a") as out:
        out.write(json.dumps(row) + "\n")
    print(json.dumps(row, indent=2))
    return file


def _relative(words: list[str]) -> list[str]:
    """The script's path as seen from the root of the repository."""
    root = Path(__file__).resolve().parent.parent
    script = Path(words[0]).resolve()
    return [str(script.relative_to(root) if script.is_relative_to(root) else script), *words[1:]]


def _commit() -> str:
    """Short name of the commit, with + where tracked source was changed since; empty outside a checkout."""
    folder = Path(__file__).parent
    git = ["git", "-C", str(folder)]
    try:
        head = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], check=True, capture_output=True, text=True)
        changed = subprocess.run(
            [*git, "status", "--porcelain", "--untracked-files=no", "--", "../src"], capture_output=True, text=True
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")


def _machine() -> dict[str, Any]:
    import torch

    from unlabeled.engine.machine import processor

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "processor": processor(),
        "cores": cores,
        "threads": torch.get_num_threads(),
        "load": [round(x, 2) for x in os.getloadavg()],  # figures taken on a busy machine betray themselves
        "system": platform.platform(terse=True),
    }


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
