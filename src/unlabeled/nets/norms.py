"""Batch normalisation whose statistics are those of the global batch, on any number of processes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unlabeled.parallel.gather import total
from unlabeled.parallel.world import world

__all__ = ["BatchNorm"]


class BatchNorm(nn.Module):
    """y = (x - mean) / sqrt(variance + eps) * scale + shift (Ioffe & Szegedy 2015, algorithm 1).

    Statistics are over all dimensions but the second. Takes (n, features) or (n, features, ...). They are of all
    processes together, with gradient; one process uses torch's kernel. Running statistics serve evaluation; their
    variance is the unbiased one, as torch's.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(
        self, features: int, *, eps: float = 1e-5, momentum: float = 0.1, scale: bool = True, shift: bool = True
    ) -> None:
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.weight = nn.Parameter(torch.ones(features)) if scale else None
        self.bias = nn.Parameter(torch.zeros(features)) if shift else None
        self.register_buffer("running_mean", torch.zeros(features))
        self.register_buffer("running_var", torch.ones(features))

    def forward(self, x: Tensor) -> Tensor:
        if self.training and world() > 1:
            return self._over_processes(x)
        return F.batch_norm(
            x,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias if self.bias is not None or self.weight is None else torch.zeros_like(self.weight),
            self.training,
            self.momentum,
            self.eps,
        )

    def _over_processes(self, x: Tensor) -> Tensor:
        dims = [d for d in range(x.ndim) if d != 1]
        wide = x.float()
        count = wide.numel() // wide.shape[1] * world()
        mean = total(wide.sum(dims)) / count
        shape = [1, -1] + [1] * (x.ndim - 2)
        centred = wide - mean.view(shape)
        variance = total(centred.square().sum(dims)) / count
        with torch.no_grad():
            self.running_mean.lerp_(mean.detach(), self.momentum)
            self.running_var.lerp_(variance.detach() * count / (count - 1), self.momentum)
        y = centred * (variance + self.eps).rsqrt().view(shape)
        if self.weight is not None:
            y = y * self.weight.view(shape)
        if self.bias is not None:
            y = y + self.bias.view(shape)
        return y.to(x.dtype)
