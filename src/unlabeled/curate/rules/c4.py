"""C4, the Colossal Clean Crawled Corpus of T5 (Raffel et al. 2020, JMLR 21, arXiv 1910.10683, section 2.2).

Source of truth is the released builder (tensorflow/datasets, `text/c4_utils.py` and `c4.py`), of which this keeps the
order and the constants: 5 words a line, 3 sentences a page. The paper's first version, and tools after it, say 3 words
and 5 sentences; the paper also speaks of spans of three sentences where the builder compares lines: `c4-paper`. datatrove
0.10.1's `C4QualityFilter` has 3 and 5 too, takes ' for an end mark, and counts words before citations are deleted:
`DATATROVE`, equal to it on every page with words="spacy".

Two quirks of the builder are kept: a bad word at the very start or end of a line is missed (versions before 3; from then
on the list was applied to the finished page, with any non-word character or its ends around the word), and deleting a
citation leaves its spaces, so that "So it is. [1]" ends in a blank and goes for want of an end mark.

Where we differ: sentences are counted by `sentences.py`, not by Punkt; the languages of `c4-multilingual` (mC4: cld3 at 0.7
or more) are not told apart.

The list of bad words (LDNOOBW, CC-BY-4.0) does not come along: `unlabeled data get naughty-words`.
"""

from __future__ import annotations

import functools
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from unlabeled.core.errors import UserError
from unlabeled.curate import measures as of
from unlabeled.curate.dedup.exact import Exact, Lines, Spans, normal_url
from unlabeled.curate.document import Document
from unlabeled.curate.language import Language
from unlabeled.curate.recipe import Bound, Drop, Edited, Outcome, Recipe
from unlabeled.curate.sentences import count

__all__ = ["DATATROVE", "RECIPES", "Clean", "Listed", "long_lines", "realnewslike", "webtextlike"]

_CITATION = re.compile(r"\[\d*\]|\[edit\]|\[citation needed\]")
_POLICIES = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")
_LONGEST_WORD = 1000  # characters
_LONGEST_PAGE = 190_000  # characters
_LETTERS = re.compile("[a-z]+")
_ONLY_LETTERS = bytes(c if chr(c) in "abcdefghijklmnopqrstuvwxyz" else 32 for c in range(256))


@dataclass(frozen=True)
class Clean:
    """Keep the lines that look like sentences, drop the page if something is suspicious or too little is left.

    least_words: a line; least_sentences: a page. end_marks: one of which a line must end in; () keeps every line.
    bad_words: "naughty-words" (fetched), a file with one a line or a JSON list, or "" for none.
    citations_count: words are counted before citations like [1] are deleted.
    """

    least_words: int = 5
    least_sentences: int = 3
    end_marks: tuple[str, ...] = (".", "?", "!", '"')
    bad_words: str = "naughty-words"
    citations_count: bool = False
    name: str = "c4_lines"

    def index(self, work: Path) -> Clean:
        """Look for the list of bad words before any work is done.

        Raises:
            UserError: where it is not there.
        """
        if self.bad_words:
            _list(self.bad_words)
        return self

    def __call__(self, document: Document) -> Outcome:
        text, cited = document.text, "[" in document.text
        # What occurs nowhere on the page need not be looked for in its lines.
        lower = (_CITATION.sub("", text) if cited else text).lower()
        lorem, script = "lorem ipsum" in lower, "javascript" in lower
        policies = [p for p in _POLICIES if p in lower]
        bad = _BadWords.of(self.bad_words).pattern(lower) if self.bad_words else None
        counts: Counter[str] = Counter()
        kept, sentences, citations = [], 0, 0
        for whole in document.lines:
            line = whole.strip()
            words = -1
            if len(line) > _LONGEST_WORD and any(len(word) > _LONGEST_WORD for word in line.split()):
                counts["line with a word of over 1000 characters"] += 1
                continue
            if cited and "[" in line:
                if self.citations_count:
                    words = len(line.split())
                line, deleted = _CITATION.subn("", line)
                citations += deleted
            if self.end_marks and (not line.endswith(self.end_marks) or line.endswith("...")):
                counts["line without end mark"] += 1
                continue
            if (len(line.split()) if words < 0 else words) < self.least_words:
                counts["short line"] += 1
                continue
            small = line.lower() if lorem or script or policies or bad else ""
            if lorem and "lorem ipsum" in small:
                return Drop("lorem ipsum")
            if script and "javascript" in small:
                counts["line on javascript"] += 1
                continue
            if "{" in line:
                return Drop("curly bracket")
            if policies and any(p in small for p in policies):
                counts["line on a policy"] += 1
                continue
            if bad and bad.search(small):
                return Drop("bad word")
            sentences += count(line, document.splitter)
            kept.append(line)
        if sentences < self.least_sentences:
            return Drop(f"fewer than {self.least_sentences} sentences", sentences)
        cleaned = "\n".join(kept).strip()
        if citations:
            counts["citation deleted"] = citations
        return Edited(cleaned, counts) if cleaned != text else None


