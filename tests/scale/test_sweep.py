"""Sweeps: a table that is the same however often they were stopped, in every pool."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from unlabeled.core.errors import Interrupted, UserError
from unlabeled.engine.record import Run
from unlabeled.scale import sweep
from unlabeled.scale.live import Board
from unlabeled.scale.plan import Plan, Planned
from unlabeled.scale.pools import opened
from unlabeled.scale.survey import Size, Survey
from unlabeled.scale.table import read

MEASURED = ("name", "params", "tokens", "flops", "loss", "loss_error", "state")


def planned(system="gpt2", data="moby-dick", *, shapes, tokens=32, steps=6, unit="nats per token", workers=1, **survey):
    """A plan of a few tiny runs, of sizes that were not measured."""
    sizes, runs = [], []
    for i, shape in enumerate(shapes):
        counts = dict.fromkeys(("total", "non_embedding", "with_head", "active"), 1000 * (i + 1))
        sizes.append(Size(shape, counts, 1e6, 0.01, 0.001, None))
        examples = 8 * (steps - i)
        runs.append(
            Planned(
                f"n{i + 1}-s0",
                0,
                shape,
                0,
                steps - i,
                8,
                None,
                counts,
                examples,
                examples * tokens,
                1e6 * examples,
                0.1,
            )
        )
    found = Survey(
        system=system, variant="tiny", data=data, sizes=tuple(sizes), batch=8, tokens=tokens, unique=1000, held_out=12,
        unit=unit, overhead=0.1, workers=workers, threads=1, convention="with_head", items=1.0, warmup="", lr_rule="",
    )  # fmt: skip
    return Plan("ladder", "1m", replace(found, **survey), tuple(runs), {})


def gpt2(**more):
    return planned(shapes=[{"tokenizer": "bytes", "width": w, "heads": 1, "layers": 1} for w in (8, 16, 24)], **more)


def measured(rows):
    return [{name: row.get(name) for name in MEASURED} for row in rows]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "sweep"
    return folder, sweep.run(gpt2(), folder)


def test_every_run_is_a_run_folder_and_a_row(whole):
    folder, rows = whole
    assert [r["state"] for r in rows] == ["finished"] * 3
    for row, steps in zip(rows, (6, 5, 4)):
        run = Run(folder / row["path"])
        assert run.status["state"] == "finished" and run.status["step"] == steps == row["steps"]
        assert 0 < row["loss"] < 6 and 0 < row["loss_error"] < row["loss"] and row["unit"] == "nats per token"
    with (folder / "runs.csv").open() as file:
        written = list(csv.DictReader(file))
    assert tuple(written[0]) == sweep.COLUMNS
    assert [float(w["loss"]) for w in written] == [r["loss"] for r in rows]
    assert [json.loads(line) for line in (folder / "runs.jsonl").read_text().splitlines()] == rows


def test_the_same_call_again_changes_nothing(whole):
    folder, rows = whole
    before = {p: p.stat().st_mtime_ns for p in folder.glob("*/checkpoints/**/*")}
    assert sweep.run(gpt2(), folder) == rows
    assert before == {p: p.stat().st_mtime_ns for p in folder.glob("*/checkpoints/**/*")}


def test_a_sweep_that_was_stopped_anywhere_gives_the_same_table(whole, tmp_path, monkeypatch):
    looks = {}

    def stop(plan, folder, running):
        for name in running:
            looks[name] = looks.get(name, 0) + 1
            if looks[name] == 4 and name != "n3-s0":  # two steps in, as Ctrl-C
                os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(sweep, "LOG_EVERY", "1steps")
    folder, stops = tmp_path / "sweep", 0
    while True:
        try:
            rows = sweep.run(gpt2(), folder, watch=stop)
            break
        except Interrupted as error:
            stops += 1
            assert "the same command goes on" in str(error).lower()
    assert stops == 2
    assert measured(rows) == measured(whole[1])


def test_what_a_kill_leaves_behind_is_mended(whole, tmp_path):
    folder = tmp_path / "sweep"
    plan = gpt2()
    sweep.run(plan, folder)
    (folder / "n1-s0" / "scale.json").unlink()  # killed before it was scored
    (folder / "n2-s0" / "config.json").unlink()  # killed while its folder was made
    (folder / "n2-s0" / "scale.json").unlink()
    states = {row["name"]: row["state"] for row in sweep.table(plan, folder)}
    assert states["n1-s0"] == "scoring", "finished is what has a loss"
    assert Board()._left(plan, sweep.table(plan, folder), {"n1-s0"}) > 0
    rows = sweep.run(plan, folder)
    assert measured(rows) == measured(whole[1])


def test_a_killed_sweep_in_processes_goes_on(whole, tmp_path):
    folder, plan = tmp_path / "sweep", tmp_path / "plan.json"
    gpt2(workers=2).write(plan)
    code = (
        "import sys\nfrom unlabeled.scale import sweep\nfrom unlabeled.scale.plan import Plan\n"
        "if __name__ == '__main__': sweep.run(Plan.read(sys.argv[1]), sys.argv[2])\n"
    )
    script = tmp_path / "go.py"
    script.write_text(code)
    running = subprocess.Popen([sys.executable, str(script), str(plan), str(folder)])
    end = time.monotonic() + 100
    while not list(folder.glob("*/checkpoints/*")) and time.monotonic() < end:
        time.sleep(0.02)
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert list(folder.glob("*/checkpoints/*")), "no run had begun"
    rows = sweep.run(Plan.read(plan), folder, workers=1)
    assert measured(rows) == measured(whole[1])


def test_images_are_scored_in_bits_per_dimension(tmp_path):
    shapes = [{"hidden": [w], "latents": 2, "score_samples": 1, "likelihood": "gaussian"} for w in (4, 8)]
    plan = planned("vae", "fashion", shapes=shapes, tokens=0, unit="bits per dimension")
    rows = sweep.run(plan, tmp_path / "sweep")
    assert [r["unit"] for r in rows] == ["bits per dimension"] * 2 and all(0 < r["loss"] < 20 for r in rows)
    assert [r["tokens"] for r in rows] == [r["examples"] for r in rows] == [48, 40]


def test_methods_without_a_likelihood_are_scored_by_their_loss(tmp_path):
    plan = planned("simclr", "fashion", shapes=[{"conv_widths": [4, 8]}], tokens=0, unit="loss")
    (row,) = sweep.run(plan, tmp_path / "sweep")
    assert row["unit"] == "loss" and 0 < row["loss"] < 10


def test_encoders_are_scored_by_their_neighbours_beside_their_own_loss(tmp_path):
    shapes = [{"conv_widths": [4, 8]}, {"conv_widths": [8, 16]}]
    plan = planned("simclr", "fashion", shapes=shapes, tokens=0, unit="kNN error", measure="knn", held_out=300)
    rows = sweep.run(plan, tmp_path / "sweep")
    for row in rows:
        assert row["unit"] == "kNN error" and 0.1 < row["loss"] < 0.9 and 0 < row["own_loss"] < 10
        assert row["loss"] * 300 == pytest.approx(round(row["loss"] * 300))
        assert row["loss_error"] == pytest.approx((row["loss"] * (1 - row["loss"]) / 300) ** 0.5)
        assert f"{row['loss']:.4f} kNN error" in Board().line(row)
    table = read(tmp_path / "sweep", columns={"loss": "own_loss"})
    assert list(table["loss"]) == [row["own_loss"] for row in rows]
    assert list(read(tmp_path / "sweep")["loss"]) == [row["loss"] for row in rows]


def test_one_run_that_fails_is_a_row_and_the_others_go_on(tmp_path):
    plan = gpt2()
    wild = plan.runs[0].overrides | {"lr": 1e30, "clip_norm": 1e30}
    runs = (replace(plan.runs[0], overrides=wild, lr=1e30), *plan.runs[1:])
    rows = sweep.run(replace(plan, runs=runs), tmp_path / "sweep")
    assert [r["state"] for r in rows] == ["failed", "finished", "finished"]
    assert "no finite number" in rows[0]["why"]
    assert len((tmp_path / "sweep" / "runs.csv").read_text().splitlines()) == 3
    line = Board().line(rows[0])
    assert "failed" in line and "no finite number" in line


def test_only_some_budgets(tmp_path):
    plan = gpt2()
    runs = tuple(replace(run, group=i) for i, run in enumerate(plan.runs))
    plan = replace(plan, runs=runs)
    rows = sweep.run(plan, tmp_path / "sweep", groups=[0, 2])
    assert [r["state"] for r in rows] == ["finished", "waiting", "finished"]
    with pytest.raises(UserError, match="budgets 0 to 2; there is no 3"):
        sweep.run(plan, tmp_path / "sweep", groups=[3])


def test_other_plans_and_other_folders_are_refused(whole, tmp_path):
    folder, _ = whole
    with pytest.raises(UserError, match="another plan"):
        sweep.run(replace(gpt2(), budget="2m"), folder)
    (tmp_path / "photo.png").write_bytes(b"")
    with pytest.raises(UserError, match="holds no sweep"):
        sweep.run(gpt2(), tmp_path)
    with pytest.raises(UserError, match="moby-dock"):
        sweep.run(gpt2(data="moby-dock"), tmp_path / "new")


def test_the_board_says_what_ended(whole, capsys):
    folder, rows = whole
    board = Board()
    board._told = set()
    with board:
        board(gpt2(), folder, set())
    said = capsys.readouterr().err
    assert said.count("nats per token") == 3 and f"{rows[0]['loss']:.4f}" in said
    drawn = board._drawn(gpt2(), folder, [*rows[:2], rows[2] | {"state": "running"}], {"n3-s0"}, "1m0s")
    assert drawn.row_count == 3


def _square(x):
    return x * x


@pytest.mark.parametrize("name", ["local", "submitit", "ray"])
def test_pools_give_results(name, tmp_path):
    if name != "local":
        pytest.importorskip(name)
    options = {"cluster": "local"} if name == "submitit" else {}
    with opened(name, 2 if name != "local" else 1, tmp_path, **options) as submit:
        jobs = [submit(_square, n) for n in (2, 3)]
        end = time.monotonic() + 60
        while not all(job.done() for job in jobs) and time.monotonic() < end:
            time.sleep(0.1)
        assert [job.result() for job in jobs] == [4, 9]


def test_there_is_no_other_pool(tmp_path):
    with pytest.raises(UserError, match="local, submitit or ray"), opened("slurm", 1, Path(tmp_path)):
        pass
