"""VQ-VAE and its prior: sizes, gradients, the codebook outside the gradient, the bound, what is diagnosed."""

import dataclasses
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.contract.made import losses, source_for, trainer
from tests.parallel.processes import on_processes
from unlabeled.core import catalogue
from unlabeled.core.batch import Record, Spec
from unlabeled.core.clock import Clock
from unlabeled.core.config import resolve
from unlabeled.core.errors import UserError
from unlabeled.data.sources.memory import ImagesInMemory
from unlabeled.data.store import build
from unlabeled.engine.loop import Settings, Trainer
from unlabeled.engine.record import Run
from unlabeled.methods.vqvae import VQVAE, Prior

LOSS_RULE = {"rule": "loss", "restart": 0.0, "from_data": False}


def codes(size=8, channels=1, **changes):
    torch.manual_seed(0)
    return VQVAE(resolve(VQVAE, "tiny", changes), Spec("image", image_size=size, channels=channels))


def prior(size=8, channels=1, given=None, **changes):
    given = given or codes(size, channels)
    torch.manual_seed(0)
    return Prior(resolve(Prior, "tiny", changes), given.spec, {"codes": given})


def images(n=16, size=8, channels=1):
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (n, size, size, channels), dtype=np.uint8))


def batch_of(method, n=16):
    torch.manual_seed(1)
    return method.transform({"image": images(n, method.spec.image_size, method.spec.channels)}, Clock())


def weights(network):
    return sum(p.numel() for p in network.parameters())


def test_published_sizes():
    spec = Spec("image", image_size=128, channels=3)
    with torch.device("meta"):
        paper, example = VQVAE(resolve(VQVAE, None), spec), VQVAE(resolve(VQVAE, "cifar10"), spec)
    assert weights(paper.encoder) == 2_373_120 and weights(paper.decoder) == 2_372_867
    assert weights(paper.codebook) == 131_072 and weights(paper) == 4_877_059
    assert weights(example.encoder) == 364_160 + 8_256 and weights(example.decoder) == 290_307
    assert weights(example) == 662_723 and weights(example) + example.codebook.codes.numel() == 695_491


