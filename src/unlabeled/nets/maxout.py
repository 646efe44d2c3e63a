"""The fully connected networks of the first GAN: rectifiers in the generator, maxout in the discriminator.

Goodfellow et al., NeurIPS 2014, and the authors' mnist.yaml; maxout and its dropout: Goodfellow et al., ICML 2013.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unlabeled.nets.dcgan import Critic

__all__ = ["FlatGenerator", "MaxoutDiscriminator"]


class FlatGenerator(nn.Module):
    """Noise (n, latent) to images (n, channels, size, size) in [0, 1]: linear and ReLU by `widths`, linear, sigmoid.

    Weights start uniform in +-0.05, biases at 0.
    """

    low = 0.0  # the value of black

    def __init__(self, latent: int, channels: int, size: int, widths: Sequence[int] = (1200, 1200)) -> None:
        super().__init__()
        self.shape = (channels, size, size)
        sizes = (latent, *widths, channels * size * size)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        _uniform(self, 0.05)

    def forward(self, z: Tensor) -> Tensor:
        *hidden, last = self.layers
        for layer in hidden:
            z = F.relu(layer(z))
        return torch.sigmoid(last(z).view(len(z), *self.shape))

    @torch.no_grad()
    def start_at(self, images: Tensor) -> None:
        """Set the output's biases so that each pixel starts near its mean over images (n, channels, size, size)."""
        # Half an image of black and half of white added: a pixel that is black in all of them can still change.
        mean = (images.flatten(1).float().sum(0) + 0.5) / (len(images) + 1)
        self.layers[-1].bias.copy_(torch.logit(mean))  # pyrefly: ignore


class MaxoutDiscriminator(Critic):
    """Images (n, channels, size, size) to logits (n,): two layers of `units`, each the largest of `pieces` products.

    dropout: of the pixels, and of the units. Weights start uniform in +-0.005, biases at 0.
    """

    def __init__(
        self, channels: int, size: int, units: int = 240, pieces: int = 5, dropout: tuple[float, float] = (0.2, 0.5)
    ) -> None:
        super().__init__()
        self.pieces, self.dropout = pieces, dropout
        self.first = nn.Linear(channels * size * size, units * pieces)
        self.second = nn.Linear(units, units * pieces)
        self.logit = nn.Linear(units, 1)
        _uniform(self, 0.005)

    def forward(self, x: Tensor) -> Tensor:
        of_pixels, of_units = self.dropout
        h = F.dropout(x.flatten(1), of_pixels, self.training)
        for layer in (self.first, self.second):
            h = layer(h).unflatten(1, (-1, self.pieces)).amax(2)
            h = F.dropout(h, of_units, self.training)
        return self.logit(h).sum(1, dtype=torch.float32)  # not a view, which sharding would warn of


def _uniform(network: nn.Module, bound: float) -> None:
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.uniform_(module.weight, -bound, bound)
            nn.init.zeros_(module.bias)
