"""Failures that papers warn of, injected on purpose: does the report name them, and is the healthy run called healthy?

Run: python benchmarks/failures.py [NAME ...]      NAME: one of FAILURES below; by default all
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from record import record

from unlabeled.engine.launch import train, untrained
from unlabeled.engine.loop import Settings
from unlabeled.engine.record import Run

# By name: what is trained on what for how long, and what is done wrong. The healthy run differs in nothing else.
FAILURES: dict[str, dict[str, Any]] = {
    "bert-no-learning": {
        "system": "bert",
        "data": "moby-dick",
        "variant": "laptop",
        "steps": 100,
        "wrong": {"lr": 1e-7},
    },
    "moco-no-momentum": {
        "system": "moco",
        "data": "fashion",
        "variant": "small",
        "steps": 200,
        "wrong": {"key_momentum": 0.0},
    },
    "vqvae-no-hygiene": {
        "system": "vqvae.codes",
        "data": "fashion",
        "variant": "small",
        "steps": 300,
        "both": {"codes": 512},
        "wrong": {"debias": True, "from_data": False, "restart": 0.0},
    },
    "vae-strong-beta": {"system": "vae", "data": "fashion", "variant": "small", "steps": 300, "wrong": {"beta": 50.0}},
    "gan-strong-discriminator": {
        "system": "gan",
        "data": "fashion",
        "variant": "small",
        "steps": 200,
        "wrong": {"game": "minimax", "norm": "none", "lr": 1e-4, "discriminator_lr": 1e-2},
    },
    "glow-no-dequantisation": {
        "system": "glow",
        "data": "fashion",
        "variant": "small",
        "steps": 150,
        "wrong": {"dequantise": False},
    },
    "wav2vec2-no-diversity": {
        "system": "wav2vec2",
        "data": "speech",
        "variant": "small",
        "steps": 300,
        "both": {"batch": 8},
        "wrong": {"diversity_weight": 0.0, "lr": 3e-3},
    },
}


def findings(about: Mapping[str, Any], overrides: Mapping[str, Any], out: Path) -> list[dict[str, Any]]:
    """Train, and return what the method says of its metrics."""
    settings = Settings(budget=f"{about['steps']}steps", log_every="10steps", save_every="100000steps")
    try:
        run = train(
            about["system"], about["data"], variant=about["variant"], overrides=overrides, settings=settings, out=out
        )
    except Exception as error:  # a loss that is no number stops the run; what was logged before is diagnosed
        print(error)
        run = Run(out)
    found = untrained(run).diagnose(run.metrics())
    return [{"name": f.name, "value": f.value, "healthy": f.healthy, "meaning": f.meaning} for f in found]


def main(names: list[str]) -> None:
    for name in names or FAILURES:
        about = FAILURES[name]
        both = about.get("both", {})
        with tempfile.TemporaryDirectory() as folder:
            healthy = findings(about, both, Path(folder) / "healthy")
            ill = findings(about, {**both, **about["wrong"]}, Path(folder) / "ill")
        named = [f["name"] for f in ill if not f["healthy"]]
        figures = {
            "about": about,
            "named": named,
            "named_in_the_healthy_run": [f["name"] for f in healthy if not f["healthy"]],
            "ill": ill,
            "healthy": healthy,
        }
        record("failures", {"failure": name, **figures})


if __name__ == "__main__":
    main(sys.argv[1:])
