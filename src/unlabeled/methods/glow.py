"""Glow: an invertible network from images to independent normal numbers, trained by exact likelihood.

Kingma, Dhariwal: Glow: Generative Flow with Invertible 1x1 Convolutions. NeurIPS 2018.

    log p(x) = log N(z; 0, I) + log |det dz/dx|,   z = flow(x)                             (eq. 1 to 6)
    bits per dimension = -E_u [log p(x + u) - d log bins] / (d log 2),   u ~ U(0, 1 / bins)  (eq. 2)

Follows the authors' code (openai/glow). Differs from it in:
- Adam with its default betas, as the paper says; the code's default is a variant of Adamax with a shorter memory. The
  averaged weights that the code keeps, and does not evaluate, are not kept.
- Activation norms start from the first batch, not from 256 images apart.
- CIFAR-10 is shifted by whole pixels, not by fractions, which would blur it. There are no classes.
- Sizes that the levels do not halve evenly get a border of zeros. Its likelihood is part of the image's, its pixels
  are not counted as dimensions.

Run:     unlabeled train glow fashion-mnist --variant small --budget 10m
Expect:  benchmarks/results/glow-fashion-mnist.jsonl
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from unlabeled.core.batch import Batch, Example, Record, Spec
from unlabeled.core.clock import Clock, Schedule
from unlabeled.core.config import MethodConfig
from unlabeled.core.errors import UserError
from unlabeled.core.method import Finding, Method, OptimizerPlan, Outcome, Paper
from unlabeled.data.image import square
from unlabeled.data.source import Source
from unlabeled.nets.flow import Flow
from unlabeled.parallel.shard import kept_whole

__all__ = ["Glow"]

CHECK_EVERY = 100  # steps between looks at the inverse, which cost as much as half a step
CHECKED = 16  # images that are inverted then
AT_ONCE = 256  # images that are sampled together, to bound memory


@dataclass(frozen=True, kw_only=True)
class Config(MethodConfig):
    batch: int = 512
    """Images per step, over all processes; 64 on each of 8."""
    image_size: int = 32
    """Largest side in pixels; larger images are brought to it. 0 keeps the data's own."""
    levels: int = 3
    """L, the number of resolutions."""
    depth: int = 32
    """K, steps of flow per level."""
    width: int = 512
    """Channels of the hidden layers in the couplings."""
    coupling: Literal["affine", "additive"] = "affine"
    """Affine for likelihood, additive for large images."""
    lu: bool = False
    """Keep 1x1 convolutions as their LU decomposition, whose determinant is cheap for many channels."""
    bits: int = 8
    """Of every pixel; lower ones are cut off. 5 for pretty samples."""
    shift: float = 0.1
    """Largest random shift in both directions, as a share of the side; edges are repeated."""
    lr: float = 1e-3
    """Peak of the learning rate."""
    warmup_examples: float = 500_000
    """Examples over which the learning rate rises: 10 epochs of CIFAR-10."""
    decay: Literal["constant", "cosine", "linear"] = "constant"
    """Of the learning rate after the warm-up."""
    clip: float = 0.0
    """Largest norm of the gradient; 0 sets no limit."""
    temperature: float = 1.0
    """Of samples: factor on the deviation of all latents; below 1 they are likelier and less varied (section 6)."""
    recompute: bool = False
    """Compute the activations of a step again in the backward pass: less memory, a third more time."""
    dequantise: bool = True
    """Add the noise that makes pixels continuous; without it the likelihood means nothing."""
    data_init: bool = True
    """Set activation norms from the first batch; without it deep flows diverge."""


