"""What every method must do, run over everything that is found in `methods/`."""

from __future__ import annotations

import copy
import dataclasses
import typing
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.contract.made import losses, source_for, tiny, trainer
from tests.parallel.processes import on_processes
from unlabeled.core import catalogue
from unlabeled.core.clock import Clock
from unlabeled.core.config import from_dict, resolve, to_dict
from unlabeled.core.errors import UserError
from unlabeled.core.method import CAPABILITIES, capabilities
from unlabeled.data.store import build
from unlabeled.engine.launch import hand_on, handed_on
from unlabeled.engine.optimise import parts_of

METHODS = catalogue.trainings()
HERE = Path(__file__).parent
every = pytest.mark.parametrize("name", METHODS)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("UNLABELED_CACHE", str(tmp_path / "cache"))


def collated(method, name, count=8):
    store = build(source_for(type(method)), method)
    return method.collate(store.batch(np.arange(min(count, len(store)))))


def transformed(method, name, seed=0):
    torch.manual_seed(seed)
    return method.transform(collated(method, name), Clock())


@every
def test_it_has_a_paper_a_tiny_variant_and_tests_of_its_own(name):
    kind = catalogue.method(name)
    assert kind.paper.title and kind.paper.authors and kind.paper.year > 1950
    assert "tiny" in kind.variants
    system = name.partition(".")[0]
    assert (HERE.parent / "methods" / f"test_{system}.py").exists()
    assert (kind.__doc__ or "").strip() and capabilities(kind)
    assert list((HERE.parents[1] / "benchmarks" / "results").glob(f"{system}-*.jsonl")), "no recorded run on real data"


@every
def test_its_configurations_round_trip_and_its_fields_are_documented(name):
    kind = catalogue.method(name)
    for variant in (None, *kind.variants):
        config = resolve(kind, variant)
        assert from_dict(kind.Config, to_dict(config)) == config
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.batch = 3


@every
def test_its_variants_can_be_built_without_memory(name):
    kind = catalogue.method(name)
    spec = kind.measure(resolve(kind, "tiny"), source_for(kind))
    for variant in kind.variants:
        with torch.device("meta"):
            method = catalogue.build(name, variant, lambda *_: spec)
        assert sum(p.numel() for p in method.parameters()) > 0


@every
def test_what_it_prepares_depends_on_no_other_setting_than_it_says(name):
    kind = catalogue.method(name)
    if kind.prepared_by is None:
        return
    source = source_for(kind)
    others = [f.name for f in dataclasses.fields(kind.Config) if f.name not in kind.prepared_by]

    def prepared(config):
        """What is stored, by the spec, which names the store too."""
        with torch.device("meta"):
            method = kind(config, kind.measure(config, source), {})
        example = method.prepare(source[0], np.random.default_rng(0))
        return str(method.spec.to_dict()), (method.window(), {k: (v.dtype, v.tobytes()) for k, v in example.items()})

    def choices(field):
        said = typing.get_type_hints(kind.Config)[field]
        return set(typing.get_args(said)) if typing.get_origin(said) is typing.Literal else set()

    changed, tiny_one = 0, resolve(kind, "tiny")
    for base in {tiny_one} | {dataclasses.replace(tiny_one, **{k: c}) for k in kind.prepared_by for c in choices(k)}:
        spec, wanted = prepared(base)
        for field in others:
            near = _near(getattr(base, field)) | choices(field)
            for other in {v[field] for v in kind.variants.values() if field in v} | near:
                try:
                    measured, found = prepared(dataclasses.replace(base, **{field: other}))
                except (UserError, ValueError, RuntimeError, TypeError, AssertionError):
                    continue  # no such model
                changed += other != getattr(base, field)
                assert found == wanted or measured != spec, field
    assert changed >= len(others) // 3


