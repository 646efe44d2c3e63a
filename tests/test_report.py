"""The page is one file that asks nothing of a network and shows data as data."""

from __future__ import annotations

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unlabeled.engine.record import Run
from unlabeled.report import keep, kept, text_of, write
from unlabeled.report.draw import chart, grid, ticks
from unlabeled.report.page import again, cell, energy

EVIL = "<script>alert('x')</script>&\"quoted\""


class Tags(HTMLParser):
    """Every tag with its attributes, and whether what is opened is closed."""

    VOID = {"meta", "img", "line", "circle", "path", "link", "br"}

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


@pytest.fixture
def run(tmp_path: Path) -> Run:
    config = {
        "system": "simclr",
        "variant": "tiny",
        "config": {"batch": 32},
        "spec": {"kind": "image", "examples": 100, "image_size": 16, "channels": 1},
        "data": {"name": EVIL, "path": f"/data/{EVIL}", "identity": "0"},
        "settings": {"budget": "30s", "seed": 3},
        "unlabeled": "0.1.0",
        "torch": "2.13.0",
    }
    run = Run.create(tmp_path / "run", config)
    for step in range(1, 30):
        run.add_metrics(
            {"step": step, "examples": step * 32, "seconds": step * 1.5, "loss": 5 / step, "items_per_second": 9.0}
        )
    (run.path / "quarantine.jsonl").write_text(json.dumps({"id": EVIL, "reason": EVIL}) + "\n")
    run.set_status("finished", seconds=44.0, flops=1e12)
    return run


def evaluation() -> dict[str, Any]:
    image = np.zeros((4, 4), np.uint8).tolist()
    return {
        "headline": ["It learned something.", EVIL],
        "tables": [
            {
                "title": EVIL,
                "columns": ["features", "accuracy"],
                "rows": [["this run", 0.81234], [EVIL, None]],
                "own": 0,
            }
        ],
        "diagnostics": {"rank": 12.5, EVIL: EVIL},
        "figures": {
            "neighbours": {
                "kind": "neighbours",
                "rows": [{"query": {"item": image, "name": EVIL}, "neighbours": [image]}],
            },
            "samples": {"kind": "samples", "items": [image] * 5},
            "texts": {"kind": "samples", "items": [EVIL]},
            "map": {"kind": "map", "points": [[0, 0], [1, 1]], "labels": [0, 1], "classes": [EVIL, "b"]},
            "lines": {"kind": "lines", "lines": {EVIL: [[0, 1], [1, 2]], "b": [[0, 1], [1, 3]]}, "across": EVIL},
        },
        "seconds": 3.0,
    }


def test_nothing_is_asked_of_a_network(run: Run) -> None:
    page = write(run, evaluation()).read_text()
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    for tag, attributes in tags.seen:
        assert tag not in ("script", "link", "iframe", "object", "embed", "base")
        for name in ("src", "href", "xlink:href", "srcset", "action", "data"):
            assert (attributes.get(name) or "data:").startswith("data:"), (tag, attributes)
        assert not any(name.startswith("on") for name in attributes)
    style = re.search(r"<style>(.*?)</style>", page, re.S)
    assert style is not None
    assert "url(" not in style[1]
    assert "@import" not in style[1]


def test_data_is_shown_and_not_run(run: Run) -> None:
    page = write(run, evaluation()).read_text()
    assert "<script" not in page
    assert (
        page.count("&lt;script&gt;") >= 10
    )  # name, title, headline, table, facts, picture, text, map, line, quarantine


def test_all_sections_are_there_with_their_figures(run: Run) -> None:
    page = write(run, evaluation()).read_text()
    for said in (
        "It learned something.",
        "Beside the baselines",
        "0.812",
        "<svg",
        "Neighbours",
        "data:image/png;base64,",
        "1TFLOP",
        "an estimate that assumes",
        "Left out",
        "--variant tiny --budget 30s --seed 3 --batch 32",
        "prefers-color-scheme: dark",
        "width=device-width",
    ):
        assert said in page, said


def test_a_run_without_metrics_or_evaluation_still_has_a_page(run: Run) -> None:
    (run.path / "metrics.jsonl").unlink()
    assert "How it went" not in write(run, {}).read_text()


def test_evaluations_are_kept(run: Run) -> None:
    assert kept(run) is None
    keep(run, evaluation())
    assert kept(run) == evaluation()
    said = text_of(evaluation())
    assert "It learned something." in said
    assert re.search(r"this run\s+0\.812", said)


def test_a_model_without_a_run_has_no_report() -> None:
    from unlabeled.core.errors import UserError

    class Loose:
        run = None

    with pytest.raises(UserError, match="without one"):
        write(Loose(), evaluation())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("low", "high"), [(0.0, 1.0), (-3.2, 4.7), (1e-6, 3e-6), (0.0, 0.0), (5.0, 5.0), (2.3, 2.300000000001), (1e9, 7e9)]
)
def test_ticks_enclose_and_are_few(low: float, high: float) -> None:
    found = ticks(low, high, 5)
    assert found[0] <= low
    assert found[-1] >= high
    assert 2 <= len(found) <= 8
    assert np.allclose(np.diff(found), found[1] - found[0])


def test_chart_keeps_its_marks_inside_and_leaves_out_what_is_no_number() -> None:
    points = [(float(x), math.sin(x)) for x in range(2000)] + [(2000.0, math.nan), (2001.0, math.inf)]
    drawn = chart({"a": points}, "seconds", "wave")
    path = re.search(r'd="M([^"]+)"', drawn)
    assert path is not None
    places = [tuple(map(float, p.split())) for p in path[1].split("L")]
    assert 100 < len(places) <= 240
    assert all(0 <= x <= 360 and 0 <= y <= 220 for x, y in places)
    assert "nan" not in drawn
    assert chart({"a": [(0.0, math.nan)]}, "s", "t") == ""


def test_grid_lays_images_row_by_row() -> None:
    import io

    from PIL import Image

    images = np.arange(5, dtype=np.uint8)[:, None, None, None] * np.ones((1, 3, 3, 1), np.uint8)
    sheet = np.asarray(Image.open(io.BytesIO(grid(images, columns=3, gap=1))))
    assert sheet.shape == (7, 11)
    assert sheet[0, 0] == 0
    assert sheet[0, 4] == 1
    assert sheet[4, 4] == 4
    assert sheet[3, 0] == 128


def test_the_command_names_what_differs(run: Run) -> None:
    config = {**run.config, "data": {"name": "x", "path": "/a b", "identity": ""}}
    assert again(config) == "unlabeled train simclr '/a b' --variant tiny --budget 30s --seed 3 --batch 32"


def test_a_run_of_the_front_door_names_its_command_and_reasons(run: Run) -> None:
    run.change_config(fit={"budget": "1m", "goal": "represent", "why": ["because", EVIL]})
    page = write(run, evaluation()).read_text()
    assert "--budget 1m --goal represent --seed 3" in page
    assert "<li>because</li>" in page
    assert "<script" not in page


def test_numbers_in_cells_and_the_energy_estimate() -> None:
    values = (None, float("nan"), True, 3, 12345, 0.123456, 81.234, "70 ± 1")
    assert [cell(v) for v in values] == ["–", "–", "yes", "3", "12,345", "0.123", "81.2", "70 ± 1"]
    assert energy(3600, 2) == 20.0
    assert energy(1800, 2, accelerators=1) == 250.0
