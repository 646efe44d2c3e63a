"""What the sizes of a system cost here: parameters and FLOPs of each by counting, seconds by short pilots of some.

A system grows with one knob, mostly its width. The learning rate of a size is rate * (at / knob)^power, of `FAMILIES`.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from unlabeled.core import catalogue
from unlabeled.core.batch import Spec
from unlabeled.core.config import resolve
from unlabeled.core.errors import BadRecord, UserError
from unlabeled.core.method import Method
from unlabeled.data.source import Source
from unlabeled.data.sources import source as open_source
from unlabeled.data.store import Store, build
from unlabeled.engine.launch import lasting_name
from unlabeled.engine.loop import Settings, Trainer
from unlabeled.engine.record import Run
from unlabeled.scale.count import microbatch, parameters, training_flops
from unlabeled.scale.heldout import held_out, unit_of

__all__ = ["FAMILIES", "Convention", "Family", "Size", "Survey", "survey"]

Convention = Literal["with_head", "total", "non_embedding", "active"]

PILOTS, PILOT, PILOT_STEPS = 6, 2e11, (5, 25)  # sizes that are timed; FLOPs for each, and steps at least and at most
PER_RUN = 1.5  # seconds for the folder, two checkpoints and the model, besides preparing the data
SCORED, SCORED_TEXT = 2048, 4096  # held-out images, and windows: 524,288 tokens where one has 128


@dataclass(frozen=True)
class Family:
    """How a system grows with one knob. items: tokens (or examples) per parameter at the first guess of the best size."""

    variant: str | None
    fixed: Mapping[str, Any]
    knobs: Sequence[int]
    shape: Callable[[int], Mapping[str, Any]]
    rate: float
    at: int
    power: float
    items: float
    warmup: Literal["share", "examples", ""] = ""


def _gpt2(width: int) -> dict[str, Any]:
    """As deep as a 32nd of the width, two blocks at least; heads of about 32 numbers."""
    heads = min((h for h in range(1, width // 8 + 1) if width % h == 0), key=lambda h: abs(math.log(width / h / 32)))
    return {"width": width, "layers": max(2, round(width / 32)), "heads": heads}


def _vae(width: int) -> dict[str, Any]:
    return {"widths": [width, 2 * width], "hidden": [8 * width]}


def _ddpm(channels: int) -> dict[str, Any]:
    return {"channels": channels}


FAMILIES: Mapping[str, Family] = {
    "gpt2": Family(
        None,
        # Momentum of squares 0.99: smaller batches want a longer memory (Porian et al. 2024).
        {"tokenizer": "bytes", "context": 128, "batch": 16, "optimizer": "adamw", "beta2": 0.99},
        range(16, 513, 8),
        _gpt2,
        # Held-out nats per byte on 24 MB of documentation, rates a factor of two apart, the best by a parabola in their
        # logarithm: width 32 (600 steps of 16 windows) 0.0095, 64 (1,000 of 8) 0.0044, 128 (300 of 16) 0.0018.
        rate=9.5e-3,
        at=32,
        power=1.2,
        items=20.0,
        warmup="share",
    ),
    "vae": Family(
        "small",
        {"score_samples": 1},  # the bound that is trained
        range(2, 65),
        _vae,
        # Held-out bits per dimension of Fashion-MNIST: at width 4 (600 steps) 4.01, 3.98, 3.94 for 2, 4, 8e-3; at 16 (200 steps)
        # 4.16, 4.09 for 2, 4e-3: the largest rates that were tried, so better ones may lie above.
        rate=2.83e-3,
        at=32,
        power=0.5,
        items=0.5,
    ),
    "ddpm": Family(
        "laptop", {"groups": 4}, range(8, 129, 4), _ddpm, rate=1e-3, at=32, power=0.5, items=0.5, warmup="examples"
    ),
}


@dataclass(frozen=True)
class Size:
    """One size of a system: parameters by convention, training FLOPs of an example, seconds of a step and of scoring one held-out
    example."""

    overrides: Mapping[str, Any]
    params: Mapping[str, int]
    flops: float
    seconds: float
    scoring: float
    lr: float | None


@dataclass(frozen=True)
class Survey:
    """What a system's sizes need here. sizes: from small to large; tokens: of an example, 0 where the word means nothing;
    unique: training examples; held_out: examples that every run is scored on; overhead: seconds of a run besides its steps."""

    system: str
    variant: str | None
    data: str
    sizes: tuple[Size, ...]
    batch: int
    tokens: int
    unique: int
    held_out: int
    unit: str
    overhead: float
    workers: int
    threads: int
    convention: Convention
    items: float
    warmup: str
    lr_rule: str

    def n(self, size: Size) -> int:
        return size.params[self.convention]

    @property
    def per_example(self) -> int:
        """Items (tokens, or the example itself) in an example."""
        return self.tokens or 1


def survey(
    system: str,
    data: str | Path,
    *,
    smallest: int = 10_000,
    largest: int = 3_000_000,
    workers: int = 1,
    convention: Convention = "with_head",
    batch: int | None = None,
    lr: float | None = None,
    scored: int | None = None,
    variant: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    shapes: Sequence[Mapping[str, Any]] | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Survey:
    """Count every size of a system between two numbers of parameters, and time some; arguments as those of `plan`.

    Raises:
        UserError: where system, data and settings do not fit together.
    """
    kind = catalogue.method(system)
    if system in catalogue.methods() and len(stages := catalogue.stages(system)) > 1:
        raise UserError(f"{system} trains in stages, and a sweep is of one; name the first: {next(iter(stages))}.")
    if kind.needs:
        raise UserError(
            f"{system} builds on trained {', '.join(kind.needs)}, which a sweep cannot give it; choose another system."
        )
    family = FAMILIES.get(system) if shapes is None else None
    if family is None and not shapes:
        raise UserError(
            f"How {system} grows is not known here ({', '.join(FAMILIES)} are); give the settings of each size as `shapes`."
        )
    fixed = {**(family.fixed if family else {}), **({"batch": batch} if batch else {}), **(overrides or {})}
    variant = variant or (family.variant if family else None)
    source = open_source(data)
    wanted = next(f for f in ("image", "text", "wave") if f in kind.takes)
    if source.kind != wanted:
        raise UserError(f"{system} learns from {wanted} data, and {source.name} holds {source.kind} data.")
    part = source.split("train")
    settable = set(kind.Config.__dataclass_fields__)
    plain = resolve(kind, variant, fixed)
    rate = lr or (family.rate if family else None)
    spec: Spec | None = None
    store: Store | None = None
    kept: list[tuple[dict[str, Any], Method, dict[str, int], float, float | None]] = []
    for knob in family.knobs if family else range(len(shapes or ())):
        own = dict(fixed) | dict(family.shape(knob) if family else (shapes or ())[knob])
        own_rate = rate * (family.at / knob) ** family.power if family and rate else rate
        own_rate = float(f"{own_rate:.3g}") if own_rate else None
        if own_rate and "lr" in settable:
            own["lr"] = own_rate
        config = resolve(kind, variant, own)
        spec = spec or kind.measure(config, part)
        with torch.device("meta"):
            params = parameters(_built(kind, system, config, spec)).to_dict()
        if params[convention] > largest * 1.05:
            break
        if params[convention] < smallest * 0.95:
            continue
        method = _built(kind, system, config, spec)
        store = store or build(part, method)
        kept.append((own, method, params, training_flops(method, microbatch(method, store)).per_example, own_rate))
    if store is None or spec is None or not kept:
        raise UserError(
            f"{system} has no size between {smallest:,} and {largest:,} parameters; widen --smallest and --largest."
        )
    say(f"{len(kept)} sizes of {system}, {kept[0][2][convention]:,} to {kept[-1][2][convention]:,} parameters")
    test = build(source.split("test"), kept[0][1])
    held = min(len(test), scored or (SCORED_TEXT if store.window else SCORED))
    threads = max(1, torch.get_num_threads() // workers)
    chosen = sorted({round(i) for i in np.linspace(0, len(kept) - 1, PILOTS)})
    timed: list[tuple[float, float]] = []
    for i in chosen:
        flops = kept[i][3] * plain.batch
        steps = int(np.clip(PILOT / flops, *PILOT_STEPS))
        step, score = _pilot(system, kept[i][1], store, test, threads, steps)
        timed.append((step, score))
        rate_said = f"{flops / step:.2g} FLOP/s"
        say(f"{kept[i][2][convention]:,} parameters: {1000 * step:.1f} ms a step, {rate_said}")
    x, at = np.log([k[3] for k in kept]), np.log([kept[i][3] for i in chosen])
    steps, scores = (np.exp(np.interp(x, at, np.log([t[j] for t in timed]))) for j in (0, 1))
    sizes = tuple(
        Size(own, params, flops, float(steps[i]), float(scores[i]), rate)
        for i, (own, _, params, flops, rate) in enumerate(kept)
    )
    rule = (
        f"{rate:g} * ({family.at} / knob)^{family.power:g}"
        if family and rate
        else f"{rate:g} for all"
        if rate
        else "as configured"
    )
    return Survey(
        system,
        variant,
        str(lasting_name(data)),
        sizes,
        plain.batch,
        store.window or 0,
        len(store),
        held,
        unit_of(kept[0][1]),
        PER_RUN + _preparing(part, kept[0][1]),
        workers,
        threads,
        convention,
        family.items if family else 20.0 if store.window else 0.5,
        family.warmup if family else "",
        rule,
    )


def _built(kind: type[Method], system: str, config: Any, spec: Spec) -> Method:
    torch.manual_seed(0)
    method = kind(config, spec, {})
    method.name = system
    return method


def _pilot(system: str, method: Method, store: Store, test: Store, threads: int, steps: int) -> tuple[float, float]:
    """Seconds of a step (the middle one of some) and of scoring one held-out example, with so many threads; the method is
    used up."""
    before, rows = torch.get_num_threads(), []
    torch.set_num_threads(threads)
    try:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            run = Run.create(Path(folder) / "pilot", {"system": system})
            settings = Settings(budget=f"{steps + 1}steps", log_every="1steps", save_every="1000s")
            Trainer(method, store, run, settings, [lambda row: rows.append(row) if "step" in row else None]).train()
        step = (
            method.config.batch * (store.window or 1) / float(np.median([row["items_per_second"] for row in rows[1:]]))
        )
        held_out(method, test, 8)
        count = 64
        return step, held_out(method, test, count).seconds / min(count, len(test))
    finally:
        torch.set_num_threads(before)


def _preparing(part: Source, method: Method) -> float:
    """Seconds that preparing the data takes, judged by some of its records."""
    some = np.linspace(0, len(part) - 1, min(len(part), 200)).round().astype(int)
    began = time.perf_counter()
    for i in some.tolist():
        try:
            method.prepare(part[i], np.random.default_rng(0))
        except BadRecord:  # set aside when the store is built
            continue
    return (time.perf_counter() - began) / len(some) * len(part)
