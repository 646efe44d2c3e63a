"""Our filters and datatrove's on every document of the corpus: who stays, and for which first reason the others go.

`curate_datatrove.py` has to have said what datatrove decides; what it has not seen yet is passed over; the counts tell.
Each filter sees the text as it came. Printed per filter: documents, agreements in keep or drop and in the reason, each kind of
disagreement with how often it occurs and some ids, and what changes if words are split by our plain splitter, not spaCy's.

Run: python benchmarks/curate_exact.py CORPUS [--share 0.25]      (all of it: a few minutes on two cores)
"""

from __future__ import annotations

import argparse
import multiprocessing
import re
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from curate_datatrove import FILTERS, LETTERS, PROCESSES, decisions, kept_file, key_of, texts
from record import record

from unlabeled.curate.document import Document
from unlabeled.curate.recipe import Drop, Edited, Recipe
from unlabeled.curate.rules import c4, fineweb, gopher
from unlabeled.curate.words import splitter

SPLITTERS = ("spacy", "plain")
EXAMPLES = 5

# datatrove's reason for each of ours, by the name of the rule and the side on which it fails
REASONS = {
    "characters below": "empty",
    "duplicate_lines above": "dup_line_frac",
    "duplicate_line_characters above": "dup_line_char_frac",
    "duplicate_paragraphs above": "dup_para_frac",
    "duplicate_paragraph_characters above": "dup_para_char_frac",
    **{f"top_{n}_gram above": f"top_{n}_gram" for n in (2, 3, 4)},
    **{f"duplicate_{n}_gram above": f"duplicated_{n}_n_grams" for n in range(5, 11)},
    "words below": "gopher_short_doc",
    "words above": "gopher_long_doc",
    "mean_word_length below": "gopher_below_avg_threshold",
    "mean_word_length above": "gopher_above_avg_threshold",
    "hashes_per_word above": "gopher_too_many_hashes",
    "ellipses_per_word above": "gopher_too_many_ellipsis",
    "bullet_lines above": "gopher_too_many_bullets",
    "ellipsis_lines above": "gopher_too_many_end_ellipsis",
    "words_with_letter below": "gopher_below_alpha_threshold",
    "stop_words below": "gopher_enough_stop_words",
    "filled_lines below": "empty",
    "punctuated_lines below": "line_punct_ratio",
    "short_lines above": "short_line_ratio",
    "repeated_line_characters above": "char_dup_ratio",
    "newlines_per_word above": "list_ratio",
    "lorem ipsum": "lorem_ipsum",
    "curly bracket": "curly_bracket",
    "fewer than": "too_few_sentences",
}
RULES: dict[str, Sequence[Any]] = {
    "gopher-repetition": gopher.REPETITION,
    "gopher-quality": gopher.QUALITY,
    "gopher-quality-60": Recipe("loose", gopher.QUALITY).but({"words_with_letter.at_least": LETTERS}).steps,
    "c4": (c4.DATATROVE,),
    "fineweb": fineweb.QUALITY,
}
_NUMBER = re.compile(r" [-\d.e+]+( sentences)?$")
_splitters: dict[str, Any] = {}


def translated(drop: Drop) -> str:
    """A reason of ours as datatrove says it."""
    return REASONS[_NUMBER.sub("", drop.reason)]


def ours(job: tuple[str, str, dict[str, str]]) -> list[tuple[str, str, str, str]]:
    """For one text, rows of (filter, splitter, our reason, kind of disagreement or "")."""
    id, text, theirs = job
    if not _splitters:
        _splitters.update({name: splitter(name) for name in SPLITTERS})
    rows = []
    for name in SPLITTERS:
        document = Document(id, text, splitter=_splitters[name])
        for filter in FILTERS:
            if filter not in theirs:
                continue
            reason, kept = _first(RULES[filter], document)
            rows.append((filter, name, reason, _kind(theirs, filter, reason, kept)))
    return rows


