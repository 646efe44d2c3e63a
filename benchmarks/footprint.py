"""What a plain install costs: packages besides torch, and the time of `import unlabeled` and of `unlabeled --help`.

Run: python benchmarks/footprint.py      (makes a fresh virtual environment in a temporary folder)
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from record import record

ROOT = Path(__file__).resolve().parent.parent
# Of torch itself: what `pip install torch` brings without us.
REPEATS = 9


def seconds(command: list[str]) -> float:
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def packages(python: Path) -> set[str]:
    listed = subprocess.run(
        [python, "-m", "pip", "list", "--format", "json"], check=True, capture_output=True, text=True
    )
    return {row["name"].lower() for row in json.loads(listed.stdout)} - {"pip", "setuptools"}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        python = Path(folder) / "bin" / "python"
        subprocess.run([python, "-m", "pip", "install", "-q", "torch==2.13.0"], check=True)
        of_torch = packages(python)
        subprocess.run([python, "-m", "pip", "install", "-q", str(ROOT)], check=True)
        ours = packages(python) - of_torch - {"unlabeled"}
        bare = seconds([str(python), "-c", "pass"])
        imported = seconds([str(python), "-c", "import unlabeled"])
        helps = {c: seconds([str(Path(folder) / "bin" / "unlabeled"), *c.split()]) for c in HELPS}
    figures = {
        "packages_besides_torch": len(ours),
        "their_names": sorted(ours),
        "import_seconds": round(imported - bare, 4),
        "python_start_seconds": round(bare, 4),
        "help_seconds": {c: round(s, 3) for c, s in helps.items()},
    }
    record("footprint", figures)


HELPS = ("--help", "fit --help", "train --help", "train simclr --help", "methods --help", "data --help")

if __name__ == "__main__":
    main()
