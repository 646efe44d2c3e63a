"""The U-Net of DDPM: residual blocks told the time by addition, attention on chosen levels, skips by concatenation.

Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models", NeurIPS 2020, appendix B and the authors' code.
Modules bear the names of diffusers' `UNet2DModel`, so that weights go both ways without a table of names.

Differs from the authors' code in one thing: their layers of scale 0 are drawn with variance scale 1e-10; here they are
exactly zero, so that the untrained network predicts exactly zero.

Layout: plain (n, c, h, w). On a CPU, channels-last convolutions are a tenth faster but torch's channels-last group
norm takes up to fifty times as long as the plain one (1 or 2 channels per group), so plain wins by far.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unlabeled.core.errors import UserError

__all__ = ["UNet", "sinusoid"]

EPS = 1e-6  # of every group norm; torch's 1e-5 does not match released weights


def sinusoid(t: Tensor, width: int) -> Tensor:
    """(n,) times, in steps, to (n, width) float32: [sin, cos] of width // 2 frequencies from 1 down to 1/10000.

    The divisor is half - 1, as in the authors' code; improved DDPM and ADM have [cos, sin] and half.
    """
    half = width // 2
    rates = torch.exp(torch.arange(half, device=t.device, dtype=torch.float32) * (-math.log(10000) / (half - 1)))
    angles = t.float()[:, None] * rates
    return F.pad(torch.cat([angles.sin(), angles.cos()], dim=1), (0, width % 2))


class _Norm(nn.GroupNorm):
    """Group norm with DDPM's epsilon; on half-width inputs the statistics are still summed in float32."""

    def __init__(self, groups: int, width: int) -> None:
        super().__init__(groups, width, eps=EPS)


class _TimeEmbedding(nn.Module):
    def __init__(self, ch: int) -> None:
        super().__init__()
        self.linear_1, self.linear_2 = nn.Linear(ch, 4 * ch), nn.Linear(4 * ch, 4 * ch)

    def forward(self, sines: Tensor) -> Tensor:
        return self.linear_2(F.silu(self.linear_1(sines)))


