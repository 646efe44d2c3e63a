"""Turn raw documents into a corpus by published rules, and say what happened to each."""

from __future__ import annotations

import dataclasses
import shlex
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from unlabeled.cli.parse import parse
from unlabeled.cli.say import as_json, table
from unlabeled.core.errors import Interrupted, UserError

if TYPE_CHECKING:
    from unlabeled.curate.recipe import Recipe

__all__ = ["main"]


@dataclass(frozen=True)
class Curate:
    """Clean, deduplicate and mix raw text by a published recipe; a ledger says what happened to each document.

    SOURCE is a folder or file of text, markdown, html, code, .jsonl, .parquet, WARC or WET, compressed or not;
    several may be named: web=crawl/ code=src/. `--list` shows the recipes. What was interrupted goes on when the same
    command is given again.

    Example: unlabeled curate web=crawl/ books=books.jsonl --recipe fineweb --out corpus
             unlabeled curate --out corpus --explain web/page-17.html
    """

    sources: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")] = ()
    """Folders or files, each with a name of its own if wanted: NAME=PATH."""
    recipe: str = ""
    """Name of a recipe, or a Python file that ends in RECIPE = Recipe(...); or prune, for images."""
    out: Path | None = None
    """Folder for the corpus, the ledger and the report."""
    set: tuple[str, ...] = ()
    """Other limits of the recipe's rules: RULE.at_most=0.2, RULE.at_least=5."""
    words: Literal["", "plain", "spacy"] = ""
    """How words are cut, if not as the recipe says: plain is faster, spacy as datatrove counts."""
    mix: str = ""
    """Weights of the sources: a published mix by name, or NAME=WEIGHT,NAME=WEIGHT (shares), or temperature=T."""
    against: tuple[Path, ...] = ()
    """Evaluation sets that must not be in the corpus (13-gram overlap, as for GPT-3)."""
    good: Path | None = None
    """Examples of what is wanted: with --bad, a classifier is trained and drops what is more like the bad ones."""
    bad: Path | None = None
    """Examples of what is not wanted."""
    encoder: Path | None = None
    """Run folder of a trained encoder: drop what means the same (SemDeDup), or with --keep prune by prototypes."""
    keep: float | None = None
    """With --encoder: share of the documents or images that stays, chosen by self-supervised prototypes."""
    hold_out: float = 0.0
    """Share held out for validation, and again for test."""
    workers: int = 0
    """Processes; all cores unless given."""
    engine: Literal["local", "ray"] = "local"
    """Where the work is done: here, or on the Ray cluster that RAY_ADDRESS names."""
    explain: str = ""
    """Id of a document: say what happened to it in the run at --out, and why."""
    list: bool = False
    """Print the recipes and the mixes, and stop."""
    json: bool = False
    """Print one JSON object: the totals of the ledger."""


def main(words: Sequence[str]) -> dict[str, Any]:
    got = parse(Curate, words, "curate")
    if got.list:
        return _listed()
    if got.out is None:
        raise UserError("Say where to: --out DIR.")
    if got.explain:
        from unlabeled.curate.ledger import explain, rows

        print(explain(got.out, got.explain))
        return {"documents": rows(got.out, got.explain)}
    if not got.sources:
        raise UserError("Name at least one folder or file of documents; `unlabeled curate --help` has an example.")
    if not got.recipe:
        raise UserError("Say which rules: --recipe NAME; `unlabeled curate --list` shows them.")
    if got.recipe == "prune":
        if got.encoder is None or got.keep is None or len(got.sources) != 1:
            raise UserError("Pruning takes one source, --encoder RUN and --keep SHARE.")
        return _pruned(got)

    from unlabeled.curate.pipeline import curate

    places = [_place(source) for source in got.sources]
    recipe = _recipe(got)
    with _Progress() as progress:
        try:
            result = curate(places, recipe, got.out, workers=got.workers, engine=got.engine, progress=progress)
        except KeyboardInterrupt:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # nothing is left to stop
            raise Interrupted("Stopped; nothing is lost: give the same command again to go on.") from None

    from unlabeled.report import curation, text_of

    command = shlex.join(["unlabeled", "curate", *words])
    (got.out / "report.html").write_text(curation.page(result.totals, command), encoding="utf-8", errors="replace")
    print(text_of({"headline": curation.headline(result.totals), "tables": curation.tables(result.totals)}))
    print(
        f"\nThe corpus is in {result.corpus}, the page in {got.out / 'report.html'}, the ledger in {got.out / 'ledger'}."
    )
    if result.totals["documents"]["kept"]:
        print(f"Next: unlabeled fit {shlex.quote(str(got.out))} --budget 10m")
    return {
        "out": str(got.out),
        **{k: v for k, v in result.totals.items() if k != "rules"},
        "rules": _short(result.totals),
    }


def _short(totals: Any) -> list[dict[str, Any]]:
    """Totals of the rules without examples and histograms, which are in totals.json."""
    return [{k: v for k, v in rule.items() if k not in ("examples", "close", "values")} for rule in totals["rules"]]


def _listed() -> dict[str, Any]:
    from unlabeled.curate.catalogue import mixes, recipes

    print(table(["recipe", "what it does", "published in"], [[n, r.about, r.paper] for n, r in recipes().items()]))
    print(f"\nmixes: {', '.join(mixes())}")
    return {"recipes": {n: {"about": r.about, "paper": r.paper} for n, r in recipes().items()}, "mixes": list(mixes())}


