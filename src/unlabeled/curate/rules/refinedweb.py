"""RefinedWeb's rules (Penedo et al. 2023, arXiv 2306.01116, section 3 and appendix G), as far as they are public.

Language, Gopher's repetition and quality, corrections of lines, near duplicates. The paper names the corrections
(appendix G.2) but publishes neither code nor all limits; they are as DCLM reads them (mlfoundations/dclm,
`baselines_configs/refinedweb.yaml` and `mappers/modifiers.py`), step by step: `correct`. The paper's Gopher rules are
Gopher's here; DCLM's own version of these, which differs in every detail, is in `rules/dclm.py`.

URLs are judged first, by lists that the user gives (the paper starts from the University of Toulouse's, and they are not
passed on here): `refinedweb(domains=..., strict=..., hard=..., soft=...)`, with `Blocked` for each.

Left out: the paper's removal of repeated substrings of 50 tokens after the near duplicates, of which `Substrings` cuts the
like in bytes (`unlabeled.curate.dedup.substrings`), and of URLs met in earlier parts of the crawl.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from unlabeled.core.errors import UserError
from unlabeled.curate.dedup.near import preset
from unlabeled.curate.document import Document
from unlabeled.curate.language import Language
from unlabeled.curate.recipe import Drop, Edit, Edited, Outcome, Recipe
from unlabeled.curate.rules.gopher import QUALITY, REPETITION

__all__ = ["RECIPE", "Blocked", "correct", "few_newlines", "number_of_words", "refinedweb"]

_CAPITALS = bytes(range(ord("A"), ord("Z") + 1))
_COUNTED = ("likes", "shares", "comments", "retweets", "reposts", "quotes", "bookmarks")
_COUNTED += ("upvotes", "downvotes", "downloads", "views", "followers")
_COUNTER = re.compile(rf"^\W*\d[,.\d]*[kmb]?\s+(?:{'|'.join(_COUNTED)})\W*$")
# Within lines of at most 10 words. The full stops of "Read more..." are any character to DCLM; so they are here.
_PHRASES = (
    (re.compile(r"\s?items in cart", re.I), "items in cart"),
    (re.compile(r"\s?read more...$", re.I), "read more"),
    (re.compile(r"^sign-in\s?", re.I), "sign-in"),
)
_NEWLINES = re.compile(r"\n{3,}")
_WORD = re.compile(r"[^ \n\r\t\v\f\0]+")  # as fastText tokenizes


def few_newlines(document: Document) -> Outcome:
    """At most one blank line at a time."""
    text, number = _NEWLINES.subn("\n\n", document.text)
    return Edited(text, {"run of blank lines": number}) if number else None


def correct(document: Document) -> Outcome:
    """Drop lines that are no sentences, cut phrases of buttons; drop the document if that takes over 5 % of its words."""
    text, counts = document.text, {}
    for what, keeps in _LINES:
        text, gone = _kept(text, keeps)
        if gone:
            counts[what] = gone
        if not text:
            return Drop("no lines left")
    for pattern, phrase in _PHRASES:
        text, cut = _without(text, pattern, phrase)
        if cut:
            counts[f"phrase: {phrase}"] = cut
        if not text:
            return Drop("no lines left")
    if text == document.text:
        return Drop("no words") if not number_of_words(text) else None
    before = number_of_words(document.text)
    if not before:
        return Drop("no words")
    removed = (before - number_of_words(text)) / before
    return Drop("more than 5 % of words in bad lines", removed) if removed > 0.05 else Edited(text, counts)


def _kept(text: str, keeps: Callable[[str], bool]) -> tuple[str, int]:
    """The lines that are empty or are kept, and how many are not. White space around all goes, but for short lines."""
    lines = text.split("\n")
    left = [line for line in lines if not line or keeps(line)]
    joined = "\n".join(left) if len(left) < len(lines) else text
    return joined if keeps is _is_long else joined.strip(), len(lines) - len(left)


def _is_calm(line: str) -> bool:
    """At most half of the characters are capitals."""
    if line.isascii():
        return 2 * (len(line) - len(line.encode().translate(None, _CAPITALS))) <= len(line)
    return sum(map(str.isupper, line)) / len(line) <= 0.5


def _is_no_number(line: str) -> bool:
    return not line.isdigit()


def _is_no_counter(line: str) -> bool:
    small = line.lower()
    return not (any(word in small for word in _COUNTED) and _COUNTER.search(small))


def _is_long(line: str) -> bool:
    return len(line.split(maxsplit=1)) >= 2


_LINES: tuple[tuple[str, Callable[[str], bool]], ...] = (
    ("line in capitals", _is_calm),
    ("line of a number", _is_no_number),
    ("line of a counter", _is_no_counter),
    ("line of one word", _is_long),
)


def _without(text: str, pattern: re.Pattern[str], phrase: str) -> tuple[str, int]:
    """A phrase cut out of lines of at most 10 words, with the line if nothing else is in it; how often."""
    if phrase not in text.lower():
        return text.strip(), 0
    lines, cut = [], 0
    for line in text.split("\n"):
        if len(line.split()) <= 10:
            shorter, number = pattern.subn("", line)
            cut += number
            if line and (not shorter or shorter.isspace()):
                continue
            line = shorter
        lines.append(line)
    return "\n".join(lines).strip(), cut


def number_of_words(text: str) -> int:
    """Words between white space, as fastText parts them, that begin with a letter or a digit."""
    return sum(word[0].isalnum() for word in _WORD.findall(text))


@dataclass(frozen=True)
class Blocked:
    """Drop the documents whose URL holds what is in a file, one entry a line; upper and lower case are one.

    by: "domain", the URL's host without www is an entry; "substring", an entry occurs in the URL, whose hyphens and full
    stops are left out; "word", an entry occurs between word boundaries. least: how many different ones must occur.
    """

    file: str
    by: Literal["domain", "substring", "word"] = "domain"
    least: int = 1
    name: str = "blocked"

    def index(self, work: Path) -> Blocked:
        """Read the file before any work is done.

        Raises:
            UserError: where it cannot be read.
        """
        _entries(self.file)
        return self

    def __call__(self, document: Document) -> Outcome:
        url, entries = str(document.about.get("url") or "").lower(), _entries(self.file)
        if self.by == "domain":
            return Drop("blocked domain") if _host(url).replace("www", "").lstrip(".") in entries else None
        if self.by == "substring":
            url = url.replace("-", "").replace(".", "")
        found = set(_pattern(self.file, self.by).findall(url))
        return Drop(f"blocked {self.by} in the URL", len(found)) if len(found) >= self.least else None


def _host(url: str) -> str:
    try:
        return urlsplit(url).netloc
    except ValueError:  # "http://[": no address
        return ""


@functools.cache
def _entries(file: str) -> frozenset[str]:
    try:
        lines = Path(file).read_text(encoding="utf-8").lower().splitlines()
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read as a list: name a text file with one entry a line.") from error
    return frozenset(filter(None, map(str.strip, lines)))


@functools.cache
def _pattern(file: str, by: str) -> re.Pattern[str]:
    entries = "|".join(map(re.escape, sorted(_entries(file), key=lambda entry: (-len(entry), entry)))) or r"(?!)"
    return re.compile(entries if by == "substring" else rf"\b(?:{entries})\b")


def refinedweb(domains: str = "", strict: str = "", hard: str = "", soft: str = "") -> Recipe:
    """RefinedWeb with lists for URLs: of domains, of substrings, of words, and of words of which two must occur."""
    blocked = (Blocked(domains), Blocked(strict, "substring"), Blocked(hard, "word"), Blocked(soft, "word", 2))
    return Recipe(
        "refinedweb",
        (
            *(rule for rule in blocked if rule.file),
            Edit(few_newlines),
            Language("en", at_least=0.65, by="fasttext"),
            *REPETITION,
            *QUALITY,
            Edit(correct),
            preset("refinedweb"),
        ),
        about="Gopher's rules, corrections of lines, near duplicates",
        paper="Penedo et al. 2023, arXiv 2306.01116, section 3 and appendix G",
        extract="trafilatura",
    )


RECIPE = refinedweb()
