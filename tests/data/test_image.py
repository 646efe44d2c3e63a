from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from tests.data.hostile import picture, png_of
from unlabeled.core.errors import BadRecord
from unlabeled.data.image import LARGEST_SIDE, decode, fit_square, measure, square_of, to_uint8


def encoded(image: Image.Image, format_: str, **options: object) -> bytes:
    file = BytesIO()
    image.save(file, format_, **options)
    return file.getvalue()


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)


@pytest.mark.parametrize("format_", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_formats_give_the_pixels_back(format_: str, pixels: np.ndarray) -> None:
    content = encoded(Image.fromarray(pixels), format_)
    assert np.array_equal(decode(content, 3), pixels)
    assert measure(content) == (6, 9, 3)
    assert np.array_equal(decode(encoded(Image.fromarray(pixels[..., 0]), format_), 1)[..., 0], pixels[..., 0])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int, pixels: np.ndarray) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    got = decode(encoded(Image.fromarray(pixels), "PNG", exif=exif), 3)
    # where the first row and the first column of what is stored lie in what is seen (EXIF 2.3, table 6)
    seen = {
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.transpose(1, 0, 2),
        6: np.rot90(pixels, -1),
        7: pixels[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(pixels, 1),
    }[orientation]
    assert np.array_equal(got, seen)


def test_transparency_lies_on_white() -> None:
    rgba = np.zeros((2, 2, 4), np.uint8)
    rgba[0, 0, 3] = 255
    rgba[0, 1, 3] = 128
    got = decode(encoded(Image.fromarray(rgba), "PNG"), 3)
    assert got[0, 0].tolist() == [0] * 3 and got[1, 1].tolist() == [255] * 3 and got[0, 1, 0] == 127
    assert np.array_equal(decode(rgba, 3), got)
    palette = Image.fromarray(np.array([[0, 1]], np.uint8), "L").convert("P")
    palette.putpalette([255, 0, 0, 0, 0, 255])
    assert decode(encoded(palette, "PNG", transparency=1), 3)[0].tolist() == [[255, 0, 0], [255, 255, 255]]
    assert decode(encoded(palette, "PNG"), 3)[0].tolist() == [[255, 0, 0], [0, 0, 255]]


def test_sixteen_bits_and_floats_and_cmyk() -> None:
    deep = np.array([[0, 257, 65535]], np.uint16)
    assert decode(encoded(Image.fromarray(deep), "PNG"), 1)[0, :, 0].tolist() == [0, 1, 255]
    assert measure(encoded(Image.fromarray(deep), "PNG")) == (1, 3, 1)
    floats = Image.fromarray(np.array([[0, 0.5, 1]], np.float32))
    assert decode(encoded(floats, "TIFF"), 3)[0, :, 0].tolist() == [0, 128, 255]
    assert decode(encoded(Image.new("CMYK", (2, 2), (0, 255, 255, 0)), "TIFF"), 3)[0, 0].tolist() == [255, 0, 0]
    assert decode(encoded(Image.new("CMYK", (2, 2), (0, 0, 0, 255)), "TIFF"), 1).max() == 0
    assert decode(encoded(Image.new("1", (3, 2), 1), "PNG"), 1).min() == 255


def test_nan_in_a_float_tiff_is_refused() -> None:
    with pytest.raises(BadRecord, match="NaN"):
        decode(encoded(Image.fromarray(np.array([[0, np.nan]], np.float32)), "TIFF"), 1)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (np.array([[0.0, np.inf]]), "infinite"),
        (np.array([[-1.0, 0.0]]), "outside 0 to 1"),
        (np.array([[0, 300]]), "outside 0 to 255"),
        (np.zeros((2, 2, 2), np.uint8), "shape"),
        (np.zeros((0, 3), np.uint8), "no pixels"),
        (np.array([[1j]]), "not numbers"),
        (b"", "is empty"),
        (b"hello, world", "is text, not an image"),
        (b"\n<HTML><head>", "is HTML, not an image"),
        (png_of(10_000, 10_000, 1), "10,000 x 10,000"),
        (png_of(60_000, 60_000, 1), "promises more than"),
        (picture(np.random.default_rng(0), "PNG", 24)[:500], "truncated"),
        (picture(np.random.default_rng(0), "JPEG", 24)[:-200], "truncated"),
    ],
)
def test_what_is_refused_and_why(value: bytes | np.ndarray, reason: str) -> None:
    with pytest.raises(BadRecord, match=reason):
        decode(value, 3)


