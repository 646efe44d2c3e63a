"""GAN: whose weights move, who sees which noise, penalties, diagnosis, samples, and that it learns."""

import copy
import math

import numpy as np
import pytest
import torch

from tests.contract.made import source_for
from unlabeled.core import catalogue
from unlabeled.core.batch import Record, Spec
from unlabeled.core.clock import Clock
from unlabeled.core.config import resolve
from unlabeled.core.errors import UserError
from unlabeled.data.sources.memory import ImagesInMemory
from unlabeled.data.store import build
from unlabeled.engine.loop import Settings, Trainer
from unlabeled.engine.machine import step_flops
from unlabeled.engine.precision import precision
from unlabeled.engine.record import Run
from unlabeled.evaluate.frechet import frechet
from unlabeled.methods.gan import GAN


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("UNLABELED_CACHE", str(tmp_path / "cache"))


def made(variant="tiny", size=16, channels=1, **changes):
    torch.manual_seed(0)
    return GAN(resolve(GAN, variant, changes), Spec("image", image_size=size, channels=channels))


def images(n=16, size=16, channels=1):
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (n, size, size, channels), dtype=np.uint8))


def played(method, n=16, clock=None):
    torch.manual_seed(1)
    batch = method.transform({"image": images(n, method.spec.image_size, method.spec.channels)}, clock or Clock())
    return list(method.updates(batch, clock or Clock()))


def slim(**changes):
    """The networks of 2014, narrow."""
    return made("paper", 8, width=16, discriminator_width=6, dropout=(0.0, 0.0), batch=16, **changes)


BATCH_NORM = {"norm": "batch", "penalty": "none"}


def test_published_settings():
    paper, dcgan = resolve(GAN, "paper"), resolve(GAN, "dcgan")
    assert paper == GAN.Config() and (paper.batch, paper.lr, paper.momentum) == (100, 0.1, 0.5)
    assert (dcgan.batch, dcgan.lr, dcgan.momentum, dcgan.latent) == (128, 2e-4, 0.5, 100)
    with torch.device("meta"):
        method = GAN(paper, Spec("image", image_size=28, channels=1))
        wide = GAN(dcgan, Spec("image", image_size=64, channels=3))
    assert sum(p.numel() for p in method.generator.parameters()) == 2_503_984
    assert sum(p.numel() for p in method.discriminator.parameters()) == 1_231_441
    assert wide.generator.project.out_features == 1024 * 4 * 4  # figure 1 of Radford et al.


def test_the_rate_of_2014_falls_to_its_floor():
    rate = slim().optimizers()["generator"].lr
    assert rate(Clock(step=0)) == 0.1
    assert rate(Clock(step=1)) == pytest.approx(0.1 / 1.000004, rel=1e-12)
    assert rate(Clock(step=10**7)) == 1e-6


def test_a_discriminator_without_an_opinion_loses_two_log_two():
    method = slim()
    torch.nn.init.zeros_(method.discriminator.logit.weight)
    (_, real), (_, noise) = played(method)
    assert method.loss(real, "discriminator", Clock()).loss.item() == pytest.approx(2 * math.log(2), abs=1e-6)
    assert method.loss(noise, "generator", Clock()).loss.item() == pytest.approx(math.log(2), abs=1e-6)


@pytest.mark.parametrize("changes", [{}, BATCH_NORM, {"penalty": "gradient"}, {"game": "hinge"}])
def test_no_player_moves_the_other(changes):
    method = made(**changes).train()
    for part, batch in played(method):
        method.zero_grad(set_to_none=True)
        method.discriminator.requires_grad_(part == "discriminator")
        method.generator.requires_grad_(part == "generator")
        method.loss(batch, part, Clock()).loss.backward()
        for name, network in method.networks().items():
            for p in network.parameters():
                assert (p.grad is not None) == (name == part)
    assert method.loss(batch, "generator", Clock()).logs["signal"] <= 1


def test_each_update_of_the_discriminator_has_images_and_noise_of_its_own():
    method = made(discriminator_steps=4)
    *discriminator, (last, own) = played(method)
    assert [part for part, _ in discriminator] == ["discriminator"] * 4 and last == "generator"
    seen = torch.cat([b["real"] for _, b in discriminator])
    assert seen.shape == (16, 1, 16, 16) and len(seen.flatten(1).unique(dim=0)) == 16
    noise = torch.cat([*(b["z"] for _, b in discriminator), own["z"]])
    assert noise.shape == (20, 8) and len(noise.unique(dim=0)) == 20


def test_few_images_for_many_updates_leave_none_of_them_empty():
    method = made(discriminator_steps=8)
    assert all(len(batch["z"]) for _, batch in played(method, 4))


