"""Carry out a plan: every run an ordinary run folder, resumable, and one table of what came out.

    SWEEP/plan.json       what was asked for
    SWEEP/c2-n3-s0/       a run, named by its place in the plan; scale.json in it is its row once it is scored
    SWEEP/runs.csv        the finished runs; runs.jsonl has the others too

The same call again goes on: finished runs are kept, stopped ones continue from their last checkpoint, half-made folders are made
anew. Runs are counted in steps, so that an interrupted one ends with the same weights as one that was not.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from unlabeled.core import catalogue
from unlabeled.core.config import resolve, to_dict
from unlabeled.core.errors import Interrupted, UserError
from unlabeled.engine import recipe
from unlabeled.engine.loop import Observer, Settings
from unlabeled.engine.record import Run, write_atomically
from unlabeled.model import load
from unlabeled.scale.heldout import held_out, knn_error, labelled
from unlabeled.scale.plan import Plan, Planned, recentred
from unlabeled.scale.pools import Job, Pool, PoolName, opened
from unlabeled.scale.survey import SCORED

__all__ = ["COLUMNS", "run", "table", "write_table"]

COLUMNS = (
    "name", "system", "group", "seed", "params", "params_total", "params_non_embedding", "params_with_head", "params_active",
    "tokens", "examples", "epochs", "flops", "flops_6nd", "loss", "loss_error", "unit", "train_loss", "lr", "batch",
    "batch_tokens", "steps", "seconds", "scoring_seconds", "path", "own_loss",
)  # fmt: skip
SAVE_EVERY, LOG_EVERY = "30s", "1s"

Watcher = Callable[[Plan, Path, set[str]], None]  # the plan, the folder, names of runs that are under way


def run(
    plan: Plan,
    folder: str | Path,
    *,
    workers: int | None = None,
    pool: PoolName = "local",
    groups: Sequence[int] | None = None,
    recentre: bool = True,
    watch: Watcher = lambda plan, folder, running: None,
    options: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """Train and score every run of a plan that is not yet; returns the rows of the table, in the order of the plan.

    workers: runs at a time, by default those the plan reckons with. groups: only these budgets (from 0), say all but the largest,
    to predict that one first. recentre: once the runs of a budget are through, put the sizes of the larger ones around the best
    found (isoflop). watch: called about twice a second, see `live.Board`. options: of the pool, see `pools.opened`.

    Raises:
        UserError: where the folder holds another sweep.
        Interrupted: after Ctrl-C or SIGTERM; what was under way is saved.
    """
    folder, workers = Path(folder), workers or plan.survey.workers
    folder.mkdir(parents=True, exist_ok=True)
    plan = _agreed(plan, folder)
    wanted = set(range(plan.groups)) if groups is None else set(groups)
    if odd := wanted - set(range(plan.groups)):
        raise UserError(f"The plan has budgets 0 to {plan.groups - 1}; there is no {', '.join(map(str, sorted(odd)))}.")
    try:
        with opened(pool, workers, folder, plan.survey.threads, **(options or {})) as submit:
            here = pool == "local" and workers == 1
            in_turn = [{g} for g in sorted(wanted)] if recentre and plan.design == "isoflop" else [wanted]
            for some in in_turn:
                _carry_out(plan, folder, some, workers, submit, watch, here)
                plan = _recentred(plan, folder, max(some) + 1) if recentre else plan
    except KeyboardInterrupt:
        raise Interrupted(f"Stopped; what was under way is saved. The same command goes on with {folder}.") from None
    except Interrupted as error:
        raise Interrupted(f"{str(error).partition(';')[0]}; the same command goes on with {folder}.") from None
    finally:
        write_table(plan, folder)
    return table(plan, folder)


def table(plan: Plan, folder: str | Path) -> list[dict[str, Any]]:
    """One row for each planned run: `state` is finished, failed, waiting, scoring (trained, its loss
    not measured yet), or what the run's status says."""
    return [_row(plan, one, Path(folder)) for one in plan.runs]


