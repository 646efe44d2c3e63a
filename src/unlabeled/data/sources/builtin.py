"""Data that is always there: what ships in `data/shipped`, the running Python's own source, scikit-learn's digits.

`scripts/make_data.py` makes the shipped files from the original packages; NOTICE states their licences.
"""

from __future__ import annotations

import io
import json
import lzma
import os
import re
import sysconfig
import tarfile
from collections.abc import Callable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from unlabeled.core.batch import Spec
from unlabeled.core.errors import UserError
from unlabeled.data.source import Source
from unlabeled.data.sources.columns import Columns, FileColumn, digest, text_of

__all__ = ["SHIPPED", "about_shipped", "builtin_names", "open_builtin", "split_blocks"]

SHIPPED = Path(__file__).parents[1] / "shipped"


def builtin_names() -> list[str]:
    """Names that open without fetching anything."""
    return list(_BUILTIN)


def open_builtin(name: str) -> Source | None:
    """The source of a name: built in, or fetched before. None if the name is neither.

    Raises:
        UserError: if the name is known but has not been fetched, or is no source (weights).
    """
    if name in _BUILTIN:
        return _BUILTIN[name]()
    from unlabeled.data.sources.fetched import open_fetched

    return open_fetched(name)


def _tiles(path: Path, size: int, count: int) -> np.ndarray:
    """Cut a column of square tiles: (count, size, size, channels) uint8."""
    from PIL import Image

    with Image.open(path) as sheet:
        return np.asarray(sheet).reshape(count, size, size, -1)


def about_shipped(name: str) -> dict[str, Any]:
    """What the JSON file beside a shipped file says: classes, labels, captions, the notice."""
    return json.loads((SHIPPED / f"{name}.json").read_text(encoding="utf-8"))


def _shipped_identity(*names: str) -> str:
    return digest(*((SHIPPED / name).read_bytes() for name in names))


def fashion() -> Source:
    """The first 400 of each class of Fashion-MNIST's training split and the first 100 of each of its test split."""
    about = about_shipped("fashion")
    counts = {part: len(labels) for part, labels in about["labels"].items()}
    images = [_tiles(SHIPPED / f"fashion-{part}.png", 28, count) for part, count in counts.items()]
    return Columns(
        "fashion",
        Spec(kind="image", image_size=28, channels=1),
        [f"{part}/{row}" for part in counts for row in about["rows"][part]],
        {"image": np.concatenate(images)},
        identity=_shipped_identity("fashion-train.png", "fashion-test.png", "fashion.json"),
        labels=np.concatenate([about["labels"][part] for part in counts]),
        classes=about["classes"],
        official={"train": np.arange(counts["train"]), "test": counts["train"] + np.arange(counts["test"])},
    )


def clipart() -> Source:
    """Drawings of Open Clip Art, 32x32 in colour, with captions; the class is the folder they were filed under."""
    about = about_shipped("clipart")
    return Columns(
        "clipart",
        Spec(kind="image", image_size=32, channels=3),
        about["files"],
        {"image": _tiles(SHIPPED / "clipart.png", 32, len(about["files"])), "caption": about["captions"]},
        identity=_shipped_identity("clipart.png", "clipart.json"),
        labels=np.array(about["labels"]),
        classes=about["classes"],
    )


