"""Training images per second: VQ-VAE's first stage here against vector-quantize-pytorch in the same network, in turn.

The peer is the usual loop: the layers of the authors' example in plain torch around
`VectorQuantize(dim, codebook_size, decay=0.99, commitment_weight=0.25)`, mean squared error over the data's variance,
torch's Adam; float32, and the same under bfloat16 autocast. Ours is the engine's step: transform, loss in the fastest
precision of this machine, fused Adam, codebook, counts behind the likelihood. Both are given uint8 images in memory,
and neither restarts codes. The last line printed is JSON.

Needs vector-quantize-pytorch. Run: python benchmarks/peer_vqvae.py      (alone on the machine; about three minutes)
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial

import torch
import torch.nn.functional as F
from rounds import compare, on_one_batch
from torch import Tensor, nn

from unlabeled.core.batch import Spec
from unlabeled.core.clock import Clock
from unlabeled.core.config import resolve
from unlabeled.engine import machine
from unlabeled.engine.optimise import parts_of
from unlabeled.engine.precision import precision
from unlabeled.methods.vqvae import VQVAE

BATCH, SIZE = 128, 28
HIDDEN, RESIDUAL, CODES, WIDTH = 64, 32, 64, 32

Step = Callable[[Tensor], float]


def ours() -> Step:
    """One step as the engine takes it."""
    machine.keep_freed_memory()
    torch.manual_seed(0)
    config = resolve(VQVAE, "small", {"restart": 0.0})
    method = VQVAE(config, Spec("image", image_size=SIZE, channels=1)).train()
    part, compute = parts_of(method)["main"], precision("fastest")
    clock = Clock(step=1000, steps=2000, progress=0.5)

    def step(images: Tensor) -> float:
        with torch.no_grad():
            batch = method.transform({"image": images}, clock)
        with compute.computing():
            outcome = method.loss(batch, "main", clock)
        outcome.loss.backward()
        part.step(clock)
        with torch.no_grad():
            method.after_update("main", [outcome], clock)
        return outcome.loss.item()

    return step


class Stack(nn.Module):
    """Two residual blocks and a ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.ModuleList(nn.Conv2d(HIDDEN, RESIDUAL, 3, padding=1) for _ in range(2))
        self.narrow = nn.ModuleList(nn.Conv2d(RESIDUAL, HIDDEN, 1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        for a, b in zip(self.wide, self.narrow):
            x = x + b(F.relu(a(F.relu(x))))
        return F.relu(x)


def peer(*, bf16: bool) -> Step:
    """The usual loop around VectorQuantize."""
    from vector_quantize_pytorch import VectorQuantize

    torch.manual_seed(0)
    encoder = nn.Sequential(
        *(nn.Conv2d(1, HIDDEN // 2, 4, 2, 1), nn.ReLU(), nn.Conv2d(HIDDEN // 2, HIDDEN, 4, 2, 1), nn.ReLU()),
        *(nn.Conv2d(HIDDEN, HIDDEN, 3, padding=1), nn.ReLU(), Stack(), nn.Conv2d(HIDDEN, WIDTH, 1)),
    )
    decoder = nn.Sequential(
        *(nn.Conv2d(WIDTH, HIDDEN, 3, padding=1), Stack(), nn.ConvTranspose2d(HIDDEN, HIDDEN // 2, 4, 2, 1)),
        *(nn.ReLU(), nn.ConvTranspose2d(HIDDEN // 2, 1, 4, 2, 1)),
    )
    quantiser = VectorQuantize(
        dim=WIDTH, codebook_size=CODES, decay=0.99, commitment_weight=0.25, accept_image_fmap=True
    ).train()
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=1e-3)

    def step(images: Tensor) -> float:
        x = images.permute(0, 3, 1, 2).float() / 255 - 0.5
        with torch.autocast("cpu", torch.bfloat16) if bf16 else nullcontext():
            z, _, commitment = quantiser(encoder(x))
            loss = F.mse_loss(decoder(z).float(), x) / 0.12 + commitment.sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return step


def images() -> Tensor:
    return torch.randint(0, 256, (BATCH, SIZE, SIZE, 1), dtype=torch.uint8)


if __name__ == "__main__":
    makers = {
        "unlabeled": ours,
        "vector-quantize-pytorch float32": partial(peer, bf16=False),
        "vector-quantize-pytorch bfloat16 autocast": partial(peer, bf16=True),
    }
    contenders = {name: on_one_batch(make, images, BATCH) for name, make in makers.items()}
    about = {"hidden": HIDDEN, "residual": RESIDUAL, "codes": CODES, "code_width": WIDTH}
    compare(__file__, contenders, "training images per second", about | {"batch": BATCH, "image_size": SIZE})
