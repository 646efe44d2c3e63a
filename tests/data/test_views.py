import colorsys
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from unlabeled.data.views import (
    adjust_hue,
    adjust_saturation,
    apply_separably,
    blur_matrices,
    crop_boxes,
    crop_matrices,
    jitter,
    random_blur,
    random_crop_flip,
    random_grey,
)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("kernel", ["bilinear", "bicubic"])
@pytest.mark.parametrize("channels", [1, 3])
def test_crops_are_those_of_torch_with_antialiasing(kernel, channels):
    images = torch.rand(4, channels, 20, 24)
    boxes = [(3, 5, 12, 13), (0, 0, 20, 24), (10, 1, 4, 5), (7, 20, 13, 2)]  # made larger and made smaller
    top, left, h, w = torch.tensor(boxes).unbind(1)
    rows, columns = crop_matrices(top, h, 20, 8, kernel), crop_matrices(left, w, 24, 8, kernel)
    got = apply_separably(images, rows, columns)
    for i, (y, x, bh, bw) in enumerate(boxes):
        cut = images[i : i + 1, :, y : y + bh, x : x + bw]
        expected = F.interpolate(cut, (8, 8), mode=kernel, align_corners=False, antialias=True)[0]
        torch.testing.assert_close(got[i], expected, atol=1e-5, rtol=0)


def test_boxes_have_the_wanted_areas_and_shapes_and_lie_inside():
    top, left, h, w = crop_boxes(20_000, 32, 32, (0.2, 1.0), (3 / 4, 4 / 3)).unbind(1)
    assert (top >= 0).all() and (left >= 0).all() and (top + h <= 32).all() and (left + w <= 32).all()
    share = (h * w).float() / 1024
    assert 0.17 < share.min() < 0.21 and share.max() > 0.95  # sides are whole pixels
    assert 0.5 < share.mean() < 0.62  # uniform would give 0.6; large boxes fit less often
    small = share < 0.5  # these always fit: uniform area, uniform logarithm of the aspect ratio
    assert share[small].mean() == pytest.approx(0.35, abs=0.01)
    aspect = torch.log(w / h)[small]
    assert aspect.mean().abs() < 0.01 and aspect.std() == pytest.approx(math.log(4 / 3) / math.sqrt(3), abs=0.02)
    spare = torch.where(h < 32, top / (32 - h).clamp_min(1), 0.5)[small]  # places are uniform, both ends included
    assert spare.min() == 0 and spare.max() == 1 and spare.mean() == pytest.approx(0.5, abs=0.01)
    assert (crop_boxes(5, 8, 8, (1.0, 1.0), (2.0, 2.0))[:, 2:] == 8).all()  # none fits: the whole image


def test_a_whole_crop_of_the_same_size_is_the_image_and_a_flip_its_mirror():
    images = torch.rand(3, 1, 9, 9)
    whole = {"area": (1.0, 1.0), "ratio": (1.0, 1.0)}
    torch.testing.assert_close(random_crop_flip(images, 9, flip=0.0, **whole), images)
    torch.testing.assert_close(random_crop_flip(images, 9, flip=1.0, **whole), images.flip(3))
    many = torch.rand(1, 1, 9, 9).expand(4000, 1, 9, 9)
    mirrored = (random_crop_flip(many, 9, **whole) - many).abs().amax((1, 2, 3)) > 1e-3
    assert mirrored.float().mean() == pytest.approx(0.5, abs=0.03)


def test_hue_and_saturation_agree_with_the_standard_library():
    images = torch.rand(2, 3, 4, 4)
    images[0, :, 0, 0] = 0.5  # grey has no hue
    turn, factor = torch.tensor([0.2, -0.35])[:, None, None], torch.tensor([0.3, 1.7])[:, None, None, None]
    turned, saturated = adjust_hue(images, turn), adjust_saturation(images, factor)
    for n, y, x in np.ndindex(2, 4, 4):
        h, s, v = colorsys.rgb_to_hsv(*images[n, :, y, x].tolist())
        expected = colorsys.hsv_to_rgb((h + turn[n].item()) % 1, s, v)
        assert turned[n, :, y, x].tolist() == pytest.approx(expected, abs=1e-5)
        expected = colorsys.hsv_to_rgb(h, min(1.0, s * factor[n].item()), v)
        assert saturated[n, :, y, x].tolist() == pytest.approx(expected, abs=1e-5)
    torch.testing.assert_close(adjust_hue(images, torch.ones(2, 1, 1)), images, atol=1e-5, rtol=0)


def test_no_strength_and_no_probability_change_nothing():
    images = torch.rand(6, 3, 5, 5)
    still = jitter(images, brightness=0, contrast=0, saturation=0, hue=0, probability=1.0)
    torch.testing.assert_close(still, images, atol=1e-5, rtol=0)
    assert torch.equal(jitter(images, brightness=0.8, contrast=0.8, probability=0.0), images)


