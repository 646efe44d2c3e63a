"""MoCo: look up the key of an image's other view in a queue of keys that a slowly moving encoder made.

He, Fan, Wu, Xie, Girshick: Momentum Contrast for Unsupervised Visual Representation Learning. CVPR 2020 (v1).
Chen, Fan, Girshick, He: Improved Baselines with Momentum Contrastive Learning. arXiv 2003.04297, 2020 (v2).

    l(q) = -log  exp(<q, k+> / T) / ( exp(<q, k+> / T) + sum_i exp(<q, k_i> / T) )         (eq. 1)
    key weights <- m * key weights + (1 - m) * query weights                               (eq. 2)

The k_i are the keys of the last steps. Encoders, heads, starting weights, optimiser and the order within a step are
those of the authors' code (facebookresearch/moco). Differs from it in:
- Normalisation. There each device normalises its own rows, and keys are sent to devices in random order. Here `groups`
  runs of rows of the global batch are normalised apart, on any number of processes, and the keys of one query group are
  dealt out to the key groups in turn. Every pair of groups then shares as many images as it would on average.
  Statistics of the whole batch tell less than those of groups, but they too are of the same images for queries and keys.
- The queue need not be a multiple of the batch: the oldest keys are overwritten, around its end if need be.
- Colour operations are those of data/views.py: contrast is about the mean of each channel, saturation goes through HSV.
  Blur is by an exact Gaussian; the code's is Pillow's approximation.
- Records are stored as centre squares of the views' size, and crops are cut out of those.

Run:     unlabeled train moco fashion-mnist --variant small --budget 8m
Expect:  benchmarks/results/moco-fashion-mnist.jsonl
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unlabeled.core.batch import Batch, Example, Record, Spec
from unlabeled.core.clock import Clock, Schedule
from unlabeled.core.config import MethodConfig
from unlabeled.core.errors import UserError
from unlabeled.core.method import Finding, Method, OptimizerPlan, Outcome, Paper
from unlabeled.data.image import square
from unlabeled.data.views import jitter, random_blur, random_crop_flip, random_grey
from unlabeled.nets.averages import follow
from unlabeled.nets.conv4 import Conv4
from unlabeled.nets.heads import mlp
from unlabeled.nets.norms import normalise_in_groups
from unlabeled.nets.resnet import ResNet
from unlabeled.objectives.contrast import info_nce
from unlabeled.parallel.gather import gather, total
from unlabeled.parallel.shard import local
from unlabeled.parallel.world import rank, world

__all__ = ["MoCo"]

# Findings: share of the loss of guessing, of the weights' length (twice), standard deviations, spread.
STUCK, HURRIED, LEFT_BEHIND, LEAKS, COLLAPSED = 0.98, 1e-3, 1.0, 0.15, 0.05
# Of ImageNet's channels, in [0, 1]; grey images take their means.
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class Config(MethodConfig):
    batch: int = 256
    """Images per step, over all processes."""
    image_size: int = 224
    """Side of the views in pixels; 0 takes the data's own."""
    encoder: Literal["conv4", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152"] = "resnet50"
    """Its output, of the query encoder, is what is used afterwards."""
    conv_widths: tuple[int, ...] = (32, 64, 128, 256)
    """Of conv4."""
    projector: tuple[int, ...] = (128,)
    """Widths of the layers on top; v2 has one more, with ReLU between. Queries and keys are compared in the last."""
    queue: int = 65536
    """Keys to tell the right one from (K)."""
    queue_start: Literal["random", "keys"] = "random"
    """Directions at random, as in the paper, or keys of the first batch. A short run has no time to unlearn that all
    queries should flee the random ones together."""
    key_momentum: float = 0.999
    """m of eq. 2: the share of its weights that the key encoder keeps in a step."""
    temperature: float = 0.07
    """T of eq. 1."""
    normalisation: Literal["shuffled", "plain", "synchronised"] = "shuffled"
    """Batch statistics: of groups, keys dealt out to other ones than queries; of the same groups; of the whole batch."""
    groups: int = 8
    """Runs of rows that are normalised apart; the paper's 8 devices."""
    crop_area: tuple[float, float] = (0.2, 1.0)
    """Least and largest share of the image that a view shows."""
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.4, 0.4)
    """Strengths of brightness, contrast, saturation, hue."""
    jitter_share: float = 1.0
    """Of the views whose colours change."""
    grey_first: bool = True
    """A fifth of the views turns grey before colours change (v1) or after it (v2)."""
    blur: bool = False
    """Blur half of the views (v2)."""
    lr: float = 0.03
    """Peak of the learning rate, whatever the batch; SGD with momentum 0.9."""
    decay: Literal["steps", "cosine"] = "steps"
    """The learning rate falls to a tenth after 120 and after 160 of 200 epochs (v1), or on half a cosine (v2)."""
    weight_decay: float = 1e-4
    """Of all weights."""


