"""Text to ids and back, without loss: byte-level BPE (Radford et al. 2019, section 2.2), and plain bytes.

Text is cut by GPT-2's pattern (contractions, an optional space with letters, with digits or with other signs, spaces),
each byte is written as one of 256 printable characters, and neighbours are merged in the order in which training found
them. A byte tokenizer is the same thing with no merges. `<|endoftext|>` separates documents and is always the last id;
where a document happens to contain these characters they are ordinary bytes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unlabeled.core.errors import BadRecord, UserError

if TYPE_CHECKING:
    import tokenizers

    from unlabeled.data.source import Source

__all__ = ["END", "BPETokenizer", "ByteTokenizer", "load_tokenizer", "pieces_of", "some_texts", "train_bpe"]

END = "<|endoftext|>"
_PIECE = 1 << 15  # characters: long texts are cut for the sake of threads and of the library's caches
# No match of GPT-2's pattern goes from a letter or a full stop into white space, and none looks back, so that a text
# that is cut between the two has the same ids as the whole.
_CUT = re.compile(r"(?<=[A-Za-z0-9.,;:!?)\]}])(?=[ \n])")


def _characters() -> list[str]:
    """The printable character that stands for each byte: itself where it is printable in Latin-1 and no space, and
    the next free one from 256 on where it is not (openai/gpt-2, src/encoder.py)."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    spare = iter(range(256, 512))
    return [chr(b) if b in printable else chr(next(spare)) for b in range(256)]


def pieces_of(text: str) -> list[str]:
    """Cut a long text where that cannot change its ids; "".join(pieces) is the text."""
    cuts = [0]
    while len(text) - cuts[-1] > _PIECE:
        found = _CUT.search(text, cuts[-1] + _PIECE)
        if found is None:
            break
        cuts.append(found.start())
    return [text[start:end] for start, end in zip(cuts, [*cuts[1:], None])]


class BPETokenizer:
    """Byte-level BPE with GPT-2's pattern; size, end, encode and decode as `core.batch.Tokenizer` says.

    vocabulary: piece (in printable characters) to id, without `<|endoftext|>` or with it; merges: pairs in order.
    Encoding uses all threads; set TOKENIZERS_PARALLELISM=false to keep it to one.
    """

    def __init__(self, vocabulary: dict[str, int], merges: Sequence[tuple[str, str]]) -> None:
        from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

        self._vocabulary = {**vocabulary}
        self._vocabulary.setdefault(END, len(vocabulary))
        self._merges = [(a, b) for a, b in merges]
        self.size = len(self._vocabulary)
        self.end = self._vocabulary[END]
        if sorted(self._vocabulary.values()) != list(range(self.size)):
            raise UserError(f"The ids of a vocabulary run from 0 to its size - 1 = {self.size - 1}; these have gaps.")
        missing = [c for c in _characters() if c not in self._vocabulary]
        if missing:
            raise UserError(f"A byte-level vocabulary holds all 256 bytes; {len(missing)} are missing from this one.")
        self._tokenizer: tokenizers.Tokenizer = Tokenizer(models.BPE(self._vocabulary, self._merges))
        self._tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
        self._tokenizer.decoder = decoders.ByteLevel()
        self._tokenizer.add_special_tokens([AddedToken(END, special=True, normalized=False)])
        self._tokenizer.encode_special_tokens = True  # what a document says is never a separator

    def __reduce__(self) -> Any:
        return type(self)._again, (self._vocabulary, self._merges)

    @classmethod
    def _again(cls, vocabulary: dict[str, int], merges: Sequence[tuple[str, str]]) -> BPETokenizer:
        return cls(vocabulary, merges)

    def encode(self, text: str) -> np.ndarray:
        """(length,) int32 ids; never `end`. Raises UnicodeEncodeError where half of a surrogate pair is no text."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The ids of each text; texts, and parts of long ones, are encoded side by side on all threads."""
        cut = [pieces_of(text) for text in texts]
        for text in texts:
            text.encode()  # raises here: the library would name neither the place nor the reason
        encoded = iter(self._tokenizer.encode_batch_fast([piece for pieces in cut for piece in pieces]))
        return [np.concatenate([np.array(next(encoded).ids, np.int32) for _ in pieces]) for pieces in cut]

    def decode(self, ids: Any) -> str:
        """The text; `end` stands for none, and bytes that are no UTF-8 become U+FFFD."""
        return self._tokenizer.decode(np.asarray(ids, np.int64).reshape(-1).tolist(), skip_special_tokens=True)

    def bytes_per_id(self) -> np.ndarray:
        """(size,) int64: UTF-8 bytes each id stands for; 0 for `end`."""
        counts = np.zeros(self.size, np.int64)
        for piece, index in self._vocabulary.items():
            counts[index] = len(piece)  # one printable character a byte
        counts[self.end] = 0
        return counts

    def save(self, folder: Any) -> None:
        """Write the Hugging Face layout; `transformers.AutoTokenizer.from_pretrained(folder)` gives the same ids."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self._tokenizer.save(str(folder / "tokenizer.json"))
        specials = {"bos_token": END, "eos_token": END, "unk_token": END}
        config = {
            "tokenizer_class": "GPT2Tokenizer",
            "add_prefix_space": False,
            "clean_up_tokenization_spaces": False,
            "added_tokens_decoder": {
                str(self.end): {
                    "content": END,
                    "special": True,
                    "normalized": False,
                    "lstrip": False,
                    "rstrip": False,
                    "single_word": False,
                }
            },
            **specials,
        }
        merges = "".join(f"{a} {b}\n" for a, b in self._merges)
        for name, text in (
            ("tokenizer_config.json", json.dumps(config, indent=2)),
            ("special_tokens_map.json", json.dumps(specials, indent=2)),
            ("vocab.json", json.dumps(self._vocabulary, ensure_ascii=False)),
            ("merges.txt", "#version: 0.2\n" + merges),
        ):
            (folder / name).write_text(text, encoding="utf-8")


class ByteTokenizer(BPETokenizer):
    """One id per UTF-8 byte, its value, and 256 for `end`: BPE without a merge, and without the detour to encode."""

    def __init__(self) -> None:
        super().__init__({character: byte for byte, character in enumerate(_characters())}, [])

    @classmethod
    def _again(cls, vocabulary: dict[str, int], merges: Sequence[tuple[str, str]]) -> ByteTokenizer:
        return cls()

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        return [np.frombuffer(text.encode(), np.uint8).astype(np.int32) for text in texts]


def train_bpe(texts: Iterable[str], vocabulary: int) -> BPETokenizer:
    """Learn merges from texts until there are `vocabulary` ids, `<|endoftext|>` included; fewer where the texts have
    no more pairs to merge. The same texts in the same order give the same tokenizer.

    Raises:
        UserError: where `vocabulary` leaves no room for the 256 bytes and `<|endoftext|>`.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    if vocabulary < 257:
        raise UserError(f"A byte-level vocabulary has at least 257 ids (256 bytes and the end), not {vocabulary}.")
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - 1, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    learner.train_from_iterator((piece for text in texts for piece in pieces_of(text)), trainer)
    model = json.loads(learner.to_str())["model"]
    return BPETokenizer(model["vocab"], [_pair(m) for m in model["merges"]])


