"""Is a curated corpus worth more than a raw one? The same small GPT-2, the same number of training tokens, three corpora.

raw: 12 MB, a half clean prose (kernel and Python documentation, manual pages, speeches, dictionary), a quarter code, 15 %
near duplicates, a tenth junk: the proportions of a raw crawl that has been looked through once. Junk is spam with its
headers and attachments, web pages with their tags, and, made here, menus and random words. Near duplicates are copies of
a few documents, of the i-th of them 40 / i + 1, rounded down; of their words 0, 1 or 5 % are replaced, under a new first line.
curated: what `curate_value_recipe.py` leaves of it. random: as many bytes of whole documents, drawn from raw.

Measured: bits per byte of clean text of each domain that is in none of the corpora (`curate_corpus.py` holds out whole groups),
in windows of the context's length. Fixed beforehand: the figure that decides is the mean over DOMAINS; one byte-level BPE of
4096 ids, trained on the raw corpus, for all; seeds draw weights, order and the random subset. Help pages are reported
beside, since only curation turns those in the junk from tags into text.

Found after the nine runs: two of the five files of held-out code, half of its bytes, are tables of code pages
(encodings/cp437.py, cp862.py), and curation had dropped what little in the raw corpus spells out names of characters: manual
pages of ISO 8859 and KOI8, and a generated table. So code without these two is scored as well, beside, and named as what was
found afterwards.

Known when the recipe was fixed: its counts of removed documents by source, and nothing of any model.

Run: python benchmarks/curate_value.py CORPUS --out WORK [--tokens 3.5e6]     (goes on where it was; nine runs)
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import statistics
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet
from curate_datatrove import texts
from record import record

from unlabeled.curate.catalogue import recipe
from unlabeled.curate.pipeline import curate
from unlabeled.data.text import train_bpe
from unlabeled.engine.launch import at_checkpoint, resume, train
from unlabeled.engine.loop import Settings
from unlabeled.engine.record import Run
from unlabeled.evaluate.text import Surprise, surprise
from unlabeled.model import Model

HERE = Path(__file__).parent
ARMS, SEEDS = ("raw", "random", "curated"), (0, 1, 2)
MB = 1_000_000
PROSE = {"kernel-rst": 1.5, "python-rst": 1.0, "manual-en": 1.5, "speeches": 1.0, "webster": 1.0}  # MB, a half
CODE = {"code-library": 1.5, "code-packages": 1.5}  # a quarter
COPIES = 1.8  # 15 %, of prose and code alike
JUNK = {"mail-spam": 0.5, "help-html": 0.3}  # a tenth with what is made: menus and random words, 0.2 each
MADE = 0.2
LONGEST = 60_000  # characters of a document that is taken, so that no domain is a handful of them
DOMAINS = ("kernel", "python", "manual-en", "speeches", "webster", "code")
BESIDE = ("help-en",)
TABLES = "encodings/"  # files of held-out code that are scored apart, see above
HELD_OUT = 120_000  # bytes of each domain that are scored
VOCABULARY = 4096
MODEL = {"layers": 4, "width": 128, "heads": 4, "context": 256, "batch": 16}

Text = tuple[str, str]  # name with its ending, text


# ---- the corpora -------------------------------------------------------------------------------------------


def made_raw(corpus: Path) -> dict[str, list[Text]]:
    """Documents of the raw corpus by part: what it is made of, in a fixed order."""
    wanted = PROSE | CODE | JUNK
    found: dict[str, list[Text]] = {name: [] for name in wanted}
    for id, source, text in texts(corpus):
        if source in wanted and len(text) <= LONGEST:
            found[source].append((id, text))
    parts = {name: _up_to(_by_hash(found[name]), wanted[name] * MB) for name in wanted}
    rng = random.Random(0)
    clean = [one for name in (*PROSE, *CODE) for one in parts[name]]
    vocabulary = sorted({word for _, text in clean[::7] for word in text.split()})
    parts["copies"] = _up_to(_copies(clean, vocabulary, rng), COPIES * MB)
    parts["menus"] = _up_to(_menus(vocabulary, rng), MADE * MB)
    parts["random-words"] = _up_to(_random_words(vocabulary, rng), MADE * MB)
    return parts


def _by_hash(rows: list[Text]) -> list[Text]:
    return sorted(rows, key=lambda row: hashlib.sha1(row[0].encode()).digest())


def _up_to(rows: Any, size: float) -> list[Text]:
    """The first documents that together have so many bytes, the last one whole."""
    chosen, left = [], size
    for name, text in rows:
        chosen.append((name, text))
        left -= len(text.encode())
        if left <= 0:
            break
    return chosen


def _copies(clean: list[Text], vocabulary: list[str], rng: random.Random) -> Iterator[Text]:
    originals = rng.sample([one for one in clean if 2000 < len(one[1]) < LONGEST / 3], 400)
    for rank, (name, text) in enumerate(originals, 1):
        for copy in range(40 // rank + 1):
            rate = rng.choice((0, 0.01, 0.05))
            words = text.split(" ")
            edited = (rng.choice(vocabulary) if word and rng.random() < rate else word for word in words)
            head, _, body = name.partition("/")
            mark = "#" if name.endswith(".py") else ".."
            first = f"{mark} retrieved {rng.randrange(1990, 2024)}-{rng.randrange(1, 13):02} from {head}\n"
            yield f"{rank:03}-{copy:02}-{Path(body).name}", first + " ".join(edited)


def _menus(vocabulary: list[str], rng: random.Random) -> Iterator[Text]:
    """Pages that hold little but their navigation, most of it the same on all."""
    short = [word for word in vocabulary if word.isalpha() and 3 < len(word) < 10]
    same = [f"{rng.choice(short).title()} {rng.choice(short)}" for _ in range(30)]
    for n in range(10**6):
        entries = [f"> {entry}" for entry in same + rng.sample(short, 20)]
        yield f"{n:05}.txt", "\n".join([*entries, *(rng.choice(entries) for _ in range(60))]) + "\n"


def _random_words(vocabulary: list[str], rng: random.Random) -> Iterator[Text]:
    for n in range(10**6):
        yield f"{n:05}.txt", " ".join(rng.choices(vocabulary, k=400)) + "\n"


def prepare(corpus: Path, work: Path) -> dict[str, Any]:
    """Write the corpora of all arms and the tokenizer, once; returns what they hold."""
    told = work / "prepared.json"
    if told.exists():
        return json.loads(told.read_text())
    parts = made_raw(corpus)
    for part, rows in parts.items():
        for name, text in rows:
            file = work / "raw" / part / name.removeprefix(f"{part}/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(text.encode())
    rule = recipe(str(HERE / "curate_value_recipe.py"))
    begun = time.perf_counter()
    result = curate([("", work / "raw")], rule, work / "curated", workers=2)
    seconds = time.perf_counter() - begun
    kept: list[tuple[str, str]] = []
    for file in sorted(result.corpus.rglob("*.parquet")):
        rows = pyarrow.parquet.read_table(file, columns=["source", "text"]).to_pylist()
        kept += [(row["source"], row["text"]) for row in rows]
    raw = [(part, text) for part, rows in parts.items() for _, text in rows]
    size = sum(len(text.encode()) for _, text in kept)
    arms = {"raw": raw, "curated": kept}
    for seed in SEEDS:
        shuffled = random.Random(seed).sample(raw, len(raw))
        arms[f"random-{seed}"] = _up_to(shuffled, size)
    for name, rows in arms.items():
        with (work / f"{name}.jsonl").open("w") as out:
            out.writelines(json.dumps({"text": text}) + "\n" for _, text in rows)
    train_bpe((text for _, text in raw), VOCABULARY).save(_made(work / "tokenizer"))
    about = {name: _contents(rows) for name, rows in arms.items()} | {"seconds to curate": round(seconds, 1)}
    told.write_text(json.dumps(about, indent=1))
    return about


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _contents(rows: list[tuple[str, str]]) -> dict[str, Any]:
    count, size = Counter[str](), Counter[str]()
    for part, text in rows:
        count[part] += 1
        size[part] += len(text.encode())
    parts = {part: {"documents": count[part], "bytes": size[part]} for part in sorted(count)}
    return {"documents": len(rows), "bytes": sum(size.values()), "parts": parts}


# ---- the models --------------------------------------------------------------------------------------------


def trained(work: Path, arm: str, seed: int, tokens: float) -> Run:
    """A run of so many tokens, gone on with or left alone if it is there."""
    out = work / "runs" / f"{arm}-{seed}"
    if (out / "config.json").exists():
        run = Run(out)
        return run if run.status["state"] == "finished" else resume(out)
    data = work / (f"random-{seed}.jsonl" if arm == "random" else f"{arm}.jsonl")
    settings = Settings(budget=f"{tokens:.0f}tokens", seed=seed, save_every="600s", keep=1)
    overrides = MODEL | {"tokenizer_folder": str((work / "tokenizer").resolve())}
    return train(
        str(HERE / "curate_value_gpt2.py"), data, variant="laptop", overrides=overrides, settings=settings, out=out
    )


def held_out(corpus: Path, domain: str) -> list[Text]:
    folder = corpus / "heldout" / domain
    rows = [(path.relative_to(folder).as_posix(), path.read_bytes().decode()) for path in folder.rglob("*.*")]
    return _up_to(_by_hash([row for row in rows if len(row[1]) <= LONGEST]), HELD_OUT)


def judged(run: Run, corpus: Path) -> dict[str, float]:
    """Bits per byte on each domain."""
    model = Model(run.config["system"], at_checkpoint(run), run)
    sets = {domain: held_out(corpus, domain) for domain in (*DOMAINS, *BESIDE)}
    sets["code without tables"] = [row for row in sets["code"] if not row[0].startswith(TABLES)]
    found = {}
    for domain, rows in sets.items():
        total = Surprise()
        for batch in model.batches(model.store([text for _, text in rows]), size=16):
            surprise(model.method, batch, total)
        found[domain] = round(total.bits_per_byte, 4)
    return {"mean": round(statistics.mean(found[d] for d in DOMAINS), 4), **found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tokens", type=float, default=3.5e6)
    parser.add_argument("--prepare", action="store_true", help="make the corpora and stop")
    chosen = parser.parse_args()
    about = prepare(chosen.corpus, _made(chosen.out))
    print(json.dumps(about, indent=1))
    if chosen.prepare:
        return
    judgements: dict[str, dict[int, dict[str, float]]] = {arm: {} for arm in ARMS}
    seconds: list[float] = []
    for seed in SEEDS:
        for arm in ARMS:
            run = trained(chosen.out, arm, seed, chosen.tokens)
            judgements[arm][seed] = judged(run, chosen.corpus)
            seconds.append(run.status["seconds"])
            print(arm, seed, f"{seconds[-1]:.0f} s", judgements[arm][seed], flush=True)
    middle = {
        arm: {d: round(statistics.mean(j[d] for j in by_seed.values()), 4) for d in by_seed[0]}
        for arm, by_seed in judgements.items()
    }
    better = {
        f"curated below {other}": {
            d: sum(judgements["curated"][seed][d] < judgements[other][seed][d] for seed in SEEDS) for d in middle["raw"]
        }
        for other in ("raw", "random")
    }
    spread = {
        arm: {d: round(statistics.stdev(j[d] for j in by_seed.values()), 4) for d in by_seed[0]}
        for arm, by_seed in judgements.items()
    }
    figures = {
        "unit": "bits per byte of held-out text",
        "tokens": chosen.tokens,
        "model": MODEL | {"vocabulary": VOCABULARY},
        "means over seeds": middle,
        "standard deviations over seeds": spread,
        f"of {len(SEEDS)} seeds": better,
        "by seed": judgements,
        "seconds of a run": [round(s, 1) for s in seconds],
        "corpora": about,
    }
    record("curate-value", figures)


if __name__ == "__main__":
    main()
