"""Data sets that `unlabeled data get` has put into the cache, each read in a few lines."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from unlabeled.core.batch import Spec
from unlabeled.core.errors import UserError
from unlabeled.data.fetch import FETCHED, stored
from unlabeled.data.formats import read_dictd, read_idx
from unlabeled.data.source import Source
from unlabeled.data.sources.builtin import about_shipped, split_blocks
from unlabeled.data.sources.columns import Columns, FileColumn, text_of

__all__ = ["open_fetched"]


def open_fetched(name: str, cache: Path | None = None) -> Source | None:
    """The source of a fetched data set; None if there is none of this name.

    Raises:
        UserError: if it has not been fetched, or is not data to train on.
    """
    if name not in FETCHED:
        return None
    if name not in _READERS:
        raise UserError(
            f"{name} is {FETCHED[name].about}, not data to train on: `unlabeled data get {name}` prints where it is."
        )
    folder = stored(name, cache)
    if folder is None:
        raise UserError(f"{name} is not on this machine yet: run `unlabeled data get {name}` first.")
    return _READERS[name](name, folder)


def _identity(name: str, folder: Path) -> str:
    return FETCHED[name].identity(folder)


def _fashion_mnist(name: str, folder: Path) -> Source:
    images = {part: read_idx(folder / f"{part}-images-idx3-ubyte") for part in ("train", "t10k")}
    labels = {part: read_idx(folder / f"{part}-labels-idx1-ubyte") for part in images}
    train, test = len(images["train"]), len(images["t10k"])
    return Columns(
        name,
        Spec(kind="image", image_size=28, channels=1),
        [f"{part}/{row}" for part in images for row in range(len(images[part]))],
        {"image": np.concatenate(list(images.values()))[..., None]},
        identity=_identity(name, folder),
        labels=np.concatenate(list(labels.values())),
        classes=about_shipped("fashion")["classes"],
        official={"train": np.arange(train), "test": train + np.arange(test)},
    )


def _shakespeare(name: str, folder: Path) -> Source:
    """A record per play; of the files end to end in sorted order the first 90 percent of bytes train, the rest tests.

    The texts are ASCII, so that bytes are characters; the play across the cut becomes two records.
    """
    paths = sorted(folder.glob("*_gut.txt"))
    plays = [path.read_bytes().decode("ascii") for path in paths]
    texts, official = split_blocks(plays, sum(map(len, plays)) * 9 // 10)
    across = len(official["train"]) - 1  # one record more than files if the cut falls inside a play
    titles = [path.name.removesuffix("_gut.txt") for path in paths]
    if len(texts) > len(titles):
        titles[across : across + 1] = [f"{titles[across]}-{half}" for half in ("first", "last")]
    return Columns(
        name,
        Spec(kind="text", longest=max(map(len, texts))),
        titles,
        {"text": texts},
        identity=_identity(name, folder),
        official=official,
    )


def _texts(name: str, folder: Path, *, pattern: str) -> Source:
    """A record per file."""
    paths = sorted(folder.glob(pattern))
    names = [path.relative_to(folder).as_posix() for path in paths]
    return Columns(
        name,
        Spec(kind="text", longest=max(path.stat().st_size for path in paths)),
        names,
        {"text": FileColumn(folder, names, text_of)},
        identity=_identity(name, folder),
    )


def _in_memory(name: str, folder: Path, ids: list[str], texts: list[str], groups: list[str] | None = None) -> Source:
    longest = max(map(len, texts))
    return Columns(
        name,
        Spec(kind="text", longest=longest),
        ids,
        {"text": texts},
        identity=_identity(name, folder),
        groups=groups,
    )


def _wikipedia(name: str, folder: Path) -> Source:
    """A record per page, as raw XML (the kind of bytes of which enwik8 is made)."""
    (dump,) = folder.iterdir()
    pages = re.findall(r"^ *<page>.*?</page>\n", dump.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    ids = [match.group(1) if (match := re.search(r"<id>(\d+)</id>", page)) else str(n) for n, page in enumerate(pages)]
    return _in_memory(name, folder, ids, pages)


def _webster(name: str, folder: Path) -> Source:
    """A record per article; all articles of one headword stay together."""
    articles = read_dictd(folder / "gcide.dict", folder / "gcide.index")
    words = [word for word, _ in articles]
    ids = [f"{n}/{word}" for n, word in enumerate(words)]
    return _in_memory(name, folder, ids, [text for _, text in articles], [word.lower() for word in words])


def _labelled_texts(name: str, folder: Path, *, stem: str) -> Source:
    """Orange's tables: three header lines, then `class TAB text`, quotes not special; the official split."""
    rows: dict[str, list[list[str]]] = {}
    for part in ("train", "test"):
        lines = (folder / f"{stem}-{part}.tab").read_text(encoding="utf-8").split("\n")[3:]
        rows[part] = [line.split("\t", 1) for line in lines if "\t" in line]
    both = [row for part in rows.values() for row in part]
    classes = sorted({label for label, _ in both})
    train = len(rows["train"])
    return Columns(
        name,
        Spec(kind="text", longest=max(len(text) for _, text in both)),
        [f"{part}/{n}" for part in rows for n in range(len(rows[part]))],
        {"text": [text for _, text in both]},
        identity=_identity(name, folder),
        labels=np.array([classes.index(label) for label, _ in both]),
        classes=classes,
        official={"train": np.arange(train), "test": np.arange(train, len(both))},
    )


