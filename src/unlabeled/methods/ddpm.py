"""DDPM: learn to see the noise in a noisy image; then take it away, step by step, starting from nothing but noise.

Ho, Jain, Abbeel: Denoising Diffusion Probabilistic Models. NeurIPS 2020.

    loss = E_{x, t, noise} |noise - net(sqrt(ab_t) x + sqrt(1 - ab_t) noise, t)|^2 / d      (eq. 14, mean over pixels)

Differs from the authors' code in: layers that start at scale 1e-10 there start at zero here; the normal distribution
function in the decoder is exact. Sampling in fewer than all steps is DDIM (Song, Meng, Ermon, ICLR 2021).

Run:     unlabeled train ddpm fashion-mnist --variant laptop --budget 10m
Expect:  benchmarks/results/ddpm-fashion-mnist.jsonl
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from unlabeled.core.batch import Batch, Example, Record, Spec
from unlabeled.core.clock import Clock, Schedule
from unlabeled.core.config import MethodConfig
from unlabeled.core.errors import UserError
from unlabeled.core.method import Method, OptimizerPlan, Outcome, Paper
from unlabeled.data.image import square
from unlabeled.data.source import Source
from unlabeled.nets.unet import UNet
from unlabeled.objectives.diffusion import Chain, recovered, simple_loss
from unlabeled.parallel.shard import kept_whole
from unlabeled.samplers.denoise import ancestral, ddim

__all__ = ["DDPM"]

QUARTERS = 4  # of the chain, in the log
AT_ONCE = 256  # images that are sampled together, to bound memory


@dataclass(frozen=True, kw_only=True)
class Config(MethodConfig):
    batch: int = 128
    """Images per step, over all processes."""
    average: float = 0.9999
    """Decay per step of the averaged weights that sample; 0 keeps none."""
    image_size: int = 0
    """Largest side in pixels; larger images are brought to it. 0 keeps the data's own."""
    channels: int = 128
    """Of the finest level of the U-Net."""
    mult: tuple[int, ...] = (1, 2, 2, 2)
    """Multiples of the channels, level by level; each level has half the resolution of the one before."""
    blocks: int = 2
    """Residual blocks per level on the way down; one more on the way up."""
    attention: tuple[int, ...] = (1,)
    """Levels with attention, 0 the finest; 16 x 16 of 32 x 32 pixels in the paper."""
    groups: int = 32
    """Of every group norm; each needs two channels or more."""
    dropout: float = 0.1
    """In the residual blocks; 0 where the data is seen but a few times."""
    flip: bool = True
    """Mirror half of the images; not for text, digits and other things with a right way round."""
    schedule: Literal["linear", "cosine"] = "linear"
    """How the noise grows."""
    noise_steps: int = 1000
    """T, the length of the chain."""
    variance: Literal["large", "small"] = "large"
    """Of the reverse steps: beta, or that of the posterior."""
    sampling_steps: int = 1000
    """Evaluations per sample unless asked for others: all T are ancestral, fewer are DDIM."""
    sampling_noise: float = 1.0
    """eta of DDIM: 1 adds as much noise as DDPM does, which mends the errors of a network trained for minutes; 0 adds none."""
    lr: float = 2e-4
    """Peak of the learning rate."""
    warmup_examples: float = 640_000
    """Examples over which the learning rate rises: 5,000 batches of 128."""
    decay: Literal["constant", "cosine", "linear"] = "constant"
    """Of the learning rate after the warm-up."""
    clip: float = 1.0
    """Largest norm of the gradient."""
    bound_points: int = 32
    """Places in the chain at which `score` looks."""


