"""Draw new examples from a trained run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from unlabeled.cli.parse import parse
from unlabeled.core.errors import UserError

__all__ = ["main"]


@dataclass(frozen=True)
class Sample:
    """Draw new examples: images into one grid (PNG) or an array (.npy), text onto the screen or into a file.

    Example: unlabeled sample runs/ddpm-fashion-1 -n 64 --out grid.png
    """

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of a run, or of a model in the Hugging Face layout."""
    n: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 16
    """How many."""
    prompt: str | None = None
    """Text to go on from, for models of text."""
    steps: int | None = None
    """Steps of the sampler (images) or tokens to write (text); by default the method's own number."""
    seed: int = 0
    """The same seed draws the same examples."""
    out: Path | None = None
    """Where to: .png or .npy for images (default: samples.png in the run folder), any name for text."""
    json: bool = False
    """Print one JSON object."""


def main(words: Sequence[str]) -> dict[str, Any]:
    got = parse(Sample, words, "sample")
    if got.n < 1:
        raise UserError(f"-n is how many to draw, at least 1; it was {got.n}.")

    from unlabeled.model import load

    drawn = load(got.run).sample(got.n, seed=got.seed, prompt=got.prompt, steps=got.steps)
    if "text" in drawn:
        texts = drawn["text"]
        if got.out is not None:
            got.out.write_text("\n\n".join(texts) + "\n")
            print(f"{len(texts)} texts are in {got.out}.")
        else:
            print("\n\n".join(texts))
        return {"out": got.out, "text": texts}
    images = drawn["image"]
    path = got.out or Path(got.run) / "samples.png"
    if path.suffix not in (".png", ".npy"):
        raise UserError(f"--out ends in .png or .npy for images; {path} does not.")
    if path.suffix == ".npy":
        import numpy as np

        np.save(path, images)
    else:
        from unlabeled.report import grid

        path.write_bytes(grid(images))
    print(f"{len(images)} images are in {path}.")
    return {"out": path, "images": len(images), "shape": list(images.shape[1:])}
