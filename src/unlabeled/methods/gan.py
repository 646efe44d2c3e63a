"""GAN: a generator that learns to pass for the data, against a discriminator that learns to tell the two apart.

Goodfellow, Pouget-Abadie, Mirza, Xu, Warde-Farley, Ozair, Courville, Bengio: Generative Adversarial Nets. NeurIPS 2014.

    min_G max_D  E_x log D(x) + E_z log(1 - D(G(z)))                                 (eq. 1)
    in practice  max_G  E_z log D(G(z))                                              (end of section 3)

The defaults are the authors' code for MNIST (goodfeli/adversarial, mnist.yaml). Convolutional networks, spectral
normalisation, gradient penalties and other losses are later work, named where they are set.
Differs from the authors' code in:
- The players move in turn, as in algorithm 1; the code moves both at once, on the same noise.
- Momentum stays at 0.5, which there rises to 0.7 by epoch 250.
- The output's biases start from the pixel means of the first batch and not of the whole data.
- The discriminator's loss is the whole sum, of which the code takes half, so its learning rate here is half of theirs.
Spectral normalisation differs from its authors' code in when its power iterations are taken: see `nets/spectral.py`.

Run:     unlabeled train gan fashion-mnist --variant small --budget 8m
Expect:  benchmarks/results/gan-fashion-mnist.jsonl
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from unlabeled.core.batch import Batch, Example, Record, Spec
from unlabeled.core.clock import Clock, Schedule
from unlabeled.core.config import MethodConfig
from unlabeled.core.errors import UserError
from unlabeled.core.method import Finding, Method, OptimizerPlan, Outcome, Paper
from unlabeled.data.image import square
from unlabeled.data.source import Source
from unlabeled.nets.dcgan import Discriminator, Generator, levels_of, settle
from unlabeled.nets.maxout import FlatGenerator, MaxoutDiscriminator
from unlabeled.nets.spectral import iterate
from unlabeled.objectives.adversarial import (
    discriminator_loss,
    generator_loss,
    generator_signal,
    gradient_penalty,
    r1,
)
from unlabeled.parallel.shard import kept_whole

__all__ = ["GAN"]

AT_ONCE = 256  # images that are sampled together, to bound memory
SETTLING = 512  # samples whose batch statistics the averaged generator takes on
# Where a run is called unhealthy.
WINS = 0.97  # share right
DEAF = 0.05  # of a slope of 1
COLLAPSED = 0.6  # of the distance between real images


@dataclass(frozen=True, kw_only=True)
class Config(MethodConfig):
    batch: int = 100
    """Real images per step, over all processes and all updates of the discriminator in the step."""
    average: float = 0.0
    """Decay per step of the averaged generator that samples; 0 keeps none."""
    image_size: int = 0
    """Largest side in pixels; larger images are brought to it. 0 keeps the data's own."""
    network: Literal["flat", "dcgan"] = "flat"
    """Fully connected with maxout (2014), or convolutional (Radford et al. 2016)."""
    width: int = 1200
    """Of the generator: units per layer, or channels at half the image's size."""
    discriminator_width: int = 240
    """Of the discriminator: maxout units per layer, or channels at half the image's size."""
    norm: Literal["none", "batch", "spectral"] = "none"
    """Of the convolutional discriminator: batch as in DCGAN, spectral as Miyato et al. 2018."""
    dropout: tuple[float, float] = (0.2, 0.5)
    """Of the pixels and of the units of the maxout discriminator."""
    latent: int = 100
    """Numbers of noise per image."""
    noise: Literal["normal", "uniform"] = "normal"
    """Standard normal, or uniform in [-1, 1] (DCGAN)."""
    game: Literal["minimax", "non-saturating", "hinge", "wasserstein"] = "non-saturating"
    """The losses of the two players; see objectives/adversarial.py."""
    penalty: Literal["none", "r1", "gradient"] = "none"
    """On the discriminator's gradient by the image: R1 at real ones (Mescheder et al. 2018), or towards length 1 between
    real and generated ones (Gulrajani et al. 2017)."""
    penalty_weight: float = 10.0
    """gamma of R1, lambda of the gradient penalty; for pixels in the range of the generator."""
    penalty_every: int = 1
    """Steps between penalties, whose weight is multiplied by as much (lazy, Karras et al. 2020)."""
    discriminator_steps: int = 1
    """Updates of the discriminator per update of the generator; the batch is divided among them (k of algorithm 1)."""
    optimizer: Literal["sgd", "adam"] = "sgd"
    """Of both players."""
    momentum: float = 0.5
    """Of SGD, or beta1 of Adam."""
    beta2: float = 0.999
    """Of Adam."""
    lr: float = 0.1
    """Of the generator."""
    discriminator_lr: float = 0.05
    """Of the discriminator."""
    decay: Literal["constant", "linear", "exponential"] = "exponential"
    """Of both learning rates; exponential: divided by 1.000004 at every step, down to 1e-6."""


