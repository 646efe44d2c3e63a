"""VAE against the formulas of its paper, against exact probabilistic PCA, and what breaks it."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

from tests.contract.made import tiny, trainer
from unlabeled.core.batch import Spec
from unlabeled.core.clock import Clock
from unlabeled.core.config import resolve
from unlabeled.core.errors import UserError
from unlabeled.data.sources.memory import ImagesInMemory
from unlabeled.methods.vae import VAE
from unlabeled.objectives import gaussians

GREY = Spec(kind="image", image_size=28, channels=1)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("UNLABELED_CACHE", str(tmp_path / "cache"))


def build(variant=None, spec=GREY, **overrides):
    torch.manual_seed(0)
    return VAE(resolve(VAE, variant, overrides), spec)


def batch_of(method, n=6):
    size, channels = method.spec.image_size, method.spec.channels
    image = torch.randint(256, (n, size, size, channels), dtype=torch.uint8)
    if method.config.likelihood == "bernoulli":
        image = (image > 127).to(torch.uint8) * 255
    return {"image": image, "noise": torch.randn(n, method.config.latents)}


def test_the_papers_network_has_its_size():
    # 784-500 tanh-(20, 20) and 20-500 tanh-784
    assert sum(p.numel() for p in build().parameters()) == 815_824


def test_losses_and_gradients_are_those_of_the_usual_formulas():
    """As other libraries write them: sigmoid and binary cross-entropy on probabilities, -(1 + l - m^2 - e^l) / 2."""
    method = build(hidden=(512,), latents=16, activation="relu", init_std=0.0)
    layers = {
        "in": nn.Linear(784, 512),
        "mean": nn.Linear(512, 16),
        "log_var": nn.Linear(512, 16),
        "up": nn.Linear(16, 512),
        "out": nn.Linear(512, 784),
    }
    mine = {
        "in": method.encoder.body[0],
        "mean": method.encoder.mean,
        "log_var": method.encoder.log_var,
        "up": method.decoder.body[0][0],
        "out": method.decoder.body[1],
    }
    for name, layer in layers.items():
        layer.load_state_dict(mine[name].state_dict())
    batch = batch_of(method)
    x = batch["image"].flatten(1) / 255
    h = layers["in"](x).relu()
    mean, log_var = layers["mean"](h), layers["log_var"](h)
    z = mean + (0.5 * log_var).exp() * batch["noise"]
    p = torch.sigmoid(layers["out"](layers["up"](z).relu()))
    told = F.binary_cross_entropy(p, x, reduction="none").sum(1)
    kl = -0.5 * (1 + log_var - mean.square() - log_var.exp()).sum(1)
    theirs = (told + kl).mean()
    theirs.backward()
    outcome = method.loss(batch, "main", Clock())
    outcome.loss.backward()
    torch.testing.assert_close(outcome.loss, theirs, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(outcome.logs["kl"], kl.mean().detach(), rtol=1e-5, atol=1e-5)
    for name, layer in layers.items():
        torch.testing.assert_close(mine[name].weight.grad, layer.weight.grad, rtol=1e-4, atol=1e-5)


def linear(q):
    """Digits (n, 64) without their mean, a linear VAE of q latents, and its optimum (Tipping & Bishop 1999; Lucas et al. 2019):

    the exact log-likelihood of probabilistic PCA per image and its variance, and for the network the exact posterior,
    which is diagonal where the decoder's columns are orthogonal.
    """
    x = torch.from_numpy(load_digits().data) / 16
    x = x - x.mean(0)
    values, vectors = torch.linalg.eigh(x.T @ x / len(x))
    noise = values[:-q].mean()  # the mean of what is discarded
    d = x.shape[1]
    exact = -0.5 * (d * math.log(2 * math.pi) + values[-q:].log().sum() + (d - q) * noise.log() + d)
    weights = vectors[:, -q:] * (values[-q:] - noise).sqrt()
    scale = weights.square().sum(0) + noise  # the diagonal of W'W + s^2
    method = build(spec=Spec(kind="image", image_size=8, channels=1), hidden=(), latents=q, init_std=0.0).double()
    return x, method, noise, exact, weights, scale


def told_and_gap(method, x, noise_of_z, log_s2):
    """Of each image: log p(x | z), and log q(z | x) - log p(z) at the z drawn, and the closed KL."""
    mean, log_var = method.encoder(x.view(len(x), 8, 8, 1))
    mean, log_var = mean.double(), log_var.double()
    z = gaussians.drawn(mean, log_var, noise_of_z)
    zero = torch.zeros((), dtype=torch.float64)
    told = gaussians.log_prob(x, method.decoder(z).flatten(1), log_s2).sum(1)
    gap = (gaussians.log_prob(z, mean, log_var) - gaussians.log_prob(z, zero, zero)).sum(1)
    return told, gap, gaussians.kl_to_standard(mean, log_var).sum(1)


def test_with_the_optimum_of_a_linear_vae_every_draw_gives_the_likelihood():
    x, method, noise, exact, weights, scale = linear(8)
    with torch.no_grad():
        method.encoder.mean.weight.copy_((weights / scale).T)
        method.decoder.body[1].weight.copy_(weights)
        method.encoder.log_var.weight.zero_()
        method.encoder.log_var.bias.copy_((noise / scale).log())
        for layer in (method.encoder.mean, method.decoder.body[1]):
            layer.bias.zero_()
        told, gap, _ = told_and_gap(method, x, torch.randn(len(x), 8, dtype=torch.float64), noise.log())
        c = torch.distributions.MultivariateNormal(
            torch.zeros(64, dtype=torch.float64), weights @ weights.T + noise * torch.eye(64, dtype=torch.float64)
        )
        # Latents pass through float32.
        torch.testing.assert_close(told - gap, c.log_prob(x), rtol=1e-4, atol=1e-3)
        assert c.log_prob(x).mean().item() == pytest.approx(exact.item(), abs=1e-8)
        draws = [told_and_gap(method, x, torch.randn(len(x), 8).double(), noise.log()) for _ in range(30)]
    bound = torch.stack([(told - kl).mean() for told, _, kl in draws])
    assert bound.mean().item() == pytest.approx(exact.item(), abs=5 * bound.std().item() / 30**0.5)


def test_a_linear_vae_learns_probabilistic_pca():
    x, method, noise, exact, _, _ = linear(8)
    log_s2 = nn.Parameter(torch.zeros((), dtype=torch.float64))
    optimizer = torch.optim.Adam([*method.parameters(), log_s2], lr=1e-2)
    steps = 3000
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        rows = x[torch.randint(len(x), (200,))]
        told, _, kl = told_and_gap(method, rows, torch.randn(200, 8, dtype=torch.float64), log_s2)
        optimizer.zero_grad()
        (kl - told).mean().backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        draws = [told_and_gap(method, x, torch.randn(len(x), 8).double(), log_s2) for _ in range(50)]
        reached = torch.stack([(told - kl).mean() for told, _, kl in draws]).mean().item()
    assert exact.item() - 0.005 * abs(exact.item()) < reached < exact.item() + 0.01
    assert log_s2.exp().item() == pytest.approx(noise.item(), rel=0.03)


def test_the_kl_term_does_not_touch_the_decoder():
    grads = []
    for beta in (0.0, 1.0, 30.0):
        method = build("tiny", beta=beta)
        torch.manual_seed(1)
        method.loss(batch_of(method), "main", Clock()).loss.backward()
        grads.append([p.grad.clone() for p in method.decoder.parameters()])
    for one in grads[1:]:
        assert all(torch.equal(a, b) for a, b in zip(one, grads[0]))


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian", "logistic"])
def test_one_weighted_draw_is_the_bound_and_more_are_above_it(likelihood):
    method = build("tiny", likelihood=likelihood, score_samples=1)
    batch = batch_of(method, 8)
    with torch.no_grad():
        method.encoder.mean.weight.mul_(3)  # a poor q leaves something to gain
        single = []
        for _ in range(200):
            batch["noise"] = torch.randn(8, method.config.latents)
            single.append(-method.loss(batch, "main", Clock()).loss)
    bound, spread = torch.stack(single).mean().item(), torch.stack(single).std().item() / 200**0.5
    scores = []
    for k in (1, 16):
        torch.manual_seed(0)
        other = VAE(resolve(VAE, "tiny", {"likelihood": likelihood, "score_samples": k}), method.spec)
        other.load_state_dict(method.state_dict())
        repeated = {"image": batch["image"].repeat(40, 1, 1, 1)}
        scores.append(other.score(repeated).mean().item())
    assert scores[0] == pytest.approx(bound, abs=8 * spread + 1e-3)
    assert scores[1] > bound


def test_with_the_exact_posterior_every_draw_gives_the_likelihood():
    """Pixels that do not look at z: q = prior is exact, the KL is zero, and any number of draws gives log p(x)."""
    method = build("tiny", score_samples=5)
    with torch.no_grad():
        for layer in (method.encoder.mean, method.encoder.log_var, method.decoder.body[1]):
            layer.weight.zero_()
        method.encoder.mean.bias.zero_()
        method.encoder.log_var.bias.zero_()
    batch = batch_of(method)
    logit = method.decoder.body[1].bias.detach()
    exact = -F.binary_cross_entropy_with_logits(
        logit.expand(6, -1), batch["image"].flatten(1) / 255, reduction="none"
    ).sum(1)
    torch.testing.assert_close(method.score(batch).float(), exact, rtol=1e-5, atol=1e-4)


def test_probabilities_of_all_images_of_one_pixel_add_up():
    spec = Spec(kind="image", image_size=1, channels=1)
    for likelihood, components in (("gaussian", 1), ("logistic", 1), ("logistic", 3)):
        method = build("tiny", spec=spec, likelihood=likelihood, components=components)
        image = torch.arange(256, dtype=torch.uint8).view(256, 1, 1, 1)
        raw = method.decoder(torch.randn(1, 8)).expand(256, -1, -1, -1, -1)
        assert method.nats(image, raw).exp().sum().item() == pytest.approx(1, abs=1e-4)


def test_free_bits_warm_up_and_beta_change_the_loss_as_they_say():
    base = build("tiny")
    batch = batch_of(base)
    plain = base.loss(batch, "main", Clock())
    told, kl = plain.logs["reconstruction"], plain.logs["kl"]
    torch.testing.assert_close(plain.loss.detach(), told + kl)
    doubled = build("tiny", beta=2.0).loss(batch, "main", Clock()).loss
    torch.testing.assert_close(doubled.detach(), told + 2 * kl)
    warm = build("tiny", kl_warmup=0.2).loss(batch, "main", Clock(progress=0.05)).loss
    torch.testing.assert_close(warm.detach(), told + kl / 4)
    free = build("tiny", free_bits=5.0)
    torch.testing.assert_close(free.loss(batch, "main", Clock()).loss.detach(), told + 8 * 5.0)
    assert free.couples and not base.couples


def test_images_become_black_and_white_only_for_bernoulli():
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    source = ImagesInMemory(levels[None].repeat(4, 0))
    record, rng = source[0], np.random.default_rng(0)
    for overrides, wanted in (
        ({}, (levels > 127) * 255),
        ({"likelihood": "logistic"}, levels),
    ):
        method = build("tiny", spec=VAE.measure(resolve(VAE, "tiny", overrides), source), **overrides)
        assert (method.prepare(record, rng)["image"] == wanted).all()
    drawn = [
        build("tiny", spec=method.spec, binarise="sample").prepare(record, np.random.default_rng(s))["image"]
        for s in range(300)
    ]
    assert set(np.unique(drawn)) == {0, 255}
    assert np.abs(np.mean(drawn, 0) - levels).max() < 40  # 4.7 standard errors where they are largest


def test_a_setting_below_one_is_refused():
    with pytest.raises(UserError, match="1 or more"):
        VAE.measure(resolve(VAE, "tiny", {"score_samples": 0}), ImagesInMemory(np.zeros((4, 16, 16, 1), np.uint8)))


def findings(folder, monkeypatch, **overrides):
    monkeypatch.setattr("tests.contract.made.tiny", lambda name: tiny(name, **overrides))
    t = trainer("vae", folder, budget="150steps", save_every="1000steps", log_every="10steps")
    t.train()
    return {f.name: f for f in t.method.diagnose(t.run.metrics())}


def test_a_healthy_run_is_found_healthy(tmp_path, monkeypatch):
    found = findings(tmp_path / "run", monkeypatch)
    assert all(f.healthy for f in found.values()), found
    assert found["active latents"].value >= 4


def test_posterior_collapse_is_named(tmp_path, monkeypatch):
    found = findings(tmp_path / "run", monkeypatch, beta=100.0)
    assert not found["active latents"].healthy
    assert "Posterior collapse" in found["active latents"].meaning and "--beta" in found["active latents"].meaning
    assert not found["nats in the most telling latent"].healthy
