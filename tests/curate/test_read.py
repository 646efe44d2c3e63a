"""Reading against what was written: every kind, cut anywhere, broken anywhere, in bounded memory."""

import bz2
import dataclasses
import gzip
import io
import json
import lzma
import os
import pickle
import subprocess
import sys
import tarfile
import tracemalloc
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unlabeled.core.errors import UserError
from unlabeled.curate.document import Document
from unlabeled.curate.reading import contents, decode, read
from unlabeled.curate.reading.read import Task, documents, plan
from unlabeled.data.source import Quarantined

PACKERS = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}
try:
    import zstandard
except ImportError:
    pass
else:
    PACKERS["zst"] = zstandard.compress

MANY = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def folder(tmp_path):
    """Writes files, emptying the folder before, as one test may be run on many examples."""
    count = 0

    def write(files):
        nonlocal count
        count += 1
        root = tmp_path / str(count) / "corpus"
        for name, content in files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return root

    return write


def everything(*places, step=read.TASK_BYTES):
    """All documents and all that was quarantined, in the order of the plan."""
    tasks, refused = plan([place if isinstance(place, tuple) else ("", place) for place in places], step)
    items = [item for task in tasks for item in documents(task)]
    return [i for i in items if isinstance(i, Document)], [*refused, *(i for i in items if isinstance(i, Quarantined))]


def facts(found):
    return [(d.id, d.text, d.source, dict(d.about)) for d in found]


def json_lines(count, text="document {}"):
    rows = [{"text": text.format(i), "url": f"http://a/{i}", "score": i / 2, "tags": ["x"]} for i in range(count)]
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def tar_of(members, mode="w"):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return file.getvalue()


def zip_of(members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def parquet_of(columns, rows=10):
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file, row_group_size=rows)
    return file.getvalue()


def record(number, body, kind=b"response", media=b"text/html; charset=utf-8", status=b"200 OK", more=b""):
    if kind == b"response":
        body = b"HTTP/1.1 " + status + b"\r\nContent-Type: " + media + b"\r\n" + more + b"\r\n" + body
        media = b"application/http; msgtype=response"
    return (
        b"WARC/1.0\r\nWARC-Type: %s\r\nWARC-Record-ID: <urn:uuid:r%d>\r\nWARC-Target-URI: http://a/%d\r\n"
        b"WARC-Date: 2020-01-01T00:00:00Z\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s\r\n\r\n"
    ) % (kind, number, number, media, len(body), body)


# ---- every kind


def test_lines_of_json(folder):
    root = folder({"web/a.jsonl": json_lines(3), "web/b.ndjson": json_lines(1), "web/c4.json": json_lines(2)})
    found, bad = everything(root)
    assert [d.id for d in found] == [
        "web/a.jsonl:1", "web/a.jsonl:2", "web/a.jsonl:3", "web/b.ndjson:1", "web/c4.json:1", "web/c4.json:2",
    ]  # fmt: skip
    assert found[1].text == "document 1" and not bad
    assert found[1].about == {"url": "http://a/1", "score": 0.5}  # scalars, and nothing else


@pytest.mark.parametrize("ending", PACKERS)
def test_packed_files(folder, ending):
    pack = PACKERS[ending]
    content = pack(json_lines(2)) + pack(json_lines(1, "second stream {}"))  # streams put together are one
    found, bad = everything(folder({f"a.jsonl.{ending}": content, f"b.txt.{ending}": pack(b"a text")}))
    assert [d.text for d in found] == ["document 0", "document 1", "second stream 0", "a text"] and not bad
    assert [d.id for d in found] == [f"a.jsonl.{ending}:{n}" for n in (1, 2, 3)] + [f"b.txt.{ending}"]


