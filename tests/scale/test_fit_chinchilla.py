"""The parametric fit gives the reference values of the replication of Chinchilla (tests/scale/data/README.md)."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from unlabeled.scale.fit import Fit, fit, score
from unlabeled.scale.laws import CHINCHILLA
from unlabeled.scale.table import Table, read

DATA = Path(__file__).parent / "data"
OPTIMUM = {"a": 6.1693, "b": 7.6700, "e": 0.59730, "alpha": 0.34731, "beta": 0.36717}
PRINTED = [math.log(482.01), math.log(2085.43), math.log(1.8172), 0.3478, 0.3658]  # Besiroglu et al.
UNROUNDED = [6.0073404, 6.0179186, 0.5267228, 0.33917084, 0.2849083]  # Hoffmann et al., from the source of the paper
ROUNDED = [math.log(406.4), math.log(410.7), math.log(1.69), 0.34, 0.28]  # the same as printed


@pytest.fixture(scope="module")
def runs() -> Table:
    return read(DATA / "chinchilla_fig4_runs.csv")


@pytest.fixture(scope="module")
def found(runs: Table) -> Fit:
    result = fit(runs, "chinchilla", highest=5, held=1e21)
    assert isinstance(result, Fit)
    return result


def test_the_optimum_of_the_240_rows(found: Fit) -> None:
    assert found.rows_used == 240
    assert found.objective <= 1.018275e-3
    assert found.details["starts"] == 4500
    for name, value in zip(CHINCHILLA.parameters, found.theta.tolist()):
        assert value == pytest.approx(OPTIMUM[name], rel=1e-3), name
    assert found.parameters["exponent_N"] == pytest.approx(0.5139, abs=2e-4)


def test_a_third_of_the_starts_is_not_all_of_them(found: Fit) -> None:
    assert 0.05 < found.details["share_at_optimum"] < 0.6


def test_the_order_of_published_parameters(runs: Table, found: Fit) -> None:
    table = runs.without_highest(5)
    scores = [score(table, CHINCHILLA, theta) for theta in (PRINTED, UNROUNDED, ROUNDED)]
    assert scores == pytest.approx([1.02284e-3, 1.2312e-3, 4.1210e-3], rel=1e-4)
    assert [found.objective, *scores] == sorted([found.objective, *scores])


def test_what_was_left_out_is_said(found: Fit, runs: Table) -> None:
    assert len(found.rows_excluded) == 5
    assert all("greatest losses" in e.why for e in found.rows_excluded)
    assert runs["loss"].max() == pytest.approx(5.005582)


def test_five_outliers_move_the_optimum(runs: Table) -> None:
    found = fit(runs, "chinchilla", draws=0)
    assert found.objective == pytest.approx(1.826e-3, rel=1e-3)
    assert found.parameters["alpha"] == pytest.approx(0.34931, rel=1e-3)
    assert found.parameters["beta"] == pytest.approx(0.45305, rel=1e-3)
    assert any("line 2" in reason for reason in found.verdict)  # and they are named


def test_the_largest_runs_are_foretold(found: Fit) -> None:
    held = found.heldout
    assert held is not None and (held.fitted, held.runs) == (217, 23)
    assert held.mean_error == pytest.approx(0.0105, abs=5e-5)
    assert held.largest_error == pytest.approx(0.028, abs=5e-4)
    assert held.parameters["exponent_N"] == pytest.approx(0.548, abs=1e-3)
    assert held.mean_error < min(held.baselines.values()) / 2


def test_bootstrap_errors_are_the_published_ones(found: Fit) -> None:
    published = {"A": 124.5, "B": 1293.3, "E": 0.0257, "alpha": 0.0154, "beta": 0.0206, "exponent_N": 0.020}
    for name, error in published.items():
        assert found.errors[name] == pytest.approx(error, rel=0.2), name
        low, high = found.intervals[name]
        assert low < found.parameters[name] < high


def test_the_best_split_satisfies_its_conditions(found: Fit) -> None:
    best = found.optimum(5.76e23)
    assert best.params * best.tokens == pytest.approx(5.76e23 / 6)
    at = [found.predict(params=best.params * f, tokens=best.tokens / f).value for f in (0.99, 1.0, 1.01)]
    assert at[1] < min(at[0], at[2])
    assert best.loss == pytest.approx(at[1])
    assert best.params_interval[0] < best.params < best.params_interval[1]
    assert best.note.startswith("Extrapolation: flops is 44 times above")
    assert 10 < best.tokens_per_param < 30
    numeric = CHINCHILLA.__class__(**{**CHINCHILLA.__dict__, "optimum": None})
    import torch

    params, tokens = numeric.allocation(found.theta[None], torch.tensor([5.76e23], dtype=torch.float64))
    assert float(params) == pytest.approx(best.params, rel=1e-4)
    assert float(tokens) == pytest.approx(best.tokens, rel=1e-4)


def test_a_prediction_says_how_far_it_reaches(found: Fit) -> None:
    near = found.predict(params=1e9, tokens=2e10)
    far = found.predict(params=1e13, tokens=2e14)
    assert near.low < near.value < near.high and not near.note
    assert "params is" in far.note


def test_json_has_all_and_is_plain(found: Fit) -> None:
    said = json.loads(json.dumps(found.json(), allow_nan=False))
    for key in (
        "law",
        "parameters",
        "objective",
        "rows_used",
        "rows_excluded",
        "intervals",
        "heldout",
        "verdict",
        "units",
    ):
        assert key in said
    assert said["rows_excluded"][0] == {"run": "line 2", "why": "one of the 5 greatest losses"}
    assert said["parameters"]["alpha"] == found.parameters["alpha"]


def test_intervals_cover_the_truth() -> None:
    # 60 runs of a known law with 0.5 % noise in the log loss
    truth = {"A": 400.0, "B": 2000.0, "E": 1.8, "alpha": 0.35, "beta": 0.37}
    import torch

    starts = torch.tensor([[math.log(400.0), math.log(2000.0), math.log(1.8), 0.35, 0.37]], dtype=torch.float64)
    starts = torch.cat([starts, starts * 0.8, starts * 1.2])
    random = np.random.default_rng(0)
    inside = []
    for repetition in range(200):
        params, tokens = 10 ** random.uniform(7.5, 10, 60), 10 ** random.uniform(9, 11.5, 60)
        loss = truth["E"] + truth["A"] / params ** truth["alpha"] + truth["B"] / tokens ** truth["beta"]
        loss = loss * np.exp(0.005 * random.standard_normal(60))
        table = Table({"params": params, "tokens": tokens, "loss": loss})
        found = fit(table, "chinchilla", draws=200, held=math.inf, starts=starts, seed=repetition)
        inside.append([found.intervals[k][0] <= v <= found.intervals[k][1] for k, v in truth.items()])
    shares = dict(zip(truth, np.mean(inside, axis=0)))
    for name, share in shares.items():
        assert 0.85 <= share <= 0.95, (name, share)
