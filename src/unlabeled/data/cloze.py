"""Texts with gaps: pairs of segments, whole words to hide, and random numbers, fresh or given by a row's content."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["digest", "pairs", "uniform", "whole_words"]


def pairs(
    rows: Tensor, begins: Tensor, ends: Tensor, cls: int, sep: int, draw: Callable[[int, int], Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """[CLS] A [SEP] B [SEP] of each window, 0 and 1 for the segments (both (n, width + 3)), and (n,) int64, 1 where B is
    from elsewhere: half of them, as far as borders allow.

    rows: (n, width) ids; begins, ends: bool, where a token begins a word, where it ends a sentence; draw(width, stream):
    (n, width) uniform numbers. A border is where a sentence begins, or a word where a window has no such place in its
    middle half; never the beginning of a document, for what stands before it is no part of it. B from elsewhere begins
    at a border of the same kind in the row before, and is as long as what it replaces.
    """
    width = rows.shape[1]
    place = torch.arange(width, device=rows.device)
    before = F.pad(rows, (1, 0), value=sep)[:, :-1]
    begins = begins & (before != sep) & (rows != sep)
    kind = begins.long() + (begins & F.pad(ends, (1, 0))[:, :-1])
    middle = (place >= width // 4) & (place <= width - width // 4)
    cut = (kind + draw(width, 0)).masked_fill(~middle, -1).argmax(1, keepdim=True)
    # Any border of the other row from which it has enough text: the nearest would prefer long sentences, which gives
    # it away.
    fits = (kind.roll(1, 0) == kind.gather(1, cut)) & (place > 0) & (place <= cut)
    start = draw(width, 1).masked_fill(~fits, -1).argmax(1, keepdim=True)
    elsewhere = (draw(1, 2) < 0.5) & fits.any(1, keepdim=True)
    second = rows.roll(1, 0).gather(1, (place - cut + start).clamp(0, width - 1))
    rows = torch.where(elsewhere & (place >= cut), second, rows)
    place = torch.arange(width + 3, device=rows.device)
    tokens = rows.gather(1, (place - 1 - (place > cut + 1).long()).clamp(0, width - 1))
    tokens = tokens.masked_fill((place == cut + 1) | (place == width + 2), sep).masked_fill(place == 0, cls)
    return tokens, (place > cut + 1).long(), elsewhere[:, 0].long()


def whole_words(order: Tensor, continues: Tensor, count: int) -> Tensor:
    """order (n, length): random numbers, -1 for what may not be hidden. Words in the order of their first pieces are
    taken while they fit into `count`; one that does not is passed over. The same with -1 for what is not taken."""
    barred = order < 0
    # What may not be hidden is a word of its own, and what follows it begins one.
    word = (~continues | barred | F.pad(barred, (1, 0), value=True)[:, :-1]).long().cumsum(1) - 1
    size = torch.zeros_like(word).scatter_add_(1, word, (~barred).long())
    rank = torch.full_like(order, -1.0).scatter_reduce_(1, word, order, "amax")
    used, taken = torch.zeros_like(word[:, 0]), torch.zeros_like(word, dtype=torch.bool)
    for place in rank.argsort(1, descending=True).unbind(1):
        pieces = size.gather(1, place[:, None])[:, 0]
        fits = (used + pieces <= count) & (pieces > 0)
        taken.scatter_(1, place[:, None], fits[:, None])
        used = used + pieces * fits
        if bool((used == count).all()):
            break
    return order.masked_fill(~taken.gather(1, word), -1)


def uniform(seeds: Tensor | None, rows: Tensor, width: int, stream: int) -> Tensor:
    """(n, width) float32 in [0, 1): fresh ones, or those that belong to (n,) seeds and the number of the stream."""
    if seeds is None:
        return torch.rand(len(rows), width, device=rows.device)
    counter = torch.arange(width, device=rows.device) + (stream << 32)
    return ((_scramble(seeds[:, None] + _scramble(counter)) >> 40) & 0xFFFFFF).float() / (1 << 24)


def digest(rows: Tensor, copy: int) -> Tensor:
    """(n,) int64 of the content of each row (n, width), and of the number of its copy."""
    places = _scramble(torch.arange(rows.shape[1], device=rows.device))
    return _scramble((_scramble(rows + places)).sum(1) + copy)


def _scramble(x: Tensor) -> Tensor:
    """A bijection of 64-bit integers whose bits look drawn at random (the finaliser of SplitMix64, Steele 2014)."""
    x = x + -7046029254386353131
    x = (x ^ ((x >> 30) & 0x3FFFFFFFF)) * -4658895280553007687
    x = (x ^ ((x >> 27) & 0x1FFFFFFFFF)) * -7723592293110705685
    return x ^ ((x >> 31) & 0x1FFFFFFFF)
