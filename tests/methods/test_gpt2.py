"""GPT-2 against transformers' class in both directions; its likelihoods, samples and data."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from unlabeled.core.batch import Record, Spec
from unlabeled.core.clock import Clock
from unlabeled.core.config import resolve
from unlabeled.core.errors import BadRecord, UserError
from unlabeled.data.source import Source
from unlabeled.data.text import ByteTokenizer, train_bpe
from unlabeled.methods.gpt2 import GPT2

TEXTS = [f"The {a} {b} the {c}.\n" * 8 for a in ("cat", "dog") for b in ("sees", "hears") for c in ("fish", "bird")]
TEXTS.append(" ".join(f"{a}{b}{c}" for a in ("ban", "lo", "stri") for b in "aeiou" for c in ("ng", "nder", "ck")) * 3)
TOKENIZER = train_bpe(TEXTS, 300)


class Texts(Source):
    kind, name = "text", "texts"

    def __init__(self, texts):
        self.texts = texts

    def __len__(self):
        return len(self.texts)

    def __getitem__(self, index):
        if self.texts[index] is None:
            raise BadRecord("broken")
        return Record(str(index), {"text": self.texts[index]})

    def spec(self):
        return Spec("text", examples=len(self.texts))


def made(seed=0, **overrides):
    torch.manual_seed(seed)
    config = resolve(GPT2, "tiny", overrides)
    method = GPT2(config, Spec("text", vocabulary=TOKENIZER.size, tokenizer=TOKENIZER)).eval()
    with torch.no_grad():  # away from the start, where every logit is near zero
        for p in method.parameters():
            p.add_(0.1 * torch.randn(p.shape))
    return method


def batch(n=4, length=33, seed=1):
    return {"tokens": torch.randint(TOKENIZER.size, (n, length), generator=torch.Generator().manual_seed(seed))}


def in_transformers(method):
    transformers = pytest.importorskip("transformers")
    tensors, config = method.export()
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**config))
    missing = model.load_state_dict(tensors, strict=False)
    assert missing.missing_keys == ["lm_head.weight"] and not missing.unexpected_keys  # tied
    return model.eval()


def written(method, folder):
    tensors, config = method.export()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config))
    method.spec.tokenizer.save(folder)
    return folder


@pytest.mark.parametrize(
    ("variant", "count"),
    [("small", 124_439_808), ("medium", 354_823_168), ("large", 774_030_080), ("xl", 1_557_611_200)],
)
def test_published_sizes(variant, count):
    with torch.device("meta"):
        method = GPT2(resolve(GPT2, variant), Spec("text", vocabulary=50257))
    assert sum(p.numel() for p in method.parameters()) == count
    assert sum(p.numel() for p in method.decoder.blocks[0].parameters()) == (
        7_087_872 if variant == "small" else 12 * (w := method.config.width) * w + 13 * w
    )


def test_transformers_gives_the_same_logits_loss_and_gradients():
    method = made()
    theirs = in_transformers(method)
    tokens = batch()["tokens"]
    inputs, targets = tokens[:, :-1], tokens[:, 1:]
    logits = theirs(inputs).logits
    torch.testing.assert_close(method.decoder(inputs, F.linear), logits, rtol=1e-5, atol=1e-5)
    reference = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
    reference.backward()
    loss = method.loss({"tokens": tokens}, "main", Clock()).loss
    loss.backward()
    torch.testing.assert_close(loss, reference, rtol=1e-5, atol=1e-5)
    # The exported layout of our gradients, against theirs by name.
    for p in method.parameters():
        p.data = p.grad
    grads = dict(theirs.named_parameters())
    for name, gradient in method.export()[0].items():
        torch.testing.assert_close(gradient, grads[name].grad, rtol=1e-5, atol=1e-5)


def test_its_own_loss_of_shifted_labels_is_ours():
    method = made()
    tokens = batch()["tokens"]
    theirs = in_transformers(method)(input_ids=tokens[:, :-1], labels=tokens[:, :-1]).loss
    ours = method.loss({"tokens": tokens[:, :-1]}, "main", Clock()).loss
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_transformers_opens_what_is_exported(tmp_path):
    transformers = pytest.importorskip("transformers")
    method = made()
    written(method, tmp_path)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert type(model).__name__ == "GPT2LMHeadModel"
    ids = tokenizer(TEXTS[0], return_tensors="pt")["input_ids"][:, :32]
    assert ids[0].tolist() == TOKENIZER.encode(TEXTS[0])[:32].tolist()
    with torch.no_grad():
        torch.testing.assert_close(method.decoder(ids, F.linear), model(ids).logits, rtol=1e-5, atol=1e-5)
        greedy = model.generate(ids[:, :6], max_new_tokens=20, do_sample=False, pad_token_id=tokenizer.eos_token_id)
    prompt = TOKENIZER.decode(ids[0, :6])
    assert method.sample(1, condition=prompt, steps=20, temperature=0)["text"][0] == tokenizer.decode(
        greedy[0], skip_special_tokens=True
    )


@pytest.mark.parametrize("shard", ["10GB", "20KB"])
@pytest.mark.parametrize("kind", ["GPT2LMHeadModel", "GPT2Model"])
def test_it_opens_what_transformers_writes(tmp_path, shard, kind):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=300, n_positions=32, n_embd=32, n_layer=2, n_head=4, initializer_range=0.2
    )
    model = getattr(transformers, kind)(config).eval()
    model.save_pretrained(tmp_path, max_shard_size=shard)
    assert (tmp_path / "model.safetensors").exists() == (shard == "10GB")
    TOKENIZER.save(tmp_path)
    assert GPT2.opens(tmp_path)
    method = GPT2.from_pretrained(tmp_path).eval()
    assert method.config.heads == 4 and method.spec.tokenizer.size == 300
    tokens = batch()["tokens"][:, :-1]
    with torch.no_grad():
        hidden = getattr(model, "transformer", model)(tokens).last_hidden_state
        torch.testing.assert_close(method.decoder(tokens), hidden, rtol=1e-5, atol=1e-5)


def test_what_it_writes_it_reads(tmp_path):
    method = made()
    again = GPT2.from_pretrained(written(method, tmp_path)).eval()
    for (name, ours), theirs in zip(method.state_dict().items(), again.state_dict().values()):
        assert torch.equal(ours, theirs), name
    assert torch.equal(method.bytes_per_id, again.bytes_per_id)


def test_folders_that_are_not_gpt2_are_refused_in_one_sentence(tmp_path):
    with pytest.raises(UserError, match="no GPT-2"):
        GPT2.from_pretrained(tmp_path)
    written(made(), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for change, said in (
        ({"activation_function": "relu"}, "activation_function"),
        ({"n_inner": 77}, "four times"),
        ({"n_embd": 64}, "shape"),
        ({"n_layer": 3}, "lack"),
        ({"vocab_size": 299}, "ids"),
    ):
        (tmp_path / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(UserError, match=said):
            GPT2.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes(b"\x08\x00torn")
    with pytest.raises(UserError, match="cannot be read"):
        GPT2.from_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"no model\.safetensors"):
        GPT2.from_pretrained(tmp_path)
    assert not GPT2.opens(tmp_path / "nowhere")


def test_the_untrained_loss_is_the_logarithm_of_the_vocabulary():
    torch.manual_seed(0)
    config = resolve(GPT2, "laptop", {"vocabulary": 300})
    method = GPT2(config, Spec("text", vocabulary=300, tokenizer=TOKENIZER))
    assert method.loss(batch(8, 65), "main", Clock()).loss.item() == pytest.approx(np.log(300), rel=0.02)


def test_bits_per_byte_leaves_ends_out_and_counts_bytes():
    method = made()
    tokens = batch()["tokens"]
    tokens[:, 5::7] = TOKENIZER.end
    logs = method.loss({"tokens": tokens}, "main", Clock()).logs
    log_p = method.decoder(tokens[:, :-1], F.linear).log_softmax(-1)
    nats = bytes_ = 0.0
    for row, given in zip(tokens[:, 1:], log_p):
        for target, p in zip(row.tolist(), given):
            if target != TOKENIZER.end:
                nats -= p[target].item()
                bytes_ += len(TOKENIZER._tokenizer.id_to_token(target))
    assert logs["bits_per_byte"].item() == pytest.approx(nats / np.log(2) / bytes_, rel=1e-5)
    right = (log_p.argmax(-1) == tokens[:, 1:]).float().mean()
    assert logs["accuracy"].item() == pytest.approx(right.item())


def test_score_is_the_sum_of_log_probabilities():
    method = made()
    tokens = batch()["tokens"]
    log_p = method.decoder(tokens[:, :-1], F.linear).log_softmax(-1)
    wanted = log_p.gather(-1, tokens[:, 1:, None])[..., 0].sum(1)
    torch.testing.assert_close(method.score({"tokens": tokens}), wanted.detach(), rtol=1e-5, atol=1e-4)
    # It is a distribution: over all next tokens the probabilities sum to one.
    before = tokens[:1, :4]
    nexts = torch.cat([before.expand(300, -1), torch.arange(300)[:, None]], 1)
    given = method.score({"tokens": before})
    assert (method.score({"tokens": nexts}) - given).exp().sum().item() == pytest.approx(1, abs=1e-4)


def test_embeddings_are_means_of_the_last_states():
    method = made()
    local = method.embed_locally(batch())
    assert local.shape == (4, 32, 32) and local.dtype == torch.float32
    torch.testing.assert_close(method.embed(batch()), local.mean(1))


def test_whole_records_are_embedded_without_their_padding():
    method = made()
    tokens = torch.randint(0, 100, (3, 20))
    lengths = torch.tensor([20, 7, 1])
    together = method.embed({"tokens": tokens, "tokens_length": lengths})
    for row, length in enumerate(lengths.tolist()):
        alone = {"tokens": tokens[row : row + 1, :length], "tokens_length": lengths[row : row + 1]}
        torch.testing.assert_close(together[row], method.embed_locally(alone)[0].mean(0))


def test_samples_do_not_depend_on_their_number_and_repeat():
    method = made()

    def sample(n, seed=5, **options):
        torch.manual_seed(seed)
        return method.sample(n, steps=50, **options)["text"]

    # 50 new tokens overflow the context of 32.
    few, many = sample(2, condition="The cat"), sample(5, condition="The cat")
    assert few == many[:2] and len(set(many)) == 5
    assert all(text.startswith("The cat") for text in many)
    assert sample(5, condition="The cat") == many and sample(5, seed=6, condition="The cat") != many
    assert len(sample(3)) == 3 and len(set(sample(3, temperature=0))) == 1


def test_measure_trains_a_tokenizer_on_a_share_of_the_source():
    source = Texts([*TEXTS, None, "half \ud800 pair"])
    spec = GPT2.measure(resolve(GPT2, "tiny"), source)
    assert spec.vocabulary == spec.tokenizer.size == 300 and spec.examples == len(source)
    assert spec.tokenizer.decode(spec.tokenizer.encode(TEXTS[0])) == TEXTS[0]
    little = GPT2.measure(resolve(GPT2, "tiny", {"tokenizer_megabytes": 1e-5}), source)
    assert little.vocabulary < 280  # ten characters have few pairs
    assert isinstance(GPT2.measure(resolve(GPT2, "laptop-bytes"), source).tokenizer, ByteTokenizer)


def test_measure_refuses_other_kinds():
    class Images(Texts):
        def spec(self):
            return Spec("image")

    with pytest.raises(UserError, match="learns from text"):
        GPT2.measure(resolve(GPT2, "tiny"), Images([]))


def test_prepare_ends_documents_and_refuses_what_is_no_text():
    method, rng = made(), np.random.default_rng(0)
    ids = method.prepare(Record("a", {"text": TEXTS[0]}), rng)["tokens"]
    assert ids.dtype == np.int32 and ids[-1] == TOKENIZER.end and TOKENIZER.decode(ids) == TEXTS[0]
    with pytest.raises(BadRecord, match="empty"):
        method.prepare(Record("b", {"text": ""}), rng)
    with pytest.raises(BadRecord, match="surrogate"):
        method.prepare(Record("c", {"text": "\udfff"}), rng)
    assert method.window() == 32


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_only_matrices_of_blocks_decay(optimizer):
    method = made(optimizer=optimizer)
    plan = method.optimizers()["main"]
    decayed = {n for n, p in method.named_parameters() if plan.decays(n, p)}
    assert decayed == {
        n for n, _ in method.named_parameters() if ".blocks." in n and n.endswith("weight") and ("norm" not in n)
    }
    assert plan.algorithm == optimizer
    hidden = {n for n, p in method.named_parameters() if plan.hidden(n, p)}
    assert hidden == decayed and all(p.shape[0] == 32 for n, p in method.named_parameters() if "query.weight" in n)


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(UserError, match="divide"):
        resolve(GPT2, "tiny", {"heads": 3})
    with pytest.raises(UserError, match="at least 1"):
        resolve(GPT2, "tiny", {"layers": 0})
