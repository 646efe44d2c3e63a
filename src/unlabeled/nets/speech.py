"""From raw sound to hidden states at 50 per second: the network of wav2vec 2.0 and of what followed it (HuBERT).

Baevski, Zhou, Mohamed, Auli, NeurIPS 2020, sections 2 and 4.2; details as in the authors' code (fairseq). Seven strided
convolutions make frames of 25 ms every 20 ms; masked frames are replaced by one learned vector; a wide grouped
convolution says where each frame stands; Transformer blocks do the rest.

Padding changes nothing: the statistics of the group norm, which in the authors' code are of the padded sound, are of the
real one here. Without padding the two are the same.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unlabeled.nets.encoder import Dropout, EncoderBlock

__all__ = ["ConvFeatures", "ConvPosition", "SpeechEncoder", "SpeechStates"]

_EPS = 1e-5  # of all norms, torch's default


class ConvFeatures(nn.Module):
    """Convolutions without padding along the samples, each followed by GELU; (n, samples) to (n, frames, channels).

    norm "group": the first convolution alone is normalised, each channel over time; "layer": all are, over channels.
    Kernels start at He et al.'s normal, biases at torch's default.
    """

    def __init__(
        self,
        widths: Sequence[int],
        kernels: Sequence[int],
        strides: Sequence[int],
        *,
        norm: Literal["group", "layer"] = "group",
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.norm, self.kernels, self.strides = norm, tuple(kernels), tuple(strides)
        shapes = zip((1, *widths), widths, kernels, strides)
        self.convs = nn.ModuleList(nn.Conv1d(i, o, k, s, bias=bias) for i, o, k, s in shapes)
        for conv in self.convs:
            nn.init.kaiming_normal_(conv.weight)  # type: ignore[arg-type]
        # Called by hand below; GroupNorm with a group for each channel has the same two vectors.
        self.norms = nn.ModuleList(nn.LayerNorm(w, eps=_EPS) for w in (widths[:1] if norm == "group" else widths))

    @property
    def receptive_field(self) -> int:
        """Samples that one frame sees; fewer give no frame."""
        return 1 + sum((k - 1) * math.prod(self.strides[:i]) for i, k in enumerate(self.kernels))

    def frames(self, samples: Any) -> Any:
        """How many frames so many samples give; an int or an integer tensor. At least 0."""
        for k, s in zip(self.kernels, self.strides):
            samples = (samples - k) // s + 1
        return samples.clamp(min=0) if isinstance(samples, Tensor) else max(samples, 0)

    def forward(self, wave: Tensor, lengths: Tensor | None = None) -> Tensor:
        """wave: (n, samples) float32; lengths: (n,) real samples of each, None where all are real.

        Frames that see samples behind the real ones mean nothing.
        """
        x = self._first(wave, lengths)
        for i, conv in enumerate(self.convs):
            if i:
                # As images of height 1, channels last: twice to three times as fast on a CPU as a convolution of rows.
                image = x.transpose(1, 2)[:, :, None]
                bias, stride = conv.bias, (1, self.strides[i])
                x = F.conv2d(image, conv.weight[:, :, None], bias, stride)[:, :, 0].transpose(1, 2)  # type: ignore[index, arg-type]
            x = F.gelu(self.norms[i](x) if self.norm == "layer" else x)
        return x

    def _first(self, wave: Tensor, lengths: Tensor | None) -> Tensor:
        """The first convolution and, for "group", its norm, in one product.

        A channel w of the convolution has the mean <w, m> and the variance w^T C w over time, m and C being those of
        the windows it is laid on: ten numbers and a hundred. So the norm is a change of the kernel, and the largest
        activation of the network is written once.
        """
        conv: Any = self.convs[0]
        windows = wave.unfold(1, self.kernels[0], self.strides[0])  # (n, time, kernel)
        weight = conv.weight[:, 0].expand(len(wave), -1, -1)  # (n, channels, kernel)
        bias = None if conv.bias is None else conv.bias.expand(len(wave), -1)
        if self.norm == "group":
            norm: Any = self.norms[0]
            with torch.autocast(wave.device.type, enabled=False):
                mean, covariance = _moments(windows, lengths if lengths is None else self._first_frames(lengths))
                w = conv.weight[:, 0].double()
                scale = norm.weight / torch.einsum("ck,nkl,cl->nc", w, covariance, w).add(_EPS).sqrt()
                # A bias of the convolution is taken out again by the norm.
                bias = (norm.bias - scale * (mean @ w.T)).float()
                weight = (scale[:, :, None] * w).float()
        return _affine(windows, weight.transpose(1, 2), bias)

    def _first_frames(self, lengths: Tensor) -> Tensor:
        return ((lengths - self.kernels[0]) // self.strides[0] + 1).clamp(min=1)


def _moments(windows: Tensor, count: Tensor | None) -> tuple[Tensor, Tensor]:
    """Mean (n, kernel) and covariance (n, kernel, kernel), float64, of the first `count` windows of each row."""
    # Neighbouring samples are so alike that a high-pass channel's variance is a small difference of large numbers.
    x = windows.double()
    if count is None:
        total: Any = x.shape[1]
        mean = x.mean(1)
        x = x - mean[:, None]
    else:
        real = (torch.arange(x.shape[1], device=x.device) < count[:, None])[:, :, None]
        total = count[:, None, None]
        mean = (x * real).sum(1) / count[:, None]
        x = (x - mean[:, None]) * real
    return mean, x.transpose(1, 2) @ x / total


def _affine(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x (n, time, k) times weight (n, k, channels) plus bias (n, channels).

    Under autocast the product is in its type, but of numbers in two parts, hi + lo, as exact as float32 nearly: samples
    rounded to eight bits would put a noise above the quiet consonants.
    """
    if bias is None:
        bias = weight.new_zeros(weight.shape[0], weight.shape[2])
    device = x.device.type
    if not torch.is_autocast_enabled(device):
        return torch.baddbmm(bias[:, None], x, weight)
    kind = torch.get_autocast_dtype(device)
    both = torch.cat([weight, bias[:, None]], 1)
    high = both.to(kind)
    low = (both - high).detach().to(kind)  # the gradient of `both` goes through `high` alone
    x_high = x.to(kind)
    x_low = (x - x_high).to(kind)
    ones = x_high.new_ones(*x.shape[:2], 1)
    rows = torch.cat([x_high, ones, x_low, x_high, ones], -1)
    return rows @ torch.cat([high, high[:, :-1], low], 1)


