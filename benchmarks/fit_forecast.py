"""What the pilots of `fit` foretell, beside what comes out; and whether their choice is better than that of the rules alone.

Each case is fitted twice with the same budget, with pilots and without; both models are measured on the same test examples,
with the measure of the pilots. Data is prepared before, so that neither pays for it. One row of results a case.

Run: python benchmarks/fit_forecast.py --budget 5m                (about 40 minutes)
     python benchmarks/fit_forecast.py --budget 3m moby-dick:generate
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from record import record

from unlabeled.core import catalogue
from unlabeled.core.clock import Duration
from unlabeled.core.config import resolve
from unlabeled.core.errors import UserError
from unlabeled.data.inspect import inspect
from unlabeled.data.sources import source
from unlabeled.data.store import build
from unlabeled.fit import Choice, Done, bench, carry_out, choose, no_room
from unlabeled.parallel.world import device

CASES = ("kernel-docs:generate", "moby-dick:generate", "fashion-mnist:represent", "fashion-mnist:generate")


def prepared(data: str, goal: Any, seconds: float) -> tuple[Choice, str]:
    """What the rules choose, and why there would be no pilots; the data is prepared for it."""
    found = inspect(source(data))
    choice = choose(found, goal, seconds, accelerator=device().type != "cpu")
    kind = catalogue.method(choice.system)
    config = resolve(kind, choice.variant, choice.overrides)
    for part in ("train", "test"):
        build(source(data).split(part), kind(config, kind.measure(config, source(data).split("train")), {}))
    return choice, no_room(found, choice, seconds)


def measured(done: Done, seed: int) -> float:
    """Of a model on the test part, as pilots are."""
    whole, method = done.model.source, done.model.method
    stores = [build(whole.split(part), method) for part in ("train", "test")]
    return bench(done.choice.system, done.choice, whole, method.spec, stores, seed).measure(method).loss


def case(data: str, goal: Any, budget: str, seed: int, out: Path, only: str = "") -> dict[str, Any]:
    seconds = Duration.parse(budget).amount
    rules, unfit = prepared(data, goal, seconds)
    if unfit:
        raise UserError(f"No pilots of {data} in {budget}: {unfit}.")
    made = {}
    for pilots in {"pilots": (True,), "rules": (False,)}.get(only, (True, False)):
        folder = out / f"{data}-{goal}-{'pilots' if pilots else 'rules'}"
        shutil.rmtree(folder, ignore_errors=True)
        made[pilots] = carry_out(data, budget=budget, goal=goal, out=folder, seed=seed, pilots=pilots)
    figures: dict[str, Any] = {
        "data": data,
        "goal": goal,
        "budget": budget,
        "seed": seed,
        "by rules": {"system": rules.system, "variant": rules.variant, **rules.overrides},
    }
    if True in made:
        figures["by pilots"] = {"system": made[True].choice.system, **made[True].choice.overrides}
        figures["why"] = list(made[True].choice.why)
    for pilots, done in made.items():
        said = "with pilots" if pilots else "by rules alone"
        taken = {"steps": done.run.status["step"], "seconds": round(done.seconds, 1)}
        figures[said] = {"reached": measured(done, seed), **taken}
    if len(made) > 1:
        reached = [figures[said]["reached"] for said in ("with pilots", "by rules alone")]
        figures["pilots over rules"] = round(reached[0] / reached[1] - 1, 4)
    told = made[True].forecast if True in made else None
    if told is None:
        return json.loads(json.dumps(figures))
    figures |= {
        "unit": told["unit"],
        "pilots' share of the budget": told["share"],
        "runs": told["runs"],
        "told": told["told"],
    }
    figures |= {"chosen": told["chosen"], "steps foreseen": told["steps"], "forecast": told["forecast"]}
    if told["forecast"]:
        figures["relative error"] = round(told["reached"] / told["forecast"]["value"] - 1, 4)
        figures["inside"] = told["forecast"]["low"] <= told["reached"] <= told["forecast"]["high"]
    return json.loads(json.dumps(figures))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", default=CASES, metavar="DATA:GOAL")
    parser.add_argument("--budget", default="5m")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=["pilots", "rules"], default="", help="one of the two runs")
    parser.add_argument("--out", type=Path, default=Path("runs/fit-forecast"))
    asked = parser.parse_args()
    for name in asked.cases:
        data, _, goal = name.rpartition(":")
        record("fit-forecast", case(data, goal, asked.budget, asked.seed, asked.out, asked.only))


if __name__ == "__main__":
    main()
