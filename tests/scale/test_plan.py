"""Plans: what they promise of budgets, spacings and rules, and what they refuse."""

import json
import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unlabeled.core import catalogue
from unlabeled.core.config import resolve
from unlabeled.core.errors import UserError
from unlabeled.scale import survey as surveying
from unlabeled.scale import sweep
from unlabeled.scale.families import FAMILIES
from unlabeled.scale.plan import Plan, lay_out, plan, recentred, target

HOUR = 3600


def by_group(made, field):
    return [[getattr(r, field) for r in made.runs if r.group == g] for g in range(made.groups)]


def sizes_of(made):
    return [[p["with_head"] for p in group] for group in by_group(made, "params")]


@pytest.mark.parametrize("design", ["isoflop", "grid", "ladder"])
@pytest.mark.parametrize(("budget", "seconds"), [("20m", 1200), ("1h", HOUR)])
def test_the_whole_fits_the_budget_and_uses_it(survey, design, budget, seconds):
    made = lay_out(survey, budget, design=design)
    assert 0.75 * 0.9 * seconds <= made.seconds <= 0.9 * seconds
    assert made.seconds == pytest.approx(sum(r.seconds for r in made.runs))
    for run in made.runs:
        size = next(s for s in survey.sizes if s.params == run.params)
        assert run.flops == run.steps * 16 * size.flops
        assert run.seconds == run.steps * size.seconds + 500 * size.scoring + 2.0
        assert run.examples == 16 * run.steps and run.tokens == 128 * run.examples


def test_a_budget_of_flops_is_one_too(survey):
    made = lay_out(survey, "3e13flops")
    assert 0.9 * 3e13 <= made.flops <= 3e13


def test_two_workers_do_twice_as_much(survey):
    alone, together = (lay_out(replace(survey, workers=n), "20m") for n in (1, 2))
    assert together.flops > 1.5 * alone.flops
    assert together.seconds <= 0.9 * 1200


def test_isoflop_compares_sizes_at_equal_flops_around_the_guess(survey):
    made = lay_out(survey, "1h", budgets=4, ratio=3.0, sizes=6, spacing=1.8)
    totals = by_group(made, "flops")
    assert all(max(group) / min(group) < 1.03 for group in totals)
    assert all(np.mean(b) / np.mean(a) == pytest.approx(3.0, rel=0.02) for a, b in pairwise(totals))
    for group, flops in zip(sizes_of(made), totals):
        assert len(group) == 6
        assert all(1.4 < b / a < 2.4 for a, b in pairwise(group))
        guess = math.sqrt(np.mean(flops) / 120)  # 6 N x 20 N
        assert group[0] < guess < group[-1]


def test_ladder_and_grid(survey):
    ladder = lay_out(survey, "20m", design="ladder")
    assert all(r.tokens / r.params["with_head"] == pytest.approx(20, rel=0.03) for r in ladder.runs)
    grid = lay_out(survey, "1h", design="grid", budgets=3, sizes=5, ratio=2.5)
    assert len(grid.runs) == 15
    assert all(len(set(group)) == 1 for group in by_group(grid, "steps"))
    assert [b[0] / a[0] for a, b in pairwise(by_group(grid, "steps"))] == pytest.approx([2.5, 2.5], rel=0.02)


def test_warm_up_is_as_many_tokens_as_parameters_and_a_twentieth_at_most(survey):
    made = lay_out(survey, "1h")
    for run in made.runs:
        assert run.overrides["warmup"] == pytest.approx(min(0.05, run.params["with_head"] / run.tokens), abs=1e-6)
    assert {True, False} == {run.overrides["warmup"] == 0.05 for run in made.runs}


def test_every_seed_repeats_every_run(survey):
    made = lay_out(survey, "1h", seeds=(0, 1))
    assert len(made.runs) == 48 and len({r.name for r in made.runs}) == 48
    assert [r.seed for r in made.runs[:2]] == [0, 1] and made.runs[0].overrides == made.runs[1].overrides


@settings(max_examples=40, deadline=None)
@given(minutes=st.integers(8, 400), budgets=st.integers(1, 5), sizes=st.integers(4, 7), spacing=st.floats(1.4, 2.0))
def test_whatever_is_asked_for_is_kept_or_refused_in_one_sentence(survey, minutes, budgets, sizes, spacing):
    try:
        made = lay_out(survey, f"{minutes}m", budgets=budgets, sizes=sizes, spacing=spacing)
    except UserError as error:
        assert any(word in str(error) for word in ("give", "lower", "raise"))
        return
    assert made.seconds <= minutes * 60 * 0.9
    assert made.groups == budgets and min(r.steps for r in made.runs) >= 50
    assert all(len(group) >= 4 for group in sizes_of(made))


