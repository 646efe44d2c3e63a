"""Time in a run: how far it is, how long it may go on, and quantities that change with it."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

from unlabeled.core.errors import UserError

__all__ = ["Clock", "Duration", "Schedule"]


@dataclass(frozen=True)
class Clock:
    """Where a run stands; every schedule is a function of this and of nothing else."""

    step: int = 0  # optimiser steps of the outer loop done
    steps: int = 1  # planned; an estimate, revised as it goes, where the budget is in seconds
    examples: int = 0  # seen, over all processes, repeats included
    tokens: int = 0  # likewise; 0 where the word means nothing
    epoch: float = 0.0
    progress: float = 0.0  # share of the budget that is spent, in [0, 1]

    def ramp(self, start: float, end: float) -> float:
        """Go in a straight line from `start` to `end` over the run."""
        return start + (end - start) * min(1.0, self.progress)

    def cosine(self, start: float, end: float) -> float:
        """Go from `start` to `end` on half a cosine over the run."""
        return end + (start - end) * (1 + math.cos(math.pi * min(1.0, self.progress))) / 2


_SECONDS = {"s": 1, "sec": 1, "seconds": 1, "second": 1, "m": 60, "min": 60, "minutes": 60, "minute": 60}
_SECONDS |= {"h": 3600, "hours": 3600, "hour": 3600}
_COUNTS = {"steps", "examples", "tokens", "flops"}
Unit = Literal["steps", "examples", "tokens", "seconds", "flops"]


@dataclass(frozen=True)
class Duration:
    """A length with its unit, so that "500" is never ambiguous."""

    amount: float
    unit: Unit

    @classmethod
    def parse(cls, text: str) -> Duration:
        """Read "90s", "10m", "1.5h", "2000steps", "1e6examples", "3e8tokens" or "1e15flops".

        Raises:
            UserError: where the unit is missing or unknown, or the amount is not above zero.
        """
        match = re.fullmatch(r"\s*([0-9.]+(?:e[+-]?[0-9]+)?)\s*([a-z]+)\s*", text.lower())
        unit = match.group(2) if match else ""
        if unit and not unit.endswith("s") and unit + "s" in _COUNTS:
            unit += "s"
        try:
            amount = float(match.group(1)) if match else 0.0
        except ValueError:
            amount = 0.0
        if not amount > 0 or not math.isfinite(amount) or (unit not in _COUNTS and unit not in _SECONDS):
            raise UserError(
                f"A budget is a number above zero with its unit, such as 10m, 90s, 2h, 2000steps, 1e6examples, "
                f"3e8tokens or 1e15flops; {text!r} is not."
            )
        if unit in _SECONDS:
            return cls(amount * _SECONDS[unit], "seconds")
        return cls(amount, unit)  # type: ignore[arg-type]

    def __str__(self) -> str:
        if self.unit != "seconds":
            return f"{self.amount:g}{self.unit}"
        for letter, size in (("h", 3600), ("m", 60)):
            if self.amount >= size and self.amount % size == 0:
                return f"{self.amount / size:g}{letter}"
        return f"{self.amount:g}s"


@dataclass(frozen=True)
class Schedule:
    """A quantity that warms up in a straight line to `peak` and then decays to `floor * peak`.

    warmup is counted in `unit`: a share of the run (0.05 is its first twentieth), or examples or tokens seen, as
    papers state it (a warm-up in examples survives a change of batch size).
    """

    peak: float
    warmup: float = 0.0
    unit: Literal["share", "examples", "tokens"] = "share"
    decay: Literal["cosine", "linear", "constant"] = "cosine"
    floor: float = 0.0

    def __call__(self, clock: Clock) -> float:
        """The value for the step that is about to be taken."""
        progress = min(1.0, clock.progress)
        seen = {"share": progress, "examples": clock.examples, "tokens": clock.tokens}[self.unit]
        # The first step would get zero; half of its own share is what a continuous ramp gives it on average.
        if seen < self.warmup:
            next_seen = seen * (clock.step + 1) / clock.step if clock.step else self.warmup / 100
            return self.peak * min(1.0, (seen + next_seen) / 2 / self.warmup)
        if self.unit == "share":
            start = self.warmup
        else:  # where in the run the warm-up ended, as the run has gone so far
            start = progress * self.warmup / seen if seen else 0.0
        left = (progress - start) / (1 - start) if start < 1 else 1.0
        if self.decay == "constant":
            return self.peak
        share = (1 + math.cos(math.pi * left)) / 2 if self.decay == "cosine" else 1 - left
        return self.peak * (self.floor + (1 - self.floor) * share)
