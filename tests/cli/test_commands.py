"""Every command on tiny runs, as a person would type it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from unlabeled.cli.__main__ import main

TINY = ["--variant", "tiny", "--budget", "3steps"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny runs of the three systems in one folder."""
    folder = tmp_path_factory.mktemp("runs")
    book = folder / "book.txt"
    book.write_text("It was a dark and stormy night, and the rain fell in torrents. " * 200)
    for system, data in (("simclr", "fashion"), ("ddpm", "fashion"), ("gpt2", str(book))):
        assert main(["train", system, data, *TINY, "--out", str(folder / system)]) == 0
    return folder


def read_json(capsys: pytest.CaptureFixture[str]) -> dict:
    return json.loads(capsys.readouterr().out)


def test_train_takes_settings_of_the_method(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--temperature", "0.3", "--conv-widths", "8", "8", "8", "8", "--batch", "8", "--seed", "5", "--json"]
    assert main(["train", "simclr", "fashion", *TINY, *words, "--out", str(tmp_path / "run")]) == 0
    assert read_json(capsys)["last"]["examples"] == 24
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["config"]["temperature"] == 0.3
    assert config["config"]["conv_widths"] == [8, 8, 8, 8]
    assert config["config"]["projector"] == [16, 8]  # of the variant
    assert config["settings"]["seed"] == 5


def test_resume_goes_on_with_a_longer_budget(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(tmp_path / "run")
    assert main(["train", "simclr", "fashion", *TINY, "--out", run]) == 0
    capsys.readouterr()
    assert main(["resume", run, "--budget", "5steps", "--json"]) == 0
    assert read_json(capsys)["last"]["step"] == 5


@pytest.mark.parametrize("suffix", ["parquet", "npz", "npy"])
def test_embed(runs: Path, tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / f"features.{suffix}"
    assert main(["embed", str(runs / "simclr"), "fashion", "--out", str(out), "--json"]) == 0
    assert read_json(capsys)["rows"] == 5000
    if suffix == "parquet":
        import pyarrow.parquet as pq

        table = pq.read_table(out)
        assert table.column_names == ["id", "label", "features"]
        features, labels = np.stack(table["features"].to_numpy()), table["label"].to_numpy()
    elif suffix == "npz":
        with np.load(out) as held:
            features, labels = held["features"], held["label"]
    else:
        features, labels = np.load(out), None
    assert features.shape == (5000, 16)
    assert labels is None or np.bincount(labels).tolist() == [500] * 10


def test_sample_of_images_is_a_grid(runs: Path, tmp_path: Path) -> None:
    from PIL import Image

    out = tmp_path / "grid.png"
    assert main(["sample", str(runs / "ddpm"), "-n", "4", "--steps", "2", "--out", str(out)]) == 0
    assert Image.open(out).size == (34, 34)  # two by two of 16 pixels, 2 between


def test_sample_of_text_goes_on_from_the_prompt(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sample", str(runs / "gpt2"), "-n", "2", "--prompt", "It was", "--steps", "8", "--json"]) == 0
    said = read_json(capsys)["text"]
    assert len(said) == 2
    assert all(text.startswith("It was") for text in said)


def test_what_a_run_cannot_do_is_said(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sample", str(runs / "simclr"), "-n", "2"]) == 2
    assert "simclr cannot sample; it offers embed" in capsys.readouterr().err


def test_export_to_hf_is_opened_again(runs: Path, tmp_path: Path) -> None:
    import unlabeled

    assert main(["export", str(runs / "gpt2"), str(tmp_path / "hf"), "--to", "hf"]) == 0
    texts = ["It was a dark and stormy night, and the rain fell in torrents. " * 4]
    again, first = unlabeled.load(tmp_path / "hf"), unlabeled.load(runs / "gpt2")
    np.testing.assert_allclose(again.score(texts), first.score(texts), rtol=1e-6)


@pytest.mark.parametrize("system", ["simclr", "gpt2"])
def test_export_to_onnx_agrees(runs: Path, tmp_path: Path, system: str) -> None:
    pytest.importorskip("onnxruntime")
    # The command compares the graph with the model itself and refuses where they differ.
    assert main(["export", str(runs / system), str(tmp_path / "onnx"), "--to", "onnx"]) == 0
    assert (tmp_path / "onnx" / "embed.onnx").stat().st_size > 1000


def test_a_graph_that_differs_is_refused(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")

    class Wrong(onnxruntime.InferenceSession):
        def run(self, *args, **kwargs) -> list:
            return [1.1 * out for out in super().run(*args, **kwargs)]

    monkeypatch.setattr(onnxruntime, "InferenceSession", Wrong)
    assert main(["export", str(runs / "simclr"), str(tmp_path / "onnx"), "--to", "onnx"]) == 2
    assert not list((tmp_path / "onnx").iterdir())


def test_onnx_without_its_packages_says_how_to_get_them(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert main(["export", str(runs / "simclr"), str(tmp_path / "onnx"), "--to", "onnx"]) == 2
    assert 'pip install "unlabeled[onnx]"' in capsys.readouterr().err


def test_evaluate_and_report(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(runs / "simclr"), "--quick", "--json"]) == 0
    assert read_json(capsys)["tables"]
    assert main(["report", str(runs / "simclr")]) == 0
    page = (runs / "simclr" / "report.html").read_text()
    for said in ("Beside the baselines", "<svg", "data:image/png", "unlabeled train simclr fashion --variant tiny"):
        assert said in page


def test_methods(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["methods", "--json"]) == 0
    listed = read_json(capsys)["methods"]
    assert [m["name"] for m in listed] == sorted(m["name"] for m in listed)
    assert main(["methods", "gpt2", "--json"]) == 0
    assert read_json(capsys)["variants"]["small"]["parameters"] == 124_439_808  # of the released model


def test_doctor_names_what_to_fix(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from unlabeled.cli import doctor

    monkeypatch.setattr(doctor, "broken_torchvision", lambda: True)
    assert main(["doctor", "--json"]) == 0
    found = read_json(capsys)
    assert any("pip uninstall torchvision" in line for line in found["fix"])
    assert found["flops_per_second"]["float32"] > 1e9
    assert found["torch"].startswith("2.")


def test_data_list_and_show(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "list", "--json"]) == 0
    assert "fashion" in read_json(capsys)["included"]
    (tmp_path / "a.txt").write_text("Some words.")
    (tmp_path / "b.txt").write_text("Some words.")
    (tmp_path / "c.txt").write_bytes(b"\xff\xfe\xfa\x00bad")
    assert main(["data", "show", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    for part in ("texts", "The same content twice (1)", "a.txt, b.txt"):
        assert part in said, said


def test_ctrl_c_saves_and_ends_with_130(tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = [sys.executable, "-m", "unlabeled", "train", "simclr", "fashion", "--variant", "tiny", "--budget", "10m"]
    going = subprocess.Popen([*words, "--out", str(run)], stderr=subprocess.PIPE, text=True, env=os.environ)
    deadline = time.monotonic() + 60
    while not (run / "metrics.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    going.send_signal(signal.SIGINT)
    _, said = going.communicate(timeout=30)
    assert going.returncode == 130
    assert f"unlabeled resume {run}" in said
    assert "Traceback" not in said
    assert json.loads((run / "status.json").read_text())["state"] == "interrupted"


def test_only_the_first_process_speaks(tmp_path: Path) -> None:
    words = ["--nproc-per-node", "2", "-m", "unlabeled", "train", "simclr", "fashion", *TINY, "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", *words, "--out", str(tmp_path / "run")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["status"]["processes"] == 2
