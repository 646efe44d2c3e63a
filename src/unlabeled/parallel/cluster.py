"""A Ray cluster for a while: the one that RAY_ADDRESS names, or one that is started here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from unlabeled.core.errors import UserError

__all__ = ["ray_cluster"]


@contextmanager
def ray_cluster(option: str) -> Iterator[Any]:
    """The module ray, connected; what was started here ends with the context.

    option: what the user said, for the message. Raises UserError where Ray is not installed.
    """
    try:
        import ray  # type: ignore[import-not-found]
    except ImportError as error:
        raise UserError(f"{option} needs Ray: `pip install 'unlabeled[scale]'`.") from error
    started = not ray.is_initialized()
    if started:
        ray.init(log_to_driver=False, configure_logging=False, include_dashboard=False)
    try:
        yield ray
    finally:
        if started:
            ray.shutdown()
