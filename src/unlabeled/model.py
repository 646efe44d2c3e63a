"""A trained model in use: embed, sample, score."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unlabeled.core import catalogue
from unlabeled.core.batch import Batch, Spec
from unlabeled.core.errors import UserError
from unlabeled.core.method import Method, capabilities
from unlabeled.data.source import Source
from unlabeled.data.sources import source as open_source
from unlabeled.data.store import Store, build
from unlabeled.engine.launch import at_checkpoint, handed_on
from unlabeled.engine.record import Run, is_recipe
from unlabeled.parallel.world import device

__all__ = ["Model", "load", "source_of"]


class Model:
    """A method with trained weights, in evaluation mode on this machine's device.

    run: the run it came from, or None. source: the data it was trained on, opened when it is first asked for.
    """

    def __init__(self, system: str, method: Method, run: Run | None = None, source: Source | None = None) -> None:
        self.system, self.method, self.run = system, method.to(device()).eval(), run
        self._source = source

    @property
    def spec(self) -> Spec:
        return self.method.spec

    @cached_property
    def source(self) -> Source:
        """The data of the run, both splits.

        Raises:
            UserError: where the model came without its data.
        """
        if self._source is not None:
            return self._source
        path = self.run.config["data"]["path"] if self.run is not None else None
        if path is None:
            raise UserError("This model does not know its training data; name the data to use.")
        return open_source(path)

    def can(self, capability: str) -> bool:
        """Whether the method offers "embed", "embed_locally", "sample", "score", "encode" (and decode) or "reconstruct"."""
        return capability in capabilities(self.method)

    def store(self, data: Any, *, whole: bool = False) -> Store:
        """Data prepared for this method: a Source, a path or name, an array of images, a list of texts.

        whole: one example for each text, of at most as many tokens as the method sees at once, instead of windows.
        """
        return build(source_of(data), self.method, whole=whole)

    def batches(self, data: Any, limit: int | None = None, size: int = 256) -> Iterator[Batch]:
        """Collated batches of the first `limit` examples, in order, on the device."""
        store = data if isinstance(data, Store) else self.store(data)
        end = len(store) if limit is None else min(limit, len(store))
        for start in range(0, end, size):
            batch = self.method.collate(store.batch(np.arange(start, min(start + size, end))))
            yield {k: v.to(device()) for k, v in batch.items()}

    def embed(self, data: Any, limit: int | None = None) -> np.ndarray:
        """(n, width) float32 features, one row per usable record in order; of a long text, of its beginning."""
        store = data if isinstance(data, Store) else self.store(data, whole=True)
        return self._of_each("embed", store, limit).astype(np.float32, copy=False)

    def score(self, data: Any, limit: int | None = None) -> np.ndarray:
        """(n,) float64 log-likelihoods in nats per example; `method.likelihood` says whether exact or a lower bound."""
        return self._of_each("score", data, limit).astype(np.float64)

    def encode(self, data: Any, limit: int | None = None) -> np.ndarray:
        """(n, ...) int64 codes or float32 latents."""
        return self._of_each("encode", data, limit)

    def decode(self, codes: np.ndarray, size: int = 256) -> dict[str, np.ndarray]:
        """What `encode` gave, or anything like it, back in data space, such as {"image": uint8 (n, h, w, channels)}."""
        self._need("encode")
        pieces = torch.from_numpy(np.ascontiguousarray(codes)).split(size)
        with torch.no_grad():
            parts = [self.method.decode(piece.to(device())) for piece in pieces]  # type: ignore[attr-defined]
        return {name: np.concatenate([p[name].cpu().numpy() for p in parts]) for name in parts[0]}

    def reconstruct(self, data: Any, limit: int | None = None) -> dict[str, np.ndarray]:
        """The examples as they come back from their codes, such as {"image": uint8 (n, h, w, channels)}."""
        self._need("reconstruct")
        with torch.no_grad():
            parts = [self.method.reconstruct(b) for b in self.batches(data, limit)]  # type: ignore[attr-defined]
        return {name: np.concatenate([p[name].cpu().numpy() for p in parts]) for name in parts[0]}

    def _of_each(self, capability: str, data: Any, limit: int | None) -> np.ndarray:
        self._need(capability)
        with torch.no_grad():
            parts = [getattr(self.method, capability)(b).cpu() for b in self.batches(data, limit)]
        return np.concatenate([p.float().numpy() if p.dtype == torch.bfloat16 else p.numpy() for p in parts])

    def sample(
        self, n: int, *, seed: int = 0, prompt: Any = None, steps: int | None = None, guidance: float | None = None
    ) -> dict[str, Any]:
        """n new examples: {"image": (n, height, width, channels) uint8} or {"text": [str]}; the same for a seed."""
        self._need("sample")
        torch.manual_seed(seed)
        with torch.no_grad():
            out = self.method.sample(n, condition=prompt, steps=steps, guidance=guidance)  # type: ignore[attr-defined]
        return {k: v.cpu().numpy() if isinstance(v, torch.Tensor) else v for k, v in out.items()}

    def fresh(self, seed: int = 0) -> Method:
        """The same method with untrained weights, for comparison."""
        torch.manual_seed(seed)
        return type(self.method)(self.method.config, self.spec, dict(self.method.given)).to(device()).eval()

    def _need(self, capability: str) -> None:
        if not self.can(capability):
            offers = ", ".join(capabilities(self.method)) or "nothing after training"
            raise UserError(f"{self.system} cannot {capability}; it offers {offers}.")


def load(path: str | Path, source: Source | None = None) -> Model:
    """Open a run folder, an exported model, or a folder in the Hugging Face layout. Executes nothing of it.

    source: the data it was trained on, where that was given in memory.

    Raises:
        UserError: where the folder is none of these, or the run has no checkpoint yet.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise UserError(f"There is no folder {path}; give a run folder or one in the Hugging Face layout.")
    if is_recipe(folder):
        folder = Run(folder).path
    if (folder / "unlabeled.json").exists():
        return Model(*handed_on(folder), source=source)
    if (folder / "status.json").exists():
        run = Run(folder)
        if not (folder / "model" / "unlabeled.json").exists():  # killed, or still going on
            return Model(run.config["system"], at_checkpoint(run), run, source)
        return Model(*handed_on(folder / "model"), run, source)
    for system in catalogue.trainings():
        kind = catalogue.method(system)
        if kind.opens(folder):
            return Model(system, kind.from_pretrained(folder), source=source)
    raise UserError(f"{folder} is neither a run folder nor a model in a layout that a method here opens.")


def source_of(data: Any) -> Source:
    """A source of whatever names or holds data: a Source, a path or name, an array of images, a list of texts.

    Raises:
        UserError: where it is none of these, or cannot be opened.
    """
    if isinstance(data, Source):
        return data
    if isinstance(data, (str, Path)):
        return open_source(data)
    from unlabeled.data.sources.memory import ImagesInMemory, TextsInMemory

    if isinstance(data, np.ndarray):
        return ImagesInMemory(data)
    if isinstance(data, (list, tuple)) and all(isinstance(t, str) for t in data):
        return TextsInMemory(data)
    raise UserError(
        "Data is a path, a built-in name, an array of images (n, height, width[, channels]) or a list of texts."
    )
