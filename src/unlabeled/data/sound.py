"""Sound: encoded bytes in, float32 samples of one channel out."""

from __future__ import annotations

from io import BytesIO

import numpy as np

from unlabeled.core.errors import BadRecord
from unlabeled.data.recognise import HEAD_BYTES, describe, sniff

__all__ = ["LONGEST_SECONDS", "decode", "measure"]

LONGEST_SECONDS = 3600
_LARGEST = LONGEST_SECONDS * 48_000  # samples held of one recording; an hour at the rate of studios
_RATES_HZ = (1000, 768_000)  # what recordings can have; other rates are torn headers
_BLOCK = 1 << 16  # frames decoded at a time, so that a header cannot ask for memory that no data fills


def measure(value: bytes) -> tuple[float, int, int]:
    """Seconds, sample rate in hertz and channels, from the header alone.

    Raises:
        BadRecord: where it is no sound that can be read, or longer than an hour.
    """
    import soundfile

    if sniff(value[:HEAD_BYTES]) != "wave":
        raise BadRecord(f"is {describe(value[:HEAD_BYTES])}, not sound")
    try:
        info = soundfile.info(BytesIO(value))
    except Exception as error:  # libsndfile's errors, and those of torn headers
        raise BadRecord(f"cannot be read as sound ({_reason(error)})") from error
    _check(info.frames, info.samplerate)
    # libsndfile reads a cut WAV as a shorter one; its first chunk says how long the file was (0 and -1: a stream)
    if value[:4] == b"RIFF" and len(value) < (told := int.from_bytes(value[4:8], "little")) < 0xFFFFFFFF:
        raise BadRecord(f"is truncated ({len(value):,} of {told + 8:,} bytes)")
    return info.frames / info.samplerate, info.samplerate, info.channels


def _reason(error: Exception) -> str:
    text = " ".join(str(getattr(error, "error_string", "") or type(error).__name__).split())
    return text[:100].rstrip(".")


def _check(frames: int, rate_hz: int) -> None:
    if not _RATES_HZ[0] <= rate_hz <= _RATES_HZ[1]:
        raise BadRecord(f"says it has {rate_hz:,} samples a second")
    if frames > min(LONGEST_SECONDS * rate_hz, _LARGEST):
        raise BadRecord(f"lasts {frames / rate_hz:,.0f} s at {rate_hz:,} Hz, more than an hour's worth of samples")


def decode(value: bytes | np.ndarray, rate_hz: int, *, given_hz: int = 0) -> np.ndarray:
    """One recording to float32 (samples,) in [-1, 1] at rate_hz; channels are averaged, the rate converted by soxr.

    given_hz: sample rate of an array (samples,) or (samples, channels); bytes say it themselves. 0: rate_hz.

    Raises:
        BadRecord: where it is empty, no sound, broken, longer than an hour, or has NaN or infinite samples.
    """
    if isinstance(value, np.ndarray):
        wave, source_hz = _mono(value), given_hz or rate_hz
        _check(len(wave), source_hz)
    else:
        wave, source_hz = _read(bytes(value))
    if not len(wave):
        raise BadRecord("holds no samples")
    if not np.isfinite(wave).all():
        raise BadRecord("has NaN or infinite samples")
    if source_hz != rate_hz:
        import soxr

        wave = soxr.resample(wave, source_hz, rate_hz)
        if not len(wave):
            raise BadRecord(f"is too short to be brought to {rate_hz} Hz")
    return np.clip(wave, -1, 1)  # filtering overshoots a little; floating-point files may hold more than full scale


def _mono(array: np.ndarray) -> np.ndarray:
    if array.ndim not in (1, 2) or array.dtype.kind not in "if":
        raise BadRecord(f"is an array {array.dtype} of shape {array.shape}, not samples")
    if array.dtype.kind == "i":
        array = array / -float(np.iinfo(array.dtype).min)
    return (array if array.ndim == 1 else array.mean(axis=1)).astype(np.float32)


def _read(value: bytes) -> tuple[np.ndarray, int]:
    import soundfile

    measure(value)
    try:
        with soundfile.SoundFile(BytesIO(value)) as file:
            rate_hz, blocks, frames = file.samplerate, [], 0
            while len(block := file.read(_BLOCK, dtype="float32", always_2d=True)):
                blocks.append(block.mean(axis=1))
                frames += len(block)
                _check(frames, rate_hz)
    except BadRecord:
        raise
    except Exception as error:
        raise BadRecord(f"is broken or truncated ({_reason(error)})") from error
    return (np.concatenate(blocks) if blocks else np.zeros(0, np.float32)), rate_hz
