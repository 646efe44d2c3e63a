"""WordPiece (Schuster, Nakajima 2012; Devlin et al. 2019): whole words where they are known, else pieces of words.

Text is cleaned of control characters, brought to lower case without accents unless it is cased, and cut at white space
and around every punctuation mark and CJK character. Each word is then cut from the left into the longest pieces of the
vocabulary; pieces that go on with a word are written "##piece", and a word that cannot be cut is [UNK]. What is cleaned
away does not come back: unlike byte-level BPE this is not without loss.
"""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from string import punctuation
from typing import TYPE_CHECKING, Any

import numpy as np

from unlabeled.core.errors import UserError
from unlabeled.data.text import pieces_of

if TYPE_CHECKING:
    import tokenizers

__all__ = ["SPECIALS", "WordPieceTokenizer", "load_wordpiece", "train_wordpiece"]

SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_ALPHABET = 1000  # characters that have pieces of their own; rarer ones are [UNK]


class WordPieceTokenizer:
    """WordPiece by BERT's rules; size, end, encode and decode as `core.batch.Tokenizer` says, `end` being [SEP].

    vocabulary: piece to id, the five special ones included. lowercase: also strips accents, as the uncased models do.
    What a document says is never special: "[MASK]" in a text is a bracket, a word and a bracket.
    """

    def __init__(self, vocabulary: dict[str, int], lowercase: bool = True) -> None:
        from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

        self.vocabulary, self.lowercase = {**vocabulary}, lowercase
        self.size = len(self.vocabulary)
        if sorted(self.vocabulary.values()) != list(range(self.size)):
            raise UserError(f"The ids of a vocabulary run from 0 to its size - 1 = {self.size - 1}; these have gaps.")
        missing = [s for s in SPECIALS if s not in self.vocabulary]
        if missing:
            raise UserError(f"A WordPiece vocabulary holds {', '.join(SPECIALS)}; {', '.join(missing)} is missing.")
        self.pad, self.unknown, self.cls, self.end, self.mask = (self.vocabulary[s] for s in SPECIALS)
        self._tokenizer: tokenizers.Tokenizer = Tokenizer(models.WordPiece(self.vocabulary, unk_token="[UNK]"))
        self._tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
        self._tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        self._tokenizer.decoder = decoders.WordPiece()
        self._tokenizer.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in SPECIALS])
        # For other programs that read the file; here [CLS] and [SEP] are the method's business.
        self._tokenizer.post_processor = processors.BertProcessing(("[SEP]", self.end), ("[CLS]", self.cls))
        self._tokenizer.encode_special_tokens = True

    def __reduce__(self) -> Any:
        return type(self), (self.vocabulary, self.lowercase)

    def encode(self, text: str) -> np.ndarray:
        """(length,) int32 ids, without special ones but [UNK]. Raises UnicodeEncodeError at half a surrogate pair."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The ids of each text; texts, and parts of long ones, are encoded side by side on all threads."""
        cut = [pieces_of(text) for text in texts]
        for text in texts:
            text.encode()  # raises here: the library would name neither the place nor the reason
        flat = [piece for pieces in cut for piece in pieces]
        encoded = iter(self._tokenizer.encode_batch_fast(flat, add_special_tokens=False))
        return [np.concatenate([np.array(next(encoded).ids, np.int32) for _ in pieces]) for pieces in cut]

    def decode(self, ids: Any) -> str:
        """The cleaned text, as far as spaces can be guessed; special ids stand for nothing."""
        return self._tokenizer.decode(np.asarray(ids, np.int64).reshape(-1).tolist(), skip_special_tokens=True)

    def bytes_per_id(self) -> np.ndarray:
        """(size,) int64: UTF-8 bytes of each piece, spaces not counted; 0 for special ids."""
        counts = np.zeros(self.size, np.int64)
        for piece, index in self.vocabulary.items():
            counts[index] = 0 if piece in SPECIALS else len(piece.removeprefix("##").encode())
        return counts

    def continues(self) -> np.ndarray:
        """(size,) bool: the pieces that go on with a word."""
        return self._where(lambda piece: piece.startswith("##") and len(piece) > 2)

    def ends_sentence(self) -> np.ndarray:
        """(size,) bool: full stops, exclamation and question marks, those of Chinese and Japanese among them."""
        return self._where(lambda piece: piece in set(".!?。！？"))

    def _where(self, rule: Any) -> np.ndarray:
        out = np.zeros(self.size, bool)
        out[[index for piece, index in self.vocabulary.items() if rule(piece)]] = True
        return out

    def save(self, folder: Any) -> None:
        """Write the Hugging Face layout; `transformers.AutoTokenizer.from_pretrained(folder)` gives the same ids."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self._tokenizer.save(str(folder / "tokenizer.json"))
        names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
        specials = dict(zip(names, SPECIALS))
        config = {"tokenizer_class": "BertTokenizer", "do_lower_case": self.lowercase, **specials}
        lines = sorted(self.vocabulary, key=self.vocabulary.__getitem__)
        for name, text in (
            ("tokenizer_config.json", json.dumps(config, indent=2)),
            ("special_tokens_map.json", json.dumps(specials, indent=2)),
            ("vocab.txt", "\n".join(lines) + "\n"),
        ):
            (folder / name).write_text(text, encoding="utf-8")


def train_wordpiece(texts: Iterable[str], vocabulary: int, lowercase: bool = True) -> WordPieceTokenizer:
    """Learn pieces from texts until there are `vocabulary` ids, special ones included; fewer where the texts have no
    more pairs to merge. The same texts in the same order give the same tokenizer.

    Merges are chosen by how often a pair occurs, as the `tokenizers` library does it; Google's trainer is not public.

    Raises:
        UserError: where `vocabulary` leaves no room for the characters of the texts.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    clean = [normalizer.normalize_str(piece) for text in texts for piece in pieces_of(text)]
    starts, continues = _alphabet(clean)
    learner = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    learner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    # The library numbers "##" characters in the order of a hash table, another in each process, and breaks ties between
    # pairs by number. Those that are announced as special tokens have their number beforehand.
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocabulary,
        special_tokens=[*SPECIALS, *("##" + c for c in continues)],
        initial_alphabet=starts,
        limit_alphabet=len(starts),
        show_progress=False,
    )
    learner.train_from_iterator(clean, trainer)
    learned = learner.get_vocab()
    if len(learned) > vocabulary:
        raise UserError(
            f"A vocabulary of {vocabulary} has no room for the {len(learned)} characters and signs of these texts; "
            f"ask for more with --vocabulary."
        )
    return WordPieceTokenizer(learned, lowercase)


