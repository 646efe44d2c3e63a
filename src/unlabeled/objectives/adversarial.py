"""Two-player losses on the discriminator's logits s (positive: real), each the mean over a batch, in nats.

    minimax          D: softplus(-s(x)) + softplus(s(G(z)))      G: -softplus(s(G(z)))       (Goodfellow et al. 2014, eq. 1)
    non-saturating   D: the same                                 G: softplus(-s(G(z)))       (there, end of section 3)
    hinge            D: relu(1 - s(x)) + relu(1 + s(G(z)))       G: -s(G(z))                 (Lim & Ye 2017; Miyato et al. 2018)
    wasserstein      D: s(G(z)) - s(x)                           G: -s(G(z))                 (Arjovsky et al. 2017)

With sigmoid(s) the probability of being real, -softplus(s) is log(1 - D) and softplus(-s) is -log D. At s = 0, where
nothing can be told apart, the first two give the discriminator 2 log 2.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Game", "discriminator_loss", "generator_loss", "generator_signal", "gradient_penalty", "r1"]

Game = Literal["minimax", "non-saturating", "hinge", "wasserstein"]


def discriminator_loss(real: Tensor, fake: Tensor, game: Game) -> Tensor:
    """What the discriminator lowers; real, fake: (n,) logits, not necessarily as many."""
    if game == "hinge":
        return F.relu(1 - real).mean() + F.relu(1 + fake).mean()
    if game == "wasserstein":
        return fake.mean() - real.mean()
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def generator_loss(fake: Tensor, game: Game) -> Tensor:
    """What the generator lowers; fake: (n,) logits of its samples."""
    if game == "minimax":
        return -F.softplus(fake).mean()
    if game == "non-saturating":
        return F.softplus(-fake).mean()
    return -fake.mean()


def generator_signal(fake: Tensor, game: Game) -> Tensor:
    """(n,) size of the gradient of each sample's loss by its logit: 1 at most, near 0 where the loss is saturated."""
    if game == "minimax":
        return torch.sigmoid(fake)
    if game == "non-saturating":
        return torch.sigmoid(-fake)
    return torch.ones_like(fake)


def r1(squares: Tensor, gamma: float) -> Tensor:
    """gamma / 2 E |grad_x s(x)|^2 on real x (Mescheder, Geiger, Nowozin 2018, eq. 9); squares: (n,) squared norms."""
    return gamma / 2 * squares.mean()


def gradient_penalty(squares: Tensor, weight: float) -> Tensor:
    """weight E (|grad_x s(x)| - 1)^2 between real and generated x (Gulrajani et al. 2017, eq. 3); squares: (n,)."""
    # The root has no gradient at 0; a length of 1e-6 changes nothing where there is one.
    return weight * ((squares + 1e-12).sqrt() - 1).square().mean()
