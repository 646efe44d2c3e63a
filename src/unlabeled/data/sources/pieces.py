"""Long recordings cut into pieces, each a record of its own, so that an hour counts as an hour and not as its start."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import replace
from io import BytesIO
from itertools import pairwise
from math import ceil
from typing import Any

import numpy as np

from unlabeled.core.batch import Record, Spec
from unlabeled.core.errors import BadRecord
from unlabeled.data import sound
from unlabeled.data.source import Source
from unlabeled.data.sources.folder import Files

__all__ = ["PIECE_SECONDS", "Pieces", "in_pieces"]

PIECE_SECONDS = 40.0  # of the recordings of a folder: as much as wav2vec 2.0 keeps of one
_BYTES_A_SECOND = (
    3000  # speech is hardly ever compressed further; files that small need not be opened to be called short
)

_HUSH_S = 0.05  # what is compared when the quietest moment near a cut is sought


def in_pieces(source: Source, seconds: float = PIECE_SECONDS) -> Source:
    """A source of sound with its long recordings in pieces; the source itself where it is of another kind, or has none."""
    if source.kind != "wave":
        return source
    pieces = Pieces(source, seconds)
    return pieces if len(pieces) > len(source) else source


class Pieces(Source):
    """The recordings of another source, in pieces of at most `seconds`, cut where they are quietest.

    A recording that is too long is cut into as few pieces as may be, the cuts spread evenly and then moved to the
    quietest 50 ms nearby. A piece is called `talk.flac@12.00-27.50`; recordings that are short enough stay as they
    are, and so do those that cannot be read, which are refused when they are asked for. All pieces of a recording are
    one group, and have its class; its transcript and phone times belong to none of them.

    Every recording is read once when this is made, but for files that are small.
    """

    kind = "wave"

    def __init__(self, source: Source, seconds: float) -> None:
        self.source, self.seconds, self.name = source, seconds, source.name
        self.classes, self.quarantined = source.classes, source.quarantined
        self.parts: list[tuple[int, float, float]] = []  # record of the source, start and end; 0 and 0: all of it
        longest = 0.0
        for index in range(len(source)):
            try:
                short = isinstance(source, Files) and source.size(index) < seconds * _BYTES_A_SECOND
                cuts, rate_hz = ([], 0) if short else _cuts(source[index].fields, seconds)
            except BadRecord:
                cuts, rate_hz = [], 0
            self.parts += [(index, start, end) for start, end in pairwise(cuts)] or [(index, 0.0, 0.0)]
            longest = max([longest, *((end - start) * rate_hz for start, end in pairwise(cuts))])
        self._longest = ceil(longest)
        rows = np.array([index for index, _, _ in self.parts], np.int64)
        self.labels = None if source.labels is None else source.labels[rows]
        self.official = {name: np.flatnonzero(np.isin(rows, members)) for name, members in source.official.items()}
        self._kept: OrderedDict[int, Record] = OrderedDict()

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, index: int) -> Record:
        row, start, end = self.parts[index]
        record = self._kept.get(row) or self.source[row]
        if not end:
            return record
        self._kept[row] = record  # neighbours come next
        while len(self._kept) > 4:
            self._kept.popitem(last=False)
        wave, rate_hz = _read(record.fields, start, end)
        fields = {name: value for name, value in record.fields.items() if name != "caption"}
        return Record(f"{record.id}@{start:.2f}-{end:.2f}", fields | {"wave": wave, "rate": rate_hz}, record.label)

    def group(self, index: int) -> str:
        return self.source.group(self.parts[index][0])

    def transcript(self, index: int) -> str | None:
        row, _, end = self.parts[index]
        return None if end else self.source.transcript(row)

    def alignment(self, index: int) -> list[tuple[float, float, str]] | None:
        row, _, end = self.parts[index]
        return None if end else self.source.alignment(row)

    def spec(self) -> Spec:
        spec = self.source.spec()
        least = min(spec.longest, int(self.seconds * spec.sample_rate_hz)) if spec.longest else 0
        return replace(spec, examples=len(self), longest=max(least, self._longest))

    def identity(self) -> str:
        return hashlib.sha256(f"{self.source.identity()} pieces {self.parts}".encode()).hexdigest()


def _cuts(fields: Any, seconds: float) -> tuple[list[float], int]:
    """Where the pieces of a recording begin and end, in seconds, and its rate; nothing where it is short enough."""
    wave = fields["wave"]
    if isinstance(wave, np.ndarray):
        rate_hz = int(fields["rate"])
        total = len(wave) / rate_hz
    else:
        total, rate_hz, _ = sound.measure(wave)
    if total <= seconds:
        return [], rate_hz
    # A little shorter than allowed, so that cuts have room to move; a tenth to either side keeps every piece within.
    count = ceil(total / (0.9 * seconds))
    reach = min(0.05 * seconds, 0.25 * total / count)
    cuts = [0.0]
    for middle in np.arange(1, count) * (total / count):
        around, _ = _read(fields, middle - reach, middle + reach)
        cuts.append(round(middle - reach + _quietest(around, rate_hz), 2))
    return [*cuts, total], rate_hz


def _quietest(wave: np.ndarray, rate_hz: int) -> float:
    """Seconds to the middle of the quietest 50 ms."""
    width = min(len(wave), max(1, int(_HUSH_S * rate_hz)))
    energy = np.convolve(np.square(wave, dtype=np.float64), np.ones(width), "valid")
    return (int(energy.argmin()) + width / 2) / rate_hz


def _read(fields: Any, start: float, end: float) -> tuple[np.ndarray, int]:
    """The samples of part of a recording, (samples,) float32, channels averaged, and their rate.

    Raises:
        BadRecord: where that part is broken.
    """
    import soundfile

    wave = fields["wave"]
    if isinstance(wave, np.ndarray):
        rate_hz = int(fields["rate"])
        part = wave[round(start * rate_hz) : round(end * rate_hz)]
        return sound.decode(part, rate_hz), rate_hz
    try:
        with soundfile.SoundFile(BytesIO(wave)) as file:
            file.seek(round(start * file.samplerate))
            part = file.read(round((end - start) * file.samplerate), dtype="float32", always_2d=True)
            return part.mean(axis=1), file.samplerate
    except (soundfile.LibsndfileError, OSError, ValueError) as error:
        raise BadRecord(f"is broken between {start:.0f} and {end:.0f} s") from error
