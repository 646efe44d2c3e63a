"""A recipe: rules for single documents and steps over the whole corpus, in order; data plus named functions.

    from unlabeled.curate.dedup.near import Near
    from unlabeled.curate.document import Document
    from unlabeled.curate.recipe import Bound, Recipe
    from unlabeled.curate.rules.gopher import QUALITY

    def shouting(document: Document) -> float:
        letters = [c for c in document.text if c.isalpha()]
        return sum(c.isupper() for c in letters) / max(1, len(letters))

    RECIPE = Recipe("calm", [Bound(shouting, at_most=0.3), *QUALITY, Near()])

`unlabeled curate SOURCE --recipe calm.py --out DIR` runs it; so does every file of `curate/rules/` by its name.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from unlabeled.core.errors import UserError, suggest
from unlabeled.curate.document import Document
from unlabeled.curate.words import hash_of

__all__ = ["Bound", "Drop", "Edit", "Edited", "Outcome", "Recipe", "Rule", "Sometimes", "Where"]


@dataclass(frozen=True, slots=True)
class Drop:
    """A document goes. reason: a few words, the same for all that go for it; value: what was measured, if anything;
    instead: what stays in its place or what it matches, if anything: in the corpus, told by the pipeline, or elsewhere."""

    reason: str
    value: float = math.nan
    instead: str = ""


@dataclass(frozen=True, slots=True)
class Edited:
    """A document stays with another text. counts: what was done how often ({"line without end mark": 3})."""

    text: str
    counts: Mapping[str, int] = field(default_factory=dict)


Outcome = Drop | Edited | None  # None: the document stays as it is


class Rule(Protocol):
    """Decides on one document and knows nothing of the others."""

    @property
    def name(self) -> str: ...

    def __call__(self, document: Document) -> Outcome: ...


@dataclass(frozen=True)
class Bound:
    """Keep the documents whose measure lies within [at_least, at_most]; the limits are data, the measure a function."""

    measure: Callable[[Document], float]
    at_least: float = -math.inf
    at_most: float = math.inf
    name: str = ""

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", _name_of(self.measure))

    def __call__(self, document: Document) -> Outcome:
        return self.judge(self.measure(document))

    def judge(self, value: float) -> Outcome:
        """The decision on a value that has been measured."""
        if value < self.at_least:
            return Drop(f"{self.name} below {self.at_least:g}", value)
        if value > self.at_most:
            return Drop(f"{self.name} above {self.at_most:g}", value)
        return None


@dataclass(frozen=True)
class Edit:
    """Change a text, or drop it, by a named function of the document."""

    function: Callable[[Document], Outcome]
    name: str = ""

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", _name_of(self.function))

    def __call__(self, document: Document) -> Outcome:
        return self.function(document)


@dataclass(frozen=True)
class Sometimes:
    """Let another rule drop a document with some probability, decided by the document's id, so that it is repeatable."""

    rule: Rule
    probability: float

    def __post_init__(self) -> None:
        _needs_a_rule(self.rule)

    @property
    def name(self) -> str:
        return self.rule.name

    def __call__(self, document: Document) -> Outcome:
        outcome = self.rule(document)
        if not isinstance(outcome, Drop):
            return outcome
        return outcome if hash_of(f"{self.name}\0{document.id}") / 2**64 < self.probability else None


@dataclass(frozen=True)
class Where:
    """Apply a rule only to the documents of which something is true (their source, their format)."""

    holds: Callable[[Document], bool]
    rule: Rule

    def __post_init__(self) -> None:
        _needs_a_rule(self.rule)

    @property
    def name(self) -> str:
        return self.rule.name

    def __call__(self, document: Document) -> Outcome:
        return self.rule(document) if self.holds(document) else None


@dataclass(frozen=True)
class Recipe:
    """What is done to a corpus, in order.

    steps: rules of one document (`Bound`, `Edit`, `Sometimes`, `Where`, or anything with a name that can be called) and
        steps over the corpus (`Exact`, `Near`, ...).
    about: one line for the list of recipes. paper: where the rules are published.
    mix: how the sources are weighted at the end (`mix.Mix`), or None. hold_out: share kept for validation, and again
        for test.
    file: the Python file that it is from, if it is a user's.
    words: how texts are split into words, "plain" (ours) or "spacy" (blank English of spaCy, as datatrove counts).
    extract: what turns HTML into text, "resiliparse", "trafilatura" or "justext"; "" leaves it as it is.
    """

    name: str
    steps: Sequence[Any]
    about: str = ""
    paper: str = ""
    mix: Any = None
    hold_out: float = 0.0
    file: str = ""
    words: Literal["plain", "spacy"] = "plain"
    extract: Literal["resiliparse", "trafilatura", "justext", ""] = "resiliparse"

    def but(self, limits: Mapping[str, float]) -> Recipe:
        """The same recipe with other limits: {"symbol_share.at_most": 0.2}.

        Raises:
            UserError: where there is no rule of that name with that limit.
        """
        steps, known = list(self.steps), {}
        for place, step in enumerate(steps):
            bound = _inside(step)
            for limit in ("at_least", "at_most"):
                if isinstance(bound, Bound) and math.isfinite(getattr(bound, limit)):
                    known[f"{step.name}.{limit}"] = place
        for name, value in limits.items():
            if name not in known:
                raise UserError(
                    f"{self.name} has no limit {name!r}{suggest(name, known) or '.'} Its limits: {', '.join(known)}."
                )
            steps[known[name]] = _with_limit(steps[known[name]], name.rpartition(".")[2], value)
        return dataclasses.replace(self, steps=steps)


def _needs_a_rule(rule: Any) -> None:
    if not callable(rule):
        raise UserError(f"{rule.name} looks at the whole corpus: it cannot be asked of some documents alone.")


def _inside(step: Any) -> Any:
    """The rule that a step asks of some documents, or now and then; else the step."""
    return _inside(step.rule) if isinstance(step, (Where, Sometimes)) else step


def _with_limit(step: Any, limit: str, value: float) -> Any:
    if isinstance(step, (Where, Sometimes)):
        return dataclasses.replace(step, rule=_with_limit(step.rule, limit, value))
    return dataclasses.replace(step, **{limit: value})


def _name_of(function: Callable[..., Any]) -> str:
    inner = function
    while hasattr(inner, "func"):  # functools.partial
        inner = inner.func
    return getattr(inner, "__name__", type(inner).__name__).strip("_")
