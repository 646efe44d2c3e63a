import pytest
import torch

from unlabeled.engine.optimise import LARS


def test_lars_takes_the_golden_step():
    w = torch.nn.Parameter(torch.arange(1.0, 7.0, dtype=torch.float64))
    w.grad = 0.1 * torch.cos(w.detach())
    decayed = w.grad + 1e-4 * w.detach()
    assert 1e-3 * w.detach().norm() / decayed.norm() == pytest.approx(0.0562355491, abs=1e-9)
    LARS([w], lr=1.0, weight_decay=1e-4).step()
    assert w.detach()[0].item() == pytest.approx(0.9969559568, abs=1e-9)


def test_lars_without_adaptation_is_sgd_with_momentum():
    torch.manual_seed(0)
    a = torch.nn.Parameter(torch.randn(5))
    b = torch.nn.Parameter(a.detach().clone())
    ours = LARS([{"params": [a], "adapt": False}], lr=0.1)
    theirs = torch.optim.SGD([b], lr=0.1, momentum=0.9)
    for _ in range(4):
        a.grad, b.grad = a.detach().cos(), b.detach().cos()
        ours.step()
        theirs.step()
    torch.testing.assert_close(a, b)


def test_lars_takes_a_plain_step_where_a_norm_is_zero():
    w = torch.nn.Parameter(torch.zeros(3))
    w.grad = torch.ones(3)
    LARS([w], lr=0.5).step()
    torch.testing.assert_close(w.detach(), torch.full((3,), -0.5))
