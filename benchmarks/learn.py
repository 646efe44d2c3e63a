"""The recorded runs: train a method on real data, evaluate it beside its baselines, keep the figures.

Run: python benchmarks/learn.py NAME [--budget 8m]      NAME: one of RUNS below; --list names them
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from record import record

from unlabeled.engine.console import Console
from unlabeled.engine.launch import at_checkpoint
from unlabeled.engine.loop import Settings
from unlabeled.engine.recipe import resume, train
from unlabeled.engine.record import Run, is_recipe
from unlabeled.evaluate import evaluate
from unlabeled.model import Model, load
from unlabeled.report import write

RUNS: dict[str, dict[str, Any]] = {
    "simclr-fashion-mnist": {"system": "simclr", "data": "fashion-mnist", "variant": "small", "budget": "8m"},
    "gpt2-shakespeare": {"system": "gpt2", "data": "shakespeare", "variant": "laptop", "budget": "8m"},
    "gpt2-python": {"system": "gpt2", "data": "python", "variant": "laptop", "budget": "8m"},
    "ddpm-fashion-mnist": {"system": "ddpm", "data": "fashion-mnist", "variant": "laptop", "budget": "10m"},
    "bert-kernel-docs": {"system": "bert", "data": "kernel-docs", "variant": "laptop", "budget": "10m"},
    "moco-fashion-mnist": {"system": "moco", "data": "fashion-mnist", "variant": "small", "budget": "8m"},
    "vqvae-fashion-mnist": {"system": "vqvae", "data": "fashion-mnist", "variant": "small", "budget": "10m"},
    "vae-fashion-mnist": {"system": "vae", "data": "fashion-mnist", "variant": "small", "budget": "8m"},
    "gan-fashion-mnist": {"system": "gan", "data": "fashion-mnist", "variant": "small", "budget": "10m"},
    "glow-fashion-mnist": {"system": "glow", "data": "fashion-mnist", "variant": "small", "budget": "10m"},
    "wav2vec2-festvox-ru": {"system": "wav2vec2", "data": "festvox-ru", "variant": "small", "budget": "10m"},
}
# What grows with time is looked at along the way.
WATCHED = ("ddpm", "gan")


def text_floors(model: Model) -> dict[str, float]:
    """Bits per byte of a byte 5-gram and of xz on the same held-out text."""
    from floors_text import ngram_bits_per_byte, xz_bits_per_byte

    def joined(part: str) -> bytes:
        source = model.source.split(part)
        return b"".join(source[i].fields["text"].encode() for i in range(len(source)))

    held_out, seen = joined("test"), joined("train")
    return {
        "byte 5-gram": ngram_bits_per_byte(seen, held_out, order=5),
        "xz -9 of the held-out text": xz_bits_per_byte(b"", held_out),
        "xz -9 primed with the training text": xz_bits_per_byte(seen, held_out),
        "held_out_bytes": len(held_out),
        "train_bytes": len(seen),
    }


def training(run: Run) -> dict[str, float]:
    """How long, how fast, how far down: the last line of the run's metrics, and the weights."""
    last = run.metrics()[-1]
    kept = ("step", "examples", "seconds", "items_per_second", "ceiling_share")
    figures = {k: v for k, v in last.items() if k in kept or k.endswith("loss")}
    method = at_checkpoint(run)
    return figures | {"parameters": sum(p.numel() for n, p in method.named_parameters() if not n.startswith("given."))}


def by_training_time(run: Run, seed: int) -> list[dict[str, float]]:
    """Quick evaluations of every checkpoint that the run kept."""
    rows = []
    for path in sorted((run.path / "checkpoints").glob("step-*")):
        model = Model(run.config["system"], at_checkpoint(run, path), run)
        found = evaluate(model, quick=True, seed=seed, budget_seconds=25.0)
        rows.append({"step": int(path.name.split("-")[1]), "tables": [t.to_dict() for t in found.tables]})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=RUNS, nargs="?")
    parser.add_argument("--list", action="store_true", help="print the names of the runs")
    parser.add_argument("--budget")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="folder of the run; one that is there is gone on with")
    parser.add_argument("--evaluation-seconds", type=float, help="limit of the last evaluation")
    chosen = parser.parse_args()
    if chosen.list or chosen.name is None:
        print("\n".join(RUNS))
        return
    about = RUNS[chosen.name]
    budget = chosen.budget or about["budget"]
    watched = about["system"] in WATCHED
    settings = Settings(budget=budget, seed=chosen.seed, **({"save_every": "200s", "keep": 100} if watched else {}))
    there = chosen.out is not None and ((chosen.out / "config.json").exists() or is_recipe(chosen.out))
    if there:  # killed, or trained before
        run = resume(chosen.out)
    else:
        with Console("items") as console:
            run = train(
                about["system"],
                about["data"],
                variant=about["variant"],
                settings=settings,
                out=chosen.out,
                observers=[console],
            )
    model = load(run.path)
    found = evaluate(model, seed=chosen.seed, budget_seconds=chosen.evaluation_seconds)
    beside = [Run(run.path.parent / stage) for stage in model.method.given]
    figures: dict[str, Any] = {
        "headline": found.headline,
        "tables": [t.to_dict() for t in found.tables],
        "diagnostics": found.diagnostics,
        "training": {one.config["system"]: training(one) for one in (*beside, run)},
    }
    if about["system"] == "gpt2":
        figures["floors_bits_per_byte"] = text_floors(model)
    if watched:
        figures["by_training_time"] = by_training_time(run, chosen.seed)
    record(chosen.name, figures)
    print(write(model, found))


if __name__ == "__main__":
    main()
