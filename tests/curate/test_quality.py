import math
import pickle
import random
import sysconfig
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unlabeled.core.errors import UserError
from unlabeled.curate.document import Document
from unlabeled.curate.quality import Classifier, Pareto, Quality, train
from unlabeled.curate.recipe import Drop, Recipe

WORDS = "red fish swims under the old bridge while seven boats wait for a quiet evening tide to turn".split()  # noqa: SIM905


def documents(texts):
    return [Document(f"d{i}", text) for i, text in enumerate(texts)]


def sentences(source, n, words=WORDS, length=30):
    return [" ".join(source.choices(words, k=length)) for _ in range(n)]


def passages(texts, source, n=600, length=400):
    """Cut from the middle of long texts."""
    found = []
    while len(found) < n:
        text = source.choice(texts)
        start = source.randrange(len(text) - length)
        found.append(text[start : start + length])
    return list(dict.fromkeys(found))


@pytest.fixture(scope="module")
def real():
    """Python's own reference, prose, and its own code."""
    topics = pytest.importorskip("pydoc_data.topics").topics
    library = Path(sysconfig.get_paths()["stdlib"])
    code = [path.read_text("utf8", "replace") for path in sorted(library.glob("*.py"))]
    source = random.Random(0)
    return (
        passages([t for t in topics.values() if len(t) > 1000], source),
        passages([t for t in code if len(t) > 1000], source),
    )


@pytest.fixture(scope="module")
def trained(real):
    return train(*map(documents, real))


@pytest.fixture
def path(trained, tmp_path):
    trained[0].save(tmp_path / "quality.npz")
    return tmp_path / "quality.npz"


def test_prose_is_told_from_code(trained):
    classifier, report = trained
    assert report.auroc > 0.97 and report.accuracy > 0.9 and not report.warnings
    assert report.held_out == len(classifier.good) + len(classifier.bad) > 80
    assert classifier.score(Document("p", "The statement is executed when the loop ends, as described above.")) > 0.5
    assert classifier.score(Document("c", "if self.x is None: return self._y(args, **kw)\nelse: x = y[0]")) < 0.5


def test_it_is_as_good_as_scikit_learn_s_logistic_regression_on_hashed_words(real, trained):
    from unlabeled.curate.words import hash_of

    text = pytest.importorskip("sklearn.feature_extraction.text")
    linear = pytest.importorskip("sklearn.linear_model")
    vectors = text.HashingVectorizer(
        n_features=1 << 20, ngram_range=(1, 2), token_pattern=r"\w+|[^\w\s]", lowercase=False
    )
    texts, labels = [*real[0], *real[1]], np.array([1] * len(real[0]) + [0] * len(real[1]))
    held_out = np.array([hash_of(t) % 10 == 0 for t in texts])
    x = vectors.transform(texts)
    peer = linear.SGDClassifier(loss="log_loss", random_state=0).fit(x[~held_out], labels[~held_out])
    assert trained[1].accuracy >= peer.score(x[held_out], labels[held_out]) - 0.03


def test_a_score_is_the_sigmoid_of_the_constant_and_the_mean_weight(trained):
    classifier, _ = trained
    flat = Classifier(np.full(1 << 20, 2.0, np.float32), 0.5, "plain", classifier.good, classifier.bad)
    assert flat.score(Document("d", "three words here")) == pytest.approx(1 / (1 + math.exp(-2.5)))
    assert flat.score(Document("d", "")) == pytest.approx(1 / (1 + math.exp(-0.5)))


def test_held_out_scores_are_those_of_single_documents(real, trained):
    from unlabeled.curate.words import hash_of

    classifier, _ = trained
    ours = [classifier.score(document) for document in documents(real[0]) if hash_of(document.text) % 10 == 0]
    assert classifier.good == pytest.approx(ours, abs=1e-6)


def test_the_order_of_words_is_seen():
    source = random.Random(1)
    good = [" ".join(["red fish"] * 5 + source.choices(WORDS[2:], k=20)) for _ in range(300)]
    bad = [text.replace("red fish", "fish red") for text in good]
    assert train(documents(good), documents(bad))[1].accuracy > 0.95


def test_the_rarer_kind_weighs_as_much():
    # The first slope of the constant is the difference of the weights of both kinds; counted by documents, the constant
    # would make a whole step, of a hundredth of the rate.
    source = random.Random(2)
    good, bad = documents(sentences(source, 1000)), documents(sentences(source, 100))
    classifier, _ = train(good, bad, epochs=1, batch=10_000)
    assert classifier.constant == pytest.approx(0, abs=1e-3)


def test_training_again_gives_the_same_bytes(real, trained, path, tmp_path):
    again, report = train(*map(documents, real))
    again.save(tmp_path / "again.npz")
    assert (tmp_path / "again.npz").read_bytes() == path.read_bytes()
    assert report == trained[1]
    loaded, text = Classifier.load(path), Document("d", real[0][0])
    assert loaded.score(text) == trained[0].score(text)


