"""Log-probabilities of 8-bit pixels, one number each, in nats; and what they are in bits per dimension.

A level l in 0..255 stands at l / 127.5 - 1 in [-1, 1]. Its bin reaches 1/255 to both sides, the outermost bins to
infinity, so that the 256 probabilities add up to one whatever the parameters are (Salimans et al., PixelCNN++, 2017).
All of them compute in float32 or wider, under autocast too.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["bernoulli", "bits_per_dimension", "categorical", "discretised_logistic", "logistic_mixture"]


def discretised_logistic(levels: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """Log-probability of levels 0..255 under a logistic distribution cut into bins.

    levels: integers. mean, log_scale: of the distribution where levels lie in [-1, 1]; all three broadcast.
    With sigmoid(b) - sigmoid(a) = sigmoid(b) sigmoid(-a) (1 - exp(a - b)) no digits are lost, however far the tails.
    """
    with torch.autocast(mean.device.type, enabled=False):
        kind = torch.promote_types(mean.dtype, torch.float32)
        mean, log_scale = mean.to(kind), log_scale.to(kind)
        inverse = torch.exp(-log_scale)
        twice = 2 * levels.to(kind)  # so that neighbours agree, to the last digit, on where the end between them is
        below = F.logsigmoid(((twice - 254) / 255 - mean) * inverse)  # of the probability up to the upper end
        above = F.logsigmoid((mean - (twice - 256) / 255) * inverse)  # and from the lower end on
        width = torch.log(-torch.expm1(-2 / 255 * inverse))
        lowest, highest = levels == 0, levels == 255
        zero = below.new_zeros(())
        return (
            torch.where(highest, zero, below)
            + torch.where(lowest, zero, above)
            + torch.where(lowest | highest, zero, width)
        )


def logistic_mixture(levels: Tensor, logits: Tensor, means: Tensor, log_scales: Tensor) -> Tensor:
    """Log-probability of levels (...) under mixtures of discretised logistics.

    logits, means, log_scales: (..., components); the first are log-weights up to a constant.
    """
    each = discretised_logistic(levels.unsqueeze(-1), means, log_scales)
    return torch.logsumexp(each + F.log_softmax(logits.to(each.dtype), -1), -1)


def categorical(levels: Tensor, logits: Tensor) -> Tensor:
    """Log-probability of levels (...) under softmax(logits), logits (..., number of levels)."""
    kind = torch.promote_types(logits.dtype, torch.float32)
    return F.log_softmax(logits.to(kind), -1).gather(-1, levels.long().unsqueeze(-1)).squeeze(-1)


def bernoulli(ones: Tensor, logits: Tensor) -> Tensor:
    """Log-probability of pixels that are 0 or 1 under sigmoid(logits).

    Values between are cross-entropies, which are no likelihood: their least is their entropy, not zero.
    """
    kind = torch.promote_types(logits.dtype, torch.float32)
    return -F.binary_cross_entropy_with_logits(logits.to(kind), ones.to(kind), reduction="none")


def bits_per_dimension(nats: Tensor, dimensions: int) -> Tensor:
    """Bits that a pixel costs, of log-likelihoods in nats of images of so many pixels and channels."""
    return -nats / (dimensions * math.log(2))
