"""MinHash against true similarities, the curve of the bands, planted copies, and the packages it can be like."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unlabeled.core.errors import UserError
from unlabeled.curate.dedup import near
from unlabeled.curate.dedup.compat import datasketch, grams
from unlabeled.curate.dedup.components import Components, edges
from unlabeled.curate.dedup.hashing import drawn, folded, rolled
from unlabeled.curate.dedup.near import PRESETS, Near, jaccard, optimal, preset, probability, shingles, signature
from unlabeled.curate.document import Document
from unlabeled.curate.words import fold

VOCABULARY = [f"w{i}" for i in range(5000)]


def pair_of_sets(rng, similarity, size):
    """Two sets of random hashes, the union of `size`, with nearly that similarity; and what it truly is."""
    common = round(similarity * size)
    hashes = rng.integers(0, 2**64, size, dtype=np.uint64)
    own = rng.random(size - common) < 0.5
    left, right = hashes[common:][own], hashes[common:][~own]
    return np.append(hashes[:common], left), np.append(hashes[:common], right), common / size


def prose(rng, words):
    """Random words with a natural distribution of frequencies."""
    return [VOCABULARY[i] for i in np.minimum(rng.zipf(1.3, words), len(VOCABULARY)) - 1]


def edited(rng, words, rate):
    """A copy of which that share of the words is replaced, left out or doubled."""
    copy = []
    for word in words:
        kind = rng.random() / rate
        copy += (
            [word] if kind >= 1 else [f"e{rng.integers(10**6)}"] if kind < 1 / 3 else [] if kind < 2 / 3 else [word] * 2
        )
    return copy


def clusters(texts, step):
    """The smallest member of each text's group."""
    documents = [Document(str(i), text) for i, text in enumerate(texts)]
    keys = [step.keys(d) for d in documents]
    groups = Components(len(texts))
    for band in range(step.bands):
        having = [i for i, k in enumerate(keys) if len(k)]
        left, right = edges(np.array([keys[i][band] for i in having], np.uint64), np.array(having, np.int64))
        pairs = [i for i in range(len(left)) if step.same(documents[left[i]], documents[right[i]])]
        groups.add(left[pairs], right[pairs])
    return groups.roots()


@pytest.mark.parametrize("count", [64, 112, 260, 1024])
@pytest.mark.parametrize("size", [3, 20, 100, 700])  # with fewer, as many, and more shingles than values
def test_the_estimate_is_right_within_its_deviation(count, size):
    rng = np.random.default_rng(count + size)
    errors = []
    for similarity in rng.random(250):
        left, right, true = pair_of_sets(rng, similarity, size)
        if len(left) and len(right):
            errors.append((signature(left, count) == signature(right, count)).mean() - true)
    errors = np.array(errors)
    assert (np.abs(errors) < 3 / np.sqrt(count)).mean() >= 0.99
    assert abs(errors.mean()) < 4 * errors.std() / np.sqrt(len(errors)) + 1e-3  # no bias either


@pytest.mark.parametrize("size", [10, 60, 400])
@pytest.mark.parametrize("similarity", [0.5, 0.7, 0.8, 0.9])
def test_pairs_share_a_key_as_often_as_the_formula_says(size, similarity):
    rng = np.random.default_rng(size)
    step, trials = Near(bands=14, rows=8), 2500
    weights = near._weights(14, 8)
    hits = 0
    for _ in range(trials):
        left, right, true = pair_of_sets(rng, similarity, size)
        one, other = ((signature(s, 112).reshape(14, 8) * weights).sum(axis=1) for s in (left, right))
        hits += bool((one == other).any())
    expected = probability(true, step.bands, step.rows)
    deviation = np.sqrt(expected * (1 - expected) / trials)
    assert abs(hits / trials - expected) < 3 * deviation + 1e-9


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.1, 0.2])
def test_planted_copies_are_found_as_predicted_and_nothing_else_is_joined(rate):
    rng = np.random.default_rng(int(rate * 100))
    originals = [prose(rng, int(rng.integers(60, 400))) for _ in range(250)]
    texts = [" ".join(words) for words in originals] + [" ".join(edited(rng, words, rate)) for words in originals]
    documents = [Document(str(i), text) for i, text in enumerate(texts)]
    step = preset("fineweb")
    similar = [jaccard(shingles(documents[i]), shingles(documents[i + 250])) for i in range(250)]
    chance = probability(np.array(similar), step.bands, step.rows)
    roots = clusters(texts, step)
    found = roots[:250] == roots[250:]
    assert abs(found.sum() - chance.sum()) <= 3 * np.sqrt((chance * (1 - chance)).sum()) + 1e-9
    assert set(roots[:250]) == set(range(250))  # unrelated ones stay apart
    assert ((roots[250:] == np.arange(250)) | (roots[250:] == np.arange(250, 500))).all()


