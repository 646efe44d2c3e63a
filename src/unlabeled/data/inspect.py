"""Look at a source before training on it: what is there, how large, how much of it twice, what cannot be read."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from unlabeled.core.batch import Kind, Record
from unlabeled.core.errors import BadRecord
from unlabeled.data import image, sound
from unlabeled.data.source import Source
from unlabeled.data.sources.text import checked_text

__all__ = ["Inspection", "Spread", "inspect"]

_SAMPLES = 5
_PREVIEW = 100  # characters of a document
_SEEN_SIDE = 128  # pixels of the shorter side to which large JPEGs are decoded to see whether they can be


@dataclass(frozen=True)
class Spread:
    """Smallest, median and largest of some measured numbers, and the unit."""

    unit: str
    smallest: float
    median: float
    largest: float


@dataclass(frozen=True)
class Inspection:
    """What `inspect` found; `to_dict` is plain JSON.

    checked: records that were decoded; all of them where it equals `count`.
    bytes: of all records as they are stored; scaled up from the checked ones if they are fewer.
    extents: image height and width in pixels, document length in characters, or duration in seconds.
    channels: "grey" and "colour" images, or "mono" and "stereo" recordings, with how many of the checked ones.
    classes: how many records each class has; no method sees them.
    samples: id and preview of a few records.
    duplicates: ids that hold exactly the same content, group by group, among the checked ones.
    blank: ids of checked records that can be read but hold nothing: one colour, silence, only spaces.
    unreadable: id and reason of what was refused, at listing and at decoding.
    """

    name: str
    kind: Kind
    count: int
    checked: int
    bytes: int
    extents: Mapping[str, Spread] = field(default_factory=dict)
    channels: Mapping[str, int] = field(default_factory=dict)
    sample_rates_hz: Mapping[str, int] = field(default_factory=dict)
    classes: Mapping[str, int] = field(default_factory=dict)
    splits: Mapping[str, int] = field(default_factory=dict)
    samples: Sequence[Mapping[str, str]] = ()
    duplicates: Sequence[Sequence[str]] = ()
    blank: Sequence[str] = ()
    unreadable: Sequence[Mapping[str, str]] = ()

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class _Seen:
    """One decoded record: its numbers by name of the extent, and what it is in a few words."""

    extents: dict[str, float]
    channels: str
    rate_hz: int
    blank: bool
    preview: str


def inspect(source: Source, *, limit: int = 1000) -> Inspection:
    """Decode up to `limit` records, spread evenly over the source, and say what was found."""
    count = len(source)
    checked = np.unique(np.linspace(0, count - 1, min(count, max(1, limit))).round().astype(int))
    unreadable = [{"id": q.id, "reason": q.reason} for q in source.quarantined]
    by_content: dict[bytes, list[str]] = {}
    seen: list[tuple[str, _Seen]] = []
    stored = 0
    for index in checked:
        try:
            record = source[int(index)]
            content = _content(record, source.kind)
            stored += len(content)
            seen.append((record.id, _look(record, source.kind)))
            by_content.setdefault(hashlib.sha256(content).digest(), []).append(record.id)
        except BadRecord as error:
            unreadable.append({"id": source.group(int(index)), "reason": str(error)})
    units = {"height": "pixels", "width": "pixels", "length": "characters", "duration": "seconds"}
    numbers = {name: [s.extents[name] for _, s in seen if name in s.extents] for name in units}
    classes: dict[str, int] = {}
    if source.labels is not None:
        counts = np.bincount(source.labels[source.labels >= 0], minlength=len(source.classes))
        classes = {name: int(n) for name, n in zip(source.classes, counts)}
    chosen = seen[:: max(1, len(seen) // _SAMPLES)][:_SAMPLES]
    return Inspection(
        name=source.name,
        kind=source.kind,
        count=count,
        checked=len(checked),
        bytes=round(stored * count / len(checked)),
        extents={name: _spread(units[name], values) for name, values in numbers.items() if values},
        channels=dict(Counter(s.channels for _, s in seen if s.channels).most_common()),
        sample_rates_hz={str(k): n for k, n in Counter(s.rate_hz for _, s in seen if s.rate_hz).most_common()},
        classes=classes,
        splits={name: len(indices) for name, indices in source.official.items()},
        samples=[{"id": id_, "preview": s.preview} for id_, s in chosen],
        duplicates=[ids for ids in by_content.values() if len(ids) > 1],
        blank=[id_ for id_, s in seen if s.blank],
        unreadable=unreadable,
    )


def _spread(unit: str, values: Sequence[float]) -> Spread:
    lowest, middle, highest = (float(f(values)) for f in (np.min, np.median, np.max))
    return Spread(unit, lowest, middle, highest)


def _content(record: Record, kind: Kind) -> bytes:
    """What makes two records the same: the stored bytes, or an array's shape and values."""
    value = record.fields[kind]
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    if isinstance(value, np.ndarray):
        return str((value.shape, value.dtype.str)).encode() + np.ascontiguousarray(value).tobytes()
    return bytes(value)


def _look(record: Record, kind: Kind) -> _Seen:
    """Decode one record.

    Raises:
        BadRecord: where it cannot be used.
    """
    value = record.fields[kind]
    if kind == "text":
        text = checked_text(value)
        preview = " ".join(text[: 2 * _PREVIEW].split())[:_PREVIEW]
        return _Seen({"length": len(text)}, "", 0, not text.strip(), preview)
    if kind == "image":
        height, width, channels = image.measure(value)
        pixels = image.decode(value, channels, at_least=_SEEN_SIDE)
        if (height > width) != (pixels.shape[0] > pixels.shape[1]):  # EXIF turned it
            height, width = width, height
        called = "grey" if channels == 1 else "colour"
        blank = bool((pixels == pixels[:1, :1]).all())
        return _Seen({"height": height, "width": width}, called, 0, blank, f"{width} x {height} {called}")
    if isinstance(value, np.ndarray):
        rate_hz, several = int(record.fields["rate"]), value.ndim > 1 and value.shape[1] > 1
    else:
        _, rate_hz, of = sound.measure(value)
        several = of > 1
    wave = sound.decode(value, rate_hz, given_hz=rate_hz)
    seconds = len(wave) / rate_hz
    called = "stereo" if several else "mono"
    blank = not wave.any()
    return _Seen({"duration": seconds}, called, rate_hz, blank, f"{seconds:.1f} s {called} at {rate_hz:,} Hz")