def _place(source: str) -> tuple[str, Path]:
    """NAME=PATH or PATH; a path that exists and has a = in its name is one."""
    name, equals, path = source.partition("=")
    if equals and not Path(source).exists():
        found = (name, Path(path).expanduser())
    else:
        found = ("", Path(source).expanduser())
    if not found[1].exists():
        raise UserError(f"There is no folder or file {found[1]}.")
    return found


def _recipe(got: Curate) -> Recipe:
    """The named recipe with what the options change and add."""
    from unlabeled.curate import catalogue

    recipe = catalogue.recipe(got.recipe)
    if got.set:
        recipe = recipe.but(dict(map(_limit, got.set)))
    steps = [*recipe.steps]
    if (got.good is None) != (got.bad is None):
        raise UserError("A classifier needs both --good and --bad examples.")
    if got.good is not None and got.bad is not None:
        steps.append(_classifier(got.good, got.bad, got.out))
    if got.against:
        from unlabeled.curate.decontaminate import Decontaminate

        steps.append(Decontaminate(tuple(str(path.resolve()) for path in got.against)))
    if got.encoder is not None:
        from unlabeled.curate.dedup.semantic import Semantic
        from unlabeled.curate.prune import Prototypes

        run = str(got.encoder.resolve())
        steps.append(Semantic(run) if got.keep is None else Prototypes(run, keep=got.keep))
    elif got.keep is not None:
        raise UserError("--keep needs the run folder of an encoder: --encoder RUN.")
    mix = _mix(got.mix) if got.mix else recipe.mix
    hold_out, words = got.hold_out or recipe.hold_out, got.words or recipe.words
    return dataclasses.replace(recipe, steps=steps, mix=mix, hold_out=hold_out, words=words)


def _classifier(good: Path, bad: Path, out: Path | None) -> Any:
    """A rule that drops what is more like the bad examples; the classifier is kept beside the corpus."""
    from unlabeled.curate.document import Document
    from unlabeled.curate.quality import Quality, train
    from unlabeled.curate.reading import read

    def documents(place: Path) -> Iterator[Document]:
        for task in read.plan([("", place)])[0]:
            yield from (item for item in read.documents(task) if isinstance(item, Document))

    assert out is not None
    path = out.resolve().with_name(f"{out.name}-classifier.npz")
    classifier, report = train(documents(good), documents(bad))
    classifier.save(path)
    print(f"{report}\nThe classifier is in {path}.")
    return Quality(path)


def _limit(word: str) -> tuple[str, float]:
    name, _, value = word.partition("=")
    return name, _number(value, f"--set {word}")


def _number(word: str, said: str) -> float:
    try:
        return float(word)
    except ValueError:
        raise UserError(f"{said} should end in a number, not {word!r}.") from None


def _mix(word: str) -> Any:
    from unlabeled.curate import catalogue
    from unlabeled.curate.mix import Mix

    if "=" not in word:
        return catalogue.mix(word)
    weights = {name: _number(value, f"--mix {name}") for name, _, value in (p.partition("=") for p in word.split(","))}
    return Mix(temperature=weights["temperature"]) if set(weights) == {"temperature"} else Mix(weights=weights)


def _pruned(got: Curate) -> dict[str, Any]:
    """Keep a share of a data set of images by prototypes, as a parquet file that can be trained on; of data with
    an official test split, of the training part, and the test part stays as it is."""
    import numpy as np

    from unlabeled.curate.prune import prune, write_subset
    from unlabeled.data.sources import source

    assert got.out is not None and got.encoder is not None and got.keep is not None
    if (got.out / "corpus").exists():
        raise UserError(f"{got.out} holds a corpus already: name a new folder with --out.")
    whole = source(got.sources[0])
    data = whole.split("train") if whole.official else whole
    selection = prune(data, str(got.encoder), keep=got.keep)
    kept = selection.keep.nonzero()[0]
    if whole.official:
        test = whole.split("test")
        write_subset(test, np.arange(len(test)), got.out / "corpus" / "test.parquet")
    write_subset(data, kept, got.out / "corpus" / ("train.parquet" if whole.official else "part-00000.parquet"))
    with (got.out / "pruned.jsonl").open("w") as file:
        for index in (~selection.keep).nonzero()[0].tolist():
            file.write(as_json({"id": data.group(index), "score": float(selection.value[index])}) + "\n")
    (got.out / "curate.json").write_text(as_json({"source": got.sources[0], "encoder": got.encoder, "keep": got.keep}))
    said = [selection.note] if selection.note else []
    print(
        *said,
        f"{len(kept):,} of {len(data):,} were kept; they are in {got.out}, the others listed in pruned.jsonl there.",
    )
    print(f"Next: unlabeled fit {shlex.quote(str(got.out))} --budget 10m")
    return {"out": str(got.out), "read": len(data), "kept": len(kept), "note": selection.note}


class _Progress:
    """One line that is rewritten on a terminal; a line for each thing done elsewhere."""

    def __init__(self) -> None:
        self._said = ""
        self._live: Any = None

    def __enter__(self) -> _Progress:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
            self._live = Progress(*columns, console=Console(stderr=True))
            self._live.start()
            self._task = self._live.add_task("")
        return self

    def __call__(self, what: str, done: int, count: int) -> None:
        if self._live is not None:
            self._live.update(self._task, description=what, completed=done, total=count)
        elif what != self._said or done == count:
            print(f"{what}: {done} of {count}", file=sys.stderr)
        self._said = what

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()
