"""Small methods that stress the engine, each in its own way; on 4 x 4 grey images."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from unlabeled.core.clock import Schedule
from unlabeled.core.config import MethodConfig
from unlabeled.core.method import Method, OptimizerPlan, Outcome, Paper
from unlabeled.nets.averages import follow
from unlabeled.parallel.gather import total

PAPER = Paper("A toy", "Nobody", "tests", 2026)


def mlp(*widths: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for a, b in pairwise(widths):
        layers += [nn.Linear(a, b), nn.GELU()]
    return nn.Sequential(*layers[:-1])


@dataclass(frozen=True, kw_only=True)
class ToyConfig(MethodConfig):
    batch: int = 16
    lr: float = 0.05
    algorithm: str = "adamw"


class Toy(Method):
    Config = ToyConfig
    variants = {"tiny": {}}
    paper = PAPER
    takes = ("image",)

    def prepare(self, record, rng):
        return {"image": record.fields["image"]}

    def optimizers(self):
        return {"main": OptimizerPlan(self.config.algorithm, Schedule(self.config.lr), weight_decay=0.01)}

    def flat(self, batch):
        return batch["image"].flatten(1).float() / 255


class Uneven(Toy):
    """A denoiser that scores a different number of pixels in every example."""

    def __init__(self, config, spec, given=None):
        super().__init__(config, spec)
        self.net = mlp(16, 32, 16)

    def transform(self, batch, clock):
        share = torch.rand(len(batch["image"]), 1)
        return batch | {"mask": torch.rand(len(share), 16) < share * 0.8 + 0.1}

    def count(self, batch, part):
        return batch["mask"].sum().float()

    def loss(self, batch, part, clock):
        x, mask = self.flat(batch), batch["mask"]
        error = (self.net(x * ~mask) - x).square()[mask].mean()
        return Outcome(error, {"share": mask.float().mean()})


class Adversaries(Toy):
    """Two optimisers in turn, the first one twice."""

    def __init__(self, config, spec, given=None):
        super().__init__(config, spec)
        self.generator, self.discriminator = mlp(4, 32, 16), mlp(16, 32, 1)

    def optimizers(self):
        plan = {"lr": Schedule(0.003), "options": {"betas": (0.0, 0.9)}}
        return {n: OptimizerPlan("adam", networks=(n,), **plan) for n in ("discriminator", "generator")}

    def transform(self, batch, clock):
        return batch | {"z": torch.randn(len(batch["image"]), 4)}

    def updates(self, batch, clock):
        yield "discriminator", batch
        yield "discriminator", batch
        yield "generator", batch

    def loss(self, batch, part, clock):
        fake = self.generator(batch["z"])
        if part == "generator":
            return Outcome(F.softplus(-self.discriminator(fake)).mean())
        real = F.softplus(-self.discriminator(self.flat(batch)))
        return Outcome((real + F.softplus(self.discriminator(fake.detach()))).mean())


class Teacher(Toy):
    """A copy that follows, and a queue and a codebook moved outside the gradient."""

    def __init__(self, config, spec, given=None):
        super().__init__(config, spec)
        self.student = mlp(16, 32, 8)
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)
        self.register_buffer("codes", torch.randn(6, 8))

    def transform(self, batch, clock):
        return batch | {"noise": 0.1 * torch.randn(len(batch["image"]), 2, 16)}

    def loss(self, batch, part, clock):
        a, b = (self.flat(batch)[:, None] + batch["noise"]).unbind(1)
        with torch.no_grad():
            target = F.normalize(self.teacher(b), dim=-1)
        student = F.normalize(self.student(a), dim=-1)
        nearest = F.one_hot(torch.cdist(target, self.codes).argmin(1), 6).float()
        pull = (student - (nearest @ self.codes).detach()).square().sum(-1).mean()
        carry = {"sums": nearest.T @ target, "counts": nearest.sum(0)}
        return Outcome((student - target).square().sum(-1).mean() + 0.1 * pull, carry=carry)

    def after_update(self, part, outcomes, clock):
        follow(self.teacher.parameters(), self.student.parameters(), 0.9)
        sums, counts = (total(sum(o.carry[k] for o in outcomes)) for k in ("sums", "counts"))
        means = sums / counts[:, None].clamp_min(1e-6)
        self.codes.lerp_(torch.where(counts[:, None] > 0, means, self.codes), 0.1)


class FromData(Toy):
    """Initialised from its first batch."""

    def __init__(self, config, spec, given=None):
        super().__init__(config, spec)
        self.scale = nn.Linear(16, 16)
        self.net = mlp(16, 32, 16)

    def first_batch(self, batch):
        x = self.flat(batch)
        self.scale.weight.copy_(torch.eye(16) / x.std())
        self.scale.bias.copy_(-x.mean(0) / x.std())

    def loss(self, batch, part, clock):
        x = self.scale(self.flat(batch))
        return Outcome((self.net(x) - x).square().mean())


TOYS = {t.__name__: t for t in (Uneven, Adversaries, Teacher, FromData)}


def images(n: int = 100) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, 4, 4, 1), dtype=np.uint8)
