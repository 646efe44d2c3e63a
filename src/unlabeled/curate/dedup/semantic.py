"""SemDeDup: drop what an encoder takes for the same as something that stays.

Abbas, Tirumala, Simig, Ganguli, Morcos: SemDeDup, Data-efficient Learning at Web-scale through Semantic Deduplication.
2023, arXiv 2303.09540; the authors' code is facebookresearch/SemDeDup. Features of unit length are clustered on the
sphere; the members of a cluster are put in order by their cosine to its centroid, those to keep first (hard: farthest
first, the authors' default; easy: nearest first; random), and one is dropped if its cosine to any before it, dropped or
not, is above 1 - eps.

Where we differ from the authors' code: the first of a cluster always stays (theirs takes cosines as at least 0, so that
an eps above 1 drops it too); rounding of float32 counts for a match, so that eps = 0 drops copies; clusters of any size
are compared whole, tile by tile, where theirs cuts large ones; seeds are k-means++ where FAISS draws points. The number
kept does not depend on the order of the input: features are sorted before anything is drawn.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

import numpy as np

from unlabeled.core.errors import BadRecord, UserError
from unlabeled.curate.document import Document

if TYPE_CHECKING:
    import torch

    from unlabeled.model import Model

__all__ = ["Corpus", "Nearest", "Selection", "Semantic", "embed_texts", "encoder_for", "in_order", "nearest_before"]

ROUNDING = 1e-6  # cosines this little below the limit count as above it: float32 products of unit vectors err by 1e-7
_AHEAD = 2048  # documents sorted by length at a time, so that a batch has texts of like length
_TOKENS = 4096, 65_536  # of a batch, on a CPU (9.4 s where 16,384 took 11.6 and 1,024 14.9) and on an accelerator
_TILE = 2048  # rows and columns of similarities in memory at once: 16 MB

Keep = Literal["hard", "easy", "random"]


class Corpus(Sized, Iterable[Document], Protocol):
    """Documents in an order that is the same each time they are gone through."""


@dataclass(frozen=True)
class Selection:
    """What stays of n items.

    keep: (n,) bool. instead: (n,) int64, the item that stays in the place of one that goes, or -1. value: (n,) float64,
    what was measured, or NaN. note: a sentence on how it was decided, where that is not in the settings.
    """

    keep: np.ndarray
    instead: np.ndarray
    value: np.ndarray
    note: str = ""


@dataclass(frozen=True)
class Semantic:
    """Drop the documents that an encoder puts within `eps` of another of their cluster (1 - cosine).

    encoder: a run folder, or a model in the Hugging Face layout. keep: which end of a cluster stays, counted from its
    centroid. clusters: their number; by default the square root of the number of documents (the paper has 50,000 for 440
    million images). tokens, windows: what is seen of a document, as in `embed_texts`; by default its beginning, as long as
    the encoder sees at once. Short beginnings deceive: of 2,560 kernel manuals, whose titles stand between rulers of "="
    that are a token each, 120 begin with the same 64 tokens as another, and none with the same 509.
    """

    encoder: str
    eps: float = 0.05
    keep: Keep = "hard"
    clusters: int | None = None
    tokens: int | None = None
    windows: int = 1
    seed: int = 0
    name: str = "semantic"
    reason: str = "means the same"
    kind: ClassVar[str] = "selection"

    def __post_init__(self) -> None:
        if not 0 <= self.eps <= 2:
            raise UserError(f"eps is one minus a cosine, from 0 to 2, not {self.eps:g}.")
        if self.keep not in ("hard", "easy", "random"):
            raise UserError(f"Of a cluster, hard, easy or random documents can be kept, not {self.keep!r}.")

    def select(self, corpus: Corpus) -> Selection:
        """A document without features (nothing in it that the encoder can read) stays, with NaN for its value."""
        return self.thresholds(corpus, [self.eps])[0]

    def thresholds(self, corpus: Corpus, eps: Sequence[float]) -> list[Selection]:
        """The selection for each of several eps, from one pass of the encoder."""
        features, known = embed_texts(encoder_for(self.encoder, "text"), corpus, self.tokens, self.windows)
        rows = np.flatnonzero(known)
        found = nearest_before(features[rows], self.clusters, self.keep, self.seed)
        out = []
        for limit in eps:
            some = found.within(limit)
            keep, instead, value = np.ones(len(known), bool), np.full(len(known), -1), np.full(len(known), np.nan)
            keep[rows], value[rows] = some.keep, some.value
            instead[rows] = np.where(some.instead < 0, -1, rows[some.instead] if len(rows) else -1)
            out.append(Selection(keep, instead, value))
        return out


@dataclass(frozen=True)
class Nearest:
    """For each of n items the most similar one before it in its cluster.

    cosine: (n,) float32, NaN for the first of a cluster. which: (n,) int64, -1 for it.
    cluster: (n,) int64. order: (n,) int64, the items by cluster and, within one, those to keep first.
    """

    cosine: np.ndarray
    which: np.ndarray
    cluster: np.ndarray
    order: np.ndarray

    def within(self, eps: float) -> Selection:
        """What is dropped at 1 - cosine < eps; `instead` goes on to the item that itself stays."""
        with np.errstate(invalid="ignore"):
            keep = ~(self.cosine > 1 - eps - ROUNDING)
        instead = np.where(keep, -1, self.which)
        for item in self.order[~keep[self.order]].tolist():  # what an item points to comes before it
            at = int(instead[item])
            if not keep[at]:
                instead[item] = instead[at]
        return Selection(keep, instead, self.cosine.astype(np.float64))


def nearest_before(
    features: np.ndarray, clusters: int | None = None, keep: Keep = "hard", seed: int = 0, rounds: int = 100
) -> Nearest:
    """Cluster features (n, d) and compare within clusters; everything but the threshold."""
    import torch
    from torch.nn import functional as F

    from unlabeled.nets.kmeans import assign, kmeans
    from unlabeled.parallel.world import device

    n = len(features)
    cosine, which = np.full(n, np.nan, np.float32), np.full(n, -1)
    if not n:
        return Nearest(cosine, which, which.copy(), which.copy())
    sorted_ = in_order(features)
    x = F.normalize(torch.from_numpy(np.ascontiguousarray(features[sorted_], np.float32)).to(device()), dim=1)
    k = min(n, clusters or max(1, round(n**0.5)))
    centroids = kmeans(x, k, spherical=True, rounds=rounds, seed=seed).centroids
    cluster = assign(x, centroids)[0]
    if keep == "random":
        key = torch.rand(n, generator=torch.Generator().manual_seed(seed)).to(x.device)
    else:
        key = (x * centroids[cluster]).sum(1) * (1 if keep == "hard" else -1)
    order = key.argsort(stable=True)
    order = order[cluster[order].argsort(stable=True)]
    sizes = torch.bincount(cluster, minlength=k).tolist()
    start = 0
    for size in sizes:
        members = order[start : start + size]
        start += size
        if size > 1:
            best, at = _max_before(x[members])
            items = sorted_[members.cpu().numpy()]
            cosine[items[1:]], which[items[1:]] = best[1:].cpu().numpy(), items[at[1:].cpu().numpy()]
    places = order.cpu().numpy()
    of_item = np.empty(n, np.int64)
    of_item[sorted_] = cluster.cpu().numpy()
    return Nearest(cosine, which, of_item, sorted_[places])


def _max_before(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """For each row j of x (n, d) the largest x_i . x_j over i < j, -inf for the first, and the first i that has it."""
    import torch

    best = x.new_full((len(x),), -torch.inf)
    at = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    for right in range(0, len(x), _TILE):
        columns = x[right : right + _TILE]
        for left in range(0, right + 1, _TILE):
            cosines = x[left : left + _TILE] @ columns.T
            if left == right:
                cosines.masked_fill_(torch.ones_like(cosines, dtype=torch.bool).tril_(), -torch.inf)
            largest, row = cosines.max(0)
            here = slice(right, right + len(columns))
            better = largest > best[here]
            at[here] = torch.where(better, row + left, at[here])
            best[here] = torch.where(better, largest, best[here])
    return best, at


def in_order(features: np.ndarray) -> np.ndarray:
    """(n,) int64: the rows in an order of their own, by their first eight numbers, so that results do not depend on the
    order in which they come; equal rows stay as they are."""
    return np.lexsort(features.T[:8][::-1]) if features.shape[1] else np.arange(len(features))


# ---- features ---------------------------------------------------------------------------------------------------------


def encoder_for(path: str, kind: str) -> Model:
    """The model of a run folder, which must give features of this kind of data.

    Raises:
        UserError: where it does not, or there is none.
    """
    from unlabeled.model import load

    model = load(path)
    if model.spec.kind != kind or not model.can("embed"):
        raise UserError(f"The model in {path} gives no features of {kind}; name the run of an encoder of {kind}.")
    return model


def embed_texts(
    model: Model, corpus: Iterable[Document], tokens: int | None = None, windows: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """(n, d) float32 features of unit length, zeros where there are none, and (n,) bool, where there are.

    tokens: that a window has, at most as many as the model sees at once, which is the default. windows: of a longer
    document that many, evenly spread from its beginning to its end (fewer where they would overlap), and the mean of
    their features; 1 is the beginning, as `Model.embed` has it. Nothing is kept on disk.

    Raises:
        UserError: where features are not finite.
    """
    most = model.method.window()
    reach = min(tokens or most or 0, most or tokens or 0) or None
    parts, known = [], []
    stream = iter(corpus)
    while ahead := list(islice(stream, _AHEAD)):
        pieces: list[dict[str, np.ndarray]] = []
        owner: list[int] = []
        for row, document in enumerate(ahead):
            for piece in _pieces(model, document.text, reach, windows):
                pieces.append(piece)
                owner.append(row)
        found = np.isin(np.arange(len(ahead)), owner)
        known.append(found)
        if not pieces:
            parts.append(None)
            continue
        rows = _unit(_features(model, pieces))
        if not np.isfinite(rows).all():
            raise UserError("The features of the encoder are not finite: its training has failed; name another run.")
        sums = np.zeros((len(ahead), rows.shape[1]), np.float32)
        np.add.at(sums, owner, rows)
        parts.append(_unit(sums))
    width = next((p.shape[1] for p in parts if p is not None), 0)
    blocks = [np.zeros((len(f), width), np.float32) if p is None else p for p, f in zip(parts, known)]
    if not blocks:
        return np.zeros((0, 0), np.float32), np.zeros(0, bool)
    return np.concatenate(blocks), np.concatenate(known)


def _pieces(model: Model, text: str, reach: int | None, windows: int) -> Iterator[dict[str, np.ndarray]]:
    from unlabeled.core.batch import Record

    try:
        example = model.method.prepare(Record("", {"text": text}), np.random.default_rng(0))
    except BadRecord:
        return
    arrays = {name: np.asarray(value) for name, value in example.items()}
    length = min(map(len, arrays.values()))
    if not length:
        return
    size = length if reach is None else min(reach, length)
    for start in np.linspace(0, length - size, min(windows, -(-length // size))).astype(int).tolist():
        yield {name: array[start : start + size] for name, array in arrays.items()}


def _features(model: Model, pieces: Sequence[dict[str, np.ndarray]]) -> np.ndarray:
    """(len(pieces), d) float32, in batches of like length."""
    import torch

    from unlabeled.parallel.world import device

    most = _TOKENS[device().type != "cpu"]
    lengths = np.array([min(map(len, p.values())) for p in pieces])
    order = np.argsort(lengths, kind="stable")[::-1]
    out: np.ndarray | None = None
    first = 0
    while first < len(order):
        longest = int(lengths[order[first]])
        rows = order[first : first + max(1, most // longest)]
        first += len(rows)
        batch: dict[str, np.ndarray] = {}
        for name, example in pieces[rows[0]].items():
            padded = np.zeros((len(rows), longest, *example.shape[1:]), example.dtype)
            for at, row in enumerate(rows):
                padded[at, : lengths[row]] = pieces[row][name][: lengths[row]]
            batch |= {name: padded, f"{name}_length": lengths[rows]}
        with torch.no_grad():
            moved = {name: tensor.to(device()) for name, tensor in model.method.collate(batch).items()}
            got = model.method.embed(moved).float().cpu().numpy()  # type: ignore[attr-defined]
        out = np.empty((len(pieces), got.shape[1]), np.float32) if out is None else out
        out[rows] = got
    assert out is not None
    return out


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