class DDPM(Method):
    """Generates images; bounds their likelihood from below."""

    Config = Config
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "cifar10": {},
        # LSUN and CelebA-HQ (appendix B); for the cats without mirroring.
        "lsun256": {
            "batch": 64,
            "image_size": 256,
            "mult": (1, 1, 2, 2, 4, 4),
            "attention": (4,),
            "dropout": 0.0,
            "lr": 2e-5,
            "warmup_examples": 320_000,
        },
        # Ten minutes on two cores.
        "laptop": {
            "batch": 64,
            "average": 0.998,
            "image_size": 32,
            "channels": 32,
            "mult": (1, 2, 2),
            "blocks": 1,
            "attention": (2,),
            "groups": 8,
            "dropout": 0.0,
            "sampling_steps": 100,
            "lr": 1e-3,
            "warmup_examples": 12_800,
            "decay": "cosine",
        },
        "tiny": {
            "batch": 16,
            "average": 0.9,
            "image_size": 16,
            "channels": 8,
            "mult": (1, 2),
            "blocks": 1,
            "attention": (1,),
            "groups": 4,
            "dropout": 0.0,
            "noise_steps": 100,
            "sampling_steps": 10,
            "lr": 5e-3,
            "warmup_examples": 64,
            "bound_points": 4,
        },
    }
    paper = Paper(
        "Denoising Diffusion Probabilistic Models",
        "Ho, Jain, Abbeel",
        "NeurIPS",
        2020,
        "https://arxiv.org/abs/2006.11239",
    )
    takes = ("image",)
    prepared_by = ("image_size",)
    goal = "generate"
    likelihood = "lower bound"

    def __init__(self, config: Config, spec: Spec, given: Mapping[str, Method] | None = None) -> None:
        super().__init__(config, spec)
        self.net = UNet(
            spec.channels,
            spec.channels,
            ch=config.channels,
            mult=config.mult,
            blocks=config.blocks,
            attention=config.attention,
            dropout=config.dropout,
            groups=config.groups,
        )

    @property
    def chain(self) -> Chain:
        """The forward process."""
        return _chain(self.config.schedule, self.config.noise_steps)

    # ---- data ------------------------------------------------------------------------------------------------------

    @classmethod
    def measure(cls, config: Config, source: Source) -> Spec:
        """The data's own size, at most `image_size`, rounded up to what the levels halve evenly."""
        spec, stride = source.spec(), 2 ** (len(config.mult) - 1)
        side = min(spec.image_size, config.image_size or spec.image_size)
        return replace(spec, image_size=math.ceil(side / stride) * stride)

    def prepare(self, record: Record, rng: np.random.Generator) -> Example:
        return {"image": square(record.fields["image"], self.spec.channels, self.spec.image_size)}

    def transform(self, batch: Batch, clock: Clock) -> Batch:
        """Mirror half of the images, draw times and noise: x (n, c, h, w) noisy, t (n,), noise like x."""
        x0 = to_signal(batch["image"])
        n = len(x0)
        if self.config.flip:
            x0 = torch.where(torch.rand(n, 1, 1, 1, device=x0.device) < 0.5, x0.flip(3), x0)
        t = torch.randint(len(self.chain), (n,), device=x0.device)
        noise = torch.randn_like(x0)
        return {"x": self.chain.noised(x0, t, noise), "t": t, "noise": noise}

    # ---- learning --------------------------------------------------------------------------------------------------

    def optimizers(self) -> Mapping[str, OptimizerPlan]:
        c = self.config
        schedule = Schedule(c.lr, warmup=c.warmup_examples, unit="examples", decay=c.decay)
        return {"main": OptimizerPlan("adam", schedule, clip_norm=c.clip)}

    def loss(self, batch: Batch, part: str, clock: Clock) -> Outcome:
        """Mean squared error of the noise per pixel; 1 for an untrained network.

        Logs it by quarter of the chain, least noise first: what an image adds to its quarter counts fourfold, which
        is the mean over the quarter in expectation, however few of a batch fall into it.
        """
        errors = simple_loss(batch["noise"], self.net(batch["x"], batch["t"]))
        quarter = batch["t"] * QUARTERS // len(self.chain)
        parts = [(errors.detach() * (quarter == q)).mean() * QUARTERS for q in range(QUARTERS)]
        return Outcome(errors.mean(), {f"error_quarter_{q + 1}": e for q, e in enumerate(parts)})

    # ---- after training ----------------------------------------------------------------------------------------------

    def denoise(self, x: Tensor, t: Tensor) -> Tensor:
        """The clean image expected behind x (n, c, h, w) at index t (n,), float32 in [-1, 1]."""
        a, s = self.chain.scales(t, x)
        return recovered("noise", self.net(x, t).float(), x, a, s).clamp(-1, 1)

    @torch.no_grad()
    def sample(
        self, n: int, *, condition: Any = None, steps: int | None = None, guidance: float | None = None
    ) -> dict[str, Any]:
        """{"image": (n, size, size, channels) uint8}.

        steps: evaluations of the network; all T take DDPM's ancestral steps, fewer are DDIM with `sampling_noise`.

        Raises:
            UserError: for a condition or guidance, and for steps outside 1 to T.
        """
        if condition is not None or guidance is not None:
            raise UserError("This DDPM is unconditional; sample without a prompt and without guidance.")
        groups = [min(AT_ONCE, n - i) for i in range(0, n, AT_ONCE)]
        with kept_whole(self.net):
            return {"image": torch.cat([self._walk(m, steps, 1)[:, -1] for m in groups])}

    @torch.no_grad()
    def trajectory(self, n: int, *, steps: int | None = None, frames: int = 8) -> Tensor:
        """How n samples come about: (n, frames, size, size, channels) uint8, from pure noise to the image."""
        with kept_whole(self.net):
            return self._walk(n, steps, frames)

    def _walk(self, n: int, steps: int | None, frames: int) -> Tensor:
        chain, steps = self.chain, steps or min(self.config.sampling_steps, self.config.noise_steps)
        if not 1 <= steps <= len(chain):
            raise UserError(f"This DDPM samples in 1 to {len(chain)} steps, not {steps}.")
        size, device = self.spec.image_size, next(self.parameters()).device
        x = torch.randn(n, self.spec.channels, size, size, device=device)
        if steps == len(chain):
            walk = ancestral(self.denoise, x, chain, self.config.variance)
        else:
            walk = ddim(self.denoise, x, chain, steps, eta=self.config.sampling_noise)
        shown = np.linspace(0, steps, frames).round() if frames > 1 else [steps]
        kept = [to_pixels(x)] if 0 in shown else []
        for i, (x, _) in enumerate(walk, start=1):
            kept += [to_pixels(x)] * int(np.sum(np.asarray(shown) == i))
        return torch.stack(kept, dim=1)

    @torch.no_grad()
    def score(self, batch: Batch) -> Tensor:
        """(n,) float64 lower bounds on log p(image) in nats, of the 8-bit image (eq. 5, with the decoder of eq. 13).

        Prior and decoder terms are complete. Of the T - 1 terms between, one is looked at in each of `bound_points`
        stretches of the chain, at a random place and times its length: unbiased, and fine where the terms are large,
        since stretches grow in proportion to t. Noise and places come from a fixed seed: the same for the same batch.
        """
        x0, chain, kind = to_signal(batch["image"]), self.chain, self.config.variance
        generator = torch.Generator().manual_seed(0)
        exact = x0.double()

        def at(t: Tensor) -> tuple[Tensor, Tensor]:
            noise = torch.randn(x0.shape, generator=generator).to(x0.device)
            x_t = chain.noised(x0, t, noise)
            return self.denoise(x_t, t).double(), x_t.double()

        first = torch.zeros(len(x0), dtype=torch.long, device=x0.device)
        nats = chain.prior_kl(exact) + chain.decoder_nats(exact, *at(first), first, kind)
        edges = np.unique(np.geomspace(1, len(chain), self.config.bound_points + 1).round().astype(int)).tolist()
        for low, high in pairwise(edges):
            t = torch.randint(low, high, (len(x0),), generator=generator).to(x0.device)
            nats = nats + (high - low) * chain.step_kl(exact, *at(t), t, kind)
        return -nats

    # ---- handing on --------------------------------------------------------------------------------------------------

    def export(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Weights and config.json of diffusers' `UNet2DModel`, which bear the same names."""
        c, levels = self.config, range(len(self.config.mult))
        about = {
            "_class_name": "UNet2DModel",
            "sample_size": self.spec.image_size,
            "in_channels": self.spec.channels,
            "out_channels": self.spec.channels,
            "layers_per_block": c.blocks,
            "block_out_channels": [c.channels * m for m in c.mult],
            "down_block_types": ["AttnDownBlock2D" if i in c.attention else "DownBlock2D" for i in levels],
            "up_block_types": ["AttnUpBlock2D" if i in c.attention else "UpBlock2D" for i in reversed(levels)],
            "dropout": c.dropout,
            "norm_num_groups": c.groups,
            **_LINEAGE,
            **_AS_USUAL,
        }
        return self.net.state_dict(), about

    @classmethod
    def opens(cls, folder: Path) -> bool:
        """Whether the folder is a `UNet2DModel` of diffusers, or a pipeline around one."""
        return _read_config(folder).get("_class_name") == "UNet2DModel"

    @classmethod
    def from_pretrained(cls, folder: Any) -> DDPM:
        """Build from a folder of diffusers' `UNet2DModel` in safetensors, or a pipeline folder around one.

        The schedule is the paper's linear one, since such a folder does not say.

        Raises:
            UserError: where the network is not of DDPM's kind or has no safetensors.
        """
        from safetensors.torch import load_file

        about, at = _read_config(folder), _net_folder(folder)
        odd = [k for k, v in _LINEAGE.items() if about.get(k, ...) != v]
        odd += [k for k, v in _AS_USUAL.items() if about.get(k, v) != v]
        if odd:
            raise UserError(f"{folder} holds no U-Net of DDPM's kind: it has another {', '.join(odd)}.")
        names = ("diffusion_pytorch_model.safetensors", "model.safetensors")
        file = next((at / name for name in names if (at / name).exists()), None)
        if file is None:
            raise UserError(f"{folder} has no weights in safetensors; convert its .bin file first.")
        widths = about["block_out_channels"]
        config = Config(
            channels=widths[0],
            mult=tuple(w // widths[0] for w in widths),
            blocks=about["layers_per_block"],
            attention=tuple(i for i, kind in enumerate(about["down_block_types"]) if kind.startswith("Attn")),
            groups=about["norm_num_groups"],
            dropout=about.get("dropout", 0.0),
        )
        method = cls(config, Spec(kind="image", image_size=about["sample_size"], channels=about["in_channels"]))
        method.net.load_state_dict({_present_name(k): v for k, v in load_file(file).items()})
        return method


# What DDPM's U-Net is in the words of diffusers: where their defaults are another lineage's, and where they agree.
_LINEAGE = {
    "attention_head_dim": None,
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "norm_eps": 1e-6,
}
_AS_USUAL = {
    "act_fn": "silu",
    "add_attention": True,
    "center_input_sample": False,
    "mid_block_type": "UNetMidBlock2D",
    "resnet_time_scale_shift": "default",
    "time_embedding_type": "positional",
}
_OLD_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}  # of attention, before 2023


def to_signal(image: Tensor) -> Tensor:
    """uint8 (n, h, w, c) to float32 (n, c, h, w) in [-1, 1]."""
    return image.permute(0, 3, 1, 2).float() / 127.5 - 1


def to_pixels(x: Tensor) -> Tensor:
    """float (n, c, h, w) in [-1, 1] to uint8 (n, h, w, c)."""
    return ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1)


@cache
def _chain(schedule: Literal["linear", "cosine"], steps: int) -> Chain:
    return Chain.named(schedule, steps)


def _net_folder(folder: Any) -> Path:
    inner = Path(folder) / "unet"
    return inner if inner.is_dir() else Path(folder)


def _read_config(folder: Any) -> dict[str, Any]:
    try:
        found = json.loads((_net_folder(folder) / "config.json").read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _present_name(name: str) -> str:
    parts = name.split(".")
    return ".".join(_OLD_NAMES.get(p, p) if "attentions" in parts else p for p in parts)