class Staircase(Schedule):
    """A tenth after three fifths of the run, a hundredth after four fifths (section 4)."""

    def __call__(self, clock: Clock) -> float:
        return self.peak * 0.1 ** sum(clock.progress >= share for share in (0.6, 0.8))


V2 = {
    "projector": (2048, 128),
    "temperature": 0.2,
    "jitter": (0.4, 0.4, 0.4, 0.1),
    "jitter_share": 0.8,
    "grey_first": False,
    "blur": True,
    "decay": "cosine",
}


class MoCo(Method):
    """An encoder whose output for a view finds the key of the same image's other view among many."""

    Config = Config
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "v1": {},
        "v2": V2,
        # The authors' notebook for CIFAR-10.
        "cifar": {
            **V2,
            "batch": 512,
            "image_size": 32,
            "encoder": "resnet18",
            "projector": (128,),
            "queue": 4096,
            "key_momentum": 0.99,
            "temperature": 0.1,
            "crop_area": (0.08, 1.0),
            "blur": False,
            "lr": 0.06,
            "weight_decay": 5e-4,
        },
        # Minutes on two cores, small images.
        "small": {
            **V2,
            "image_size": 28,
            "encoder": "conv4",
            "projector": (256, 128),
            "queue": 4096,
            "queue_start": "keys",
            "key_momentum": 0.99,
            "crop_area": (0.3, 1.0),
            "blur": False,
            "lr": 0.06,
            "weight_decay": 5e-4,
        },
        "tiny": {
            **V2,
            "batch": 16,
            "image_size": 16,
            "encoder": "conv4",
            "conv_widths": (8, 16, 32, 32),
            "projector": (64, 32),
            "queue": 40,
            "queue_start": "keys",
            "key_momentum": 0.99,
            "temperature": 0.1,
            "groups": 4,
            "crop_area": (0.8, 1.0),
            "blur": False,
            "lr": 0.1,
        },
    }
    paper = Paper(
        "Momentum Contrast for Unsupervised Visual Representation Learning",
        "He, Fan, Wu, Xie, Girshick",
        "CVPR",
        2020,
        "https://arxiv.org/abs/1911.05722",
    )
    takes = ("image",)
    prepared_by = ("image_size",)
    couples = True
    goal = "represent"

    def __init__(self, config: Config, spec: Spec, given: Mapping[str, Method] | None = None) -> None:
        super().__init__(config, spec, given)
        if config.batch % config.groups or config.batch < 2 * config.groups:
            raise UserError(
                f"A batch of {config.batch} is no {config.groups} equal groups of two or more; change --groups."
            )
        if config.queue < 1:
            raise UserError("A queue holds at least one key; raise --queue.")
        self.size = config.image_size or spec.image_size
        if config.encoder == "conv4":
            self.encoder: Conv4 | ResNet = Conv4(spec.channels, config.conv_widths)
        else:
            depth = int(config.encoder.removeprefix("resnet"))
            self.encoder = ResNet(depth, spec.channels, small_images=self.size <= 32, zero_last=False)
            for module in self.encoder.modules():
                if isinstance(module, nn.Conv2d):  # as torchvision's networks start
                    nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        self.projector = mlp((self.encoder.width, *config.projector))
        normalise_in_groups(self.encoder, 1 if config.normalisation == "synchronised" else config.groups)
        self.key_encoder, self.key_projector = deepcopy(self.encoder), deepcopy(self.projector)
        self.register_buffer("queue", F.normalize(torch.randn(config.queue, config.projector[-1]), dim=1))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.int64))  # where the oldest key is

    @classmethod
    def measure(cls, config: Any, source: Any) -> Spec:
        spec = super().measure(config, source)
        if not config.image_size and not spec.image_size:
            raise UserError(f"{source.name} does not say how large its images are; name a size with --image-size.")
        return spec

    def prepare(self, record: Record, rng: np.random.Generator) -> Example:
        return {"image": square(record.fields["image"], self.spec.channels, self.size)}

    def transform(self, batch: Batch, clock: Clock) -> Batch:
        """(n, height, width, channels) uint8 to "views" (n, 2, channels, height, width), query first, normalised."""
        config = self.config
        views = self._floats(batch).repeat(2, 1, 1, 1)
        views = random_crop_flip(views, self.size, area=config.crop_area)
        if config.grey_first:
            views = random_grey(views)
        names = ("brightness", "contrast", "saturation", "hue")
        views = jitter(views, **dict(zip(names, config.jitter)), probability=config.jitter_share)
        if not config.grey_first:
            views = random_grey(views)
        if config.blur:
            views = random_blur(views)
        return {"views": torch.stack(self._normalised(views).chunk(2), 1)}

    # ---- learning ------------------------------------------------------------------------------------------------

    def optimizers(self) -> Mapping[str, OptimizerPlan]:
        config = self.config
        plan = OptimizerPlan(
            "sgd",
            Staircase(config.lr) if config.decay == "steps" else Schedule(config.lr),
            weight_decay=config.weight_decay,
            networks=("encoder", "projector"),
            decays=lambda name, parameter: True,
            options={"momentum": 0.9},
        )
        return {"main": plan}

    def first_batch(self, batch: Batch) -> None:
        if self.config.queue_start == "keys":
            encoder = deepcopy(self.key_encoder)  # every process is given all rows: one group, the same on each
            normalise_in_groups(encoder, 1)
            keys = F.normalize(self.key_projector(encoder(batch["views"].flatten(0, 1))).float(), dim=1)
            self.queue.copy_(keys.repeat(-(-len(self.queue) // len(keys)), 1)[: len(self.queue)])

    def loss(self, batch: Batch, part: str, clock: Clock) -> Outcome:
        """Eq. 1 in nats; log(queue + 1) where nothing is learned."""
        lag = self._lag()  # first, while weights are where the optimiser left them
        q = F.normalize(self.projector(self.encoder(batch["views"][:, 0])).float(), dim=1)
        with torch.no_grad():
            keys = self._keys(batch["views"][:, 1])
        loss, accuracy = info_nce(q, keys, self.queue, self.config.temperature)
        with torch.no_grad():
            logs = {
                "contrast_accuracy": accuracy,
                # 1 where every direction is used, 0 where all images fall together.
                "spread": q.std(0).mean() * q.shape[1] ** 0.5,
                "positive": (q * keys).sum(1).mean(),
                "lag": lag,
                "leak": self._leak(q, keys),
            }
        return Outcome(loss, logs, {"keys": keys})

    def after_update(self, part: str, outcomes: Sequence[Outcome], clock: Clock) -> None:
        """The key encoder follows, so that the next step's keys see the weights that its queries see; buffers are its
        own. The keys of all processes, in the order of ranks, take the places of the oldest."""
        follow(
            self._weights("key_encoder", "key_projector"),
            self._weights("encoder", "projector"),
            self.config.key_momentum,
        )
        size = len(self.queue)
        keys = gather(torch.cat([o.carry["keys"] for o in outcomes]))[-size:]
        places = (self.pointer + torch.arange(len(keys), device=keys.device)) % size
        self.queue[places] = keys
        self.pointer.add_(len(keys)).remainder_(size)

    def _keys(self, views: Tensor) -> Tensor:
        """(n, width) of unit length, in the order of the views (n, channels, height, width)."""
        if self.config.normalisation != "shuffled":
            return F.normalize(self.key_projector(self.key_encoder(views)).float(), dim=1)
        n, everything = len(views), gather(views)
        dealt = torch.arange(len(everything), device=views.device)
        if len(everything) % self.config.groups == 0:
            dealt = dealt.view(-1, self.config.groups).T.flatten()
        mine = dealt[rank() * n : (rank() + 1) * n]
        keys = gather(F.normalize(self.key_projector(self.key_encoder(everything[mine])).float(), dim=1))
        return torch.empty_like(keys).index_copy_(0, dealt, keys)[rank() * n : (rank() + 1) * n]

    def _weights(self, *networks: str) -> Iterator[Tensor]:
        return (p for name in networks for p in getattr(self, name).parameters())

    @torch.no_grad()
    def _lag(self) -> Tensor:
        """How far the key encoder's weights are from the query encoder's, as a share of their length."""
        q, k = (
            [local(p) for p in self._weights(e, p)]
            for e, p in (("encoder", "projector"), ("key_encoder", "key_projector"))
        )
        apart, length = (
            torch.stack(torch._foreach_norm(list(t))).square().sum() for t in (torch._foreach_sub(q, k), q)
        )
        return (total(apart) / total(length)).sqrt()

    def _leak(self, q: Tensor, keys: Tensor) -> Tensor:
        """How much nearer queries are to keys of *other* images that were normalised together with their own key than
        to the batch's other keys, in standard deviations of the latter. Above 0 where batch statistics tell. Where all
        are normalised together, the others are the keys of the step before."""
        n, config = len(q), self.config
        row, here = torch.arange(n, device=q.device), max(1, config.groups // world())
        group = {"shuffled": row % config.groups, "plain": row * here // n, "synchronised": 0 * row}
        together = group[config.normalisation][:, None] == group[config.normalisation]
        alike = q @ keys.T
        newest = (self.pointer - 1 - row) % len(self.queue)
        far = alike[~together] if not together.all() else (q @ self.queue[newest].T).flatten()
        near = alike[together & ~torch.eye(n, dtype=torch.bool, device=q.device)]
        return ((near.mean() - far.mean()) / far.std()).nan_to_num(0)  # groups of one have nobody beside

    # ---- afterwards ----------------------------------------------------------------------------------------------

    def diagnose(self, history: Sequence[Mapping[str, float]]) -> Sequence[Finding]:
        """Of the last quarter, but of the whole run how far keys lag: whether queries tell keys apart, and honestly."""
        if not history:
            return []
        recent, config = history[-max(1, len(history) // 4) :], self.config

        def over(rows: Sequence[Mapping[str, float]], key: str) -> float:
            return sum(row[key] for row in rows) / len(rows)

        guessing = over(recent, "loss") / math.log(config.queue + 1)
        filled = min(1.0, history[-1]["examples"] / config.queue) if config.queue_start == "random" else 1.0
        lag, leak, spread = over(history, "lag"), over(recent, "leak"), over(recent, "spread")
        return [
            Finding(
                "loss, as a share of guessing",
                guessing,
                guessing < STUCK,
                "Queries find their keys better than by guessing, which is 1."
                if guessing < STUCK
                else "Queries find their keys no better than by guessing: raise --temperature or --key-momentum, or lower "
                "--lr.",
            ),
            Finding(
                "accuracy of the look-up",
                over(recent, "contrast_accuracy"),
                over(recent, "contrast_accuracy") > 1 / (config.queue + 1),
                f"Share of queries that are nearest to their own key, out of {config.queue + 1:,}; where it is no more than "
                "chance, train for longer or make views more alike.",
            ),
            Finding(
                "queue filled",
                filled,
                filled == 1,
                "All that queries are compared with are keys of images."
                if filled == 1
                else "The run ended before keys had replaced the random start of the queue: train for longer, or set a "
                "smaller --queue or --queue-start keys.",
            ),
            Finding(
                "lag of the key encoder",
                lag,
                HURRIED < lag < LEFT_BEHIND,
                "The key encoder changes as fast as the query encoder, so the queue holds keys of encoders that differ: "
                "raise --key-momentum."
                if lag <= HURRIED
                else "The key encoder does not follow the query encoder: lower --key-momentum."
                if lag >= LEFT_BEHIND
                else "How far the weights of the key encoder are behind the query encoder's, as a share of their length.",
            ),
            Finding(
                "likeness of keys normalised together",
                leak,
                leak < LEAKS,
                "Keys that were normalised with the right one are no nearer than others; batch statistics give nothing away."
                if leak < LEAKS
                else "Queries know keys by the statistics they were normalised with, not by the image: use --normalisation "
                "shuffled.",
            ),
            Finding(
                "spread of the queries",
                spread,
                spread > COLLAPSED,
                "1 where every direction is used, 0 where all images fall together."
                if spread > COLLAPSED
                else "All images are mapped to nearly the same point: raise --key-momentum or lower --lr.",
            ),
        ]

    def embed(self, batch: Batch) -> Tensor:
        """(n, encoder width) float32: the query encoder's output, before the projector."""
        return self.encoder(self._normalised(self._floats(batch))).float()

    def _floats(self, batch: Batch) -> Tensor:
        """uint8 (n, height, width, channels) to float (n, channels, height, width) in [0, 1]."""
        return batch["image"].permute(0, 3, 1, 2).float() / 255

    def _normalised(self, images: Tensor) -> Tensor:
        mean, deviation = images.new_tensor([MEAN, DEVIATION])
        if images.shape[1] != len(mean):
            mean, deviation = mean.mean(), deviation.mean()
        return (images - mean.view(-1, 1, 1)) / deviation.view(-1, 1, 1)
