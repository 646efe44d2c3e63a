"""Training images per second: DDPM here against diffusers' UNet2DModel of the same shape, in turn.

The peer trains as diffusers' own example of unconditional training does: float32, DDPMScheduler.add_noise, mse_loss,
AdamW, gradient clipped at 1; its bfloat16-autocast row is the same loop under torch.autocast. Ours is the engine's
step: transform (mirroring, times, noise), loss in the fastest precision of this machine, clipping, fused Adam. Both
are given uint8 images in memory; neither keeps averaged weights. The last line printed is JSON.

Run: python benchmarks/peer_ddpm.py      (alone on the machine; about five minutes)
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial

import torch
import torch.nn.functional as F
from rounds import compare, on_one_batch
from torch import Tensor

from unlabeled.core.batch import Spec
from unlabeled.core.clock import Clock
from unlabeled.core.config import resolve
from unlabeled.engine import machine
from unlabeled.engine.optimise import parts_of
from unlabeled.engine.precision import precision
from unlabeled.methods.ddpm import DDPM

BATCH, SIZE = 64, 28
# The groups are ours in both: with the peer's default of 32 on 32 channels, the norm would cancel the time.
SHAPE = {"channels": 32, "mult": (1, 2, 2), "blocks": 1, "attention": (2,), "groups": 8, "dropout": 0.0}

Step = Callable[[Tensor], float]


def ours() -> Step:
    """One step as the engine takes it."""
    machine.keep_freed_memory()
    torch.manual_seed(0)
    method = DDPM(resolve(DDPM, "laptop", SHAPE), Spec("image", image_size=SIZE, channels=1)).train()
    part, compute, clock = (
        parts_of(method)["main"],
        precision("fastest"),
        Clock(steps=100, examples=10**6, progress=0.5),
    )

    def step(images: Tensor) -> float:
        with torch.no_grad():
            batch = method.transform({"image": images}, clock)
        with compute.computing():
            loss = method.loss(batch, "main", clock).loss
        loss.backward()
        part.step(clock)
        return loss.item()

    return step


def peer(*, bf16: bool) -> Step:
    """The usual loop around diffusers' class."""
    from diffusers import DDPMScheduler, UNet2DModel

    torch.manual_seed(0)
    levels = range(len(SHAPE["mult"]))
    kinds = ["Attn" if i in SHAPE["attention"] else "" for i in levels]
    model = UNet2DModel(
        sample_size=SIZE,
        in_channels=1,
        out_channels=1,
        layers_per_block=SHAPE["blocks"],
        block_out_channels=tuple(SHAPE["channels"] * m for m in SHAPE["mult"]),
        down_block_types=tuple(f"{k}DownBlock2D" for k in kinds),
        up_block_types=tuple(f"{k}UpBlock2D" for k in reversed(kinds)),
        downsample_padding=0,
        flip_sin_to_cos=False,
        freq_shift=1,
        norm_eps=1e-6,
        attention_head_dim=None,
        norm_num_groups=SHAPE["groups"],
    ).train()
    scheduler = DDPMScheduler(1000)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def step(images: Tensor) -> float:
        clean = images.permute(0, 3, 1, 2).float() / 127.5 - 1
        noise = torch.randn_like(clean)
        t = torch.randint(0, 1000, (len(clean),))
        with torch.autocast("cpu", torch.bfloat16) if bf16 else nullcontext():
            prediction = model(scheduler.add_noise(clean, noise, t), t).sample
            loss = F.mse_loss(prediction.float(), noise)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return step


def images() -> Tensor:
    return torch.randint(0, 256, (BATCH, SIZE, SIZE, 1), dtype=torch.uint8)


if __name__ == "__main__":
    makers = {
        "unlabeled": ours,
        "diffusers float32": partial(peer, bf16=False),
        "diffusers bfloat16 autocast": partial(peer, bf16=True),
    }
    contenders = {name: on_one_batch(make, images, BATCH) for name, make in makers.items()}
    compare(__file__, contenders, "training images per second", SHAPE | {"batch": BATCH, "image_size": SIZE})
