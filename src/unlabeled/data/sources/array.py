"""Arrays of images in files: IDX (as MNIST is kept), `.npz` and `.npy`. Nothing is ever unpickled."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from unlabeled.core.batch import Record, Spec
from unlabeled.core.errors import BadRecord, UserError
from unlabeled.data.image import LARGEST_SIDE, to_uint8
from unlabeled.data.recognise import split_by_name
from unlabeled.data.source import Quarantined, Source
from unlabeled.data.sources.files import digest_of_files, printable, refused

__all__ = ["Arrays", "is_idx", "open_idx", "open_npy", "open_npz"]

_IMAGE_KEYS = ("x", "images", "data", "image", "X", "arr_0")
_LABEL_KEYS = ("y", "labels", "label", "targets", "target", "Y")
_UNPACKED_LIMIT = 8 << 30  # bytes that an .npz may take in memory
_PROBED = 256  # images that say where white is


class Arrays(Source):
    """Images stacked in one array a split; ids are `train/17`, or `17` where there is one array.

    parts: name of the split to images (n, h, w), (n, h, w, c) or (n, c, h, w) with c of 1, 3 or 4; uint8, or numbers
        from 0 to 1 or from 0 to 255.
    labels: name of the split to (n,) integers; none where nothing is known.
    """

    kind = "image"

    def __init__(
        self,
        parts: Mapping[str, np.ndarray],
        labels: Mapping[str, np.ndarray],
        name: str,
        paths: Sequence[Path],
        quarantined: Sequence[Quarantined] = (),
    ) -> None:
        self.name, self.paths, self.quarantined = name, list(paths), quarantined
        self._names = list(parts)
        self._images = [_channels_last(array, name) for array in parts.values()]
        self._starts = np.cumsum([0, *(len(array) for array in self._images)])
        if len({array.shape[1:] for array in self._images}) > 1:
            raise UserError(f"The arrays in {name} hold images of different sizes; give files that agree.")
        self._top = _white(self._images, name)
        if {"train", "test"} <= set(self._names):
            runs = zip(self._names, self._starts[:-1], self._starts[1:])
            self.official = {part: np.arange(start, stop) for part, start, stop in runs}
        known = [np.asarray(labels[part]).reshape(-1) if part in labels else None for part in self._names]
        for array, given in zip(self._images, known):
            if given is not None and (len(given) != len(array) or given.dtype.kind not in "iubUS"):
                raise UserError(f"{name} has {len(array):,} images and labels {given.dtype} of shape {given.shape}.")
        given = [labels_ for labels_ in known if labels_ is not None]
        if given:
            values = sorted(set(np.concatenate(given).tolist()))
            place = {v: i for i, v in enumerate(values)}
            self.classes = tuple(printable(str(v)) for v in values)
            self.labels = np.concatenate(
                [
                    np.full(len(array), -1, np.int64)
                    if labels_ is None
                    else np.array([place[v] for v in labels_.tolist()], dtype=np.int64)
                    for array, labels_ in zip(self._images, known)
                ]
            )

    def __len__(self) -> int:
        return int(self._starts[-1])

    def _place(self, index: int) -> tuple[int, int]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        part = int(np.searchsorted(self._starts, index, side="right")) - 1
        return part, index - int(self._starts[part])

    def group(self, index: int) -> str:
        part, row = self._place(index)
        return f"{self._names[part]}/{row}" if self._names[part] else str(row)

    def __getitem__(self, index: int) -> Record:
        part, row = self._place(index)
        try:
            image = to_uint8(np.asarray(self._images[part][row]), self._top)
        except BadRecord as error:
            raise refused(self.group(index), str(error)) from error
        return Record(self.group(index), {"image": image}, -1 if self.labels is None else int(self.labels[index]))

    def spec(self) -> Spec:
        height, width = self._images[0].shape[1:3]
        channels = 3 if self._images[0].ndim == 4 and self._images[0].shape[3] > 1 else 1
        side = min(height, width, LARGEST_SIDE)
        return Spec(kind="image", examples=len(self), image_size=side, channels=channels)

    def identity(self) -> str:
        return digest_of_files(self.paths)


def _channels_last(array: np.ndarray, name: str) -> np.ndarray:
    shape = array.shape
    if array.dtype.kind in "buif" and 0 not in shape[1:]:
        if len(shape) == 3:
            return array
        # Four channels come last in this order: an axis of four may be a side of very small images.
        for channels, axis in ((1, 3), (3, 3), (1, 1), (3, 1), (4, 3), (4, 1)):
            if len(shape) == 4 and shape[axis] == channels:
                return array if axis == 3 else array.transpose(0, 2, 3, 1)
    raise UserError(
        f"{name} holds an array {array.dtype} of shape {shape}; give images as numbers (n, height, width), "
        "(n, height, width, channels) or (n, channels, height, width)."
    )


def _white(arrays: Sequence[np.ndarray], name: str) -> float:
    """1 or 255: where white is in arrays of numbers, by the median of the maxima of some images.

    Raises:
        UserError: where most images have values that fit neither.
    """
    array = max(arrays, key=len)
    if array.dtype == np.uint8 or not len(array):
        return 255.0
    if array.dtype.kind == "b":
        return 1.0
    some = np.asarray(array[:: max(1, len(array) // _PROBED)], dtype=np.float64).reshape(-1, *array.shape[1:])
    some = some[np.isfinite(some).all(axis=tuple(range(1, some.ndim)))]
    if not len(some):
        return 255.0  # every one of them is refused for its NaN
    lowest, highest = (float(np.median(f(some.reshape(len(some), -1), axis=1))) for f in (np.min, np.max))
    top = 1.0 if array.dtype.kind == "f" and highest <= 1.001 else 255.0
    if lowest < -1e-3 * top or highest > 1.001 * top:
        raise UserError(f"{name} has pixels from {lowest:.4g} to {highest:.4g}; bring them to 0 to 1, or 0 to 255.")
    return top


def open_npy(path: Path) -> Arrays:
    """One array of images; mapped, not read."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, SyntaxError, MemoryError, OverflowError, TypeError) as error:
        raise UserError(f"{printable(path.name)} cannot be read as an array; save it again with numpy.save.") from error
    return Arrays({"": array}, {}, printable(path.name), [path])