def _alphabet(texts: Sequence[str]) -> tuple[list[str], list[str]]:
    """The characters of cleaned texts, at most 1,000 and the most frequent, sorted; and those that go on with a word."""
    counts = Counter[str]()
    for text in texts:
        counts.update(text)
    frequent = sorted((c for c in counts if not c.isspace()), key=lambda c: (-counts[c], c))[:_ALPHABET]
    stands_alone = {c for c in counts if c in punctuation or unicodedata.category(c).startswith("P")}
    cut = str.maketrans(dict.fromkeys(stands_alone, " "))
    words = {word for text in texts for word in text.translate(cut).split()}
    return sorted(frequent), sorted({c for word in words for c in word[1:]} & set(frequent))


def load_wordpiece(folder: Any) -> WordPieceTokenizer:
    """Read what `save`, or a BERT in the Hugging Face layout or Google's, has in its folder.

    Raises:
        UserError: where there is neither tokenizer.json nor vocab.txt, or they are not WordPiece by BERT's rules.
    """
    folder = Path(folder)
    try:
        if (folder / "tokenizer.json").is_file():
            content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
            model, normal = content["model"], content.get("normalizer") or {}
            lowercase = bool(normal.get("lowercase", True))
            if (
                model.get("type") != "WordPiece"
                or normal.get("type") != "BertNormalizer"
                or (content.get("pre_tokenizer") or {}).get("type") != "BertPreTokenizer"
                or model.get("continuing_subword_prefix", "##") != "##"
                or normal.get("strip_accents") not in (None, lowercase)
            ):
                raise UserError(f"{folder} has a tokenizer that is not WordPiece by BERT's rules.")
            vocabulary = model["vocab"]
            for token in content.get("added_tokens", ()):
                vocabulary.setdefault(token["content"], token["id"])
        elif (folder / "vocab.txt").is_file():
            lines = (folder / "vocab.txt").read_text(encoding="utf-8").split("\n")
            vocabulary = {line.rstrip("\r"): index for index, line in enumerate(lines) if line}
            said = folder / "tokenizer_config.json"
            known = json.loads(said.read_text(encoding="utf-8")) if said.is_file() else {}
            lowercase = bool(known.get("do_lower_case", True))
        else:
            raise UserError(f"There is no WordPiece tokenizer in {folder}; it needs tokenizer.json or vocab.txt.")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"The tokenizer files in {folder} cannot be read ({error}); write or fetch them again."
        ) from None
    return WordPieceTokenizer(vocabulary, lowercase)
