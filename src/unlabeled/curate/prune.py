"""Data pruning by self-supervised prototypes: keep the share of the data that is hardest, or easiest, for an encoder.

Sorscher, Geirhos, Shekhar, Ganguli, Morcos: Beyond neural scaling laws, beating power law scaling via data pruning.
NeurIPS 2022, arXiv 2206.14486, section 5: features of a self-supervised encoder are clustered, and how hard an item is is
its cosine distance to the nearest centroid, its prototype. No labels are used but for the balance of classes.

Which end to keep depends on how much is left (section 2): hard where data is plentiful, easy where it is scarce. `auto`
takes hard from 2.5 kept items for each number that a linear learner has to find: of the theory's perceptrons (60
dimensions, margins by the teacher, 6 seeds) the better end changes between 2 and 3 kept examples for each dimension, for
shares from 0.2 to 0.7 alike (at 0.9 the ends differ by less than the seeds). Their inputs spread evenly over all
dimensions, features do not: what counts is over how many they spread (`dimensions`). Counting all of them, which came
first, called data scarce that was not, on 300 to 2,000 images of Fashion-MNIST; there, too, keeping a random share was
about as good as the better end or better. So `random` is the baseline to compare with; `benchmarks/curate_prune.py` does.

What the paper leaves to us: the balance is relative to each class's own size (its 50 % of the fair share, where classes
are of one size), and clusters are as many as the square root of the number of items (for ImageNet 1,132; the paper has
1,000 and finds that the number hardly matters).
"""

from __future__ import annotations

import io
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from unlabeled.core.errors import BadRecord, UserError
from unlabeled.curate.dedup.semantic import Corpus, Selection, embed_texts, encoder_for, in_order

if TYPE_CHECKING:
    from unlabeled.data.source import Source

__all__ = ["PLENTY", "Prototypes", "better_end", "chosen", "difficulty", "dimensions", "prune", "write_subset"]

PLENTY = 2.5  # kept items per free number of a linear learner from which hard ones are better; measured, see above
_ROWS = 1000  # of a row group of parquet

Which = Literal["auto", "hard", "easy", "random"]


@dataclass(frozen=True)
class Prototypes:
    """Keep a share of the documents by how far an encoder puts them from the prototype of their cluster.

    encoder: a run folder, or a model in the Hugging Face layout. keep: the share, of the documents that have features;
    those without go. which: the end to keep. clusters: by default the square root of the number of documents.
    tokens, windows: what is seen of a document, as in `Semantic`.
    """

    encoder: str
    keep: float = 0.5
    which: Which = "auto"
    clusters: int | None = None
    tokens: int | None = None
    windows: int = 1
    seed: int = 0
    name: str = "prototypes"
    reason: str = "not at the end that is kept"
    kind: ClassVar[str] = "selection"

    def __post_init__(self) -> None:
        _check(self.keep, self.which)

    def select(self, corpus: Corpus) -> Selection:
        """value: the cosine distance to the nearest prototype, NaN without features."""
        features, known = embed_texts(encoder_for(self.encoder, "text"), corpus, self.tokens, self.windows)
        return _selected(features, known, None, self.keep, self.which, self.clusters, 0.0, self.seed)


def prune(
    source: Source,
    encoder: str | Path,
    keep: float = 0.5,
    which: Which = "auto",
    *,
    clusters: int | None = None,
    balance: float = 0.5,
    seed: int = 0,
) -> Selection:
    """The same for the records of a source (pictures, texts, recordings).

    balance: each class keeps at least this share of what it would keep if all were pruned alike; for sources without
    labels it says nothing, and records of unknown class (-1) form no class. Records that the encoder cannot read go.

    Raises:
        UserError: where the encoder is none for this kind of data, or a share is not between 0 and 1.
    """
    _check(keep, which, balance)
    model = encoder_for(str(encoder), source.kind)
    store = model.store(source, whole=True)
    found = model.embed(store)
    if not np.isfinite(found).all():
        raise UserError("The features of the encoder are not finite: its training has failed; name another run.")
    features, known = np.zeros((len(source), found.shape[1]), np.float32), np.zeros(len(source), bool)
    features[store.rows], known[store.rows] = found, True
    return _selected(features, known, source.labels, keep, which, clusters, balance, seed)


def difficulty(features: np.ndarray, clusters: int | None = None, seed: int = 0) -> np.ndarray:
    """(n,) float64: 1 - cosine of each of features (n, d) to its nearest prototype; the same in any order of rows."""
    import torch

    from unlabeled.nets.kmeans import assign, kmeans
    from unlabeled.parallel.world import device

    if not len(features):
        return np.zeros(0)
    order = in_order(features)
    x = torch.from_numpy(np.ascontiguousarray(features[order], np.float32)).to(device())
    k = min(len(x), clusters or max(1, round(len(x) ** 0.5)))
    distance = assign(x, kmeans(x, k, spherical=True, seed=seed).centroids, spherical=True)[1]
    out = np.empty(len(x))
    out[order] = distance.double().cpu().numpy() / 2  # of unit vectors: |a - b|^2 = 2 - 2 cosine
    return out


