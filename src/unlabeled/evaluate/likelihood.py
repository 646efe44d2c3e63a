"""Measure what a model of images knows of them: bits per dimension, what comes back from its codes, what lies between.

Bits per dimension are of the stored 8-bit image: -log2 p(image) / (height x width x channels), so that densities of
continuous pixels, tables of counts and compressed files can stand in one table.
"""

from __future__ import annotations

import io
import lzma
import math
import time
from typing import Any

import numpy as np
import torch
from PIL import Image

from unlabeled.core.method import Method
from unlabeled.evaluate import frechet
from unlabeled.evaluate.examples import Examples, batches, chosen, images
from unlabeled.evaluate.features import feature_space
from unlabeled.evaluate.result import Evaluation, Table, TimeLimit
from unlabeled.model import Model
from unlabeled.objectives.gaussians import slerp

__all__ = [
    "PCA",
    "gaussian_bits",
    "histogram_bits",
    "lzma_bits",
    "measure",
    "neighbour_bits",
    "pixel_bits",
    "png_bits",
]

SCORED, SCORED_QUICK = 10_000, 2_000  # held-out images
FITTED = 60_000  # training images behind tables of counts
AT_ONCE = 64  # images that are scored together
PSEUDO = 16  # pixels' worth of the overall histogram in every table, so that no level is impossible
LARGEST_COVARIANCE = 4096  # numbers in an image
FEWEST_LEVELS = 16  # images with fewer levels of grey are drawn or cut to bits: cheap, without being suspicious
SUSPICIOUS = 1.5  # bits per dimension that no model of photographs in 8 bits has been seen below
SHOWN, PATHS, STOPS = 6, 4, 7
MIDDLES = 1_000


def measure(model: Model, into: Evaluation, *, quick: bool, seed: int, limit: TimeLimit) -> None:
    """Add what the capabilities allow: the table of bits per dimension, of reconstructions, paths between images."""
    parts = [model.source.split(part) for part in ("train", "test")]
    sizes = (4000, SCORED_QUICK) if quick else (FITTED, SCORED)
    train, test = (chosen(p, model.store(p), n) for p, n in zip(parts, sizes))
    bank, held = images(train), images(test)
    if model.can("score"):
        _likelihood(model, into, train, test, bank, held, seed, limit.part(0.7))
    if model.can("reconstruct"):
        _reconstruction(model, into, test, bank, held, limit.part(0.5))
    if model.can("encode"):
        _paths(model, into, train, test, bank, held, seed, limit)


# ---- bits per dimension ------------------------------------------------------------------------------------------------


def _likelihood(
    model: Model,
    into: Evaluation,
    train: Examples,
    test: Examples,
    bank: np.ndarray,
    held: np.ndarray,
    seed: int,
    limit: TimeLimit,
) -> None:
    d = math.prod(held.shape[1:])
    kind = "bound" if model.method.likelihood == "lower bound" else "exact"
    start = limit.left
    limit.say(f"scoring up to {len(test):,} held-out images")
    own = _bits(model.method, test, d, 0.45 * start)
    seen = _bits(model.method, train.first(len(own)), d, 0.2 * start)
    plain = _bits(model.fresh(seed), test.first(min(len(own), 500)), d, 0.1 * start)
    rows: list[list[Any]] = [
        [f"{model.system}, trained", kind, len(own), _mean(own)],
        [f"{model.system}, on training images", kind, len(seen), _mean(seen)],
        [f"{model.system}, untrained", kind, len(plain), _mean(plain)],
    ]
    limit.say("fitting tables and compressing")
    rows += [
        ["histogram of all pixels", "exact", len(held), histogram_bits(bank, held)],
        ["histogram of each pixel", "exact", len(held), pixel_bits(bank, held)],
        ["table by the pixels to the left and above", "exact", len(held), neighbour_bits(bank, held)],
    ]
    left_out = []
    if d <= LARGEST_COVARIANCE and len(bank) > 1 and limit.left > 10 * (d / 1000) ** 3:
        rows.append(["Gaussian, full covariance", "bound", len(held), gaussian_bits(bank, held)])
    else:
        left_out.append("the Gaussian")
    if limit.left > len(held) * d / 1e6:  # about as fast as it goes
        rows.append(["xz -9 of all held-out pixels", "size", len(held), lzma_bits(held)])
        some = held[:1000]
        rows.append(["PNG, each image alone", "size", len(some), png_bits(some)])
    else:
        left_out.append("compressed files")
    for row in rows:
        row[3] = round(row[3], 3)

    spread = float(own.std() / math.sqrt(len(own)))
    gap = float(own.mean() - seen.mean())
    note = (
        f"Images are {d:,} numbers of 256 levels. Standard error of the first row {spread:.3f}; held-out minus training "
        f"{gap:+.3f}. Tables and the Gaussian are fitted to {len(bank):,} training images; the Gaussian's pixels are "
        "uniform within their levels."
    )
    note += " A bound: the likelihood is at least what these bits say." if kind == "bound" else ""
    note += f" Only {len(own):,} of {len(test):,} images were scored, for lack of time." if len(own) < len(test) else ""
    note += f" Left out for lack of time or size: {' and '.join(left_out)}." if left_out else ""
    columns = ["model", "kind", "images", "bits per dimension"]
    into.tables.append(Table("How likely held-out images are", columns, rows, note))
    into.diagnostics |= {
        "bits_per_dimension": round(float(own.mean()), 4),
        "nats_per_image": round(float(own.mean()) * d * math.log(2), 3),
        "bits_train_test_gap": round(gap, 4),
        "likelihood": model.method.likelihood,
    }
    into.headline += _verdict(rows, kind, len(np.unique(held[:200])), gap, spread)


