"""SemDeDup: the definition written out, its limits, planted copies, the order of the input, tiles, windows."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.curate.encoders import Numbers, documents, numbers, pixels
from unlabeled.core.errors import UserError
from unlabeled.core.places import cache
from unlabeled.curate.dedup import semantic
from unlabeled.curate.dedup.semantic import Semantic, embed_texts, nearest_before
from unlabeled.curate.document import Document


def rows(n=300, width=16, groups=40, spread=0.15, seed=0):
    """Unit vectors around random directions: pairs at cosines of all sizes."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((groups, width))[rng.integers(0, groups, n)] + spread * rng.standard_normal((n, width))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def by_definition(x, found, eps, keep):
    """Which stay, from the clusters alone: in float64, sorted anew, pair by pair."""
    x = x.astype(np.float64)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    stay = np.ones(len(x), bool)
    for c in np.unique(found.cluster):
        members = np.flatnonzero(found.cluster == c)
        middle = x[members].mean(0)
        cosine = x[members] @ middle / np.linalg.norm(middle)
        order = members[np.argsort(cosine if keep == "hard" else -cosine, kind="stable")]
        for place, j in enumerate(order):
            stay[j] = not any(x[i] @ x[j] > 1 - eps for i in order[:place])
    return stay


@pytest.mark.parametrize("keep", ["hard", "easy"])
def test_equals_the_definition(keep):
    x = rows()
    found = nearest_before(x, 8, keep, rounds=1000)
    for eps in (0.01, 0.05, 0.1, 0.3, 0.8):
        stay = by_definition(x, found, eps, keep)
        assert 0 < stay.sum() < len(x)
        assert np.array_equal(found.within(eps).keep, stay)


def test_clusters_lie_around_their_centroids():
    """The definition above takes centroids for means: so they are, when the rounds are over."""
    x = rows()
    found = nearest_before(x, 8)
    means = np.stack([x[found.cluster == c].mean(0) for c in range(8)])
    assert np.array_equal((x @ (means / np.linalg.norm(means, axis=1, keepdims=True)).T).argmax(1), found.cluster)


@pytest.mark.parametrize("keep", ["hard", "easy"])
def test_the_order_of_the_input_changes_nothing(keep):
    x = np.concatenate([rows(), rows()[:40], rows()[:40]])  # with copies, of which any may stay
    shuffled = np.random.default_rng(1).permutation(len(x))
    a, b = nearest_before(x, None, keep), nearest_before(x[shuffled], None, keep)
    for eps in (0, 0.02, 0.1, 0.5):
        one, other = a.within(eps).keep, b.within(eps).keep
        assert one.sum() == other.sum()
        assert np.array_equal(np.unique(x[one], axis=0), np.unique(x[shuffled][other], axis=0))


@pytest.mark.parametrize("keep", ["hard", "easy", "random"])
def test_limits_of_eps(keep):
    x = np.concatenate([rows(), rows()[5:25] * 3])  # the same directions: copies
    found = nearest_before(x, 10, keep)
    none, all_ = found.within(0), found.within(2)
    assert none.keep.sum() == len(rows())
    gone = np.flatnonzero(~none.keep)
    cosines = [x[i] @ x[j] / np.linalg.norm(x[i]) / np.linalg.norm(x[j]) for i, j in zip(gone, none.instead[gone])]
    assert len(gone) == 20 and np.allclose(cosines, 1, atol=1e-6)
    assert all_.keep.sum() == len(np.unique(found.cluster)) == 10
    kept = [found.within(e).keep.sum() for e in (0, 0.01, 0.1, 0.5, 1, 2)]
    assert kept == sorted(kept, reverse=True)


def test_the_first_of_a_cluster_stays_where_all_cosines_are_negative():
    x = np.array([[1.0, 0, 0], [-0.5, 0.87, 0], [-0.5, -0.87, 0]], np.float32)
    assert nearest_before(x, 1).within(1.2).keep.all()  # cosines of -0.5 are not above -0.2
    assert nearest_before(x, 1).within(2).keep.sum() == 1


