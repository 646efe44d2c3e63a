"""Frozen configurations: resolve a variant, change fields, save, read back, fingerprint."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from unlabeled.core.errors import UserError, suggest

__all__ = ["MethodConfig", "fingerprint", "from_dict", "resolve", "to_dict"]


@dataclass(frozen=True, kw_only=True)
class MethodConfig:
    """What every method's Config has; a method overrides the defaults by its paper's."""

    batch: int = 256
    """Examples per step, over all processes."""
    average: float = 0.0
    """Decay per step of the averaged weights used for sampling and evaluation; 0 keeps none."""


C = TypeVar("C")


def to_dict(config: Any) -> dict[str, Any]:
    """A dataclass as plain JSON types (tuples become lists)."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def from_dict(cls: type[C], values: Mapping[str, Any]) -> C:
    """Build a dataclass from a mapping, say what is allowed where a name is not a field.

    Raises:
        UserError: where a key is no field of `cls`.
    """
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    kept = {}
    for name, value in values.items():
        if name not in fields:
            raise UserError(f"{name!r} is not a setting of {cls.__qualname__}{suggest(name, fields)}")
        kept[name] = tuple(value) if isinstance(value, list) else value
    return cls(**kept)


def resolve(method: Any, variant: str | None, overrides: Mapping[str, Any] | None = None) -> Any:
    """The Config of a method for a published variant, with single fields changed.

    Raises:
        UserError: where the variant or a field does not exist.
    """
    variants = method.variants
    if variant is not None and variant not in variants:
        raise UserError(
            f"{method.__name__} has no variant {variant!r}{suggest(variant, variants)} Its variants: "
            f"{', '.join(variants)}."
        )
    return from_dict(method.Config, {**(variants[variant] if variant else {}), **(overrides or {})})


def fingerprint(*values: Any) -> str:
    """Sixteen hexadecimal digits that change when any of the values (JSON types) changes."""
    text = json.dumps(values, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