def _chitchat(name: str, folder: Path) -> Source:
    """A record per conversation, a line per utterance beginning with A: or B:.

    A conversation is its own group: through shared writers nearly all hang together, which would leave none to test.
    """
    talks = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    texts = {}
    for key, talk in talks.items():
        said = [message for turn in talk["messages"] for message in turn if message["text"]]
        writers = list(dict.fromkeys(message["sender"] for message in said))
        texts[key] = "".join(f"{chr(ord('A') + writers.index(m['sender']))}: {m['text'].strip()}\n" for m in said)
    kept = [key for key, text in texts.items() if text]
    return _in_memory(name, folder, kept, [texts[key] for key in kept])


class _Aligned(Columns):
    """Recordings with a file of phone times beside each: after a line `#`, a line `end 125 phone` for each phone."""

    times: FileColumn

    def alignment(self, index: int) -> list[tuple[float, float, str]] | None:
        lines = self.times[index].decode().partition("#\n")[2].splitlines()
        ends, phones = [float(line.split()[0]) for line in lines], [line.split()[2] for line in lines]
        return list(zip([0.0, *ends], ends, phones))


def _festvox_ru(name: str, folder: Path) -> Source:
    """A record per sentence; the caption is the text without its stress marks (a `+` before the vowel).

    The phone times are of the voice's makers, found by a recogniser: 50 phones, in which soft consonants and stressed
    vowels are written double, and `pau`.
    """
    lines = (folder / "etc/txt.done.data").read_text(encoding="utf-8").splitlines()
    matches = (re.match(r'\(\s*(\S+)\s+"(.*)"\s*\)', line) for line in lines)
    said = {match[1]: match[2] for match in matches if match}
    names = [f"wav/{id}.wav" for id in sorted(said)]
    source = _Aligned(
        name,
        Spec(
            kind="wave",
            sample_rate_hz=16_000,
            # 16-bit mono behind a header of 44 bytes
            longest=max((folder / file).stat().st_size - 44 for file in names) // 2,
        ),
        names,
        {"wave": FileColumn(folder, names), "caption": [said[id].replace("+", "") for id in sorted(said)]},
        identity=_identity(name, folder),
    )
    source.times = FileColumn(folder, [f"lab/{id}.lab" for id in sorted(said)])
    return source


def _asterisk(name: str, folder: Path) -> Source:
    """A record per prompt with what is said; the class is the voice, English and Spanish being of one woman.

    The same prompt in all languages is one group. What has no text, tones and silences are left out.
    """
    ids, said, voices, prompts = [], [], [], []
    for sounds in sorted((folder / "asterisk/sounds").iterdir()):
        language, speaker = sounds.name.split("_")[0], sounds.name.split("_")[-1]
        text = (folder / f"doc/asterisk-core-sounds-{language}/core-sounds-{language}.txt").read_text("utf-8-sig")
        lines = (line.partition(":") for line in text.splitlines() if not line.startswith(";"))
        texts = {key.strip(): words.strip() for key, _, words in lines}
        for path in sorted(sounds.rglob("*.wav")):
            prompt = path.relative_to(sounds).with_suffix("").as_posix()
            words = texts.get(prompt, "")
            if words and not words.startswith("[") and not prompt.startswith("silence/"):
                ids.append(path.relative_to(folder).as_posix())
                said.append(words)
                voices.append(f"{language}, {speaker}")
                prompts.append(prompt)
    classes = sorted(set(voices))
    return Columns(
        name,
        Spec(
            kind="wave",
            sample_rate_hz=8_000,
            longest=max((folder / file).stat().st_size - 44 for file in ids) // 2,  # 16-bit mono, as above
        ),
        ids,
        {"wave": FileColumn(folder, ids), "caption": said},
        identity=_identity(name, folder),
        labels=np.array([classes.index(voice) for voice in voices]),
        classes=classes,
        groups=prompts,
    )


_READERS: dict[str, Callable[[str, Path], Source]] = {
    "fashion-mnist": _fashion_mnist,
    "shakespeare": _shakespeare,
    "sotu": partial(_texts, pattern="*.txt"),
    "wikipedia": _wikipedia,
    "webster": _webster,
    "kernel-docs": partial(_texts, pattern="**/*.rst"),
    "python-docs": partial(_texts, pattern="**/*.rst.txt"),
    "20-newsgroups": partial(_labelled_texts, stem="20newsgroups"),
    "reuters-r8": partial(_labelled_texts, stem="reuters-r8"),
    "chitchat": _chitchat,
    "festvox-ru": _festvox_ru,
    "asterisk": _asterisk,
}
