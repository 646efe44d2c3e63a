"""SimCLR: pull two views of one image together, push all other images of the batch away.

Chen, Kornblith, Norouzi, Hinton: A Simple Framework for Contrastive Learning of Visual Representations. ICML 2020.

    l(i, j) = -log  exp(<u_i, u_j> / T) / sum_{k != i} exp(<u_i, u_k> / T)         (eq. 1)

Projector, colour operations, starting weights and LARS are those of the authors' code (google-research/simclr) as it
was first released. Differs from it in:
- The loss is the mean over both orders of all pairs, as in the paper; the code returns twice that. Its learning rates
  for plain SGD are to be doubled here, and its weight decay under LARS, left as published, counts twice as much.
- Records are stored as centre squares of the views' size, and crops are cut out of those, not out of the whole
  photograph. Their area is uniform, as in the paper, and they are resized with antialiasing.
- The first blocks of ResNet-18 and 34 have no projection in the shortcut, as torch's and He et al.'s have none.
- Evaluation looks at the whole stored square and not at its central 87.5 %.

Run:     unlabeled train simclr fashion-mnist --variant small --budget 8m
Expect:  benchmarks/results/simclr-fashion-mnist.jsonl
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from unlabeled.core.batch import Batch, Example, Record, Spec
from unlabeled.core.clock import Clock, Schedule
from unlabeled.core.config import MethodConfig
from unlabeled.core.errors import UserError
from unlabeled.core.method import Method, OptimizerPlan, Outcome, Paper
from unlabeled.data.image import square
from unlabeled.data.views import jitter, random_blur, random_crop_flip, random_grey
from unlabeled.nets.conv4 import Conv4
from unlabeled.nets.heads import mlp
from unlabeled.nets.resnet import ResNet
from unlabeled.objectives.contrast import nt_xent

__all__ = ["SimCLR"]


@dataclass(frozen=True, kw_only=True)
class Config(MethodConfig):
    batch: int = 4096
    """Images per step, over all processes; each is compared with two views of all the others."""
    image_size: int = 224
    """Side of the views in pixels; 0 takes the data's own."""
    encoder: Literal["conv4", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152"] = "resnet50"
    """Its output is what is used afterwards (section 4.2)."""
    width: int = 1
    """Multiplier of all widths of the ResNet."""
    conv_widths: tuple[int, ...] = (32, 64, 128, 256)
    """Of conv4."""
    projector: tuple[int, ...] = (2048, 128)
    """Widths of the projector's layers; views are compared in the last."""
    temperature: float = 0.1
    """T of eq. 1 (table 5)."""
    crop_area: tuple[float, float] = (0.08, 1.0)
    """Least and largest share of the image that a view shows."""
    kernel: Literal["bicubic", "bilinear"] = "bicubic"
    """Of resizing the crops."""
    jitter: float = 1.0
    """Strength of the colour operations (appendix A): 0.8 of it for brightness, contrast, saturation, 0.2 for hue."""
    additive_brightness: bool = True
    """Brightness shifts (first version of the code) or multiplies."""
    blur: bool = True
    """Blur half of the views."""
    optimizer: Literal["lars", "sgd"] = "lars"
    """Both with momentum 0.9."""
    lr: float = 0.3
    """Peak of the learning rate per 256 images of a batch."""
    warmup: float = 0.01
    """Share of the run in which the learning rate rises; 10 of 1,000 epochs."""
    weight_decay: float = 1e-6
    """Not of biases and normalisation."""


class SimCLR(Method):
    """An encoder that maps two views of an image close together and views of different images apart."""

    Config = Config
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {},
        "paper-2x": {"width": 2, "projector": (4096, 128)},
        "paper-4x": {"width": 4, "projector": (8192, 128)},
        # The command for CIFAR-10 in the code's README (first release: decay 1e-6); head and brightness stay those of the
        # first release, where the code of today has three layers and multiplies.
        "cifar": {
            "batch": 512,
            "image_size": 32,
            "encoder": "resnet18",
            "projector": (512, 128),
            "temperature": 0.5,
            "jitter": 0.5,
            "blur": False,
            "lr": 1.0,
            "weight_decay": 1e-4,
        },
        # Minutes on two cores, small images.
        "small": {
            "batch": 256,
            "image_size": 28,
            "encoder": "conv4",
            "projector": (256, 128),
            "temperature": 0.2,
            "crop_area": (0.3, 1.0),
            "kernel": "bilinear",
            "jitter": 0.5,
            "additive_brightness": False,
            "blur": False,
            "optimizer": "sgd",
            "lr": 0.12,
            "warmup": 0.03,
            "weight_decay": 5e-4,
        },
        "tiny": {
            "batch": 16,
            "image_size": 16,
            "encoder": "conv4",
            "conv_widths": (8, 8, 16, 16),
            "projector": (16, 8),
            "temperature": 0.5,
            "crop_area": (0.5, 1.0),
            "kernel": "bilinear",
            "jitter": 0.5,
            "additive_brightness": False,
            "blur": False,
            "optimizer": "sgd",
            "lr": 1.6,
            "warmup": 0.05,
        },
    }
    paper = Paper(
        "A Simple Framework for Contrastive Learning of Visual Representations",
        "Chen, Kornblith, Norouzi, Hinton",
        "ICML",
        2020,
        "https://arxiv.org/abs/2002.05709",
    )
    takes = ("image",)
    prepared_by = ("image_size",)
    couples = True
    goal = "represent"

    def __init__(self, config: Config, spec: Spec, given: Mapping[str, Method] | None = None) -> None:
        super().__init__(config, spec)
        self.size = config.image_size or spec.image_size
        if config.encoder == "conv4":
            self.encoder: Conv4 | ResNet = Conv4(spec.channels, config.conv_widths)
        else:
            depth = int(config.encoder.removeprefix("resnet"))
            self.encoder = ResNet(depth, spec.channels, multiplier=config.width, small_images=self.size <= 32)
        # As in the code: the last layer is normalised with scale and no shift; weights start at N(0, 0.01).
        self.projector = mlp((self.encoder.width, *config.projector), norm=True, last="scale", std=0.01)

    @classmethod
    def measure(cls, config: Any, source: Any) -> Spec:
        spec = super().measure(config, source)
        if not config.image_size and not spec.image_size:
            raise UserError(f"{source.name} does not say how large its images are; name a size with --image-size.")
        return spec

    def prepare(self, record: Record, rng: np.random.Generator) -> Example:
        return {"image": square(record.fields["image"], self.spec.channels, self.size)}

    def transform(self, batch: Batch, clock: Clock) -> Batch:
        """(n, height, width, channels) uint8 to "views" (n, 2, channels, height, width) in [0, 1] (appendix A)."""
        images = self._floats(batch).repeat(2, 1, 1, 1)
        views = random_crop_flip(images, self.size, area=self.config.crop_area, kernel=self.config.kernel)
        strength = 0.8 * self.config.jitter
        views = jitter(
            views,
            brightness=strength,
            contrast=strength,
            saturation=strength,
            hue=0.2 * self.config.jitter,
            additive=self.config.additive_brightness,
        )
        views = random_grey(views)
        if self.config.blur:
            views = random_blur(views).clamp_(0, 1)
        return {"views": torch.stack(views.chunk(2), 1)}

    def optimizers(self) -> Mapping[str, OptimizerPlan]:
        config = self.config
        rate = Schedule(config.lr * config.batch / 256, warmup=config.warmup)
        options = {"momentum": 0.9}
        return {"main": OptimizerPlan(config.optimizer, rate, weight_decay=config.weight_decay, options=options)}

    def loss(self, batch: Batch, part: str, clock: Clock) -> Outcome:
        """NT-Xent in nats; log(2 batch - 1) where nothing is learned."""
        views = batch["views"].transpose(0, 1).flatten(0, 1)  # all first views, then all second: one batch statistic
        first, second = self.projector(self.encoder(views)).float().chunk(2)
        loss, accuracy = nt_xent(first, second, self.config.temperature)
        with torch.no_grad():
            u, v = F.normalize(first, dim=1), F.normalize(second, dim=1)
            logs = {
                "contrast_accuracy": accuracy,
                "alignment": (u - v).square().sum(1).mean(),
                "uniformity": torch.pdist(u[:128]).square().mul(-2).exp().mean().log(),
                # 1 where every direction is used, 0 where all images fall together.
                "spread": u.std(0).mean() * u.shape[1] ** 0.5,
            }
        return Outcome(loss, logs)

    def embed(self, batch: Batch) -> Tensor:
        """(n, encoder width) float32: the encoder's output, before the projector."""
        return self.encoder(self._floats(batch)).float()

    def _floats(self, batch: Batch) -> Tensor:
        """uint8 (n, height, width, channels) to float (n, channels, height, width) in [0, 1]."""
        return batch["image"].permute(0, 3, 1, 2).float() / 255
