"""BERT in the layout of transformers: its config.json and the names of its weights, both ways."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from unlabeled.core.batch import Spec
from unlabeled.core.errors import UserError
from unlabeled.nets.pretrained import copy_weights, difference, load_tensors, read_config

if TYPE_CHECKING:
    from unlabeled.methods.bert import Config

KIND = "bert"  # its `model_type`

# What may stand in config.json, the default first; anything else is another architecture.
_PUBLISHED: Mapping[str, Sequence[Any]] = {
    "hidden_act": ("gelu",),
    "layer_norm_eps": (1e-12,),
    "type_vocab_size": (2,),
    "position_embedding_type": ("absolute",),
    "is_decoder": (False,),
    "add_cross_attention": (False,),
    "tie_word_embeddings": (True,),
}
# Modules of a block by their names there.
_BLOCK = {
    "attention.self.query": "attention.query",
    "attention.self.key": "attention.key",
    "attention.self.value": "attention.value",
    "attention.output.dense": "attention.out",
    "attention.output.LayerNorm": "norm_attention",
    "intermediate.dense": "widen",
    "output.dense": "narrow",
    "output.LayerNorm": "norm_forward",
}


def names(layers: int, pairs: bool) -> Iterator[tuple[str, str]]:
    """Each weight's name in transformers and in the encoder here."""
    for theirs, ours in (("word", "token"), ("position", "position"), ("token_type", "segment")):
        yield f"bert.embeddings.{theirs}_embeddings.weight", f"{ours}_embedding.weight"
    modules = {"bert.embeddings.LayerNorm": "norm"}
    for layer in range(layers):
        modules |= {f"bert.encoder.layer.{layer}.{k}": f"blocks.{layer}.{v}" for k, v in _BLOCK.items()}
    modules["cls.predictions.transform.dense"] = "transform"
    modules["cls.predictions.transform.LayerNorm"] = "norm_transform"
    if pairs:
        modules |= {"bert.pooler.dense": "pool", "cls.seq_relationship": "relation"}
    for theirs, ours in modules.items():
        for kind in ("weight", "bias"):
            yield f"{theirs}.{kind}", f"{ours}.{kind}"
    yield "cls.predictions.bias", "output_bias"


def write(config: Config, spec: Spec, own: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights and config.json; own: the encoder's state."""
    tokenizer: Any = spec.tokenizer
    tensors = {theirs: own[ours] for theirs, ours in names(config.layers, config.next_sentence)}
    return tensors, {
        "architectures": ["BertForPreTraining" if config.next_sentence else "BertForMaskedLM"],
        "model_type": KIND,
        "vocab_size": spec.vocabulary,
        "hidden_size": config.width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "intermediate_size": config.inner,
        "hidden_act": "gelu",
        "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": config.dropout,
        "max_position_embeddings": config.length,
        "type_vocab_size": 2,
        "initializer_range": 0.02,
        "layer_norm_eps": 1e-12,
        "tie_word_embeddings": True,
        "pad_token_id": 0 if tokenizer is None else tokenizer.pad,
        "dtype": str(own["output_bias"].dtype).removeprefix("torch."),
    }


def read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Settings by the names of `Config`, and weights by transformers' of today. There are pairs where there is a pooler.

    Raises:
        UserError: where a file is missing or damaged, or the model is not BERT as published.
    """
    said = read_config(folder, KIND, "BERT")
    if odd := difference(said, _PUBLISHED):
        raise UserError(f"{folder} differs from BERT as published in {odd}; it cannot be read.")
    weights = {_modern(name): tensor for name, tensor in load_tensors(folder).items()}
    return {
        "vocabulary": said.get("vocab_size", 30522),
        "length": said.get("max_position_embeddings", 512),
        "layers": said.get("num_hidden_layers", 12),
        "width": said.get("hidden_size", 768),
        "heads": said.get("num_attention_heads", 12),
        "inner": said.get("intermediate_size", 3072),
        "dropout": said.get("hidden_dropout_prob", 0.1),
        "next_sentence": "bert.pooler.dense.weight" in weights,
    }, weights


def fill(own: Mapping[str, Tensor], weights: Mapping[str, Tensor], config: Config, folder: Path) -> None:
    """Copy what `read` gave into the encoder's state; heads that the weights lack stay as they are.

    Raises:
        UserError: where another weight is missing, or one has another shape.
    """
    known = names(config.layers, config.next_sentence)
    copy_weights(weights, own, [n for n in known if n[0] in weights or not n[0].startswith("cls.")], folder)


def _modern(name: str) -> str:
    """Names of weights as transformers has them today: an encoder alone lacks the prefix, Google's are gamma, beta."""
    name = name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
    return name if name.startswith(("bert.", "cls.")) else "bert." + name
