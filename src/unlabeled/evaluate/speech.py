"""Measure an encoder of sound: which phones its local features tell apart, what its features know about a whole
recording, and how well it learns to read speech, each beside spectra and untrained weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from unlabeled.core.errors import UserError
from unlabeled.core.method import Method
from unlabeled.data.melspec import per_recording, stacked
from unlabeled.data.source import SILENCES
from unlabeled.evaluate import abx, collapse, ctc, knn, linear
from unlabeled.evaluate.recordings import (
    SPECTRA,
    Recordings,
    batch_of,
    grouped,
    locally,
    moments,
    rate_of,
    spectra,
)  # fmt: skip
from unlabeled.evaluate.result import Evaluation, Table, TimeLimit
from unlabeled.model import Model
from unlabeled.parallel.world import device

__all__ = ["measure", "phones_at", "softmax_probe"]

AROUND = 11  # frames of a spectrum in the strong baseline: 220 ms at 50 a second
DIAGNOSED = 2000  # frames
TRIPLES = 1500
EPOCHS, STEPS, LR, BATCH = 12, 1000, 3e-3, 1024  # of the probe of frames; at least so many epochs and steps
TUNING = (15.0, 120.0)  # seconds that fine-tuning one network may take, quick or not
READABLE = 20  # recordings with words from which one can begin to learn to read
FEWEST = 20  # updates that are worth calling fine-tuning


def measure(model: Model, into: Evaluation, *, quick: bool, seed: int, limit: TimeLimit) -> None:
    """Add tables and diagnostics about the features of `model`.

    Raises:
        UserError: where a split holds too little.
    """
    train, test = (_drawn(model, part, seed) for part in ("train", "test"))
    aligned = all(r.alignments[0] is not None for r in (train, test))
    written = len(train) >= READABLE and all(r.source.transcript(r.rows[0]) for r in (train, test))
    labelled = train.source.labels is not None
    # As initialised, which is what learning has to beat.
    methods = {f"{model.system}, trained": model.method, f"{model.system}, random weights": model.fresh(seed)}
    if not (aligned or written):
        _diagnose(np.concatenate(locally(model.method, test.first(20))), into)
    else:
        sizes = (100, 30) if quick else (300, 60)
        train, test, features = _features(methods, train.first(sizes[0]), test.first(sizes[1]), limit)
        own = next(iter(features.values()))
        _diagnose(np.concatenate(own[1]), into)
        if not all(np.isfinite(f).all() for part in own for f in part):
            into.headline.append("The features are not finite: training has failed.")
            return
        times = [moments(model.method, r) for r in (train, test)]
        rate = rate_of(model.method)
        made = {n: [spectra(n, r, rate, t) for r, t in zip((train, test), times)] for n in SPECTRA}
        if aligned:
            level = {name: [[_level(f) for f in part] for part in parts] for name, parts in features.items()}
            _phones(level, made, (train, test), times, into, seed, limit)
        if written:
            _reading(methods, features, made, train, test, into, quick, seed, limit)
    if labelled and model.can("embed"):
        train, test = (_drawn(model, part, seed).first(n) for part, n in (("train", 4000), ("test", 2000)))
        _whole(methods, rate_of(model.method), train.first(500 if quick else 4000), test, into, limit)
    if not (aligned or written or labelled):
        into.headline.append(
            "There are no phone times, no labels and not enough words in this data, so nothing can be said about what the "
            f"features know. {into.diagnostics['verdict']}"
        )


Features = dict[str, list[list[np.ndarray]]]  # by name: those of the training and of the held-out recordings


def _features(
    methods: dict[str, Method], train: Recordings, test: Recordings, limit: TimeLimit
) -> tuple[Recordings, Recordings, Features]:
    """Local features by each method, of as many recordings as a quarter of the time allows."""
    limit.say("embedding a few recordings")
    few = test.first(8)
    for _ in range(2):  # the first time is slower
        clock = TimeLimit(None)
        locally(next(iter(methods.values())), few)
    if limit.left < float("inf"):
        room = limit.left / 4 / len(methods) / (clock.spent / len(few))
        share = min(1.0, room / (len(train) + len(test)))
        train, test = train.first(max(20, int(share * len(train)))), test.first(max(10, int(share * len(test))))
    found: Features = {}
    for name, method in methods.items():
        limit.say(f"embedding {len(train)} + {len(test)} recordings by {name}")
        found[name] = [locally(method, r) for r in (train, test)]
    return train, test, found


def _level(features: np.ndarray) -> np.ndarray:
    return per_recording(torch.from_numpy(features)).numpy()


def _drawn(model: Model, part: str, seed: int) -> Recordings:
    """A split in random order, the same for a seed."""
    source = model.source.split(part)
    store = model.store(source)
    return Recordings(source, store, np.random.default_rng(seed).permutation(len(store)))


# ---- phones ----------------------------------------------------------------------------------------------------------


def phones_at(alignment: Sequence[tuple[float, float, str]], times: np.ndarray) -> list[str]:
    """The phone in whose [start, end) each moment falls; "" where there is none."""
    which = np.searchsorted([end for _, end, _ in alignment], times, side="right")
    return [alignment[k][2] if k < len(alignment) and alignment[k][0] <= time else "" for k, time in zip(which, times)]


def _stacked(spectra: Sequence[np.ndarray]) -> list[np.ndarray]:
    return [stacked(torch.from_numpy(s), AROUND).numpy() for s in spectra]


def _phones(
    level: Features,
    made: Features,
    recordings: tuple[Recordings, Recordings],
    times: Sequence[Sequence[np.ndarray]],
    into: Evaluation,
    seed: int,
    limit: TimeLimit,
) -> None:
    """ABX and the probe of frames. level, made: features of networks and spectra, levelled; times: their moments."""
    alignments = [[a or [] for a in r.alignments] for r in recordings]
    _compare(level | made, alignments[1], times[1], into, seed, limit)

    said = [[phones_at(a, t) for a, t in zip(of, at)] for of, at in zip(alignments, times)]
    names = sorted({p for phones in said[0] for p in phones} - SILENCES)
    place = {name: i for i, name in enumerate(names)}
    masks = [[np.array([p in place for p in phones], bool) for phones in part] for part in said]
    labels, answers = (np.array([place[p] for phones in part for p in phones if p in place], int) for part in said)
    whose = np.repeat(np.arange(len(masks[1])), [m.sum() for m in masks[1]])
    if len(names) < 2 or not len(answers):
        raise UserError("The phone times name fewer than two phones in one of the splits, so none can be told apart.")
    features = level | made | {f"{n} x {AROUND} frames": [_stacked(part) for part in of] for n, of in made.items()}
    rows: list[list[Any]] = []
    right: dict[str, np.ndarray] = {}
    for name, parts in features.items():
        limit.say(f"probing {name}")
        x, q = (np.concatenate([f[m] for f, m in zip(part, kept)]) for part, kept in zip(parts, masks))
        found = softmax_probe(x, labels, q, len(names), seed=seed)
        right[name] = found == answers
        rows.append([name, x.shape[1], *_accuracies(found, answers)])
    most = int(np.bincount(labels).argmax())
    rows.append([f"the most frequent phone, {names[most]}", None, *_accuracies(np.full_like(answers, most), answers)])
    note = (
        f"Accuracy in % on {len(answers):,} frames of {len(masks[1])} held-out recordings, of a linear softmax learned on "
        f"{len(labels):,} frames of {len(masks[0])}; {len(names)} phones, silence left out; balanced: mean over phones. "
        "A frame's phone is the one at its middle. All features at the same moments, brought to mean 0 and variance 1 "
        "over each recording, then standardised by the training frames."
    )
    into.tables.append(Table("Which phone a frame is of", ["features", "width", "accuracy", "balanced"], rows, note))
    into.headline.append(_headline(right, whose))


def _accuracies(found: np.ndarray, answers: np.ndarray) -> list[float]:
    """Accuracy, and its mean over the classes that occur, in %."""
    of = [float((found[answers == c] == c).mean()) for c in np.unique(answers)]
    return [round(100 * float((found == answers).mean()), 2), round(100 * float(np.mean(of)), 2)]


def softmax_probe(
    train: np.ndarray, labels: np.ndarray, queries: np.ndarray, classes: int, *, seed: int = 0
) -> np.ndarray:
    """(m,) int64 classes by a linear softmax on standardised features: Adam, 12 epochs or more, learning rate falling to zero.

    train: (n, width). labels: (n,) int64 below `classes`. queries: (m, width).
    """
    x, q = (torch.from_numpy(np.asarray(a, np.float32)).to(device()) for a in (train, queries))
    y = torch.from_numpy(labels).to(device())
    deviation, mean = torch.std_mean(x, 0, correction=0)
    scale = torch.where(deviation > 1e-6 * deviation.max().clamp(min=1e-30), 1 / deviation, 0)
    x, q = (x - mean) * scale, (q - mean) * scale
    weight, bias = (
        torch.zeros(*shape, device=device(), requires_grad=True) for shape in ((x.shape[1], classes), (classes,))
    )
    optimizer = torch.optim.Adam([weight, bias], lr=LR)
    rng = np.random.default_rng(seed)
    each = -(-len(x) // BATCH)
    epochs = max(EPOCHS, -(-STEPS // each))
    done, steps = 0, epochs * each
    for _ in range(epochs):
        for rows in torch.from_numpy(rng.permutation(len(x))).to(device()).split(BATCH):
            optimizer.param_groups[0]["lr"] = LR * (1 - done / steps)
            optimizer.zero_grad()
            F.cross_entropy(torch.addmm(bias, x[rows], weight), y[rows]).backward()
            optimizer.step()
            done += 1
    with torch.no_grad():
        return torch.addmm(bias, q, weight).argmax(1).cpu().numpy()


def _headline(right: dict[str, np.ndarray], whose: np.ndarray) -> str:
    """right: of each kind of features which frames were right, the model's own first; whose: recording of each frame.

    Frames of one recording are not independent; the difference is judged by how it varies between recordings.
    """
    (_, own), *others = right.items()
    best, rival = max(others, key=lambda other: other[1].mean())
    gains = np.bincount(whose, own.astype(float) - rival)
    sizes = np.bincount(whose)
    gap = gains.sum() / sizes.sum()
    noise = np.sqrt(np.square(gains - gap * sizes).sum()) / sizes.sum()
    result = f"not distinguishable from {best.split(', ')[-1]}"
    if abs(gap) > 2 * noise:
        result = "above all of them" if gap > 0 else f"below {best.split(', ')[-1]}"
    listed = ", ".join(f"{name.split(', ')[-1]} {100 * of.mean():.1f} %" for name, of in others)
    return (
        f"From one frame of the learned features a linear probe names the phone right on {100 * own.mean():.1f} % of "
        f"held-out frames; without learning: {listed}. That is {result}."
    )


def _compare(
    features: Features,
    alignments: Sequence[Sequence[tuple[float, float, str]]],
    times: Sequence[np.ndarray],
    into: Evaluation,
    seed: int,
    limit: TimeLimit,
) -> None:
    """ABX on the held-out recordings, which are taken to be of one speaker."""
    tokens = abx.tokens_of(alignments, times, SILENCES)
    free, (close, weights) = abx.any_context(tokens, TRIPLES, seed), abx.same_context(tokens, seed)
    if not len(free):
        return
    rows: list[list[Any]] = []
    for name, parts in features.items():
        limit.say(f"comparing phones by {name}")
        segments = tokens.cut(parts[1])
        missed = abx.wrong(segments, free)
        spread = missed.std() / len(missed) ** 0.5
        near = round(100 * float(weights @ abx.wrong(segments, close)), 2) if len(close) else None
        rows.append([name, f"{100 * missed.mean():.1f} ± {100 * spread:.1f}", near])
    note = (
        f"Error in %, 50 is chance: how often a phone is nearer to another phone than to another token of itself, by "
        f"the angular distance of its frames along the best warping path. Any context: {len(free):,} random triples, "
        f"± standard error; same context: {len(close):,} triples between the same two neighbours, averaged over "
        f"contexts, then over pairs of phones. {len(tokens):,} tokens of {len(times)} held-out recordings."
    )
    columns = ["features", "any context", "same context"]
    into.tables.append(Table("Whether a phone is nearest to itself (ABX)", columns, rows, note))


# ---- whole recordings ------------------------------------------------------------------------------------------------


def _whole(
    methods: dict[str, Method],
    rate_hz: int,
    train: Recordings,
    test: Recordings,
    into: Evaluation,
    limit: TimeLimit,
) -> None:
    """Probes of what is known about each recording as a whole."""
    labels, answers = (np.asarray(r.source.labels, np.int64)[r.rows] for r in (train, test))
    seen, open_ = labels >= 0, answers >= 0
    if len(np.unique(labels[seen])) < 2 or not open_.any():
        into.headline.append("Fewer than two kinds of recordings are labelled, so none can be told apart.")
        return
    features: dict[str, list[np.ndarray]] = {}
    for name, method in methods.items():
        limit.say(f"embedding {len(train)} + {len(test)} recordings by {name}")
        features[name] = [_embedded(method, r) for r in (train, test)]
    for name in SPECTRA:
        features[f"{name}, mean and deviation"] = [_statistics(name, r, rate_hz) for r in (train, test)]
    rows: list[list[Any]] = []
    for name, (bank, queries) in features.items():
        x, y, q, a = bank[seen], labels[seen], queries[open_], answers[open_]
        found = [linear.predict(x, y, q), knn.predict(x, y, q, k=1)]
        rows.append([name, *(round(100 * float((f == a).mean()), 2) for f in found)])
    common = float((answers[open_] == np.bincount(labels[seen]).argmax()).mean())
    rows.append(["the most frequent class", round(100 * common, 2), None])
    note = f"Accuracy in % on {open_.sum():,} held-out recordings, learned on {seen.sum():,}; linear: ridge."
    into.tables.append(Table("What the features know about a recording", ["features", "linear", "1-NN"], rows, note))
    (_, own, _), *others, most = rows
    listed = ", ".join(
        f"{name.split(', ', 1)[-1] if name in methods else name} {right:.1f} %" for name, right, _ in others
    )
    into.headline.append(
        f"A linear probe on the learned features names the class of a recording right for {own:.1f} % of "
        f"{open_.sum():,} held-out ones; without learning: {listed}, always the most frequent {most[1]:.1f} %."
    )


def _embedded(method: Method, recordings: Recordings) -> np.ndarray:
    found: dict[int, np.ndarray] = {}
    with torch.no_grad():
        for which in grouped(recordings.lengths):
            rows = method.embed(batch_of(method, recordings, which)).float().cpu().numpy()  # type: ignore[operator]
            found |= dict(zip(which.tolist(), rows))
    return np.stack([found[i] for i in range(len(recordings))])


def _statistics(name: str, recordings: Recordings, rate_hz: int) -> np.ndarray:
    return np.stack([np.concatenate([f.mean(0), f.std(0)]) for f in spectra(name, recordings, rate_hz)])


# ---- reading ---------------------------------------------------------------------------------------------------------


def _reading(
    methods: dict[str, Method],
    features: Features,
    made: Features,
    train: Recordings,
    test: Recordings,
    into: Evaluation,
    quick: bool,
    seed: int,
    limit: TimeLimit,
) -> None:
    """CTC on fixed features, and fine-tuning from trained and from untrained weights."""
    said, answers = ([ctc.plain(r.source.transcript(row) or "") for row in r.rows] for r in (train, test))
    alphabet = ctc.Alphabet.of(said)
    if not alphabet.characters or not any(answers):
        return
    codes, once = [alphabet.encode(text) for text in said], 100 if quick else 300
    fixed = features | {f"log-mel 80 x {AROUND} frames": [_stacked(part) for part in made["log-mel 80"]]}
    rows: list[list[Any]] = []

    def add(name: str, texts: Sequence[str]) -> None:
        rates = (round(100 * ctc.error_rate(answers, texts, words=w), 1) for w in (False, True))
        rows.append([name, *rates, texts[0]])

    heads = {}
    for name, parts in fixed.items():
        limit.say(f"reading from {name}")
        heads[name] = ctc.train_head(parts[0], codes, alphabet, updates=once, seed=seed)
        add(name, ctc.read_features(heads[name], parts[1]))
    own, random = methods
    seconds = min(TUNING[0 if quick else 1], 0.4 * limit.left)
    updates = ctc.updates_within(seconds, methods[own], heads[own], train, codes, 1000)
    if updates >= FEWEST:
        for name, method in methods.items():
            tuned = ctc.fine_tune(method, heads[name], train, codes, updates=updates, seed=seed, say=limit.say)
            add(f"{name}, fine-tuned", ctc.read(*tuned, test))
    minutes = train.lengths.sum() / rate_of(methods[own]) / 60
    note = (
        f"Errors in %: edits of characters or words over those said in {len(test)} held-out recordings; an empty text "
        f"has 100. A linear head learned with CTC on {minutes:.1f} minutes of transcribed speech, {once} updates on "
        f"fixed features"
        + (f", then {updates} of all weights where fine-tuned" if updates >= FEWEST else "")
        + f"; read greedily, without a language model. The first recording says: {answers[0]}"
    )
    into.tables.append(Table("Learning to read", ["features", "characters", "words", "reads"], rows, note))
    of = {row[0]: f"{row[1]:.1f} %" for row in rows}
    tuned_to = [row[1] for row in rows[len(fixed) :]]
    into.headline.append(
        f"With {minutes:.1f} minutes of transcribed speech a linear head on the learned features misreads {of[own]} of "
        f"characters, on random weights {of[random]}, on log-mel x {AROUND} frames {rows[2][1]:.1f} %"
        + (f"; fine-tuned {tuned_to[0]:.1f} %, from random weights {tuned_to[1]:.1f} %." if tuned_to else ".")
    )


def _diagnose(frames: np.ndarray, into: Evaluation) -> None:
    into.diagnostics |= collapse.diagnosis(frames[:: max(1, len(frames) // DIAGNOSED)][:DIAGNOSED])
