"""The encoder block against two of transformers', its attention against the formula, its dropout against its share."""

import math

import pytest
import torch

from unlabeled.nets import encoder
from unlabeled.nets.encoder import Dropout, EncoderBlock, attend

BERT = {
    "attention.self.query": "attention.query",
    "attention.self.key": "attention.key",
    "attention.self.value": "attention.value",
    "attention.output.dense": "attention.out",
    "attention.output.LayerNorm": "norm_attention",
    "intermediate.dense": "widen",
    "output.dense": "narrow",
    "output.LayerNorm": "norm_forward",
}
WAV2VEC2 = {
    "attention.q_proj": "attention.query",
    "attention.k_proj": "attention.key",
    "attention.v_proj": "attention.value",
    "attention.out_proj": "attention.out",
    "layer_norm": "norm_attention",
    "feed_forward.intermediate_dense": "widen",
    "feed_forward.output_dense": "narrow",
    "final_layer_norm": "norm_forward",
}


def masked(rows, time, seed=0):
    lengths = torch.randint(1, time + 1, (rows,), generator=torch.Generator().manual_seed(seed))
    return torch.arange(time) < lengths[:, None]


def formula(qkv, mask):
    q, k, v = qkv
    scores = torch.einsum("bhid,bhjd->bhij", q, k) / math.sqrt(q.shape[-1])
    return torch.einsum("bhij,bhjd->bhid", scores.masked_fill(~mask[:, None, None], -torch.inf).softmax(-1), v)


@pytest.mark.parametrize("time", [1, 7, 130])
@pytest.mark.parametrize("longest", [512, 0])  # own products, torch's kernel
def test_attention_is_its_formula_in_value_and_gradient(time, longest, monkeypatch):
    monkeypatch.setattr(encoder, "_LONGEST_KEPT", longest)
    generator = torch.Generator().manual_seed(time)
    qkv = torch.randn(3, 4, 3, time, 16, generator=generator).requires_grad_()
    upstream = torch.randn(4, 3, time, 16, generator=generator)
    for mask in (None, masked(4, time)):
        wanted = formula(qkv, torch.ones(4, time, dtype=torch.bool) if mask is None else mask)
        (wanted_grad,) = torch.autograd.grad(wanted, qkv, upstream)
        got = attend(qkv, mask)
        (got_grad,) = torch.autograd.grad(got, qkv, upstream)
        torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(got_grad, wanted_grad, rtol=1e-5, atol=1e-5)


def test_gradient_with_dropped_weights_is_that_of_finite_differences(monkeypatch):
    kept = (torch.rand(6, 5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64) > 0.3) / 0.7
    monkeypatch.setattr(encoder, "_keep", lambda x, p: kept.to(x.dtype))
    qkv = torch.randn(3, 2, 3, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: attend(x, masked(2, 5), 0.3), qkv)


def peer(norm_first):
    from transformers import BertConfig, Wav2Vec2Config
    from transformers.models.bert.modeling_bert import BertLayer
    from transformers.models.wav2vec2.modeling_wav2vec2 import Wav2Vec2EncoderLayerStableLayerNorm

    sizes = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 80}
    if norm_first:
        config = Wav2Vec2Config(**sizes, layer_norm_eps=1e-5, attn_implementation="eager")
        return Wav2Vec2EncoderLayerStableLayerNorm(config).eval(), WAV2VEC2, 1e-5
    return BertLayer(BertConfig(**sizes, attn_implementation="eager")).eval(), BERT, 1e-12


@pytest.mark.parametrize("norm_first", [False, True])
def test_block_is_that_of_transformers_in_value_and_gradients(norm_first):
    torch.manual_seed(0)
    theirs, names, eps = peer(norm_first)
    ours = EncoderBlock(32, 4, 80, norm_first=norm_first, eps=eps)
    for p in theirs.parameters():
        torch.nn.init.normal_(p, 1.0 if p.ndim == 1 else 0.0, 0.3)
    ours.load_state_dict(
        {f"{names[n.rpartition('.')[0]]}.{n.rpartition('.')[2]}": p for n, p in theirs.named_parameters()}
    )
    x, mask = torch.randn(3, 9, 32), masked(3, 9)
    wanted = theirs(x, torch.where(mask, 0.0, torch.finfo(torch.float32).min)[:, None, None].expand(3, 1, 9, 9))
    wanted = wanted if torch.is_tensor(wanted) else wanted[0]
    got = ours(x, mask)
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)
    upstream = torch.randn_like(got) * mask[:, :, None]
    (got * upstream).sum().backward()
    (wanted * upstream).sum().backward()
    own = dict(ours.named_parameters())
    for name, p in theirs.named_parameters():
        module, _, kind = name.rpartition(".")
        torch.testing.assert_close(own[f"{names[module]}.{kind}"].grad, p.grad, rtol=1e-4, atol=1e-4)


def test_what_stands_behind_the_mask_changes_nothing():
    block = EncoderBlock(16, 2, 32, norm_first=False).eval()
    x, mask = torch.randn(4, 12, 16, generator=torch.Generator().manual_seed(0)), masked(4, 12)
    other = torch.where(mask[:, :, None], x, 100.0)
    torch.testing.assert_close(block(other, mask)[mask], block(x, mask)[mask], rtol=1e-6, atol=1e-6)
    short = int(mask[0].sum())
    torch.testing.assert_close(block(x, mask)[0, :short], block(x[:1, :short])[0], rtol=1e-5, atol=1e-5)


def test_positions_that_are_permuted_come_out_permuted():
    block = EncoderBlock(16, 2, 32, norm_first=True).eval()
    x, order = torch.randn(2, 10, 16, generator=torch.Generator().manual_seed(0)), torch.randperm(10)
    torch.testing.assert_close(block(x[:, order]), block(x)[:, order], rtol=1e-5, atol=1e-5)


def test_a_row_without_real_positions_is_a_number_in_every_format():
    for dtype in (torch.float32, torch.bfloat16):
        qkv = torch.randn(3, 2, 2, 6, 8).to(dtype)
        assert attend(qkv, torch.zeros(2, 6, dtype=torch.bool)).isfinite().all()


def test_dropout_keeps_its_share_and_the_mean():
    x = torch.ones(1000, 1001)  # no multiple of four
    torch.manual_seed(0)
    out = Dropout(0.1)(x)
    zeros = (out == 0).float()
    assert abs(float(zeros.mean()) - 0.1) < 5 * math.sqrt(0.09 / x.numel())
    assert abs(float(out.mean()) - 1) < 0.002
    for offset in range(4):  # every quarter of a drawn number alike
        assert abs(float(zeros.flatten()[offset::4].mean()) - 0.1) < 5 * math.sqrt(0.09 / (x.numel() / 4))
    assert torch.equal(Dropout(0.1).eval()(x), x)
    torch.manual_seed(0)
    assert torch.equal(Dropout(0.1)(x), out)
