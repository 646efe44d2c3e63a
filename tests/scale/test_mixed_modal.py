"""The interaction of two modalities is found again where it was planted, and not claimed where it was not."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from unlabeled.core.errors import UserError
from unlabeled.scale.fit import fit
from unlabeled.scale.laws import CHINCHILLA
from unlabeled.scale.mixed_modal import MixedModal, fit_mixed_modal
from unlabeled.scale.table import Table

TEXT = (1.8, 400.0, 2000.0, 0.35, 0.37)
SPEECH = (2.5, 120.0, 500.0, 0.31, 0.30)
PLANTED = {"C": 0.30, "A": 40.0, "B": 90.0, "alpha": 0.33, "beta": 0.32}
# starts near the planted laws: what is tested here is the second stage
STARTS = torch.tensor(
    [[math.log(a * f), math.log(b * f), math.log(e), x, y] for e, a, b, x, y in (TEXT, SPEECH) for f in (0.5, 1, 2)],
    dtype=torch.float64,
)


def single(constants: tuple[float, ...], n: np.ndarray, d: np.ndarray) -> np.ndarray:
    e, a, b, alpha, beta = constants
    return e + a / n**alpha + b / d**beta


def study(planted: dict[str, float], noise: float, seeds: int = 3) -> Table:
    random = np.random.default_rng(0)
    n, d = (v.ravel() for v in np.meshgrid(np.geomspace(1e6, 1e9, 6), np.geomspace(1e8, 1e11, 6)))
    n, d = np.tile(n, seeds), np.tile(d, seeds)
    joint = (single(TEXT, n, d / 2) + single(SPEECH, n, d / 2)) / 2
    joint += planted["A"] / n ** planted["alpha"] + planted["B"] / d ** planted["beta"] - planted["C"]
    loss = np.concatenate([single(TEXT, n, d), single(SPEECH, n, d), joint])
    loss = loss + noise * random.standard_normal(len(loss))
    names = np.repeat(["text", "speech", "text+speech"], len(n))
    return Table({"params": np.tile(n, 3), "tokens": np.tile(d, 3), "loss": loss}, {"modality": names})


def test_planted_constants_come_back() -> None:
    found = fit_mixed_modal(study(PLANTED, 1e-4, seeds=1), draws=0, starts=STARTS)
    for name, value in PLANTED.items():
        assert found.parameters[name] == pytest.approx(value, rel=0.05 if name in ("alpha", "beta") else 0.35), name
    assert found.parameters["alpha.text"] == pytest.approx(0.35, rel=1e-2)
    assert found.parameters["E.speech"] == pytest.approx(2.5, rel=1e-2)
    assert found.heldout is not None and found.heldout.mean_error < 1e-3
    assert found.heldout.mean_error < found.heldout.baselines["mean of both laws"]
    (barrier,) = found.barrier([1e10])
    truth = (PLANTED["A"] / (PLANTED["C"] - PLANTED["B"] / 1e10 ** PLANTED["beta"])) ** (1 / PLANTED["alpha"])
    assert barrier == pytest.approx(truth, rel=0.05)
    assert found.predict(1e8, 1e10) == pytest.approx(
        (single(TEXT, np.array(1e8), np.array(5e9)) + single(SPEECH, np.array(1e8), np.array(5e9))) / 2
        + 40 / 1e8**0.33
        + 90 / 1e10**0.32
        - 0.3,
        rel=1e-3,
    )


@pytest.mark.parametrize(("planted", "sign"), [(PLANTED, "synergy"), ({**PLANTED, "C": 1e-6}, "competition")])
def test_the_sign_is_said_with_its_interval(planted: dict[str, float], sign: str) -> None:
    found = fit_mixed_modal(study(planted, 0.01), draws=60, starts=STARTS)
    at = found.details["interaction_at_largest"]
    assert at["sign"] == sign
    low, high = at["interval"]
    n, d = at["params"], at["tokens"]
    truth = planted["C"] - planted["A"] / n ** planted["alpha"] - planted["B"] / d ** planted["beta"]
    assert low - 0.01 < truth < high + 0.01
    assert json.dumps(found.json(), allow_nan=False)


def test_noise_is_not_taken_for_synergy() -> None:
    none = {"C": 1e-9, "A": 1e-9, "B": 1e-9, "alpha": 0.3, "beta": 0.3}
    found = fit_mixed_modal(study(none, 0.02), draws=60, starts=STARTS)
    low, high = found.details["interaction_at_largest"]["interval"]
    assert low < 0.01 and high > -0.01 and abs(low) < 0.03
    assert found.details["interaction_at_largest"]["sign"] == "undecided" or max(abs(low), abs(high)) < 0.01


def test_what_is_missing_is_said() -> None:
    table = study(PLANTED, 0.0, seeds=1)
    with pytest.raises(UserError, match="lacks the column modality"):
        fit(Table(table.columns), "mixed-modal")
    with pytest.raises(UserError, match="0 pairs of modalities"):
        fit(table.where(modality="text"), "mixed-modal")
    with pytest.raises(UserError, match="no run of speech alone"):
        fit(table.rows(table.labels["modality"] != "speech"), "mixed-modal")


def test_one_seed_at_each_corner_is_said() -> None:
    found = fit_mixed_modal(study(PLANTED, 0.01, seeds=1), draws=20, starts=STARTS)
    assert isinstance(found, MixedModal) and found.single["text"].form is CHINCHILLA
    assert any("train 3" in reason for reason in found.verdict)
