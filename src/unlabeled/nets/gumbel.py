"""Product quantiser with the Gumbel softmax (Jang, Gu, Poole 2017; Baevski et al. 2020, section 2).

    p[g, v] = exp((l[g, v] + n[g, v]) / T) / sum_u exp((l[g, u] + n[g, u]) / T),   n = -log(-log U),  U uniform

Each of G groups chooses the entry of its codebook with the largest l + n; gradient flows as if it were the mean of the
entries under p (straight through). The G chosen entries are laid side by side.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["GumbelQuantiser", "Quantised", "gumbel_noise", "perplexity"]


class Quantised(NamedTuple):
    """vectors (n, width of a code); codes (n, groups) int64; probabilities (n, groups, entries) float32, those of the
    logits alone, without noise and at temperature 1, by which the use of codes is judged."""

    vectors: Tensor
    codes: Tensor
    probabilities: Tensor


class GumbelQuantiser(nn.Module):
    """Vectors (n, width) to codes: in each group the entry whose learned logit, plus noise, is the largest.

    Logits start at N(0, 1) without bias, entries at U(0, 1), as in the authors' code.
    """

    def __init__(self, width: int, groups: int, entries: int, code_width: int) -> None:
        super().__init__()
        self.groups, self.entries = groups, entries
        self.logits = nn.Linear(width, groups * entries)
        self.codebook = nn.Parameter(torch.rand(groups, entries, code_width // groups))
        nn.init.normal_(self.logits.weight)
        nn.init.zeros_(self.logits.bias)

    def forward(self, x: Tensor, noise: Tensor | None = None, temperature: float = 1.0) -> Quantised:
        """noise: (n, groups * entries) from `gumbel_noise`; without it the largest logit is chosen."""
        logits = self.logits(x).float().unflatten(-1, (self.groups, self.entries))
        noisy = logits if noise is None else logits + noise.view_as(logits)
        codes = noisy.argmax(-1)
        soft = (noisy / temperature).softmax(-1)
        # Exactly 0 and 1, so that the same codes give the same vectors; (hard - soft) + soft would be off in the last bit.
        weights = F.one_hot(codes, self.entries) + (soft - soft.detach())
        vectors = torch.bmm(weights.transpose(0, 1), self.codebook).transpose(0, 1).flatten(1)
        return Quantised(vectors, codes, logits.softmax(-1))


def gumbel_noise(*shape: int, device: torch.device) -> Tensor:
    """float32 draws from the standard Gumbel distribution, with torch's global generator."""
    return torch.empty(shape, device=device).exponential_().log_().neg_()


def perplexity(distribution: Tensor) -> Tensor:
    """exp of the entropy over the last dimension: as many equally likely entries would be as uncertain."""
    return (-(distribution * (distribution + 1e-7).log()).sum(-1)).exp()  # 1e-7 as in the authors' code
