"""Recipes: limits as data, rules of some documents, draws that repeat; and the catalogue of all that come along."""

from __future__ import annotations

import importlib
import math
from pathlib import Path

import pytest

from unlabeled.core.errors import UserError
from unlabeled.curate.catalogue import RULES, mixes, recipe, recipes
from unlabeled.curate.dedup.exact import Exact
from unlabeled.curate.document import Document, once
from unlabeled.curate.mix import Mix
from unlabeled.curate.recipe import Bound, Drop, Edit, Edited, Recipe, Sometimes, Where
from unlabeled.curate.steps import kind_of, rank_of

calls = []


@once
def length(document: Document) -> float:
    calls.append(document.id)
    return len(document.text)


def test_a_bound_keeps_its_limits_and_says_what_it_measured() -> None:
    bound = Bound(length, at_least=3, at_most=5)
    assert bound.name == "length"
    assert [bound(Document("d", "x" * n)) is None for n in (2, 3, 5, 6)] == [False, True, True, False]
    assert bound(Document("d", "xx")) == Drop("length below 3", 2)
    assert bound(Document("d", "x" * 6)) == Drop("length above 5", 6)


def test_what_is_measured_is_remembered_until_the_text_changes() -> None:
    calls.clear()
    document = Document("d", "abc")
    assert length(document) == length(document) == 3 and calls == ["d"]
    assert length(document.edited("ab")) == 2 and len(calls) == 2


def test_other_limits_change_one_rule_and_nothing_else() -> None:
    before = Recipe(
        "r",
        [Bound(length, at_least=3), Edit(lambda d: None, name="e"), Where(bool, Bound(length, at_most=9, name="top"))],
    )
    after = before.but({"length.at_least": 1, "top.at_most": 8})
    assert after.steps[0].at_least == 1 and after.steps[2].rule.at_most == 8
    assert before.steps[0].at_least == 3 and before.steps[2].rule.at_most == 9
    with pytest.raises(UserError, match="did you mean length"):
        before.but({"lenght.at_least": 1})


def test_a_rule_may_be_of_some_documents_or_drop_by_a_repeatable_draw() -> None:
    never = Edit(lambda document: Drop("never"), name="never")
    assert Where(lambda document: document.source == "web", never)(Document("d", "", "books")) is None
    assert Where(lambda document: document.source == "web", never)(Document("d", "", "web")) == Drop("never")
    sometimes = Sometimes(never, 0.7)
    dropped = [sometimes(Document(str(i), "")) is not None for i in range(2000)]
    assert dropped == [sometimes(Document(str(i), "")) is not None for i in range(2000)]
    assert abs(sum(dropped) / 2000 - 0.7) < 3 * math.sqrt(0.21 / 2000)
    with pytest.raises(UserError, match="looks at the whole corpus"):
        Where(bool, Exact())
    changed = Edited("x")
    assert Sometimes(Edit(lambda document: changed), 0.0)(Document("d", "")) is changed, (
        "changes are no matter of chance"
    )


def test_which_copy_stays() -> None:
    document = Document("d", "abc", "web", {"score": "4.5", "other": "much"})
    assert rank_of("longest", document, {}) < rank_of("longest", document.edited("ab"), {})
    assert rank_of("priority", document, {"web": 0}) < rank_of("priority", document, {"books": 0})
    assert rank_of("best:score", document, {}) == -4.5
    assert rank_of("best:other", document, {}) == rank_of("best:none", document, {}) == math.inf
    assert rank_of(length, document, {}) == 3.0
    with pytest.raises(UserError, match="earliest, longest, priority"):
        rank_of("newest", document, {})


@pytest.mark.parametrize("name", recipes())
def test_every_recipe_says_what_it_is_and_has_named_steps(name: str) -> None:
    found = recipe(name)
    assert found.about and found.paper
    assert found.steps and all(step.name for step in found.steps)
    assert all(kind_of(step) in ("rule", "repeats", "groups", "selection") for step in found.steps)


def test_files_of_rules_and_mixes_are_the_catalogue() -> None:
    modules = {p.stem for p in RULES.glob("*.py") if not p.stem.startswith("_")}
    assert modules == {"c4", "codex", "dclm", "fineweb", "gopher", "pile", "refinedweb"}
    for module in modules:
        assert importlib.import_module(f"unlabeled.curate.rules.{module}").__doc__
    assert set(mixes()) == {"bloomberg_gpt", "med_palm", "pile", "replit"}
    assert all(isinstance(mix, Mix) for mix in mixes().values())


def test_a_file_without_a_recipe_is_told(tmp_path: Path) -> None:
    (tmp_path / "nothing_here.py").write_text("x = 1\n")
    (tmp_path / "broken_one.py").write_text("import nowhere_at_all\n")
    with pytest.raises(UserError, match="has no recipe"):
        recipe(str(tmp_path / "nothing_here.py"))
    with pytest.raises(UserError, match="cannot be imported: ModuleNotFoundError"):
        recipe(str(tmp_path / "broken_one.py"))
    with pytest.raises(UserError, match="There is no file"):
        recipe(str(tmp_path / "missing.py"))


def test_files_of_one_name_are_told_apart_and_a_changed_one_is_read_anew(tmp_path: Path) -> None:
    code = "from unlabeled.curate.recipe import Recipe\nRECIPE = Recipe('{}', [])\n"
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "json.py").write_text(code.format(folder))
    assert [recipe(str(tmp_path / folder / "json.py")).name for folder in ("a", "b", "a")] == ["a", "b", "a"]
    (tmp_path / "a" / "json.py").write_text(code.format("changed"))
    assert recipe(str(tmp_path / "a" / "json.py")).name == "changed"
