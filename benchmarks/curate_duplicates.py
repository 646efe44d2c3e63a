"""From texts to groups of near duplicates: seconds, recall and precision beside rensa, datasketch and text-dedup.

Everybody gets the same texts in memory and gives the group of each: documentation of Linux, files of Python, and copies of
half of them with 1, 2, 5, 10 and 20 % of the words changed. Everybody bands 112 values of word 5-grams in lower case without
ASCII punctuation as 14 x 8; peers' strings of n-grams are made as fast as Python makes them. True pairs are all with a
Jaccard similarity of 0.8 at least, from the whole product of the sets of n-grams; precision is the share of the documents
that go that have one of 0.6 at least in their group. Recall is that of one draw of each; of ours also the mean of 20 draws.

`ours` runs in two processes, `ours_alone` in one; both through `Near.keys` and `Components`, without the pipeline around it.
rensa (two threads) is run on the strings; `rensa_words` on words themselves, as its README shows, which is another similarity;
`rensa_rho` marks duplicates without saying of what, by its fastest sketch; `rensa_given` gets our hashes of n-grams for
nothing, so that its sketch alone is timed. text-dedup runs as its command does, on a data set on disk, in two processes, by xxh3.

Run: python benchmarks/curate_duplicates.py [ROUNDS]      (`pip install --no-deps` rensa, datasketch, text-dedup)
"""

from __future__ import annotations

import os
import pickle
import resource
import statistics
import string
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from record import record

from unlabeled.core.places import cache
from unlabeled.curate.dedup.components import Components, edges
from unlabeled.curate.dedup.near import Near, probability, shingles
from unlabeled.curate.document import Document

BANDS, ROWS, SIZE = 14, 8, 5
SIMILAR, RELATED = 0.8, 0.6
ORIGINALS = 1600
RATES = (0.01, 0.02, 0.05, 0.1, 0.2)
NO_MARKS = str.maketrans("", "", string.punctuation)


