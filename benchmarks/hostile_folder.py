"""200 hostile or broken files in a folder of 500 good ones: training runs, the ledger names all 200.

Run: python benchmarks/hostile_folder.py
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from record import record

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


def main() -> None:
    from tests.data.hostile import hostile_folder

    with tempfile.TemporaryDirectory() as folder:
        data, out = Path(folder) / "data", Path(folder) / "run"
        bad = hostile_folder(data)
        command = [sys.executable, "-m", "unlabeled", "train", "simclr", str(data), "--variant", "tiny"]
        done = subprocess.run([*command, "--budget", "20steps", "--out", str(out)], capture_output=True, text=True)
        ledger = [json.loads(line) for line in (out / "quarantine.jsonl").read_text().splitlines()]
        named = {row["id"] for row in ledger}
        state = json.loads((out / "status.json").read_text())["state"]
    figures = {
        "bad_files": len(bad),
        "named": len(named & set(bad)),
        "good_files_named": len(named - set(bad)),
        "exit_code": done.returncode,
        "state": state,
    }
    record("hostile_folder", figures)
    sys.exit(0 if named == set(bad) and done.returncode == 0 else 1)


if __name__ == "__main__":
    main()
