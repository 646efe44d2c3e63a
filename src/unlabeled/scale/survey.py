"""What the sizes of a system cost here: parameters and FLOPs of each by counting, seconds by short pilots of some.

How a system grows, and which learning rate a size has, is said in `families.py`.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch

from unlabeled.core import catalogue
from unlabeled.core.batch import Spec
from unlabeled.core.config import resolve
from unlabeled.core.errors import BadRecord, UserError, suggest
from unlabeled.core.method import Method
from unlabeled.data.source import Source
from unlabeled.data.sources import source as open_source
from unlabeled.data.store import Store, build
from unlabeled.engine.launch import lasting_name
from unlabeled.engine.loop import Settings, Trainer
from unlabeled.engine.record import Run
from unlabeled.evaluate import knn
from unlabeled.evaluate.examples import Examples
from unlabeled.scale.count import microbatch, parameters, training_flops
from unlabeled.scale.families import FAMILIES
from unlabeled.scale.heldout import Measure, held_out, knn_error, labelled, unit_of

__all__ = ["SCORED", "Convention", "Size", "Survey", "survey"]

Convention = Literal["with_head", "total", "non_embedding", "active"]

PILOTS, PILOT, PILOT_STEPS = 6, 2e11, (5, 25)  # sizes that are timed; FLOPs for each, and steps at least and at most
PER_RUN = 1.5  # seconds for the folder, two checkpoints and the model, besides preparing the data
SCORED, SCORED_TEXT = 2048, 4096  # held-out images, and windows: 524,288 tokens where one has 128
QUERIES = 10_000  # held-out examples whose class is asked for: an error of 15 % is known to 0.36 points
FEW = 64  # held-out examples that a pilot scores


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
    unique: training examples; held_out: examples that every run is scored on; overhead: seconds of a run besides its steps;
    measure: what is scored, the loss or the kNN error of the features."""

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
    measure: Measure = "loss"

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
    measure: Measure = "loss",
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
            f"How {system} grows is not known here ({', '.join(FAMILIES)} are); in Python, give the settings of each size: "
            "unlabeled.scale.plan.plan(..., shapes=[{...}, {...}])."
        )
    if measure not in get_args(Measure):
        raise UserError(f"A sweep measures loss or knn, not {measure!r}{suggest(measure, get_args(Measure))}")
    fixed = {**(family.fixed if family else {}), **({"batch": batch} if batch else {}), **(overrides or {})}
    variant = variant or (family.variant if family else None)
    source = open_source(data)
    wanted = next(f for f in ("image", "text", "wave") if f in kind.takes)
    if source.kind != wanted:
        raise UserError(f"{system} learns from {wanted} data, and {source.name} holds {source.kind} data.")
    part = source.split("train")
    settable = set(kind.Config.__dataclass_fields__)
    plain = resolve(kind, variant, fixed)
    spec: Spec | None = None
    measuring = 0.0
    store: Store | None = None
    kept: list[tuple[dict[str, Any], Method, dict[str, int], float, float | None]] = []
    for knob in family.knobs if family else range(len(shapes or ())):
        own = dict(fixed) | dict(family.shape(knob) if family else (shapes or ())[knob])
        rate = family.lr(knob, lr) if family else lr
        if rate and "lr" in settable:
            own["lr"] = rate
        config = resolve(kind, variant, own)
        if spec is None:
            began = time.perf_counter()
            spec = kind.measure(config, part)
            measuring = time.perf_counter() - began  # every run does it: a tokenizer is trained anew, say
        with torch.device("meta"):
            params = parameters(_built(kind, system, config, spec)).to_dict()
        if params[convention] > largest * 1.05:
            break
        if params[convention] < smallest * 0.95:
            continue
        method = _built(kind, system, config, spec)
        store = store or build(part, method)
        flops = training_flops(method, microbatch(method, store)).per_example
        kept.append((own, method, params, flops, getattr(config, "lr", None)))
    if store is None or spec is None or not kept:
        raise UserError(
            f"{system} has no size between {smallest:,} and {largest:,} parameters; widen --smallest and --largest."
        )
    say(f"{len(kept)} sizes of {system}, {kept[0][2][convention]:,} to {kept[-1][2][convention]:,} parameters")
    aside = source.split("test")
    test = build(aside, kept[0][1])
    most = QUERIES if measure == "knn" else SCORED_TEXT if store.window else SCORED
    held = min(len(test), scored or most)
    asked = None
    if measure == "knn":
        asked = labelled(kept[0][1], {"train": (part, store), "test": (aside, test)}, held)
        held = len(asked[1])
    threads = max(1, torch.get_num_threads() // workers)
    chosen = sorted({round(i) for i in np.linspace(0, len(kept) - 1, PILOTS)})
    timed: list[tuple[float, float]] = []
    for i in chosen:
        flops = kept[i][3] * plain.batch
        steps = int(np.clip(PILOT / flops, *PILOT_STEPS))
        timed.append(_pilot(system, kept[i][1], store, test, threads, steps, held, asked))
        step = timed[-1][0]
        rate_said = f"{flops / step:.2g} FLOP/s"
        say(f"{kept[i][2][convention]:,} parameters: {1000 * step:.1f} ms a step, {rate_said}")
    x, at = np.log([k[3] for k in kept]), np.log([kept[i][3] for i in chosen])
    steps, scores = (np.exp(np.interp(x, at, np.log([t[j] for t in timed]))) for j in (0, 1))
    sizes = tuple(
        Size(own, params, flops, float(steps[i]), float(scores[i]), rate)
        for i, (own, _, params, flops, rate) in enumerate(kept)
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
        unit_of(kept[0][1], measure),
        PER_RUN + measuring + (_preparing(part, kept[0][1]) if kind.prepared_by is None else 0.0),
        workers,
        threads,
        convention,
        family.items if family else 20.0 if store.window else 0.5,
        family.warmup if family else "",
        family.rule(lr) if family else f"{lr:g} for all" if lr else "as configured",
        measure,
    )


def _built(kind: type[Method], system: str, config: Any, spec: Spec) -> Method:
    torch.manual_seed(0)
    method = kind(config, spec, {})
    method.name = system
    return method


def _pilot(
    system: str,
    method: Method,
    store: Store,
    test: Store,
    threads: int,
    steps: int,
    held: int,
    asked: tuple[Examples, Examples] | None,
) -> tuple[float, float]:
    """Seconds of a step (the middle one of some) and of scoring one of `held` held-out examples, with so many threads; the method
    is used up. asked: bank and queries, where the kNN error is wanted."""
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
        score = held_out(method, test, FEW).seconds / min(FEW, len(test))
        if asked is None:
            return step, score
        bank, queries = (part.first(FEW) for part in asked)
        found = knn_error(method, bank, queries).seconds / (len(bank) + len(queries)) * (len(asked[0]) + held)
        return step, (found + _voting(*asked) + score * min(held, SCORED)) / held
    finally:
        torch.set_num_threads(before)


def _voting(bank: Examples, queries: Examples) -> float:
    """Seconds of finding neighbours among the bank, judged by some of the queries and features of usual width."""
    assert bank.labels is not None
    x, some = np.random.default_rng(0).normal(size=(len(bank), 128)), queries.first(512)
    began = time.perf_counter()
    knn.predict(x, bank.labels, x[: len(some)])
    return (time.perf_counter() - began) * len(queries) / min(len(some), len(x))


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
