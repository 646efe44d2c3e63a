"""How an encoder's nearest neighbours get better with size, data and compute: a grid of sizes and lengths on data with classes.

The share of held-out images that the 20 nearest of up to 10,000 labelled training images get wrong, by features of encoders
that saw no labels. The runs of the greatest length are foretold, in OUT/prediction-LAW.json, before they begin, by two laws
of size and length; beside them stands what costs no law, each size's error at the length before. Then laws of one input at a
time, and what needs no learning: pixels, and the same encoders with random weights. Whatever comes out is recorded.

Run: python benchmarks/scale_encoder.py simclr fashion-mnist --budget 10m --out ENCODERS     (goes on where it was stopped)
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from record import record
from scale_study import before, compared, foretell

from unlabeled.core.errors import UserError
from unlabeled.evaluate import baselines, knn
from unlabeled.evaluate.examples import images
from unlabeled.model import load
from unlabeled.scale.fit import fit
from unlabeled.scale.heldout import BANK, knn_error, labelled
from unlabeled.scale.laws import Law, power
from unlabeled.scale.live import Board
from unlabeled.scale.plan import Plan, plan
from unlabeled.scale.sweep import run
from unlabeled.scale.table import Table, read

FORETOLD_BY = ("chinchilla", "kaplan-nd")
SHOWN = ("formula", "parameters", "intervals", "heldout", "verdict", "rows_used", "objective")


def fitted(table: Table, law: str | Law) -> Any:
    """A fit as JSON, without what all fits share; the reason where there is none."""
    try:
        told = fit(table, law).json()
    except UserError as error:
        return str(error)
    return {name: told[name] for name in SHOWN}


def frontier(table: Table) -> Table:
    """The runs that no run of as few FLOPs or fewer is better than."""
    order = np.argsort(table["flops"], kind="stable")
    best, kept = np.inf, []
    for i in order:
        if table["loss"][i] < best:
            best = table["loss"][i]
            kept.append(i)
    return table.rows(np.array(kept))


def laws(table: Table) -> dict[str, Any]:
    """Of both inputs over all runs; of the size at the greatest length, of the length at the greatest size, of compute."""
    longest = table.rows(table["tokens"] == table["tokens"].max())
    widest = table.rows(table["params"] == table["params"].max())
    best = frontier(table)
    return {
        "N and D": {name: fitted(table, name) for name in FORETOLD_BY},
        "N, greatest length": {"kaplan": fitted(longest, "kaplan-n"), "with a floor": fitted(longest, power("params"))},
        "D, greatest size": {"kaplan": fitted(widest, "kaplan-d"), "with a floor": fitted(widest, power("tokens"))},
        "C, frontier": {"kaplan": fitted(best, "kaplan-c"), "with a floor": fitted(best, power("flops"))},
    }


def without_learning(sweep: Path, rows: Sequence[Mapping[str, Any]], queries: int) -> dict[str, Any]:
    """The same error of pixels, and of each size's encoder as it is initialised."""
    found: dict[str, Any] = {"random weights": {}}
    for row in rows:
        model = load(sweep / row["path"])
        parts = {name: (part := model.source.split(name), model.store(part)) for name in ("train", "test")}
        bank, asked = labelled(model.method, parts, queries)
        found["random weights"][str(row["params"])] = round(knn_error(model.fresh(), bank, asked).loss, 4)
    assert bank.labels is not None
    flat = [baselines.pixels(images(part)) for part in (bank, asked)]
    whitened = baselines.whitening(flat[0])
    kinds = (("pixels", flat), ("whitened PCA-128 of pixels", [whitened(x) for x in flat]))
    for name, (x, q) in kinds:
        found[name] = round(float((knn.predict(x, bank.labels, q) != asked.labels).mean()), 4)
    return found


def ranks(values: np.ndarray) -> np.ndarray:
    return values.argsort(kind="stable").argsort(kind="stable").astype(float)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("system", nargs="?", default="simclr")
    parser.add_argument("data", nargs="?", default="fashion-mnist")
    parser.add_argument("--budget", default="10m")
    parser.add_argument("--sizes", type=int, default=4)
    parser.add_argument("--lengths", type=int, default=4)
    parser.add_argument("--spacing", type=float, default=2.6, help="between sizes")
    parser.add_argument("--ratio", type=float, default=3.0, help="between lengths")
    parser.add_argument("--examples", type=float, default=1.0, help="per parameter, of the middle of the grid")
    parser.add_argument("--largest", type=int, default=1_000_000, help="parameters")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--scored", type=int, help="held-out images; 10,000 unless given")
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    begun = time.perf_counter()
    written, sweep = asked.out / "plan.json", asked.out / "sweep"
    if not written.exists():
        plan(
            asked.system,
            asked.data,
            asked.budget,
            design="grid",
            measure="knn",
            sizes=asked.sizes,
            budgets=asked.lengths,
            spacing=asked.spacing,
            ratio=asked.ratio,
            items_per_parameter=asked.examples,
            largest=asked.largest,
            seeds=range(asked.seeds),
            workers=asked.workers,
            scored=asked.scored,
            say=print,
        ).write(written)
    made = Plan.read(written)
    last, convention = made.groups - 1, made.survey.convention
    with Board() as board:
        rows = run(made, sweep, groups=range(last), watch=board)
        table = before(read(sweep / "runs.csv", convention=convention), last)
        longest = [row for row in rows if row["group"] == last]
        shorter = {(r["params"], r["seed"]): r.get("loss", np.nan) for r in rows if r["group"] == last - 1}
        same = {row["name"]: shorter[row["params"], row["seed"]] for row in longest}
        said = {
            law: foretell(
                asked.out / f"prediction-{law}.json", table, longest, law, **{"as at the length before": same}
            )
            for law in FORETOLD_BY
        }
        rows = run(made, sweep, watch=board)
    reached = {row["name"]: row for row in rows if row["group"] == last and row["state"] == "finished"}
    unchanged = [abs(row["loss"] / same[name] - 1) for name, row in reached.items()]
    whole, own = (read(sweep / "runs.csv", columns=c, convention=convention) for c in ({}, {"loss": "own_loss"}))
    record(
        f"scale-encoder-{asked.system}",
        {
            "unit": rows[0]["unit"],
            "convention": convention,
            "learning rate": made.survey.lr_rule,
            "bank and queries": [min(BANK, made.survey.unique), made.survey.held_out],
            "asked": {k: v for k, v in vars(asked).items() if k not in ("system", "out")},
            "predictions": {law: one | compared(one, rows) for law, one in said.items()},
            "mean error of the length before": round(float(np.mean(unchanged)), 5),
            "without learning": without_learning(sweep, list(reached.values()), made.survey.held_out),
            "laws of the kNN error": laws(whole),
            "laws of its own loss": laws(own),
            "rank correlation of both": round(float(np.corrcoef(ranks(whole["loss"]), ranks(own["loss"]))[0, 1]), 3),
            "runs": [
                {
                    k: row.get(k)
                    for k in (
                        "name", "group", "seed", "params", "tokens", "epochs", "flops", "loss", "loss_error", "own_loss",
                        "train_loss", "lr", "steps", "seconds", "scoring_seconds",
                    )
                }
                for row in rows
            ],
            "seconds": round(time.perf_counter() - begun, 1),
        },
    )  # fmt: skip


if __name__ == "__main__":
    main()
