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


class Long(Uneven):
    """Keeps as many rows of each image as its first pixel says."""

    ragged = ("image",)

    def prepare(self, record, rng):
        image = record.fields["image"]
        return {"image": image[: 1 + image[0, 0, 0] % 4], "first": np.int64(image[0, 0, 0])}


def test_ragged_fields_are_padded_to_the_longest_and_say_what_is_real():
    source = ImagesInMemory(images())
    store = build(source, method(Long, source))
    indices = np.arange(20)
    batch = store.batch(indices)
    lengths = 1 + source.images[:20, 0, 0, 0] % 4
    assert set(batch) == {"image", "image_length", "first"} and len(store) == len(source)
    assert np.array_equal(batch["image_length"], lengths) and batch["image"].shape[1] == lengths.max()
    for row, length in enumerate(lengths):
        assert np.array_equal(batch["image"][row, :length], source.images[row, :length])
        assert not batch["image"][row, length:].any()
    short = int(np.flatnonzero(lengths == lengths.min())[0])
    assert store.batch(indices[[short]])["image"].shape[1] == lengths.min()
    assert store.batch(indices[[short]], beside=indices)["image"].shape[1] == lengths.max()


def test_processes_pad_to_the_longest_of_the_whole_batch():
    source = ImagesInMemory(images())
    store = build(source, method(Long, source))
    whole = Loader(store, seed=1, batch=4, rank=0, world=1)
    halves = [Loader(store, seed=1, batch=4, rank=r, world=2) for r in (0, 1)]
    for step in range(8):
        expected, got = whole.at(step), [h.at(step) for h in halves]
        for name, array in expected.items():
            assert np.array_equal(array, np.concatenate([g[name] for g in got]))


def test_whole_records_of_windowed_text_are_cut_at_a_window():
    source = TextsInMemory(["abcdef", "", "gh"])
    store = build(source, method(Letters, source), whole=True)
    batch = store.batch(np.arange(2))
    assert len(store) == 2 and store.rows.tolist() == [0, 2] and [q.reason for q in store.quarantined] == ["is empty"]
    assert ["".join(map(chr, r)).rstrip("\0") for r in batch["tokens"]] == ["abcd", "gh"]
    assert batch["tokens_length"].tolist() == [4, 2]
    assert build(source, method(Letters, source)).folder != store.folder