def test_a_bomb_is_refused_before_its_pixels_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = png_of(9000, 9000, 9000)  # 81 million pixels in 80 KB
    assert len(bomb) < 100_000
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda image: pytest.fail("decoded"))
    with pytest.raises(BadRecord, match=r"9,000 x 9,000"):
        decode(bomb, 1)


def test_arrays_of_floats_scale_by_their_range() -> None:
    assert to_uint8(np.array([0, 0.5, 1])).tolist() == [0, 128, 255]
    assert to_uint8(np.array([0, 128, 255], np.int64)).tolist() == [0, 128, 255]
    assert to_uint8(np.array([0.0, 1.0]), top=255).tolist() == [0, 1]
    assert to_uint8(np.array([False, True])).tolist() == [0, 255]


def test_draft_gives_a_smaller_picture_with_enough_pixels() -> None:
    smooth = np.add.outer(np.arange(400), np.arange(640)).astype(np.float32)
    image = Image.fromarray((smooth / smooth.max() * 255).astype(np.uint8))
    content = encoded(image, "JPEG", quality=95)
    small = decode(content, 1, at_least=90)
    assert small.shape == (100, 160, 1)
    assert decode(content, 1).shape == (400, 640, 1)
    assert decode(content, 1, at_least=401).shape == (400, 640, 1)
    full = fit_square(decode(content, 1), 90).astype(int)
    assert np.abs(fit_square(small, 90).astype(int) - full).max() <= 3


def test_fit_square_keeps_what_fits_and_crops_the_centre() -> None:
    square = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    assert fit_square(square, 8) is square
    wide = np.concatenate([np.zeros((8, 4, 3), np.uint8), square, np.full((8, 4, 3), 255, np.uint8)], axis=1)
    assert np.array_equal(fit_square(wide, 8), square)
    tall = wide.transpose(1, 0, 2)
    assert np.array_equal(fit_square(tall, 8), square.transpose(1, 0, 2))
    assert fit_square(wide[..., :1], 5).shape == (5, 5, 1)


def test_fit_square_is_antialiased() -> None:
    stripes = np.zeros((64, 64, 1), np.uint8)
    stripes[:, ::2] = 255
    small = fit_square(stripes, 16)
    # Without a filter over all pixels every fourth column would be black or white; the rim sees half a window.
    assert np.abs(small[:, 2:-2].astype(int) - 127).max() <= 6


def test_the_square_of_many() -> None:
    assert square_of([(10, 30, 1), (50, 20, 1), (90, 90, 3)]) == (20, 3)
    assert square_of([(3000, 4000, 3)]) == (LARGEST_SIDE, 3)
    assert square_of([]) == (0, 0)


_STARTS = [picture(np.random.default_rng(1), f) for f in ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF")]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.one_of(
        st.binary(max_size=300),
        st.tuples(st.sampled_from(_STARTS), st.integers(0, 400), st.binary(max_size=60)).map(
            lambda t: t[0][: t[1]] + t[2] + t[0][t[1] + len(t[2]) :]
        ),
        st.binary(max_size=200).map(lambda b: b"\x93NUMPY\x01\x00" + b),
    )
)
def test_any_bytes_are_a_picture_or_a_bad_record(content: bytes) -> None:
    for channels in (1, 3):
        try:
            got = decode(content, channels)
        except BadRecord as error:
            assert str(error) and "\n" not in str(error)
        else:
            assert got.dtype == np.uint8 and got.ndim == 3 and got.shape[2] == channels