def _pair(merge: str | list[str]) -> tuple[str, str]:
    """A merge as tokenizer.json writes it: "a b" in old files, ["a", "b"] in new ones."""
    first, second = merge.split(" ") if isinstance(merge, str) else merge
    return first, second


def load_tokenizer(folder: Any) -> Any:
    """Read what `save`, or a model like GPT-2 or BERT in the Hugging Face layout, has in its folder.

    Raises:
        UserError: where there is no tokenizer, or it is neither byte-level BPE with GPT-2's pattern nor WordPiece.
    """
    folder = Path(folder)
    if _is_wordpiece(folder):
        from unlabeled.data.wordpiece import load_wordpiece

        return load_wordpiece(folder)
    try:
        if (folder / "tokenizer.json").is_file():
            model, content = _from_json(folder / "tokenizer.json")
            if not content:
                raise UserError(f"{folder} has a tokenizer that is not byte-level BPE with GPT-2's pattern.")
            vocabulary, merges = model["vocab"], [_pair(m) for m in model["merges"]]
        elif (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
            vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
            lines = (folder / "merges.txt").read_text(encoding="utf-8").split("\n")
            merges = [_pair(line) for line in lines if line and not line.startswith("#version")]
        else:
            raise UserError(
                f"There is no tokenizer in {folder}; it needs tokenizer.json, vocab.txt, or vocab.json and merges.txt."
            )
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"The tokenizer files in {folder} cannot be read ({error}); write or fetch them again."
        ) from None
    if not merges and [vocabulary.get(c) for c in _characters()] == list(range(256)):
        return ByteTokenizer()
    return BPETokenizer(vocabulary, merges)


def _is_wordpiece(folder: Path) -> bool:
    try:
        content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        return content["model"].get("type") == "WordPiece"
    except FileNotFoundError:
        return (folder / "vocab.txt").is_file()
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False  # the caller will say what is wrong with it


def _from_json(path: Path) -> tuple[dict[str, Any], bool]:
    """The model of a tokenizer.json, added tokens included, and whether it is one that we can be."""
    content = json.loads(path.read_text(encoding="utf-8"))
    model, before = content["model"], content.get("pre_tokenizer") or {}
    kin = model.get("type", "BPE") == "BPE" and before.get("type") == "ByteLevel" and before.get("use_regex", True)
    plain = not before.get("add_prefix_space", False) and content.get("normalizer") is None
    for token in content.get("added_tokens", ()):
        model["vocab"].setdefault(token["content"], token["id"])
    return model, kin and plain


def some_texts(source: Source, limit: float) -> Iterator[str]:
    """Texts of records in a fixed random order, about `limit` characters in all; records that fail are passed over."""
    read = 0
    for index in np.random.default_rng(0).permutation(len(source)):
        try:
            text = source[int(index)].fields["text"]
        except BadRecord:
            continue
        # A lone surrogate is no character; `prepare` will refuse its record.
        text = text[: max(0, int(limit) - read)].encode(errors="ignore").decode()
        read += len(text)
        yield text
        if read >= limit:
            return
