"""The codebook: nearest entries, the moving averages of the authors' code and of a peer, restarts."""

import math

import pytest
import torch

from unlabeled.nets.quantise import EPSILON, Codebook, debiased, perplexity, tally


def book(size=8, width=4, **options):
    torch.manual_seed(0)
    return Codebook(size, width, **options)


def vectors(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_nearest_code_by_the_distances_written_out():
    codebook, z = book(64, 16), vectors(3, 5, 7, 16)
    codes, indices = codebook(z)
    distances = (z[..., None, :] - codebook.codes).square().sum(-1)
    assert torch.equal(indices, distances.argmin(-1))
    assert torch.equal(codes, codebook.codes[indices]) and codes.shape == z.shape


def test_ties_go_to_the_lowest_index():
    codebook = book()
    codebook.codes[:] = torch.tensor([1.0, 0, 0, 0])
    assert (codebook(vectors(50, 4)).indices == 0).all()


def test_quantising_twice_is_quantising_once():
    codebook = book()
    once = codebook(vectors(100, 4))
    twice = codebook(once.codes)
    assert torch.equal(once.codes, twice.codes) and torch.equal(once.indices, twice.indices)


def test_permuting_the_codes_permutes_the_indices_alone():
    codebook, z = book(), vectors(100, 4)
    before, order = codebook(z), torch.randperm(8)
    codebook.codes.copy_(codebook.codes[order].clone())
    after = codebook(z)
    assert torch.equal(after.codes, before.codes) and torch.equal(order[after.indices], before.indices)


def test_the_search_is_in_float32_under_autocast():
    codebook, z = book(512, 64), vectors(2000, 64)
    plain = codebook(z)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(codebook(z).indices, plain.indices)


def test_no_gradient_reaches_the_vectors_and_only_chosen_codes_get_one():
    codebook, z = book(learned=True), vectors(3, 4).requires_grad_()
    codes, indices = codebook(z)
    codes.square().sum().backward()
    chosen = torch.zeros(8, dtype=torch.bool)
    chosen[indices] = True
    assert z.grad is None and torch.equal(codebook.codes.grad.any(1), chosen)
    assert not list(book().parameters())


def test_start_has_the_bounds_of_the_authors_code():
    codes = book(4096, 16).codes
    assert codes.abs().max() <= math.sqrt(3 / 16) and float(codes.var()) == pytest.approx(1 / 16, rel=0.02)


def test_tally_counts_and_adds():
    z, indices = vectors(40, 4), torch.arange(40) % 3
    counts, sums = tally(z, indices, 8)
    hot = torch.nn.functional.one_hot(indices, 8).float()
    assert torch.equal(counts, hot.sum(0))
    torch.testing.assert_close(sums, hot.T @ z, atol=1e-5, rtol=1e-5)


class Sonnet:
    """The authors' rule as their code has it: averages from zero, each divided by 1 - decay^t; independent of ours."""

    def __init__(self, codes, decay):
        self.codes, self.decay, self.t = codes.clone().double(), decay, 0
        self.n, self.m = torch.zeros(len(codes)).double(), torch.zeros_like(codes).double()

    def step(self, z):
        nearest = torch.cdist(z.double(), self.codes).argmin(1)
        hot = torch.nn.functional.one_hot(nearest, len(self.codes)).double()
        self.t += 1
        self.n -= (self.n - hot.sum(0)) * (1 - self.decay)
        self.m -= (self.m - hot.T @ z.double()) * (1 - self.decay)
        n, m = (x / (1 - self.decay**self.t) for x in (self.n, self.m))
        n = (n + 1e-5) / (n.sum() + len(n) * 1e-5) * n.sum()
        self.codes = m / n[:, None]


def test_the_moving_average_is_that_of_the_authors_code():
    codebook = book(16, 4)
    reference = Sonnet(codebook.codes, 0.9)
    for step in range(30):
        z = vectors(200, 4, seed=step)
        codebook.follow(*tally(z, codebook(z).indices, 16), debiased(0.9, step))
        reference.step(z)
        torch.testing.assert_close(codebook.codes.double(), reference.codes, atol=1e-4, rtol=1e-4)


def test_the_moving_average_is_that_of_the_peer():
    """vector-quantize-pytorch, from the same state."""
    codebook = book(16, 4)
    peer = _peer(codebook)
    for step in range(10):
        z = vectors(200, 4, seed=step)
        indices = codebook(z).indices
        quantised, theirs, _ = peer(z[None])
        assert torch.equal(theirs[0], indices)
        torch.testing.assert_close(quantised[0].detach(), codebook.codes[indices], atol=1e-5, rtol=1e-5)
        codebook.follow(*tally(z, indices, 16), 0.99)
        torch.testing.assert_close(peer._codebook.embed[0], codebook.codes, atol=1e-5, rtol=1e-5)


def _peer(codebook):
    pytest.importorskip("vector_quantize_pytorch")
    from vector_quantize_pytorch import VectorQuantize

    peer = VectorQuantize(dim=4, codebook_size=16, decay=0.99, eps=EPSILON).train()
    theirs = peer._codebook
    theirs.embed.data.copy_(codebook.codes[None])
    theirs.embed_avg.data.copy_(codebook.sums[None])
    theirs.cluster_size.data.copy_(codebook.counts[None])
    return peer


def test_without_memory_codes_become_the_means_of_their_vectors():
    codebook, z = book(4, 2), vectors(500, 2)
    indices = codebook(z).indices
    codebook.follow(*tally(z, indices, 4), 0.0)
    for k in indices.unique():
        torch.testing.assert_close(codebook.codes[k], z[indices == k].mean(0), atol=1e-4, rtol=1e-4)


def test_a_code_that_nothing_falls_to_stays_where_it_is():
    codebook = book()
    codebook.codes[3] = codebook.sums[3] = 100.0
    before = codebook.codes[3].clone()
    for step in range(50):
        z = vectors(64, 4, seed=step)
        codebook.follow(*tally(z, codebook(z).indices, 8), 0.99)
    torch.testing.assert_close(codebook.codes[3], before, rtol=1e-3, atol=0)


def test_codes_start_from_distinct_vectors_where_there_are_enough():
    for learned in (False, True):
        codebook, z = book(learned=learned), vectors(20, 4)
        codebook.start_from(z)
        assert sorted(codebook(z[codebook_rows(codebook, z)]).indices.tolist()) == list(range(8))
        codebook.start_from(z[:3])  # fewer than codes: some twice
        assert len(codebook.codes.unique(dim=0)) == 3


def codebook_rows(codebook, z):
    """Which vectors the codes lie on; fails where one lies on none."""
    distances = torch.cdist(codebook.codes.detach(), z)
    assert (distances.amin(1) < 1e-6).all()
    return distances.argmin(1)


def test_restart_moves_dead_codes_and_no_others():
    codebook, z = book(), vectors(2, 4)
    codebook.usage[:] = torch.tensor([5.0, 0.1, 5, 0.2, 5, 5, 0.3, 5])
    before = codebook.codes.clone()
    codebook.restart(z, 1.0)
    assert torch.equal(codebook.codes[[1, 3]], z)  # two vectors for three dead codes
    kept = [0, 2, 4, 5, 6, 7]
    assert torch.equal(codebook.codes[kept], before[kept])
    counts = codebook.counts.clone()
    codebook.follow(counts, counts[:, None] * codebook.codes, 0.99)  # as many vectors as before, on the codes
    torch.testing.assert_close(codebook.codes[[1, 3]], z, atol=1e-4, rtol=1e-4)


def test_learned_codes_are_not_restarted():
    with pytest.raises(ValueError, match="restarted"):
        book(learned=True).restart(vectors(2, 4), 1.0)


def test_usage_forgets_its_start_at_once():
    codebook, counts = book(), torch.tensor([9.0, 0, 1, 0, 0, 0, 0, 0])
    for step in range(3):
        codebook.note_usage(counts, step)
    torch.testing.assert_close(codebook.usage, counts)
    assert debiased(0.99, 0) == 0 and debiased(0.99, 10_000) == pytest.approx(0.99)


def test_perplexity():
    assert float(perplexity(torch.ones(32))) == pytest.approx(32)
    assert float(perplexity(torch.tensor([0.0, 7.0, 0.0]))) == pytest.approx(1)
    assert float(perplexity(torch.tensor([3.0]))) == pytest.approx(1)
    assert float(perplexity(torch.tensor([1.0, 1.0, 2.0]))) == pytest.approx(2**1.5)
