"""Pruning by prototypes: the score written out, both ends, balance of classes, what auto takes, subsets on disk."""

import numpy as np
import pytest

from tests.curate.encoders import documents, numbers, pixels
from unlabeled.core.errors import UserError
from unlabeled.curate.document import Document
from unlabeled.curate.prune import PLENTY, Prototypes, better_end, chosen, difficulty, dimensions, prune, write_subset
from unlabeled.data.sources import source
from unlabeled.data.sources.memory import ImagesInMemory, TextsInMemory


def around(n=400, groups=4, seed=0):
    """Points around orthogonal directions, more and more spread: (n, 8) float32, and how much each is."""
    rng = np.random.default_rng(seed)
    spread = rng.uniform(0, 0.5, (n, 1))
    away = rng.standard_normal((n, 8)) * [[0] * groups + [1] * (8 - groups)]
    away /= np.linalg.norm(away, axis=1, keepdims=True)
    return (np.eye(8)[rng.integers(0, groups, n)] + spread * away).astype(np.float32), spread[:, 0]


@pytest.fixture(autouse=True)
def encoders(monkeypatch, tmp_path):
    monkeypatch.setenv("UNLABELED_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("unlabeled.model.load", lambda path: pixels() if path == "pixels" else numbers())


def test_the_score_is_the_cosine_distance_to_the_mean_direction_of_the_nearest_cluster():
    x, spread = around()
    value = difficulty(x, 4)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    means = np.stack([unit[x.argmax(1) == c].mean(0) for c in range(4)])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    np.testing.assert_allclose(value, 1 - (unit @ means.T).max(1), atol=1e-6)
    assert np.corrcoef(value, spread)[0, 1] > 0.9


def test_hard_and_easy_are_the_two_ends():
    value = difficulty(around()[0])
    for keep in (0.1, 0.5, 0.77):
        hard, easy = chosen(value, keep, "hard"), chosen(value, keep, "easy")
        assert hard.sum() == easy.sum() == round(keep * 400)
        assert value[hard].min() >= value[~hard].max() and value[easy].max() <= value[~easy].min()
    assert np.array_equal(chosen(value, 0.5, "hard"), ~chosen(value, 0.5, "easy"))
    assert chosen(value, 1, "hard").all() and chosen(value, 1e-9, "easy").sum() == 1


def test_random_knows_nothing_of_the_score_and_repeats():
    value = difficulty(around()[0])
    kept = chosen(value, 0.5, "random")
    assert kept.sum() == 200 and np.array_equal(kept, chosen(value[::-1], 0.5, "random"))
    assert not np.array_equal(kept, chosen(value, 0.5, "random", seed=1))


def test_the_order_of_rows_changes_no_score():
    x, _ = around()
    shuffled = np.random.default_rng(3).permutation(400)
    np.testing.assert_array_equal(difficulty(x)[shuffled], difficulty(x[shuffled]))


def test_each_class_keeps_half_of_its_fair_number():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, -1], [600, 300, 100])
    value = rng.random(1000) + (labels == 0)  # class 0 is harder throughout
    free = chosen(value, 0.4, "hard")
    assert np.bincount(labels[free] + 1).tolist() == [0, 400]
    kept = chosen(value, 0.4, "hard", labels)
    assert np.bincount(labels[kept] + 1).tolist() == [0, 340, 60]  # half of 0.4 of 300
    for c in (0, 1):
        of_class = np.flatnonzero(labels == c)
        assert value[of_class[kept[of_class]]].min() > value[of_class[~kept[of_class]]].max()
    fair = chosen(value, 0.4, "hard", labels, balance=1.0)
    # 240 and 120; the 40 that the unknown would have go to the hardest that are left.
    assert np.bincount(labels[fair] + 1).tolist() == [0, 280, 120]


