"""What the filters of source code take from all Python files of the installed packages, rule by rule.

For every rule two shares: of files that it drops where it stands, after those before it, and of files that it would drop alone.
StarCoder's rule on comments parses each file, so that every tenth is tried. The draw of rules of probability 0.7 is in both.

Run: python benchmarks/curate_codex.py [FOLDER]      (about a minute on one core)
"""

from __future__ import annotations

import hashlib
import sys
import sysconfig
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from record import record

from unlabeled.curate.dedup.near import Near
from unlabeled.curate.document import Document
from unlabeled.curate.recipe import Drop, Recipe
from unlabeled.curate.rules.codex import RECIPES

PRESETS = {"code-codex": 1, "code-codeparrot": 1, "code-redpajama": 1, "code-starcoder": 10}  # every which file


def files(folder: Path) -> list[Document]:
    """All Python files below a folder that are UTF-8, in the order of their paths."""
    found = []
    for path in sorted(folder.rglob("*.py")):
        name = str(path.relative_to(folder))
        try:
            found.append(Document(name, path.read_bytes().decode("utf-8"), about={"path": name}))
        except UnicodeDecodeError:
            continue
    return found


def judged(recipe: Recipe, documents: list[Document]) -> dict[str, Any]:
    """The shares of each rule in percent of files, and of what stays; and the speed of the rules of one document."""
    first: list[str] = [""] * len(documents)
    alone: Counter[str] = Counter()
    reasons: dict[str, None] = {}
    spent = 0.0
    for step in recipe.steps:
        if isinstance(step, Near):
            standing = [i for i, reason in enumerate(first) if not reason]
            for i in _later_of_groups([step.keys(documents[i]) for i in standing]):
                first[standing[i]] = step.reason
            reasons[step.reason] = None
            continue
        if hasattr(step, "keys"):
            seen: set[bytes] = set()
            for i, document in enumerate(documents):
                if (key := step.keys(document).tobytes()) in seen:
                    reasons[reason := step.settle(document, np.ones(2, bool)).reason] = None
                    alone[reason] += 1
                    first[i] = first[i] or reason
                seen.add(key)
            continue
        began = time.perf_counter()
        for i, document in enumerate(documents):
            outcome = step(document)
            if isinstance(outcome, Drop):
                reasons[outcome.reason] = None
                alone[outcome.reason] += 1
                first[i] = first[i] or outcome.reason
        spent += time.perf_counter() - began
    for document in documents:
        document._remembered.clear()
    size = [len(d.text.encode()) for d in documents]
    percent = 100 / max(1, len(documents))
    dropped = Counter(first)
    return {
        "files": len(documents),
        "MB": round(sum(size) / 1e6, 1),
        "dropped, % of files": {r: round(dropped[r] * percent, 3) for r in reasons},
        "alone, % of files": {r: round(alone[r] * percent, 3) for r in reasons if r in alone},
        "kept, % of files": round(dropped[""] * percent, 2),
        "kept, % of bytes": round(100 * sum(s for s, r in zip(size, first) if not r) / max(1, sum(size)), 2),
        "rules of one document, all on every file, MB/s": round(sum(size) / 1e6 / spent, 1),
    }


def _later_of_groups(keys: list[np.ndarray]) -> list[int]:
    """All but the first of each group of documents that share the key of a band, by union-find."""
    root = list(range(len(keys)))

    def find(i: int) -> int:
        while root[i] != i:
            root[i] = i = root[root[i]]
        return i

    holder: dict[tuple[int, int], int] = {}
    for i, bands in enumerate(keys):
        for band in enumerate(bands.tolist()):
            one, other = find(holder.setdefault(band, i)), find(i)
            root[max(one, other)] = min(one, other)
    return [i for i in range(len(keys)) if find(i) != i]


def main(folder: Path) -> None:
    documents = files(folder)
    digest = hashlib.sha256()
    for document in documents:
        digest.update(hashlib.sha256(f"{document.id}\0{document.text}".encode("utf-8", "surrogatepass")).digest())
    figures: dict[str, Any] = {"sha256 of the files": digest.hexdigest()[:16]}
    for name, every in PRESETS.items():
        figures[name] = judged(RECIPES[name], documents[::every])
    record("curate-codex", figures)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(sysconfig.get_paths()["purelib"]))
