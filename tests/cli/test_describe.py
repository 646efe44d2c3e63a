"""What is read out of the source of a method agrees with the class itself, for every method there is."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from unlabeled.cli.describe import about
from unlabeled.core import catalogue
from unlabeled.core.errors import UserError


@pytest.mark.parametrize("name", catalogue.trainings())
def test_settings_and_variants_are_those_of_the_class(name: str) -> None:
    method, read = catalogue.method(name), about(name)
    fields = {f.name: f.default for f in dataclasses.fields(method.Config)}
    assert {s.name: s.default for s in read.settings} == fields
    assert all(s.help for s in read.settings), [s.name for s in read.settings if not s.help]
    assert list(read.variants) == list(method.variants)
    assert read.summary


def test_a_file_is_read_without_being_run(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        '"""Mine: an example.\n\nMore."""\n'
        "from unlabeled.core.config import MethodConfig\n"
        "raise RuntimeError('this must not run')\n"
        "class Mine:\n"
        "    class Config(MethodConfig):\n"
        "        depth: int = 2 * 3\n"
        '        """How deep."""\n'
        "        sizes: tuple[int, ...] = (1, 2)\n"
        '        """Of layers."""\n'
        "    variants = {'tiny': {}}\n"
        "__all__ = ['Mine']\n"
    )
    read = about(str(file))
    assert read.summary == "Mine: an example."
    assert read.variants == ("tiny",)
    settings = {s.name: s for s in read.settings}
    assert settings["depth"].default == 6
    assert settings["depth"].type is int
    assert settings["sizes"].type == tuple[int, ...]
    assert settings["sizes"].default == (1, 2)
    assert "batch" in settings


def test_unknown_names_get_a_suggestion() -> None:
    with pytest.raises(UserError, match="did you mean simclr"):
        about("simlcr")
    with pytest.raises(UserError, match="no file"):
        about("nowhere.py")
