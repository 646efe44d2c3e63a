"""ABX: is a phone nearer to another token of itself than to a token of another phone? Learns nothing, needs no labels
to train on.

Schatz, Peddinti, Bach, Jansen, Hermansky, Dupoux: Evaluating speech features with the Minimal-Pair ABX task.
Interspeech 2013. Distances and paths are those of Libri-light's evaluation (Kahn et al. 2020):

    d(x, y) = sum of arccos(cos(x_i, y_j)) / pi along the best warping path, divided by the length of that path
    error(a, b) = mean over A, X in a, A != X, and B in b of  [d(A, X) > d(B, X)] + [d(A, X) = d(B, X)] / 2

0.5 is chance, 0 perfect.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np

__all__ = ["Tokens", "any_context", "distances", "same_context", "tokens_of"]

_PAIRS = 2048  # compared at a time; with segments of 20 frames of 256 numbers they fill 170 MB
LARGEST = 10  # tokens of a phone in one cell, as in Libri-light


@dataclass(frozen=True)
class Tokens:
    """Phones as they were said. places: (n, 3) int64, the recording, its first frame and the one after its last.

    phones: what each is; contexts: (phone before, phone after, speaker).
    """

    places: np.ndarray
    phones: list[str]
    contexts: list[tuple[str, str, str]]

    def __len__(self) -> int:
        return len(self.phones)

    def cut(self, features: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The frames (length, width) of each token."""
        return [features[recording][start:end] for recording, start, end in self.places.tolist()]


def tokens_of(
    alignments: Sequence[Sequence[tuple[float, float, str]]],
    times: Sequence[np.ndarray],
    silences: frozenset[str] = frozenset(),
    speakers: Sequence[str] | None = None,
) -> Tokens:
    """Every phone between two others, silence counting as a neighbour only, that has a frame within [start, end).

    times: (frames,) seconds, rising, the moment of each frame of each recording.
    """
    places, phones, contexts = [], [], []
    for i, (alignment, moments) in enumerate(zip(alignments, times)):
        starts = np.searchsorted(moments, [start for start, _, _ in alignment])
        ends = np.searchsorted(moments, [end for _, end, _ in alignment])
        for j in range(1, len(alignment) - 1):
            phone = alignment[j][2]
            if phone not in silences and ends[j] > starts[j]:
                places.append((i, starts[j], ends[j]))
                phones.append(phone)
                contexts.append((alignment[j - 1][2], alignment[j + 1][2], speakers[i] if speakers else ""))
    return Tokens(np.array(places, np.int64).reshape(-1, 3), phones, contexts)


def any_context(tokens: Tokens, count: int, seed: int = 0) -> np.ndarray:
    """(count, 3) int64 random triples A, B, X: every pair of phones is as likely, whatever stands beside them."""
    rng = np.random.default_rng(seed)
    by_phone: dict[str, list[int]] = defaultdict(list)
    for i, phone in enumerate(tokens.phones):
        by_phone[phone].append(i)
    found = [by_phone[phone] for phone in sorted(by_phone)]
    several = [i for i, members in enumerate(found) if len(members) > 1]
    if not several or len(found) < 2:
        return np.zeros((0, 3), np.int64)
    triples = np.empty((count, 3), np.int64)
    for row in triples:
        a = several[rng.integers(len(several))]
        b = (a + rng.integers(1, len(found))) % len(found)
        row[[0, 2]] = rng.choice(found[a], 2, replace=False)
        row[1] = rng.choice(found[b])
    return triples


