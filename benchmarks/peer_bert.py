"""Training tokens per second: BERT here against transformers' BertForPreTraining of the same shape, in turn.

Both predict the hidden tokens and the relation of the two segments of the same sequences. The peer trains as people
train it: float32, the output layer at every position, labels of -100 where nothing is hidden, AdamW with its defaults,
gradient clipped at 1; its bfloat16-autocast row is the same loop under torch.autocast. Dropout is off and AdamW steps on
both sides. The last line printed is JSON.

Run: python benchmarks/peer_bert.py      (alone on the machine; about five minutes)
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial

import torch
from rounds import compare, on_one_batch

from unlabeled.core.batch import Batch, Spec
from unlabeled.core.clock import Clock
from unlabeled.core.config import resolve
from unlabeled.data.wordpiece import SPECIALS, WordPieceTokenizer
from unlabeled.engine import machine
from unlabeled.engine.optimise import parts_of
from unlabeled.engine.precision import precision
from unlabeled.methods.bert import BERT

SHAPE = {"batch": 32, "length": 128, "layers": 4, "width": 256, "heads": 4, "inner": 1024}
VOCABULARY = 4096


def method() -> BERT:
    torch.manual_seed(0)
    words = [*SPECIALS, ".", *(f"word{i}" for i in range(VOCABULARY - 6))]
    tokenizer = WordPieceTokenizer({word: i for i, word in enumerate(words)})
    overrides = SHAPE | {"optimizer": "adamw", "lr": 1e-3, "next_sentence": True}
    return BERT(resolve(BERT, "laptop", overrides), Spec("text", vocabulary=VOCABULARY, tokenizer=tokenizer)).train()


def ours() -> Callable[[Batch], float]:
    """One step as the engine takes it: the loss in the fastest precision of this machine, clipping, fused AdamW."""
    machine.keep_freed_memory()
    bert = method()
    part, compute = parts_of(bert)["main"], precision("fastest")

    def step(batch: Batch) -> float:
        (_, weighted), *_ = bert.updates(batch, Clock())
        with compute.computing():
            outcome = bert.loss(weighted, "main", Clock())
        outcome.loss.backward()
        part.step(Clock(steps=100, progress=0.5))
        with torch.no_grad():
            bert.after_update("main", [outcome], Clock())
        return outcome.loss.item()

    return step


def peer(*, bf16: bool) -> Callable[[Batch], float]:
    """The usual loop around transformers' class."""
    from transformers import BertConfig, BertForPreTraining

    _, config = method().export()
    torch.manual_seed(0)
    model = BertForPreTraining(BertConfig(**config)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def step(batch: Batch) -> float:
        labels = torch.full_like(batch["tokens"], -100).scatter_(1, batch["at"], batch["targets"])
        with torch.autocast("cpu", torch.bfloat16) if bf16 else nullcontext():
            loss = model(
                input_ids=batch["tokens"],
                token_type_ids=batch["segments"],
                labels=labels,
                next_sentence_label=batch["other"],
            ).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return step


def sequences() -> Batch:
    rows = torch.randint(5, VOCABULARY, (SHAPE["batch"], SHAPE["length"]), generator=torch.Generator().manual_seed(0))
    return method().transform({"tokens": rows}, Clock())


if __name__ == "__main__":
    makers = {
        "unlabeled": ours,
        "transformers float32": partial(peer, bf16=False),
        "transformers bfloat16 autocast": partial(peer, bf16=True),
    }
    items = SHAPE["batch"] * SHAPE["length"]
    contenders = {name: on_one_batch(make, sequences, items) for name, make in makers.items()}
    compare(__file__, contenders, "training tokens per second", SHAPE | {"vocabulary": VOCABULARY})
