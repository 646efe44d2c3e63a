"""The order of data is a function, not a state: position in the run -> index of an example.

A Feistel network permutes the smallest even power of two that holds all positions; positions that fall outside are
walked on along their cycle until they are inside. Nothing is stored, so any process can compute any batch of any
step, and resuming needs the step number alone.
"""

from __future__ import annotations

import numpy as np

__all__ = ["mix", "permute", "positions_to_examples"]

_ROUNDS = 6
_GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


def mix(*parts: int) -> int:
    """Hash integers to 63 bits (splitmix64 finaliser, applied in turn); the seed of everything random in a run."""
    state = 0
    for part in parts:
        state = (state + (part & _MASK) + _GOLDEN) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state >> 1


def permute(positions: np.ndarray, n: int, key: int) -> np.ndarray:
    """Where each position (int, 0 <= p < n) goes under the permutation of n things that `key` names; int64."""
    bits = max(2, (n - 1).bit_length())
    half = np.uint64((bits + 1) // 2)
    mask = np.uint64((1 << int(half)) - 1)
    keys = [np.uint64(mix(key, r)) for r in range(_ROUNDS)]

    def once(x: np.ndarray) -> np.ndarray:
        left, right = x >> half, x & mask
        for k in keys:
            h = (right + k) * np.uint64(_GOLDEN)
            h = (h ^ (h >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
            left, right = right, left ^ ((h ^ (h >> np.uint64(32))) & mask)
        return (left << half) | right

    out = once(np.asarray(positions, dtype=np.uint64))
    while (outside := out >= np.uint64(n)).any():
        out[outside] = once(out[outside])
    return out.astype(np.int64)


def positions_to_examples(positions: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Example of each position of a run over n examples: every epoch is a permutation of its own."""
    positions = np.asarray(positions, dtype=np.int64)
    out = np.empty_like(positions)
    epochs = positions // n
    for epoch in np.unique(epochs):
        here = epochs == epoch
        out[here] = permute(positions[here] % n, n, mix(seed, int(epoch)))
    return out
