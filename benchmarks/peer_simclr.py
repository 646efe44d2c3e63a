"""SimCLR pairs per second including augmentation: ours against the usual loop.

The usual loop is what tutorials and libraries do: two views of each image made one by one with Pillow in two worker
processes of torch's DataLoader, then a float32 step in torch's default layout. Ours: views of the whole batch at once,
bfloat16 products, channels last. Same network, loss, batch (256), images (28 x 28 grey), augmentations and optimiser.

Run: python benchmarks/peer_simclr.py      prints medians of five interleaved rounds as JSON
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from rounds import compare, counted
from torch import nn
from torch.utils.data import DataLoader
from usual_views import TwoViews, images

from unlabeled.core.clock import Clock
from unlabeled.core.config import resolve
from unlabeled.data.sources import source
from unlabeled.engine import machine
from unlabeled.engine.optimise import parts_of
from unlabeled.engine.precision import precision
from unlabeled.methods.simclr import SimCLR

BATCH = 256


def usual() -> Iterator[None]:
    """One step of the usual loop each time it is asked for the next."""
    torch.manual_seed(0)
    widths, layers = (1, 32, 64, 128, 256), []
    for i in range(4):
        stride = 1 if i == 0 else 2
        layers += [
            nn.Conv2d(widths[i], widths[i + 1], 3, stride, 1, bias=False),
            nn.BatchNorm2d(widths[i + 1]),
            nn.ReLU(),
        ]
    net = nn.Sequential(
        *layers,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(256, 256, bias=False),
        nn.BatchNorm1d(256),
        nn.ReLU(),
        nn.Linear(256, 128, bias=False),
        nn.BatchNorm1d(128),
    )
    optimizer = torch.optim.SGD(net.parameters(), lr=0.06, momentum=0.9, weight_decay=5e-4)
    for first, second in DataLoader(TwoViews(images()), batch_size=BATCH, shuffle=False, num_workers=2, drop_last=True):
        z = F.normalize(net(torch.cat([first, second])), dim=1)
        logits = (z @ z.T / 0.2).masked_fill(torch.eye(2 * BATCH, dtype=torch.bool), float("-inf"))
        loss = F.cross_entropy(logits, torch.arange(2 * BATCH).roll(BATCH))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield


def ours() -> Iterator[None]:
    """One step of the engine's work each time it is asked for the next."""
    machine.keep_freed_memory()
    torch.manual_seed(0)
    pixels = torch.from_numpy(images())[..., None]
    data = source("fashion").spec()
    method = SimCLR(resolve(SimCLR, "small", {"batch": BATCH}), data).train()
    part, fast, clock = parts_of(method)["main"], precision("fastest"), Clock(step=1, steps=1000)
    while True:
        chosen = pixels[torch.randint(0, len(pixels), (BATCH,))]
        with torch.no_grad():
            pieces = [method.transform({"image": p}, clock) for p in chosen.chunk(8)]
            batch = {"views": torch.cat([p["views"] for p in pieces])}
        with fast.computing():
            loss = method.loss(batch, "main", clock).loss
        loss.backward()
        part.step(clock)
        yield


if __name__ == "__main__":
    about = {
        "batch": BATCH,
        "images": "28 x 28 grey",
        "encoder": "conv4, stride 1",
        "peer": "Pillow views in 2 workers",
    }
    compare(
        __file__,
        {"unlabeled": counted(ours, BATCH), "usual loop": counted(usual, BATCH)},
        "pairs per second with views",
        about,
    )
