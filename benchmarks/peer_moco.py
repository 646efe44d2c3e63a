"""MoCo pairs per second including augmentation: ours against the usual loop.

The usual loop is what tutorials and libraries do: two views of each image made one by one with Pillow in two worker
processes of torch's DataLoader, then a float32 step in torch's default layout. Ours: views of the whole batch at once,
bfloat16 products, channels last. Same networks, queue (4,096), loss, batch (256), images (28 x 28 grey), augmentations and
optimiser. Both normalise in eight groups and shuffle keys; the usual loop by splitting rows off inside each layer and a
random order, as the authors' notebook for one device does.

Run: python benchmarks/peer_moco.py      prints medians of five interleaved rounds as JSON
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy

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
from unlabeled.methods.moco import MoCo

BATCH, QUEUE, GROUPS = 256, 4096, 8


class SplitBatchNorm(nn.BatchNorm2d):
    """Every eighth row forms a group; the groups stand side by side as channels of one call."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, c, h, w = x.shape
        mean, variance = self.running_mean.repeat(GROUPS), self.running_var.repeat(GROUPS)
        weight, bias = self.weight.repeat(GROUPS), self.bias.repeat(GROUPS)
        y = F.batch_norm(x.reshape(-1, c * GROUPS, h, w), mean, variance, weight, bias, True, self.momentum, self.eps)
        self.running_mean.copy_(mean.view(GROUPS, c).mean(0))
        self.running_var.copy_(variance.view(GROUPS, c).mean(0))
        return y.view(n, c, h, w)


def usual() -> Iterator[None]:
    """One step of the usual loop each time it is asked for the next."""
    torch.manual_seed(0)
    widths, layers = (1, 32, 64, 128, 256), []
    for i in range(4):
        stride = 1 if i == 0 else 2
        layers += [
            nn.Conv2d(widths[i], widths[i + 1], 3, stride, 1, bias=False),
            SplitBatchNorm(widths[i + 1]),
            nn.ReLU(),
        ]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 128)]
    query = nn.Sequential(*layers, *head)
    key = deepcopy(query).requires_grad_(False)
    queue, pointer = F.normalize(torch.randn(128, QUEUE), dim=0), 0
    optimizer = torch.optim.SGD(query.parameters(), lr=0.06, momentum=0.9, weight_decay=5e-4)
    for first, second in DataLoader(TwoViews(images()), batch_size=BATCH, shuffle=False, num_workers=2, drop_last=True):
        q = F.normalize(query(first), dim=1)
        with torch.no_grad():
            for slow, fast in zip(key.parameters(), query.parameters()):
                slow.data = slow.data * 0.99 + fast.data * 0.01
            order = torch.randperm(BATCH)
            k = F.normalize(key(second[order]), dim=1)[order.argsort()]
        logits = torch.cat([torch.einsum("nc,nc->n", q, k)[:, None], torch.einsum("nc,ck->nk", q, queue)], 1) / 0.2
        loss = F.cross_entropy(logits, torch.zeros(BATCH, dtype=torch.long))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        queue[:, pointer : pointer + BATCH] = k.T
        pointer = (pointer + BATCH) % QUEUE
        yield


def ours() -> Iterator[None]:
    """One step of the engine's work each time it is asked for the next."""
    machine.keep_freed_memory()
    torch.manual_seed(0)
    pixels = torch.from_numpy(images())[..., None]
    data = source("fashion").spec()
    method = MoCo(resolve(MoCo, "small", {"batch": BATCH}), data).train()
    part, fast, clock = parts_of(method)["main"], precision("fastest"), Clock(step=1, steps=1000)
    while True:
        chosen = pixels[torch.randint(0, len(pixels), (BATCH,))]
        with torch.no_grad():
            pieces = [method.transform({"image": p}, clock) for p in chosen.chunk(8)]
            batch = {"views": torch.cat([p["views"] for p in pieces])}
        with fast.computing():
            outcome = method.loss(batch, "main", clock)
        outcome.loss.backward()
        part.step(clock)
        with torch.no_grad():
            method.after_update("main", [outcome], clock)
        yield


if __name__ == "__main__":
    about = {
        "batch": BATCH,
        "images": "28 x 28 grey",
        "encoder": "conv4, stride 1",
        "queue": QUEUE,
        "peer": "Pillow views in 2 workers",
    }
    compare(
        __file__,
        {"unlabeled": counted(ours, BATCH), "usual loop": counted(usual, BATCH)},
        "pairs per second with views",
        about,
    )