def test_groups_do_not_depend_on_the_order_of_documents():
    rng = np.random.default_rng(0)
    originals = [prose(rng, 80) for _ in range(60)]
    texts = [" ".join(edited(rng, words, 0.05)) for words in originals for _ in range(3)]
    roots = clusters(texts, Near())
    order = rng.permutation(len(texts))
    shuffled = order[clusters([texts[i] for i in order], Near())]
    groups = {frozenset(np.flatnonzero(roots == r).tolist()) for r in roots}
    again = {frozenset(order[np.flatnonzero(shuffled == r)].tolist()) for r in shuffled}
    assert groups == again and len(groups) < len(texts)


# The same lines in modern spelling and in the manner of the First Folio of 1623.
MODERN = """Now is the winter of our discontent made glorious summer by this son of York, and all the clouds that lowered upon our
house in the deep bosom of the ocean buried. Now are our brows bound with victorious wreaths, our bruised arms hung up for
monuments, our stern alarums changed to merry meetings, our dreadful marches to delightful measures. Grim-visaged war
hath smoothed his wrinkled front, and now, instead of mounting barbed steeds to fright the souls of fearful adversaries,
he capers nimbly in a lady's chamber to the lascivious pleasing of a lute."""
FOLIO = """Now is the Winter of our Discontent, Made glorious Summer by this Son of Yorke: And all the clouds that lowr'd vpon our
house In the deepe bosome of the Ocean buried. Now are our browes bound with Victorious Wreathes, Our bruised armes hung vp
for Monuments; Our sterne Alarums chang'd to merry Meetings; Our dreadfull Marches, to delightfull Measures. Grim-visag'd
Warre, hath smooth'd his wrinkled Front: And now, in stead of mounting Barbed Steeds, To fright the Soules of fearfull
Aduersaries, He capers nimbly in a Ladies Chamber, To the lasciuious pleasing of a Lute."""


def test_another_spelling_is_no_near_duplicate_by_words_but_nearer_by_characters():
    modern, folio = Document("m", MODERN), Document("f", FOLIO)
    by_words = jaccard(shingles(modern), shingles(folio))
    assert by_words < 0.3 < jaccard(shingles(modern, 3, "characters"), shingles(folio, 3, "characters"))
    for step in (Near(5, *optimal(0.8, 256)), preset("fineweb")):
        assert clusters([MODERN, FOLIO], step).tolist() == [0, 1]
    assert clusters([MODERN, MODERN.upper().replace(",", " -")], Near()).tolist() == [0, 0]


def test_verification_parts_what_shares_a_key_by_chance():
    rng = np.random.default_rng(1)
    words = prose(rng, 200)
    texts = [" ".join(words), " ".join(edited(rng, words, 0.1)), " ".join(edited(rng, words, 0.002))]
    loose = Near(5, 400, 1)
    assert clusters(texts, loose).tolist() == [0, 0, 0]
    assert clusters(texts, Near(5, 400, 1, verify=0.8)).tolist() == [0, 1, 0]


def test_pairs_are_verified_in_one_reading():
    rng = np.random.default_rng(2)
    words = prose(rng, 150)
    documents = [
        Document(str(i), " ".join(edited(rng, words, rate))) for i, rate in enumerate([1e-9, 0.01, 0.1, 0.2, 0.02])
    ]
    pairs = np.array([[i, j] for i in range(5) for j in range(5)] + [[0, 1], [0, 7]])
    step = Near(verify=0.7)
    expected = [j < 5 and step.same(documents[i], documents[j]) for i, j in pairs.tolist()]
    assert any(expected) and not all(expected[:-1])
    for order in (range(5), rng.permutation(5)):
        assert step.verified(pairs, ((i, documents[i]) for i in order)).tolist() == expected
    assert Near().verified(pairs, []).all()