def moby_dick() -> Source:
    """Melville's novel, a record per chapter; the last tenth of its characters is held out."""
    path = SHIPPED / "moby-dick.txt.xz"
    text = lzma.decompress(path.read_bytes()).decode("utf-8")
    chapters = [chapter for chapter in re.split(r"^(?=CHAPTER \d+\.)", text, flags=re.MULTILINE) if chapter]
    cut = text.rindex("\n", 0, len(text) * 9 // 10) + 1
    texts, official = split_blocks(chapters, cut)
    return Columns(
        "moby-dick",
        Spec(kind="text", longest=max(map(len, texts))),
        [f"part-{n:03d}" for n in range(len(texts))],
        {"text": texts},
        identity=_shipped_identity(path.name),
        official=official,
    )


def split_blocks(blocks: Sequence[str], cut: int) -> tuple[list[str], dict[str, np.ndarray]]:
    """Divide consecutive blocks of one text at a character: the block across it becomes two.

    Returns the blocks, which still join to the text, and the indices of those before ("train") and after ("test").
    """
    before: list[str] = []
    after: list[str] = []
    for block, start in zip(blocks, accumulate((len(b) for b in blocks), initial=0)):
        head, tail = block[: max(cut - start, 0)], block[max(cut - start, 0) :]
        before += [head] if head else []
        after += [tail] if tail else []
    return before + after, {"train": np.arange(len(before)), "test": len(before) + np.arange(len(after))}


_NOT_LIBRARY = {"site-packages", "dist-packages", "__pycache__", "test", "tests", "idle_test"}


def python(folder: Path | None = None) -> Source:
    """The standard library of the running interpreter, read in place; a top-level package is one group."""
    folder = folder or Path(sysconfig.get_path("stdlib"))
    names, sizes, times = [], [], []
    for where, inner, files in os.walk(folder):
        inner[:] = sorted(set(inner) - _NOT_LIBRARY)
        for file in sorted(files):
            path = Path(where) / file
            if path.suffix == ".py" and path.is_file():
                stat = path.stat()
                names.append(path.relative_to(folder).as_posix())
                sizes.append(stat.st_size)
                times.append(stat.st_mtime_ns)
    if not names:
        raise UserError(f"This Python has no source files under {folder}: use another text, such as moby-dick.")
    return Columns(
        "python",
        Spec(kind="text", longest=max(sizes)),
        names,
        {"text": FileColumn(folder, names, text_of)},
        identity=digest(json.dumps([names, sizes, times])),
        groups=[name.split("/")[0].removesuffix(".py") for name in names],
    )


def digits() -> Source:
    """scikit-learn's 1,797 handwritten digits, 8x8, 17 grey levels spread over 0 to 255; the last 360 are held out."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise UserError("digits comes with scikit-learn: run `pip install 'unlabeled[sklearn]'`.") from error
    loaded: Any = load_digits()
    images = np.round(loaded.images * (255 / 16)).astype(np.uint8)[..., None]
    # 1,437 to train is the split of the measured floors: kNN 96.39, ridge 86.39 percent
    return Columns(
        "digits",
        Spec(kind="image", image_size=8, channels=1),
        [str(n) for n in range(len(images))],
        {"image": images},
        identity=digest(images.tobytes(), loaded.target.astype("<i8").tobytes()),
        labels=loaded.target,
        classes=[str(c) for c in range(10)],
        official={"train": np.arange(1437), "test": np.arange(1437, len(images))},
    )


def _sound(name: str) -> tuple[dict[str, Any], list[bytes]]:
    """The description and the FLAC files, in its order, of a shipped tar."""
    about = about_shipped(name)
    with tarfile.open(fileobj=io.BytesIO((SHIPPED / f"{name}.tar").read_bytes())) as tar:
        files = {member.name: tar.extractfile(member) for member in tar if member.isfile()}
        return about, [body.read() for id in about["files"] if (body := files[f"{id}.flac"])]


def clips() -> Source:
    """60 sounds of Sonic Pi's sample set, the first 2 s, 16 kHz; the class is the family (bass drum, tabla ...)."""
    about, waves = _sound("clips")
    return Columns(
        "clips",
        Spec(kind="wave", sample_rate_hz=16_000, longest=about["longest"]),
        about["files"],
        {"wave": waves},
        identity=_shipped_identity("clips.tar", "clips.json"),
        labels=np.array(about["labels"]),
        classes=about["classes"],
    )


def speech() -> Source:
    """Ten English utterances, 34 s at 16 kHz, with what is said as the caption."""
    about, waves = _sound("speech")
    return Columns(
        "speech",
        Spec(kind="wave", sample_rate_hz=16_000, longest=about["longest"]),
        about["files"],
        {"wave": waves, "caption": about["captions"]},
        identity=_shipped_identity("speech.tar", "speech.json"),
    )


_BUILTIN: dict[str, Callable[[], Source]] = {
    "fashion": fashion,
    "digits": digits,
    "clipart": clipart,
    "moby-dick": moby_dick,
    "python": python,
    "clips": clips,
    "speech": speech,
}
