"""The Pile: what was done to its components, how they are mixed, and what is held out.

Gao, Biderman, Black et al. 2020, arXiv 2101.00027, section 2, appendices C and D. Checked in EleutherAI's code:

- Pile-CC: jusText on the pages of WARC files, paragraphs that are not boilerplate, joined by an empty line
  (commoncrawl_downloader). Then a fastText classifier, trained to tell OpenWebText2 from Common Crawl, and a draw: kept if
  Pareto(3) > 1 - score (`quality.Pareto`). The form of the rule is GPT-3's (Brown et al. 2020, appendix A, with 9);
  alpha = 3 and the text that is scored, `scored_text`, are those of pile-cc-filtering. (A first version of the downloader
  has the comparison the other way round, with 9.) English is cld2's first language there, here fastText's at 0.5 or more.
- OpenWebText2: total score of a page's Reddit submissions at least 3 (openwebtext2, `filter_from_reddit_scores.py`).
- Near duplicates within Pile-CC and within OpenWebText2: MinHash of 5-grams of words, 10 permutations, Jaccard 0.5
  (`generate_minhashes.py`, `minhash_lsh_dedupe.py`; 28 % of OpenWebText2 and 26 % of Pile-CC went: appendix D.2), in
  datasketch's 3 bands of 3. Their words are NLTK's, ours lie between white space; they keep the first, so do we.
- Github: repositories of more than 100 stars, files below 1 MB (from memory of appendix C).
- StackExchange is made of questions with up to three answers of score 3 or more, or accepted (stackexchange-dataset,
  `pairer.py`); this belongs to the making of the documents, of which there is none here.
- Held out: 0.1 % each for validation and test, and no training document equal to one of them (section 3.1;
  `pass2_shuffle_holdout.py`, `dedupe_train.py`). See `mix.held_out`.

Rules of Pile-CC are for documents of that source, and of any source that is not one of the 22 if they have an address. The
classifier is one that the user trains: `pile(PATH)`; the recipe "pile" does without. Scores and stars are read from fields
that came with the documents ("score", "stars"); without one a document stays.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np

from unlabeled.curate.dedup.near import Near
from unlabeled.curate.document import Document
from unlabeled.curate.language import Language
from unlabeled.curate.quality import Pareto
from unlabeled.curate.recipe import Bound, Outcome, Recipe, Where
from unlabeled.curate.rules.codex import bytes_of
from unlabeled.recipes.pile import COMPONENTS, MIX

__all__ = ["RECIPE", "NearOnTheWeb", "ParetoOfExcerpt", "pile", "scored_text"]


def _number(document: Document, *fields: str) -> float:
    """The first of some fields that is there, as a number; NaN, which passes every limit, if none is."""
    for field in fields:
        try:
            return float(document.about[field])
        except (KeyError, TypeError, ValueError):
            continue
    return math.nan


def reddit_score(document: Document) -> float:
    """Sum of the scores of all submissions of the page."""
    return _number(document, "score")


def stars(document: Document) -> float:
    return _number(document, "stars", "max_stars_count")


def scored_text(text: str) -> str:
    """What the classifier sees of a page: characters 2500 to 4000, the last 1500 of shorter ones, on one line."""
    return text.replace("\n", " ").replace("\r", " ")[:4000][-1500:]


def is_pile_cc(document: Document) -> bool:
    return document.source == "Pile-CC" or (document.source not in COMPONENTS and "url" in document.about)


def is_openwebtext2(document: Document) -> bool:
    return document.source == "OpenWebText2"


def is_github(document: Document) -> bool:
    return document.source == "Github"


@dataclass(frozen=True)
class ParetoOfExcerpt(Pareto):
    """`quality.Pareto` with the score of `scored_text`, on which the classifier is to be trained, too."""

    alpha: float = 3.0

    def __call__(self, document: Document) -> Outcome:
        return super().__call__(document.edited(scored_text(document.text)))


@dataclass(frozen=True)
class NearOnTheWeb(Near):
    """Near duplicates among pages of the web; other documents are compared with nothing."""

    def signature(self, document: Document) -> np.ndarray:
        if not (is_pile_cc(document) or is_openwebtext2(document)):
            return np.zeros(0, np.uint64)
        return super().signature(document)


def pile(classifier: str = "") -> Recipe:
    """The Pile's recipe; with the file of a classifier (`quality.train`) also its draw by quality among pages of Pile-CC."""
    return Recipe(
        "pile",
        steps=[
            Where(is_pile_cc, Language("en", at_least=0.5)),
            *([Where(is_pile_cc, ParetoOfExcerpt(classifier))] if classifier else []),
            Where(is_openwebtext2, Bound(reddit_score, at_least=3)),
            Where(is_github, Bound(stars, at_least=101)),
            Where(is_github, Bound(bytes_of, at_most=999_999)),
            NearOnTheWeb(5, bands=3, rows=3, scope="source"),  # `near.optimal(0.5, 10)`
        ],
        about="22 components, filtered as The Pile's were, repeated 1 to 3 times; others once",
        paper="https://arxiv.org/abs/2101.00027",
        mix=dataclasses.replace(MIX, rest=1.0),
        hold_out=0.001,
        extract="justext",
    )


RECIPE = pile()
