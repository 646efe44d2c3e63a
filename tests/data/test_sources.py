from __future__ import annotations

import gzip
import io
import json
import os
import struct
import tarfile
import time
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from tests.data.hostile import hostile_folder, picture
from unlabeled.core.errors import BadRecord, UserError
from unlabeled.data import image
from unlabeled.data.source import Source
from unlabeled.data.sources import builtin_names, source
from unlabeled.data.sources.files import printable, read_file
from unlabeled.data.sources.text import read_text

RNG = np.random.default_rng(0)
PNG, JPEG = picture(RNG, "PNG"), picture(RNG, "JPEG")


def recording(rate_hz: int = 8000) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, 0.1 * RNG.standard_normal(800).astype(np.float32), rate_hz, format="WAV")
    return file.getvalue()


def fill(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def ids(found: Source) -> list[str]:
    return [found[i].id for i in range(len(found))]


def refused(found: Source) -> dict[str, str]:
    return {q.id: q.reason for q in found.quarantined}


def texts(found: Source) -> list[str]:
    return [found[i].fields["text"] for i in range(len(found))]


# ---- folders --------------------------------------------------------------------------------------------


def test_a_folder_of_images_at_any_depth(tmp_path: Path) -> None:
    root = fill(tmp_path, {"b.png": PNG, "x/y/z/a.JPG": JPEG, "a.png": PNG, "x/plain": PNG, ".git/c.png": PNG})
    found = source(root)
    assert found.kind == "image" and found.name == root.name
    assert ids(found) == ["a.png", "b.png", "x/plain", "x/y/z/a.JPG"]
    assert found[3].fields["image"] == JPEG and found.labels is None and found[0].label == -1
    assert found.quarantined == [] and found.spec().image_size == 12 and found.spec().channels == 3
    assert [found.group(i) for i in range(4)] == ids(found)


def test_class_folders_become_labels(tmp_path: Path) -> None:
    files = {f"{c}/{i}.png": PNG for c in ("dog", "cat") for i in range(2)} | {"cat/deep/3.png": PNG}
    found = source(fill(tmp_path, files))
    assert found.classes == ("cat", "dog") and found.labels is not None
    assert found.labels.tolist() == [0, 0, 0, 1, 1] and found[4].label == 1
    (tmp_path / "loose.png").write_bytes(PNG)
    assert source(tmp_path).labels is None
    (tmp_path / "loose.png").rename(tmp_path / "dog" / "loose.png")
    fill(tmp_path, {"bird/only.png": PNG})
    assert source(tmp_path).labels is None


def test_train_and_test_folders_are_official_splits(tmp_path: Path) -> None:
    files = {f"{s}/{c}/{i}.png": PNG for s in ("train", "test") for c in "ab" for i in range(2)}
    found = source(fill(tmp_path, files))
    assert found.classes == ("a", "b") and set(found.official) == {"train", "test"}
    assert [r.split("/")[0] for r in ids(found.split("train"))] == ["train"] * 4
    assert found.split("test").labels.tolist() == [0, 0, 1, 1]


def test_a_mixed_folder_takes_the_majority_and_names_the_rest(tmp_path: Path) -> None:
    files = {"a.png": PNG, "b.png": PNG, "c.bin": PNG, "notes.md": b"# words", "s.wav": recording(), "e.png": b""}
    found = source(fill(tmp_path, files))
    assert ids(found) == ["a.png", "b.png", "c.bin"]
    assert refused(found) == {
        "notes.md": "is text, the folder is images",
        "s.wav": "is sound, the folder is images",
        "e.png": "is empty",
    }


def test_content_counts_where_names_lie(tmp_path: Path) -> None:
    """Nine texts that are called .png do not make a folder of two texts one of images, nor are they documents."""
    files = {f"{i}.png": b"<html>gone</html>" for i in range(9)} | {"a.txt": b"some words", "b.txt": b"more words"}
    found = source(fill(tmp_path, files))
    assert found.kind == "text" and ids(found) == ["a.txt", "b.txt"] and len(found.quarantined) == 9


def test_a_folder_of_code_and_prose(tmp_path: Path) -> None:
    found = source(
        fill(tmp_path, {"Makefile": b"all:\n", "src/a.py": b"x = 1\n", "README.md": b"hi", "a.pyc": b"\0\1"})
    )
    assert found.kind == "text" and ids(found) == ["Makefile", "README.md", "src/a.py"]
    assert texts(found) == ["all:\n", "hi", "x = 1\n"] and list(refused(found)) == ["a.pyc"]
    assert found.spec().longest == 6


def test_bad_text_fails_when_it_is_read_and_names_itself(tmp_path: Path) -> None:
    found = source(fill(tmp_path, {"a.txt": b"good", "b.txt": b"caf\xe9", "c.txt": b"a\0b", "d.txt": b"more"}))
    assert len(found) == 4
    for index, id_ in ((1, "b.txt"), (2, "c.txt")):
        with pytest.raises(BadRecord, match="not UTF-8") as caught:
            found[index]
        assert caught.value.id == id_ == found.group(index)  # type: ignore[attr-defined]


def test_a_folder_of_sound(tmp_path: Path) -> None:
    found = source(fill(tmp_path, {f"{s}/{i}.wav": recording() for s in "xy" for i in range(2)}))
    assert found.kind == "wave" and found.classes == ("x", "y")
    assert found.spec().sample_rate_hz == 8000 and found.spec().longest == 800


def test_links(tmp_path: Path) -> None:
    root = fill(tmp_path / "in", {"a.png": PNG, "sub/b.png": PNG})
    fill(tmp_path, {"secret.png": PNG, "in-beside/d.png": PNG})
    for name, target in {
        "l.png": "a.png",
        "out.png": "../secret.png",
        "b.png": "../in-beside/d.png",
        "d": "sub",
    }.items():
        (root / name).symlink_to(target)
    found = source(root)
    assert ids(found) == ["a.png", "l.png", "sub/b.png"]
    assert set(refused(found)) == {"out.png", "b.png", "d"}
    assert "out of the folder" in refused(found)["out.png"] and "out of the folder" in refused(found)["b.png"]


def test_a_pipe_put_in_place_of_a_file_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(BadRecord, match="not a regular file"):
        read_file(tmp_path / "a.png")
    with pytest.raises(BadRecord, match="more than 3"):
        read_file(fill(tmp_path, {"b": b"1234"}) / "b", 3)


def test_identity_changes_with_the_data_and_only_with_it(tmp_path: Path) -> None:
    root = fill(tmp_path, {"a.png": PNG, "b.png": JPEG})
    first = source(root).identity()
    assert source(root).identity() == first and len(first) == 64
    (root / ".hidden").write_bytes(b"x")
    assert source(root).identity() == first
    (root / "b.png").rename(root / "c.png")
    renamed = source(root).identity()
    os.utime(root / "a.png", ns=(1, 1))
    assert len({first, renamed, source(root).identity()}) == 3


def test_nothing_in_the_source_is_changed(tmp_path: Path) -> None:
    hostile_folder(tmp_path / "in", good=20, bad=40)

    def state() -> list[tuple]:
        all_ = sorted((tmp_path / "in").rglob("*"))
        return [(str(p), (s := p.lstat()).st_size, s.st_mtime_ns, s.st_mode) for p in all_]

    before = state()
    found = source(tmp_path / "in")
    found.spec(), found.identity(), [found.group(i) for i in range(len(found))]
    decode_all(found)
    assert state() == before


def test_listing_is_fast_and_opens_next_to_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(20):
        (tmp_path / str(i)).mkdir()
        for j in range(150):
            (tmp_path / str(i) / f"{j}.png").write_bytes(PNG)
    opened = []
    monkeypatch.setattr(os, "open", lambda *a, real=os.open, **k: opened.append(a[0]) or real(*a, **k))
    start = time.process_time()
    found = source(tmp_path)
    assert len(found) == 3000 and len(opened) < 150
    assert time.process_time() - start < 2  # 3,000 files; a tenth of a second is usual


# ---- two hundred bad files among five hundred good ones ---------------------------------------------------


def decode_all(found: Source) -> dict[str, str]:
    """Ids and reasons of everything that is refused, at listing and at decoding, as a store meets it."""
    bad = refused(found)
    for index in range(len(found)):
        try:
            image.decode(found[index].fields["image"], 3)
        except BadRecord as error:
            bad[found.group(index)] = str(error)
    return bad


def test_two_hundred_hostile_files_are_refused_by_name(tmp_path: Path) -> None:
    names = hostile_folder(tmp_path / "in")
    found = source(tmp_path / "in")
    bad = decode_all(found)
    assert len(names) == 200 and set(bad) == names
    assert len(found) - (len(bad) - len(found.quarantined)) == 500
    assert "caf\\xe9.png" in ids_without_reading(found)
    assert all(reason and "\n" not in reason and len(reason) < 200 for reason in bad.values())
    assert all(id_.isprintable() for id_ in bad)
    json.dumps(bad).encode("utf-8")


def ids_without_reading(found: Source) -> list[str]:
    return [found.group(i) for i in range(len(found))]


def test_names_are_printable_and_keep_what_is() -> None:
    assert printable("straße/写真.png") == "straße/写真.png"
    assert printable("a\x1b[0m\n\udce9") == "a\\x1b[0m\\x0a\\xe9"


# ---- text -----------------------------------------------------------------------------------------------


def test_a_text_file_is_cut_into_whole_lines_in_order(tmp_path: Path) -> None:
    lines = [f"line {i} — {'é' * (i % 70)}\n" for i in range(9000)]
    path = tmp_path / "book.txt"
    path.write_text("".join(lines), encoding="utf-8")
    found = source(path)
    parts = texts(found)
    assert "".join(parts) == "".join(lines) and all(p.endswith("\n") for p in parts)
    sizes = [len(p.encode()) for p in parts[:-1]]
    assert (
        min(sizes) >= 16_384 and max(sizes) < 17_000 and found.spec().longest == max(map(len, map(str.encode, parts)))
    )
    assert found[3].id == "book.txt:3"
    train, test = found.official["train"], found.official["test"]
    assert np.array_equal(np.concatenate([train, test]), np.arange(len(found)))
    assert len(test) == len(found) - round(0.9 * len(found))


def test_endless_lines_are_cut_between_characters(tmp_path: Path) -> None:
    text = "a" + "写" * 40_000
    (tmp_path / "one.txt").write_text(text, encoding="utf-8")
    found = source(tmp_path / "one.txt")
    assert "".join(texts(found)) == text and len(found) > 5


def test_short_text_still_has_two_parts_and_a_mark_is_dropped(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbf" + b"some words in a line\r\n" * 50)
    found = source(tmp_path / "a.txt")
    assert "".join(texts(found)) == "some words in a line\r\n" * 50
    assert len(found.official["train"]) and len(found.official["test"])
    assert [found.split(p).kind for p in ("train", "test")] == ["text", "text"]


def test_only_the_blocks_that_are_not_utf8_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"good line of words\n" * 2000 + b"caf\xe9\n" + b"good again here\n" * 2000)
    found = source(tmp_path / "a.txt")
    bad = []
    for i in range(len(found)):
        try:
            found[i]
        except BadRecord as error:
            bad.append((error.id, str(error)))  # type: ignore[attr-defined]
    assert len(bad) == 1 and "0xe9" in bad[0][1] and bad[0][0].startswith("a.txt:")


@pytest.mark.parametrize(
    "content", ["word".encode("utf-16"), b"\xff\xfew\0", b"a\0b", b"\xc0\xaf", b"\xed\xa0\x80", b""]
)
def test_read_text_is_strict(content: bytes) -> None:
    with pytest.raises(BadRecord):
        read_text(content)


def test_json_lines(tmp_path: Path) -> None:
    rows = [
        json.dumps({"id": "x", "content": "first", "label": "b"}),
        "",
        json.dumps({"content": "second", "label": "a"}),
        "{not json",
        json.dumps({"content": 7}),
        '{"content": "\\ud800"}',
        "[" * 100_000,
        json.dumps({"label": "a"}),
    ]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(rows))
    found = source(path)
    assert found.kind == "text" and len(found) == 7 and found.classes == ("a", "b")
    assert (found[0].id, found[0].fields["text"], found[0].label) == ("a.jsonl:1", "first", 1)
    assert (found[1].id, found[1].label) == ("a.jsonl:3", 0)
    reasons = []
    for i in range(2, 7):
        with pytest.raises(BadRecord) as caught:
            found[i]
        reasons.append(str(caught.value))
    for reason, said in zip(("not JSON", "not text", "surrogate", "not JSON", "no field"), reasons):
        assert reason in said


