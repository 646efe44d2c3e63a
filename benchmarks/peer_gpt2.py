"""Training tokens per second: GPT-2 here against transformers' GPT2LMHeadModel of the same shape, in turn.

The peer trains as people train it: float32, logits of all tokens, labels=input_ids, AdamW with its defaults, gradient
clipped at 1; its bfloat16-autocast row is the same loop under torch.autocast. Dropout is off and AdamW steps on both
sides. The last line printed is JSON.

Run: python benchmarks/peer_gpt2.py      (alone on the machine; about five minutes)
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial

import torch
from rounds import compare, on_one_batch
from torch import Tensor

from unlabeled.core.batch import Spec
from unlabeled.core.clock import Clock
from unlabeled.core.config import resolve
from unlabeled.engine import machine
from unlabeled.engine.optimise import parts_of
from unlabeled.engine.precision import precision
from unlabeled.methods.gpt2 import GPT2

SHAPE = {"batch": 16, "context": 256, "layers": 4, "width": 256, "heads": 4}
VOCABULARY = 4096


def ours() -> Callable[[Tensor], float]:
    """One step as the engine takes it: the loss in the fastest precision of this machine, clipping, fused AdamW."""
    torch.manual_seed(0)
    machine.keep_freed_memory()
    config = resolve(GPT2, "laptop", SHAPE | {"optimizer": "adamw", "lr": 2e-3})
    method = GPT2(config, Spec("text", vocabulary=VOCABULARY)).train()
    part, compute = parts_of(method)["main"], precision("fastest")

    def step(tokens: Tensor) -> float:
        with compute.computing():
            loss = method.loss({"tokens": tokens}, "main", Clock()).loss
        loss.backward()
        part.step(Clock(steps=100, progress=0.5))
        return loss.item()

    return step


def peer(*, bf16: bool) -> Callable[[Tensor], float]:
    """The usual loop around transformers' class; it drops the last logit and the first label itself."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=VOCABULARY,
        n_positions=SHAPE["context"],
        n_embd=SHAPE["width"],
        n_layer=SHAPE["layers"],
        n_head=SHAPE["heads"],
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
    )
    model = GPT2LMHeadModel(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def step(tokens: Tensor) -> float:
        with torch.autocast("cpu", torch.bfloat16) if bf16 else nullcontext():
            loss = model(input_ids=tokens[:, :-1], labels=tokens[:, :-1]).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return step


def tokens() -> Tensor:
    shape = (SHAPE["batch"], SHAPE["context"] + 1)
    return torch.randint(VOCABULARY, shape, generator=torch.Generator().manual_seed(0))


if __name__ == "__main__":
    makers = {
        "unlabeled": ours,
        "transformers float32": partial(peer, bf16=False),
        "transformers bfloat16 autocast": partial(peer, bf16=True),
    }
    contenders = {name: on_one_batch(make, tokens, SHAPE["batch"] * SHAPE["context"]) for name, make in makers.items()}
    compare(__file__, contenders, "training tokens per second", SHAPE | {"vocabulary": VOCABULARY})