class ConvPosition(nn.Module):
    """x + GELU(grouped convolution of x over time), by which a frame learns what stands around it.

    Weight norm with one gain for each tap: w[:, :, k] = gain[k] v[:, :, k] / |v[:, :, k]|.
    """

    def __init__(self, width: int, kernel: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.direction = nn.Parameter(torch.empty(width, width // groups, kernel))
        self.bias = nn.Parameter(torch.zeros(width))
        nn.init.normal_(self.direction, std=math.sqrt(4 / (kernel * width)))
        self.gain = nn.Parameter(self.direction.detach().norm(dim=(0, 1), keepdim=True))

    def forward(self, x: Tensor) -> Tensor:
        """(n, time, width) to the same; frames that are not real must be zero."""
        kernel = self.direction.shape[2]
        weight = self.direction * (self.gain / self.direction.norm(dim=(0, 1), keepdim=True))
        image, pad = x.transpose(1, 2)[:, :, None], (0, kernel // 2)
        y = F.conv2d(image, weight[:, :, None], self.bias, padding=pad, groups=self.groups)[:, :, 0].transpose(1, 2)
        return x + F.gelu(y[:, : x.shape[1]])  # an even kernel gives one step more


class SpeechStates(NamedTuple):
    """hidden (n, frames, width); features (n, frames, channels), the normalised convolutional ones, before any mask;
    energy (n,), the mean square of the convolutional features before that norm; frames (n,) int64, the real ones."""

    hidden: Tensor
    features: Tensor
    energy: Tensor
    frames: Tensor


class SpeechEncoder(nn.Module):
    """Sound to hidden states.

    norm_first: blocks normalise before each branch, and once more at the end; else after, and once at the beginning.
    gradient: what the gradient is multiplied by where it enters the convolutions; 0 freezes them.
    Linear maps of blocks start at N(0, 0.02) with zero biases, the projection at torch's default, the mask at U(0, 1).
    """

    def __init__(
        self,
        convs: ConvFeatures,
        *,
        width: int,
        layers: int,
        heads: int,
        inner: int,
        norm_first: bool,
        position_kernel: int = 128,
        position_groups: int = 16,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        input_dropout: float = 0.0,
        gradient: float = 1.0,
    ) -> None:
        super().__init__()
        self.norm_first, self.gradient = norm_first, gradient
        self.convs = convs
        channels = convs.convs[-1].out_channels
        self.norm_features = nn.LayerNorm(channels, eps=_EPS)  # type: ignore[arg-type]
        self.project = nn.Linear(channels, width)  # type: ignore[arg-type]
        self.mask_vector = nn.Parameter(torch.rand(width))
        self.position = ConvPosition(width, position_kernel, position_groups)
        self.norm = nn.LayerNorm(width, eps=_EPS)
        self.blocks = nn.ModuleList(
            EncoderBlock(
                width,
                heads,
                inner,
                norm_first=norm_first,
                dropout=dropout,
                attention_dropout=attention_dropout,
                eps=_EPS,
            )
            for _ in range(layers)
        )
        self.input_dropout, self.dropout = Dropout(input_dropout), Dropout(dropout)
        for module in self.blocks.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(
        self,
        wave: Tensor,
        lengths: Tensor,
        mask: Tensor | None = None,
        *,
        layer: int | None = None,
        skip: Collection[int] = (),
    ) -> SpeechStates:
        """wave (n, samples) float32 padded with zeros, lengths (n,) the real samples.

        mask: (n, frames) bool, True where a frame is replaced by the mask vector.
        layer: give the states after so many blocks, counted like transformers' `hidden_states`; the norm at the end of
            norm_first is behind the last only (its `last_hidden_state`). None: after all.
        skip: blocks that are left out (LayerDrop).
        """
        padded = bool((lengths < wave.shape[1]).any())
        frames = self.convs.frames(lengths)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.gradient > 0):
            x = self.convs(wave, lengths if padded else None)
        if x.requires_grad and self.gradient != 1:
            x.register_hook(lambda g: g * self.gradient)
        real = torch.arange(x.shape[1], device=x.device) < frames[:, None] if padded else None
        square = x.float().square().mean(-1)
        energy = square.mean(1) if real is None else (square * real).sum(1) / frames.clamp(min=1)
        features = self.norm_features(x)
        x = self.input_dropout(self.project(features))
        if mask is not None:
            x = torch.where(mask[:, :, None], self.mask_vector.to(x.dtype), x)
        if real is not None:
            x = x * real[:, :, None]
        x = self.position(x)
        x = self.dropout(x if self.norm_first else self.norm(x))
        count = len(self.blocks) if layer is None else layer
        for i, block in enumerate(self.blocks[:count]):
            if i not in skip:
                x = block(x, real)
        if self.norm_first and count == len(self.blocks):
            x = self.norm(x)
        return SpeechStates(x, features, energy, frames)
