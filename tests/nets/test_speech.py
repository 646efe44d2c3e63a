import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from unlabeled.nets.speech import ConvFeatures, ConvPosition, SpeechEncoder

KERNELS, STRIDES = (10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2)


def convs(norm="group", bias=False, width=8):
    torch.manual_seed(0)
    net = ConvFeatures((width,) * 7, KERNELS, STRIDES, norm=norm, bias=bias)
    with torch.no_grad():
        for p in net.norms.parameters():
            p.add_(0.3 * torch.randn(p.shape))
    return net


def encoder(norm_first=False, norm="group", **options):
    shape = {"width": 16, "layers": 3, "heads": 2, "inner": 32, "position_kernel": 8, "position_groups": 4}
    return SpeechEncoder(convs(norm), norm_first=norm_first, **shape | options)


def plain(net, wave):
    """The same network from torch's own layers, in their usual order."""
    x = wave[:, None]
    for i, conv in enumerate(net.convs):
        x = F.conv1d(x, conv.weight, conv.bias, conv.stride)
        if net.norm == "layer":
            x = F.layer_norm(x.transpose(1, 2), x.shape[1:2], net.norms[i].weight, net.norms[i].bias).transpose(1, 2)
        elif i == 0:
            x = F.group_norm(x, x.shape[1], net.norms[0].weight, net.norms[0].bias)
        x = F.gelu(x)
    return x.transpose(1, 2)


@pytest.mark.parametrize(("norm", "bias"), [("group", False), ("group", True), ("layer", False), ("layer", True)])
def test_features_and_gradients_are_those_of_plain_layers(norm, bias):
    net, wave = convs(norm, bias), 0.1 * torch.randn(3, 4000) + 0.05
    weights = [p for n, p in net.named_parameters() if not (norm == "group" and n == "convs.0.bias")]
    seen = torch.randn(3, net.frames(4000), 8)
    results = []
    for forward in (net, lambda w: plain(net, w)):
        out = forward(wave)
        results.append((out, torch.autograd.grad((out * seen).sum(), weights)))
    (ours, our_grads), (theirs, their_grads) = results
    assert ours.shape == (3, 12, 8)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    for a, b in zip(our_grads, their_grads):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_a_loud_low_tone_does_not_spoil_the_statistics_of_high_pass_channels():
    net = convs().double()
    with torch.no_grad():
        net.convs[0].weight[0, 0] = torch.tensor([1.0, -1.0] * 5)  # blind to slow waves
    time = torch.arange(8000, dtype=torch.float64)
    wave = (torch.sin(time / 400) + 1e-4 * torch.randn(8000, dtype=torch.float64))[None]
    exact = plain(net, wave)
    torch.testing.assert_close(net.float()(wave.float()).double(), exact, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("norm", ["group", "layer"])
def test_the_end_of_a_padded_sound_changes_no_real_frame(norm):
    net = convs(norm)
    wave, lengths = torch.randn(3, 5000), torch.tensor([5000, 1200, 3333])
    together = net(wave, lengths)
    for row, length in enumerate(lengths.tolist()):
        alone = net(wave[row : row + 1, :length])
        torch.testing.assert_close(together[row, : alone.shape[1]], alone[0], rtol=1e-4, atol=1e-5)


def test_the_published_feature_encoder_has_its_size_and_start():
    torch.manual_seed(0)
    net = ConvFeatures((512,) * 7, KERNELS, STRIDES)
    assert sum(p.numel() for p in net.parameters()) == 4_200_448
    for conv in net.convs:
        fan_in = conv.weight[0].numel()
        assert conv.weight.std().item() == pytest.approx(math.sqrt(2 / fan_in), rel=0.05)
    assert net.receptive_field == 400 and net.frames(399) == 0


def test_the_positional_convolution_is_torchs_with_weight_norm():
    torch.manual_seed(0)
    ours = ConvPosition(16, 8, 4)
    with torch.no_grad():
        ours.gain.mul_(1 + torch.rand_like(ours.gain))
        ours.bias.add_(torch.randn(16))
    theirs = nn.utils.parametrizations.weight_norm(nn.Conv1d(16, 16, 8, padding=4, groups=4), dim=2)
    theirs.parametrizations.weight.original0.data.copy_(ours.gain)
    theirs.parametrizations.weight.original1.data.copy_(ours.direction)
    theirs.bias.data.copy_(ours.bias)
    x = torch.randn(2, 20, 16)
    wanted = x + F.gelu(theirs(x.transpose(1, 2))[:, :, :-1]).transpose(1, 2)
    torch.testing.assert_close(ours(x), wanted)
    odd = ConvPosition(16, 7, 4)
    assert odd(x).shape == x.shape
    base = ConvPosition(768, 128, 16)
    assert sum(p.numel() for p in base.parameters()) == 4_719_488
    assert base.direction.std().item() == pytest.approx(0.00638, rel=0.01) and not base.bias.any()


@pytest.mark.parametrize("norm_first", [False, True])
def test_masked_frames_do_not_show_what_stood_there(norm_first):
    net = encoder(norm_first).eval()
    wave, lengths = torch.randn(1, 8000), torch.tensor([8000])
    mask = torch.zeros(1, 24, dtype=torch.bool)
    mask[:, 5:12] = True
    other = wave.clone()
    # Samples that only masked frames see: frame f sees 320 f to 320 f + 400. The norm over time, which sees all, is off.
    net.convs.norm = "none"
    other[:, 5 * 320 + 80 : 12 * 320] = torch.randn(7 * 320 - 80)
    a, b = (net(w, lengths, mask) for w in (wave, other))
    torch.testing.assert_close(a.hidden, b.hidden)
    assert not torch.allclose(a.features[:, 5:12], b.features[:, 5:12])
    assert not torch.allclose(net(wave, lengths).hidden, a.hidden)


def test_states_of_lower_layers_are_those_on_the_way_up():
    net, seen = encoder().eval(), []
    for block in net.blocks:
        block.register_forward_hook(lambda module, inputs, output: seen.append(output))
    wave, lengths = torch.randn(2, 6000), torch.tensor([6000, 4000])
    whole = net(wave, lengths).hidden
    assert torch.equal(seen[-1], whole)
    for layer in (1, 2, 3):
        assert torch.equal(net(wave, lengths, layer=layer).hidden, seen[layer - 1])
    skipped = net(wave, lengths, skip=(0, 1, 2)).hidden
    assert torch.equal(skipped, net(wave, lengths, layer=0).hidden)


def test_starting_weights_are_the_published_ones():
    torch.manual_seed(0)
    net = SpeechEncoder(
        ConvFeatures((512,) * 7, KERNELS, STRIDES), width=256, layers=1, heads=4, inner=1024, norm_first=False
    )
    for layer in (net.blocks[0].widen, net.blocks[0].attention.query, net.blocks[0].attention.out):
        assert layer.weight.std().item() == pytest.approx(0.02, rel=0.03) and not layer.bias.any()
    assert net.project.weight.abs().max().item() == pytest.approx(512**-0.5, rel=0.01)  # torch's default
    assert net.mask_vector.min() >= 0 and net.mask_vector.max() <= 1
