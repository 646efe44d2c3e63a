"""The main text of HTML pages, by one of three published extractors.

- "resiliparse": main content, with the library's other settings, as DCLM (Li et al. 2024); what it set beside main
  content is not in its repository.
- "trafilatura": precision before recall, without comments, repeated segments dropped, as FineWeb (Penedo et al. 2024, by
  datatrove's `Trafilatura`). There segments repeated across pages go too, by a memory of the process, so that a page's
  text depends on the pages before it; here the memory begins anew with every page.
- "justext": paragraphs that are not boilerplate by the English list of stop words, as Pile-CC (Gao et al. 2020, by
  `commoncrawl_downloader`, which used it for English pages only: others lose everything); joined by blank lines.

All run in this process, without a clock, so that the same page has the same outcome everywhere. What makes them slow
is bounded instead: length, tags, nesting (resiliparse takes time quadratic in it) and, for jusText, paragraphs (likewise).
"""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Callable

from unlabeled.core.errors import UserError, suggest
from unlabeled.curate.document import Document
from unlabeled.curate.recipe import Drop, Edited, Outcome

__all__ = ["EXTRACTORS", "LONGEST", "extract"]

LONGEST = 4_000_000  # characters of a page
_MOST_TAGS = 100_000  # trafilatura takes 20 to 45 microseconds for each, 4.5 s for a page of so many and nothing else
_DEEPEST = 2000  # open elements; resiliparse takes 0.1 s for so many, 8 s for ten times as many
_MOST_PARAGRAPHS = 5000  # jusText takes 1.8 s for so many short ones, more than 20 s for four times as many

_TAG = re.compile(r"<(/?)([a-zA-Z][a-zA-Z0-9]*)")
# Elements without content, and those that end where the next of their kind begins.
_FLAT = frozenset(
    "area base br col embed hr img input link meta source track wbr p li dt dd tr td th option thead tbody".split()  # noqa: SIM905
)


def extract(document: Document, by: str) -> Outcome:
    """Replace the HTML of a document whose `about["format"]` is "html" by its main text; others stay as they are.

    Raises:
        UserError: where there is no extractor of that name, or its package is not installed.
    """
    if document.about.get("format") != "html":
        return None
    if by not in EXTRACTORS:
        raise UserError(f"There is no extractor {by!r}{suggest(by, EXTRACTORS) or '.'} Known: {', '.join(EXTRACTORS)}.")
    html = document.text
    if len(html) > LONGEST:
        return Drop("page too long to extract", len(html))
    if (tags := html.count("<")) > _MOST_TAGS:
        return Drop("page with too many tags to extract", tags)
    if tags > _DEEPEST and (depth := _depth(html)) > _DEEPEST:
        return Drop("page nested too deeply to extract", depth)
    try:
        text = EXTRACTORS[by](html)
    except UserError:
        raise
    except Exception:  # lxml's errors, text that cannot be encoded, and whatever else strange pages bring about
        return Drop("page cannot be parsed")
    if text is None:
        return Drop("page with too many paragraphs to extract")
    text = text.strip()
    return Edited(text, {"page extracted": 1}) if text else Drop("no main text")


def _depth(html: str) -> int:
    """The most elements that are open at once, or a little more: tags that close what was not opened are passed over."""
    depth = deepest = 0
    for closing, name in _TAG.findall(html):
        if name.lower() not in _FLAT:
            depth = max(0, depth - 1) if closing else depth + 1
            deepest = max(deepest, depth)
    return deepest


def _resiliparse(html: str) -> str | None:
    try:
        from resiliparse.extract.html2text import extract_plain_text
    except ImportError as error:
        raise _missing("resiliparse") from error
    return extract_plain_text(html, main_content=True)


def _trafilatura(html: str) -> str | None:
    try:
        from trafilatura import extract as extracted
        from trafilatura.deduplication import LRUCache
    except ImportError as error:
        raise _missing("trafilatura") from error
    _quiet()
    return extracted(html, favor_precision=True, include_comments=False, deduplicate=LRUCache(1 << 12)) or ""


def _justext(html: str) -> str | None:
    try:
        from justext import core
    except ImportError as error:
        raise _missing("justext") from error
    from lxml.etree import ParserError

    try:
        # the steps of `justext.justext`, so that the paragraphs can be counted before the slow one
        paragraphs = core.ParagraphMaker.make_paragraphs(core.preprocessor(core.html_to_dom(html)))
    except ParserError:  # nothing in it
        return ""
    if len(paragraphs) > _MOST_PARAGRAPHS:
        return None
    core.classify_paragraphs(paragraphs, _stop_words())
    core.revise_paragraph_classification(paragraphs)
    return "\n\n".join(paragraph.text for paragraph in paragraphs if not paragraph.is_boilerplate)


@functools.cache
def _stop_words() -> frozenset[str]:
    from justext import get_stoplist

    return get_stoplist("English")


@functools.cache
def _quiet() -> None:
    """Pages that cannot be parsed are said in the ledger, not on the screen."""
    logging.getLogger("trafilatura").addHandler(logging.NullHandler())


def _missing(package: str) -> UserError:
    return UserError(f"Extracting the text of HTML by {package} needs a package: `pip install 'unlabeled[curate]'`.")


EXTRACTORS: dict[str, Callable[[str], str | None]] = {
    "resiliparse": _resiliparse,
    "trafilatura": _trafilatura,
    "justext": _justext,
}
