"""What a step over the corpus is: three kinds, told apart by what they can do.

- "repeats": `keys(document) -> (k,) uint64` and `settle(document, repeated) -> Outcome`, where `repeated` (k,) marks the
  keys of which a better copy lies elsewhere, or earlier in the same document. It is asked only where one is, unless
  it says `always`. `Exact`, `Lines`.
- "groups": `keys(document) -> (k,) uint64`; documents that share the k-th key with each other hang together, and all
  but the best of each group are dropped with `reason`. `Near`.
- "selection": `select(corpus) -> Selection`, which sees everything at once, in one process. `Semantic`, `Prototypes`.

Common to the first two: `scope`, "all" or "source" (copies in other sources do not count), and `keep`, which copy stays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from unlabeled.core.errors import UserError
from unlabeled.curate.document import Document

__all__ = ["Keep", "Kind", "kind_of", "rank_of"]

Kind = Literal["rule", "repeats", "groups", "selection"]
Keep = Literal["earliest", "longest", "priority"]


def kind_of(step: Any) -> Kind:
    """What a step of a recipe is."""
    if hasattr(step, "select"):
        return "selection"
    if hasattr(step, "settle"):
        return "repeats"
    return "groups" if hasattr(step, "keys") else "rule"


def rank_of(keep: Keep | str | Callable[[Document], float], document: Document, priority: Mapping[str, int]) -> float:
    """The smaller, the rather a copy stays; equal ranks go by the order of reading.

    keep: "earliest" in the order of reading; "longest" text; "priority" of the sources, as they were named;
    "best:FIELD", the greatest number in a field that came with the documents; or a function whose smallest value stays.

    Raises:
        UserError: where it is none of these.
    """
    if not isinstance(keep, str):
        return float(keep(document))
    if keep == "earliest":
        return 0.0
    if keep == "longest":
        return -float(len(document.text))
    if keep == "priority":
        return float(priority.get(document.source, len(priority)))
    if keep.startswith("best:"):
        try:
            return -float(document.about.get(keep.removeprefix("best:"), "-inf"))
        except (TypeError, ValueError):
            return float("inf")
    raise UserError(f"Which copy stays is said by earliest, longest, priority or best:FIELD, not by {keep!r}.")