def test_what_cannot_be_is_refused_with_what_to_change(survey):
    with pytest.raises(UserError, match=r"too little for 4 budgets of 6 sizes: give \d+m or more"):
        lay_out(survey, "20s")
    with pytest.raises(UserError, match="a time or for FLOPs"):
        lay_out(survey, "500steps")
    with pytest.raises(UserError, match="did you mean isoflop"):
        lay_out(survey, "1h", design="isoflops")
    with pytest.raises(UserError, match="widen --smallest"):
        lay_out(replace(survey, sizes=survey.sizes[:3]), "1h")
    with pytest.raises(UserError, match="lower --budgets or --ratio"):
        lay_out(replace(survey, sizes=survey.sizes[:8]), "1h", budgets=5)
    with pytest.raises(UserError, match="do not fit between"):
        lay_out(replace(survey, sizes=survey.sizes[:5]), "1h", design="ladder")


def test_the_least_budget_it_names_is_enough(survey):
    with pytest.raises(UserError) as refused:
        lay_out(survey, "20s")
    named = str(refused.value).split("give ")[1].split()[0]
    assert lay_out(survey, named).runs


def test_cautions(survey):
    assert any("sees its data" in c for c in lay_out(replace(survey, unique=300), "1h").cautions)
    assert any("raise --largest" in c for c in lay_out(survey, "3000h").cautions)
    assert any(" steps; with so few" in c for c in lay_out(survey, "10m").cautions)
    assert not lay_out(replace(survey, unique=10**7), "3h").cautions


def test_sizes_move_to_where_the_first_budget_found_its_best(survey):
    made = lay_out(survey, "1h")
    found = 2.5 * sizes_of(made)[0][2]
    rows = [
        {"group": 0, "params": r.params["with_head"], "loss": 3 + 0.1 * math.log(r.params["with_head"] / found) ** 2}
        for r in made.runs
        if r.group == 0
    ]
    anew = recentred(made, rows, 1)
    assert [r for r in anew.runs if r.group == 0] == [r for r in made.runs if r.group == 0]
    for g, group in enumerate(sizes_of(anew)[1:], 1):
        middle = math.sqrt(group[0] * group[-1])
        assert middle == pytest.approx(found * 3 ** (g / 2), rel=0.35)
    for before, after in zip(by_group(made, "flops"), by_group(anew, "flops")):
        assert np.mean(after) == pytest.approx(np.mean(before), rel=0.02)
    assert recentred(made, [], 1) == made and recentred(made, rows, 4) == made


def test_a_target_is_one_run_of_the_nearest_size(survey):
    made = target(survey, 3e13, 400_000)
    (run,) = made.runs
    assert run.flops == pytest.approx(3e13, rel=0.001) and run.params["with_head"] == 24 * 128**2
    assert run.tokens == pytest.approx(3e13 / (6 * 24 * 128**2), rel=0.001)
    with pytest.raises(UserError, match="give more, or a smaller size"):
        target(survey, 1e11, 400_000)


def test_a_plan_is_a_file(survey, tmp_path):
    made = lay_out(survey, "20m")
    made.write(tmp_path / "new" / "plan.json")
    assert Plan.read(tmp_path / "new").to_dict() == made.to_dict() == json.loads(json.dumps(made.to_dict()))
    older = made.to_dict()
    del older["survey"]["measure"]  # a plan of before there was a choice
    (tmp_path / "older.json").write_text(json.dumps(older))
    assert Plan.read(tmp_path / "older.json") == Plan.read(tmp_path / "new")
    (tmp_path / "other.json").write_text('{"design": "isoflop"}')
    for wrong in (tmp_path / "other.json", tmp_path / "none.json"):
        with pytest.raises(UserError, match="is no plan"):
            Plan.read(wrong)


@pytest.mark.parametrize("system", FAMILIES)
def test_families_are_settings_of_their_systems(system):
    family, kind = FAMILIES[system], catalogue.method(system)
    assert "lr" in kind.Config.__dataclass_fields__
    assert {"": True, "share": "warmup", "examples": "warmup_examples"}[family.warmup] in (
        True,
        *kind.Config.__dataclass_fields__,
    )
    for knob in family.knobs:
        config = resolve(kind, family.variant, {**family.fixed, **family.shape(knob)})
        if system in ("gpt2", "bert"):
            assert config.width == knob and config.width % config.heads == 0 and 16 <= config.width / config.heads <= 64


