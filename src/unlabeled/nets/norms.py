"""Batch normalisation whose statistics are those of the global batch, on any number of processes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unlabeled.core.errors import UserError
from unlabeled.parallel.gather import mean as mean_over_processes
from unlabeled.parallel.gather import total
from unlabeled.parallel.world import world

__all__ = ["BatchNorm", "normalise_in_groups"]


class BatchNorm(nn.Module):
    """y = (x - mean) / sqrt(variance + eps) * scale + shift (Ioffe & Szegedy 2015, algorithm 1).

    Statistics are over all dimensions but the second. Takes (n, features) or (n, features, ...). They are of all
    processes together, with gradient; one process uses torch's kernel. Running statistics serve evaluation; their
    variance is the unbiased one, as torch's.

    groups: cut the global batch into so many runs of rows that are normalised apart (`normalise_in_groups`).
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(
        self, features: int, *, eps: float = 1e-5, momentum: float = 0.1, scale: bool = True, shift: bool = True
    ) -> None:
        super().__init__()
        self.eps, self.momentum, self.groups = eps, momentum, 1
        self.weight = nn.Parameter(torch.ones(features)) if scale else None
        self.bias = nn.Parameter(torch.zeros(features)) if shift else None
        self.register_buffer("running_mean", torch.zeros(features))
        self.register_buffer("running_var", torch.ones(features))

    def forward(self, x: Tensor) -> Tensor:
        if self.training and self.groups > 1:
            return self._in_groups(x)
        if self.training and world() > 1:
            return self._over_processes(x)
        return self._plain(x, self.running_mean, self.running_var, self.momentum)

    def _plain(self, x: Tensor, mean: Tensor, variance: Tensor, momentum: float) -> Tensor:
        shift = self.bias if self.bias is not None or self.weight is None else torch.zeros_like(self.weight)
        return F.batch_norm(x, mean, variance, self.weight, shift, self.training, momentum, self.eps)

    def _in_groups(self, x: Tensor) -> Tensor:
        here = self.groups // world()
        if len(x) % here or len(x) < 2 * here:  # a few rows, to count operations
            here = 1
        # Momentum 1 leaves the statistics of each group in its row; what is kept is their mean over all groups.
        means, variances = self.running_mean.repeat(here, 1), self.running_var.repeat(here, 1)
        y = torch.cat([self._plain(*group, 1.0) for group in zip(x.chunk(here), means, variances)])
        with torch.no_grad():
            kept = mean_over_processes(torch.stack([means.mean(0), variances.mean(0)]))
            self.running_mean.lerp_(kept[0], self.momentum)
            self.running_var.lerp_(kept[1], self.momentum)
        return y

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


def normalise_in_groups(network: nn.Module, groups: int) -> None:
    """Let the batch normalisations of a network cut the global batch into `groups` runs of rows, each normalised by
    statistics of its own, as devices without synchronisation would. 1: by those of the whole batch.

    Running statistics are means over the groups. Equal on any number of processes that divides `groups`.

    Raises:
        UserError: where groups would have to be divided among processes.
    """
    if groups > 1 and groups % world():
        raise UserError(f"{groups} groups of normalisation do not divide among {world()} processes; change --groups.")
    for module in network.modules():
        if isinstance(module, BatchNorm):
            module.groups = groups
