"""WordPiece against transformers' and the library's, with vocabularies that were trained here or are published."""

import json
import os
import pickle
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from unlabeled.core.errors import UserError
from unlabeled.data.text import load_tokenizer
from unlabeled.data.wordpiece import SPECIALS, WordPieceTokenizer, load_wordpiece, train_wordpiece

TEXTS = [
    "The unbelievable cats weren't believing in déjà-vu, naïvely; they believed Zürich (42 %) cost €3.50!",
    "你好 world — cats and dogs, 1,024 times\tover\nand over. Catastrophe? Cataloguing categories.",
    *(f"{a}{b}{c} " * 3 for a in ("ban", "lo", "stri") for b in "aeiou" for c in ("ng", "nder", "ck")),
]
TOKENIZER = train_wordpiece(TEXTS, 200)


def lines(count, seed=0):
    rng, pool = (
        random.Random(seed),
        [*" ".join(TEXTS).split(), "ÀÉ", "x́", "\u200b", "𝔘", "字", "#", "##a", "\x07", "ß", "İ"],
    )
    return ["".join(rng.choice(pool) + rng.choice([" ", "", "  ", "\t", "-"]) for _ in range(12)) for _ in range(count)]


@pytest.mark.parametrize("lowercase", [True, False])
def test_transformers_gives_the_same_ids_on_ten_thousand_lines(lowercase, tmp_path):
    transformers = pytest.importorskip("transformers")
    ours = train_wordpiece(TEXTS, 200, lowercase)
    ours.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    texts = lines(10_000)
    wanted = theirs(texts, add_special_tokens=False)["input_ids"]
    assert [ids.tolist() for ids in ours.encode_batch(texts)] == wanted
    assert theirs(texts[0])["input_ids"] == [ours.cls, *wanted[0], ours.end]
    assert (theirs.pad_token_id, theirs.mask_token_id) == (ours.pad, ours.mask)
    # From the list of pieces alone.
    alone = transformers.BertTokenizer(str(tmp_path / "vocab.txt"), do_lower_case=lowercase)
    assert alone(texts[:200], add_special_tokens=False)["input_ids"] == wanted[:200]


def test_words_are_cut_from_the_left_into_the_longest_pieces():
    pieces = [*SPECIALS, "un", "##believ", "##able", "##b", "u", "."]
    tokenizer = WordPieceTokenizer({piece: i for i, piece in enumerate(pieces)})
    named = lambda text: [pieces[i] for i in tokenizer.encode(text)]  # noqa: E731
    assert named("Unbelievable. ÚN") == ["un", "##believ", "##able", ".", "un"]
    assert named("unbeliever un") == ["[UNK]", "un"]  # a word is known whole or not at all
    assert tokenizer.decode(tokenizer.encode("unbelievable.")) == "unbelievable."
    assert tokenizer.bytes_per_id().tolist() == [0, 0, 0, 0, 0, 2, 6, 4, 1, 1, 1]
    assert np.flatnonzero(tokenizer.continues()).tolist() == [6, 7, 8]
    assert np.flatnonzero(tokenizer.ends_sentence()).tolist() == [10]


def test_what_a_document_says_is_never_special():
    ids = TOKENIZER.encode("cats [MASK] and [SEP]")
    assert not set(ids.tolist()) & {TOKENIZER.cls, TOKENIZER.end, TOKENIZER.mask, TOKENIZER.pad}
    with pytest.raises(UnicodeEncodeError):
        TOKENIZER.encode("half \ud800")


def test_long_texts_have_the_ids_of_the_whole(monkeypatch):
    text = " ".join(lines(50, seed=1))
    whole = TOKENIZER.encode(text)
    monkeypatch.setattr("unlabeled.data.text._PIECE", 40)
    assert np.array_equal(TOKENIZER.encode(text), whole)


def test_training_is_the_same_in_every_process():
    script = "import json; from tests.data.test_wordpiece import TOKENIZER; print(json.dumps(TOKENIZER.vocabulary))"
    root = Path(__file__).parents[2]
    for seed in ("1", "2"):
        run = [sys.executable, "-c", script]
        done = subprocess.run(run, cwd=root, env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, check=True)
        assert json.loads(done.stdout) == TOKENIZER.vocabulary
    assert TOKENIZER.size == 200 and [TOKENIZER.vocabulary[s] for s in SPECIALS] == [0, 1, 2, 3, 4]
    assert TOKENIZER.unknown not in TOKENIZER.encode(TEXTS[0])


def test_it_is_read_back_in_every_layout_and_pickles(tmp_path):
    cased = train_wordpiece(TEXTS, 200, lowercase=False)
    for tokenizer in (TOKENIZER, cased):
        tokenizer.save(tmp_path)
        for again in (load_tokenizer(tmp_path), pickle.loads(pickle.dumps(tokenizer))):
            assert again.vocabulary == tokenizer.vocabulary and again.lowercase == tokenizer.lowercase
    (tmp_path / "tokenizer.json").unlink()
    again = load_tokenizer(tmp_path)
    assert again.vocabulary == cased.vocabulary and not again.lowercase


def test_mistakes_are_said_in_a_sentence(tmp_path):
    with pytest.raises(UserError, match="--vocabulary"):
        train_wordpiece(TEXTS, 20)
    with pytest.raises(UserError, match=r"\[MASK\] is missing"):
        WordPieceTokenizer({s: i for i, s in enumerate(SPECIALS[:-1])})
    with pytest.raises(UserError, match="gaps"):
        WordPieceTokenizer({s: 2 * i for i, s in enumerate(SPECIALS)})
    with pytest.raises(UserError, match=r"needs tokenizer\.json or vocab\.txt"):
        load_wordpiece(tmp_path)
    TOKENIZER.save(tmp_path)
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    content["pre_tokenizer"] = {"type": "Whitespace"}
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="BERT's rules"):
        load_wordpiece(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"model": {"type": "WordPiece"')
    with pytest.raises(UserError, match="cannot be read"):
        load_wordpiece(tmp_path)
