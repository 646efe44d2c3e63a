"""The Pile's table, its rules by component, and the other published mixes."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unlabeled.core.errors import UserError
from unlabeled.curate.dedup.near import optimal
from unlabeled.curate.document import Document
from unlabeled.curate.quality import quality, train
from unlabeled.curate.recipe import Drop
from unlabeled.curate.rules.pile import RECIPE, pile, scored_text
from unlabeled.recipes import bloomberg_gpt, med_palm, replit
from unlabeled.recipes.pile import COMPONENTS, MIX

RULES = RECIPE.steps[1:-1]  # between the language, whose identifier may not be installed, and the near duplicates


def dropped(document):
    return [outcome.reason for rule in RULES if isinstance(outcome := rule(document), Drop)]


# ---- the table ----


def test_the_weights_are_sizes_times_epochs_to_the_last_printed_digit():
    # raw sizes with one digit more than printed: the effective size over the epochs, which rounds to the printed one
    sizes = {name: effective / epochs for name, (_, _, epochs, effective, _) in COMPONENTS.items()}
    for name, (raw, *_) in COMPONENTS.items():
        assert abs(sizes[name] - raw) <= 0.0050001, name
    table = MIX.table(sizes)
    assert len(table) == 22 and [row.source for row in table] == list(COMPONENTS)
    for row in table:
        assert f"{100 * row.weight:.2f}" == f"{COMPONENTS[row.source][1]:.2f}", row
    assert f"{sum(row.effective for row in table):.2f}" == "1254.20" and not any(row.warning for row in table)


def test_the_printed_raw_sizes_give_all_weights_but_two():
    raw = {name: values[0] for name, values in COMPONENTS.items()}
    assert sum(raw.values()) == pytest.approx(825.18)
    table = MIX.table(raw)
    assert f"{sum(row.effective for row in table):.1f}" == "1254.2"
    off = {r.source for r in table if f"{100 * r.weight:.2f}" != f"{COMPONENTS[r.source][1]:.2f}"}
    assert off == {"PubMed Central", "Youtube Subtitles"}


def test_documents_of_the_mean_size_are_drawn_by_weight():
    """1e5 draws of a source by its weight: the shares lie within 3 sigma, as the reader of the mixed corpus sees them."""
    from unlabeled.curate.mix import copies, order

    counts = {name: round(120 * raw) for name, (raw, *_) in COMPONENTS.items()}  # documents of equal size
    epochs, weight = MIX.epochs_of(counts), {r.source: r.weight for r in MIX.table(counts)}
    stream = sorted(
        (order(f"{name}/{i}", copy), name)
        for name, count in counts.items()
        for i in range(0, count)
        for copy in range(copies(f"{name}/{i}", epochs[name]))
    )
    assert len(stream) == pytest.approx(120 * 1254.2, rel=0.005)
    first = [name for _, name in stream[:100_000]]
    for name, p in weight.items():
        assert abs(first.count(name) - 1e5 * p) < 3 * math.sqrt(1e5 * p * (1 - p)), name


def test_the_recipe_takes_other_sources_once():
    assert RECIPE.mix.epochs_of({"Wikipedia (en)": 5.0, "letters": 9.0}) == {"Wikipedia (en)": 3.0, "letters": 1.0}
    assert RECIPE.hold_out == 0.001 and RECIPE.extract == "justext"


# ---- the rules ----


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """Tells excerpts with the word `good` from excerpts with the word `bad`."""
    path = tmp_path_factory.mktemp("pile") / "classifier.npz"
    made, _ = train(
        *([Document(f"{w}{i}", f"{w} {i} {w} words {i + 1} {w}") for i in range(200)] for w in ("good", "bad"))
    )
    made.save(path)
    return str(path)


def test_a_classifier_draws_among_pages_of_pile_cc(classifier):
    rule = pile(classifier).steps[1]
    page = {word: "x" * 2600 + f" {word}" * 250 + " x" * 3000 for word in ("good", "bad")}  # read from 2500 to 4000
    score = {word: quality(Document("", scored_text(text)), classifier) for word, text in page.items()}
    assert score["bad"] < 0.3 and score["good"] > 0.7
    for word, text in page.items():
        kept = sum(rule(Document(f"{i}", text, "Pile-CC")) is None for i in range(1000))
        p = (2 - score[word]) ** -3.0
        assert abs(kept - 1000 * p) <= 3 * math.sqrt(1000 * p * (1 - p))
    assert all(rule(Document(f"{i}", page["bad"], "ArXiv")) is None for i in range(100))
    assert len(pile(classifier).steps) == len(RECIPE.steps) + 1 and pile().steps == RECIPE.steps


def test_each_component_has_its_own_rules():
    bad = {"score": 2, "stars": 100, "url": "http://a.b"}
    good = {"score": 3, "stars": 101, "url": "http://a.b"}
    expected = {
        "OpenWebText2": "reddit_score below 3",
        "Github": "stars below 101",
    }
    for source in (*COMPONENTS, "a crawl of mine"):
        assert dropped(Document("a", "a", source, bad)) == ([expected[source]] if source in expected else []), source
        assert dropped(Document("a", "a", source, good)) == dropped(Document("a", "a", source)) == []
    assert dropped(Document("a", "é" * 499_999, "Github")) == []
    assert dropped(Document("a", "é" * 500_000, "Github")) == ["bytes_of above 999999"]
    assert dropped(Document("a", "é" * 500_000, "ArXiv")) == []


def test_near_duplicates_are_sought_on_the_web_alone():
    near = RECIPE.steps[-1]
    assert (near.bands, near.rows) == optimal(0.5, 10) and near.shingle == 5 and near.scope == "source"
    text = "one two three four five six seven eight"
    keys = [near.keys(Document("a", text, source)) for source in ("Pile-CC", "OpenWebText2", "ArXiv")]
    assert (
        len(near.keys(Document("a", text, "mine", {"url": "a.b"}))) == 3 == len(keys[0])
        and np.array_equal(keys[0], keys[1])
        and not len(keys[2])
    )


def test_what_the_classifier_sees():
    assert scored_text("a\nb\rc") == "a b c"
    text = "".join(chr(0x4E00 + i) for i in range(5000))
    assert scored_text(text) == text[2500:4000] and scored_text(text[:3000]) == text[1500:3000]


def test_pile_cc_is_english():
    def outcome(text, source):
        return RECIPE.steps[0](Document("a", text, source))

    german = "Das ist, was die Leute morgens sagen, wenn sie einander auf der Straße sehen."
    try:
        assert outcome(german, "Pile-CC").reason == "another language than en"
    except UserError as error:
        pytest.skip(str(error))
    assert outcome(german, "EuroParl") is None
    assert outcome("This is what people say to each other in the morning when they meet.", "Pile-CC") is None


@given(st.text(max_size=50), st.sampled_from([*COMPONENTS, "", "x"]), st.dictionaries(
    st.sampled_from(["quality", "score", "stars", "url"]), st.one_of(st.none(), st.text(max_size=3), st.floats(), st.integers())
))  # fmt: skip
def test_nothing_that_documents_say_of_themselves_makes_a_rule_fail(text, source, about):
    document = Document(text, text, source, about)
    for rule in RULES:
        assert rule(document) is None or isinstance(rule(document), Drop)
    assert len(RECIPE.steps[-1].keys(document)) in (0, 3)


# ---- the other mixes ----


def test_bloomberg_gpt_is_half_finance():
    shares = bloomberg_gpt.MIX.weights
    finance = [shares[name] for name in ("Web", "News", "Filings", "Press", "Bloomberg")]
    assert round(sum(finance), 2) == 51.27 and round(sum(shares.values()), 2) == 100.00
    tokens = {name: t for name, (t, _) in bloomberg_gpt.TOKENS.items()}
    assert sum(tokens.values()) == 710  # of rounded parts; the whole is 708
    # the shares are those of the tokens: every source is taken once, but for rounding to whole billions
    epochs = bloomberg_gpt.MIX.epochs_of(tokens)
    assert max(epochs.values()) / min(epochs.values()) < 1.15


def test_replit_takes_twenty_languages_three_times():
    assert len(set(replit.LANGUAGES)) == 20
    assert set(replit.MIX.epochs_of(dict.fromkeys(replit.LANGUAGES, 175 / 20)).values()) == {3.0}
    assert sum(row.effective for row in replit.MIX.table(dict.fromkeys(replit.LANGUAGES, 175 / 20))) == pytest.approx(
        525
    )


def test_med_palm_repeats_its_long_answers():
    examples = {name: n for name, (n, _) in med_palm.EXAMPLES.items()}
    assert sum(med_palm.MIX.weights.values()) == pytest.approx(100)
    epochs = med_palm.MIX.epochs_of(examples)
    assert epochs["HealthSearchQA"] / epochs["MedQA"] == pytest.approx(106, abs=0.5)
    assert max(epochs.values()) == pytest.approx(4)
