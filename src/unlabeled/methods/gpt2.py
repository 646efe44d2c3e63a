"""GPT-2: predict the next token of any text, with a Transformer decoder over byte-level BPE.

Radford, Wu, Child, Luan, Amodei, Sutskever: Language Models are Unsupervised Multitask Learners. OpenAI, 2019.

    loss = - mean over tokens t of  log p(x_t | x_1 ... x_{t-1}),  p = softmax(W h_{t-1}),  W the token embedding

Architecture and initialisation are those of openai/gpt-2 (positions start at N(0, 0.01)). The report gives no
optimiser; the defaults are the recipe by which nanoGPT reproduces the smallest model: AdamW, decay on matrices only.
Differs from that recipe: embeddings are not decayed, biases are kept (as in the released weights). Differs from
transformers' defaults: dropout, off by default, acts on embeddings and branches, not on attention weights.

Run:     unlabeled train gpt2 moby-dick --variant laptop --budget 8m
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from unlabeled.core.batch import Batch, Example, Record, Spec
from unlabeled.core.clock import Clock, Schedule
from unlabeled.core.config import MethodConfig
from unlabeled.core.errors import BadRecord, UserError
from unlabeled.core.method import Method, OptimizerPlan, Outcome, Paper
from unlabeled.data.source import Source
from unlabeled.data.text import ByteTokenizer, load_tokenizer, some_texts, train_bpe
from unlabeled.nets.attention import Cache
from unlabeled.nets.pretrained import copy_weights, difference, load_tensors, model_type, read_config, read_tokenizer
from unlabeled.nets.transformer import Decoder
from unlabeled.objectives.tokens import bits_per_byte, token_loss
from unlabeled.samplers.decode import generate

__all__ = ["GPT2"]


@dataclass(frozen=True, kw_only=True)
class Config(MethodConfig):
    batch: int = 512
    """Windows of `context` tokens per step, over all processes (section 2.3)."""
    tokenizer: Literal["bpe", "bytes"] = "bpe"
    """Byte-level BPE that is trained on the data, or one id per byte."""
    vocabulary: int = 50257
    """Ids of the BPE, bytes and end included; fewer where the data has no more pairs to merge."""
    tokenizer_megabytes: float = 20.0
    """Text that the BPE is trained on at most, in records drawn over the whole data."""
    context: int = 1024
    """Tokens the model sees at once."""
    layers: int = 12
    """Blocks."""
    width: int = 768
    """Width of the hidden states."""
    heads: int = 12
    """Attention heads; they divide the width."""
    dropout: float = 0.0
    """Share of embeddings and branch outputs that is dropped in training."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """muon orthogonalises the steps of the matrices in blocks; the rest stays with AdamW."""
    lr: float = 6e-4
    """Peak of the learning rate; a cosine takes it to a tenth."""
    warmup: float = 2000 / 600_000
    """Share of the run in which the learning rate rises."""
    weight_decay: float = 0.1
    """Of matrices in blocks; not of embeddings, biases and gains."""
    beta2: float = 0.95
    """AdamW's memory of squared gradients; the other beta is 0.9."""
    clip_norm: float = 1.0
    """Largest norm of the whole gradient."""

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise UserError(f"The {self.heads} heads must divide the width {self.width}.")
        if min(self.context, self.layers, self.heads) < 1:
            raise UserError("Context, layers and heads are at least 1.")


_LAPTOP = {
    "batch": 16,
    "vocabulary": 4096,
    "context": 256,
    "layers": 4,
    "width": 256,
    "heads": 4,
    # After 50 steps on moby-dick, held-out bits per byte: Muon 2.46 at 2e-3 and 2.36 at 5e-3, AdamW 2.76 at
    # 2e-3 and 2.75 at 4e-3. Muon makes a step of this size about a sixth longer.
    "optimizer": "muon",
    "lr": 5e-3,
    "warmup": 0.03,
}


