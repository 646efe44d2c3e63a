"""Fine-tune a recorded encoder of text on where passages are from, beside the same from untrained weights.

Run: python benchmarks/finetune.py RUN [--updates 100]      RUN: a folder that learn.py made
"""

from __future__ import annotations

import argparse
from pathlib import Path

from record import record

from unlabeled.evaluate.examples import chosen
from unlabeled.evaluate.finetune import accuracy
from unlabeled.evaluate.passages import passages
from unlabeled.model import load


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--updates", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    model = load(asked.run)
    cut = passages(*(model.source.split(part) for part in ("train", "test")))
    assert cut is not None, "this data has no classes of its own"
    train, test = (chosen(p, model.store(p, whole=True), 8000, asked.seed) for p in cut)
    weights = {"trained": model.method, "random weights": model.fresh(asked.seed)}
    right = {name: accuracy(method, train, test, asked.updates, asked.seed) for name, method in weights.items()}
    figures = {
        "fine_tuning": {name: round(100 * share, 2) for name, share in right.items()},
        "updates": asked.updates,
        "passages": [len(train), len(test)],
        "classes": list(cut[0].classes),
    }
    record(f"{model.system}-{model.source.name}", figures)


if __name__ == "__main__":
    main()
