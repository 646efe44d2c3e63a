"""BERT against transformers' classes in both directions; its masks, pairs, features and findings."""

import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from tests.contract.made import trainer
from unlabeled.core.batch import Record, Spec
from unlabeled.core.clock import Clock
from unlabeled.core.config import resolve
from unlabeled.core.errors import BadRecord, UserError
from unlabeled.core.places import cache
from unlabeled.data.wordpiece import train_wordpiece
from unlabeled.methods.bert import BERT
from unlabeled.methods.gpt2 import GPT2

transformers = pytest.importorskip("transformers")

TEXTS = [
    f"The {a} {b} the {c}. Was it {a}?\n" * 8
    for a in ("cat", "dog")
    for b in ("sees", "hears")
    for c in ("fish", "bird")
]
TEXTS.append(" ".join(f"{a}{b}{c}" for a in ("ban", "lo", "stri") for b in "aeiou" for c in ("ng", "nder", "ck")) * 3)
TOKENIZER = train_wordpiece(TEXTS, 120)
PIECES = train_wordpiece(TEXTS, 60)  # words in two to five pieces


def made(seed=0, moved=True, tokenizer=TOKENIZER, **overrides):
    torch.manual_seed(seed)
    config = resolve(BERT, "tiny", overrides)
    method = BERT(config, Spec("text", vocabulary=tokenizer.size, tokenizer=tokenizer)).eval()
    if moved:
        with torch.no_grad():  # away from the start, where every logit is near zero
            for p in method.parameters():
                p.add_(0.1 * torch.randn(p.shape))
    return method


def windows(method, n=16, seed=1):
    """Windows of the texts, as the store would cut them: one token more than is used."""
    stream = np.concatenate(
        [method.prepare(Record("", {"text": t}), np.random.default_rng(0))["tokens"] for t in TEXTS]
    )
    starts = np.random.default_rng(seed).integers(0, len(stream) - method.window() - 1, n)
    return {"tokens": torch.from_numpy(np.stack([stream[s : s + method.window() + 1] for s in starts])).long()}


def transformed(method, n=16, seed=1, clock=None):
    torch.manual_seed(seed)
    return next(iter(method.updates(method.transform(windows(method, n, seed), clock or Clock()), Clock())))[1]


def in_transformers(method):
    tensors, config = method.export()
    kind = getattr(transformers, config["architectures"][0])
    model = kind(transformers.BertConfig(**config, attn_implementation="eager"))
    missing = model.load_state_dict(tensors, strict=False)
    # Tied: the output matrix and bias; without pairs theirs has no pooler either.
    assert {k.rpartition(".")[0] for k in missing.missing_keys} <= {"cls.predictions.decoder"}
    assert not missing.unexpected_keys
    model.tie_weights()
    return model.eval()


def written(method, folder):
    tensors, config = method.export()
    save_file({k: v.contiguous() for k, v in tensors.items()}, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config))
    method.spec.tokenizer.save(folder)
    return folder


@pytest.mark.parametrize(
    ("variant", "whole", "alone"), [("base", 110_106_428, 109_482_240), ("large", 336_226_108, 335_141_888)]
)
def test_published_sizes(variant, whole, alone):
    with torch.device("meta"):
        method = BERT(resolve(BERT, variant), Spec("text", vocabulary=30522))
    count = {name: p.numel() for name, p in method.encoder.named_parameters()}
    heads = sum(n for name, n in count.items() if "transform" in name or name.startswith(("output_bias", "relation")))
    assert sum(count.values()) == whole and whole - heads == alone


@pytest.mark.parametrize("pairs", [True, False])
def test_transformers_gives_the_same_states_loss_and_gradients(pairs):
    method = made(next_sentence=pairs)
    theirs = in_transformers(method)
    batch = transformed(method)
    given = {"input_ids": batch["tokens"], "token_type_ids": batch.get("segments")}
    labels = torch.full_like(batch["tokens"], -100).scatter_(1, batch["at"], batch["targets"])
    labels = labels.masked_fill(torch.zeros_like(labels).scatter_(1, batch["at"], batch["scored"].long()) == 0, -100)
    states = theirs.bert(**given).last_hidden_state
    torch.testing.assert_close(method.encoder(batch["tokens"], batch.get("segments")), states, rtol=1e-5, atol=1e-5)
    if pairs:
        out = theirs(**given, labels=labels, next_sentence_label=batch["other"])
    else:
        out = theirs(**given, labels=labels)
    outcome = method.loss(batch, "main", Clock())
    torch.testing.assert_close(outcome.loss, out.loss, rtol=1e-5, atol=1e-5)
    outcome.loss.backward()
    out.loss.backward()
    # The exported layout of our gradients, against theirs by name.
    for p in method.parameters():
        p.data = p.grad
    grads = dict(theirs.named_parameters())
    for name, gradient in method.export()[0].items():
        torch.testing.assert_close(gradient, grads[name].grad, rtol=1e-5, atol=1e-5)