class GPT2(Method):
    """A causal language model: it writes on from a prompt, and gives every text an exact likelihood."""

    Config = Config
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        # Table 2 of the report; 124,439,808, 354,823,168, 774,030,080 and 1,557,611,200 parameters.
        "small": {},
        "medium": {"layers": 24, "width": 1024, "heads": 16, "lr": 3e-4},
        "large": {"layers": 36, "width": 1280, "heads": 20, "lr": 2.5e-4},
        "xl": {"layers": 48, "width": 1600, "heads": 25, "lr": 2e-4},
        # Minutes on two cores.
        "laptop": _LAPTOP,
        "laptop-bytes": _LAPTOP | {"tokenizer": "bytes"},
        "tiny": {
            "batch": 8,
            "vocabulary": 300,
            "context": 32,
            "layers": 2,
            "width": 32,
            "heads": 2,
            "lr": 1e-2,
            "warmup": 0.05,
        },
    }
    paper = Paper(
        "Language Models are Unsupervised Multitask Learners",
        "Radford, Wu, Child, Luan, Amodei, Sutskever",
        "OpenAI report",
        2019,
    )
    takes = ("text",)
    prepared_by = ("context", "tokenizer", "vocabulary", "tokenizer_megabytes")
    goal = "generate"

    def __init__(self, config: Config, spec: Spec, given: Mapping[str, Method] | None = None) -> None:
        super().__init__(config, spec)
        if spec.vocabulary < 1:
            raise UserError("GPT-2 needs text whose vocabulary is known; give it a source of text.")
        self.decoder = Decoder(
            vocabulary=spec.vocabulary,
            context=config.context,
            layers=config.layers,
            width=config.width,
            heads=config.heads,
            dropout=config.dropout,
        )
        # Not saved: the tokenizer says it. Ids past the tokenizer's own (padding of the matrix) stand for nothing.
        lengths = torch.zeros(spec.vocabulary, dtype=torch.int64)
        if spec.tokenizer is not None:
            lengths[: spec.tokenizer.size] = torch.from_numpy(spec.tokenizer.bytes_per_id())
        self.register_buffer("bytes_per_id", lengths, persistent=False)
        self.bytes_per_id: Tensor

    # ---- data ----------------------------------------------------------------------------------------------------

    @classmethod
    def measure(cls, config: Config, source: Source) -> Spec:
        """The source's own, with a tokenizer: bytes, or BPE trained on at most `tokenizer_megabytes` of the source.

        Raises:
            UserError: where the source is not text or no record of it can be read.
        """
        from dataclasses import replace

        spec = source.spec()
        if spec.kind != "text":
            raise UserError(f"GPT-2 learns from text, and {source.name} holds {spec.kind}s; choose another method.")
        if config.tokenizer == "bytes":
            tokenizer: Any = ByteTokenizer()
        else:
            tokenizer = train_bpe(some_texts(source, config.tokenizer_megabytes * 1e6), config.vocabulary)
        return replace(spec, vocabulary=tokenizer.size, tokenizer=tokenizer)

    def prepare(self, record: Record, rng: np.random.Generator) -> Example:
        """{"tokens": (length,) int32}: the ids of the text and the end of the document."""
        text = record.fields["text"]
        if not text:
            raise BadRecord("the text is empty")
        tokenizer = self._tokenizer()
        try:
            ids = tokenizer.encode(text)
        except UnicodeEncodeError:
            raise BadRecord("the text holds half of a surrogate pair and cannot be written as UTF-8") from None
        return {"tokens": np.append(ids, np.int32(tokenizer.end)).astype(np.int32)}

    def window(self) -> int:
        return self.config.context

    # ---- learning ------------------------------------------------------------------------------------------------

    def optimizers(self) -> Mapping[str, OptimizerPlan]:
        config = self.config
        return {
            "main": OptimizerPlan(
                config.optimizer,
                Schedule(config.lr, warmup=config.warmup, floor=0.1),
                weight_decay=config.weight_decay,
                clip_norm=config.clip_norm,
                decays=_in_blocks,
                hidden=_in_blocks,
                options={"betas": (0.9, config.beta2)},
            )
        }

    def loss(self, batch: Batch, part: str, clock: Clock) -> Outcome:
        """Nats per token, the mean over all but the first token of each window; every window has as many."""
        tokens, targets = batch["tokens"][:, :-1], batch["tokens"][:, 1:]
        out = self.decoder(tokens, read=partial(token_loss, targets=targets))
        logs = {"accuracy": out.hit.float().mean()}
        counts = self.bytes_per_id[targets]
        # Ends of documents stand for no byte: their nats and their (zero) bytes are left out of both sums.
        nats, total = (out.nll * (counts > 0)).sum(), counts.sum()
        if self.spec.tokenizer is not None:
            logs["bits_per_byte"] = bits_per_byte(nats, total.clamp(min=1))
        return Outcome(out.mean, logs)

    # ---- what it can do ------------------------------------------------------------------------------------------

    def embed(self, batch: Batch) -> Tensor:
        """(n, width) float32: the mean over positions of the last hidden states."""
        states = self.embed_locally(batch)
        if "tokens_length" not in batch:
            return states.mean(1)
        real = torch.arange(states.shape[1], device=states.device) < self.positions(batch)[:, None]
        return (states * real[:, :, None]).sum(1) / real.sum(1, keepdim=True)

    def embed_locally(self, batch: Batch) -> Tensor:
        """(n, positions, width) float32: the last hidden states, after the final normalisation; a window of T + 1
        tokens gives T positions, since its last one is only ever predicted."""
        tokens = batch["tokens"]
        return self.decoder(tokens if "tokens_length" in batch else tokens[:, :-1]).float()

    def positions(self, batch: Batch) -> Tensor:
        """(n,) int64: how many of the positions of `embed_locally` are text."""
        tokens = batch["tokens"]
        return batch.get("tokens_length", torch.full((len(tokens),), tokens.shape[1] - 1, device=tokens.device))

    @torch.no_grad()
    def score(self, batch: Batch) -> Tensor:
        """(n,) float32: log-likelihood in nats, exact, of all tokens but the first, each given those before it."""
        tokens, targets = batch["tokens"][:, :-1], batch["tokens"][:, 1:]
        return -self.decoder(tokens, read=partial(token_loss, targets=targets)).nll.double().sum(1).float()

    @torch.no_grad()
    def sample(
        self,
        n: int,
        *,
        condition: str | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        temperature: float = 1.0,
        top_k: int | None = 40,
        top_p: float | None = None,
    ) -> dict[str, list[str]]:
        """{"text": n continuations of the prompt `condition`, the prompt included}, or n texts from their beginning.

        steps: new tokens at most, by default a context full. The 40 likeliest are drawn from, as in the report's
        samples. guidance has no meaning here. Row i is the same whatever n is.
        """
        tokenizer = self._tokenizer()
        prompt = tokenizer.encode(condition).tolist() if condition else []
        first = int(torch.randint(2**62, ()))
        made = generate(
            self._next_token,
            [prompt or [tokenizer.end]] * n,
            new=self.config.context if steps is None else steps,
            context=self.config.context,
            seeds=[first + row for row in range(n)],
            end=tokenizer.end,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            device=self.bytes_per_id.device,
        )
        return {"text": [tokenizer.decode(prompt + ids) for ids in made]}

    def _next_token(self, tokens: Tensor, lengths: Tensor, cache: Cache | None) -> tuple[Tensor, Cache]:
        cache = cache or Cache(len(tokens), self.config.context, tokens.device)
        held = cache.lengths
        rows = torch.arange(len(tokens), device=tokens.device)
        logits = self.decoder(tokens, lambda hidden, matrix: hidden[rows, lengths - 1] @ matrix.T, cache)
        cache.crop(held + lengths)
        return logits[:, : self._tokenizer().size].float(), cache

    def _tokenizer(self) -> Any:
        if self.spec.tokenizer is None:
            raise UserError("This model came without a tokenizer; put tokenizer.json beside its weights.")
        return self.spec.tokenizer

    # ---- handing on ----------------------------------------------------------------------------------------------

    def export(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Weights and config.json as `transformers.GPT2LMHeadModel` has them; its Conv1D matrices are transposed."""
        own = self.decoder.state_dict()
        tensors = {}
        for theirs, ours, matrix in _names(self.config.layers):
            tensor = torch.cat([own[name] for name in ours])
            tensors["transformer." + theirs] = tensor.T.contiguous() if matrix else tensor
        tokenizer, config = self.spec.tokenizer, self.config
        end = None if tokenizer is None else tokenizer.end
        return tensors, {
            "architectures": ["GPT2LMHeadModel"],
            "model_type": "gpt2",
            "activation_function": "gelu_new",
            "vocab_size": self.spec.vocabulary,
            "n_positions": config.context,
            "n_ctx": config.context,
            "n_embd": config.width,
            "n_layer": config.layers,
            "n_head": config.heads,
            "n_inner": None,
            "attn_pdrop": 0.0,
            "embd_pdrop": config.dropout,
            "resid_pdrop": config.dropout,
            "layer_norm_epsilon": 1e-5,
            "initializer_range": 0.02,
            "tie_word_embeddings": True,
            "bos_token_id": end,
            "eos_token_id": end,
            "dtype": str(tensors["transformer.wte.weight"].dtype).removeprefix("torch."),
        }

    @classmethod
    def opens(cls, folder: Path) -> bool:
        return model_type(folder) == "gpt2"

    @classmethod
    def from_pretrained(cls, folder: Any) -> GPT2:
        """Build from config.json, model.safetensors (whole or in shards) and, if there, the tokenizer's files.

        Raises:
            UserError: where a file is missing or damaged, or the model is not GPT-2 as published.
        """
        folder = Path(folder)
        said = read_config(folder, "gpt2", "GPT-2")
        if odd := difference(said, _PUBLISHED):
            raise UserError(f"{folder} differs from GPT-2 as published in {odd}; it cannot be read.")
        if said.get("n_inner") not in (None, 4 * said.get("n_embd", 768)):
            raise UserError(f"{folder} has feed-forward nets {said['n_inner']} wide; GPT-2's are four times the width.")
        config = Config(
            vocabulary=said.get("vocab_size", 50257),
            context=said.get("n_positions", said.get("n_ctx", 1024)),
            layers=said.get("n_layer", 12),
            width=said.get("n_embd", 768),
            heads=said.get("n_head", 12),
            dropout=said.get("resid_pdrop", 0.1),
        )
        tokenizer = read_tokenizer(folder, ("tokenizer.json", "vocab.json"), load_tokenizer, config.vocabulary)
        method = cls(config, Spec("text", vocabulary=config.vocabulary, tokenizer=tokenizer))
        weights = {name.removeprefix("transformer."): tensor for name, tensor in load_tensors(folder).items()}
        names = list(_names(config.layers))
        weights |= {theirs: weights[theirs].T for theirs, _, matrix in names if matrix and theirs in weights}
        copy_weights(weights, method.decoder.state_dict(), [(theirs, ours) for theirs, ours, _ in names], folder)
        return method


# What may stand in config.json, the default first; anything else is another architecture.
_PUBLISHED: Mapping[str, Sequence[Any]] = {
    "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
    "layer_norm_epsilon": (1e-5,),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "reorder_and_upcast_attn": (False, True),  # the same numbers in another order
    "add_cross_attention": (False,),
    "tie_word_embeddings": (True,),
}


def _in_blocks(name: str, parameter: Tensor) -> bool:
    """Matrices of the blocks; embeddings, biases and gains are neither decayed nor orthogonalised."""
    return parameter.ndim > 1 and "embedding" not in name


def _names(layers: int) -> Iterator[tuple[str, tuple[str, ...], bool]]:
    """Each weight's name in transformers, its parts' names here, and whether it is a transposed matrix there."""
    yield "wte.weight", ("token_embedding.weight",), False
    yield "wpe.weight", ("position_embedding.weight",), False
    modules = (
        ("ln_1", ("norm_attention",), False),
        ("attn.c_attn", ("attention.query", "attention.key", "attention.value"), True),
        ("attn.c_proj", ("attention.out",), True),
        ("ln_2", ("norm_forward",), False),
        ("mlp.c_fc", ("widen",), True),
        ("mlp.c_proj", ("narrow",), True),
    )
    for layer in range(layers):
        for theirs, ours, matrix in modules:
            for kind in ("weight", "bias"):
                names = tuple(f"blocks.{layer}.{name}.{kind}" for name in ours)
                yield f"h.{layer}.{theirs}.{kind}", names, matrix and kind == "weight"
    for kind in ("weight", "bias"):
        yield f"ln_f.{kind}", (f"norm.{kind}",), False
