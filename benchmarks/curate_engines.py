"""The same recipe by three engines on the same corpus: own processes, Ray's tasks, and Daft on its own runner.

It settles which engine carries curation past one machine. All three run the jobs of the pipeline (`runner.Runner`), so
the corpora must be equal to the byte; what differs is what the engine costs. Daft gets the jobs as rows of a table and runs
them in a user-defined function, one row a batch, in as many processes as there are cores.

Run: python benchmarks/curate_engines.py FOLDER      (needs ray and daft; a few minutes on two cores)
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

ROUNDS = 3
ENGINES = ("local", "ray", "daft")


class Daft:
    """Jobs as rows of a table, each run by a process of Daft's."""

    def map(self, function: Callable[[Any], Any], jobs: Iterable[Any]) -> Iterator[Any]:
        import pickle

        import daft

        listed = list(jobs)

        @daft.cls(use_process=True, max_concurrency=os.cpu_count())
        class Worker:
            @daft.method(return_dtype=daft.DataType.bool())
            def run(self, job: bytes) -> bool:
                work, given = pickle.loads(job)
                work(given)
                return True

        table = daft.from_pydict({"job": [pickle.dumps((function, job)) for job in listed]})
        table.into_batches(1).with_column("done", Worker().run(daft.col("job"))).collect()
        yield from listed


def once(engine: str, folder: Path, out: Path) -> None:
    """Curate by one engine, in this process and its workers."""
    from unlabeled.curate import pipeline
    from unlabeled.curate.catalogue import recipe

    if engine == "daft":

        @contextlib.contextmanager
        def daft(*_: Any) -> Iterator[Daft]:
            yield Daft()

        pipeline.runner = daft
    task_bytes = 4 << 20
    pipeline.curate(
        [("", folder)],
        recipe("gopher"),
        out,
        workers=2,
        engine="ray" if engine == "ray" else "local",
        task_bytes=task_bytes,
    )


def digest(out: Path) -> str:
    """Of the corpus and the ledger."""
    found = hashlib.sha256()
    for path in sorted((*(out / "corpus").glob("*"), *(out / "ledger").glob("*"))):
        found.update(path.name.encode() + path.read_bytes())
    return found.hexdigest()


def main() -> None:
    folder = Path(sys.argv[1]).resolve()
    if len(sys.argv) > 2:
        once(sys.argv[2], folder, Path(sys.argv[3]))
        return
    from record import record

    seconds: dict[str, list[float]] = {engine: [] for engine in ENGINES}
    digests: set[str] = set()
    for _ in range(ROUNDS):
        for engine in ENGINES:
            with tempfile.TemporaryDirectory() as scratch:
                out = Path(scratch) / "out"
                start = time.perf_counter()
                subprocess.run([sys.executable, __file__, str(folder), engine, str(out)], check=True)
                seconds[engine].append(time.perf_counter() - start)
                digests.add(digest(out))
                shutil.rmtree(out)
    middle = {engine: statistics.median(values) for engine, values in seconds.items()}
    size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
    record(
        "curate-engines",
        {
            "bytes": size,
            "seconds": {engine: [round(v, 2) for v in values] for engine, values in seconds.items()},
            "medians": {engine: round(value, 2) for engine, value in middle.items()},
            "local / others": {engine: round(middle["local"] / middle[engine], 2) for engine in ENGINES[1:]},
            "same bytes": len(digests) == 1,
            "largest process, MiB": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024),
        },
    )


if __name__ == "__main__":
    main()