def _bits(method: Method, examples: Examples, d: int, seconds: float) -> np.ndarray:
    """(m,) bits per dimension of as many examples as fit in the seconds, but some."""
    start, out = time.perf_counter(), []
    with torch.no_grad():
        for batch in batches(method, examples, AT_ONCE):
            nats = method.score(batch).double().cpu().numpy()  # type: ignore[attr-defined]
            out.append(-nats / (d * math.log(2)))
            if time.perf_counter() - start > seconds:
                break
    return np.concatenate(out)


def _mean(values: np.ndarray) -> float:
    return float(values.mean())


def _verdict(rows: list[list[Any]], kind: str, levels: int, gap: float, spread: float) -> list[str]:
    own, untrained = rows[0][3], rows[2][3]
    others = [(row[0], row[3]) for row in rows[3:]]
    best, value = min(others, key=lambda o: o[1])
    most = "at most " if kind == "bound" else ""
    result = "fewer than any of them" if own < value else f"more than the best of them ({best})"
    listed = ", ".join(f"{name} {bits:.2f}" for name, bits in others)
    said = [
        f"It needs {most}{own:.2f} bits per dimension of held-out images, {result}: {listed}, untrained {untrained:.2f}."
    ]
    if own < SUSPICIOUS and levels > FEWEST_LEVELS:
        said.append(
            f"{own:.2f} bits per dimension are too few to be true of 8-bit photographs: check that the likelihood is one "
            "of whole levels (continuous pixels need noise), and that it is in nats, summed over the image."
        )
    if gap < -5 * spread - 0.01:
        said.append(
            f"Training images cost {-gap:.2f} bits per dimension more than held-out ones, which points to a mistake: the "
            "splits differ, or the likelihood depends on something else than the image."
        )
    return said


def histogram_bits(train: np.ndarray, test: np.ndarray) -> float:
    """Bits per dimension of all pixels alike: the histogram of the training levels. (n, h, w, c) uint8, as below."""
    return float(-np.log2(_histogram(train))[test].mean())


def pixel_bits(train: np.ndarray, test: np.ndarray) -> float:
    """Each pixel by its own histogram over the training images."""
    where = np.broadcast_to(np.arange(math.prod(train.shape[1:])).reshape(train.shape[1:]), train.shape[1:])
    return _table_bits(train, test, [np.broadcast_to(where, x.shape) for x in (train, test)], where.size)


def neighbour_bits(train: np.ndarray, test: np.ndarray) -> float:
    """Each pixel by a table of its channel, its left and its upper neighbour, each in 16 bins; black beyond borders."""

    def contexts(x: np.ndarray) -> np.ndarray:
        coarse = np.pad(x >> 4, ((0, 0), (1, 0), (1, 0), (0, 0))).astype(np.int32)
        return np.arange(x.shape[3]) * 256 + coarse[:, 1:, :-1] * 16 + coarse[:, :-1, 1:]

    return _table_bits(train, test, [contexts(train), contexts(test)], 256 * train.shape[3])


