"""Each law against published evaluations, its limits, and data made with known constants."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from unlabeled.core.errors import UserError
from unlabeled.scale import laws
from unlabeled.scale.fit import Fit, fit
from unlabeled.scale.table import Table, read

DATA = Path(__file__).parent / "data"
PUBLISHED = [6.255414, 7.3049974, 0.6254804, 0.3526596, math.log(15.387756), math.log(5.309743)]  # Muennighoff et al.


def tensor(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


# --- over-training --------------------------------------------------------------------------------------------------------


def five_runs(dataset: str) -> tuple[Table, Table]:
    """The runs the paper fits (four small models at multiplier 1, the smallest at 16 too), and all."""
    table = read(DATA / "overtraining_testbed.csv", columns={"loss": "loss_c4_val"}).where(dataset=dataset)
    params, times = table["params"], table["chinchilla_multiplier"]
    return table.rows(((params < 5e8) & (times == 1)) | ((params < 2e7) & (times == 16))), table


@pytest.mark.parametrize(
    ("dataset", "constants"),
    [
        ("rpj", (166.21, 366.69, -0.27290, 1.83660)),
        ("c4_original", (113.69, 189.52, -0.24252, 1.50833)),
        ("rw_original", (125.10, 246.21, -0.25437, 1.73446)),
    ],
)
def test_overtraining_constants_from_five_runs(dataset: str, constants: tuple[float, ...]) -> None:
    few, _ = five_runs(dataset)
    assert len(few) == 5
    found = fit(few, "overtraining", draws=0)
    assert [found.parameters[k] for k in ("a", "b", "eta", "E")] == pytest.approx(constants, rel=1e-3)
    assert any("5 runs for 4 parameters" in reason for reason in found.verdict)


def test_overtraining_foretells_what_the_paper_does() -> None:
    few, every = five_runs("rpj")
    found = fit(few, "overtraining", draws=0)
    assert isinstance(found, Fit)
    params, times, loss = every["params"], every["chinchilla_multiplier"], every["loss"]
    for chosen, error in (
        ((params > 1e9) & (params < 2e9) & (times == 32), 0.0071),
        ((params > 5e9) & (times == 1), 0.0073),
    ):
        (row,) = np.flatnonzero(chosen)
        foretold = found.predict(params=params[row], tokens=every["tokens"][row])
        assert abs(foretold.value / loss[row] - 1) == pytest.approx(error, abs=5e-5)


# --- repeated data --------------------------------------------------------------------------------------------------------


def test_repeated_data_to_the_last_digit() -> None:
    columns = {"params": tensor(6.34e9, 8.67e9), "tokens": tensor(242e9, 178e9), "unique_tokens": tensor(25e9, 25e9)}
    loss = laws.DATA_CONSTRAINED.log_predict(tensor(*PUBLISHED)[None], columns)[0].exp()
    assert loss.tolist() == pytest.approx([2.2256440889984477, 2.2269634075087867], abs=1e-9)


def test_repetition_must_be_known_to_explain_repeated_runs() -> None:
    table = read(DATA / "data_constrained_runs.csv")
    table = table.without(table["loss"] > 6, "diverged")
    columns = {k: torch.from_numpy(table[k]) for k in ("params", "tokens", "unique_tokens")}
    theta, loss = tensor(*PUBLISHED)[None], table["loss"]
    aware = laws.DATA_CONSTRAINED.log_predict(theta, columns)[0].exp().numpy()
    plain = laws.TIED.log_predict(theta[:, :4], columns)[0].exp().numpy()
    assert len(table) == 276
    assert np.abs(aware / loss - 1).mean() == pytest.approx(0.088, abs=5e-4)
    assert np.abs(plain / loss - 1).mean() == pytest.approx(0.161, abs=5e-4)


def test_one_epoch_is_worth_all_its_tokens_and_many_are_worth_a_limit() -> None:
    theta = tensor(*PUBLISHED)[None]
    n, d = laws.repeated(tensor(1e8), tensor(1e10), tensor(1e10), theta)
    assert float(n) == pytest.approx(1e8) and float(d) == pytest.approx(1e10)
    _, d = laws.repeated(tensor(1e8), tensor(1e16), tensor(1e10), theta)
    assert float(d) == pytest.approx(1e10 * (1 + 15.387756))


def test_repetition_constants_are_recovered() -> None:
    random = np.random.default_rng(0)
    unique = 10 ** random.uniform(8, 10, 150)
    epochs = np.where(np.arange(150) < 60, 1.0, 2 ** random.uniform(0, 6, 150))
    # what runs of one epoch teach must not be mixed with excess parameters: those have fewer than are best for their tokens
    enough = unique * math.exp((PUBLISHED[0] - PUBLISHED[1]) / PUBLISHED[3])
    params = enough * 10 ** np.where(epochs == 1, random.uniform(-2, 0, 150), random.uniform(-1, 1.5, 150))
    columns = {"params": params, "tokens": unique * epochs, "unique_tokens": unique}
    theta = tensor(*PUBLISHED)[None]
    loss = (
        laws.DATA_CONSTRAINED.log_predict(theta, {k: torch.from_numpy(v) for k, v in columns.items()})[0].exp().numpy()
    )
    table = Table({**columns, "loss": loss * np.exp(0.001 * random.standard_normal(150))})
    found = fit(table, "data-constrained", draws=30)
    assert found.parameters["R_D"] == pytest.approx(15.39, rel=0.05)
    assert found.parameters["R_N"] == pytest.approx(5.31, rel=0.15)
    assert found.parameters["alpha"] == pytest.approx(0.3527, rel=0.02)
    assert found.intervals["R_D"][0] < 15.39 < found.intervals["R_D"][1]
    assert "come from the 60 runs of one epoch" in " ".join(found.notes)
    with pytest.raises(UserError, match="saw their tokens once"):
        fit(table.rows(np.arange(150) >= 60), "data-constrained")


# --- Kaplan -----------------------------------------------------------------------------------------------------------------


def made(law: str, theta: list[float], noise: float = 0.0, **columns: np.ndarray) -> Table:
    tensors = {k: torch.from_numpy(v) for k, v in columns.items()}
    form = laws.LAWS[law]
    value = form.log_predict(tensor(*theta)[None], tensors)[0].exp().numpy()
    value = value * np.exp(noise * np.random.default_rng(1).standard_normal(len(value)))
    return Table({**columns, form.target: value})


def test_kaplan_of_size_and_data_has_the_published_limits() -> None:
    # joint constants: alpha_N 0.076, alpha_D 0.103, N_c 6.4e13, D_c 1.8e13
    ratio = 0.076 / 0.103
    theta = tensor(ratio * math.log(6.4e13), ratio, math.log(1.8e13), 0.103)[None]
    law = laws.LAWS["kaplan-nd"]
    size, data = tensor(1e9), tensor(1e10)
    endless = law.log_predict(theta, {"params": size, "tokens": tensor(1e60)}).exp()
    assert float(endless) == pytest.approx((6.4e13 / 1e9) ** 0.076, rel=1e-6)
    vast = law.log_predict(theta, {"params": tensor(1e80), "tokens": data}).exp()
    assert float(vast) == pytest.approx((1.8e13 / 1e10) ** 0.103, rel=1e-6)


def test_kaplan_of_size_and_data_is_recovered() -> None:
    random = np.random.default_rng(0)
    columns = {"params": 10 ** random.uniform(6, 9, 60), "tokens": 10 ** random.uniform(8, 10.5, 60)}
    ratio = 0.076 / 0.103
    table = made("kaplan-nd", [ratio * math.log(6.4e13), ratio, math.log(1.8e13), 0.103], **columns)
    found = fit(table, "kaplan", draws=50)
    assert found.law == "kaplan-nd"
    for name, value in {"alpha_N": 0.076, "alpha_D": 0.103, "N_c": 6.4e13, "D_c": 1.8e13}.items():
        assert found.parameters[name] == pytest.approx(value, rel=1e-3)
    assert found.heldout is not None and found.heldout.mean_error < 1e-5
    assert found.trusted, found.verdict


def test_kaplan_of_size_and_steps_is_recovered() -> None:
    random = np.random.default_rng(0)
    columns = {"params": 10 ** random.uniform(6, 9, 60), "steps": 10 ** random.uniform(3, 5, 60)}
    table = made("kaplan-ns", [0.077 * math.log(6.5e13), 0.077, 0.76 * math.log(2.1e3), 0.76], **columns)
    found = fit(table, "kaplan", draws=0)
    assert found.law == "kaplan-ns"
    for name, value in {"alpha_N": 0.077, "alpha_S": 0.76, "N_c": 6.5e13, "S_c": 2.1e3}.items():
        assert found.parameters[name] == pytest.approx(value, rel=1e-3)


@pytest.mark.parametrize(
    ("law", "column", "scale", "exponent", "constants"),
    [
        ("kaplan-n", "params", "N_c", "alpha_N", (8.8e13, 0.076)),
        ("kaplan-d", "tokens", "D_c", "alpha_D", (5.4e13, 0.095)),
        ("kaplan-c", "flops", "C_c", "alpha_C", (1.6e7 * 8.64e19, 0.057)),
    ],
)
def test_kaplan_of_one_input(law: str, column: str, scale: str, exponent: str, constants: tuple[float, float]) -> None:
    x = np.geomspace(1e6, 1e9, 12)
    found = fit(made(law, [constants[1] * math.log(constants[0]), constants[1]], **{column: x}), "kaplan", draws=20)
    assert found.law == law
    assert (found.parameters[scale], found.parameters[exponent]) == pytest.approx(constants, rel=1e-3)


def test_critical_batch() -> None:
    loss = np.linspace(2.0, 5.0, 12)
    table = Table({"loss": loss, "critical_batch": 2e8 * loss ** (-1 / 0.21)})
    found = fit(table, "kaplan-batch", draws=20)
    assert found.parameters["B_star"] == pytest.approx(2e8, rel=1e-3)
    assert found.parameters["alpha_B"] == pytest.approx(0.21, rel=1e-3)
    batch, critical = tensor(1e5), tensor(1e5)
    assert float(laws.smallest_steps(tensor(1000.0), batch, critical)) == 500  # at B = B_crit both halve
    assert float(laws.smallest_compute(tensor(1000.0), batch, critical)) == 500


def test_kaplans_compute_optimal_exponents() -> None:
    found = laws.kaplan_optimum(alpha_n=0.077, alpha_s=0.76, alpha_b=0.21)
    assert found["loss"] == pytest.approx(0.0525, abs=5e-4)  # 0.054 in the paper, from alpha_N = 0.076 and rounding
    assert found["params"] + found["batch_tokens"] + found["steps"] == pytest.approx(1)
    assert found["params"] == pytest.approx(0.7, abs=0.05)


# --- broken power laws --------------------------------------------------------------------------------------------------------


def test_a_law_without_a_bend_is_a_power_law_with_a_floor() -> None:
    x = torch.from_numpy(np.geomspace(1e2, 1e8, 30))
    theta = tensor(math.log(0.5), math.log(20.0), 0.3, 0.0, math.log(1e5), math.log(0.5))[None]
    loss = laws.broken("flops").log_predict(theta, {"flops": x})[0].exp()
    assert torch.allclose(loss, 0.5 + 20 * x**-0.3)


def test_a_sharp_bend_is_a_corner_between_two_power_laws() -> None:
    x = torch.from_numpy(np.geomspace(1e2, 1e8, 30))
    theta = tensor(math.log(1e-12), math.log(20.0), 0.3, 0.2, math.log(1e5), math.log(1e-3))[None]
    loss = laws.broken("flops").log_predict(theta, {"flops": x})[0].exp()
    corner = torch.where(x < 1e5, 20 * x**-0.3, 20 * 1e5**0.2 * x**-0.5)
    assert torch.allclose(loss, corner, rtol=1e-3)


def test_a_broken_law_foretells_past_its_break_what_a_plain_one_cannot() -> None:
    x = np.geomspace(1e3, 1e9, 50)
    theta = [math.log(0.1), math.log(8.0), 0.05, 0.3, math.log(1e5), math.log(0.5)]
    broken = laws.broken("flops")
    loss = broken.log_predict(tensor(*theta)[None], {"flops": torch.from_numpy(x)})[0].exp().numpy()
    table = Table({"flops": x, "loss": loss * np.exp(0.002 * np.random.default_rng(0).standard_normal(50))})
    bent = fit(table, "broken", draws=0)
    plain = fit(table, laws.power("flops"), draws=0)
    assert bent.parameters["d1"] == pytest.approx(1e5, rel=0.5)
    assert bent.parameters["c1"] == pytest.approx(0.3, rel=0.1)
    assert bent.heldout is not None and plain.heldout is not None
    assert bent.heldout.mean_error < 0.02 < plain.heldout.mean_error
    two = laws.broken("flops", breaks=2)
    assert (
        len(two.parameters) == 9
        and torch.isfinite(
            two.log_predict(two.starts({"flops": tensor(*x)}, tensor(*loss)), {"flops": tensor(*x)})
        ).all()
    )


# --- verdicts -------------------------------------------------------------------------------------------------------------------


def test_too_few_decades_and_a_flat_basin_are_said() -> None:
    random = np.random.default_rng(0)
    params, tokens = 10 ** random.uniform(8, 8.3, 25), 10 ** random.uniform(10, 10.3, 25)
    loss = 1.8 + 400 / params**0.35 + 2000 / tokens**0.37
    table = Table({"params": params, "tokens": tokens, "loss": loss * np.exp(0.01 * random.standard_normal(25))})
    starts = laws.CHINCHILLA.starts({}, tensor())[::20]
    said = " ".join(fit(table, "chinchilla", draws=100, starts=starts).verdict)
    assert "decades of params" in said and "decades of tokens" in said
    assert "The basin is flat" in said or "degenerate" in said


def test_losses_that_do_not_fall_give_no_exponent() -> None:
    table = Table({"params": np.geomspace(1e6, 1e9, 12), "loss": np.geomspace(2.0, 3.0, 12)})
    found = fit(table, "kaplan", draws=0)
    assert any("degenerate" in reason for reason in found.verdict)


def test_a_law_of_one_input_has_no_best_split() -> None:
    found = fit(Table({"params": np.geomspace(1e6, 1e9, 9), "loss": np.geomspace(3, 2, 9)}), "kaplan-n", draws=0)
    assert isinstance(found, Fit)
    with pytest.raises(UserError, match="fit chinchilla for an optimum"):
        found.optimum(1e20)
    with pytest.raises(UserError, match="needs a positive params"):
        found.predict(tokens=3.0)
