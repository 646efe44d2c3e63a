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

__all__ = [
    "at_checkpoint",
    "begin",
    "free_folder",
    "hand_on",
    "handed_on",
    "lasting_name",
    "resume",
    "said_by_first",
    "train",
    "untrained",
]


def train(
    system: str,
    data: str | Path | Source,
    *,
    variant: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    settings: Settings | None = None,
    out: Path | None = None,
    given: Sequence[Path] = (),
    observers: Sequence[Observer] = (),
) -> Run:
    """Train a method on data into a new run folder; under torchrun, on all its processes together.

    variant: a published one, by name. overrides: single fields of its Config. out: by default runs/SYSTEM-DATA-N.
    given: folders of trained runs of the stages that it needs.

    Raises:
        UserError: where names, settings or data do not fit together.
        Interrupted: after Ctrl-C or SIGTERM; the run is saved.
    """
    with started():
        source = data if isinstance(data, Source) else open_source(data)
        path = None
        if rank() == 0:
            try:
                path = begin(system, source, data, variant, overrides or {}, settings or Settings(), out, given).path
            except UserError as error:
                path = error
        path = said_by_first(path)
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
    given: Sequence[Path] = (),
) -> Run:
    """Make the folder of a new run: configuration, measured data, tokenizer, the models of earlier stages."""
    kind = catalogue.method(system)
    config = resolve(kind, variant, overrides)
    earlier = _earlier(system, kind.needs, given)
    wanted = next(f for f in ("image", "text", "wave") if f in kind.takes)
    if source.kind != wanted:
        raise UserError(f"{system} learns from {wanted} data, and {source.name} holds {source.kind} data.")
    part = source.split("train")
    if kind.couples and config.batch > len(part):
        config = dataclasses.replace(config, batch=max(2, len(part) // 2 * 2))  # no example beside itself
    spec = kind.measure(config, part)
    about = {
        "system": system,
        "variant": variant,
        "config": to_dict(config),
        "spec": spec.to_dict(),
        "data": {"name": source.name, "path": lasting_name(data), "identity": source.identity()},
        "settings": to_dict(settings),
        "built_on": [str(folder) for folder in given],
        "unlabeled": version("unlabeled"),
        "torch": str(torch.__version__),
    }

    def fill(folder: Path) -> None:
        if spec.tokenizer is not None:
            (folder / "model").mkdir()
            spec.tokenizer.save(folder / "model")
        for stage, (name, trained) in earlier.items():
            hand_on(trained, name, folder / "given" / stage)

    return Run.create(out or free_folder(system, source.name), about, fill)


def lasting_name(data: str | Path | Source) -> str | None:
    """What opens the same data from any folder: a built-in name or an absolute path; None for data in memory."""
    if isinstance(data, Source):
        return None
    # a name comes before a path, as in `source`
    return str(data) if str(data) in builtin_names() else str(Path(data).expanduser().resolve())


def _earlier(system: str, needs: Sequence[str], given: Sequence[Path]) -> dict[str, tuple[str, Method]]:
    """The trained methods of the stages that a method needs, by stage, with their names.

    Raises:
        UserError: where one is missing, not trained to its end, or not needed.
    """
    found = {}
    for folder in given:
        if Run(folder).status["state"] != "finished":
            raise UserError(f"{folder} is not trained to its end; go on with it first: unlabeled resume {folder}")
        name, trained = handed_on(Path(folder) / "model")
        found[name.rpartition(".")[2]] = (name, trained)
    for need in needs:
        if need not in found:
            whole = system.partition(".")[0]
            raise UserError(
                f"{system} builds on {whole}.{need}: name a run of it with --given, or train `{whole}`, which is both."
            )
    if spare := set(found) - set(needs):
        raise UserError(f"{system} needs {', '.join(needs) or 'no earlier stage'}; leave out {', '.join(spare)}.")
    return found


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
        run, whole = trainer.run, untrained(trainer.run)
        whole.load_state_dict(weights)
        hand_on(whole, run.config["system"], run.path / "model")
        run.set_status(state, **dataclasses.asdict(trainer.clock), seconds=trainer.seconds, flops=trainer.flops)
    together()


def hand_on(method: Method, system: str, folder: Path) -> None:
    """Write a trained method as safetensors and JSON: in the common layout where it has one, and always readable by
    `handed_on`."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    about = _about(method, system)
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
    if about["layout"] == "common":
        kind = catalogue.method(system)
        method = kind.from_pretrained(folder)
        method.config, method.name = from_dict(kind.Config, about["config"]), system
    else:
        method = _described(about, folder)
        method.load_state_dict(load_file(folder / "model.safetensors"), strict=False)
    return system, method.eval()


def untrained(run: Run) -> Method:
    """The method of a run with the weights that it starts from, and the trained ones of earlier stages."""
    folders = sorted((run.path / "given").glob("*/"))
    given = {folder.name: handed_on(folder)[1] for folder in folders}
    torch.manual_seed(run.config["settings"]["seed"])
    return _described(run.config, run.path / "model", given)


def _about(method: Method, system: str) -> dict[str, Any]:
    """What is needed to build the method again, with what it was given: JSON types."""
    given = {stage: _about(one, one.name) for stage, one in method.given.items()}
    about = {"system": system, "config": to_dict(method.config), "spec": method.spec.to_dict()}
    return about | ({"given": given} if given else {})


def _described(about: Mapping[str, Any], folder: Path, given: Mapping[str, Method] | None = None) -> Method:
    """The method that `_about` describes, with fresh weights; folder: where its tokenizer lies."""
    kind = catalogue.method(about["system"])
    if given is None:
        given = {stage: _described(one, folder) for stage, one in about.get("given", {}).items()}
    method = kind(from_dict(kind.Config, about["config"]), _spec(about["spec"], folder), given)
    method.name = about["system"]
    return method


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


def free_folder(system: str, data: str) -> Path:
    """runs/SYSTEM-DATA-N with the first N that is not there."""
    stem = "".join(c if c.isalnum() or c in "-_" else "-" for c in Path(data).name) or "data"
    n = 1
    while (path := Path("runs") / f"{system}-{stem}-{n}").exists():
        n += 1
    return path


def said_by_first(value: Any) -> Any:
    """What the first process has to say, on every process."""
    if world() == 1:
        return value
    said = [value]
    dist.broadcast_object_list(said, src=0)
    return said[0]