def gaussian_bits(train: np.ndarray, test: np.ndarray) -> float:
    """A Gaussian with full covariance, fitted to pixels that are uniform within their levels, and scored on such.

    The noise is integrated out: it adds 1/12 to the variances, and to the mean square of what is scored. Like one draw of
    the noise it bounds the likelihood of the level from below (Jensen), so these are upper bounds on the bits.
    """
    d, y = math.prod(train.shape[1:]), test.reshape(len(test), -1).astype(np.float64)
    mean, covariance = train.reshape(len(train), -1).mean(0, dtype=np.float64), np.eye(d) / 12
    for part in range(0, len(train), 4000):  # float64 is eight times as large as the pixels
        x = train[part : part + 4000].reshape(-1, d) - mean
        covariance += x.T @ x / len(train)
    lower = np.linalg.cholesky(covariance)
    inverse = np.linalg.inv(lower)
    distance = np.square((y - mean) @ inverse.T).sum(1).mean() + np.square(inverse).sum() / 12
    nats = -0.5 * (distance + d * math.log(2 * math.pi)) - np.log(np.diag(lower)).sum()
    return float(-nats / (d * math.log(2)))


def lzma_bits(test: np.ndarray) -> float:
    """Of all pixels one after another in one xz file."""
    return 8 * len(lzma.compress(np.ascontiguousarray(test).tobytes(), preset=9)) / test.size


def png_bits(test: np.ndarray) -> float:
    """Of each image in a PNG file of its own, header and all."""
    size = 0
    for image in test:
        out = io.BytesIO()
        Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(out, "PNG", optimize=True)
        size += len(out.getvalue())
    return 8 * size / test.size


def _histogram(train: np.ndarray) -> np.ndarray:
    counts = np.bincount(train.reshape(-1), minlength=256) + 1.0
    return counts / counts.sum()


def _table_bits(train: np.ndarray, test: np.ndarray, contexts: list[np.ndarray], size: int) -> float:
    """Bits per dimension by a table of levels in each of `size` contexts, given for every pixel of both sets."""
    counts = np.zeros(size * 256)
    for part in range(0, len(train), 2000):  # the index is eight times as large as the pixels
        where = contexts[0][part : part + 2000].astype(np.int64) * 256 + train[part : part + 2000]
        counts += np.bincount(where.reshape(-1), minlength=size * 256)
    table = counts.reshape(size, 256)
    table = (table + PSEUDO * _histogram(train)) / (table.sum(1, keepdims=True) + PSEUDO)
    bits = -np.log2(table)
    return float(np.mean([bits[c, x].mean() for c, x in zip(contexts[1], test)]))


# ---- reconstructions ---------------------------------------------------------------------------------------------------


class PCA:
    """The linear code of so many numbers that gives images back with the least mean squared error."""

    def __init__(self, train: np.ndarray, components: int) -> None:
        x = _unit(train[:20_000])
        self.mean = x.mean(0)
        _, vectors = np.linalg.eigh((x - self.mean).T @ (x - self.mean) / len(x))
        self.axes = vectors[:, ::-1][:, :components]

    def __call__(self, pictures: np.ndarray) -> np.ndarray:
        """(n, h, w, c) uint8, there and back."""
        back = self.mean + (_unit(pictures) - self.mean) @ self.axes @ self.axes.T
        return (255 * back).round().clip(0, 255).astype(np.uint8).reshape(pictures.shape)


def _reconstruction(
    model: Model, into: Evaluation, test: Examples, bank: np.ndarray, held: np.ndarray, limit: TimeLimit
) -> None:
    limit.say("reconstructing")
    start, size, made, codes = time.perf_counter(), limit.left, [], None
    with torch.no_grad():
        for batch in batches(model.method, test, AT_ONCE):
            if codes is None and model.can("encode"):
                codes = model.method.encode(batch)[:1]  # type: ignore[attr-defined]
            made.append(model.method.reconstruct(batch)["image"].cpu().numpy())  # type: ignore[attr-defined]
            if time.perf_counter() - start > 0.5 * size:
                break
    back = np.concatenate(made)
    held, d = held[: len(back)], math.prod(held.shape[1:])
    back = back[: len(held)]
    numbers = codes.numel() if codes is not None and codes.is_floating_point() else 16
    rows = [_distortion(f"{model.system}, trained", held, back)]
    rows.append(_distortion("mean image", held, np.broadcast_to(bank[:FITTED].mean(0).round(), held.shape)))
    if numbers < min(d, len(bank)) and d <= LARGEST_COVARIANCE:
        rows.append(_distortion(f"PCA, {numbers} numbers", held, PCA(bank, numbers)(held)))
    coded = ""
    if codes is not None:
        kind = "numbers" if codes.is_floating_point() else "integers"
        coded = f" The model writes an image as {codes.numel():,} {kind}."
    note = f"Over {len(held):,} held-out images; the error is of pixels in [0, 1].{coded}"
    into.tables.append(Table("What comes back from the code", ["from", "mean squared error", "PSNR, dB"], rows, note))
    into.diagnostics["reconstruction_error"] = rows[0][1]
    if rows[0][1] > 0:
        others = " and ".join(f"{name} {error:.4f}" for name, error, _ in rows[1:])
        into.headline.append(f"Images come back from its code with a mean squared error of {rows[0][1]:.4f}; {others}.")
    else:
        into.headline.append("Images come back from its code without any error.")
    into.figures["reconstructions"] = {
        "kind": "neighbours",
        "title": "Reconstructions",
        "rows": [{"query": a, "neighbours": [b]} for a, b in zip(held[:SHOWN], back)],
        "note": "Left, held-out images; beside each, what comes back.",
    }