def test_images_come_in_the_range_of_the_generator():
    for method, low in ((made(), -1.0), (slim(), 0.0)):
        size = method.spec.image_size
        black_and_white = torch.stack([torch.zeros(size, size, 1), torch.full((size, size, 1), 255.0)]).byte()
        real = method.transform({"image": black_and_white}, Clock())["real"]
        assert real[0].unique().tolist() == [low] and real[1].unique().tolist() == [1.0]
        fake = method.generator(torch.randn(64, method.config.latent))
        assert fake.min() >= low and fake.max() <= 1


def test_noise_is_of_the_kind_asked_for():
    for kind, deviation in (("normal", 1.0), ("uniform", 3**-0.5)):
        z = made(noise=kind, latent=50).transform({"image": images(64)}, Clock())["noise"]
        assert z.std().item() == pytest.approx(deviation, rel=0.05)
        assert (z.abs().max() <= 1) == (kind == "uniform")


def test_batch_statistics_of_real_and_generated_images_stay_apart():
    method = made(**BATCH_NORM, discriminator_steps=1).train()
    (_, batch), _ = played(method)
    got = method.loss(batch, "discriminator", Clock())
    real = method.discriminator(batch["real"])
    fake = method.discriminator(method.generator(batch["z"]))
    assert got.logs["on_real"].item() == pytest.approx(real.mean().item(), abs=1e-6)
    assert got.logs["on_fake"].item() == pytest.approx(fake.mean().item(), abs=1e-6)
    mixed = method.discriminator(torch.cat([batch["real"], method.generator(batch["z"])]))
    assert abs(mixed[:16].mean().item() - real.mean().item()) > 1e-5


def test_r1_is_added_now_and_then_with_as_much_more_weight():
    method, plain = made(penalty_weight=3.0, penalty_every=4, norm="none"), made(penalty="none", norm="none")
    plain.load_state_dict(method.state_dict())
    (_, batch), *_ = played(method)
    bare = plain.loss(batch, "discriminator", Clock()).loss
    x = batch["real"].clone().requires_grad_()
    (slope,) = torch.autograd.grad(method.discriminator(x).sum(), x)
    by_hand = 3.0 / 2 * 4 * slope.square().sum((1, 2, 3)).mean()
    for step in range(5):
        got = method.loss(batch, "discriminator", Clock(step=step))
        wanted = bare + by_hand if step % 4 == 0 else bare
        torch.testing.assert_close(got.loss, wanted, atol=1e-6, rtol=1e-5)
        assert ("penalty" in got.logs) == (step % 4 == 0)


@pytest.mark.parametrize("penalty", ["r1", "gradient"])
@pytest.mark.parametrize("norm", ["none", "spectral"])
def test_the_work_of_a_step_can_be_counted_with_a_penalty(penalty, norm):
    method = made(penalty=penalty, norm=norm, discriminator_steps=1).train()
    torch.manual_seed(1)
    batch = method.transform({"image": images()}, Clock())
    counted = step_flops(method, batch, Clock(), precision("float32"), 16)
    assert counted > step_flops(made(penalty="none", norm=norm), batch, Clock(), precision("float32"), 16) > 0


def test_the_gradient_penalty_looks_between_real_and_generated_images():
    method = made(penalty="gradient", penalty_weight=10.0, penalty_every=1, norm="none", game="wasserstein")
    (_, batch), *_ = played(method)
    fake, place = method.generator(batch["z"]).detach(), batch["place"].view(-1, 1, 1, 1)
    x = ((1 - place) * batch["real"] + place * fake).requires_grad_()
    (slope,) = torch.autograd.grad(method.discriminator(x).sum(), x)
    by_hand = 10 * (slope.flatten(1).norm(dim=1) - 1).square().mean()
    got = method.loss(batch, "discriminator", Clock())
    difference = method.discriminator(fake).mean() - method.discriminator(batch["real"]).mean()
    torch.testing.assert_close(got.loss, by_hand + difference, atol=1e-5, rtol=1e-5)


def test_power_iterations_follow_the_discriminator_only():
    method = made()
    before = copy.deepcopy(method.state_dict())

    def moved():
        return {k for k, v in method.state_dict().items() if not torch.equal(v, before[k])}

    with torch.no_grad():
        method.after_update("generator", [], Clock())
        assert not moved()
        for p in method.discriminator.parameters():
            p.mul_(torch.rand_like(p))
        before = copy.deepcopy(method.state_dict())
        method.after_update("discriminator", [], Clock())
    assert moved() and all(k.endswith((".u", ".v")) for k in moved())


