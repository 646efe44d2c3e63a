"""Documents per second: datatrove's four filters in its own executor, and the same four here, in turns on the same files.

The documents lie in two .jsonl files, one a task, two processes on each side, from start to finished output: starting the
processes is in the time. Two ways of work are timed:

- "pipeline": each filter sees what the one before it has kept, as in datatrove's FineWeb example; the same documents
  have to come out, which is checked.
- "all": every filter judges every document, whatever the others say of it.

datatrove reads JSONL and writes JSONL; here `curate` reads it, looks for HTML, and writes parquet and a ledger of all that was
dropped. Contenders take turns in processes of their own; medians are given. "spacy" counts words exactly as datatrove
does, "plain" is the default here.

Run: python benchmarks/curate_speed.py CORPUS [--documents 4000] [--rounds 3]     (alone on the machine; about ten minutes)
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from curate_datatrove import texts

from unlabeled.curate.document import Document
from unlabeled.curate.pipeline import curate
from unlabeled.curate.recipe import Drop, Edit, Recipe
from unlabeled.curate.rules import c4, fineweb, gopher

PROCESSES = 2
WAYS = ("pipeline", "all")
FILTERS = (gopher.REPETITION, gopher.QUALITY, (c4.DATATROVE,), fineweb.QUALITY)


def judge(document: Document) -> None:
    """All four filters, each up to the first rule that drops the document; it stays whatever they say."""
    for rules in FILTERS:
        any(isinstance(rule(document), Drop) for rule in rules)


def ours(files: Path, out: Path, way: str, words: Any) -> int:
    """Curate; how many documents stay."""
    steps = [rule for rules in FILTERS for rule in rules] if way == "pipeline" else [Edit(judge)]
    recipe = Recipe("four filters", steps, words=words)
    task = max(file.stat().st_size for file in files.iterdir())  # two tasks, as there
    return int(curate([("", files)], recipe, out, workers=PROCESSES, task_bytes=task).totals["documents"]["kept"])


def datatrove(files: Path, out: Path, way: str) -> int:
    """Its own pipeline; how many documents stay."""
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.filters import (
        C4QualityFilter,
        FineWebQualityFilter,
        GopherQualityFilter,
        GopherRepetitionFilter,
    )
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.writers import JsonlWriter

    filters: list[Any] = [GopherRepetitionFilter(), GopherQualityFilter(), C4QualityFilter(), FineWebQualityFilter()]
    if way == "all":
        filters = [partial(_kept_all_the_same, filter=one) for one in filters]
    steps = [JsonlReader(str(files)), *filters, JsonlWriter(str(out / "kept"), compression=None)]
    LocalPipelineExecutor(steps, tasks=PROCESSES, workers=PROCESSES, logging_dir=str(out / "logs")).run()
    return sum(len(file.read_bytes().splitlines()) for file in (out / "kept").glob("*.jsonl"))


def _kept_all_the_same(data: Any, rank: int = 0, world_size: int = 1, *, filter: Any) -> Any:
    """A step of datatrove's that asks a filter and forwards the document as it was."""
    for document in data:
        text = document.text
        filter.filter(document)
        document.text = text  # C4's filter edits it
        yield document


CONTENDERS: dict[str, Callable[[Path, Path, str], int]] = {
    "unlabeled, words by spacy": partial(ours, words="spacy"),
    "unlabeled, plain words": partial(ours, words="plain"),
    "datatrove": datatrove,
}


def chosen_documents(corpus: Path, count: int, files: Path) -> int:
    """Write documents chosen by a hash of their ids into one file a process; their bytes."""
    rows = sorted((hashlib.sha1(id.encode()).digest(), id, text) for id, _, text in texts(corpus))[:count]
    for part in range(PROCESSES):
        with (files / f"{part}.jsonl").open("w") as out:
            for _, id, text in rows[part::PROCESSES]:
                out.write(json.dumps({"text": text, "id": id}, ensure_ascii=False) + "\n")
    return sum(len(text.encode()) for _, _, text in rows)


def timed(name: str, way: str, files: Path) -> tuple[float, int]:
    """Seconds of one contender in a process of its own, and how many documents it kept."""
    with tempfile.TemporaryDirectory() as out:
        begun = time.perf_counter()
        command = [sys.executable, __file__, "--one", name, way, str(files), f"{out}/out"]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        return time.perf_counter() - begun, int(done.stdout.strip().splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--documents", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder)
        size = chosen_documents(asked.corpus, asked.documents, files)
        seconds: dict[str, dict[str, list[float]]] = {way: {name: [] for name in CONTENDERS} for way in WAYS}
        kept: dict[str, int] = {}
        for _ in range(asked.rounds):
            for way in WAYS:
                for name in CONTENDERS:
                    took, kept[f"{name}, {way}"] = timed(name, way, files)
                    seconds[way][name].append(round(took, 2))
                    print(f"{way:9} {name:26} {took:7.1f} s, {kept[f'{name}, {way}']:,} kept", flush=True)
    middle = {way: {name: statistics.median(took) for name, took in by.items()} for way, by in seconds.items()}
    figures = {
        "unit": "documents per second",
        "about": {"documents": asked.documents, "bytes": size, "processes": PROCESSES, "rounds": asked.rounds},
        "seconds": seconds,
        "medians": {way: {n: round(asked.documents / s, 1) for n, s in by.items()} for way, by in middle.items()},
        "MB per second": {way: {n: round(size / 1e6 / s, 3) for n, s in by.items()} for way, by in middle.items()},
        "ratios": {
            way: {n: round(by["datatrove"] / s, 2) for n, s in by.items() if n != "datatrove"}
            for way, by in middle.items()
        },
        "kept": kept,
    }
    print(json.dumps(figures, indent=1))
    if kept["unlabeled, words by spacy, pipeline"] != kept["datatrove, pipeline"]:
        raise SystemExit(
            "They do not keep the same documents, so the times are of different work: nothing is recorded."
        )
    from record import record

    record("curate-speed", figures)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        chosen, manner, where, place = sys.argv[2:]
        Path(place).mkdir()
        print(CONTENDERS[chosen](Path(where), Path(place), manner))
    else:
        main()
