"""The command scale as a person would type it."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import pytest

from unlabeled.cli.__main__ import main
from unlabeled.core.errors import UserError


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


def test_advise_tells_what_to_train_and_writes_its_page(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--draws", "20", "--compute", "1e20", "1e21", "--data", "1e10", "--served", "1e12", "--largest", "1e8"]
    words += ["--at", "params=1e9", "tokens=2e10", "--reach", "1.5"]
    assert main(["scale", "advise", "runs.csv", *words, "--json"]) == 0
    said = capsys.readouterr()
    told = json.loads(said.out)
    assert told["compute"][1]["params"]["value"] * told["compute"][1]["tokens"]["value"] * 6 == pytest.approx(
        1e21, rel=1e-6
    )
    assert told["margin"]["params"] == 1e9 and told["data"]["unique"] == 1e10 and len(told["served"]) == 2
    assert told["headline"][0].startswith("The law chinchilla, fitted to 48 runs")
    assert not told["reach"]["possible"] and any("floor E is 1.8" in s for s in told["headline"])
    assert told["page"] == "advice.html" and "1e21 FLOPs" in Path("advice.html").read_text()
    lines = said.err.strip().splitlines()
    assert lines[: len(told["headline"])] == told["headline"]
    assert lines[-2] == "The page is advice.html." and lines[-1].startswith("Next: train the first of these models")
    assert [line for line in lines if line.startswith("Mind: ")] == [f"Mind: {caution}" for caution in told["cautions"]]


def test_advice_on_a_sweep_lies_in_it_and_leads_to_a_larger_one(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("sweep").mkdir()
    Path("runs.csv").rename("sweep/runs.csv")
    Path("sweep/plan.json").write_text(json.dumps({"survey": {"system": "gpt2", "data": "my book.txt"}}))
    assert main(["scale", "advise", "sweep", "--draws", "0"]) == 0
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert Path("sweep/advice.html").is_file()
    assert last.startswith("Next: unlabeled scale plan gpt2 'my book.txt' --budget ") and last.endswith(
        "--out larger.json"
    )
    assert main(["scale", "fit", "sweep", "--draws", "0", "--law", "tied", "--page", "fit.html"]) == 0
    assert capsys.readouterr().out.strip().splitlines()[-1] == "Next: unlabeled scale advise sweep --law tied"
    assert "<html" in Path("fit.html").read_text()


def test_every_option_of_a_plan_reaches_it(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {}

    def plan(*words: str, **options: object) -> None:
        asked.update(options, words=words)
        raise UserError("enough")

    monkeypatch.setattr("unlabeled.scale.plan.plan", plan)
    words = "--spacing 1.5 --ratio 4 --items-per-parameter 30 --batch 8 --lr 0.01 --convention total --variant tiny --measure knn"
    assert main(["scale", "plan", "gpt2", "moby-dick", *words.split()]) == 2
    wanted = {"spacing": 1.5, "ratio": 4.0, "items_per_parameter": 30.0, "batch": 8, "lr": 0.01, "convention": "total"}
    assert wanted | {"variant": "tiny", "measure": "knn", "words": ("gpt2", "moby-dick", "1h")} == {
        name: asked[name] for name in (*wanted, "variant", "measure", "words")
    }


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
        (["advise", "nowhere"], "There is no file or folder nowhere"),
        (["advise", "runs.csv", "--data", "0"], "--data takes a number of 1 or more, such as 1e6, not 0"),
        (["advise", "runs.csv", "--law", "kaplan-c", "--draws", "0"], "kaplan-c is none; take chinchilla"),
        (["advise", "runs.csv", "--at", "params=many"], "--at takes NAME=NUMBER"),
        (["advise", "runs.csv", "--at", "params=1e9"], "--at takes a model as params=NUMBER tokens=NUMBER"),
        (["advise", "runs.csv", "--reach", "90"], "has a loss below 90"),
        (["advise", "runs.csv", "--draws", "-1"], "--draws and --highest are 0 or more"),
        (["advise", "runs.csv", "--out", "."], "is a folder; give --out the name of a page"),
        (["fit", "runs.csv", "--level", "2"], "A level is a share between 0 and 1"),
        (["count", "gpt3"], "There is no method 'gpt3'"),
        (["run", "none.json"], "none.json"),
        (["plan", "gpt2", "nowhere", "--budget", "1h"], "There is no folder or file 'nowhere'"),
    ],
)
def test_a_mistake_is_one_sentence(runs: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scale", *words]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert said in error and error.startswith("unlabeled: ")