def test_the_head_at_hidden_positions_is_the_whole_head_at_those():
    method = made()
    theirs = in_transformers(method)
    batch = transformed(method)
    picked, _ = method.encoder(
        batch["tokens"], batch["segments"], None, batch["at"], lambda h, matrix, bias: F.linear(h, matrix, bias)
    )
    whole = theirs(batch["tokens"], token_type_ids=batch["segments"]).prediction_logits
    wanted = whole.gather(1, batch["at"][:, :, None].expand(-1, -1, whole.shape[2]))
    torch.testing.assert_close(picked, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("pairs", [True, False])
def test_transformers_opens_what_is_exported_and_it_comes_back(pairs, tmp_path):
    method = made(next_sentence=pairs)
    written(method, tmp_path)
    text = ["The cat hears a strinder.", "Bird?"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    given = tokenizer(text, return_tensors="pt", padding=True)
    encoder = transformers.AutoModel.from_pretrained(tmp_path, attn_implementation="eager").eval()
    filler = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path, attn_implementation="eager").eval()
    assert (type(encoder).__name__, type(filler).__name__) == ("BertModel", "BertForMaskedLM")
    ids = [TOKENIZER.encode(t) for t in text]
    longest = max(map(len, ids))
    tokens = torch.tensor(np.stack([np.pad(i, (0, longest - len(i))) for i in ids])).long()
    batch = {"tokens": tokens, "tokens_length": torch.tensor([len(i) for i in ids])}
    again = BERT.from_pretrained(tmp_path).eval()
    assert BERT.opens(tmp_path) and not GPT2.opens(tmp_path)
    with torch.no_grad():
        states, logits = encoder(**given).last_hidden_state, filler(**given).logits
        real = given["attention_mask"].bool()
        torch.testing.assert_close(method.embed_locally(batch)[real], states[real], rtol=1e-5, atol=1e-5)
        assert torch.equal(again.embed_locally(batch), method.embed_locally(batch))
        at = torch.arange(tokens.shape[1] + 2).expand(2, -1)
        own = method.encoder(
            given["input_ids"], None, real, at, lambda h, matrix, bias: F.linear(h, matrix, bias)
        )[0]  # fmt: skip
        torch.testing.assert_close(own[real], logits[real], rtol=1e-5, atol=1e-5)
    assert again.config.next_sentence == pairs
    for name, tensor in method.encoder.state_dict().items():
        assert torch.equal(tensor, again.encoder.state_dict()[name]), name


def test_googles_names_and_an_encoder_alone_are_read(tmp_path):
    method = made()
    written(method, tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    renamed = {}
    for name, tensor in tensors.items():
        for new, was in old.items():
            name = name.replace(new, was)
        if name.startswith("bert."):
            renamed[name.removeprefix("bert.")] = tensor
    save_file(renamed, tmp_path / "model.safetensors")
    again, batch = BERT.from_pretrained(tmp_path).eval(), windows(method)
    assert torch.equal(again.embed(batch), method.embed(batch))


def test_other_architectures_and_damage_are_refused_in_a_sentence(tmp_path):
    written(made(), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for key, value in (
        ("hidden_act", "gelu_new"),
        ("layer_norm_eps", 1e-5),
        ("position_embedding_type", "relative_key"),
    ):
        (tmp_path / "config.json").write_text(json.dumps(config | {key: value}))
        with pytest.raises(UserError, match=key):
            BERT.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config | {"intermediate_size": 65}))
    with pytest.raises(UserError, match="shape"):
        BERT.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    with pytest.raises(UserError, match="lack"):
        BERT.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": "gpt2"}))
    with pytest.raises(UserError, match="holds no BERT"):
        BERT.from_pretrained(tmp_path)


def minilm():
    folder = cache("data") / "minilm"
    if not (folder / "model.safetensors").exists():
        pytest.skip("not fetched; get it with: unlabeled data get minilm")
    return folder


def test_minilm_gives_transformers_states_ids_and_cosines():
    folder = minilm()
    method = BERT.from_pretrained(folder).eval()
    named = sum(p.numel() for n, p in method.encoder.named_parameters() if "transform" not in n and n != "output_bias")
    assert named - sum(p.numel() for p in method.encoder.relation.parameters()) == 22_713_216
    theirs = transformers.AutoModel.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    texts = ["A man is eating food.", "A man eats a meal.", "The stock market fell sharply today."]
    given = tokenizer(texts, return_tensors="pt", padding=True)
    ids = method.spec.tokenizer.encode_batch(texts)
    assert [[method.spec.tokenizer.cls, *i.tolist(), method.spec.tokenizer.end] for i in ids] == tokenizer(texts)[
        "input_ids"
    ]
    longest = max(map(len, ids))
    tokens = torch.from_numpy(np.stack([np.pad(i, (0, longest - len(i))) for i in ids])).long()
    batch = {"tokens": tokens, "tokens_length": torch.tensor([len(i) for i in ids])}
    with torch.no_grad():
        states, real = theirs(**given).last_hidden_state, given["attention_mask"].bool()
        torch.testing.assert_close(method.embed_locally(batch)[real], states[real], rtol=1e-4, atol=1e-4)
        unit = F.normalize(method.embed(batch))
    assert (unit @ unit.T)[0, 1].item() == pytest.approx(0.9082, abs=1e-4)
    assert sorted((unit @ unit.T)[2, :2].tolist()) == pytest.approx([0.0037, 0.0185], abs=1e-4)


# ---- data and masks ------------------------------------------------------------------------------------------------


def test_the_first_loss_is_that_of_a_uniform_guess():
    for pairs in (True, False):
        method = made(moved=False, next_sentence=pairs)
        loss = method.loss(transformed(method, 64), "main", Clock()).loss.item()
        assert loss == pytest.approx(math.log(TOKENIZER.size) + pairs * math.log(2), rel=0.02)


@pytest.mark.parametrize("masking", ["dynamic", "static"])
def test_masks_have_the_published_shares_and_never_hide_special_tokens(masking):
    method = made(length=128, masking=masking, next_sentence=False)
    rows = torch.randint(TOKENIZER.size, (8000, 127), generator=torch.Generator().manual_seed(0))  # 10^6 tokens
    torch.manual_seed(0)
    batch = method.transform({"tokens": rows}, Clock())
    count = round(0.15 * 128)
    assert batch["at"].shape == (8000, count) and (batch["scored"] == 1).all()
    plain = torch.cat([torch.full((8000, 1), TOKENIZER.cls), rows[:, :126], torch.full((8000, 1), TOKENIZER.end)], 1)
    assert torch.equal(batch["targets"], plain.gather(1, batch["at"]))
    assert not ((batch["targets"] == TOKENIZER.cls) | (batch["targets"] == TOKENIZER.end)).any()
    assert all(len(set(row)) == count for row in batch["at"][:500].tolist())
    elsewhere = torch.ones_like(plain, dtype=torch.bool).scatter_(1, batch["at"], False)
    assert torch.equal(batch["tokens"][elsewhere], plain[elsewhere])
    new, n = batch["tokens"].gather(1, batch["at"]), 8000 * count
    one = 1 / TOKENIZER.size  # a token may be [MASK] already, and a random one may be [MASK] or the token itself
    for share, wanted in (
        ((new == TOKENIZER.mask).float().mean(), 0.8 + 0.2 * one),
        ((new == batch["targets"]).float().mean(), 0.1 + 0.9 * one),
    ):
        assert abs(float(share) - wanted) < 3.5 * math.sqrt(wanted * (1 - wanted) / n)
    swapped = new[(new != TOKENIZER.mask) & (new != batch["targets"])]
    others = torch.bincount(swapped, minlength=TOKENIZER.size).float() / len(swapped)
    assert others[[0, 1, 2, 3]].min() > 0.5 * one and others.max() < 1.5 * one  # of the whole vocabulary
    places = torch.bincount(batch["at"].flatten(), minlength=128)[1:127].float() / n
    assert (places - 1 / 126).abs().max() < 5 * math.sqrt(1 / 126 / n)


def test_static_masks_belong_to_the_content_and_turn_with_the_epochs():
    method = made(masking="static", copies=3, next_sentence=False)
    whole, part = transformed(method, seed=1), windows(method, seed=1)
    torch.manual_seed(99)
    again = method.transform({"tokens": part["tokens"][5:7]}, Clock())  # another seed, other neighbours
    assert all(torch.equal(again[k], whole[k][5:7]) for k in again)
    other, third = transformed(method, clock=Clock(epoch=1.0)), transformed(method, clock=Clock(epoch=3.5))
    assert not torch.equal(other["at"], whole["at"]) and torch.equal(third["at"], whole["at"])


def test_whole_words_are_hidden_whole_and_counted_as_they_are():
    method = made(tokenizer=PIECES, whole_words=True, next_sentence=False, length=48)
    batch, rows = transformed(method, 64), windows(method, 64)["tokens"]
    scored = batch["scored"].sum(1)
    assert scored.max() <= round(0.15 * 48) and scored.min() < scored.max()
    plain = torch.cat([torch.full((64, 1), TOKENIZER.cls), rows[:, :46], torch.full((64, 1), TOKENIZER.end)], 1)
    for row in range(64):
        hidden = set(batch["at"][row][batch["scored"][row] > 0].tolist())
        for j in range(2, 47):
            if method.continues[plain[row, j]] and plain[row, j - 1] not in (TOKENIZER.cls, TOKENIZER.end):
                assert (j in hidden) == (j - 1 in hidden)
    # The loss is over all hidden tokens alike: per row it would be another.
    out = method.loss(batch, "main", Clock()).loss
    logits = in_transformers(method)(batch["tokens"]).logits
    nll = F.cross_entropy(
        logits.gather(1, batch["at"][:, :, None].expand(-1, -1, logits.shape[2])).mT, batch["targets"], reduction="none"
    )
    torch.testing.assert_close(out, (nll * batch["scored"]).sum() / batch["scored"].sum(), rtol=1e-5, atol=1e-5)
    rows_mean = ((nll * batch["scored"]).sum(1) / batch["scored"].sum(1)).mean()
    assert abs(float((out - rows_mean).detach())) > 1e-3


@pytest.mark.parametrize("cuts", [(16,), (4, 4, 4, 4), (1, 15), (5, 3, 8)])
def test_parts_of_a_batch_add_up_to_the_gradient_of_the_whole(cuts):
    method = made(tokenizer=PIECES, whole_words=True)
    batch = transformed(method, 16)
    assert batch["scored"].sum(1).unique().numel() > 1
    method.loss(batch, "main", Clock()).loss.backward()
    wanted = {n: p.grad.clone() for n, p in method.named_parameters()}
    method.zero_grad()
    for piece in zip(*(v.split(cuts) for v in batch.values())):
        part = dict(zip(batch, piece))
        (method.loss(part, "main", Clock()).loss * method.count(part, "main") / 16).backward()
    for name, p in method.named_parameters():
        torch.testing.assert_close(p.grad, wanted[name], rtol=1e-4, atol=1e-6)


def test_states_where_nothing_is_hidden_get_no_gradient_from_the_head():
    method = made(next_sentence=False)
    batch = transformed(method)
    kept = []
    method.encoder.blocks[-1].register_forward_hook(
        lambda m, args, out: (out.retain_grad(), kept.append(out))[1] and None
    )
    method.loss(batch, "main", Clock()).loss.backward()
    hidden = torch.zeros(batch["tokens"].shape, dtype=torch.bool).scatter_(1, batch["at"], True)
    assert (kept[0].grad[~hidden] == 0).all() and (kept[0].grad[hidden].abs().amax(-1) > 0).all()


def test_segments_and_positions_matter():
    method = made()
    batch = transformed(method)
    states = method.encoder(batch["tokens"], batch["segments"])
    assert (states - method.encoder(batch["tokens"], 1 - batch["segments"])).abs().max() > 1e-3
    order = torch.randperm(31) + 1
    moved = torch.cat([batch["tokens"][:, :1], batch["tokens"][:, order]], 1)
    assert (method.encoder(moved)[:, 0] - method.encoder(batch["tokens"])[:, 0]).abs().max() > 1e-3
    with torch.no_grad():
        method.encoder.position_embedding.weight.zero_()
    got, whole = method.encoder(moved), method.encoder(batch["tokens"])
    torch.testing.assert_close(got[:, 1:], whole[:, order], rtol=1e-4, atol=1e-5)


def test_whole_records_and_windows_have_the_same_features():
    method = made()
    tokens = windows(method, 3)["tokens"][:, : method.window()]
    tokens[tokens == TOKENIZER.end] = 20
    ended = torch.cat([tokens[:, :10], torch.full((3, 1), TOKENIZER.end)], 1)
    padded = F.pad(torch.cat([tokens[:, :10], tokens[:, :1]], 1), (0, 6))
    lengths = torch.full((3,), 10)
    plain = method.embed({"tokens": padded, "tokens_length": lengths})
    # The end of a document does not stand twice, and nothing behind the length counts.
    torch.testing.assert_close(method.embed({"tokens": ended, "tokens_length": lengths + 1}), plain)
    whole = F.pad(tokens, (0, 1))
    given = {"tokens": tokens, "tokens_length": torch.full((3,), method.window())}
    torch.testing.assert_close(method.embed({"tokens": whole}), method.embed(given))
    assert method.positions({"tokens": padded, "tokens_length": lengths}).tolist() == [12] * 3
    first = made(pooling="cls").embed({"tokens": whole})
    torch.testing.assert_close(first, method.embed_locally({"tokens": whole})[:, 0])


def test_bad_data_is_said_in_a_sentence():
    method = made()
    for text in ("", " \n\t", "half \ud800"):
        with pytest.raises(BadRecord):
            method.prepare(Record("x", {"text": text}), np.random.default_rng(0))
    with pytest.raises(UserError, match="--no-next-sentence"):
        method.transform(windows(method, 1), Clock())
    for wrong in ({"replaced": (0.8, 0.1, 0.2)}, {"masked": 0.0}, {"heads": 3}, {"length": 4}):
        with pytest.raises(UserError):
            resolve(BERT, "tiny", wrong)


# ---- health --------------------------------------------------------------------------------------------------------


def after(tmp_path, monkeypatch, steps=60, **overrides):
    """What a run of the tiny variant on made sentences says about itself."""
    import tests.contract.made as suite

    monkeypatch.setenv("UNLABELED_CACHE", str(tmp_path / "cache"))
    plain = suite.tiny
    monkeypatch.setattr(suite, "tiny", lambda name: plain(name, **overrides))
    t = trainer("bert", tmp_path / "run", budget=f"{steps}steps", save_every="1000steps")
    t.train()
    return {finding.name: finding for finding in t.method.diagnose(t.run.metrics())}


@pytest.mark.parametrize("pairs", [True, False])
def test_a_run_that_learns_is_healthy(pairs, tmp_path, monkeypatch):
    findings = after(tmp_path, monkeypatch, steps=300, next_sentence=pairs)
    assert len(findings) == 5 + pairs
    assert all(f.healthy and f.meaning.endswith(".") for f in findings.values()), findings
    assert findings["masked share"].value == pytest.approx(5 / 32, abs=0.01)
    assert findings["replaced by [MASK]"].value == pytest.approx(0.8, abs=0.05)


def test_a_run_that_does_not_move_is_stuck_at_the_unigram_entropy(tmp_path, monkeypatch):
    findings = after(tmp_path, monkeypatch, lr=1e-7)
    assert not findings["nats below the unigram entropy"].healthy and not findings["masked accuracy"].healthy
    assert findings["replaced by [MASK]"].healthy


def test_hidden_tokens_that_can_be_read_are_named(tmp_path, monkeypatch):
    findings = after(tmp_path, monkeypatch, replaced=(0.0, 1.0, 0.0))
    assert not findings["left as they were"].healthy and not findings["replaced by [MASK]"].healthy


def test_pairs_that_are_solved_at_once_are_named():
    method = made()
    row = {"masked": 0.15, "as_mask": 0.8, "kept": 0.1, "accuracy": 0.3, "unigram_accuracy": 0.1, "unigram": 3.0}
    row |= {"mlm": 2.0, "nsp_accuracy": 1.0, "elsewhere": 0.5}
    assert [f.name for f in method.diagnose([row] * 20) if not f.healthy] == ["next-sentence accuracy"]
    assert not [f for f in method.diagnose([row | {"nsp_accuracy": 0.6}] * 20) if not f.healthy]


def test_the_unigram_line_is_the_entropy_of_what_was_to_be_guessed():
    method = made(next_sentence=False)
    batch = transformed(method, 64)
    outcome = method.loss(batch, "main", Clock())
    assert float(outcome.logs["unigram"]) == pytest.approx(math.log(TOKENIZER.size), rel=1e-5)  # nothing seen yet
    for _ in range(200):
        method.after_update("main", [outcome] * 10, Clock())
    p = torch.bincount(batch["targets"].flatten(), minlength=TOKENIZER.size).double()
    p = p[p > 0] / p.sum()
    logs = method.loss(batch, "main", Clock()).logs
    assert float(logs["unigram"]) == pytest.approx(float(-(p * p.log()).sum()), rel=1e-3)
    assert float(logs["unigram_accuracy"]) == pytest.approx(float(p.max()))
