"""The loss of predicted tokens, without the tensor of all logits.

For a hidden state h and an output matrix W, tied or not, the logits are z = W h + b, the loss is log sum exp z - z[target]
and its gradient in z is softmax(z) - onehot(target). Rows are taken in chunks; each chunk makes its logits, its loss
and, where they are asked for, its share of both gradients, and is forgotten.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

__all__ = ["TokenLoss", "bits_per_byte", "token_loss"]

_CELLS = 1 << 22  # logits in existence at once (16 MB in float32, near what a laptop's last cache holds) ...
_ROWS = 512  # ... but no fewer rows than make the sum over chunks of the gradient of W cheap beside its products


class TokenLoss(NamedTuple):
    """mean: float32 scalar, nats per token (or the weighted sum), with gradient. nll: float32, nats, without gradient,
    and hit: bool (no other logit is larger; equal ones, which bfloat16 makes likelier, count), both in the shape of the
    targets."""

    mean: Tensor
    nll: Tensor
    hit: Tensor


def token_loss(
    hidden: Tensor, weight: Tensor, targets: Tensor, bias: Tensor | None = None, shares: Tensor | None = None
) -> TokenLoss:
    """Cross-entropy of targets (...,) under logits hidden @ weight.T + bias; hidden (..., width), weight (vocabulary,
    width), bias (vocabulary,).

    shares: (...,) float32, what each token counts in `mean`, which then is the sum of shares * nll.

    Products are in autocast's type where that is on, else in that of `hidden`; everything after them is float32, since
    a loss that is reduced in bfloat16 is off in the second digit. Gradient flows through `mean` only.
    """
    device = hidden.device.type
    compute = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
    shares = None if shares is None else shares.flatten()
    with torch.autocast(device, enabled=False):
        mean, nll, hit = _Chunked.apply(hidden.flatten(0, -2), weight, targets.flatten(), bias, shares, compute)
    return TokenLoss(mean, nll.view_as(targets), hit.view_as(targets))


class _Chunked(torch.autograd.Function):
    """Loss and gradients in the forward pass; backward only scales them."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        bias: Tensor | None,
        shares: Tensor | None,
        compute: torch.dtype,
    ) -> Any:
        n, vocabulary = len(hidden), len(weight)
        wanted = any(ctx.needs_input_grad)
        rows = min(n, max(_ROWS, _CELLS // vocabulary))
        h, w = hidden.to(compute), weight.to(compute)
        # Two buffers serve all chunks: fresh ones of this size would be returned to the system and faulted in again.
        product = torch.empty(rows, vocabulary, dtype=compute, device=h.device)
        logits = torch.empty(rows, vocabulary, dtype=torch.float32, device=h.device)
        nll = torch.empty(n, dtype=torch.float32, device=h.device)
        hit = torch.empty(n, dtype=torch.bool, device=h.device)
        grad_h = torch.empty_like(h) if wanted else None
        grad_w = torch.zeros(weight.shape, dtype=torch.float32, device=h.device) if wanted else None
        grad_b = torch.zeros(vocabulary, dtype=torch.float32, device=h.device) if wanted and bias is not None else None
        for start in range(0, n, rows):
            part = slice(start, min(start + rows, n))
            count = part.stop - part.start
            z, p, target = product[:count], logits[:count], targets[part, None]
            torch.mm(h[part], w.t(), out=z)
            p.copy_(z)
            if bias is not None:
                p += bias
            top, gold = p.amax(1, keepdim=True), p.gather(1, target)
            total = p.sub_(top).exp_().sum(1, keepdim=True)
            nll[part] = (top + total.log() - gold)[:, 0]
            hit[part] = (gold >= top)[:, 0]
            if grad_h is None or grad_w is None:
                continue
            p.div_(total).scatter_add_(1, target, p.new_full((1, 1), -1.0).expand(count, 1))
            if shares is not None:
                p *= shares[part, None]
            if grad_b is not None:
                grad_b += p.sum(0)
            z.copy_(p)
            torch.mm(z, w, out=grad_h[part])
            grad_w += z.t() @ h[part]
        if grad_h is not None and grad_w is not None:
            ctx.save_for_backward(grad_h.to(hidden.dtype), grad_w.to(weight.dtype), grad_b)
        ctx.rows = n if shares is None else 1
        ctx.mark_non_differentiable(nll, hit)
        return nll.mean() if shares is None else (nll * shares).sum(), nll, hit

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Any) -> Any:  # type: ignore[override]
        grad_h, grad_w, grad_b = ctx.saved_tensors
        each = gradient / ctx.rows
        grads = [None if g is None else (g * each).to(g.dtype) for g in (grad_h, grad_w, grad_b)]
        return grads[0], grads[1], None, grads[2], None, None


def bits_per_byte(nats: float | Tensor, count: float | Tensor) -> Any:
    """Nats on some tokens to bits per byte of what they stand for: nats / (ln 2 * count).

    Sum both over the whole corpus first; the mean of ratios of batches is something else. Ids that stand for no byte
    (the end of a document) belong in neither sum.
    """
    return nats / (math.log(2) * count)