def test_brightness_multiplies_or_shifts():
    images = torch.full((4000, 1, 1, 1), 0.4)
    product = jitter(images, brightness=0.5, contrast=0.0, probability=1.0).flatten()
    assert product.min() == pytest.approx(0.2, abs=0.01) and product.max() == pytest.approx(0.6, abs=0.01)
    shift = jitter(images, brightness=0.3, contrast=0.0, probability=1.0, additive=True).flatten()
    assert shift.min() == pytest.approx(0.1, abs=0.01) and shift.max() == pytest.approx(0.7, abs=0.01)
    far = jitter(images, brightness=1.5, contrast=0.0, probability=1.0, additive=True).flatten()
    assert (far == 0).float().mean() == pytest.approx((1.5 - 0.4) / 3, abs=0.03)  # both ways alike, above 1 too
    some = jitter(images, brightness=0.5, contrast=0.0, probability=0.8).flatten()
    assert (some == 0.4).float().mean() == pytest.approx(0.2, abs=0.03)


def test_contrast_keeps_the_mean_and_scales_the_distance_from_it():
    images = 0.5 + 0.1 * torch.rand(500, 1, 6, 6)
    out = jitter(images, brightness=0.0, contrast=0.5, probability=1.0)
    torch.testing.assert_close(out.mean((2, 3)), images.mean((2, 3)), atol=1e-5, rtol=0)
    ratio = out.std((2, 3)) / images.std((2, 3))
    assert ratio.min() == pytest.approx(0.5, abs=0.02) and ratio.max() == pytest.approx(1.5, abs=0.02)


def test_the_operations_come_in_an_order_of_each_image():
    # Clipping after each step makes the order show. Of a black and a white pixel the sum exceeds 1 only where contrast
    # comes first (half of them), is lowered (half), and the result is brightened (half): 1/8. It is 1 where brightening
    # comes first (1/4), where raised contrast is followed by brightening (1/8), and where darkening by b is followed by
    # contrast c >= 2 / b - 1: half the integral of 1 - 2 / (1 + c) over c in (1, 1.5).
    image = torch.tensor([0.0, 1.0]).view(1, 1, 1, 2).repeat(8000, 1, 1, 1)
    out = jitter(image, brightness=0.5, contrast=0.5, probability=1.0)
    assert out.min() >= 0 and out.max() <= 1
    total = out.sum((1, 2, 3))
    assert (total > 1 + 1e-5).float().mean() == pytest.approx(1 / 8, abs=0.02)
    assert ((total - 1).abs() < 1e-5).float().mean() == pytest.approx(
        3 / 8 + (0.5 - 2 * math.log(2.5 / 2)) / 2, abs=0.02
    )


def test_grey_is_luminance_for_a_fifth():
    images = torch.rand(3000, 3, 2, 2)
    grey = random_grey(images, 0.2)
    changed = (grey != images).flatten(1).any(1)
    assert changed.float().mean() == pytest.approx(0.2, abs=0.03)
    one = grey[changed][0]
    assert torch.equal(one[0], one[1]) and torch.equal(one[1], one[2])
    r, g, b = images[changed][0]
    torch.testing.assert_close(one[0], 0.2989 * r + 0.587 * g + 0.114 * b)


def test_blur_is_a_convolution_with_a_gaussian():
    images = torch.rand(2, 3, 40, 40)
    sigma = torch.tensor([0.7, 1.6])
    matrices = blur_matrices(sigma, 40, 2)
    got = apply_separably(images, matrices, matrices)
    for i in range(2):
        line = torch.exp(-torch.arange(-2, 3.0).square() / (2 * sigma[i] ** 2))
        kernel = torch.outer(line / line.sum(), line / line.sum()).expand(3, 1, 5, 5)
        torch.testing.assert_close(got[i], F.conv2d(images[i : i + 1], kernel, padding=2, groups=3)[0])
    assert torch.equal(random_blur(images, 0.0), images)


def test_half_are_blurred_and_more_where_sigma_is_larger():
    point = torch.zeros(2000, 1, 40, 40)
    point[:, :, 20, 20] = 1
    out = random_blur(point)
    peak = out[:, 0, 20, 20]
    assert (peak < 1).float().mean() == pytest.approx(0.5, abs=0.05)
    assert out.sum((1, 2, 3)).sub(1).abs().max() < 1e-5
    wide = out[peak.argmin(), 0, 20] > 0
    taps = 1 + 2 * math.exp(-1 / 8) + 2 * math.exp(-4 / 8)  # radius 40 // 20, sigma 2
    assert wide.sum() == 5 and peak.min() == pytest.approx(taps**-2, abs=1e-3)


def test_the_same_seed_gives_the_same_views():
    images = torch.rand(8, 3, 24, 24)

    def views(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        out = random_crop_flip(images, 20, kernel="bicubic")
        return random_blur(random_grey(jitter(out, brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2)))

    assert torch.equal(views(1), views(1)) and not torch.equal(views(1), views(2))
    assert views(3).min() >= 0 and views(3).max() <= 1 + 1e-6
