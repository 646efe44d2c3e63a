import numpy as np
import pytest

from tests.engine.toys import ToyConfig, Uneven, images
from unlabeled.core.errors import BadRecord, UserError
from unlabeled.data.loader import Loader
from unlabeled.data.sources.memory import ImagesInMemory, TextsInMemory
from unlabeled.data.store import build


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("UNLABELED_CACHE", str(tmp_path / "cache"))


class Picky(Uneven):
    """Refuses every tenth record."""

    def prepare(self, record, rng):
        if int(record.id) % 10 == 3:
            raise BadRecord("three")
        return {"image": record.fields["image"]}


class Letters(Uneven):
    """Code points laid end to end, in windows of 4."""

    takes = ("text",)

    def prepare(self, record, rng):
        return {"tokens": np.array([ord(c) for c in record.fields["text"]], dtype=np.int32)}

    def window(self):
        return 4


def method(kind, source):
    return kind(ToyConfig(), source.spec())


def test_records_come_back_and_bad_ones_are_named():
    source = ImagesInMemory(images(600))
    store = build(source, method(Picky, source))
    assert len(store) == 540 and [q.id for q in store.quarantined] == [str(i) for i in range(3, 600, 10)]
    assert {q.reason for q in store.quarantined} == {"three"}
    indices = np.array([0, 3, 539])
    assert np.array_equal(store.batch(indices)["image"], source.images[store.rows[indices]])


def test_a_store_is_made_once_and_again_when_the_data_change(monkeypatch):
    source = ImagesInMemory(images())
    first = build(source, method(Uneven, source))
    monkeypatch.setattr(Uneven, "prepare", lambda *a: pytest.fail("prepared twice"))
    assert build(source, method(Uneven, source)).folder == first.folder
    monkeypatch.undo()


def test_windows_share_one_item_and_cover_everything():
    source = TextsInMemory(["abcdef", "ghijk", "lm"])
    store = build(source, method(Letters, source))
    assert len(store) == 3  # 13 letters: 12 predicted
    rows = ["".join(map(chr, r)) for r in store.batch(np.arange(3))["tokens"]]
    assert rows == ["abcde", "efghi", "ijklm"]


def test_nothing_usable_is_one_sentence():
    source = TextsInMemory(["abc"])
    with pytest.raises(UserError, match="give more text"):
        build(source, method(Letters, source))

    class Refuses(Uneven):
        def prepare(self, record, rng):
            raise BadRecord("no good")

    source = ImagesInMemory(images(5))
    with pytest.raises(UserError, match="all 5 files were refused; the first was refused because: no good"):
        build(source, method(Refuses, source))


def test_processes_share_out_the_batch_in_order():
    source = ImagesInMemory(images())
    store = build(source, method(Uneven, source))
    whole = Loader(store, seed=1, batch=16, rank=0, world=1)
    halves = [Loader(store, seed=1, batch=16, rank=r, world=2) for r in (0, 1)]
    for step in (0, 5, 40):
        both = np.concatenate([h.at(step)["image"] for h in halves])
        assert np.array_equal(whole.at(step)["image"], both)
