"""Two augmented views of one image at a time with Pillow, as tutorials and libraries make them in worker processes."""

from __future__ import annotations

import math
import random

import numpy as np
import torch
from PIL import Image, ImageEnhance
from torch.utils.data import Dataset

from unlabeled.data.sources import source

__all__ = ["TwoViews", "images"]


def images() -> np.ndarray:
    """(4000, 28, 28) uint8, the shipped photographs."""
    data = source("fashion").split("train")
    return np.stack([np.asarray(data[i].fields["image"])[:, :, 0] for i in range(len(data))])


class TwoViews(Dataset):
    """Random resized crop, flip, brightness and contrast by factors within (1 - strength, 1 + strength)."""

    def __init__(self, pixels: np.ndarray, strength: float = 0.4) -> None:
        self.pixels, self.strength = pixels, strength

    def __len__(self) -> int:
        return 1_000_000

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        image = Image.fromarray(self.pixels[index % len(self.pixels)])
        return self.view(image), self.view(image)

    def view(self, image: Image.Image) -> torch.Tensor:
        side = image.width
        for _ in range(10):
            area = random.uniform(0.3, 1.0) * side * side
            aspect = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
            w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < w <= side and 0 < h <= side:
                break
        else:
            w = h = side
        left, top = random.randint(0, side - w), random.randint(0, side - h)
        image = image.resize((side, side), Image.Resampling.BILINEAR, box=(left, top, left + w, top + h))
        if random.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if random.random() < 0.8:
            enhancers = [ImageEnhance.Brightness, ImageEnhance.Contrast]
            random.shuffle(enhancers)
            for enhancer in enhancers:
                image = enhancer(image).enhance(random.uniform(1 - self.strength, 1 + self.strength))
        return torch.from_numpy(np.asarray(image, dtype=np.float32) / 255)[None]
