"""Models in the common (Hugging Face) layout: config.json, weights as safetensors, files of a tokenizer."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unlabeled.core.errors import UserError

__all__ = ["copy_weights", "difference", "load_tensors", "model_type", "read_config", "read_tokenizer"]


def model_type(folder: Path) -> Any:
    """What config.json says the model of a folder is; None where it says nothing or cannot be read."""
    return _config(folder).get("model_type")


def read_config(folder: Path, kind: str, name: str) -> dict[str, Any]:
    """What stands in config.json; kind: the `model_type` that it must have, name: how people call it.

    Raises:
        UserError: where it is missing or damaged, or of another kind.
    """
    said = _config(folder)
    if said.get("model_type") != kind:
        raise UserError(f"{folder} holds no {name} (a config.json with model_type {kind}).")
    return said


def _config(folder: Path) -> dict[str, Any]:
    try:
        said = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}


def difference(said: Mapping[str, Any], published: Mapping[str, Sequence[Any]]) -> str:
    """The first setting that makes a model another than the published one, as "name = value"; empty where there is none.

    published: what each setting may be, its default first.
    """
    odd = (f"{k} = {said[k]!r}" for k, allowed in published.items() if said.get(k, allowed[0]) not in allowed)
    return next(odd, "")


def read_tokenizer(folder: Path, files: Sequence[str], load: Callable[[Path], Any], vocabulary: int) -> Any:
    """The tokenizer that `load` makes of a folder, or None where none of the files is there.

    Raises:
        UserError: where it has more ids than the vocabulary of the model, or cannot be read.
    """
    if not any((folder / name).is_file() for name in files):
        return None
    tokenizer = load(folder)
    if tokenizer.size > vocabulary:
        raise UserError(f"The tokenizer in {folder} has {tokenizer.size} ids, its model only {vocabulary}.")
    return tokenizer


def load_tensors(folder: Path) -> dict[str, Tensor]:
    """All tensors of model.safetensors, or of the shards that model.safetensors.index.json names.

    Raises:
        UserError: where there are none, or they cannot be read.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    index = folder / "model.safetensors.index.json"
    try:
        if (folder / "model.safetensors").is_file():
            return load_file(folder / "model.safetensors")
        if index.is_file():
            # Only the names of files: a path would lead out of the folder.
            names = {Path(name).name for name in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()}
            return {k: v for name in sorted(names) for k, v in load_file(folder / name).items()}
    except (SafetensorError, OSError, ValueError, KeyError, AttributeError) as error:
        raise UserError(f"The weights in {folder} cannot be read ({error}); fetch them again.") from None
    raise UserError(f"There is no model.safetensors in {folder}; save the model in that format, which runs no code.")


@torch.no_grad()
def copy_weights(
    weights: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
    names: Iterable[tuple[str, str | tuple[str, ...]]],
    folder: Path,
) -> None:
    """Copy weights that were read from a folder into those of a model (its `state_dict`).

    names: each weight's name in the folder and in the model; of several, they lie there one below the other in one.

    Raises:
        UserError: where a weight is missing or has another shape.
    """
    for theirs, ours in names:
        if theirs not in weights:
            raise UserError(f"The weights in {folder} lack {theirs}; fetch them again.")
        tensor = weights[theirs]
        for name, part in [(ours, tensor)] if isinstance(ours, str) else zip(ours, tensor.chunk(len(ours))):
            if own[name].shape != part.shape:
                raise UserError(f"{theirs} in {folder} does not have the shape that its config.json implies.")
            own[name].copy_(part)
