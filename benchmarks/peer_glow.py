"""Training images per second: Glow here against normflows' multi-scale Glow of the same shape, in turn.

The peer trains as its own Glow example does: `MultiscaleFlow.forward_kld` (affine couplings with a sigmoid scale, LU
mixings, its default networks, whose hidden layers have biases in place of activation norms), Adamax at 1e-3, float32;
its bfloat16-autocast row is the same loop under torch.autocast. It scores the halves that leave by Gaussians that do
not look at what stays, which is less work than here. Ours is the engine's step: dequantisation, loss in the fastest
precision of this machine, clipping, fused Adam. Both are given uint8 images in memory. The last line printed is JSON.

Needs:  normflows 1.7.3
Run:    python benchmarks/peer_glow.py      (alone on the machine; about three minutes)
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial

import torch
from rounds import compare, on_one_batch
from torch import Tensor

from unlabeled.core.batch import Spec
from unlabeled.core.clock import Clock
from unlabeled.core.config import resolve
from unlabeled.engine import machine
from unlabeled.engine.optimise import parts_of
from unlabeled.engine.precision import precision
from unlabeled.methods.glow import Glow

BATCH, SIZE = 32, 28
SHAPE = {"levels": 2, "depth": 8, "width": 64}

Step = Callable[[Tensor], float]


def ours(name: str = "fastest") -> Step:
    """One step as the engine takes it."""
    machine.keep_freed_memory()
    torch.manual_seed(0)
    method = Glow(resolve(Glow, "small", SHAPE), Spec("image", image_size=SIZE, channels=1)).train()
    part, compute = parts_of(method)["main"], precision(name)  # type: ignore[arg-type]
    clock = Clock(steps=100, examples=10**6, progress=0.5)
    method.first_batch(method.transform({"image": images()}, clock))

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
    """The loop of the peer's Glow example, without its classes."""
    import normflows as nf

    torch.manual_seed(0)
    bases, flows, merges = [], [], []
    for i in range(SHAPE["levels"]):  # the deepest level first, as the peer counts
        power = SHAPE["levels"] - i
        channels, side = 2 ** (power + 1), SIZE // 2**power
        blocks = [
            nf.flows.GlowBlock(channels, SHAPE["width"], split_mode="channel", scale=True)
            for _ in range(SHAPE["depth"])
        ]
        flows.append([*blocks, nf.flows.Squeeze()])
        leaving = channels if i == 0 else channels // 2
        bases.append(nf.distributions.DiagGaussian((leaving, side, side)))
        if i:
            merges.append(nf.flows.Merge())
    model = nf.MultiscaleFlow(bases, flows, merges, class_cond=False).train()
    optimizer = torch.optim.Adamax(model.parameters(), lr=1e-3)

    def step(images: Tensor) -> float:
        x = (images.permute(0, 3, 1, 2).float() + torch.rand(len(images), 1, SIZE, SIZE)) / 256
        with torch.autocast("cpu", torch.bfloat16) if bf16 else nullcontext():
            loss = model.forward_kld(x)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def images() -> Tensor:
    return torch.randint(0, 256, (BATCH, SIZE, SIZE, 1), dtype=torch.uint8)


if __name__ == "__main__":
    makers = {
        "unlabeled": ours,
        "unlabeled float32": partial(ours, "float32"),
        "normflows float32": partial(peer, bf16=False),
        "normflows bfloat16 autocast": partial(peer, bf16=True),
    }
    contenders = {name: on_one_batch(make, images, BATCH) for name, make in makers.items()}
    compare(__file__, contenders, "training images per second", SHAPE | {"batch": BATCH, "image_size": SIZE})
