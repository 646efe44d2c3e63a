"""The networks of GANs: published sizes, the usual modules number by number, gradients by the image, statistics."""

import pytest
import torch
from torch import nn

from unlabeled.nets.dcgan import Critic, Discriminator, Generator, levels_of, settle
from unlabeled.nets.maxout import FlatGenerator, MaxoutDiscriminator
from unlabeled.nets.norms import BatchNorm


def count(network):
    return sum(p.numel() for p in network.parameters())


def test_published_sizes():
    with torch.device("meta"):
        # pytorch/examples, dcgan: 64 pixels, 64 channels.
        assert count(Generator(100, 3, 64, 64)) == 3_576_704
        assert count(Discriminator(3, 64, 64)) == 2_765_568
        # goodfeli/adversarial, mnist.yaml.
        assert count(FlatGenerator(100, 1, 28)) == 2_503_984
        assert count(MaxoutDiscriminator(1, 28)) == 1_231_441


@pytest.mark.parametrize("size, levels, side", [(64, 4, 4), (32, 3, 4), (28, 2, 7), (16, 2, 4), (8, 1, 4), (5, 1, 4)])
def test_how_often_a_size_is_halved(size, levels, side):
    assert levels_of(size) == (levels, side)


@pytest.mark.parametrize("size", range(4, 131))
def test_a_size_is_rounded_up_a_little_and_then_stays(size):
    levels, side = levels_of(size)
    rounded = side * 2**levels
    assert max(8, size) <= rounded <= max(8, 1.25 * size + 1) and levels_of(rounded) == (levels, side)
    assert Generator(2, 1, rounded, 1)(torch.randn(2, 2)).shape == (2, 1, rounded, rounded)
    assert Discriminator(1, rounded, 1)(torch.randn(2, 1, rounded, rounded)).shape == (2,)


def usual(width=4, latent=10):
    """DCGAN for 32 pixels as it is written everywhere."""
    w, up, down = width, nn.ConvTranspose2d, nn.Conv2d
    generator = nn.Sequential(
        *(up(latent, 4 * w, 4, 1, 0, bias=False), nn.BatchNorm2d(4 * w), nn.ReLU(True)),
        *(up(4 * w, 2 * w, 4, 2, 1, bias=False), nn.BatchNorm2d(2 * w), nn.ReLU(True)),
        *(up(2 * w, w, 4, 2, 1, bias=False), nn.BatchNorm2d(w), nn.ReLU(True)),
        *(up(w, 3, 4, 2, 1, bias=False), nn.Tanh()),
    )
    discriminator = nn.Sequential(
        *(down(3, w, 4, 2, 1, bias=False), nn.LeakyReLU(0.2, True)),
        *(down(w, 2 * w, 4, 2, 1, bias=False), nn.BatchNorm2d(2 * w), nn.LeakyReLU(0.2, True)),
        *(down(2 * w, 4 * w, 4, 2, 1, bias=False), nn.BatchNorm2d(4 * w), nn.LeakyReLU(0.2, True)),
        down(4 * w, 1, 4, 1, 0, bias=False),
    )
    return generator, discriminator


def test_they_are_the_usual_modules():
    torch.manual_seed(0)
    theirs = usual()
    ours = Generator(10, 3, 32, 4), Discriminator(3, 32, 4, "batch")
    with torch.no_grad():
        for mine, other in zip(ours, theirs):
            for a, b in zip(mine.parameters(), other.parameters()):
                if a.ndim == 2 and mine is ours[0]:  # (latent, channel, h, w) there, (h w channel, latent) here
                    a.copy_(b.permute(2, 3, 1, 0).flatten(0, 2))
                elif a.ndim == 2:  # (1, channel, h, w) there, (1, h w channel) here
                    a.copy_(b.permute(0, 2, 3, 1).flatten(1))
                else:
                    a.copy_(b)
    z = torch.randn(6, 10)
    fake, same = ours[0](z), theirs[0](z[:, :, None, None])
    torch.testing.assert_close(fake, same, atol=1e-5, rtol=1e-5)
    a, b = ours[1](fake), theirs[1](same).flatten()
    torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
    a.sum().backward(), b.sum().backward()
    for i in (0, 1):  # the layer behind the noise and the one that sees the image lie deepest
        mine, other = next(ours[i].parameters()).grad, next(theirs[i].parameters()).grad
        other = other.permute(2, 3, 1, 0).flatten(0, 2) if i == 0 else other
        torch.testing.assert_close(mine, other, atol=1e-4, rtol=1e-4)