def test_json_lines_without_a_usual_name_take_the_longest_text(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(
        "".join(json.dumps({"who": "me", "story": f"once upon a time {i}", "n": i}) + "\n" for i in range(3))
    )
    assert texts(source(path))[2] == "once upon a time 2"
    path.write_text('{"n": 1}\n')
    with pytest.raises(UserError, match="text field"):
        source(path)


def test_a_folder_of_shards_is_one_source_with_splits(tmp_path: Path) -> None:
    def rows(words: list[str]) -> bytes:
        return "".join(json.dumps({"text": w * 30}) + "\n" for w in words).encode()

    files = {"train-0.jsonl": rows(["a", "b"]), "train-1.jsonl": rows(["c"]), "test.jsonl": rows(["d"])}
    found = source(fill(tmp_path, files | {"README.md": b"about"}))
    assert [t[0] for t in texts(found.split("train"))] == ["a", "b", "c"] and len(found.split("test")) == 1
    assert refused(found) == {"README.md": "is text, the folder is jsonl files"}
    assert len(set(ids(found))) == 4


# ---- parquet --------------------------------------------------------------------------------------------


def test_parquet_of_text(tmp_path: Path) -> None:
    table = pa.table({"title": list("abcd"), "text": ["one", None, "three", "a\0b"], "label": [1, 0, None, 1]})
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=2)
    found = source(tmp_path / "t.parquet")
    assert found.kind == "text" and found.labels.tolist() == [1, 0, -1, 1] and found.classes == ("0", "1")
    assert found[2].fields["text"] == "three" and found[2].id == "t.parquet:2" and found[0].label == 1
    for index, reason in ((1, "empty"), (3, "NUL")):
        with pytest.raises(BadRecord, match=reason):
            found[index]


