"""Turn data into features, codes or likelihoods with a trained run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from unlabeled.cli.parse import parse
from unlabeled.core.errors import UserError

__all__ = ["main"]


@dataclass(frozen=True)
class Embed:
    """Write one row of features for each usable record: its id, its label where known, its vector.

    Of long texts, the beginning counts: as many tokens as the model sees at once. Models that can give codes (of images
    and sound) or log-likelihoods instead: look at what `unlabeled methods NAME` says they can.

    Example: unlabeled embed runs/simclr-fashion-1 photos/ --out features.parquet
    """

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of a run, or of a model in the Hugging Face layout."""
    data: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
    """A folder, a file or a built-in name."""
    out: Path = Path("features.parquet")
    """Where to: .parquet (id, label, features), .npz (the same names) or .npy (the rows alone)."""
    give: Literal["features", "codes", "scores"] = "features"
    """codes: integers or latents that can be decoded, laid flat. scores: log-likelihood in nats, low for what is unusual."""
    json: bool = False
    """Print one JSON object."""


def main(words: Sequence[str]) -> dict[str, Any]:
    got = parse(Embed, words, "embed")
    if got.out.suffix not in (".parquet", ".npz", ".npy"):
        raise UserError(f"--out ends in .parquet, .npz or .npy; {got.out} does not.")
    if not got.out.absolute().parent.is_dir():
        raise UserError(f"There is no folder {got.out.absolute().parent}; make it, or name another with --out.")

    import numpy as np

    from unlabeled.data.sources import source
    from unlabeled.model import load

    model, data = load(got.run), source(got.data)
    store = model.store(data, whole=got.give == "features")
    if store.window is not None:
        raise UserError(f"{model.system} cuts text into windows; only --give features has a row for each record.")
    compute = {"features": model.embed, "codes": model.encode, "scores": model.score}[got.give]
    features = compute(store).reshape(len(store), -1)
    ids = [data[int(r)].id for r in store.rows]
    labels = data.labels[store.rows] if data.labels is not None else np.full(len(features), -1)
    if got.out.suffix == ".npy":
        np.save(got.out, features)
    elif got.out.suffix == ".npz":
        columns: dict[str, Any] = {"id": np.array(ids), "label": labels, got.give: features}
        np.savez(got.out, **columns)
    else:
        _write_parquet(got.out, ids, labels, got.give, features)
    print(
        f"{len(features):,} rows of {features.shape[1]} {got.give} are in {got.out}; {len(store.quarantined)} left out."
    )
    return {
        "out": str(got.out),
        "rows": len(features),
        "width": features.shape[1],
        "quarantined": len(store.quarantined),
    }


def _write_parquet(path: Path, ids: list[str], labels: Any, name: str, features: Any) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    vectors = pa.FixedSizeListArray.from_arrays(pa.array(features.reshape(-1)), features.shape[1])
    columns = {"id": ids, "label": pa.array(labels, pa.int64()), name: vectors}
    pq.write_table(pa.table(columns), path)
