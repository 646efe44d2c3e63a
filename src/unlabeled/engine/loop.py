"""The one training loop. It never asks what it is training."""

from __future__ import annotations

import dataclasses
import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor

from unlabeled.core.batch import Batch
from unlabeled.core.clock import Clock, Duration
from unlabeled.core.errors import Interrupted, UserError
from unlabeled.core.method import Method, Outcome
from unlabeled.data.loader import Loader
from unlabeled.data.order import mix
from unlabeled.data.store import Store
from unlabeled.engine import checkpoint, machine
from unlabeled.engine.optimise import Part, parts_of
from unlabeled.engine.precision import Precision, precision
from unlabeled.engine.record import Run
from unlabeled.nets.averages import follow
from unlabeled.parallel.shard import shard, sync_gradients, whole
from unlabeled.parallel.world import device, rank, together, world

__all__ = ["Settings", "Trainer"]

Observer = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a run is carried out; what is learned is the method's Config."""

    budget: str = "10m"
    """How long: 10m, 90s, 2h, 2000steps, 1e6examples, 3e8tokens or 1e15flops."""
    seed: int = 0
    """Of weights, order and augmentation."""
    precision: Literal["fastest", "bf16", "float32"] = "fastest"
    """Format of products: bf16 where the processor has it natively, or as named."""
    compile: bool = False
    """Compile each network with torch.compile; takes tens of seconds before the first step."""
    microbatches: int = 1
    """Cut each process's batch into so many pieces to save memory; methods that couple examples refuse."""
    grains: int = 8
    """Slices of the batch with randomness of their own; the most processes that can reproduce this run."""
    save_every: str = "60s"
    """Time between checkpoints, in seconds or steps."""
    log_every: str = "1s"
    """Time between lines of metrics.jsonl, in seconds or steps."""
    keep: int = 2
    """Checkpoints that are kept."""


