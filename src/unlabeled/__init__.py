"""Self-supervised learning: a pile of unlabeled data and a budget in, a model and an honest report out.

    import unlabeled
    model = unlabeled.fit("photos/", budget="10m")
    features = model.embed("photos/")

Nothing heavy is imported before it is used: each name below is looked up when it is first asked for.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unlabeled.core.catalogue import method, methods
    from unlabeled.curate.pipeline import curate
    from unlabeled.data.sources import source
    from unlabeled.engine.recipe import resume, train
    from unlabeled.fit import fit
    from unlabeled.model import Model, load

    __version__: str

__all__ = ["Model", "__version__", "curate", "fit", "load", "method", "methods", "resume", "source", "train"]

_HOMES = {
    "Model": "unlabeled.model",
    "curate": "unlabeled.curate.pipeline",
    "fit": "unlabeled.fit",
    "load": "unlabeled.model",
    "method": "unlabeled.core.catalogue",
    "methods": "unlabeled.core.catalogue",
    "resume": "unlabeled.engine.recipe",
    "source": "unlabeled.data.sources",
    "train": "unlabeled.engine.recipe",
}
_BOTH = ("curate", "fit", "methods")  # names of a function here and of a module or package below


class _CallableModule(ModuleType):
    """`unlabeled.fit` is a module, `unlabeled.methods` and `unlabeled.curate` are packages; calling them calls the
    function so named."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        name = self.__name__.rpartition(".")[2]
        return getattr(importlib.import_module(_HOMES[name]), name)(*args, **kwargs)


class _Package(ModuleType):
    """This package; the import system binds submodules to it through `__setattr__`."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _BOTH and isinstance(value, ModuleType):
            value.__class__ = _CallableModule
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("unlabeled")
    if name in _BOTH:
        return importlib.import_module(f"unlabeled.{name}")
    if name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'unlabeled' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
