import contextlib
import gzip
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unlabeled.core.errors import BadRecord
from unlabeled.data.formats import read_dictd, read_idx


def idx(array: np.ndarray, code: int) -> bytes:
    big = array.astype(array.dtype.newbyteorder(">"))
    return bytes([0, 0, code, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + big.tobytes()


@pytest.mark.parametrize(
    ("code", "kind"), [(0x08, "u1"), (0x09, "i1"), (0x0B, "i2"), (0x0C, "i4"), (0x0D, "f4"), (0x0E, "f8")]
)
@pytest.mark.parametrize("packed", [False, True])
def test_idx_of_every_type_comes_back(tmp_path, code, kind, packed):
    array = np.random.default_rng(0).integers(-100 if kind != "u1" else 0, 100, (5, 3, 2)).astype(kind)
    data = idx(array, code)
    data = gzip.compress(data) if packed else data
    (tmp_path / "file").write_bytes(data)
    for source in (data, tmp_path / "file", str(tmp_path / "file")):
        found = read_idx(source)
        assert found.dtype == np.dtype(kind) and found.dtype.isnative
        np.testing.assert_array_equal(found, array)


GOOD = idx(np.arange(24, dtype=np.uint8).reshape(2, 3, 4), 8)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not an IDX"),
        (b"\x89PNG\r\n\x1a\n", "not an IDX"),
        (b"\0\0\x07\x01\0\0\0\1a", "not an IDX"),
        (b"\0\0\x08\0", "not an IDX"),
        (GOOD[:9], "header cut short"),
        (GOOD[:-1], "only 23"),
        (GOOD + b"x", "more"),
        (gzip.compress(GOOD, mtime=0)[:-12], "unreadable"),
        (b"\x1f\x8b" + b"z" * 50, "unreadable"),
        (b"\0\0\x08\x03" + b"\xff" * 12, "asks for"),
    ],
)
def test_what_is_not_idx_is_refused_with_the_reason(data, reason):
    with pytest.raises(BadRecord, match=reason):
        read_idx(data)


def test_missing_file_is_a_bad_record(tmp_path):
    with pytest.raises(BadRecord, match="unreadable"):
        read_idx(tmp_path / "none")


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=64))
def test_garbage_never_raises_anything_else(data):
    with contextlib.suppress(BadRecord):
        read_idx(b"\0\0\x08" + data)


ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


def base64(n: int) -> str:
    return (base64(n // 64) if n >= 64 else "") + ALPHABET[n % 64]


@pytest.mark.parametrize("packed", [False, True])
def test_dictd_articles_in_order_once_each(tmp_path, packed):
    articles = [b"about this dictionary\n", "fjord \u00e6\n".encode(), b"caf\xe9 (latin-1)\n", b"x" * 5000]
    starts = np.cumsum([0, *map(len, articles)]).tolist()
    entries = [("00-database-info", 0), ("zebra", 3), ("fjord", 1), ("fiord", 1), ("cafe", 2)]
    lines = [f"{word}\t{base64(starts[n])}\t{base64(len(articles[n]))}" for word, n in entries]
    (tmp_path / "d.index").write_text("\n".join(lines) + "\n", encoding="utf-8")
    body = b"".join(articles)
    (tmp_path / "d.dict").write_bytes(gzip.compress(body) if packed else body)
    found = read_dictd(tmp_path / "d.dict", tmp_path / "d.index")
    assert found == [("fjord", "fjord \u00e6\n"), ("cafe", "caf\u00e9 (latin-1)\n"), ("zebra", "x" * 5000)]


@pytest.mark.parametrize(
    ("line", "reason"), [("word A", "TAB"), ("word\tA\t!", "TAB"), ("word\tA\tB\tC", "TAB"), ("word\tA\tCA", "behind")]
)
def test_dictd_index_that_is_wrong_is_refused(tmp_path, line, reason):
    (tmp_path / "d.dict").write_bytes(b"short")
    (tmp_path / "d.index").write_text(line + "\n")
    with pytest.raises(BadRecord, match=reason):
        read_dictd(tmp_path / "d.dict", tmp_path / "d.index")
