"""Attention against its formula; the decoder's causality, cache and initialisation."""

import math

import pytest
import torch
import torch.nn.functional as F

from unlabeled.nets import attention, transformer
from unlabeled.nets.attention import Cache, attend_causally
from unlabeled.nets.transformer import Decoder, gelu_tanh


def formula(qkv):
    q, k, v = qkv
    scores = torch.einsum("bhid,bhjd->bhij", q, k) / math.sqrt(q.shape[-1])
    future = torch.ones(q.shape[2], q.shape[2]).triu(1).bool()
    return torch.einsum("bhij,bhjd->bhid", scores.masked_fill(future, -torch.inf).softmax(-1), v)


@pytest.fixture
def decoder():
    torch.manual_seed(0)
    net = Decoder(vocabulary=50, context=24, layers=3, width=32, heads=4).eval()
    for p in net.parameters():  # away from the start, where branches are small
        torch.nn.init.normal_(p, std=0.2) if p.ndim > 1 else p.data.add_(0.1 * torch.randn(p.shape))
    return net


@pytest.mark.parametrize("time", [1, 5, 128, 129, 300])
@pytest.mark.parametrize("longest", [512, 0])  # own products, torch's kernel
def test_attention_is_its_formula_in_value_and_gradient(time, longest, monkeypatch):
    monkeypatch.setattr(attention, "_LONGEST_KEPT", longest)
    generator = torch.Generator().manual_seed(time)
    qkv = torch.randn(3, 2, 3, time, 16, generator=generator).requires_grad_()
    upstream = torch.randn(2, 3, time, 16, generator=generator)
    wanted = formula(qkv)
    (wanted_grad,) = torch.autograd.grad(wanted, qkv, upstream)
    got = attend_causally(qkv)
    (got_grad,) = torch.autograd.grad(got, qkv, upstream)
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(got_grad, wanted_grad, rtol=1e-5, atol=1e-5)


def test_attention_in_bfloat16_is_near_the_formula():
    qkv = torch.randn(3, 2, 2, 200, 32, generator=torch.Generator().manual_seed(0))
    got = attend_causally(qkv.bfloat16()).float()
    torch.testing.assert_close(got, formula(qkv.bfloat16().float()), rtol=0.02, atol=0.02)


def test_no_gradient_reaches_later_tokens(decoder):
    x = torch.randn(2, 12, 32, generator=torch.Generator().manual_seed(1)).requires_grad_()
    out = x
    for block in decoder.blocks:
        out = block(out)
    (gradient,) = torch.autograd.grad(out[:, 5].square().sum(), x)
    assert (gradient[:, 6:] == 0).all()
    assert (gradient[:, :6].abs().amax(-1) > 0).all()


@pytest.mark.parametrize("first", range(1, 12))
def test_logits_with_a_cache_are_those_of_one_pass(decoder, first):
    tokens = torch.randint(50, (3, 12), generator=torch.Generator().manual_seed(2))
    whole = decoder(tokens, F.linear)
    cache = Cache(3, 24)
    parts = [decoder(tokens[:, :first], F.linear, cache)]
    parts += [decoder(tokens[:, t : t + 1], F.linear, cache) for t in range(first, 12)]
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=1e-5, atol=1e-5)


def test_rows_of_different_lengths_share_a_cache_and_a_cropped_one_goes_on(decoder):
    tokens = torch.randint(50, (3, 14), generator=torch.Generator().manual_seed(3))
    lengths = torch.tensor([3, 9, 6])
    cache = Cache(3, 24)
    decoder(tokens[:, :9], None, cache)
    cache.crop(lengths)
    rows = torch.arange(3)
    for offset in range(3):
        at = lengths + offset
        got = decoder(tokens[rows, at][:, None], F.linear, cache)[:, 0]
        wanted = [decoder(tokens[r : r + 1, : at[r] + 1], F.linear)[0, -1] for r in rows]
        torch.testing.assert_close(got, torch.stack(wanted), rtol=1e-5, atol=1e-5)


def test_logits_do_not_depend_on_the_rest_of_the_batch(decoder):
    tokens = torch.randint(50, (5, 10), generator=torch.Generator().manual_seed(4))
    torch.testing.assert_close(decoder(tokens)[3:4], decoder(tokens[3:4]), rtol=1e-5, atol=1e-5)


def test_it_starts_at_the_scales_of_the_paper():
    torch.manual_seed(0)
    net = Decoder(vocabulary=2000, context=500, layers=8, width=128, heads=4)
    block = net.blocks[0]
    for weight, std in (
        (net.token_embedding.weight, 0.02),
        (net.position_embedding.weight, 0.01),
        (block.attention.key.weight, 0.02),
        (block.widen.weight, 0.02),
        (block.attention.out.weight, 0.02 / 4),
        (block.narrow.weight, 0.02 / 4),
    ):
        assert weight.std().item() == pytest.approx(std, rel=0.03)
    assert not any(p.any() for n, p in net.named_parameters() if n.endswith("bias"))


def test_dropout_acts_in_training_only(decoder):
    net = Decoder(vocabulary=50, context=24, layers=1, width=32, heads=4, dropout=0.5)
    tokens = torch.zeros(1, 4, dtype=torch.int64)
    assert not torch.equal(net(tokens), net(tokens))
    net.eval()
    assert torch.equal(net(tokens), net(tokens))


@pytest.mark.parametrize("chunk", [7, 1 << 18])
def test_gelu_and_its_slope_are_the_nearest_bfloat16(chunk, monkeypatch):
    monkeypatch.setattr(transformer, "_CHUNK", chunk)
    x = torch.cat([torch.linspace(-12, 12, 4001), torch.tensor([-1e4, -0.0, 1e-30, 1e4])]).bfloat16()
    exact = x.double().requires_grad_()
    wanted = F.gelu(exact, approximate="tanh")
    (slope,) = torch.autograd.grad(wanted.sum(), exact)
    x.requires_grad_()
    got = gelu_tanh(x.view(1, -1))
    (got_slope,) = torch.autograd.grad(got.sum(), x)
    # Half a unit in the last place of eight bits, and what float32 leaves of a difference near zero.
    torch.testing.assert_close(got[0].double(), wanted, rtol=2**-8, atol=1e-6)
    torch.testing.assert_close(got_slope.double(), slope, rtol=2**-8, atol=1e-6)
    assert torch.equal(gelu_tanh(x.detach().float()), F.gelu(x.detach().float(), approximate="tanh"))
