"""Weights in the common layout of model.safetensors."""

from __future__ import annotations

import json
from pathlib import Path

from torch import Tensor

from unlabeled.core.errors import UserError

__all__ = ["load_tensors"]


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
