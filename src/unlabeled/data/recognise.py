"""Tell what a file is, by its name and by its first bytes."""

from __future__ import annotations

import codecs
import re

from unlabeled.core.batch import Kind

__all__ = ["HEAD_BYTES", "describe", "kind_by_name", "sniff", "split_by_name"]

HEAD_BYTES = 4096  # what `sniff` wants to see of a file

# .npy is a single array: in a folder of images it is an image
_EXTENSIONS: dict[Kind, str] = {
    "image": "png jpg jpeg jpe jfif gif bmp webp tif tiff ppm pgm pbm pnm npy avif",
    "wave": "wav wave flac ogg oga opus mp3 aif aiff au",
    "text": "txt text md markdown rst tex org adoc log csv tsv json xml html htm css yaml yml toml ini cfg conf "
    "py pyi pyx ipynb c h cc cpp cxx hh hpp cu java kt scala js jsx mjs ts tsx go rs rb php pl pm lua r jl swift "
    "hs ml mli fs cs vb sql sh bash zsh fish ps1 bat el lisp clj erl ex exs f f90 m mm dart asm s v vhd proto cmake",
}
_BY_EXTENSION: dict[str, Kind] = {e: kind for kind, all_ in _EXTENSIONS.items() for e in all_.split()}

_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("test", "testing", "t10k"), "test"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
}

_NETPBM = re.compile(rb"P[1-6]\s(?:\s*#[^\n]*\n)*\s*\d+\s+\d+\s")
_BMP_HEADERS = (12, 40, 52, 56, 64, 108, 124)  # lengths that the header after the file header may have


def kind_by_name(name: str) -> Kind | None:
    """Kind of data that the extension promises; None for an extension that is not known or none at all."""
    return _BY_EXTENSION.get(name.rpartition(".")[2].lower()) if "." in name else None


def split_by_name(name: str) -> str | None:
    """ "train", "test" or "val" where a folder or file is called so (`training`, `test-00000-of-00001.parquet`)."""
    for word in re.split(r"[-_.]", name.lower()):
        if word in _SPLITS:
            return _SPLITS[word]
    return None


def sniff(head: bytes) -> Kind | None:
    """Kind of data by the first `HEAD_BYTES` of it; None where they fit nothing that can be read."""
    if head.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a", b"\x93NUMPY")):
        return "image"
    if head.startswith((b"II*\0", b"MM\0*")) or _NETPBM.match(head) or head[4:12] in (b"ftypavif", b"ftypavis"):
        return "image"
    if head.startswith(b"BM") and int.from_bytes(head[14:18], "little") in _BMP_HEADERS:
        return "image"
    if head.startswith(b"RIFF") and head[8:12] in (b"WEBP", b"WAVE"):
        return "image" if head[8:12] == b"WEBP" else "wave"
    if head.startswith((b"fLaC", b"OggS", b"ID3\2", b"ID3\3", b"ID3\4", b".snd")):
        return "wave"
    if head.startswith(b"FORM") and head[8:12] in (b"AIFF", b"AIFC"):
        return "wave"
    if head[:1] == b"\xff" and len(head) > 1 and head[1] & 0xE6 == 0xE2:  # an MPEG frame of layer III
        return "wave"
    return "text" if _is_text(head) else None


def _is_text(head: bytes) -> bool:
    """UTF-8 (a character may be cut at the end) with next to no control characters."""
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    strange = sum(c < " " and c not in "\t\n\r\f\b\x1b" for c in text)
    return bool(text) and "\0" not in text and strange <= len(text) / 50


def describe(head: bytes) -> str:
    """What some bytes are, for a reason in the quarantine: "text", "HTML", "an image", "sound", "of no known kind"."""
    if not head:
        return "empty"
    if re.match(rb"\s*<(!doctype\s+html|html|head|body)\b", head, re.IGNORECASE):
        return "HTML"
    kind = sniff(head)
    return {"image": "an image", "wave": "sound", "text": "text", None: "of no known kind"}[kind]