def write_table(plan: Plan, folder: Path) -> None:
    """Write runs.jsonl, and runs.csv of the finished runs."""
    rows = table(plan, folder)
    write_atomically(folder / "runs.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    text = io.StringIO()
    lines = csv.DictWriter(text, COLUMNS, extrasaction="ignore", lineterminator="\n")
    lines.writeheader()
    lines.writerows(row for row in rows if row["state"] == "finished")
    write_atomically(folder / "runs.csv", text.getvalue())


def _carry_out(
    plan: Plan, folder: Path, groups: set[int], workers: int, submit: Pool, watch: Watcher, here: bool
) -> None:
    def watch_it(one: Planned) -> list[Observer]:
        return [lambda row: watch(plan, folder, {one.name})] if here else []

    todo = deque(one for one in plan.runs if one.group in groups and not _settled(folder / one.name))
    going: dict[str, Job] = {}
    while todo or going:
        while todo and len(going) < workers:
            one = todo.popleft()
            watch(plan, folder, {*going, one.name})
            going[one.name] = submit(_one, _job(plan, one, folder) | {"observers": watch_it(one)})
        ended = [name for name, job in going.items() if job.done()]
        for name in ended:
            _result(going.pop(name))
        if ended:
            write_table(plan, folder)
        watch(plan, folder, set(going))
        if not ended:
            time.sleep(0.3)


def _result(job: Job) -> None:
    from concurrent.futures.process import BrokenProcessPool

    try:
        job.result()
    except BrokenProcessPool as error:
        raise UserError(
            "A worker was killed from outside, most often for want of memory: the same command goes on, with fewer --workers if "
            "it happens again."
        ) from error


# ---- one run, in whatever process ----------------------------------------------------------------------------------------


def _job(plan: Plan, one: Planned, folder: Path) -> dict[str, Any]:
    s = plan.survey
    job = {"system": s.system, "variant": s.variant, "data": s.data, "scored": s.held_out, "measure": s.measure}
    return job | {"folder": str(folder.resolve()), "run": asdict(one)}


def _one(job: Mapping[str, Any]) -> None:
    """Train a run to its end and score it; one that diverges is a row that says so, and the others go on."""
    one, folder = job["run"], Path(job["folder"])
    path = folder / one["name"]
    with _alone(folder / f".{one['name']}.lock"):
        if _settled(path):
            return
        try:
            trained, row = _trained(job, path), {"state": "finished"}
        except BaseException as error:  # of which a failed roll-back is one
            reports = sorted(path.glob("non-finite-step-*.json"))
            if not reports or isinstance(error, Interrupted):
                raise
            step = reports[-1].stem.rpartition("-")[2]
            why = f"the loss was no finite number at step {step}, at a learning rate of {one['lr']}"
            write_atomically(path / "scale.json", json.dumps({"state": "failed", "why": why}))
            return
        model, status = load(trained.path), trained.status
        test = model.source.split("test")
        store, knn = model.store(test), job["measure"] == "knn"
        found = held_out(model.method, store, min(job["scored"], SCORED) if knn else job["scored"])
        if knn:
            row, took = row | {"own_loss": found.loss}, found.seconds
            train = model.source.split("train")
            asked = labelled(model.method, {"train": (train, model.store(train)), "test": (test, store)}, job["scored"])
            found = knn_error(model.method, *asked)
            found = replace(found, seconds=found.seconds + took)
        last = next((m for m in reversed(trained.metrics()) if "loss" in m), {})
        row |= {"loss": found.loss, "loss_error": found.error, "unit": found.unit, "train_loss": last.get("loss")}
        row |= {
            "seconds": round(status["seconds"], 3),
            "scoring_seconds": round(found.seconds, 3),
            "epochs": status["epoch"],
        }
        write_atomically(path / "scale.json", json.dumps(row))


def _trained(job: Mapping[str, Any], path: Path) -> Run:
    one, kind = job["run"], catalogue.method(job["system"])
    budget = f"{one['steps']}steps"
    if (path / "config.json").exists():
        found = Run(path)
        asked = to_dict(resolve(kind, job["variant"], one["overrides"])) | {"batch": found.config["config"]["batch"]}
        if (found.config["config"], found.config["settings"]["budget"]) != (asked, budget):
            raise UserError(f"{path} holds a run of other settings than the plan's; remove it, or name another folder.")
        if found.status["state"] == "finished" and found.status.get("step") == one["steps"]:
            return found
        return recipe.resume(path, observers=job["observers"])
    shutil.rmtree(path, ignore_errors=True)  # what was killed while the folder was made
    settings = Settings(budget=budget, seed=one["seed"], save_every=SAVE_EVERY, log_every=LOG_EVERY, keep=1)
    return recipe.train(
        job["system"],
        job["data"],
        variant=job["variant"],
        overrides=one["overrides"],
        settings=settings,
        out=path,
        observers=job["observers"],
    )


@contextlib.contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Only one process at a time works on a run: one whose parent was killed may still be saving it."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


# ---- what there is -------------------------------------------------------------------------------------------------------


def _settled(path: Path) -> bool:
    return (path / "scale.json").exists()


def _agreed(plan: Plan, folder: Path) -> Plan:
    """The plan as the folder has it, which may have been centred anew since; written where there is none.

    Raises:
        UserError: where the folder's plan was another.
    """
    asked = folder / "asked.json"
    if not asked.exists():
        if any(p.name != "plan.json" for p in folder.iterdir()):
            raise UserError(f"{folder} is not empty and holds no sweep; name another folder with --out.")
        plan.write(asked)
        plan.write(folder / "plan.json")
        return plan
    now = Plan.read(folder)
    if plan.to_dict() in (now.to_dict(), Plan.read(asked).to_dict()):
        return now
    raise UserError(f"{folder} holds the runs of another plan; name another folder with --out.")


def _recentred(plan: Plan, folder: Path, done: int) -> Plan:
    """The plan with the sizes of later budgets around what was found, unless one of their runs is begun."""
    if any((folder / r.name).exists() for r in plan.runs if r.group >= done):
        return plan
    rows = [row for row in table(plan, folder) if row["state"] == "finished"]
    anew = recentred(plan, rows, done)
    if anew != plan:
        anew.write(folder / "plan.json")
    return anew


def _row(plan: Plan, one: Planned, folder: Path) -> dict[str, Any]:
    s, path = plan.survey, folder / one.name
    n = one.params[s.convention]
    row: dict[str, Any] = {"name": one.name, "system": s.system, "group": one.group, "seed": one.seed, "params": n}
    row |= {f"params_{name}": count for name, count in one.params.items()}
    row |= {"tokens": one.tokens or one.examples, "examples": one.examples, "flops": one.flops}
    row |= {"flops_6nd": 6 * n * row["tokens"], "lr": one.lr, "batch": one.batch, "steps": one.steps, "path": one.name}
    row |= {"batch_tokens": one.batch * s.per_example, "overrides": dict(one.overrides), "convention": s.convention}
    if _settled(path):
        return row | json.loads((path / "scale.json").read_text())
    state = Run(path).status["state"] if (path / "config.json").exists() else "waiting"
    return row | {"state": "scoring" if state == "finished" else state}
