"""Bits per byte that a model of text has to beat: a byte n-gram, and xz.

Run: python benchmarks/floors_text.py TRAIN TEST      (two files; prints JSON)
"""

from __future__ import annotations

import json
import lzma
import sys
from pathlib import Path

import numpy as np

__all__ = ["ngram_bits_per_byte", "xz_bits_per_byte"]


def ngram_bits_per_byte(train: bytes, test: bytes, order: int = 5) -> float:
    """Witten-Bell interpolated byte n-gram; `order` counts the predicted byte, so 5 looks back at 4.

        p(w | h) = (c(hw) + t(h) p(w | h')) / (c(h) + t(h)),    t(h): distinct bytes seen after h, h': h less its first

    with p(w | nothing) = 1/256 below the unigrams, and p(w | h) = p(w | h') where h was never seen (Bell, Cleary,
    Witten 1990, method C). The first bytes of `test` are predicted from as many as there are before them.
    """
    if not 1 <= order <= 8:
        raise ValueError(f"order is from 1 to 8 (eight bytes fill a 64-bit word), not {order}")
    if not test:
        raise ValueError("there is no byte to predict")
    seen, asked = (np.frombuffer(part, np.uint8).astype(np.uint64) for part in (train, test))
    probability = np.full(len(asked), 1 / 256)
    grams, wanted = np.zeros(len(seen) + 1, np.uint64), np.zeros(len(asked) + 1, np.uint64)
    for k in range(1, min(order, len(seen), len(asked)) + 1):
        # A gram of k bytes is the gram of k - 1 that ends one before it, and its last byte.
        grams = (grams[: len(seen) - k + 1] << np.uint64(8)) | seen[k - 1 :]
        wanted = (wanted[: len(asked) - k + 1] << np.uint64(8)) | asked[k - 1 :]
        kinds, counts = np.unique(grams, return_counts=True)
        history = kinds >> np.uint64(8)  # sorted, as kinds are
        starts = np.flatnonzero(np.r_[True, history[1:] != history[:-1]])
        total, distinct = np.add.reduceat(counts, starts), np.diff(np.r_[starts, len(history)])
        hit = _find(kinds, wanted)
        context = _find(history[starts], wanted >> np.uint64(8))
        count = np.where(hit >= 0, counts[hit], 0)
        c, t = total[context], distinct[context]
        lower = probability[k - 1 :]
        probability[k - 1 :] = np.where(context >= 0, (count + t * lower) / (c + t), lower)
    return float(-np.log2(probability).mean())


def _find(values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Index of each wanted value in the sorted values; -1 where it is not there."""
    place = np.minimum(np.searchsorted(values, wanted), len(values) - 1)
    return np.where(values[place] == wanted, place, -1)


def xz_bits_per_byte(train: bytes, test: bytes) -> float:
    """`xz -9` of the test bytes: alone where `train` is empty, else what they add to the training bytes before them.

    Its window of 64 MiB is what it can remember of them.
    """
    if not test:
        raise ValueError("there is no byte to compress")

    def size(data: bytes) -> int:
        return len(lzma.compress(data, preset=9))

    return 8 * (size(train + test) - (size(train) if train else 0)) / len(test)


def main(train: str, test: str) -> None:
    seen, asked = Path(train).read_bytes(), Path(test).read_bytes()
    figures = {f"byte {n}-gram": round(ngram_bits_per_byte(seen, asked, n), 4) for n in (2, 3, 4, 5, 6)}
    figures["xz -9 alone"] = round(xz_bits_per_byte(b"", asked), 4)
    figures["xz -9 primed"] = round(xz_bits_per_byte(seen, asked), 4)
    print(json.dumps(figures))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