def open_npz(path: Path) -> Arrays:
    """Images under x, images or data (or x_train and x_test), labels under y or labels (or y_train and y_test)."""
    name = printable(path.name)
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
        if unpacked > _UNPACKED_LIMIT:
            raise UserError(f"{name} unpacks to {unpacked:,} bytes, too much for memory; save the array as .npy.")
        with np.load(path, allow_pickle=False) as file:
            keys = list(file)
            parts, labels = {}, {}
            for part, ending in (("train", "_train"), ("test", "_test"), ("", "")):
                image = next((k + ending for k in _IMAGE_KEYS if k + ending in keys), None)
                if part and image is None:  # train_images, test_labels and the like
                    image = next((f"{part}_{k}" for k in _IMAGE_KEYS if f"{part}_{k}" in keys), None)
                if image is None or ("train" in parts and not part):
                    continue
                parts[part] = file[image]
                label = next((k for y in _LABEL_KEYS for k in (y + ending, f"{part}_{y}") if k in keys), None)
                if label:
                    labels[part] = file[label]
            if not parts and keys:
                parts = {"": file[keys[0]]} if len(keys) == 1 else {}
    except UserError:
        raise
    except Exception as error:  # torn archives, pickles and false headers fail in as many ways
        raise UserError(
            f"{name} cannot be read ({type(error).__name__}); save plain arrays with numpy.savez."
        ) from error
    if not parts:
        listed = ", ".join(map(printable, keys[:8])) or "nothing"
        raise UserError(f"{name} holds {listed}; name the images x (or x_train and x_test) and the labels y.")
    return Arrays(parts, labels, name, [path])


def is_idx(path: Path, head: bytes) -> bool:
    """Whether a file is IDX, by its name and, where it is not compressed, its first bytes."""
    name = path.name.lower()
    named = "-idx" in name or name.removesuffix(".gz").endswith((".idx", "ubyte"))
    packed = head[:2] == b"\x1f\x8b"
    return named and (packed or head[:3] == b"\0\0\x08")


def _labels_beside(path: Path) -> Path | None:
    """The file of labels that belongs to a file of images: the same name with labels and one axis."""
    name = path.name
    for old, new in (("images", "labels"), ("idx3", "idx1"), ("idx4", "idx1")):
        name = name.replace(old, new)
    stem = name.removesuffix(".gz")
    return next((p for n in (stem, stem + ".gz") if (p := path.with_name(n)) != path and p.is_file()), None)


def open_idx(paths: Sequence[Path], name: str, quarantined: Sequence[Quarantined] = ()) -> Arrays:
    """IDX files of images, gzipped or not; labels are found beside them by name (`train-labels-idx1-ubyte.gz`).

    Several files are taken as splits by their names (train, t10k or test).
    """
    from unlabeled.data.formats import read_idx

    images = [p for p in paths if "label" not in p.name.lower()]
    parts: dict[str, np.ndarray] = {}
    labels: dict[str, np.ndarray] = {}
    used: list[Path] = []
    bad = list(quarantined)
    for path in sorted(images):
        part = "" if len(images) == 1 else split_by_name(path.name) or printable(path.name)
        if part in parts:
            bad.append(Quarantined(printable(path.name), "is a second array of the same split"))
            continue
        try:
            parts[part] = read_idx(path)
            used.append(path)
            if beside := _labels_beside(path):
                labels[part] = read_idx(beside)
                used.append(beside)
        except Exception as error:  # a torn gzip, a false header: the reader's errors are many
            reason = " ".join(str(error).split())[:100]
            bad.append(Quarantined(printable(path.name), f"cannot be read as IDX ({reason})"))
            parts.pop(part, None)
    if not parts:
        raise UserError(f"No images in {name} can be read: {bad[0].reason if bad else 'there are only labels'}.")
    return Arrays(parts, labels, name, used, bad)
