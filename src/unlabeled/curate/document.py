"""What a rule sees: one document, with whatever has been measured on its text remembered until the text changes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from unlabeled.curate.words import Splitter, Words

__all__ = ["Document", "once"]

_T = TypeVar("_T")


class Document:
    """One text on its way through a recipe.

    id: stable and unique in the run, traceable to where the text lies (`web/pages.jsonl.gz:17`, `src/a/b.py`).
    source: the name of the part of the corpus that it belongs to. text: as it is now, edited by the rules before.
    about: what its container said of it: "url", "format" ("html", "code", ...), "path", "language", ...; read only.
    """

    __slots__ = ("_remembered", "about", "id", "source", "splitter", "text")

    def __init__(
        self,
        id: str,
        text: str,
        source: str = "",
        about: Mapping[str, Any] | None = None,
        splitter: Splitter | None = None,
    ) -> None:
        self.id, self.text, self.source, self.about, self.splitter = id, text, source, about or {}, splitter
        self._remembered: dict[Any, Any] = {}

    def edited(self, text: str) -> Document:
        """The same document with another text; nothing measured before holds for it."""
        return Document(self.id, text, self.source, self.about, self.splitter)

    @property
    def words(self) -> Words:
        """The words of the text, by the splitter of the recipe."""
        return _words(self)

    @property
    def lines(self) -> list[str]:
        """The text cut at line ends of any kind (`str.splitlines`), blank lines included."""
        return _lines(self)

    def __repr__(self) -> str:
        return f"Document({self.id!r}, {len(self.text):,} characters)"


def once(measure: Callable[[Document], _T]) -> Callable[[Document], _T]:
    """Remember what a function says of a document: several rules share it, and it is computed at most once."""

    @functools.wraps(measure)
    def remembered(document: Document) -> _T:
        memory = document._remembered
        if measure not in memory:
            memory[measure] = measure(document)
        return memory[measure]

    return remembered


@once
def _words(document: Document) -> Words:
    from unlabeled.curate.words import plain

    return (document.splitter or plain())(document.text)


@once
def _lines(document: Document) -> list[str]:
    return document.text.splitlines()