@pytest.mark.parametrize("struct_", [False, True])
def test_parquet_of_images(tmp_path: Path, struct_: bool) -> None:
    pictures = [PNG, JPEG, b"", PNG, PNG]
    column = [{"bytes": p, "path": "x"} for p in pictures] if struct_ else pictures
    table = pa.table({"image": column, "caption": ["words"] * 5, "label": [0, 1, 0, 1, 1]})
    names = {"info": {"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}
    table = table.replace_schema_metadata({"huggingface": json.dumps(names)})
    pq.write_table(table, tmp_path / "train.parquet", row_group_size=1)
    pq.write_table(table.slice(0, 2), tmp_path / "test.parquet")
    found = source(tmp_path)
    assert found.kind == "image" and len(found) == 7 and found.classes == ("cat", "dog")
    assert len(found.split("train")) == 5 and found.spec().image_size == 12
    assert found[3].fields == {"image": JPEG, "caption": "words"} and found[3].id == "train.parquet:1"
    with pytest.raises(BadRecord, match="empty"):
        found[4]
    assert found[6].fields["image"] == PNG and found[0].fields["image"] == PNG


def test_parquet_without_anything_to_learn_from_and_broken_ones(tmp_path: Path) -> None:
    pq.write_table(pa.table({"n": [1, 2]}), tmp_path / "n.parquet")
    with pytest.raises(UserError, match="no column of text"):
        source(tmp_path / "n.parquet")
    pq.write_table(pa.table({"text": ["words"] * 9}), tmp_path / "t.parquet")
    content = (tmp_path / "t.parquet").read_bytes()
    (tmp_path / "cut.parquet").write_bytes(content[:-20])
    with pytest.raises(UserError, match="cannot be read"):
        source(tmp_path / "cut.parquet")


# ---- arrays ---------------------------------------------------------------------------------------------


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def test_idx_with_labels_beside_and_a_folder_of_four(tmp_path: Path) -> None:
    images = RNG.integers(0, 256, (6, 4, 5), dtype=np.uint8)
    fill(
        tmp_path,
        {
            "train-images-idx3-ubyte.gz": gzip.compress(idx(images)),
            "train-labels-idx1-ubyte.gz": gzip.compress(idx(np.array([0, 1, 2, 0, 1, 2]))),
            "t10k-images-idx3-ubyte": idx(images[:2]),
            "t10k-labels-idx1-ubyte": idx(np.array([2, 1])),
        },
    )
    one = source(tmp_path / "train-images-idx3-ubyte.gz")
    assert np.array_equal(one[5].fields["image"], images[5]) and one.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert one[5].id == "5" and one.spec().image_size == 4 and one.spec().channels == 1 and not one.official
    both = source(tmp_path)
    assert len(both.split("train")) == 6 and both.split("test").labels.tolist() == [2, 1]
    assert both.split("test")[1].id == "test/1"
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images))[:40])
    with pytest.raises(UserError, match="IDX"):
        source(tmp_path / "train-images-idx3-ubyte.gz")


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.arange(96, dtype=np.uint8).reshape(2, 4, 4, 3), None),
        (np.arange(96, dtype=np.uint8).reshape(2, 3, 4, 4), "moved"),
        (np.linspace(0, 1, 96, dtype=np.float32).reshape(2, 4, 4, 3), "scaled"),
        (np.arange(96, dtype=np.float64).reshape(2, 4, 4, 3), "kept"),
    ],
)
def test_npz_of_images(tmp_path: Path, array: np.ndarray, expected: str | None) -> None:
    np.savez_compressed(tmp_path / "a.npz", x=array, y=np.array([5, 3]))
    found = source(tmp_path / "a.npz")
    got = np.stack([found[i].fields["image"] for i in range(2)])
    as_numbers = array.transpose(0, 2, 3, 1) if expected == "moved" else array * 255 if expected == "scaled" else array
    assert got.dtype == np.uint8 and np.array_equal(got, np.rint(as_numbers))
    assert found.classes == ("3", "5") and found.labels.tolist() == [1, 0] and found.spec().channels == 3


