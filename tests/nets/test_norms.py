from pathlib import Path

import pytest
import torch

from tests.parallel.processes import on_processes
from unlabeled.nets.norms import BatchNorm
from unlabeled.parallel.world import rank


def case(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(seed)
    return torch.randn(8, 3, 4, 4) * 2 + 1, torch.randn(8, 3, 4, 4)


@pytest.mark.parametrize("shape", [(8, 3), (8, 3, 4, 4)])
def test_it_is_the_normalisation_of_torch(shape):
    torch.manual_seed(0)
    x = torch.randn(shape)
    ours, theirs = BatchNorm(3), (torch.nn.BatchNorm1d(3) if len(shape) == 2 else torch.nn.BatchNorm2d(3))
    for _ in range(3):
        torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(ours.running_var, theirs.running_var)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))


def test_scale_without_shift_and_neither():
    x, _ = case()
    assert BatchNorm(3, shift=False)(x).mean().abs() < 1e-6
    assert not list(BatchNorm(3, scale=False, shift=False).parameters())
    torch.testing.assert_close(BatchNorm(3, scale=False, shift=False)(x), BatchNorm(3)(x))


def test_statistics_are_float32_under_autocast_and_the_layout_stays():
    x, _ = case()
    rounded = (x + 20).bfloat16().to(memory_format=torch.channels_last)  # far from 0, where bfloat16 sums would drift
    norm, exact = BatchNorm(3), BatchNorm(3)
    with torch.autocast("cpu", torch.bfloat16):
        y = norm(rounded)
    torch.testing.assert_close(y.float(), exact(rounded.float()), atol=2e-2, rtol=0)  # bfloat16 has 8 bits
    assert y.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(norm.running_mean, exact.running_mean, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(norm.running_var, exact.running_var, atol=1e-5, rtol=1e-5)


def _half(folder: Path) -> None:
    x, g = case()
    mine = slice(rank() * 4, rank() * 4 + 4)
    norm, x = BatchNorm(3), x[mine].requires_grad_()
    torch.nn.init.constant_(norm.weight, 1.5)
    y = norm(x)
    y.backward(g[mine])
    said = {"y": y.detach(), "x": x.grad, "weight": norm.weight.grad, "bias": norm.bias.grad}
    torch.save(said | {"mean": norm.running_mean, "var": norm.running_var}, folder / f"{rank()}.pt")


def test_two_processes_normalise_by_the_statistics_of_both(tmp_path):
    on_processes(2, _half, tmp_path)
    parts = [torch.load(tmp_path / f"{r}.pt", weights_only=True) for r in (0, 1)]
    x, g = case()
    norm, x = BatchNorm(3), x.requires_grad_()
    torch.nn.init.constant_(norm.weight, 1.5)
    y = norm(x)
    y.backward(g)
    close = {"atol": 1e-5, "rtol": 1e-5}
    torch.testing.assert_close(torch.cat([p["y"] for p in parts]), y.detach(), **close)
    torch.testing.assert_close(torch.cat([p["x"] for p in parts]), x.grad, **close)
    torch.testing.assert_close(sum(p["weight"] for p in parts), norm.weight.grad, **close)
    torch.testing.assert_close(sum(p["bias"] for p in parts), norm.bias.grad, **close)
    for p in parts:
        torch.testing.assert_close(p["mean"], norm.running_mean, **close)
        torch.testing.assert_close(p["var"], norm.running_var, **close)
