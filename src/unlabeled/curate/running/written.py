"""Documents and rows of the ledger on disk, written a batch at a time and put in place whole."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unlabeled.curate.document import Document
from unlabeled.curate.ledger import schema

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Documents", "Rows", "batches", "put", "safe", "stored"]

BATCH_CHARACTERS = 4 << 20  # of text held before it is written
_BATCH_ROWS = 1 << 14


def put(path: Path, content: str | bytes) -> None:
    """Write a file whole or not at all."""
    temporary = path.with_name(f"{path.name}.part")
    temporary.write_bytes(content.encode("utf-8", "replace") if isinstance(content, str) else content)
    temporary.replace(path)


def safe(text: str) -> str:
    """A text that can be encoded: halves of surrogate pairs become marks of replacement."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


class Documents:
    """Documents between two passes, in Arrow's file format."""

    def __init__(self, path: Path) -> None:
        import pyarrow as pa

        path.parent.mkdir(parents=True, exist_ok=True)
        names = ["id", "source", "text", "about", "edits"]
        fields = [("number", pa.uint64()), ("read", pa.int64()), *((name, pa.large_string()) for name in names)]
        self.path, self.count = path, 0
        self._schema = pa.schema(fields)
        self._rows: list[tuple[Any, ...]] = []
        self._characters = 0
        self._part = path.with_suffix(".part")
        self._writer = pa.ipc.new_file(self._part, self._schema, options=pa.ipc.IpcWriteOptions(compression="lz4"))

    def add(self, number: int, document: Document, read: int, edits: Mapping[str, int]) -> None:
        about = json.dumps(document.about, ensure_ascii=False) if document.about else ""
        told = json.dumps(edits, ensure_ascii=False) if edits else ""
        self._rows.append(
            (number, read, safe(document.id), safe(document.source), safe(document.text), safe(about), safe(told))
        )
        self._characters += len(document.text)
        self.count += 1
        if self._characters > BATCH_CHARACTERS or len(self._rows) >= _BATCH_ROWS:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        if self._rows:
            columns = [pa.array(column, field.type) for column, field in zip(zip(*self._rows), self._schema)]
            self._writer.write_batch(pa.record_batch(columns, schema=self._schema))
        self._rows, self._characters = [], 0

    def close(self) -> None:
        self._flush()
        self._writer.close()
        self._part.replace(self.path)


def batches(path: Path) -> Iterator[pa.RecordBatch]:
    """The batches that `Documents` has written; nothing where there is no such file."""
    import pyarrow as pa

    with pa.OSFile(str(path)) as file, pa.ipc.open_file(file) as reader:
        for place in range(reader.num_record_batches):
            yield reader.get_batch(place)


def stored(path: Path) -> Iterator[tuple[int, Document, int, Counter[str]]]:
    """(number, document, characters when it was read, edits so far) of what `Documents` has written."""
    for batch in batches(path):
        for row in range(batch.num_rows):
            number, read, id, source, text, about, edits = (column[row].as_py() for column in batch.columns)
            document = Document(id, text, source, json.loads(about) if about else None)
            yield number, document, read, Counter(json.loads(edits) if edits else {})


class Rows:
    """Rows of the ledger (`ledger.schema`), as parquet."""

    def __init__(self, path: Path) -> None:
        import pyarrow.parquet as pq

        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self._schema = path, schema()
        self._part = path.with_suffix(".part")
        self._writer = pq.ParquetWriter(self._part, self._schema, compression="zstd")
        self._rows: list[tuple[Any, ...]] = []
        self.count = 0

    def add(
        self,
        number: int,
        id: str,
        source: str,
        outcome: str,
        rule: str = "",
        reason: str = "",
        value: float = math.nan,
        instead: int | None = None,
        match: str = "",
        read: int = 0,
        kept: int = 0,
        edits: Mapping[str, int] | str | None = None,
        copies: int = 0,
    ) -> None:
        told = edits if isinstance(edits, str) else json.dumps(edits, ensure_ascii=False) if edits else ""
        measured = None if math.isnan(value) else float(value)
        names = (safe(id), safe(source), outcome, rule, safe(reason))
        self._rows.append((number, *names, measured, instead, safe(match), read, kept, safe(told), copies))
        self.count += 1
        if len(self._rows) >= _BATCH_ROWS:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        if self._rows:
            columns = [pa.array(column, field.type) for column, field in zip(zip(*self._rows), self._schema)]
            self._writer.write_table(pa.table(columns, schema=self._schema))
        self._rows = []

    def close(self) -> None:
        self._flush()
        self._writer.close()
        self._part.replace(self.path)
