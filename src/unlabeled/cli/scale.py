"""Scaling laws: fit them to runs, ask them what to train, plan and run sweeps, count parameters and FLOPs."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from unlabeled.cli.advise import Advise, advise, inputs
from unlabeled.cli.parse import parse
from unlabeled.cli.say import table
from unlabeled.core.errors import UserError

__all__ = ["main"]


@dataclass(frozen=True)
class Fit:
    """Fit a law to runs; parameters with intervals, what was left out, how well it foretells, what speaks against it.

    RUNS is a CSV with a header (params, tokens, flops, loss; for some laws unique_tokens, modality, kept), a sweep, or
    a folder of run folders.

    Example: unlabeled scale fit runs.csv --law chinchilla --at params=1e9 tokens=2e10
    """

    runs: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUNS")]
    """A CSV or a folder."""
    law: str = "chinchilla"
    """kaplan, chinchilla, isoflop, envelope, overtraining, data-constrained, broken, mixed-modal or pruning, or another
    that the message of a misspelt one lists."""
    at: tuple[str, ...] = ()
    """Foretell a run: params=1e9 tokens=2e10, as the law needs."""
    compute: float | None = None
    """FLOPs: the best size and length for this budget."""
    highest: int = 0
    """Leave out so many runs with the greatest losses."""
    incomplete: bool = False
    """Leave out rows without a number where the law needs one, instead of refusing the table."""
    entropy: float | None = None
    """Below which no loss of these data can lie."""
    held: float | None = None
    """FLOPs from which on runs are held out for the check; by default the largest tenth, whole budgets where there are such."""
    draws: int = 1000
    """Of the bootstrap over runs; 0 for no intervals."""
    level: float = 0.9
    """Of the intervals."""
    seed: int = 0
    """Of the bootstrap."""
    page: Path | None = None
    """An HTML page of the fit."""
    json: bool = False
    """Print one JSON object."""


@dataclass(frozen=True)
class Count:
    """Count parameters by each convention, and the FLOPs of training exactly, beside the rules of thumb.

    Example: unlabeled scale count gpt2 --variant laptop
    """

    system: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SYSTEM")]
    """Name of a system."""
    variant: str | None = None
    """One of its variants."""
    data: str | None = None
    """What it would learn from; data that ship unless given."""
    json: bool = False
    """Print one JSON object."""


@dataclass(frozen=True)
class Plan:
    """Plan a sweep of sizes and lengths that fits a budget; short pilots measure what a size costs here.

    Example: unlabeled scale plan gpt2 book.txt --budget 2h --out sweep.json
    """

    system: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SYSTEM")]
    """gpt2, bert, vae, ddpm, glow, simclr, moco or wav2vec2, whose sizes are known."""
    data: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
    """A folder, a file or a built-in name."""
    budget: str = "1h"
    """For the whole sweep: 90m, 2h, or 3e13flops."""
    out: Path = Path("sweep.json")
    """The plan, for `unlabeled scale run`."""
    design: Literal["isoflop", "grid", "ladder"] = "isoflop"
    """isoflop: sizes at a few budgets of FLOPs; grid: sizes times lengths; ladder: sizes at one ratio of tokens to them."""
    budgets: int = 4
    """Budgets of isoflop, lengths of a grid."""
    sizes: int = 6
    """Of each budget."""
    spacing: float = 1.8
    """Factor between sizes."""
    ratio: float = 3.0
    """Factor between budgets, or lengths."""
    items_per_parameter: float | None = None
    """Tokens (or examples) per parameter where the first guess of the best size is; for a ladder or grid, of the runs."""
    smallest: int = 10_000
    """Parameters."""
    largest: int = 3_000_000
    """Parameters."""
    seeds: int = 1
    """Runs of each size and length, with other seeds."""
    workers: int = 1
    """Runs at a time that the plan reckons with."""
    measure: Literal["loss", "knn"] = "loss"
    """What laws are fitted to: the held-out loss or, of an encoder on data with classes, the error of 20 nearest neighbours."""
    convention: Literal["with_head", "total", "non_embedding", "active"] = "with_head"
    """Which parameters count."""
    batch: int | None = None
    """Examples of a step; as the system has it unless given."""
    lr: float | None = None
    """Learning rate at the family's own width; other widths follow its rule."""
    variant: str | None = None
    """Of the system, whose settings stay but for the size."""
    json: bool = False
    """Print one JSON object."""