def corpus() -> list[str]:
    """Texts of 200 to 30,000 characters, copies among them, in an order drawn once."""
    draw = np.random.default_rng(0)
    places = [*(cache() / "data" / "kernel-docs").rglob("*.rst"), *Path(sysconfig.get_path("stdlib")).glob("*/*.py")]
    texts = [text for p in sorted(places) if 200 < len(text := p.read_text("utf-8", "replace")) < 30_000]
    texts = [texts[i] for i in draw.choice(len(texts), ORIGINALS, replace=False)]
    for place in range(ORIGINALS // 2):
        words = texts[place].split(" ")
        changed = draw.random(len(words)) < RATES[place % len(RATES)]
        texts.append(" ".join(f"changed{draw.integers(10**6)}" if c else w for w, c in zip(words, changed.tolist())))
    return [texts[i] for i in draw.permutation(len(texts))]


# ---- contenders: texts to the group of each, or None with flags of what goes ----------------------------------


def _keys(texts: Sequence[str], seed: int = 1) -> np.ndarray:
    step, none = Near(SIZE, BANDS, ROWS, seed=seed), np.zeros(BANDS, np.uint64)
    return np.stack([keys if len(keys := step.keys(Document("", text))) else none for text in texts])


def _grouped(keys: np.ndarray) -> np.ndarray:
    having = np.flatnonzero(keys.any(axis=1))
    groups = Components(len(keys))
    for band in range(keys.shape[1]):
        groups.add(*edges(keys[having, band], having))
    return groups.roots()


def ours_alone(texts: list[str]) -> np.ndarray:
    return _grouped(_keys(texts))


def ours(texts: list[str]) -> np.ndarray:
    parts = [texts[i : i + 256] for i in range(0, len(texts), 256)]
    with ProcessPoolExecutor(2, get_context("fork")) as pool:
        return _grouped(np.concatenate(list(pool.map(_keys, parts))))


def strings(text: str) -> list[str]:
    words = text.lower().translate(NO_MARKS).split()
    if len(words) < SIZE:
        return [" ".join(words)] if words else []
    return list(map(" ".join, zip(*(words[i:] for i in range(SIZE)))))


def _joined(buckets: Sequence[Sequence[int]]) -> np.ndarray:
    """What hangs together through lists of candidates, one for each."""
    groups = Components(len(buckets))
    left = np.repeat(np.arange(len(buckets)), [len(b) for b in buckets])
    groups.add(left, np.fromiter((other for b in buckets for other in b), np.int64, len(left)))
    return groups.roots()


def _rensa(sets: list[list[str]]) -> np.ndarray:
    import rensa

    sketches = rensa.RMinHash.from_token_sets(sets, num_perm=BANDS * ROWS, seed=42)
    index = rensa.RMinHashLSH(threshold=0.7, num_perm=BANDS * ROWS, num_bands=BANDS)
    index.insert_many(sketches)
    return _joined(index.query_all(sketches))


def rensa(texts: list[str]) -> np.ndarray:
    return _rensa(list(map(strings, texts)))


def rensa_words(texts: list[str]) -> np.ndarray:
    return _rensa([text.lower().translate(NO_MARKS).split() for text in texts])


def rensa_rho(texts: list[str]) -> np.ndarray:
    import rensa

    matrix = rensa.RMinHash.digest_matrix_from_token_sets_rho(list(map(strings, texts)), num_perm=BANDS * ROWS, seed=42)
    index = rensa.RMinHashLSH(threshold=0.7, num_perm=BANDS * ROWS, num_bands=BANDS)
    return np.array(index.query_duplicate_flags_matrix_one_shot(matrix))


def rensa_given(hashes: list[np.ndarray]) -> np.ndarray:
    import rensa

    offsets = np.cumsum([0, *map(len, hashes)], dtype=np.uint64)
    flat = np.concatenate(hashes)
    matrix = rensa.RMinHash.digest_matrix_from_flat_token_hashes(flat, offsets, num_perm=BANDS * ROWS, seed=42)
    index = rensa.RMinHashLSH(threshold=0.7, num_perm=BANDS * ROWS, num_bands=BANDS)
    return np.array(index.query_duplicate_flags_matrix_one_shot(matrix))


def ours_given(hashes: list[np.ndarray]) -> np.ndarray:
    from unlabeled.curate.dedup.near import signature

    none = np.zeros(BANDS * ROWS, np.uint64)
    values = np.stack([signature(h, BANDS * ROWS) if len(h) else none for h in hashes])
    return _grouped(np.stack([Near(SIZE, BANDS, ROWS).banded(v) for v in values]))


def datasketch(texts: list[str]) -> np.ndarray:
    from datasketch import MinHash, MinHashLSH

    index = MinHashLSH(num_perm=BANDS * ROWS, params=(BANDS, ROWS))
    sketches = MinHash.bulk([[s.encode() for s in strings(text)] for text in texts], num_perm=BANDS * ROWS)
    for i, sketch in enumerate(sketches):
        index.insert(i, sketch)
    return _joined([index.query(sketch) for sketch in sketches])


def text_dedup(texts: list[str]) -> np.ndarray:
    """The seconds that its own clock gives are ours too: from a data set on disk to one on disk."""
    import datasets
    from text_dedup import minhash
    from text_dedup.utils import IOArgs, MetaArgs, MinHashArgs

    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory() as folder:
        datasets.Dataset.from_dict({"text": texts}).save_to_disk(f"{folder}/texts")
        begun = time.perf_counter()
        minhash.main.callback.__wrapped__.__wrapped__.__wrapped__(
            io_args=IOArgs(f"{folder}/texts", f"{folder}/out", local=True, num_proc=2, debug=True),
            meta_args=MetaArgs("text"),
            minhash_args=MinHashArgs(SIZE, 1, num_perm=BANDS * ROWS, b=BANDS, r=ROWS, hash_func="xxh3"),
        )
        global seconds
        seconds = time.perf_counter() - begun
    return np.array([minhash.uf.find(i) for i in range(len(texts))])


CONTENDERS: dict[str, Callable[[list], np.ndarray]] = {
    f.__name__: f
    for f in (ours, ours_alone, rensa, rensa_words, rensa_rho, datasketch, text_dedup, ours_given, rensa_given)
}
seconds: float | None = None


# ---- what is true ---------------------------------------------------------------------------------------------


def pairs(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All pairs (i < j) with a Jaccard similarity of RELATED at least, and it."""
    from scipy.sparse import csr_array, triu

    sets = [np.unique(shingles(Document("", text), SIZE)) for text in texts]
    sizes = np.array([len(s) for s in sets])
    _, columns = np.unique(np.concatenate(sets), return_inverse=True)
    rows = np.repeat(np.arange(len(sets)), sizes)
    matrix = csr_array((np.ones(len(rows), np.int32), (rows, columns)))
    common = triu(matrix @ matrix.T, k=1).tocoo()
    similar = common.data / (sizes[common.row] + sizes[common.col] - common.data)
    near = similar >= RELATED
    return common.row[near], common.col[near], similar[near]


def judged(groups: np.ndarray, true: tuple[np.ndarray, np.ndarray, np.ndarray]) -> dict[str, float]:
    left, right, similar = true
    if groups.dtype == bool:  # flags of what goes: no groups to look into
        related = np.zeros(len(groups), bool)
        related[left] = related[right] = True
        return {"go": int(groups.sum()), "precision": round(float(related[groups].mean()), 4)}
    together = groups[left] == groups[right]
    goes = groups != np.arange(len(groups))
    related = np.zeros(len(groups), bool)
    related[left[together]] = related[right[together]] = True
    return {
        "go": int(goes.sum()),
        "recall": round(float(together[similar >= SIMILAR].mean()), 4),
        "precision": round(float(related[goes].mean()), 4),
    }


def _one(name: str, given: Path, out: Path) -> None:
    texts = pickle.loads(given.read_bytes())  # written a moment ago by `main`
    if name.endswith("_given"):
        texts = [shingles(Document("", text), SIZE) for text in texts]
    begun, worked = time.perf_counter(), _worked()
    groups = CONTENDERS[name](texts)
    taken, worked = seconds or time.perf_counter() - begun, _worked() - worked
    least = {int(g): i for i, g in reversed(list(enumerate(groups.tolist())))} if groups.dtype != bool else {}
    np.save(out, np.array([least[int(g)] for g in groups]) if least else groups)
    print(taken, worked)


def _worked() -> float:
    """Seconds that cores have worked for this process and those that it has waited for."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def main(rounds: int) -> None:
    texts = corpus()
    true = pairs(texts)
    os.environ.update(RAYON_NUM_THREADS="2", OMP_NUM_THREADS="1")
    taken: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    worked: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    quality: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        given, out = Path(folder) / "texts.pickle", Path(folder) / "groups.npy"
        given.write_bytes(pickle.dumps(texts))
        for _ in range(rounds):
            for name in CONTENDERS:
                command = [sys.executable, __file__, name, str(given), str(out)]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
                for kept, value in zip((taken, worked), done.stdout.split()[-2:]):
                    kept[name].append(float(value))
                quality[name] = judged(np.load(out), true)
    middle, load = ({name: statistics.median(values) for name, values in kept.items()} for kept in (taken, worked))
    seeds = [judged(_grouped(_keys(texts, seed)), true)["recall"] for seed in range(1, 21)]
    figures = {
        "documents": len(texts),
        "megabytes": round(sum(len(text.encode()) for text in texts) / 1e6, 2),
        "true pairs": int((true[2] >= SIMILAR).sum()),
        "recall by the formula": round(float(probability(true[2][true[2] >= SIMILAR], BANDS, ROWS).mean()), 4),
        "seconds": {name: [round(v, 3) for v in values] for name, values in taken.items()},
        "medians": {name: round(value, 3) for name, value in middle.items()},
        "medians of work on all cores": {name: round(value, 3) for name, value in load.items()},
        "quality": quality,
        "recall of ours with 20 seeds": {
            "mean": round(statistics.mean(seeds), 4),
            "least": min(seeds),
            "most": max(seeds),
        },
        "ratios": {f"{name} / ours": round(value / middle["ours"], 2) for name, value in middle.items()},
        "ratios of work": {f"{name} / ours": round(value / load["ours"], 2) for name, value in load.items()},
    }
    record("curate-duplicates", figures)


if __name__ == "__main__":
    if len(sys.argv) > 3:
        _one(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
