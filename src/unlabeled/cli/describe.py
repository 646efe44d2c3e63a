"""Read the settings of a method out of its file without running it, so that help need not wait for torch."""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import operator
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from unlabeled.core import catalogue
from unlabeled.core.errors import UserError, suggest

__all__ = ["About", "Setting", "about", "settings"]

CORE = Path(catalogue.__file__).parent
_ARITHMETIC = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}
_TYPES: dict[str, Any] = {"int": int, "float": float, "str": str, "bool": bool, "None": type(None)}


@dataclass(frozen=True)
class Setting:
    """One field of a configuration, as it stands in the source."""

    name: str
    type: Any
    default: Any
    help: str


@dataclass(frozen=True)
class About:
    """What the file of a method says of itself."""

    summary: str
    variants: tuple[str, ...]
    settings: tuple[Setting, ...]


def about(system: str) -> About:
    """Summary, variants and settings of a method or stage by name or path, without importing it.

    A system of several stages has the settings of all of them; where two have one of the same name, the default that is
    told is the first one's.

    Raises:
        UserError: where there is no such method.
    """
    file, stage = (system, "") if system.endswith(".py") else system.partition(".")[::2]
    tree = ast.parse(_file(file).read_text())
    classes = {c.name: c for c in _classes(tree)}
    found: dict[str, Setting] = {}
    for method in (methods := _methods(tree, classes, stage, system)):
        found = {s.name: s for s in _settings_of_method(method, classes)} | found
    base = {s.name: s for s in settings(CORE / "config.py", "MethodConfig")}
    summary = (ast.get_docstring(tree) or "").partition("\n\n")[0].replace("\n", " ")
    return About(summary, _variants(methods[0] if methods else None), tuple((base | found).values()))


def settings(file: Path, name: str) -> list[Setting]:
    """The fields of a dataclass at the top level of a file."""
    return next(_settings_of(c) for c in _classes(ast.parse(file.read_text())) if c.name == name)


def _file(system: str) -> Path:
    if system.endswith(".py"):
        if not Path(system).is_file():
            raise UserError(f"There is no file {system}; name a Python file with a Method in its __all__.")
        return Path(system)
    own = catalogue.FOLDER / f"{system}.py"
    if own.is_file():
        return own
    known = catalogue.methods()
    if system not in known:
        raise UserError(f"There is no method {system!r}{suggest(system, known) or '.'} `unlabeled methods` lists them.")
    (plugin,) = importlib.metadata.entry_points(group="unlabeled.methods", name=system)
    found = importlib.util.find_spec(plugin.module)
    if found is None or found.origin is None:
        raise UserError(f"The package that offers {system} cannot be found; install it again.")
    return Path(found.origin)


def _classes(node: ast.AST) -> list[ast.ClassDef]:
    return [c for c in getattr(node, "body", ()) if isinstance(c, ast.ClassDef)]


def _assigned(tree: ast.AST, name: str) -> ast.expr | None:
    """What stands behind `name =` (or `name: type =`) in the body of a module or class."""
    for node in getattr(tree, "body", ()):
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(t, ast.Name) and t.id == name for t in targets):
            return node.value
    return None


def _methods(tree: ast.Module, classes: Mapping[str, ast.ClassDef], stage: str, system: str) -> list[ast.ClassDef]:
    """The class that `__all__` names first or, in order, those of `STAGES`; of one stage, its own."""
    stages = _assigned(tree, "STAGES")
    if isinstance(stages, ast.Dict):
        named = {ast.literal_eval(k): ast.unparse(v) for k, v in zip(stages.keys, stages.values) if k is not None}
        if stage and stage not in named:
            raise UserError(f"There is no stage {system!r}; its stages are {', '.join(named)}.")
        return [classes[name] for key, name in named.items() if stage in ("", key)]
    exported = _assigned(tree, "__all__")
    first = ast.literal_eval(exported)[0] if exported is not None else ""
    return [classes[first]] if first in classes else []


def _settings_of_method(method: ast.ClassDef, classes: Mapping[str, ast.ClassDef]) -> list[Setting]:
    """The fields of its Config: a class inside it, or one of the module that it assigns, with what that inherits."""
    config = next((c for c in _classes(method) if c.name == "Config"), None)
    named = _assigned(method, "Config")
    config = config or classes.get(named.id if isinstance(named, ast.Name) else "Config")
    found: list[Setting] = []
    while config is not None:
        found = [*_settings_of(config), *found]
        config = next((classes[b.id] for b in config.bases if isinstance(b, ast.Name) and b.id in classes), None)
    return found


def _variants(method: ast.ClassDef | None) -> tuple[str, ...]:
    value = _assigned(method, "variants") if method is not None else None
    keys = value.keys if isinstance(value, ast.Dict) else ()
    return tuple(str(k.value) for k in keys if isinstance(k, ast.Constant))


def _settings_of(config: ast.ClassDef) -> list[Setting]:
    found = []
    for node, after in zip(config.body, [*config.body[1:], None]):
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        text = ""
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and isinstance(after.value.value, str):
            text = " ".join(after.value.value.split())
        found.append(Setting(node.target.id, _type(node.annotation), _default(node.value), text))
    return found


def _type(node: ast.expr) -> Any:
    """The type that an annotation spells out of int, float, str, bool, tuple, Literal and None; else str."""
    if isinstance(node, ast.Constant) and node.value is None:
        return type(None)
    if isinstance(node, ast.Name):
        return _TYPES.get(node.id, str)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return _type(node.left) | _type(node.right)
    if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name):
        inner = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        if node.value.id == "Literal":
            return Literal.__getitem__(tuple(ast.literal_eval(e) for e in inner))  # pyrefly: ignore
        if node.value.id == "tuple":
            kinds = [... if isinstance(e, ast.Constant) and e.value is ... else _type(e) for e in inner]
            return tuple[tuple(kinds)]  # type: ignore[misc]
    return str


def _default(node: ast.expr | None) -> Any:
    """The value of a literal or of arithmetic on literals; any other expression as it is written."""
    if node is None:
        return None
    try:
        if isinstance(node, ast.BinOp) and (compute := _ARITHMETIC.get(type(node.op))) is not None:  # pyrefly: ignore
            return compute(_default(node.left), _default(node.right))
        return ast.literal_eval(node)
    except (ValueError, TypeError, ZeroDivisionError):
        return ast.unparse(node)