class _Residual(nn.Module):
    """norm-swish-conv, plus time, norm-swish-dropout-conv, plus the input (through 1 x 1 where the width changes)."""

    def __init__(self, width_in: int, width: int, time_width: int, groups: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.norm1 = _Norm(groups, width_in)
        self.conv1 = nn.Conv2d(width_in, width, 3, padding=1)
        self.time_emb_proj = nn.Linear(time_width, width)
        self.norm2 = _Norm(groups, width)
        self.conv2 = _zero(nn.Conv2d(width, width, 3, padding=1))
        self.conv_shortcut = nn.Conv2d(width_in, width, 1) if width_in != width else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """x (n, width_in, h, w), time (n, width): already projected to this block's width, with the bias of conv1."""
        h = F.conv2d(F.silu(self.norm1(x)), self.conv1.weight, padding=1) + time.to(x.dtype)[:, :, None, None]
        h = F.dropout(F.silu(self.norm2(h)), self.dropout, self.training)
        return self.conv_shortcut(x) + self.conv2(h)


class _Attention(nn.Module):
    """One head over all positions, scale width^-1/2, added to the input."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.group_norm = _Norm(groups, width)
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, width) for _ in range(3))
        self.to_out = nn.ModuleList([_zero(nn.Linear(width, width))])

    def forward(self, x: Tensor) -> Tensor:
        n, c, height, width = x.shape
        h = self.group_norm(x).flatten(2)  # (n, c, positions)
        weight = torch.cat([self.to_q.weight, self.to_k.weight, self.to_v.weight])
        bias = torch.cat([self.to_q.bias, self.to_k.bias, self.to_v.bias])
        q, k, v = F.conv1d(h, weight[:, :, None], bias).chunk(3, dim=1)
        # Two products need no axis moved; with gradient, in bfloat16 on a CPU, 49 to 256 positions take them 0.3 to 0.8
        # of the time of the fused call (in float32 1.1 to 1.4).
        scores = (q.transpose(1, 2) @ k).float() * c**-0.5  # (n, asking, asked)
        h = v @ scores.softmax(dim=-1).to(v.dtype).transpose(1, 2)
        out = self.to_out[0]
        return x + F.conv1d(h, out.weight[:, :, None], out.bias).view(n, c, height, width)  # pyrefly: ignore


class _Down(nn.Module):
    """3 x 3 with stride 2, padded below and to the right only, as TensorFlow's SAME does."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class _Up(nn.Module):
    """Every pixel four times, then 3 x 3.

    Both are linear, and together they are one transposed convolution of stride 2 whose 4 x 4 kernel sums the 3 x 3 one
    over the four copies: 4 products per output and channel pair in place of 9.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        w = self.conv.weight.flip(2, 3).transpose(0, 1)  # (in, out, 3, 3)
        kernel = torch.stack([F.pad(w, (b, 1 - b, a, 1 - a)) for a in (0, 1) for b in (0, 1)]).sum(0)
        return F.conv_transpose2d(x, kernel, self.conv.bias, stride=2, padding=1)


class _Level(nn.Module):
    """What happens at one resolution: residual blocks, attention after each or none, a change of resolution or none."""

    def __init__(self, resnets: list[_Residual], attentions: list[_Attention], **resample: nn.ModuleList) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(resnets)
        if attentions:
            self.attentions = nn.ModuleList(attentions)
        for name, module in resample.items():
            self.add_module(name, module)

    def block(self, i: int, x: Tensor, times: dict[nn.Module, Tensor]) -> Tensor:
        """Residual block i and its attention."""
        x = self.resnets[i](x, times[self.resnets[i]])
        return self.attentions[i](x) if hasattr(self, "attentions") and i < len(self.attentions) else x


class UNet(nn.Module):
    """A map from (image, time) to an image of the same size.

    ch: channels of the finest level; level i has ch * mult[i], at 1 / 2^i of the resolution.
    blocks: residual blocks per level on the way down; one more on the way up.
    attention: levels with attention, 0 the finest. The middle always has it.
    groups: of every norm; each needs two channels or more, since a group of one channel would cancel the time, which
        is added per channel.

    Raises:
        UserError: where groups do not fit the widths.
    """

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        *,
        ch: int = 128,
        mult: Sequence[int] = (1, 2, 2, 2),
        blocks: int = 2,
        attention: Sequence[int] = (1,),
        dropout: float = 0.1,
        groups: int = 32,
    ) -> None:
        super().__init__()
        widths = [ch * m for m in mult]
        if any(w % groups or w < 2 * groups for w in widths):
            raise UserError(f"Widths {widths} need --groups that divide them into two channels or more, not {groups}.")
        time = 4 * ch

        def residual(a: int, b: int) -> _Residual:
            return _Residual(a, b, time, groups, dropout)

        def attentions(level: int, count: int) -> list[_Attention]:
            return [_Attention(widths[level], groups) for _ in range(count if level in attention else 0)]

        self.ch, self.stride = ch, 2 ** (len(widths) - 1)
        self.conv_in = nn.Conv2d(in_channels, ch, 3, padding=1)
        self.time_embedding = _TimeEmbedding(ch)
        self.down_blocks, self.up_blocks = nn.ModuleList(), nn.ModuleList()
        skips, width = [ch], ch
        for i, w in enumerate(widths):
            resnets = [residual(width if j == 0 else w, w) for j in range(blocks)]
            last = i == len(widths) - 1
            down = {} if last else {"downsamplers": nn.ModuleList([_Down(w)])}
            self.down_blocks.append(_Level(resnets, attentions(i, blocks), **down))
            skips += [w] * (blocks if last else blocks + 1)
            width = w
        self.mid_block = _Level([residual(width, width) for _ in range(2)], [_Attention(width, groups)])
        for i, w in reversed(list(enumerate(widths))):
            resnets = []
            for _ in range(blocks + 1):
                resnets.append(residual(width + skips.pop(), w))
                width = w
            up = {"upsamplers": nn.ModuleList([_Up(w)])} if i else {}
            self.up_blocks.append(_Level(resnets, attentions(i, blocks + 1), **up))
        self.conv_norm_out = _Norm(groups, ch)
        self.conv_out = _zero(nn.Conv2d(ch, out_channels, 3, padding=1))
        self._residuals = [m for m in self.modules() if isinstance(m, _Residual)]
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]
                if not getattr(module, "starts_at_zero", False):
                    nn.init.xavier_uniform_(module.weight)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """x (n, in_channels, h, w) with h and w multiples of `stride`; t (n,) steps, 0 the least noise.

        Returns (n, out_channels, h, w), in bfloat16 under autocast.
        """
        times = self._times(t)
        h = self.conv_in(x)
        skips = [h]
        for level in self.down_blocks:
            assert isinstance(level, _Level)
            for i in range(len(level.resnets)):
                h = level.block(i, h, times)
                skips.append(h)
            if hasattr(level, "downsamplers"):
                h = level.downsamplers[0](h)  # pyrefly: ignore
                skips.append(h)
        h = self.mid_block.block(0, h, times)
        h = self.mid_block.block(1, h, times)
        for level in self.up_blocks:
            assert isinstance(level, _Level)
            for i in range(len(level.resnets)):
                h = level.block(i, torch.cat([h, skips.pop()], dim=1), times)
            if hasattr(level, "upsamplers"):
                h = level.upsamplers[0](h)  # pyrefly: ignore
        return self.conv_out(F.silu(self.conv_norm_out(h)))

    def _times(self, t: Tensor) -> dict[nn.Module, Tensor]:
        """What each residual block adds, (n, width): all projections in one product.

        The bias of the block's first convolution comes along, since its gradient is a sum over all pixels, which the
        addition of the time needs anyway.
        """
        time = F.silu(self.time_embedding(sinusoid(t, self.ch)))
        projections = [m.time_emb_proj for m in self._residuals]
        weight = torch.cat([p.weight for p in projections])
        bias = torch.cat([m.time_emb_proj.bias + m.conv1.bias for m in self._residuals])  # pyrefly: ignore
        parts = F.linear(time, weight, bias).split([p.out_features for p in projections], dim=1)
        return dict(zip(self._residuals, parts))


def _zero(module: nn.Module) -> nn.Module:
    """Mark a layer as one whose weights start at zero, and set them."""
    nn.init.zeros_(module.weight)  # type: ignore[arg-type]
    module.starts_at_zero = True  # type: ignore[assignment]
    return module