def test_planted_copies_are_found_and_point_to_what_stays():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((500, 64)).astype(np.float32)  # no two of them above a cosine of 0.7
    near = x[:50] + 0.05 * rng.standard_normal((50, 64)).astype(np.float32)
    nearer = near[:20] + 0.01 * rng.standard_normal((20, 64)).astype(np.float32)
    got = nearest_before(np.concatenate([x, near, nearer]), 5).within(0.05)
    group = np.r_[np.arange(500), np.arange(50), np.arange(20)]
    assert len(np.unique(group[got.keep])) == got.keep.sum() == 500
    gone = np.flatnonzero(~got.keep)
    assert got.keep[got.instead[gone]].all() and np.array_equal(group[got.instead[gone]], group[gone])
    assert (got.instead[got.keep] == -1).all() and (got.value[gone] > 0.95).all()


def test_hard_keeps_the_far_one_and_easy_the_near_one():
    x = np.array([[1, 0.0], [1, 0.1], [1, 0.2], [1, 0.35]], np.float32)
    assert nearest_before(x, 1, "hard").within(0.2).keep.tolist() == [False, False, False, True]
    assert nearest_before(x, 1, "easy").within(0.2).keep.tolist() == [False, False, True, False]


def test_random_is_another_choice_for_another_seed():
    x = rows()
    kept = [nearest_before(x, 1, "random", seed).within(0.3).keep for seed in (0, 0, 1)]
    assert np.array_equal(kept[0], kept[1]) and not np.array_equal(kept[0], kept[2])


def test_tiles_change_nothing(monkeypatch):
    x = torch.from_numpy(rows())
    best, at = semantic._max_before(x)
    whole = (x @ x.T).masked_fill(torch.ones(300, 300, dtype=torch.bool).tril(), -torch.inf)
    torch.testing.assert_close(best, whole.max(0).values)
    assert torch.equal(at[1:], whole.max(0).indices[1:])
    monkeypatch.setattr(semantic, "_TILE", 7)
    tiled, places = semantic._max_before(x)
    torch.testing.assert_close(tiled, best)
    assert torch.equal(places, at)


def test_a_large_cluster_makes_no_large_matrix(monkeypatch):
    """20,000 squared would be 1.6 GB of float32."""
    largest = 0
    fill = torch.Tensor.masked_fill_

    def noted(self, *rest):
        nonlocal largest
        largest = max(largest, self.numel())
        return fill(self, *rest)

    monkeypatch.setattr(torch.Tensor, "masked_fill_", noted)
    x = torch.nn.functional.normalize(torch.randn(20_000, 4, generator=torch.Generator().manual_seed(0)), dim=1)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as seen:
        best, _ = semantic._max_before(x)
    assert best.shape == (20_000,) and 0 < largest <= 2048**2
    assert max(e.cpu_memory_usage for e in seen.events()) <= 4 * 2048**2


