"""Measure an encoder of text: does it know which manual, language or module a passage is from?

Labels come from the data itself: its classes, or the folders (else the suffixes) of its files. Passages of one file are
all on one side of the split.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from unlabeled.core.batch import Record
from unlabeled.core.errors import UserError
from unlabeled.data.source import Source
from unlabeled.data.sources.memory import TextsInMemory
from unlabeled.evaluate import encoder, finetune
from unlabeled.evaluate.examples import Examples, chosen, embedded
from unlabeled.evaluate.result import Evaluation, TimeLimit
from unlabeled.model import Model

__all__ = ["Passages", "hashed_counts", "measure", "passages", "topics"]

CHARACTERS = 600  # of a passage: about a hundred words
EACH = 4  # passages of one file, so that long files do not stand for their class
CLASSES = 20  # the largest
FEWEST = (8, 2)  # files of a class in train and test
HASHED = 4096  # columns of the counts of words and letters


class Passages(TextsInMemory):
    """Passages with the class of the file that each is from."""

    name = "passages"

    def __init__(self, texts: Sequence[str], labels: np.ndarray, classes: Sequence[str]) -> None:
        super().__init__(texts)
        self.labels, self.classes = labels, tuple(classes)

    def __getitem__(self, index: int) -> Record:
        assert self.labels is not None
        return Record(str(index), {"text": self.texts[index]}, int(self.labels[index]))


def topics(source: Source) -> list[str] | None:
    """The class of each record: its label, or the first part of its path in which files differ, or its suffix.

    None where the data says nothing of the kind. Records without a class get "".
    """
    if source.labels is not None and len(source.classes) > 1:
        return [source.classes[label] if label >= 0 else "" for label in source.labels]
    paths = [PurePosixPath(source.group(i)) for i in range(len(source))]
    depth = 0
    while all(len(p.parts) > depth + 1 for p in paths) and len({p.parts[depth] for p in paths}) == 1:
        depth += 1
    for names in ([p.parts[depth] if len(p.parts) > depth + 1 else "" for p in paths], [p.suffix for p in paths]):
        if len(set(names) - {""}) > 1:
            return names
    return None


def passages(train: Source, test: Source) -> tuple[Passages, Passages] | None:
    """Passages of the files of both splits, in the classes that have enough files in both; None where there are none."""
    of_train, of_test = topics(train), topics(test)
    if of_train is None or of_test is None:
        return None
    counts = [Counter(names) for names in (of_train, of_test)]
    kept = [n for n in counts[0] if n and counts[0][n] >= FEWEST[0] and counts[1][n] >= FEWEST[1]]
    classes = sorted(sorted(kept, key=lambda n: -counts[0][n])[:CLASSES])
    if len(classes) < 2:
        return None
    return _cut(train, of_train, classes), _cut(test, of_test, classes)


def _cut(source: Source, names: Sequence[str], classes: Sequence[str]) -> Passages:
    texts, labels = [], []
    for index, name in enumerate(names):
        if name not in classes:
            continue
        text = source[index].fields["text"]
        starts = np.linspace(0, max(0, len(text) - CHARACTERS), EACH).astype(int)
        for start in sorted(set((starts // CHARACTERS * CHARACTERS).tolist())):
            if piece := text[start : start + CHARACTERS].strip():
                texts.append(piece)
                labels.append(classes.index(name))
    return Passages(texts, np.array(labels, np.int64), classes)


def hashed_counts(train: Sequence[str], test: Sequence[str], unit: str) -> tuple[np.ndarray, np.ndarray]:
    """TF-IDF of words, or of runs of two to four letters, hashed into (n, 4096) float32 rows of unit length.

    unit: "words" or "letters". Counts enter as 1 + log; rarity is that in `train`.
    """
    rows = []
    for texts in (train, test):
        counts = np.zeros((len(texts), HASHED), np.float32)
        for row, text in enumerate(texts):
            low = text.lower()
            found = (
                low.split() if unit == "words" else [low[i : i + n] for n in (2, 3, 4) for i in range(len(low) - n + 1)]
            )
            np.add.at(counts[row], [zlib.crc32(f.encode("utf-8", "replace")) % HASHED for f in found], 1)
        rows.append(np.where(counts > 0, 1 + np.log(np.maximum(counts, 1)), 0))
    rarity = np.log((1 + len(train)) / (1 + (rows[0] > 0).sum(0))) + 1
    weighted = [(r * rarity).astype(np.float32) for r in rows]
    return tuple(w / np.maximum(np.linalg.norm(w, axis=1, keepdims=True), 1e-12) for w in weighted)  # type: ignore[return-value]


def measure(model: Model, into: Evaluation, *, quick: bool, seed: int, limit: TimeLimit) -> None:
    """Add the table of what features know about where a passage is from, and what fine-tuning makes of it.

    Raises:
        UserError: where the data has no classes of its own with enough files.
    """
    cut = passages(*(model.source.split(part) for part in ("train", "test")))
    if cut is None:
        raise UserError(
            f"{model.source.name} has no folders, suffixes or classes with enough files in both splits to ask features about."
        )
    sizes = (1500, 600) if quick else (8000, 2500)
    train, test = (chosen(p, model.store(p, whole=True), n, seed) for p, n in zip(cut, sizes))
    limit.say(f"embedding {len(train):,} + {len(test):,} passages")
    features: list[tuple[str, np.ndarray, np.ndarray]] = []
    for name, method in (("trained", model.method), ("random weights", model.fresh(seed))):
        features.append((f"{model.system}, {name}", embedded(method, train), embedded(method, test)))
    texts = [
        [p.texts[int(examples.store.rows[i])] for i in examples.indices] for p, examples in zip(cut, (train, test))
    ]
    for unit in ("words", "letters"):
        features.append((f"TF-IDF of {unit}", *hashed_counts(texts[0], texts[1], unit)))
    said = [f"{len(train):,} and {len(test):,} passages of at most {CHARACTERS} characters", _named(cut[0].classes)]
    encoder.probe(features, train, test, into, seed=seed, said=said, limit=limit)
    into.diagnostics["passages"] = {"classes": list(cut[0].classes), "most_frequent": _most_frequent(train, test)}
    if not quick:
        finetune.measure(model, train, test, into, seed=seed, limit=limit)


def _named(classes: Sequence[str]) -> str:
    shown = ", ".join(classes[:8]) + (" and others" if len(classes) > 8 else "")
    return f"{len(classes)} classes, by where the file lies: {shown}"


def _most_frequent(train: Examples, test: Examples) -> float:
    """Share of held-out passages that are of the most frequent class, in %: what knowing nothing gives."""
    assert train.labels is not None and test.labels is not None
    most: Any = np.bincount(train.labels).argmax()
    return round(100 * float((test.labels == most).mean()), 2)
