"""Data that is in memory already: arrays of images, lists of texts, lists of waves."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from unlabeled.core.batch import Record, Spec
from unlabeled.core.errors import UserError
from unlabeled.data.source import Source

__all__ = ["ImagesInMemory", "TextsInMemory", "WavesInMemory"]


class ImagesInMemory(Source):
    """(n, height, width) or (n, height, width, channels) arrays, uint8, or float in [0, 1]."""

    kind = "image"

    def __init__(self, images: np.ndarray, labels: np.ndarray | None = None, name: str = "array") -> None:
        if images.ndim not in (3, 4) or not len(images) or (images.ndim == 4 and images.shape[3] not in (1, 3)):
            raise UserError(
                f"Images in memory are (n, height, width) or (n, height, width, 1 or 3); got {images.shape}."
            )
        self.images, self.name = images if images.ndim == 4 else images[..., None], name
        if labels is not None:
            self.labels = np.asarray(labels, dtype=np.int64)
            self.classes = tuple(str(c) for c in range(int(self.labels.max()) + 1))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Record:
        label = -1 if self.labels is None else int(self.labels[index])
        return Record(str(index), {"image": self.images[index]}, label)

    def group(self, index: int) -> str:
        return str(index)

    def spec(self) -> Spec:
        _, height, width, channels = self.images.shape
        return Spec(kind="image", examples=len(self), image_size=min(height, width), channels=channels)

    def identity(self) -> str:
        return hashlib.sha256(str(self.images.shape).encode() + np.ascontiguousarray(self.images).tobytes()).hexdigest()


class TextsInMemory(Source):
    """A list of documents."""

    kind = "text"
    name = "texts"

    def __init__(self, texts: Sequence[str]) -> None:
        if not texts:
            raise UserError("There is no text in the list.")
        self.texts = list(texts)

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index: int) -> Record:
        return Record(str(index), {"text": self.texts[index]})

    def group(self, index: int) -> str:
        return str(index)

    def spec(self) -> Spec:
        return Spec(kind="text", examples=len(self), longest=max(map(len, self.texts)))

    def identity(self) -> str:
        return hashlib.sha256("\0".join(self.texts).encode("utf-8", "surrogatepass")).hexdigest()


class WavesInMemory(Source):
    """A list of recordings: arrays (samples,) or (samples, channels), float in [-1, 1] or whole numbers."""

    kind = "wave"
    name = "waves"

    def __init__(self, waves: Sequence[np.ndarray], rate_hz: int) -> None:
        if not waves:
            raise UserError("There is no recording in the list.")
        self.waves, self.rate_hz = [np.asarray(w) for w in waves], rate_hz

    def __len__(self) -> int:
        return len(self.waves)

    def __getitem__(self, index: int) -> Record:
        return Record(str(index), {"wave": self.waves[index], "rate": self.rate_hz})

    def group(self, index: int) -> str:
        return str(index)

    def spec(self) -> Spec:
        return Spec(
            kind="wave", examples=len(self), sample_rate_hz=self.rate_hz, longest=max(len(w) for w in self.waves)
        )

    def identity(self) -> str:
        found = hashlib.sha256(str(self.rate_hz).encode())
        for wave in self.waves:
            found.update(f"{wave.dtype}{wave.shape}".encode() + np.ascontiguousarray(wave).tobytes())
        return found.hexdigest()
