"""List the systems, or describe one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from unlabeled.cli.parse import parse
from unlabeled.cli.say import table

__all__ = ["describe", "main", "parameter_counts", "results"]


@dataclass(frozen=True)
class Methods:
    """List the systems, or say of one: its paper, equation, variants with parameter counts, capabilities, results.

    Example: unlabeled methods simclr
    """

    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME", help_behavior_hint="(default: all)")] = ""
    """A system, or a path to a Python file with a Method."""
    json: bool = False
    """Print one JSON object."""


def main(words: Sequence[str]) -> dict[str, Any]:
    got = parse(Methods, words, "methods")
    if got.name:
        found = describe(got.name)
        _print(found)
        return found
    from unlabeled.core import catalogue

    rows: list[dict[str, Any]] = []
    for name in catalogue.methods():
        method = catalogue.method(name)
        rows.append({"name": name, "takes": list(method.takes), "goal": method.goal, "paper": asdict(method.paper)})
    head = ("system", "learns from", "to", "paper")
    cells = [
        (r["name"], ", ".join(r["takes"]), r["goal"], f"{r['paper']['title']} ({r['paper']['year']})") for r in rows
    ]
    print(table(head, cells) + "\n\nunlabeled methods NAME describes one.")
    return {"methods": rows}


def describe(name: str) -> dict[str, Any]:
    """Everything that a method or stage says of itself, in JSON types; of a system of several stages, what it can do in
    the end, and each under "stages".

    Raises:
        UserError: where there is no such method.
    """
    import sys

    from unlabeled.core import catalogue

    stages = [_training(s) for s in (catalogue.stages(name) if name in catalogue.methods() else [name])]
    method = catalogue.method(name)
    about = sys.modules[method.__module__].__doc__ if method.__module__ in sys.modules else method.__doc__
    return stages[-1] | {
        "name": name,
        "about": (about or method.__doc__ or "").strip(),
        "paper": asdict(method.paper),
        "takes": list(method.takes),
        "goal": method.goal,
        "results": results(name.partition(".")[0]),
        "stages": stages,
    }


def _training(name: str) -> dict[str, Any]:
    """What differs between the stages of a system."""
    from unlabeled.core import catalogue
    from unlabeled.core.config import resolve, to_dict
    from unlabeled.core.method import capabilities

    method, counts = catalogue.method(name), parameter_counts(name)
    return {
        "name": name,
        "capabilities": list(capabilities(method)),
        "defaults": to_dict(resolve(method, None)),
        "variants": {
            v: {"differs": to_dict_of(changes), "parameters": counts[v]} for v, changes in method.variants.items()
        },
    }


def to_dict_of(changes: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a variant in JSON types."""
    return json.loads(json.dumps(dict(changes)))


def parameter_counts(name: str) -> dict[str, int]:
    """Trained and frozen weights of every variant of a method or stage, without those of earlier stages, on data of the
    usual size; nothing is allocated."""
    import torch

    from unlabeled.core import catalogue

    counts = {}
    for variant in catalogue.method(name).variants:
        with torch.device("meta"):
            built = catalogue.build(name, variant, lambda kind, config: _usual(kind.takes, config))
        counts[variant] = sum(p.numel() for n, p in built.named_parameters() if not n.startswith("given."))
    return counts


def _usual(takes: Sequence[str], config: Any) -> Any:
    """Data of the usual size: 32 x 32 colour images, as many token ids as the configuration asks for, 10 s of sound."""
    from unlabeled.core.batch import Spec

    if "image" in takes:
        return Spec(kind="image", image_size=32, channels=3)
    if "text" in takes:
        bytes_alone = getattr(config, "tokenizer", "") == "bytes"  # 256 and the end of a document
        return Spec(kind="text", vocabulary=257 if bytes_alone else getattr(config, "vocabulary", 32_000))
    return Spec(kind="wave", sample_rate_hz=16_000, longest=160_000)


def results(name: str) -> list[dict[str, Any]]:
    """Recorded runs of a system, where this is a checkout with benchmarks; else none."""
    folder = Path(__file__).parents[3] / "benchmarks" / "results"
    rows = []
    for file in sorted(folder.glob("*.jsonl")):
        for line in file.read_text().splitlines():
            row = json.loads(line)
            if row.get("system") == name or name in file.stem.split("-"):
                rows.append(row)
    return rows


def _print(found: Mapping[str, Any]) -> None:
    paper = found["paper"]
    print(f"{found['name']}\n\n{found['about']}\n")
    print(f"Paper      {paper['title']}. {paper['authors']}. {paper['venue']} {paper['year']}. {paper['url']}".rstrip())
    print(f"Takes      {', '.join(found['takes'])}\nCan        {', '.join(found['capabilities'])}\n")
    for stage in found["stages"]:
        rows = [
            (
                n,
                f"{v['parameters']:,}",
                ", ".join(f"{k}={x}" for k, x in v["differs"].items()) or "the paper's base setting",
            )
            for n, v in stage["variants"].items()
        ]
        if len(found["stages"]) > 1:
            print(f"{stage['name']} can {', '.join(stage['capabilities'])}")
        print(table(("variant", "parameters", "differs from the base setting in"), rows) + "\n")
    for row in found["results"]:
        figures = row.get("figures", row)
        said = " ".join(figures["headline"]) if "headline" in figures else json.dumps(figures)
        print(f"{row.get('date', '')}  {row.get('command', '')}\n  {said}\n")
    print(f"unlabeled train {found['name']} --help lists every setting.")