def chosen(
    value: np.ndarray, keep: float, which: Which, labels: np.ndarray | None = None, balance: float = 0.5, seed: int = 0
) -> np.ndarray:
    """(n,) bool: the share `keep` of n items that is largest (hard), smallest (easy) or drawn at random.

    labels: (n,) int64, -1 where unknown. First each class gets `balance` of its fair number, by the same ranking, then
    the rest is filled whatever its class. Of equals the first is kept.
    """
    n, count = len(value), max(1, math.floor(keep * len(value) + 0.5))
    if which == "random":
        rank = np.random.default_rng(seed).random(n)
    else:
        rank = value if which == "easy" else -value
    order = np.argsort(rank, kind="stable")
    kept = np.zeros(n, bool)
    if labels is not None:
        for c in np.unique(labels[labels >= 0]):
            of_class = order[labels[order] == c]
            kept[of_class[: math.floor(balance * keep * len(of_class) + 1e-9)]] = True
    rest = order[~kept[order]]
    kept[rest[: count - int(kept.sum())]] = True
    return kept


def _selected(
    features: np.ndarray,
    known: np.ndarray,
    labels: np.ndarray | None,
    keep: float,
    which: Which,
    clusters: int | None,
    balance: float,
    seed: int,
) -> Selection:
    rows = np.flatnonzero(known)
    kept, value, note = np.zeros(len(known), bool), np.full(len(known), np.nan), ""
    if len(rows):
        value[rows] = difficulty(features[rows], clusters, seed)
        labels = None if labels is None else np.asarray(labels, np.int64)[rows]
        if which == "auto":
            which = better_end(features[rows], keep, labels)
            word = "plenty" if which == "hard" else "few"
            note = (
                f"The {which} end was kept: {keep * len(rows):,.0f} items are {word} for features that spread over "
                f"{dimensions(features[rows]):.1f} dimensions."
            )
        kept[rows] = chosen(value[rows], keep, which, labels, balance, seed)
    return Selection(kept, np.full(len(known), -1), value, note)


def dimensions(features: np.ndarray) -> float:
    """Over how many dimensions the directions of features (n, d) spread: (sum v)^2 / sum v^2 of the variances v along
    their principal axes, from 1 to d; d where all are alike."""
    rows = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    rows = rows - rows.mean(0)
    squares = float(np.square(rows.T @ rows, dtype=np.float64).sum())
    return float(np.square(rows, dtype=np.float64).sum()) ** 2 / squares if squares > 0 else 1.0


def better_end(features: np.ndarray, keep: float, labels: np.ndarray | None = None) -> Literal["hard", "easy"]:
    """The end that `auto` keeps of features (n, d); where classes are unknown, it presumes two."""
    classes = 2 if labels is None else max(2, len(np.unique(labels[labels >= 0])))
    return "hard" if keep * len(features) >= PLENTY * dimensions(features) * (classes - 1) else "easy"


def _check(keep: float, which: str, balance: float = 0.0) -> None:
    if not (0 < keep <= 1 and 0 <= balance <= 1):
        raise UserError(f"What is kept, and the balance, are shares up to 1, not {keep:g} and {balance:g}.")
    if which not in ("auto", "hard", "easy", "random"):
        raise UserError(f"Items to keep are auto, hard, easy or random, not {which!r}.")


def write_subset(source: Source, indices: np.ndarray, path: str | Path) -> int:
    """Write records of a source as one parquet file that `source(path)` reads: their data, ids and labels.

    Pictures stay the bytes they are; arrays become PNG. The names of classes go where the Hugging Face layout has them.
    Returns how many were written: what cannot be read is left out.

    Raises:
        UserError: for waves that are in memory only, or where nothing can be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path, written = Path(path), 0
    column, said = {
        "text": ("text", {"dtype": "string", "_type": "Value"}),
        "image": ("image", {"_type": "Image"}),
        "wave": ("audio", {"_type": "Audio"}),
    }[source.kind]
    type_ = pa.string() if column == "text" else pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    fields = [pa.field(column, type_), pa.field("id", pa.string())]
    features: dict[str, Any] = {column: said, "id": {"dtype": "string", "_type": "Value"}}
    if source.labels is not None:
        fields.append(pa.field("label", pa.int64()))
        features["label"] = {"names": list(source.classes), "_type": "ClassLabel"}
    about = json.dumps({"info": {"features": features}})
    schema = pa.schema(fields, metadata={"huggingface": about})
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    with pq.ParquetWriter(partial, schema) as writer:
        for first in range(0, len(indices), _ROWS):
            rows = []
            for index in np.asarray(indices[first : first + _ROWS]).tolist():
                try:
                    record = source[index]
                    value = record.fields[source.kind]
                    held = value if column == "text" else {"bytes": _encoded(value), "path": record.id}
                except BadRecord:
                    continue
                rows.append({column: held, "id": record.id, "label": record.label})
            if rows:
                writer.write_table(pa.Table.from_pylist(rows, schema))
            written += len(rows)
    if not written:
        partial.unlink()
        raise UserError(f"Of {source.name} nothing was kept that can be read, so there is nothing to write.")
    partial.replace(path)
    return written


def _encoded(value: bytes | np.ndarray) -> bytes:
    """Bytes as they are, pixels as PNG."""
    from PIL import Image

    from unlabeled.data import image

    if isinstance(value, bytes):
        return value
    if value.ndim == 1:
        raise UserError("Recordings in memory cannot be written; give them as files.")
    pixels, out = image.decode(value, image.measure(value)[2]), io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(out, "PNG")
    return out.getvalue()
