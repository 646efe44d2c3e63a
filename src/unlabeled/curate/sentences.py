"""How many sentences a text has, which is all that the rules ask.

C4 counted with Punkt (Kiss and Strunk, Computational Linguistics 32(4), 2006), whose English model is trained and does
not come in a wheel. Two stand-ins, by the splitter of the recipe:

- plain: full stops, question and exclamation marks before white space, save after an abbreviation, an initial or before
  a word in lower case. Punkt learned its abbreviations, ours are a list.
- spacy: exactly spaCy's `sentencizer` on its blank English, with which datatrove 0.10.1 counts for C4 and FineWeb. A
  sentence begins with the first word after an end mark that is not punctuation itself; "e.g. this" is two when the
  tokenizer parts the full stop. White space other than single spaces is a word to spaCy, and can be a sentence.
"""

from __future__ import annotations

import functools
import re
import unicodedata

from unlabeled.core.errors import UserError
from unlabeled.curate.words import Splitter

__all__ = ["count"]

# Possessive, and only from where a run of marks begins: linear on a page of dots.
_END = re.compile(r"(?<![.?!…])[.?!…]++[\"'”’)\]]*+(?=(\s++)\S)|[。！？](?=[^\s”」』])")
_ABBREVIATED = """adm al approx apr assn aug ave bros ca capt cf cit co col comdr corp dec dept dr ed eds eq eqs est etc
feb fig figs ft gen gov hon inc jan jr jul jun lt ltd maj mar messrs mr mrs ms mt no nos nov oct op pp prof rep resp rev
sec sen sep sept sgt sr st univ viz vol vols vs"""
_ABBREVIATIONS = frozenset(_ABBREVIATED.split())
_KEPT_CHUNKS = 1 << 19
_PIECES = re.compile(r"\s+|\S+")


def count(text: str, splitter: Splitter | None = None) -> int:
    """Sentences of a text, by the rules that go with a splitter of words (without one, plain)."""
    if splitter is None or splitter.name != "spacy":
        return _plain(text)
    return _sentencizer(text, _marks_of(splitter))


def _plain(text: str) -> int:
    ends = 0
    for end in _END.finditer(text):
        start, follows = end.span()
        if text[start] == "." and end.group(1) is not None:
            follows += len(end.group(1))
            before = text[max(0, start - 16) : start].split()
            word = before[-1].strip("\"'“‘([").lower() if before and not text[start - 1].isspace() else ""
            short = len(word) == 1 and word.isalpha()
            if text[follows].islower() or short or word in _ABBREVIATIONS or ("." in word and word[0].isalpha()):
                continue
        ends += 1
    return ends + 1 if text and not text.isspace() else 0


def _sentencizer(text: str, marks: _Marks) -> int:
    chunks = text.split()
    if " ".join(chunks) == text:
        return 1 + "".join(map(marks.__getitem__, chunks)).count("PO")
    sequence, first = [], True
    for piece in _PIECES.findall(text):
        if not piece.isspace():
            sequence.append(marks[piece])
        elif first or piece != " ":  # one space belongs to the word before; what is left is a word
            sequence.append("O")
        first = False
    return 1 + "".join(sequence).count("PO")


class _Marks(dict[str, str]):
    """A chunk to the kinds of its words: P ends a sentence, O is no punctuation; other punctuation is left out."""

    def __init__(self, splitter: Splitter, ends: frozenset[str]) -> None:
        super().__init__()
        self._splitter, self._ends = splitter, ends

    def __missing__(self, chunk: str) -> str:
        if chunk.isalnum():
            kinds = "O"
        else:
            parts = self._splitter.parts(chunk)
            kinds = "".join("P" if part in self._ends else "O" for part in parts if self._counts(part))
        if len(self) >= _KEPT_CHUNKS:
            self.clear()
        self[chunk] = kinds
        return kinds

    def _counts(self, part: str) -> bool:
        return part in self._ends or not all(unicodedata.category(c).startswith("P") for c in part)


@functools.cache
def _marks_of(splitter: Splitter) -> _Marks:
    try:
        from spacy.pipeline import Sentencizer
    except ImportError as error:
        raise UserError("Sentences by spaCy need it: `pip install spacy`, or take --words plain.") from error
    return _Marks(splitter, frozenset(Sentencizer.default_punct_chars))
