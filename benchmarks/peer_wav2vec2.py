"""Seconds of sound per second of training: wav2vec 2.0 here against transformers' Wav2Vec2ForPreTraining, in turn.

The peer trains as its own example does: spans and distractors are drawn by its numpy functions for each step, utterance
by utterance, then comes a float32 step, or one under bfloat16 autocast, with AdamW. Same shape, batch and lengths; no
dropout or LayerDrop on either side. Ours includes its masks, distractors and noise, and the feature penalty, which the
peer does not have.

Run: python benchmarks/peer_wav2vec2.py      (alone on the machine; about three minutes)
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial

import torch
from rounds import compare, on_one_batch
from torch import Tensor

from unlabeled.core.batch import Spec
from unlabeled.core.clock import Clock
from unlabeled.core.config import resolve
from unlabeled.engine import machine
from unlabeled.engine.optimise import parts_of
from unlabeled.engine.precision import precision
from unlabeled.methods.wav2vec2 import RATE_HZ, Wav2Vec2

BATCH, SECONDS = 16, 4
CLOCK = Clock(step=1, steps=100, progress=0.5)
CONFIG = resolve(Wav2Vec2, "small", {"batch": BATCH, "crop": SECONDS * RATE_HZ, "penalty": 10.0})


def method() -> Wav2Vec2:
    torch.manual_seed(0)
    return Wav2Vec2(CONFIG, Spec("wave", sample_rate_hz=RATE_HZ)).train()


def ours() -> Callable[[Tensor], float]:
    """One step of the engine's work, random part included, in the fastest precision of this machine."""
    machine.keep_freed_memory()
    model = method()
    part, compute, grains = parts_of(model)["main"], precision("fastest"), 8

    def step(wave: Tensor) -> float:
        lengths = torch.full((BATCH,), wave.shape[1])
        with torch.no_grad():
            pairs = zip(wave.chunk(grains), lengths.chunk(grains))
            pieces = [model.transform({"wave": w, "wave_length": n}, CLOCK) for w, n in pairs]
            batch = {k: torch.cat([p[k] for p in pieces]) for k in pieces[0]}
        with compute.computing():
            loss = model.loss(batch, "main", CLOCK).loss
        loss.backward()
        part.step(CLOCK)
        return loss.item()

    return step


def peer(*, bf16: bool) -> Callable[[Tensor], float]:
    """The usual loop around transformers' class."""
    from transformers import Wav2Vec2Config, Wav2Vec2ForPreTraining
    from transformers.models.wav2vec2.modeling_wav2vec2 import _compute_mask_indices, _sample_negative_indices

    model = Wav2Vec2ForPreTraining(Wav2Vec2Config(**method().export()[1])).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.01)

    def step(wave: Tensor) -> float:
        shape = (BATCH, int(model._get_feat_extract_output_lengths(wave.shape[1])))
        mask = _compute_mask_indices(shape, CONFIG.mask_probability, CONFIG.mask_length, min_masks=2)
        chosen = torch.from_numpy(_sample_negative_indices(shape, CONFIG.negatives, mask))
        masked = torch.from_numpy(mask)
        with torch.autocast("cpu", torch.bfloat16) if bf16 else nullcontext():
            loss = model(wave, mask_time_indices=masked, sampled_negative_indices=chosen).loss / masked.sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), float("inf"))  # its example logs the norm, as ours does
        optimizer.step()
        optimizer.zero_grad()
        model.set_gumbel_temperature(1.0)
        return loss.item()

    return step


def sound() -> Tensor:
    return 0.1 * torch.randn(BATCH, SECONDS * RATE_HZ, generator=torch.Generator().manual_seed(0))


if __name__ == "__main__":
    makers = {
        "unlabeled": ours,
        "transformers float32": partial(peer, bf16=False),
        "transformers bfloat16 autocast": partial(peer, bf16=True),
    }
    contenders = {name: on_one_batch(make, sound, BATCH * SECONDS) for name, make in makers.items()}
    about = {
        "batch": BATCH,
        "seconds": SECONDS,
        "shape": "variant small",
        "parameters": sum(p.numel() for p in method().parameters()),
    }
    compare(__file__, contenders, "seconds of sound per second of training", about)
