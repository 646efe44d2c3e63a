"""BERT: guess tokens that were hidden from a text, and whether two stretches of text follow each other.

Devlin, Chang, Lee, Toutanova: BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding.
NAACL 2019.

    loss = - mean over hidden tokens t of  log p(x_t | what is left of x)  -  mean over pairs of  log p(next | x)

Architecture, starting weights and masking are those of Google's code (google-research/bert); only the hidden positions
go through the output layer. The two means have different counts when words are hidden whole: each is taken over the
whole batch, over all processes and microbatches, before they are added.
Differs from that code in:
- Documents lie end to end with [SEP] between them and are cut into windows, all full (RoBERTa's FULL-SENTENCES), of one
  length for the whole run; there, nine tenths of it is at 128, and a tenth of the pairs is shorter.
- A pair is a window cut where a sentence ends; a segment from elsewhere begins a sentence of another window of its
  slice of the batch, and both kinds are equally long, so that length says nothing.
- AdamW has its bias correction, and the learning rate falls from the end of the warm-up on, not from the start.
- The exact GELU of the paper (and of transformers), where that code has the tanh form.

Run:     unlabeled train bert kernel-docs --variant laptop --budget 8m
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from unlabeled.core.batch import Batch, Example, Record, Spec
from unlabeled.core.clock import Clock, Schedule
from unlabeled.core.config import MethodConfig
from unlabeled.core.errors import BadRecord, UserError
from unlabeled.core.method import Finding, Method, OptimizerPlan, Outcome, Paper
from unlabeled.data.cloze import digest, pairs, uniform, whole_words
from unlabeled.data.source import Source
from unlabeled.data.text import some_texts
from unlabeled.data.wordpiece import load_wordpiece, train_wordpiece
from unlabeled.methods import _bert_layout as layout
from unlabeled.nets.encoder import TextEncoder
from unlabeled.nets.pretrained import model_type, read_tokenizer
from unlabeled.objectives.tokens import token_loss
from unlabeled.parallel.gather import total

__all__ = ["BERT"]


@dataclass(frozen=True, kw_only=True)
class Config(MethodConfig):
    batch: int = 256
    """Windows per step, over all processes (appendix A.2)."""
    vocabulary: int = 30522
    """Ids of the WordPiece tokenizer, special ones included; fewer where the data has no more pairs to merge."""
    lowercase: bool = True
    """Bring text to lower case and strip accents, as the uncased models do."""
    tokenizer: str = ""
    """Folder with a vocab.txt or tokenizer.json to use; empty trains one on the data."""
    tokenizer_megabytes: float = 20.0
    """Text that the tokenizer is trained on at most, in records drawn over the whole data."""
    length: int = 512
    """Tokens the model sees at once, [CLS] and [SEP] included."""
    layers: int = 12
    """Blocks."""
    width: int = 768
    """Width of the hidden states."""
    heads: int = 12
    """Attention heads; they divide the width."""
    inner: int = 3072
    """Width inside the feed-forward nets."""
    dropout: float = 0.1
    """Share of embeddings, branch outputs and attention weights that is dropped in training."""
    masked: float = 0.15
    """Share of the tokens that is hidden and predicted (section 3.1)."""
    replaced: tuple[float, float, float] = (0.8, 0.1, 0.1)
    """Of the hidden ones: shares that become [MASK], stay as they are, become a random token (appendix A.1)."""
    masking: Literal["static", "dynamic"] = "static"
    """static: a window is hidden in one of `copies` ways, given by its content; dynamic: anew each time (RoBERTa)."""
    copies: int = 10
    """Ways in which static masking hides a window, in turn over epochs (dupe_factor of the code)."""
    whole_words: bool = False
    """Hide all pieces of a word or none (the code's later option)."""
    next_sentence: bool = True
    """Also learn to tell the true continuation from a text from elsewhere."""
    pooling: Literal["mean", "cls"] = "mean"
    """What `embed` gives: the mean over all tokens, or the state of [CLS]."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """muon orthogonalises the steps of the matrices in blocks; the rest stays with AdamW."""
    lr: float = 1e-4
    """Peak of the learning rate; it falls to zero in a straight line."""
    warmup: float = 0.01
    """Share of the run in which the learning rate rises; 10,000 of 1,000,000 steps."""
    weight_decay: float = 0.01
    """Not of biases and normalisation."""
    clip_norm: float = 1.0
    """Largest norm of the whole gradient."""

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise UserError(f"The {self.heads} heads must divide the width {self.width}.")
        if self.length < 8 or min(self.layers, self.heads, self.copies) < 1:
            raise UserError("Length is at least 8; layers, heads and copies at least 1.")
        if not 0 < self.masked < 1 or min(self.replaced) < 0 or abs(sum(self.replaced) - 1) > 1e-6:
            raise UserError("masked is a share between 0 and 1, and the three shares of replaced add up to 1.")


class BERT(Method):
    """A bidirectional encoder of text: features of texts and of each token in its context."""

    Config = Config
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        # Section 3; 110,106,428 and 336,226,108 parameters with the heads, for the 30,522 ids of the uncased models.
        "base": {},
        "large": {"layers": 24, "width": 1024, "heads": 16, "inner": 4096},
        # Minutes on two cores; without pairs, as RoBERTa found them of no use, and fresh masks each time.
        "laptop": {
            "batch": 32,
            "vocabulary": 4096,
            "length": 128,
            "layers": 4,
            "width": 256,
            "heads": 4,
            "inner": 1024,
            "dropout": 0.0,
            "masking": "dynamic",
            "next_sentence": False,
            "optimizer": "muon",
            "lr": 5e-3,
            "warmup": 0.05,
        },
        "tiny": {
            "batch": 16,
            "vocabulary": 64,
            "length": 32,
            "layers": 2,
            "width": 32,
            "heads": 2,
            "inner": 64,
            "dropout": 0.0,
            "masking": "dynamic",
            "lr": 3e-3,
            "warmup": 0.05,
        },
    }
    paper = Paper(
        "BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding",
        "Devlin, Chang, Lee, Toutanova",
        "NAACL",
        2019,
        "https://arxiv.org/abs/1810.04805",
    )
    takes = ("text",)
    prepared_by = ("length", "next_sentence", "lowercase", "vocabulary", "tokenizer", "tokenizer_megabytes")
    goal = "represent"

    def __init__(self, config: Config, spec: Spec, given: Mapping[str, Method] | None = None) -> None:
        super().__init__(config, spec)
        if spec.vocabulary < 1:
            raise UserError("BERT needs text whose vocabulary is known; give it a source of text.")
        self.encoder = TextEncoder(
            vocabulary=spec.vocabulary,
            length=config.length,
            layers=config.layers,
            width=config.width,
            heads=config.heads,
            inner=config.inner,
            dropout=config.dropout,
            attention_dropout=config.dropout,
            pairs=config.next_sentence,
        )
        # How often each token was to be guessed: the line that a model without context cannot get below.
        self.register_buffer("seen", torch.zeros(spec.vocabulary, dtype=torch.int64))
        self.seen: Tensor
        for name in ("continues", "ends_sentence"):  # not saved: the tokenizer says it
            flags = torch.zeros(spec.vocabulary, dtype=torch.bool)
            if spec.tokenizer is not None:
                flags[: spec.tokenizer.size] = torch.from_numpy(getattr(spec.tokenizer, name)())
            self.register_buffer(name, flags, persistent=False)
        self.continues: Tensor
        self.ends_sentence: Tensor

    # ---- data ----------------------------------------------------------------------------------------------------

    @classmethod
    def measure(cls, config: Config, source: Source) -> Spec:
        """The source's own, with a tokenizer: the one named, or one trained on at most `tokenizer_megabytes`.

        Raises:
            UserError: where the source is not text, no record of it can be read, or the named tokenizer cannot.
        """
        spec = source.spec()
        if spec.kind != "text":
            raise UserError(f"BERT learns from text, and {source.name} holds {spec.kind}s; choose another method.")
        if config.tokenizer:
            tokenizer = load_wordpiece(config.tokenizer)
        else:
            texts = some_texts(source, config.tokenizer_megabytes * 1e6)
            tokenizer = train_wordpiece(texts, config.vocabulary, config.lowercase)
        return replace(spec, vocabulary=tokenizer.size, tokenizer=tokenizer)

    def prepare(self, record: Record, rng: np.random.Generator) -> Example:
        """{"tokens": (length,) int32}: the ids of the text and [SEP], the end of the document."""
        tokenizer = self._tokenizer()
        try:
            ids = tokenizer.encode(record.fields["text"])
        except UnicodeEncodeError:
            raise BadRecord("the text holds half of a surrogate pair and cannot be written as UTF-8") from None
        if not len(ids):
            raise BadRecord("the text is empty")
        return {"tokens": np.append(ids, np.int32(tokenizer.end)).astype(np.int32)}

    def window(self) -> int:
        return self.config.length - (3 if self.config.next_sentence else 2)

    def transform(self, batch: Batch, clock: Clock) -> Batch:
        """Windows to what the loss needs: "tokens" (n, length) with some hidden; "at", "targets" (n, k) where and what
        they were, "scored" (n, k) float32, 0 where a row has fewer than k; with pairs also "segments" and "other",
        1 where the second segment comes from elsewhere."""
        config, tokenizer = self.config, self._tokenizer()
        rows = batch["tokens"][:, : self.window()]
        seeds = digest(rows, int(clock.epoch) % config.copies) if config.masking == "static" else None
        draw = partial(uniform, seeds, rows)
        out: Batch = {}
        if config.next_sentence:
            if len(rows) < 2:
                raise UserError(
                    "A text from elsewhere is taken from the same slice of a batch; make --batch at least twice "
                    "--grains, or leave it out with --no-next-sentence."
                )
            begins = ~self.continues[rows]
            tokens, out["segments"], out["other"] = pairs(
                rows, begins, self.ends_sentence[rows], tokenizer.cls, tokenizer.end, draw
            )
        else:
            tokens = F.pad(rows, (1, 1))
            tokens[:, 0], tokens[:, -1] = tokenizer.cls, tokenizer.end
        count = max(1, min(round(config.masked * tokens.shape[1]), rows.shape[1]))
        candidate = (tokens != tokenizer.cls) & (tokens != tokenizer.end)
        order = draw(tokens.shape[1], 3).masked_fill(~candidate, -1)
        if config.whole_words:
            order = whole_words(order, self.continues[tokens], count)
        best = order.topk(count)
        at, scored = best.indices, best.values >= 0
        targets = tokens.gather(1, at)
        hide, keep, _ = config.replaced
        which, any_token = draw(count, 4), (draw(count, 5) * self.spec.vocabulary).long()
        new = torch.where(which < hide, tokenizer.mask, torch.where(which < hide + keep, targets, any_token))
        hidden = tokens.scatter(1, at, torch.where(scored, new, targets))
        return {"tokens": hidden, "at": at, "targets": targets, "scored": scored.float()} | out

    # ---- learning ------------------------------------------------------------------------------------------------

    def optimizers(self) -> Mapping[str, OptimizerPlan]:
        config = self.config
        return {
            "main": OptimizerPlan(
                config.optimizer,
                Schedule(config.lr, warmup=config.warmup, decay="linear"),
                weight_decay=config.weight_decay,
                clip_norm=config.clip_norm,
                hidden=lambda name, parameter: parameter.ndim == 2 and ".blocks." in name,
                options={"betas": (0.9, 0.999), "eps": 1e-6},
            )
        }

    def updates(self, batch: Batch, clock: Clock) -> Iterator[tuple[str, Batch]]:
        """One, with the weight of each hidden token beside it: examples to hidden tokens in the whole batch."""
        scored = batch["scored"]
        sums = total(torch.stack([scored.new_tensor(float(len(scored))), scored.sum()]))
        yield "main", batch | {"weight": scored * (sums[0] / sums[1].clamp(min=1))}

    def loss(self, batch: Batch, part: str, clock: Clock) -> Outcome:
        """Nats: the mean over hidden tokens and the mean over pairs, added. Both are sums over examples with weights
        that `updates` gave, so that the mean over examples is exact for any division of the batch."""
        at, targets, scored = batch["at"], batch["targets"], batch["scored"]
        shares = batch["weight"] / len(at)
        out, related = self.encoder(
            batch["tokens"], batch.get("segments"), None, at, lambda h, w, b: token_loss(h, w, targets, b, shares)
        )
        loss, logs, new = out.mean, {}, batch["tokens"].gather(1, at)
        # As good as one can guess without context, from what was to be guessed so far.
        odds = ((self.seen + 1).double() / (self.seen.sum() + len(self.seen))).float()
        guesses = {
            "accuracy": out.hit,
            "unigram": -odds.log()[targets],
            "unigram_accuracy": targets == self.seen.argmax(),
            "as_mask": new == self._tokenizer().mask,
            "kept": new == targets,
        }
        logs = {name: (value * shares).sum() for name, value in guesses.items()}
        logs |= {"mlm": out.mean.detach(), "masked": scored.sum() / batch["tokens"].numel()}
        if related is not None:
            nsp = F.cross_entropy(related, batch["other"])
            loss = loss + nsp
            logs |= {"nsp": nsp.detach(), "nsp_accuracy": (related.argmax(1) == batch["other"]).float().mean()}
            logs["elsewhere"] = batch["other"].float().mean()
        counted = torch.zeros_like(self.seen).scatter_add_(0, targets.flatten(), scored.long().flatten())
        return Outcome(loss, logs, {"counted": counted})

    def after_update(self, part: str, outcomes: Sequence[Outcome], clock: Clock) -> None:
        self.seen += total(torch.stack([o.carry["counted"] for o in outcomes]).sum(0))

    def diagnose(self, history: Sequence[Mapping[str, float]]) -> list[Finding]:
        if not history:
            return []
        config, last = self.config, history[-max(1, len(history) // 10) :]

        def mean(key: str, rows: Sequence[Mapping[str, float]] = history) -> float:
            return float(np.mean([row[key] for row in rows]))

        least = 0.5 if config.whole_words else 0.9  # whole words that would be too many are passed over
        _, keep, swap = config.replaced
        findings = [
            _finding(
                "masked share",
                mean("masked"),
                least * config.masked < mean("masked") < 1.1 * config.masked,
                f"of the tokens were hidden and predicted, {config.masked:.0%} were asked for",
                "texts full of [SEP] or of words longer than the share leave too few; look at the data",
            ),
            _finding(
                "replaced by [MASK]",
                mean("as_mask"),
                0.5 <= mean("as_mask") <= 0.95,
                "of the hidden tokens became [MASK]; the paper has 80 %",
                "features of whole texts, which hold no [MASK], suffer above, and hidden tokens stay readable below; "
                "set --replaced 0.8 0.1 0.1",
            ),
            _finding(
                "left as they were",
                mean("kept"),
                abs(mean("kept") - keep) < 0.05 + 0.1 * swap and keep <= 0.3,
                "of the hidden tokens stayed readable; the paper has 10 %",
                "the model learns to copy; set --replaced 0.8 0.1 0.1",
            ),
        ]
        guessed, blind = mean("accuracy", last), mean("unigram_accuracy", last)
        gap = mean("unigram", last) - mean("mlm", last)
        early = mean("accuracy", history[: max(1, len(history) // 4)])
        findings += [
            _finding(
                "nats below the unigram entropy",
                gap,
                gap > 0.1,
                "is what context saves per hidden token, against guessing by frequency alone",
                "the loss is stuck where no context is used; raise --lr, lengthen --warmup or train longer",
                share=False,
            ),
            _finding(
                "masked accuracy",
                guessed,
                guessed > blind and early < 0.97,
                f"of the hidden tokens are guessed; the most frequent token alone gives {blind:.1%}",
                "the hidden tokens can be read off the input; lower the second of --replaced"
                if early >= 0.97
                else "that is no better; raise --lr or train longer",
            ),
        ]
        if config.next_sentence:
            solved, balance = mean("nsp_accuracy", history[: max(1, len(history) // 10)]), mean("elsewhere")
            findings.append(
                _finding(
                    "next-sentence accuracy",
                    mean("nsp_accuracy", last),
                    solved < 0.98 and 0.3 < balance < 0.7,
                    f"of the pairs are told apart, where {max(balance, 1 - balance):.0%} is the larger class",
                    "it was solved at once or is one-sided, so something other than meaning gives it away; "
                    "set --no-next-sentence",
                )
            )
        return findings

    # ---- what it can do ------------------------------------------------------------------------------------------

    def embed(self, batch: Batch) -> Tensor:
        """(n, width) float32: the mean of the last hidden states over all tokens, [CLS] and [SEP] included, or [CLS]."""
        states = self.embed_locally(batch)
        if self.config.pooling == "cls":
            return states[:, 0]
        real = torch.arange(states.shape[1], device=states.device) < self.positions(batch)[:, None]
        return (states * real[:, :, None]).sum(1) / real.sum(1, keepdim=True)

    def embed_locally(self, batch: Batch) -> Tensor:
        """(n, positions, width) float32: the last hidden states of [CLS], the tokens and [SEP]."""
        tokens, mask = self._sequences(batch)
        return self.encoder(tokens, None, mask).float()

    def positions(self, batch: Batch) -> Tensor:
        """(n,) int64: how many of the positions of `embed_locally` are real."""
        tokens, mask = self._sequences(batch)
        return torch.full((len(tokens),), tokens.shape[1], device=tokens.device) if mask is None else mask.sum(1)

    def _sequences(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """[CLS] text [SEP] (n, t + 2) of windows or of whole records, and where it is real; None: everywhere."""
        tokenizer, tokens = self._tokenizer(), batch["tokens"]
        if "tokens_length" not in batch:
            cls = torch.full_like(tokens[:, :1], tokenizer.cls)
            return torch.cat([cls, tokens[:, : self.window()], torch.full_like(cls, tokenizer.end)], 1), None
        lengths = batch["tokens_length"][:, None]
        # The end of a document is added anew.
        lengths = lengths - (tokens.gather(1, lengths - 1) == tokenizer.end).long()
        place = torch.arange(tokens.shape[1] + 2, device=tokens.device)
        mask = place < lengths + 2
        tokens = F.pad(tokens, (1, 1)).masked_fill(place == 0, tokenizer.cls)
        tokens = tokens.masked_fill(place == lengths + 1, tokenizer.end).masked_fill(~mask, tokenizer.pad)
        return tokens, mask

    def _tokenizer(self) -> Any:
        if self.spec.tokenizer is None:
            raise UserError("This model came without a tokenizer; put tokenizer.json or vocab.txt beside its weights.")
        return self.spec.tokenizer

    # ---- handing on ----------------------------------------------------------------------------------------------

    def export(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Weights and config.json as `transformers.BertForPreTraining` (with pairs) or `BertForMaskedLM` has them."""
        return layout.write(self.config, self.spec, self.encoder.state_dict())

    @classmethod
    def opens(cls, folder: Path) -> bool:
        return model_type(folder) == layout.KIND

    @classmethod
    def from_pretrained(cls, folder: Any) -> BERT:
        """Build from config.json, model.safetensors (whole or in shards) and, if there, the tokenizer's files.

        Heads that the weights lack (an encoder alone, such as MiniLM) start anew. Pairs need a pooler.

        Raises:
            UserError: where a file is missing or damaged, or the model is not BERT as published.
        """
        folder = Path(folder)
        values, weights = layout.read(folder)
        config = Config(**values)
        tokenizer = read_tokenizer(folder, ("tokenizer.json", "vocab.txt"), load_wordpiece, config.vocabulary)
        if tokenizer is not None:
            config = replace(config, lowercase=tokenizer.lowercase)
        method = cls(config, Spec("text", vocabulary=config.vocabulary, tokenizer=tokenizer))
        layout.fill(method.encoder.state_dict(), weights, config, folder)
        return method


def _finding(name: str, value: float, healthy: bool, tells: str, remedy: str, *, share: bool = True) -> Finding:
    shown = f"{value:.1%}" if share else f"{value:.2f}"
    return Finding(name, value, healthy, f"{shown} {tells}{'' if healthy else ': ' + remedy}.")
