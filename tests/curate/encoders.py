"""Encoders that give the features that a test wants, as run folders are loaded; and documents with known features."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch

from unlabeled.core.batch import Spec
from unlabeled.core.config import MethodConfig
from unlabeled.core.errors import BadRecord
from unlabeled.core.method import Method
from unlabeled.curate.document import Document
from unlabeled.data.image import square
from unlabeled.model import Model


class Numbers(Method):
    """Reads the numbers that a text consists of; the features of a window are its mean in groups of four."""

    Config, variants, takes = MethodConfig, {"tiny": {}}, ("text",)
    seen: ClassVar[list[int]] = []  # rows of the batches so far

    def prepare(self, record, rng):
        found = record.fields["text"].split()
        if not found:
            raise BadRecord("the text is empty")
        return {"tokens": np.array(found, np.float32)}

    def window(self):
        return 8

    def embed(self, batch):
        self.seen.append(len(batch["tokens"]))
        x, length = batch["tokens"], batch["tokens_length"]
        x = x[:, : x.shape[1] // 4 * 4].unflatten(1, (-1, 4)).sum(1)
        return x / (length[:, None] / 4)


class Pixels(Method):
    """Features are the pixels."""

    Config, variants, takes = MethodConfig, {"tiny": {}}, ("image",)

    def prepare(self, record, rng):
        image = square(record.fields["image"], 1, 2)
        if image[0, 0, 0] == 255:
            raise BadRecord("cannot be read")
        return {"image": image}

    def embed(self, batch):
        return batch["image"].flatten(1).float()


def numbers() -> Model:
    torch.manual_seed(0)
    return Model("numbers", Numbers(MethodConfig(), Spec(kind="text", vocabulary=9)))


def pixels() -> Model:
    return Model("pixels", Pixels(MethodConfig(), Spec(kind="image", image_size=2, channels=1)))


def documents(features: np.ndarray) -> list[Document]:
    """One document for each row (n, 4), which `Numbers` reads again."""
    return [Document(str(i), " ".join(f"{v:.9g}" for v in row)) for i, row in enumerate(features)]
