"""What the front door decides, and that it keeps to its budget."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from unlabeled import fit as front
from unlabeled.core import catalogue
from unlabeled.core.config import resolve
from unlabeled.core.errors import UserError
from unlabeled.data import store
from unlabeled.data.inspect import Inspection, Spread
from unlabeled.fit import Choice, carry_out, choose, in_words, no_room, shares
from unlabeled.scale import halving, pilots


def images(count: int = 5000, side: int = 28) -> Inspection:
    spread = Spread("pixels", side, side, side)
    return Inspection(
        "some", "image", count, count, count * side**2, {"height": spread, "width": spread}, {"grey": count}
    )


def text(size: float) -> Inspection:
    return Inspection("some", "text", 10, 10, int(size), {"length": Spread("characters", 1, size / 10, size)})


@pytest.mark.parametrize(
    ("found", "goal", "seconds", "accelerator", "system", "variant", "overrides"),
    [
        (images(), None, 60, False, "simclr", "small", {}),
        (images(), "represent", 600, False, "simclr", "small", {}),
        (images(side=300), None, 3600, False, "simclr", "small", {"image_size": 48}),
        (images(side=300), None, 3 * 3600, False, "simclr", "small", {"image_size": 64}),
        (images(), None, 5 * 3600, False, "simclr", "cifar", {}),
        (images(), None, 1200, True, "simclr", "cifar", {}),
        (images(side=300), None, 7200, True, "simclr", "paper", {"batch": 512}),
        (images(count=200), None, 60, False, "simclr", "small", {"batch": 48}),
        (images(), "generate", 600, False, "ddpm", "laptop", {}),
        (images(side=8), "generate", 600, False, "ddpm", "laptop", {"image_size": 16}),
        (images(), "generate", 7200, True, "ddpm", "cifar10", {}),
        (text(1.2e6), None, 600, False, "gpt2", "laptop", {}),
        (text(2e5), None, 600, False, "gpt2", "laptop-bytes", {}),
        (text(4e3), None, 60, False, "gpt2", "laptop-bytes", {"context": 64}),
        (text(1.2e6), "represent", 600, False, "gpt2", "laptop", {}),
        (text(2e8), None, 7200, True, "gpt2", "small", {"batch": 32}),
    ],
)
def test_choice(found, goal, seconds, accelerator, system, variant, overrides) -> None:
    choice = choose(found, goal, seconds, accelerator=accelerator)
    assert (choice.system, choice.variant, dict(choice.overrides)) == (system, variant, overrides)
    assert choice.goal == (goal or ("generate" if found.kind == "text" else "represent"))
    assert len(choice.why) >= 2
    resolve(catalogue.method(choice.system), choice.variant, choice.overrides)  # such settings exist


def test_sound_is_represented_and_not_yet_made() -> None:
    found = Inspection("clips", "wave", 60, 60, 10**6, {"duration": Spread("seconds", 1, 2, 2)})
    chosen = choose(found, None, 600)
    assert (chosen.system, chosen.variant, chosen.overrides) == ("wav2vec2", "small", {"batch": 12})
    many = Inspection("calls", "wave", 20_000, 20_000, 10**10, {"duration": Spread("seconds", 1, 2, 2)})
    assert choose(many, "represent", 600).overrides == {}
    assert choose(many, "represent", 7200, accelerator=True).variant == "base"
    with pytest.raises(UserError, match="No method of this version makes sound yet"):
        choose(found, "generate", 60)


def test_an_unknown_goal_gets_a_suggestion() -> None:
    with pytest.raises(UserError, match="did you mean generate"):
        choose(images(), "generat", 60)  # type: ignore[arg-type]


@pytest.mark.parametrize("budget", [20, 60, 600, 36000])
@pytest.mark.parametrize("system", catalogue.methods())
def test_shares_fill_the_budget_and_leave_most_to_training(budget: float, system: str) -> None:
    spent = 4.0
    share = shares(budget, spent, system)
    whole = spent + share.training + share.evaluation + share.report
    assert whole == pytest.approx(budget, rel=0.01)
    assert share.training > 0.3 * budget
    assert share.evaluation >= 5


def test_a_budget_that_is_gone_still_trains_a_little() -> None:
    assert shares(60, 200, "simclr").training > 0


@pytest.mark.parametrize(
    ("budget", "said"), [("5s", "at least 20s"), ("100steps", "budget in time"), ("10", "with its unit")]
)
def test_impossible_budgets(budget: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        carry_out("fashion", budget=budget)


def test_preparation_that_eats_the_budget_is_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(source, method, folder, progress, whole) -> None:
        time.sleep(3.1)
        progress(1, 1000)

    monkeypatch.setattr(store, "_write", slow)
    with pytest.raises(UserError, match="give a budget of"):
        carry_out(np.full((64, 8, 8), 77, np.uint8), budget="60s", out=tmp_path / "run", show=False)
    assert not (tmp_path / "run").exists()


def test_words_for_what_was_found() -> None:
    found = Inspection(
        "photos",
        "image",
        2000,
        1000,
        3_500_000,
        {"height": Spread("pixels", 20, 300, 400), "width": Spread("pixels", 30, 200, 500)},
        {"colour": 990, "grey": 10},
        classes={"cat": 900, "dog": 1100},
        duplicates=(("a", "b", "c"),),
        unreadable=({"id": "x", "reason": "is empty"},),
    )
    said = in_words(found)
    for part in (
        "2,000 images",
        "200 x 300 pixels",
        "30 x 20 to 500 x 400",
        "3.5 MB",
        "2 classes",
        "2 exact duplicates",
        "1 unusable",
    ):
        assert part in said, part


def test_fit_keeps_to_its_budget(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    computed = time.process_time()
    done = carry_out(rng.integers(0, 256, (300, 16, 16), dtype=np.uint8), budget="20s", out=tmp_path / "run")
    said = capsys.readouterr().out
    # On one thread, time computed is time on the clock less what other processes took from this one.
    assert time.process_time() - computed < 22
    assert done.run.status["progress"] > 0.98  # training used its share to the end; how long the rest takes varies
    assert done.report.read_text().startswith("<!doctype html>")
    assert json.loads((tmp_path / "run" / "evaluation.json").read_text())["figures"]
    for part in ("Found", "Chosen  simclr, variant small", "Plan", "Report", "unlabeled embed"):
        assert part in said
    assert done.model.embed(np.zeros((2, 16, 16), np.uint8)).shape[0] == 2


def test_where_there_is_no_room_for_pilots() -> None:
    photos = replace(images(), classes={"cat": 2500, "dog": 2500})
    small, laptop = Choice("simclr", "small", "represent"), Choice("gpt2", "laptop", "generate")
    assert no_room(photos, small, 600) == "" and no_room(text(1e6), laptop, 600) == ""
    assert "classes" in no_room(images(), small, 600)
    assert "less than 240 s" in no_room(text(1e6), laptop, 100)
    assert "cifar is too large" in no_room(photos, Choice("simclr", "cifar", "represent"), 1e5)
    sound = Inspection("clips", "wave", 60, 60, 10**6, {"duration": Spread("seconds", 1, 2, 2)})
    assert "sound" in no_room(sound, Choice("wav2vec2", "small", "represent"), 600)


def test_pilots_choose_the_size_and_the_forecast_meets_what_came_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole way, on sizes and numbers of steps that fit into seconds, which stand still while others compute."""
    monkeypatch.setattr(time, "perf_counter", time.process_time)
    monkeypatch.setattr(front, "LEAST_FOR_PILOTS", 1.0)
    monkeypatch.setattr(front, "PILOTS", 0.25)
    monkeypatch.setattr(front, "PILOTED", {"gpt2": ("tiny",)})
    monkeypatch.setattr(
        front, "choose", lambda *a, **k: Choice("gpt2", "tiny", "generate", {"tokenizer": "bytes"}, ("because",))
    )
    ladder = pilots.Ladder((16, 48, 64), lambda n: {"width": n, "layers": 1, "heads": 1}, "{} wide")
    monkeypatch.setitem(pilots.LADDERS, "gpt2", ladder)
    monkeypatch.setattr(halving, "FEWEST_STEPS", 1)
    monkeypatch.setattr(halving, "FEWEST_FULL_STEPS", 5)
    computed = time.process_time()
    done = carry_out("moby-dick", budget="20s", out=tmp_path / "run")
    assert time.process_time() - computed < 22
    told = done.to_dict()["forecast"]
    assert told is not None, done.choice.why
    assert told["seconds"] < 1.3 * 0.25 * 20  # the last pilot ends its step, and is measured
    assert told["chosen"] == done.choice.system + f" {done.model.method.config.width} wide"
    assert done.run.config["config"]["width"] == done.choice.overrides["width"] in (16, 48, 64)
    assert done.run.config["fit"]["forecast"] == told
    assert len(told["runs"]) >= 2 and told["taken"] == done.run.status["step"]
    reached = told["reached"]
    inside = told["forecast"]["low"] <= reached <= told["forecast"]["high"]
    assert told["said"].count("inside") == inside
    said = capsys.readouterr().out
    assert "Pilots  " in said and "% of the budget" in said and told["said"] in said
    assert told["said"].replace("<", "&lt;") in done.report.read_text()
    assert done.choice.why[0] == "because" and any("is foretold to reach" in reason for reason in done.choice.why)


@pytest.mark.parametrize(
    ("wanted", "said"), [(False, "pilots are switched off"), (True, "too few to hold some out for pilots")]
)
def test_without_pilots_the_rules_choose(wanted, said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front, "LEAST_FOR_PILOTS", 1.0)
    monkeypatch.setattr(front, "SHORTEST", 1.0)
    monkeypatch.setattr(front, "PILOTED", {"ddpm": ("tiny",)})
    monkeypatch.setattr(front, "choose", lambda *a, **k: Choice("ddpm", "tiny", "generate", {}, ("because",)))
    noise = np.random.default_rng(0).integers(0, 256, (60, 16, 16), dtype=np.uint8)
    done = carry_out(noise, budget="4s", out=tmp_path / "run", pilots=wanted, show=False)
    assert done.forecast is None and done.choice.overrides == {}
    assert done.choice.why[0] == "because" and said in done.choice.why[-1]
    assert ("--no-pilots" in done.report.read_text()) != wanted
