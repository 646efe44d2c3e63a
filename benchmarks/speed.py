"""Speed beside named peers, each pair in one process run, interleaved; medians and ratios go into the results.

Run: python benchmarks/speed.py [NAME ...]      of peer_NAME.py; by default all of them
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from record import record

HERE = Path(__file__).resolve().parent


def main(names: list[str]) -> None:
    for name in names or sorted(path.stem.removeprefix("peer_") for path in HERE.glob("peer_*.py")):
        script = HERE / f"peer_{name}.py"
        done = subprocess.run([sys.executable, str(script)], check=True, stdout=subprocess.PIPE, text=True)
        figures = json.loads(done.stdout.strip().splitlines()[-1])
        record(f"speed_{name}", figures)


if __name__ == "__main__":
    main(sys.argv[1:])