@pytest.mark.parametrize(
    "variant, changes, says",
    [
        ("tiny", {"norm": "batch"}, "batch norm mixes"),
        ("tiny", {"discriminator_steps": 3}, "does not divide"),
        ("paper", {"norm": "spectral"}, "--network dcgan"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(variant, changes, says):
    with pytest.raises(UserError, match=says):
        made(variant, **changes)


def test_sizes_are_rounded_up_to_what_halves_evenly_for_convolutions_only():
    source = ImagesInMemory(images(4, 30)[..., 0].numpy())
    assert GAN.measure(resolve(GAN, "tiny"), source).image_size == 16
    assert GAN.measure(resolve(GAN, "tiny", {"image_size": 0}), source).image_size == 32
    assert GAN.measure(resolve(GAN, "paper"), source).image_size == 30
    prepared = made(size=32, image_size=0).prepare(Record("0", {"image": images(1, 30)[0].numpy()}), None)
    assert prepared["image"].shape == (32, 32, 1)


def test_samples_use_the_statistics_of_the_weights_they_come_from():
    method = made(batch=16).train()
    with torch.no_grad():
        for p in method.generator.parameters():  # as an average would, away from what the statistics were of
            p.add_(0.5 * torch.randn_like(p))
    torch.manual_seed(3)
    z = torch.randn(400, 8)
    expected = ((method.generator.train()(z) + 1) * 127.5).detach().permute(0, 2, 3, 1)
    torch.manual_seed(3)
    got = method.eval().sample(400, steps=7)["image"]
    assert got.dtype == torch.uint8 and got.shape == (400, 16, 16, 1)
    assert (got.float() - expected).abs().mean() < 6  # of 255; two draws of a few hundred
    with pytest.raises(UserError, match="unconditional"):
        method.sample(1, condition="a shoe")


def run(folder, steps, **changes):
    kind, source = catalogue.method("gan"), source_for(GAN)
    config = resolve(kind, "tiny", changes)
    torch.manual_seed(0)
    method = kind(config, kind.measure(config, source))
    store = build(source, method)
    settings = Settings(budget=f"{steps}steps", precision="float32", save_every="100000steps", log_every="10steps")
    t = Trainer(method, store, Run.create(folder, {"system": "gan"}), settings)
    t.train()
    method.load_state_dict(t.final_state())
    return t, method.eval()


def coarse(pictures):
    """(n, 16) mean brightness of 4 x 4 places."""
    x = torch.as_tensor(pictures).float().permute(0, 3, 1, 2) / 255
    return torch.nn.functional.avg_pool2d(x, 4).flatten(1).numpy()


def test_it_learns_and_is_called_healthy(tmp_path):
    real = coarse(source_for(GAN).images)
    torch.manual_seed(2)
    before = frechet(real, coarse(made().eval().sample(200)["image"]))
    t, method = run(tmp_path / "run", 300)
    torch.manual_seed(2)
    after = frechet(real, coarse(method.sample(200)["image"]))
    assert after < 0.5 * before
    findings = method.diagnose(t.run.metrics())
    assert len(findings) == 3 and all(f.healthy for f in findings), findings


def test_a_generator_without_signal_is_named(tmp_path):
    # The loss of equation 1 against a discriminator that is far ahead and free.
    free = {"game": "minimax", "norm": "none", "penalty": "none", "lr": 1e-4, "discriminator_lr": 1e-2}
    t, method = run(tmp_path / "run", 150, **free)
    unhealthy = {f.name for f in method.diagnose(t.run.metrics()) if not f.healthy}
    assert {"generator's signal", "discriminator's share right"} <= unhealthy


def test_collapse_is_named():
    method = made()
    rows = [{"discriminator/right_on_real": 0.7, "discriminator/right_on_fake": 0.6, "generator/signal": 0.5}] * 8
    for diversity, healthy in ((0.1, False), (0.95, True)):
        found = method.diagnose([row | {"discriminator/diversity": diversity} for row in rows])
        assert {f.name: f.healthy for f in found}["diversity of samples"] is healthy
        assert all(f.meaning.endswith(".") for f in found)


def test_diversity_is_one_for_the_data_and_none_for_one_image():
    method = made(discriminator_steps=1)
    (_, batch), _ = played(method)
    with torch.no_grad():
        method.generator.project.weight.zero_()  # every noise gives the same image
    assert method.loss(batch, "discriminator", Clock()).logs["diversity"].item() < 1e-3
    method.generator.forward = lambda z: batch["real"]
    assert method.loss(batch, "discriminator", Clock()).logs["diversity"].item() == pytest.approx(1, abs=1e-6)
