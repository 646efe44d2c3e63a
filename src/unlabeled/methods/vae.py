"""VAE: write an image as a few Gaussian numbers and draw it from them, both learned by one bound on the likelihood.

Kingma, Welling: Auto-Encoding Variational Bayes. ICLR 2014.

    log p(x) >= E_q [log p(x | z)] - KL(q(z | x) || N(0, I)),   q = N(mean(x), var(x)),  z = mean + sigma noise   (eq. 10)

Trained with one draw of z; `score` weighs k of them (Burda, Grosse, Salakhutdinov: Importance Weighted Autoencoders. 2016):

    log p(x) >= E log 1/k sum_i p(x, z_i) / q(z_i | x),   which rises with k                                       (eq. 8)

Pixels are independent given z: on or off (the paper's for MNIST), a Gaussian (its for Frey Faces) or a mixture of
logistics (PixelCNN++), both cut into 256 bins, so that all are likelihoods of stored images.
Differs from the paper in: Adam, not Adagrad; its images become black and white at half brightness, or by one draw each;
the Gaussian is cut into bins. The convolutional networks, beta (Higgins et al. 2017), free bits (Kingma et al. 2016)
and the warm-up of the KL term (Sønderby et al. 2016) are later than it, and off by default.

Run:     unlabeled train vae fashion-mnist --variant small --budget 5m
Expect:  benchmarks/results/vae-fashion-mnist.jsonl
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
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
from unlabeled.data.source import Source
from unlabeled.objectives import likelihoods
from unlabeled.objectives.diffusion import discretised_gaussian
from unlabeled.objectives.gaussians import drawn, kl_to_standard, log_prob
from unlabeled.parallel.gather import mean as over_processes

__all__ = ["VAE"]

LOG_VAR = 10.0  # largest size of a log-variance of q, against overflow
LOG_SCALE = -7.0  # smallest log-scale of pixels, as in PixelCNN++: a quarter of half a bin
ACTIVE = 0.01  # variance of a latent's mean over images above which it counts as used (Burda et al. 2016)
AT_ONCE = 256  # images that are sampled together, to bound memory


@dataclass(frozen=True, kw_only=True)
class Config(MethodConfig):
    batch: int = 100
    """Images per step, over all processes."""
    image_size: int = 28
    """Largest side in pixels; larger images are brought to it. 0 keeps the data's own."""
    network: Literal["mlp", "conv"] = "mlp"
    """Fully connected, as in the paper, or convolutional."""
    hidden: tuple[int, ...] = (500,)
    """Widths of the fully connected layers from pixels to latents; the decoder has them in reverse."""
    widths: tuple[int, ...] = (32, 64)
    """Of conv: channels of its layers, each of which halves the side."""
    activation: Literal["tanh", "relu"] = "tanh"
    """Between layers."""
    latents: int = 20
    """N_z, numbers that an image is written as."""
    likelihood: Literal["bernoulli", "gaussian", "logistic"] = "bernoulli"
    """Of a pixel: bernoulli makes images black and white, the others keep their 256 levels."""
    components: int = 1
    """Of the mixture of logistics for each pixel and channel."""
    binarise: Literal["threshold", "sample"] = "threshold"
    """Of bernoulli: white above half brightness, or with the brightness as its probability, drawn once per image."""
    beta: float = 1.0
    """Weight of the KL term; with another than 1 the loss is no bound."""
    free_bits: float = 0.0
    """Nats per latent, over the batch, below which its KL costs nothing."""
    kl_warmup: float = 0.0
    """Share of the run in which the weight of the KL term rises from 0 to beta."""
    score_samples: int = 16
    """k, draws of z behind a score."""
    init_std: float = 0.1
    """Of the weights at the start, N(0, 0.01) in the paper; 0 starts them as torch does."""
    lr: float = 1e-3
    """Peak of the learning rate."""
    decay: Literal["constant", "cosine", "linear"] = "constant"
    """Of the learning rate."""
    weight_decay: float = 1 / 60_000
    """L2 on weight matrices: a N(0, 1) prior, shared among 60,000 images."""


