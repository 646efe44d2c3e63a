"""From names to a run: find the method, open the data, prepare it, train, hand the model on.

`train` makes the run folder and then goes on with it exactly as `resume` does: what a run needs is in its folder.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from unlabeled.core import catalogue
from unlabeled.core.batch import Spec
from unlabeled.core.config import from_dict, resolve, to_dict
from unlabeled.core.errors import Interrupted, UserError
from unlabeled.core.method import Method
from unlabeled.data.source import Quarantined, Source, write_quarantine
from unlabeled.data.sources import builtin_names
from unlabeled.data.sources import source as open_source
from unlabeled.data.store import NothingUsable, Store, build
from unlabeled.engine import checkpoint
from unlabeled.engine.loop import Observer, Settings, Trainer
from unlabeled.engine.record import Run, write_atomically
from unlabeled.parallel.world import rank, started, together, world

__all__ = ["at_checkpoint", "begin", "hand_on", "handed_on", "resume", "train", "untrained"]


def train(
    system: str,
    data: str | Path | Source,
    *,
    variant: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    settings: Settings | None = None,
    out: Path | None = None,
    observers: Sequence[Observer] = (),
) -> Run:
    """Train a system on data into a new run folder; under torchrun, on all its processes together.

    variant: a published one, by name. overrides: single fields of its Config. out: by default runs/SYSTEM-DATA-N.

    Raises:
        UserError: where names, settings or data do not fit together.
        Interrupted: after Ctrl-C or SIGTERM; the run is saved.
    """
    with started():
        source = data if isinstance(data, Source) else open_source(data)
        path = None
        if rank() == 0:
            try:
                path = begin(system, source, data, variant, overrides or {}, settings or Settings(), out).path
            except UserError as error:
                path = error
        path = _said_by_first(path)
        if isinstance(path, UserError):
            raise path
        return _carry_out(Run(path), source, observers)


def resume(
    folder: str | Path, *, budget: str | None = None, source: Source | None = None, observers: Sequence[Observer] = ()
) -> Run:
    """Go on with a run where its last checkpoint left off; on any number of processes.

    budget: a longer one than the run was begun with, if wanted. source: for runs whose data was given in memory.

    Raises:
        UserError: where the folder is no run, its data is gone or has changed.
    """
    with started():
        run = Run(folder)
        if budget is not None and rank() == 0:
            run.change_config(settings={**run.config["settings"], "budget": budget})
        together()
        run = Run(folder)
        path = run.config["data"]["path"]
        if source is None and path is None:
            raise UserError(f"The data of {folder} was given in memory; give the same again as `source`.")
        return _carry_out(run, source or open_source(path), observers)


def begin(
    system: str,
    source: Source,
    data: str | Path | Source,
    variant: str | None,
    overrides: Mapping[str, Any],
    settings: Settings,
    out: Path | None,
) -> Run:
    """Make the folder of a new run: configuration, measured data, tokenizer."""
    kind = catalogue.method(system)
    config = resolve(kind, variant, overrides)
    wanted = next(f for f in ("image", "text", "wave") if f in kind.takes)
    if source.kind != wanted:
        raise UserError(f"{system} learns from {wanted} data, and {source.name} holds {source.kind} data.")
    part = source.split("train")
    if kind.couples and config.batch > len(part):
        config = dataclasses.replace(config, batch=max(2, len(part) // 2 * 2))  # no example beside itself
    spec = kind.measure(config, part)
    path = None  # data in memory
    if not isinstance(data, Source):  # a name comes before a path, as in `source`
        path = str(data) if str(data) in builtin_names() else str(Path(data).expanduser().resolve())
    about = {
        "system": system,
        "variant": variant,
        "config": to_dict(config),
        "spec": spec.to_dict(),
        "data": {"name": source.name, "path": path, "identity": source.identity()},
        "settings": to_dict(settings),
        "unlabeled": version("unlabeled"),
        "torch": str(torch.__version__),
    }

    def add_tokenizer(folder: Path) -> None:
        if spec.tokenizer is not None:
            (folder / "model").mkdir()
            spec.tokenizer.save(folder / "model")

    return Run.create(out or _free_folder(system, source.name), about, add_tokenizer)


def _carry_out(run: Run, source: Source, observers: Sequence[Observer]) -> Run:
    """Train the run from where it stands to the end of its budget."""
    known = run.config["data"]["identity"]
    if source.identity() != known:
        raise UserError(f"The data {source.name} has changed since {run.path} began; restore it, or train anew.")
    settings, method = from_dict(Settings, run.config["settings"]), untrained(run)
    part = source.split("train")
    if rank() == 0:
        build(part, method)
    together()
    store = build(part, method)
    trainer = Trainer(method, store, run, settings, observers)
    if rank() == 0:
        refused = _refused(store, source.split("test"), method)
        write_quarantine(run.path / "quarantine.jsonl", refused)
        run.set_status("running", processes=world())
        if refused:
            trainer.say(
                f"{len(refused):,} of {len(source) + len(source.quarantined):,} files could not be used; "
                f"{run.path / 'quarantine.jsonl'} says why."
            )
    try:
        trainer.train()
    except Interrupted:
        _finish(trainer, "interrupted")
        raise
    _finish(trainer, "finished")
    return run


def _refused(store: Store, held_out: Source, method: Method) -> list[Quarantined]:
    """What could not be used, of the held-out part too, which is prepared here and evaluated later."""
    found = list(store.quarantined)
    try:
        found += build(held_out, method).quarantined
    except NothingUsable as error:
        found += error.refused
    except UserError:  # too little text to fill an example; evaluation will say so
        pass
    return list({q.id: q for q in reversed(found)}.values())[::-1]


def _finish(trainer: Trainer, state: str) -> None:
    weights = trainer.final_state()
    if rank() == 0:
        run, kind = trainer.run, type(trainer.method)
        whole = kind(trainer.method.config, trainer.method.spec)
        whole.load_state_dict(weights)
        hand_on(whole, run.config["system"], run.path / "model")
        run.set_status(state, **dataclasses.asdict(trainer.clock), seconds=trainer.seconds, flops=trainer.flops)
    together()


def hand_on(method: Method, system: str, folder: Path) -> None:
    """Write a trained method as safetensors and JSON: in the common layout where it has one, and always readable by
    `handed_on`."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    about = {"system": system, "config": to_dict(method.config), "spec": method.spec.to_dict()}
    common = method.export()
    tensors, config = common if common is not None else (_unshared(method), None)
    if config is not None:
        write_atomically(folder / "config.json", json.dumps(config, indent=2))
    partial = folder / ".model.safetensors.partial"
    save_file({k: v.contiguous().clone() for k, v in tensors.items()}, partial, {"format": "pt"})
    partial.replace(folder / "model.safetensors")
    if method.spec.tokenizer is not None:
        method.spec.tokenizer.save(folder)
    about["layout"] = "own" if common is None else "common"
    write_atomically(folder / "unlabeled.json", json.dumps(about, indent=2))