class _BadWords:
    """A list of words, each flanked by anything but a to z."""

    def __init__(self, words: Sequence[str]) -> None:
        self._by_run: dict[bytes, list[str]] = {}  # by the longest run of letters, which stands alone in the text too
        for word in words:
            runs: list[str] = sorted(_LETTERS.findall(word), key=len)
            self._by_run.setdefault(runs[-1].encode() if runs else b"", []).append(word)
        self._without = self._by_run.pop(b"", [])
        self._runs = frozenset(self._by_run)

    @staticmethod
    @functools.cache
    def of(name: str) -> _BadWords:
        return _BadWords(_list(name))

    def pattern(self, lower: str) -> re.Pattern[str] | None:
        """A pattern of the words that a page in lower case may hold, or None if it holds none."""
        runs = self._runs.intersection(lower.encode("ascii", "replace").translate(_ONLY_LETTERS).split())
        present = [word for run in runs for word in self._by_run[run]]
        present += [word for word in self._without if word in lower]
        return _flanked(tuple(sorted(present))) if present else None


@functools.lru_cache(1024)
def _flanked(words: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile(f"[^a-z](?:{'|'.join(map(re.escape, words))})[^a-z]")


@functools.cache
def _list(name: str) -> tuple[str, ...]:
    from unlabeled.data.fetch import FETCHED, stored

    if name in FETCHED:
        folder = stored(name)
        if folder is None:
            raise UserError(
                f"C4 drops pages by a list of words: run `unlabeled data get {name}`, or use c4-noblocklist."
            )
        path = folder / "en.json"
    else:
        path = Path(name)
    try:
        body = path.read_text(encoding="utf-8")
        words = json.loads(body) if path.suffix == ".json" else body.splitlines()
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as a list of words: name a text file with one a line.") from error
    return tuple(sorted({word.strip().lower() for word in words} - {""}))


def long_lines(document: Document) -> float:
    """Lines of 200 characters or more (mC4, Xue et al. 2021, arXiv 2010.11934, section 3.1)."""
    return sum(len(line) >= 200 for line in document.text.split("\n"))


@dataclass(frozen=True)
class Listed:
    """Keep the documents whose URL, or its domain, is in a file.

    file: one a line; for domains also RealNews' JSON, {"domain": true or ["allowed", "subdomains"]}. by: "url", compared
    as `normal_url` leaves it, or "domain", of which any subdomain will do unless the file names those that are allowed.
    """

    file: str
    by: str = "domain"
    name: str = "listed"

    def index(self, work: Path) -> Listed:
        """Read the file before any work is done.

        Raises:
            UserError: where it cannot be read.
        """
        _allowed(self.file, self.by)
        return self

    def __call__(self, document: Document) -> Outcome:
        url, allowed = str(document.about.get("url", "")), _allowed(self.file, self.by)
        if self.by == "url":
            return None if normal_url(url) in allowed else Drop("URL not listed")
        try:
            parts = (urlsplit(url if "//" in url else f"//{url}").hostname or "").split(".")
        except ValueError:  # "http://[": no address
            return Drop("domain not listed")
        for place in range(len(parts)):
            subdomains = allowed.get(".".join(parts[place:]), False)
            if subdomains is not False:
                return (
                    None
                    if subdomains is True or ".".join(parts[:place]) in subdomains
                    else Drop("subdomain not listed")
                )
        return Drop("domain not listed")


@functools.cache
def _allowed(file: str, by: str) -> Mapping[str, Literal[True] | list[str]]:
    try:
        body = Path(file).read_text(encoding="utf-8")
        if Path(file).suffix == ".json":
            return {
                name: True if subdomains is True else list(subdomains) for name, subdomains in json.loads(body).items()
            }
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{file} cannot be read as a list: name a text file with one {by} a line.") from error
    lines = filter(None, map(str.strip, body.splitlines()))
    return dict.fromkeys(map(normal_url, lines) if by == "url" else lines, True)


PAGE = (Bound(of.characters, at_most=_LONGEST_PAGE), Exact(of="url"))
ENGLISH = Language("en", at_least=0.99, by="langdetect")
DATATROVE = Clean(3, 5, (".", "?", "!", '"', "'"), bad_words="", citations_count=True)


def _c4(name: str, about: str, clean: Clean, first: Sequence[Listed] = (), once: Any = None) -> Recipe:
    return Recipe(
        name,
        (PAGE[0], *first, PAGE[1], clean, once or Lines(), ENGLISH),
        about=about,
        paper="Raffel et al. 2020, JMLR 21, arXiv 1910.10683, section 2.2",
    )


def realnewslike(domains: str) -> Recipe:
    """C4 of news sites alone. domains: RealNews' file of domains (Zellers et al. 2019), or one a line."""
    return _c4("c4-realnewslike", "C4 of the news sites in a file", Clean(), [Listed(domains)])


def webtextlike(urls: str) -> Recipe:
    """C4 of listed pages alone. urls: a file with one a line, such as OpenWebText's."""
    return _c4("c4-webtextlike", "C4 of the pages in a file", Clean(), [Listed(urls, by="url")])


RECIPES = {
    "c4": _c4("c4", "the lines that look like English sentences, each once", Clean()),
    "c4-paper": _c4(
        "c4-paper",
        "C4 with 5 sentences a page, 3 words a line, repeated spans cut",
        Clean(3, 5),
        once=Spans(sentences=5),
    ),
    "c4-noblocklist": _c4("c4-noblocklist", "C4 without the list of bad words", replace(Clean(), bad_words="")),
    "c4-multilingual": Recipe(
        "c4-multilingual",
        (*PAGE, Bound(long_lines, at_least=3), Lines(sentences=0)),
        about="mC4's pages: three long lines in any language, each once",
        paper="Xue et al. 2021, arXiv 2010.11934, section 3.1",
    ),
}
