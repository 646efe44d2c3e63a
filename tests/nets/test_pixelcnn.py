"""The gated PixelCNN: what each place sees, that it is a distribution, that drawing agrees with it."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from unlabeled.nets.pixelcnn import GatedPixelCNN


def net(values=5, width=8, layers=4, **options):
    torch.manual_seed(0)
    return GatedPixelCNN(values, width=width, layers=layers, **options).double()


def seen(model, rows, columns, i, j):
    """(rows, columns) bool: which places of the grid change the logits at (i, j)."""
    held = []
    handle = model.embedding.register_forward_hook(lambda module, inputs, out: held.append(out))
    logits = model(torch.randint(5, (1, rows, columns)))
    handle.remove()
    (gradient,) = torch.autograd.grad(logits[0, :, i, j].square().sum(), held[0])
    return gradient[0].abs().sum(-1) > 0


@pytest.mark.parametrize("kernels", [(3, 3), (7, 3), (5, 5)])
def test_every_place_sees_just_what_is_before_it(kernels):
    first, kernel = kernels
    model, rows, columns = net(layers=8, kernel=kernel, first_kernel=first), 6, 7
    order = torch.arange(rows * columns).view(rows, columns)
    for i in range(rows):
        for j in range(columns):
            assert torch.equal(seen(model, rows, columns, i, j), order < order[i, j]), (i, j)


def test_the_blind_spot_of_plain_masks_is_there_and_ours_is_not():
    """A stack of masked 3x3 kernels never sees far to the upper right; the same depth of the gated stacks does."""
    mask = torch.tensor([[1.0, 1, 1], [1, 1, 0], [0, 0, 0]])
    field = torch.zeros(1, 1, 9, 9)
    field[0, 0, 4, 4] = 1
    for layer in range(8):
        kernel = mask.clone()
        kernel[1, 1] = 0 if layer == 0 else 1
        field = F.conv_transpose2d(field, kernel.view(1, 1, 3, 3), padding=1)
    assert not field[0, 0, 3, 6] and field[0, 0, 3, 5]
    assert seen(net(layers=8, first_kernel=3), 9, 9, 4, 4)[3, 6]


def test_the_cropped_kernels_are_the_masked_ones():
    """The same layer with full kernels, zeroed where the paper masks them, written out."""
    torch.manual_seed(0)
    for first in (True, False):
        layer = net(layers=2, kernel=5, first_kernel=5).layers[0 if first else 1]
        v, h = torch.randn(2, 8, 6, 7).double(), torch.randn(2, 8, 6, 7).double()
        reach = 2 + (not first)
        full = torch.zeros(16, 8, 5, 5).double()
        full[:, :, :reach] = layer.vertical.weight
        above = F.conv2d(v, full, layer.vertical.bias, padding=2)
        full = torch.zeros(16, 8, 1, 5).double()
        full[..., :reach] = layer.horizontal.weight
        left = F.conv2d(h, full, layer.horizontal.bias, padding=(0, 2)) + layer.across(above)
        gated = [torch.tanh(x[:, :8]) * torch.sigmoid(x[:, 8:]) for x in (above, left)]
        below, right = layer(v, h)
        torch.testing.assert_close(below, gated[0])
        torch.testing.assert_close(right, layer.out(gated[1]) + (0 if first else h))


def test_probabilities_of_all_grids_add_up_to_one():
    model = net(values=2, layers=3)
    grids = torch.tensor(list(itertools.product(range(2), repeat=9))).view(-1, 3, 3)
    with torch.no_grad():
        nats = -F.cross_entropy(model(grids), grids, reduction="none").sum((1, 2))
    assert float(nats.exp().sum()) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("shape", [(5, 6), (1, 4), (4, 1)])
def test_drawing_place_by_place_agrees_with_one_pass(shape):
    model = net(layers=4, first_kernel=7, hidden=12).float()
    grid, nats = model.generate(20, *shape)
    again = -F.cross_entropy(model(grid), grid, reduction="none").sum((1, 2))
    torch.testing.assert_close(nats.float(), again, atol=1e-4, rtol=1e-5)
    assert grid.shape == (20, *shape) and grid.min() >= 0 and grid.max() < 5


def test_draws_have_the_frequencies_of_the_model():
    model = net(values=2, layers=2).float()
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.7)
    grids = torch.tensor(list(itertools.product(range(2), repeat=4))).view(-1, 2, 2)
    with torch.no_grad():
        expected = (-F.cross_entropy(model(grids), grids, reduction="none").sum((1, 2))).exp()
    torch.manual_seed(1)
    drawn, _ = model.generate(20_000, 2, 2)
    which = (drawn.flatten(1) * torch.tensor([8, 4, 2, 1])).sum(1)
    found = torch.bincount(which, minlength=16) / 20_000
    assert float((found - expected).abs().max()) < 4 * math.sqrt(0.25 / 20_000)


def test_number_of_weights():
    width, values, hidden = 8, 5, 12
    model = net(values, width, 2, kernel=3, first_kernel=7, hidden=hidden)
    per_layer = 4 * width**2 + width**2 + width  # across, out
    first = 3 * 7 * width * 2 * width + 2 * width + 3 * width * 2 * width + 2 * width
    second = 2 * 3 * width * 2 * width + 2 * width + 2 * width * 2 * width + 2 * width
    head = width * hidden + hidden + hidden * values + values
    expected = values * width + first + second + 2 * per_layer + head
    assert sum(p.numel() for p in model.parameters()) == expected
