"""Write a trained model for other tools."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from unlabeled.cli.parse import parse
from unlabeled.core.errors import UserError

__all__ = ["main", "to_hf", "to_onnx"]


@dataclass(frozen=True)
class Export:
    """Write a model as a Hugging Face folder (safetensors, config, tokenizer), or its features as an ONNX graph.

    Example: unlabeled export runs/gpt2-moby-dick-1 --to hf my-gpt2
    """

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of the run."""
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]
    """Folder to write; new or empty."""
    to: Literal["hf", "onnx"] = "hf"
    """hf: model.safetensors, config.json and tokenizer files. onnx: embed.onnx, checked against the model."""
    json: bool = False
    """Print one JSON object."""


def main(words: Sequence[str]) -> dict[str, Any]:
    got = parse(Export, words, "export")
    if got.out.exists() and (not got.out.is_dir() or any(got.out.iterdir())):
        raise UserError(f"{got.out} is in use; name a folder that is new or empty.")

    from unlabeled.model import load

    written = (to_hf if got.to == "hf" else to_onnx)(load(got.run), got.out)
    for path in written:
        print(path)
    return {"to": got.to, "files": [str(p) for p in written]}


def to_hf(model: Any, folder: Path) -> list[Path]:
    """Weights and configuration in the common layout of the method.

    Raises:
        UserError: where the method has none.
    """
    from safetensors.torch import save_file

    common = model.method.export()
    if common is None:
        raise UserError(
            f"{model.system} has no common layout; its weights lie in the model folder of its run as safetensors, "
            f"or use --to onnx."
        )
    tensors, config = common
    folder.mkdir(parents=True, exist_ok=True)
    save_file({k: v.contiguous().clone() for k, v in tensors.items()}, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    if model.spec.tokenizer is not None:
        model.spec.tokenizer.save(folder)
    return sorted(folder.iterdir())


def to_onnx(model: Any, folder: Path) -> list[Path]:
    """The features of a model as embed.onnx, uint8 images (n, height, width, channels) or ids (n, length) in.

    The graph is run by onnxruntime on two batches and compared with the model: 1e-3 of the largest feature.

    Raises:
        UserError: where packages are missing, or the method cannot embed.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime
    except ImportError:
        raise UserError('ONNX needs two more packages; install them with: pip install "unlabeled[onnx]"') from None
    import warnings

    import numpy as np
    import torch

    if not model.can("embed"):
        raise UserError(f"{model.system} has no features to export; --to hf writes its weights.")
    method = model.method.float().cpu()
    spec = model.spec
    rng = np.random.default_rng(0)
    if spec.kind == "image":
        name, shape = "image", (spec.image_size, spec.image_size, spec.channels)
        draw = lambda n: torch.from_numpy(rng.integers(0, 256, (n, *shape), dtype=np.uint8))  # noqa: E731
    elif spec.kind == "text":
        # The method compares neighbours in a window: one more id than it predicts.
        name, shape = "tokens", ((method.window() or 32) + 1,)
        draw = lambda n: torch.from_numpy(rng.integers(0, spec.vocabulary, (n, *shape)))  # noqa: E731
    else:
        raise UserError(f"ONNX export knows images and text; {model.system} takes {spec.kind} data.")

    class Features(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.method = method

        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            return self.method.embed({name: batch})

    folder.mkdir(parents=True, exist_ok=True)
    path, network = folder / "embed.onnx", Features().eval()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the tracer: shapes that it takes as constant are so here
        torch.onnx.export(
            network,
            (draw(2),),
            str(path),
            input_names=[name],
            output_names=["features"],
            dynamic_axes={name: {0: "batch"}, "features": {0: "batch"}},
            opset_version=18,
            dynamo=False,  # the other exporter needs onnxscript, a dependency more
        )
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        for n in (2, 5):
            batch = draw(n)
            expected = network(batch).numpy()
            found = np.asarray(session.run(None, {name: batch.numpy()})[0])
            if found.shape != expected.shape or np.abs(found - expected).max() > 1e-3 * np.abs(expected).max():
                path.unlink()
                raise UserError(f"The ONNX graph of {model.system} does not agree with the model; use --to hf.")
    return [path]
