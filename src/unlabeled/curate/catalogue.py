"""Recipes by name: the files of `curate/rules/`, or a file of the user's; mixes: the files of `recipes/`.

A file ends in `RECIPE = Recipe(...)`, named after the file, or in `RECIPES = {"name": Recipe(...), ...}`.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from unlabeled.core.errors import UserError, suggest
from unlabeled.curate.mix import Mix
from unlabeled.curate.recipe import Recipe

__all__ = ["FILE_MODULE", "load", "mix", "mixes", "recipe", "recipes"]

RULES = Path(__file__).parent / "rules"
MIXES = Path(__file__).parent.parent / "recipes"
FILE_MODULE = "unlabeled_recipe_"  # how modules of users' files are called, before a hash of the path


def _modules(folder: Path, package: str) -> list[ModuleType]:
    names = sorted(p.stem for p in folder.glob("*.py") if not p.stem.startswith("_"))
    return [importlib.import_module(f"{package}.{name}") for name in names]


@functools.cache
def recipes() -> Mapping[str, Recipe]:
    """All recipes that come along, by name."""
    found: dict[str, Recipe] = {}
    for module in _modules(RULES, "unlabeled.curate.rules"):
        found.update(_recipes_of(module))
    return dict(sorted(found.items()))


@functools.cache
def mixes() -> Mapping[str, Mix]:
    """All published mixes, by name."""
    return {m.__name__.rpartition(".")[2]: m.MIX for m in _modules(MIXES, "unlabeled.recipes") if hasattr(m, "MIX")}


def recipe(name: str) -> Recipe:
    """A recipe by its name, or by the path of a Python file that ends in `RECIPE = Recipe(...)`.

    Raises:
        UserError: where there is none.
    """
    if not name.endswith(".py"):
        if name not in recipes():
            raise UserError(
                f"There is no recipe {name!r}{suggest(name, recipes()) or '.'} There are: {', '.join(recipes())}."
            )
        return recipes()[name]
    found = _recipes_of(load(Path(name)))
    if not found:
        raise UserError(f"{name} has no recipe: let it end in RECIPE = Recipe(...).")
    return dataclasses.replace(next(iter(found.values())), file=str(Path(name).resolve()))


def mix(name: str) -> Mix:
    """A published mix by name.

    Raises:
        UserError: where there is none.
    """
    if name not in mixes():
        raise UserError(f"There is no mix {name!r}{suggest(name, mixes()) or '.'} There are: {', '.join(mixes())}.")
    return mixes()[name]


def _recipes_of(module: ModuleType) -> dict[str, Recipe]:
    if hasattr(module, "RECIPES"):
        return dict(module.RECIPES)
    return {module.RECIPE.name: module.RECIPE} if hasattr(module, "RECIPE") else {}


def load(path: Path) -> ModuleType:
    """A user's file as a module under a name of its own, so that what is pickled of it is found again: workers load the same
    file before they unpickle (`plan.plan_at`).

    Raises:
        UserError: where there is no such file, or it cannot be imported.
    """
    if not path.is_file():
        raise UserError(f"There is no file {path}; name a Python file that ends in RECIPE = Recipe(...).")
    name = f"{FILE_MODULE}{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UserError(f"{path} cannot be imported: {type(error).__name__}: {error}.") from error
    return module