class Trainer:
    """Trains a method on a store into a run folder, from the newest checkpoint there if there is one."""

    def __init__(self, method: Method, store: Store, run: Run, settings: Settings, observers: Sequence[Observer] = ()):
        config = method.config
        if config.batch % world():
            raise UserError(f"A batch of {config.batch} does not divide among {world()} processes; change --batch.")
        if method.couples and settings.microbatches > 1:
            raise UserError(f"{type(method).__name__} compares the examples of a batch; it needs --microbatches 1.")
        self.grains = math.gcd(config.batch, settings.grains)
        if self.grains % world():
            raise UserError(f"{world()} processes need a multiple of as many --grains that divides the batch.")
        self.method, self.store, self.run, self.settings, self.observers = method, store, run, settings, observers
        self.budget = Duration.parse(settings.budget)
        self.precision: Precision = precision(settings.precision)
        self.loader = Loader(store, seed=settings.seed, batch=config.batch, rank=rank(), world=world())
        self.tokens_per_example = store.window or 0
        self.seconds = 0.0  # spent training, over all sessions of the run
        self.flops = 0.0
        self.flops_per_step = 0.0
        self.clock = self._clock(0, 0, 0)
        self.stop_signal: int | None = None

    # ---- one step ------------------------------------------------------------------------------------------------

    def step(self) -> dict[str, Tensor]:
        """One batch: every update it leads to. Returns detached scalars."""
        clock, method, logs = self.clock, self.method, {}
        batch = self.batch_of(clock)
        updates = method.updates(batch, clock)
        index = 0
        while (item := _next(updates)) is not None:
            name, part_batch = item
            part, prefix = self.parts[name], "" if name == "main" else f"{name}/"
            self._freeze_all_but(part)
            micro = _cut(part_batch, self.settings.microbatches)
            counts = [method.count(m, name) for m in micro]
            total = _summed(torch.stack(counts).sum())
            outcomes: list[Outcome] = []
            weights = [c / total for c in counts]
            for i, (m, weight) in enumerate(zip(micro, weights)):
                sync_gradients(self.networks, i == len(micro) - 1)
                torch.manual_seed(mix(self.settings.seed, clock.step, rank(), i, index))
                with self.precision.computing():
                    outcome = method.loss(m, name, clock)
                (outcome.loss * (weight * world())).backward()  # the sharded reduction divides by world()
                outcomes.append(outcome)
            share = torch.stack(weights)
            for key in outcomes[0].logs:
                logs[prefix + key] = _summed((torch.stack([o.logs[key].float() for o in outcomes]) * share).sum())
            logs[prefix + "loss"] = _summed((torch.stack([o.loss.detach() for o in outcomes]) * share).sum())
            logs |= {prefix + k: v for k, v in part.step(clock).items()}
            with torch.no_grad():
                method.after_update(name, outcomes, clock)
            index += 1
        if self.average:
            trained = (p for part in self.parts.values() for p in part.named.values())
            follow(self.average.values(), trained, self._decay(clock))
        return logs

    def batch_of(self, clock: Clock) -> Batch:
        """This process's transformed batch of a step, the same on any number of processes."""
        collated = self.method.collate(self.loader.at(clock.step))
        collated = {k: v.to(device(), non_blocking=True) for k, v in collated.items()}
        mine = self.grains // world()
        pieces = []
        with torch.no_grad():
            for grain, piece in enumerate(_cut(collated, mine)):
                torch.manual_seed(mix(self.settings.seed, clock.step, rank() * mine + grain))
                pieces.append(self.method.transform(piece, clock))
        return {k: torch.cat([p[k] for p in pieces]) for k in pieces[0]} if mine > 1 else pieces[0]

    def _freeze_all_but(self, part: Part) -> None:
        if len(self.parts) > 1:
            mine = set(map(id, part.named.values()))
            for other in self.parts.values():
                for p in other.named.values():
                    p.requires_grad_(id(p) in mine)

    def _decay(self, clock: Clock) -> float:
        # A short warm-up, so that the random start does not linger; the form of TensorFlow's averages (num_updates).
        return min(self.method.config.average, (1 + clock.step) / (10 + clock.step))

    # ---- the run -------------------------------------------------------------------------------------------------

    def train(self) -> None:
        """Run to the end of the budget.

        Raises:
            Interrupted: after Ctrl-C or SIGTERM, once everything is saved.
            UserError: on a non-finite loss, after rolling back to the last good checkpoint.
        """
        self._start()
        with self._signals():
            self._until_done()
        self.loader.close()

    def _start(self) -> None:
        machine.keep_freed_memory()
        method, settings = self.method.to(device()), self.settings
        path, problems = checkpoint.latest(self.run.path / "checkpoints")
        for problem in problems:
            self.say(problem)
        method.train()
        if path is None:
            with torch.no_grad():  # the same examples on every process, whatever their number
                head = Loader(self.store, seed=settings.seed, batch=self.method.config.batch, rank=0, world=1)
                batch = self.method.collate(head.store.batch(head.indices(0)))
                torch.manual_seed(mix(settings.seed, 0, 0))
                method.first_batch(method.transform({k: v.to(device()) for k, v in batch.items()}, self.clock))
                head.close()
        self._count_flops()
        self.networks = list(method.networks().values())
        for name, network in method.networks().items():
            shard(network, method.forwards.get(name, ()), self.precision.reduction)
        self.parts = parts_of(method)
        if settings.compile:
            for network in self.networks:
                network.compile()
        self.average: dict[str, Tensor] = {}
        if method.config.average:
            self.average = {n: p.detach().clone() for part in self.parts.values() for n, p in part.named.items()}
        if path is not None:
            self._restore(path)
            self.say(f"Going on from step {self.clock.step:,}.")
            self.run.forget_metrics_after(self.clock.step)
        self.last_saved = self.clock.step if path is not None else -1

    def _count_flops(self) -> None:
        # Before sharding, and on every process, since losses that couple examples meet the others.
        examples = self.method.config.batch
        batch = self.batch_of(self.clock)
        self.flops_per_step = machine.step_flops(self.method, batch, self.clock, self.precision, examples)

    def _until_done(self) -> None:
        began = time.perf_counter() - self.seconds
        save_every, log_every = Duration.parse(self.settings.save_every), Duration.parse(self.settings.log_every)
        last_save = last_log = time.perf_counter()
        logged_step, step_seconds, pending = self.clock.step, 0.0, []
        if self.last_saved < 0:
            self.save()
        while not self._done(step_seconds):
            start = time.perf_counter()
            logs = self.step()
            pending.append(logs)
            if device().type == "cpu" and not _finite(logs):
                self._non_finite(logs)
            step_seconds = (
                0.9 * step_seconds + 0.1 * (time.perf_counter() - start)
                if step_seconds
                else time.perf_counter() - start
            )
            self.seconds = time.perf_counter() - began
            self._advance()
            now = time.perf_counter()
            ended = self._done(step_seconds)
            if ended or self._due(log_every, now - last_log, self.clock.step - logged_step):
                if not all(_finite(p) for p in pending):
                    self._non_finite(pending[-1])
                self._report(pending, now - last_log, self.clock.step - logged_step)
                last_log, logged_step, pending = now, self.clock.step, []
            stopping = self._stopping()
            if ended or stopping or self._due(save_every, now - last_save, self.clock.step - self.last_saved):
                self.save()
                last_save = time.perf_counter()
            if stopping:  # after the very last step too: whoever asked to stop may have meant more than this run
                self.run.set_status("interrupted", step=self.clock.step)
                raise Interrupted(
                    f"Stopped at step {self.clock.step:,}; everything is saved. "
                    f"Go on with: unlabeled resume {self.run.path}"
                )

    def _advance(self) -> None:
        clock, batch = self.clock, self.method.config.batch
        self.flops += self.flops_per_step
        tokens = clock.tokens + batch * self.tokens_per_example
        self.clock = self._clock(clock.step + 1, clock.examples + batch, tokens)

    def _clock(self, step: int, examples: int, tokens: int) -> Clock:
        """The clock after so much has been done, as a share of this run's budget."""
        spent = {"steps": step, "examples": examples, "tokens": tokens, "seconds": self.seconds, "flops": self.flops}
        progress = min(1.0, spent[self.budget.unit] / self.budget.amount)
        steps = max(step, round(step / progress)) if progress else max(1, step)
        return Clock(step, steps, examples, tokens, examples / len(self.store), progress)

    def _done(self, step_seconds: float) -> bool:
        if self.budget.unit == "seconds":
            usual = step_seconds or self.seconds / max(1, self.clock.step)  # none taken yet: as before the resumption
            return _agreed(self.seconds + usual / 2 >= self.budget.amount)
        return self.clock.progress >= 1.0

    def _stopping(self) -> bool:
        return _agreed(self.stop_signal is not None)

    def _due(self, every: Duration, seconds: float, steps: int) -> bool:
        if every.unit == "steps":
            return steps >= every.amount
        return _agreed(seconds >= every.amount)

    def _report(self, pending: Sequence[Mapping[str, Tensor]], seconds: float, steps: int) -> None:
        keys = list(dict.fromkeys(k for logs in pending for k in logs))
        row: dict[str, Any] = {"step": self.clock.step, "examples": self.clock.examples, "tokens": self.clock.tokens}
        row |= {"seconds": round(self.seconds, 3), "progress": self.clock.progress, "epoch": self.clock.epoch}
        for key in keys:
            values = [float(logs[key]) for logs in pending if key in logs]
            row[key] = sum(values) / len(values)
        rate = steps / max(seconds, 1e-9)
        row["items_per_second"] = rate * self.method.config.batch * (self.tokens_per_example or 1)
        row["flops_per_second"] = rate * self.flops_per_step
        row["ceiling_share"] = row["flops_per_second"] / machine.ceiling(self.precision.compute)
        row["memory_bytes"] = machine.peak_memory()
        row["seconds_left"] = self.seconds * (1 / max(self.clock.progress, 1e-9) - 1)
        if rank() == 0:
            self.run.add_metrics(row)
            for observer in self.observers:
                observer(row)

    def save(self) -> None:
        """Write a checkpoint of this moment."""
        facts = {"clock": dataclasses.asdict(self.clock), "seconds": self.seconds, "flops": self.flops}
        facts["flops_per_step"] = self.flops_per_step
        folder = self.run.path / "checkpoints"
        checkpoint.save(folder, self.clock.step, self.method, self.parts, self.average, facts, self.settings.keep)
        self.last_saved = self.clock.step

    def _restore(self, path: Path) -> None:
        facts = checkpoint.restore(path, self.method, self.parts, self.average)
        self.seconds, self.flops = facts["seconds"], facts["flops"]
        saved = Clock(**facts["clock"])  # its progress is of the budget then, which may have been made longer
        self.clock = self._clock(saved.step, saved.examples, saved.tokens)
        self.flops_per_step = self.flops_per_step or facts["flops_per_step"]

    def final_state(self) -> dict[str, Tensor]:
        """Weights and buffers to hand on, whole and on the CPU; averaged where averages are kept. Collective."""
        state = self.method.state_dict()
        return {name: whole(self.average.get(name, t)).detach().cpu() for name, t in state.items()}

    def say(self, text: str) -> None:
        if rank() == 0:
            self.run.log(text)
            for observer in self.observers:
                observer({"message": text})

    def _non_finite(self, logs: Mapping[str, Tensor]) -> None:
        """Describe the batch, roll back, stop."""
        step = self.clock.step - (0 if device().type == "cpu" else 1)
        clock = dataclasses.replace(self.clock, step=max(0, step))
        indices = self.loader.indices(clock.step)
        rows = self.store.rows[indices].tolist() if self.store.window is None else indices.tolist()
        fields = {}
        for name, tensor in self.batch_of(clock).items():
            values = tensor.float()
            fields[name] = {
                "shape": list(tensor.shape),
                "min": values.min().item(),
                "max": values.max().item(),
                "mean": values.mean().item(),
                "non_finite": int((~values.isfinite()).sum()),
            }
        broken = [n for n, p in self.method.named_parameters() if not bool(p.detach().isfinite().all())]
        report = {"step": clock.step, "examples": rows, "fields": fields, "non_finite_weights": broken}
        report["logs"] = {k: float(v) for k, v in logs.items()}
        path = self.run.path / f"non-finite-step-{clock.step}.json"
        if rank() == 0:
            path.write_text(json.dumps(report, indent=2))
        good, _ = checkpoint.latest(self.run.path / "checkpoints")
        if good is not None:
            self._restore(good)
        if rank() == 0:
            self.run.forget_metrics_after(self.clock.step)
            self.run.set_status("non-finite", step=clock.step)
        together()
        raise UserError(
            f"The loss was no finite number at step {clock.step:,}: the batch is described in {path}, and the run is "
            f"back at step {self.clock.step:,}; train again with a lower --lr or --precision float32."
        )

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Let Ctrl-C and SIGTERM end the present step first; a second Ctrl-C stops at once."""

        def note(number: int, frame: Any) -> None:
            if self.stop_signal is not None and number == signal.SIGINT:
                raise KeyboardInterrupt
            self.stop_signal = number

        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {s: signal.signal(s, note) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for s, handler in before.items():
                signal.signal(s, handler)


@torch.no_grad()
def _next(updates: Iterator[tuple[str, Batch]]) -> tuple[str, Batch] | None:
    return next(updates, None)


def _cut(batch: Batch, pieces: int) -> list[Batch]:
    """Rows of a batch in so many runs of nearly equal length."""
    if pieces == 1:
        return [batch]
    cut = {k: v.tensor_split(pieces) for k, v in batch.items()}
    return [{k: v[i] for k, v in cut.items()} for i in range(pieces) if len(next(iter(cut.values()))[i])]


def _summed(value: Tensor) -> Tensor:
    if world() > 1:
        value = value.detach().clone()
        dist.all_reduce(value)
    return value


def _agreed(flag: bool) -> bool:
    """Whether any process says so: all of them save, and leave the loop, at the same step."""
    if world() == 1:
        return flag
    said = torch.tensor(float(flag), device=device())
    dist.all_reduce(said, dist.ReduceOp.MAX)
    return bool(said)


def _finite(logs: Mapping[str, Tensor]) -> bool:
    return all(math.isfinite(v) for k, v in logs.items() if k.endswith("loss"))