class Glow(Method):
    """Generates images, knows their likelihood, maps them to latents and back without loss."""

    Config = Config
    # Batches and warm-ups as in the authors' commands: 64 images of 32 pixels on each process, fewer where they are
    # larger, and warm-ups counted in images of 32 pixels.
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "cifar10": {},
        "imagenet32": {"depth": 48, "shift": 0.0},
        "imagenet64": {
            "batch": 128,
            "image_size": 64,
            "levels": 4,
            "depth": 48,
            "shift": 0.0,
            "warmup_examples": 125_000,
        },
        "celeba-hq": {
            "batch": 40,
            "image_size": 256,
            "levels": 6,
            "coupling": "additive",
            "bits": 5,
            "shift": 0.0,
            "warmup_examples": 7_812,
            "temperature": 0.7,
            "recompute": True,
        },
        # Ten minutes on two cores, small images.
        "small": {
            "batch": 32,
            "image_size": 32,
            "levels": 2,
            "depth": 8,
            "width": 64,
            "shift": 0.0,
            "lr": 2e-3,
            "warmup_examples": 6_400,
            "decay": "cosine",
            "clip": 10.0,
        },
        "tiny": {
            "batch": 16,
            "image_size": 16,
            "levels": 2,
            "depth": 2,
            "width": 8,
            "shift": 0.0,
            "lr": 1e-2,
            "warmup_examples": 64,
        },
    }
    paper = Paper(
        "Glow: Generative Flow with Invertible 1x1 Convolutions",
        "Kingma, Dhariwal",
        "NeurIPS",
        2018,
        "https://arxiv.org/abs/1807.03039",
    )
    takes = ("image",)
    prepared_by = ("image_size",)
    goal = "generate"
    forwards: ClassVar[Mapping[str, tuple[str, ...]]] = {"flow": ("invert", "health")}

    def __init__(self, config: Config, spec: Spec, given: Mapping[str, Method] | None = None) -> None:
        super().__init__(config, spec, given)
        stride = 2**config.levels
        self.side = math.ceil(spec.image_size / stride) * stride
        self.bins = 2**config.bits
        self.flow = Flow(
            spec.channels,
            self.side,
            levels=config.levels,
            depth=config.depth,
            width=config.width,
            affine=config.coupling == "affine",
            lu=config.lu,
            recompute=config.recompute,
        )

    # ---- data ------------------------------------------------------------------------------------------------------

    @classmethod
    def measure(cls, config: Config, source: Source) -> Spec:
        """The data's own size, at most `image_size`."""
        spec = source.spec()
        if not 1 <= config.bits <= 8:
            raise UserError(f"--bits is 1 to 8, not {config.bits}.")
        side = min(spec.image_size, config.image_size or spec.image_size)
        return replace(spec, image_size=side)

    def prepare(self, record: Record, rng: np.random.Generator) -> Example:
        return {"image": square(record.fields["image"], self.spec.channels, self.spec.image_size)}

    def transform(self, batch: Batch, clock: Clock) -> Batch:
        """Shift, and draw where in its bin every pixel lies: x (n, side, side, channels) in [-0.5, 0.5)."""
        image = batch["image"]
        if reach := round(self.config.shift * self.spec.image_size):
            image = _shifted(image, reach)
        x = self._grid(image)
        return {"x": x + torch.rand_like(x) / self.bins if self.config.dequantise else x}

    def _grid(self, image: Tensor) -> Tensor:
        """uint8 (n, h, w, c) to float (n, side, side, c): the lower ends of the bins, border and all."""
        border = self.side - image.shape[1]
        low, high = border // 2, border - border // 2
        padded = F.pad(image, (0, 0, low, high, low, high))
        return (padded >> (8 - self.config.bits)).float() / self.bins - 0.5

    def _pixels(self, x: Tensor) -> Tensor:
        """The inverse of `_grid`, for x anywhere in the bins."""
        low, size = (self.side - self.spec.image_size) // 2, self.spec.image_size
        bins = ((x + 0.5) * self.bins).floor().nan_to_num(nan=0.0).clamp(0, self.bins - 1)
        return (bins * (256 // self.bins)).to(torch.uint8)[:, low : low + size, low : low + size]

    # ---- learning --------------------------------------------------------------------------------------------------

    def optimizers(self) -> Mapping[str, OptimizerPlan]:
        c = self.config
        schedule = Schedule(c.lr, warmup=c.warmup_examples, unit="examples", decay=c.decay)
        return {"main": OptimizerPlan("adam", schedule, clip_norm=c.clip or None)}

    def first_batch(self, batch: Batch) -> None:
        if self.config.data_init:
            self.flow.fit(batch["x"])

    def _nats(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """log-probability (n,) of the bins that x lies in, where one draw stands for the mean over a bin; latents."""
        z, log_det = self.flow(x)
        d = z.shape[1]
        return log_det - 0.5 * z.square().sum(1) - d * (0.5 * math.log(2 * math.pi) + math.log(self.bins)), z

    def loss(self, batch: Batch, part: str, clock: Clock) -> Outcome:
        """Bits per dimension."""
        nats, z = self._nats(batch["x"])
        loss = -nats.mean() / (self.spec.image_size**2 * self.spec.channels * math.log(2))
        with torch.no_grad():
            logs = {"latent_mean": z.mean(), "latent_std": z.square().mean().sqrt()}
            if clock.step % CHECK_EVERY == 1:
                few = batch["x"][:CHECKED]
                logs |= self.flow.health(few)
                logs["noise"] = ((few + 0.5) * self.bins).frac().std() * math.sqrt(12)
        return Outcome(loss, logs)

    def diagnose(self, history: Sequence[Mapping[str, float]]) -> list[Finding]:
        """Likelihood that is possible, pixels that are continuous, latents that are standard, an inverse that is one."""

        def last(key: str) -> float | None:
            """Mean over the last fifth of the rows that have it: single batches are small."""
            values = [row[key] for row in history if key in row]
            late = values[-math.ceil(len(values) / 5) :]
            return sum(late) / len(late) if late else None

        findings = []

        def judge(name: str, value: float | None, healthy: Callable[[float], bool], good: str, bad: str) -> None:
            if value is not None:
                fine = healthy(value)
                findings.append(Finding(name, value, fine, good if fine else bad))

        judge(
            "bits per dimension",
            last("loss"),
            lambda v: 0 < v < self.config.bits,
            f"Possible, since above 0, and better than the {self.config.bits} of a uniform guess.",
            f"Below 0 no model of whole numbers can be: train with --dequantise. Above the {self.config.bits} of a uniform "
            "guess training has hardly begun or has diverged: train longer, with --data-init and a lower --lr.",
        )
        judge(
            "width of the noise on pixels, in bins",
            last("noise"),
            lambda v: 0.9 < v < 1.1,
            "Pixels lie anywhere in their bins, as the likelihood assumes.",
            "Pixels do not fill their bins, so the density can grow without bound; train with --dequantise.",
        )
        judge(
            "deviation of the latents",
            last("latent_std"),
            lambda v: 0.75 < v < 1.33,
            "Latents of the data are about as wide as those that are sampled.",
            "Latents of the data are not N(0, 1), so samples come from elsewhere: train longer, or with a lower --lr.",
        )
        judge(
            "error of the inverse, in bins",
            None if (error := last("inverse_error")) is None else error * self.bins,
            lambda v: v < 0.25,
            "Images come back from their latents, with every pixel in its bin.",
            "Images do not come back from their latents: some step is nearly singular; lower --lr or set --clip.",
        )
        judge(
            "smallest singular value of a mixing",
            last("smallest_singular"),
            lambda v: v > 1e-3,
            "All 1x1 convolutions are safely invertible.",
            "A 1x1 convolution is nearly singular, which the inverse magnifies; lower --lr.",
        )
        judge(
            "smallest scale of a coupling",
            last("smallest_scale"),
            lambda v: v > 1e-4,
            "No coupling comes near to dividing by zero.",
            "A coupling scales by almost nothing, and samples are divided by that; lower --lr or use additive couplings.",
        )
        return findings

    # ---- after training ----------------------------------------------------------------------------------------------

    @torch.no_grad()
    def score(self, batch: Batch) -> Tensor:
        """(n,) float64 lower bounds on log P(image) in nats, of the image of `bits` bits.

        The density of the dequantised image is exact; that one draw of the noise, from a fixed seed, stands for the
        integral over the bins makes it a bound, in expectation (Jensen).
        """
        x = self._grid(batch["image"])
        noise = torch.rand(x.shape, generator=torch.Generator().manual_seed(0)).to(x.device)
        return self._nats(x + noise / self.bins)[0].double()

    def encode(self, batch: Batch) -> Tensor:
        """(n, d) float32 latents of the middles of the bins, N(0, I) under the model; d counts the border."""
        return self.flow(self._grid(batch["image"]) + 0.5 / self.bins)[0]

    def decode(self, codes: Tensor) -> Batch:
        """Latents (n, d) to {"image": (n, size, size, channels) uint8}."""
        return {"image": self._pixels(self.flow.invert(codes))}

    def reconstruct(self, batch: Batch) -> Batch:
        """The images as they come back from their latents: the same, but for the bits that were cut off."""
        return self.decode(self.encode(batch))

    @torch.no_grad()
    def sample(
        self, n: int, *, condition: Any = None, steps: int | None = None, guidance: float | None = None
    ) -> dict[str, Any]:
        """{"image": (n, size, size, channels) uint8}.

        guidance: temperature in place of the configured one. steps: ignored, one pass is all there is.

        Raises:
            UserError: for a condition.
        """
        if condition is not None:
            raise UserError("This Glow is unconditional; sample without a prompt.")
        temperature = self.config.temperature if guidance is None else guidance
        d, device = self.side**2 * self.spec.channels, next(self.parameters()).device
        z = temperature * torch.randn(n, d, device=device)
        with kept_whole(self.flow):
            return {"image": torch.cat([self.decode(part)["image"] for part in z.split(AT_ONCE)])}


def _shifted(image: Tensor, reach: int) -> Tensor:
    """(n, h, w, c) moved by up to so many pixels in both directions, edges repeated."""
    n, h, w, _ = image.shape
    down, right = torch.randint(-reach, reach + 1, (2, n, 1), device=image.device)
    rows = (torch.arange(h, device=image.device) + down).clamp(0, h - 1)
    columns = (torch.arange(w, device=image.device) + right).clamp(0, w - 1)
    return image[torch.arange(n, device=image.device)[:, None, None], rows[:, :, None], columns[:, None, :]]
