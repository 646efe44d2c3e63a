"""What flows: a record of a source, an example of a method, a batch on a device, and what the data is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Batch", "Example", "Kind", "Record", "Spec", "Tokenizer"]

Kind = Literal["image", "text", "wave"]
Example = Mapping[str, np.ndarray | int | float]
Batch = dict[str, "Tensor"]  # torch is not imported for this: workers of curation do without it


@dataclass(frozen=True)
class Record:
    """One item of a source, not yet decoded.

    id: stable name, unique within the source (a relative path, `file.jsonl:17`, `train/123`).
    fields: by kind: "image" holds encoded bytes or a uint8 array (height, width[, channels]); "text" a str;
        "wave" encoded bytes or a float32 array (samples,) with "rate" in hertz beside it; "caption" a str.
    label: class, to evaluate and compare with, -1 if unknown. No method ever sees it.
    """

    id: str
    fields: Mapping[str, Any]
    label: int = -1


class Tokenizer(Protocol):
    """Text to ids and back; lossless on any text."""

    size: int  # ids run from 0 to size - 1
    end: int  # the id that separates documents

    def encode(self, text: str) -> np.ndarray: ...

    def decode(self, ids: Any) -> str: ...

    def bytes_per_id(self) -> np.ndarray:
        """(size,) int64: UTF-8 bytes each id stands for; 0 for special ids."""
        ...

    def save(self, folder: Any) -> None: ...


@dataclass(frozen=True)
class Spec:
    """What the data is: measured from the source, not guessed."""

    kind: Kind
    examples: int = 0
    image_size: int = 0  # pixels of the side of the square that images are brought to
    channels: int = 0  # 1 grey, 3 colour
    vocabulary: int = 0
    tokenizer: Tokenizer | None = field(default=None, compare=False)
    sample_rate_hz: int = 0
    longest: int = 0  # samples, characters

    def to_dict(self) -> dict[str, Any]:
        """Everything but the tokenizer, which is saved as files of its own."""
        kept = {k: v for k, v in self.__dict__.items() if k != "tokenizer"}
        return asdict(Spec(**kept)) | {"tokenizer": None}
