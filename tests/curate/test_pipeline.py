"""The pipeline of curation: what it decides, that nothing is lost, and that bytes do not depend on how it was run."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from unlabeled.core.errors import UserError
from unlabeled.curate.catalogue import recipe as recipe_of
from unlabeled.curate.dedup.exact import Exact
from unlabeled.curate.dedup.near import Near
from unlabeled.curate.dedup.semantic import Semantic
from unlabeled.curate.dedup.substrings import Substrings, cut
from unlabeled.curate.document import Document
from unlabeled.curate.ledger import explain
from unlabeled.curate.mix import Mix
from unlabeled.curate.pipeline import curate
from unlabeled.curate.prune import Prototypes
from unlabeled.curate.recipe import Bound, Drop, Edit, Edited, Recipe
from unlabeled.curate.running import written
from unlabeled.data.sources import source

WORDS = (
    "the",
    "of",
    "and",
    "to",
    "in",
    "that",
    "was",
    "his",
    "he",
    "it",
    "with",
    "is",
    "for",
    "as",
    "had",
    "you",
    "not",
    "be",
)


def prose(seed: int, words: int = 60) -> str:
    draw = random.Random(seed)
    return " ".join(draw.choice(WORDS) + str(draw.randrange(60)) for _ in range(words)) + "."


def length(document: Document) -> float:
    return len(document.text)


def without_shouts(document: Document) -> Drop | Edited | None:
    if "SPAM" in document.text:
        return Drop("spam")
    count = document.text.count("!")
    return Edited(document.text.replace("!", "."), {"exclamation mark": count}) if count else None


RECIPE = Recipe("mine", [Bound(length, at_least=20), Edit(without_shouts), Exact(), Near()])


def heap(folder: Path, count: int = 40) -> Path:
    """Documents of two sources: good ones, copies, near copies, short ones, spam, some that cannot be read."""
    (folder / "web").mkdir(parents=True)
    (folder / "books").mkdir()
    lines = [{"text": prose(i) + ("!" if i % 5 == 0 else "")} for i in range(count)]
    lines += [{"text": "short"}, {"text": prose(0).upper() + " SPAM"}, {"text": prose(1)}]
    lines += [{"text": prose(2, 200)}, {"text": prose(2, 200).replace("the", "a", 1)}]
    body = [json.dumps(line) for line in lines]
    (folder / "web" / "pages.jsonl").write_text("\n".join([*body, "{broken", json.dumps({"other": 1})]) + "\n")
    for i in range(count):
        (folder / "books" / f"{i:03d}.txt").write_text(prose(1000 + i))
    (folder / "books" / "copy.txt").write_text(prose(3))
    (folder / "books" / "broken.txt").write_bytes(b"caf\xe9, in Latin-1")
    return folder


def bytes_of(out: Path) -> dict[str, str]:
    return {
        p.relative_to(out).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(out.rglob("*"))
        if p.is_file()
    }


def ledger(out: Path) -> list[dict]:
    return [row for path in sorted((out / "ledger").glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def texts(out: Path) -> list[str]:
    return [t for p in sorted((out / "corpus").glob("*.parquet")) for t in pq.read_table(p).column("text").to_pylist()]


def test_every_document_has_its_row_and_its_reason(tmp_path: Path) -> None:
    result = curate([("", heap(tmp_path / "heap"))], RECIPE, tmp_path / "out", workers=1)
    rows = {row["id"]: row for row in ledger(result.out)}
    outcomes = [row["outcome"] for row in rows.values()]
    assert len(rows) == 40 + 5 + 2 + 40 + 2, "a row for each line and each file"
    assert outcomes.count("quarantined") == 3
    dropped = {row["rule"] for row in rows.values() if row["outcome"] == "dropped"}
    assert dropped == {"length", "without_shouts", Exact().name, Near().name}
    assert len(texts(result.out)) == outcomes.count("kept") == result.totals["documents"]["kept"]
    by_rule = {r["rule"]: r for r in result.totals["rules"]}
    assert by_rule["length"]["dropped"] == 1
    assert by_rule["without_shouts"]["changed"] == 8 and by_rule["without_shouts"]["edits"] == {"exclamation mark": 8}
    assert sum(r["dropped"] for r in by_rule.values()) == outcomes.count("dropped")
    assert by_rule["length"]["seen"] == sum(row["outcome"] != "quarantined" for row in rows.values())


def test_why_a_document_went_is_told_with_what_stays_instead(tmp_path: Path) -> None:
    out = curate([("", heap(tmp_path / "heap"))], RECIPE, tmp_path / "out", workers=1).out
    rows = {row["id"]: row for row in ledger(out)}
    copies = [i for i, row in rows.items() if row["rule"] == Exact().name]
    assert copies
    for copy in copies:
        told = explain(out, copy)
        stays = told.rpartition("In its place stays ")[2].strip(".\n ")
        assert rows[stays + ("." if stays + "." in rows else "")]["outcome"] == "kept", told
    kept = next(i for i, row in rows.items() if row["outcome"] == "kept" and row["edits"])
    assert "exclamation mark" in explain(out, kept)
    with pytest.raises(UserError, match="ids look like"):
        explain(out, "no/such.txt")
    with pytest.raises(UserError, match="no ledger"):
        explain(tmp_path, "x")


def test_bytes_do_not_depend_on_workers_and_a_second_run_changes_nothing(tmp_path: Path) -> None:
    data = [("", heap(tmp_path / "heap"))]
    mixed = dataclasses.replace(RECIPE, mix=Mix(epochs={"web": 1.5, "books": 2}), hold_out=0.1)
    one = curate(data, mixed, tmp_path / "one", workers=1, task_bytes=2000).out
    two = curate(data, mixed, tmp_path / "two", workers=2, task_bytes=2000).out
    assert bytes_of(one) == bytes_of(two)
    before = bytes_of(one)
    curate(data, mixed, tmp_path / "one", workers=1, task_bytes=2000)
    assert bytes_of(one) == before


def test_stopped_anywhere_it_goes_on_to_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = [("", heap(tmp_path / "heap", 15))]
    whole = bytes_of(curate(data, RECIPE, tmp_path / "whole", workers=1, task_bytes=4000).out)
    put, stops = written.put, iter(range(1, 1000))
    while True:
        left = next(stops)
        out = tmp_path / f"stopped-{left}"

        def failing(path: Path, content: str | bytes) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise KeyboardInterrupt
            put(path, content)

        for name in ("plan", "between", "passes", "finish"):
            module = sys.modules[f"unlabeled.curate.running.{name}"]
            if hasattr(module, "put"):
                monkeypatch.setattr(module, "put", failing)
        try:
            curate(data, RECIPE, out, workers=1, task_bytes=4000)
            break  # it took fewer writes than were allowed: all places have been tried
        except KeyboardInterrupt:
            left = 10**9
        assert bytes_of(curate(data, RECIPE, out, workers=1, task_bytes=4000).out) == whole
    assert next(stops) > 15, "it was stopped at so many places"


def test_ctrl_c_ends_in_one_sentence(tmp_path: Path) -> None:
    heap(tmp_path / "heap", 300)
    (tmp_path / "slow.py").write_text(
        "import time\nfrom unlabeled.curate.recipe import Bound, Recipe\n"
        "def slow(document):\n    time.sleep(0.02)\n    return 1.0\n"
        "RECIPE = Recipe('slow', [Bound(slow, at_least=0)])\n"
    )
    words = [
        "-m",
        "unlabeled.cli",
        "curate",
        "a=heap",
        "b=heap",
        "--recipe",
        "slow.py",
        "--out",
        "out",
        "--workers",
        "2",
    ]
    running = subprocess.Popen([sys.executable, *words], cwd=tmp_path, stderr=subprocess.PIPE, start_new_session=True)
    while running.poll() is None and not list((tmp_path / "out").glob("work/pass-0/documents/*.part")):
        time.sleep(0.02)
    os.killpg(running.pid, signal.SIGINT)  # as a terminal does: to all processes
    said = running.communicate(timeout=60)[1].decode()
    assert running.returncode == 130 and "Traceback" not in said and "Process" not in said
    assert said.strip().splitlines()[-1].endswith("give the same command again to go on.")


def test_every_recipe_is_known_again_by_another_process() -> None:
    code = (
        "import hashlib; from unlabeled.curate.catalogue import recipes; from unlabeled.curate.pipeline import _described\n"
        "for name, recipe in recipes().items(): print(name, hashlib.sha256(repr(_described(recipe)).encode()).hexdigest())"
    )
    hashed = [{**os.environ, "PYTHONHASHSEED": seed} for seed in ("1", "2")]
    one, two = (
        subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, env=e).stdout for e in hashed
    )
    assert one == two and one.count(b"\n") > 10


def test_killed_it_goes_on(tmp_path: Path) -> None:
    heap(tmp_path / "heap", 300)
    (tmp_path / "slow.py").write_text(
        "import time\nfrom unlabeled.curate.dedup.exact import Exact\nfrom unlabeled.curate.recipe import Bound, Recipe\n"
        "def slow(document):\n    time.sleep(0.005)\n    return len(document.text)\n"
        "RECIPE = Recipe('slow', [Bound(slow, at_least=20), Exact()])\n"
    )
    command = [
        sys.executable,
        "-m",
        "unlabeled.cli",
        "curate",
        "heap",
        "--recipe",
        "slow.py",
        "--workers",
        "2",
        "--json",
    ]
    quiet = {"cwd": tmp_path, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    running = subprocess.Popen([*command, "--out", "killed"], start_new_session=True, **quiet)
    while running.poll() is None and not list((tmp_path / "killed").glob("work/pass-0/documents/*")):
        time.sleep(0.02)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    assert not (tmp_path / "killed" / "totals.json").exists(), "it was killed in time"
    for out in ("killed", "whole"):
        subprocess.run([*command, "--out", out], check=True, timeout=120, **quiet)
    killed, whole = bytes_of(tmp_path / "killed"), bytes_of(tmp_path / "whole")
    assert {k: v for k, v in killed.items() if k != "report.html"} == {
        k: v for k, v in whole.items() if k != "report.html"
    }


@dataclasses.dataclass(frozen=True)
class Hinges:
    """Documents hang together where they share a number."""

    name: str = "hinges"
    reason: str = "hangs together"
    keep: str = "earliest"
    scope: str = "all"

    def keys(self, document: Document) -> np.ndarray:
        return np.array([int(word) for word in document.text.split()], np.uint64)


def test_groups_are_the_components_of_shared_keys_and_the_best_stays(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    lines = [" ".join(map(str, draw.integers(0, 60, 2))) for _ in range(80)]
    (tmp_path / "n.jsonl").write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
    for keep in ("earliest", "longest"):
        out = curate(
            [("", tmp_path / "n.jsonl")], Recipe("h", [Hinges(keep=keep)]), tmp_path / keep, workers=1, task_bytes=100
        ).out
        group = list(range(80))
        for place in range(2):
            first: dict[str, int] = {}
            for i, line in enumerate(lines):
                other = first.setdefault(line.split()[place], i)
                old, new = group[i], group[other]
                group = [new if g == old else g for g in group]
        best = {
            g: min((i for i in range(80) if group[i] == g), key=lambda i: (keep == "longest" and -len(lines[i]), i))
            for g in group
        }
        assert sorted(texts(out)) == sorted(lines[i] for i in best.values())
        sizes = {
            str(n): [group.count(g) for g in set(group)].count(n) for n in {group.count(g) for g in set(group)} if n > 1
        }
        assert json.loads((out / "totals.json").read_text())["clusters"] == sizes


def test_copies_count_across_sources_or_within_and_precedence_chooses(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps({"text": prose(i)}) + "\n" for i in (0, 1, 0)))
    places = [("b", tmp_path / "b.jsonl"), ("a", tmp_path / "a.jsonl")]

    def kept(step: Exact, name: str) -> dict[str, int]:
        totals = curate(places, Recipe("r", [step]), tmp_path / name, workers=1).totals
        return {s: v["documents"] for s, v in totals["sources"].items()}

    assert kept(Exact(), "all") == {"b": 2}
    assert kept(Exact(scope="source"), "source") == {"a": 2, "b": 2}
    assert kept(Exact(keep="priority"), "priority") == {"b": 2}


def test_a_mix_repeats_and_a_held_out_text_is_nowhere_else(tmp_path: Path) -> None:
    heap(tmp_path / "heap", 300)
    for i in range(100):  # texts of the web once more, so that some are held out here and not there
        (tmp_path / "heap" / "books" / f"again-{i}.txt").write_text(prose(i))
    recipe = Recipe("mixed", [], mix=Mix(epochs={"web": 2, "books": 0.5}), hold_out=0.05)
    result = curate([("", tmp_path / "heap")], recipe, tmp_path / "out", workers=1)
    parts = {p.name.split("-")[0]: pq.read_table(p).to_pylist() for p in (result.out / "corpus").glob("*.parquet")}
    assert set(parts) == {"train", "val", "test"}
    held = {row["text"] for name in ("val", "test") for row in parts[name]}
    assert held and not held & {row["text"] for row in parts["train"]}
    web = [row["id"] for row in parts["train"] if row["source"] == "web"]
    assert len(web) == 2 * len(set(web))
    books = sum(row["source"] == "books" for row in parts["train"])
    assert abs(books - 200) < 50
    assert result.totals["outcomes"]["equals a held-out document"] > 0
    order = [row["source"] for row in parts["train"]]
    assert order != sorted(order), "shuffled"
    rows = ledger(result.out)
    assert sum(row["copies"] for row in rows) == sum(map(len, parts.values()))


def test_substrings_over_tasks_are_those_over_all_texts(tmp_path: Path) -> None:
    draw = random.Random(1)
    shared = [prose(100 + i, 30) for i in range(5)]
    lines = [prose(i, 20) + " " + draw.choice(shared) + " " + prose(500 + i, 20) for i in range(40)]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
    step = Substrings(at_least=60)
    out = curate([("", tmp_path / "t.jsonl")], Recipe("s", [step]), tmp_path / "out", workers=1, task_bytes=3000).out
    assert texts(out) == [t for t in cut(lines, at_least=60) if t]


def test_the_corpus_can_be_trained_on(tmp_path: Path) -> None:
    out = curate([("", heap(tmp_path / "heap"))], RECIPE, tmp_path / "out", workers=1).out
    data = source(out)
    assert data.kind == "text" and len(data) == len(texts(out))
    assert data[0].fields["text"] == texts(out)[0]


def test_it_is_called_as_a_function_of_the_package(tmp_path: Path) -> None:
    import unlabeled

    folder = heap(tmp_path / "heap")
    made = unlabeled.curate(
        {"a": folder / "web", "b": str(folder / "books")}, "code-codex", tmp_path / "out", workers=1
    )
    assert set(made.totals["sources"]) <= {"a", "b"} and unlabeled.source(made.out).kind == "text"
    assert callable(unlabeled.curate.pipeline.curate)


def test_what_cannot_be_done_is_said_in_a_sentence(tmp_path: Path) -> None:
    data = [("", heap(tmp_path / "heap"))]
    out = curate(data, RECIPE, tmp_path / "out", workers=1).out
    with pytest.raises(UserError, match="other data or by another recipe"):
        curate(data, RECIPE.but({"length.at_least": 30}), out, workers=1)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="no curated corpus"):
        curate(data, RECIPE, tmp_path / "full", workers=1)
    none = curate(data, Recipe("none", [Bound(length, at_least=1e9)]), tmp_path / "none", workers=1)
    assert none.totals["documents"]["kept"] == 0 and "length below 1e+09" in explain(none.out, "books/000.txt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="nothing to read"):
        curate([("", tmp_path / "empty")], RECIPE, tmp_path / "nothing", workers=1)
    with pytest.raises(UserError, match=r"Its limits: length\.at_least"):
        RECIPE.but({"lenght.at_least": 3})
    with pytest.raises(UserError, match="cannot be sent to workers"):
        curate(data, Recipe("local", [Edit(lambda document: None)]), tmp_path / "local", workers=2, task_bytes=1000)
    with pytest.raises(UserError, match="There is no recipe 'c5'"):
        recipe_of("c5")


def test_ray_gives_the_same_bytes(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="pip install 'unlabeled[scale]'")
    data = [("", heap(tmp_path / "heap", 15))]
    here = curate(data, RECIPE, tmp_path / "here", workers=1, task_bytes=4000).out
    there = curate(data, RECIPE, tmp_path / "there", engine="ray", task_bytes=4000).out
    assert bytes_of(here) == bytes_of(there)


def test_pairs_may_be_verified_before_they_are_joined(tmp_path: Path) -> None:
    lines = [prose(1, 60), prose(1, 60)[:-1], prose(1, 30) + " " + prose(2, 30)]  # nearly one, a copy, half a copy
    (tmp_path / "n.jsonl").write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))

    def kept(verify: float | None) -> int:
        near = Near(shingle=2, bands=60, rows=1, verify=verify)
        return curate([("", tmp_path / "n.jsonl")], Recipe("v", [near]), tmp_path / f"out-{verify}", workers=1).totals[
            "documents"
        ]["kept"]

    assert kept(None) == 1 and kept(0.8) == 2


def test_an_encoder_of_our_own_drops_what_means_the_same_and_prunes(tmp_path: Path) -> None:
    from unlabeled.cli.__main__ import main

    book = tmp_path / "book.txt"
    book.write_text(" ".join(prose(i) for i in range(200)))
    run = tmp_path / "run"
    assert main(["train", "bert", str(book), "--variant", "tiny", "--budget", "2steps", "--out", str(run)]) == 0
    lines = [prose(i) for i in range(30)] + [prose(3), prose(7)]
    (tmp_path / "n.jsonl").write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
    for name, step, kept in (
        ("semantic", Semantic(str(run), clusters=1, eps=1e-5), 30),
        ("pruned", Prototypes(str(run), keep=0.5, clusters=2), 16),
    ):
        out = curate(tmp_path / "n.jsonl", Recipe("r", [step]), tmp_path / name, workers=1, task_bytes=3000).out
        dropped = [row for row in ledger(out) if row["outcome"] == "dropped"]
        assert len(texts(out)) == kept and len(dropped) == 32 - kept
        assert all(
            row["rule"] == step.name and row["reason"] == step.reason and row["value"] is not None for row in dropped
        )
        if name == "semantic":
            assert sorted(explain(out, row["id"]).partition("stays ")[2] != "" for row in dropped) == [True, True]