# A batch, the sizes and the items per parameter that make the shortest sweep.
TINY = {
    "gpt2": ("moby-dick", 4, 10_000, 50_000, 2.0, {"context": 16}),
    "bert": ("moby-dick", 4, 24_000, 171_000, 0.3, {"length": 16, "tokenizer_megabytes": 0.2}),
    "vae": ("fashion", 8, 8_000, 47_000, 0.05, {}),
    "ddpm": ("fashion", 4, 70_000, 437_000, 0.005, {"image_size": 16, "bound_points": 4}),
    "glow": ("fashion", 4, 10_000, 33_000, 0.02, {"depth": 1}),
    "simclr": ("fashion", 8, 4_000, 17_000, 0.1, {"image_size": 16}),
    "moco": ("fashion", 16, 8_000, 34_000, 0.1, {"image_size": 16, "queue": 64}),
    "wav2vec2": ("speech", 4, 40_000, 297_000, 0.005, {"crop": 4_000, "longest": 16_000}),
}


@pytest.mark.parametrize("system", FAMILIES)
def test_every_family_can_be_planned_and_swept(system, tmp_path, monkeypatch):
    for name, few in {"PILOTS": 2, "PILOT_STEPS": (1, 2), "FEW": 8}.items():
        monkeypatch.setattr(surveying, name, few)
    data, batch, smallest, largest, items, overrides = TINY[system]
    made = plan(
        system, data, "1e15flops", design="ladder", sizes=4, spacing=0.97 * (largest / smallest) ** (1 / 3), smallest=smallest,
        largest=largest, batch=batch, scored=8, items_per_parameter=items, overrides=overrides,
        measure="knn" if system in ("simclr", "moco") else "loss",
    )  # fmt: skip
    found, family = made.survey, FAMILIES[system]
    n = [found.n(size) for size in found.sizes]
    assert len(n) >= 4 and n == sorted(set(n)) and smallest * 0.95 <= n[0] and n[-1] <= largest * 1.05
    flops = [size.flops for size in found.sizes]
    assert flops == sorted(set(flops)) and all(size.seconds > 0 and size.scoring > 0 for size in found.sizes)
    assert all(size.lr and size.lr > 0 for size in found.sizes), "measured or configured, the rate is in the table"
    assert (found.lr_rule == "as configured") == (family.rate is None)
    short = replace(made, runs=tuple(replace(run, steps=2) for run in (made.runs[0], made.runs[-1])))
    rows = sweep.run(short, tmp_path / "sweep")
    assert [row["state"] for row in rows] == ["finished"] * 2
    assert all(math.isfinite(row["loss"]) and row["unit"] == found.unit for row in rows)
    assert all(("own_loss" in row) == (found.measure == "knn") for row in rows)


def test_what_cannot_be_measured_by_neighbours_is_refused_before_anything_is_timed():
    with pytest.raises(UserError, match="gives no features"):
        plan("glow", "fashion", "1h", measure="knn", largest=11_000)
    with pytest.raises(UserError, match="no two classes"):
        plan("bert", "moby-dick", "1h", measure="knn", largest=25_000)
    with pytest.raises(UserError, match="did you mean knn"):
        plan("simclr", "fashion", "1h", measure="kn")


def test_a_real_plan_measures_this_machine(monkeypatch):
    monkeypatch.setattr(surveying, "PILOTS", 3)
    said = []
    made = plan("gpt2", "moby-dick", "2e11flops", budgets=1, sizes=4, largest=100_000, scored=16, overrides={"context": 32},
        items_per_parameter=5, say=said.append)  # fmt: skip
    s = made.survey
    assert s.unit == "nats per token" and s.tokens == 32 and s.data == "moby-dick" and len(said) > 3
    assert all(a.flops < b.flops and a.params["total"] < b.params["total"] for a, b in pairwise(s.sizes))
    assert all(size.seconds > 0 and size.scoring > 0 for size in s.sizes)
    assert s.sizes[0].lr > s.sizes[-1].lr
    assert all(run.overrides["lr"] == run.lr for run in made.runs)


def test_systems_that_cannot_be_planned_are_refused():
    with pytest.raises(UserError, match=r"name the first: vqvae\.codes"):
        plan("vqvae", "fashion", "1h")
    with pytest.raises(UserError, match="builds on trained codes"):
        plan("vqvae.prior", "fashion", "1h")
    with pytest.raises(UserError, match=r"shapes=\["):
        plan("gan", "fashion", "1h")
    with pytest.raises(UserError, match="learns from text data"):
        plan("gpt2", "fashion", "1h")
    with pytest.raises(UserError, match="no size between"):
        plan("gpt2", "moby-dick", "1h", smallest=10, largest=100)
