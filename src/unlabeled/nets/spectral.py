"""Spectral normalisation: layers whose weight is divided by its largest singular value.

Miyato, Kataoka, Koyama, Yoshida: Spectral Normalization for Generative Adversarial Networks. ICLR 2018.

    W_used = W / s,   s = u' W v,   u <- W v / |W v|,   v <- W' u / |W' u|        (algorithm 1)

The gradient goes through s with u and v constant. u and v are buffers that a forward pass leaves alone: `iterate` moves
them, once after the weights have moved. The authors' code moves them at every forward pass instead, real and generated
images apart, so that the same weights are divided by different numbers within one update.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unlabeled.parallel.shard import whole

__all__ = ["SpectralConv2d", "SpectralLinear", "iterate"]

EPS = 1e-12  # of the lengths, as torch's
AT_START = 15  # iterations on the first weights, as torch's


class _Spectral(nn.Module):
    """What a layer with a weight (out, ...) needs: all dimensions but the first count as columns."""

    weight: Tensor
    u: Tensor  # (out,)
    v: Tensor  # (in * kernel height * kernel width,)

    def _register(self) -> None:
        rows, columns = self.weight.flatten(1).shape
        like = {"device": self.weight.device, "dtype": self.weight.dtype}
        self.register_buffer("u", F.normalize(torch.randn(rows, **like), dim=0, eps=EPS))
        self.register_buffer("v", F.normalize(torch.randn(columns, **like), dim=0, eps=EPS))
        self.iterate(AT_START)

    @torch.no_grad()
    def iterate(self, steps: int = 1) -> None:
        """Power iteration on the present weight, outside autocast. Where weights are sharded, a collective call."""
        matrix = whole(self.weight).flatten(1)
        for _ in range(steps):
            self.u.copy_(F.normalize(matrix @ self.v, dim=0, eps=EPS))
            self.v.copy_(F.normalize(matrix.T @ self.u, dim=0, eps=EPS))

    def normalised(self) -> Tensor:
        """The weight over its largest singular value as u and v see it; products in the weight's own format."""
        with torch.autocast(self.weight.device.type, enabled=False):
            return self.weight / torch.dot(self.u, self.weight.flatten(1) @ self.v)


class SpectralConv2d(_Spectral, nn.Conv2d):
    """torch's Conv2d with a spectrally normalised kernel, as a matrix (out, in * height * width)."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self._register()

    def forward(self, input: Tensor) -> Tensor:
        return self._conv_forward(input, self.normalised(), self.bias)


class SpectralLinear(_Spectral, nn.Linear):
    """torch's Linear with a spectrally normalised weight."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self._register()

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.normalised(), self.bias)


def iterate(network: nn.Module, steps: int = 1) -> None:
    """Power iteration in every spectrally normalised layer of a network; after its weights have moved."""
    for module in network.modules():
        if isinstance(module, _Spectral):
            module.iterate(steps)
