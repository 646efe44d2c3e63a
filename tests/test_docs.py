"""What is generated of the documentation covers every method, and what people paste from the README exists."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from unlabeled.cli.__main__ import COMMANDS
from unlabeled.core import catalogue

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("name", catalogue.methods())
def test_every_method_is_in_the_table_and_has_a_page(name: str) -> None:
    table = README.partition("<!-- methods")[2].partition("<!-- end of methods -->")[0]
    assert f"[`{name}`](docs/methods/{name}.md)" in table, "run: make docs"
    page = (ROOT / "docs" / "methods" / f"{name}.md").read_text()
    method = catalogue.method(name)
    assert method.paper.title in page
    for variant in method.variants:
        assert f"| {variant} |" in page, f"{variant}: run make docs"


def test_commands_of_the_readme_parse(monkeypatch: pytest.MonkeyPatch) -> None:
    from unlabeled.cli import parse

    seen = []
    for line in re.findall(r"^unlabeled .*$", README, re.M):
        words = shlex.split(line, comments=True)[1:]
        assert words[0] in COMMANDS
        seen.append(words[0])
        command = __import__(f"unlabeled.cli.{words[0]}", fromlist=["main"])

        class Parsed(Exception):
            pass

        def stop(*args: object, **kwargs: object) -> None:
            parse.parse(*args, **kwargs)  # type: ignore[arg-type]
            raise Parsed

        monkeypatch.setattr(command, "parse", stop)
        with pytest.raises(Parsed):
            command.main(words[1:])
    assert {"fit", "train", "sample", "embed", "export", "resume", "data", "doctor"} <= set(seen)


def test_python_of_the_readme_compiles() -> None:
    blocks = re.findall(r"```python\n(.*?)```", README, re.S)
    assert blocks
    for block in blocks:
        compile(block, "README.md", "exec")


def test_links_of_the_readme_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
