"""The command curate as a person would type it."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from unlabeled.cli.__main__ import main

GUIDE = Path(__file__).parents[2] / "docs" / "curation.md"
VOWELS, CONSONANTS = "aeiou", "bcdfglmnprst"


def page(seed: int, words: int = 150) -> str:
    """Sentences of made words, other ones for each seed."""
    draw = random.Random(seed)
    made = [
        "".join(draw.choice(CONSONANTS) + draw.choice(VOWELS) for _ in range(draw.randint(1, 4))) for _ in range(words)
    ]
    return ". ".join(" ".join(made[i : i + 10]).capitalize() for i in range(0, words, 10)) + "."


@pytest.fixture
def heap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "heap").mkdir()
    for number in range(20):
        (tmp_path / "heap" / f"{number:02d}.txt").write_text(page(number, 100 + 10 * number))
    (tmp_path / "heap" / "shout.txt").write_text(page(99).upper())
    (tmp_path / "heap" / "broken.txt").write_bytes(b"caf\xe9 au lait")
    (tmp_path / "mine.py").write_text(
        "from unlabeled.curate.dedup.exact import Exact\nfrom unlabeled.curate.recipe import Bound, Recipe\n"
        "def long(document):\n    return len(document.text)\n"
        "RECIPE = Recipe('mine', [Bound(long, at_least=10), Exact()])\n"
    )
    return tmp_path


def run(*words: str) -> int:
    return main(["curate", *words, "--workers", "1"])


def test_the_recipe_of_the_guide_runs(heap: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = re.findall(r"```python\n# calm.py\n(.*?)```", GUIDE.read_text(), re.S)
    (heap / "calm.py").write_text(code.replace("*REPETITION, ", ""))  # these pages repeat themselves
    assert run("heap", "--recipe", "calm.py", "--out", "calm", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["documents"] == {"read": 21, "kept": 20, "written": 20} and told["quarantined"] == 1
    assert main(["curate", "--out", "calm", "--explain", "shout.txt"]) == 0
    assert "shouting above 0.3 (measured: 1)" in capsys.readouterr().out
    assert main(["curate", "--out", "calm", "--explain", "broken.txt", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["documents"]
    assert row["outcome"] == "quarantined" and "not UTF-8" in row["reason"]
    html = (heap / "calm" / "report.html").read_text()
    assert "shouting" in html and page(99).upper()[:40] in html and "<script" not in html


def test_what_it_prints_ends_with_what_to_do_next(heap: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("heap", "--recipe", "mine.py", "--out", "out") == 0
    printed = capsys.readouterr().out
    assert "21 of 21 documents were kept (100%)" in printed and "1 things could not be read" in printed
    assert printed.splitlines()[-1] == "Next: unlabeled fit out --budget 10m"
    assert main(["data", "show", "out"]) == 0
    assert "21 text" in capsys.readouterr().out


def test_limits_mixes_and_held_out_parts_are_options(heap: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "a=heap",
        "b=heap",
        "--recipe",
        "mine.py",
        "--set",
        "long.at_least=900",
        "--hold-out",
        "0.2",
        "--out",
        "out",
        "--json",
    ]
    assert run(*words, "--mix", "a=1,b=0") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["rules"][1]["rule"] == "long" and told["rules"][1]["dropped"] > 0
    assert [row["epochs"] for row in told["mix"] if row["source"] == "b"] in ([], [0.0])
    parts = {p.name.split("-")[0]: pq.read_table(p).num_rows for p in (heap / "out" / "corpus").glob("*")}
    assert set(parts) <= {"train", "val", "test"} and parts["train"] > 0


def test_evaluation_sets_are_cut_out_and_told(heap: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (heap / "eval.jsonl").write_text(
        json.dumps({"question": " ".join(page(3, 130).split()[20:60])})
        + "\n"
        + json.dumps({"question": "What is not there " * 9})
        + "\n"
    )
    assert run("heap", "--recipe", "mine.py", "--against", "eval.jsonl", "--out", "out", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    (found,) = told["contaminated"]
    assert found["items"] == 2 and len(found["ids"]) == 1
    changed = next(rule for rule in told["rules"] if rule["rule"] == "decontaminate")
    assert changed["changed"] + changed["dropped"] == 1


def test_examples_of_good_and_bad_make_a_classifier(heap: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for kind, word in (("good", "river"), ("bad", "casino")):
        (heap / kind).mkdir()
        for number in range(200):
            (heap / kind / f"{number}.txt").write_text(f"{word} {page(1000 + number, 20)} {word} {word}")
    (heap / "heap" / "spam.txt").write_text("casino " * 50)
    assert run("heap", "--recipe", "mine.py", "--good", "good", "--bad", "bad", "--out", "out", "--json") == 0
    capsys.readouterr()
    assert main(["curate", "--out", "out", "--explain", "spam.txt"]) == 0
    assert "Rule quality: quality below 0.5" in capsys.readouterr().out
    assert (heap / "out-classifier.npz").exists()


def test_the_list_names_every_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["curate", "--list", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {"c4", "gopher", "fineweb", "refinedweb", "dclm", "pile", "codex"} <= set(
        told["recipes"]
    ) and "pile" in told["mixes"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["heap", "--recipe", "mine.py"], "Say where to: --out DIR"),
        (["--recipe", "mine.py", "--out", "o"], "Name at least one folder or file"),
        (["heap", "--out", "o"], "Say which rules: --recipe NAME"),
        (["heap", "--recipe", "goper", "--out", "o"], "did you mean gopher"),
        (["nowhere", "--recipe", "mine.py", "--out", "o"], "There is no folder or file nowhere"),
        (["heap", "--recipe", "mine.py", "--set", "long.at_leest=3", "--out", "o"], "did you mean long.at_least"),
        (["heap", "--recipe", "mine.py", "--set", "long.at_least=x", "--out", "o"], "should end in a number"),
        (["heap", "--recipe", "mine.py", "--mix", "piles", "--out", "o"], "did you mean pile"),
        (["heap", "--recipe", "mine.py", "--good", "heap", "--out", "o"], "needs both --good and --bad"),
        (["heap", "--recipe", "mine.py", "--keep", "0.5", "--out", "o"], "--encoder RUN"),
        (["heap", "--recipe", "prune", "--out", "o"], "Pruning takes one source"),
        (["--out", "heap", "--explain", "x"], "holds no ledger"),
    ],
)
def test_a_mistake_is_one_sentence(heap: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["curate", *words]) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert said in error[-1] and error[-1].startswith("unlabeled: ") and "Traceback" not in error[-1]
