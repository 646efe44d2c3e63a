"""New tokens one after another: greedy, temperature, the k likeliest, the nucleus (Holtzman et al. 2020).

The draws of a row come from its own seed and are all made beforehand, so that a row does not depend on its neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

__all__ = ["NextToken", "choose", "generate"]


class NextToken(Protocol):
    """A decoder as the sampler sees it."""

    def __call__(self, tokens: Tensor, lengths: Tensor, cache: Any | None) -> tuple[Tensor, Any]:
        """Feed tokens (rows, time), of which the first lengths[r] of row r count, behind what `cache` holds.

        Returns the logits (rows, vocabulary) after the last token that counts, and the cache with those that do.
        """
        ...


def choose(
    logits: Tensor, draws: Tensor, *, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> Tensor:
    """One id for each row: (rows,) int64 from logits (rows, vocabulary) and draws (rows,) uniform in [0, 1).

    temperature: divides the logits; 0 takes the likeliest. top_k: out of the k likeliest. top_p: out of the fewest
    likeliest whose probabilities, after temperature and top_k, sum to top_p or more. What remains is renormalised.
    """
    if temperature == 0:
        return logits.argmax(-1)
    ids = None
    if top_k is not None:
        logits, ids = logits.topk(min(top_k, logits.shape[-1]), dim=-1)
    elif top_p is not None:
        logits, ids = logits.sort(dim=-1, descending=True, stable=True)
    p = torch.softmax(logits.double() / temperature, -1)
    if top_p is not None:
        p = torch.where(p.cumsum(-1) - p < top_p, p, 0.0)
    below = p.cumsum(-1)
    # The first place whose cumulative sum exceeds the draw; its own probability is above zero.
    total = below[:, -1:]
    wanted = torch.minimum(draws.double()[:, None] * total, torch.nextafter(total, torch.zeros_like(total)))
    place = torch.searchsorted(below, wanted, right=True)
    return (place if ids is None else ids.gather(-1, place))[:, 0]


@torch.no_grad()
def generate(
    next_token: NextToken,
    prompts: Sequence[Sequence[int]],
    *,
    new: int,
    context: int,
    seeds: Sequence[int],
    end: int | None = None,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    device: torch.device | str = "cpu",
) -> list[list[int]]:
    """Up to `new` ids after each prompt; a row stops before `end`.

    prompts: at least one id each; of one longer than `context` the last part is used. A row that fills the context
    goes on from its last half, encoded anew. seeds: one for each row; rows with the same prompt and seed are the same.
    """
    rows = range(len(prompts))
    draws = torch.stack(
        [torch.rand(new, generator=torch.Generator().manual_seed(s), dtype=torch.float64) for s in seeds]
    )
    draws = draws.to(device)
    windows = [list(p[-context:]) for p in prompts]
    made: list[list[int]] = [[] for _ in rows]
    ended = [False] * len(prompts)
    cache, fed = None, windows
    for step in range(new):
        longest = max(map(len, fed))
        tokens = torch.tensor([f + [0] * (longest - len(f)) for f in fed], device=device)
        logits, cache = next_token(tokens, torch.tensor([len(f) for f in fed], device=device), cache)
        ids = choose(logits, draws[:, step], temperature=temperature, top_k=top_k, top_p=top_p).tolist()
        for row in rows:
            ended[row] = ended[row] or ids[row] == end
            if not ended[row]:
                made[row].append(ids[row])
        if all(ended):
            break
        if any(len(w) == context for w in windows):
            windows = [[*(w[context - context // 2 :] if len(w) == context else w), i] for w, i in zip(windows, ids)]
            cache, fed = None, windows
        else:
            windows = [[*w, i] for w, i in zip(windows, ids)]
            fed = [[i] for i in ids]
    return made
