"""Parquet: a column of text, of encoded pictures or of encoded sound, with a column of labels if there is one."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unlabeled.core.batch import Kind, Record, Spec
from unlabeled.core.errors import BadRecord, UserError
from unlabeled.data import image, sound
from unlabeled.data.recognise import HEAD_BYTES, sniff, split_by_name
from unlabeled.data.source import Quarantined, Source
from unlabeled.data.sources.files import FILE_LIMIT, digest_of_files, labels_of, printable, refused, splits
from unlabeled.data.sources.text import TEXT_FIELDS, checked_text

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Table"]

_LABELS = ("label", "labels", "class", "fine_label", "target")
_CAPTIONS = ("caption", "captions", "text")
_KEPT_GROUPS = 2  # row groups held in memory: records are mostly read in order
_MEASURED = 200  # rows looked at for the size of pictures


class Table(Source):
    """Rows of one or several parquet files; files named train and test (`train-00000-of-00002.parquet`) are splits.

    Row groups are read when a row of them is asked for. Pictures and sound are binary columns, or structures with a
    field `bytes`, whose first value is one.
    """

    def __init__(self, paths: Sequence[Path], name: str, quarantined: Sequence[Quarantined] = ()) -> None:
        import pyarrow.parquet as pq

        self.name, self.quarantined = name, list(quarantined)
        self.paths: list[Path] = []
        self._files: list[Any] = []
        for path in paths:
            try:
                file = pq.ParquetFile(path, memory_map=True)
            except Exception as error:  # Arrow's errors, and OSError for what is no parquet
                self.quarantined.append(
                    Quarantined(printable(path.name), f"cannot be read as parquet ({_line(error)})")
                )
                continue
            if self._files and file.schema_arrow.names != self._files[0].schema_arrow.names:
                self.quarantined.append(Quarantined(printable(path.name), "has other columns than the first file"))
                continue
            self.paths.append(path)
            self._files.append(file)
        if not self._files:
            raise UserError(f"{name} cannot be read: it {self.quarantined[0].reason}.")
        # (row groups, 3): file, group within it, rows
        groups = [
            (f, g, file.metadata.row_group(g).num_rows)
            for f, file in enumerate(self._files)
            for g in range(file.num_row_groups)
        ]
        self._groups = np.array(groups, dtype=np.int64).reshape(-1, 3)
        self._starts = np.cumsum([0, *self._groups[:, 2].tolist()])
        self._held: OrderedDict[int, pa.Table | BadRecord] = OrderedDict()
        self._lock = threading.Lock()
        self.kind, self.column = self._main_column()
        names = self._files[0].schema_arrow.names
        self._caption = next((c for c in _CAPTIONS if c in names and c != self.column and self._is_text(c)), None)
        self._read_labels(next((c for c in _LABELS if c in names), None))
        if len(self.paths) > 1:
            of = [split_by_name(path.stem) for path in self.paths]
            self.official = splits(of[f] for f, _, rows in self._groups.tolist() for _ in range(rows))

    # ---- columns ----------------------------------------------------------------------------------------

    def _is_text(self, column: str) -> bool:
        import pyarrow as pa

        type_ = self._files[0].schema_arrow.field(column).type
        type_ = type_.value_type if pa.types.is_dictionary(type_) else type_
        return pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_string_view(type_)

    def _is_bytes(self, column: str) -> bool:
        import pyarrow as pa

        type_ = self._files[0].schema_arrow.field(column).type
        if pa.types.is_struct(type_):
            place = type_.get_field_index("bytes")
            return place >= 0 and pa.types.is_binary(type_.field(place).type)
        return pa.types.is_binary(type_) or pa.types.is_large_binary(type_) or pa.types.is_binary_view(type_)

    def _first_rows(self) -> dict[str, list[Any]]:
        """A few values of each text or bytes column, from the first rows that can be read."""
        names = [n for n in self._files[0].schema_arrow.names if self._is_text(n) or self._is_bytes(n)]
        for file in self._files:
            try:
                rows = next(file.iter_batches(batch_size=32, columns=names), None)
            except Exception:  # a broken first group; its rows are refused one by one later
                continue
            if rows is not None and rows.num_rows:
                return {n: [v for v in rows.column(n).to_pylist() if v is not None] for n in names}
        return {n: [] for n in names}

    def _main_column(self) -> tuple[Kind, str]:
        first = self._first_rows()
        for column, values in first.items():
            if self._is_bytes(column):
                kinds = [sniff(content[:HEAD_BYTES]) for v in values if (content := _bytes_of(v))]
                for kind in ("image", "wave"):
                    if kind in kinds:
                        return kind, column
        texts = [c for c in first if self._is_text(c)]
        for column in TEXT_FIELDS:
            if column in texts:
                return "text", column
        if texts:
            return "text", max(texts, key=lambda c: sum(map(len, first[c])))
        raise UserError(
            f"{self.name} has no column of text, pictures or sound among "
            f"{', '.join(map(printable, self._files[0].schema_arrow.names[:10]))}."
        )

    def _read_labels(self, column: str | None) -> None:
        """Fill `labels` and `classes` from a column of integers or words; names of classes from the file if it says."""
        if column is None:
            return
        values: list[Any] = []
        for file in self._files:
            try:
                values += file.read(columns=[column]).column(column).to_pylist()
            except Exception:  # labels are a bonus: a table without them is still data
                return
        known = {v for v in values if v is not None}
        if not known or not all(isinstance(v, int | str) for v in known) or len(known) > max(2, len(values) // 2):
            return
        names = self._class_names(column)
        if names and all(isinstance(v, int) and -1 <= v < len(names) for v in known):
            self.classes = tuple(map(printable, names))
            self.labels = np.array([-1 if v is None else v for v in values], dtype=np.int64)
        elif all(isinstance(v, int) for v in known):
            ordered = sorted(known)
            place = {v: i for i, v in enumerate(ordered)}
            self.classes = tuple(map(str, ordered))
            self.labels = np.array([-1 if v is None else place[v] for v in values], dtype=np.int64)
        else:
            self.labels, self.classes = labels_of([None if v is None else printable(str(v)) for v in values])

    def _class_names(self, column: str) -> list[str]:
        """Names of classes that the Hugging Face layout keeps in the file's metadata."""
        try:
            about = json.loads((self._files[0].schema_arrow.metadata or {})[b"huggingface"])
            names = about["info"]["features"][column]["names"]
            return [str(n) for n in names] if isinstance(names, list) else []
        except (KeyError, TypeError, ValueError):
            return []

    # ---- rows -------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return int(self._starts[-1])

    def _place(self, index: int) -> tuple[int, int]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        group = int(np.searchsorted(self._starts, index, side="right")) - 1
        return group, index - int(self._starts[group])

    def _rows(self, group: int) -> pa.Table:
        with self._lock:
            if group not in self._held:
                file, within, _ = self._groups[group].tolist()
                columns = [self.column, *([self._caption] if self._caption else [])]
                try:
                    self._held[group] = self._files[file].read_row_group(within, columns=columns)
                except Exception as error:  # a broken page fails for every row of the group
                    self._held[group] = BadRecord(f"cannot be read ({_line(error)})")
                while len(self._held) > _KEPT_GROUPS:
                    self._held.popitem(last=False)
            self._held.move_to_end(group)
            held = self._held[group]
        if isinstance(held, BadRecord):
            raise BadRecord(str(held))
        return held

    def group(self, index: int) -> str:
        file = int(self._groups[self._place(index)[0], 0])
        first = int(self._starts[np.flatnonzero(self._groups[:, 0] == file)[0]])
        return f"{printable(self.paths[file].name)}:{index - first}"

    def __getitem__(self, index: int) -> Record:
        group, row = self._place(index)
        try:
            rows = self._rows(group)
            value = rows.column(self.column)[row].as_py()
            if self.kind == "text":
                value = checked_text("" if value is None else value)
            elif not (value := _bytes_of(value)):
                raise BadRecord("is empty")
            if len(value) > FILE_LIMIT:
                raise BadRecord(f"has {len(value):,} bytes, more than {FILE_LIMIT:,}")
            fields: dict[str, Any] = {self.kind: value}
            if self._caption and (caption := rows.column(self._caption)[row].as_py()):
                fields["caption"] = caption
        except BadRecord as error:
            raise refused(self.group(index), str(error)) from error
        except UnicodeDecodeError as error:
            raise refused(self.group(index), "is not UTF-8 text") from error
        return Record(self.group(index), fields, -1 if self.labels is None else int(self.labels[index]))

    def spec(self) -> Spec:
        """Measured on the first rows, up to 200."""
        measured: list[tuple] = []
        longest = 0
        for index in range(min(len(self), _MEASURED)):
            try:
                value = self[index].fields[self.kind]
                if self.kind == "text":
                    longest = max(longest, len(value))
                else:
                    measured.append(image.measure(value) if self.kind == "image" else sound.measure(value))
            except BadRecord:
                continue
        if self.kind == "image":
            side, channels = image.square_of(measured)
            return Spec(kind="image", examples=len(self), image_size=side, channels=channels)
        rates = [rate_hz for _, rate_hz, _ in measured]
        longest = max([longest, *(round(seconds * rate_hz) for seconds, rate_hz, _ in measured)])
        rate_hz = max(set(rates), key=rates.count) if rates else 0
        return Spec(kind=self.kind, examples=len(self), sample_rate_hz=rate_hz, longest=longest)

    def identity(self) -> str:
        return digest_of_files(self.paths)


def _bytes_of(value: Any) -> bytes:
    """The bytes of a binary value or of a structure with a field `bytes`; nothing where there are none."""
    value = value.get("bytes") if isinstance(value, dict) else value
    return value if isinstance(value, bytes) else b""


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:100] or type(error).__name__
