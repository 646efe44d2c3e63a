"""Four convolutions: the encoder for small images and a processor without accelerator."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from unlabeled.nets.norms import BatchNorm

__all__ = ["Conv4"]


class Conv4(nn.Module):
    """Four times 3x3 convolution, batch normalisation, ReLU; then the mean over positions.

    (n, channels, height, width) to (n, widths[-1]) float32. stride: of the first layer; the others have 2.
    """

    def __init__(self, channels: int, widths: Sequence[int] = (32, 64, 128, 256), stride: int = 1) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i, (a, b) in enumerate(zip((channels, *widths), widths)):
            layers += [nn.Conv2d(a, b, 3, stride if i == 0 else 2, 1, bias=False), BatchNorm(b), nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*layers)
        self.width = widths[-1]

    def forward(self, x: Tensor) -> Tensor:
        x = self.layers(x.to(memory_format=torch.channels_last))
        # Over the positions in the order of memory, so that the gradient comes back channels last too.
        return x.permute(0, 2, 3, 1).mean((1, 2), dtype=torch.float32)
