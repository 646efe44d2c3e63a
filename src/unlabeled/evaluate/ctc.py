"""Learn to read transcribed speech with CTC, from fixed local features and by fine-tuning, and count what is misread.

Graves, Fernandez, Gomez, Schmidhuber: Connectionist Temporal Classification. ICML 2006. As in wav2vec 2.0 a linear map
from local features to characters is trained, at first alone, then together with the method. Reading is greedy, without
a language model.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unlabeled.core.method import Method
from unlabeled.evaluate.recordings import Recordings, batch_of, grouped, locally, positions
from unlabeled.evaluate.result import TimeLimit
from unlabeled.parallel.world import device

__all__ = [
    "Alphabet", "Head", "edits", "error_rate", "fine_tune", "greedy", "plain", "read", "read_features", "train_head",
    "updates_within",
]  # fmt: skip

LR, HEAD_LR = 3e-4, 1e-2
SAMPLES = 1 << 19  # of an update of the whole, with padding: 33 s at 16 kHz
HEAD_FRAMES = 4096  # of an update of the head alone: 82 s at 50 a second


def plain(text: str) -> str:
    """Lower case, letters, digits and apostrophes, single spaces: what is heard of punctuation is little."""
    kept = "".join(c if c.isalnum() or c == "'" else " " for c in text.lower())
    return " ".join(kept.split())


@dataclass(frozen=True)
class Alphabet:
    """Characters by number, from 1; 0 is CTC's blank."""

    characters: str

    @classmethod
    def of(cls, texts: Sequence[str]) -> Alphabet:
        return cls("".join(sorted(set("".join(texts)))))

    def encode(self, text: str) -> Tensor:
        """(length,) int64: the numbers of the known characters of a text."""
        return torch.tensor([self.characters.index(c) + 1 for c in text if c in self.characters], dtype=torch.int64)


def greedy(logits: Tensor, alphabet: Alphabet) -> str:
    """The text of (frames, 1 + characters): the best of each frame, repeats once, blanks left out."""
    best = torch.unique_consecutive(logits.argmax(1)).tolist()
    return "".join(alphabet.characters[i - 1] for i in best if i)


def edits(said: Sequence[object], read: Sequence[object]) -> int:
    """The fewest insertions, deletions and substitutions that make one of the other (Levenshtein 1965)."""
    row = np.arange(len(read) + 1)
    other = np.array([hash(x) for x in read], dtype=np.int64)
    for i, item in enumerate(said, 1):
        best = np.minimum(row[1:] + 1, row[:-1] + (other != hash(item)))
        # Insertions: best[j] = min over k <= j of best[k] + j - k, which a running minimum gives.
        row = np.minimum.accumulate(np.concatenate([[i], best]) - np.arange(len(row))) + np.arange(len(row))
    return int(row[-1])


def error_rate(said: Sequence[str], read: Sequence[str], *, words: bool = False) -> float:
    """Edits of all texts together, divided by the characters, with spaces, or words that were said; may exceed 1."""
    pairs = [(a.split(), b.split()) if words else (a, b) for a, b in zip(said, read)]
    return sum(edits(a, b) for a, b in pairs) / max(1, sum(len(a) for a, _ in pairs))


class Head(nn.Module):
    """Local features (..., width) to logits (..., 1 + characters): standardised as the frames it is made with, linear.

    frames: (n, width).
    """

    def __init__(self, frames: np.ndarray, alphabet: Alphabet) -> None:
        super().__init__()
        deviation, mean = torch.std_mean(torch.from_numpy(frames), 0, correction=0)
        self.register_buffer("mean", mean)
        self.register_buffer("scale", 1 / deviation.clamp(min=1e-5))
        self.linear, self.alphabet = nn.Linear(len(mean), 1 + len(alphabet.characters)), alphabet
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear((x - self.mean) * self.scale)


