"""Counting by torch, by arithmetic and by hand must agree to the last unit."""

import pytest
import torch
from torch import nn

from unlabeled.core import catalogue
from unlabeled.core.batch import Spec
from unlabeled.core.clock import Clock
from unlabeled.core.errors import UserError
from unlabeled.engine.machine import step_flops
from unlabeled.engine.precision import precision
from unlabeled.scale.count import DecoderOnly, count, decoder_of, parameters, training_flops

# name, width, feed-forward, width of a head, heads, layers: Hoffmann et al. 2022, table A9; millions of parameters with tied
# output and projected positions, exact FLOPs over 6ND at 2,048 tokens and 32,000 ids without the look-up.
CHINCHILLA = [
    ("44M", 512, 2048, 64, 8, 8, 43.65, 1.341),
    ("57M", 576, 2304, 64, 9, 9, 57.25, 1.323),
    ("74M", 640, 2560, 64, 10, 10, 73.73, 1.304),
    ("117M", 768, 3072, 64, 12, 12, 116.59, 1.267),
    ("251M", 1024, 4096, 64, 16, 16, 250.87, 1.204),
    ("306M", 1024, 4096, 64, 16, 20, 305.40, 1.209),
    ("425M", 1280, 5120, 128, 10, 18, 424.35, 1.154),
    ("1.6B", 2048, 8192, 128, 16, 28, 1592.26, 1.075),
    ("6.8B", 3584, 14336, 128, 28, 40, 6794.12, 1.011),
    ("70B", 8192, 32768, 128, 64, 80, 70055.36, 0.962),
]


def gpt2(**overrides):
    return catalogue.build(
        "gpt2", "tiny", lambda kind, config: Spec("text", vocabulary=257), tokenizer="bytes", **overrides
    )


@pytest.mark.parametrize(("name", "d", "f", "k", "h", "layers", "millions", "ratio"), CHINCHILLA)
def test_closed_formula_gives_the_published_table(name, d, f, k, h, layers, millions, ratio):
    model = DecoderOnly(
        vocabulary=32000, context=2048, width=d, layers=layers, heads=h, head_width=k, feed_forward=f, relative=True
    )
    assert round(model.with_head / 1e6, 2) == millions
    assert round(model.training_flops() / (6 * model.with_head * 2048), 3) == ratio


def test_closed_formula_has_its_symmetries():
    said = {"vocabulary": 100, "width": 64, "heads": 4, "head_width": 16, "feed_forward": 256}
    one, two = (DecoderOnly(**said, context=32, layers=n) for n in (1, 2))
    ends = 2 * 32 * 64 * 100
    assert two.forward_flops() - ends == 2 * (one.forward_flops() - ends)
    assert two.non_embedding == 2 * one.non_embedding
    per_token = [DecoderOnly(**said, context=s, layers=1).forward_flops() / s for s in (16, 32, 48)]
    assert per_token[2] - per_token[1] == per_token[1] - per_token[0] > 0  # linear in the context
    assert one.forward_flops(look_up=True) == one.forward_flops() + ends
    assert one.training_flops(recomputed=1.0) == 4 * one.forward_flops()
    gated = DecoderOnly(**said, context=32, layers=1, gated=True)
    assert gated.forward_flops() - one.forward_flops() == 2 * 32 * 64 * 256
    assert gated.non_embedding - one.non_embedding == 64 * 256
    skipping = DecoderOnly(**said, context=32, layers=1, block=8)
    assert skipping.forward_flops(softmax=False) == one.forward_flops(softmax=False) - 4 * 64 * (
        32 * 32 - 8 * (8 + 16 + 24 + 32)
    )


@pytest.mark.parametrize("how", ["float32", "bf16"])
@pytest.mark.parametrize(("context", "width", "heads", "layers"), [(32, 32, 2, 2), (200, 24, 3, 1), (300, 16, 1, 1)])
def test_counted_products_of_gpt2_equal_the_formula(how, context, width, heads, layers):
    method = gpt2(context=context, width=width, heads=heads, layers=layers)
    batch = {"tokens": torch.randint(257, (2, context + 1))}
    assert training_flops(method, batch, how=precision(how)).per_example == decoder_of(method).training_flops(
        softmax=False
    )


def test_parameters_by_each_convention():
    method = gpt2(context=32, width=32, heads=2, layers=2)
    own, matrices = parameters(method), decoder_of(method).non_embedding
    vectors = 2 * (13 * 32) + 2 * 32  # biases and gains of two blocks, and the last norm
    assert own.non_embedding == matrices + vectors
    assert own.with_head == own.non_embedding + 257 * 32
    assert own.total == own.with_head + 32 * 32 == sum(p.numel() for p in method.parameters())  # positions
    assert own.active == own.total


def test_parameters_of_untied_outputs_and_of_parts_in_use():
    class Sparse(nn.Module):
        active_share = 0.25

        def __init__(self):
            super().__init__()
            self.experts = nn.Linear(8, 40, bias=False)

    method = gpt2(context=32, width=32, heads=2, layers=2)
    before = parameters(method)
    method.read_out = nn.Linear(32, 257, bias=False)
    untied = parameters(method)
    assert untied.total == before.total + 32 * 257
    assert (untied.non_embedding, untied.with_head) == (before.non_embedding, before.with_head)
    method.sparse = Sparse()
    assert parameters(method).active == untied.total + 80
    assert parameters(method).total == untied.total + 320


@pytest.mark.parametrize("system", catalogue.trainings())
def test_every_method_is_counted(system):
    more = {"vocabulary": 200} if system == "bert" else {}
    found = count(system, "tiny", **more)
    own = found["parameters"]
    assert own["non_embedding"] <= own["with_head"] <= own["total"] and 0 < own["active"] <= own["total"]
    assert all(part["forward"] > 0 and part["backward"] > 0 for part in found["parts"].values())
    assert found["ratio"]["6ND"] == pytest.approx(found["flops"]["exact"] / (6 * own["total"]))


def test_counting_changes_nothing_and_agrees_with_the_runs_own_count():
    method = catalogue.build("simclr", "tiny", lambda kind, config: Spec("image", image_size=16, channels=1)).train()
    batch = method.transform({"image": torch.randint(256, (4, 16, 16, 1), dtype=torch.uint8)}, Clock())
    before = {n: t.clone() for n, t in method.state_dict().items()}
    counted = training_flops(method, batch)
    assert all(torch.equal(before[n], t) for n, t in method.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in method.parameters())
    assert counted.per_example * 4 == step_flops(method, batch, Clock(), precision("fastest"), 4)


def test_data_of_another_kind_is_refused():
    with pytest.raises(UserError, match="learns from text data"):
        count("gpt2", "tiny", "fashion")
