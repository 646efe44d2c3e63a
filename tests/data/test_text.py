"""Tokenizers: lossless on any text, blind to special text, and the same in transformers."""

import json
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unlabeled.core.errors import UserError
from unlabeled.data import text as module
from unlabeled.data.text import END, BPETokenizer, ByteTokenizer, load_tokenizer, train_bpe

CORPUS = [
    "The cat sat on the mat; it's the cat's mat, they'll say.\n\n  Two  spaces, 1234 numbers and\ttabs.\n" * 20,
    "def f(x):\n    return x + 1  # Größe, 漢字, 😀\n" * 20,
    " ".join(f"{a}{b}{c}" for a in ("ban", "lo", "stri") for b in "aeiou" for c in ("ng", "nder", "ck", "m")) * 3,
]
BPE = train_bpe(CORPUS, 400)
BYTES = ByteTokenizer()
both = pytest.mark.parametrize("tokenizer", [BPE, BYTES], ids=["bpe", "bytes"])
any_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)


@both
@settings(max_examples=200, deadline=None)
@given(text=any_text)
def test_any_text_comes_back(tokenizer, text):
    ids = tokenizer.encode(text)
    assert ids.dtype == np.int32 and ids.ndim == 1
    assert tokenizer.decode(ids) == text
    assert tokenizer.end not in ids
    assert tokenizer.bytes_per_id()[ids].sum() == len(text.encode())


@both
def test_all_bytes_come_back(tokenizer):
    text = bytes(range(256)).decode("latin-1")
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert len(tokenizer.encode("")) == 0 and tokenizer.decode([]) == ""


@both
def test_the_end_written_in_a_document_is_ordinary_text(tokenizer):
    text = f"he typed {END} twice {END}"
    assert tokenizer.end not in tokenizer.encode(text)
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.decode([*tokenizer.encode("a"), tokenizer.end]) == "a"


def test_byte_ids_are_the_bytes():
    assert BYTES.size == 257 and BYTES.end == 256
    assert BYTES.encode("aé").tolist() == list("aé".encode())
    # The shortcut gives what the merge-free BPE underneath gives.
    text = "".join(CORPUS) + END
    assert BYTES.encode(text).tolist() == BPETokenizer.encode_batch(BYTES, [text])[0].tolist() == list(text.encode())


def test_bpe_has_the_size_asked_for_and_compresses():
    assert BPE.size == 400 and BPE.end == 399
    assert len(BPE.encode(CORPUS[0])) < len(CORPUS[0]) / 2
    assert train_bpe(["ab" * 10], 10_000).size < 300  # no more pairs to merge


def test_training_repeats():
    assert train_bpe(CORPUS, 400).encode(CORPUS[1]).tolist() == BPE.encode(CORPUS[1]).tolist()
    assert train_bpe(iter(CORPUS), 400)._merges == BPE._merges


@settings(max_examples=100, deadline=None)
@given(text=st.text(st.sampled_from("ab1 \n\t.'!\u00a0\u2028\x1cé"), max_size=300))
def test_cutting_a_text_does_not_change_its_ids(text):
    whole = BPE._tokenizer.encode(text).ids
    kept, module._PIECE = module._PIECE, 5
    try:
        assert "".join(module.pieces_of(text)) == text
        assert BPE.encode(text).tolist() == whole
    finally:
        module._PIECE = kept


def test_a_batch_is_its_texts_one_by_one():
    texts = ["one", "", "two three", CORPUS[1]]
    for alone, batched in zip(map(BPE.encode, texts), BPE.encode_batch(texts)):
        assert alone.tolist() == batched.tolist()


@both
def test_half_a_surrogate_pair_is_refused(tokenizer):
    with pytest.raises(UnicodeEncodeError):
        tokenizer.encode("a\ud800")


@both
def test_it_survives_saving_and_pickling(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    for again in (load_tokenizer(tmp_path), pickle.loads(pickle.dumps(tokenizer))):
        assert type(again) is type(tokenizer)
        assert (again.size, again.end) == (tokenizer.size, tokenizer.end)
        assert again.encode(CORPUS[1]).tolist() == tokenizer.encode(CORPUS[1]).tolist()


def test_vocabulary_and_merges_alone_suffice(tmp_path):
    BPE.save(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    assert load_tokenizer(tmp_path).encode(CORPUS[0]).tolist() == BPE.encode(CORPUS[0]).tolist()


@both
def test_transformers_opens_it_and_agrees(tokenizer, tmp_path):
    transformers = pytest.importorskip("transformers")
    tokenizer.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert len(theirs) == tokenizer.size
    assert theirs.eos_token_id == theirs.bos_token_id == tokenizer.end
    for text in (*CORPUS, "  x \n\n y", "\x00\x1c\u00a0é😀"):
        ids = theirs(text)["input_ids"]
        assert ids == tokenizer.encode(text).tolist()
        assert theirs.decode(ids) == text
    assert theirs(END)["input_ids"] == [tokenizer.end]  # there, special text is special, as GPT-2's users expect


def test_what_cannot_be_read_is_said_in_one_sentence(tmp_path):
    with pytest.raises(UserError, match="no tokenizer"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        load_tokenizer(tmp_path)
    BPE.save(tmp_path)
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    content["pre_tokenizer"] = {"type": "Whitespace"}
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="byte-level"):
        load_tokenizer(tmp_path)
    with pytest.raises(UserError, match="257"):
        train_bpe(CORPUS, 256)
    with pytest.raises(UserError, match="256 bytes"):
        BPETokenizer({"a": 0}, [])
