"""MinHash signatures as datasketch and datatrove make them, for corpora whose signatures exist already.

Equal to the last bit to datasketch 2.0.0 (`MinHash`, both schemes) and datatrove 0.10.1 (`MinhashDedupSignature`). Slower
than ours by an order of magnitude: strings are built and hashed one by one, every permutation is applied to all.
"""

from __future__ import annotations

import functools
import hashlib
import re
import struct
import unicodedata
from collections.abc import Callable, Iterable
from typing import Literal

import numpy as np

from unlabeled.curate.words import fold, spacy

__all__ = ["datasketch", "datatrove", "grams"]

_MERSENNE = np.uint64((1 << 61) - 1)
_WHITE = re.compile(r"\s+")


def datasketch(
    strings: Iterable[str], count: int, seed: int = 1, scheme: Literal["affine32", "legacy"] = "affine32"
) -> np.ndarray:
    """(count,) the hash values of datasketch's `MinHash(count, seed)` updated with the strings in UTF-8; (0,) of none.

    scheme: "affine32", since datasketch 2.0.0: uint32; or "legacy", before: uint64.
    """
    hashes = [struct.unpack("<I", hashlib.sha1(s.encode("utf-8", "surrogatepass")).digest()[:4])[0] for s in strings]
    draw = np.random.RandomState(seed)  # as datasketch draws its permutations
    if scheme == "legacy":
        pairs = [
            (draw.randint(1, int(_MERSENNE), dtype=np.uint64), draw.randint(0, int(_MERSENNE), dtype=np.uint64))
            for _ in range(count)
        ]
        a, b = np.array(pairs, np.uint64).T
        x = np.array(hashes, np.uint64)
        return _lowest(x, lambda part: (part[:, None] * a + b) % _MERSENNE & np.uint64(0xFFFFFFFF))
    a = draw.randint(0, 1 << 31, count, dtype=np.uint32) * np.uint32(2) + np.uint32(1)
    b = draw.randint(0, 1 << 32, count, dtype=np.uint32)
    x = np.array(hashes, np.uint32)
    x ^= x >> np.uint32(16)  # MurmurHash3's finaliser
    x *= np.uint32(0x85EBCA6B)
    x ^= x >> np.uint32(13)
    x *= np.uint32(0xC2B2AE35)
    x ^= x >> np.uint32(16)
    return _lowest(x, lambda part: part[:, None] * a + b)


def datatrove(text: str, count: int, size: int = 5, seed: int = 1) -> np.ndarray:
    """(count,) uint64, the signature of datatrove's `MinhashDedupSignature` with 64-bit SHA-1, as FineWeb was made.

    a x + b wraps at 2^64 before it is reduced by 2^61 - 1, there as here. (0,) of fewer than `size` words.

    Raises:
        UserError: where spaCy is not installed.
    """
    words = spacy()(_simplified(text)).strings
    joined = (" ".join(words[i : i + size]) for i in range(len(words) - size + 1))
    hashes = [struct.unpack("<Q", hashlib.sha1(s.encode("utf-8")).digest()[:8])[0] for s in joined]
    draw = np.random.RandomState(seed)  # as datatrove draws its permutations
    a = draw.randint(1, int(_MERSENNE), dtype=np.uint64, size=count)
    b = draw.randint(0, int(_MERSENNE), dtype=np.uint64, size=count)
    return _lowest(np.array(hashes, np.uint64), lambda part: (part[:, None] * a + b) % _MERSENNE)


def _lowest(hashes: np.ndarray, permuted: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Minima over the first axis of what `permuted` makes of the hashes, 1024 of them at a time."""
    if not len(hashes):
        return np.zeros(0, hashes.dtype)
    return functools.reduce(
        np.minimum, (permuted(hashes[i : i + 1024]).min(axis=0) for i in range(0, len(hashes), 1024))
    )


def grams(text: str, size: int) -> set[str]:
    """The n-grams of folded words as strings joined by blanks; fewer than n words are one."""
    words = [folded for chunk in text.split() if (folded := fold(chunk))]
    return {" ".join(words[i : i + size]) for i in range(max(1, len(words) - size + 1))} if words else set()


# What datatrove 0.10 puts blanks for (`utils/text.py`, after CCNet): ASCII's marks, these, and the control characters.
_MARKS = dict.fromkeys(
    [
        *map(ord, "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~«´»–—’“”„…∶━►、。〈〉《》「」【】！％（），．１：；？～"),
        *range(9),
        *range(11, 32),
        *range(127, 160),
    ],
    " ",
)
_NUMBER = re.compile(r"\d+(?:[.,\u060c\u066b\u238e\u2397\u2398]\d+)?")


def _simplified(text: str) -> str:
    """datatrove's `simplify_text`: lower case, numbers to 0, marks to blanks, no combining marks."""
    text = _NUMBER.sub("0", text.lower()).translate(_MARKS)
    text = _WHITE.sub(" ", text.strip())
    return "".join(c for c in unicodedata.normalize("NFD", text) if unicodedata.category(c) != "Mn").strip()
