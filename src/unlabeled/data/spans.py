"""Masks of spans of frames, for a whole batch at once (Baevski et al. 2020, section 3.1; numbers as in fairseq).

A share p of all frames begins a span of M frames; spans may overlap, so that 1 - (1 - p/M)^M of a long recording is
masked: 0.49 for wav2vec 2.0 (p 0.65, M 10), 0.57 for HuBERT (p 0.8). All draws are from torch's global generator.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["most_masked", "negatives", "span_masks"]


def _most_spans(frames: int, probability: float, length: int, least: int) -> int:
    # Spans of short recordings are shorter than `length`; they get three at most where least < 3.
    return max(least, 3, int(probability * frames / length) + 1)


def most_masked(frames: int, probability: float, length: int, least: int = 2) -> int:
    """The most frames that `span_masks` can mask in a recording of so many."""
    return min(frames, _most_spans(frames, probability, length, least) * length)


def span_masks(
    lengths: Tensor, frames: int, probability: float, length: int, least: int = 2, *, equal: bool = False
) -> Tensor:
    """(n, frames) bool, True where masked; lengths (n,) int64 are the real frames of each recording.

    Of T real frames, floor(p T / M + u) begin a span, u uniform in [0, 1), at least `least`; they are distinct and lie in
    [0, T - M), so that the last frame is never masked. M is `length`, or half of T where that is less. equal: forget
    random masked frames until all recordings have as many.
    """
    n, device = len(lengths), lengths.device
    position = torch.arange(frames, device=device)
    span = (lengths // 2).clamp(1, length)
    starts = (lengths - span).clamp(min=0)  # how many frames may begin a span
    wanted = (probability * lengths / span + torch.rand(n, device=device)).long().clamp(min=least)
    most = min(frames, _most_spans(frames, probability, length, least))
    wanted = wanted.clamp(max=most).minimum(starts)
    order = torch.rand(n, frames, device=device).masked_fill_(position >= starts[:, None], 2.0)
    first = order.topk(most, largest=False).indices  # (n, most): distinct starts in random order
    offset = torch.arange(length, device=device)
    chosen = torch.arange(most, device=device) < wanted[:, None]
    taken = chosen[:, :, None] & (offset < span[:, None, None])  # (n, most, length)
    where = (first[:, :, None] + offset).clamp_(max=frames - 1)
    # Additions commute where several spans write to one frame; what is not taken adds nothing.
    hits = torch.zeros(n, frames, dtype=torch.int32, device=device)
    mask = hits.scatter_add_(1, where.flatten(1), taken.flatten(1).int()) > 0
    if equal:
        keys = torch.rand(n, frames, device=device).masked_fill_(~mask, 2.0)
        rank = keys.argsort(1).argsort(1)
        mask &= rank < mask.sum(1).min()
    return mask


def negatives(counts: Tensor, width: int, number: int) -> Tensor:
    """(n, width, number) int64: for the i-th masked frame of each recording, which of its other masked frames it is to
    be told apart from, uniform and with replacement; counts (n,) are the masked frames.

    Rows from counts[r] on mean nothing; a lone masked frame, which has no others, gets itself.
    """
    drawn = torch.rand(len(counts), width, number, device=counts.device)
    others = (counts - 1).clamp(min=0)[:, None, None]
    index = (drawn * others).long().minimum((others - 1).clamp(min=0))  # a product may round up to `others`
    own = torch.arange(width, device=counts.device)[None, :, None]
    return (index + (index >= own)).minimum(others)
