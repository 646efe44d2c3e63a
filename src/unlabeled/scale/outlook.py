"""What pilots say about the long run: which candidate to train, what it will reach, and afterwards what it has reached.

`look_out` runs the pilots of one or two systems on their benches within a given time; an `Outlook` says in words and in figures
what came of it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from unlabeled.core.errors import UserError
from unlabeled.core.method import Method
from unlabeled.scale.forecast import LEVEL, Forecast
from unlabeled.scale.halving import Candidate, Pilot, Setting, Told, chosen, halve, tell
from unlabeled.scale.heldout import KNN_UNIT
from unlabeled.scale.pilots import ENCODERS, Bench

__all__ = ["Outlook", "look_out"]

# Epochs up to which text is worth about as much as new text (Muennighoff et al. 2023, arXiv 2305.16264). GPT-2 of 256 wide that
# saw 1.2 MB of moby-dick about 13 times was at 9.1 nats per token of the test part, 0.07 of the training part; 8.3 is guessing.
AS_NEW = 4


@dataclass(frozen=True)
class Outlook:
    """pilots: all that ran. told: the candidates at full length, by the slice that chooses. candidate: the one to train; steps:
    that there is time for. forecast: of its loss on examples of the test part, or None where the pilots' losses there follow no
    law. why: sentences. seconds: what all of it took."""

    bench: Bench
    candidate: Candidate
    steps: int
    forecast: Forecast | None
    pilots: tuple[Pilot, ...]
    told: tuple[Told, ...]
    why: tuple[str, ...]
    seconds: float

    @property
    def unit(self) -> str:
        return self.bench.unit

    def measured(self, method: Method) -> float:
        """The same measure of the same test examples after the long run."""
        return self.bench.measure(method).loss

    def compared(self, reached: float, taken: int) -> str:
        """Forecast beside what came out after so many steps, in a sentence."""
        steps = f"{taken:,} steps, {self.steps:,} foreseen"
        if self.forecast is None:
            return f"Reached {reached:.3g} {self.unit} on the test part; the pilots gave no forecast of it ({steps})"
        side = "inside" if self.forecast.holds(reached) else "below" if reached < self.forecast.low else "above"
        return f"Forecast {said(self.forecast)} {self.unit} on the test part; reached {reached:.3g} ({side}; {steps})"

    def table(self) -> dict[str, Any]:
        """A row for every candidate: its longest pilot, and what it is foretold to reach."""
        told = {t.candidate.name: t for t in self.told}
        seen = {c.name: c for c in [p.candidate for p in self.pilots] + [t.candidate for t in self.told]}
        order = sorted(seen.values(), key=lambda c: (c.system, c.params))
        rows = []
        for c in order:
            ran = [p for p in self.pilots if p.candidate.name == c.name and not p.failed]
            last, full = max(ran, key=lambda p: p.steps, default=None), told.get(c.name)
            measured = [last.steps, f"{last.loss:.3g}"] if last else [None, None]
            rows.append([c.name, c.params, *measured, *([full.steps, said(full.forecast)] if full else [None, None])])
        own = [c.name for c in order].index(self.candidate.name)
        tested = "The test part plays no part in the choice; the pilots tell nothing of it."
        if self.forecast:
            foretold = f"{said(self.forecast)} is foretold for {self.candidate.name}"
            tested = f"Of the test part, which plays no part in the choice, {foretold}."
        return {
            "title": f"Pilots: {self.unit} on training examples that no pilot trained on",
            "columns": ["candidate", "parameters", "steps of its pilot", "measured", "steps in full", "forecast"],
            "rows": rows,
            "own": own,
            "note": f"Forecasts are of L = E + A / N^alpha + B / D^beta, with {LEVEL:.0%} intervals. {tested}",
        }

    def to_dict(self, budget: float) -> dict[str, Any]:
        return {
            "unit": self.unit,
            "seconds": round(self.seconds, 2),
            "share": round(self.seconds / budget, 4),
            "chosen": self.candidate.name,
            "params": self.candidate.params,
            "steps": self.steps,
            "forecast": self.forecast.to_dict() if self.forecast else None,
            "runs": [pilot.to_dict() for pilot in self.pilots],
            "told": [told.to_dict() for told in self.told],
            "table": self.table(),
        }


def look_out(
    benches: Sequence[Bench], seconds: float, training: float, *, usual: str, since: float | None = None
) -> Outlook | str:
    """Run pilots for at most so many seconds and choose; or say, as the end of a sentence, why the rules have to.

    usual: name of the system that the rules chose. training: seconds of the long run. since: `time.perf_counter()` of when the
    seconds began to run.

    Raises:
        Interrupted: after Ctrl-C or SIGTERM.
    """
    since = time.perf_counter() if since is None else since
    by_system = {bench.system: bench for bench in benches}

    def left() -> float:
        return seconds - (time.perf_counter() - since)

    candidates = sorted((c for bench in benches for c in bench.candidates(left)), key=lambda c: c.flops)
    base = next((c for c in candidates if c.system == usual and c.overrides == by_system[usual].base), None)
    if base is not None and usual in ENCODERS:  # systems before sizes, and whatever is not tried is not chosen
        candidates.sort(key=lambda c: (c is not base, c.size != base.size, c.flops))
    if left() <= 0:
        return f"counting the sizes took the {seconds:.0f} s that pilots may take"
    first = candidates[0]
    try:
        guess = _speed(
            [(c.flops, by_system[c.system].warm_up(c)) for c in (first, first, candidates[len(candidates) // 2])]
        )
    except UserError as error:
        return f"the first pilot failed: {error}"
    bench = by_system[usual]
    setting = Setting(
        training,
        unique=float(len(bench.store) * bench.store.window) if bench.store.window else None,
        any_size=usual not in ENCODERS,
        guess=guess,
        prior=bench.prior,
        seed=bench.seed,
    )

    def run(candidate: Candidate, share: float) -> Pilot:
        return by_system[candidate.system].run(candidate, share, guess(candidate))

    pilots = halve(candidates, run, left, guess, setting)
    if not pilots:
        return f"{seconds:.0f} s are too few for pilots of two candidates here"
    if base is not None and usual in ENCODERS and all(p.failed or p.candidate.name != base.name for p in pilots):
        return (
            f"there was no time for {base.name}, which the rules take, and nothing else is taken unless it beats that"
        )
    told = tell(candidates, pilots, setting)
    failed = [f"the pilot of {p.candidate.name} failed: {p.failed}" for p in pilots if p.failed]
    if not told:
        return "; ".join(["no law goes through the pilots", *failed])
    best, equal = chosen(told, base or first)
    tested = {t.candidate.name: t.forecast for t in tell(candidates, pilots, setting, test=True)}
    took = time.perf_counter() - since
    why = _why(best, equal, told, base, bench.unit) + failed + _often(best, setting)
    return Outlook(
        by_system[best.candidate.system],
        best.candidate,
        best.steps,
        tested.get(best.candidate.name),
        tuple(pilots),
        tuple(told),
        tuple(why),
        took,
    )


def _speed(known: Sequence[tuple[float, float]]) -> Callable[[Candidate], float]:
    """Seconds of a step by its FLOPs, from (FLOPs, seconds) of the first candidate, cold and warm, and of another: a step costs
    something whatever its size, so that seconds in proportion to FLOPs would make large candidates twice too slow."""
    (_, _), (few, short), (many, long) = known
    rate = max((long - short) / (many - few), 0.0) if many != few else 0.0
    return lambda candidate: max(short + rate * (candidate.flops - few), short * min(1.0, candidate.flops / few))


def _often(best: Told, setting: Setting) -> list[str]:
    """A warning where the law knows nothing: text that is seen often is learned by heart, and the held-out loss rises again."""
    times = best.steps * best.candidate.items / setting.unique if setting.unique else 0.0
    if times <= AS_NEW:
        return []
    return [
        f"it will see its text {times:.0f} times; beyond {AS_NEW} the held-out loss may rise again, which no forecast knows: "
        "give more text, or a shorter budget"
    ]


def _why(best: Told, equal: Sequence[Told], told: Sequence[Told], base: Candidate | None, unit: str) -> list[str]:
    """Sentences: what was tried, what is foretold of the best and its neighbours, and whether it was a coin toss."""
    words = []
    if unit == KNN_UNIT:
        words.append(
            "compared by how often the nearest training examples are of another class: classes were used to choose, "
            "those of training examples only"
        )
    words.append(f"{best.candidate.name} is foretold to reach {said(best.forecast)} {unit} in {best.steps:,} steps")
    others = sorted((t for t in told if t is not best), key=lambda t: t.forecast.value)[:2]
    if others:
        words[-1] += "; " + ", ".join(f"{t.candidate.name} {said(t.forecast)} in {t.steps:,}" for t in others)
    if len(equal) > 1:
        kind = "which the rules would take" if base and best.candidate.name == base.name else "the middle one"
        names = ", ".join(t.candidate.name for t in equal)
        words.append(f"{names} are as good as one another by these forecasts: {best.candidate.name}, {kind}")
    if not best.pilots:
        words.append(
            f"{best.candidate.name} is too slow for a pilot: its speed and its loss are carried on from the others"
        )
    return words


def said(told: Forecast) -> str:
    digits = 2 - math.floor(math.log10(told.value)) if told.value > 0 else 2
    digits = max(0, digits)
    return f"{told.value:.{digits}f} ({told.low:.{digits}f} to {told.high:.{digits}f})"
