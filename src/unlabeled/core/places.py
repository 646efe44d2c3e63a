"""Where things are kept outside run folders."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["cache"]


def cache(*parts: str) -> Path:
    """A folder under `$UNLABELED_CACHE`, or `~/.cache/unlabeled`; made if it does not exist."""
    root = Path(os.environ.get("UNLABELED_CACHE") or Path.home() / ".cache" / "unlabeled")
    folder = root.joinpath(*parts)
    folder.mkdir(parents=True, exist_ok=True)
    return folder
