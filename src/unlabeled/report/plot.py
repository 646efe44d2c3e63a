"""One chart of points, lines, bands and rules on axes that may be logarithmic, as SVG in the page's colours.

Points and lines marked so set the range of the axes; what lies beyond is cut at the frame, so that an interval without bounds
does not squeeze the runs. All text that comes from data is escaped here, but for the words of a key.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from unlabeled.report.axes import (
    BOTTOM,
    LETTER,
    LINE,
    RIGHT,
    TOP,
    Axis,
    Label,
    axis,
    behind,
    drawable,
    number,
    svg,
    wide,
)

__all__ = ["Band", "Line", "Mark", "Points", "Rule", "key", "plot"]

WIDTH, HEIGHT, LEFT = 400, 300, 56  # larger than a plain chart: two beside each other on a wide page
_LONGEST = 26  # letters of a name that is written beside its point


@dataclass(frozen=True)
class Points:
    """at: (x, y) each. titles: what each says when pointed at. spread: (low, high) in y. named: words beside it, or none."""

    at: Sequence[tuple[float, float]]
    colour: str
    titles: Sequence[str] = ()
    spread: Sequence[tuple[float, float]] = ()
    named: Sequence[str] = ()
    ring: bool = False
    size: float = 3.2


@dataclass(frozen=True)
class Line:
    """at: (x, y) in order. fits: whether the axes make room for it."""

    at: Sequence[tuple[float, float]]
    colour: str
    dashed: bool = False
    fits: bool = True
    thin: bool = False


@dataclass(frozen=True)
class Band:
    """at: (x, low, high) in order; where one is no number, there is a gap. fits: whether the axes make room for it."""

    at: Sequence[tuple[float, float, float]]
    colour: str
    fits: bool = False


@dataclass(frozen=True)
class Rule:
    """A line across the whole drawing at a value of x, or of y where it is level."""

    value: float
    words: str = ""
    level: bool = False
    dashed: bool = True
    fits: bool = True


Mark = Points | Line | Band | Rule
_Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels


def plot(
    title: str,
    marks: Sequence[Mark],
    across: str,
    *,
    log_x: bool = False,
    log_y: bool = False,
    label_x: Label = number,
    label_y: Label = number,
    note: str = "",
    legend: str = "",
) -> str:
    """The chart as a figure; nothing where no mark has a point. Marks are drawn in their order. legend: HTML, see `key`."""
    bounds = [(x, y) for x, y in _bounds(marks) if math.isfinite(x) and math.isfinite(y)]
    if not bounds:
        return ""
    xs = [*(x for x, _ in bounds), *(m.value for m in marks if isinstance(m, Rule) and not m.level and m.fits)]
    ys = [*(y for _, y in bounds), *(m.value for m in marks if isinstance(m, Rule) and m.level and m.fits)]
    x, y = axis(xs, label_x, log_x), axis(ys, label_y, log_y)
    draw = _Drawing(x, y)
    frame = behind(x.ticks, y.ticks, draw.x, draw.y, across, x.label, y.label, WIDTH, HEIGHT, LEFT)
    drawing = svg(frame + "".join(map(draw.mark, marks)), title, WIDTH, HEIGHT)
    below = f'<p class="note">{escape(note)}</p>' if note else ""
    return f'<figure class="chart"><figcaption>{escape(title)}</figcaption>{drawing}{legend}{below}</figure>'


def key(entries: Sequence[tuple[str, str, str]]) -> str:
    """A legend of (kind, colour, words as HTML); kind is dot, ring, line, dashed or band."""
    words = (f'<span><i class="{kind}" style="--colour:{colour}"></i>{said}</span>' for kind, colour, said in entries)
    return f'<div class="legend">{"".join(words)}</div>' if entries else ""


def _bounds(marks: Sequence[Mark]) -> Iterator[tuple[float, float]]:
    """What the axes make room for."""
    for mark in marks:
        if isinstance(mark, Points) or (isinstance(mark, Line) and mark.fits):
            yield from mark.at
        if isinstance(mark, Points):
            for (x, _), ends in zip(mark.at, mark.spread):
                yield from ((x, end) for end in ends)
        if isinstance(mark, Band) and mark.fits:
            for x, low, high in mark.at:
                yield from ((x, low), (x, high))


class _Drawing:
    """Marks to SVG on two axes."""

    def __init__(self, x: Axis, y: Axis) -> None:
        self.across, self.up = x, y
        self.names: list[_Box] = []
        self.x, self.y = x.scale(LEFT, WIDTH - RIGHT), y.scale(HEIGHT - BOTTOM, TOP)

    def mark(self, mark: Mark) -> str:
        if isinstance(mark, Points):
            return "".join(self._point(mark, i) for i in range(len(mark.at)))
        if isinstance(mark, Line):
            return self._line(mark)
        return self._band(mark) if isinstance(mark, Band) else self._rule(mark)

    def _point(self, mark: Points, i: int) -> str:
        x, y = mark.at[i]
        if not (self.across.shows(x) and self.up.shows(y)):
            return ""
        left, top = self.x(x), self.y(y)
        parts = []
        if i < len(mark.spread) and all(map(math.isfinite, mark.spread[i])):
            low, high = (self.y(self.up.clamp(v)) for v in mark.spread[i])
            parts.append(
                f'<line x1="{left:.1f}" x2="{left:.1f}" y1="{low:.1f}" y2="{high:.1f}" stroke="{mark.colour}"/>'
            )
        said = f"<title>{escape(mark.titles[i])}</title>" if i < len(mark.titles) else ""
        fill = "var(--card)" if mark.ring else mark.colour
        edge = f' stroke="{mark.colour}" stroke-width="1.6"' if mark.ring else ""
        parts.append(
            f'<circle class="point" cx="{left:.1f}" cy="{top:.1f}" r="{mark.size}" fill="{fill}"{edge}>{said}</circle>'
        )
        if i < len(mark.named) and mark.named[i]:
            parts.append(self._name(mark.named[i], left, top))
        return "".join(parts)

    def _name(self, words: str, x: float, y: float) -> str:
        """Beside a point, right or left; below or above where another name stands; nowhere if there is no room at all."""
        words = words if len(words) <= _LONGEST else words[: _LONGEST - 1] + "…"
        length = LETTER * len(words)
        for down in (0, LINE, -LINE, 2 * LINE, -2 * LINE):
            for start in (x + 6, x - 6 - length):
                box = (start, y + down - LINE / 2, start + length, y + down + LINE / 2)
                inside = box[0] >= 0 and box[2] <= WIDTH and box[1] >= 0 and box[3] <= HEIGHT - BOTTOM
                if inside and not any(_overlap(box, other) for other in self.names):
                    self.names.append(box)
                    at, anchor = (x + 6, "start") if start > x else (x - 6, "end")
                    return f'<text x="{at:.1f}" y="{y + down + 4:.1f}" text-anchor="{anchor}">{escape(words)}</text>'
        return ""

    def _line(self, mark: Line) -> str:
        style = f'fill="none" stroke="{mark.colour}" stroke-width="{1 if mark.thin else 1.8}"'
        style += ' stroke-dasharray="5 4"' if mark.dashed else ""
        return "".join(
            f'<path d="M{"L".join(f"{x:.1f} {y:.1f}" for x, y in piece)}" {style}/>' for piece in self._pieces(mark.at)
        )

    def _pieces(self, at: Sequence[tuple[float, float]]) -> list[list[tuple[float, float]]]:
        """The line in pixels, cut where it leaves the frame or is no number."""
        placed = [(self.x(x), self.y(y)) if self.across.shows(x) and drawable(y, self.up.log) else None for x, y in at]
        top, bottom = TOP, HEIGHT - BOTTOM
        pieces: list[list[tuple[float, float]]] = [[]]
        for before, after in itertools.pairwise(placed):
            cut = _inside(before, after, top, bottom) if before and after else None
            if cut is None:
                pieces.append([])
                continue
            if pieces[-1] and pieces[-1][-1] == cut[0]:
                pieces[-1].append(cut[1])
            else:
                pieces.append(list(cut))
        return [p for p in pieces if len(p) > 1]

    def _band(self, mark: Band) -> str:
        parts = []
        run: list[tuple[float, float, float]] = []
        for x, low, high in [*mark.at, (math.nan, math.nan, math.nan)]:
            if self.across.shows(x) and not math.isnan(low) and not math.isnan(high):
                run.append((self.x(x), self.y(self.up.clamp(low)), self.y(self.up.clamp(high))))
                continue
            if len(run) > 1:
                corners = [*((x, y) for x, y, _ in run), *((x, y) for x, _, y in reversed(run))]
                path = "L".join(f"{x:.1f} {y:.1f}" for x, y in corners)
                parts.append(f'<path class="band" d="M{path}Z" fill="{mark.colour}"/>')
            run = []
        return "".join(parts)

    def _rule(self, mark: Rule) -> str:
        if not (self.up if mark.level else self.across).shows(mark.value):
            return ""
        dashes = ' stroke-dasharray="2 3"' if mark.dashed else ""
        style = f'stroke="var(--soft)"{dashes}'
        if mark.level:
            y = self.y(mark.value)
            line = f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" {style}/>'
            return line + (
                f'<text x="{WIDTH - RIGHT - 2}" y="{y - 4:.1f}" text-anchor="end">{escape(mark.words)}</text>'
                if mark.words
                else ""
            )
        x = self.x(mark.value)
        line = f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}" {style}/>'
        if not mark.words:
            return line
        before = x + 6 + wide(mark.words) > WIDTH - RIGHT
        return line + (
            f'<text x="{x - 4 if before else x + 4:.1f}" y="{HEIGHT - BOTTOM - 6}" '
            f'text-anchor="{"end" if before else "start"}">{escape(mark.words)}</text>'
        )


def _overlap(one: _Box, other: _Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _inside(
    before: tuple[float, float], after: tuple[float, float], top: float, bottom: float
) -> tuple[tuple[float, float], tuple[float, float]] | None:
    """The part of a straight piece between two heights."""
    (x0, y0), (x1, y1) = before, after
    if y0 == y1:
        return (before, after) if top <= y0 <= bottom else None
    shares = sorted(((top - y0) / (y1 - y0), (bottom - y0) / (y1 - y0)))
    start, end = max(0.0, shares[0]), min(1.0, shares[1])
    if start >= end:
        return None
    ends = []
    for share, whole in ((start, before), (end, after)):
        y = min(max(y0 + share * (y1 - y0), top), bottom)  # rounding of a steep piece would leave the frame
        ends.append(whole if share in (0, 1) else (x0 + share * (x1 - x0), y))
    return ends[0], ends[1]
