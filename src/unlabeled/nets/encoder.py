"""The bidirectional Transformer encoder block: every position sees every real one.

Vaswani et al. 2017 with the exact (erf) GELU, as in BERT and wav2vec 2.0 base (normalisation after each branch) and in
wav2vec 2.0 large (before). torch's own GELU is kept here: its exact form is fast in bfloat16, unlike the tanh form.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Dropout", "EncoderAttention", "EncoderBlock", "TextEncoder", "attend"]

# Up to this length products that keep the weights are faster on a CPU than torch's blockwise kernel: a block, forward
# and backward, took 39 ms against 58 at 256 tokens and as long at 512 (bfloat16, two threads); with dropout of weights
# half the time at 512. In float32 they are level up to 256, and a fifth slower at 512.
_LONGEST_KEPT = 512


class Dropout(nn.Module):
    """Zero a share `p` in training and scale the rest by 1 / (1 - p), as nn.Dropout.

    On a CPU the share is rounded to 1/65536: one drawn 64-bit number serves four entries, where torch draws them one
    by one.
    """

    def __init__(self, p: float = 0.0) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.p:
            return x
        if x.device.type != "cpu":
            return F.dropout(x, self.p)
        return x * _keep(x, self.p)

    def extra_repr(self) -> str:
        return f"p={self.p}"


def _keep(x: Tensor, p: float) -> Tensor:
    """In shape and type of x: 0 with probability p, else 1 / (1 - p); p is rounded to 1/65536. For a CPU."""
    threshold = round(p * 65536)
    drawn = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    kept = drawn.view(torch.int16)[: x.numel()].view(x.shape) >= threshold - 32768
    return kept.to(x.dtype).mul_(1 / (1 - threshold / 65536))


class EncoderAttention(nn.Module):
    """Multi-head self-attention with biases among the real positions; (batch, time, width) to the same.

    Query, key and value have a matrix each and are multiplied as one.
    """

    def __init__(self, width: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """mask: (batch, time) bool, True where a position is real; what the others give means nothing."""
        batch, time, width = x.shape
        three = (self.query, self.key, self.value)
        qkv = F.linear(x, torch.cat([m.weight for m in three]), torch.cat([m.bias for m in three]))
        qkv = qkv.view(batch, time, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)  # (3, batch, head, ...)
        mixed = attend(qkv, mask, self.dropout if self.training else 0.0)
        return self.out(mixed.transpose(1, 2).reshape(batch, time, width))


def attend(qkv: Tensor, mask: Tensor | None, dropout: float = 0.0) -> Tensor:
    """Query, key, value (3, batch, heads, time, width) to (batch, heads, time, width).

    mask: (batch, time) bool, True for the keys that are seen. dropout: share of attention weights that is zeroed.
    """
    # Not the lowest number: it must stay finite when a score is added, or a row without real positions is no number.
    bias = None
    if mask is not None:
        bias = torch.zeros(mask.shape, dtype=qkv.dtype, device=mask.device)
        bias = bias.masked_fill_(~mask, torch.finfo(qkv.dtype).min / 2)[:, None, None]
    kept = qkv.shape[3] <= _LONGEST_KEPT and not torch.jit.is_tracing()
    if qkv.device.type == "cpu" and kept:
        batch, heads = qkv.shape[1:3]
        rows = None if bias is None else bias.expand(batch, heads, 1, -1).flatten(0, 1)
        return _Products.apply(qkv.contiguous().flatten(1, 2), rows, dropout).view(qkv.shape[1:])
    return F.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2], attn_mask=bias, dropout_p=dropout)


class _Products(torch.autograd.Function):
    """Attention as plain batched products, with its gradient; the softmax is float32 inside."""

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, bias: Tensor | None, dropout: float) -> Tensor:  # type: ignore[override]
        """qkv: (3, rows, time, width); bias: (rows, 1, time), added to the scores of each key."""
        q, k, v = qkv
        scale, keys = q.shape[2] ** -0.5, k.transpose(1, 2)
        scores = torch.bmm(q * scale, keys) if bias is None else torch.baddbmm(bias, q, keys, alpha=scale)
        weights = torch.softmax(scores, -1)
        keep = _keep(weights, dropout) if dropout else None
        ctx.save_for_backward(qkv, weights, keep)
        return torch.bmm(weights if keep is None else weights * keep, v)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:  # type: ignore[override]
        qkv, weights, keep = ctx.saved_tensors
        q, k, v = qkv
        grad = torch.empty_like(qkv)
        dropped = weights if keep is None else weights * keep
        torch.bmm(dropped.transpose(1, 2), gradient, out=grad[2])
        grad_weights = torch.bmm(gradient, v.transpose(1, 2))
        if keep is not None:
            grad_weights.mul_(keep)
        grad_scores = torch.ops.aten._softmax_backward_data(grad_weights, weights, -1, weights.dtype)
        torch.bmm(grad_scores, k, out=grad[0])
        torch.bmm(grad_scores.transpose(1, 2), q, out=grad[1])
        grad[:2] *= q.shape[2] ** -0.5
        return grad, None, None


class EncoderBlock(nn.Module):
    """Self-attention and a feed-forward net `inner` wide, each a branch that is added to its input.

    norm_first=False: norm(x + branch(x)), as in BERT; True: x + branch(norm(x)), without a norm at the end.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        inner: int,
        *,
        norm_first: bool,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        eps: float = 1e-12,
    ) -> None:
        super().__init__()
        self.norm_first = norm_first
        self.attention = EncoderAttention(width, heads, attention_dropout)
        self.norm_attention = nn.LayerNorm(width, eps=eps)
        self.widen = nn.Linear(width, inner)
        self.narrow = nn.Linear(inner, width)
        self.norm_forward = nn.LayerNorm(width, eps=eps)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """x: (batch, time, width); mask: (batch, time) bool, True where a position is real (None: everywhere)."""
        if self.norm_first:
            x = x + self.dropout(self.attention(self.norm_attention(x), mask))
            return x + self._feed_forward(self.norm_forward(x))
        x = self.norm_attention(x + self.dropout(self.attention(x, mask)))
        return self.norm_forward(x + self._feed_forward(x))

    def _feed_forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.narrow(F.gelu(self.widen(x))))


