import pytest
import torch

from unlabeled.core.errors import UserError
from unlabeled.nets.conv4 import Conv4
from unlabeled.nets.heads import mlp
from unlabeled.nets.resnet import ResNet


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    "depth, options, parameters",
    [
        (18, {}, 11_176_512),
        (34, {}, 21_284_672),
        (50, {}, 23_508_032),
        (101, {}, 42_500_160),
        (152, {}, 58_143_808),
        (18, {"small_images": True}, 11_168_832),
        (50, {"small_images": True}, 23_500_352),
        (50, {"multiplier": 2}, 93_907_072),
        (50, {"multiplier": 4}, 375_378_176),
    ],
)
def test_official_parameter_counts(depth, options, parameters):
    with torch.device("meta"):
        assert count(ResNet(depth, **options)) == parameters


def test_projectors_of_the_paper_and_of_the_code():
    assert count(mlp((2048, 2048, 128))) == 4_458_624
    assert count(mlp((2048, 2048, 128), norm=True, last="scale")) == 4_460_672
    assert 23_508_032 + count(mlp((2048, 2048, 128))) == 27_966_656


@pytest.mark.parametrize("depth, kind", [(18, "basic"), (50, "bottleneck")])
def test_it_computes_what_transformers_computes(depth, kind):
    transformers = pytest.importorskip("transformers")
    sizes, depths = ([64, 128, 256, 512], [2, 2, 2, 2]) if kind == "basic" else ([256, 512, 1024, 2048], [3, 4, 6, 3])
    config = transformers.ResNetConfig(layer_type=kind, depths=depths, hidden_sizes=sizes, embedding_size=64)
    torch.manual_seed(0)
    # Batch statistics of a few values amplify rounding, so both compute in float64.
    theirs, ours = transformers.ResNetModel(config).double(), ResNet(depth, zero_last=False).double()
    # Both list their weights in the order of computation, the shortcut first there and last here.
    convolution = torch.nn.Conv2d
    source = [m for m in theirs.modules() if isinstance(m, convolution)]
    ordered = [ours.stem]
    for block in ours.blocks:
        ordered += ([block.shortcut[0]] if block.shortcut is not None else []) + list(block.convs)
    assert [m.weight.shape for m in source] == [m.weight.shape for m in ordered]
    for mine, other in zip(ordered, source):
        mine.weight.data.copy_(other.weight)
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    for mode in (True, False):
        ours.train(mode), theirs.train(mode)
        expected = theirs(x).pooler_output.flatten(1)
        torch.testing.assert_close(ours(x).double(), expected, atol=1e-5, rtol=1e-5)


def test_weights_start_with_truncated_variance_scaling():
    torch.manual_seed(0)
    for module in ResNet(18).modules():
        if isinstance(module, torch.nn.Conv2d):
            std = module.weight[0].numel() ** -0.5
            assert module.weight.std().item() == pytest.approx(std, rel=0.03)
            assert module.weight.abs().max() <= 2 * std / 0.8796


def test_gradients_come_back_in_the_layout_of_the_activations():
    for net, x in ((Conv4(1, (4, 4, 4, 8)), torch.rand(2, 1, 16, 16)), (ResNet(18, 1), torch.rand(2, 1, 64, 64))):
        last = list(net.children())[-1] if isinstance(net, Conv4) else net.blocks
        seen = []
        last.register_forward_hook(lambda m, i, o, seen=seen: o.register_hook(seen.append) and None)
        features = net(x)
        features.backward(torch.randn_like(features))
        assert seen[0].is_contiguous(memory_format=torch.channels_last)


def test_blocks_start_as_identities():
    torch.manual_seed(0)
    net = ResNet(18, small_images=True)
    x = torch.rand(2, 64, 8, 8)
    torch.testing.assert_close(net.blocks[0](x), x)


def test_conv4_and_its_size():
    net = Conv4(1)
    assert net(torch.rand(2, 1, 28, 28)).shape == (2, 256) and net.width == 256
    assert count(net) + count(mlp((256, 128))) == 387_360 + 960 + 32_896
    with pytest.raises(UserError, match="18, 34"):
        ResNet(20)
