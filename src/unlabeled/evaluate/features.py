"""The space that distances between images are measured in: a small network of our own, since none can be fetched.

`fd-clf` is a classifier trained on the labelled training images by one fixed recipe; `fd-rand` is the same network
with random weights, for images without labels. Their names end in a hash of data, recipe and torch's version: numbers
under different hashes are not comparable, and none of them is comparable with an FID of Inception features.
"""

from __future__ import annotations

import hashlib
import os
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from unlabeled.core.config import fingerprint
from unlabeled.core.places import cache

__all__ = ["FeatureSpace", "feature_space"]

SIDE = 32  # larger images are averaged down to this
WIDTH = 64
RECIPE = {"form": 1, "images": 10_000, "examples": 32_000, "batch": 64, "lr": 3e-3, "decay": 1e-2, "seed": 20}


class FeatureSpace(NamedTuple):
    """Maps images to features. name: with its hash. accuracy: of the classifier on held-out images, or None.

    scale: of the features, such that their mean variance over the training images is 1.
    """

    name: str
    network: nn.Module
    accuracy: float | None = None
    scale: float = 1.0

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """(n, height, width, channels) uint8 to (n, 64) float32."""
        with torch.no_grad():
            parts = [self.network(_floats(images[i : i + 500])) for i in range(0, len(images), 500)]
        return self.scale * torch.cat(parts).numpy()


class _Network(nn.Module):
    """Three convolutions, each halving the sides, and a linear map of 4 x 4 places to the features."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in ((channels, 16), (16, 32), (32, 64)):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.ReLU()]
        self.body = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(64 * 16, WIDTH))
        self.head = nn.Sequential(nn.ReLU(), nn.Linear(WIDTH, max(1, classes)))
        for module in self.body:  # so that random features neither fade nor grow with depth
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        return self.body(images)


def feature_space(
    images: np.ndarray, labels: np.ndarray | None, test: tuple[np.ndarray, np.ndarray] | None = None
) -> FeatureSpace:
    """The classifier's features where there are labels of two classes or more, else random ones.

    images: (n, height, width, channels) uint8, the training images; the first 10,000 are used. labels: (n,) int64 from
    0, -1 where unknown. test: images and labels that its accuracy is taken on. Trained weights are kept in the cache.
    """
    seen = images[: int(RECIPE["images"])]
    known = np.zeros(len(seen), bool) if labels is None else np.asarray(labels)[: len(seen)] >= 0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(RECIPE["seed"]))
        if labels is None or len(np.unique(labels[: len(seen)][known])) < 2:
            space = FeatureSpace(f"fd-rand-{_hash(seen, None)}", _Network(images.shape[3], 0).eval())
            return _scaled(space, seen)
        x, y = seen[known], np.asarray(labels, np.int64)[: len(seen)][known]
        network, name = _Network(images.shape[3], int(y.max()) + 1), _hash(x, y)
        _trained(network, x, y, name)
    space = FeatureSpace(f"fd-clf-{name}", network.eval())
    accuracy = None
    if test is not None and (test[1] >= 0).any():
        held, answers = test[0][test[1] >= 0], test[1][test[1] >= 0]
        with torch.no_grad():
            guess = network.head(torch.from_numpy(space(held))).argmax(1).numpy()
        accuracy = float((guess == answers).mean())
    return _scaled(space._replace(accuracy=accuracy), seen)


def _scaled(space: FeatureSpace, images: np.ndarray) -> FeatureSpace:
    variance = float(space(images).var(0).mean())
    return space._replace(scale=variance**-0.5 if variance > 0 else 1.0)


def _trained(network: _Network, images: np.ndarray, labels: np.ndarray, name: str) -> None:
    """Load the weights of that name from the cache, or train them and put them there."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file, save_file

    path = cache("features") / f"{name}.safetensors"
    try:
        network.load_state_dict(load_file(path))
        return
    except (OSError, SafetensorError, RuntimeError):  # not there, torn, or of another form: train it
        pass
    batch = int(RECIPE["batch"])
    steps = int(RECIPE["examples"]) // batch
    optimizer = torch.optim.AdamW(network.parameters(), lr=RECIPE["lr"], weight_decay=RECIPE["decay"])
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RECIPE["lr"], total_steps=steps)
    targets = torch.from_numpy(np.asarray(labels, np.int64))
    for _ in range(steps):
        rows = torch.randint(len(images), (batch,))
        x = _floats(images[rows.numpy()])
        loss = nn.functional.cross_entropy(network.head(network(x)), targets[rows], label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    save_file(network.state_dict(), partial)
    partial.replace(path)


def _floats(images: np.ndarray) -> Tensor:
    x = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 127.5 - 1
    return nn.functional.adaptive_avg_pool2d(x, SIDE) if max(x.shape[2:]) > SIDE else x


def _hash(images: np.ndarray, labels: np.ndarray | None) -> str:
    """Eight digits that change with data, recipe and torch's version."""
    digest = hashlib.sha256(str(images.shape).encode() + np.ascontiguousarray(images).tobytes())
    digest.update(b"" if labels is None else labels.tobytes())
    return fingerprint(RECIPE, digest.hexdigest(), torch.__version__)[:8]
