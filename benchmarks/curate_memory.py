"""Peak memory of curation against the size of the corpus: does it stay that of a task, or grow with what is read?

A corpus of each size is made of the documents of `curate_corpus.py` in the order of a hash of their ids. Where there are not
enough, they are taken again, three words in ten replaced by words drawn from other documents, so that five words in a row are
seldom left alone (0.7^5 = 17 %) and no copy is a near duplicate. They lie in .jsonl files of 16 MB.

Gopher's rules on repetition, exact and near duplicates, Gopher's rules on quality; two processes. Twenty times a second the
resident memory of the process that was started and all its descendants is read from /proc: "sum" is the greatest sum, pages
shared between them counted in each; "largest" the greatest peak of a single one (VmHWM, which misses nothing between looks).

Run: python benchmarks/curate_memory.py CORPUS [--megabytes 20 80 400] [--task-megabytes 8]      (about five minutes)
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from curate_datatrove import texts

from unlabeled.curate.dedup.exact import Exact
from unlabeled.curate.dedup.near import Near
from unlabeled.curate.pipeline import curate
from unlabeled.curate.recipe import Recipe
from unlabeled.curate.rules import gopher

RECIPE = Recipe("memory", (*gopher.REPETITION, Exact(), Near(), *gopher.QUALITY))
PROCESSES, EVERY = 2, 0.05
MB, FILE = 1_000_000, 16_000_000
REPLACED = 0.3
VOCABULARY = 50_000


def endless(corpus: Path) -> Iterator[tuple[str, str]]:
    """Documents without end: the corpus in a shuffled order, then again with other words, and so on."""
    rows = sorted((hashlib.sha1(id.encode()).digest(), id, text) for id, _, text in texts(corpus))
    words = sorted({word for _, _, text in rows[:2000] for word in text.split()})
    words = random.Random(0).sample(words, min(VOCABULARY, len(words)))
    for turn in range(1000):
        for _, id, text in rows:
            if turn:
                rng = random.Random(f"{turn} {id}")
                text = " ".join(rng.choice(words) if rng.random() < REPLACED else word for word in text.split(" "))
            yield f"{turn}/{id}", text


def written(corpus: Path, size: float, folder: Path) -> int:
    """Write a corpus of so many bytes; how many documents it has."""
    left, number, room, out = size, 0, 0, None
    for id, text in endless(corpus):
        line = json.dumps({"text": text, "id": id}, ensure_ascii=False).encode() + b"\n"
        if left < len(line):
            break
        if out is None or room < len(line):
            if out is not None:
                out.close()
            out, room = (folder / f"{number:06}.jsonl").open("wb"), FILE
        out.write(line)
        left, room, number = left - len(line), room - len(line), number + 1
    if out is not None:
        out.close()
    return number


def descendants(first: int) -> list[int]:
    """A process and all that it started, as /proc has them now."""
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            after_name = stat.read_text().rpartition(")")[2].split()
        except OSError:  # ended meanwhile
            continue
        parents.setdefault(int(after_name[1]), []).append(int(stat.parent.name))
    found, waiting = [], [first]
    while waiting:
        found.append(process := waiting.pop())
        waiting += parents.get(process, [])
    return found


def kilobytes(process: int) -> tuple[int, int]:
    """Resident memory now and at its peak; zeros where the process has ended."""
    try:
        rows = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
        return int(rows["VmRSS"].split()[0]), int(rows["VmHWM"].split()[0])
    except (OSError, KeyError, ValueError):
        return 0, 0


def peaks(command: list[str]) -> dict[str, float]:
    """Run a command; megabytes at the peak, seconds, and how many processes there were at most."""
    begun, most, largest, processes = time.perf_counter(), 0, 0, 0
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while running.poll() is None:
        now = [kilobytes(process) for process in descendants(running.pid)]
        most, largest = max(most, sum(rss for rss, _ in now)), max(largest, *(peak for _, peak in now))
        processes = max(processes, sum(rss > 0 for rss, _ in now))
        time.sleep(EVERY)
    if running.returncode:
        raise SystemExit(f"{command} ended with {running.returncode}")
    return {
        "sum, MB": round(most * 1024 / MB),
        "largest, MB": round(largest * 1024 / MB),
        "processes": processes,
        "seconds": round(time.perf_counter() - begun, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--megabytes", type=float, nargs="+", default=[20, 80, 400])
    parser.add_argument("--task-megabytes", type=float, default=8, help="of input in one task of the pipeline")
    parser.add_argument("--one", type=Path, nargs=2, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.one:
        data, out = chosen.one
        result = curate([("", data)], RECIPE, out, workers=PROCESSES, task_bytes=int(chosen.task_megabytes * MB))
        (data / "totals.txt").write_text(json.dumps(result.totals["documents"]))
        return
    rows = []
    for size in sorted(chosen.megabytes):
        with tempfile.TemporaryDirectory() as folder:
            data = Path(folder) / "data"
            data.mkdir()
            number = written(chosen.corpus, size * MB, data)
            more = ["--task-megabytes", str(chosen.task_megabytes), "--one", str(data), f"{folder}/out"]
            row = {"MB": size, "documents": number, **peaks([sys.executable, __file__, str(chosen.corpus), *more])}
            row |= json.loads((data / "totals.txt").read_text())
        print(row, flush=True)
        rows.append(row)
    first, last = rows[0], rows[-1]
    growth = {key: round(last[key] / first[key], 2) for key in ("MB", "sum, MB", "largest, MB")}
    from record import record

    record("curate-memory", {"task, MB": chosen.task_megabytes, "sizes": rows, "last over first": growth})


if __name__ == "__main__":
    main()