class TextEncoder(nn.Module):
    """Token ids to hidden states that each depend on all tokens: BERT, with the heads that it is trained by.

    Weights start at a normal of deviation 0.02, cut at two deviations, as in Google's code; biases at zero.
    pairs: with the pooled state of the first token and its two logits (next sentence or not).
    """

    def __init__(
        self,
        *,
        vocabulary: int,
        length: int,
        layers: int,
        width: int,
        heads: int,
        inner: int,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        eps: float = 1e-12,
        pairs: bool = True,
    ) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(vocabulary, width)
        self.position_embedding = nn.Embedding(length, width)
        self.segment_embedding = nn.Embedding(2, width)
        self.norm = nn.LayerNorm(width, eps=eps)
        self.dropout = Dropout(dropout)
        self.blocks = nn.ModuleList(
            EncoderBlock(
                width, heads, inner, norm_first=False, dropout=dropout, attention_dropout=attention_dropout, eps=eps
            )
            for _ in range(layers)
        )
        self.transform = nn.Linear(width, width)
        self.norm_transform = nn.LayerNorm(width, eps=eps)
        self.output_bias = nn.Parameter(torch.zeros(vocabulary))
        self.pool = nn.Linear(width, width) if pairs else None
        self.relation = nn.Linear(width, 2) if pairs else None
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.trunc_normal_(module.weight, std=0.02, a=-0.04, b=0.04)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def forward(
        self,
        tokens: Tensor,
        segments: Tensor | None = None,
        mask: Tensor | None = None,
        at: Tensor | None = None,
        read: Callable[[Tensor, Tensor, Tensor], Any] | None = None,
    ) -> Any:
        """tokens (batch, time) int64, segments of 0 and 1 (None: all 0), mask bool, True where a token is real, to
        hidden states (batch, time, width).

        at: (batch, k) int64, positions that are predicted. With it, `read` is called with their states after the
            head's transformation (batch, k, width), the output matrix (vocabulary, width) and bias (vocabulary,), and
            (its result, the logits (batch, 2) or None) is returned. The matrix is the token embedding, which is whole
            only inside this call when weights are sharded.
        """
        x = self.token_embedding(tokens) + self.position_embedding.weight[: tokens.shape[1]]
        x = x + (self.segment_embedding.weight[0] if segments is None else self.segment_embedding(segments))
        x = self.dropout(self.norm(x))
        for block in self.blocks:
            x = block(x, mask)
        if at is None or read is None:
            return x
        picked = x.gather(1, at[:, :, None].expand(-1, -1, x.shape[2]))
        picked = self.norm_transform(F.gelu(self.transform(picked)))
        related = None
        if self.pool is not None and self.relation is not None:
            related = self.relation(torch.tanh(self.pool(x[:, 0]))).float()
        return read(picked, self.token_embedding.weight, self.output_bias), related