@dataclass(frozen=True)
class _Exponential(Schedule):
    """The decay of the authors' code."""

    def __call__(self, clock: Clock) -> float:
        return max(1e-6, self.peak / 1.000004**clock.step)


_CONVOLUTIONAL = {"network": "dcgan", "optimizer": "adam", "decay": "constant", "lr": 2e-4, "discriminator_lr": 2e-4}


class GAN(Method):
    """Generates images in one pass of a network."""

    Config = Config
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {},
        # Radford et al. 2016, sections 3 and 4, figure 1.
        "dcgan": {
            **_CONVOLUTIONAL,
            "batch": 128,
            "image_size": 64,
            "width": 128,
            "discriminator_width": 128,
            "norm": "batch",
            "noise": "uniform",
        },
        # Minutes on two cores, small images.
        "small": {
            **_CONVOLUTIONAL,
            "batch": 64,
            "average": 0.999,
            "image_size": 28,
            "width": 64,
            "discriminator_width": 64,
            "norm": "batch",
            "latent": 64,
            "decay": "linear",
            "lr": 1e-3,
            "discriminator_lr": 1e-3,
        },
        "tiny": {
            **_CONVOLUTIONAL,
            "batch": 16,
            "average": 0.9,
            "image_size": 16,
            "width": 8,
            "discriminator_width": 8,
            "norm": "spectral",
            "latent": 8,
            "penalty": "r1",
            "penalty_weight": 0.1,
            "penalty_every": 2,
            "discriminator_steps": 2,
            "lr": 2e-3,
            "discriminator_lr": 2e-3,
        },
    }
    paper = Paper(
        "Generative Adversarial Nets",
        "Goodfellow, Pouget-Abadie, Mirza, Xu, Warde-Farley, Ozair, Courville, Bengio",
        "NeurIPS",
        2014,
        "https://arxiv.org/abs/1406.2661",
    )
    takes = ("image",)
    prepared_by = ("image_size",)
    couples = True  # through batch normalisation
    forwards: ClassVar[Mapping[str, tuple[str, ...]]] = {"discriminator": ("steepness",)}
    goal = "generate"

    def __init__(self, config: Config, spec: Spec, given: Mapping[str, Method] | None = None) -> None:
        super().__init__(config, spec, given)
        c, channels, size = config, spec.channels, spec.image_size
        if c.penalty != "none" and c.norm == "batch":
            raise UserError(
                "A penalty on each image's gradient needs --norm spectral or none: batch norm mixes images."
            )
        if c.discriminator_steps < 1 or c.batch % c.discriminator_steps:
            raise UserError(f"A batch of {c.batch} does not divide among {c.discriminator_steps} discriminator steps.")
        if c.network == "flat":
            if c.norm != "none":
                raise UserError(f"The fully connected networks have no --norm {c.norm}; add --network dcgan.")
            self.generator: Generator | FlatGenerator = FlatGenerator(c.latent, channels, size, (c.width, c.width))
            self.discriminator: Discriminator | MaxoutDiscriminator = MaxoutDiscriminator(
                channels, size, c.discriminator_width, dropout=c.dropout
            )
        else:
            self.generator = Generator(c.latent, channels, size, c.width)
            self.discriminator = Discriminator(channels, size, c.discriminator_width, c.norm)

    # ---- data ------------------------------------------------------------------------------------------------------

    @classmethod
    def measure(cls, config: Config, source: Source) -> Spec:
        """The data's own size, at most `image_size`; for convolutions rounded up to what halves evenly."""
        spec = source.spec()
        size = min(spec.image_size, config.image_size or spec.image_size)
        if config.network == "dcgan":
            levels, side = levels_of(size)
            size = side * 2**levels
        return replace(spec, image_size=size)

    def prepare(self, record: Record, rng: np.random.Generator) -> Example:
        return {"image": square(record.fields["image"], self.spec.channels, self.spec.image_size)}

    def transform(self, batch: Batch, clock: Clock) -> Batch:
        """real (n, c, h, w) in the generator's range; noise (n, 2, latent), for either player; place (n,) in [0, 1]:
        where on the way from real to generated the gradient penalty looks."""
        low = self.generator.low
        real = batch["image"].permute(0, 3, 1, 2).float() * ((1 - low) / 255) + low
        place = torch.rand(len(real), device=real.device)
        return {"real": real, "noise": self._noise(len(real), 2), "place": place}

    def _noise(self, *shape: int) -> Tensor:
        return self._drawn(torch.empty(*shape, self.config.latent, device=next(self.parameters()).device))

    def _drawn(self, z: Tensor, generator: torch.Generator | None = None) -> Tensor:
        if self.config.noise == "normal":
            return z.normal_(generator=generator)
        return z.uniform_(-1, 1, generator=generator)

    # ---- learning --------------------------------------------------------------------------------------------------

    def first_batch(self, batch: Batch) -> None:
        if isinstance(self.generator, FlatGenerator):
            self.generator.start_at(batch["real"])

    def optimizers(self) -> Mapping[str, OptimizerPlan]:
        c = self.config
        options = {"momentum": c.momentum} if c.optimizer == "sgd" else {"betas": (c.momentum, c.beta2)}

        def plan(name: str, lr: float) -> OptimizerPlan:
            rate = _Exponential(lr) if c.decay == "exponential" else Schedule(lr, decay=c.decay)
            return OptimizerPlan(c.optimizer, rate, networks=(name,), options=options)

        return {
            "discriminator": plan("discriminator", c.discriminator_lr),
            "generator": plan("generator", c.lr),
        }

    def updates(self, batch: Batch, clock: Clock) -> Iterator[tuple[str, Batch]]:
        """The discriminator's, each on real images and noise of its own, then the generator's."""
        # Every k-th row: the same rows together on any number of processes.
        k = self.config.discriminator_steps
        for i in range(k):
            rows = slice(i % len(batch["real"]), None, k)
            yield (
                "discriminator",
                {"real": batch["real"][rows], "z": batch["noise"][rows, 0], "place": batch["place"][rows]},
            )
        yield "generator", {"z": batch["noise"][::k, 1]}

    def loss(self, batch: Batch, part: str, clock: Clock) -> Outcome:
        """The player's loss in nats, with the penalty (hinge and Wasserstein losses have no unit).

        Logs of the discriminator: mean logits, the share it gets right of either kind (logit above or below 0), the
        penalty, and how varied the generated images are: `diversity`, the root mean square distance of two of them
        over that of two real ones. Of the generator: `signal`, the mean size of the gradient by a logit.
        """
        game = self.config.game
        if part == "generator":
            scores = self.discriminator(self.generator(batch["z"]))
            return Outcome(generator_loss(scores, game), {"signal": generator_signal(scores.detach(), game).mean()})
        with torch.no_grad():
            fake = self.generator(batch["z"]).float()
        real, penalty = batch["real"], None
        lazily = self.config.penalty_every
        kind = self.config.penalty if clock.step % lazily == 0 else "none"
        if kind == "r1":
            on_real, squares = self.discriminator.steepness(real)
            on_fake = self.discriminator(fake)
            penalty = r1(squares, self.config.penalty_weight * lazily)
        elif self.discriminator.mixes:  # batch statistics of real and of generated images apart
            on_real, on_fake = self.discriminator(real), self.discriminator(fake)
        else:
            on_real, on_fake = self.discriminator(torch.cat([real, fake])).chunk(2)
        if kind == "gradient":
            between = torch.lerp(real, fake, batch["place"].view(-1, 1, 1, 1))
            _, squares = self.discriminator.steepness(between)
            penalty = gradient_penalty(squares, self.config.penalty_weight * lazily)
        loss = discriminator_loss(on_real, on_fake, game)
        with torch.no_grad():
            logs = {
                "on_real": on_real.mean(),
                "on_fake": on_fake.mean(),
                "right_on_real": (on_real > 0).float().mean(),
                "right_on_fake": (on_fake < 0).float().mean(),
                "diversity": (_variance(fake) / _variance(real).clamp_min(1e-12)).sqrt(),
            }
        if penalty is None:
            return Outcome(loss, {k: v.detach() for k, v in logs.items()})
        return Outcome(loss + penalty, logs | {"penalty": penalty.detach()})

    def after_update(self, part: str, outcomes: Sequence[Outcome], clock: Clock) -> None:
        if part == "discriminator":
            iterate(self.discriminator)

    def diagnose(self, history: Sequence[Mapping[str, float]]) -> Sequence[Finding]:
        """Of the last quarter: whether the discriminator has won, whether the generator still hears it, whether its
        images differ."""
        if not history:
            return []
        recent = history[-max(1, len(history) // 4) :]

        def over(*keys: str) -> float:
            values = [row[k] for row in recent for k in keys if k in row]
            return sum(values) / len(values) if values else float("nan")

        right = over("discriminator/right_on_real", "discriminator/right_on_fake")
        signal, diversity = over("generator/signal"), over("discriminator/diversity")
        wins = right > WINS
        deaf, collapsed = signal < DEAF, diversity < COLLAPSED
        return [
            Finding(
                "discriminator's share right",
                right,
                not wins,
                "The discriminator tells nearly all images apart, so the generator cannot follow: lower "
                "--discriminator-lr, or restrain it by --norm spectral or --penalty r1."
                if wins
                else "The share of real and generated images that the discriminator tells apart; 0.5 is guessing.",
            ),
            Finding(
                "generator's signal",
                signal,
                not deaf,
                "The generator's loss is flat where its images are, so it stands still: use --game non-saturating or "
                "hinge."
                if deaf
                else "The slope of the generator's loss at its images, of 1 at most.",
            ),
            Finding(
                "diversity of samples",
                diversity,
                not collapsed,
                "The generated images resemble each other far more than real ones do (mode collapse): lower --lr, or "
                "restrain the discriminator by --norm spectral or --penalty r1."
                if collapsed
                else "The distance between two generated images over that between two real ones; 1 is as varied.",
            ),
        ]

    # ---- after training ----------------------------------------------------------------------------------------------

    @torch.no_grad()
    def sample(
        self, n: int, *, condition: Any = None, steps: int | None = None, guidance: float | None = None
    ) -> dict[str, Any]:
        """{"image": (n, size, size, channels) uint8}; steps mean nothing here, it is one pass of the generator.

        Raises:
            UserError: for a condition or guidance.
        """
        if condition is not None or guidance is not None:
            raise UserError("This GAN is unconditional; sample without a prompt and without guidance.")
        low, made = self.generator.low, []
        with kept_whole(self.generator):
            if self.config.average:
                same = self._drawn(torch.empty(SETTLING, self.config.latent), torch.Generator().manual_seed(0))
                settle(self.generator, same.to(next(self.parameters()).device))
            for start in range(0, n, AT_ONCE):
                images = self.generator(self._noise(min(AT_ONCE, n - start))).float()
                made.append(((images - low) * (255 / (1 - low))).round().clamp(0, 255).to(torch.uint8))
        return {"image": torch.cat(made).permute(0, 2, 3, 1)}


def _variance(images: Tensor) -> Tensor:
    """Of each pixel over a batch, added up: half of the mean squared distance of two images drawn from it."""
    return images.var(0, correction=0).sum()