def test_whole_files(folder):
    found, bad = everything(
        folder({
            "a.txt": b"text\r\n", "b.md": b"# x", "c.rst": b"x\n=", "d.html": b"<p>x</p>", "e.py": b"x = 1",
            "f.mbox": b"From a\n\nx", "README": b"read me", "package.json": b'{"name": "x"}', "g.tar": b"",
            "picture.png": b"\x89PNG\r\n\x1a\n\0\0", "h.bin": bytes(range(256)), ".git/config": b"hidden",
        })
    )  # fmt: skip
    formats = {d.id: (d.text, d.about.get("format"), d.about.get("language")) for d in found}
    assert formats == {
        "a.txt": ("text\r\n", "text", None),
        "b.md": ("# x", "markdown", None),
        "c.rst": ("x\n=", "rst", None),
        "d.html": ("<p>x</p>", "html", None),
        "e.py": ("x = 1", "code", "python"),
        "f.mbox": ("From a\n\nx", "text", None),
        "README": ("read me", None, None),
        "package.json": ('{"name": "x"}', "code", "json"),
    }
    assert {q.id: q.reason for q in bad} == {
        "g.tar": "is empty", "picture.png": "is an image", "h.bin": "is of no known kind",
    }  # fmt: skip


def test_tables(folder):
    columns = {
        "link": ["u"] * 25, "body": [f"row {i}" for i in range(24)] + [None], "n": range(25),
        "when": pa.array(["2020-01-01"] * 25).cast("date32"), "many": [[1]] * 25,
    }  # fmt: skip
    found, bad = everything(folder({"a.parquet": parquet_of(columns)}), step=100)
    assert [d.id for d in found] == [f"a.parquet:{i}" for i in range(24)]
    assert found[12].text == "row 12" and found[12].about == {"link": "u", "n": 12, "when": "2020-01-01"}
    assert bad == [Quarantined("a.parquet:24", "is empty")]


def test_the_field_of_text_is_the_longest_where_no_name_is_known(folder):
    rows = [{"title": "t" * 9, "story": "s"}, {"title": "t", "story": "s" * 99}]
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    table = parquet_of({key: [row[key] for row in rows] for key in rows[0]})
    found, _ = everything(folder({"a.jsonl": lines, "b.parquet": table}))
    assert [d.text for d in found] == ["s", "s" * 99] * 2  # of the file, not of each line
    assert found[0].about == {"title": "t" * 9}


def test_archives(folder):
    members = {"x/a.txt": b"in a folder", "b.jsonl": json_lines(2), "c.html.gz": gzip.compress(b"<p>y")}
    hostile = {"z.zip": zip_of({"a": b"b"}), "t.parquet": parquet_of({"text": ["x"]}), "d.png": b"\x89PNG\r\n\x1a\n"}
    for name, content in {
        "a.tar": tar_of(members | hostile),
        "a.tar.gz": tar_of(members | hostile, "w:gz"),
        "a.tgz": tar_of(members | hostile, "w:gz"),
        "a.zip": zip_of(members | hostile),
    }.items():
        found, bad = everything(folder({name: content}))
        assert [d.id for d in found] == [f"{name}!{x}" for x in ("x/a.txt", "b.jsonl:1", "b.jsonl:2", "c.html.gz")]
        assert [d.about.get("format") for d in found] == ["text", None, None, "html"]
        assert [q.id for q in bad] == [f"{name}!{x}" for x in hostile]


def test_members_without_a_name(folder):
    named = zip_of({"A": b"text", "b.txt": b"b"})
    found, bad = everything(folder({"a.zip": named.replace(b"A", b"\0")}))  # where zipfile ends a name
    assert [d.id for d in found] == ["a.zip!", "a.zip!b.txt"] and not bad


def test_pages_of_warc(folder):
    japanese = "<p>日本語のページ</p>"
    chunked = b"5\r\n<p>ab\r\n6\r\ncd</p>\r\n0\r\n\r\n"
    packed = gzip.compress(b"<p>packed</p>")
    records = [
        record(0, b"software: x", b"warcinfo", b"application/warc-fields"),
        record(1, b"<p>one</p>"),
        record(2, japanese.encode("cp932"), media=b"text/html; charset=Shift_JIS"),
        record(3, b"plain", b"conversion", b"text/plain"),
        record(4, chunked, more=b"Transfer-Encoding: chunked\r\n"),
        record(5, packed, more=b"Content-Encoding: gzip\r\n"),
        record(6, b"<p>gone</p>", status=b"404 Not Found"),
        record(7, b"\x89PNG", media=b"image/png"),
        record(1, b"<p>again</p>"),
    ]
    for name, content in {
        "x.warc": b"".join(records),
        "x.warc.gz": b"".join(map(gzip.compress, records)),
    }.items():
        found, bad = everything(folder({name: content}))
        assert [(d.id, d.text) for d in found] == [
            (f"{name}:r1", "<p>one</p>"), (f"{name}:r2", japanese), (f"{name}:r3", "plain"),
            (f"{name}:r4", "<p>abcd</p>"), (f"{name}:r5", "<p>packed</p>"),
        ]  # fmt: skip
        assert found[0].about == {"url": "http://a/1", "date": "2020-01-01T00:00:00Z", "format": "html"}
        assert found[2].about["format"] == "text"
        assert [(q.id, q.reason) for q in bad] == [
            (f"{name}:r6", "answers with status 404"), (f"{name}:r7", "is image/png, not HTML or text"),
            (f"{name}:r1", "has the id of an earlier record"),
        ]  # fmt: skip


