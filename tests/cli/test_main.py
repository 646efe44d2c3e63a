"""The command line as a person meets it: help at once, mistakes in one sentence, one JSON object."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from unlabeled.cli.__main__ import COMMANDS, main

HELPS = [[], *([c] for c in COMMANDS), ["train", "simclr"], ["data", "show"], ["data", "get"], ["data", "list"]]


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "unlabeled", *words], capture_output=True, text=True)


@pytest.fixture(scope="module")
def helps() -> dict[str, tuple[str, bool]]:
    """Every help text, all made in one fresh interpreter, and whether torch was loaded by then."""
    script = (
        "import contextlib, io, json, sys\nfrom unlabeled.cli.__main__ import main\nout = {}\n"
        f"for words in {HELPS!r}:\n"
        "    said = io.StringIO()\n"
        "    with contextlib.redirect_stdout(said):\n"
        "        try: main([*words, '--help'])\n"
        "        except SystemExit as left: assert not left.code, words\n"
        "    out[' '.join(words)] = (said.getvalue(), bool({'torch', 'numpy', 'scipy'} & set(sys.modules)))\n"
        "print(json.dumps(out))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_no_help_waits_for_torch(helps: dict[str, tuple[str, bool]]) -> None:
    assert [name for name, (_, loaded) in helps.items() if loaded] == []


@pytest.mark.parametrize("words", [" ".join(w) for w in HELPS])
def test_every_help_has_an_example(words: str, helps: dict[str, tuple[str, bool]]) -> None:
    text, _ = helps[words]
    assert f"unlabeled {words.split()[0] if words else 'fit'}" in text.partition("xample" if words else "--help")[
        2
    ] or (not words and "unlabeled fit photos/" in text)


def test_help_of_a_method_lists_its_settings_and_variants(helps: dict[str, tuple[str, bool]]) -> None:
    text, _ = helps["train simclr"]
    for said in ("--temperature FLOAT", "--variant", "small", "--budget", "SYSTEM DATA", "(default: 0.1)"):
        assert said in text, said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["fti"], "did you mean `unlabeled fit`?"),
        (["train", "simclrr", "x"], "did you mean simclr?"),
        (["train", "simclr", "x", "--temprature", "1"], "no option --temprature; did you mean --temperature"),
        (
            ["train", "simclr", "x", "--precision", "float31"],
            "is one of bf16, fastest, float32 and not 'float31'; did you mean float32",
        ),
        (["train", "simclr", "x", "--batch", "many"], "--batch does not take 'many'"),
        (["train", "simclr"], "Say also: DATA"),
        (["fit", "x", "--budgt", "1m"], "did you mean --budget"),
        (["data", "shwo", "x"], "did you mean show?"),
        (["data", "show", "fashon"], "did you mean fashion?"),
        (["evaluate", "nowhere"], "nowhere"),
        (["resume", "nowhere"], "is not a run folder"),
        (["embed", "nowhere", "fashion", "--out", "x.csv"], "ends in .parquet, .npz or .npy"),
        (["sample", "nowhere", "-n", "0"], "at least 1"),
        (["export", "nowhere", "out", "--to", "hff"], "did you mean hf;"),
        (["methods", "gpt3"], "did you mean gpt2?"),
        (["fit", "fashion", "--budget", "100steps"], "needs a budget in time"),
        (["fit", "fashion", "--budget", "10"], "with its unit"),
        (["fit", "fashion", "--goal", "generat"], "did you mean generate;"),
    ],
)
def test_a_mistake_is_one_sentence_and_code_2(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert said in err
    assert err.count("\n") == 1
    assert not out
    assert "Traceback" not in err


def test_debug_shows_the_traceback() -> None:
    done = run("resume", "nowhere", "--debug")
    assert done.returncode != 0
    assert "Traceback" in done.stderr


def test_json_is_alone_on_standard_output() -> None:
    done = run("data", "show", "fashion", "--limit", "20", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["kind"] == "image"
    assert done.stdout.count("\n") == 1
    assert "5,000 images" in done.stderr


def test_a_reader_that_leaves_is_no_error() -> None:
    done = subprocess.run(
        f"{sys.executable} -m unlabeled train simclr --help | head -1", shell=True, capture_output=True, text=True
    )
    assert "usage" in done.stdout
    assert not done.stderr


def test_ctrl_c_ends_with_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from unlabeled.cli import doctor

    def stop(words: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(doctor, "main", stop)
    assert main(["doctor"]) == 130
    assert "stopped" in capsys.readouterr().err