def test_short_documents_are_one_shingle_and_empty_ones_none():
    step = Near()
    assert step.keys(Document("a", " ... \n")).shape == (0,)
    assert (
        len(shingles(Document("a", "one two three four")))
        == len(shingles(Document("a", "one two three four five")))
        == 1
    )
    assert len(shingles(Document("a", "one two three four five six"))) == 2
    assert clusters(["Yes, no.", "yes no", "no yes", "yes", "", ""], step).tolist() == [0, 0, 2, 3, 4, 5]


@pytest.mark.parametrize("unit", ["words", "characters", "raw characters"])
def test_shingles_are_runs_of_what_they_are_made_of(unit):
    text = "A rose is a rose. Is a rose, a rose? Is it"
    said = {"words": text.lower().replace(".", "").replace(",", "").replace("?", "").split()}
    said["characters"] = list(" ".join(said["words"]))
    said["raw characters"] = list(text)
    for size in (1, 2, 3, 5, 6, 7, 24):
        runs = [tuple(said[unit][i : i + size]) for i in range(max(1, len(said[unit]) - size + 1))]
        hashes = shingles(Document("a", text), size, unit).tolist()
        assert len(runs) == len(hashes) and len(set(zip(runs, hashes))) == len(set(runs)) == len(set(hashes))


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=40), st.data())
@settings(deadline=None)
def test_rolling_is_a_polynomial(atoms, data):
    size = data.draw(st.integers(1, len(atoms)))
    prime = 0xD1342543DE82EF95
    by_hand = [
        sum(a * prime ** (size - 1 - j) for j, a in enumerate(atoms[i : i + size])) % 2**64
        for i in range(len(atoms) - size + 1)
    ]
    assert rolled(np.array(atoms, np.uint64), size).tolist() == by_hand


@settings(max_examples=300, deadline=None)
@given(st.text() | st.text(alphabet=st.sampled_from("aB1 .\n\0é\u0301ΣςİßǅK①\ud800\u2028\u05d0"), max_size=60))
def test_folded_words_are_those_of_fold(text):
    words = [word for chunk in text.split() if (word := fold(chunk))]
    hashes = folded(text).tolist()
    assert len(hashes) == len(words)
    assert len(set(zip(words, hashes))) == len(set(words)) == len(set(hashes))
    assert folded(text + " é").tolist() == [*hashes, *folded("é").tolist()]  # ASCII goes another way


def test_folding_does_not_depend_on_where_a_long_text_is_cut(monkeypatch):
    rng = np.random.default_rng(3)
    text = " ".join(prose(rng, 5000)) + "\u00e9"
    whole = [folded(t) for t in (text, text[:-1])]
    monkeypatch.setattr("unlabeled.curate.dedup.hashing._MOST", 64)
    assert all(np.array_equal(folded(t), w) for t, w in zip((text, text[:-1]), whole))
    assert len(folded("x" * 200)) == 4 and folded("y " + "x" * 200).tolist()[1:] == folded("x" * 200).tolist()


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_any_text_has_keys_the_same_each_time(text):
    for step in (
        Near(),
        Near(3, 4, 2, unit="characters"),
        Near(24, 3, 2, unit="raw characters"),
        Near(compat="datasketch"),
    ):
        keys = step.keys(Document("a", text))
        assert keys.dtype == np.uint64 and keys.shape in ((step.bands,), (0,))
        assert np.array_equal(keys, step.keys(Document("b", text, "elsewhere")))


@pytest.mark.parametrize("unit", ["a", "a ", ".", " ", "\0", "\u0301", "שלום ", "漢"])
def test_a_long_text_of_one_kind_is_hashed_in_time(unit):
    for step in (Near(), Near(24, 20, 13, unit="raw characters"), Near(13, 9, 13, unit="characters")):
        assert step.keys(Document("a", unit * 200_000)).shape in ((step.bands,), (0,))


