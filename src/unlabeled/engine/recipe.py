"""Systems of several trainings: their stages in order, each an ordinary run in a folder of the recipe.

    RECIPE/recipe.json     what was asked for
    RECIPE/codes/          a run
    RECIPE/prior/          a run that was given the model of the one before

A stage that is there and was asked for in the same way is not trained again; one that was stopped is gone on with.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from unlabeled.core import catalogue
from unlabeled.core.clock import Duration
from unlabeled.core.config import fingerprint, from_dict, to_dict
from unlabeled.core.errors import UserError, suggest
from unlabeled.data.source import Source
from unlabeled.data.sources import source as open_source
from unlabeled.engine import launch
from unlabeled.engine.checkpoint import checksum
from unlabeled.engine.launch import begin, free_folder, lasting_name, said_by_first
from unlabeled.engine.loop import Observer, Settings
from unlabeled.engine.record import Run, is_recipe, write_atomically
from unlabeled.parallel.world import rank, started

__all__ = ["resume", "system_of", "train"]


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
    """Train a system on data; arguments as those of `launch.train`, which does it where there is one stage.

    Of several, in order, the last one's run is returned. The budget is divided by the stages' shares. A setting goes to
    every stage that has it. An `out` that holds stages already is gone on with: what was made in the same way stays,
    what was made in another is set aside.

    Raises:
        UserError: where names, settings or data do not fit together.
        Interrupted: after Ctrl-C or SIGTERM; the stage that was being trained is saved.
    """
    stages, overrides = catalogue.stages(system) if system in catalogue.methods() else {}, overrides or {}
    if len(stages) < 2:
        return launch.train(
            system,
            data,
            variant=variant,
            overrides=overrides,
            settings=settings,
            out=out,
            given=given,
            observers=observers,
        )
    if given:
        raise UserError(f"{system} trains all its stages; --given is for one of them: {', '.join(stages)}.")
    with started():
        source = data if isinstance(data, Source) else open_source(data)
        _check(stages, variant, overrides)
        folder = said_by_first(out or free_folder(system, source.name))
        asked = {
            "system": system,
            "stages": [name.rpartition(".")[2] for name in stages],
            "data": lasting_name(data),
            "variant": variant,
            "overrides": dict(overrides),
            "settings": to_dict(settings or Settings()),
        }
        if rank() == 0:
            if folder.exists() and any(folder.iterdir()) and not is_recipe(folder):
                raise UserError(f"{folder} is not empty and holds no stages of {system}; name another with --out.")
            folder.mkdir(parents=True, exist_ok=True)
            write_atomically(folder / "recipe.json", json.dumps(asked, indent=2))
        return _carry_out(folder, asked, data, source, observers)


def resume(
    folder: str | Path, *, budget: str | None = None, source: Source | None = None, observers: Sequence[Observer] = ()
) -> Run:
    """Go on with a run, or with a recipe to the end of its last stage, where it was stopped.

    budget: a longer one (of all stages together), if wanted: finished stages that had less go on too.

    Raises:
        UserError: where the folder is neither, or its data is gone or has changed.
    """
    folder = Path(folder)
    if not is_recipe(folder):
        return launch.resume(folder, budget=budget, source=source, observers=observers)
    asked = json.loads((folder / "recipe.json").read_text())
    if budget is not None:
        asked["settings"]["budget"] = budget
    if source is None and asked["data"] is None:
        raise UserError(f"The data of {folder} was given in memory; give the same again as `source`.")
    with started():
        if rank() == 0:
            write_atomically(folder / "recipe.json", json.dumps(asked, indent=2))
        opened = source or open_source(asked["data"])
        return _carry_out(folder, asked, asked["data"] or opened, opened, observers)


def system_of(folder: str | Path) -> str:
    """The name of what was trained in a run or recipe, whether or not it came to its last stage."""
    recipe = Path(folder) / "recipe.json"
    return json.loads(recipe.read_text())["system"] if recipe.exists() else Run(folder).config["system"]


def _check(stages: Mapping[str, Any], variant: str | None, overrides: Mapping[str, Any]) -> None:
    for name, kind in stages.items():
        if variant is not None and variant not in kind.variants:
            raise UserError(f"{name} has no variant {variant!r}{suggest(variant, kind.variants) or '.'}")
    known = {field for kind in stages.values() for field in kind.Config.__dataclass_fields__}
    for field in overrides:
        if field not in known:
            raise UserError(f"{field!r} is no setting of {', '.join(stages)}{suggest(field, known) or '.'}")


def _carry_out(folder: Path, asked: Mapping[str, Any], data: Any, source: Source, observers: Sequence[Observer]) -> Run:
    stages = catalogue.stages(asked["system"])
    whole, shares = Duration.parse(asked["settings"]["budget"]), sum(kind.share for kind in stages.values())
    made: dict[str, Run] = {}
    for name, kind in stages.items():
        stage = name.rpartition(".")[2]
        part = replace(whole, amount=whole.amount * kind.share / shares)
        overrides = {k: v for k, v in asked["overrides"].items() if k in kind.Config.__dataclass_fields__}
        settings = from_dict(Settings, {**asked["settings"], "budget": str(part)})
        given = [made[need] for need in kind.needs]
        run = said_by_first(_stage(folder / stage, name, source, data, asked["variant"], overrides, settings, given))
        if isinstance(run, UserError):
            raise run
        run = Run(folder / stage)
        if run.status["state"] != "finished" or run.config["settings"]["budget"] != settings.budget:
            for observer in observers if rank() == 0 else ():
                observer({"message": f"Stage {stage}, {part} of {whole}: {folder / stage}"})
            launch.resume(run.path, budget=settings.budget, source=source, observers=observers)
        made[stage] = Run(run.path)
    return Run(folder)


def _stage(
    path: Path,
    name: str,
    source: Source,
    data: Any,
    variant: str | None,
    overrides: Mapping[str, Any],
    settings: Settings,
    given: Sequence[Run],
) -> UserError | None:
    """Make the run folder of a stage, unless one that was asked for in the same way is there. On the first process."""
    if rank() != 0:
        return None
    kept = to_dict(settings) | {"budget": ""}  # more of the same is the same
    behind = [(run.path / "model" / "model.safetensors") for run in given]
    asked = fingerprint(name, variant, overrides, kept, source.identity(), [checksum(file) for file in behind])
    try:
        if (path / "config.json").exists():
            if Run(path).config.get("asked") == asked:
                return None
            n = 1
            while (aside := path.with_name(f"{path.name}-before-{n}")).exists():
                n += 1
            path.rename(aside)
        begin(name, source, data, variant, overrides, settings, path, [run.path for run in given]).change_config(
            asked=asked
        )
    except UserError as error:
        return error
    return None
