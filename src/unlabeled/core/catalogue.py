"""Find methods by file name, without importing any of them until one is asked for.

The folder `methods/` is the list: `methods/simclr.py` is the system "simclr". Besides, a path to a Python file and
the entry-point group `unlabeled.methods` of installed packages name methods.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from unlabeled.core.errors import UserError, suggest

if TYPE_CHECKING:
    from types import ModuleType

    from unlabeled.core.method import Method

__all__ = ["method", "methods"]

FOLDER = Path(__file__).parent.parent / "methods"


def _plugins() -> dict[str, importlib.metadata.EntryPoint]:
    return {e.name: e for e in importlib.metadata.entry_points(group="unlabeled.methods")}


def methods() -> list[str]:
    """Names of all methods that can be trained, sorted."""
    own = (p.stem for p in FOLDER.glob("*.py") if not p.stem.startswith("_"))
    return sorted({*own, *_plugins()})


def method(name: str) -> type[Method]:
    """The class of a method by name, or of a user's file by path (`path/to/mine.py`).

    Raises:
        UserError: where there is none of that name.
    """
    if name.endswith(".py"):
        return _class_of(_from_path(Path(name)), name)
    if name in _plugins() and not (FOLDER / f"{name}.py").exists():
        return _plugins()[name].load()
    if name not in methods():
        raise UserError(f"There is no method {name!r}{suggest(name, methods())} `unlabeled methods` lists them.")
    return _class_of(importlib.import_module(f"unlabeled.methods.{name}"), name)


def _from_path(path: Path) -> ModuleType:
    if not path.is_file():
        raise UserError(f"There is no file {path}; name a Python file with a Method in its __all__.")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _class_of(module: ModuleType, name: str) -> type[Method]:
    exported = getattr(module, "__all__", ())
    if not exported:
        raise UserError(f"{name} must name its Method class in __all__.")
    return getattr(module, exported[0])
