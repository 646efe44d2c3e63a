"""Random views of images, for whole batches at once: crop, flip, colour, grey, blur.

Images are (n, channels, height, width) floats in [0, 1]. Every image has parameters of its own, drawn from torch's
global generator. Resampling is linear and separable, so a crop with its flip is two batched matrix products, and so is
a blur: rows @ image @ columns^T.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

__all__ = [
    "adjust_hue",
    "adjust_saturation",
    "apply_separably",
    "blur_matrices",
    "crop_boxes",
    "crop_matrices",
    "jitter",
    "random_blur",
    "random_crop_flip",
    "random_grey",
]

Filter = Literal["bilinear", "bicubic"]


def apply_separably(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """rows (n, out height, height) and columns (n, out width, width), each its own, on (n, c, height, width)."""
    n, c, height, width = images.shape
    across = torch.bmm(images.reshape(n, c * height, width), columns.transpose(1, 2))
    if c == 1:
        return torch.bmm(rows, across).unsqueeze(1)
    return torch.matmul(rows.unsqueeze(1), across.view(n, c, height, -1))


def crop_boxes(n: int, height: int, width: int, area: tuple[float, float], ratio: tuple[float, float]) -> Tensor:
    """(n, 4) int64 boxes top, left, height, width: area as a share, the logarithm of the aspect ratio uniform.

    The uniform area is that of Szegedy et al. 2015 and of SimCLR's paper (appendix A); TensorFlow's operation, which its
    code calls, draws the aspect ratio and then the height uniformly. Ten boxes are tried; where none fits, the whole
    image is taken.
    """
    tries = 10
    share = torch.empty(n, tries).uniform_(*area) * height * width
    aspect = torch.empty(n, tries).uniform_(math.log(ratio[0]), math.log(ratio[1])).exp()
    w, h = (share * aspect).sqrt().round().long(), (share / aspect).sqrt().round().long()
    fits = (w > 0) & (h > 0) & (w <= width) & (h <= height)
    first = fits.int().argmax(1, keepdim=True)
    none = ~fits.any(1)
    h, w = h.gather(1, first)[:, 0], w.gather(1, first)[:, 0]
    h[none], w[none] = height, width
    top = (torch.rand(n) * (height - h + 1)).long()
    left = (torch.rand(n) * (width - w + 1)).long()
    return torch.stack([top, left, h, w], 1)


def crop_matrices(start: Tensor, length: Tensor, size: int, out: int, kernel: Filter = "bilinear") -> Tensor:
    """(n, out, size) matrices that cut [start, start + length) out of `size` pixels and resize it to `out`.

    Antialiased: where a crop is made smaller the kernel grows with the scale, as Pillow's resize and torch's
    interpolate(antialias=True) have it. Pixels outside the crop have no weight.
    """
    start, length = start[:, None, None].float(), length[:, None, None].float()
    scale = length / out
    centre = start + (torch.arange(out, device=start.device)[None, :, None] + 0.5) * scale
    pixel = torch.arange(size, device=start.device)[None, None, :] + 0.5
    x = (pixel - centre).abs() / scale.clamp_min(1.0)
    if kernel == "bilinear":
        weight = (1 - x).clamp_min(0)
    else:  # Keys' cubic with a = -1/2
        near = (1.5 * x - 2.5) * x * x + 1
        far = ((-0.5 * x + 2.5) * x - 4) * x + 2
        weight = torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))
    weight = weight * ((pixel > start) & (pixel < start + length))
    return weight / weight.sum(2, keepdim=True)


def random_crop_flip(
    images: Tensor,
    size: int,
    *,
    area: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    flip: float = 0.5,
    kernel: Filter = "bilinear",
) -> Tensor:
    """Random resized crop to (size, size), then mirrored with probability `flip`; clipped to [0, 1]."""
    n, _, height, width = images.shape
    top, left, h, w = crop_boxes(n, height, width, area, ratio).to(images.device).unbind(1)
    rows = crop_matrices(top, h, height, size, kernel)
    columns = crop_matrices(left, w, width, size, kernel)
    mirrored = torch.rand(n, device=images.device) < flip
    columns = torch.where(mirrored[:, None, None], columns.flip(1), columns)
    out = apply_separably(images, rows, columns)
    return out.clamp_(0, 1) if kernel == "bicubic" else out


def jitter(
    images: Tensor,
    *,
    brightness: float,
    contrast: float,
    saturation: float = 0.0,
    hue: float = 0.0,
    probability: float = 0.8,
    additive: bool = False,
) -> Tensor:
    """Colour jitter of each image with `probability`: the operations in an order of its own, clipped after each.

    Factors are uniform in (1 - strength, 1 + strength), not below 0; hue shifts in (-hue, hue) turns. Brightness
    multiplies, or shifts by (-strength, strength) where `additive` (SimCLR's first version). Contrast is about the mean
    of each channel; saturation and hue go through HSV, all as in the authors' TensorFlow code. Grey images know the
    first two only.
    """
    n, channels = len(images), images.shape[1]

    def uniform(low: float, high: float) -> Tensor:
        return torch.empty(n, device=images.device).uniform_(low, high)[:, None, None, None]

    def factors(strength: float) -> Tensor:
        return uniform(max(0.0, 1 - strength), 1 + strength)

    light = uniform(-brightness, brightness) if additive else factors(brightness)
    distance = factors(contrast)
    operations = [
        (lambda x, rows: x + light[rows]) if additive else (lambda x, rows: x * light[rows]),
        lambda x, rows: torch.lerp(x.mean((2, 3), keepdim=True), x, distance[rows]),
    ]
    if channels == 3:
        colour = factors(saturation)
        turn = uniform(-hue, hue)[:, 0]
        operations.append(lambda x, rows: adjust_saturation(x, colour[rows]))
        operations.append(lambda x, rows: adjust_hue(x, turn[rows]))
    order = torch.rand(n, len(operations), device=images.device).argsort(1)
    order[torch.rand(n, device=images.device) >= probability] = -1
    out = images.clone()
    for place in range(len(operations)):
        for number, operation in enumerate(operations):
            rows = (order[:, place] == number).nonzero()[:, 0]
            if len(rows):
                out[rows] = operation(out[rows], rows).clamp_(0, 1)
    return out


def _to_hsv(rgb: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(n, 3, ...) to hue in turns, saturation and value, each (n, ...); grey has hue and saturation 0."""
    value, least = rgb.amax(1), rgb.amin(1)
    spread = value - least
    r, g, b = rgb.unbind(1)
    safe = spread.clamp_min(1e-12)
    hue = torch.where(value == r, ((g - b) / safe) % 6, torch.where(value == g, (b - r) / safe + 2, (r - g) / safe + 4))
    return hue / 6, spread / value.clamp_min(1e-12), value


def _from_hsv(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    channels = []
    for offset in (5.0, 3.0, 1.0):
        k = (offset + hue * 6) % 6
        channels.append(value - value * saturation * torch.minimum(k, 4 - k).clamp(0, 1))
    return torch.stack(channels, 1)


def adjust_hue(images: Tensor, turn: Tensor) -> Tensor:
    """Turn the hue of (n, 3, h, w) by `turn` (n, 1, 1), 1 being the whole circle."""
    hue, saturation, value = _to_hsv(images)
    return _from_hsv((hue + turn) % 1.0, saturation, value)


def adjust_saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Multiply the saturation of (n, 3, h, w) by `factor` (n, 1, 1, 1), at most to 1."""
    hue, saturation, value = _to_hsv(images)
    return _from_hsv(hue, (saturation * factor[:, 0]).clamp(0, 1), value)


def random_grey(images: Tensor, probability: float = 0.2) -> Tensor:
    """Replace the three channels by their luminance (0.2989, 0.587, 0.114), each image with `probability`."""
    if images.shape[1] != 3:
        return images
    weights = images.new_tensor([0.2989, 0.587, 0.114])[:, None, None]
    grey = (images * weights).sum(1, keepdim=True)
    chosen = torch.rand(len(images), 1, 1, 1, device=images.device) < probability
    return torch.where(chosen, grey, images)


def blur_matrices(sigma: Tensor, size: int, radius: int) -> Tensor:
    """(n, size, size) banded matrices of Gaussian blur; beyond the edge the image counts as 0."""
    distance = torch.arange(size, device=sigma.device)[:, None] - torch.arange(size, device=sigma.device)
    kernel = torch.exp(-distance.square() / (2 * sigma[:, None, None].square()))
    offsets = torch.arange(-radius, radius + 1, device=sigma.device)
    norm = torch.exp(-offsets.square() / (2 * sigma[:, None].square())).sum(1)
    return kernel * (distance.abs() <= radius) / norm[:, None, None]


def random_blur(images: Tensor, probability: float = 0.5, sigma: tuple[float, float] = (0.1, 2.0)) -> Tensor:
    """Gaussian blur of each image with `probability`; the kernel spans a tenth of the height (SimCLR, appendix A)."""
    n, _, height, width = images.shape
    width_of_blur = torch.empty(n, device=images.device).uniform_(*sigma)
    chosen = (torch.rand(n, device=images.device) < probability).nonzero()[:, 0]
    if not len(chosen):
        return images
    radius = height // 20
    rows, columns = (blur_matrices(width_of_blur[chosen], side, radius) for side in (height, width))
    out = images.clone()
    out[chosen] = apply_separably(images[chosen], rows, columns)
    return out