# ---- documents ----------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def encoder(monkeypatch, tmp_path):
    monkeypatch.setenv("UNLABELED_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("unlabeled.model.load", lambda path: pixels() if path == "pixels" else numbers())
    Numbers.seen.clear()


def test_features_are_those_of_the_model_for_beginnings_and_means_for_windows():
    texts = [" ".join(map(str, np.random.default_rng(i).integers(1, 9, n))) for i, n in enumerate((4, 8, 12, 24, 400))]
    corpus = [Document(str(i), t) for i, t in enumerate(texts)]
    features, known = embed_texts(numbers(), corpus)
    peer = numbers().embed(texts)
    assert known.all()
    np.testing.assert_allclose(features, peer / np.linalg.norm(peer, axis=1, keepdims=True), rtol=1e-5)

    def unit(part):
        x = np.array(part).reshape(-1, 4).sum(0)
        return x / np.linalg.norm(x)

    values = np.array(texts[3].split(), float)
    middle = unit(values[:8]) + unit(values[8:16]) + unit(values[16:])
    got = embed_texts(numbers(), corpus, windows=3)[0][3]
    np.testing.assert_allclose(got, middle / np.linalg.norm(middle), rtol=1e-5)
    short = embed_texts(numbers(), corpus, tokens=4)[0]
    np.testing.assert_allclose(short[3], unit(values[:4]), rtol=1e-5)


def test_documents_without_features_stay_and_others_are_found_in_their_places(monkeypatch):
    corpus = documents(np.random.default_rng(0).standard_normal((30, 4)))
    corpus.insert(3, Document("empty", ""))
    corpus.append(Document("copy", corpus[10].text))
    monkeypatch.setattr(semantic, "_AHEAD", 7)  # several pieces, one of them half empty
    got = Semantic("run", eps=0.0, clusters=3).select(corpus)
    assert len(got.keep) == 32 and got.keep[3] and np.isnan(got.value[3])
    assert np.flatnonzero(~got.keep).tolist() in ([10], [31])
    assert got.instead[~got.keep].tolist() == [31 if not got.keep[10] else 10]


def test_one_pass_serves_several_thresholds_and_equals_single_ones():
    corpus = documents(rows(120, 4))
    limits = [0.001, 0.05, 0.4]
    together = Semantic("run").thresholds(corpus, limits)
    batches = len(Numbers.seen)
    alone = [Semantic("run", eps=e).select(corpus) for e in limits]
    assert len(Numbers.seen) == 4 * batches
    for a, b in zip(together, alone):
        np.testing.assert_array_equal(a.keep, b.keep)
        np.testing.assert_array_equal(a.instead, b.instead)
        np.testing.assert_array_equal(a.value, b.value)
    assert [s.keep.sum() for s in together] == sorted({s.keep.sum() for s in together}, reverse=True)


def test_the_order_of_documents_changes_no_number():
    corpus = documents(rows(200, 4))
    shuffled = [corpus[i] for i in np.random.default_rng(0).permutation(200)]
    for keep in ("hard", "easy"):
        a, b = (Semantic("run", eps=0.02, keep=keep).select(c) for c in (corpus, shuffled))
        kept = {d.id for d, k in zip(corpus, a.keep) if k}
        assert kept == {d.id for d, k in zip(shuffled, b.keep) if k} and 0 < len(kept) < 200


def test_a_published_encoder(monkeypatch):
    """all-MiniLM-L6-v2 in the Hugging Face layout, where it has been fetched."""
    monkeypatch.undo()
    folder = cache("data") / "minilm"
    if not folder.is_dir():
        pytest.skip("not fetched; get it with: unlabeled data get minilm")
    texts = [
        "The driver registers an interrupt handler for the network card.",
        "A recipe for bread: flour, water, salt and yeast.",
        "An interrupt handler of the network card is registered by the driver.",
        "\ud800",  # half of a surrogate pair
    ]
    got = Semantic(str(folder), eps=0.1, clusters=1).select([Document(str(i), t) for i, t in enumerate(texts)])
    assert got.keep[1] and got.keep[3] and np.isnan(got.value[3])
    assert got.keep[[0, 2]].sum() == 1 and sorted([got.instead.max(), int(np.flatnonzero(~got.keep)[0])]) == [0, 2]


@pytest.mark.parametrize("corpus", [[], [Document("a", "")], [Document("a", "1 2 3 4")]])
def test_hardly_any_documents(corpus):
    got = Semantic("run").select(corpus)
    assert got.keep.tolist() == [True] * len(corpus) and got.instead.tolist() == [-1] * len(corpus)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(*[st.sampled_from([0.0, 1.0, -1.0, 1e-30, 1e30])] * 3), max_size=12), st.floats(0, 2))
def test_any_finite_features(found, eps):
    x = np.array(found, np.float32).reshape(-1, 3)
    got = nearest_before(x).within(eps)
    assert got.keep.sum() >= min(1, len(x))
    assert got.keep[got.instead[~got.keep]].all()


def test_mistakes_are_told():
    with pytest.raises(UserError, match="eps is one minus a cosine"):
        Semantic("run", eps=-0.1)
    with pytest.raises(UserError, match="hard, easy or random"):
        Semantic("run", keep="best")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="no features of text"):
        Semantic("pixels").select([Document("a", "1")])
    with pytest.raises(UserError, match="not finite"):
        Semantic("run").select([Document("a", "nan 1 2 3")])


def test_nothing_heavy_is_imported_until_needed():
    import subprocess
    import sys

    said = "import sys, unlabeled.curate.dedup.semantic, unlabeled.curate.prune; print('torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "False"
