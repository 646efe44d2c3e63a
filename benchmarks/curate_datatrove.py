"""What datatrove decides on every document of the corpus, kept in a file, since it needs 25 ms a document.

JSON lines, a file for each version of datatrove: {"key", "id", "gopher-quality": reason or "", ...}; "" is a document that
stays, "error: ..." one at which the filter raised. Of C4, which edits, "c4-text" is a digest of what was kept. The words of
a text are split once and given to the filters that ask for them again; nothing else is changed. Since nearly all of this
corpus has fewer than 80 % words with a letter, as spaCy counts words, Gopher's quality is asked a second time with 60 %.

Run: python benchmarks/curate_datatrove.py CORPUS [--seconds 80]      (goes on where it was; repeat until it says "all")
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import json
import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from unlabeled.core.places import cache

__all__ = ["FILTERS", "LETTERS", "decisions", "key_of", "texts"]

LETTERS = 0.6
FILTERS = ("gopher-repetition", "gopher-quality", "gopher-quality-60", "c4", "fineweb")
PROCESSES = 2
_made: dict[str, Any] = {}


def texts(corpus: Path) -> Iterator[tuple[str, str, str]]:
    """Id, source and text of every document of `curate_corpus.py`."""
    with (corpus / "texts.jsonl").open() as lines:
        for line in lines:
            row = json.loads(line)
            yield row["id"], row["source"], row["text"]


def key_of(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()


def kept_file() -> Path:
    return cache("peers") / f"datatrove-{importlib.metadata.version('datatrove')}.jsonl"


def decisions() -> dict[str, dict[str, str]]:
    """What is known so far, by the key of the text; not all filters may have been asked."""
    found: dict[str, dict[str, str]] = {}
    if (file := kept_file()).exists():
        for line in file.read_text().splitlines():
            row = json.loads(line)
            found.setdefault(row["key"], {}).update(row)
    return found


def _filters() -> dict[str, Any]:
    from datatrove.pipeline.filters import (
        C4QualityFilter,
        FineWebQualityFilter,
        GopherQualityFilter,
        GopherRepetitionFilter,
        fineweb_quality_filter,
        gopher_quality_filter,
        gopher_repetition_filter,
    )

    split: Callable[..., list[str]] = gopher_quality_filter.split_into_words
    last: dict[str, list[str]] = {}

    def split_once(text: str, language: str) -> list[str]:
        if text not in last:
            last.clear()
            last[text] = split(text, language)
        return last[text]

    for module in (gopher_quality_filter, gopher_repetition_filter, fineweb_quality_filter):
        module.split_into_words = split_once  # type: ignore[attr-defined]
    loose = GopherQualityFilter(max_non_alpha_words_ratio=LETTERS)  # the name is datatrove's; it is a lower limit
    made = (GopherRepetitionFilter(), GopherQualityFilter(), loose, C4QualityFilter(), FineWebQualityFilter())
    return dict(zip(FILTERS, made, strict=True))


def decide(job: tuple[str, str, Sequence[str]]) -> dict[str, str]:
    """Some filters on one text, each on the text as it came."""
    from datatrove.data import Document

    if not _made:
        _made.update(_filters())
    id, text, names = job
    row = {"key": key_of(text), "id": id}
    for name in names:
        document = Document(text=text, id=id)
        try:
            answer = _made[name].filter(document)
        except Exception as error:
            row[name] = f"error: {type(error).__name__}"
            continue
        row[name] = "" if answer is True else answer[1] if isinstance(answer, tuple) else "?"
        if name == "c4" and row[name] == "":
            row["c4-text"] = key_of(document.text)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--seconds", type=float, default=80.0)
    chosen = parser.parse_args()
    begun = time.monotonic()
    known = decisions()
    wanted = {key_of(text): (id, text) for id, _, text in texts(chosen.corpus)}
    left, done = [], 0
    for key in sorted(wanted):  # in no order of their own, so that what is done is a fair sample of all
        if names := [name for name in FILTERS if name not in known.get(key, {})]:
            left.append((*wanted[key], names))
    left.sort(key=lambda job: -len(job[2]))  # texts that no filter has seen come first
    with multiprocessing.get_context("fork").Pool(PROCESSES) as pool, kept_file().open("a") as out:
        for row in pool.imap_unordered(decide, left, chunksize=4):
            out.write(json.dumps(row) + "\n")
            done += 1
            if time.monotonic() - begun > chosen.seconds:
                break
    print(f"{len(wanted) - len(left) + done:,} of {len(wanted):,} texts" + (", all" if done == len(left) else ""))


if __name__ == "__main__":
    main()
