"""Find methods by file name, without importing any of them until one is asked for.

The folder `methods/` is the list: `methods/simclr.py` is the system "simclr". A file with several trainings lists them
in order in `STAGES`, and `vqvae.prior` names one. Besides, a path to a Python file and
the entry-point group `unlabeled.methods` of installed packages name methods.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unlabeled.core.config import resolve
from unlabeled.core.errors import UserError, suggest

if TYPE_CHECKING:
    from types import ModuleType

    from unlabeled.core.batch import Spec
    from unlabeled.core.method import Method

__all__ = ["build", "method", "methods", "stages", "trainings"]

FOLDER = Path(__file__).parent.parent / "methods"


def _plugins() -> dict[str, importlib.metadata.EntryPoint]:
    return {e.name: e for e in importlib.metadata.entry_points(group="unlabeled.methods")}


def methods() -> list[str]:
    """Names of all methods that can be trained, sorted."""
    own = (p.stem for p in FOLDER.glob("*.py") if not p.stem.startswith("_"))
    return sorted({*own, *_plugins()})


def method(name: str) -> type[Method]:
    """The class of a method by name (`simclr`, `vqvae.codes`), or of a user's file by path (`path/to/mine.py`).

    A system of several stages without the name of one is its last: what stands for it once all are trained.

    Raises:
        UserError: where there is none of that name.
    """
    known = stages(name if name.endswith(".py") else name.partition(".")[0])
    if name in known:
        return known[name]
    if "." in name and not name.endswith(".py"):
        raise UserError(f"There is no stage {name!r}{suggest(name, known) or '.'} Its stages: {', '.join(known)}.")
    return list(known.values())[-1]


def stages(system: str) -> dict[str, type[Method]]:
    """What a system trains, in order: {"simclr": SimCLR} or {"vqvae.codes": VQVAE, "vqvae.prior": Prior}.

    Raises:
        UserError: where there is no such system.
    """
    if system.endswith(".py"):
        return _stages_of(_from_path(Path(system)), system)
    if system in _plugins() and not (FOLDER / f"{system}.py").exists():
        return {system: _plugins()[system].load()}
    if system not in methods():
        raise UserError(f"There is no method {system!r}{suggest(system, methods())} `unlabeled methods` lists them.")
    return _stages_of(importlib.import_module(f"unlabeled.methods.{system}"), system)


def trainings() -> list[str]:
    """Names of everything that can be trained at once: methods, and the stages of systems that have some."""
    return [name for system in methods() for name in stages(system)]


def build(name: str, variant: str | None, measure: Callable[[type[Method], Any], Spec], **overrides: Any) -> Method:
    """A method with fresh weights; the stages it needs likewise, of the same variant.

    measure: what the data is, for a class and its configuration. overrides: of the method's own configuration.
    """
    kind = method(name)
    config = resolve(kind, variant, overrides)
    given = {need: build(f"{name.partition('.')[0]}.{need}", variant, measure) for need in kind.needs}
    built = kind(config, measure(kind, config), given)
    built.name = name
    return built


def _from_path(path: Path) -> ModuleType:
    if not path.is_file():
        raise UserError(f"There is no file {path}; name a Python file with a Method in its __all__.")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)  # dataclasses with postponed annotations look themselves up there
    spec.loader.exec_module(module)
    return module


def _stages_of(module: ModuleType, system: str) -> dict[str, type[Method]]:
    if hasattr(module, "STAGES"):
        return {f"{system}.{stage}": kind for stage, kind in module.STAGES.items()}
    exported = getattr(module, "__all__", ())
    if not exported:
        raise UserError(f"{system} must name its Method class in __all__.")
    return {system: getattr(module, exported[0])}
