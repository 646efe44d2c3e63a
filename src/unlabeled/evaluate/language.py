"""Measure a model of text: bits per byte beside compressors, and a few samples."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from unlabeled.core.batch import Tokenizer
from unlabeled.core.method import Method
from unlabeled.evaluate import text
from unlabeled.evaluate.examples import Examples, batches
from unlabeled.evaluate.result import Evaluation, Table, TimeLimit
from unlabeled.model import Model

__all__ = ["measure", "show_samples"]

TOKENS, TOKENS_QUICK = 1_000_000, 100_000  # held-out tokens that are scored
PRIME, PRIME_QUICK = 8_000_000, 2_000_000  # bytes of training text that xz is given first


def measure(model: Model, into: Evaluation, *, quick: bool, seed: int, limit: TimeLimit) -> None:
    """Add the table of bits per byte over held-out windows."""
    store = model.store(model.source.split("test"))
    context = store.window or int(store.batch(np.arange(1))["tokens"].shape[1]) - 1
    wanted = min(len(store), -(-(TOKENS_QUICK if quick else TOKENS) // context))
    start = limit.left
    limit.say(f"scoring {wanted * context:,} held-out tokens")
    examples = Examples(store, np.arange(wanted), None)
    own, count = _surprise(model.method, examples, 0.4 * start)
    part = examples.first(max(1, min(count, 20_000 // context)))
    plain, _ = _surprise(model.fresh(seed), part, 0.1 * start)

    rows: list[list[Any]] = [
        [f"{model.system}, trained", _rounded(own.bits_per_byte), _rounded(own.perplexity)],
        [f"{model.system}, untrained", _rounded(plain.bits_per_byte), _rounded(plain.perplexity)],
    ]
    note = [
        f"{own.tokens:,} held-out tokens ({own.bytes:,} bytes) in windows of {context} without context before them"
        + ("" if count == len(store) else f", the first of {len(store) * context:,}")
        + (", fewer for lack of time" if count < wanted else ""),
        f"the untrained model on the first {plain.tokens:,}",
        "perplexity is per token, ends of documents included",
    ]
    note.append(
        "bits per byte leave out tokens that stand for no byte"
        if own.exact
        else "the method gives no likelihood of single tokens, so ends of documents count in the bits, not in the bytes"
    )
    if model.spec.tokenizer is not None:
        held = _bytes(model.spec.tokenizer, examples.first(count), None)
        rows.append(["frequencies of bytes", _rounded(text.byte_entropy(held)), None])
        rows.append(["bzip2 -9, alone", _rounded(text.bz2_bits(held)), None])
        begun = time.perf_counter()
        rows.append(["xz -9, alone", _rounded(text.xz_bits(held)), None])
        speed = len(held) / (time.perf_counter() - begun)  # bytes per second; larger texts are slower, and go twice
        most = int(min(PRIME_QUICK if quick else PRIME, min(limit.left, 1e6) * 0.15 * speed))
        if most > 20_000:
            limit.say("compressing")
            train = model.store(model.source.split("train"))
            seen = _bytes(model.spec.tokenizer, Examples(train, np.arange(len(train)), None), most)
            rows.append(["xz -9, after training text", _rounded(text.xz_bits(held, seen)), None])
            note.append(f"xz was given the first {len(seen):,} bytes of the training text, then the held-out text")
        else:
            note.append("xz after the training text was left out for lack of time")
    columns = ["model", "bits per byte", "perplexity"]
    into.tables.append(Table("How well it predicts held-out text", columns, rows, "; ".join(note) + "."))
    into.diagnostics |= {"bits_per_byte": _rounded(own.bits_per_byte), "perplexity": _rounded(own.perplexity)}
    into.headline.append(_headline(rows))


def show_samples(model: Model, into: Evaluation, *, quick: bool, seed: int, limit: TimeLimit) -> None:
    """Add three texts that the model wrote, of 120 tokens at most."""
    limit.say("writing samples")
    items = [str(t) for t in model.sample(3, seed=seed, steps=60 if quick else 120)["text"]]
    note = f"Not chosen: three texts of seed {seed}, cut off after {60 if quick else 120} tokens."
    into.figures["samples"] = {"kind": "samples", "title": "What it writes", "items": items, "note": note}


def _surprise(method: Method, examples: Examples, seconds: float) -> tuple[text.Surprise, int]:
    """The sums and how many windows they are over; stops early where the seconds are spent."""
    total, count, start = text.Surprise(), 0, time.perf_counter()
    for batch in batches(method, examples, size=16):
        text.surprise(method, batch, total)
        count += len(batch["tokens"])
        if time.perf_counter() - start > seconds:
            break
    return total, count


def _bytes(tokenizer: Tokenizer, examples: Examples, most: int | None) -> bytes:
    """The text of the predicted tokens of windows laid end to end, cut after `most` bytes."""
    parts, size = [], 0
    for start in range(0, len(examples), 256):
        ids = examples.store.batch(examples.indices[start : start + 256])["tokens"][:, 1:]
        parts.append(ids.reshape(-1))
        size += int(tokenizer.bytes_per_id()[parts[-1]].sum())
        if most is not None and size >= most:
            break
    return tokenizer.decode(np.concatenate(parts)).encode("utf-8", "replace")[:most]


def _headline(rows: list[list[Any]]) -> str:
    own, *others = ((row[0], row[1]) for row in rows)
    known = [(name, value) for name, value in others[1:] if value is not None]
    if not known or own[1] is None:
        return f"Its perplexity on held-out text is {rows[0][2]:,.1f} per token, untrained {rows[1][2]:,.1f}."
    best, value = min(known, key=lambda o: o[1])
    result = "better than any of them" if own[1] < value else f"not yet as good as {best}"
    listed = ", ".join(f"{name} {number:.2f}" for name, number in known)
    return f"It needs {own[1]:.2f} bits per byte of held-out text, {result}: {listed}, untrained {others[0][1]:.2f}."


def _rounded(value: float) -> float | None:
    return round(value, 4) if value == value else None
