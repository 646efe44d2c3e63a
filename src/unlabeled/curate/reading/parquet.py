"""Documents in parquet files: one a row."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from unlabeled.core.errors import BadRecord
from unlabeled.curate.document import Document
from unlabeled.curate.reading.decode import DOCUMENT_BYTES, FIELD_ROWS, describes
from unlabeled.curate.reading.unpack import BLOCK, line_of, opened
from unlabeled.data.source import Quarantined
from unlabeled.data.sources.text import TEXT_FIELDS, checked_text

__all__ = ["rows_of", "table_of"]


def table_of(path: str) -> Any:
    """Raises:
    BadRecord: where the file is no parquet.
    """
    import pyarrow.parquet as pq

    with opened(path):  # no pipe, no device
        pass
    try:
        return pq.ParquetFile(path, buffer_size=BLOCK, pre_buffer=False)  # pages as they are asked for
    except Exception as error:  # Arrow's errors, and OSError for what is no parquet
        raise BadRecord(f"cannot be read as parquet ({line_of(error)})") from error


def _columns(table: Any) -> tuple[list[str], list[str]]:
    """Names of the columns of text, and of all scalar columns."""
    import pyarrow.types as of

    texts, scalars = [], []
    for field in table.schema_arrow:
        type_ = field.type.value_type if of.is_dictionary(field.type) else field.type
        if of.is_string(type_) or of.is_large_string(type_) or of.is_string_view(type_):
            texts.append(field.name)
        elif of.is_integer(type_) or of.is_floating(type_) or of.is_boolean(type_) or of.is_temporal(type_):
            scalars.append(field.name)
    return texts, [*texts, *scalars]


def rows_of(path: str, name: str, source: str, start: int, stop: int, first: int) -> Iterator[Document | Quarantined]:
    """The documents of row groups start to stop, of which the first row has the number `first`.

    Raises:
        BadRecord: where nothing can be read.
    """
    with table_of(path) as table:
        texts, scalars = _columns(table)
        if not texts:
            raise BadRecord("has no column of text")
        if stop > table.num_row_groups:
            raise BadRecord("has changed while it was read")
        column = _text_column(table, texts)
        number = first
        for group in range(start, stop):
            about = table.metadata.row_group(group)
            end = number + about.num_rows
            # as many rows at once as make about a block
            size = max(1, min(1024, BLOCK * about.num_rows // max(1, about.total_byte_size)))
            try:
                for batch in table.iter_batches(batch_size=size, row_groups=[group], columns=scalars):
                    yield from _batch(name, source, batch, column, number)
                    number += batch.num_rows
            except Exception as error:  # a broken page; the rows behind it in its group cannot be found
                yield Quarantined(f"{name}:{number}", f"and the rows to {end - 1:,} cannot be read ({line_of(error)})")
            number = end


def _text_column(table: Any, texts: list[str]) -> str:
    if known := [name for name in TEXT_FIELDS if name in texts]:
        return known[0]
    try:
        batch = next(table.iter_batches(batch_size=FIELD_ROWS, columns=texts))
        lengths = {name: sum(map(len, filter(None, batch.column(name).to_pylist()))) for name in texts}
        return max(texts, key=lambda name: lengths[name])
    except Exception:  # a broken or empty first group; its rows are refused later
        return texts[0]


def _batch(name: str, source: str, batch: Any, column: str, first: int) -> Iterator[Document | Quarantined]:
    columns = batch.schema.names
    values = [_values(batch.column(place)) for place in range(len(columns))]
    for place, row in enumerate(zip(*values)):
        id = f"{name}:{first + place}"
        told = dict(zip(columns, row))
        text = told.pop(column, None)
        try:
            if isinstance(text, BadRecord):
                raise text
            if text is not None and len(text) > DOCUMENT_BYTES:
                raise BadRecord(f"has {len(text):,} characters, more than {DOCUMENT_BYTES:,}")
            text = checked_text("" if text is None else text)
            if text.isspace():
                raise BadRecord("is blank")
        except BadRecord as error:
            yield Quarantined(id, str(error))
            continue
        told = {key: value.isoformat() if hasattr(value, "isoformat") else value for key, value in told.items()}
        yield Document(id, text, source, {key: value for key, value in told.items() if describes(value)})


def _values(column: Any) -> list[Any]:
    try:
        return column.to_pylist()
    except (ValueError, OverflowError, KeyError, ImportError):  # not UTF-8, no such day: value by value
        return [_value(scalar) for scalar in column]


def _value(scalar: Any) -> Any:
    try:
        return scalar.as_py()
    except (ValueError, OverflowError, KeyError, ImportError):
        return BadRecord("is not UTF-8 text")