def test_records_of_warc_agree_with_fastwarc(folder):
    fastwarc = pytest.importorskip("fastwarc.warc")
    rng = np.random.default_rng(0)
    pages = [
        b"<p>" + bytes(rng.integers(97, 123, size, np.uint8)) + b"\r\n\r\nWARC/1.0\r\n</p>"
        for size in range(0, 9000, 700)
    ]
    content = b"".join(gzip.compress(record(i, page)) for i, page in enumerate(pages))
    found, bad = everything(folder({"x.warc.gz": content}))
    theirs = [(r.record_id, r.reader.read().decode()) for r in fastwarc.ArchiveIterator(io.BytesIO(content))]
    assert [(f"<urn:uuid:{d.id.partition(':')[2]}>", d.text) for d in found] == theirs and not bad


def test_reading_goes_on_behind_garbage_in_warc(folder):
    found, bad = everything(folder({"x.warc": record(1, b"<p>a") + b"garbage\r\n" * 3 + record(2, b"<p>b")}))
    assert [d.text for d in found] == ["<p>a", "<p>b"]
    assert [q.reason for q in bad] == ["is 21 bytes that belong to no record"]


# ---- the plan


def test_names_of_sources(folder):
    root = folder({"web/deep/a.txt": b"a", "b.txt": b"b"})
    (root / "file.x.jsonl").write_bytes(json_lines(1))
    assert [(d.id, d.source) for d in everything(root)[0]] == [
        ("b.txt", "corpus"), ("file.x.jsonl:1", "corpus"), ("web/deep/a.txt", "web"),
    ]  # fmt: skip
    named, _ = everything(("books", root / "web"), ("one", root / "file.x.jsonl"))
    assert [(d.id, d.source) for d in named] == [("books/deep/a.txt", "books"), ("one/file.x.jsonl:1", "one")]
    assert [(d.id, d.source) for d in everything(root / "file.x.jsonl")[0]] == [("file.x.jsonl:1", "file")]
    with pytest.raises(UserError, match="own name"):
        plan([("a", root), ("a", root / "web")])
    with pytest.raises(UserError, match="slash"):
        plan([("a/b", root)])
    with pytest.raises(UserError, match="no file or folder"):
        plan([("", root / "missing")])


def test_tasks_travel_and_tell_changes(folder):
    files = {"a.jsonl": json_lines(50), "b.txt": b"x", "c.parquet": parquet_of({"text": list("abcdefghij")}, 2)}
    root = folder(files)
    tasks, _ = plan([("", root)], 500)
    assert len(tasks) > 4 and plan([("", root)], 500)[0] == tasks
    assert len({task.fingerprint for task in tasks}) == len(tasks)
    for task in tasks:
        assert pickle.loads(pickle.dumps(task)) == task
        assert Task.of(json.loads(json.dumps(dataclasses.asdict(task)))) == task
    before = [task.fingerprint for task in tasks]
    os.utime(root / "b.txt", ns=(1, 1))
    after = [task.fingerprint for task in plan([("", root)], 500)[0]]
    assert sum(a != b for a, b in zip(before, after)) == 1


@given(st.lists(st.sampled_from([b"", b" ", b'{"text": "a"}', b'{"text": "\xc3\xa9"}', b"x" * 40, b"[]"])), st.data())
@MANY
def test_cuts_change_nothing(folder, lines, data):
    content = b"\n".join(lines) + data.draw(st.sampled_from([b"", b"\n", b"\r\n"]))
    root = folder({"a.jsonl": content, "b.json": json_lines(9)})
    step = data.draw(st.integers(1, 200))
    whole, cut = everything(root), everything(root, step=step)
    assert facts(whole[0]) == facts(cut[0]) and whole[1] == cut[1]
    tasks, _ = plan([("", root)], step)
    assert all(sum(p.stop - p.start for p in t.parts if p.kind == "lines") <= step + 40 for t in tasks if t.parts[1:])