def test_a_classifier_that_learned_length_or_language_is_told():
    source = random.Random(3)
    short, long = sentences(source, 300, WORDS[:9], 20), sentences(source, 300, WORDS[9:], 60)
    _, report = train(documents(long), documents(short))
    assert report.auroc_by_length == 1 and report.with_length > 0.7
    assert any("number of words alone" in warning for warning in report.warnings)
    assert "by length alone 1.000" in str(report) and "\nMind: The number of words alone" in str(report)
    _, report = train(documents(short), documents(sentences(source, 300, WORDS[9:], 20)))
    assert report.auroc_by_length == 0.5 and not any("number of words" in warning for warning in report.warnings)


def test_a_classifier_that_learned_language_is_told():
    pytest.importorskip("fasttext")
    source = random.Random(4)
    german = "der alte Fisch schwimmt unter einer Brücke und sieben Boote warten auf den ruhigen Abend".split()  # noqa: SIM905
    _, report = train(documents(sentences(source, 200)), documents(sentences(source, 200, german)))
    assert report.auroc_by_language > 0.98 and report.with_language > 0.7
    assert any("Being in en or not" in warning for warning in report.warnings)


def test_noise_is_not_learned():
    source = random.Random(5)
    _, report = train(documents(sentences(source, 500)), documents(sentences(source, 500)))
    assert abs(report.auroc - 0.5) < 0.15 and any("hardly told apart" in warning for warning in report.warnings)


def test_limits_by_share_and_by_precision():
    classifier = Classifier(
        np.zeros(2, np.float32), 0.0, "plain", good=np.array([0.4, 0.6, 0.8, 0.9]), bad=np.array([0.1, 0.2, 0.5, 0.7])
    )
    assert classifier.at_precision(1.0) == 0.8
    assert classifier.at_precision(0.75) == 0.6  # 3 of 4 at or above are good, and more at every limit above
    assert classifier.at_precision(0.75, good_share=0.1) == 0.8
    with pytest.raises(UserError, match="ask for less"):
        Classifier(np.zeros(2), 0.0, "plain", good=np.array([0.1]), bad=np.array([0.9])).at_precision(0.9)
    with pytest.raises(UserError, match="share"):
        classifier.at_share([], 0.1)


def test_a_limit_by_share_keeps_that_share(real, trained):
    both = documents([*real[0], *real[1]])
    limit = trained[0].at_share(both, 0.25)
    assert sum(trained[0].score(document) >= limit for document in both) == round(0.25 * len(both))


def test_the_rule_is_a_bound_that_travels_and_whose_limit_can_be_set(path):
    prose, code = (
        Document("p", "The value is returned as it was, unless it is empty."),
        Document("c", "x = [y(z) for z in q]"),
    )
    rule = pickle.loads(pickle.dumps(Quality(path)))
    assert rule(prose) is None
    assert isinstance(outcome := rule(code), Drop) and outcome.reason == "quality below 0.5" and outcome.value < 0.5
    stricter = Recipe("r", [Quality(path)]).but({"quality.at_least": 1.0}).steps[0]
    assert isinstance(stricter(prose), Drop)


@pytest.mark.parametrize("alpha", [3.0, 9.0])
def test_draws_follow_numpy_s_pareto(path, alpha):
    text = "The value is returned; x = [y(z) for z in q]"
    rule, score = Pareto(str(path), alpha), Classifier.load(path).score(Document("d", text))
    kept = np.mean([rule(Document(f"d{i}", text)) is None for i in range(4000)])
    theirs = np.mean(np.random.default_rng(0).pareto(alpha, 200_000) > 1 - score)
    chance = (2 - score) ** -alpha
    assert theirs == pytest.approx(chance, abs=4 * math.sqrt(0.25 / 200_000))
    assert kept == pytest.approx(chance, abs=4 * math.sqrt(0.25 / 4000))
    assert pickle.loads(pickle.dumps(rule))(Document("d7", text)) == rule(Document("d7", text))


@given(st.text(max_size=200))
def test_any_text_has_a_score(trained, text):
    assert 0 < trained[0].score(Document("d", text)) < 1


@pytest.mark.parametrize("text", ["x" * 10_000_000, "a " * 500_000, "\x00\ud800", "́" * 1000])
def test_hostile_texts_have_a_score(trained, text):
    assert 0 < trained[0].score(Document("d", text)) < 1


@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
def test_a_file_cut_short_is_told(path, share):
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(UserError, match="train it anew"):
        Classifier.load(path)


def test_mistakes_are_told(tmp_path):
    with pytest.raises(UserError, match="train one"):
        Quality(tmp_path / "none.npz")(Document("d", "a"))
    (tmp_path / "other.npz").write_bytes(b"nothing of the kind")
    with pytest.raises(UserError, match="train it anew"):
        Classifier.load(tmp_path / "other.npz")
    with pytest.raises(UserError, match="dozens"):
        train(documents(["a"]), documents(["b"]))
    with pytest.raises(UserError, match="alpha"):
        Pareto("q.npz", 0)
