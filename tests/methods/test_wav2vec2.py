"""wav2vec 2.0 against transformers' class in both directions; its masks, weights of microbatches, limits and failures."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from unlabeled.core.batch import Record, Spec
from unlabeled.core.clock import Clock
from unlabeled.core.config import resolve
from unlabeled.core.errors import BadRecord, UserError
from unlabeled.data.sources.memory import WavesInMemory
from unlabeled.data.store import build
from unlabeled.engine.loop import Settings, Trainer
from unlabeled.engine.record import Run
from unlabeled.methods.wav2vec2 import Wav2Vec2

SPEC = Spec("wave", sample_rate_hz=16_000)
OFFICIAL = {  # kernels and strides as published, all else narrow
    "conv_widths": (12,) * 7,
    "conv_kernels": (10, 3, 3, 3, 3, 2, 2),
    "conv_strides": (5, 2, 2, 2, 2, 2, 2),
    "mask_length": 3,
    "crop": 16_000,
}
LARGE = {"conv_norm": "layer", "conv_bias": True, "norm_first": True, "normalize": True}


def made(**overrides):
    torch.manual_seed(0)
    method = Wav2Vec2(resolve(Wav2Vec2, "tiny", OFFICIAL | {"embed_layer": 2} | overrides), SPEC).train()
    with torch.no_grad():  # away from the start, where biases are zero and gains one
        for p in method.parameters():
            p.add_(0.02 * torch.randn(p.shape))
    return method


def waves(*lengths, seed=1):
    rng = torch.Generator().manual_seed(seed)
    wave = torch.zeros(len(lengths), max(lengths))
    for row, length in zip(wave, lengths):
        row[:length] = 0.1 * torch.randn(length, generator=rng).cumsum(0).sin()  # most of its power at low frequencies
    return {"wave": wave, "wave_length": torch.tensor(lengths)}


def transformed(method, *lengths, seed=3):
    batch = waves(*lengths)
    torch.manual_seed(seed)
    return method.transform(batch, Clock())


def in_transformers(method):
    transformers = pytest.importorskip("transformers")
    tensors, config = method.export()
    model = transformers.Wav2Vec2ForPreTraining(transformers.Wav2Vec2Config(**config))
    model.load_state_dict(tensors)
    return model


def rows(batch, start, stop):
    return {k: v[start:stop] for k, v in batch.items()}


@pytest.mark.parametrize(
    ("variant", "whole", "encoder"),
    [
        ("base", 95_044_608, 94_371_712),
        ("large", 317_380_864, 315_428_992),
        ("large-lv60", 317_390_592, 315_438_720),
    ],
)
def test_published_sizes(variant, whole, encoder):
    with torch.device("meta"):
        method = Wav2Vec2(resolve(Wav2Vec2, variant), SPEC)
    assert sum(p.numel() for p in method.parameters()) == whole
    assert sum(p.numel() for p in method.encoder.parameters()) == encoder
    assert sum(p.numel() for p in method.encoder.position.parameters()) == (
        4_719_488 if variant == "base" else 8_389_760
    )


@pytest.mark.parametrize("overrides", [{}, LARGE], ids=["base", "large"])
def test_transformers_gives_the_same_states_losses_and_gradients(overrides, monkeypatch):
    method = made(diversity_over=4, **overrides)
    theirs = in_transformers(method)
    batch = transformed(method, 8000, 8000, 8000, 8000)
    mask, counts = batch["mask"], batch["mask"].sum(1)
    frames = mask.shape[1]
    assert mask.any(1).all() and len(set(counts.tolist())) > 1
    # Their distractors are numbered through the flattened batch, their noise is for all frames.
    indices = torch.zeros(*mask.shape, method.config.negatives, dtype=torch.long)
    noise = torch.zeros(*mask.shape, batch["noise"].shape[-1])
    for row in range(len(mask)):
        places = mask[row].nonzero()[:, 0]
        indices[row, mask[row]] = row * frames + places[batch["negatives"][row, : counts[row]]]
        noise[row, mask[row]] = batch["noise"][row, : counts[row]]
    clock = Clock(progress=0.3)
    tau = method.temperature(clock)

    def gumbel_softmax(logits, tau, hard):
        noisy = logits + noise.view(logits.shape)
        soft = (noisy / tau).softmax(-1)
        # Exact zeros and ones: torch's own are off in the last bit, by which equal codes look different.
        return F.one_hot(noisy.argmax(-1), logits.shape[-1]) + (soft - soft.detach())

    monkeypatch.setattr(F, "gumbel_softmax", gumbel_softmax)
    theirs.train()
    theirs.quantizer.temperature = tau
    out = theirs(batch["wave"], mask_time_indices=mask, sampled_negative_indices=indices)
    outcome = method.loss(batch, "main", clock)
    total = counts.sum()
    torch.testing.assert_close(outcome.logs["contrast"], out.contrastive_loss.detach() / total, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(outcome.logs["diversity"], out.diversity_loss.detach() / total, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(outcome.loss, out.loss / total, rtol=1e-5, atol=1e-5)
    outcome.loss.backward()
    (out.loss / total).backward()
    gradients = {name: p.grad for name, p in theirs.named_parameters()}
    for name, ours in method._names():
        torch.testing.assert_close(method.get_parameter(ours).grad, gradients[name], rtol=1e-4, atol=1e-5, msg=name)
        assert gradients[name].any(), name
    torch.testing.assert_close(
        method.quantiser.codebook.grad.flatten(0, 1)[None], gradients["quantizer.codevectors"], rtol=1e-4, atol=1e-5
    )
    # Without masks, after each block.
    method.eval(), theirs.eval()
    with torch.no_grad():
        out = theirs.wav2vec2(batch["wave"], output_hidden_states=True)
        # The last of `hidden_states` is before the final norm since transformers 5.
        for layer, wanted in enumerate([*out.hidden_states[:-1], out.last_hidden_state]):
            got = method.embed_locally(batch, layer=layer)
            torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)
    assert layer == 2 and got.shape == (4, frames, 32)


def test_frames_are_those_of_the_published_strides():
    convs = made().encoder.convs
    assert convs.receptive_field == 400
    for samples, frames in ((399, 0), (400, 1), (16_000, 49), (32_000, 99), (250_000, 781), (320_000, 999)):
        assert convs.frames(samples) == frames and convs.frames(torch.tensor([samples])).item() == frames
    batch = waves(16_000, 4000)
    assert made().positions(batch).tolist() == [49, 12]
    assert made().embed_locally(batch).shape == (2, 49, 32)


@pytest.mark.parametrize("overrides", [{}, LARGE], ids=["base", "large"])
def test_padding_and_neighbours_change_nothing(overrides):
    method = made(**overrides).eval()
    lengths = (8000, 5000, 6543)
    batch = waves(*lengths)
    together, means = method.embed_locally(batch), method.embed(batch)
    for row, length in enumerate(lengths):
        alone = {"wave": batch["wave"][row : row + 1, :length]}
        local = method.embed_locally(alone)
        frames = method.positions(batch)[row]
        torch.testing.assert_close(local[0], together[row, :frames], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(method.embed(alone)[0], means[row], rtol=1e-4, atol=1e-5)
    # What stands behind the end is never looked at.
    noisy = {**batch, "wave": batch["wave"] + (batch["wave"] == 0)}
    torch.testing.assert_close(method.embed(noisy), means, rtol=1e-5, atol=1e-5)


def test_pieces_of_a_batch_of_uneven_utterances_add_up_to_the_whole():
    method = made(diversity_over=2, penalty=10.0)
    batch = transformed(method, 9000, 2500, 7000, 8000, 3000, 4000, 9000, 9000)
    whole = method.loss(batch, "main", Clock())
    whole.loss.backward()
    gradients = {n: p.grad.clone() for n, p in method.named_parameters()}
    for size in (2, 4):
        method.zero_grad()
        total, loss = method.count(batch, "main"), 0.0
        for start in range(0, 8, size):
            piece = rows(batch, start, start + size)
            share = method.count(piece, "main") / total
            outcome = method.loss(piece, "main", Clock())
            (outcome.loss * share).backward()
            loss += outcome.loss.detach() * share
        torch.testing.assert_close(loss, whole.loss.detach(), rtol=1e-5, atol=1e-5)
        for name, p in method.named_parameters():
            torch.testing.assert_close(p.grad, gradients[name], rtol=1e-4, atol=1e-5, msg=name)


def test_the_order_of_utterances_and_the_size_of_answers_and_targets_change_nothing():
    method = made(diversity_over=4)
    batch = transformed(method, 8000, 6000, 7000, 5000)
    logs = method.loss(batch, "main", Clock()).logs
    turned = method.loss({k: v.flip(0) for k, v in batch.items()}, "main", Clock()).logs
    with torch.no_grad():
        method.answer.weight.mul_(3), method.answer.bias.mul_(3)
        method.target.weight.mul_(0.2), method.target.bias.mul_(0.2)
    scaled = method.loss(batch, "main", Clock()).logs
    for other in (turned, scaled):
        for key in ("contrast", "diversity", "penalty", "contrast_accuracy"):
            torch.testing.assert_close(other[key], logs[key], rtol=1e-5, atol=1e-5)


def test_the_loss_looks_at_masked_frames_alone_and_at_what_stood_there():
    method = made()
    batch = transformed(method, 8000, 8000)
    kept = {}

    def keep(module, inputs, states):
        for name in ("hidden", "features"):
            getattr(states, name).retain_grad()
        kept.update(states._asdict())

    method.encoder.register_forward_hook(keep)
    method.loss(batch, "main", Clock()).loss.backward()
    assert kept["hidden"].grad[batch["mask"]].any(-1).all() and not kept["hidden"].grad[~batch["mask"]].any()
    # The quantiser's input is the sound, not the mask: other sound under the mask changes it.
    plain = method.encoder(batch["wave"], batch["wave_length"]).features
    torch.testing.assert_close(kept["features"].detach(), plain.detach())


def test_the_gradient_of_the_convolutions_is_scaled_and_nothing_else():
    gradients = {}
    for scale in (1.0, 0.1):
        method = made(conv_gradient=scale, penalty=10.0)
        method.loss(transformed(method, 8000, 6000), "main", Clock()).loss.backward()
        gradients[scale] = {n: p.grad for n, p in method.named_parameters()}
    for name, gradient in gradients[1.0].items():
        factor = 0.1 if "convs" in name else 1.0
        torch.testing.assert_close(gradients[0.1][name], factor * gradient, rtol=1e-4, atol=1e-6, msg=name)
    frozen = made(conv_gradient=0.0)
    frozen.loss(transformed(frozen, 8000), "main", Clock()).loss.backward()
    assert all((p.grad is None) == ("convs" in n) for n, p in frozen.named_parameters())


def test_the_penalty_is_the_mean_square_of_the_features_before_their_norm():
    method = made(penalty=10.0)
    batch = transformed(method, 8000, 8000)
    outcome = method.loss(batch, "main", Clock())
    counts = batch["mask"].sum(1)
    square = method.encoder.convs(batch["wave"]).square().mean((1, 2))
    torch.testing.assert_close(outcome.logs["penalty"], ((square * counts).sum() / counts.sum()).detach())
    parts = outcome.logs
    wanted = parts["contrast"] + 0.1 * parts["diversity"] + 10 * parts["penalty"]
    torch.testing.assert_close(outcome.loss.detach(), wanted)


@pytest.mark.parametrize("number", [20, 100])
def test_the_untrained_loss_is_the_logarithm_of_the_choices(number):
    torch.manual_seed(0)
    # Many codes, so that few distractors are left out.
    method = Wav2Vec2(resolve(Wav2Vec2, "small", {"negatives": number, "entries": 320, "penalty": 0.0}), SPEC)
    logs = method.loss(transformed(method, 64_000, 64_000), "main", Clock()).logs
    assert logs["same_codes"] < 0.1
    assert logs["contrast"].item() == pytest.approx(math.log(1 + number), abs=0.2)


def test_full_collapse_has_the_figures_that_the_field_knows_and_is_named():
    method = made()
    torch.nn.init.zeros_(method.quantiser.logits.weight)
    with torch.no_grad():
        method.quantiser.logits.bias.view(2, 8)[:, 3] = 1e3
    outcome = method.loss(transformed(method, 8000, 8000), "main", Clock())
    logs = {k: v.item() for k, v in outcome.logs.items()}
    assert logs["contrast"] == 0 and logs["contrast_accuracy"] == 1 and logs["same_codes"] == 1
    assert logs["diversity"] == pytest.approx((2 * 8 - 2) / (2 * 8), abs=1e-5)
    unhealthy = {f.name for f in method.diagnose([logs]) if not f.healthy}
    assert unhealthy == {"codebook 1 in use", "codebook 2 in use", "distractors lost"}


def test_the_temperature_is_that_of_the_code_at_every_update():
    method = SimpleNamespace(config=resolve(Wav2Vec2, "base"))
    for step in (0, 1000, 100_000, 250_000, 300_000, 400_000):
        wanted = max(2 * 0.999995**step, 0.5)
        assert Wav2Vec2.temperature(method, Clock(step, progress=step / 400_000)) == pytest.approx(wanted, rel=1e-3)
    method = SimpleNamespace(config=resolve(Wav2Vec2, "large"))
    wanted = 2 * 0.999995**250_000
    assert Wav2Vec2.temperature(method, Clock(progress=1.0)) == pytest.approx(wanted, rel=1e-3)


def test_layers_are_left_out_by_the_step_and_only_in_training():
    method = made(layers=8, layer_drop=0.25)
    out = [method._left_out(Clock(step)) for step in range(500)]
    assert 0.22 < np.mean([len(o) for o in out]) / 8 < 0.28 and out[7] == method._left_out(Clock(7))
    assert not method.eval()._left_out(Clock(int(np.argmax([len(o) for o in out]))))
    method.train()
    step = next(s for s, o in enumerate(out) if o == (2,))
    method.loss(transformed(method, 8000), "main", Clock(step)).loss.backward()
    grads = {i: block.widen.weight.grad for i, block in enumerate(method.encoder.blocks)}
    assert grads[2] is None and all(grads[i].any() for i in grads if i != 2)


def test_a_step_sees_crops_of_the_recording_and_masks_of_its_real_frames():
    method = made(crop=6000)
    wave = torch.arange(20_000.0).repeat(64, 1)
    lengths = torch.full((64,), 20_000)
    lengths[:8] = 4000
    torch.manual_seed(0)
    batch = method.transform({"wave": wave, "wave_length": lengths}, Clock())
    assert batch["wave"].shape == (64, 6000) and batch["wave_length"].tolist() == [4000] * 8 + [6000] * 56
    assert (batch["wave"].diff(dim=1) == 1).all()
    starts = batch["wave"][:, 0]
    assert (starts[:8] == 0).all() and starts.min() >= 0 and starts.max() <= 14_000 and len(starts.unique()) > 50
    frames = method.encoder.convs.frames(batch["wave_length"])
    assert all(not row[n - 1 :].any() for row, n in zip(batch["mask"], frames))
    counts = batch["mask"].sum(1)
    assert counts.max() <= batch["negatives"].shape[1] == batch["noise"].shape[1]
    for row, count in zip(batch["negatives"], counts):
        own = torch.arange(count)[:, None]
        assert (row[:count] != own).all() and row[:count].max() < count and row[:count].min() >= 0


def test_recordings_are_brought_to_16_khz_and_cut():
    rng = np.random.default_rng(0)
    sound = (0.1 * np.sin(np.arange(8000) / 5) + 0.2).astype(np.float32)
    method = made(longest=12_000)
    wave = method.prepare(Record("a", {"wave": sound, "rate": 8000}), rng)["wave"]
    assert wave.dtype == np.float32 and wave.shape == (12_000,) and wave.mean() == pytest.approx(0.2, abs=0.01)
    scaled = made(normalize=True).prepare(Record("a", {"wave": sound, "rate": 16_000}), rng)["wave"]
    assert scaled.mean() == pytest.approx(0, abs=1e-4) and scaled.std() == pytest.approx(1, abs=2e-3)
    torch.testing.assert_close(
        torch.from_numpy(scaled), F.layer_norm(torch.from_numpy(sound), (8000,)), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("length", [1, 10])
def test_recordings_have_at_least_two_masked_frames_to_tell_apart(length):
    method, rng = made(mask_length=length), np.random.default_rng(0)
    sound = rng.standard_normal(1040).astype(np.float32) / 10
    with pytest.raises(BadRecord, match="three frames, which see 1040"):
        method.prepare(Record("a", {"wave": sound[:1039], "rate": 16_000}), rng)
    wave = torch.from_numpy(method.prepare(Record("b", {"wave": sound, "rate": 16_000}), rng)["wave"])
    batch = {"wave": wave.expand(50, -1), "wave_length": torch.full((50,), 1040)}
    batch = method.transform(batch, Clock())
    assert (batch["mask"].sum(1) == 2).all() and not batch["mask"][:, 2].any()
    assert method.loss(batch, "main", Clock()).loss.isfinite()
    for setting in ("crop", "longest"):
        with pytest.raises(UserError, match="at least 1040 samples"):
            made(**{setting: 1039})


def test_bfloat16_is_close_to_float32_even_in_quiet_high_frequencies():
    torch.manual_seed(0)
    method = Wav2Vec2(resolve(Wav2Vec2, "small"), SPEC).eval()
    batch = waves(16_000, 12_000)
    batch["wave"][:, ::2] += 1e-3  # a tone at 8 kHz 40 dB below the rest
    exact = method.embed_locally(batch, layer=1)
    with torch.autocast("cpu", torch.bfloat16):
        near = method.embed_locally(batch, layer=1)
    real = method.positions(batch)[1]
    cosine = F.cosine_similarity(exact[1, :real], near[1, :real], dim=-1)
    assert cosine.min() > 0.999


def written(method, folder):
    tensors, config = method.export()
    save_file({k: v.contiguous() for k, v in tensors.items()}, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("overrides", [{}, LARGE], ids=["base", "large"])
def test_models_go_to_transformers_and_come_back(overrides, tmp_path):
    transformers = pytest.importorskip("transformers")
    method = made(**overrides)
    theirs = transformers.Wav2Vec2ForPreTraining.from_pretrained(written(method, tmp_path))
    theirs.save_pretrained(tmp_path / "back")
    again = Wav2Vec2.from_pretrained(tmp_path / "back")
    assert Wav2Vec2.opens(tmp_path / "back") and again.config.conv_widths == method.config.conv_widths
    assert again.config.normalize == ("conv_norm" in overrides) and again.config.embed_layer == 1
    for (name, p), q in zip(method.named_parameters(), again.parameters(), strict=True):
        assert torch.equal(p, q), name
    # An encoder alone, and the names that weight norm had before torch had parametrisations.
    theirs.wav2vec2.save_pretrained(tmp_path / "alone")
    tensors = load_file(tmp_path / "alone" / "model.safetensors")
    new = "encoder.pos_conv_embed.conv.parametrizations.weight.original"
    for number, old in enumerate(("weight_g", "weight_v")):
        tensors[f"encoder.pos_conv_embed.conv.{old}"] = tensors.pop(f"{new}{number}")
    save_file(tensors, tmp_path / "alone" / "model.safetensors", {"format": "pt"})
    (tmp_path / "alone" / "preprocessor_config.json").write_text('{"do_normalize": true}')
    alone = Wav2Vec2.from_pretrained(tmp_path / "alone")
    batch = waves(8000)
    torch.testing.assert_close(alone.eval().embed(batch), again.eval().embed(batch))
    assert alone.config.normalize


def test_folders_that_are_not_wav2vec2_are_refused_in_one_sentence(tmp_path):
    with pytest.raises(UserError, match=r"no wav2vec 2\.0"):
        Wav2Vec2.from_pretrained(tmp_path)
    written(made(), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for change, said in (
        ({"hidden_act": "relu"}, "hidden_act"),
        ({"num_hidden_layers": 3}, "lack"),
        ({"intermediate_size": 77}, "shape"),
    ):
        (tmp_path / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(UserError, match=said):
            Wav2Vec2.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes(b"\x08\x00torn")
    with pytest.raises(UserError, match="cannot be read"):
        Wav2Vec2.from_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"no model\.safetensors"):
        Wav2Vec2.from_pretrained(tmp_path)
    assert not Wav2Vec2.opens(tmp_path / "nowhere")


def test_settings_and_sources_that_cannot_be_are_refused():
    for change, said in (
        ({"heads": 3}, "divide"),
        ({"conv_widths": (8, 8)}, "as many widths"),
        ({"embed_layer": 3}, "from 0 to 2"),
        ({"diversity_over": 3}, "evenly"),
    ):
        with pytest.raises(UserError, match=said):
            resolve(Wav2Vec2, "tiny", change)
    texts = SimpleNamespace(name="texts", spec=lambda: Spec("text"))
    with pytest.raises(UserError, match="learns from sound"):
        Wav2Vec2.measure(resolve(Wav2Vec2, "tiny"), texts)


def tune(rng):
    notes, lengths = rng.choice([300.0, 700.0, 1500.0, 3100.0], 6), rng.integers(600, 1200, 6)
    phase = 2 * np.pi * np.cumsum(np.repeat(notes, lengths)) / 16_000
    return (0.3 * np.sin(phase) + 0.01 * rng.standard_normal(len(phase))).astype(np.float32)


def trained(folder, steps=60, **overrides):
    rng = np.random.default_rng(0)
    source = WavesInMemory([tune(rng) for _ in range(48)], 16_000)
    torch.manual_seed(0)
    method = Wav2Vec2(resolve(Wav2Vec2, "tiny", {"crop": 6400} | overrides), source.spec())
    run = Run.create(folder, {"system": "wav2vec2"})
    settings = Settings(budget=f"{steps}steps", precision="float32", save_every="1000steps", log_every="5steps")
    Trainer(method, build(source, method), run, settings).train()
    return method.diagnose(run.metrics())


def test_a_short_run_is_healthy_and_the_failures_of_the_field_are_named(tmp_path, monkeypatch):
    monkeypatch.setenv("UNLABELED_CACHE", str(tmp_path / "cache"))
    assert all(f.healthy for f in trained(tmp_path / "healthy"))
    masked = trained(tmp_path / "masked", 10, mask_probability=0.0)
    assert "masked frames" in {f.name for f in masked if not f.healthy}
