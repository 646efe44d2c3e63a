"""Residual networks (He et al. 2016), version 1: the stride of a bottleneck is on its 3x3 convolution."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unlabeled.core.errors import UserError
from unlabeled.nets.norms import BatchNorm

__all__ = ["DEPTHS", "ResNet"]

# Blocks of each of the four groups, and whether they are bottlenecks (table 1 of the paper).
DEPTHS = {
    18: ((2, 2, 2, 2), False),
    34: ((3, 4, 6, 3), False),
    50: ((3, 4, 6, 3), True),
    101: ((3, 4, 23, 3), True),
    152: ((3, 8, 36, 3), True),
}


class ResNet(nn.Module):
    """(n, channels, height, width) to pooled features (n, width) float32; no classifier.

    multiplier: of all widths (the 2x and 4x networks). small_images: 3x3 stem of stride 1 without pooling, for 32
    pixels. zero_last: the last normalisation of a branch starts at 0, so that blocks start as identities.
    """

    def __init__(
        self, depth: int, channels: int = 3, *, multiplier: int = 1, small_images: bool = False, zero_last: bool = True
    ) -> None:
        super().__init__()
        if depth not in DEPTHS:
            raise UserError(f"A ResNet has {', '.join(map(str, DEPTHS))} layers; {depth} is none of them.")
        blocks, bottleneck = DEPTHS[depth]
        base, expansion = 64 * multiplier, 4 if bottleneck else 1
        kernel, stride = (3, 1) if small_images else (7, 2)
        self.stem = nn.Conv2d(channels, base, kernel, stride, kernel // 2, bias=False)
        self.stem_norm = BatchNorm(base)
        self.pool = nn.Identity() if small_images else nn.MaxPool2d(3, 2, 1)
        layers: list[nn.Module] = []
        width = base
        for group, count in enumerate(blocks):
            inner = base * 2**group
            for i in range(count):
                layers.append(Block(width, inner, inner * expansion, 2 if group and i == 0 else 1, bottleneck))
                width = inner * expansion
        self.blocks = nn.Sequential(*layers)
        self.width = width
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                # Variance 1 / fan in after cutting at two deviations, which leaves 0.8796 of one: TensorFlow's variance
                # scaling, with which SimCLR's authors start. The bounds are absolute.
                std = 1 / math.sqrt(module.weight[0].numel()) / 0.87962566
                nn.init.trunc_normal_(module.weight, std=std, a=-2 * std, b=2 * std)
            if isinstance(module, Block) and zero_last:
                nn.init.zeros_(module.norms[-1].weight)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(F.relu(self.stem_norm(self.stem(x.to(memory_format=torch.channels_last))), inplace=True))
        # Over the positions in the order of memory, so that the gradient comes back channels last too.
        return self.blocks(x).permute(0, 2, 3, 1).mean((1, 2), dtype=torch.float32)


class Block(nn.Module):
    """x + branch(x), the shortcut a 1x1 convolution where shapes differ; basic (3x3, 3x3) or bottleneck (1, 3, 1)."""

    def __init__(self, before: int, inner: int, after: int, stride: int, bottleneck: bool) -> None:
        super().__init__()
        plan = (
            [(before, inner, 1, 1), (inner, inner, 3, stride), (inner, after, 1, 1)]
            if bottleneck
            else [(before, inner, 3, stride), (inner, after, 3, 1)]
        )
        self.convs = nn.ModuleList(nn.Conv2d(a, b, k, s, k // 2, bias=False) for a, b, k, s in plan)
        self.norms = nn.ModuleList(BatchNorm(b) for _, b, _, _ in plan)
        self.shortcut = None
        if stride != 1 or before != after:
            self.shortcut = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), BatchNorm(after))

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms)):
            y = norm(conv(y))
            if i < len(self.convs) - 1:
                y = F.relu(y, inplace=True)
        return F.relu(y + (x if self.shortcut is None else self.shortcut(x)))
