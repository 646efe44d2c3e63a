from io import BytesIO

import numpy as np
import pytest
import soundfile

from unlabeled.core.errors import BadRecord
from unlabeled.data.sound import decode
from unlabeled.data.sources import source
from unlabeled.data.sources.memory import WavesInMemory
from unlabeled.data.sources.pieces import Pieces, in_pieces


def speech(seconds: float, rate_hz: int, gaps: tuple[float, ...] = ()) -> np.ndarray:
    """Noise, with a tenth of a second of silence around each gap."""
    wave = 0.3 * np.random.default_rng(0).standard_normal(int(seconds * rate_hz))
    at = np.arange(len(wave)) / rate_hz
    for gap in gaps:
        wave[np.abs(at - gap) < 0.05] = 0
    return wave.clip(-0.99, 0.99)


@pytest.mark.parametrize(("ending", "rate_hz", "channels", "tolerance"), [
    ("wav", 8_000, 1, 1e-4), ("flac", 44_100, 1, 1e-4), ("ogg", 48_000, 2, 0.3), ("wav", 48_000, 2, 1e-4),
])  # fmt: skip
def test_files_are_cut_where_they_are_quiet_and_nothing_is_lost(tmp_path, ending, rate_hz, channels, tolerance):
    wave = speech(10.0, rate_hz, gaps=(3.4, 6.5))
    stereo = np.stack([wave] * channels, 1)
    soundfile.write(tmp_path / f"long.{ending}", stereo, rate_hz)
    soundfile.write(tmp_path / f"short.{ending}", stereo[: 2 * rate_hz], rate_hz)
    cut = Pieces(source(tmp_path), 4.0)
    assert len(cut) == 4 and cut[3].id == f"short.{ending}"
    ids = [cut[i].id for i in range(3)]
    assert [i.partition("@")[0] for i in ids] == [f"long.{ending}"] * 3
    ends = [float(i.rpartition("-")[2]) for i in ids]
    assert abs(ends[0] - 3.4) < 0.06 and abs(ends[1] - 6.5) < 0.06 and ends[2] == 10
    pieces = [cut[i].fields for i in range(3)]
    assert {p["rate"] for p in pieces} == {rate_hz} and all(len(p["wave"]) <= 4 * rate_hz for p in pieces)
    whole = decode((tmp_path / f"long.{ending}").read_bytes(), rate_hz)
    joined = np.concatenate([p["wave"] for p in pieces])
    assert len(joined) == len(whole)
    np.testing.assert_allclose(joined, whole, atol=tolerance)
    assert cut.spec().examples == 4 and max(len(p["wave"]) for p in pieces) <= cut.spec().longest <= 4 * rate_hz
    assert {cut.group(i) for i in range(3)} == {f"long.{ending}"}
    assert cut.identity() == Pieces(source(tmp_path), 4.0).identity() != Pieces(source(tmp_path), 3.0).identity()


def test_what_is_empty_or_truncated_is_refused_as_before(tmp_path):
    soundfile.write(tmp_path / "good.wav", speech(9.0, 8_000), 8_000)
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), 8_000)
    content = BytesIO()
    soundfile.write(content, speech(9.0, 8_000), 8_000, format="FLAC")
    (tmp_path / "torn.flac").write_bytes(content.getvalue()[: len(content.getvalue()) // 2])
    cut = Pieces(source(tmp_path), 5.0)
    refused = []
    for i in range(len(cut)):
        try:
            fields = cut[i].fields
            decode(fields["wave"], 16_000, given_hz=fields.get("rate", 0))
        except BadRecord:
            refused.append(cut.group(i))
    assert set(refused) == {"empty.wav", "torn.flac"} and sum(cut.group(i) == "good.wav" for i in range(len(cut))) == 2


def test_arrays_labels_and_splits_follow_their_recordings():
    waves = WavesInMemory([speech(s, 1000) for s in (1.0, 7.0, 2.0)], 1000)
    waves.labels, waves.classes = np.array([0, 1, 0]), ("a", "b")
    waves.official = {"train": np.array([0, 1]), "test": np.array([2])}
    cut = Pieces(waves, 3.0)
    assert cut.labels is not None and cut.labels.tolist() == [0, 1, 1, 1, 0]
    assert {name: rows.tolist() for name, rows in cut.official.items()} == {"train": [0, 1, 2, 3], "test": [4]}
    joined = np.concatenate([cut[i].fields["wave"] for i in (1, 2, 3)])
    np.testing.assert_allclose(joined, waves.waves[1], atol=1e-6)


def test_a_folder_is_read_in_pieces_where_a_recording_is_long(tmp_path):
    soundfile.write(tmp_path / "short.wav", speech(3.0, 8_000), 8_000)
    (tmp_path / "torn.wav").write_bytes(b"RIFF" + b"\0" * 200_000)
    assert type(source(tmp_path)).__name__ == "Folder"
    soundfile.write(tmp_path / "talk.wav", speech(100.0, 8_000, gaps=(35.0, 66.0)), 8_000)
    cut = source(tmp_path)
    assert isinstance(cut, Pieces)
    assert [cut.group(i) for i in range(len(cut))] == ["short.wav", *["talk.wav"] * 3, "torn.wav"]
    assert in_pieces(WavesInMemory([speech(3.0, 8_000)], 8_000)).name == "waves"
