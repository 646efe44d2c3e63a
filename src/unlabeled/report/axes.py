"""Axes of a chart, linear or logarithmic: round ticks, their words, and the lines behind a drawing."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape

__all__ = [
    "Axis",
    "Label",
    "axis",
    "behind",
    "compute",
    "drawable",
    "log_ticks",
    "number",
    "percent",
    "svg",
    "ticks",
]

Label = Callable[[float], str]  # a value as SVG text, escaped

WIDTH, HEIGHT = (
    360,
    220,
)  # of a chart, in CSS pixels; drawn at about this size on any screen, so that text stays legible
LEFT, RIGHT, TOP, BOTTOM = 52, 10, 12, 34  # margins for the axes
MOST = 8  # ticks of a logarithmic axis
LETTER, LINE = 7, 13  # width and height of small text, in the same pixels: labels that would overlap are left out
_SMALLEST, _GREATEST = 1e-140, 1e140  # beyond, nothing is drawn: ratios of such numbers overflow


@dataclass(frozen=True)
class Axis:
    """From low to high; ticks may lie outside, and are not drawn there."""

    low: float
    high: float
    ticks: tuple[float, ...]
    label: Label
    log: bool = False

    def scale(self, start: float, end: float) -> Callable[[float], float]:
        """Value -> place in the drawing between start and end."""
        if not self.log:
            return lambda value: start + (value - self.low) / (self.high - self.low) * (end - start)
        low, span = math.log(self.low), math.log(self.high / self.low)
        return lambda value: start + (math.log(value) - low) / span * (end - start)

    def clamp(self, value: float) -> float:
        return min(max(value, self.low), self.high)

    def shows(self, value: float) -> bool:
        return self.low <= value <= self.high  # false for nan


def axis(values: Iterable[float], label: Label, log: bool = False, pad: float = 0.04) -> Axis:
    """An axis that holds the values, with a margin on both sides; of a logarithmic one only positive values count."""
    kept = [v for v in values if drawable(v, log)]
    low, high = (min(kept), max(kept)) if kept else (1.0, 10.0)
    if log:
        if high / low < 1 + 1e-9:
            low, high = low / 1.5, high * 1.5
        room = (high / low) ** pad
        low, high = low / room, high * room
        return Axis(low, high, tuple(log_ticks(low, high)), label, log)
    if high - low <= max(1e-9 * max(abs(low), abs(high)), _SMALLEST):
        room = abs(low) * 0.1 if abs(low) > _SMALLEST else 1.0
    else:
        room = (high - low) * pad
    low, high = low - room, high + room
    return Axis(low, high, tuple(ticks(low, high, 5)), label)


def drawable(value: float, log: bool) -> bool:
    """Whether an axis has a place for the value."""
    return (_SMALLEST if log else -_GREATEST) < value < _GREATEST


def ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers that enclose [low, high], about so many."""
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        pad = abs(low) * 0.1 or 1.0
        low, high = low - pad, high + pad
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(f * power for f in (1, 2, 2.5, 5, 10) if f * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{i * step:.12g}") for i in range(first, last + 1)]


def log_ticks(low: float, high: float, most: int = MOST) -> list[float]:
    """Round numbers that enclose [low, high], rising, at most so many (4 or more): the finest that are few enough.

    Evenly spaced numbers below a factor of 3; then 1, 1.5, 2, 3, 4, 5, 7; 1, 2, 5; powers of ten; every second, third ... one.
    """
    first, last = math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1
    if high / low < 3:
        even = ticks(low, high, most - 3)
        step = even[1] - even[0]
        even = [*([even[0] - step] if even[0] > low else []), *even, *([even[-1] + step] if even[-1] < high else [])]
        if high - low > 1e-6 * high and even[0] > 0 and len(even) <= most:
            return even
    for steps in ((1, 1.5, 2, 3, 4, 5, 7), (1, 2, 5), (1,)):
        found = _enclosing([float(f"{s}e{p}") for p in range(first, last + 1) for s in steps], low, high)
        if len(found) <= most:
            return found
    stride = 2
    while True:
        begin = math.floor(first / stride) * stride
        found = _enclosing([float(f"1e{p}") for p in range(begin, last + stride + 1, stride)], low, high)
        if len(found) <= most:
            return found
        stride += 1


def _enclosing(values: Sequence[float], low: float, high: float) -> list[float]:
    first = max(i for i, v in enumerate(values) if v <= low)
    last = min(i for i, v in enumerate(values) if v >= high)
    return list(values[first : last + 1])


def behind(
    xs: Sequence[float],
    ys: Sequence[float],
    to_x: Callable[[float], float],
    to_y: Callable[[float], float],
    across: str,
    label_x: Label | None = None,
    label_y: Label | None = None,
    width: float = WIDTH,
    height: float = HEIGHT,
    left: float = LEFT,
) -> str:
    """Lines at the ticks ys, the words of both axes, and what goes across; ticks outside the frame are left out."""
    parts, taken = [], math.inf
    for y in ys:
        place = to_y(y)
        if not TOP - 1 <= place <= height - BOTTOM + 1:
            continue
        parts.append(f'<line x1="{left}" x2="{width - RIGHT}" y1="{place:.1f}" y2="{place:.1f}" stroke="var(--line)"/>')
        if abs(taken - place) >= LINE:
            taken = place
            parts.append(f'<text x="{left - 6}" y="{place + 4:.1f}" text-anchor="end">{(label_y or number)(y)}</text>')
    edge = -math.inf
    for x in xs:
        if not left - 1 <= to_x(x) <= width - RIGHT + 1:
            continue
        shown = (label_x or number)(x)
        half = wide(shown) / 2
        place = min(to_x(x), width - half)
        if place - half > edge:
            edge = place + half + LETTER
            parts.append(f'<text x="{place:.1f}" y="{height - BOTTOM + 16}" text-anchor="middle">{shown}</text>')
    parts.append(f'<text x="{width - RIGHT}" y="{height - 4}" text-anchor="end">{escape(across)}</text>')
    return "".join(parts)


def wide(text: str) -> float:
    """About how many pixels a small SVG text takes."""
    return LETTER * len(re.sub(r"<[^>]*>|&[^;]*(?=;)", "", text))


def svg(inside: str, text: str, width: float = WIDTH, height: float = HEIGHT) -> str:
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(text, True)}">{inside}</svg>'


def number(value: float) -> str:
    """Short, for axes: 12000 -> 12k, 0.00025 -> 2.5e-4."""
    if not math.isfinite(value):
        return "–"
    size = abs(value)
    if size and (size < 1e-3):
        mantissa, power = f"{value:.2e}".split("e")
        return f"{float(mantissa):g}e{int(power)}"
    for limit, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")):
        if size >= limit:
            return f"{value / (1e3 if letter == 'k' else limit):.4g}{letter}"
    return f"{value:.4g}"


def compute(value: float) -> str:
    """FLOPs as a power of ten, with the exponent raised: 1e18, 2e18."""
    mantissa, power = f"{value:.3e}".split("e")
    before = "" if float(mantissa) == 1 else f"{float(mantissa):g}×"
    return f'{before}10<tspan dy="-4" font-size="8">{int(power)}</tspan>'


def percent(value: float) -> str:
    return f"{100 * value:.3g}%"