def even(n, width):
    """Directions that spread evenly: every axis both ways, as often."""
    return np.tile(np.concatenate([np.eye(width), -np.eye(width)]), (n // (2 * width), 1)).astype(np.float32)


def test_dimensions_count_what_varies():
    assert dimensions(even(200, 10)) == pytest.approx(10)
    wide = np.concatenate([even(200, 10), np.zeros((200, 90), np.float32)], 1)
    assert dimensions(wide) == pytest.approx(10) and dimensions(3 * wide) == pytest.approx(10)
    assert dimensions(np.ones((5, 3), np.float32)) == 1
    x, _ = around()
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    v = np.linalg.eigvalsh(np.cov(unit.T))
    assert dimensions(x) == pytest.approx(v.sum() ** 2 / (v**2).sum(), rel=1e-4)


def test_auto_takes_hard_from_two_and_a_half_kept_items_for_each_number_to_learn():
    x = even(1000, 100)
    assert PLENTY == 2.5 and better_end(x, 0.26) == "hard" and better_end(x, 0.24) == "easy"
    labels = np.arange(1000) % 3 - 1  # two classes and the unknown
    assert better_end(x, 0.26, labels) == "hard" and better_end(x, 0.26, labels + 1) == "easy"


def test_perceptrons_change_ends_where_auto_does():
    """The paper's theory (section 2): labels by the sign of one coordinate, margins known, a max-margin student."""
    from sklearn.svm import SVC

    def error(kept_each, keep, which, seed, width=40):
        rng = np.random.default_rng(seed)
        x = rng.standard_normal((int(kept_each * width / keep), width))
        rows = chosen(-np.abs(x[:, 0]), keep, which)  # near the border is hard
        weight = SVC(kernel="linear", C=1e3).fit(x[rows], x[rows, 0] > 0).coef_[0]
        return np.arccos(weight[0] / np.linalg.norm(weight))

    for keep in (0.2, 0.5):
        for kept_each, better in ((1.5, "easy"), (4, "hard")):
            errors = {w: np.mean([error(kept_each, keep, w, s) for s in range(5)]) for w in ("hard", "easy")}
            x = np.random.default_rng(0).standard_normal((int(kept_each * 40 / keep), 40))
            assert min(errors, key=lambda w: errors[w]) == better == better_end(x, keep)


def test_documents():
    x, _ = around()
    corpus = [*documents(x[:, [0, 1, 4, 5]]), Document("empty", "")]
    got = Prototypes("run", 0.25, "hard", clusters=2).select(corpus)
    assert got.keep.sum() == 100 and not got.keep[-1] and np.isnan(got.value[-1]) and (got.instead == -1).all()
    assert got.value[:-1][got.keep[:-1]].min() >= got.value[:-1][~got.keep[:-1]].max()
    auto = Prototypes("run", 0.25, clusters=2).select(corpus)  # 100 kept, 4 numbers, two classes: plenty
    np.testing.assert_array_equal(auto.keep, got.keep)
    assert auto.note.startswith("The hard end was kept: 100 items are plenty for features that spread over ")
    assert got.note == ""
    few = Prototypes("run", 0.25, clusters=2).select(corpus[:8])
    np.testing.assert_array_equal(few.keep, Prototypes("run", 0.25, "easy", clusters=2).select(corpus[:8]).keep)
    assert Prototypes("run").select([]).keep.shape == (0,)
    assert not Prototypes("run").select([Document("a", "")]).keep.any()


def pictures(n=200):
    rng = np.random.default_rng(0)
    images = rng.integers(1, 250, (n, 2, 2), np.uint8)
    images[7, 0, 0] = 255  # what the encoder refuses
    return ImagesInMemory(images, np.arange(n) % 2)


def test_pictures_are_scored_by_the_model_and_the_unreadable_go():
    data = pictures()
    got = prune(data, "pixels", 0.5, "hard", clusters=5, balance=0)
    assert np.isnan(got.value[7]) and not got.keep[7] and got.keep.sum() == 100  # of 199, rounded up
    rest = np.delete(np.arange(200), 7)
    expected = difficulty(data.images.reshape(200, 4)[rest].astype(np.float32), 5)
    np.testing.assert_allclose(got.value[rest], expected, atol=1e-7)
    half = prune(data, "pixels", 0.5, "easy", clusters=5, balance=1.0)
    counts = np.bincount(data.labels[half.keep])
    assert half.keep.sum() == 100 and abs(counts[0] - counts[1]) <= 2


def test_a_subset_is_read_again(tmp_path):
    data = pictures()
    data.classes = ("dark", "light", "never seen")
    rows = np.array([3, 50, 51, 199])
    assert write_subset(data, rows, tmp_path / "kept.parquet") == 4
    got = source(tmp_path / "kept.parquet")
    assert len(got) == 4 and got.kind == "image" and got.classes == data.classes
    assert got.labels.tolist() == data.labels[rows].tolist()
    again = pixels().embed(got)
    np.testing.assert_array_equal(again, pixels().embed(data.images[rows]))
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["kept.parquet"]
    write_subset(got, np.array([1, 2]), tmp_path / "again.parquet")  # bytes of files this time
    assert source(tmp_path / "again.parquet")[0].fields["image"] == got[1].fields["image"]


def test_a_folder_of_two_subsets_has_their_splits(tmp_path):
    folder = tmp_path / "not" / "there"
    write_subset(pictures(), np.arange(10, 20), folder / "train.parquet")
    write_subset(pictures(), np.arange(30, 35), folder / "test.parquet")
    got = source(folder)
    assert len(got.split("train")) == 10 and len(got.split("test")) == 5


def test_a_subset_of_texts(tmp_path):
    texts = ["eins", "zwei\n\nzwei", "drei é 雪", "vier"]
    write_subset(TextsInMemory(texts), np.array([1, 2]), tmp_path / "kept.parquet")
    got = source(tmp_path / "kept.parquet")
    assert [got[i].fields["text"] for i in range(len(got))] == texts[1:3] and got.labels is None


def test_mistakes_are_told(tmp_path):
    with pytest.raises(UserError, match="shares up to 1"):
        Prototypes("run", keep=1.5)
    with pytest.raises(UserError, match="shares up to 1"):
        prune(pictures(), "pixels", 0)
    with pytest.raises(UserError, match="auto, hard, easy or random"):
        prune(pictures(), "pixels", 0.5, "best")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="no features of image"):
        prune(pictures(), "run", 0.5)
    with pytest.raises(UserError, match="nothing was kept"):
        write_subset(pictures(), np.zeros(0, int), tmp_path / "kept.parquet")
    assert not list(tmp_path.glob("*kept*"))