def _distortion(name: str, images: np.ndarray, back: np.ndarray) -> list[Any]:
    error = float(np.mean([np.square((a.astype(np.float32) - b) / 255).mean() for a, b in zip(images, back)]))
    return [name, round(error, 6), round(-10 * math.log10(error), 2) if error > 0 else None]


def _unit(pictures: np.ndarray) -> np.ndarray:
    return pictures.reshape(len(pictures), -1).astype(np.float64) / 255


# ---- paths between images ----------------------------------------------------------------------------------------------


def _paths(
    model: Model,
    into: Evaluation,
    train: Examples,
    test: Examples,
    bank: np.ndarray,
    held: np.ndarray,
    seed: int,
    limit: TimeLimit,
) -> None:
    """Images at equal steps along great circles between the latents of held-out images; nothing for integer codes."""
    pairs = min(MIDDLES, len(held) // 2)
    if not pairs:
        return
    with torch.no_grad():
        some = [model.method.encode(b) for b in batches(model.method, test.first(2 * PATHS), AT_ONCE)]  # type: ignore[attr-defined]
        ends = torch.cat(some)
        if not ends.is_floating_point():
            return
        limit.say("walking between images")
        a, b = ends[: len(ends) // 2], ends[len(ends) // 2 : 2 * (len(ends) // 2)]
        shares = np.linspace(0, 1, STOPS).tolist()
        stops = [model.method.decode(slerp(a, b, share))["image"].cpu().numpy() for share in shares]  # type: ignore[attr-defined]
        into.figures["paths"] = {
            "kind": "neighbours",
            "title": "From one image to another",
            "rows": [
                {"query": held[i], "neighbours": [*(s[i] for s in stops), held[len(a) + i]]} for i in range(len(a))
            ],
            "note": "Left and right, held-out images; between them, what lies on the great circle between their latents.",
        }
        if limit.left < 20 or pairs < 2:
            return
        latents = torch.cat([model.method.encode(x) for x in batches(model.method, test.first(2 * pairs), AT_ONCE)])  # type: ignore[attr-defined]
        half = [slerp(x, y, 0.5) for x, y in zip(latents[:pairs].split(AT_ONCE), latents[pairs:].split(AT_ONCE))]
        middles = np.concatenate([model.method.decode(x)["image"].cpu().numpy() for x in half])  # type: ignore[attr-defined]
        back = np.concatenate([model.method.decode(x)["image"].cpu().numpy() for x in latents[:pairs].split(AT_ONCE)])  # type: ignore[attr-defined]
    space = feature_space(bank, None if train.labels is None else train.labels[: len(bank)])
    real = space(bank[:10_000])
    blend = (held[:pairs].astype(np.float32) + held[pairs : 2 * pairs]) / 2
    rows = [
        [name, pairs, round(frechet.frechet(real, space(x)), 3)]
        for name, x in (
            ("halfway between latents", middles),
            ("halfway between pixels", blend.round().astype(np.uint8)),
            ("the images' own latents", back),
            ("the images", held[:pairs]),
        )
    ]
    note = f"In {space.name}, to {len(real):,} training images. A path that leaves the data shows as a large distance."
    into.tables.append(Table("How near the middles of paths are to the data", ["images", "n", "FD"], rows, note))
    into.diagnostics["frechet_distance_of_middles"] = rows[0][2]
