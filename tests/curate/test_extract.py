"""Extractors against the libraries called as the papers did, on pages good, strange and hostile."""

import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unlabeled.core.errors import UserError
from unlabeled.curate.document import Document
from unlabeled.curate.reading import extract as module
from unlabeled.curate.reading.extract import EXTRACTORS, LONGEST, extract
from unlabeled.curate.recipe import Drop, Edited

SENTENCES = [
    "The river was high that spring, and the men of the village went down to it every morning to see how far it had come.",
    "It is not known who built the first of the bridges, but there are letters in the archive that speak of it as old.",
    "When the snow had gone from the hills, they found that the road to the mill was no longer where it had been.",
    "Of all the houses that stood by the water, only the one with the red door has been lived in since then.",
]
MENU = "".join(f"<li><a href='/{x}'>{x}</a></li>" for x in ("Home", "About", "Contact", "Imprint"))
PAGE = (
    "<!doctype html><html><head><title>The bridges</title><script>var menu = '<div>';</script></head>"
    f"<body><nav><ul>{MENU}</ul></nav><main><article><h1>The bridges</h1>"
    + "".join(f"<p>{a} {b}</p>" for a in SENTENCES for b in SENTENCES if a != b)
    + f"</article></main><footer><ul>{MENU}</ul></footer></body></html>"
)


def page(html):
    return Document("a.html", html, "web", {"format": "html"})


@pytest.fixture(params=EXTRACTORS)
def by(request):
    pytest.importorskip(request.param)
    return request.param


def test_the_main_text_is_kept_and_the_menu_is_not(by):
    outcome = extract(page(PAGE), by)
    assert isinstance(outcome, Edited)
    assert all(f"{a} {b}" in outcome.text for a in SENTENCES for b in SENTENCES if a != b)
    assert "Imprint" not in outcome.text and "<" not in outcome.text and "var menu" not in outcome.text


def test_what_is_no_html_stays(by):
    assert extract(Document("a", "<p>x</p>"), by) is None
    assert extract(Document("a.py", "<p>", "", {"format": "code"}), by) is None


@pytest.mark.parametrize(
    "html", ["", " ", "<html></html>", "<!-- x -->", "<script>x</script>", "<?xml version='1.0'?>"]
)
def test_pages_without_text(by, html):
    assert extract(page(html), by) == Drop("no main text")


def test_resiliparse_as_dclm():
    library = pytest.importorskip("resiliparse.extract.html2text")
    assert extract(page(PAGE), "resiliparse").text == library.extract_plain_text(PAGE, main_content=True).strip()


def test_justext_as_pile_cc():
    justext = pytest.importorskip("justext")
    short = "".join(f"<p>{x} {x}</p><h2>Of it</h2><p>Yes.</p>" for x in SENTENCES)
    for html in (PAGE, short, f"<?xml version='1.0' encoding='utf-8'?><html>{short}</html>"):
        paragraphs = justext.justext(html, justext.get_stoplist("English"))
        kept = [p.text for p in paragraphs if not p.is_boilerplate]
        assert kept and extract(page(html), "justext").text == "\n\n".join(kept)


def test_trafilatura_as_fineweb_and_without_memory_of_other_pages():
    trafilatura = pytest.importorskip("trafilatura")
    deduplication = pytest.importorskip("trafilatura.deduplication")
    deduplication.LRU_TEST.clear()
    expected = trafilatura.extract(PAGE, favor_precision=True, include_comments=False, deduplicate=True)
    assert [extract(page(PAGE), "trafilatura").text for _ in range(5)] == [expected] * 5


def test_long_and_nested_pages_are_dropped(by):
    assert extract(page("x" * (LONGEST + 1)), by).reason == "page too long to extract"
    assert extract(page("<div>" * 50_000), by) == Drop("page nested too deeply to extract", 50_000)
    assert extract(page("<br>" * 100_001), by) == Drop("page with too many tags to extract", 100_001)
    many = "".join(f"<p>{SENTENCES[0]}<br>{SENTENCES[1]}" for _ in range(1500))  # not nested, though never closed
    assert isinstance(extract(page(many), by), Edited)


def test_depth():
    assert module._depth("<html><body><p>a<p>b<br><div></div><b>c</b></body></html>") == 3
    assert module._depth("</div></div><div><SPAN></span></div>") == 2


def test_justext_with_many_paragraphs():
    pytest.importorskip("justext")
    assert "paragraphs" in extract(page("<p>a b c" * 6000), "justext").reason


PIECES = st.sampled_from(
    ["<p>", "</p>", "<div class='x'>", "</div>", "<table><tr><td>", "<li>", "<a href='", "'>", "<!--", "-->", "&#0;", "&amp",
     "<script>", "<svg><style>", "<![CDATA[", "]]>", "<?xml encoding='x'?>", "\0", "\ud800", "\u202e", "e\u0301",
     "The men of the village went down to it every morning. "]
)  # fmt: skip


@given(st.lists(PIECES | st.text(max_size=20), max_size=30).map("".join))
@settings(max_examples=100, deadline=None)
def test_any_text_has_an_outcome(html):
    for by in EXTRACTORS:
        pytest.importorskip(by)
        outcome = extract(page(html), by)
        assert isinstance(outcome, Drop | Edited)
        if isinstance(outcome, Edited):
            assert outcome.text == outcome.text.strip() != "" and extract(page(html), by) == outcome


def test_wishes_that_cannot_be_met(monkeypatch):
    with pytest.raises(UserError, match="did you mean trafilatura"):
        extract(page("<p>x"), "trafilatora")
    for by, modules in {
        "resiliparse": "resiliparse.extract.html2text",
        "trafilatura": "trafilatura",
        "justext": "justext",
    }.items():
        monkeypatch.setitem(sys.modules, modules, None)
        with pytest.raises(UserError, match=r"pip install 'unlabeled\[curate\]'"):
            extract(page("<p>x"), by)
