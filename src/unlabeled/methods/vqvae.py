"""VQ-VAE: write an image as a small grid of integers; then learn which grids are likely, and draw new ones.

van den Oord, Vinyals, Kavukcuoglu: Neural Discrete Representation Learning. NeurIPS 2017. The rule of the codebook as
in Razavi, van den Oord, Vinyals: Generating Diverse High-Fidelity Images with VQ-VAE-2. NeurIPS 2019. The prior is
the gated PixelCNN of van den Oord et al.: Conditional Image Generation with PixelCNN Decoders. NeurIPS 2016.

    loss = |x - D(e_k)|^2 / var(x)  +  |sg(E(x)) - e_k|^2  +  beta |E(x) - sg(e_k)|^2,   k = argmin_j |E(x) - e_j|^2

(eq. 3; means over all numbers, scaled as in the authors' example; gradients pass from e_k to E(x) unchanged). With the
moving-average rule the middle term goes, and `nets.quantise.Codebook.follow` moves the codes.

Likelihood. An image has at least the probability of its own codes times its own given them:
    log p(x)  >=  log p(k) + log p(x | k),  summed over x on both sides a distribution over 8-bit images.
p(k) is uniform after the first stage and the PixelCNN's after the second. p(x | k) is a table for each channel: how
often each level stood in the data where the decoder, rounded, said another; counted over the last hundred batches.

Differs from the authors' example in: the variance is that of the first batch; codes that nothing falls to in the first
step become zero there, and here only with `debias`. The paper does not say where its ReLUs are outside of the residual
blocks: here between strided layers, and before the decoder's. Its prior's size is that of the gated PixelCNN for ImageNet.

Run:     unlabeled train vqvae fashion-mnist --variant small --budget 10m
Expect:  benchmarks/results/vqvae-fashion-mnist.jsonl
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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
from unlabeled.nets.pixelcnn import GatedPixelCNN
from unlabeled.nets.quantise import Codebook, debiased, perplexity, tally
from unlabeled.parallel.gather import gather, total

__all__ = ["STAGES", "VQVAE", "Prior"]

STRIDE = 4  # pixels of the side of what one code stands for: two layers of stride 2
TABLE_DECAY = 0.99  # per batch, of the counts behind p(x | k)
PSEUDO = 16.0  # pixels' worth of the overall histogram in every row of that table, so that nothing is impossible
AT_ONCE = 256  # images that are sampled together, to bound memory

PAPER = Paper(
    "Neural Discrete Representation Learning",
    "van den Oord, Vinyals, Kavukcuoglu",
    "NeurIPS",
    2017,
    "https://arxiv.org/abs/1711.00937",
)


@dataclass(frozen=True, kw_only=True)
class CodesConfig(MethodConfig):
    batch: int = 128
    """Images per step, over all processes."""
    image_size: int = 128
    """Largest side in pixels; larger images are brought to it. 0 keeps the data's own."""
    layout: Literal["paper", "example"] = "paper"
    """Layers of the paper, or of the authors' example: one more on each side, fewer channels near the pixels, a projection."""
    hidden: int = 256
    """Channels of encoder and decoder; with the paper's layers, of the codes too."""
    residual: int = 256
    """Channels inside the residual blocks."""
    blocks: int = 2
    """Residual blocks on each side."""
    codes: int = 512
    """K, the size of the codebook."""
    code_width: int = 256
    """D, numbers of a code."""
    rule: Literal["loss", "average"] = "loss"
    """What moves the codes: the second term of the loss, or the moving average of the vectors that fall to them."""
    decay: float = 0.99
    """Of that average, per step; 1 freezes the codebook."""
    debias: bool = True
    """Let the average forget where the codes started, as the authors' code does."""
    beta: float = 0.25
    """Weight of the commitment of the encoder to its codes."""
    from_data: bool = False
    """Start the codes from encoded vectors of the first batch; not in the paper."""
    restart: float = 0.0
    """Put codes that fewer vectors of a batch fall to on vectors of it; 0 never does. Not in the paper; needs rule average."""
    restart_after: int = 100
    """Steps before the first restart."""
    lr: float = 2e-4
    """Peak of the learning rate."""
    lr_decay: Literal["constant", "cosine"] = "constant"
    """Of the learning rate."""


class Residual(nn.Module):
    """Blocks h + conv1x1(relu(conv3x3(relu(h)))) on (n, channels, height, width)."""

    def __init__(self, channels: int, inner: int, blocks: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.ReLU(), nn.Conv2d(channels, inner, 3, padding=1), nn.ReLU(True), nn.Conv2d(inner, channels, 1)
            )
            for _ in range(blocks)
        )

    def forward(self, h: Tensor) -> Tensor:
        for block in self.blocks:
            h = h + block(h)
        return h


