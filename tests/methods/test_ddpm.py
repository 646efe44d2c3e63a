"""DDPM: loss, sampling, the bound, and diffusers' layout."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch

from unlabeled.core.batch import Record, Spec
from unlabeled.core.clock import Clock
from unlabeled.core.config import resolve
from unlabeled.core.errors import UserError
from unlabeled.data.sources.memory import ImagesInMemory
from unlabeled.engine.optimise import parts_of
from unlabeled.methods.ddpm import DDPM, to_pixels, to_signal


def tiny(size=8, channels=1, **changes):
    torch.manual_seed(0)
    return DDPM(resolve(DDPM, "tiny", changes), Spec("image", image_size=size, channels=channels))


def images(n=16, size=8, channels=1):
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (n, size, size, channels), dtype=np.uint8))


class Known(torch.nn.Module):
    """The exact prediction of the noise for images whose pixels are all the same known value."""

    def __init__(self, method, value):
        super().__init__()
        self.chain, self.value = method.chain, torch.nn.Parameter(torch.tensor(value))

    def forward(self, x, t):
        a, s = self.chain.scales(t, x)
        return (x - a * self.value) / s


def test_published_sizes():
    counts = {}
    for name, channels in (("cifar10", 3), ("lsun256", 3), ("laptop", 1)):
        with torch.device("meta"):
            method = DDPM(resolve(DDPM, name), Spec("image", image_size=32, channels=channels))
        counts[name] = sum(p.numel() for p in method.parameters())
    assert counts["cifar10"] == 35_746_307
    assert counts["lsun256"] == pytest.approx(114e6, rel=0.01)
    assert counts["laptop"] < 3e6


def test_paper_optimiser():
    plan = DDPM(resolve(DDPM, None), Spec("image", image_size=32, channels=3)).optimizers()["main"]
    assert (plan.algorithm, plan.clip_norm, plan.weight_decay) == ("adam", 1.0, 0.0)
    assert plan.lr(Clock(step=10**6, examples=640_000, progress=0.5)) == 2e-4
    assert plan.lr(Clock(step=2500, examples=320_000, progress=0.1)) == pytest.approx(1e-4, rel=1e-3)


def test_pixels_and_signal_are_inverse():
    every = torch.arange(256, dtype=torch.uint8).view(1, 16, 16, 1)
    assert torch.equal(to_pixels(to_signal(every)), every)
    assert float(to_signal(every).min()) == -1 and float(to_signal(every).max()) == 1


def test_transform_noises_by_the_closed_form_and_flips_half():
    method = tiny()
    image = images(400)
    torch.manual_seed(1)
    batch = method.transform({"image": image}, Clock())
    a, s = method.chain.scales(batch["t"], batch["x"])
    x0 = (batch["x"] - s * batch["noise"]) / a
    straight, mirrored = to_signal(image), to_signal(image).flip(3)
    kept = (x0 - straight).abs().amax((1, 2, 3)) < 0.01
    assert torch.equal(~kept, (x0 - mirrored).abs().amax((1, 2, 3)) < 0.01)
    assert 150 < int(kept.sum()) < 250
    assert batch["t"].min() >= 0 and batch["t"].max() == 99
    plain = tiny(flip=False).transform({"image": image}, Clock())
    a, s = method.chain.scales(plain["t"], plain["x"])
    torch.testing.assert_close((plain["x"] - s * plain["noise"]) / a, straight, atol=0.01, rtol=0)


def test_untrained_loss_is_one_and_its_quarters_average_to_it():
    method = tiny()
    torch.manual_seed(0)
    batch = method.transform({"image": images(256)}, Clock())
    outcome = method.loss(batch, "main", Clock())
    assert float(outcome.loss) == pytest.approx(float(batch["noise"].square().mean()), rel=1e-6)
    assert float(outcome.loss) == pytest.approx(1, abs=0.05)
    quarters = [float(outcome.logs[f"error_quarter_{q}"]) for q in (1, 2, 3, 4)]
    assert sum(quarters) / 4 == pytest.approx(float(outcome.loss), rel=1e-5)


def test_loss_stays_float32_under_autocast():
    method = tiny()
    batch = method.transform({"image": images()}, Clock())
    with torch.autocast("cpu", torch.bfloat16):
        assert method.loss(batch, "main", Clock()).loss.dtype == torch.float32


def test_it_learns_one_image_and_samples_it():
    method = tiny(flip=False)
    image = torch.zeros(1, 8, 8, 1, dtype=torch.uint8)
    image[:, 2:6, 1:7] = 220

    def distance(steps):
        torch.manual_seed(0)
        return float((method.sample(4, steps=steps)["image"].float() - image.float()).abs().mean())

    before = distance(20)
    part = parts_of(method)["main"]
    for step in range(100):
        outcome = method.loss(method.transform({"image": image.expand(16, -1, -1, -1)}, Clock()), "main", Clock())
        outcome.loss.backward()
        part.step(Clock(step=step + 100, examples=(step + 100) * 16, progress=step / 100))
    method.eval()
    assert distance(20) < before / 3 and distance(100) < before / 3
    assert float(method.score({"image": image})) > float(method.score({"image": 255 - image})) + 100


@pytest.mark.parametrize("steps", [None, 1, 7, 100])
def test_samples_of_a_perfect_model_are_its_image(steps):
    method = tiny()
    method.net = Known(method, 0.5)
    drawn = method.sample(3, steps=steps)["image"]
    assert drawn.shape == (3, 8, 8, 1) and drawn.dtype == torch.uint8
    assert (drawn == round(1.5 * 127.5)).all()


def test_samples_repeat_with_the_seed_and_differ_without():
    method = tiny().eval()
    drawn = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        drawn.append(method.sample(2, steps=5)["image"])
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])


def test_trajectory_goes_from_noise_to_the_sample():
    method = tiny(sampling_noise=0.0)  # what is mixed with noise again need not become narrower at every step
    method.net = Known(method, -1.0)
    strip = method.trajectory(2, steps=50, frames=5)
    assert strip.shape == (2, 5, 8, 8, 1) and strip.dtype == torch.uint8
    spread = strip.float().std((0, 2, 3, 4))
    assert float(spread[0]) > 60 and (spread[1:] <= spread[:-1]).all() and (strip[:, -1] == 0).all()


def test_impossible_wishes_get_a_sentence():
    method = tiny()
    with pytest.raises(UserError, match="1 to 100 steps"):
        method.sample(1, steps=101)
    with pytest.raises(UserError, match="unconditional"):
        method.sample(1, condition="a cat")


def test_bound_is_complete_when_it_looks_everywhere():
    """With a point per term the estimate is the sum of all terms, here written out."""
    method = tiny(noise_steps=30, sampling_steps=30).eval()
    batch = {"image": images(3)}
    x0, chain = to_signal(batch["image"]), method.chain
    generator = torch.Generator().manual_seed(0)
    nats = chain.prior_kl(x0.double())
    for step in range(30):
        if step:
            torch.randint(step, step + 1, (3,), generator=generator)
        t = torch.full((3,), step)
        x_t = chain.noised(x0, t, torch.randn(x0.shape, generator=generator))
        with torch.no_grad():
            guess = method.denoise(x_t, t).double()
        term = chain.step_kl if step else chain.decoder_nats
        nats = nats + term(x0.double(), guess, x_t.double(), t, "large")
    # Stretches grow with t; only with far more of them than terms are all of length one.
    method.config = dataclasses.replace(method.config, bound_points=10_000)
    torch.testing.assert_close(method.score(batch), -nats, rtol=1e-9, atol=0)


def test_bound_with_few_points_is_unbiased_and_repeatable():
    method = tiny(bound_points=8, noise_steps=30).eval()
    batch = {"image": images(1).expand(64, -1, -1, -1)}  # many places and noises for one image
    few = method.score(batch)
    assert torch.equal(few, method.score(batch))
    method.config = dataclasses.replace(method.config, bound_points=10_000)
    full = method.score(batch)
    error = float(few.std()) / 8
    assert abs(float(few.mean() - full.mean())) < 4 * error
    assert error < 0.05 * abs(float(full.mean()))


def test_bound_of_a_perfect_model_is_the_decoders_alone():
    """Where the model knows the image, all terms but the last come to the gap between the two variances."""
    method = tiny(variance="small")
    method.net = Known(method, 2 * 128 / 255 - 1)
    nats = -float(method.score({"image": torch.full((1, 8, 8, 1), 128, dtype=torch.uint8)}))
    scale = math.exp(float(method.chain.log_variance("small")[0]) / 2)
    bin_share = math.erf(1 / 255 / scale / math.sqrt(2))
    prior = float(method.chain.prior_kl(torch.full((1, 64), 2 * 128 / 255 - 1, dtype=torch.float64)))
    assert nats == pytest.approx(-64 * math.log(bin_share) + prior, abs=1e-3)


@pytest.mark.parametrize(("limit", "side", "expected"), [(0, 15, 16), (12, 28, 12), (32, 28, 28), (0, 3, 4)])
def test_measure_rounds_to_what_the_levels_halve(limit, side, expected):
    config = resolve(DDPM, "tiny", {"image_size": limit})
    assert DDPM.measure(config, ImagesInMemory(np.zeros((2, side, side, 1), np.uint8))).image_size == expected


def test_prepare_brings_images_to_size():
    example = tiny().prepare(Record("a", {"image": np.zeros((20, 30), np.uint8)}), np.random.default_rng(0))
    assert example["image"].shape == (8, 8, 1) and example["image"].dtype == np.uint8


def stirred(method):
    for p in method.parameters():
        torch.nn.init.normal_(p, std=0.1)
    return method.eval()


def test_diffusers_opens_what_we_export_and_we_what_it_writes(tmp_path):
    from diffusers import UNet2DModel
    from safetensors.torch import save_file

    method = stirred(tiny(channels=3))
    tensors, about = method.export()
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "config.json").write_text(json.dumps(about))
    save_file(dict(tensors), tmp_path / "ours" / "diffusion_pytorch_model.safetensors", {"format": "pt"})
    theirs = UNet2DModel.from_pretrained(tmp_path / "ours").eval()
    x, t = torch.randn(2, 3, 8, 8), torch.tensor([3, 90])
    with torch.no_grad():
        torch.testing.assert_close(theirs(x, t).sample, method.net(x, t), atol=1e-5, rtol=1e-5)
    theirs.save_pretrained(tmp_path / "theirs")
    assert DDPM.opens(tmp_path / "theirs") and not DDPM.opens(tmp_path)
    again = DDPM.from_pretrained(tmp_path / "theirs").eval()
    with torch.no_grad():
        assert torch.equal(again.net(x, t), method.net(x, t))
    assert (again.spec.image_size, again.spec.channels, again.config.mult) == (8, 3, (1, 2))


def test_other_networks_are_refused_with_a_sentence(tmp_path):
    from diffusers import UNet2DModel

    UNet2DModel(8, block_out_channels=(32,), down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",)
                ).save_pretrained(tmp_path)  # fmt: skip
    with pytest.raises(UserError, match="norm_eps"):
        DDPM.from_pretrained(tmp_path)