def test_hashes_are_the_same_on_every_machine():
    assert folded("One twö").tolist() == [14780722970373289682, 18321634697218938564]
    assert Near(bands=2, rows=3).keys(Document("a", "Only a few words are said here.")).tolist() == [
        8270361513637025545,
        16686961050262952428,
    ]
    assert drawn(1, "bands").tolist() == [16900565297832997578]


def test_another_seed_draws_anew():
    hashes = drawn(2000, "test")
    assert (signature(hashes, 112, seed=1) != signature(hashes, 112, seed=2)).mean() > 0.9


def test_presets_are_what_was_published():
    assert {name: (s.shingle, s.bands, s.rows) for name, s in PRESETS.items()} == {
        "fineweb": (5, 14, 8),
        "refinedweb": (5, 20, 450),
        "gpt3-like": (5, *optimal(0.7, 256)),
        "nemo": (24, 20, 13),
        "slimpajama": (13, *optimal(0.8, 128)),
    }
    assert probability(0.8, 14, 8) == pytest.approx(0.924, abs=5e-4)
    assert pytest.approx(0.719, abs=5e-4) == (1 / 14) ** (1 / 8)
    assert preset("fineweb", scope="source").scope == "source"
    with pytest.raises(UserError, match="fineweb"):
        preset("fineweeb")


@pytest.mark.parametrize("wrong", [{"bands": 0}, {"unit": "bytes"}, {"compat": "rensa"}, {"verify": 80}])
def test_a_setting_that_cannot_be_is_said(wrong):
    with pytest.raises(UserError):
        Near(**wrong)


def test_long_documents_and_many_values_have_the_same_minima_in_blocks(monkeypatch):
    hashes = drawn(3000, "test")
    few, many = signature(hashes[:50], 112), signature(hashes, 9000)
    monkeypatch.setattr(near, "_BLOCK", 7)
    assert np.array_equal(signature(hashes[:50], 112), few)
    assert np.array_equal(signature(hashes, 9000)[:200], many[:200])


# ---- as others do it ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("threshold", "permutations"), [(0.5, 10), (0.7, 64), (0.8, 128), (0.9, 100)])
def test_bands_and_rows_are_those_of_datasketch(threshold, permutations):
    lsh = pytest.importorskip("datasketch.lsh")
    for weight in (0.5, 0.3, 0.8):
        theirs = lsh._optimal_param(threshold, permutations, weight, 1 - weight)
        assert optimal(threshold, permutations, weight) == theirs


@pytest.mark.parametrize("scheme", ["affine32", "legacy"])
@pytest.mark.parametrize("count", [1, 112, 128])
def test_signatures_are_those_of_datasketch(scheme, count):
    peer = pytest.importorskip("datasketch")
    strings = grams(MODERN + " naïve café", 5)
    for some in (strings, ["one"], [f"{i}" for i in range(3000)]):
        theirs = peer.MinHash(count, seed=7, scheme=scheme)
        theirs.update_batch([s.encode() for s in some])
        ours = datasketch(some, count, 7, scheme)
        assert ours.dtype == theirs.hashvalues.dtype and np.array_equal(ours, theirs.hashvalues)
    step = Near(bands=14, rows=8, compat="datasketch")
    theirs = peer.MinHash(112)
    theirs.update_batch([s.encode() for s in grams(MODERN, 5)])
    assert np.array_equal(step.signature(Document("a", MODERN)), theirs.hashvalues)


def test_signatures_are_those_of_datatrove():
    minhash = pytest.importorskip("datatrove.pipeline.dedup.minhash")
    pytest.importorskip("spacy")
    hashing = pytest.importorskip("datatrove.utils.hashing")
    config = minhash.MinhashConfig(hash_config=hashing.HashConfig(precision=64, hash_fc="sha1"))
    theirs = minhash.MinhashDedupSignature("/tmp/never-written", config)
    texts = [MODERN, FOLIO, "Über 3,14 €! Don't… “go” e-mail@x.org 12.5.2020 naïve\u00a0x\x0b١٢ a\u0301", "too few"]
    texts.append(" ".join(f"{i}th (word)" for i in range(1500)))
    for text in texts:
        found = theirs.get_shingles(text)
        ours = Near(compat="datatrove").signature(Document("a", text))
        if not len(found):
            assert ours.shape == (0,)
        else:
            assert ours.reshape(14, 8).tolist() == theirs.get_signature(found)
