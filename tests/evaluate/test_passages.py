"""Where a passage is from: labels out of paths, no file on both sides, counts of words as the baseline to beat."""

import numpy as np
import pytest
import torch

from unlabeled.core.batch import Record, Spec
from unlabeled.core.config import MethodConfig
from unlabeled.core.errors import UserError
from unlabeled.core.method import Method
from unlabeled.data.sources.memory import TextsInMemory
from unlabeled.evaluate import Evaluation, TimeLimit, finetune, passages
from unlabeled.evaluate.examples import chosen
from unlabeled.model import Model

WORDS = {"net": "socket packet route queue", "fs": "inode journal mount block", "mm": "page slab zone swap"}


class Tree(TextsInMemory):
    """Files in folders, each about what its folder says, or not."""

    def __init__(self, files: dict[str, str]) -> None:
        super().__init__(list(files.values()))
        self.paths = list(files)
        self.name = "tree"

    def __getitem__(self, index):
        return Record(self.paths[index], {"text": self.texts[index]})

    def group(self, index):
        return self.paths[index]


def tree(top: str = "Documentation/") -> Tree:
    rng = np.random.default_rng(0)
    files = {}
    for folder, words in WORDS.items():
        for n in range(60):
            said = rng.choice(words.split() + ["the", "of", "is"] * 4, 300)
            files[f"{top}{folder}/{n}.rst"] = " ".join(said)
    files[f"{top}index.rst"] = "all of it"
    return Tree(files)


class Bag(Method):
    """Letters and spaces, counted by a matrix that may be trained."""

    Config, variants, takes, goal = MethodConfig, {"tiny": {}}, ("text",), "represent"

    def __init__(self, config, spec, given=None):
        super().__init__(config, spec, given)
        self.table = torch.nn.Embedding(128, 32)

    def prepare(self, record, rng):
        return {"tokens": np.frombuffer(record.fields["text"].encode("ascii"), np.uint8).astype(np.int32)}

    def window(self):
        return 200

    def embed(self, batch):
        real = torch.arange(batch["tokens"].shape[1]) < batch["tokens_length"][:, None]
        return (self.table(batch["tokens"]) * real[:, :, None]).sum(1) / real.sum(1, keepdim=True)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("UNLABELED_CACHE", str(tmp_path / "cache"))


def model():
    torch.manual_seed(0)
    source = tree()
    return Model("bag", Bag(MethodConfig(), Spec(kind="text", vocabulary=128)), None, source)


def test_topics_are_the_folders_in_which_files_differ():
    assert set(passages.topics(tree())) == {"net", "fs", "mm", ""}
    assert set(passages.topics(tree("linux/Documentation/"))) == {"net", "fs", "mm", ""}
    assert passages.topics(Tree({"a.py": "x", "b.c": "y", "c.py": "z"})) == [".py", ".c", ".py"]
    assert passages.topics(Tree({"a.txt": "x", "b.txt": "y"})) is None
    labelled = tree()
    labelled.labels, labelled.classes = np.arange(len(labelled)) % 2, ("even", "odd")
    assert passages.topics(labelled)[:3] == ["even", "odd", "even"]


def test_no_file_is_on_both_sides_and_small_classes_are_left_out():
    source = tree()
    train, test = passages.passages(source.split("train"), source.split("test"))
    assert train.classes == test.classes == ("fs", "mm", "net")
    whole = dict(zip(source.texts, source.paths))

    def files(part):
        return {path for piece in part.texts for text, path in whole.items() if piece in text}

    assert files(train).isdisjoint(files(test))
    assert len(train.texts) > 3 * 40 and max(map(len, train.texts)) <= passages.CHARACTERS
    for text, label in zip(train.texts[:50], train.labels):
        assert set(WORDS[train.classes[label]].split()) & set(text.split())
    few = Tree({f"{folder}/{n}.rst": "x" for folder in ("a", "b") for n in range(3)})
    assert passages.passages(few.split("train"), few.split("test")) is None


def test_counts_are_of_unit_length_and_rare_words_count_more():
    rows, _ = passages.hashed_counts(["the cat", "the dog", "the the end"], ["the"], "words")
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-5)
    assert (rows[0] > 0).sum() == 2
    common, rare = sorted(rows[0][rows[0] > 0])
    # ln(4 / 4) + 1 for the word that all have, ln(4 / 2) + 1 for the other
    assert rare / common == pytest.approx(np.log(2) + 1, rel=1e-5)
    letters, _ = passages.hashed_counts(["abc"], ["abc"], "letters")
    assert (letters[0] > 0).sum() == 3  # ab, bc, abc


def test_words_tell_what_letters_cannot():
    found = Evaluation()
    passages.measure(model(), found, quick=True, seed=0, limit=TimeLimit(None))
    table = found.tables[0]
    assert [row[0] for row in table.rows] == [
        "bag, trained",
        "bag, random weights",
        "TF-IDF of words",
        "TF-IDF of letters",
    ]
    everything = {row[0]: row[-1] for row in table.rows}
    assert everything["TF-IDF of words"] > 98
    assert 20 < found.diagnostics["passages"]["most_frequent"] < 60
    assert "3 classes" in table.note and "fine_tuning" not in found.diagnostics


def test_data_without_classes_is_said():
    plain = Model(
        "bag", Bag(MethodConfig(), Spec(kind="text", vocabulary=128)), None, TextsInMemory(["one", "two"] * 20)
    )
    with pytest.raises(UserError, match="no folders, suffixes or classes"):
        passages.measure(plain, Evaluation(), quick=True, seed=0, limit=TimeLimit(None))


def halves(bag):
    source = bag.source
    cut = passages.passages(source.split("train"), source.split("test"))
    return [chosen(p, bag.store(p, whole=True), 400) for p in cut]


def test_fine_tuning_learns_and_leaves_the_model_alone():
    bag = model()
    train, test = halves(bag)
    before = {k: v.clone() for k, v in bag.method.state_dict().items()}
    chance = max(np.bincount(test.labels)) / len(test)
    little, much = (finetune.accuracy(bag.method, train, test, updates) for updates in (1, 150))
    assert much > max(chance, little) + 0.25
    assert all(torch.equal(v, before[k]) for k, v in bag.method.state_dict().items())
    assert finetune.accuracy(bag.method, train, test, 20) == finetune.accuracy(bag.method, train, test, 20)


def test_fine_tuning_without_time_is_said():
    bag = model()
    found = Evaluation()
    finetune.measure(bag, *halves(bag), found, seed=0, limit=TimeLimit(1e-6))
    assert not found.tables and "left out" in found.diagnostics["fine_tuning"]
