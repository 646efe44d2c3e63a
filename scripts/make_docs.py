"""Write what is generated of the documentation: the tables of methods, of recipes and of sizes, and one page per method in docs/.

Run: python scripts/make_docs.py [--check]      --check changes nothing and fails where something is out of date
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unlabeled.cli.describe import about
from unlabeled.cli.methods import describe
from unlabeled.core import catalogue

ROOT = Path(__file__).resolve().parent.parent
MARKS = "<!-- {}: made by scripts/make_docs.py -->", "<!-- end of {} -->"


def table(found: list[Mapping[str, Any]]) -> str:
    """The methods as Markdown, one line each."""
    lines = ["| system | learns from | can | variants (parameters) | paper |", "|---|---|---|---|---|"]
    for one in found:
        sizes: dict[str, int] = {}
        for stage in one["stages"]:
            for name, variant in stage["variants"].items():
                sizes[name] = sizes.get(name, 0) + variant["parameters"]
        variants = ", ".join(f"{n} ({short(count)})" for n, count in sizes.items() if n != "tiny")
        paper = one["paper"]
        lines.append(
            f"| [`{one['name']}`](docs/methods/{one['name']}.md) | {', '.join(one['takes'])} "
            f"| {', '.join(one['capabilities'])} | {variants} | {paper['title']} ({paper['year']}) |"
        )
    return "\n".join(lines)


def recipes() -> str:
    """The recipes of curation as Markdown, one line each."""
    from unlabeled.curate import catalogue

    lines = ["| recipe | what stays | published in |", "|---|---|---|"]
    return "\n".join(lines + [f"| `{n}` | {r.about} | {r.paper} |" for n, r in catalogue.recipes().items()])


def families() -> str:
    """How the systems of sweeps grow, as Markdown, one line each."""
    from unlabeled.scale.families import FAMILIES

    lines = ["| system | variant and settings | a size, such as | learning rate |", "|---|---|---|---|"]
    for name, family in FAMILIES.items():
        knob = family.knobs[len(family.knobs) // 4]
        fixed, shape = (", ".join(f"`{k}={v}`" for k, v in some.items()) for some in (family.fixed, family.shape(knob)))
        start = ", ".join(part for part in (family.variant and f"`{family.variant}`", fixed) if part)
        lines.append(f"| `{name}` | {start} | {knob}: {shape} | {family.rule()} |")
    return "\n".join(lines)


def between(path: Path, what: str, made: str) -> str:
    """A file's text with what lies between the marks of `what` made anew."""
    begin, end = (mark.format(what) for mark in MARKS)
    before, _, rest = path.read_text().partition(begin)
    return f"{before}{begin}\n{made}\n{end}{rest.partition(end)[2]}"


def page(one: Mapping[str, Any]) -> str:
    """The page of a method: what it is, its variants, its settings, its recorded runs."""
    paper = one["paper"]
    title, _, rest = one["about"].partition("\n")
    lines = [f"# {title.rstrip('.')}", "", "```text", rest.strip("\n"), "```", "", "## Paper", ""]
    lines += [f"{paper['authors']}. *{paper['title']}*. {paper['venue']}, {paper['year']}. {paper['url']}".strip(), ""]
    for stage in one["stages"]:
        lines += _training(stage, f"Stage `{stage['name']}`: " if len(one["stages"]) > 1 else "")
    lines += ["## Recorded runs", ""]
    for row in one["results"]:
        where = row["machine"]
        lines += [f"`{row['command']}`, {row['date']}, {where['processor']}, {where['cores']} cores:", ""]
        lines += ["```json", json.dumps(_headlines(row["figures"]), indent=2), "```", ""]
    if not one["results"]:
        lines += ["None in this checkout.", ""]
    return "\n".join(lines)


def _training(stage: Mapping[str, Any], prefix: str) -> list[str]:
    """Variants and settings of a method or of one stage of a system."""
    lines = [f"## {prefix}variants".replace("## v", "## V"), ""]
    lines += ["| name | parameters | differs from the base setting in |", "|---|---:|---|"]
    for name, variant in stage["variants"].items():
        differs = ", ".join(f"`{k}={v}`" for k, v in variant["differs"].items()) or "nothing"
        lines.append(f"| {name} | {variant['parameters']:,} | {differs} |")
    lines += ["", f"After training it can: {', '.join(stage['capabilities'])}.", ""]
    lines += [f"## {prefix}settings".replace("## s", "## S"), "", "| option | default | what it is |", "|---|---|---|"]
    for setting in about(stage["name"]).settings:
        option = f"--{setting.name.replace('_', '-')}"
        lines.append(f"| `{option}` | `{setting.default}` | {setting.help.replace('|', '/')} |")
    return [*lines, ""]


def short(count: int) -> str:
    """124439808 -> "124M"."""
    return f"{count / 1e6:.0f}M" if count >= 1e7 else f"{count / 1e6:.1f}M" if count >= 1e5 else f"{count / 1e3:.0f}k"


def _headlines(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Figures without their long lists."""
    return {k: v for k, v in figures.items() if len(json.dumps(v)) < 2000}


def main(check: bool) -> int:
    found = [describe(name) for name in catalogue.methods()]
    readme, curation, scaling = ROOT / "README.md", ROOT / "docs" / "curation.md", ROOT / "docs" / "scaling.md"
    wanted = {readme: between(readme, "methods", table(found)), curation: between(curation, "recipes", recipes())}
    wanted[scaling] = between(scaling, "families", families())
    wanted |= {ROOT / "docs" / "methods" / f"{one['name']}.md": page(one) for one in found}
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    for path in stale:
        if check:
            print(f"{path.relative_to(ROOT)} is out of date; run: make docs", file=sys.stderr)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(wanted[path])
        print(path.relative_to(ROOT))
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv))