@dataclass(frozen=True)
class Run:
    """Train and score every run of a plan that is not yet; the same command goes on where it was stopped.

    Example: unlabeled scale run sweep.json --out sweep
    """

    plan: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="PLAN")]
    """What `unlabeled scale plan` has written."""
    out: Path = Path("sweep")
    """Folder for the runs and their table."""
    groups: tuple[int, ...] = ()
    """Only these budgets, from 0: say all but the largest, to foretell that one first."""
    workers: int | None = None
    """Runs at a time; as planned unless given."""
    pool: Literal["local", "submitit", "ray"] = "local"
    """Here, on Slurm, or on a Ray cluster."""
    json: bool = False
    """Print one JSON object."""


Scale = (
    Annotated[Fit, tyro.conf.subcommand("fit")]
    | Annotated[Advise, tyro.conf.subcommand("advise")]
    | Annotated[Plan, tyro.conf.subcommand("plan")]
    | Annotated[Run, tyro.conf.subcommand("run")]
    | Annotated[Count, tyro.conf.subcommand("count")]
)


def main(words: Sequence[str]) -> dict[str, Any]:
    about = "Fit scaling laws, ask them what to train, plan and run sweeps, count parameters and FLOPs."
    got = parse(Scale, words, "scale", about)
    if isinstance(got, Advise):
        return advise(got, words)
    if isinstance(got, Fit):
        return _fit(got, words)
    return {Count: _count, Plan: _plan, Run: _run}[type(got)](got)


def _fit(got: Fit, words: Sequence[str]) -> dict[str, Any]:
    at: dict[str, Any] = inputs(got.at)
    if not got.runs.exists():
        raise UserError(f"There is no file or folder {got.runs}; give a CSV of runs, a sweep or a folder of runs.")

    from unlabeled.scale.fit import Fit as Fitted
    from unlabeled.scale.fit import fit
    from unlabeled.scale.optimum import Cost, cost_of
    from unlabeled.scale.table import read

    runs = read(got.runs, entropy=got.entropy, curves=got.law == "envelope")
    found = fit(
        runs, got.law, highest=got.highest, incomplete=got.incomplete, held=got.held, draws=got.draws, level=got.level,
        seed=got.seed,
    )  # fmt: skip
    told = found.json()
    print(f"{found.formula}   ({found.source})")
    print(f"{found.rows_used} runs fitted, {len(found.rows_excluded)} left out; objective {found.objective:.6g}")
    if found.convention:
        print(f"params counts {found.convention}")
    rows = []
    for name, value in found.parameters.items():
        low, high = found.intervals.get(name, (float("nan"), float("nan")))
        rows.append([name, f"{value:.6g}", f"{low:.4g}", f"{high:.4g}", found.units.get(name, "")])
    print("\n" + table(["parameter", "value", "from", "to", "unit"], rows))
    if found.rows_excluded:
        print("\nLeft out: " + "; ".join(f"{e.run} ({e.why})" for e in found.rows_excluded[:8]))
    if found.heldout is not None:
        check = found.heldout
        others = ", ".join(f"{name} {error:.2%}" for name, error in check.baselines.items())
        print(
            f"\nHeld out ({check.what}): {check.runs} runs foretold from {check.fitted} with a mean error of "
            f"{check.mean_error:.2%}, at most {check.largest_error:.2%} (baselines: {others})."
        )
    for note in found.notes:
        print(note)
    print("\n" + ("\n".join(f"Mind: {reason}" for reason in found.verdict) or "Nothing speaks against this fit."))
    if at or got.compute:
        if not isinstance(found, Fitted):
            raise UserError(f"{got.law} foretells no single runs; take chinchilla, kaplan or another law of the loss.")
        if at:
            new = found.predict(**at)
            print(f"\nForetold: {new.value:.5g} (from {new.low:.5g} to {new.high:.5g}). {new.note}")
            told["prediction"] = {"inputs": at, "value": new.value, "interval": [new.low, new.high], "note": new.note}
        if got.compute:
            best = found.optimum(got.compute)
            print(
                f"\nBest for {got.compute:.3g} FLOPs: {best.params:.3g} parameters "
                f"(from {best.params_interval[0]:.3g} to {best.params_interval[1]:.3g}), {best.tokens:.3g} tokens, "
                f"{best.tokens_per_param:.3g} for each, loss {best.loss:.4g}. {best.note}"
            )
            if "flops" in found.table and (cost := cost_of(found.table)) != Cost():
                print(
                    f"That is for C = 6 N D; these runs cost {cost.formula}, which `unlabeled scale advise` reckons with."
                )
            told["optimum"] = {
                "flops": got.compute, "params": best.params, "params_interval": best.params_interval, "tokens": best.tokens,
                "tokens_interval": best.tokens_interval, "loss": best.loss, "loss_interval": best.loss_interval,
                "note": best.note,
            }  # fmt: skip
    if got.page is not None:
        _write_page(found, runs, got.page, shlex.join(["unlabeled", "scale", *words]))
        print(f"\nThe page is {got.page}.")
    if {"params", "tokens", "loss"} <= set(runs.columns):
        both = isinstance(found, Fitted) and {"params", "tokens"} <= set(found.form.inputs)
        law = f" --law {found.law}" if both and found.law != "chinchilla" else ""
        print(f"\nNext: unlabeled scale advise {shlex.quote(str(got.runs))}{law}")
    return told