class Encoder(nn.Module):
    """(n, channels, height, width) to (n, code width, height / 4, width / 4) float32."""

    def __init__(self, channels: int, c: CodesConfig) -> None:
        super().__init__()
        wide, example = c.hidden, c.layout == "example"
        first = wide // 2 if example else wide
        layers = [nn.Conv2d(channels, first, 4, 2, 1), nn.ReLU(True), nn.Conv2d(first, wide, 4, 2, 1)]
        if example:
            layers += [nn.ReLU(True), nn.Conv2d(wide, wide, 3, padding=1), nn.ReLU(True)]
        layers += [Residual(wide, c.residual, c.blocks)]
        if example:
            layers += [nn.ReLU(True), nn.Conv2d(wide, c.code_width, 1)]
        self.layers = nn.Sequential(*layers)
        self.apply(_start)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x.contiguous(memory_format=torch.channels_last)).float()


class Decoder(nn.Module):
    """(n, height, width, code width) to (n, channels, 4 height, 4 width) float32."""

    def __init__(self, channels: int, c: CodesConfig) -> None:
        super().__init__()
        wide, example = c.hidden, c.layout == "example"
        last = wide // 2 if example else wide
        layers: list[nn.Module] = [nn.Conv2d(c.code_width, wide, 3, padding=1)] if example else []
        layers += [Residual(wide, c.residual, c.blocks), nn.ReLU(True), nn.ConvTranspose2d(wide, last, 4, 2, 1)]
        layers += [nn.ReLU(True), nn.ConvTranspose2d(last, channels, 4, 2, 1)]
        self.layers = nn.Sequential(*layers)
        self.apply(_start)

    def forward(self, codes: Tensor) -> Tensor:
        return self.layers(codes.permute(0, 3, 1, 2)).float()


