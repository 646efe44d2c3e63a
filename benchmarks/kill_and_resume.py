"""Kill -9 a training run at random moments, resume it each time, compare the final weights with an uninterrupted run.

Run: python benchmarks/kill_and_resume.py [KILLS]   (default 20)
"""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from record import record

TRAIN = [
    "train",
    "simclr",
    "fashion",
    "--variant",
    "small",
    "--budget",
    "240steps",
    "--batch",
    "64",
    "--save-every",
    "7steps",
]


def unlabeled(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "unlabeled", *arguments]


def checksums(run: Path) -> bytes:
    return (run / "model" / "model.safetensors").read_bytes()


def main(kills: int = 20) -> None:
    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        whole, cut = Path(folder) / "whole", Path(folder) / "cut"
        start = time.perf_counter()
        subprocess.run(unlabeled(*TRAIN, "--out", str(whole)), check=True, capture_output=True)
        seconds = time.perf_counter() - start
        done = steps_lost = 0
        while done < kills:
            command = (
                unlabeled("resume", str(cut))
                if (cut / "config.json").exists()
                else unlabeled(*TRAIN, "--out", str(cut))
            )
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:  # between the first moments of start-up and well into training
                process.wait(rng.uniform(1.0, 9.0))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                done += 1
                continue
            # It came to its end between kills: the weights must be right already; begin again.
            assert checksums(cut) == checksums(whole), "a resumed run ended with other weights"
            for path in sorted(cut.rglob("*"), reverse=True):
                path.unlink() if path.is_file() else path.rmdir()
            steps_lost += 1
        if (cut / "config.json").exists():
            subprocess.run(unlabeled("resume", str(cut)), check=True, capture_output=True)
        else:
            subprocess.run(unlabeled(*TRAIN, "--out", str(cut)), check=True, capture_output=True)
        same = checksums(cut) == checksums(whole)
    figures = {
        "kills": done,
        "runs_compared": steps_lost + 1,
        "identical_weights": same,
        "uninterrupted_seconds": round(seconds, 1),
    }
    record("kill_and_resume", figures)
    sys.exit(0 if same else 1)


if __name__ == "__main__":
    main(*(int(a) for a in sys.argv[1:2]))