def _write_page(found: Any, runs: Any, path: Path, command: str) -> None:
    from unlabeled.engine.record import write_atomically
    from unlabeled.report.scaling import page_of

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, page_of(found, runs, command))
    except OSError as error:
        raise UserError(f"The page {path} cannot be written ({error.strerror}); name another with --page.") from None


def _count(got: Count) -> dict[str, Any]:
    from unlabeled.scale.count import count

    told = count(got.system, got.variant, got.data)
    print(table(["parameters", ""], [[name, f"{n:,}"] for name, n in told["parameters"].items()]))
    rows = [[n, f"{v:.5g}", f"{told['ratio'].get(n, 1.0):.3f}"] for n, v in told["flops"].items()]
    print("\n" + table([f"training FLOPs a {told['unit']}", "", "exact / this"], rows))
    return told


def _plan(got: Plan) -> dict[str, Any]:
    from unlabeled.scale.plan import plan

    made = plan(
        got.system, got.data, got.budget, design=got.design, budgets=got.budgets, sizes=got.sizes, spacing=got.spacing,
        ratio=got.ratio, items_per_parameter=got.items_per_parameter, smallest=got.smallest, largest=got.largest,
        seeds=range(got.seeds), workers=got.workers, measure=got.measure, convention=got.convention, batch=got.batch, lr=got.lr,
        variant=got.variant, say=print,
    )  # fmt: skip
    made.write(got.out)
    rows = [
        [
            r.name,
            f"{r.params[made.survey.convention]:,}",
            f"{r.tokens or r.examples:,}",
            f"{r.flops:.3g}",
            f"{r.seconds:.0f}",
        ]
        for r in made.runs
    ]
    print("\n" + table(["run", "parameters", "tokens or examples", "FLOPs", "seconds"], rows))
    for caution in made.cautions:
        print(f"Mind: {caution}")
    print(f"\n{len(made.runs)} runs, about {made.seconds / 60:.0f} minutes in all; the plan is in {got.out}.")
    print(f"Next: unlabeled scale run {shlex.quote(str(got.out))} --out sweep, and then unlabeled scale advise sweep")
    return made.to_dict()


def _run(got: Run) -> dict[str, Any]:
    from unlabeled.scale.live import Board
    from unlabeled.scale.plan import Plan as Planned
    from unlabeled.scale.sweep import run

    plan = Planned.read(got.plan)
    with Board() as board:
        rows = run(plan, got.out, workers=got.workers, pool=got.pool, groups=got.groups or None, watch=board)
    finished = sum(row["state"] == "finished" for row in rows)
    print(f"{finished} of {len(rows)} runs are finished; their table is {got.out / 'runs.csv'}.")
    print(f"Next: unlabeled scale advise {shlex.quote(str(got.out))}")
    return {"out": str(got.out), "runs": rows}
