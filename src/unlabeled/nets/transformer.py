"""The Transformer decoder of GPT-2: normalisation before each branch, learned positions, output tied to the input."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unlabeled.nets.attention import Cache, SelfAttention

__all__ = ["Block", "Decoder", "gelu_tanh"]

_CHUNK = 1 << 18  # numbers at a time: three float32 buffers of a megabyte stay in the cache of a core


class Block(nn.Module):
    """x + attention(norm(x)), then x + feed-forward(norm(x)); the feed-forward net is four times as wide inside."""

    def __init__(self, width: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(width, eps=1e-5)
        self.attention = SelfAttention(width, heads)
        self.norm_forward = nn.LayerNorm(width, eps=1e-5)
        self.widen = nn.Linear(width, 4 * width)
        self.narrow = nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, cache: Cache | None = None, layer: int = 0) -> Tensor:
        """(batch, time, width) to the same; the sum of branches stays in the type of `x` (float32)."""
        x = x + self.dropout(self.attention(self.norm_attention(x), cache, layer))
        return x + self.dropout(self.narrow(gelu_tanh(self.widen(self.norm_forward(x)))))


class Decoder(nn.Module):
    """Token ids to hidden states, each a function of its own and earlier tokens.

    Weights start at N(0, 0.02), the matrices that end a branch at 1/sqrt(2 * layers) of that, positions at N(0, 0.01)
    and biases at zero, as in OpenAI's code (transformers and nanoGPT start positions at 0.02).
    """

    def __init__(
        self, *, vocabulary: int, context: int, layers: int, width: int, heads: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.context = context
        self.token_embedding = nn.Embedding(vocabulary, width)
        self.position_embedding = nn.Embedding(context, width)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width, eps=1e-5)
        self._initialise()

    def _initialise(self) -> None:
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                ends_branch = name.endswith((".out", ".narrow"))
                nn.init.normal_(module.weight, std=0.02 / (math.sqrt(2 * len(self.blocks)) if ends_branch else 1))
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        nn.init.normal_(self.position_embedding.weight, std=0.01)

    def forward(
        self, tokens: Tensor, read: Callable[[Tensor, Tensor], Any] | None = None, cache: Cache | None = None
    ) -> Any:
        """tokens (batch, time) int64 to normalised hidden states (batch, time, width).

        read: called with the hidden states and the output matrix (vocabulary, width), and its result returned instead.
            The matrix is the token embedding, which is whole only inside this call when weights are sharded; logits are
            `read=torch.nn.functional.linear`, a loss is `read=partial(token_loss, targets=...)`.
        cache: the tokens follow those it holds, and are added to it.
        """
        time = tokens.shape[1]
        positions = torch.arange(time, device=tokens.device) if cache is None else cache.positions(time)
        x = self.dropout(self.token_embedding(tokens) + self.position_embedding(positions))
        for layer, block in enumerate(self.blocks):
            x = block(x, cache, layer)
        if cache is not None:
            cache.lengths = cache.lengths + time
        hidden = self.norm(x)
        return hidden if read is None else read(hidden, self.token_embedding.weight)


def gelu_tanh(x: Tensor) -> Tensor:
    """x (1 + tanh(u)) / 2 with u = sqrt(2/pi) (x + 0.044715 x^3) (Hendrycks, Gimpel 2016), rounded once."""
    if x.device.type == "cpu" and x.dtype == torch.bfloat16 and x.requires_grad and torch.is_grad_enabled():
        return _Gelu.apply(x)
    return F.gelu(x, approximate="tanh")


class _Gelu(torch.autograd.Function):
    """The same as x sigmoid(2u), in float32, with its slope kept for the way back.

    torch's kernel takes a tanh on the way there and again on the way back, each dearer than this and its slope in one.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # type: ignore[override]
        flat = x.flatten()
        out, slope = torch.empty_like(flat), torch.empty_like(flat)
        linear = 2 * math.sqrt(2 / math.pi)  # 2u = linear x + cubic x^3
        cubic, first = 0.044715 * linear, torch.tensor(linear)
        buffers = torch.empty(3, min(_CHUNK, len(flat)), dtype=torch.float32)
        for part, y, dy in zip(flat.split(_CHUNK), out.split(_CHUNK), slope.split(_CHUNK)):
            v, s, d = buffers[:, : len(part)].unbind()
            v.copy_(part)
            torch.mul(v, v, out=s)
            torch.add(first, s, alpha=3 * cubic, out=d)  # 2 du/dx
            torch.add(first, s, alpha=cubic, out=s)
            s.mul_(v).sigmoid_()
            y.copy_(v.mul_(s))
            v.addcmul_(s, v, value=-1)  # x s (1 - s)
            dy.copy_(s.addcmul_(v, d))
        ctx.save_for_backward(slope.view_as(x))
        return out.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        (slope,) = ctx.saved_tensors
        return gradient * slope
