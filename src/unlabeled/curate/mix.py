"""How often each source of a corpus is repeated, in which order its documents come, and which are held out.

Three ways to say it, all of which come down to epochs of each source:

    Mix(epochs={"Wikipedia": 3, "ArXiv": 2})        fixed, as The Pile (Gao et al. 2020, table 1)
    Mix(weights={"web": 0.7, "code": 0.3})          shares of the result, as BloombergGPT or LLaMA
    Mix(temperature=1 / 0.3)                        p_i ~ n_i^(1/T): mT5 (Xue et al. 2021, section 3.1: exponent 0.3)

Nothing is drawn at random: whether a document is taken once more, where its copies come in the shuffled corpus and
whether it is held out are hashes of its id, so that a run repeats itself on any number of processes, and a document
keeps its place when others join. The Pile drew documents until a number of bytes was reached, which makes its epochs
means; ours are exact for whole numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from unlabeled.core.errors import UserError, suggest
from unlabeled.curate.words import hash_of

__all__ = ["MT5", "Mix", "Row", "Split", "bucket", "copies", "held_out", "order", "value_of_next", "worth"]

MT5 = 1 / 0.3  # temperature of mT5; XLM-R and BERT take exponents 0.3 and 0.7 (Xue et al. 2021, section 3.1)

# Muennighoff et al. 2023 (arXiv 2305.16264), appendix A: fitted on 182 runs of C4, 7 M to 9 B parameters.
HALF_WORTH = 15.387756  # R*_D; a repetition is worth exp(-R / R*_D) of fresh text after R repetitions
WORTH_IT = 4.0  # epochs; up to there repeated data is about as good as fresh (their abstract)

Split = Literal["train", "validation", "test"]


def worth(epochs: float) -> float:
    """Epochs of fresh text that some epochs of the same text are worth (Muennighoff et al. 2023, equation 5):

        D' / U = 1 + R* (1 - exp(-R / R*)),    R = epochs - 1

    From above it never exceeds 1 + R* = 16.4. Below one epoch nothing is repeated.
    """
    if epochs <= 1:
        return max(0.0, epochs)
    return 1 - HALF_WORTH * math.expm1(-(epochs - 1) / HALF_WORTH)


def value_of_next(epochs: float) -> float:
    """What one more copy is worth, as a share of as much fresh text: the slope of `worth`."""
    return math.exp(-max(0.0, epochs - 1) / HALF_WORTH)


@dataclass(frozen=True, slots=True)
class Row:
    """One source in the table of a mix. size and effective in bytes; weight: its share of the result; worth: epochs of
    fresh text that its epochs are worth."""

    source: str
    size: float
    epochs: float
    effective: float
    weight: float
    worth: float

    @property
    def warning(self) -> str:
        """Empty where the repetition is worth it."""
        if self.epochs <= WORTH_IT * (1 + 1e-9):
            return ""
        return (
            f"{self.source} is repeated {self.epochs:.3g} times, worth {self.worth:.3g} of fresh text; "
            f"one more copy is worth {value_of_next(self.epochs):.0%} of as much fresh text."
        )


@dataclass(frozen=True)
class Mix:
    """How the sources of a corpus are weighted: give one of epochs, weights and temperature.

    epochs: of each source; 1.5 is every document once and half of them twice, 0.5 every other document.
    weights: shares of the result in bytes, of any sum. Without `bytes`, the result is the largest in which no source is
        repeated more than `most_epochs`; with it, that large, whatever the repetition (`table` warns).
    temperature: T of p_i ~ n_i^(1/T); 1 is proportional, infinity uniform. The result has `bytes`, by default as many as
        the corpus; what a source would need beyond `most_epochs` goes to the others in proportion, which for T infinite
        is UniMax (Chung et al. 2023, algorithm 1).
    bytes: wanted size of the result. rest: epochs of sources that the mix does not name (0: left out); with it, names
        that the corpus lacks are passed over. None: either is an error.
    """

    epochs: Mapping[str, float] | None = None
    weights: Mapping[str, float] | None = None
    temperature: float | None = None
    most_epochs: float = WORTH_IT
    bytes: float | None = None
    rest: float | None = None

    def __post_init__(self) -> None:
        given = [n for n in ("epochs", "weights", "temperature") if getattr(self, n) is not None]
        if len(given) != 1:
            raise UserError(f"A mix takes one of epochs, weights and temperature, not {' and '.join(given) or 'none'}.")
        for name, value in {**(self.epochs or {}), **(self.weights or {}), "rest": self.rest or 0}.items():
            if not (math.isfinite(value) and value >= 0):
                raise UserError(f"The mix gives {name} {value}; give a number of 0 or more.")
        if self.weights is not None and sum(self.weights.values()) <= 0:
            raise UserError("All weights of the mix are 0; give one source more.")
        if self.temperature is not None and not self.temperature >= 0.01:
            raise UserError(
                f"The temperature of a mix is from 0.01 (the largest source alone) up, not {self.temperature}."
            )
        if not self.most_epochs > 0:
            raise UserError(f"most_epochs is above 0, not {self.most_epochs}.")
        if self.bytes is not None and not (math.isfinite(self.bytes) and self.bytes > 0):
            raise UserError(f"The mix wants {self.bytes} bytes; give a number above 0, or none.")
        if self.bytes is not None and self.epochs is not None:
            raise UserError("Epochs of each source settle the size of the result; leave bytes out.")

    def epochs_of(self, sizes: Mapping[str, float]) -> dict[str, float]:
        """Epochs of every source of a corpus, in the order of `sizes`; sizes in bytes of text (any unit, if `bytes` and
        the weights are in the same).

        Raises:
            UserError: where the mix and the corpus do not name the same sources, and `rest` does not say what then.
        """
        named = self._named(sizes)
        if self.epochs is not None:
            chosen = {s: float(self.epochs[s]) for s in named}
        elif self.weights is not None:
            chosen = self._by_weight({s: sizes[s] for s in named})
        else:
            chosen = self._by_temperature({s: sizes[s] for s in named})
        return {s: chosen.get(s, 0.0 if sizes[s] <= 0 else float(self.rest or 0)) for s in sizes}

    def table(self, sizes: Mapping[str, float]) -> list[Row]:
        """The mix of a corpus, largest part first; each row's `warning` says where repetition is no longer worth it."""
        epochs = self.epochs_of(sizes)
        total = math.fsum(sizes[s] * e for s, e in epochs.items()) or 1.0
        rows = [Row(s, size, e := epochs[s], size * e, size * e / total, worth(e)) for s, size in sizes.items()]
        return sorted(rows, key=lambda row: (-row.effective, row.source))

    def _named(self, sizes: Mapping[str, float]) -> list[str]:
        """Sources of the corpus that the mix is about."""
        present = [s for s in sizes if sizes[s] > 0]
        if self.temperature is not None:
            return present
        names = self.epochs if self.epochs is not None else self.weights or {}
        if self.rest is None:
            for name in names:
                if name not in present and names[name] > 0:
                    raise UserError(
                        f"The mix names the source {name!r}, of which the corpus holds nothing"
                        f"{suggest(name, present) or '.'} Its sources: {', '.join(map(repr, present)) or 'none'}; "
                        f"`rest` passes over what is lacking."
                    )
            for source in present:
                if source not in names:
                    raise UserError(
                        f"The corpus holds the source {source!r}, which the mix does not name"
                        f"{suggest(source, names) or '.'} It names {', '.join(map(repr, names))}; "
                        f"`rest` says how often others are taken, 0 or more times."
                    )
        named = [s for s in present if s in names]
        if self.weights is not None and not any(names[s] > 0 for s in named):
            raise UserError(f"The corpus holds none of the sources of the mix: {', '.join(map(repr, names))}.")
        return named

    def _by_weight(self, sizes: Mapping[str, float]) -> dict[str, float]:
        weights = self.weights or {}
        whole = math.fsum(weights[s] for s in sizes)
        shares = {s: weights[s] / whole for s in sizes}
        total = self.bytes or min(self.most_epochs * sizes[s] / p for s, p in shares.items() if p > 0)
        return {s: total * p / sizes[s] for s, p in shares.items()}

    def _by_temperature(self, sizes: Mapping[str, float]) -> dict[str, float]:
        exponent = 1 / (self.temperature or 1.0)
        log = {s: math.log(n) for s, n in sizes.items()}
        left = self.bytes or math.fsum(sizes.values())
        # Sources fill up in the order in which they reach most_epochs; what is left is shared among those after them.
        filling = sorted(sizes, key=lambda s: ((1 - exponent) * log[s], s))
        epochs: dict[str, float] = {}
        for i, s in enumerate(filling):
            others = math.fsum(math.exp(min(700.0, exponent * (log[other] - log[s]))) for other in filling[i:])
            taken = min(left / others, self.most_epochs * sizes[s])
            epochs[s], left = taken / sizes[s], left - taken
        return epochs


