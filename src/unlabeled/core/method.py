"""The protocol of a method: what it needs of an example, what it trains, by which loss, what it can do afterwards.

Three small functions carry it. `updates` says which updates a batch leads to, `loss` is a plain function to a
scalar without side effects, `after_update` is what happens once the weights have moved. All have defaults: a method
that only defines `loss` is complete. ARCHITECTURE.md shows how GANs, teachers, queues and codebooks fit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from unlabeled.core.batch import Batch, Example, Record, Spec
from unlabeled.core.clock import Clock, Schedule
from unlabeled.core.config import MethodConfig

if TYPE_CHECKING:
    from unlabeled.data.source import Source

__all__ = [
    "Codes",
    "Embeds",
    "EmbedsLocally",
    "Finding",
    "Method",
    "OptimizerPlan",
    "Outcome",
    "Paper",
    "Reconstructs",
    "Samples",
    "Scores",
    "capabilities",
    "matrices_only",
]


@dataclass(frozen=True)
class Paper:
    title: str
    authors: str
    venue: str
    year: int
    url: str = ""


@dataclass
class Outcome:
    """What `loss` returns."""

    loss: Tensor  # scalar, differentiable
    logs: dict[str, Tensor] = field(default_factory=dict)  # detached scalars, averaged with the weights of the loss
    carry: dict[str, Tensor] = field(default_factory=dict)  # detached tensors for `after_update`


@dataclass(frozen=True)
class Finding:
    """One thing that the logged quantities of a run say about its health.

    meaning: a sentence that says what the value tells, and where it is unhealthy, what to change.
    """

    name: str
    value: float
    healthy: bool
    meaning: str


def matrices_only(name: str, parameter: Tensor) -> bool:
    """The usual rule of decay: weight matrices and kernels, not biases, gains and other vectors."""
    return parameter.ndim > 1


@dataclass(frozen=True)
class OptimizerPlan:
    """How the weights of one part move.

    networks: names out of `networks()`; empty means all of them. A parameter belongs to at most one part.
    decays: rule on (name, parameter); weights it refuses are neither decayed nor, under LARS, adapted by layer.
    options: further arguments of the algorithm (betas, momentum, eps, nesterov, trust).
    hidden: for Muon, the rule that picks the matrices it orthogonalises; the others go to AdamW.
    """

    algorithm: Literal["adamw", "adam", "sgd", "lars", "muon", "adafactor"]
    lr: Schedule
    weight_decay: float = 0.0
    clip_norm: float | None = None
    networks: tuple[str, ...] = ()
    decays: Callable[[str, Tensor], bool] = matrices_only
    hidden: Callable[[str, Tensor], bool] = matrices_only
    options: Mapping[str, Any] = field(default_factory=dict)


class Method(nn.Module):
    """One way to learn from unlabeled data.

    It is written as if there were one device and one process: it never asks for a rank, moves nothing to a device,
    calls no backward and no optimiser. Sub-networks are plain attributes; state that is not learned by gradient
    (queues, codebooks, running centres) is registered as buffers and is saved.
    """

    Config: ClassVar[type[MethodConfig]]  # frozen, keyword-only; its defaults are the paper's base setting
    variants: ClassVar[Mapping[str, Mapping[str, Any]]]  # differences from Config by published name; has "tiny"
    paper: ClassVar[Paper]
    takes: ClassVar[tuple[str, ...]]  # fields of a record: ("image",), ("text",), ("wave",), ("image", "caption")
    needs: ClassVar[tuple[str, ...]] = ()  # names of earlier stages of the same system whose results it builds on
    share: ClassVar[float] = 1.0  # of the budget of a system of several stages, relative to the other stages
    ragged: ClassVar[tuple[str, ...]] = ()  # fields of an example whose first dimension differs between records
    couples: ClassVar[bool] = False  # True if the loss of an example depends on the others in its batch
    prepared_by: ClassVar[tuple[str, ...] | None] = None  # settings that `prepare` and `window` see; None: any of them
    rate_hz: ClassVar[int] = 16_000  # samples a second of the waves it prepares, where it takes sound
    forwards: ClassVar[Mapping[str, tuple[str, ...]]] = {}  # entry points of a network besides forward
    goal: ClassVar[Literal["represent", "generate"]] = "represent"  # what the front door picks it for
    likelihood: ClassVar[Literal["exact", "lower bound"]] = "exact"  # what `score` gives, where there is one
    name: str = ""  # in the catalogue, as it was asked for; set by whoever builds it for a run

    def __init__(self, config: Any, spec: Spec, given: Mapping[str, Method] | None = None) -> None:
        """Build the networks.

        spec: what the data is (image size and channels, vocabulary, sample rate).
        given: trained methods of the stages that this one needs. They are kept as `self.given`, frozen and in
            evaluation mode, and are saved with this method, which can then be read back without them.
        """
        super().__init__()
        self.config = config
        self.spec = spec
        self.given: Any = nn.ModuleDict(dict(given or {}))
        self.given.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Method:
        """As torch's; what was given stays in evaluation mode."""
        super().train(mode)
        self.given.eval()
        return self

    # ---- data: from one record to one batch ------------------------------------------------------------------

    @classmethod
    def measure(cls, config: Any, source: Source) -> Spec:
        """What the data is, for this method; text methods train their tokenizer here. Default: the source's own."""
        return source.spec()

    def prepare(self, record: Record, rng: np.random.Generator) -> Example:
        """One record to one example: decode, resize, tokenise. Runs once per record; the result is stored.

        Deterministic; the random part belongs to `transform`. Images are uint8 (height, width, channels), waves
        float32 (samples,) in [-1, 1], token ids int32 (length,). Raises BadRecord where the record cannot be used.

        `prepared_by` names the settings it depends on besides the spec: models that agree in these share what is stored.
        """
        raise NotImplementedError

    def window(self) -> int | None:
        """None: an example is a record. n: ragged records are laid end to end and cut into examples of n + 1 items
        of which neighbours share one, so that each item but the very first is predicted once per epoch."""
        return None

    def collate(self, examples: Mapping[str, np.ndarray]) -> Batch:
        """Stacked arrays of the store to tensors. Default: as they are; ids become int64.

        A ragged field comes padded with zeros to the longest of the whole batch, and `NAME_length` (n,) beside it.
        """
        batch = {name: torch.from_numpy(array) for name, array in examples.items()}
        return {k: v.long() if v.dtype in (torch.int32, torch.int16, torch.uint16) else v for k, v in batch.items()}

    def transform(self, batch: Batch, clock: Clock) -> Batch:
        """The random part, on the device, for many examples at once: views, masks, corruption, noise levels.

        Uses torch's global generator. The engine calls it on fixed slices of the global batch ("grains"), seeded
        from (seed, step, grain), so that the same step sees the same randomness on any number of processes. Draw
        all randomness of the objective here and none in `loss` (dropout apart). Default returns the batch.
        """
        return batch

    # ---- learning ------------------------------------------------------------------------------------------------

    def networks(self) -> Mapping[str, nn.Module]:
        """The units that are sharded, averaged, counted and saved under one name. Default: direct children, without
        what was given by earlier stages.

        A network is *called*; other entry points are listed in `forwards`, since sharding happens at calls.
        """
        return {name: child for name, child in self.named_children() if name != "given"}

    def optimizers(self) -> Mapping[str, OptimizerPlan]:
        """Part name to plan. Parameters of no part are frozen. A single part is called "main"."""
        raise NotImplementedError

    def first_batch(self, batch: Batch) -> None:
        """Once, before sharding and step 0, without gradient, on the same transformed batch on every process: for
        initialisation from data (ActNorm, weight norm, k-means). Default does nothing."""

    def updates(self, batch: Batch, clock: Clock) -> Iterator[tuple[str, Batch]]:
        """Which updates this batch leads to, in order. Default: one, of "main", on the batch as it is.

        Runs without gradient. What it yields is used up before it is resumed, so later items may depend on the
        updated weights.
        """
        yield "main", batch

    def count(self, batch: Batch, part: str) -> Tensor:
        """How many items the loss of this batch is a mean over (examples, scored tokens, frames): float scalar.

        The engine adds the counts over microbatches and processes before the first backward and weights each mean
        by its share, so that uneven masks give the gradient of the global mean. Default: examples.
        """
        first = next(iter(batch.values()))
        return torch.tensor(float(len(first)), device=first.device)

    def loss(self, batch: Batch, part: str, clock: Clock) -> Outcome:
        """The objective as a mean over `count` items: float32 scalar, nats per item unless the docstring says other.

        No side effects: same weights, same batch, same number. What crosses processes (negatives, batch statistics)
        goes through `parallel.gather` and `parallel.total`, the identity on one process.
        """
        raise NotImplementedError

    def after_update(self, part: str, outcomes: Sequence[Outcome], clock: Clock) -> None:
        """Once after the weights of `part` moved, without gradient: teachers follow, queues take keys, codebooks
        move. `outcomes` has one entry per microbatch; their `carry` is all this may use besides weights."""

    def diagnose(self, history: Sequence[Mapping[str, float]]) -> Sequence[Finding]:
        """What the logged quantities say about the health of a run; history: the rows of its metrics, in order."""
        return ()

    # ---- handing on ----------------------------------------------------------------------------------------------

    def export(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Weights and configuration in the common (Hugging Face) layout, or None where there is none."""
        return None

    @classmethod
    def opens(cls, folder: Path) -> bool:
        """Whether a folder (without a run around it) is in the common layout of this method."""
        return False

    @classmethod
    def from_pretrained(cls, folder: Any) -> Method:
        """Build from a folder in the common layout. Raises UserError where this method has none."""
        from unlabeled.core.errors import UserError

        raise UserError(f"{cls.__name__} has no common layout to load from; give a run folder instead of {folder}.")


@runtime_checkable
class Embeds(Protocol):
    def embed(self, batch: Batch) -> Tensor:
        """(batch, width) float32 features as used downstream in the paper, the same whatever stands beside an example.

        Differentiable, for fine-tuning. Of text it may get whole records: "tokens" padded with zeros, "tokens_length".
        """
        ...


@runtime_checkable
class EmbedsLocally(Protocol):
    def embed_locally(self, batch: Batch) -> Tensor:
        """(batch, positions, width) float32: patches, tokens or frames. Differentiable, for fine-tuning.

        Where their number differs between examples, `positions(batch)` gives (batch,) int64, those that count.
        """
        ...


@runtime_checkable
class Samples(Protocol):
    def sample(
        self, n: int, *, condition: Any = None, steps: int | None = None, guidance: float | None = None
    ) -> dict[str, Any]:
        """n new examples in data space: {"image": uint8 (n, height, width, channels)} or {"text": [str]}; seeded by
        the caller through torch's global generator."""
        ...


@runtime_checkable
class Scores(Protocol):
    def score(self, batch: Batch) -> Tensor:
        """(batch,) log-likelihood in nats per example, exact or a lower bound; the class says which."""
        ...


@runtime_checkable
class Reconstructs(Protocol):
    def reconstruct(self, batch: Batch) -> Batch:
        """The examples as they come back from their codes, in data space: {"image": uint8 (n, h, w, channels)}."""
        ...


@runtime_checkable
class Codes(Protocol):
    def encode(self, batch: Batch) -> Tensor:
        """(batch, ...) int64 codes or float32 latents."""
        ...

    def decode(self, codes: Tensor) -> Batch:
        """What `encode` gave, or anything like it, in data space."""
        ...


CAPABILITIES: Mapping[str, type] = {
    "embed": Embeds,
    "embed_locally": EmbedsLocally,
    "sample": Samples,
    "score": Scores,
    "reconstruct": Reconstructs,
    "encode": Codes,
}


def capabilities(method: type[Method] | Method) -> tuple[str, ...]:
    """Names of what a method can do after training, out of `CAPABILITIES`."""
    return tuple(name for name in CAPABILITIES if callable(getattr(method, name, None)))