# ---- bad input


@given(st.lists(st.binary(max_size=60).map(lambda line: line.replace(b"\n", b"")), max_size=30))
@MANY
def test_every_line_is_a_document_or_quarantined(folder, lines):
    if lines:  # not taken for UTF-16 by its first bytes
        lines[0] = b"{" + lines[0]
    found, bad = everything(folder({"a.jsonl": b"\n".join(lines) + b"\n"}))
    numbers = sorted(int(item.id.rpartition(":")[2]) for item in [*found, *bad])
    assert numbers == [n for n, line in enumerate(lines, 1) if line.strip()]


JSON = st.recursive(st.none() | st.booleans() | st.floats() | st.text(max_size=9), lambda v: st.lists(v, max_size=3))


@given(st.lists(st.dictionaries(st.sampled_from(["text", "url", "format", "x"]), JSON, max_size=4), max_size=10))
@MANY
def test_lines_of_any_types(folder, rows):
    found, bad = everything(folder({"a.jsonl": "".join(json.dumps(row) + "\n" for row in rows).encode() or b" "}))
    assert len(found) + len(bad) == len(rows)
    for document in found:
        row = rows[int(document.id.rpartition(":")[2]) - 1]
        assert document.text in row.values() and document.text.strip()
        assert all(isinstance(v, str | int | float) for v in document.about.values())
        json.dumps(dict(document.about), allow_nan=False).encode()


def examples():
    """One good container of each kind, by its name."""
    texts = [f"row {i} " + "x" * 50 for i in range(60)]
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()
    members = {f"{i}.txt": text.encode() for i, text in enumerate(texts)}
    records = [record(i, f"<p>{text}".encode()) for i, text in enumerate(texts)]
    rng = np.random.default_rng(0)
    noise = "".join(json.dumps({"text": f"{i} {rng.bytes(150).hex()}"}) + "\n" for i in range(60)).encode()
    return {
        **{f"a.jsonl.{ending}": pack(noise) for ending, pack in PACKERS.items()},
        **{f"a.txt.{ending}": pack(lines) for ending, pack in PACKERS.items()},
        "a.jsonl": lines,
        "a.tar": tar_of(members),
        "a.tar.gz": tar_of(members, "w:gz"),
        "a.zip": zip_of(members),
        "a.warc": b"".join(records),
        "a.warc.gz": b"".join(map(gzip.compress, records)),
        "a.parquet": parquet_of({"text": texts, "n": range(60)}, 7),
    }


EXAMPLES = examples()


@pytest.mark.parametrize("name", EXAMPLES)
@given(st.data())
@settings(MANY, max_examples=15)
def test_what_comes_before_a_break_is_kept(folder, name, data):
    content = EXAMPLES[name]
    whole, bad = everything(folder({name: content}))
    assert not bad
    place = data.draw(st.integers(1, len(content) - 1))
    found, bad = everything(folder({name: content[:place]}))
    if ".txt." in name or name == "a.parquet" or name == "a.zip":  # one document cut short; nothing without the end
        assert all(whole[0].text.startswith(d.text) for d in found[:1] if ".txt." in name)
        assert len(bad) == 1
        return
    # all of them or a beginning, the last perhaps cut short at a line in a tar
    assert [d.id for d in found] == [d.id for d in whole[: len(found)]]
    assert facts(found[:-1]) == facts(whole[: len(found[:-1])])
    assert bad or len(found) == len(whole) or place in _ends(name, content)
    assert len(bad) <= 2


def _ends(name, content):
    """Places at which nothing can be missed: between lines, between members, between records."""
    if name == "a.jsonl":
        return [i for i in range(len(content)) if content[i - 1 : i] == b"\n" or content[i : i + 1] == b"\n"]
    if name.startswith("a.tar"):
        return []
    mark = b"\x1f\x8b" if name.endswith("gz") else b"WARC/1.0"
    ends = [i for i in range(len(content)) if content.startswith(mark, i)]
    return ends if name.endswith("gz") else [end - back for end in ends for back in range(5)]