def train_head(
    features: Sequence[np.ndarray], codes: Sequence[Tensor], alphabet: Alphabet, *, updates: int = 600, seed: int = 0
) -> Head:
    """A head on fixed features, (frames, width) of each recording, learned with CTC from the numbers of its text."""
    torch.manual_seed(seed)
    head = Head(np.concatenate(features), alphabet).to(device())
    groups = grouped(np.array([len(f) for f in features]), HEAD_FRAMES)

    def logits(which: np.ndarray) -> tuple[Tensor, Tensor]:
        rows = [torch.from_numpy(features[i]) for i in which]
        return head(nn.utils.rnn.pad_sequence(rows, batch_first=True).to(device())), torch.tensor(
            [len(r) for r in rows]
        )

    _descend({HEAD_LR: head.parameters()}, logits, groups, codes, updates, seed)
    return head


def fine_tune(
    method: Method,
    head: Head,
    train: Recordings,
    codes: Sequence[Tensor],
    *,
    updates: int,
    seed: int = 0,
    say: Callable[[str], None] = lambda text: None,
) -> tuple[Method, Head]:
    """Copies of a method, all its weights, and of a head trained on its features, trained on together."""
    method, head = copy.deepcopy(method).train().requires_grad_(True), copy.deepcopy(head)
    rates = {LR: method.parameters(), HEAD_LR / 10: head.parameters()}
    _descend(rates, partial(_logits, method, head, train), grouped(train.lengths, SAMPLES), codes, updates, seed, say)
    return method.eval(), head


def updates_within(
    seconds: float, method: Method, head: Head, train: Recordings, codes: Sequence[Tensor], most: int
) -> int:
    """How many updates of `fine_tune` fit into a time, at most `most`, as three of them take."""
    fine_tune(method, head, train, codes, updates=1)
    clock = TimeLimit(None)
    fine_tune(method, head, train, codes, updates=3)
    return int(min(most, 3 * seconds / clock.spent))


def _descend(
    rates: Mapping[float, Iterable[nn.Parameter]],
    logits: Callable[[np.ndarray], tuple[Tensor, Tensor]],
    groups: Sequence[np.ndarray],
    codes: Sequence[Tensor],
    updates: int,
    seed: int,
    say: Callable[[str], None] = lambda text: None,
) -> None:
    """Adam, betas 0.9 and 0.98: rates rise over a tenth of the updates and from the middle on fall to zero; the norm of
    the gradient is clipped at 1. logits: of the recordings with these indices, and how many frames of each count."""
    parts = [{"params": list(parameters), "peak": peak} for peak, parameters in rates.items()]
    optimizer = torch.optim.Adam(parts, betas=(0.9, 0.98))
    everything = [p for part in parts for p in part["params"]]
    rng, waiting = np.random.default_rng(seed), list[np.ndarray]()
    for update in range(updates):
        waiting = waiting or [groups[i] for i in rng.permutation(len(groups))]
        which = waiting.pop()
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * min((update + 1) / (0.1 * updates), 1, 2 * (1 - update / updates))
        scores, frames = logits(which)
        lengths = torch.tensor([len(codes[i]) for i in which])
        target = torch.cat([codes[i] for i in which]).to(scores.device)
        rows = F.log_softmax(scores, 2, dtype=torch.float32).transpose(0, 1)
        # Where there are fewer frames than characters there is no path; such a recording teaches nothing.
        loss = F.ctc_loss(rows, target, frames.cpu(), lengths, reduction="sum", zero_infinity=True) / lengths.sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(everything, 1.0)
        optimizer.step()
        if update % 20 == 0:
            say(f"fine-tuning: {update} of {updates} updates, {float(loss.detach()):.2f} nats a character")


def _logits(method: Method, head: Head, recordings: Recordings, which: np.ndarray) -> tuple[Tensor, Tensor]:
    batch = batch_of(method, recordings, which)
    features = method.embed_locally(batch)  # type: ignore[attr-defined]
    return head(features), positions(method, batch, features.shape[1])


def read_features(head: Head, features: Sequence[np.ndarray]) -> list[str]:
    """The text of each recording by a head on fixed features."""
    with torch.no_grad():
        return [greedy(head(torch.from_numpy(f).to(device())), head.alphabet) for f in features]


def read(method: Method, head: Head, recordings: Recordings) -> list[str]:
    """The text of each recording."""
    return read_features(head, locally(method, recordings))
