from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from tests.data.hostile import hostile_folder, picture
from unlabeled.data.inspect import Spread, inspect
from unlabeled.data.sources import source


def test_images(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for c in "ab":
        (tmp_path / c).mkdir()
        for i in range(3):
            (tmp_path / c / f"{i}.png").write_bytes(picture(rng, "PNG", 10 + i))
    twin = (tmp_path / "a" / "0.png").read_bytes()
    (tmp_path / "b" / "twin.png").write_bytes(twin)
    (tmp_path / "b" / "cut.png").write_bytes(twin[:60])
    (tmp_path / "b" / "empty.png").write_bytes(b"")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("L", (40, 20), 7).save(tmp_path / "b" / "turned.png", exif=exif)
    found = inspect(source(tmp_path))
    assert (found.kind, found.count, found.checked) == ("image", 9, 9)
    assert found.extents["height"] == Spread("pixels", 10, 11, 40)  # 10 10 10 11 11 12 12 40
    assert found.extents["width"] == Spread("pixels", 10, 11, 20)
    assert found.channels == {"colour": 7, "grey": 1} and found.classes == {"a": 3, "b": 6}
    assert found.duplicates == [["a/0.png", "b/twin.png"]] and found.blank == ["b/turned.png"]
    assert {u["id"]: u["reason"] for u in found.unreadable}.keys() == {"b/cut.png", "b/empty.png"}
    assert found.bytes == sum(p.stat().st_size for p in tmp_path.rglob("*.png"))
    assert found.samples[0] == {"id": "a/0.png", "preview": "10 x 10 colour"}
    assert json.loads(json.dumps(found.to_dict()))["extents"]["width"]["largest"] == 20


def test_text(tmp_path: Path) -> None:
    for name, content in {
        "a.txt": b"some  words\nhere",
        "b.txt": b" \n",
        "c.txt": b"some  words\nhere",
        "d.txt": b"\xff",
    }.items():
        (tmp_path / name).write_bytes(content)
    found = inspect(source(tmp_path))
    assert found.kind == "text" and found.extents["length"] == Spread("characters", 2, 16, 16)
    assert found.duplicates == [["a.txt", "c.txt"]] and found.blank == ["b.txt"]
    assert found.samples[0]["preview"] == "some words here"
    assert [u["id"] for u in found.unreadable] == ["d.txt"] and found.channels == {}


def test_sound(tmp_path: Path) -> None:
    wave = np.random.default_rng(0).uniform(-0.5, 0.5, (4000, 2))
    soundfile.write(tmp_path / "a.wav", wave, 8000)
    soundfile.write(tmp_path / "b.flac", wave[:2000, 0], 16_000)
    soundfile.write(tmp_path / "silent.wav", np.zeros(800), 8000)
    found = inspect(source(tmp_path))
    assert found.kind == "wave" and found.extents["duration"] == Spread("seconds", 0.1, 0.125, 0.5)
    assert found.channels == {"mono": 2, "stereo": 1} and found.sample_rates_hz == {"8000": 2, "16000": 1}
    assert found.blank == ["silent.wav"] and found.samples[0]["preview"] == "0.5 s stereo at 8,000 Hz"


def test_the_limit_spreads_over_the_source_and_scales_the_bytes(tmp_path: Path) -> None:
    for i in range(100):
        (tmp_path / f"{i:02}.txt").write_bytes(b"x" * 10 + bytes([65 + i % 26]))
    found = inspect(source(tmp_path), limit=10)
    assert found.checked == 10 and found.count == 100 and found.bytes == 1100
    assert found.samples[0]["id"] == "00.txt" and found.samples[-1]["id"] >= "80.txt"


@pytest.mark.parametrize("name", ["fashion", "moby-dick", "clips", "clipart"])
def test_built_in_data_can_be_looked_at(name: str) -> None:
    found = inspect(source(name), limit=20)
    assert found.checked == 20 and found.unreadable == [] and len(found.samples) == 5
    json.dumps(found.to_dict())


def test_all_that_is_hostile_is_listed(tmp_path: Path) -> None:
    names = hostile_folder(tmp_path / "in", good=50, bad=100)
    found = inspect(source(tmp_path / "in"))
    assert {u["id"] for u in found.unreadable} == names and len(names) == 100


def test_what_inspect_reads_is_bytes_as_stored(tmp_path: Path) -> None:
    file = BytesIO()
    np.savez(file, x=np.arange(48, dtype=np.uint8).reshape(3, 4, 4))
    (tmp_path / "a.npz").write_bytes(file.getvalue())
    found = inspect(source(tmp_path / "a.npz"))
    assert found.count == 3 and found.extents["width"] == Spread("pixels", 4, 4, 4) and found.channels == {"grey": 3}
