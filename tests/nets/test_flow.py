"""The flow: against its formulas written out step by step, its Jacobian, its inverse, its start."""

import math

import pytest
import torch
import torch.nn.functional as F

from unlabeled.nets.flow import ActNorm, Coupling, Flow, InvertibleConv, squeeze, unsqueeze

KINDS = [{}, {"affine": False}, {"lu": True}]


def flow(size=8, channels=2, *, dtype=torch.float64, noise=0.1, **kind):
    """A small flow with random weights, none of them zero."""
    torch.manual_seed(0)
    net = Flow(channels, size, levels=2, depth=2, width=6, **kind).to(dtype)
    for p in net.parameters():
        p.data.add_(torch.randn_like(p) * noise)
    return net


def images(n=3, size=8, channels=2, dtype=torch.float64):
    return torch.rand(n, size, size, channels, generator=torch.Generator().manual_seed(1), dtype=dtype) - 0.5


def marked(x):
    """(n, c, h, w) with zeros around and a channel that is one there."""
    mark = torch.ones(len(x), 1, x.shape[2] + 2, x.shape[3] + 2, dtype=x.dtype)
    mark[:, :, 1:-1, 1:-1] = 0
    return torch.cat([F.pad(x, (1, 1, 1, 1)), mark], 1)


def zero_conv(x, conv, i):
    y = F.conv2d(marked(x), conv.weight[i], conv.bias[i])
    return y * torch.exp(3 * conv.log_gain[i])[:, None, None]


def normed(x, norm, i):
    return (x + norm.bias[i][:, None, None]) * torch.exp(3 * norm.log_scale[i])[:, None, None]


def gaussian(x, mean, log_std):
    terms = -0.5 * (math.log(2 * math.pi) + 2 * log_std + (x - mean) ** 2 / torch.exp(2 * log_std))
    return terms.sum((1, 2, 3))


