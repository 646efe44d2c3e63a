"""Glow: sizes, bits that are counted right, dequantisation, samples, the way there and back, what it says of failures."""

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
from unlabeled.methods.glow import Glow


def tiny(size=8, channels=1, **changes):
    torch.manual_seed(0)
    return Glow(resolve(Glow, "tiny", changes), Spec("image", image_size=size, channels=channels))


def images(n=16, size=8, channels=1):
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (n, size, size, channels), dtype=np.uint8))


def waves(n=96, size=8):
    row, column = np.mgrid[0:size, 0:size]
    angle, phase = np.random.default_rng(0).uniform(0, np.pi, (2, n, 1, 1))
    wave = np.sin((np.cos(angle) * row + np.sin(angle) * column) * 0.8 + phase)
    return torch.from_numpy(((wave + 1) * 127).astype(np.uint8)[..., None])


def trained(data, steps, **changes):
    """A tiny Glow after so many steps, and its history."""
    method = tiny(data.shape[1], **changes).train()
    part, history = parts_of(method)["main"], []
    for step in range(steps):
        clock = Clock(step=step, steps=steps, examples=16 * step, progress=step / steps)
        batch = method.transform({"image": data[torch.randperm(len(data))[:16]]}, clock)
        if step == 0:
            method.first_batch(batch)
        outcome = method.loss(batch, "main", clock)
        outcome.loss.backward()
        part.step(clock)
        history.append({"loss": float(outcome.loss.detach()), **{k: float(v) for k, v in outcome.logs.items()}})
    return method.eval(), history


class Uniform(torch.nn.Module):
    """The exact flow of images whose continuous pixels are uniform in [-0.5, 0.5)."""

    def forward(self, x):
        normal = torch.distributions.Normal(0.0, 1.0)
        z = normal.icdf((x.double() + 0.5).clamp(1e-9, 1 - 1e-9)).flatten(1)
        return z, -normal.log_prob(z).sum(1)


def test_published_sizes():
    counts = {}
    for name, size, channels, changes in (
        ("cifar10", 32, 3, {}),
        ("cifar10", 32, 3, {"coupling": "additive"}),
        ("imagenet32", 32, 3, {}),
        ("small", 28, 1, {}),
    ):
        with torch.device("meta"):
            method = Glow(resolve(Glow, name, changes), Spec("image", image_size=size, channels=channels))
        counts[name, *changes.values()] = sum(p.numel() for p in method.parameters())
    assert counts["cifar10",] == 44_603_604
    assert counts["cifar10", "additive"] == 38_395_668
    assert counts["imagenet32",] == 66_861_588
    assert counts["small",] < 1e6


def test_paper_optimiser():
    with torch.device("meta"):
        plan = Glow(resolve(Glow, None), Spec("image", image_size=32, channels=3)).optimizers()["main"]
    assert (plan.algorithm, plan.clip_norm, plan.weight_decay) == ("adam", None, 0.0)
    assert plan.lr(Clock(step=1000, examples=512_000, progress=0.5)) == 1e-3
    assert plan.lr(Clock(step=500, examples=256_000, progress=0.2)) == pytest.approx(5.12e-4, rel=2e-3)


@pytest.mark.parametrize("bits", [8, 5])
def test_a_uniform_guess_costs_all_bits(bits):
    method = tiny(bits=bits)
    method.flow = Uniform()
    batch = {"image": images(64)}
    loss = method.loss(method.transform(batch, Clock()), "main", Clock()).loss
    assert float(loss) == pytest.approx(bits, abs=1e-6)
    assert -float(method.score(batch).mean()) == pytest.approx(64 * bits * math.log(2), rel=1e-6)


def test_a_border_is_part_of_the_likelihood_but_no_dimension():
    method = tiny(size=6)
    assert method.side == 8
    method.flow = Uniform()
    loss = method.loss(method.transform({"image": images(4, 6)}, Clock()), "main", Clock()).loss
    assert float(loss) == pytest.approx(8 * 64 / 36, abs=1e-5)


