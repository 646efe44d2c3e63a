"""Hashes of words, n-grams and code points by whole-array arithmetic mod 2^64; the same on every machine.

A word's hash is a polynomial of its characters; those of all words of a text come from one cumulative sum, no strings are
built and no table of words is kept, so that the first text costs what the thousandth does. Not for adversaries: who
knows the constants can make words that collide.
"""

from __future__ import annotations

import functools
import hashlib
import unicodedata

import numpy as np

__all__ = ["drawn", "folded", "mix", "rolled"]

_PRIME = 0xD1342543DE82EF95  # odd multipliers with good spectra: Steele and Vigna 2021
_CHARACTER = 0xAF251AF3B0F025B5
_INVERSE = pow(_CHARACTER, -1, 2**64)
_MOST = 1 << 20  # characters hashed at a time; a longer word is cut into several
_DELETED, _KEPT, _WHITE, _UNKNOWN = 0, 1, 2, 3


def mix(x: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64 (Steele, Lea and Flood 2014): a bijection whose every bit depends on all bits of x."""
    x = x ^ (x >> np.uint64(30))
    x *= np.uint64(0xBF58476D1CE4E5B9)
    x ^= x >> np.uint64(27)
    x *= np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    return x


def drawn(count: int, name: str) -> np.ndarray:
    """(count,) uint64 drawn once and for all under a name, whatever numpy's generators will do in versions to come."""
    return np.frombuffer(hashlib.shake_128(name.encode()).digest(8 * count), "<u8").astype(np.uint64)


def rolled(atoms: np.ndarray, size: int) -> np.ndarray:
    """(len(atoms) - size + 1,) uint64, the sum of atoms[i + j] * P^(size - 1 - j) over j < size for each i, mod 2^64.

    Doubled up: a run of 2m is a run of m, times P^m, plus the run of m after it.
    """
    length, power, runs = 1, _PRIME, atoms
    for bit in bin(size)[3:]:
        runs = runs[:-length] * np.uint64(power) + runs[length:]
        length, power = 2 * length, power * power % 2**64
        if bit == "1":
            runs = runs[:-1] * np.uint64(_PRIME) + atoms[length:]
            length, power = length + 1, power * _PRIME % 2**64
    return runs


def folded(text: str) -> np.ndarray:
    """(n,) uint64, hashes of the words as `words.fold` leaves them: chunks between white space, NFC, lower case, only
    letters, digits and combining marks; chunks of which nothing is left are passed over."""
    if text.isascii():
        characters = np.frombuffer(text.encode().translate(*_ascii()), np.uint8)
        white = characters == 32
        return _hashes(characters, white)
    lower = unicodedata.normalize("NFC", text.lower()).encode("utf-32-le", "surrogatepass")
    characters = np.frombuffer(lower, np.uint32)
    kinds = _kinds(characters)
    kept = kinds != _DELETED
    return _hashes(characters[kept], kinds[kept] == _WHITE)


def _hashes(characters: np.ndarray, white: np.ndarray) -> np.ndarray:
    """Of the words between the white places."""
    if len(characters) <= _MOST:
        return _block(characters, white)
    blocks, start = [], 0
    while start < len(characters):
        stop = min(len(characters), start + _MOST)
        if stop < len(characters) and len(spaces := np.flatnonzero(white[start:stop])):
            stop = start + int(spaces[-1]) + 1  # the word that would be cut opens the next block
        blocks.append(_block(characters[start:stop], white[start:stop]))
        start = stop
    return np.concatenate(blocks)


def _block(characters: np.ndarray, white: np.ndarray) -> np.ndarray:
    count = len(characters)
    powers, inverses = _powers(max(1 << 14, 1 << count.bit_length()))
    if characters.dtype == np.uint8:
        values = _letters().take(characters)  # 0 for the blank
    else:
        values = mix(characters.astype(np.uint64))
        values[white] = 0
    values *= powers[:count]
    np.cumsum(values, out=values)
    spaces = np.flatnonzero(white)
    words = np.empty(len(spaces) + 1, np.uint64)  # white space is worth nothing: what is added from one to the next
    words[:-1] = values.take(spaces)
    words[-1] = values[-1] if count else 0
    words[1:] -= words[:-1].copy()
    words[1:] *= inverses[1:].take(spaces)
    return mix(words[words != 0])


@functools.lru_cache(maxsize=2)
def _powers(count: int) -> tuple[np.ndarray, np.ndarray]:
    """(count,) uint64 powers 0, 1, ... of the multiplier of characters, and of its inverse."""
    both = []
    for base in (_CHARACTER, _INVERSE):
        powers = np.ones(count, np.uint64)
        done = 1
        while done < count:  # doubled up
            more = min(done, count - done)
            powers[done : done + more] = powers[:more] * np.uint64(pow(base, done, 2**64))
            done += more
        both.append(powers)
    return both[0], both[1]


@functools.cache
def _letters() -> np.ndarray:
    letters = mix(np.arange(128, dtype=np.uint64))
    letters[32] = 0
    return letters


@functools.cache
def _ascii() -> tuple[bytes, bytes]:
    """What `bytes.translate` needs to fold ASCII: the table and what is deleted."""
    table = bytes(32 if chr(c).isspace() else ord(chr(c).lower()) for c in range(128)) + bytes(128)
    return table, bytes(c for c in range(128) if not (chr(c).isspace() or chr(c).isalnum()))


@functools.cache
def _known() -> np.ndarray:
    return np.full(0x110000, _UNKNOWN, np.uint8)


def _kinds(code_points: np.ndarray) -> np.ndarray:
    """Which are deleted, kept, or white; looked up once for every code point."""
    known = _known()
    kinds = known[code_points]
    if (kinds == _UNKNOWN).any():
        for point in np.unique(code_points[kinds == _UNKNOWN]).tolist():
            c = chr(point)
            kept = c.isalnum() or unicodedata.combining(c)
            known[point] = _WHITE if c.isspace() else _KEPT if kept else _DELETED
        kinds = known[code_points]
    return kinds
