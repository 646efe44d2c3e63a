"""Pictures: bytes or arrays in, uint8 arrays out; whatever is broken or hostile is refused with a reason."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np

from unlabeled.core.errors import BadRecord
from unlabeled.data.recognise import HEAD_BYTES, describe, sniff

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["LARGEST_SIDE", "PIXEL_LIMIT", "decode", "fit_square", "measure", "square", "square_of", "to_uint8"]

PIXEL_LIMIT = 64_000_000  # pixels of one picture; a header that promises more is not decoded
LARGEST_SIDE = 224  # pixels; larger pictures are brought to this side unless asked otherwise (ImageNet's usual crop)

# Only readers that decode pixels: EPS, for one, would start an interpreter of programs.
_FORMATS = ("PNG", "JPEG", "MPO", "GIF", "BMP", "WEBP", "TIFF", "PPM", "AVIF")
_ORIENTATION = 0x0112  # EXIF tag
_GREY_MODES = ("1", "L", "LA", "La", "I", "F")


def _opened(value: bytes) -> Image.Image:
    """Read the header only.

    Raises:
        BadRecord: where it is no picture, or one with more than `PIXEL_LIMIT` pixels.
    """
    from PIL import Image

    Image.init()
    warnings.filterwarnings("ignore", module=r"PIL\..*")  # what Pillow warns of is refused below or harmless
    what = describe(value[:HEAD_BYTES])
    if sniff(value[:HEAD_BYTES]) != "image":
        raise BadRecord(f"is {what}, not an image")
    try:
        image = Image.open(BytesIO(value), formats=[f for f in _FORMATS if f in Image.OPEN])
    except Image.DecompressionBombError as error:
        raise BadRecord(f"promises more than {PIXEL_LIMIT:,} pixels") from error
    except Exception as error:  # Pillow's readers raise whatever a torn header makes them raise
        raise BadRecord(f"cannot be read as an image ({_reason(error)})") from error
    _check_size(*image.size)
    return image


def _reason(error: Exception) -> str:
    """One short line of an error of a decoder; addresses of objects left out."""
    text = " ".join(str(error).split())
    return text[:100] if text and " at 0x" not in text else type(error).__name__


def _check_size(width: int, height: int) -> None:
    if width < 1 or height < 1:
        raise BadRecord(f"has no pixels ({width} x {height})")
    if width * height > PIXEL_LIMIT:
        raise BadRecord(f"promises {width:,} x {height:,} pixels, more than {PIXEL_LIMIT:,}")


def _array_of(value: bytes) -> np.ndarray:
    """The array in the bytes of an .npy file, never a pickle; its header is read first."""
    file = BytesIO(value)
    try:
        major = np.lib.format.read_magic(file)[0]
        read = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
        shape = read(file)[0]
        _check_array_shape(shape)
        return np.load(BytesIO(value), allow_pickle=False)
    except BadRecord:
        raise
    except Exception as error:  # headers are evaluated as literals and fail in many ways
        raise BadRecord(f"cannot be read as an array ({_reason(error)})") from error


def _check_array_shape(shape: tuple[int, ...]) -> None:
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] not in (1, 3, 4)):
        raise BadRecord(f"is an array of shape {shape}, not (height, width) or (height, width, 1, 3 or 4)")
    _check_size(shape[1], shape[0])


def measure(value: bytes | np.ndarray) -> tuple[int, int, int]:
    """Height and width (as stored, before EXIF turns it) and channels (1 grey, 3 colour), from the header alone.

    Raises:
        BadRecord: as `decode`, as far as the header shows it.
    """
    if isinstance(value, bytes | bytearray | memoryview) and bytes(value[:6]) == b"\x93NUMPY":
        value = _array_of(bytes(value))
    if isinstance(value, np.ndarray):
        _check_array_shape(value.shape)
        return value.shape[0], value.shape[1], 3 if value.ndim == 3 and value.shape[2] > 1 else 1
    with _opened(bytes(value)) as image:
        return image.height, image.width, 1 if image.mode in _GREY_MODES or image.mode.startswith("I;16") else 3


def decode(value: bytes | np.ndarray, channels: int, *, at_least: int = 0) -> np.ndarray:
    """One picture to uint8 (height, width, channels).

    EXIF orientation is applied; palettes, CMYK, 16-bit and floating-point pixels are converted; what is transparent
    lies on white; of an animation the first frame counts.

    channels: 1 grey, 3 colour.
    at_least: pixels of the shorter side that will be needed; a large JPEG may then be decoded at a half, a quarter or
        an eighth of its size, which is far quicker. 0: full size.

    Raises:
        BadRecord: where it is no picture, is truncated, has NaN or infinite values, or promises over 64 megapixels.
    """
    if channels not in (1, 3):
        raise ValueError(f"channels must be 1 or 3, got {channels}")
    if isinstance(value, bytes | bytearray | memoryview) and bytes(value[:6]) == b"\x93NUMPY":
        value = _array_of(bytes(value))
    if isinstance(value, np.ndarray):
        _check_array_shape(value.shape)
        return _with_channels(to_uint8(value), channels)
    if not isinstance(value, bytes | bytearray | memoryview):
        raise BadRecord(f"is a {type(value).__name__}, not an image")
    image = _opened(bytes(value))
    try:
        if at_least and image.format in ("JPEG", "MPO"):
            image.draft(None, (at_least, at_least))  # both sides stay at least this
        image.load()
        pixels = _pixels(_turned(image), channels)
    except BadRecord:
        raise
    except Exception as error:  # a decoder of a broken file may raise nearly anything
        raise BadRecord(f"is broken or truncated ({_reason(error)})") from error
    finally:
        image.close()
    return pixels


def _turned(image: Image.Image) -> Image.Image:
    from PIL.Image import Transpose

    turns = {
        2: Transpose.FLIP_LEFT_RIGHT, 3: Transpose.ROTATE_180, 4: Transpose.FLIP_TOP_BOTTOM, 5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270, 7: Transpose.TRANSVERSE, 8: Transpose.ROTATE_90,
    }  # fmt: skip
    try:
        turn = turns.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # broken EXIF beside a good picture: leave it as it lies
        turn = None
    return image if turn is None else image.transpose(turn)


def _pixels(image: Image.Image, channels: int) -> np.ndarray:
    from PIL import Image

    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        values = np.asarray(image)
        if image.mode != "F":  # 16 bits; 32-bit integers are used for 16 bits by some readers
            values = values.astype(np.float32) / (257 if image.mode.startswith("I;16") or values.max() > 255 else 1)
        return _with_channels(to_uint8(values, top=None if image.mode == "F" else 255), channels)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    if channels == 1 and image.mode not in ("1", "L"):
        image = image.convert("RGB")  # CMYK and others have no direct way to grey
    image = image.convert("L" if channels == 1 else "RGB")
    return np.array(image, dtype=np.uint8).reshape(image.height, image.width, channels)


def to_uint8(array: np.ndarray, top: float | None = None) -> np.ndarray:
    """Pixels as uint8; same shape.

    top: the value that means white: 1 or 255; None takes 1 where no value is above 1. uint8 stays as it is.

    Raises:
        BadRecord: for NaN, infinite values, and values outside 0 to 255.
    """
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind not in "buif":
        raise BadRecord(f"has values of type {array.dtype}, not numbers")
    if not np.isfinite(array).all():
        raise BadRecord("has NaN or infinite values")
    lowest, highest = float(array.min()), float(array.max())
    if top is None:
        top = 1.0 if array.dtype.kind in "bf" and highest <= 1 else 255.0
    slack = 1e-3 * top  # what interpolation in float32 may leave
    if lowest < -slack or highest > top + slack:
        raise BadRecord(f"has values from {lowest:.4g} to {highest:.4g}, outside 0 to {top:g}")
    return np.clip(np.rint(array.astype(np.float64) * (255 / top)), 0, 255).astype(np.uint8)


def _with_channels(array: np.ndarray, channels: int) -> np.ndarray:
    """uint8 (h, w), (h, w, 1), (h, w, 3) or (h, w, 4) to uint8 (h, w, channels)."""
    from PIL import Image

    array = np.ascontiguousarray(array[..., None] if array.ndim == 2 else array)
    if array.shape[2] == channels:
        return array
    if array.shape[2] == 1:
        return np.repeat(array, 3, axis=2)
    return _pixels(Image.fromarray(array), channels)


def fit_square(image: np.ndarray, size: int) -> np.ndarray:
    """uint8 (h, w, c) to uint8 (size, size, c): the centre square, resampled with antialiasing; itself if it fits."""
    from PIL import Image

    height, width, channels = image.shape
    if height == width == size:
        return image
    side = min(height, width)
    left, upper = (width - side) / 2, (height - side) / 2
    picture = Image.fromarray(image[..., 0] if channels == 1 else image)
    box = (left, upper, left + side, upper + side)
    # Boxes may lie on half pixels; bicubic filtering takes only what is inside the box.
    return np.asarray(picture.resize((size, size), Image.Resampling.BICUBIC, box=box)).reshape(size, size, channels)


def square(value: bytes | np.ndarray, channels: int, size: int) -> np.ndarray:
    """One record to uint8 (size, size, channels): decoded, and its centre square brought to that size.

    Raises:
        BadRecord: as `decode`.
    """
    return fit_square(decode(value, channels, at_least=size), size)


def square_of(sizes: Iterable[tuple[int, int, int]]) -> tuple[int, int]:
    """From `measure` of some pictures: the median of their shorter sides, at most `LARGEST_SIDE`, and the channels.

    One picture in colour makes all of them colour. (0, 0) where there are none.
    """
    known = list(sizes)
    if not known:
        return 0, 0
    side = int(np.median([min(height, width) for height, width, _ in known]))
    return min(side, LARGEST_SIDE), max(channels for _, _, channels in known)
