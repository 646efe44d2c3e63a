import numpy as np
import pytest
import torch

from unlabeled.data.melspec import deltas, log_mel, mfcc, per_recording, stacked


def chirp() -> torch.Tensor:
    t = np.arange(4000) / 16_000
    noise = np.random.default_rng(0).standard_normal(4000)
    return torch.from_numpy((0.3 * np.sin(2 * np.pi * (300 + 900 * t) * t) + 0.05 * noise).astype(np.float32))


# Frame 10 by kaldi_native_fbank 1.23.0, without dither, of the samples times 32,768: every tenth of 80 bins, 13 cepstra.
KALDI = {
    16_000: (
        [12.386, 14.4472, 16.4342, 17.3485, 19.9533, 20.4832, 22.3605, 23.3149],
        [102.9532, -22.7303, -0.5229, -16.5302, -26.9512, -36.6682, -37.93, -19.6229, 10.4541, 21.9598, 20.0393,
         23.3336, 15.5681],
    ),
    8_000: (
        [13.6741, 21.6956, 17.3076, 17.8866, 17.9131, 18.9875, 20.7045, 21.8734],
        [97.4149, -14.5581, 6.1527, 3.7759, -0.0555, 1.0551, -19.9454, -25.4234, -40.4029, -34.159, -28.0169,
         -25.1801, -28.2822],
    ),
}  # fmt: skip


@pytest.mark.parametrize("rate_hz", [16_000, 8_000])
def test_it_is_what_kaldi_computes(rate_hz):
    energies, cepstra = KALDI[rate_hz]
    np.testing.assert_allclose(log_mel(chirp(), rate_hz)[10, ::10], energies, atol=2e-4)
    np.testing.assert_allclose(mfcc(chirp(), rate_hz)[10], cepstra, atol=3e-4)


@pytest.mark.parametrize(("samples", "frames"), [(0, 0), (399, 0), (400, 1), (559, 1), (560, 2), (16_000, 98)])
def test_frames_lie_wholly_within_the_sound(samples, frames):
    assert log_mel(torch.zeros(samples)).shape == (frames, 80)
    assert mfcc(torch.zeros(2, samples)).shape == (2, frames, 13)
    assert torch.isfinite(log_mel(torch.zeros(samples))).all()  # silence has a logarithm too


def test_a_constant_is_not_heard_and_loudness_is_added():
    loud, soft = log_mel(2 * chirp()), log_mel(chirp())
    torch.testing.assert_close(loud - soft, torch.full_like(soft, 2 * float(np.log(2))), atol=1e-3, rtol=0)
    torch.testing.assert_close(log_mel(chirp() + 0.25), soft, atol=1e-2, rtol=0)


def test_deltas_are_slopes():
    line = 3 * torch.arange(20.0)[:, None] + torch.tensor([[0.0, 5.0]])
    torch.testing.assert_close(deltas(line)[2:-2], torch.full((16, 2), 3.0))
    torch.testing.assert_close(deltas(torch.ones(4, 1)), torch.zeros(4, 1))
    x = torch.randn(9, 2, generator=torch.Generator().manual_seed(0))
    at = [x[min(max(t, 0), 8)] for t in range(-2, 11)]
    byhand = torch.stack([((at[t + 3] - at[t + 1]) + 2 * (at[t + 4] - at[t])) / 10 for t in range(9)])
    torch.testing.assert_close(deltas(x), byhand)


def test_stacking_puts_each_frame_between_its_neighbours():
    x = torch.tensor([[0.0, 10], [1, 11], [2, 12]])
    assert stacked(x, 3).tolist() == [[0, 10, 0, 10, 1, 11], [0, 10, 1, 11, 2, 12], [1, 11, 2, 12, 2, 12]]
    assert stacked(x, 1).equal(x) and stacked(x[:0], 3).shape == (0, 6) and deltas(x[:0]).shape == (0, 2)


def test_each_recording_is_brought_to_mean_0_and_variance_1():
    x = per_recording(torch.tensor([[1.0, 7], [3, 7]]))
    torch.testing.assert_close(x, torch.tensor([[-1.0, 0], [1, 0]]))
