"""A folder of good pictures with broken and hostile files among them, made from a seed; nothing in it is large."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from unlabeled.data.sources.files import printable


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_of(width: int, height: int, rows: int) -> bytes:
    """A grey PNG whose header promises width x height, with only some rows of data, packed."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    packed = zlib.compress(bytes(rows * (width + 1)), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def picture(rng: np.random.Generator, format_: str, size: int = 12) -> bytes:
    """A good picture of noise."""
    file = BytesIO()
    Image.fromarray(rng.integers(0, 256, (size, size, 3), dtype=np.uint8)).save(file, format_)
    return file.getvalue()


def _cut(format_: str) -> Callable[[np.random.Generator], bytes]:
    def make(rng: np.random.Generator) -> bytes:
        content = picture(rng, format_, 24)
        return content[: len(content) // 2]

    return make


def _header_only(rng: np.random.Generator) -> bytes:
    return picture(rng, "PNG")[: int(rng.integers(9, 33))]


def _bad_gif(rng: np.random.Generator) -> bytes:
    """A GIF without its own palette whose picture data is one block with a length that runs past the end."""
    screen = struct.pack("<6sHHBBB", b"GIF89a", 12, 12, 0x80, 0, 0) + bytes(6)
    return screen + struct.pack("<BHHHHB", 0x2C, 0, 0, 12, 12, 0) + b"\x02\xff" + rng.bytes(20)


def _npy(array: np.ndarray) -> bytes:
    file = BytesIO()
    np.save(file, array)
    return file.getvalue()


def _nan(rng: np.random.Generator) -> bytes:
    array = rng.random((8, 8, 3), dtype=np.float32)
    array[2, 3, 1] = np.nan
    return _npy(array)


def _infinite(rng: np.random.Generator) -> bytes:
    array = rng.random((8, 8))
    array[1, 1] = np.inf
    return _npy(array)


def _pickle(rng: np.random.Generator) -> bytes:
    file = BytesIO()
    np.save(file, np.array([{"a": rng.random()}], dtype=object), allow_pickle=True)
    return file.getvalue()


def _huge_npy(rng: np.random.Generator) -> bytes:
    """A header that promises 300 GB and holds nothing."""
    return _npy(np.zeros((2, 2))).replace(b"(2, 2), }", b"(200000, 200000), }")[:-32]


def _false_checksum(rng: np.random.Generator) -> bytes:
    content = bytearray(picture(rng, "PNG"))
    content[content.index(b"IDAT") + 8] ^= 0xFF
    return bytes(content)


# name of the file, and what makes its content
_CONTENTS: tuple[tuple[str, Callable[[np.random.Generator], bytes]], ...] = (
    ("cut-{}.png", _cut("PNG")),
    ("cut-{}.jpg", _cut("JPEG")),
    ("cut-{}.webp", _cut("WEBP")),
    ("cut-{}.bmp", _cut("BMP")),
    ("cut-{}.tif", _cut("TIFF")),
    ("header-{}.png", _header_only),
    ("empty-{}.png", lambda rng: b""),
    ("text-{}.png", lambda rng: b"this was never a picture\n" * int(rng.integers(1, 9))),
    ("page-{}.jpg", lambda rng: b"<!DOCTYPE html><html><body>404 Not Found</body></html>"),
    ("100-megapixels-{}.png", lambda rng: png_of(10_000, 10_000, 1)),
    ("bomb-{}.png", lambda rng: png_of(60_000, 60_000, 3)),
    ("overflow-{}.png", lambda rng: png_of(0x7FFFFFFF, 1, 0)),
    ("blocks-{}.gif", _bad_gif),
    ("noise-{}.jpg", lambda rng: rng.bytes(300)),
    ("noise-with-mark-{}.jpg", lambda rng: b"\xff\xd8\xff\xe0" + rng.bytes(300)),
    ("checksum-{}.png", _false_checksum),
    ("nan-{}.npy", _nan),
    ("infinite-{}.npy", _infinite),
    ("pickle-{}.npy", _pickle),
    ("huge-{}.npy", _huge_npy),
    ("sound-{}.png", lambda rng: b"RIFF\x24\0\0\0WAVEfmt " + rng.bytes(24)),
    ("program-{}.png", lambda rng: b"\x7fELF" + rng.bytes(60)),
    ("script-{}.eps", lambda rng: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) run\n"),
    ("notes-{}.txt", lambda rng: b"notes about the pictures"),
    ("unknown-{}.bin", lambda rng: b"\0\1\2" + rng.bytes(30)),
)


def hostile_folder(root: Path, good: int = 500, bad: int = 200, seed: int = 0) -> set[str]:
    """Fill a folder with good pictures and bad files, some in subfolders; returns the ids of the bad ones.

    Beside the bad files there is a good one whose name is not UTF-8, as old cameras leave them.
    """
    rng = np.random.default_rng(seed)
    for sub in ("2023", "2024/summer"):
        (root / sub).mkdir(parents=True)
    places = ("", "2023/", "2024/summer/")
    for i in range(good - 1):
        format_ = ("PNG", "JPEG", "WEBP", "GIF", "BMP")[i % 5]
        ending = {"JPEG": "jpg"}.get(format_, format_.lower())
        (root / f"{places[i % 3]}good-{i}.{ending}").write_bytes(picture(rng, format_))
    (root / os.fsdecode(b"caf\xe9.png")).write_bytes(picture(rng, "PNG"))

    names: set[str] = set()
    outside = root.parent / "outside.png"
    outside.write_bytes(picture(rng, "PNG"))

    (root / "folder.png").mkdir()
    links = {
        "nowhere.png": "missing.png", "out.png": "../outside.png", "passwd.jpg": "/etc/passwd",
        "endless.png": "/dev/zero", "itself.png": "itself.png", "round": ".",
    }  # fmt: skip
    for name, target in links.items():
        (root / name).symlink_to(target)
    os.mkfifo(root / "pipe.png")
    (root / os.fsdecode(b"\xff\xfe.png")).write_bytes(b"no picture")
    (root / "line\nbreak\x1b[31m.png").write_bytes(picture(rng, "PNG")[:40])
    names |= {*links, "folder.png", "pipe.png", "\\xff\\xfe.png", "line\\x0abreak\\x1b[31m.png"}
    i = 0
    while len(names) < bad:
        name, make = _CONTENTS[i % len(_CONTENTS)]
        path = places[i % 3] + name.format(i)
        (root / path).write_bytes(make(rng))
        names.add(printable(path))
        i += 1
    (root / ".hidden.png").write_bytes(b"left out silently")
    return names
