import numpy as np
import pytest
import torch

from unlabeled.evaluate import features


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("UNLABELED_CACHE", str(tmp_path))
    monkeypatch.setitem(features.RECIPE, "examples", 3200)


def _made(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels, images = np.arange(n) % 3, rng.integers(0, 90, (n, 12, 12, 1), dtype=np.uint8)
    for image, label in zip(images, labels):
        image[4 * label : 4 * label + 4] += 80
    return images, labels


def test_the_classifier_learns_is_kept_and_is_the_same_again(tmp_path, monkeypatch):
    images, labels = _made(300, 0)
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first = features.feature_space(images, labels, _made(90, 1))
    assert torch.equal(before, torch.random.get_rng_state())
    assert first.accuracy > 0.9
    assert first.name.startswith("fd-clf-")
    assert first(images).shape == (300, 64)
    assert first(images).var(0).mean() == pytest.approx(1, rel=1e-4)
    # The second time nothing is trained; a torn file is trained anew, to the same features.
    monkeypatch.setattr(torch.optim, "AdamW", None)
    np.testing.assert_array_equal(features.feature_space(images, labels)(images), first(images))
    monkeypatch.undo()
    monkeypatch.setenv("UNLABELED_CACHE", str(tmp_path))
    monkeypatch.setitem(features.RECIPE, "examples", 3200)
    (kept,) = tmp_path.rglob("*.safetensors")
    kept.write_bytes(kept.read_bytes()[:100])
    np.testing.assert_array_equal(features.feature_space(images, labels)(images), first(images))


def test_the_hash_follows_data_labels_and_recipe(monkeypatch):
    images, labels = _made(60, 0)
    monkeypatch.setitem(features.RECIPE, "examples", 64)
    names = [features.feature_space(images, labels).name]
    names.append(features.feature_space(images[:50], labels[:50]).name)
    names.append(features.feature_space(images, 2 - labels).name)
    monkeypatch.setitem(features.RECIPE, "lr", 1e-3)
    names.append(features.feature_space(images, labels).name)
    assert len(set(names)) == 4


def test_without_two_classes_the_weights_are_random_and_fixed():
    images, _ = _made(60, 0)
    spaces = [features.feature_space(images, labels) for labels in (None, np.zeros(60, int), np.full(60, -1))]
    assert {s.name for s in spaces} == {spaces[0].name}
    assert spaces[0].name.startswith("fd-rand-")
    assert spaces[0].accuracy is None
    np.testing.assert_array_equal(spaces[0](images), spaces[1](images))
    assert np.abs(spaces[0](images[:1]) - spaces[0](images[1:2])).max() > 1e-3


def test_large_and_coloured_images_pass():
    images = np.random.default_rng(0).integers(0, 256, (20, 70, 70, 3), dtype=np.uint8)
    assert features.feature_space(images, None)(images).shape == (20, 64)