def test_maxout_takes_the_largest_of_its_pieces_and_is_dropped_out_in_training_only():
    torch.manual_seed(0)
    net = MaxoutDiscriminator(1, 8, units=6, pieces=3)
    x = torch.rand(4, 1, 8, 8)
    h = x.flatten(1)
    for layer in (net.first, net.second):
        rows = layer.weight.view(6, 3, -1), layer.bias.view(6, 3)
        h = torch.stack([h @ rows[0][:, p].T + rows[1][:, p] for p in range(3)]).max(0).values
    torch.testing.assert_close(net.eval()(x), net.logit(h)[:, 0])
    assert not torch.allclose(net.train()(x), net(x))


def test_the_flat_generator_starts_at_the_mean_of_the_pixels():
    torch.manual_seed(0)
    net = FlatGenerator(5, 1, 8, (16, 16))
    images = (torch.rand(1000, 1, 8, 8) < torch.linspace(0, 1, 64).view(1, 8, 8)).float()
    net.start_at(images)
    with torch.no_grad():
        net.layers[-1].weight.zero_()
    torch.testing.assert_close(net(torch.randn(1, 5))[0], images.mean(0), atol=1e-3, rtol=0)


class Quadratic(Critic):
    """s(x) = |x|^2 / 2, whose gradient by x is x."""

    def forward(self, x):
        return x.square().flatten(1).sum(1) / 2


def test_steepness_of_a_known_function():
    x = torch.randn(5, 2, 3, 3)
    logits, squares = Quadratic().steepness(x)
    torch.testing.assert_close(squares, x.square().flatten(1).sum(1))
    torch.testing.assert_close(logits, squares / 2)


@pytest.mark.parametrize("norm", ["none", "spectral"])
def test_steepness_is_the_slope_by_finite_differences_and_can_be_differentiated(norm):
    torch.manual_seed(0)
    net = Discriminator(1, 8, 4, norm).double()
    x = torch.randn(3, 1, 8, 8, dtype=torch.float64)
    logits, squares = net.steepness(x)
    torch.testing.assert_close(logits, net(x))
    step, by_hand = 1e-4, torch.zeros(3, dtype=torch.float64)
    nudges = torch.eye(64, dtype=torch.float64).view(64, 1, 8, 8) * step
    with torch.no_grad():
        for i in range(3):
            by_hand[i] = ((net_double(net, x[i] + nudges) - net_double(net, x[i] - nudges)) / (2 * step)).square().sum()
    torch.testing.assert_close(squares.double(), by_hand, atol=1e-6, rtol=1e-4)
    squares.sum().backward()
    weight = net.layers[0].weight
    got, at = weight.grad[0, 0, 1, 1].item(), weight.data
    values = []
    for sign in (1, -1):
        at[0, 0, 1, 1] += sign * step
        values.append(net.steepness(x)[1].double().sum().item())
        at[0, 0, 1, 1] -= sign * step
    assert got == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-2, abs=1e-6)


def net_double(net, x):
    """Logits without the rounding to float32 at the end."""
    h = net.layers(x.contiguous(memory_format=torch.channels_last))
    return net.logit(h.permute(0, 2, 3, 1).flatten(1))[:, 0]


@pytest.mark.parametrize("norm", ["none", "spectral"])
def test_the_gradient_of_steepness_works_under_autocast(norm):
    torch.manual_seed(0)
    net = Discriminator(1, 16, 8, norm)
    nn.init.normal_(net.logit.weight)
    x = torch.randn(64, 1, 16, 16)
    slopes = []
    for half in (False, True):
        net.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            _, squares = net.steepness(x)
        squares.mean().backward()
        slopes.append([squares.detach(), *(p.grad.clone() for p in net.parameters() if p.ndim > 1)])
    for exact, rounded in zip(*slopes):  # bfloat16 has 8 bits
        assert (exact - rounded).norm() < 0.05 * exact.norm() and exact.norm() > 0


def test_batch_norm_mixes_images_and_the_others_do_not():
    torch.manual_seed(0)
    x = torch.randn(6, 1, 16, 16)
    for norm in ("none", "spectral", "batch"):
        net = Discriminator(1, 16, 4, norm).train()
        alone, together = net(x[:3]), net(x)[:3]
        assert torch.allclose(alone, together, atol=1e-6) is not net.mixes


def test_settling_gives_evaluation_the_statistics_of_the_given_noise():
    torch.manual_seed(0)
    net, z = Generator(4, 1, 16, 4), torch.randn(64, 4)
    in_training = net.train()(z)
    momenta = [m.momentum for m in net.modules() if isinstance(m, BatchNorm)]
    net.eval()
    assert not torch.allclose(net(z), in_training, atol=1e-3)
    settle(net, z)
    torch.testing.assert_close(net(z), in_training, atol=1e-3, rtol=1e-3)  # the variance is the unbiased one
    norms = [m for m in net.modules() if isinstance(m, BatchNorm)]
    assert [m.momentum for m in norms] == momenta and not any(m.training for m in norms)
