"""Exact duplicates: of whole documents, of addresses, of lines and of spans of sentences.

`Lines` is C4's deduplication as released (tensorflow/datasets, `text/c4_utils.py`); `Spans` is the one that the paper describes
(Raffel et al., JMLR 21, 2020, section 2.2): of a span of three sentences that occurs more than once in the data set, one
occurrence stays. Where we differ from them:

- Sentences are counted by `sentences.py`, C4's builder has Punkt do it.
- The builder's `dedupe_urls` keeps any one page of an address, whichever comes last to it; `Exact("url")` the one that
  `keep` says.
- The paper does not say what happens where a repeated span overlaps one that is kept. Here a copy that stays in the same
  document is not damaged by the removal of its repetitions; a span can still vanish altogether where its kept copy overlaps
  another span whose kept copy is elsewhere.

How sure equal hashes mean equal texts: a document has two independent keys of 64 bits and goes only where both repeat, so that
among 1e9 documents a false hit has a probability of 3e-12 (n (n / 2^64)^2; of a single key of 64 bits it would be
2.7 %). A line or a span has one key, a false hit costs that line: 0.03 of them are to be expected among 1e9, 271 among 1e11.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from unlabeled.core.errors import UserError
from unlabeled.curate.dedup.hashing import folded, mix, rolled
from unlabeled.curate.document import Document
from unlabeled.curate.recipe import Drop, Edited, Outcome
from unlabeled.curate.words import hash_of

__all__ = ["Exact", "Lines", "Spans", "hashed_url", "normal_url"]

Scope = Literal["all", "source"]
Keep = str | Callable[[Document], float]  # as `steps.rank_of` reads it

_REASONS = {"text": "same text", "normal": "same words", "url": "same address"}
_DIGIT = re.compile(r"\d")
_SCHEME = re.compile(r"https?://(?:www\.)?")
_TRACKING = re.compile(r"\?(?:utm_|ref|feed).*")
# A sentence ends before an empty line, or after end marks (and what closes with them) before white space and anything but a
# small letter. Marks that end nothing are matched too, without a group, so that no text takes quadratic time.
_MARKS = re.compile(r"[.?!…]++[\"'”’)\]]*+(\s++(?![a-z]))?|([。！？]++[”」』]*+\s*+|\n[^\S\n]*+\n\s*+)")


@dataclass(frozen=True)
class Exact:
    """Of documents that are the same all but one go.

    of: "text", equal to the last character; "normal", equal words in lower case without punctuation (`hashing.folded`);
    "url", equal addresses as `normal_url` leaves them. Documents without words or without an address are not compared.
    scope: "all", or "source" where copies in other sources do not count. keep: which stays. zero_digits: with "normal",
    all digits are one.

    Raises:
        UserError: where `of` or `scope` is something else.
    """

    of: Literal["text", "normal", "url"] = "normal"
    scope: Scope = "all"
    keep: Keep = "earliest"
    zero_digits: bool = False
    name: str = "exact duplicates"

    def __post_init__(self) -> None:
        if self.of not in _REASONS:
            raise UserError(f"Documents are the same by text, normal or url, not by {self.of!r}.")
        _check(self.scope)

    def keys(self, document: Document) -> np.ndarray:
        """(2,) uint64, the halves of a hash of 128 bits; (0,) where there is nothing to compare."""
        if self.of == "normal":
            words = folded(_DIGIT.sub("0", document.text) if self.zero_digits else document.text)
            said = words.tobytes()
        else:
            text = document.text if self.of == "text" else normal_url(str(document.about.get("url") or ""))
            said = text.encode("utf-8", "surrogatepass")
        if not said and self.of != "text":
            return np.zeros(0, np.uint64)
        return np.frombuffer(hashlib.blake2b(said, digest_size=16).digest(), "<u8").astype(np.uint64)

    def settle(self, document: Document, repeated: np.ndarray) -> Outcome:
        return Drop(_REASONS[self.of]) if len(repeated) and repeated.all() else None


def normal_url(url: str) -> str:
    """An address as C4's builder compares it: without scheme and `www.`, without a query that begins with utm_, ref or feed,
    without slashes at the end. The builder looks for them anywhere in the address, not at its ends alone; so do we."""
    return _TRACKING.sub("", _SCHEME.sub("", url)).rstrip("/")


def hashed_url(document: Document) -> float:
    """In [0, 1), the first 53 bits of the MD5 of the address: C4's builder keeps a line on the page where that is least.

    It is as good as a draw, so that no site is preferred. A document without an address is drawn by its id.
    """
    name = normal_url(str(document.about.get("url") or "")) or document.id
    digest = hashlib.md5(name.encode("utf-8", "surrogatepass"), usedforsecurity=False).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53


@dataclass(frozen=True)
class Lines:
    """Of every line one occurrence stays, compared in lower case and without white space at its ends; empty lines too.

    sentences: what is left of a document must have, or it goes. keep: on which document a line stays; within it, the first.
    always: `settle` is to be called for every document, since the sentences of all are counted.
    """

    scope: Scope = "all"
    keep: Keep = hashed_url
    sentences: int = 3
    name: str = "repeated lines"
    always: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check(self.scope)

    def keys(self, document: Document) -> np.ndarray:
        """(lines,) uint64, of the lines between line feeds."""
        lines = document.text.split("\n")
        return np.fromiter((hash_of(line.strip().lower()) for line in lines), np.uint64, len(lines))

    def settle(self, document: Document, repeated: np.ndarray) -> Outcome:
        if not repeated.any():
            return _left(document, document.text, self.sentences, {})
        lines = [line for line, gone in zip(document.text.split("\n"), repeated.tolist()) if not gone]
        return _left(document, "\n".join(lines), self.sentences, {"repeated line": int(repeated.sum())})


@dataclass(frozen=True)
class Spans:
    """Of every run of `length` sentences one occurrence stays, compared in lower case with single blanks.

    sentences: what is left of a document must have, or it goes. always: as for `Lines`.

    Raises:
        UserError: where the length is below 1.
    """

    length: int = 3
    scope: Scope = "all"
    keep: Keep = "earliest"
    sentences: int = 3
    name: str = "repeated spans"
    always: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check(self.scope)
        if self.length < 1:
            raise UserError("A span has one sentence at least.")

    def keys(self, document: Document) -> np.ndarray:
        """(sentences - length + 1,) uint64, of all runs in order; (0,) where there are fewer sentences."""
        pieces = _sentences(document.text)
        if len(pieces) < self.length:
            return np.zeros(0, np.uint64)
        hashes = np.fromiter((hash_of(" ".join(p.lower().split())) for p in pieces), np.uint64, len(pieces))
        return mix(rolled(hashes, self.length))

    def settle(self, document: Document, repeated: np.ndarray) -> Outcome:
        if not repeated.any():
            return _left(document, document.text, self.sentences, {})
        pieces = _sentences(document.text)
        kept_at: dict[int, int] = {}
        gone = np.zeros(len(pieces), bool)
        for place, (key, again) in enumerate(zip(self.keys(document).tolist(), repeated.tolist())):
            if again:
                after = kept_at[key] + self.length if key in kept_at else 0  # the copy that stays may overlap this one
                gone[max(place, after) : place + self.length] = True
            else:
                kept_at[key] = place
        text = "".join(piece for piece, out in zip(pieces, gone.tolist()) if not out).rstrip()
        return _left(document, text, self.sentences, {"sentence of a repeated span": int(gone.sum())})


def _sentences(text: str) -> list[str]:
    """The text cut after each sentence, white space and all: joined it is the text again."""
    first = len(text) - len(text.lstrip())
    ends = [0, *(m.end() for m in _MARKS.finditer(text, first) if m.lastindex), len(text)]
    return [piece for start, stop in itertools.pairwise(ends) if (piece := text[start:stop])]


def _left(document: Document, text: str, least: int, counts: dict[str, int]) -> Outcome:
    """What becomes of a document of which this text is left."""
    from unlabeled.curate.sentences import count

    if not text:
        return Drop("nothing left")
    if least and (found := count(text, document.splitter)) < least:
        return Drop("too few sentences left", found)
    return Edited(text, counts) if counts else None


def _check(scope: str) -> None:
    if scope not in ("all", "source"):
        raise UserError(f"Copies are sought in all documents or in the same source, not in {scope!r}.")
