"""Small networks on top of an encoder: projectors and predictors."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from torch import nn

from unlabeled.nets.norms import BatchNorm

__all__ = ["mlp"]


def mlp(
    widths: Sequence[int],
    *,
    norm: bool = False,
    last: Literal["plain", "scale", "norm"] = "plain",
    std: float | None = None,
) -> nn.Sequential:
    """Linear layers from widths[0] to widths[-1] with ReLU between.

    norm: batch normalisation after each hidden layer, which then has no bias. last: the final layer is followed by
    nothing, by normalisation with scale and no shift, or by full normalisation. std: of the weights at the start.
    """
    layers: list[nn.Module] = []
    for i, (a, b) in enumerate(pairwise(widths)):
        final = i == len(widths) - 2
        normalised = last != "plain" if final else norm
        linear = nn.Linear(a, b, bias=not normalised)
        layers.append(linear)
        if std is not None:
            nn.init.normal_(linear.weight, std=std)
            if not normalised:
                nn.init.zeros_(linear.bias)
        if normalised:
            layers.append(BatchNorm(b, shift=not final or last == "norm"))
        if not final:
            layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)
