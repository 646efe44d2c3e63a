import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from tests.parallel.processes import on_processes
from unlabeled.objectives.contrast import nt_xent
from unlabeled.parallel.world import rank


def golden(n: int = 4, d: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    m = torch.arange(n * d, dtype=torch.float64)
    a = torch.sin(m**2).view(n, d)
    return a, a + 0.3 * torch.cos(m**2 + m).view(n, d)


@pytest.mark.parametrize("temperature, value", [(0.1, 0.0038947432), (0.5, 0.7258114930)])
def test_golden_values(temperature, value):
    assert nt_xent(*golden(), temperature)[0].item() == pytest.approx(value, abs=1e-9)


def test_a_constant_batch_gives_the_logarithm_of_the_candidates():
    z = torch.ones(4, 8, dtype=torch.float64)
    assert nt_xent(z, z, 0.5)[0].item() == pytest.approx(math.log(7), abs=1e-12)


def test_it_is_equation_1_term_by_term():
    torch.manual_seed(0)
    a, b = torch.randn(2, 5, 3, dtype=torch.float64).requires_grad_()
    u = F.normalize(torch.cat([a, b]), dim=1)
    terms = []
    for i in range(10):
        j = (i + 5) % 10
        others = [k for k in range(10) if k != i]
        top = torch.exp(u[i] @ u[j] / 0.3)
        terms.append(-torch.log(top / sum(torch.exp(u[i] @ u[k] / 0.3) for k in others)))
    ours, theirs = nt_xent(a, b, 0.3)[0], torch.stack(terms).mean()
    torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=0)
    # Gradient flows through the candidates too, not through the rows alone.
    for mine, other in zip(torch.autograd.grad(ours, (a, b)), torch.autograd.grad(theirs, (a, b), retain_graph=True)):
        torch.testing.assert_close(mine, other, atol=1e-12, rtol=0)


def test_the_order_of_images_and_of_views_does_not_matter():
    a, b = golden()
    order = torch.tensor([2, 0, 3, 1])
    loss, accuracy = nt_xent(a, b, 0.5)
    assert nt_xent(a[order], b[order], 0.5)[0].item() == pytest.approx(loss.item(), abs=1e-12)
    assert nt_xent(b, a, 0.5)[0].item() == pytest.approx(loss.item(), abs=1e-12)
    assert 0 <= accuracy <= 1 and nt_xent(a, a, 0.1)[1] == 1


def _half(folder: Path) -> None:
    a, b = (z[rank() * 2 : rank() * 2 + 2].requires_grad_() for z in golden())
    loss, _ = nt_xent(a, b, 0.5)
    loss.backward()  # the engine weights each process's mean by its share: here a half
    torch.save({"loss": loss.detach() / 2, "a": a.grad / 2, "b": b.grad / 2}, folder / f"{rank()}.pt")


def test_two_processes_give_the_loss_and_the_gradient_of_one(tmp_path):
    on_processes(2, _half, tmp_path)
    parts = [torch.load(tmp_path / f"{r}.pt", weights_only=True) for r in (0, 1)]
    a, b = (z.requires_grad_() for z in golden())
    loss, _ = nt_xent(a, b, 0.5)
    loss.backward()
    assert sum(p["loss"] for p in parts).item() == pytest.approx(loss.item(), abs=1e-9)
    for name, tensor in (("a", a), ("b", b)):
        torch.testing.assert_close(torch.cat([p[name] for p in parts]), tensor.grad, atol=1e-9, rtol=0)