def handed_on(folder: Path) -> tuple[str, Method]:
    """The system's name and the trained method that `hand_on` wrote, in evaluation mode; executes nothing of it.

    Raises:
        UserError: where the folder holds no such model.
    """
    from safetensors.torch import load_file

    try:
        about = json.loads((folder / "unlabeled.json").read_text())
        system = about["system"]
    except (OSError, ValueError, KeyError):
        raise UserError(f"{folder} holds no trained model (no unlabeled.json).") from None
    kind = catalogue.method(system)
    if about["layout"] == "common":
        method = kind.from_pretrained(folder)
        method.config = from_dict(kind.Config, about["config"])
    else:
        method = kind(from_dict(kind.Config, about["config"]), _spec(about["spec"], folder))
        method.load_state_dict(load_file(folder / "model.safetensors"), strict=False)
    return system, method.eval()


def untrained(run: Run) -> Method:
    """The method of a run with the weights that it starts from."""
    kind = catalogue.method(run.config["system"])
    config, spec = from_dict(kind.Config, run.config["config"]), _spec(run.config["spec"], run.path / "model")
    torch.manual_seed(run.config["settings"]["seed"])
    return kind(config, spec)


def at_checkpoint(run: Run, path: Path | None = None) -> Method:
    """The method of a run as its newest checkpoint, or the one at `path`, has it; in evaluation mode.

    Raises:
        UserError: where the run has no checkpoint yet.
    """
    path = path or checkpoint.latest(run.path / "checkpoints")[0]
    if path is None:
        raise UserError(f"{run.path} has no checkpoint yet; go on with: unlabeled resume {run.path}")
    method = untrained(run)
    checkpoint.weights(path, method)
    return method.eval()


def _unshared(method: Method) -> dict[str, Tensor]:
    seen: dict[int, str] = {}
    return {n: t for n, t in method.state_dict().items() if seen.setdefault(t.data_ptr() or id(t), n) == n}


def _spec(values: Mapping[str, Any], folder: Path) -> Spec:
    """The measured data of a run, with the tokenizer that lies in its model folder."""
    spec = from_dict(Spec, values)
    if spec.kind == "text":
        from unlabeled.data.text import load_tokenizer

        spec = dataclasses.replace(spec, tokenizer=load_tokenizer(folder))
    return spec


def _free_folder(system: str, data: str) -> Path:
    stem = "".join(c if c.isalnum() or c in "-_" else "-" for c in Path(data).name) or "data"
    n = 1
    while (path := Path("runs") / f"{system}-{stem}-{n}").exists():
        n += 1
    return path


def _said_by_first(value: Any) -> Any:
    """What the first process has to say, on every process."""
    if world() == 1:
        return value
    said = [value]
    dist.broadcast_object_list(said, src=0)
    return said[0]