class Encoder(nn.Module):
    """Pixels (n, h, w, c) in [0, 1] to mean and log-variance (n, latents) of q, float32."""

    def __init__(self, config: Config, size: int, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        conv, wide = config.network == "conv", size**2 * channels
        if conv:
            for a, b in pairwise((channels, *config.widths)):
                layers += [nn.Conv2d(a, b, 4, 2, 1), _activation(config)]
            wide = config.widths[-1] * (size >> len(config.widths)) ** 2
        self.convs = nn.Sequential(*layers)
        self.body = _mlp((wide, *config.hidden), config)
        self.mean = nn.Linear((wide, *config.hidden)[-1], config.latents)
        self.log_var = nn.Linear((wide, *config.hidden)[-1], config.latents)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.convs(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1) if len(self.convs) else x
        h = self.body(h.flatten(1))
        return self.mean(h).float(), self.log_var(h).float().clamp(-LOG_VAR, LOG_VAR)


class Decoder(nn.Module):
    """Latents (n, latents) to what the likelihood of each pixel needs: (n, h, w, c, numbers)."""

    def __init__(self, config: Config, size: int, channels: int, numbers: int) -> None:
        super().__init__()
        self.shape = (size, size, channels, numbers)
        self.narrow, layers, hidden = 0, [], (config.latents, *reversed(config.hidden))
        if config.network == "conv":
            widths = (*reversed(config.widths), config.widths[0])
            self.narrow = size >> len(config.widths)
            for a, b in pairwise(widths):
                layers += [nn.ConvTranspose2d(a, b, 4, 2, 1), _activation(config)]
            layers.append(nn.Conv2d(widths[-1], channels * numbers, 3, padding=1))
            self.body = _mlp((*hidden, widths[0] * self.narrow**2), config)
        else:
            self.body = nn.Sequential(_mlp(hidden, config), nn.Linear(hidden[-1], math.prod(self.shape)))
        self.convs = nn.Sequential(*layers)

    def forward(self, z: Tensor) -> Tensor:
        h = self.body(z)
        if self.narrow:
            h = h.view(len(z), self.narrow, self.narrow, -1).permute(0, 3, 1, 2)  # channels last in memory
            h = self.convs(h).permute(0, 2, 3, 1)
        return h.reshape(len(z), *self.shape)


class VAE(Method):
    """Writes images as latents that are Gaussian over all images, draws new ones, bounds likelihoods from below."""

    Config = Config
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "mnist": {},
        # The paper's second data set: grey faces of 28 x 20 pixels, here squares.
        "frey": {"hidden": (200,), "latents": 10, "likelihood": "gaussian", "weight_decay": 1 / 2_000},
        # Minutes on two cores, small images.
        "small": {
            "batch": 128,
            "network": "conv",
            "hidden": (256,),
            "activation": "relu",
            "latents": 32,
            "likelihood": "logistic",
            "components": 5,
            "kl_warmup": 0.1,
            "init_std": 0.0,
            "lr": 2e-3,
            "decay": "cosine",
            "weight_decay": 0.0,
        },
        "tiny": {
            "batch": 16,
            "image_size": 16,
            "hidden": (64,),
            "latents": 8,
            "score_samples": 2,
            "init_std": 0.0,
            "lr": 1e-2,
            "weight_decay": 0.0,
        },
    }
    paper = Paper(
        "Auto-Encoding Variational Bayes",
        "Kingma, Welling",
        "ICLR",
        2014,
        "https://arxiv.org/abs/1312.6114",
    )
    takes = ("image",)
    prepared_by = ("image_size", "likelihood", "binarise")
    goal = "generate"
    likelihood = "lower bound"

    def __init__(self, config: Config, spec: Spec, given: Mapping[str, Method] | None = None) -> None:
        super().__init__(config, spec, given)
        size, channels = spec.image_size, spec.channels
        kinds = {"bernoulli": 1, "gaussian": 2, "logistic": 3 * config.components if config.components > 1 else 2}
        self.encoder = Encoder(config, size, channels)
        self.decoder = Decoder(config, size, channels, kinds[config.likelihood])
        # Free bits are of the mean over the batch, so that a piece of it does not tell.
        self.couples = config.free_bits > 0  # type: ignore[misc]
        if config.init_std:
            for p in self.parameters():
                nn.init.normal_(p, std=config.init_std)

    # ---- data ------------------------------------------------------------------------------------------------------

    @classmethod
    def measure(cls, config: Config, source: Source) -> Spec:
        """The data's own size, at most `image_size`, rounded up to what the layers halve evenly."""
        if min(config.components, config.score_samples, config.latents) < 1:
            raise UserError("--components, --score-samples and --latents are 1 or more.")
        spec, stride = source.spec(), 2 ** len(config.widths) if config.network == "conv" else 1
        side = min(spec.image_size, config.image_size or spec.image_size)
        return replace(spec, image_size=math.ceil(side / stride) * stride)

    def prepare(self, record: Record, rng: np.random.Generator) -> Example:
        """The pixels that are modelled: uint8 (size, size, channels), for bernoulli 0 and 255 only."""
        image = square(record.fields["image"], self.spec.channels, self.spec.image_size)
        if self.config.likelihood == "bernoulli":
            level = 127.5 if self.config.binarise == "threshold" else rng.uniform(0, 255, image.shape)
            image = np.where(image > level, 255, 0).astype(np.uint8)
        return {"image": image}

    def transform(self, batch: Batch, clock: Clock) -> Batch:
        """Draw the noise of z (n, latents); images stay as they are."""
        image = batch["image"]
        return {"image": image, "noise": torch.randn(len(image), self.config.latents, device=image.device)}

    # ---- learning --------------------------------------------------------------------------------------------------

    def optimizers(self) -> Mapping[str, OptimizerPlan]:
        c = self.config
        return {"main": OptimizerPlan("adam", Schedule(c.lr, decay=c.decay), weight_decay=c.weight_decay)}

    def posterior(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Mean and log-variance (n, latents) of q(z | image)."""
        return self.encoder(batch["image"].float() / 255)

    def nats(self, image: Tensor, raw: Tensor) -> Tensor:
        """(n,) log p(image | z), of uint8 images (n, h, w, c) and what the decoder says (n, h, w, c, numbers)."""
        kind = self.config.likelihood
        if kind == "bernoulli":
            each = likelihoods.bernoulli(image / 255, raw[..., 0])
        elif kind == "gaussian":
            mean, log_scale = raw.float().unbind(-1)
            each = discretised_gaussian(image / 127.5 - 1, mean, log_scale.clamp(min=LOG_SCALE))
        elif self.config.components == 1:
            mean, log_scale = raw.float().unbind(-1)
            each = likelihoods.discretised_logistic(image, mean, log_scale.clamp(min=LOG_SCALE))
        else:
            logits, means, log_scales = raw.float().chunk(3, -1)
            each = likelihoods.logistic_mixture(image, logits, means, log_scales.clamp(min=LOG_SCALE))
        return each.flatten(1).sum(1)

    def loss(self, batch: Batch, part: str, clock: Clock) -> Outcome:
        """The negative bound in nats per image, with the KL term as weighted: reconstruction and KL are logged alone."""
        c = self.config
        mean, log_var = self.posterior(batch)
        told = self.nats(batch["image"], self.decoder(drawn(mean, log_var, batch["noise"]))).mean()
        each = kl_to_standard(mean, log_var).mean(0)  # of each latent
        paid = each
        if c.free_bits:
            paid = over_processes(each).clamp(min=c.free_bits)
        weight = c.beta * min(1.0, clock.progress / c.kl_warmup if c.kl_warmup else 1.0)
        with torch.no_grad():
            d = batch["image"][0].numel()
            active = (mean.var(0, correction=0) > ACTIVE).float().sum()
            logs = {
                "reconstruction": -told,
                "kl": each.sum(),
                "kl_largest": each.max(),
                "active_latents": active,
                "extreme_variances": (log_var.abs() >= LOG_VAR).float().mean(),
                "bits_per_dimension": likelihoods.bits_per_dimension(told - each.sum(), d),
            }
        return Outcome(weight * paid.sum() - told, {k: v.detach() for k, v in logs.items()})

    def diagnose(self, history: Sequence[Mapping[str, float]]) -> list[Finding]:
        """Latents that are used, a balance of the bound's two terms, variances within bounds."""
        if not history:
            return []
        last, latents = history[-1], self.config.latents
        used, kl, told = last["active_latents"], last["kl"], last["reconstruction"]
        fine = used >= max(1.0, 0.1 * latents)
        findings = [
            Finding(
                "active latents",
                used,
                fine,
                f"Of {latents} latents, so many differ between images; the others are noise that the decoder ignores."
                if fine
                else f"Posterior collapse: nearly none of {latents} latents depends on the image; lower --beta, set "
                "--kl-warmup or --free-bits, or train longer.",
            ),
            Finding(
                "nats in the most telling latent",
                last["kl_largest"],
                last["kl_largest"] > 0.1,
                "What one latent tells about an image; where it is near zero for all of them, the code is empty: lower --beta.",
            ),
        ]
        share = kl / (kl + abs(told))
        balanced = 0.002 < share < 0.5
        findings.append(
            Finding(
                "share of the KL term in the bound",
                share,
                balanced,
                "Both terms count: what the latents tell, and what pixels cost given them."
                if balanced
                else "Pixels cost all of the bound, latents tell nothing; lower --beta or set --kl-warmup."
                if share < 0.5
                else "Latents cost more than they save: images are all but stored in them; raise --beta.",
            )
        )
        extreme = last["extreme_variances"]
        findings.append(
            Finding(
                "variances at their limits",
                extreme,
                extreme < 0.01,
                "Share of posterior variances that were held back from growing or shrinking further; lower --lr where "
                "it is not near zero.",
            )
        )
        return findings

    # ---- after training ----------------------------------------------------------------------------------------------

    @torch.no_grad()
    def score(self, batch: Batch) -> Tensor:
        """(n,) float64 lower bounds on log p(image) in nats, by `score_samples` weighted draws from a fixed seed."""
        mean, log_var = self.posterior(batch)
        zero, generator = torch.zeros((), device=mean.device), torch.Generator().manual_seed(0)
        weights = []
        for _ in range(self.config.score_samples):
            z = drawn(mean, log_var, torch.randn(mean.shape, generator=generator).to(mean.device))
            prior, posterior = log_prob(z, zero, zero), log_prob(z, mean, log_var)
            weights.append(self.nats(batch["image"], self.decoder(z)).double() + (prior - posterior).double().sum(1))
        return torch.logsumexp(torch.stack(weights), 0) - math.log(len(weights))

    def encode(self, batch: Batch) -> Tensor:
        """(n, latents) float32: the means of q; over all images about N(0, I)."""
        return self.posterior(batch)[0]

    def embed(self, batch: Batch) -> Tensor:
        return self.encode(batch)

    def decode(self, codes: Tensor) -> Batch:
        """Latents to {"image": uint8 (n, h, w, c)}: the expected brightness of each pixel, without its noise."""
        raw = self.decoder(codes).float()
        if self.config.likelihood == "bernoulli":
            signal = 2 * torch.sigmoid(raw[..., 0]) - 1
        elif raw.shape[-1] == 2:
            signal = raw[..., 0]
        else:
            logits, means, _ = raw.chunk(3, -1)
            signal = (F.softmax(logits, -1) * means.clamp(-1, 1)).sum(-1)
        return {"image": ((signal.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)}

    def reconstruct(self, batch: Batch) -> Batch:
        return self.decode(self.encode(batch))

    @torch.no_grad()
    def sample(
        self, n: int, *, condition: Any = None, steps: int | None = None, guidance: float | None = None
    ) -> dict[str, Any]:
        """{"image": (n, size, size, channels) uint8}: what latents from N(0, I) decode to.

        steps: ignored, one pass is all there is.

        Raises:
            UserError: for a condition or guidance.
        """
        if condition is not None or guidance is not None:
            raise UserError("This VAE is unconditional; sample without a prompt and without guidance.")
        z = torch.randn(n, self.config.latents, device=next(self.parameters()).device)
        return {"image": torch.cat([self.decode(part)["image"] for part in z.split(AT_ONCE)])}


def _activation(config: Config) -> nn.Module:
    return nn.ReLU() if config.activation == "relu" else nn.Tanh()


def _mlp(widths: tuple[int, ...], config: Config) -> nn.Sequential:
    layers: list[nn.Module] = []
    for a, b in pairwise(widths):
        layers += [nn.Linear(a, b), _activation(config)]
    return nn.Sequential(*layers)
