"""wav2vec 2.0 in the layout of transformers: its config.json and the names of its weights, both ways."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from unlabeled.core.errors import UserError
from unlabeled.nets.pretrained import copy_weights, difference, load_tensors, read_config

if TYPE_CHECKING:
    from unlabeled.methods.wav2vec2 import Config

KIND = "wav2vec2"  # its `model_type`

# Settings by their names in transformers' config.json.
_SHARED = {
    "hidden_size": "width",
    "num_hidden_layers": "layers",
    "num_attention_heads": "heads",
    "intermediate_size": "inner",
    "do_stable_layer_norm": "norm_first",
    "feat_extract_norm": "conv_norm",
    "conv_bias": "conv_bias",
    "num_conv_pos_embeddings": "position_kernel",
    "num_conv_pos_embedding_groups": "position_groups",
    "hidden_dropout": "dropout",
    "attention_dropout": "attention_dropout",
    "feat_proj_dropout": "input_dropout",
    "layerdrop": "layer_drop",
    "mask_time_prob": "mask_probability",
    "mask_time_length": "mask_length",
    "num_codevector_groups": "groups",
    "num_codevectors_per_group": "entries",
    "codevector_dim": "code_width",
    "proj_codevector_dim": "final_width",
    "num_negatives": "negatives",
    "contrastive_logits_temperature": "contrast_temperature",
    "diversity_loss_weight": "diversity_weight",
}
_SHARED_LISTS = {"conv_dim": "conv_widths", "conv_kernel": "conv_kernels", "conv_stride": "conv_strides"}
# What may stand in config.json; anything else is another architecture.
_PUBLISHED = {
    "hidden_act": ("gelu",),
    "feat_extract_activation": ("gelu",),
    "layer_norm_eps": (1e-5,),
    "add_adapter": (False,),
}
# Modules of a block by their names there.
_BLOCK = {
    "attention.q_proj": "attention.query",
    "attention.k_proj": "attention.key",
    "attention.v_proj": "attention.value",
    "attention.out_proj": "attention.out",
    "layer_norm": "norm_attention",
    "feed_forward.intermediate_dense": "widen",
    "feed_forward.output_dense": "narrow",
    "final_layer_norm": "norm_forward",
}
_CODEBOOK = ("quantizer.codevectors", "quantiser.codebook")  # (1, groups * entries, width) and (groups, entries, width)


def names(config: Config) -> Iterator[tuple[str, str]]:
    """Each weight's name in transformers and here; the codebook, whose shape differs, apart."""
    yield "wav2vec2.masked_spec_embed", "encoder.mask_vector"
    pairs = {
        "feature_projection.layer_norm": "norm_features",
        "feature_projection.projection": "project",
        "encoder.layer_norm": "norm",
    }
    convs = len(config.conv_widths)
    for i in range(convs):
        theirs = f"wav2vec2.feature_extractor.conv_layers.{i}.conv"
        yield f"{theirs}.weight", f"encoder.convs.convs.{i}.weight"
        if config.conv_bias:
            yield f"{theirs}.bias", f"encoder.convs.convs.{i}.bias"
    for i in range(1 if config.conv_norm == "group" else convs):
        pairs[f"feature_extractor.conv_layers.{i}.layer_norm"] = f"convs.norms.{i}"
    for i in range(config.layers):
        for theirs, ours in _BLOCK.items():
            pairs[f"encoder.layers.{i}.{theirs}"] = f"blocks.{i}.{ours}"
    for theirs, ours in pairs.items():
        for kind in ("weight", "bias"):
            yield f"wav2vec2.{theirs}.{kind}", f"encoder.{ours}.{kind}"
    conv = "wav2vec2.encoder.pos_conv_embed.conv"
    yield f"{conv}.bias", "encoder.position.bias"
    yield f"{conv}.parametrizations.weight.original0", "encoder.position.gain"
    yield f"{conv}.parametrizations.weight.original1", "encoder.position.direction"
    for theirs, ours in (
        ("quantizer.weight_proj", "quantiser.logits"),
        ("project_hid", "answer"),
        ("project_q", "target"),
    ):
        for kind in ("weight", "bias"):
            yield f"{theirs}.{kind}", f"{ours}.{kind}"


def write(config: Config, own: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights and config.json; own: the method's state."""
    tensors = {theirs: own[ours] for theirs, ours in names(config)}
    tensors[_CODEBOOK[0]] = own[_CODEBOOK[1]].flatten(0, 1)[None]
    return tensors, {
        "architectures": ["Wav2Vec2ForPreTraining"],
        "model_type": KIND,
        **{theirs: getattr(config, ours) for theirs, ours in _SHARED.items()},
        **{theirs: list(getattr(config, ours)) for theirs, ours in _SHARED_LISTS.items()},
        "hidden_act": "gelu",
        "feat_extract_activation": "gelu",
        "activation_dropout": 0.0,
        "final_dropout": 0.0,
        "feat_quantizer_dropout": config.input_dropout,
        "layer_norm_eps": 1e-5,
        "initializer_range": 0.02,
        "dtype": str(own["encoder.mask_vector"].dtype).removeprefix("torch."),
    }


def read(folder: Path) -> dict[str, Any]:
    """Settings by the names of `Config`, from config.json and, if there, preprocessor_config.json.

    Raises:
        UserError: where the first is missing or damaged, or the model is not wav2vec 2.0 as published.
    """
    said = read_config(folder, KIND, "wav2vec 2.0")
    if odd := difference(said, _PUBLISHED):
        raise UserError(f"{folder} differs from wav2vec 2.0 as published in {odd}.")
    values = {ours: said[theirs] for theirs, ours in _SHARED.items() if theirs in said}
    values |= {ours: tuple(said[theirs]) for theirs, ours in _SHARED_LISTS.items() if theirs in said}
    values["normalize"] = values.get("conv_norm") == "layer"
    if (folder / "preprocessor_config.json").is_file():
        text = (folder / "preprocessor_config.json").read_text(encoding="utf-8")
        values["normalize"] = bool(json.loads(text).get("do_normalize", values["normalize"]))
    values["embed_layer"] = values.get("layers", 12) * 2 // 3
    return values


def fill(own: Mapping[str, Tensor], config: Config, folder: Path) -> None:
    """Copy the weights of a folder into the method's state; where they are an encoder alone, the rest stays as it is.

    Raises:
        UserError: where they are missing or damaged, or one lacks or has another shape.
    """
    weights = {_modern(name): tensor for name, tensor in load_tensors(folder).items()}
    known = [*names(config), _CODEBOOK]
    theirs, ours = _CODEBOOK
    if theirs in weights:
        weights[theirs] = weights[theirs].reshape(own[ours].shape)
    else:
        known = [pair for pair in known if pair[1].startswith("encoder.")]
    copy_weights(weights, own, known, folder)


def _modern(name: str) -> str:
    """Names of weights as transformers has them today: an encoder alone lacks the prefix, and before torch had
    parametrisations weight norm had names of its own."""
    name = name if name.startswith(("wav2vec2.", "quantizer.", "project_")) else f"wav2vec2.{name}"
    for old, number in (("weight_g", "original0"), ("weight_v", "original1")):
        conv = "pos_conv_embed.conv"
        name = name.replace(f"{conv}.{old}", f"{conv}.parametrizations.weight.{number}")
    return name
