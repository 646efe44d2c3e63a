"""The page of a scaling law says what the advice says, and its charts stand where the numbers are."""

from __future__ import annotations

import itertools
import math
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.test_report import EVIL, Tags
from unlabeled.report.axes import BOTTOM, RIGHT, TOP, axis, compute, log_ticks, number, percent
from unlabeled.report.page import cell
from unlabeled.report.plot import HEIGHT, LEFT, WIDTH, Band, Line, Mark, Points, Rule, plot
from unlabeled.report.scaling import page, page_of, write
from unlabeled.report.scaling_charts import figures
from unlabeled.scale.advise import Advice, advise
from unlabeled.scale.budget import Ground, frontier
from unlabeled.scale.fit import fit
from unlabeled.scale.table import Table

COMMAND = f"unlabeled scale advise '{EVIL}' --compute 1e18"


def made(budgets: int = 4, sizes: int = 5, noise: float = 0.002) -> Table:
    """isoFLOP runs of a known law with a little noise; FLOPs are a little more than 6 N D. One name is no friend of HTML."""
    random = np.random.default_rng(0)
    flops = np.repeat(np.geomspace(1e15, 1e17, budgets), sizes)
    best = (0.34 * 400 / (0.28 * 410)) ** (1 / 0.62) * (flops / 6.6) ** (0.28 / 0.62)
    params = np.round(best * np.tile(np.geomspace(0.2, 5, sizes), budgets))
    tokens = flops / (6.6 * params)
    loss = (1.7 + 400 / params**0.34 + 410 / tokens**0.28) * np.exp(noise * random.standard_normal(len(flops)))
    names = [f"run-{i}" for i in range(len(flops))]
    names[len(flops) // 2] = EVIL
    columns = {"params": params, "tokens": tokens, "flops": flops, "loss": loss}
    return Table(columns, {"unit": np.array(["nats per token"] * len(flops))}, tuple(names), source=f"{EVIL}.csv")


@pytest.fixture(scope="module")
def advice() -> Advice:
    return advise(made(), compute=[1e18], served=1e10, draws=30, highest=1)


@pytest.fixture(scope="module")
def html(advice: Advice) -> str:
    return page(advice, COMMAND)


def drawings(html: str) -> dict[str, ElementTree.Element]:
    """Caption -> drawing, of each chart of a page."""
    found = re.findall(r"<figcaption>(.*?)</figcaption>(<svg.*?</svg>)", html, re.S)
    return {caption: ElementTree.fromstring(svg) for caption, svg in found}


def drawn(html: str, beginning: str) -> ElementTree.Element:
    return next(svg for caption, svg in drawings(html).items() if caption.startswith(beginning))


def words(element: ElementTree.Element) -> str:
    return "".join(element.itertext())


def points(svg: ElementTree.Element) -> dict[str, list[tuple[float, float]]]:
    """What a point says -> where it stands."""
    found: dict[str, list[tuple[float, float]]] = {}
    for circle in svg.iter("circle"):
        found.setdefault(words(circle), []).append((float(circle.get("cx", "nan")), float(circle.get("cy", "nan"))))
    return found


def paths(svg: ElementTree.Element) -> list[np.ndarray]:
    numbers = (re.findall(r"-?[\d.]+|nan|inf", p.get("d", "")) for p in svg.iter("path"))
    return [np.array(n, float).reshape(-1, 2) for n in numbers]


def value_of(label: str) -> float:
    """What the words of a tick stand for."""
    scale = {"k": 1e3, "M": 1e6, "B": 1e9, "T": 1e12, "%": 0.01}.get(label[-1], 1.0)
    return float(label.rstrip("kMBT%")) * scale


def scales(svg: ElementTree.Element):
    """Value -> pixel on both logarithmic axes, by the ticks as they are labelled: what a reader does."""
    across, up = [], []
    for text in svg.iter("text"):
        x, y = float(text.get("x", "nan")), float(text.get("y", "nan"))
        power = text.find("tspan")
        if text.get("text-anchor") == "middle" and power is not None:
            mantissa = float((text.text or "").removesuffix("10").removesuffix("×") or 1)
            across.append((math.log(mantissa) + int(words(power)) * math.log(10), x))
        elif text.get("text-anchor") == "middle":
            across.append((math.log(value_of(words(text))), x))
        elif text.get("text-anchor") == "end" and x == LEFT - 6:
            up.append((math.log(value_of(words(text))), y - 4))
    (x_slope, x_start), (y_slope, y_start) = (np.polyfit(*zip(*ticks), 1) for ticks in (across, up))
    return lambda v: x_start + x_slope * math.log(v), lambda v: y_start + y_slope * math.log(v)


def distance(path: np.ndarray, x: float, y: float) -> float:
    """From a point to a line of pieces."""
    start, step = path[:-1], np.diff(path, axis=0)
    length = (step**2).sum(1)
    share = np.clip(((np.array([x, y]) - start) * step).sum(1) / np.maximum(length, 1e-12), 0, 1)
    return float(np.hypot(*(start + share[:, None] * step - [x, y]).T).min())


def test_what_the_advice_says_is_on_the_page(advice, html):
    text = re.sub(r"<[^>]*>", " ", html)
    for sentence in (*advice.headline, *advice.cautions):
        assert escaped(sentence) in html
    for table in advice.tables:
        for row in table["rows"]:
            assert all(f">{escaped(cell(value))}</td>" in html for value in row)
    for name, value in advice.fit.parameters.items():
        low, high = advice.fit.intervals[name]
        assert re.search(
            rf"\b{name}\s+{re.escape(figures(value))}\s+{re.escape(figures(low))}\s+{re.escape(figures(high))}", text
        )
    check = advice.fit.heldout
    assert f"{check.mean_error:.2%}" in text and f"{check.largest_error:.2%}" in text
    assert all(f"{error:.2%}" in text for error in check.baselines.values())
    assert advice.cost.formula in text and "1.1 times 6 N D" in text
    assert f"<pre>{escaped(COMMAND)}</pre>" in html


def escaped(text: str) -> str:
    return (
        text.replace("&", "&amp;")
        .replace("<", "&lt;")
        .replace(">", "&gt;")
        .replace('"', "&quot;")
        .replace("'", "&#x27;")
    )


def test_every_run_has_its_residual_and_those_left_out_a_reason(advice, html):
    table, fit = advice.table, advice.fit
    parts = {k: fit.parameters[k] for k in ("E", "A", "B", "alpha", "beta")}
    law = parts["E"] + parts["A"] / table["params"] ** parts["alpha"] + parts["B"] / table["tokens"] ** parts["beta"]
    html = html[html.index("<h2>Runs</h2>") :]
    for i, name in enumerate(table.names):
        row = re.search(rf"<td[^>]*>{re.escape(escaped(name))}</td>(.*?)</tr>", html).group(1)
        assert f"{figures(law[i])}</td>" in row and f"{100 * (table['loss'][i] / law[i] - 1):+.2f}%" in row
    assert len(advice.table.excluded) == 1
    assert advice.table.excluded[0].why in html


def test_it_is_one_whole_file_that_escapes_what_it_shows(html):
    tags = Tags()
    tags.feed(html)
    assert not tags.open
    assert "<script" not in html and escaped(EVIL) in html
    assert not any({"src", "href", "onload"} & set(attributes) for _, attributes in tags.seen)
    assert len(drawings(html)) == 6


def test_sentences_and_tables_are_escaped_too(advice):
    table = {"title": EVIL, "columns": [EVIL], "rows": [[EVIL]], "note": EVIL}
    html = page(replace(advice, headline=(EVIL,) * 5, cautions=(EVIL,), tables=(table,)), COMMAND)
    assert "<script" not in html and html.count(escaped(EVIL)) >= 10


def test_coordinates_are_numbers_inside_the_drawing(html):
    for svg in drawings(html).values():
        sound(svg)


def sound(svg: ElementTree.Element) -> None:
    for path in paths(svg):
        assert np.isfinite(path).all()
        assert (path >= [LEFT - 0.1, TOP - 0.1]).all() and (path <= [WIDTH - RIGHT + 0.1, HEIGHT - BOTTOM + 0.1]).all()
    for element in svg.iter():
        for name, value in element.attrib.items():
            if name in ("x", "x1", "x2", "cx"):
                assert 0 <= float(value) <= WIDTH
            if name in ("y", "y1", "y2", "cy"):
                assert 0 <= float(value) <= HEIGHT


def test_runs_and_frontier_stand_where_the_axes_say(advice, html):
    svg = drawn(html, "Loss (nats per token) against compute")
    to_x, to_y = scales(svg)
    by_name = {said.split(":")[0]: at for said, at in points(svg).items()}
    for i, name in enumerate(advice.table.names):
        if ":" not in name:
            expected = to_x(advice.table["flops"][i]), to_y(advice.table["loss"][i])
            assert by_name[name][0] == pytest.approx(expected, abs=0.4)
    solid, dashed = (
        np.concatenate([p for p, e in zip(paths(svg), svg.iter("path")) if is_line(e, wanted)])
        for wanted in (False, True)
    )
    fit = advice.fit
    ground = Ground(fit, fit.form, fit.theta[None], advice.cost, advice.level)
    for budget, line in ((3.3e15, solid), (4.7e16, solid), (4e17, dashed)):
        best = frontier(ground, [budget])[0]
        assert distance(line, to_x(budget), to_y(best.loss.value)) < 0.4
    assert solid[:, 0].max() == pytest.approx(to_x(advice.table["flops"].max()), abs=0.4)
    assert dashed[:, 0].min() == pytest.approx(solid[:, 0].max(), abs=0.2)


def is_line(path: ElementTree.Element, dashed: bool) -> bool:
    return path.get("fill") == "none" and (path.get("stroke-dasharray") is not None) == dashed


def test_the_best_split_of_the_headline_is_where_its_point_is(advice, html):
    svg = drawn(html, "Best parameters")
    to_x, to_y = scales(svg)
    row = advice.compute[0]
    at = next(at for said, at in points(svg).items() if said.startswith("1e18 FLOPs"))
    for place, value in zip(at, (row.params.value, row.tokens.value), strict=True):
        assert place == pytest.approx((to_x(1e18), to_y(value)), abs=0.4)
    vertex = replace(advice.isoflop.vertices[0], akima=1.3 * advice.isoflop.vertices[0].params)  # not the parabola's
    isoflop = replace(advice.isoflop, vertices=(vertex, *advice.isoflop.vertices[1:]))
    svg = drawn(page(replace(advice, isoflop=isoflop), COMMAND), "Best parameters")
    to_x, to_y = scales(svg)
    at = next(at for said, at in points(svg).items() if said.startswith("Minimum at 1e15"))
    assert at[0] == pytest.approx((to_x(vertex.flops), to_y(vertex.akima)), abs=0.4)
    bars = [float(e.get("y1")) for e in svg.iter("line") if e.get("stroke") == "var(--c0)"]
    assert min(abs(b - to_y(vertex.akima * math.exp(-vertex.sigma))) for b in bars) < 0.4


def test_parabolas_go_through_their_minima_and_are_those_of_the_fit(advice, html):
    svg = drawn(html, "Loss (nats per token) against parameters")
    to_x, to_y = scales(svg)
    curves = paths(svg)
    for vertex in advice.isoflop.vertices:
        assert min(distance(c, to_x(vertex.params), to_y(vertex.loss)) for c in curves) < 0.4
        rows = np.flatnonzero(np.abs(advice.table["flops"] / vertex.flops - 1) < 0.01)
        u = np.log(advice.table["params"][rows])
        poly = np.polyfit(u - u.mean(), advice.table["loss"][rows], 2)
        for size in (u.min() + 0.3, u.max() - 0.3):
            place = to_x(math.exp(size)), to_y(np.polyval(poly, size - u.mean()))
            assert min(distance(c, *place) for c in curves) < 0.6


def test_an_outlier_is_named():
    table = made(noise=1e-4)
    loss = table["loss"].copy()
    loss[10] *= 1.05
    spoilt = Table({**table.columns, "loss": loss}, names=table.names)
    svg = drawn(page_of(fit(spoilt, "chinchilla", draws=0), spoilt, COMMAND), "How far")
    assert any(words(t).startswith("<script>alert") and words(t).endswith("…") for t in svg.iter("text"))


@pytest.mark.parametrize("law", ["kaplan-n", "chinchilla", "isoflop"])
def test_a_fit_alone_has_a_page_without_what_it_does_not_know(law):
    table = made(budgets=4)
    found = fit(table, law, draws=0)
    html = page_of(found, table, COMMAND)
    for svg in drawings(html).values():
        sound(svg)
    captions = " ".join(drawings(html))
    assert ("Best parameters" in captions) == (law != "kaplan-n")
    assert ("against parameters" in captions) == (law == "isoflop")
    assert ("How far" in captions) == (law != "isoflop")
    if law == "isoflop":
        svg = drawn(html, "Best parameters")
        to_x, to_y = scales(svg)
        assert distance(paths(svg)[0], to_x(1e16), to_y(found.optimum(1e16))) < 0.4
    assert "nan" not in re.sub(r"<style>.*</style>", "", html, flags=re.S) and "Bands:" not in html


def test_few_runs_without_intervals_or_a_check_or_minima():
    table = made(budgets=2, sizes=3)
    advice = advise(table, draws=0)
    assert advice.isoflop is None and advice.fit.heldout is None
    html = page(advice, COMMAND)
    assert "No runs were held out" in html and "fitted without a bootstrap" in html
    assert [c.split(" against ")[-1] for c in drawings(html)][:2] == ["compute, by parameters", "tokens, by parameters"]
    for svg in drawings(html).values():
        sound(svg)


def test_law_and_runs_lie_on_one_curve_of_tokens():
    table = made(budgets=2, sizes=3, noise=0.0)
    svg = drawn(page(advise(table, draws=0), COMMAND), "Loss (nats per token) against tokens")
    to_x, to_y = scales(svg)
    for tokens, loss in zip(table["tokens"], table["loss"]):
        assert min(distance(c, to_x(tokens), to_y(loss)) for c in paths(svg) if len(c) > 1) < 3


def test_write_gives_the_file(advice, html, tmp_path):
    path = write(advice, tmp_path / "advice.html", COMMAND)
    assert isinstance(path, Path) and path.read_text() == html


def test_many_runs_are_folded_away_but_there(advice):
    table = made(budgets=12)
    found = fit(table, "chinchilla", draws=0)
    html = page_of(found, table, COMMAND)
    inside = html[html.index("All 60 runs") : html.index("</details>", html.index("All 60 runs"))]
    assert all(escaped(name) in inside for name in table.names)


positive = st.floats(1e-200, 1e200)


@given(positive, st.floats(1.0, 60.0).map(lambda p: 10**p) | st.floats(1.0001, 12.0))
def test_log_ticks_enclose_rise_and_are_few_and_round(low, factor):
    high = low * factor
    ticks = log_ticks(low, high)
    assert ticks[0] <= low and ticks[-1] >= high
    assert all(a < b for a, b in itertools.pairwise(ticks))
    assert 2 <= len(ticks) <= 8
    if high / low > 1.3:
        assert sum(low <= t <= high for t in ticks) >= 2  # or the axis could not be read
    if factor > 3.1:
        mantissas = {f"{t:.6e}".split("e")[0].rstrip("0").rstrip(".") for t in ticks}
        assert mantissas <= {"1", "1.5", "2", "3", "4", "5", "7"}


@given(st.lists(st.floats(1e-99, 1e99), min_size=1, max_size=5), st.booleans())
def test_axes_hold_their_values_with_a_margin(values, log):
    made = axis(values, number, log)
    scale = made.scale(100.0, 300.0)
    assert all(100 < scale(v) < 300 for v in values)
    order = np.argsort(values)
    assert (np.diff([scale(values[i]) for i in order]) >= 0).all()


def test_the_middle_of_a_logarithmic_axis_is_the_geometric_mean():
    scale = axis([1.0, 100.0], number, log=True, pad=0.0).scale(0.0, 10.0)
    assert [scale(1.0), scale(10.0), scale(100.0)] == pytest.approx([0.0, 5.0, 10.0])


def test_words_of_ticks():
    assert [re.sub("<[^>]*>", "^", compute(v)) for v in (1e15, 2e18, 1.25e3)] == ["10^15^", "2×10^18^", "1.25×10^3^"]
    assert [percent(v) for v in (0.01, -0.025, 0.0)] == ["1%", "-2.5%", "0%"]


anything = st.floats() | st.sampled_from([0.0, -1.0, 1e-320, 1e308, math.inf, math.nan, 1.0, 2.0])
pairs = st.lists(st.tuples(anything, anything), max_size=6)
marks = st.lists(
    st.builds(
        Points,
        pairs,
        st.just("red"),
        st.lists(st.text(), max_size=6),
        pairs,
        st.lists(st.text(max_size=40), max_size=6),
    )
    | st.builds(Line, pairs, st.just("red"), st.booleans(), st.booleans())
    | st.builds(Band, st.lists(st.tuples(anything, anything, anything), max_size=5), st.just("red"), st.booleans())
    | st.builds(Rule, anything, st.text(max_size=10), st.booleans()),
    max_size=4,
)


@settings(max_examples=150, deadline=None)
@given(marks, st.booleans(), st.booleans())
def test_whatever_is_drawn_stays_inside_and_is_sound(many: list[Mark], log_x: bool, log_y: bool):
    html = plot("title", many, "across", log_x=log_x, log_y=log_y)
    readable = re.sub(r"[^\x20-\ud7ff\ue000-\ufffd]", "", html)  # XML has no other characters; HTML passes over them
    for svg in drawings(readable).values():
        sound(svg)


def test_what_leaves_the_frame_is_cut_at_it():
    inside = Points([(1.0, 1.0), (3.0, 2.0)], "red")
    html = plot("title", [inside, Line([(1.0, -5.0), (2.0, 1.5), (3.0, 9.0)], "blue", fits=False)], "across")
    path = next(iter(paths(next(iter(drawings(html).values())))))
    assert len(path) == 3
    assert path[0][1] == pytest.approx(HEIGHT - BOTTOM, abs=0.06) and path[-1][1] == pytest.approx(TOP, abs=0.06)


def test_a_gap_of_an_interval_is_no_bridge():
    band = Band([(1.0, 1.0, 2.0), (2.0, 1.0, 2.0), (3.0, math.nan, 2.0), (4.0, 1.0, 2.0), (5.0, 1.0, 2.0)], "red", True)
    svg = next(iter(drawings(plot("title", [band], "across")).values()))
    assert [len(p) for p in paths(svg)] == [4, 4]


def test_a_held_out_run_is_inside_its_interval_or_not(advice):
    points = tuple((f"held-{m}", 1e17, m, 2.5, 2.0, 3.0) for m in (1.5, 2.2, 3.5))
    heldout = replace(advice.fit.heldout, points=points)
    html = page(replace(advice, fit=replace(advice.fit, heldout=heldout)), COMMAND)
    rows = re.findall(r"<td>held-[^<]*</td>.*?2 to 3</td><td>(\w+)</td>", html)
    assert rows == ["no", "yes", "no"]


def test_names_do_not_stand_on_each_other():
    at = [(1.0, 1.0), (1.02, 1.001), (1.9, 1.0), (2.0, 2.0)]
    named = Points(at, "red", named=["the first of all", "the second", "the third", ""])
    svg = next(iter(drawings(plot("title", [named], "across")).values()))
    boxes = []
    for text in svg.iter("text"):
        if words(text).startswith("the "):
            x, y, length = float(text.get("x", "nan")), float(text.get("y", "nan")), 7 * len(words(text))
            left = x - length if text.get("text-anchor") == "end" else x
            assert left >= 0 and left + length <= WIDTH
            boxes.append((left, left + length, y))
    assert len(boxes) == 3
    for (a, b, y), (c, d, z) in itertools.combinations(boxes, 2):
        assert b <= c or d <= a or abs(y - z) >= 12


def test_nothing_to_draw_is_no_figure():
    assert plot("title", [Points([(math.nan, 1.0)], "red"), Rule(1.0)], "across") == ""


def test_a_page_of_other_units_does_not_say_nats():
    table = made()
    table = Table(table.columns, {"unit": np.array(["bits per dimension"] * len(table))}, table.names)
    html = page_of(fit(table, "chinchilla", draws=0), table, COMMAND)
    assert "Loss (bits per dimension) against compute" in html and "nats per token" not in html


def test_held_out_runs_stand_as_measured_and_foretold(advice, html):
    svg = drawn(html, f"The {advice.fit.heldout.runs} largest runs")
    to_x, to_y = scales(svg)
    at = points(svg)
    assert sum(map(len, at.values())) == advice.fit.heldout.runs > 1
    bars = [e for e in svg.iter("line") if e.get("x1") == e.get("x2")]
    for name, _, measured, foretold, low, high in advice.fit.heldout.points:
        place = next(p[0] for said, p in at.items() if said.startswith(f"{name}: measured {figures(measured)}"))
        assert place == pytest.approx((to_x(measured), to_y(foretold)), abs=0.4)
        ends = [(float(b.get("y1")), float(b.get("y2"))) for b in bars if abs(float(b.get("x1")) - place[0]) < 0.06]
        assert any(e == pytest.approx((to_y(low), to_y(high)), abs=0.4) for e in ends)
        row = re.search(rf"<td>{re.escape(escaped(name))}</td>(<td>{re.escape(figures(measured))}</td>.*?)</tr>", html)
        assert f"<td>{100 * (foretold / measured - 1):+.2f}%</td>" in row.group(1)
        assert ("<td>yes</td>" if low <= measured <= high else "<td>no</td>") in row.group(1)