def written_out(net, x):
    """log p(x) as the authors' code adds it up: one operation after the other, nothing folded, channels first."""
    z, log_p = x.permute(0, 3, 1, 2), torch.zeros(len(x), dtype=x.dtype)
    for level in net.levels:
        z = F.pixel_unshuffle(z, 2)
        c, positions = z.shape[1], z.shape[2] * z.shape[3]
        for i in range(level.depth):
            z = normed(z, level.norm, i)
            log_p = log_p + positions * (3 * level.norm.log_scale[i]).sum()
            w = level.mixing.matrices()[i]
            z = F.conv2d(z, w[:, :, None, None])
            log_p = log_p + positions * torch.log(torch.abs(torch.linalg.det(w)))
            z1, z2 = z[:, : c // 2], z[:, c // 2 :]
            h = F.relu(normed(F.conv2d(marked(z1), level.coupling.weight1[i]), level.coupling.norm1, i))
            h = F.relu(normed(F.conv2d(h, level.coupling.weight2[i]), level.coupling.norm2, i))
            h = zero_conv(h, level.coupling.last, i)
            if level.affine:
                scale = torch.sigmoid(h[:, 1::2] + 2.0)
                z2 = (z2 + h[:, 0::2]) * scale
                log_p = log_p + torch.log(scale).sum((1, 2, 3))
            else:
                z2 = z2 + h
            z = torch.cat([z1, z2], 1)
        if level.last:
            h = zero_conv(torch.zeros(len(z), 2 * c, *z.shape[2:], dtype=z.dtype), level.prior, 0)
            return log_p + gaussian(z, h[:, :c], h[:, c:])
        z, z2 = z[:, : c // 2], z[:, c // 2 :]
        h = zero_conv(z, level.prior, 0)
        log_p = log_p + gaussian(z2, h[:, 0::2], h[:, 1::2])
    return None


def log_p(net, x):
    latents, log_det = net(x)
    return log_det - 0.5 * (latents.square().sum(1) + latents.shape[1] * math.log(2 * math.pi))


@pytest.mark.parametrize("kind", KINDS)
def test_likelihood_and_gradients_are_those_of_the_formulas_one_by_one(kind):
    net, x = flow(**kind), images()
    expected = written_out(net, x)
    wanted = torch.autograd.grad(expected.sum(), list(net.parameters()))
    got = log_p(net, x)
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)
    for a, b in zip(torch.autograd.grad(got.sum(), list(net.parameters())), wanted):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("kind", KINDS)
def test_log_determinant_is_that_of_the_jacobian(kind):
    net, x = flow(size=4, channels=4, **kind), images(1, 4, 4)
    matrix = torch.autograd.functional.jacobian(lambda v: net(v.view(1, 4, 4, 4))[0][0], x.flatten())
    assert matrix.shape == (64, 64)
    torch.testing.assert_close(net(x)[1][0], torch.linalg.slogdet(matrix)[1], atol=1e-8, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
def test_inverse_gives_back_what_went_in(kind, dtype, limit):
    net, x = flow(dtype=dtype, **kind), images(dtype=dtype)
    assert float((net.invert(net(x)[0]) - x).abs().max().detach()) < limit


@pytest.mark.parametrize("kind", KINDS)
def test_latents_come_back_from_what_was_made_of_them(kind):
    # In float64: the rounding of x, which the flow spreads out, is multiplied on the way back.
    net = flow(**kind)
    latents = torch.randn(3, 128, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    assert float((net(net.invert(latents))[0] - latents).abs().max().detach()) < 1e-10


def test_density_integrates_to_one():
    """E[q / p] = 1 over samples of the model, for any narrower density q: prior, inverse and determinant together."""
    net = flow(size=4, channels=1)
    latents = torch.randn(20_000, 16, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    with torch.no_grad():
        x = net.invert(latents).flatten(1)
        centre, width = net.invert(torch.zeros(1, 16, dtype=torch.float64)).flatten(), 0.5 * x.std(0)
        log_q = torch.distributions.Normal(centre, width).log_prob(x).sum(1)
        ratio = torch.exp(log_q - log_p(net, x.view(-1, 4, 4, 1)))
    error = float(ratio.std()) / len(x) ** 0.5
    assert error < 0.15 and abs(float(ratio.mean()) - 1) < 4 * error


def test_squeeze_keeps_pixels_of_a_channel_together():
    x = torch.randn(2, 4, 6, 3)
    torch.testing.assert_close(squeeze(x).permute(0, 3, 1, 2), F.pixel_unshuffle(x.permute(0, 3, 1, 2), 2))
    assert torch.equal(unsqueeze(squeeze(x)), x)


def test_activation_norm_starts_from_its_batch():
    norm, x = ActNorm(3, 5), torch.randn(4, 2, 2, 5) * torch.arange(1.0, 6) + 7
    y = norm.fit(1, x).flatten(0, 2)
    torch.testing.assert_close(y.mean(0), torch.zeros(5), atol=1e-5, rtol=0)
    torch.testing.assert_close(y.std(0, correction=0), torch.ones(5), atol=1e-5, rtol=0)
    assert not norm.bias[0].any() and not norm.log_scale[2].any()


@pytest.mark.parametrize("lu", [False, True])
def test_mixings_start_as_rotations_and_know_their_determinant(lu):
    torch.manual_seed(0)
    mixing = InvertibleConv(4, 6, lu=lu).double()
    w = mixing.matrices()
    torch.testing.assert_close(w @ w.mT, torch.eye(6, dtype=w.dtype).expand(4, 6, 6), atol=1e-5, rtol=0)
    for p in mixing.parameters():
        p.data.add_(torch.randn_like(p) * 0.2)
    torch.testing.assert_close(mixing.log_det(), torch.linalg.slogdet(mixing.matrices())[1].sum())


def test_couplings_start_alike_for_all():
    folded = Coupling(1, 4, 8).folded(torch.zeros(1, 3, 3, 4), torch.float32)
    h = Coupling.net(torch.randn(2, 3, 3, 2), *folded[0])
    assert h.shape == (2, 3, 3, 4) and not h.any()
    torch.testing.assert_close(torch.sigmoid(h + 2), torch.full_like(h, 0.880797), atol=1e-6, rtol=0)


def test_fit_standardises_at_every_depth():
    net, x = flow(noise=0.0), images(64)
    net.fit(x)
    z = x
    for level in net.levels:
        z = squeeze(z)
        for i, step in enumerate(level.steps(z, z.dtype)):
            y = normed(z.permute(0, 3, 1, 2), level.norm, i)
            torch.testing.assert_close(y.mean((0, 2, 3)), torch.zeros(y.shape[1], dtype=y.dtype), atol=1e-5, rtol=0)
            torch.testing.assert_close(y.square().mean((0, 2, 3)), torch.ones_like(y[0, :, 0, 0]), atol=1e-4, rtol=0)
            mixed = F.conv2d(y, level.mixing.matrices()[i][:, :, None, None])
            h, net_norms = marked(mixed[:, : y.shape[1] // 2]), (level.coupling.norm1, level.coupling.norm2)
            for weight, norm in zip((level.coupling.weight1, level.coupling.weight2), net_norms):
                h = normed(F.conv2d(h, weight[i]), norm, i)
                torch.testing.assert_close(
                    h.square().mean((0, 2, 3)), torch.ones_like(h[0, :, 0, 0]), atol=1e-4, rtol=0
                )
                h = F.relu(h)
            z, _ = level._step(z, *step)
        z = z if level.last else z.chunk(2, 3)[0]


def test_recomputing_changes_no_number():
    one, other, x = flow(), flow(recompute=True), images()
    for net in (one, other):
        log_p(net, x).sum().backward()
    for a, b in zip(one.parameters(), other.parameters()):
        assert torch.equal(a.grad, b.grad)


def test_autocast_reaches_the_coupling_networks_only():
    net, x = flow(dtype=torch.float32), images(dtype=torch.float32)
    exact, latents = net(x)[1], net(x)[0]
    with torch.autocast("cpu", torch.bfloat16):
        rough, back = net(x)[1], net.invert(latents)
    assert rough.dtype == back.dtype == torch.float32
    assert not torch.equal(rough, exact)  # bfloat16 it was
    torch.testing.assert_close(rough, exact, rtol=0.02, atol=0.5)
    assert torch.equal(back, net.invert(latents))


def test_health_sees_a_mixing_that_is_nearly_singular():
    net, x = flow(dtype=torch.float32), images(dtype=torch.float32)
    before = net.health(x)
    assert before["inverse_error"] < 1e-5 and before["smallest_singular"] > 0.1 and 0 < before["smallest_scale"] < 1
    with torch.no_grad():
        net.levels[0].mixing.weight[0, 0] = net.levels[0].mixing.weight[0, 1] * (1 + 1e-6)
    after = net.health(x)
    assert after["smallest_singular"] < 1e-3 and after["inverse_error"] > 100 * before["inverse_error"]