def _uniform(*parts: object) -> float:
    """In [0, 1), from a hash of some words: the same in every process."""
    return (hash_of("\0".join(map(str, parts))) >> 11) / 2**53


def copies(document_id: str, epochs: float) -> int:
    """How often a document is taken: the whole part of the epochs, and once more for a share of the documents that is the
    rest, chosen by a hash of their ids. It never falls when the epochs rise."""
    whole = math.floor(epochs)
    return whole + (_uniform("copies", document_id) < epochs - whole)


def order(document_id: str, copy: int = 0, seed: int = 0) -> int:
    """Where a copy comes in the shuffled corpus, uniform in [0, 2^64): copies are written in the order of these numbers."""
    return hash_of(f"order\0{seed}\0{copy}\0{document_id}")


def bucket(position: int, buckets: int) -> int:
    """Which of some buckets, each to be sorted by itself, a position lies in; the buckets follow each other in order."""
    return position * buckets >> 64


def held_out(document_id: str, share: float = 0.001) -> Split:
    """The split of a document, by a hash of its id: a share each for validation and test, 0.1 % as in The Pile (section 3.1).

    The Pile set documents aside after repetition and shuffling (`pass2_shuffle_holdout.py`), so that another copy might
    lie in the training part; here all copies of a document fall on the same side. Other documents with the text of one
    that is held out have to leave the training part still, as by its `dedupe_train.py`; near copies are not sought.
    """
    if not 0 <= share <= 0.5:
        raise UserError(f"The share held out for validation, and again for test, is from 0 to 0.5, not {share}.")
    place = _uniform("held out", document_id)
    return "validation" if place < share else "test" if place < 2 * share else "train"
