"""Pictures of a report as text: line charts and maps in SVG, photographs as PNG inside the page.

Everything takes its colours from the page's CSS variables, so that light and dark are one picture. All text that comes
from data is escaped here.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

from unlabeled.report.axes import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, behind, number, svg, ticks

__all__ = ["bars", "chart", "grid", "histogram", "picture", "png", "scatter", "ticks"]

POINTS = 240  # per line; more than the pixels can show is averaged
COLOURS = 10  # variables --c0 to --c9


def chart(lines: Mapping[str, Sequence[tuple[float, float]]], across: str, title: str) -> str:
    """Lines over a common axis. lines: name to (x, y) in order of x; points that are no numbers are left out."""
    kept = {n: _thin([p for p in ps if math.isfinite(p[0]) and math.isfinite(p[1])]) for n, ps in lines.items()}
    kept = {n: ps for n, ps in kept.items() if ps}
    if not kept:
        return ""
    everything = [p for ps in kept.values() for p in ps]
    xs, ys = ticks(*_ends(x for x, _ in everything), 5), ticks(*_ends(y for _, y in everything), 5)
    to_x = _scale(min(xs[0], min(x for x, _ in everything)), max(x for x, _ in everything), LEFT, WIDTH - RIGHT)
    to_y = _scale(ys[0], ys[-1], HEIGHT - BOTTOM, TOP)
    parts = [behind(xs, ys, to_x, to_y, across)]
    for i, (name, points) in enumerate(kept.items()):
        path = "L".join(f"{to_x(x):.1f} {to_y(y):.1f}" for x, y in points)
        x, y = points[-1]
        parts.append(f'<path d="M{path}" fill="none" stroke="var(--c{i % COLOURS})" stroke-width="1.8"/>')
        parts.append(
            f'<circle cx="{to_x(x):.1f}" cy="{to_y(y):.1f}" r="3" fill="var(--c{i % COLOURS})">'
            f"<title>{escape(name)}: {number(y)}</title></circle>"
        )
    key = legend(list(kept)) if len(kept) > 1 else ""
    drawing = svg("".join(parts), f"{title}, from {number(everything[0][1])} to {number(everything[-1][1])}")
    return f'<figure class="chart"><figcaption>{escape(title)}</figcaption>{drawing}{key}</figure>'


def bars(values: Mapping[str, float], title: str) -> str:
    """Horizontal bars from zero, one a line, each with its number."""
    top = max([v for v in values.values() if math.isfinite(v)] or [1.0]) or 1.0
    rows = []
    for name, value in values.items():
        share = 100 * max(0.0, value) / top if math.isfinite(value) else 0
        rows.append(
            f'<div class="bar"><span>{escape(name)}</span><i style="width:{share:.1f}%"></i><b>{number(value)}</b></div>'
        )
    return f'<figure class="bars"><figcaption>{escape(title)}</figcaption>{"".join(rows)}</figure>'


def histogram(values: Mapping[float, int], limits: Sequence[float], title: str, bins: int = 40) -> str:
    """How often each value occurs, with lines at some limits. The axis is logarithmic where the values are all positive
    and span more than three decades between their 1 % and 99 % quantiles; what lies beyond these is counted at the edge.
    """
    ordered = np.array(sorted(values), dtype=np.float64)
    counts = np.array([values[v] for v in sorted(values)], dtype=np.float64)
    share = np.cumsum(counts) / counts.sum()
    low, high = ordered[np.searchsorted(share, 0.01)], ordered[min(np.searchsorted(share, 0.99), len(ordered) - 1)]
    low, high = min([low, *limits]), max([high, *limits])
    if high <= low:
        high = low + 1.0
    logarithmic = low > 0 and high / low > 1e3
    change = np.log10 if logarithmic else np.asarray
    edges = np.linspace(change(low), change(high), bins + 1)
    tall, _ = np.histogram(np.clip(change(np.clip(ordered, low, high)), edges[0], edges[-1]), edges, weights=counts)
    to_x = _scale(edges[0], edges[-1], LEFT, WIDTH - RIGHT)
    ys = ticks(0.0, float(tall.max()), 4)
    to_y = _scale(0.0, ys[-1], HEIGHT - BOTTOM, TOP)
    parts = [behind([], ys, to_x, to_y, "")]
    for left, right, count in zip(edges[:-1], edges[1:], tall):
        x, y = to_x(left), to_y(count)
        parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(to_x(right) - x - 1, 0.5):.1f}" height="{HEIGHT - BOTTOM - y:.1f}" '
            f'fill="var(--c0)"><title>{int(count):,}</title></rect>'
        )
    for limit in limits:
        x = to_x(change(limit))
        parts.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}" stroke="var(--c1)" stroke-width="2"/>'
        )
    for x in ticks(edges[0], edges[-1], 5):
        if LEFT - 1 <= to_x(x) <= WIDTH - RIGHT + 1:
            shown = number(10**x if logarithmic else x)
            parts.append(f'<text x="{to_x(x):.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{shown}</text>')
    drawing = svg("".join(parts), f"{title}: histogram of {int(counts.sum()):,} values")
    return f'<figure class="chart"><figcaption>{escape(title)}</figcaption>{drawing}</figure>'


def scatter(points: np.ndarray, labels: Sequence[int] | None, classes: Sequence[str], title: str) -> str:
    """A map: (n, 2) points, coloured by class where labels are known. Classes past the tenth share the colour of text."""
    low, high = points.min(0), points.max(0)
    size = 480
    place = (points - low) / np.maximum(high - low, 1e-9) * (size - 16) + 8
    marks = []
    for i, (x, y) in enumerate(place):
        label = -1 if labels is None else int(labels[i])
        colour = f"var(--c{label})" if 0 <= label < COLOURS else "var(--faint)" if labels is not None else "var(--c0)"
        name = f"<title>{escape(classes[label])}</title>" if 0 <= label < len(classes) else ""
        marks.append(f'<circle cx="{x:.1f}" cy="{size - y:.1f}" r="2.6" fill="{colour}">{name}</circle>')
    key = legend([*classes[:COLOURS], *(["others"] if len(classes) > COLOURS else [])]) if labels is not None else ""
    drawing = svg("".join(marks), title, size, size)
    return f'<figure class="map"><figcaption>{escape(title)}</figcaption>{drawing}{key}</figure>'


def legend(names: Sequence[str]) -> str:
    keys = (
        f'<span><i style="background:{f"var(--c{i})" if i < COLOURS else "var(--faint)"}"></i>{escape(n)}</span>'
        for i, n in enumerate(names)
    )
    return f'<div class="legend">{"".join(keys)}</div>'


def png(image: np.ndarray) -> bytes:
    """(height, width, 1 or 3) uint8 as a PNG file."""
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(out, "PNG")
    return out.getvalue()


def grid(images: np.ndarray, columns: int | None = None, gap: int = 2) -> bytes:
    """(n, height, width, channels) uint8 as one PNG: row by row, as square as it comes, with grey gaps."""
    n, height, width, channels = images.shape
    columns = columns or math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    sheet = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, channels), 128, dtype=np.uint8)
    for i, image in enumerate(images):
        y, x = divmod(i, columns)
        sheet[y * (height + gap) :][:height, x * (width + gap) :][:, :width] = image
    return png(sheet)


def picture(file: bytes, text: str, kind: str = "") -> str:
    """A PNG file inside the page. text: what is read out where pictures are not seen."""
    return (
        f'<img class="{kind}" alt="{escape(text, True)}" src="data:image/png;base64,{base64.b64encode(file).decode()}">'
    )


def _ends(values) -> tuple[float, float]:
    listed = list(values)
    return min(listed), max(listed)


def _scale(low: float, high: float, start: float, end: float):
    span = (high - low) or 1.0
    return lambda value: start + (value - low) / span * (end - start)


def _thin(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most POINTS points, neighbours averaged."""
    if len(points) <= POINTS:
        return list(points)
    pieces = np.array_split(np.asarray(points, dtype=np.float64), POINTS)
    return [(float(p[:, 0].mean()), float(p[:, 1].mean())) for p in pieces]
