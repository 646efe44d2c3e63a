"""Many minimisations at once end where one of each would."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from unlabeled.scale.minimise import by_autograd, minimise
from unlabeled.scale.objective import by_formula, huber, of_function, whitening


def rosenbrock(x: Tensor, rows: Tensor) -> Tensor:
    return (1 - x[:, 0]).square() + 100 * (x[:, 1] - x[:, 0].square()).square()


def test_every_start_reaches_the_minimum_of_a_curved_valley() -> None:
    torch.manual_seed(0)
    starts = torch.rand(300, 2, dtype=torch.float64) * 4 - 2
    found = minimise(by_autograd(rosenbrock), starts, points=500)  # a batch of 65: rows leave and others join
    assert found.converged.all()
    assert torch.allclose(found.points, torch.ones(300, 2, dtype=torch.float64), atol=1e-6)


def test_rows_keep_their_place() -> None:
    aims = torch.arange(200, dtype=torch.float64)[:, None] * torch.tensor([1.0, -1.0], dtype=torch.float64)

    def bowl(x: Tensor, rows: Tensor) -> Tensor:
        return (x - aims[rows]).square().sum(1) * (1 + rows.double())

    found = minimise(by_autograd(bowl), torch.zeros(200, 2, dtype=torch.float64), points=2000)
    assert torch.allclose(found.points, aims, atol=1e-6)


def test_a_start_where_the_function_is_not_finite_is_left_as_it_is() -> None:
    def log(x: Tensor, rows: Tensor) -> Tensor:
        return (x[:, 0].log() - 1).square()

    found = minimise(by_autograd(log), torch.tensor([[-1.0], [1.0], [5.0]]))
    assert found.values[0] == torch.inf and not found.converged[0]
    assert torch.allclose(found.points[1:], torch.full((2, 1), torch.e, dtype=torch.float64))
    assert found.best in (1, 2)


def test_no_start_may_be_finite() -> None:
    found = minimise(by_autograd(lambda x, rows: x[:, 0] * torch.nan), torch.ones(3, 1))
    assert (found.values == torch.inf).all()


def test_threads_are_as_before() -> None:
    before = torch.get_num_threads()
    minimise(by_autograd(rosenbrock), torch.zeros(3, 2))
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("misfit", ["huber", "log-squares", "squares"])
@pytest.mark.parametrize("power", [None, 3])
@pytest.mark.parametrize("weighted", [False, True])
def test_gradients_by_formula_are_those_of_autograd(misfit: str, power: int | None, weighted: bool) -> None:
    torch.manual_seed(1)
    size = 3 if power is None else 4
    terms = [torch.randn(20, size, dtype=torch.float64), torch.ones(20, size, dtype=torch.float64) * 0.3]
    if power is not None:
        for term in terms:
            term[:, power] = 0
    offsets = [torch.randn(20, dtype=torch.float64), None]
    target = torch.rand(20, dtype=torch.float64) + 0.5
    weights = torch.randint(0, 3, (5, 20)).double() if weighted else None
    x = torch.rand(5, size, dtype=torch.float64) + 0.1

    def log_law(theta: Tensor) -> Tensor:
        log = torch.logsumexp(torch.stack([theta @ terms[0].T + offsets[0], theta @ terms[1].T]), 0)
        return log if power is None else log * theta[:, power, None]

    rows = torch.arange(5)
    settings = {"misfit": misfit, "delta": 0.3, "weights": weights}
    ours = by_formula(terms, target, power=power, offsets=offsets, **settings)(x, rows)
    theirs = of_function(log_law, target, **settings)(x, rows)
    assert torch.allclose(ours[0], theirs[0], rtol=1e-12)
    assert torch.allclose(ours[1], theirs[1], rtol=1e-10, atol=1e-12)


def test_huber_is_torchs() -> None:
    r = torch.linspace(-3, 3, 41, dtype=torch.float64)
    theirs = torch.nn.functional.huber_loss(r, torch.zeros_like(r), reduction="none", delta=0.7)
    assert torch.allclose(huber(r, 0.7), theirs)


def test_whitened_features_are_uncorrelated() -> None:
    x = torch.linspace(20, 25, 50, dtype=torch.float64)
    term = torch.stack([torch.ones_like(x), -x], 1)
    made = term @ whitening([term])
    assert torch.allclose(made.T @ made / 50, torch.eye(2, dtype=torch.float64), atol=1e-6)
