"""The U-Net against diffusers' class with the same weights, official counts, and what holds before training."""

import pytest
import torch
import torch.nn.functional as F

from unlabeled.core.errors import UserError
from unlabeled.nets.unet import UNet, _Up, sinusoid


def peer(ch=16, mult=(1, 2), blocks=2, attention=(1,), channels=1, groups=4, size=8):
    """diffusers' UNet2DModel of the DDPM lineage."""
    from diffusers import UNet2DModel

    kinds = ["Attn" if i in attention else "" for i in range(len(mult))]
    return UNet2DModel(
        sample_size=size,
        in_channels=channels,
        out_channels=channels,
        layers_per_block=blocks,
        block_out_channels=tuple(ch * m for m in mult),
        down_block_types=tuple(f"{k}DownBlock2D" for k in kinds),
        up_block_types=tuple(f"{k}UpBlock2D" for k in reversed(kinds)),
        downsample_padding=0,
        flip_sin_to_cos=False,
        freq_shift=1,
        norm_eps=1e-6,
        attention_head_dim=None,
        norm_num_groups=groups,
    )


def small(**changes):
    return UNet(
        1, 1, **{"ch": 16, "mult": (1, 2), "blocks": 2, "attention": (1,), "dropout": 0.0, "groups": 4} | changes
    )


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("mult", "attention", "blocks"), [((1, 2), (1,), 2), ((1, 2, 2), (0, 2), 1), ((1,), (), 1)])
def test_outputs_and_gradients_are_those_of_diffusers(mult, attention, blocks, channels):
    torch.manual_seed(0)
    theirs = peer(mult=mult, attention=attention, blocks=blocks, channels=channels)
    ours = UNet(channels, channels, ch=16, mult=mult, blocks=blocks, attention=attention, dropout=0.0, groups=4)
    ours.load_state_dict(theirs.state_dict())  # the same names, all of them
    x, t = torch.randn(3, channels, 8, 8, requires_grad=True), torch.tensor([0, 17, 999])
    weight = torch.randn(3, channels, 8, 8)
    results = []
    for out in (ours(x, t), theirs(x, t).sample):
        (gradient,) = torch.autograd.grad((out * weight).sum(), x, retain_graph=True)
        (out * weight).sum().backward()
        results.append((out, gradient))
    torch.testing.assert_close(results[0][0], results[1][0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(results[0][1], results[1][1], atol=1e-5, rtol=1e-4)
    for (name, a), (_, b) in zip(ours.named_parameters(), sorted_like(theirs, ours)):
        torch.testing.assert_close(a.grad, b.grad, atol=1e-5 * max(1.0, float(b.grad.abs().max())), rtol=1e-4, msg=name)


def sorted_like(module, other):
    """Parameters of one module in the order of another's names."""
    named = dict(module.named_parameters())
    return [(n, named[n]) for n, _ in other.named_parameters()]


def test_the_count_is_the_official_one():
    with torch.device("meta"):
        net = UNet()
    assert sum(p.numel() for p in net.parameters()) == 35_746_307


def test_an_untrained_network_says_exactly_zero():
    torch.manual_seed(0)
    out = small()(torch.randn(2, 1, 8, 8), torch.tensor([5, 800]))
    assert torch.equal(out, torch.zeros(2, 1, 8, 8))


def test_initial_weights_are_xavier_uniform():
    """Bound sqrt(6 / (fan in + fan out)), fans counted with the kernel's 9 taps; biases zero."""
    torch.manual_seed(0)
    net = small(ch=32, groups=8)
    for layer, fans in ((net.mid_block.resnets[0].conv1, 9 * 128), (net.time_embedding.linear_2, 256)):
        bound = (6 / fans) ** 0.5
        assert 0.98 * bound < float(layer.weight.detach().abs().max()) <= bound
        assert not layer.bias.any()


def stirred(net):
    """The network with its zero layers drawn too, so that everything below them is seen."""
    for p in net.parameters():
        if p.ndim > 1 and not p.any():
            torch.nn.init.xavier_uniform_(p)
    return net


def test_time_reaches_every_block():
    torch.manual_seed(0)
    net = stirred(small())
    t = torch.tensor([10.0, 500.0], requires_grad=True)
    net(torch.randn(2, 1, 8, 8), t).square().sum().backward()
    for name, p in net.named_parameters():
        if "time" in name:
            assert float(p.grad.abs().max()) > 1e-4, name


def test_examples_do_not_see_each_other():
    torch.manual_seed(0)
    net, x, t = stirred(small()), torch.randn(3, 1, 8, 8), torch.tensor([3, 500, 900])
    torch.testing.assert_close(net(x, t)[1:2], net(x[1:2], t[1:2]), atol=1e-5, rtol=1e-5)


def test_up_is_copying_pixels_and_a_convolution():
    torch.manual_seed(0)
    up, x = _Up(4).double(), torch.randn(2, 4, 5, 7, dtype=torch.float64)
    torch.testing.assert_close(up(x), up.conv(F.interpolate(x, scale_factor=2.0, mode="nearest")))


def test_sinusoid_has_sines_first_and_ends_at_one_ten_thousandth():
    table = sinusoid(torch.tensor([0, 3]), 6)
    expected = torch.tensor([3.0, 3e-2, 3e-4])
    torch.testing.assert_close(table[0], torch.tensor([0.0, 0, 0, 1, 1, 1]))
    torch.testing.assert_close(table[1], torch.cat([expected.sin(), expected.cos()]))


def test_dropout_acts_in_training_only():
    torch.manual_seed(0)
    net, x, t = stirred(small(dropout=0.5)), torch.randn(1, 1, 8, 8), torch.tensor([5])
    assert not torch.equal(net(x, t), net(x, t))
    net.eval()
    assert torch.equal(net(x, t), net(x, t))


def test_bf16_stays_near_float32():
    torch.manual_seed(0)
    net, x, t = stirred(small()), torch.randn(4, 1, 8, 8), torch.tensor([0, 5, 100, 999])
    whole = net(x, t)
    with torch.autocast("cpu", torch.bfloat16):
        half = net(x, t)
    assert half.dtype == torch.bfloat16
    assert (half - whole).norm() < 0.03 * whole.norm()


@pytest.mark.parametrize("groups", [16, 5])
def test_groups_that_cancel_the_time_or_do_not_divide_are_refused(groups):
    with pytest.raises(UserError, match="--groups"):
        small(groups=groups)
