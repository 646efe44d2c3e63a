"""The engine: exact weighting, exact resumption, any number of processes, budgets, signals, broken losses."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.engine.toys import TOYS, ToyConfig, Uneven, images
from unlabeled.core.errors import Interrupted, UserError
from unlabeled.data.sources.memory import ImagesInMemory
from unlabeled.data.store import build
from unlabeled.engine import checkpoint
from unlabeled.engine.loop import Settings, Trainer
from unlabeled.engine.record import Run
from unlabeled.parallel.world import rank, together


def trainer(folder: Path, kind=Uneven, config=None, **settings) -> Trainer:
    """A trainer on a new run folder, or on the one that is there."""
    config = config or ToyConfig()
    source = ImagesInMemory(images())
    torch.manual_seed(0)
    method = kind(config, source.spec())
    if rank() == 0:
        build(source, method)
        if not (folder / "config.json").exists():
            Run.create(folder, {"system": "toy"})
    together()
    run = Run(folder)
    chosen = {"budget": "12steps", "precision": "float32", "save_every": "5steps", "log_every": "1steps"} | settings
    return Trainer(method, build(source, method), run, Settings(**chosen))


def losses(folder: Path) -> list[dict[str, float]]:
    return [{k: v for k, v in row.items() if k.endswith("loss")} for row in Run(folder).metrics()]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("UNLABELED_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("name", TOYS)
def test_microbatches_do_not_change_the_losses(tmp_path, name):
    for pieces in (1, 4):
        trainer(tmp_path / str(pieces), TOYS[name], microbatches=pieces).train()
    one, four = losses(tmp_path / "1"), losses(tmp_path / "4")
    assert len(one) == 12
    for a, b in zip(one, four):
        assert a == pytest.approx(b, abs=1e-5)


@pytest.mark.parametrize("name", TOYS)
def test_a_resumed_run_ends_with_the_very_same_weights(tmp_path, name):
    config = ToyConfig(average=0.9)
    whole = trainer(tmp_path / "whole", TOYS[name], config)
    whole.train()
    cut = trainer(tmp_path / "cut", TOYS[name], config)
    killed = 0

    def observer(row):
        nonlocal killed
        if row.get("step") == 8:  # past the checkpoint of step 5
            killed += 1
            raise RuntimeError("killed")

    cut.observers = [observer]
    with pytest.raises(RuntimeError, match="killed"):
        cut.train()
    again = trainer(tmp_path / "cut", TOYS[name], config)
    again.train()
    assert killed == 1
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    expected, got = whole.final_state(), again.final_state()
    assert expected.keys() == got.keys()
    for key, value in expected.items():
        assert torch.equal(value, got[key]), key


@pytest.mark.parametrize("algorithm", ["adamw", "adam", "sgd", "lars", "muon", "adafactor"])
def test_every_optimiser_learns_and_resumes_exactly(tmp_path, algorithm):
    config = ToyConfig(algorithm=algorithm, lr=0.5 if algorithm in ("sgd", "lars") else 0.01)
    whole = trainer(tmp_path / "whole", TOYS["FromData"], config, budget="40steps")
    whole.train()
    values = [row["loss"] for row in losses(tmp_path / "whole")]
    assert values[-1] < values[0]
    trainer(tmp_path / "cut", TOYS["FromData"], config, budget="20steps").train()
    again = trainer(tmp_path / "cut", TOYS["FromData"], config, budget="40steps")
    again._start()
    assert again.clock.step == 20
    assert again.parts["main"].state().keys() == whole.parts["main"].state().keys()


def test_a_damaged_checkpoint_is_passed_over_and_said(tmp_path):
    whole = trainer(tmp_path / "whole")
    whole.train()
    trainer(tmp_path / "cut", budget="10steps").train()
    newest, problems = checkpoint.latest(tmp_path / "cut" / "checkpoints")
    assert newest is not None and newest.name.endswith("10") and not problems
    shard = next(newest.glob("*.safetensors"))
    content = bytearray(shard.read_bytes())
    content[-3] ^= 1
    shard.write_bytes(content)
    older, problems = checkpoint.latest(tmp_path / "cut" / "checkpoints")
    assert older is not None and older.name.endswith("5")
    assert "step-000000010 is damaged" in problems[0]
    # The schedules of the shorter run reached their end, so only its start can be compared.
    assert losses(tmp_path / "cut")[0] == losses(tmp_path / "whole")[0]
    again = trainer(tmp_path / "cut", budget="12steps")
    again.train()
    assert "is damaged" in (tmp_path / "cut" / "log.txt").read_text()
    assert [row["step"] for row in again.run.metrics()] == list(range(1, 13))


def test_a_torn_manifest_counts_as_damage(tmp_path):
    trainer(tmp_path / "run").train()
    newest, _ = checkpoint.latest(tmp_path / "run" / "checkpoints")
    assert newest is not None
    (newest / "manifest.json").write_text('{"model')
    older, problems = checkpoint.latest(tmp_path / "run" / "checkpoints")
    assert older is not None and older != newest and problems


def test_checkpoints_hold_no_pickle(tmp_path):
    trainer(tmp_path / "run").train()
    names = {p.suffix for p in (tmp_path / "run" / "checkpoints").rglob("*") if p.is_file()}
    assert names == {".safetensors", ".json"}


@pytest.mark.parametrize("budget, steps", [("7steps", 7), ("100examples", 7), ("1s", None)])
def test_budgets_end_the_run(tmp_path, budget, steps):
    t = trainer(tmp_path / "run", budget=budget)
    t.train()
    assert t.clock.progress == pytest.approx(1.0, abs=0.02)
    if steps is None:
        assert 0.9 < t.seconds < 1.3
    else:
        assert t.clock.step == steps


def test_a_finished_run_takes_no_further_step(tmp_path):
    first = trainer(tmp_path / "run", budget="1s")
    first.train()
    again = trainer(tmp_path / "run", budget="1s")
    again.train()
    assert again.clock.step == first.clock.step


def test_a_budget_in_flops_counts_them(tmp_path):
    t = trainer(tmp_path / "run", TOYS["FromData"], budget="1e6flops")
    t.train()
    # Forward and both halves of backward of three products (16x16, 16x32, 32x16) on 16 examples; the input of the
    # first needs no gradient.
    expected = 2 * 16 * (3 * (16 * 32 + 32 * 16) + 2 * 16 * 16)
    assert t.flops_per_step == expected
    assert t.clock.step == int(np.ceil(1e6 / expected))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("steps", [100_000, 5])  # in the midst of a run, and in its very last step
def test_signals_save_first_and_say_how_to_go_on(tmp_path, number, steps):
    class Signalled(Uneven):
        def after_update(self, part, outcomes, clock):
            super().after_update(part, outcomes, clock)
            if clock.step == 4 and part == next(iter(self.optimizers())):
                os.kill(os.getpid(), number)

    t = trainer(tmp_path / "run", Signalled, budget=f"{steps}steps", save_every="1000s")
    with pytest.raises(Interrupted, match="unlabeled resume"):
        t.train()
    newest, _ = checkpoint.latest(tmp_path / "run" / "checkpoints")
    assert newest is not None and int(newest.name.split("-")[1]) == t.clock.step == 5
    assert t.run.status["state"] == "interrupted"


class Breaks(Uneven):
    def loss(self, batch, part, clock):
        outcome = super().loss(batch, part, clock)
        if clock.step == 7:
            outcome.loss = outcome.loss * float("nan")
        return outcome


def test_a_non_finite_loss_is_described_and_rolled_back(tmp_path):
    t = trainer(tmp_path / "run", Breaks)
    with pytest.raises(UserError, match=r"no finite number at step 7.*back at step 5"):
        t.train()
    report = json.loads((tmp_path / "run" / "non-finite-step-7.json").read_text())
    assert len(report["examples"]) == 16 and report["fields"]["image"]["non_finite"] == 0
    assert all(v.isfinite().all() for v in t.final_state().values())
    assert Run(tmp_path / "run").metrics()[-1]["step"] == 5


def test_before_the_first_checkpoint_of_a_step_it_goes_back_to_the_start(tmp_path):
    t = trainer(tmp_path / "run", Breaks, save_every="1000s")
    with pytest.raises(UserError, match=r"no finite number at step 7.*back at step 0"):
        t.train()


def test_the_log_row_measures_speed_and_memory(tmp_path):
    trainer(tmp_path / "run").train()
    row = Run(tmp_path / "run").metrics()[-1]
    assert row["items_per_second"] > 0 and 0 < row["ceiling_share"] < 1
    assert row["flops_per_second"] > 0 and row["memory_bytes"] > 2**20 and row["examples"] == 12 * 16
    assert row["lr"] == pytest.approx(0.0, abs=1e-2) and row["gradient_norm"] > 0


def test_a_checkpoint_alone_gives_the_averaged_weights(tmp_path):
    t = trainer(tmp_path / "run", TOYS["Teacher"], ToyConfig(average=0.9))
    t.train()
    path, _ = checkpoint.latest(tmp_path / "run" / "checkpoints")
    fresh = trainer(tmp_path / "other", TOYS["Teacher"], ToyConfig(average=0.9)).method
    assert path is not None
    checkpoint.weights(path, fresh)
    expected = t.final_state()
    assert all(torch.equal(v, expected[k]) for k, v in fresh.state_dict().items())
