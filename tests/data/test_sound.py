from __future__ import annotations

import struct
from io import BytesIO

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from unlabeled.core.errors import BadRecord
from unlabeled.data.sound import decode, measure


def tone(seconds: float = 0.5, rate_hz: int = 16_000, hertz: float = 440) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate_hz)) / rate_hz)).astype(np.float32)


def encoded(wave: np.ndarray, rate_hz: int = 16_000, format_: str = "WAV", subtype: str | None = None) -> bytes:
    file = BytesIO()
    soundfile.write(file, wave, rate_hz, format=format_, subtype=subtype)
    return file.getvalue()


@pytest.mark.parametrize(
    ("format_", "subtype", "tolerance"),
    [("WAV", "PCM_16", 1e-4), ("WAV", "FLOAT", 0), ("FLAC", None, 1e-4), ("OGG", None, 0.05), ("MP3", None, 0.05)],
)
def test_formats(format_: str, subtype: str | None, tolerance: float) -> None:
    wave = tone()
    content = encoded(wave, format_=format_, subtype=subtype)
    got = decode(content, 16_000)
    assert got.dtype == np.float32 and got.ndim == 1 and abs(len(got) - len(wave)) <= 2400  # MP3 pads to frames
    assert np.abs(got[1000:7000] - wave[1000:7000]).max() <= tolerance
    seconds, rate_hz, channels = measure(content)
    assert (rate_hz, channels) == (16_000, 1) and abs(seconds - 0.5) < 0.16


def test_channels_are_averaged() -> None:
    wave = tone()
    got = decode(encoded(np.stack([wave, 0 * wave], 1), subtype="FLOAT"), 16_000)
    np.testing.assert_allclose(got, wave / 2, atol=1e-7)


def test_the_rate_is_converted() -> None:
    got = decode(encoded(tone(rate_hz=44_100), 44_100, subtype="FLOAT"), 16_000)
    expected = tone(rate_hz=16_000)
    assert len(got) == len(expected) == 8000
    # resampling rings at both ends
    np.testing.assert_allclose(got[400:-400], expected[400:-400], atol=1e-3)
    np.testing.assert_allclose(decode(tone(rate_hz=44_100), 16_000, given_hz=44_100), got, atol=1e-6)


def test_loud_floats_are_clipped() -> None:
    assert np.abs(decode(encoded(4 * tone(), subtype="FLOAT"), 16_000)).max() == 1


def _huge_header() -> bytes:
    """A WAV of 32-bit floats whose header promises two hours, over nothing."""
    size = 2 * 3600 * 16_000 * 4
    form = struct.pack("<HHIIHH", 3, 1, 16_000, 64_000, 4, 32)
    return (
        b"RIFF"
        + struct.pack("<I", size + 36)
        + b"WAVEfmt "
        + struct.pack("<I", 16)
        + form
        + b"data"
        + struct.pack("<I", size)
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty, not sound"),
        (b"only words", "is text, not sound"),
        (encoded(np.zeros(0, np.float32)), "no samples"),
        (encoded(np.array([0, np.nan, 0], np.float32), subtype="FLOAT"), "NaN"),
        (encoded(tone())[:3000], "truncated"),
        (encoded(tone(), format_="FLAC")[:3000], "truncated"),
        (encoded(tone(), format_="FLAC")[:20], "cannot be read"),
        (b"OggS" + bytes(100), "cannot be read"),
        (_huge_header(), "truncated|hour"),
    ],
    # Not by content: files of floats hold the time at which they were written, and workers must collect the same tests.
    ids=[
        "empty",
        "text",
        "no samples",
        "not a number",
        "cut WAV",
        "cut FLAC",
        "FLAC header",
        "torn Ogg",
        "long header",
    ],
)
def test_what_is_refused_and_why(content: bytes, reason: str) -> None:
    with pytest.raises(BadRecord, match=reason):
        decode(content, 16_000)


def test_more_than_an_hour_is_refused() -> None:
    hour = encoded(np.zeros(3601 * 1000, np.float32), 1000, "FLAC")
    with pytest.raises(BadRecord, match="hour"):
        decode(hour, 1000)


def test_arrays_are_checked_too() -> None:
    with pytest.raises(BadRecord, match="NaN"):
        decode(np.array([np.nan], np.float32), 8000)
    with pytest.raises(BadRecord, match="no samples"):
        decode(np.zeros(0, np.float32), 8000)
    assert decode(np.array([-32768, 16384], np.int16), 8000).tolist() == [-1, 0.5]


_STARTS = [encoded(tone(0.02), format_=f) for f in ("WAV", "FLAC", "OGG")]


@settings(max_examples=100, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=200),
        st.tuples(st.sampled_from(_STARTS), st.integers(0, 200), st.binary(max_size=30)).map(
            lambda t: t[0][: t[1]] + t[2] + t[0][t[1] + len(t[2]) :]
        ),
    )
)
def test_any_bytes_are_sound_or_a_bad_record(content: bytes) -> None:
    try:
        wave = decode(content, 8000)
    except BadRecord as error:
        assert str(error)
    else:
        assert wave.dtype == np.float32 and wave.ndim == 1 and np.isfinite(wave).all() and np.abs(wave).max() <= 1
