"""Show a run while it goes on, on the first process only."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["console"]

UNITS = {"image": "images", "text": "tokens", "wave": "clips"}


@contextmanager
def console(system: str) -> Iterator[list[Any]]:
    """Observers for `train` and `resume` that write to standard error."""
    if os.environ.get("RANK", "0") != "0":
        yield []
        return
    from unlabeled.core.catalogue import method
    from unlabeled.engine.console import Console

    with Console(next((UNITS[f] for f in method(system).takes if f in UNITS), "items")) as shown:
        yield [shown]
