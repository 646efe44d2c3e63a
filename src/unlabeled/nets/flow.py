"""Glow's invertible network: a change of variables from an image to independent normal numbers, and back.

Kingma & Dhariwal, "Glow: Generative Flow with Invertible 1x1 Convolutions", NeurIPS 2018, table 1, section 3.

    squeeze, `depth` steps of (activation norm, 1x1 convolution, coupling), split; the kept half goes to the next level

Layout is (n, height, width, channels), so that 1x1 convolutions are plain products. The steps of a level keep their
parameters stacked, (depth, ...): what depends on weights alone (scales, determinants, inverses) is computed once for
all of them, and an activation norm is folded into the convolution beside it. Halves that are split off are
standardised by their prior, which makes the whole network one map whose output is N(0, I) under the model.

The arithmetic of the flow stays in float32 under autocast; only the networks inside the couplings follow it.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

__all__ = ["ActNorm", "Coupling", "Flow", "InvertibleConv", "Level", "ZeroConv", "squeeze", "unsqueeze"]

SPEED = 3.0  # of all log-scales: their parameters count so many times (logscale_factor of the authors' code)
HIDDEN_STD = 0.05  # of the starting weights of hidden convolutions


def squeeze(x: Tensor) -> Tensor:
    """(n, h, w, c) to (n, h / 2, w / 2, 4 c): the 2 x 2 pixels of a channel become neighbouring channels."""
    n, h, w, c = x.shape
    return x.view(n, h // 2, 2, w // 2, 2, c).permute(0, 1, 3, 5, 2, 4).reshape(n, h // 2, w // 2, 4 * c)


def unsqueeze(x: Tensor) -> Tensor:
    """The inverse of `squeeze`."""
    n, h, w, c = x.shape
    return x.view(n, h, w, c // 4, 2, 2).permute(0, 1, 4, 2, 5, 3).reshape(n, 2 * h, 2 * w, c // 4)


class ActNorm(nn.Module):
    """`depth` activation norms, y = (x + bias) * scale per channel, with scale = exp(3 log_scale)."""

    def __init__(self, depth: int, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(depth, channels))
        self.log_scale = nn.Parameter(torch.zeros(depth, channels))

    def scale(self) -> Tensor:
        """(depth, channels)."""
        return torch.exp(SPEED * self.log_scale)

    def log_det(self) -> Tensor:
        """Per position, of all `depth` together: scalar."""
        return SPEED * self.log_scale.sum()

    @torch.no_grad()
    def fit(self, i: int, x: Tensor) -> Tensor:
        """Set norm i so that it brings x (..., channels) to mean 0 and variance 1; returns what it then makes of x."""
        dims = tuple(range(x.ndim - 1))
        self.bias[i] = -x.mean(dims)
        deviation = (x + self.bias[i]).square().mean(dims).sqrt()
        self.log_scale[i] = -torch.log(deviation + 1e-6) / SPEED
        return (x + self.bias[i]) * self.scale()[i]


class InvertibleConv(nn.Module):
    """`depth` learned mixings of the channels (section 3.2), which start as random rotations.

    lu: keep W as P L (U + diag(s)) with P and the signs of s fixed (section 3.2.1), whose determinant is a product;
    otherwise W itself is learned and its determinant is taken in float64.
    """

    permutation: Tensor
    sign: Tensor

    def __init__(self, depth: int, channels: int, *, lu: bool = False) -> None:
        super().__init__()
        rotation = torch.linalg.qr(torch.randn(depth, channels, channels))[0].contiguous()
        self.lu = lu
        if not lu:
            self.weight = nn.Parameter(rotation)
            return
        permutation, lower, upper = torch.linalg.lu(rotation)
        diagonal = upper.diagonal(dim1=1, dim2=2)
        self.register_buffer("permutation", permutation.contiguous())
        self.register_buffer("sign", diagonal.sign())
        self.lower, self.upper = nn.Parameter(lower.contiguous()), nn.Parameter(upper.contiguous())
        self.log_diagonal = nn.Parameter(diagonal.abs().log())

    def matrices(self) -> Tensor:
        """W, (depth, channels out, channels in)."""
        if not self.lu:
            return self.weight
        lower = self.lower.tril(-1) + torch.eye(self.lower.shape[1], device=self.lower.device, dtype=self.lower.dtype)
        upper = self.upper.triu(1) + torch.diag_embed(self.sign * self.log_diagonal.exp())
        return self.permutation @ lower @ upper

    def log_det(self) -> Tensor:
        """log |det W| of all `depth` together: scalar."""
        if self.lu:
            return self.log_diagonal.sum()
        return torch.linalg.slogdet(self.weight.double())[1].sum().to(self.weight.dtype)


class ZeroConv(nn.Module):
    """`depth` 3x3 convolutions that start at zero, their output times exp(3 log_gain) per channel.

    As every 3x3 convolution here they see one channel more than their input has, which is 1 on the padding and 0 inside
    (the edge bias of the authors' code).
    """

    def __init__(self, depth: int, before: int, after: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(depth, after, before + 1, 3, 3))
        self.bias = nn.Parameter(torch.zeros(depth, after))
        self.log_gain = nn.Parameter(torch.zeros(depth, after))

    def folded(self, h: int, w: int) -> tuple[Tensor, Tensor]:
        """Weights with their gain (depth, after, before, 3, 3), and what bias and edges add (depth, h, w, after)."""
        gain = torch.exp(SPEED * self.log_gain)
        weight = self.weight * gain[:, :, None, None, None]
        edges = F.conv2d(_edges(h, w, weight), weight[:, :, -1:].flatten(0, 1))
        added = edges.view(*gain.shape, h, w) + (self.bias * gain)[:, :, None, None]
        return weight[:, :, :-1], added.permute(0, 2, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(n, h, w, before) to (n, h, w, after), by the first of them."""
        weight, added = self.folded(*x.shape[1:3])
        return F.conv2d(x.permute(0, 3, 1, 2), weight[0], padding=1).permute(0, 2, 3, 1) + added[0]


class Coupling(nn.Module):
    """`depth` couplings: one half of the channels says how the other half is moved.

        affine:   (shift, r) = net(kept);  moved <- (moved + shift) * sigmoid(r + 2)        (shift even, r odd channels)
        additive: moved <- moved + net(kept)

    net: 3x3 convolution, ReLU, 1x1 convolution, ReLU, 3x3 convolution that starts at zero; the first two have
    activation norms in place of biases.
    """

    def __init__(self, depth: int, channels: int, width: int, *, affine: bool = True) -> None:
        super().__init__()
        self.affine = affine
        half = channels // 2
        self.weight1 = nn.Parameter(torch.randn(depth, width, half + 1, 3, 3) * HIDDEN_STD)
        self.norm1 = ActNorm(depth, width)
        self.weight2 = nn.Parameter(torch.randn(depth, width, width, 1, 1) * HIDDEN_STD)
        self.norm2 = ActNorm(depth, width)
        self.last = ZeroConv(depth, width, channels if affine else half)

    def folded(self, z: Tensor, dtype: torch.dtype) -> list[tuple[Tensor, ...]]:
        """For each of them what `net` takes: (weight, bias) of the hidden layers, weight and addition of the last.

        Of z (n, h, w, c) only the height and width count.
        """
        parts = []
        for weight, norm in ((self.weight1, self.norm1), (self.weight2, self.norm2)):
            scale = norm.scale()
            parts += [weight * scale[:, :, None, None, None], norm.bias * scale]
        weight, added = self.last.folded(*z.shape[1:3])
        return list(zip(*(p.to(dtype).unbind() for p in (*parts, weight)), added.unbind()))

    def fit(self, i: int, kept: Tensor) -> None:
        """Set the norms of net i from what they meet on kept (n, h, w, half)."""
        hidden = F.conv2d(_with_edges(kept), self.weight1[i]).permute(0, 2, 3, 1)
        hidden = F.relu(self.norm1.fit(i, hidden)).permute(0, 3, 1, 2)
        self.norm2.fit(i, F.conv2d(hidden, self.weight2[i]).permute(0, 2, 3, 1))

    @staticmethod
    def net(kept: Tensor, *folded: Tensor) -> Tensor:
        """(n, h, w, half) to (n, h, w, after), computed in the format of the weights, returned in that of kept."""
        weight1, bias1, weight2, bias2, weight3, added = folded
        hidden = F.relu(F.conv2d(_with_edges(kept.to(weight1.dtype)), weight1, bias1), inplace=True)
        hidden = F.relu(F.conv2d(hidden, weight2, bias2), inplace=True)
        return F.conv2d(hidden, weight3, padding=1).permute(0, 2, 3, 1).to(kept.dtype) + added


class Level(nn.Module):
    """`depth` steps of flow at one resolution, and the prior of the half that leaves after them.

    last: no half leaves; the prior is that of what remains, and it knows nothing but the position.
    """

    def __init__(
        self, depth: int, channels: int, width: int, *, affine: bool, lu: bool, recompute: bool, last: bool
    ) -> None:
        super().__init__()
        self.norm = ActNorm(depth, channels)
        self.mixing = InvertibleConv(depth, channels, lu=lu)
        self.coupling = Coupling(depth, channels, width, affine=affine)
        # The prior of the last level is the same layer on an input of zeros: only its bias and edges count.
        self.prior = ZeroConv(1, 2 * channels, 2 * channels) if last else ZeroConv(1, channels // 2, channels)
        self.depth, self.affine, self.recompute, self.last = depth, affine, recompute, last

    def linear(self) -> tuple[Tensor, Tensor]:
        """Norm and mixing in one: W diag(scale), (depth, channels, channels), and W diag(scale) bias."""
        matrices = self.mixing.matrices() * self.norm.scale()[:, None, :]
        return matrices, (matrices @ self.norm.bias[:, :, None])[:, :, 0]

    def steps(self, z: Tensor, dtype: torch.dtype) -> list[tuple[Tensor, ...]]:
        """What `_step` takes beside z (n, h, w, channels), for each step."""
        matrices, offsets = self.linear()
        return [(m, o, *f) for m, o, f in zip(matrices, offsets, self.coupling.folded(z, dtype))]

    def forward(self, z: Tensor, dtype: torch.dtype) -> tuple[Tensor, list[Tensor]]:
        """z (n, h, w, channels) to the same shape, and the raw scales r of affine couplings, (n, h, w, channels / 2)."""
        raw = []
        for weights in self.steps(z, dtype):
            if self.recompute and torch.is_grad_enabled():
                z, r = checkpoint(self._step, z, *weights, use_reentrant=False)
            else:
                z, r = self._step(z, *weights)
            raw.append(r)
        return z, raw if self.affine else []

    def _step(self, z: Tensor, matrix: Tensor, offset: Tensor, *net: Tensor) -> tuple[Tensor, Tensor]:
        kept, moved = F.linear(z, matrix, offset).chunk(2, 3)
        h = Coupling.net(kept, *net)
        if not self.affine:
            return torch.cat([kept, moved + h], 3), h
        raw = h[..., 1::2] + 2
        return torch.cat([kept, (moved + h[..., 0::2]) * raw.sigmoid()], 3), raw

    def log_det(self, raw: list[Tensor], positions: int) -> Tensor:
        """Of all steps: (n,), or a scalar where the couplings are additive."""
        fixed = positions * (self.norm.log_det() + self.mixing.log_det())
        if not raw:
            return fixed
        return F.logsigmoid(torch.stack(raw, 1)).sum((1, 2, 3, 4)) + fixed

    def invert(self, z: Tensor) -> Tensor:
        """The inverse of `forward`."""
        matrices, offsets = self.linear()
        inverses = torch.linalg.inv(matrices.double()).to(z.dtype)
        nets = self.coupling.folded(z, z.dtype)
        for inverse, offset, net in reversed(list(zip(inverses, offsets, nets))):
            kept, moved = z.chunk(2, 3)
            h = Coupling.net(kept, *net)
            moved = moved / (h[..., 1::2] + 2).sigmoid() - h[..., 0::2] if self.affine else moved - h
            z = F.linear(torch.cat([kept, moved], 3) - offset, inverse)
        return z

    def prior_at(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log of the deviation of what leaves here, given what stays: z (n, h, w, channels of it) each."""
        if self.last:
            mean, log_std = self.prior.folded(*z.shape[1:3])[1].chunk(2, 3)
            return mean, log_std
        h = self.prior(z)
        return h[..., 0::2], h[..., 1::2]

    @torch.no_grad()
    def fit(self, z: Tensor) -> Tensor:
        """Set all norms, one after the other, from a batch that arrives here; returns what comes out."""
        for i in range(self.depth):
            self.norm.fit(i, z)
            matrices, offsets = self.linear()
            self.coupling.fit(i, F.linear(z, matrices[i], offsets[i]).chunk(2, 3)[0])
            z, _ = self._step(z, *self.steps(z, z.dtype)[i])
        return z


class Flow(nn.Module):
    """Images (n, size, size, channels) to latents (n, size * size * channels), N(0, I) under the model, and back.

    levels: each halves the resolution; size is a multiple of 2^levels. depth: steps per level. width: of the hidden
    layers of the couplings. recompute: keep no activations inside steps for the backward pass.
    """

    def __init__(
        self,
        channels: int,
        size: int,
        *,
        levels: int,
        depth: int,
        width: int,
        affine: bool = True,
        lu: bool = False,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        self.levels: Any = nn.ModuleList()
        self.shapes: list[tuple[int, int, int]] = []  # of the latents that leave at each level
        for i in range(levels):
            c, side, last = channels * 4 * 2**i, size // 2 ** (i + 1), i == levels - 1
            self.levels.append(Level(depth, c, width, affine=affine, lu=lu, recompute=recompute, last=last))
            self.shapes.append((side, side, c if last else c // 2))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Latents (n, d) and the log-determinant of the map at x, (n,): log p(x) = log N(latents; 0, I) + it."""
        kind = x.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        with torch.autocast(kind, enabled=False):
            return self._run(x, dtype)[:2]

    def invert(self, latents: Tensor) -> Tensor:
        """(n, d) latents to x (n, size, size, channels), in their format whatever autocast says."""
        with torch.autocast(latents.device.type, enabled=False):
            return self._back(latents)

    def _run(self, x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Latents, log-determinant, and the raw scales of all couplings."""
        z, log_det = x, x.new_zeros(len(x))
        latents, raws = [], []
        for level in self.levels:
            z, raw = level(squeeze(z), dtype)
            log_det = log_det + level.log_det(raw, z.shape[1] * z.shape[2])
            raws += raw
            z, leaving = (z, z) if level.last else z.chunk(2, 3)
            mean, log_std = level.prior_at(z)
            latents.append(((leaving - mean) * torch.exp(-log_std)).flatten(1))
            log_det = log_det - log_std.expand_as(leaving).sum((1, 2, 3))
        return torch.cat(latents, 1), log_det, raws

    def _back(self, latents: Tensor) -> Tensor:
        sizes = [math.prod(s) for s in self.shapes]
        parts = [p.view(-1, *s) for p, s in zip(latents.split(sizes, 1), self.shapes)]
        z = parts[-1]
        for level, part in zip(reversed(self.levels), reversed(parts)):
            mean, log_std = level.prior_at(z)
            leaving = mean + part * log_std.exp()
            z = unsqueeze(level.invert(leaving if level.last else torch.cat([z, leaving], 3)))
        return z

    @torch.no_grad()
    def fit(self, x: Tensor) -> None:
        """Set every activation norm from a batch of images, level after level (section 3.1)."""
        z = x
        for level in self.levels:
            z = level.fit(squeeze(z))
            z = z if level.last else z.chunk(2, 3)[0]

    @torch.no_grad()
    def health(self, x: Tensor) -> dict[str, Tensor]:
        """How safely x (n, size, size, channels) is inverted, as scalars, computed in the format of x.

        inverse_error: largest |x - invert(forward(x))|. smallest_singular: value of all mixings. smallest_scale: of all
        affine couplings at x.
        """
        with torch.autocast(x.device.type, enabled=False):
            latents, _, raws = self._run(x, x.dtype)
            error = (self._back(latents) - x).abs().max()
            singular = [torch.linalg.svdvals(level.mixing.matrices()).min() for level in self.levels]
        found = {"inverse_error": error.nan_to_num(nan=torch.inf).clamp(max=1e6)}
        found["smallest_singular"] = torch.stack(singular).min()
        return found | ({"smallest_scale": torch.stack([r.min() for r in raws]).min().sigmoid()} if raws else {})


def _edges(h: int, w: int, like: Tensor) -> Tensor:
    """(1, 1, h + 2, w + 2): 1 on the padding, 0 inside."""
    return F.pad(like.new_zeros(1, 1, h, w), (1, 1, 1, 1), value=1.0)


def _with_edges(x: Tensor) -> Tensor:
    """(n, h, w, c) to (n, c + 1, h + 2, w + 2), channels last in memory: padded, and the padding marked."""
    n, h, w, _ = x.shape
    marks = _edges(h, w, x).view(1, h + 2, w + 2, 1).expand(n, -1, -1, -1)
    return torch.cat([F.pad(x, (0, 0, 1, 1, 1, 1)), marks], 3).permute(0, 3, 1, 2)
