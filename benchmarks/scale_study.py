"""A scaling study from nothing: plan, train all budgets but the largest, foretell the largest in writing, train it, compare.

The prediction lies in OUT/prediction.json, dated, before a run of the largest budget begins: the loss of each of its runs by the
fitted law, and the size at its minimum by the isoFLOP minima of the smaller budgets. What comes out is recorded whatever it is.

Run: python benchmarks/scale_study.py gpt2 kernel-docs --budget 40m --out STUDY     (goes on where it was stopped)
"""

from __future__ import annotations

import argparse
import datetime
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from record import record

from unlabeled.core.errors import UserError
from unlabeled.engine.record import write_atomically
from unlabeled.scale.fit import fit
from unlabeled.scale.isoflop import fit_isoflop
from unlabeled.scale.live import Board
from unlabeled.scale.plan import Plan, plan
from unlabeled.scale.sweep import run
from unlabeled.scale.table import Table, read


def law_of(table: Table) -> dict[str, Any]:
    """The parametric fit and the isoFLOP minima, as JSON; the reason where one cannot be had."""
    found: dict[str, Any] = {}
    for name in ("chinchilla", "isoflop"):
        try:
            found[name] = fit(table, name).json()
        except UserError as error:
            found[name] = str(error)
    return found


def before(table: Table, group: int) -> Table:
    """The runs of earlier groups: a study that goes on may have finished later ones."""
    return table.rows(table["group"] < group)


def foretell(
    file: Path, table: Table, rows: Sequence[Mapping[str, Any]], law: str = "chinchilla", **beside: Any
) -> dict[str, Any]:
    """What a law that is fitted to the table says of these runs, written down with the date, and what is foretold beside, unless
    it was before."""
    if not file.exists():
        fitted = fit(table, law)
        told = {
            row["name"]: {
                "params": row["params"],
                "tokens": row["tokens"],
                "loss": fitted.predict(**{name: row[name] for name in fitted.form.inputs}).__dict__,
            }
            for row in rows
        }
        at = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        write_atomically(file, json.dumps({"at": at, "from": len(table), "runs": told} | beside, indent=1))
    return json.loads(file.read_text())


def compared(prediction: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A prediction beside the runs it was about."""
    reached = {row["name"]: row["loss"] for row in rows if row["state"] == "finished"}
    said = {name: one["loss"] for name, one in prediction["runs"].items() if name in reached}
    errors = {name: reached[name] / one["value"] - 1 for name, one in said.items()}
    inside = [one["low"] <= reached[name] <= one["high"] for name, one in said.items()]
    return {
        "relative errors of the prediction": {n: round(e, 5) for n, e in errors.items()},
        "mean error": round(float(np.mean(np.abs(list(errors.values())))), 5),
        "inside the interval": [sum(inside), len(inside)],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("system")
    parser.add_argument("data")
    parser.add_argument("--budget", default="40m")
    parser.add_argument("--budgets", type=int, default=4)
    parser.add_argument("--sizes", type=int, default=5)
    parser.add_argument("--ratio", type=float, default=3.0, help="between budgets")
    parser.add_argument("--spacing", type=float, default=1.8, help="between sizes")
    parser.add_argument("--smallest", type=int, default=10_000, help="parameters")
    parser.add_argument("--largest", type=int, default=3_000_000, help="parameters")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    begun = time.perf_counter()
    asked.out.mkdir(parents=True, exist_ok=True)
    written, sweep = asked.out / "plan.json", asked.out / "sweep"
    if not written.exists():
        made = plan(
            asked.system,
            asked.data,
            asked.budget,
            budgets=asked.budgets,
            sizes=asked.sizes,
            ratio=asked.ratio,
            spacing=asked.spacing,
            smallest=asked.smallest,
            largest=asked.largest,
            workers=asked.workers,
            say=print,
        )
        made.write(written)
    made = Plan.read(written)
    last = made.groups - 1
    with Board() as board:
        rows = run(made, sweep, groups=range(last), watch=board)
        table = before(read(sweep / "runs.csv", convention=made.survey.convention), last)
        largest = [row for row in rows if row["group"] == last]
        minimum: Any
        try:
            minimum = fit_isoflop(table).optimum(max(row["flops"] for row in largest))
        except UserError as error:
            minimum = str(error)
        file = asked.out / "prediction.json"
        prediction = foretell(file, table, largest, **{"best size": minimum})  # before a run of the largest budget
        rows = run(made, sweep, watch=board)
    whole = read(sweep / "runs.csv", convention=made.survey.convention)
    record(
        f"scale-study-{asked.system}",
        {
            "unit": rows[0]["unit"],
            "convention": made.survey.convention,
            "asked": {k: v for k, v in vars(asked).items() if k not in ("system", "out")},
            "prediction": prediction,
            **compared(prediction, rows),
            "before": law_of(table),
            "with all runs": law_of(whole),
            "runs": [
                {k: row[k] for k in ("name", "group", "params", "tokens", "flops", "loss", "lr", "steps", "seconds")}
                for row in rows
            ],
            "seconds": round(time.perf_counter() - begun, 1),
        },
    )


if __name__ == "__main__":
    main()