def same(x, kernel, stride=1):
    """TensorFlow's SAME padding of an even input."""
    pad = max(kernel - stride, 0)
    return F.pad(x, (pad // 2, pad - pad // 2) * 2)


def test_the_networks_are_those_of_the_authors_example():
    """The example's layers from its description, with the weights of ours."""
    method = codes(16, 3, blocks=2)
    w = dict(method.encoder.layers.named_parameters())
    x = torch.randn(2, 3, 16, 16)

    def conv(h, name, kernel, stride=1, w=w):
        return F.conv2d(same(h, kernel, stride), w[name + ".weight"], w[name + ".bias"], stride)

    def stack(h, name, conv):
        for block in range(2):
            inner = conv(h.relu(), f"{name}.blocks.{block}.1", 3)
            h = h + conv(inner.relu(), f"{name}.blocks.{block}.3", 1)
        return h.relu()

    h = conv(conv(conv(x, "0", 4, 2).relu(), "2", 4, 2).relu(), "4", 3).relu()
    torch.testing.assert_close(method.encoder(x), conv(stack(h, "6", conv), "8", 1), atol=1e-5, rtol=1e-5)

    z, v = torch.randn(2, 4, 4, 8), dict(method.decoder.layers.named_parameters())

    def back(h, name):
        return F.conv_transpose2d(h, v[name + ".weight"], v[name + ".bias"], 2, 1)

    def plain(h, name, kernel):
        return conv(h, name, kernel, w=v)

    h = stack(plain(z.permute(0, 3, 1, 2), "0", 3), "1", plain)
    torch.testing.assert_close(method.decoder(z), back(back(h, "3").relu(), "5"), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("rule", ["loss", "average"])
def test_loss_is_the_sum_of_its_terms(rule):
    method = codes(**(LOSS_RULE if rule == "loss" else {}))
    batch = batch_of(method)
    method.first_batch(batch)
    outcome = method.loss(batch, "main", Clock())
    x = batch["image"].permute(0, 3, 1, 2) / 255 - 0.5
    z = method.encoder(x)
    flat = z.permute(0, 2, 3, 1).reshape(-1, 8)
    nearest = method.codebook.codes[torch.cdist(flat, method.codebook.codes).argmin(1)]
    gap = F.mse_loss(flat, nearest)
    error = F.mse_loss(method.decoder(nearest.view(16, 2, 2, 8)), x) / x.var(correction=0)
    expected = error + (0.25 if rule == "average" else 1.25) * gap
    torch.testing.assert_close(outcome.loss, expected, atol=1e-5, rtol=1e-5)
    assert float(outcome.logs["commitment"]) == pytest.approx(gap.item(), rel=1e-5)


def test_gradients_go_where_the_paper_sends_them():
    """Reconstruction: to the encoder as if the codes were its output, not to the codes. Commitment: to the encoder
    alone, beta times. Codebook term: to the codes alone."""
    method = codes(**LOSS_RULE)
    batch = batch_of(method)
    held = []
    method.encoder.register_forward_hook(lambda m, i, out: held.append(out) or out.retain_grad())
    method.decoder.register_forward_hook(lambda m, i, out: held.append(i[0]) or i[0].retain_grad())
    method.loss(batch, "main", Clock()).loss.backward()
    z, straight = held[0], held[1]
    vectors = z.detach().permute(0, 2, 3, 1)
    picked, indices = method.codebook(vectors)
    pull = 2 * (vectors - picked.detach()) / vectors.numel()
    expected = straight.grad + 0.25 * pull
    torch.testing.assert_close(z.grad.permute(0, 2, 3, 1), expected, atol=1e-7, rtol=1e-5)
    pushed = torch.zeros(16, 8).index_add_(0, indices.flatten(), -pull.reshape(-1, 8))
    torch.testing.assert_close(method.codebook.codes.grad, pushed, atol=1e-7, rtol=1e-5)


def test_permuting_the_codes_changes_no_image_and_no_loss():
    method = codes()
    batch, order = batch_of(method), torch.randperm(16)
    before, image = method.loss(batch, "main", Clock()).loss, method.reconstruct(batch)["image"]
    method.codebook.codes.copy_(method.codebook.codes[order].clone())
    assert torch.equal(method.loss(batch, "main", Clock()).loss, before)
    assert torch.equal(method.reconstruct(batch)["image"], image)


def test_one_code_has_perplexity_one_and_costs_nothing():
    method = codes(codes=1)
    assert float(method.loss(batch_of(method), "main", Clock()).logs["perplexity"]) == pytest.approx(1)
    batch = batch_of(method)
    assert torch.equal(method.score(batch), method.nats(batch, method.encode(batch)))


@pytest.mark.parametrize("changes", [{}, {"debias": True}, {"restart_after": 0, "restart": 50.0}])
def test_one_microbatch_and_four_move_the_codebook_alike(changes):
    one, four = codes(**changes), codes(**changes)
    batch = batch_of(one)
    one.after_update("main", [one.loss(batch, "main", Clock())], Clock())
    pieces = [{k: v[i : i + 4] for k, v in batch.items()} for i in range(0, 16, 4)]
    four.after_update("main", [four.loss(p, "main", Clock()) for p in pieces], Clock())
    assert not torch.equal(one.codebook.codes, codes(**changes).codebook.codes)
    for name, value in one.named_buffers():
        torch.testing.assert_close(value, dict(four.named_buffers())[name], atol=1e-5, rtol=1e-5)


def _two(folder):
    trainer("vqvae.codes", folder / "vqvae.codes").train()
    _by_loss(folder / "loss")


def _by_loss(folder):
    from unlabeled.parallel.world import rank, together

    kind = catalogue.method("vqvae.codes")
    config, source = resolve(kind, "tiny", LOSS_RULE), source_for(kind)
    torch.manual_seed(0)
    method = kind(config, kind.measure(config, source))
    if rank() == 0:
        build(source, method)
        Run.create(folder, {"system": "vqvae.codes"})
    together()
    settings = Settings(budget="6steps", precision="float32", log_every="1steps")
    Trainer(method, build(source, method), Run(folder), settings).train()


def test_two_processes_move_the_codebook_as_one(tmp_path, monkeypatch):
    from safetensors.torch import load_file

    monkeypatch.setenv("UNLABELED_CACHE", str(tmp_path / "cache"))
    _two(tmp_path / "1")
    on_processes(2, _two, tmp_path / "2")
    for name in ("vqvae.codes", "loss"):
        for a, b in zip(losses(tmp_path / "1" / name), losses(tmp_path / "2" / name), strict=True):
            assert a == pytest.approx(b, rel=1e-4, abs=1e-5)
    one, two = ({}, {})
    for found, folder in ((one, "1"), (two, "2")):
        for file in (tmp_path / folder / "vqvae.codes" / "checkpoints").rglob("*.safetensors"):
            found |= {k: v for k, v in load_file(file).items() if "codebook" in k}
    assert any(k.endswith("codes") for k in one) and one.keys() == two.keys()
    for key, value in one.items():
        torch.testing.assert_close(value, two[key], atol=1e-4, rtol=1e-4)


def test_the_codebook_stands_still_outside_of_training():
    method = codes().eval()
    before = {k: v.clone() for k, v in method.state_dict().items()}
    batch = batch_of(method)
    method.loss(batch, "main", Clock())
    method.reconstruct(batch), method.score(batch)
    assert all(torch.equal(v, before[k]) for k, v in method.state_dict().items())


def test_a_decay_of_one_freezes_the_codebook():
    method = codes(decay=1.0, from_data=False, restart=0.0)
    before = method.codebook.codes.clone()
    batch = batch_of(method)
    method.after_update("main", [method.loss(batch, "main", Clock())], Clock())
    assert torch.equal(method.codebook.codes, before) and float(method.codebook.usage.sum()) != 16


@pytest.mark.parametrize("steps", [0, 3])
def test_given_the_codes_every_pixel_has_a_distribution_over_levels(steps):
    """Summing the likelihood over all levels of pixel i leaves the product of the others, if its distribution sums to
    one; over all 16 pixels that product has each factor 15 times."""
    method = codes(4)
    for _ in range(steps):
        method.after_update("main", [method.loss(batch_of(method), "main", Clock())], Clock())
    image = images(1, 4)
    grid = method.encode({"image": image})
    whole, left = method.nats({"image": image}, grid), 0.0
    for i, j in np.ndindex(4, 4):
        every = image.repeat(256, 1, 1, 1)
        every[:, i, j, 0] = torch.arange(256)
        left += method.nats({"image": every}, grid.expand(256, -1, -1)).logsumexp(0)
    torch.testing.assert_close(left, 15 * whole[0], atol=1e-9, rtol=1e-12)
    if not steps:  # nothing is known yet
        assert float(whole) == pytest.approx(-16 * math.log(256))


def test_score_is_the_priors_nats_and_the_decoders():
    method = prior()
    batch = {"image": images()}
    grid = method.encode(batch)
    logits = method.net(grid).log_softmax(1)
    own = logits.gather(1, grid[:, None]).sum((1, 2, 3))
    expected = own.double() + method.given["codes"].nats(batch, grid)
    torch.testing.assert_close(method.score(batch), expected, atol=1e-4, rtol=1e-5)
    uniform = method.given["codes"].score(batch) - method.given["codes"].nats(batch, grid)
    torch.testing.assert_close(uniform, torch.full((16,), -4 * math.log(16), dtype=torch.float64))


def learnt(steps=150, **changes):
    """A tiny VQ-VAE after so many steps on stripes, and its log."""
    from unlabeled.engine.optimise import parts_of

    method, store = codes(16, **changes), None
    source = source_for(VQVAE)
    store = torch.stack([torch.from_numpy(source[i].fields["image"]) for i in range(len(source))])
    part, rows = parts_of(method)["main"], []
    generator = torch.Generator().manual_seed(0)
    for step in range(steps):
        clock = Clock(step=step, steps=steps, progress=step / steps)
        picked = store[torch.randint(len(store), (16,), generator=generator)]
        torch.manual_seed(step)
        batch = method.transform({"image": picked}, clock)
        if step == 0:
            with torch.no_grad():
                method.first_batch(batch)
        outcome = method.loss(batch, "main", clock)
        outcome.loss.backward()
        part.step(clock)
        with torch.no_grad():
            method.after_update("main", [outcome], clock)
        rows.append({k: float(v) for k, v in outcome.logs.items()} | {"loss": outcome.loss.item()})
    return method.eval(), rows, store


@pytest.fixture(scope="module")
def trained():
    return learnt()


def test_it_learns_to_reconstruct_and_its_bound_beats_uniform_levels(trained):
    method, _, store = trained
    back = method.reconstruct({"image": store})["image"].float()
    mean = store.float().mean(0)
    assert float((back - store).square().mean()) < 0.5 * float((mean - store).square().mean())
    bits = -method.score({"image": store}) / 256 / math.log(2)
    assert 1.5 < float(bits.mean()) < 7.5


def test_a_healthy_run_is_healthy_and_a_frozen_codebook_is_named(trained):
    method, rows, _ = trained
    assert all(f.healthy for f in method.diagnose(rows)), method.diagnose(rows)
    assert not method.diagnose([])
    broken, rows, _ = learnt(decay=1.0, from_data=False, restart=0.0)
    assert [f.name for f in broken.diagnose(rows) if not f.healthy] == ["distortion"]


def test_a_collapsed_codebook_is_named():
    """The authors' rule alone: codes that the first batch leaves out become zero, and few are ever used."""
    method, rows, _ = learnt(codes=256, debias=True, from_data=False, restart=0.0)
    assert {"codes in use", "dead codes"} <= {f.name for f in method.diagnose(rows) if not f.healthy}
    method, rows, _ = learnt(codes=256)
    assert all(f.healthy for f in method.diagnose(rows))


def test_the_prior_learns_what_stands_beside_what(trained):
    from unlabeled.engine.optimise import parts_of

    given, _, store = trained
    method = prior(16, given=given, lr=1e-2)
    part, rows = parts_of(method)["main"], []
    for step in range(60):
        clock = Clock(step=step, steps=60, progress=step / 60)
        outcome = method.loss(method.transform({"image": store}, clock), "main", clock)
        outcome.loss.backward()
        part.step(clock)
        rows.append({k: float(v) for k, v in outcome.logs.items()})
    assert not method.diagnose(rows[:1])[0].healthy and method.diagnose(rows)[0].healthy
    assert not any(p.requires_grad for p in given.parameters())
    assert float((method.score({"image": store}) - given.score({"image": store})).mean()) > 5
    torch.manual_seed(0)
    drawn = method.sample(300)["image"]
    assert drawn.shape == (300, 16, 16, 1) and drawn.dtype == torch.uint8
    torch.manual_seed(0)
    assert torch.equal(method.sample(300)["image"], drawn)


def test_features_pass_the_gradient_to_the_encoder():
    method = codes()
    grid = method.embed_locally({"image": images()})
    assert grid.shape == (16, 4, 8)
    torch.testing.assert_close(grid, method.codebook.lookup(method.encode({"image": images()})).flatten(1, 2))
    grid.sum().backward()
    assert all(p.grad is not None for p in method.encoder.parameters())


@pytest.mark.parametrize(("limit", "side", "expected"), [(0, 15, 16), (12, 28, 12), (32, 28, 28), (0, 3, 4)])
def test_measure_rounds_to_what_two_layers_halve(limit, side, expected):
    config = resolve(VQVAE, "tiny", {"image_size": limit})
    assert VQVAE.measure(config, ImagesInMemory(np.zeros((2, side, side, 1), np.uint8))).image_size == expected


def test_the_prior_prepares_images_as_its_codes_do():
    method = prior(12)
    example = method.prepare(Record("a", {"image": np.zeros((20, 30), np.uint8)}), np.random.default_rng(0))
    assert example["image"].shape == (12, 12, 1) and method.spec.image_size == 12


def test_impossible_wishes_get_a_sentence():
    spec = Spec("image", image_size=8, channels=1)
    with pytest.raises(UserError, match="code_width"):
        VQVAE(dataclasses.replace(resolve(VQVAE, None), code_width=8), spec)
    with pytest.raises(UserError, match="rule"):
        VQVAE(resolve(VQVAE, "tiny", {"rule": "loss"}), spec)
    with pytest.raises(UserError, match=r"vqvae\.codes"):
        Prior(resolve(Prior, "tiny"), spec)
    with pytest.raises(UserError, match="unconditional"):
        prior().sample(1, condition="a cat")