def test_npz_with_train_and_test(tmp_path: Path) -> None:
    image_ = RNG.integers(0, 256, (5, 4, 4), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", x_train=image_, y_train=np.arange(5), x_test=image_[:2], y_test=np.arange(2))
    found = source(tmp_path / "a.npz")
    assert len(found.split("train")) == 5 and ids(found.split("test")) == ["test/0", "test/1"]
    np.savez(tmp_path / "b.npz", train_images=image_, train_labels=np.arange(5)[:, None], test_images=image_[:2])
    found = source(tmp_path / "b.npz")
    assert len(found.split("test")) == 2 and found.labels.tolist() == [0, 1, 2, 3, 4, -1, -1]


def test_white_is_the_same_for_all_images_of_an_array(tmp_path: Path) -> None:
    array = np.full((5, 2, 2), 200.0)
    array[3] = 1.0  # by itself this one would pass for white
    np.save(tmp_path / "a.npy", array)
    found = source(tmp_path / "a.npy")
    assert found[3].fields["image"].max() == 1 and found[0].fields["image"].max() == 200


def test_nan_in_an_array_refuses_that_image_only(tmp_path: Path) -> None:
    array = RNG.random((4, 5, 5))
    array[2, 1, 1] = np.nan
    np.save(tmp_path / "a.npy", array)
    found = source(tmp_path / "a.npy")
    assert found[1].fields["image"].max() > 1
    with pytest.raises(BadRecord, match="NaN"):
        found[2]


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.array([{}], dtype=object), "numpy"),
        (RNG.standard_normal((3, 4, 4)), "bring them"),
        (np.zeros((3, 4)), "give images"),
        (np.zeros((3, 5, 5, 7)), "give images"),
    ],
)
def test_arrays_that_are_no_images_are_one_sentence(tmp_path: Path, array: np.ndarray, reason: str) -> None:
    np.savez(tmp_path / "a.npz", x=array)
    np.save(tmp_path / "a.npy", array)
    for name in ("a.npz", "a.npy"):
        with pytest.raises(UserError, match=reason):
            source(tmp_path / name)


