"""The README's two commands and the linters in a clean clone, timed: installing, the demo, the tests.

Run: python benchmarks/clean_clone.py
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from record import record

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    figures: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "unlabeled"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        for target in ("demo", "test", "check"):
            start = time.perf_counter()
            done = subprocess.run(["make", target], cwd=clone, capture_output=True, text=True)
            figures[target] = {"seconds": round(time.perf_counter() - start, 1), "exit_code": done.returncode}
            if target == "test" or done.returncode:
                figures[target]["said"] = done.stdout.strip().splitlines()[-3:]  # type: ignore[index]
            print(done.stdout[-3000:], file=sys.stderr)
    record("clean_clone", figures)


if __name__ == "__main__":
    main()
