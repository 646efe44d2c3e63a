import numpy as np
import pytest
import torch

from unlabeled.data.spans import most_masked, negatives, span_masks


def masks(n=400, frames=750, probability=0.65, length=10, seed=0, **options):
    torch.manual_seed(seed)
    return span_masks(torch.full((n,), frames), frames, probability, length, **options)


def runs(row):
    """Lengths of the runs of masked frames."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], row.int().numpy(), [0]])))
    return edges[1::2] - edges[::2]


@pytest.mark.parametrize(
    ("probability", "share", "mean_span"),
    # Published: 49 % in spans of 14.7 for wav2vec 2.0 (paper, section 4.2); the closed form for HuBERT.
    [(0.65, 0.491, 14.7), (0.8, 0.566, 16.2)],
)
def test_as_much_is_masked_as_was_published(probability, share, mean_span):
    mask = masks(probability=probability)
    assert mask.float().mean().item() == pytest.approx(share, abs=0.005)
    assert np.mean(np.concatenate([runs(row) for row in mask])) == pytest.approx(mean_span, abs=0.3)
    assert min(runs(row).min() for row in mask) == 10  # starts stop a span before the end


def test_the_number_of_spans_is_rounded_at_random():
    # 6.5 spans of one frame each: their number is the area.
    mask = masks(n=4000, frames=1000, probability=0.0065, length=1, least=0)
    counts = mask.sum(1)
    assert set(counts.tolist()) == {6, 7} and counts.float().mean().item() == pytest.approx(6.5, abs=0.05)


def test_starts_are_uniform_and_the_last_frame_is_never_masked():
    mask = masks(n=20_000, frames=30, probability=0.0, length=4, least=1)
    assert (mask.sum(1) == 4).all() and not mask[:, -1].any()
    starts = mask.int().argmax(1).bincount(minlength=26)
    assert len(starts) == 26 and (starts - 20_000 / 26).abs().max() < 5 * (20_000 / 26) ** 0.5


def test_padding_is_never_masked_and_short_recordings_are_never_masked_whole():
    lengths = torch.arange(1, 61).repeat(20)
    torch.manual_seed(0)
    mask = span_masks(lengths, 60, 0.65, 10)
    position = torch.arange(60)
    assert not mask[position >= lengths[:, None] - 1].any()
    counts = mask.sum(1)
    assert (counts[lengths > 1] > 0).all() and (counts < lengths).all()
    assert (counts[lengths == 1] == 0).all()
    assert counts.max() <= most_masked(60, 0.65, 10)


def test_two_spans_at_least():
    mask = masks(frames=40, probability=0.0)
    assert mask.sum(1).min() >= 11 and mask.sum(1).max() == 20
    assert masks(frames=40, probability=0.0, least=3).sum(1).max() == 30
    assert not masks(frames=40, probability=0.0, least=0).any()


@pytest.mark.parametrize("frames", [5, 12, 30, 200, 781])
@pytest.mark.parametrize("probability", [0.1, 0.65, 0.95])
def test_the_bound_on_masked_frames_holds(frames, probability):
    lengths = torch.randint(1, frames + 1, (2000,), generator=torch.Generator().manual_seed(0))
    torch.manual_seed(1)
    assert span_masks(lengths, frames, probability, 10).sum(1).max() <= most_masked(frames, probability, 10)


def test_equal_masks_are_parts_of_unequal_ones():
    loose, equal = masks(n=50), masks(n=50, equal=True)
    assert len(loose.sum(1).unique()) > 1 and equal.sum(1).unique().tolist() == [loose.sum(1).min()]
    assert not (equal & ~loose).any()


def test_the_same_seed_gives_the_same_masks():
    assert torch.equal(masks(n=8), masks(n=8)) and not torch.equal(masks(n=8), masks(n=8, seed=1))


def test_distractors_are_the_other_masked_frames_each_as_often():
    torch.manual_seed(0)
    counts = torch.tensor([7, 2, 4])
    drawn = negatives(counts, 7, 6000)
    assert drawn.shape == (3, 7, 6000) and drawn.dtype == torch.int64
    for row, count in zip(drawn, counts.tolist()):
        for own in range(count):
            often = row[own].bincount(minlength=count)
            assert often[own] == 0 and len(often) == count
            others = torch.cat([often[:own], often[own + 1 :]]).float() / 6000
            torch.testing.assert_close(others, torch.full((count - 1,), 1 / (count - 1)), atol=0.03, rtol=0)


def test_a_lone_masked_frame_and_none_have_no_others():
    drawn = negatives(torch.tensor([1, 0]), 3, 5)
    assert not drawn.any()
