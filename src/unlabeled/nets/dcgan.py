"""The convolutional generator and discriminator of DCGAN, for any size of image.

Radford, Metz, Chintala: Unsupervised Representation Learning with Deep Convolutional Generative Adversarial Networks.
ICLR 2016: strided convolutions and no pooling, batch normalisation but where images enter or leave, ReLU and tanh in
the generator, LeakyReLU of slope 0.2 in the discriminator, weights from N(0, 0.02).

Kernels are 4 x 4 without biases next to normalisation, as in torch's example `dcgan`, whose parameter counts
(3,576,704 and 2,765,568 at 64 channels, 64 pixels) these networks have; the paper's own code has 5 x 5 ones.

Layout: channels last inside; the generator's first layer is a product whose result is laid out that way already.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from unlabeled.nets.norms import BatchNorm
from unlabeled.nets.spectral import SpectralConv2d, SpectralLinear, iterate

__all__ = ["Critic", "Discriminator", "Generator", "levels_of", "settle"]

STD = 0.02  # of the weights at the start, and of the scales of the normalisation around 1
SLOPE = 0.2


def levels_of(size: int) -> tuple[int, int]:
    """(how often an image of that side is halved, the side it ends with): 64 gives (4, 4), 28 (2, 7).

    Sizes that do not halve evenly are rounded up: side * 2^levels is the size the networks work with.
    """
    levels = max(1, int(math.log2(max(size, 8) / 4)))
    side = math.ceil(max(size, 8) / 2**levels)
    return (levels + 1, 4) if side == 8 else (levels, side)


class Critic(nn.Module):
    """A map from images (n, channels, h, w) to logits (n,), positive for real ones; float32.

    mixes: whether a logit depends on the other images of the batch.
    """

    mixes = False

    def steepness(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (n,) and, for each image, the squared norm of its logit's gradient by the image, (n,) float32.

        Both can be differentiated. The inner gradient is taken within this one call, because where weights are
        sharded they are whole only in the calls of a network.
        """
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            logits = self.forward(x.view_as(x))  # torch's counter of FLOPs does not bear a leaf as a layer's input here
            (slope,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
        return logits, slope.float().square().flatten(1).sum(1)


class Generator(nn.Module):
    """Noise (n, latent) to images (n, channels, size, size) in [-1, 1].

    size: side * 2^levels by `levels_of`. width: channels at half of the size; doubled with each halving below that.
    """

    low = -1.0  # the value of black

    def __init__(self, latent: int, channels: int, size: int, width: int) -> None:
        super().__init__()
        levels, self.side = levels_of(size)
        widths = [width * 2**i for i in reversed(range(levels))]
        self.project = nn.Linear(latent, self.side**2 * widths[0], bias=False)  # columns in the order (h, w, channel)
        layers: list[nn.Module] = [BatchNorm(widths[0]), nn.ReLU(inplace=True)]
        for a, b in pairwise(widths):
            layers += [nn.ConvTranspose2d(a, b, 4, 2, 1, bias=False), BatchNorm(b), nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*layers)
        self.image = nn.ConvTranspose2d(widths[-1], channels, 4, 2, 1, bias=False)
        _draw(self)

    def forward(self, z: Tensor) -> Tensor:
        h = self.project(z).view(len(z), self.side, self.side, -1).permute(0, 3, 1, 2)
        return torch.tanh(self.image(self.layers(h)))


class Discriminator(Critic):
    """Images (n, channels, size, size) to logits (n,).

    norm: "batch" as in DCGAN (none at the first and last layer), "spectral" at every layer, with biases, or "none".
    width: channels after the first convolution, which halves the size; doubled with each further one.
    """

    def __init__(
        self, channels: int, size: int, width: int, norm: Literal["batch", "spectral", "none"] = "batch"
    ) -> None:
        super().__init__()
        levels, side = levels_of(size)
        widths = [channels, *(width * 2**i for i in range(levels))]
        self.mixes = norm == "batch"
        conv, linear = (SpectralConv2d, SpectralLinear) if norm == "spectral" else (nn.Conv2d, nn.Linear)
        layers: list[nn.Module] = []
        for i, (a, b) in enumerate(pairwise(widths)):
            layers += [conv(a, b, 4, 2, 1, bias=not self.mixes)]
            layers += [BatchNorm(b)] if self.mixes and i else []
            layers += [nn.LeakyReLU(SLOPE, inplace=True)]
        self.layers = nn.Sequential(*layers)
        self.logit = linear(side**2 * widths[-1], 1, bias=not self.mixes)  # rows in the order (h, w, channel)
        _draw(self)

    def forward(self, x: Tensor) -> Tensor:
        h = self.layers(x.contiguous(memory_format=torch.channels_last))
        # A sum over the one column, and not a view of it, which sharding would warn of.
        return self.logit(h.permute(0, 2, 3, 1).flatten(1)).sum(1, dtype=torch.float32)


def _draw(network: nn.Module) -> None:
    """Starting weights: N(0, 0.02), scales N(1, 0.02), biases 0."""
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            nn.init.normal_(module.weight, std=STD)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, BatchNorm) and module.weight is not None:
            nn.init.normal_(module.weight, 1.0, STD)
    iterate(network, 15)


@torch.no_grad()
def settle(network: nn.Module, *inputs: Tensor) -> None:
    """Set the running statistics of batch normalisation to those of these inputs under the present weights.

    Averaged weights have other statistics than the ones that were trained ("standing statistics", Brock et al. 2019).
    """
    norms = [m for m in network.modules() if isinstance(m, BatchNorm)]
    before = [(m.momentum, m.training) for m in norms]
    for m in norms:
        m.momentum, m.training = 1.0, True
    if norms:
        network(*inputs)
    for m, (momentum, training) in zip(norms, before):
        m.momentum, m.training = momentum, training
