"""The front door: data and a budget in; a trained model, its evaluation and a report out.

    model = unlabeled.fit("photos/", budget="10m")

It owns no logic but two decisions, each one function: `choose` (which system, which variant) and `shares` (how the
wall clock is divided). Where there is time, pilots (`scale/outlook.py`) change the size that the rules chose, or the system where
systems can be compared. Everything else is what the single commands do.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from unlabeled.core.clock import Duration
from unlabeled.core.errors import Interrupted, UserError, suggest

if TYPE_CHECKING:
    import numpy as np

    from unlabeled.data.inspect import Inspection
    from unlabeled.data.source import Source
    from unlabeled.engine.record import Run
    from unlabeled.model import Model
    from unlabeled.scale.outlook import Outlook
    from unlabeled.scale.pilots import Bench

__all__ = ["Choice", "Done", "Shares", "bench", "carry_out", "choose", "fit", "in_words", "no_room", "shares"]

Goal = Literal["represent", "generate"]
GOALS: tuple[Goal, ...] = ("represent", "generate")
SHORTEST = 20.0  # seconds; importing torch, evaluating and drawing take ten of them
HOUR = 3600.0
# Share of the budget and least seconds for evaluation: probes of features are quick, text is scored and continued, samples
# of images take as long as one gives them.
EVALUATION = {
    "simclr": (0.08, 5.0),
    "moco": (0.08, 5.0),
    "gpt2": (0.12, 7.0),
    "ddpm": (0.2, 8.0),
    "wav2vec2": (0.15, 8.0),
}
LONGEST_EVALUATION = 240.0
# Share of the budget for all that pilots cost. Where B / D^beta is 15 % of the loss and beta 0.5, as a law of `scale` has it
# (scale/forecast.py), a run that is 6 % shorter has a loss half a per cent higher.
PILOTS = 0.06
LEAST_FOR_PILOTS = 240.0  # seconds of the budget; with less, two sizes have no time for the fewest steps of a pilot
PILOTED = {
    "gpt2": ("laptop", "laptop-bytes"),
    "ddpm": ("laptop",),
    "simclr": ("small",),
}  # variants whose sizes are tried


@dataclass(frozen=True)
class Choice:
    """What to train, and why, in the words that are shown."""

    system: str
    variant: str
    goal: Goal
    overrides: Mapping[str, Any] = field(default_factory=dict)
    why: tuple[str, ...] = ()


@dataclass(frozen=True)
class Shares:
    """Seconds of the wall clock for each thing after the data is prepared."""

    training: float
    evaluation: float
    report: float


@dataclass(frozen=True)
class Done:
    """What `carry_out` has made."""

    run: Run
    model: Model
    choice: Choice
    found: Inspection
    evaluation: Mapping[str, Any]
    report: Path
    seconds: float
    forecast: Mapping[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        return {
            "run": str(self.run.path),
            "report": str(self.report),
            "system": self.choice.system,
            "variant": self.choice.variant,
            "goal": self.choice.goal,
            "overrides": dict(self.choice.overrides),
            "why": list(self.choice.why),
            "found": self.found.to_dict(),
            "evaluation": dict(self.evaluation),
            "forecast": None if self.forecast is None else dict(self.forecast),
            "seconds": round(self.seconds, 2),
        }


def fit(
    data: str | Path | np.ndarray | list[str],
    *,
    budget: str = "10m",
    goal: Goal | None = None,
    out: str | Path | None = None,
    seed: int = 0,
    pilots: bool = True,
    progress: bool = True,
) -> Model:
    """Look at data, choose a system, train within the budget, evaluate, report; returns the trained model.

    data: a folder, a file, a built-in name, an array of images (n, height, width[, channels]) or a list of texts.
    budget: wall clock in all, such as "60s" or "10m". goal: "represent" or "generate"; by default what this kind of
    data is mostly used for. out: folder of the run. pilots: try sizes in a few per cent of the budget, where it has room
    for them; without, rules alone choose. progress: show what is found, chosen and reached.

    Raises:
        UserError: where the data cannot be used, or the budget is too short for it.
    """
    folder = Path(out) if out is not None else None
    return carry_out(data, budget=budget, goal=goal, out=folder, seed=seed, pilots=pilots, show=progress).model


def choose(found: Inspection, goal: Goal | None, seconds: float, *, accelerator: bool = False) -> Choice:
    """Which system and variant for this data, goal and budget. All rules are here, first match first.

    seconds: of the whole budget. accelerator: whether there is one; else a processor of a few cores is assumed.

    Raises:
        UserError: where no method does this with this kind of data yet.
    """
    if goal is not None and goal not in GOALS:
        raise UserError(f"A goal is {' or '.join(GOALS)}; {goal!r} is neither{suggest(goal, GOALS)}")
    if found.kind == "image":
        return _choose_for_images(found, goal or "represent", seconds, accelerator)
    if found.kind == "text":
        return _choose_for_text(found, goal or "generate", seconds, accelerator)
    return _choose_for_sound(found, goal or "represent", seconds, accelerator)


def _choose_for_sound(found: Inspection, goal: Goal, seconds: float, accelerator: bool) -> Choice:
    if goal == "generate":
        raise UserError("No method of this version makes sound yet; it can be represented: --goal represent.")
    why = ["sound to represent: wav2vec 2.0 tells what was masked from what was not"]
    changed: dict[str, Any] = {}
    if accelerator and seconds >= HOUR and found.count >= 10_000:
        why.append("an hour or more on an accelerator and ten thousand recordings: the paper's base network")
        return Choice("wav2vec2", "base", goal, {"batch": 48}, tuple(why))
    why.append("the variant that learns in minutes on two cores")
    if found.count < 64:  # four batches of 16 make an epoch
        changed["batch"] = max(4, found.count // 16 * 4)
        why.append(f"only {found.count:,} recordings: {changed['batch']} at a time")
    return Choice("wav2vec2", "small", goal, changed, tuple(why))


def _choose_for_images(found: Inspection, goal: Goal, seconds: float, accelerator: bool) -> Choice:
    side = int(min(found.extents["height"].median, found.extents["width"].median))
    why = [f"images to {goal}: {'SimCLR compares views of them' if goal == 'represent' else 'DDPM learns to denoise'}"]
    changed: dict[str, Any] = {}
    if goal == "generate":
        if accelerator and seconds >= HOUR:
            why.append("an hour or more on an accelerator: the paper's network for 32 x 32 pixels")
            return Choice("ddpm", "cifar10", goal, changed, tuple(why))
        why.append("the variant that learns in minutes on two cores")
        if side <= 16:
            changed["image_size"] = 16
            why.append(f"the images are only {side} pixels wide: 16 x 16 instead of 32 x 32")
        return Choice("ddpm", "laptop", goal, changed, tuple(why))
    if accelerator and seconds >= HOUR and side >= 96:
        variant, changed = "paper", {"batch": 512}
        why.append(
            "an hour or more on an accelerator, and large images: ResNet-50 at 224 pixels, batch 512 to fit memory"
        )
    elif (accelerator and seconds >= 600) or seconds >= 4 * HOUR:
        variant = "cifar"
        why.append("time enough for a ResNet-18 at 32 pixels")
    else:
        variant = "small"
        why.append("the variant that learns in minutes on two cores")
        # Cost grows with the square of the side; views below 28 pixels lose too much of a photograph.
        wanted = 28 if seconds < 1800 else 48 if seconds < 2 * HOUR else 64
        if side >= wanted > 28:
            changed["image_size"] = wanted
            why.append(f"more than half an hour, and the images are large: views of {wanted} pixels")
    if found.count < 1024:  # four batches of 256 make an epoch
        changed["batch"] = max(16, found.count // 4 // 8 * 8)
        why.append(f"only {found.count:,} images: {changed['batch']} at a time")
    return Choice("simclr", variant, goal, changed, tuple(why))


def _choose_for_text(found: Inspection, goal: Goal, seconds: float, accelerator: bool) -> Choice:
    size = found.bytes
    why = [
        f"text to {goal}: GPT-2 predicts the next token"
        + (", and its states are features" if goal == "represent" else "")
    ]
    changed: dict[str, Any] = {}
    if accelerator and seconds >= HOUR and size >= 100e6:
        why.append("an hour or more on an accelerator and 100 MB of text: the 124-million-parameter model")
        return Choice("gpt2", "small", goal, {"batch": 32}, tuple(why))
    if size < 1e6:
        variant = "laptop-bytes"
        why.append("less than 1 MB: single bytes instead of learned tokens, which would each be seen too rarely")
    else:
        variant = "laptop"
        why.append("the variant that learns in minutes on two cores, with tokens learned from the text")
    if size < 64 * 257:  # four batches of 16 windows of 256
        changed["context"] = 64
        why.append("very little text: windows of 64 bytes, so that there are several")
    return Choice("gpt2", variant, goal, changed, tuple(why))


def shares(budget: float, spent: float, system: str) -> Shares:
    """Divide what is left of the budget (seconds), `spent` of it being gone: evaluation gets a share of the whole
    budget within bounds, the report a little, training the rest but never less than a third of what is left."""
    left = max(budget - spent, 1.0)
    report = 0.5 + 0.005 * min(budget, 600)
    share, least = EVALUATION.get(system, (0.15, 8.0))
    evaluation = min(max(share * budget, least), LONGEST_EVALUATION)
    return Shares(max(left - evaluation - report, left / 3), evaluation, report)


def carry_out(
    data: Any,
    *,
    budget: str = "10m",
    goal: Goal | None = None,
    out: Path | None = None,
    seed: int = 0,
    pilots: bool = True,
    show: bool = True,
    since: float | None = None,
) -> Done:
    """What `fit` does, with all that it made. since: `time.perf_counter()` of when the budget began to run."""
    since = time.perf_counter() if since is None else since
    whole = Duration.parse(budget)
    if whole.unit != "seconds":
        raise UserError(f"fit needs a budget in time, such as 10m; for {budget} use `unlabeled train` with a system.")
    if whole.amount < SHORTEST:
        raise UserError(f"{budget} leaves no time to train beside evaluation and report; give at least {SHORTEST:g}s.")

    def say(text: str) -> None:
        if show:
            print(text, flush=True)

    def spent() -> float:
        return time.perf_counter() - since

    from unlabeled.data.inspect import inspect
    from unlabeled.engine.console import Console
    from unlabeled.engine.launch import begin, resume, untrained
    from unlabeled.engine.loop import Settings
    from unlabeled.engine.record import Run
    from unlabeled.model import load, source_of
    from unlabeled.parallel.world import device
    from unlabeled.report import keep, text_of, write

    source = source_of(data)
    found = inspect(source, limit=int(min(1000, max(100, 2 * whole.amount))))
    say(f"Found   {in_words(found)}")
    choice = choose(found, goal, whole.amount, accelerator=device().type != "cpu")
    unfit = no_room(found, choice, whole.amount) if pilots else "pilots are switched off"
    if unfit:
        choice = replace(choice, why=(*choice.why, f"no pilots: {unfit}"))
    say(f"Chosen  {choice.system}, variant {choice.variant}")
    for reason in choice.why:
        say(f"        - {reason}")

    given = data if isinstance(data, (str, Path)) else source
    settings = Settings(budget=budget, seed=seed)
    run = begin(choice.system, source, given, choice.variant, choice.overrides, settings, out)
    try:
        _prepare(source.split("train"), untrained(run), whole.amount, spent)
    except UserError:
        shutil.rmtree(run.path)  # nothing but its configuration is in it
        raise
    outlook = None
    if not unfit:
        try:
            outlook = _look_out(source, run, choice, whole.amount, spent, seed)
        except Interrupted:
            shutil.rmtree(run.path)
            raise Interrupted("Stopped while pilots ran; nothing is kept.") from None
        run, choice = _settled(run, source, given, choice, outlook, settings, out)
        say(_shown(outlook, whole.amount))
    share = shares(whole.amount, spent(), choice.system)
    ahead = "looking and preparing" if unfit else "looking, preparing and pilots"
    say(
        f"Plan    {whole}: {spent():.0f} s went into {ahead}, {share.training:.0f} s are for training, "
        f"{share.evaluation:.0f} s for evaluation, {share.report:.0f} s for the report"
    )
    if share.training < whole.amount / 3:
        say("        little is left for training; a longer budget would serve this data better")
    about = {"budget": str(whole), "goal": goal, "why": list(choice.why), "pilots": pilots}
    run.change_config(fit=about)
    unit = {"image": "images", "text": "tokens", "wave": "clips"}[found.kind]
    with Console(unit) if show else nullcontext() as console:
        observers = [console] if console is not None else []
        resume(run.path, budget=f"{share.training:.2f}s", source=source, observers=observers)

    from unlabeled.evaluate import evaluate

    run = Run(run.path)  # as the training left it
    model = load(run.path, source)
    forecast = None
    if outlook is not None and not isinstance(outlook, str):
        reached = outlook.measured(model.method)
        steps = run.status["step"]
        forecast = outlook.to_dict(whole.amount) | {
            "reached": reached,
            "taken": steps,
            "said": outlook.compared(reached, steps),
        }
        run.change_config(fit={**about, "forecast": forecast})
        say(f"\n{forecast['said']}")
    left = max(2.0, whole.amount - spent() - share.report)
    evaluation = keep(run, evaluate(model, quick=whole.amount < 300, seed=seed, budget_seconds=left))
    report = write(run, evaluation)
    say("\n" + text_of(evaluation))
    say(f"\nReport  {report}\nModel   {run.path}   ({spent():.0f} s of {whole})\n\nNext")
    for line in _next(run.path, choice):
        say(f"  {line}")
    return Done(run, model, choice, found, evaluation, report, spent(), forecast)


def no_room(found: Inspection, choice: Choice, seconds: float) -> str:
    """Why there can be no pilots for this choice, as the end of a sentence, or ""."""
    from unlabeled.parallel.world import world

    if found.kind == "wave":
        return "of sound they would be too short to tell anything"
    if choice.variant not in PILOTED.get(choice.system, ()):
        return f"{choice.variant} is too large for them"
    if seconds < LEAST_FOR_PILOTS:
        return f"a budget of less than {LEAST_FOR_PILOTS:g} s has no room for them"
    if choice.system == "simclr" and len(found.classes) < 2:
        return "encoders can only be compared by classes, and there are none"
    return "several processes train together" if world() > 1 else ""


def _look_out(
    source: Source, run: Run, choice: Choice, budget: float, spent: Callable[[], float], seed: int
) -> Outlook | str:
    """Pilots of the sizes of the choice, within their share of the budget; or why there are none."""
    from unlabeled.data.store import build
    from unlabeled.engine.launch import untrained
    from unlabeled.scale.outlook import look_out

    try:
        method = untrained(run)
        stores = [build(source.split(part), method) for part in ("train", "test")]  # the long run needs both too
        began, seconds = time.perf_counter(), PILOTS * budget
        benches = [bench(choice.system, choice, source, method.spec, stores, seed)]
        if choice.system == "simclr" and _preparing(source, method) < seconds / 4:
            benches += _beside("moco", choice, source, seed)
    except UserError as error:
        return str(error).rstrip(".")
    training = shares(budget, spent() + seconds, choice.system).training
    return look_out(benches, seconds, training, usual=choice.system, since=began)


def bench(system: str, choice: Choice, source: Source, spec: Any, stores: Sequence[Any], seed: int) -> Bench:
    """Where pilots of a system run and models of it are measured. stores: the training and the test part, prepared.

    Raises:
        UserError: where there is too little data, or there are no classes to compare encoders by.
    """
    from unlabeled.scale.pilots import ENCODERS, Bench

    labels = None
    if system in ENCODERS:
        train, test = source.split("train").labels, source.split("test").labels
        if train is None or test is None:
            raise UserError("encoders can only be compared by classes, and there are none")
        labels = (train, test)
    return Bench(system, choice.variant, choice.overrides, spec, *stores, labels=labels, seed=seed)


def _beside(system: str, choice: Choice, source: Source, seed: int) -> list[Bench]:
    """Another system of the same variant and settings; none where it cannot have them."""
    from unlabeled.core import catalogue
    from unlabeled.data.store import build

    try:
        measure = catalogue.method(system).measure
        method = catalogue.build(
            system, choice.variant, lambda _, config: measure(config, source.split("train")), **choice.overrides
        )
        stores = [build(source.split(part), method) for part in ("train", "test")]
        return [bench(system, choice, source, method.spec, stores, seed)]
    except UserError:
        return []


def _preparing(source: Source, method: Any) -> float:
    """About how many seconds preparing the images again, for another system, would take on one thread."""
    import numpy as np

    from unlabeled.core.errors import BadRecord

    part = source.split("train")
    some, began = range(0, len(part), max(1, len(part) // 64)), time.perf_counter()
    for i in some:
        try:
            method.prepare(part[i], np.random.default_rng(i))
        except BadRecord:
            continue
    return (time.perf_counter() - began) / len(some) * len(source)


def _settled(
    run: Run, source: Source, given: Any, choice: Choice, outlook: Outlook | str, settings: Any, out: Path | None
) -> tuple[Run, Choice]:
    """The run and the choice as the pilots have it; nothing of the run was trained yet."""
    from unlabeled.core import catalogue
    from unlabeled.core.config import resolve, to_dict
    from unlabeled.engine.launch import begin

    if isinstance(outlook, str):
        return run, replace(choice, why=(*choice.why, f"no pilots: {outlook}"))
    best = outlook.candidate
    made = replace(choice, system=best.system, overrides=best.overrides, why=(*choice.why, *outlook.why))
    if best.system != choice.system:
        shutil.rmtree(run.path)
        return begin(best.system, source, given, best.variant, best.overrides, settings, out), made
    run.change_config(config=to_dict(resolve(catalogue.method(best.system), best.variant, best.overrides)))
    return run, made


def _shown(outlook: Outlook | str, budget: float) -> str:
    """What the pilots found, as lines for the terminal."""
    if isinstance(outlook, str):
        return f"Pilots  none: {outlook}"
    from unlabeled.report import text_of

    lines = text_of({"tables": [outlook.table()]}).splitlines() + [f"- {reason}" for reason in outlook.why]
    cost = f"{outlook.seconds:.0f} s ({outlook.seconds / budget:.0%} of the budget)"
    head = f"Pilots  {len(outlook.pilots)} runs, {cost}: {outlook.candidate.name}"
    return "\n".join([head, *(f"        {line}".rstrip() for line in lines)])


def in_words(found: Inspection) -> str:
    """One line on what the data is."""
    kinds = {"image": "images", "text": "texts", "wave": "recordings"}
    parts = [f"{found.name}: {found.count:,} {kinds[found.kind]}"]
    if found.kind == "image":
        height, width = found.extents["height"], found.extents["width"]
        same = height.smallest == height.largest and width.smallest == width.largest
        sizes = f"{width.median:g} x {height.median:g} pixels" + ("" if same else " in the middle, "
            f"{width.smallest:g} x {height.smallest:g} to {width.largest:g} x {height.largest:g}")  # fmt: skip
        parts += [sizes, " and ".join(found.channels)]
    elif found.kind == "wave":
        parts.append(f"{found.extents['duration'].median:.1f} s in the middle")
    parts.append(_size(found.bytes))
    if found.classes:
        parts.append(f"{len(found.classes)} classes (never trained on)")
    if found.splits:
        parts.append(" + ".join(f"{n:,} {name}" for name, n in found.splits.items()))
    twice = sum(len(ids) - 1 for ids in found.duplicates)
    for count, what in ((twice, "exact duplicates"), (len(found.blank), "empty"), (len(found.unreadable), "unusable")):
        if count:
            parts.append(
                f"{count:,} {what}" + (f" among {found.checked:,} looked at" if found.checked < found.count else "")
            )
    return ", ".join(parts)


def _prepare(part: Source, method: Any, budget: float, spent: Any) -> None:
    """Build the store ahead, so that training starts with a known time left.

    Raises:
        UserError: as soon as it is clear that preparing alone would take more than half of the budget.
    """
    from unlabeled.data.store import build

    began = time.perf_counter()

    def watch(done: int, count: int) -> None:
        took = time.perf_counter() - began
        if took > 3 and done and spent() - took + took * count / done > budget / 2:
            needed = 2.5 * took * count / done
            raise UserError(
                f"Preparing the {count:,} items of {part.name} alone takes {took * count / done:.0f} s here; give a "
                f"budget of {max(1, round(needed / 60))}m or more, or a part of the data."
            )

    build(part, method, watch)


def _next(path: Path, choice: Choice) -> list[str]:
    lines = [f"unlabeled evaluate {path}", f"unlabeled resume {path} --budget 30m"]
    if choice.system in ("ddpm", "gpt2"):
        lines.insert(0, f"unlabeled sample {path} -n 16")
    if choice.goal == "represent":
        lines.insert(0, f"unlabeled embed {path} DATA --out features.parquet")
    return lines


def _size(count: int) -> str:
    for size, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count} bytes"
