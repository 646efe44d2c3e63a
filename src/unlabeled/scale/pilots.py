"""Pilots: short trainings of candidates beside the one that is wanted, each measured as the long one will be.

A pilot trains on the training part less a slice of it, and is measured on that slice, by which candidates are compared, and on
examples of the test part, of which the forecast is, since the long run trains on the slice too. What may be compared is:

    gpt2            sizes, by nats per token
    ddpm            sizes, by the bound in bits per dimension, at fewer places of the chain than usual
    simclr, moco    both systems and their sizes, by the kNN error of their features, where the examples have classes; losses of
                    different systems mean different things

Learning rates stay as the variant has them. The steps of Muon are normalised, so that one rate is a reasonable rule over widths
of gpt2: after 150 steps of 1,024 bytes of moby-dick, at 2.5e-3, 5e-3, 1e-2 and 2e-2, 64 wide has 2.50, 2.42, 2.36 and 2.24 nats
per byte and 192 wide 2.34, 2.24, 2.06 and 2.12: the variant's 5e-3 costs both 8 %. For the other systems it is an assumption.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unlabeled.core import catalogue
from unlabeled.core.batch import Spec
from unlabeled.core.config import resolve
from unlabeled.core.errors import UserError
from unlabeled.core.method import Method
from unlabeled.data.store import Store
from unlabeled.engine.loop import Settings, Trainer
from unlabeled.engine.record import Run
from unlabeled.evaluate.examples import Examples
from unlabeled.scale.count import microbatch, parameters, training_flops
from unlabeled.scale.forecast import PRIOR, Prior
from unlabeled.scale.halving import Candidate, Pilot
from unlabeled.scale.heldout import HeldOut, held_out, knn_error, unit_of

__all__ = ["ENCODERS", "LADDERS", "Bench", "Part", "slices"]

ENCODERS = ("simclr", "moco")
BLOCKS = 16  # runs of neighbours that the slice consists of: neighbouring windows are of one document
SLICE, LEAST = 64, 16  # examples that a loss is measured on, in the slice and of the test part
BANK, QUERIES = 2000, 500  # labelled examples, for the kNN error
KNN_NOISE = (
    0.04  # as `Prior.noise`: an error of 500 is known to a tenth, and less badly where all are measured on the same
)
COUNTED = (
    16  # examples of a batch, where a loss that compares them is counted; their comparisons are a small part of it
)
WARM_UP = 3  # steps of the first training of all, which pays for what a process does once
WARM = 0.05  # of a pilot, for warm-ups that are stated in examples


def _gpt2(width: int) -> Mapping[str, Any]:
    """As the variant of 256: a block for every 64 of the width, two at least, and heads of 64; of 32 below 192."""
    return {"width": width, "layers": max(2, width // 64), "heads": width // (64 if width >= 192 else 32)}


def _conv4(width: int) -> Mapping[str, Any]:
    return {"conv_widths": (width, 2 * width, 4 * width, 8 * width)}


@dataclass(frozen=True)
class Ladder:
    """Sizes of a system by one number. scoring: settings while it is measured."""

    sizes: Sequence[int]
    shape: Callable[[int], Mapping[str, Any]]
    word: str
    scoring: Mapping[str, Any] = field(default_factory=dict)


LADDERS: Mapping[str, Ladder] = {
    "gpt2": Ladder((64, 96, 128, 192, 256, 384), _gpt2, "{} wide"),
    "ddpm": Ladder((16, 24, 32, 48), lambda n: {"channels": n}, "of {} channels", {"bound_points": 8}),
    "simclr": Ladder((16, 32, 64), _conv4, "of {} channels"),
    "moco": Ladder((16, 32, 64), _conv4, "of {} channels"),
}


class Part(Store):
    """Some examples of a store, under numbers of their own."""

    def __init__(self, store: Store, indices: np.ndarray) -> None:
        self.__dict__.update(vars(store))
        self._whole, self._indices, self._length = store, indices, len(indices)
        if store.window is None:
            self.rows = store.rows[indices]

    def batch(self, indices: np.ndarray, beside: np.ndarray | None = None) -> dict[str, np.ndarray]:
        return self._whole.batch(self._indices[indices], None if beside is None else self._indices[beside])


def slices(count: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the examples that pilots train on, and of those that they are measured on: `BLOCKS` runs of neighbours, spread
    evenly, about `size` in all and at most a tenth."""
    each = min(size, count // 10) // BLOCKS
    starts = np.linspace(0, count - each, BLOCKS).round().astype(int)
    held = np.unique((starts[:, None] + np.arange(each)).ravel())
    return np.setdiff1d(np.arange(count), held), held


class _Unsaved(Trainer):
    """A training that nobody will go on with."""

    def save(self) -> None:
        self.last_saved = self.clock.step


class Bench:
    """Where the candidates of one system run.

    store, test: both parts, prepared. part: the source of the training part; its classes are used if `knn`. base: settings that
    the rules chose, to which sizes are added.

    Raises:
        UserError: where there is too little to hold some out.
    """

    def __init__(
        self,
        system: str,
        variant: str,
        base: Mapping[str, Any],
        spec: Spec,
        store: Store,
        test: Store,
        *,
        labels: tuple[np.ndarray, np.ndarray] | None = None,
        seed: int = 0,
    ) -> None:
        self.system, self.variant, self.base, self.spec, self.seed = system, variant, dict(base), spec, seed
        self.kind, self.ladder, self.store, self.labels = catalogue.method(system), LADDERS[system], store, labels
        learned, held = slices(len(store), SLICE if labels is None else QUERIES)
        if min(len(held), len(test)) < LEAST:
            raise UserError(f"{len(store):,} examples are too few to hold some out for pilots.")
        self.training, self.held, self.test = Part(store, learned), Part(store, held), test
        if labels is not None:
            self.bank = _labelled(store, learned, labels[0], BANK)
            self.queries = _labelled(store, held, labels[0], QUERIES)
            self.tests = _labelled(test, np.arange(len(test)), labels[1], QUERIES)
            if min(len(self.queries), len(self.tests)) < LEAST or len(set(np.asarray(self.bank.labels).tolist())) < 2:
                raise UserError("Too few examples have a class to compare candidates by.")

        self.unit = unit_of(self.build(base), "loss" if labels is None else "knn")

    @property
    def prior(self) -> Prior:
        return PRIOR if self.labels is None else replace(PRIOR, noise=(KNN_NOISE, PRIOR.noise[1]))

    def candidates(self, left: Callable[[], float] = lambda: math.inf) -> list[Candidate]:
        """The sizes from small to large, the variant's own among them; fewer where the seconds that are left run out."""
        found, usual = [], resolve(self.kind, self.variant, self.base)
        for size in self.ladder.sizes:
            if left() <= 0:
                break
            shape = self.ladder.shape(size)
            same = all(getattr(usual, name) == value for name, value in shape.items())
            overrides = self.base if same else {**self.base, **shape}
            method = self.build({**overrides, "batch": COUNTED} if self.kind.couples else overrides)
            flops = training_flops(method, microbatch(method, self.store)).per_example * usual.batch
            items = usual.batch * (self.store.window or 1)
            word = self.ladder.word.format(size)
            found.append(
                Candidate(self.system, self.variant, overrides, word, parameters(method).with_head, int(flops), items)
            )
        return found

    def build(self, overrides: Mapping[str, Any]) -> Method:
        torch.manual_seed(self.seed)
        method = self.kind(resolve(self.kind, self.variant, overrides), self.spec, {})
        method.name = self.system
        return method

    def warm_up(self, candidate: Candidate) -> float:
        """Seconds of a step, after what a process does only once."""
        return self._train(self.build(candidate.overrides), f"{WARM_UP}steps")[1]

    def run(self, candidate: Candidate, seconds: float, step_seconds: float) -> Pilot:
        """Train for so many seconds, and measure. step_seconds: a guess of what a step takes.

        Raises:
            Interrupted: after Ctrl-C or SIGTERM.
        """
        began = time.perf_counter()
        overrides, expected = dict(candidate.overrides), seconds / step_seconds
        usual = resolve(self.kind, self.variant, overrides)
        if "warmup_examples" in self.kind.Config.__dataclass_fields__:
            overrides["warmup_examples"] = min(usual.warmup_examples, WARM * expected * usual.batch)
        method = self.build(overrides)
        try:
            steps, each = self._train(method, f"{seconds:.3f}s")
            loss, tested = self.measure(method, held=True).loss, self.measure(method).loss
        except UserError as error:
            return Pilot(candidate, 0, math.nan, time.perf_counter() - began, failed=str(error))
        if not (math.isfinite(loss) and math.isfinite(tested)):
            return Pilot(candidate, steps, each, time.perf_counter() - began, failed="its loss is no finite number")
        return Pilot(candidate, steps, each, time.perf_counter() - began, loss, tested)

    def measure(self, method: Method, held: bool = False) -> HeldOut:
        """On the slice of the training part if `held`, else on the test part; the same examples and noise each time."""
        if self.labels is not None:
            return knn_error(method, self.bank, self.queries if held else self.tests)
        config = method.config
        method.config = replace(config, **self.ladder.scoring)
        state = torch.get_rng_state()
        torch.manual_seed(0)
        try:
            return held_out(method, self.held if held else self.test, SLICE)
        finally:
            method.config = config
            torch.set_rng_state(state)

    def _train(self, method: Method, budget: str) -> tuple[int, float]:
        """Steps, and seconds of one on average, without the first; the method has the weights it would hand on."""
        rows: list[Mapping[str, Any]] = []
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            run = Run.create(Path(folder) / "pilot", {"system": self.system})
            settings = Settings(budget=budget, seed=self.seed, log_every="1steps", save_every="1000000s")
            trainer = _Unsaved(
                method, self.training, run, settings, [lambda row: rows.append(row) if "step" in row else None]
            )
            trainer.train()
        method.load_state_dict(trainer.final_state())
        items = method.config.batch * (self.store.window or 1)
        return trainer.clock.step, float(np.mean([items / row["items_per_second"] for row in rows[1:] or rows]))


def _labelled(store: Store, indices: np.ndarray, labels: np.ndarray, most: int) -> Examples:
    """Some of these examples whose class is known, drawn at random; labels: by record of the source."""
    of = np.asarray(labels, np.int64)[store.rows[indices]]
    known = np.flatnonzero(of >= 0)
    known = known[np.random.default_rng(0).permutation(len(known))[:most]]
    return Examples(store, indices[known], of[known])
