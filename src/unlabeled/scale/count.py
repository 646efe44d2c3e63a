"""Count what a law is about: parameters by each convention, and the FLOPs of training, exactly.

    non_embedding   without tables of embeddings and positions, and without the matrix of the output (Kaplan et al. 2020)
    with_head       the same with the matrix of the output, tied or not (Porian et al. 2024, "standard")
    total           every weight once
    active          the weights that one example meets, where some modules are used in part (mixtures of experts)

FLOPs are those of matrix products and convolutions, two for each multiply-add, forward and backward, counted by torch while a
method computes its losses; what optimisers, norms, softmax and augmentation spend is left out, as everywhere in this literature.
`DecoderOnly` is the same by arithmetic on a configuration (Hoffmann et al. 2022, appendix F). Rules of thumb, per token:

    kaplan      6 non_embedding
    standard    6 with_head
    attention   6 with_head + 6 layers context width   (every query on half of the keys)
    6ND         6 total

Differs from Kaplan et al. in: biases and gains of norms count as parameters (5 % at width 16, 0.1 % at width 768).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from unlabeled.core import catalogue
from unlabeled.core.batch import Batch
from unlabeled.core.clock import Clock
from unlabeled.core.errors import UserError
from unlabeled.core.method import Method
from unlabeled.data.sources import source as open_source
from unlabeled.data.store import Store, build
from unlabeled.engine.optimise import parts_of
from unlabeled.engine.precision import Precision, precision

__all__ = [
    "Counted",
    "DecoderOnly",
    "Parameters",
    "count",
    "decoder_of",
    "microbatch",
    "parameters",
    "rules",
    "training_flops",
]

FEW = 2  # examples that are counted: some norms refuse a single one
USUAL = {"image": "fashion", "text": "moby-dick", "wave": "speech"}  # shipped data, where none is named


@dataclass(frozen=True)
class Parameters:
    """Weights of a method by each convention, without those that earlier stages gave."""

    total: int
    non_embedding: int
    with_head: int
    active: int

    def to_dict(self) -> dict[str, int]:
        return asdict(self)


def parameters(method: Method) -> Parameters:
    """Count the weights of a method; on the meta device too.

    The output matrix is that of a linear layer with as many outputs as the vocabulary has ids, or, where there is none and the
    loss is over the vocabulary, the tied table of embeddings. A module may say `active_share`, the share of its weights that an
    example meets.
    """
    tables, heads, idle = {}, {}, 0.0
    vocabulary = method.spec.vocabulary if method.spec.kind == "text" else 0
    for name, module in method.named_modules():
        if name.startswith("given."):
            continue
        if isinstance(module, nn.Embedding):
            tables[id(module.weight)] = module.weight
        elif isinstance(module, nn.Linear) and vocabulary and module.out_features == vocabulary:
            heads[id(module.weight)] = module.weight
        idle += (1 - getattr(module, "active_share", 1.0)) * sum(p.numel() for p in module.parameters())
    if vocabulary and not heads:
        heads = {i: table for i, table in tables.items() if len(table) == vocabulary}
    total = sum(p.numel() for name, p in method.named_parameters() if not name.startswith("given."))
    head = sum(p.numel() for p in heads.values())
    inside = total - sum(p.numel() for p in (tables | heads).values())
    return Parameters(total, inside, inside + head, round(total - idle))


@dataclass(frozen=True)
class Counted:
    """FLOPs of training on one example.

    parts: those of each part's updates, forward and backward. `backward` can be below twice `forward`, since losses may take
    their gradient on the way forward. tokens: in an example; 0 where the word means nothing.
    """

    parts: Mapping[str, Mapping[str, float]]
    tokens: int

    @property
    def per_example(self) -> float:
        return sum(p["forward"] + p["backward"] for p in self.parts.values())

    @property
    def per_item(self) -> float:
        """Per token where examples have tokens, else per example."""
        return self.per_example / (self.tokens or 1)


def training_flops(method: Method, batch: Batch, clock: Clock | None = None, how: Precision | None = None) -> Counted:
    """Count the FLOPs of the updates that a transformed batch leads to; weights and buffers stay as they are.

    Counted on two examples, or on the whole batch where examples are compared with one another. As in a run, the weights of
    other parts stand still, so that no gradient of theirs is counted (a run's own `flops` counts it).
    """
    from torch.utils.flop_counter import FlopCounterMode

    clock, how = clock or Clock(), how or precision("fastest")
    few = batch if method.couples else {k: v[:FEW] for k, v in batch.items()}
    size = len(next(iter(few.values())))
    buffers = {n: b.clone() for n, b in method.named_buffers()}
    wanted = {n: p.requires_grad for n, p in method.named_parameters()}
    moves = {part: set(map(id, plan.named.values())) for part, plan in parts_of(method).items()}
    parts: dict[str, dict[str, float]] = {}
    state = torch.get_rng_state()
    for part, examples in method.updates(few, clock):
        own = parts.setdefault(part, {"forward": 0.0, "backward": 0.0})
        for p in method.parameters():
            p.requires_grad_(id(p) in moves[part])
        with FlopCounterMode(display=False) as forward, how.computing():
            loss = method.loss(examples, part, clock).loss
        with FlopCounterMode(display=False) as backward:
            loss.backward()
        own["forward"] += forward.get_total_flops() / size
        own["backward"] += backward.get_total_flops() / size
    torch.set_rng_state(state)
    with torch.no_grad():
        for name, buffer in method.named_buffers():
            buffer.copy_(buffers[name])
    for name, p in method.named_parameters():
        p.grad = None
        p.requires_grad_(wanted[name])
    return Counted(parts, method.window() or 0)


def microbatch(method: Method, store: Store, size: int = FEW) -> Batch:
    """The first examples of a store as a batch that the loss takes; the same each time."""
    size = min(len(store), method.config.batch if method.couples else size)
    state = torch.get_rng_state()
    torch.manual_seed(0)
    with torch.no_grad():
        batch = method.transform(method.collate(store.batch(np.arange(size))), Clock())
    torch.set_rng_state(state)
    return batch


def count(system: str, variant: str | None = None, data: Any = None, **overrides: Any) -> dict[str, Any]:
    """Parameters and training FLOPs of a method as it would learn from data (shipped data of its kind, where none is named).

    Returns JSON types: `parameters` by convention, `parts`, `flops` by rule per token or example, `ratio` of the exact count to
    each rule, `unit`.

    Raises:
        UserError: where names, settings or data do not fit together.
    """
    kind = catalogue.method(system)
    taken = next(f for f in ("image", "text", "wave") if f in kind.takes)
    source = open_source(data or USUAL[taken])
    if source.kind != taken:
        raise UserError(f"{system} learns from {taken} data, and {source.name} holds {source.kind} data.")
    part = source.split("train")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        method = catalogue.build(system, variant, lambda kind, config: kind.measure(config, part), **overrides)
    counted, own = training_flops(method, microbatch(method, build(part, method))), parameters(method)
    flops = {"exact": counted.per_item} | rules(own, method.config)
    return {
        "system": system,
        "variant": variant,
        "unit": "token" if counted.tokens else "example",
        "parameters": own.to_dict(),
        "parts": {name: dict(one) for name, one in counted.parts.items()},
        "flops": flops,
        "ratio": {name: counted.per_item / value for name, value in flops.items() if value},
    }


def rules(own: Parameters, config: Any = None) -> dict[str, float]:
    """Training FLOPs per token by each rule of thumb; `attention` where a configuration says layers, context and width."""
    said = {"kaplan": 6.0 * own.non_embedding, "standard": 6.0 * own.with_head, "6ND": 6.0 * own.total}
    shape = [getattr(config, name, 0) for name in ("layers", "context", "width")]
    return said | ({"attention": 6.0 * (own.with_head + shape[0] * shape[1] * shape[2])} if all(shape) else {})


@dataclass(frozen=True, kw_only=True)
class DecoderOnly:
    """A decoder-only Transformer by its numbers, without biases and norms."""

    vocabulary: int
    context: int
    width: int
    layers: int
    heads: int
    head_width: int
    feed_forward: int
    gated: bool = False
    """Feed-forward nets with three matrices (SwiGLU)."""
    relative: bool = False
    """Positions are projected in every layer, as in Transformer-XL and Chinchilla: parameters without FLOPs of their own here."""
    block: int = 0
    """Queries at a time that skip all later keys, as kernels that use causality do; 0 multiplies by every key."""

    @property
    def non_embedding(self) -> int:
        inner = self.heads * self.head_width
        each = 4 * inner * self.width + (3 if self.gated else 2) * self.width * self.feed_forward
        return self.layers * (each + (inner * self.width if self.relative else 0))

    @property
    def with_head(self) -> int:
        return self.non_embedding + self.vocabulary * self.width

    def forward_flops(self, *, look_up: bool = False, softmax: bool = True) -> int:
        """Of one sequence. look_up: as a product with one-hot rows, which no kernel does; softmax: three for each weight, no
        product of matrices, which torch's counter leaves out."""
        s, d, inner = self.context, self.width, self.heads * self.head_width
        step = self.block or s
        seen = sum((min(start + step, s) - start) * min(start + step, s) for start in range(0, s, step))
        layer = 2 * s * d * 3 * inner + 2 * s * inner * d  # queries, keys, values; output
        layer += 2 * 2 * seen * inner  # logits and weighted sum
        layer += 3 * self.heads * seen if softmax else 0
        layer += 2 * s * (3 if self.gated else 2) * d * self.feed_forward
        ends = 2 * s * d * self.vocabulary * (2 if look_up else 1)
        return self.layers * layer + ends

    def training_flops(self, *, look_up: bool = False, softmax: bool = True, recomputed: float = 0.0) -> float:
        """Of one sequence: the way back costs twice the way forward. recomputed: share of the forward pass done again."""
        return (3 + recomputed) * self.forward_flops(look_up=look_up, softmax=softmax)

    def parameter_counts(self) -> Parameters:
        """By each convention; the table of embeddings is tied to the output."""
        return Parameters(self.with_head, self.non_embedding, self.with_head, self.with_head)


def decoder_of(method: Any, context: int | None = None) -> DecoderOnly:
    """The numbers of a `gpt2` method, whose kernel on processors takes 128 queries at a time."""
    c: Any = method.config
    return DecoderOnly(
        vocabulary=method.spec.vocabulary,
        context=context or c.context,
        width=c.width,
        layers=c.layers,
        heads=c.heads,
        head_width=c.width // c.heads,
        feed_forward=4 * c.width,
        block=128,
    )