def _first(rules: Sequence[Any], document: Document) -> tuple[str, str]:
    """The reason of the first rule that drops it, "" if none does, and the text that is left then."""
    text = document.text
    for rule in rules:
        outcome = rule(document)
        if isinstance(outcome, Drop):
            return translated(outcome), ""
        if isinstance(outcome, Edited):
            text = outcome.text
    return "", text


def _kind(theirs: dict[str, str], filter: str, reason: str, kept: str) -> str:
    """In what the two differ, as a few words that are the same for all that differ so; "" where they agree."""
    other = theirs[filter]
    if other == reason:
        differs = filter == "c4" and not reason and theirs["c4-text"] != key_of(kept)
        return "both keep it, with another text" if differs else ""
    if other.startswith("error"):
        return f"datatrove raises {other.removeprefix('error: ')}, we say {reason or 'keep'}"
    return f"datatrove says {other or 'keep'}, we say {reason or 'keep'}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--share", type=float, default=1.0, help="of the documents, by a hash of their text")
    chosen = parser.parse_args()
    known, jobs, count = decisions(), [], 0
    for id, _, text in texts(chosen.corpus):
        key = key_of(text)
        if int(key, 16) >= chosen.share * 16 ** len(key):
            continue
        count += 1
        if key in known:
            jobs.append((id, text, known[key]))
    begun = time.perf_counter()
    reasons: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)  # our own, by filter and splitter
    kinds: dict[tuple[str, str], dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    changed: dict[str, Counter[str]] = defaultdict(Counter)  # by filter: what plain words do differently, by source
    with multiprocessing.get_context("fork").Pool(PROCESSES) as pool:
        for (id, _, _), rows in zip(jobs, pool.imap(ours, jobs, chunksize=16), strict=True):
            for filter, name, reason, kind in rows:
                reasons[filter, name][reason] += 1
                if kind:
                    kinds[filter, name][kind].append(id)
            said = {(filter, name): reason for filter, name, reason, _ in rows}
            for filter in FILTERS:
                exact, plain = (said.get((filter, name), "") for name in SPLITTERS)
                if bool(exact) != bool(plain):
                    changed[filter][f"{id.partition('/')[0]}: plain {'keeps' if exact else 'drops'}"] += 1
    table = {}
    for filter in FILTERS:
        found = kinds[filter, "spacy"]
        asked = reasons[filter, "spacy"].total()
        apart = sum(len(ids) for kind, ids in found.items() if _apart(kind))
        table[filter] = {
            "documents": asked,
            "dropped": asked - reasons[filter, "spacy"][""],
            "same keep or drop": asked - apart,
            "same reason too": asked - sum(map(len, found.values())),
            "disagreements": {
                kind: {"documents": len(ids), "ids": ids[:EXAMPLES]} for kind, ids in sorted(found.items())
            },
            "reasons": dict(reasons[filter, "spacy"].most_common()),
            "decisions that change with plain words": dict(changed[filter].most_common()),
        }
        row = table[filter]
        print(
            f"{filter:18} {asked:7,} of {count:,} documents, {row['dropped']:7,} dropped, {apart} kept here and dropped there or "
            f"the reverse, {sum(map(len, found.values())) - apart} for another reason or with another text; plain words "
            f"change {sum(changed[filter].values())} decisions"
        )
        for kind, ids in sorted(found.items(), key=lambda item: -len(item[1])):
            print(f"    {len(ids):6} {kind}: {', '.join(ids[:EXAMPLES])}")
    figures = {"corpus, documents": count, "filters": table, "datatrove": kept_file().stem.partition("-")[2]}
    record("curate-exact", figures | {"seconds": round(time.perf_counter() - begun, 1)})


def _apart(kind: str) -> bool:
    """Whether one keeps the document and the other drops it; an error stops datatrove, which keeps nothing then."""
    return kind.startswith("datatrove") and (kind.startswith("datatrove says keep") or kind.endswith("we say keep"))


if __name__ == "__main__":
    main()
