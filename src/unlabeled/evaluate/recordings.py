"""Recordings for measuring: batches of like length, local features, at which moment each is, and spectra beside them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from unlabeled.core.batch import Batch
from unlabeled.core.method import Method
from unlabeled.data import melspec
from unlabeled.data.source import Source
from unlabeled.data.store import Store
from unlabeled.parallel.world import device

__all__ = [
    "SPECTRA", "Alignment", "Recordings", "batch_of", "grouped", "locally", "moments", "positions", "rate_of", "spectra",
]  # fmt: skip

Alignment = Sequence[tuple[float, float, str]]

SAMPLES = 1 << 20  # in a batch, with padding: 65 s at 16 kHz


@dataclass(frozen=True)
class Recordings:
    """Some examples of a store of sound. indices: (n,) into the store, in an order that may be cut short."""

    source: Source
    store: Store
    indices: np.ndarray

    def __len__(self) -> int:
        return len(self.indices)

    def first(self, n: int) -> Recordings:
        return Recordings(self.source, self.store, self.indices[:n])

    @cached_property
    def rows(self) -> list[int]:
        """Their places in the source."""
        return self.store.rows[self.indices].tolist()

    @cached_property
    def lengths(self) -> np.ndarray:
        """(n,) samples of each."""
        if "wave" in self.store.lengths:
            return self.store.lengths["wave"][self.indices]
        one = self.store.batch(self.indices[:1])["wave"]
        return np.full(len(self), one.shape[1])

    @cached_property
    def alignments(self) -> list[Alignment | None]:
        return [self.source.alignment(row) for row in self.rows]


def grouped(lengths: np.ndarray, samples: int = SAMPLES) -> list[np.ndarray]:
    """Indices of recordings in groups of at most `samples` with padding, the shortest first."""
    order = np.argsort(lengths, kind="stable")
    groups, start = [], 0
    for end in range(1, len(order) + 1):
        if end == len(order) or (end + 1 - start) * lengths[order[end]] > samples:
            groups.append(order[start:end])
            start = end
    return groups


def batch_of(method: Method, recordings: Recordings, which: np.ndarray) -> Batch:
    """These recordings, collated, on the device."""
    batch = method.collate(recordings.store.batch(recordings.indices[which]))
    return {name: tensor.to(device()) for name, tensor in batch.items()}


def locally(method: Method, recordings: Recordings) -> list[np.ndarray]:
    """Local features of each recording, (its frames, width) float32."""
    found: list[np.ndarray] = [np.zeros(0)] * len(recordings)
    with torch.no_grad():
        for which in grouped(recordings.lengths):
            batch = batch_of(method, recordings, which)
            features = method.embed_locally(batch).float()  # type: ignore[attr-defined]
            counts = positions(method, batch, features.shape[1])
            for i, row, count in zip(which, features.cpu().numpy(), counts.tolist()):
                found[i] = row[:count]
    return found


def positions(method: Method, batch: Batch, frames: int) -> Tensor:
    """(n,) int64: how many local features of each example count."""
    if hasattr(method, "positions"):
        return method.positions(batch)  # type: ignore[attr-defined]
    return torch.full((len(batch["wave"]),), frames, device=batch["wave"].device)


def rate_of(method: Method) -> int:
    """Samples a second of the waves that a method prepares."""
    return method.rate_hz


def moments(method: Method, recordings: Recordings) -> list[np.ndarray]:
    """(frames,) seconds for each recording: the middle of what each of its local features is about.

    A feature is taken to end where a recording just long enough to have it ends, and to be as long as the shortest
    recording that has any: for convolutions without padding this is their receptive field. Without `positions`,
    features are spread evenly.
    """
    lengths = recordings.lengths
    if not hasattr(method, "positions"):
        counts = [len(f) for f in locally(method, recordings)]
        return [(np.arange(n) + 0.5) * length / (n * rate_of(method)) for n, length in zip(counts, lengths)]

    def count(lengths: Tensor) -> np.ndarray:
        wave = torch.zeros(1, 1, device=device()).expand(len(lengths), int(lengths.max()))  # one number in memory
        return method.positions({"wave": wave, "wave_length": lengths.to(device())}).cpu().numpy()  # type: ignore[attr-defined]

    counts = count(torch.from_numpy(lengths))
    every = count(torch.arange(1, int(lengths.max()) + 1))
    ends = 1 + np.searchsorted(every, np.arange(1, counts.max() + 1))
    times = (ends - ends[0] / 2) / rate_of(method)
    return [times[:n] for n in counts]


def _mfcc(wave: Tensor, rate_hz: int) -> Tensor:
    cepstra = melspec.mfcc(wave, rate_hz)
    slopes = melspec.deltas(cepstra)
    return torch.cat([cepstra, slopes, melspec.deltas(slopes)], 1)


SPECTRA: dict[str, Callable[[Tensor, int], Tensor]] = {"log-mel 80": melspec.log_mel, "MFCC 39": _mfcc}


def spectra(
    name: str, recordings: Recordings, rate_hz: int, times: Sequence[np.ndarray] | None = None
) -> list[np.ndarray]:
    """Of each recording (frames, width) float32: all 100 frames a second, or, brought to mean 0 and variance 1 over the
    recording, those nearest to `times` (seconds)."""
    found = []
    for i, index in enumerate(recordings.indices):
        wave = recordings.store.batch(np.array([index]))["wave"][0]
        spectrum = SPECTRA[name](torch.from_numpy(wave), rate_hz)
        if times is not None and len(spectrum):
            nearest = np.rint((times[i] - 0.0125) * 100)  # frame j is about the 25 ms from j / 100 s on
            spectrum = melspec.per_recording(spectrum)[nearest.astype(int).clip(0, len(spectrum) - 1)]
        found.append(spectrum.numpy())
    return found