def test_half_of_a_packed_file_is_half_of_its_lines(folder):
    for ending in PACKERS:
        content = EXAMPLES[f"a.jsonl.{ending}"]
        found, bad = everything(folder({f"a.jsonl.{ending}": content[: len(content) // 2]}))
        # bzip2 and zstandard work in blocks; of the only block nothing is given before its end
        assert len(found) >= (25 if ending in ("gz", "xz") else 0) and len(bad) == 1


@pytest.mark.parametrize("name", EXAMPLES)
@given(st.data())
@settings(MANY, max_examples=15)
def test_damaged_containers(folder, name, data):
    content = bytearray(EXAMPLES[name])
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    found, bad = everything(folder({name: bytes(content)}))
    assert found or bad
    assert len({d.id for d in found}) == len(found)


MARKS = (b"\xff\xfe\0\0", b"\0\0\xfe\xff", b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf")  # texts of no length


@given(
    st.sampled_from(
        [*EXAMPLES, "a.txt", "a.html", "a.py", "a", "a.json", "a.wet", "a.tar.xz", "a.md", "a.png", "a.gz"]
    ),
    st.binary(min_size=1, max_size=300) | st.sampled_from([*MARKS, b"\0" * 9000]),
)
@settings(MANY, max_examples=250)
def test_any_bytes_under_any_name(folder, name, content):
    found, bad = everything(folder({name: content}))
    assert found or bad or not content.strip() or content in MARKS or name == "a.tar"
    assert all(d.text.encode() and "\0" not in d.text for d in found)


def test_encodings(folder):
    text = "Grüße, 世界\n"
    root = folder({
        "a.txt": text.encode("utf-16"), "b.txt": text.encode("utf-16-be").join([b"\xfe\xff", b""]),
        "c.txt": text.encode("utf-32"), "d.txt": text.encode("utf-8-sig"), "e.txt": "Grüße".encode("latin-1"),
        "f.txt": b"a\0b", "g.txt": b"\xff\xfe\x00\xd8", "h.txt": b" \n",
        "i.jsonl": (json.dumps({"text": text}) + "\n").encode("utf-16") , "j.jsonl": b"\xef\xbb\xbf" + json_lines(1),
        "k.html": "<meta charset=iso-8859-1><p>Grüße “x”</p>".encode("cp1252"), "l.html": "<p>Grüße".encode("latin-1"),
        "m.html": b"<meta charset=utf-8>" + bytes(range(128, 256)), "n.html": b"<meta charset=idna><p>x",
        "o.jsonl": b'{"text": "\\ud800"}\n', "p.html": "<meta charset=gb2312><p>世界".encode("gbk"),
    })  # fmt: skip
    found, bad = everything(root, step=60)  # and none is cut where it must not be
    texts = {d.id: d.text for d in found}
    assert [texts.pop(f"{x}.txt") for x in "abcd"] == [text] * 4
    assert texts == {
        "i.jsonl:1": text, "j.jsonl:1": "document 0", "k.html": "<meta charset=iso-8859-1><p>Grüße “x”</p>",
        "n.html": "<meta charset=idna><p>x", "p.html": "<meta charset=gb2312><p>世界",
    }  # fmt: skip
    assert {q.id for q in bad} == {"e.txt", "f.txt", "g.txt", "h.txt", "l.html", "m.html", "o.jsonl:1"}


def test_bombs(folder, monkeypatch):
    monkeypatch.setattr(contents, "UNPACKED", (1 << 20, 10))
    zeros = bytes(1 << 23)
    root = folder({
        "deep.jsonl": b'{"text": ' + b"[" * 100_000 + b"\n" + b'{"text": "good"}\n', "wide.jsonl": b"[" + b"{}," * 2_100_000,
        "a.jsonl.gz": gzip.compress(json_lines(5) + zeros), "a.zip": zip_of({"a.txt": zeros, "b.txt": b"good"}),
    })  # fmt: skip
    found, bad = everything(root)
    assert [d.id for d in found] == [*(f"a.jsonl.gz:{i}" for i in range(1, 6)), "deep.jsonl:2"]
    reasons = {q.id: q.reason for q in bad}
    assert "bombs" in reasons["a.jsonl.gz"] and "bombs" in reasons["a.zip!a.txt"]
    assert reasons["deep.jsonl:1"] == "is not JSON" and reasons["wide.jsonl:1"] == "has too many values"


def test_long_texts(folder, monkeypatch):
    for module in (contents, decode, read):
        monkeypatch.setattr(module, "DOCUMENT_BYTES", 5000)
    line = "One document in a line. " * 12
    root = folder({
        "lines.txt": (f"{line}\n" * 40).encode(), "lines.txt.gz": gzip.compress((f"{line}\n" * 40).encode()),
        "prose.txt": b"A line of a book.\n\n" * 400, "code.py": b"x = 1\n" * 2000,
        "a.jsonl": json_lines(1) + b'{"text": "' + b"x" * 9000 + b'"}\n' + json_lines(1),
    })  # fmt: skip
    found, bad = everything(root, step=2000)
    assert [d.id for d in found if "lines" in d.id] == [
        f"{name}:{i}" for name in ("lines.txt", "lines.txt.gz") for i in range(1, 41)
    ]
    assert [d.id for d in found if "lines" not in d.id] == ["a.jsonl:1", "a.jsonl:3"]
    assert {q.id for q in bad} == {"prose.txt", "code.py", "a.jsonl:2"}
    assert "9,012 bytes" in next(q.reason for q in bad if q.id == "a.jsonl:2")


def test_memory_does_not_grow_with_a_line(folder):
    peaks = []
    for size in (48 << 20, 192 << 20):
        root = folder({"a.jsonl": b'{"text": "'})
        with (root / "a.jsonl").open("r+b") as file:  # a sparse file: zeros without a line end
            file.truncate(size)
            file.seek(size)
            file.write(b"\n" + json_lines(1))
        tracemalloc.start()
        try:
            found, bad = everything(root)
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
        assert [d.id for d in found] == ["a.jsonl:2"]
        assert f"{size:,}" in bad[0].reason and bad[0].id == "a.jsonl:1"
    assert peaks[1] < 40 << 20 and peaks[1] < 1.1 * peaks[0]


def test_texts_longer_than_other_sources_take(folder):
    root = folder({"a.txt": b""})
    with (root / "a.txt").open("r+b") as file:
        file.truncate((256 << 20) + 1)  # sparse
    found, bad = everything(root)
    assert not found and [q.id for q in bad] == ["a.txt:1"] and "268,435,457 bytes" in bad[0].reason


def test_links_pipes_and_vanished_files(folder, tmp_path):
    root = folder({"a.txt": b"a", "b.txt": b"b"})
    (tmp_path / "secret.txt").write_bytes(b"secret")
    (root / "out.txt").symlink_to(tmp_path / "secret.txt")
    os.mkfifo(root / "pipe.txt")
    tasks, refused = plan([("", root)])
    assert {q.id for q in refused} == {"out.txt", "pipe.txt"}
    (root / "a.txt").unlink()
    os.mkfifo(root / "a.txt")
    (root / "b.txt").unlink()
    items = [item for task in tasks for item in documents(task)]
    assert [q.reason for q in items] == ["is not a regular file", "cannot be read (No such file or directory)"]


def test_broken_pages_of_a_table(folder):
    texts = [f"row {i} " + "y" * 200 for i in range(40)]
    file = io.BytesIO()
    pq.write_table(pa.table({"text": texts}), file, row_group_size=10, compression="zstd", use_dictionary=False)
    content = bytearray(file.getvalue())
    start = pq.ParquetFile(file).metadata.row_group(1).column(0).data_page_offset
    content[start + 20 : start + 60] = bytes(40)
    found, bad = everything(folder({"a.parquet": bytes(content)}), step=1)
    assert [d.id for d in found] == [f"a.parquet:{i}" for i in [*range(10), *range(20, 40)]]
    (empty,) = plan([("", folder({"e.parquet": parquet_of({"text": pa.array([], pa.string())})}))])[1]
    assert empty == Quarantined("e.parquet", "has no rows")
    assert bad[0].id == "a.parquet:10" and "to 19" in bad[0].reason and len(bad) == 1


def test_zstandard_is_asked_for(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(UserError, match=r"unlabeled\[curate\]"):
        everything(folder({"a.jsonl.zst": b"x"}))


def test_reading_starts_small():
    heavy = "{'torch', 'pyarrow', 'scipy', 'zstandard', 'PIL'}"
    code = f"import sys, unlabeled.curate.reading.read, unlabeled.curate.reading.extract; print({heavy} & sys.modules.keys())"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "set()"
