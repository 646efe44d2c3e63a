"""Scaled dot-product attention (Vaswani et al. 2017, eq. 1), with a cache of keys and values for decoding.

attend(Q, K, V) = softmax(Q K^T / sqrt(head width)) V
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Cache", "SelfAttention", "attend_causally"]

# Below this length batched products, which keep the weights, are faster on a CPU than torch's blockwise kernel (forward
# and backward half the time at 256, bfloat16, one thread); above it their memory grows with the square of the length.
_LONGEST_KEPT = 512
_BLOCK = 128  # queries at a time: the products skip the keys that come after all of them


class Cache:
    """Keys and values of the tokens so far, for each layer and row, up to `capacity` tokens.

    lengths: (rows,) int64, how many tokens each row holds; rows may differ. `crop` forgets the last ones.
    """

    def __init__(self, rows: int, capacity: int, device: torch.device | str | None = None) -> None:
        self.capacity = capacity
        self.lengths = torch.zeros(rows, dtype=torch.int64, device=device)
        self._layers: dict[int, tuple[Tensor, Tensor]] = {}

    def positions(self, count: int) -> Tensor:
        """(rows, count): where the next `count` tokens of each row come to stand."""
        return self.lengths[:, None] + torch.arange(count, device=self.lengths.device)

    def crop(self, lengths: Tensor) -> None:
        """Keep the first lengths[r] tokens of row r; what follows is overwritten by the next ones."""
        self.lengths = torch.minimum(self.lengths, lengths)

    def put(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Write (rows, heads, count, width) behind what each row holds; return all, up to the longest row's end."""
        rows, heads, count, width = key.shape
        if layer not in self._layers:
            shape = (rows, heads, self.capacity, width)
            self._layers[layer] = key.new_zeros(shape), value.new_zeros(shape)
        at = self.positions(count)
        row = torch.arange(rows, device=at.device)[:, None]
        end = int(at.max()) + 1
        for kept, new in zip(self._layers[layer], (key, value)):
            kept[row, :, at] = new.transpose(1, 2)
        keys, values = self._layers[layer]
        return keys[:, :, :end], values[:, :, :end]


class SelfAttention(nn.Module):
    """Causal multi-head self-attention with biases; (batch, time, width) to the same.

    Query, key and value have a matrix each, since an optimiser that looks at whole matrices (Muon) must not see them
    as one; they are multiplied as one.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, cache: Cache | None = None, layer: int = 0) -> Tensor:
        """cache: `x` follows what it holds, and is added to it under the number of this layer."""
        batch, time, width = x.shape
        three = (self.query, self.key, self.value)
        qkv = F.linear(x, torch.cat([m.weight for m in three]), torch.cat([m.bias for m in three]))
        qkv = qkv.view(batch, time, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)  # (3, batch, head, ...)
        if cache is None:
            mixed = attend_causally(qkv)
        else:
            keys, values = cache.put(layer, qkv[1], qkv[2])
            seen = torch.arange(keys.shape[2], device=x.device) <= cache.positions(time)[:, None, :, None]
            mixed = F.scaled_dot_product_attention(qkv[0], keys, values, attn_mask=seen)
        return self.out(mixed.transpose(1, 2).reshape(batch, time, width))


def attend_causally(qkv: Tensor) -> Tensor:
    """Query, key, value (3, batch, heads, time, width) to (batch, heads, time, width); each sees no later one."""
    # A tracer (of an ONNX export) would record our products without their writes into slices.
    if qkv.device.type == "cpu" and qkv.shape[3] <= _LONGEST_KEPT and not torch.jit.is_tracing():
        return _CausalProducts.apply(qkv.contiguous().flatten(1, 2)).view(qkv.shape[1:])
    return F.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2], is_causal=True)


class _CausalProducts(torch.autograd.Function):
    """Attention as plain batched products, a block of queries at a time, with its gradient.

    The softmax kernel computes in float32 whatever the type of its input.
    """

    @staticmethod
    def forward(ctx: Any, qkv: Tensor) -> Tensor:  # type: ignore[override]
        q, k, v = qkv
        time, scale = q.shape[1], q.shape[2] ** -0.5
        future = q.new_full((time, time), float("-inf")).triu_(1)
        out, weights = torch.empty_like(q), []
        for start in range(0, time, _BLOCK):
            end = min(start + _BLOCK, time)
            scores = torch.baddbmm(future[start:end, :end], q[:, start:end], k[:, :end].transpose(1, 2), alpha=scale)
            weights.append(torch.softmax(scores, -1))
            out[:, start:end] = torch.bmm(weights[-1], v[:, :end])
        ctx.save_for_backward(qkv, *weights)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        qkv, *weights = ctx.saved_tensors
        q, k, v = qkv
        scale = q.shape[2] ** -0.5
        grad = torch.zeros_like(qkv)
        for number, p in enumerate(weights):
            start, end = number * _BLOCK, p.shape[2]
            g = gradient[:, start:end]
            grad[2, :, :end] += torch.bmm(p.transpose(1, 2), g)
            grad_p = torch.bmm(g, v[:, :end].transpose(1, 2))
            grad_scores = torch.ops.aten._softmax_backward_data(grad_p, p, -1, p.dtype)
            grad[0, :, start:end] = torch.bmm(grad_scores, k[:, :end])
            grad[1, :, :end] += torch.bmm(grad_scores.transpose(1, 2), q[:, start:end])
        grad[:2] *= scale
        return grad
