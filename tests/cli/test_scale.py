"""The command scale as a person would type it."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import pytest

from unlabeled.cli.__main__ import main


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A table of runs that obey a law with E = 1.8, A = 480, B = 2000, alpha = 0.35, beta = 0.37, up to a per mille."""
    monkeypatch.chdir(tmp_path)
    with Path("runs.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["params", "tokens", "loss"])
        for i in range(8):
            for j in range(6):
                n, d = 1e7 * 2**i, 2e8 * 3**j
                wobble = 1 + 1e-3 * math.sin(7 * i + 3 * j)
                table.writerow([n, d, (1.8 + 480 / n**0.35 + 2000 / d**0.37) * wobble])
    return tmp_path


def test_fit_tells_the_law_its_check_and_what_it_foretells(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--draws", "20", "--at", "params=1e9", "tokens=2e10", "--compute", "1e21", "--json"]
    assert main(["scale", "fit", "runs.csv", *words]) == 0
    told = json.loads(capsys.readouterr().out)
    keys = {"law", "parameters", "objective", "rows_used", "rows_excluded", "intervals", "heldout", "verdict"}
    assert keys <= set(told) and told["law"] == "chinchilla" and told["rows_used"] == 48
    assert told["parameters"]["alpha"] == pytest.approx(0.35, rel=0.05)
    truth = 1.8 + 480 / 1e9**0.35 + 2000 / 2e10**0.37
    assert told["prediction"]["value"] == pytest.approx(truth, rel=2e-3)
    assert told["optimum"]["params"] * told["optimum"]["tokens"] * 6 == pytest.approx(1e21, rel=1e-6)
    assert main(["scale", "fit", "runs.csv", "--draws", "0", "--law", "overtraining"]) == 0
    assert "48 runs fitted, 0 left out" in capsys.readouterr().out


def test_count_says_parameters_and_flops(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scale", "count", "gpt2", "--variant", "tiny", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["parameters"]["total"] > told["parameters"]["non_embedding"] > 0
    assert told["flops"]["exact"] > 0 and told["unit"] == "token"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["fit", "nowhere.csv"], "There is no file or folder nowhere.csv"),
        (["fit", "runs.csv", "--law", "chinchila"], "chinchilla"),
        (["fit", "runs.csv", "--at", "params=many"], "--at takes NAME=NUMBER"),
        (["fit", "runs.csv", "--at", "params=1e9", "--draws", "0"], "needs a positive tokens"),
        (["fit", "runs.csv", "--entropy", "3"], "below the entropy"),
        (["fit", "runs.csv", "--law", "mixed-modal"], "modality"),
        (["count", "gpt3"], "There is no method 'gpt3'"),
        (["run", "none.json"], "none.json"),
        (["plan", "gpt2", "nowhere", "--budget", "1h"], "There is no folder or file 'nowhere'"),
    ],
)
def test_a_mistake_is_one_sentence(runs: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scale", *words]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert said in error and error.startswith("unlabeled: ")
