"""Spectral normalisation against the singular values, against torch's, and under everything a run does to a layer."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from unlabeled.nets.spectral import SpectralConv2d, SpectralLinear, iterate


def layers():
    torch.manual_seed(0)
    return SpectralConv2d(3, 6, 4, 2, 1), SpectralLinear(7, 5)


@pytest.mark.parametrize("index", [0, 1])
def test_it_divides_by_the_largest_singular_value(index):
    layer = layers()[index]
    layer.iterate(200)
    largest = torch.linalg.svdvals(layer.weight.detach().flatten(1))[0]
    torch.testing.assert_close(layer.normalised(), layer.weight / largest, atol=1e-5, rtol=1e-4)
    top = torch.linalg.svdvals(layer.normalised().detach().flatten(1))[0]
    assert top.item() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("index", [0, 1])
def test_it_is_that_of_torch_given_the_same_vectors(index):
    ours = layers()[index]
    plain = nn.Conv2d(3, 6, 4, 2, 1) if index == 0 else nn.Linear(7, 5)
    plain.load_state_dict({k: v for k, v in ours.state_dict().items() if k in ("weight", "bias")})
    theirs = spectral_norm(plain)
    hidden = theirs.parametrizations.weight[0]
    hidden._u.copy_(ours.u), hidden._v.copy_(ours.v)
    x = torch.randn(4, 3, 8, 8) if index == 0 else torch.randn(4, 7)
    for _ in range(3):  # torch moves the vectors before it uses them, in training
        ours.iterate()
        a, b = ours(x), theirs.train()(x)
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(ours.u, hidden._u, atol=1e-6, rtol=1e-5)
        a.square().sum().backward(), b.square().sum().backward()
        torch.testing.assert_close(ours.weight.grad, theirs.parametrizations.weight.original.grad, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(ours(x), theirs.eval()(x), atol=1e-6, rtol=1e-5)


def test_forward_leaves_the_vectors_alone_and_iterate_finds_every_layer():
    conv, linear = layers()
    network = nn.Sequential(conv, nn.Flatten(), nn.Linear(6 * 16, 7), linear).train()
    before = copy.deepcopy(network.state_dict())
    network(torch.randn(2, 3, 8, 8)).sum().backward()
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    with torch.no_grad():
        for p in network.parameters():
            p.copy_(torch.randn_like(p))
    iterate(network)
    moved = {k for k, v in network.state_dict().items() if k.endswith(("u", "v")) and not torch.equal(v, before[k])}
    assert moved == {"0.u", "0.v", "3.u", "3.v"}


def test_the_scale_of_a_weight_does_not_matter_and_its_gradient_is_orthogonal_to_it():
    _, layer = layers()
    x = torch.randn(4, 7)
    y = layer(x) - layer.bias
    y.sum().backward()
    # W / s(W) is the same for c W, so the directional derivative along W is zero.
    assert (layer.weight.grad * layer.weight).sum().abs().item() < 1e-5
    with torch.no_grad():
        layer.weight.mul_(10)
        torch.testing.assert_close(layer(x) - layer.bias, y)


def test_under_autocast_the_singular_value_stays_float32():
    conv, _ = layers()
    exact = conv.normalised()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(conv.normalised(), exact)
        assert conv(torch.randn(1, 3, 8, 8)).dtype == torch.bfloat16


def test_it_can_be_built_without_memory():
    with torch.device("meta"):
        assert SpectralConv2d(3, 6, 4).u.shape == (6,)
