"""Made data for the common suite: shapes one can tell apart, sentences with a grammar, tunes of uneven length."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from unlabeled.core import catalogue
from unlabeled.core.batch import Spec
from unlabeled.core.method import Method
from unlabeled.data.source import Source
from unlabeled.data.sources.memory import ImagesInMemory, TextsInMemory, WavesInMemory
from unlabeled.data.store import build
from unlabeled.engine.loop import Settings, Trainer
from unlabeled.engine.record import Run
from unlabeled.parallel.world import rank, together


def source_for(kind: type[Method]) -> Source:
    rng = np.random.default_rng(0)
    if "image" in kind.takes:
        row, column = np.mgrid[0:16, 0:16]
        angle, phase = rng.uniform(0, np.pi, (2, 96, 1, 1))
        wave = np.sin((np.cos(angle) * row + np.sin(angle) * column) * 0.8 + phase)
        return ImagesInMemory(((wave + 1) * 127).astype(np.uint8)[..., None])
    if "wave" in kind.takes:
        return WavesInMemory([_tune(rng) for _ in range(48)], 16_000)
    subjects, verbs = ["the cat", "a dog", "my fish"], ["sees", "hears", "likes"]
    said = (f"{rng.choice(subjects)} {rng.choice(verbs)} {rng.choice(subjects)}. " for _ in range(2000))
    text = "".join(said)
    return TextsInMemory([text[i : i + 1000] for i in range(0, len(text), 1000)])


def _tune(rng: np.random.Generator) -> np.ndarray:
    """0.15 to 0.3 s of three notes out of four, with a little noise."""
    notes = rng.choice([300.0, 700.0, 1500.0, 3100.0], 3)
    lengths = rng.integers(800, 1600, 3)
    phase = 2 * np.pi * np.cumsum(np.repeat(notes, lengths)) / 16_000
    return (0.3 * np.sin(phase) + 0.01 * rng.standard_normal(len(phase))).astype(np.float32)


def tiny(name: str, **overrides: Any) -> Method:
    """The tiny variant of a method on made data, seeded; the stages it needs are not trained."""

    def measure(kind: type[Method], config: Any) -> Spec:
        spec = kind.measure(config, source_for(kind))
        torch.manual_seed(0)
        return spec

    return catalogue.build(name, "tiny", measure, **overrides)


def trainer(name: str, folder: Path, **settings: Any) -> Trainer:
    """A trainer of the tiny variant on a new run folder, or on the one that is there."""
    method, source = tiny(name), source_for(catalogue.method(name))
    if rank() == 0:
        build(source, method)
        if not (folder / "config.json").exists():
            Run.create(folder, {"system": name})
    together()
    chosen = {"budget": "6steps", "precision": "float32", "save_every": "3steps", "log_every": "1steps"} | settings
    return Trainer(method, build(source, method), Run(folder), Settings(**chosen))


def losses(folder: Path) -> list[dict[str, float]]:
    return [{k: v for k, v in row.items() if k.endswith("loss")} for row in Run(folder).metrics()]