# ---- archives -------------------------------------------------------------------------------------------


def tar_of(members: list[tuple[tarfile.TarInfo | str, bytes]], mode: str = "w") -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as tar:  # type: ignore[call-overload]
        for member, content in members:
            info = tarfile.TarInfo(member) if isinstance(member, str) else member
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return file.getvalue()


def special(name: str, type_: bytes, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = type_, link
    return info


SAMPLES: list[tuple[tarfile.TarInfo | str, bytes]] = [
    (f"{i:04}.{ending}", content)
    for i in range(4)
    for ending, content in (("png", PNG), ("txt", b"a caption\n"), ("cls", b"%d" % (10 - i % 2)))
]


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.zip"])
def test_samples_of_an_archive(tmp_path: Path, name: str) -> None:
    if name.endswith(".zip"):
        with zipfile.ZipFile(tmp_path / name, "w", zipfile.ZIP_DEFLATED) as archive:
            for member, content in SAMPLES:
                archive.writestr(str(member), content)
    else:
        (tmp_path / name).write_bytes(tar_of(SAMPLES, "w:gz" if name.endswith("gz") else "w"))
    found = source(tmp_path / name)
    assert found.kind == "image" and ids(found) == ["0000.png", "0001.png", "0002.png", "0003.png"]
    assert found[3].fields == {"image": PNG, "caption": "a caption"} and found.quarantined == []
    assert found.labels.tolist() == [1, 0, 1, 0] and found.classes == ("9", "10")
    assert found.spec().image_size == 12 and list(tmp_path.iterdir()) == [tmp_path / name]


def test_json_beside_samples(tmp_path: Path) -> None:
    about = json.dumps({"caption": "told", "label": "x"}).encode()
    (tmp_path / "a.tar").write_bytes(tar_of([("a/1.jpg", JPEG), ("a/1.json", about), ("a/2.jpg", JPEG)]))
    found = source(tmp_path / "a.tar")
    assert found[0].fields["caption"] == "told" and "caption" not in found[1].fields
    assert found.classes == ("x",) and found.labels.tolist() == [0, -1]


def test_tricks_in_a_tar_are_refused_by_name(tmp_path: Path) -> None:
    good: list[tuple[tarfile.TarInfo | str, bytes]] = [("cat/1.png", PNG), ("cat/2.png", PNG), ("./dog/1.png", PNG)]
    tricks: list[tuple[tarfile.TarInfo | str, bytes]] = [
        ("/etc/a.png", PNG),
        ("../b.png", PNG),
        ("x/../../c.png", PNG),
        ("C:\\d.png", PNG),
        (special("link.png", tarfile.SYMTYPE, "/etc/passwd"), b""),
        (special("hard.png", tarfile.LNKTYPE, "cat/1.png"), b""),
        (special("device.png", tarfile.CHRTYPE), b""),
        (special("pipe.png", tarfile.FIFOTYPE), b""),
        (special("sparse.png", tarfile.GNUTYPE_SPARSE), b""),
        ("cat/1.png", JPEG),
        ("empty.png", b""),
        ("notes.xyz", b"words"),
    ]
    (tmp_path / "a.tar").write_bytes(tar_of([*good, *tricks, ("dog/2.png", PNG)]))
    found = source(tmp_path / "a.tar")
    assert ids(found) == ["cat/1.png", "cat/2.png", "dog/1.png", "dog/2.png"]
    assert found.classes == ("cat", "dog") and found[0].fields["image"] == PNG
    names = {m if isinstance(m, str) else m.name for m, _ in tricks}
    assert "sparse" in refused(found)["sparse.png"]
    assert set(refused(found)) == names and len(found.quarantined) == len(tricks)
    assert list(tmp_path.iterdir()) == [tmp_path / "a.tar"]


def test_tricks_in_a_zip_are_refused_by_name(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("good.png", PNG)
        archive.writestr("../up.png", PNG)
        link = zipfile.ZipInfo("link.png")
        link.create_system, link.external_attr = 3, 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
        archive.writestr("sum.png", PNG)
    content = bytearray((tmp_path / "a.zip").read_bytes())
    content[content.rindex(PNG) + 50] ^= 0xFF  # its checksum no longer fits
    (tmp_path / "a.zip").write_bytes(content)
    found = source(tmp_path / "a.zip")
    assert ids_without_reading(found) == ["good.png", "sum.png"] and set(refused(found)) == {"../up.png", "link.png"}
    assert found[0].fields["image"] == PNG
    with pytest.raises(BadRecord, match="unpacked"):
        found[1]


def test_a_torn_tar_gives_what_came_before(tmp_path: Path) -> None:
    content = tar_of([(f"{i}.txt", b"words " * 200) for i in range(6)])
    (tmp_path / "a.tar").write_bytes(content[:5000])
    found = source(tmp_path / "a.tar")
    assert found.kind == "text" and len(found) == 3 and "a.tar" in refused(found)
    assert found[0].fields["text"] == found[1].fields["text"] == "words " * 200
    with pytest.raises(BadRecord, match="truncated"):
        found[2]


def test_a_gzip_bomb_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from unlabeled.data.sources import archive

    monkeypatch.setattr(archive, "_UNPACKED", (1 << 20, 10))
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(bytes(20 << 20)))
    with pytest.raises(UserError, match="bomb"):
        source(tmp_path / "a.tar.gz")


def test_shards_have_ids_of_their_own(tmp_path: Path) -> None:
    for shard in ("train-0.tar", "train-1.tar", "test-0.tar"):
        (tmp_path / shard).write_bytes(tar_of(SAMPLES))
    found = source(tmp_path)
    assert len(set(ids(found))) == 12 and len(found.split("test")) == 4
    assert found.split("test")[0].id == "test-0.tar/0000.png" and found.labels.tolist() == [1, 0, 1, 0] * 3


# ---- one way in -----------------------------------------------------------------------------------------


def test_built_in_names_come_first_and_misspelt_ones_get_a_suggestion(tmp_path: Path) -> None:
    assert {"fashion", "moby-dick", "python"} <= set(builtin_names())
    assert source("fashion").kind == "image"
    with pytest.raises(UserError, match="did you mean fashion"):
        source("fashon")
    with pytest.raises(UserError, match="no folder or file"):
        source(str(tmp_path / "qqqqqqqq"))
    fill(tmp_path, {"photos/a.png": PNG})
    with pytest.raises(UserError, match="did you mean photos"):
        source(tmp_path / "photo")


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({}, "nothing in"),
        ({".hidden": b"x"}, "nothing in"),
        ({"a.png": b"", "b.png": b""}, "all 2 files were refused"),
        ({"a.png": b"words", "b.jpg": b"words"}, "is text"),
        ({"a.bin": b"\0\1\2"}, "of no known kind"),
        ({"a.tar": b"\0" * 1024}, "Nothing in|nothing in"),
    ],
)
def test_nothing_left_is_one_sentence(tmp_path: Path, files: dict[str, bytes], reason: str) -> None:
    root = fill(tmp_path / "data", files) if files else tmp_path
    with pytest.raises(UserError, match=reason) as caught:
        source(root)
    assert caught.value.code == 2 and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.png", PNG, "single image"),
        ("a.wav", recording(), "single recording"),
        ("a.txt", b"", "empty"),
        ("a.xyz", b"\0\1\2", "no kind that can be read"),
        ("a.tar.gz", b"\x1f\x8bnonsense", "cannot be unpacked"),
        ("a.npz", b"PK\x03\x04nonsense", "cannot be read"),
    ],
)
def test_single_files_that_are_no_data(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        source(fill(tmp_path, {name: content}) / name)


def test_a_pipe_is_no_data(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="pipe"):
        source(tmp_path / "pipe")
    with pytest.raises(UserError):
        source("a\0b")


def test_what_listing_refused_is_told_in_every_part(tmp_path: Path) -> None:
    found = source(fill(tmp_path, {f"{i}.png": PNG for i in range(30)} | {"e.png": b""}))
    assert [q.id for q in found.split("train").quarantined] == ["e.png"]