def test_transform_fills_the_bins_evenly():
    method, image = tiny(size=6, bits=5), images(200, 6)
    x = method.transform({"image": image}, Clock())["x"]
    bins = (x + 0.5) * 32
    assert torch.equal(bins[:, 1:7, 1:7].floor().long(), image.long() // 8)
    border = bins.clone()
    border[:, 1:7, 1:7] = 0.5
    assert (border.floor() == 0).all()
    inside = bins.frac()
    assert abs(float(inside.mean()) - 0.5) < 0.01 and float(inside.std()) == pytest.approx(12**-0.5, rel=0.02)
    assert float((tiny(dequantise=False).transform({"image": images()}, Clock())["x"] * 256).frac().abs().max()) == 0


@pytest.mark.parametrize(("bits", "size"), [(8, 8), (8, 6), (5, 7), (1, 8)])
def test_pixels_come_back_from_anywhere_in_their_bins(bits, size):
    method, image = tiny(size=size, bits=bits), images(8, size)
    kept = image >> (8 - bits) << (8 - bits)
    for inside in (0.01, 0.5, 0.99):
        assert torch.equal(method._pixels(method._grid(image) + inside / method.bins), kept)


def test_shift_moves_whole_images_and_repeats_edges():
    method = tiny(shift=0.25)
    image = torch.arange(64, dtype=torch.uint8).view(1, 8, 8, 1).expand(300, 8, 8, 1)
    torch.manual_seed(0)
    got = ((method.transform({"image": image}, Clock())["x"] + 0.5) * 256).floor().long()[..., 0]
    seen = set()
    for one in got:
        down, right = int(one[4, 4]) // 8 - 4, int(one[4, 4]) % 8 - 4
        rows, columns = ((torch.arange(8) + by).clamp(0, 7) for by in (down, right))
        assert torch.equal(one, rows[:, None] * 8 + columns)
        seen.add((down, right))
    assert seen == {(a, b) for a in range(-2, 3) for b in range(-2, 3)}


def test_it_learns_and_scores_what_it_saw_higher():
    data = waves()
    method, history = trained(data, 200)
    assert history[-1]["loss"] < history[0]["loss"] - 2
    nats = method.score({"image": data[:32]})
    noise = method.score({"image": images(32)})
    assert nats.dtype == torch.float64 and (nats < 0).all()
    assert float(nats.mean()) > float(noise.mean()) + 100
    assert torch.equal(nats, method.score({"image": data[:32]}))


def test_trained_weights_invert_to_a_small_error_and_reconstruct_exactly():
    data = waves()
    method, _ = trained(data, 200)
    x = method.transform({"image": data}, Clock())["x"]
    with torch.no_grad():
        assert float((method.flow.invert(method.flow(x)[0]) - x).abs().max()) < 1e-4
        codes = method.encode({"image": data})
        assert codes.shape == (96, 64) and codes.dtype == torch.float32
        assert torch.equal(method.decode(codes)["image"], data)
        assert torch.equal(method.reconstruct({"image": data})["image"], data)


def test_latents_of_what_it_learned_are_standard():
    data = waves()
    method, _ = trained(data, 300, decay="cosine")
    with torch.no_grad():
        codes = method.encode({"image": data})
    assert abs(float(codes.mean())) < 0.1 and 0.8 < float(codes.std()) < 1.2


def test_temperature_narrows_samples_to_one():
    method = trained(waves(), 50)[0]
    torch.manual_seed(0)
    cold, warm = method.sample(4, guidance=0.0)["image"], method.sample(4, guidance=1.0)["image"]
    assert cold.dtype == torch.uint8 and cold.shape == (4, 8, 8, 1)
    assert (cold == cold[:1]).all() and not (warm == warm[:1]).all()
    torch.manual_seed(1)
    configured = trained(waves(), 0, temperature=0.0)[0].sample(2)["image"]
    assert (configured == configured[:1]).all()


def test_without_dequantisation_bits_fall_below_what_is_possible_and_it_says_so():
    # Pixels without any width are scaled up a millionfold by every activation norm that starts from them.
    flat = torch.full((16, 8, 8, 1), 128, dtype=torch.uint8)
    for dequantise in (False, True):
        method, history = trained(flat, 1, dequantise=dequantise)
        named = [f.name for f in method.diagnose(history) if not f.healthy]
        assert (history[0]["loss"] < 0) == (not dequantise) == ("bits per dimension" in named)
        method, history = trained(waves(), 60, dequantise=dequantise)
        named = [f.name for f in method.diagnose(history) if not f.healthy]
        assert named == ([] if dequantise else ["width of the noise on pixels, in bins"])


def test_a_healthy_run_is_called_so_and_one_that_diverged_is_not():
    method, history = trained(waves(), 102)
    findings = method.diagnose(history)
    assert len(findings) == 6 and all(f.healthy for f in findings), findings
    # Without initialisation from data, at a rate that is too high, it ends worse than a uniform guess.
    method, history = trained(waves(), 30, data_init=False, lr=0.3)
    assert "bits per dimension" in {f.name for f in method.diagnose(history) if not f.healthy}


def test_it_names_a_flow_that_does_not_invert():
    method, row = tiny(), {"loss": 4.0, "noise": 1.0, "latent_std": 1.0, "smallest_scale": 0.1}
    row |= {"inverse_error": 0.01, "smallest_singular": 1e-6}
    named = [f.name for f in method.diagnose([row]) if not f.healthy]
    assert named == ["error of the inverse, in bins", "smallest singular value of a mixing"]


def test_records_are_brought_to_the_size_that_was_measured():
    source = ImagesInMemory(images(2, 28).numpy())
    assert Glow.measure(resolve(Glow, "small"), source).image_size == 28
    spec = Glow.measure(resolve(Glow, "small", {"image_size": 12}), source)
    method = Glow(resolve(Glow, "small", {"image_size": 12}), spec)
    example = method.prepare(Record("0", {"image": images(1, 28)[0].numpy()}), np.random.default_rng(0))
    assert example["image"].shape == (12, 12, 1)


def test_impossible_wishes_get_a_sentence():
    with pytest.raises(UserError, match="1 to 8"):
        Glow.measure(resolve(Glow, "tiny", {"bits": 9}), ImagesInMemory(images().numpy()))
    with pytest.raises(UserError, match="unconditional"):
        tiny().sample(1, condition="a cat")