class VQVAE(Method):
    """First stage: images to grids of codes and back."""

    Config = CodesConfig
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "imagenet": {},
        # The authors' example for CIFAR-10.
        "cifar10": {
            "batch": 32,
            "image_size": 32,
            "layout": "example",
            "hidden": 128,
            "residual": 32,
            "code_width": 64,
            "rule": "average",
            "lr": 3e-4,
        },
        # Minutes on two cores, small images.
        "small": {
            "image_size": 28,
            "layout": "example",
            "hidden": 64,
            "residual": 32,
            "codes": 64,
            "code_width": 32,
            "rule": "average",
            "debias": False,
            "from_data": True,
            "restart": 1.0,
            "lr": 1e-3,
            "lr_decay": "cosine",
        },
        "tiny": {
            "batch": 16,
            "image_size": 16,
            "layout": "example",
            "hidden": 16,
            "residual": 8,
            "blocks": 1,
            "codes": 16,
            "code_width": 8,
            "rule": "average",
            "debias": False,
            "from_data": True,
            "restart": 0.5,
            "restart_after": 2,
            "lr": 5e-3,
        },
    }
    paper = PAPER
    takes = ("image",)
    prepared_by = ("image_size",)
    goal = "generate"
    likelihood = "lower bound"
    forwards: ClassVar[Mapping[str, tuple[str, ...]]] = {"codebook": ("lookup",)}

    data_variance: Tensor  # scalar: of pixels between 0 and 1
    table: Tensor  # (channels, 256, 256): pixels by rounded output of the decoder and level of the image

    def __init__(self, config: CodesConfig, spec: Spec, given: Mapping[str, Method] | None = None) -> None:
        super().__init__(config, spec, given)
        if config.layout == "paper" and config.code_width != config.hidden:
            raise UserError(
                "The paper's layers end as wide as the codes: set code_width to hidden, or layout to example."
            )
        if config.restart and config.rule == "loss":
            raise UserError("Codes that the loss moves are not restarted; set rule to average, or restart to 0.")
        self.encoder = Encoder(spec.channels, config)
        self.decoder = Decoder(spec.channels, config)
        self.codebook = Codebook(config.codes, config.code_width, learned=config.rule == "loss")
        self.register_buffer("data_variance", torch.tensor(1.0))
        self.register_buffer("table", torch.zeros(spec.channels, 256, 256))

    # ---- data ------------------------------------------------------------------------------------------------------

    @classmethod
    def measure(cls, config: CodesConfig, source: Source) -> Spec:
        """The data's own size, at most `image_size`, rounded up to a multiple of four."""
        spec = source.spec()
        side = min(spec.image_size, config.image_size or spec.image_size)
        return replace(spec, image_size=math.ceil(side / STRIDE) * STRIDE)

    def prepare(self, record: Record, rng: np.random.Generator) -> Example:
        return {"image": square(record.fields["image"], self.spec.channels, self.spec.image_size)}

    def transform(self, batch: Batch, clock: Clock) -> Batch:
        """No augmentation. Where codes may restart, a place in each image's grid and a lot (n,): the vectors at these
        places, by increasing lot, are what dead codes restart from."""
        if not self.config.restart:
            return batch
        n, where = len(batch["image"]), batch["image"].device
        places = (self.spec.image_size // STRIDE) ** 2
        return batch | {"place": torch.randint(places, (n,), device=where), "lot": torch.rand(n, device=where)}

    # ---- learning --------------------------------------------------------------------------------------------------

    def optimizers(self) -> Mapping[str, OptimizerPlan]:
        return {"main": OptimizerPlan("adam", Schedule(self.config.lr, decay=self.config.lr_decay))}

    def first_batch(self, batch: Batch) -> None:
        x = _signal(batch["image"])
        self.data_variance.copy_(x.var(correction=0).clamp_min(1e-4))  # one grey level is 0.004
        if self.config.from_data:
            self.codebook.start_from(self._vectors(batch).flatten(0, 2))

    def loss(self, batch: Batch, part: str, clock: Clock) -> Outcome:
        """Squared error in units of the data's variance, and the terms of the codes: 1 where only the mean is known."""
        c, x, z = self.config, _signal(batch["image"]), self._vectors(batch)
        codes, indices = self.codebook(z)
        fixed = codes.detach()
        output = self.decoder(z + (fixed - z).detach())
        reconstruction = (output - x).square().mean() / self.data_variance
        commitment = (z - fixed).square().mean()
        loss = reconstruction + c.beta * commitment
        if c.rule == "loss":
            loss = loss + (codes - z.detach()).square().mean()
        with torch.no_grad():
            counts, sums = tally(z, indices, c.codes)
            carry = {"counts": counts, "sums": sums, "table": _levels(_pixels(output), batch["image"])}
            if c.restart:
                rows = torch.arange(len(z), device=z.device)
                carry |= {"vectors": z.detach().flatten(1, 2)[rows, batch["place"]], "lots": batch["lot"]}
            usage, length = self.codebook.usage, z.square().mean()
            logs = {
                "reconstruction": reconstruction.detach(),
                "commitment": commitment.detach(),
                # Of the last hundred batches: a single one makes codes look unused that are only rare.
                "perplexity": perplexity(usage),
                "used": (usage > 0.01 * usage.mean()).float().mean(),
                "distortion": commitment.detach() / length,
                "vector_norm": z.square().sum(-1).mean().sqrt(),
                "code_norm": fixed.square().sum(-1).mean().sqrt(),
            }
        return Outcome(loss, logs, carry)

    def after_update(self, part: str, outcomes: Sequence[Outcome], clock: Clock) -> None:
        c = self.config
        names = ("counts", "sums", "table")
        counts, sums, table = (total(torch.stack([o.carry[k] for o in outcomes]).sum(0)) for k in names)
        self.codebook.note_usage(counts, clock.step)
        self.table.mul_(TABLE_DECAY).add_(table)
        if c.rule == "average" and c.decay < 1:
            self.codebook.follow(counts, sums, debiased(c.decay, clock.step) if c.debias else c.decay)
        if c.restart and clock.step >= c.restart_after:
            vectors, lots = (gather(torch.cat([o.carry[k] for o in outcomes])) for k in ("vectors", "lots"))
            self.codebook.restart(vectors[lots.argsort()], c.restart)

    def diagnose(self, history: Sequence[Mapping[str, float]]) -> list[Finding]:
        if not history:
            return []
        last, size = history[-1], self.config.codes
        dead = 1 - last["used"]
        return [
            Finding(
                "codes in use",
                last["perplexity"],
                last["perplexity"] > size / 8,
                f"Images are written with as good as {last['perplexity']:.1f} of {size} codes; where that is few, the "
                "codebook has collapsed: set from_data and restart, with rule average.",
            ),
            Finding(
                "dead codes",
                dead,
                dead < 0.5,
                f"{100 * dead:.0f} % of the codes are next to never used; set restart, or ask for fewer codes.",
            ),
            Finding(
                "distortion",
                last["distortion"],
                last["distortion"] < 0.5,
                "Share of the encoder's output that is lost where codes take its place; where it is large the codes do "
                "not follow the encoder: lower decay, raise beta.",
            ),
            Finding(
                "reconstruction",
                last["reconstruction"],
                last["reconstruction"] < 0.5,
                "Squared error as a share of the variance of the pixels; 1 is what the mean image does. Where it is "
                "large, train for longer or with more codes.",
            ),
        ]

    # ---- what it can do ----------------------------------------------------------------------------------------------

    def encode(self, batch: Batch) -> Tensor:
        """(n, size / 4, size / 4) int64."""
        return self.codebook(self._vectors(batch)).indices

    def decode(self, codes: Tensor) -> Batch:
        """{"image": (n, size, size, channels) uint8}: what the decoder says, without the noise of p(x | k)."""
        return {"image": _pixels(self.decoder(self.codebook.lookup(codes)))}

    def reconstruct(self, batch: Batch) -> Batch:
        return self.decode(self.encode(batch))

    def embed_locally(self, batch: Batch) -> Tensor:
        """(n, places, code width) float32: the codes' vectors; the gradient passes to the encoder unchanged."""
        z = self._vectors(batch)
        return (z + (self.codebook(z).codes - z).detach()).flatten(1, 2)

    def nats(self, batch: Batch, codes: Tensor) -> Tensor:
        """(n,) float64: log p(image | codes)."""
        levels, image = self.decode(codes)["image"].long(), batch["image"].long()
        seen = self.table.double()
        overall = seen.sum(1, keepdim=True) + 1
        overall = overall / overall.sum(2, keepdim=True)
        table = ((seen + PSEUDO * overall) / (seen.sum(2, keepdim=True) + PSEUDO)).log()
        return table[torch.arange(image.shape[3], device=image.device), levels, image].sum((1, 2, 3))

    @torch.no_grad()
    def score(self, batch: Batch) -> Tensor:
        """(n,) float64: lower bounds on log p(image) in nats, all grids of codes being equally likely."""
        codes = self.encode(batch)
        return self.nats(batch, codes) - codes[0].numel() * math.log(self.config.codes)

    def _vectors(self, batch: Batch) -> Tensor:
        """(n, rows, columns, code width) float32: what the encoder says, before the codebook."""
        return self.encoder(_signal(batch["image"])).permute(0, 2, 3, 1)


@dataclass(frozen=True, kw_only=True)
class PriorConfig(MethodConfig):
    batch: int = 128
    """Images per step, over all processes."""
    average: float = 0.0
    """Decay per step of the averaged weights that sample; 0 keeps none."""
    width: int = 384
    """Feature maps of each stack."""
    layers: int = 20
    """Of both stacks."""
    kernel: int = 5
    """Side of the masked kernels; odd."""
    first_kernel: int = 7
    """Side of the first layer's; odd."""
    hidden: int = 384
    """Feature maps of the layer before the logits."""
    lr: float = 2e-4
    """Peak of the learning rate."""
    lr_decay: Literal["constant", "cosine"] = "constant"
    """Of the learning rate."""


class Prior(Method):
    """Second stage: a gated PixelCNN over the grids of codes; draws images and bounds their likelihood."""

    Config = PriorConfig
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "imagenet": {},
        "cifar10": {"width": 128, "layers": 12, "kernel": 3, "hidden": 256, "lr": 3e-4},
        "small": {
            "average": 0.998,
            "width": 64,
            "layers": 6,
            "kernel": 3,
            "hidden": 128,
            "lr": 2e-3,
            "lr_decay": "cosine",
        },
        "tiny": {
            "batch": 16,
            "average": 0.9,
            "width": 16,
            "layers": 2,
            "kernel": 3,
            "first_kernel": 5,
            "hidden": 16,
            "lr": 2e-2,
        },
    }
    paper = PAPER
    takes = ("image",)
    needs = ("codes",)
    share = 2.0
    goal = "generate"
    likelihood = "lower bound"
    forwards: ClassVar[Mapping[str, tuple[str, ...]]] = {"net": ("generate",)}

    def __init__(self, config: PriorConfig, spec: Spec, given: Mapping[str, Method] | None = None) -> None:
        given = given or {}
        if "codes" not in given:
            raise UserError("The prior of a VQ-VAE needs its codes; train vqvae.codes first, or vqvae as a whole.")
        super().__init__(config, given["codes"].spec, given)  # of the size that the codes are for
        self.net = GatedPixelCNN(
            given["codes"].config.codes,
            width=config.width,
            layers=config.layers,
            kernel=config.kernel,
            first_kernel=config.first_kernel,
            hidden=config.hidden,
        )

    # ---- data ------------------------------------------------------------------------------------------------------

    def prepare(self, record: Record, rng: np.random.Generator) -> Example:
        return self.given["codes"].prepare(record, rng)

    def transform(self, batch: Batch, clock: Clock) -> Batch:
        """Images to "codes" (n, rows, columns) int64; nothing is random."""
        return {"codes": self.given["codes"].encode(batch)}

    # ---- learning --------------------------------------------------------------------------------------------------

    def optimizers(self) -> Mapping[str, OptimizerPlan]:
        return {"main": OptimizerPlan("adam", Schedule(self.config.lr, decay=self.config.lr_decay))}

    def loss(self, batch: Batch, part: str, clock: Clock) -> Outcome:
        """Nats per code; log K where nothing is learned."""
        codes = batch["codes"]
        loss = F.cross_entropy(self.net(codes).float(), codes)
        counts = torch.bincount(codes.flatten(), minlength=self.given["codes"].config.codes).float()
        logs = {"bits_per_code": loss.detach() / math.log(2), "unigram_bits": perplexity(counts).log2()}
        return Outcome(loss, logs)

    def diagnose(self, history: Sequence[Mapping[str, float]]) -> list[Finding]:
        if not history:
            return []
        last, uniform = history[-1], math.log2(self.given["codes"].config.codes)
        bits, unigram = last["bits_per_code"], last["unigram_bits"]
        return [
            Finding(
                "bits per code",
                bits,
                bits < 0.95 * unigram,
                f"{bits:.2f}, against {unigram:.2f} by the codes' frequencies alone and {uniform:.2f} if all were equal; "
                "where it is no less than the frequencies', the prior has not learned what stands beside what: train it "
                "for longer or lower its lr.",
            )
        ]

    # ---- what it can do ----------------------------------------------------------------------------------------------

    @torch.no_grad()
    def sample(
        self, n: int, *, condition: Any = None, steps: int | None = None, guidance: float | None = None
    ) -> dict[str, Any]:
        """{"image": (n, size, size, channels) uint8}: codes drawn one after the other, then decoded.

        steps has no meaning here: each code takes one.

        Raises:
            UserError: for a condition or guidance.
        """
        if condition is not None or guidance is not None:
            raise UserError("This prior is unconditional; sample without a prompt and without guidance.")
        side = self.spec.image_size // STRIDE
        groups = [self.net.generate(min(AT_ONCE, n - i), side, side)[0] for i in range(0, n, AT_ONCE)]
        return {"image": torch.cat([self.decode(codes)["image"] for codes in groups])}

    @torch.no_grad()
    def score(self, batch: Batch) -> Tensor:
        """(n,) float64: lower bounds on log p(image) in nats, log p(codes) + log p(image | codes)."""
        codes = self.encode(batch)
        bits = F.cross_entropy(self.net(codes).float(), codes, reduction="none")
        return self.given["codes"].nats(batch, codes) - bits.double().sum((1, 2))

    def encode(self, batch: Batch) -> Tensor:
        """(n, size / 4, size / 4) int64, as the first stage gives them."""
        return self.given["codes"].encode(batch)

    def decode(self, codes: Tensor) -> Batch:
        return self.given["codes"].decode(codes)

    def reconstruct(self, batch: Batch) -> Batch:
        return self.given["codes"].reconstruct(batch)


