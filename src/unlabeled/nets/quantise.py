"""Vector quantisation: a codebook whose nearest entry stands for a vector."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

__all__ = ["Codebook", "Quantised", "debiased", "perplexity", "tally"]

USAGE_DECAY = 0.99  # of the running counts: about the last hundred batches
EPSILON = 1e-5  # Laplace smoothing of the counts (van den Oord et al. 2017, the authors' code)


class Quantised(NamedTuple):
    """codes: (..., width) float32, the nearest entries. indices: (...) int64, which they are."""

    codes: Tensor
    indices: Tensor


class Codebook(nn.Module):
    """`size` codes of `width` numbers each (van den Oord, Vinyals, Kavukcuoglu 2017, section 3).

    learned: codes are a parameter that the codebook term of the loss moves (eq. 3). Otherwise they are a buffer, the
    moving average of the vectors that fell to them (appendix A.1; Razavi et al. 2019, eq. 4), moved by `follow`.
    They start uniform with variance 1 / width.
    """

    codes: Tensor  # (size, width)
    counts: Tensor  # (size,) moving average of how many vectors fell to a code: N of the paper
    sums: Tensor  # (size, width) moving average of their sum: m of the paper
    usage: Tensor  # (size,) as counts, but with a decay of its own: how codes are used, whatever moves them

    def __init__(self, size: int, width: int, *, learned: bool = False) -> None:
        super().__init__()
        start = (torch.rand(size, width) * 2 - 1) * (3 / width) ** 0.5
        if learned:
            self.codes = nn.Parameter(start)
        else:
            self.register_buffer("codes", start)
            # A code that nothing falls to stays where it is: N = 1 and m = e, where N = 0 would send it to m / 0.
            self.register_buffer("counts", torch.ones(size))
            self.register_buffer("sums", start.clone())
        self.register_buffer("usage", torch.ones(size))
        self.learned = learned

    def forward(self, z: Tensor) -> Quantised:
        """The codes nearest to z (..., width) in Euclidean distance, ties to the lowest index.

        Computed in float32 under autocast too: half precision would find other codes. No gradient reaches z; it
        reaches the codes where they are learned.
        """
        with torch.autocast(z.device.type, enabled=False), torch.no_grad():
            codes = self.codes.detach()
            flat = z.detach().float().reshape(-1, codes.shape[1])
            # |z|^2 is the same for all codes.
            indices = torch.addmm(codes.square().sum(1), flat, codes.T, alpha=-2).argmin(1).view(z.shape[:-1])
        return Quantised(self.lookup(indices), indices)

    def lookup(self, indices: Tensor) -> Tensor:
        """(...) int64 to (..., width) float32."""
        return nn.functional.embedding(indices, self.codes)

    @torch.no_grad()
    def start_from(self, vectors: Tensor) -> None:
        """Put the codes on vectors (n, width) drawn at random, each at most once if there are enough."""
        size = len(self.usage)
        order = torch.cat([torch.randperm(len(vectors)) for _ in range(-(-size // len(vectors)))])[:size]
        self.codes.copy_(vectors[order.to(vectors.device)])
        if not self.learned:
            self.sums.copy_(self.codes * self.counts[:, None])

    @torch.no_grad()
    def note_usage(self, counts: Tensor, step: int) -> None:
        """Remember how many vectors (size,) fell to each code in a step, counted from 0."""
        self.usage.lerp_(counts, 1 - debiased(USAGE_DECAY, step))

    @torch.no_grad()
    def follow(self, counts: Tensor, sums: Tensor, decay: float) -> None:
        """Move the codes towards the means of the vectors that fell to them, over all processes and microbatches.

        counts (size,), sums (size, width): as `tally` gives them.
        """
        self.counts.lerp_(counts, 1 - decay)
        self.sums.lerp_(sums, 1 - decay)
        total = self.counts.sum()
        smoothed = (self.counts + EPSILON) / (total + len(self.counts) * EPSILON) * total
        self.codes.copy_(self.sums / smoothed[:, None])

    @torch.no_grad()
    def restart(self, vectors: Tensor, threshold: float) -> None:
        """Put codes that fewer than `threshold` vectors of a batch fall to, on average, on the vectors (n, width).

        The first dead code takes the first vector; where codes outnumber vectors, the rest wait.

        Raises:
            ValueError: for learned codes, whose optimiser would not know.
        """
        if self.learned:
            raise ValueError("learned codes cannot be restarted")
        dead = (self.usage < threshold).nonzero()[:, 0][: len(vectors)]
        self.codes[dead] = vectors[: len(dead)]
        self.usage[dead] = 2 * threshold  # time to win some vectors before it is judged again
        self.counts[dead] = 2 * threshold
        self.sums[dead] = vectors[: len(dead)] * 2 * threshold


def debiased(decay: float, step: int) -> float:
    """The decay at a step (from 0) that makes the running average a / (1 - decay^steps) with a started at zero."""
    return decay * (1 - decay**step) / (1 - decay ** (step + 1))


def tally(z: Tensor, indices: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """How many of the vectors z (..., width) fell to each code, (size,), and their sums, (size, width); float32."""
    flat, which = z.detach().float().reshape(-1, z.shape[-1]), indices.flatten()
    counts = torch.bincount(which, minlength=size).float()
    return counts, flat.new_zeros(size, z.shape[-1]).index_add_(0, which, flat)


def perplexity(counts: Tensor) -> Tensor:
    """How many codes are in use, from counts (size,): exp of the entropy, between 1 and size."""
    return torch.special.entr(counts / counts.sum()).sum().exp()
