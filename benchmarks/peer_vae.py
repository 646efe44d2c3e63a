"""VAE training steps, images per second: ours against pythae 0.1.2, in float32 and with bfloat16 products.

Same network (784-512 ReLU-16 and back, pythae's default), Bernoulli pixels, batch (128) and Adam. Both take their step
on one batch again and again; pythae's images are on the device as floats already, ours are bytes.

Run: pip install pythae==0.1.2 --no-deps; python benchmarks/peer_vae.py     prints medians of five rounds as JSON
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from rounds import compare, on_one_batch

from unlabeled.core.batch import Spec
from unlabeled.core.clock import Clock
from unlabeled.core.config import resolve
from unlabeled.engine import machine
from unlabeled.engine.optimise import parts_of
from unlabeled.engine.precision import precision
from unlabeled.methods.vae import VAE

BATCH, HIDDEN, LATENTS = 128, 512, 16


def images() -> torch.Tensor:
    """(batch, 28, 28, 1) uint8, black and white."""
    torch.manual_seed(0)
    return (torch.rand(BATCH, 28, 28, 1) < 0.3).to(torch.uint8) * 255


def ours(kind: str) -> Callable[[], Callable[[Any], object]]:
    def make() -> Callable[[Any], object]:
        machine.keep_freed_memory()
        torch.manual_seed(0)
        config = {"batch": BATCH, "hidden": (HIDDEN,), "latents": LATENTS, "activation": "relu", "weight_decay": 0.0}
        method = VAE(resolve(VAE, None, config), Spec(kind="image", image_size=28, channels=1)).train()
        part, mode, clock = parts_of(method)["main"], precision(kind), Clock(step=1, steps=1000)

        def step(image: torch.Tensor) -> None:
            with torch.no_grad():
                batch = method.transform({"image": image}, clock)
            with mode.computing():
                loss = method.loss(batch, "main", clock).loss
            loss.backward()
            part.step(clock)

        return step

    return make


def theirs(autocast: bool) -> Callable[[], Callable[[Any], object]]:
    def make() -> Callable[[Any], object]:
        from pythae.models import VAE as Peer
        from pythae.models import VAEConfig

        torch.manual_seed(0)
        about = VAEConfig(input_dim=(1, 28, 28), latent_dim=LATENTS, reconstruction_loss="bce")
        model = Peer(about).train()
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

        def step(x: torch.Tensor) -> None:
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16) if autocast else contextlib.nullcontext():
                loss = model({"data": x}).loss
            loss.backward()
            optimizer.step()

        return step

    return make


def floats() -> torch.Tensor:
    return images().permute(0, 3, 1, 2).float() / 255


if __name__ == "__main__":
    contenders = {
        "unlabeled": on_one_batch(ours("fastest"), images, BATCH),
        "unlabeled, float32": on_one_batch(ours("float32"), images, BATCH),
        "pythae, float32": on_one_batch(theirs(False), floats, BATCH),
        "pythae, bfloat16": on_one_batch(theirs(True), floats, BATCH),
    }
    about = {"batch": BATCH, "images": "28 x 28, black and white", "network": "784-512-16", "peer": "pythae 0.1.2"}
    compare(__file__, contenders, "images per second", about)