STAGES = {"codes": VQVAE, "prior": Prior}


def _start(module: nn.Module) -> None:
    """Weights as sonnet's convolutions start: normal, cut at two standard deviations, of variance 1 / inputs."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        assert module.bias is not None
        std = (module.in_channels * module.kernel_size[0] * module.kernel_size[1]) ** -0.5
        nn.init.trunc_normal_(module.weight, std=std, a=-2 * std, b=2 * std)
        nn.init.zeros_(module.bias)


def _signal(image: Tensor) -> Tensor:
    """uint8 (n, h, w, c) to float32 (n, c, h, w) in [-0.5, 0.5]."""
    return image.permute(0, 3, 1, 2).float() / 255 - 0.5


def _pixels(x: Tensor) -> Tensor:
    """float (n, c, h, w) about [-0.5, 0.5] to uint8 (n, h, w, c)."""
    return ((x.float() + 0.5) * 255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


def _levels(said: Tensor, true: Tensor) -> Tensor:
    """uint8 (n, h, w, c) each to counts (c, 256, 256) of what was said and what was true."""
    channels = true.shape[3]
    cells = (torch.arange(channels, device=true.device) * 256 + said) * 256 + true
    return torch.bincount(cells.flatten(), minlength=channels * 256 * 256).view(channels, 256, 256).float()