def _near(value):
    if isinstance(value, bool):
        return {not value}
    return {value * 2, value // 2} if isinstance(value, int) else {value / 2} if isinstance(value, float) else set()


def test_models_that_prepare_alike_share_a_store():
    first, wider = tiny("gpt2"), tiny("gpt2", width=64)
    assert build(source_for(type(first)), first).folder == build(source_for(type(wider)), wider).folder
    longer = tiny("gpt2", context=16)
    assert build(source_for(type(first)), first).folder != build(source_for(type(longer)), longer).folder


def test_a_subclass_that_prepares_in_its_own_way_shares_nothing_unless_it_says_so():
    kind = catalogue.method("gpt2")

    class Odd(kind):
        def prepare(self, record, rng):
            return {"tokens": super().prepare(record, rng)["tokens"] % (self.config.layers + 5)}

    source = source_for(kind)
    folders = set()
    for layers in (1, 2):
        config = resolve(kind, "tiny", {"layers": layers})
        folders.add(build(source, Odd(config, kind.measure(config, source), {})).folder)
    assert len(folders) == 2


@every
def test_its_loss_is_finite_repeatable_and_without_side_effects(name):
    method = tiny(name).train()
    batch = transformed(method, name)
    for part, part_batch in method.updates(batch, Clock()):
        state = copy.deepcopy(method.state_dict())
        kept = {k: v.clone() for k, v in part_batch.items()}
        values = []
        for _ in range(2):
            method.load_state_dict(state)  # batch statistics may move; everything else may not
            torch.manual_seed(5)
            values.append(method.loss(part_batch, part, Clock()).loss)
        assert values[0].isfinite() and values[0].shape == () and values[0].dtype == torch.float32
        assert torch.equal(values[0], values[1])
        assert all(torch.equal(kept[k], part_batch[k]) for k in kept)
        moved = {k for k, v in method.state_dict().items() if not torch.equal(v, state[k])}
        assert all(k.endswith(("running_mean", "running_var", "batches")) for k in moved)


@every
def test_gradient_reaches_every_weight_of_a_part(name):
    method = tiny(name).train()
    for network in method.networks().values():  # outputs that start at zero hide what lies below them
        for p in network.parameters():
            if p.ndim > 1 and not p.any():
                torch.nn.init.normal_(p, std=0.02)
    parts = parts_of(method)
    for part, part_batch in method.updates(transformed(method, name), Clock()):
        method.zero_grad()
        method.loss(part_batch, part, Clock()).loss.backward()
        without = [n for n, p in parts[part].named.items() if p.grad is None or not p.grad.any()]
        assert not without


@every
def test_a_step_moves_the_weights_of_its_part_and_no_frozen_ones(name, tmp_path):
    t = trainer(name, tmp_path / "run", budget="1steps")
    t.method.after_update = lambda *_: None  # where teachers follow, which the optimiser must not touch
    before = {n: p.clone() for n, p in t.method.named_parameters()}
    t._start()
    t.step()
    for n, p in t.method.named_parameters():
        trained = any(n in part.named for part in t.parts.values())
        assert trained or torch.equal(p.cpu(), before[n]), n


@every
def test_the_same_seed_gives_the_same_views_and_another_seed_others(name):
    method = tiny(name)
    one, same, other = (transformed(method, name, seed) for seed in (0, 0, 1))
    assert all(torch.equal(one[k], same[k]) for k in one)
    plain = collated(method, name)
    # A method without random views returns its batch as it is, or codes of it.
    if set(plain) != set(one) and any(v.is_floating_point() or v.dtype == torch.bool for v in one.values()):
        assert any(not torch.equal(one[k], other[k]) for k in one)


@every
def test_microbatches_change_nothing_unless_examples_are_coupled(name, tmp_path):
    if catalogue.method(name).couples:
        with pytest.raises(Exception, match="--microbatches 1"):
            trainer(name, tmp_path / "2", microbatches=2)
        return
    for pieces in (1, 2):
        trainer(name, tmp_path / str(pieces), microbatches=pieces).train()
    for a, b in zip(losses(tmp_path / "1"), losses(tmp_path / "2")):
        assert a == pytest.approx(b, rel=1e-4, abs=1e-5)


@every
def test_a_resumed_run_ends_with_the_very_same_weights(name, tmp_path):
    whole = trainer(name, tmp_path / "whole")
    whole.train()
    cut = trainer(name, tmp_path / "cut")

    def observer(row):
        if row.get("step") == 5:
            raise RuntimeError("killed")

    cut.observers = [observer]
    with pytest.raises(RuntimeError, match="killed"):
        cut.train()
    again = trainer(name, tmp_path / "cut")
    again.train()
    got = again.final_state()
    for key, value in whole.final_state().items():
        assert torch.equal(value, got[key]), key


@every
def test_what_is_handed_on_is_read_back(name, tmp_path):
    method = tiny(name).eval()
    hand_on(method, name, tmp_path / "model")
    system, read = handed_on(tmp_path / "model")
    assert system == name and type(read) is type(method) and read.config == method.config
    mine = dict(method.named_parameters())
    for key, value in read.named_parameters():
        assert torch.equal(value, mine[key]), key


@every
def test_its_capabilities_return_what_they_promise(name):
    method = tiny(name).eval()
    batch = collated(method, name, 4)
    n = len(next(iter(batch.values())))
    offered = capabilities(method)
    assert set(offered) <= set(CAPABILITIES)
    with torch.no_grad():
        if "embed" in offered:
            features = method.embed(batch)
            assert features.ndim == 2 and len(features) == n and features.dtype == torch.float32
            torch.testing.assert_close(method.embed({k: v[:1] for k, v in batch.items()}), features[:1])
        if "embed_locally" in offered:
            local = method.embed_locally(batch)
            assert local.ndim == 3 and local.dtype == torch.float32
            if hasattr(method, "positions"):
                positions = method.positions(batch)
                assert positions.dtype == torch.int64 and positions.min() > 0 and positions.max() <= local.shape[1]
        if "encode" in offered:
            codes = method.encode(batch)
            assert len(codes) == n and codes.dtype in (torch.int64, torch.float32)
            decoded = method.decode(codes)
            assert all(len(v) == n for v in decoded.values())
            assert decoded["image"].dtype == torch.uint8 if "image" in decoded else decoded
        if "reconstruct" in offered:
            again = method.reconstruct(batch)
            if "image" in again:
                assert again["image"].dtype == torch.uint8 and again["image"].shape == batch["image"].shape
        if "score" in offered:
            scores = method.score(batch)
            assert scores.shape == (n,) and scores.isfinite().all()
            assert torch.equal(scores, method.score(batch))
        if "sample" in offered:
            torch.manual_seed(0)
            one = method.sample(2, condition=None, steps=3, guidance=None)
            torch.manual_seed(0)
            two = method.sample(2, condition=None, steps=3, guidance=None)
            for key, value in one.items():
                assert len(value) == 2
                if key == "image":
                    size, channels = method.spec.image_size, method.spec.channels
                    assert value.shape == (2, size, size, channels) and value.dtype == torch.uint8
                    assert torch.equal(value, two[key])
                else:
                    assert all(isinstance(t, str) for t in value) and value == two[key]


@every
def test_what_was_given_is_frozen_and_comes_along(name, tmp_path):
    method = tiny(name)
    assert set(method.given) == set(method.needs)
    for stage, one in method.train().given.items():
        assert not one.training and not any(p.requires_grad for p in one.parameters())
        assert "given" not in method.networks()
        hand_on(method, name, tmp_path / "model")
        again = handed_on(tmp_path / "model")[1].given[stage].state_dict()
        assert all(torch.equal(v, again[k]) for k, v in one.state_dict().items())


@every
def test_it_diagnoses_a_short_run_in_whole_sentences(name, tmp_path):
    t = trainer(name, tmp_path / "run")
    t.train()
    findings = t.method.diagnose(t.run.metrics())
    for finding in findings:
        assert np.isfinite(finding.value) and finding.meaning.endswith("."), finding
    assert not t.method.diagnose([])  # a run that was stopped before its first line


@every
def test_the_loss_falls_on_made_data(name, tmp_path):
    if list(tiny(name).optimizers()) != ["main"]:
        return  # the losses of adversaries rise and fall; their own tests show that they learn
    trainer(name, tmp_path / "run", budget="40steps", save_every="1000steps").train()
    values = [row["loss"] for row in losses(tmp_path / "run")]
    assert np.mean(values[-5:]) < 0.9 * np.mean(values[:5])


def _on_two(folder: Path) -> None:
    for name in METHODS:
        trainer(name, folder / name).train()
        trainer(name, folder / f"{name}-half", budget="3steps").train()


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    patch = pytest.MonkeyPatch()
    patch.setenv("UNLABELED_CACHE", str(folder / "cache"))
    on_processes(2, _on_two, folder)
    yield folder
    patch.undo()


@every
def test_two_processes_give_the_losses_of_one(name, two, tmp_path):
    trainer(name, tmp_path / "one").train()
    ones, twos = losses(tmp_path / "one"), losses(two / name)
    assert len(ones) == len(twos) == 6
    for a, b in zip(ones, twos):
        assert a == pytest.approx(b, rel=1e-4, abs=1e-5)


@every
def test_one_process_goes_on_with_what_two_saved(name, two):
    again = trainer(name, two / f"{name}-half")
    again.train()
    # The schedule of the shorter run was another; that it goes on from there with finite losses is what counts.
    rows = losses(two / f"{name}-half")
    assert len(rows) == 6 and all(np.isfinite(v) for row in rows for v in row.values())
