"""Minima of isoFLOP curves and the envelope of training curves."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from unlabeled.core.errors import UserError
from unlabeled.scale.fit import fit
from unlabeled.scale.isoflop import Envelope, IsoFlop, akima, fit_isoflop
from unlabeled.scale.table import Table, read

DATA = Path(__file__).parent / "data"
STEPS = (  # what is mended after what, and the published exponent
    ({"hparams": "base", "warmup": "long", "decay": "kaplan", "param_count": "kaplan"}, 0.835),
    ({"hparams": "base", "warmup": "long", "decay": "kaplan", "param_count": "standard"}, 0.706),
    ({"hparams": "base", "warmup": "short", "decay": "kaplan", "param_count": "standard"}, 0.602),
    ({"hparams": "base", "warmup": "short", "decay": "chinchilla", "param_count": "standard"}, 0.571),
    ({"hparams": "tuned", "warmup": "short", "decay": "const", "param_count": "standard"}, 0.497),
)


def test_five_choices_explain_kaplan_against_chinchilla() -> None:
    table = read(DATA / "isoflop_setups.csv").where(dataset="rw")
    found = [fit(table.where(**setup), "isoflop", incomplete=True, draws=200) for setup, _ in STEPS]
    for result, (_, published) in zip(found, STEPS):
        assert result.parameters["exponent_N"] == pytest.approx(published, abs=0.03)
        assert result.parameters["exponent_N_parabola"] == pytest.approx(published, abs=0.03)
        low, high = result.intervals["exponent_N"]
        assert low - 0.03 < published < high + 0.03 and high - low < 0.12
    for name in ("exponent_N", "exponent_N_parabola"):
        values = [result.parameters[name] for result in found]
        assert values == sorted(values, reverse=True) and len(set(values)) == 5
    assert json.dumps(found[0].json(), allow_nan=False)


def law(params: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    return 1.8 + 400 / params**0.35 + 2000 / tokens**0.37


def study(shift: float = 1.0, budgets: int = 5) -> Table:
    rows = []
    for compute in np.geomspace(1e18, 1e21, budgets):
        centre = shift * 0.9 * compute**0.46
        for size in centre * np.geomspace(1 / 6, 6, 9):
            rows.append((compute, size, compute / (6 * size)))
    flops, params, tokens = np.array(rows).T
    return Table({"flops": flops, "params": params, "tokens": tokens, "loss": law(params, tokens)})


def best(compute: np.ndarray) -> np.ndarray:
    a, b = 0.35, 0.37
    return (a * 400 / (b * 2000)) ** (1 / (a + b)) * (compute / 6) ** (b / (a + b))


def test_minima_of_a_known_law() -> None:
    table = study()
    scale = float(np.median(best(table["flops"]) / table["params"]))
    found = fit(study(scale), "isoflop", draws=200)
    assert isinstance(found, IsoFlop)
    assert found.parameters["exponent_N"] == pytest.approx(0.37 / 0.72, abs=0.02)
    assert found.parameters["exponent_D"] == pytest.approx(0.35 / 0.72, abs=0.02)
    for vertex in found.vertices:
        assert vertex.params == pytest.approx(float(best(np.array(vertex.flops))), rel=0.1)
    assert found.optimum(1e20) == pytest.approx(float(best(np.array(1e20))), rel=0.1)
    assert found.frontier is not None and found.heldout is not None and found.heldout.mean_error < 0.005
    assert not found.rows_excluded


def test_a_minimum_at_an_edge_is_none() -> None:
    table = study(float(np.median(best(study()["flops"]) / study()["params"])))
    budgets = np.unique(table["flops"])
    cut = table.rows(~((table["flops"] == budgets[-1]) & (table["params"] < best(table["flops"]) * 1.05)))
    found = fit(cut, "isoflop", draws=50)
    assert isinstance(found, IsoFlop) and len(found.vertices) == 4
    assert {e.why for e in found.rows_excluded} == {"budget 1e+21: the minimum is at an edge of the sizes"}
    with pytest.raises(UserError, match="0 budgets have a minimum inside their sizes"):
        fit(study(1000.0), "isoflop")


def test_akima_is_scipys() -> None:
    interpolate = pytest.importorskip("scipy.interpolate")
    random = np.random.default_rng(0)
    x, y = np.sort(random.random(9)), random.random((3, 9))
    at = np.linspace(x[0], x[-1], 200)
    theirs = np.stack([interpolate.Akima1DInterpolator(x, row)(at) for row in y])
    assert np.allclose(akima(x, y, at), theirs, atol=1e-12)


def curves() -> Table:
    columns: dict[str, list[float]] = {"params": [], "tokens": [], "loss": []}
    labels: list[str] = []
    for size in np.geomspace(1e7, 1e10, 13):
        for horizon in (5, 20, 80, 320):  # tokens for each parameter, as four lengths of training
            tokens = size * horizon * np.linspace(0.005, 1, 200)
            columns["params"] += [size] * 200
            columns["tokens"] += tokens.tolist()
            columns["loss"] += law(np.full(200, size), tokens).tolist()
            labels += [f"{size:.3g} for {horizon}"] * 200
    return Table({k: np.array(v) for k, v in columns.items()}, {"run": np.array(labels)})


def test_the_envelope_of_training_curves() -> None:
    found = fit(curves(), "envelope", draws=100)
    assert isinstance(found, Envelope)
    assert found.parameters["exponent_N"] == pytest.approx(0.37 / 0.72, abs=0.03)
    assert found.parameters["exponent_D"] == pytest.approx(0.35 / 0.72, abs=0.03)
    low, high = found.intervals["exponent_N"]
    assert low < 0.37 / 0.72 < high
    assert found.frontier[:, 1].min() > 1.1e7 and found.frontier[:, 1].max() < 9e9  # the extremes may be bettered
    assert found.heldout is not None and found.heldout.mean_error < 0.01
    assert json.dumps(found.json(), allow_nan=False)


def test_ends_of_runs_have_no_envelope() -> None:
    with pytest.raises(UserError, match="has no training curves"):
        fit(study(), "envelope")


def test_runs_without_gaps_of_compute_are_no_budget():
    flops = np.geomspace(1e18, 4e18, 24)
    params = np.tile(np.geomspace(1e7, 1e9, 6), 4)
    loss = 3 + 0.1 * np.log10(params / 1e8) ** 2
    spread = Table({"params": params, "flops": flops, "loss": loss})
    with pytest.raises(UserError, match="without a gap"):
        fit_isoflop(spread, draws=0)
