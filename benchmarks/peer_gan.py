"""Training images per second: the GAN here against the usual DCGAN loop in plain torch, in turn.

The peer is the loop of torch's own DCGAN tutorial: float32, torch's default layout, nn.BatchNorm2d, binary cross-entropy
on logits, the discriminator on real and on generated images apart, then the generator through the same images, two
plain Adams; its bfloat16-autocast row is the same loop under torch.autocast. Ours is the engine's step: transform
(noise), both updates in the fastest precision of this machine, fused Adam, the gradient's norm taken as it is logged.
Same networks, loss, batch and images in memory; neither keeps averaged weights. The last line printed is JSON.

Run: python benchmarks/peer_gan.py      (alone on the machine; about three minutes)
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
from unlabeled.methods.gan import GAN

BATCH, SIZE, LATENT, WIDTH = 64, 28, 64, 64

Step = Callable[[Tensor], float]


def ours() -> Step:
    """One step as the engine takes it."""
    machine.keep_freed_memory()
    torch.manual_seed(0)
    shape = {"batch": BATCH, "latent": LATENT, "width": WIDTH, "discriminator_width": WIDTH}
    method = GAN(resolve(GAN, "small", shape), Spec("image", image_size=SIZE, channels=1)).train()
    parts, compute, clock = parts_of(method), precision("fastest"), Clock(step=1, steps=100, progress=0.5)

    def step(images: Tensor) -> float:
        with torch.no_grad():
            batch = method.transform({"image": images}, clock)
        said = 0.0
        for name, of_part in method.updates(batch, clock):
            for other, part in parts.items():
                for p in part.named.values():
                    p.requires_grad_(other == name)
            with compute.computing():
                outcome = method.loss(of_part, name, clock)
            outcome.loss.backward()
            parts[name].step(clock)
            with torch.no_grad():
                method.after_update(name, [outcome], clock)
            said += outcome.loss.item()
        return said

    return step


def peer(*, bf16: bool) -> Step:
    """The loop of the tutorial, for 28 pixels."""
    torch.manual_seed(0)
    generator = nn.Sequential(
        nn.ConvTranspose2d(LATENT, 2 * WIDTH, 7, 1, 0, bias=False),
        nn.BatchNorm2d(2 * WIDTH),
        nn.ReLU(True),
        nn.ConvTranspose2d(2 * WIDTH, WIDTH, 4, 2, 1, bias=False),
        nn.BatchNorm2d(WIDTH),
        nn.ReLU(True),
        nn.ConvTranspose2d(WIDTH, 1, 4, 2, 1, bias=False),
        nn.Tanh(),
    )
    discriminator = nn.Sequential(
        nn.Conv2d(1, WIDTH, 4, 2, 1, bias=False),
        nn.LeakyReLU(0.2, inplace=True),
        nn.Conv2d(WIDTH, 2 * WIDTH, 4, 2, 1, bias=False),
        nn.BatchNorm2d(2 * WIDTH),
        nn.LeakyReLU(0.2, inplace=True),
        nn.Conv2d(2 * WIDTH, 1, 7, 1, 0, bias=False),
    )
    movers = [torch.optim.Adam(n.parameters(), lr=2e-4, betas=(0.5, 0.999)) for n in (generator, discriminator)]
    ones, zeros = torch.ones(BATCH), torch.zeros(BATCH)

    def judged(images: Tensor, labels: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(discriminator(images).flatten().float(), labels)

    def step(images: Tensor) -> float:
        real = images.permute(0, 3, 1, 2).float() / 127.5 - 1
        with torch.autocast("cpu", torch.bfloat16) if bf16 else nullcontext():
            discriminator.zero_grad()
            on_real = judged(real, ones)
            on_real.backward()
            fake = generator(torch.randn(BATCH, LATENT, 1, 1))
            on_fake = judged(fake.detach(), zeros)
            on_fake.backward()
            movers[1].step()
            generator.zero_grad()
            fooled = judged(fake, ones)
            fooled.backward()
            movers[0].step()
        return on_real.item() + on_fake.item() + fooled.item()

    return step


def images() -> Tensor:
    return torch.randint(0, 256, (BATCH, SIZE, SIZE, 1), dtype=torch.uint8)


if __name__ == "__main__":
    makers = {
        "unlabeled": ours,
        "usual loop, float32": partial(peer, bf16=False),
        "usual loop, bfloat16 autocast": partial(peer, bf16=True),
    }
    contenders = {name: on_one_batch(make, images, BATCH) for name, make in makers.items()}
    about = {"batch": BATCH, "image_size": SIZE, "latent": LATENT, "width": WIDTH, "norm": "batch"}
    compare(__file__, contenders, "training images per second", about)
