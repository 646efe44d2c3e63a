"""Training tokens per second: GPT-2 here against transformers' GPT2LMHeadModel of the same shape, in turn.

The peer trains as people train it: float32, logits of all tokens, labels=input_ids, AdamW with its defaults, gradient
clipped at 1; its bfloat16-autocast row is the same loop under torch.autocast. Dropout is off on both sides. The last
line printed is JSON.

Run: python benchmarks/peer_gpt2.py      (alone on the machine; about two minutes on two cores)
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor

from unlabeled.core.batch import Spec
from unlabeled.core.clock import Clock
from unlabeled.core.config import resolve
from unlabeled.engine.optimise import parts_of
from unlabeled.engine.precision import precision
from unlabeled.methods.gpt2 import GPT2

SHAPE = {"batch": 16, "context": 256, "layers": 4, "width": 256, "heads": 4}
VOCABULARY = 4096
ROUNDS, STEPS = 5, 4  # steps of each contender in each round


def ours() -> Callable[[Tensor], float]:
    """One step as the engine takes it: the loss in the fastest precision of this machine, clipping, fused AdamW."""
    torch.manual_seed(0)
    method = GPT2(resolve(GPT2, "laptop", SHAPE), Spec("text", vocabulary=VOCABULARY)).train()
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


def measure(contenders: dict[str, Callable[[Tensor], float]], rounds: int, steps: int) -> dict[str, float]:
    """Median over rounds of each contender's tokens per second; contenders take turns within a round."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(VOCABULARY, (SHAPE["batch"], SHAPE["context"] + 1), generator=generator)
    for step in contenders.values():
        step(tokens)
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, step in contenders.items():
            start = time.perf_counter()
            for _ in range(steps):
                step(tokens)
            seconds = time.perf_counter() - start
            rates[name].append(steps * SHAPE["batch"] * SHAPE["context"] / seconds)
    return {name: statistics.median(values) for name, values in rates.items()}


def main(rounds: int = ROUNDS, steps: int = STEPS) -> None:
    contenders = {
        "unlabeled": ours(),
        "transformers float32": peer(bf16=False),
        "transformers bfloat16 autocast": peer(bf16=True),
    }
    rates = measure(contenders, rounds, steps)
    fastest = rates["unlabeled"]
    figures = {
        "shape": SHAPE | {"vocabulary": VOCABULARY},
        "rounds": rounds,
        "steps_per_round": steps,
        "threads": torch.get_num_threads(),
        "tokens_per_second": {name: round(rate, 1) for name, rate in rates.items()},
        "ratio_to_float32": round(fastest / rates["transformers float32"], 3),
        "ratio_to_bfloat16_autocast": round(fastest / rates["transformers bfloat16 autocast"], 3),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