def same_context(tokens: Tokens, seed: int = 0, largest: int = LARGEST) -> tuple[np.ndarray, np.ndarray]:
    """Triples (n, 3) int64 of tokens between the same neighbours of one speaker, and their weights (n,), sum 1.

    A cell is a context and an ordered pair of phones in it, with at most `largest` tokens of each. Weights make the
    mean within cells, then over contexts, then over speakers, then over pairs of phones, unweighted each time.
    """
    rng = np.random.default_rng(seed)
    by_context: dict[tuple[str, str, str], dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for i, (phone, context) in enumerate(zip(tokens.phones, tokens.contexts)):
        by_context[context][phone].append(i)
    triples: list[tuple[int, int, int]] = []
    cells: list[int] = []
    of_pair: dict[tuple[str, str], dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for context in sorted(by_context):
        kept = {
            phone: members if len(members) <= largest else rng.choice(members, largest, replace=False).tolist()
            for phone, members in sorted(by_context[context].items())
        }
        for a, b in permutations(kept, 2):
            made = [(i, j, x) for i in kept[a] for x in kept[a] if i != x for j in kept[b]]
            if made:
                of_pair[a, b][context[2]].append(len(cells))
                cells.append(len(made))
                triples += made
    weights = np.empty(len(cells))
    for speakers in of_pair.values():
        for members in speakers.values():
            weights[members] = 1 / (len(of_pair) * len(speakers) * len(members))
    return np.array(triples, np.int64).reshape(-1, 3), np.repeat(weights / np.maximum(cells, 1), cells)


def wrong(segments: Sequence[np.ndarray], triples: np.ndarray) -> np.ndarray:
    """(n,) 1 where B is nearer to X than A, 0.5 where both are as near, else 0."""
    pairs = np.concatenate([triples[:, [0, 2]], triples[:, [1, 2]]])
    different, back = np.unique(np.sort(pairs, 1), axis=0, return_inverse=True)
    far = distances(segments, different)[back.reshape(-1)]
    own, other = far[: len(triples)], far[len(triples) :]
    return (own > other) + 0.5 * (own == other)


def distances(segments: Sequence[np.ndarray], pairs: np.ndarray) -> np.ndarray:
    """(n,) float64 warped angular distances of segments (length, width), given as pairs (n, 2) of their indices."""
    lengths = np.array([len(s) for s in segments])
    unit = [s / np.maximum(np.linalg.norm(s, axis=1, keepdims=True), 1e-12) for s in map(np.float64, segments)]
    out = np.empty(len(pairs))
    order = np.argsort(lengths[pairs].max(1), kind="stable")  # like with like, so that little is padding
    for start in range(0, len(order), _PAIRS):
        rows = order[start : start + _PAIRS]
        first, second = (_padded(unit, pairs[rows, side]) for side in (0, 1))
        angles = np.arccos((first @ second.transpose(0, 2, 1)).clip(-1, 1)) / np.pi
        out[rows] = _warped(angles, lengths[pairs[rows, 0]], lengths[pairs[rows, 1]])
    return out


def _padded(segments: Sequence[np.ndarray], which: np.ndarray) -> np.ndarray:
    longest = max(len(segments[i]) for i in which)
    out = np.zeros((len(which), longest, segments[which[0]].shape[1]))
    for row, i in zip(out, which):
        row[: len(segments[i])] = segments[i]
    return out


def _warped(d: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """(n,) mean distance along the best path from the first to the last cell of the leading (rows, columns) of d.

    Steps go on in either or both; of equally good ones the diagonal is taken, then the one along columns.
    """
    pairs, height, width = d.shape
    cost, steps = np.full((pairs, height + 1, width + 1), np.inf), np.zeros((pairs, height + 1, width + 1))
    cost[:, 0, 0] = 0
    for i in range(1, height + 1):
        for j in range(1, width + 1):
            diagonal, left, up = cost[:, i - 1, j - 1], cost[:, i, j - 1], cost[:, i - 1, j]
            straight, sideways = (diagonal <= left) & (diagonal <= up), left <= up
            before = np.where(straight, diagonal, np.where(sideways, left, up))
            taken = np.where(sideways, steps[:, i, j - 1], steps[:, i - 1, j])
            cost[:, i, j] = before + d[:, i - 1, j - 1]
            steps[:, i, j] = 1 + np.where(straight, steps[:, i - 1, j - 1], taken)
    which = np.arange(pairs)
    return cost[which, rows, columns] / steps[which, rows, columns]
