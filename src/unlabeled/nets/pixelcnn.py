"""Gated PixelCNN: each place of a grid is predicted from those above it and to its left, all at once in training."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["GatedPixelCNN"]


def _gate(x: Tensor) -> Tensor:
    a, b = x.chunk(2, 1)
    return a.tanh() * b.sigmoid()


class GatedLayer(nn.Module):
    """One layer of both stacks (van den Oord et al., NeurIPS 2016, figure 2).

    Kernels are cropped to what their masks would leave, so none is multiplied for nothing: the vertical stack has
    kernel // 2 + 1 rows of the n x n kernel, the horizontal one as many columns of its row.

    first: the present place is what is to be predicted; both stacks leave it out (mask A) and there is no residual.
    """

    def __init__(self, width: int, kernel: int, *, first: bool) -> None:
        super().__init__()
        self.first, self.side, reach = first, kernel // 2, kernel // 2 + (not first)
        self.vertical = nn.Conv2d(width, 2 * width, (reach, kernel))
        self.horizontal = nn.Conv2d(width, 2 * width, (1, reach))
        self.across = nn.Conv2d(2 * width, 2 * width, 1, bias=False)
        self.out = nn.Conv2d(width, width, 1)

    def forward(self, v: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """Both stacks (n, width, rows, columns) to the next layer's."""
        rows, columns, side = v.shape[2], v.shape[3], self.side
        # Without the last row or column, the first layer's kernel ends just before the present place.
        above = self.vertical(F.pad(v, (side, side, side, 0))[:, :, : rows + side - self.first])
        left = self.horizontal(F.pad(h, (side, 0, 0, 0))[..., : columns + side - self.first])
        return _gate(above), self.join(self.across(above), left, h)

    def join(self, above: Tensor, left: Tensor, h: Tensor) -> Tensor:
        """The horizontal stack's output from what comes from above, from the left, and its own input."""
        out = self.out(_gate(left + above))
        return out if self.first else h + out


class GatedPixelCNN(nn.Module):
    """p(grid) = prod over places in raster order of p(place | those before it), each a softmax over `values`.

    kernel: of all layers, odd. first_kernel: of the first one. hidden: width of the layer before the logits.
    """

    def __init__(
        self, values: int, *, width: int, layers: int, kernel: int = 3, first_kernel: int = 7, hidden: int = 0
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(values, width)
        kernels = [first_kernel] + [kernel] * (layers - 1)
        self.layers = nn.ModuleList(GatedLayer(width, k, first=i == 0) for i, k in enumerate(kernels))
        hidden = hidden or width
        self.head = nn.Sequential(nn.ReLU(), nn.Conv2d(width, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, values, 1))

    def forward(self, grid: Tensor) -> Tensor:
        """(n, rows, columns) int64 to logits (n, values, rows, columns)."""
        v = h = self._embed(grid)
        for layer in self.layers:
            v, h = layer(v, h)
        return self.head(h)

    def _layers(self) -> Iterator[GatedLayer]:
        for layer in self.layers:
            assert isinstance(layer, GatedLayer)
            yield layer

    def _embed(self, grid: Tensor) -> Tensor:
        return self.embedding(grid).permute(0, 3, 1, 2)

    @torch.no_grad()
    def generate(self, n: int, rows: int, columns: int) -> tuple[Tensor, Tensor]:
        """Draw (n, rows, columns) int64 and the log-probability (n,) float64 of each draw, in nats.

        A row of the vertical stack is computed once all rows above are drawn, a place of the horizontal one once all
        places to its left are: together as many products as one forward of the whole grid.
        """
        where = self.embedding.weight.device
        grid = torch.zeros(n, rows, columns, dtype=torch.int64, device=where)
        nats = torch.zeros(n, dtype=torch.float64, device=where)
        width = self.embedding.embedding_dim
        # Inputs of each layer, with the padding: rows of the vertical stack, and the present row of the horizontal.
        layers = list(self._layers())
        down = [torch.zeros(n, width, rows + k.side, columns + 2 * k.side, device=where) for k in layers]
        for i in range(rows):
            across: list[Tensor] = []
            v: Tensor | None = None
            for layer, held in zip(layers, down):
                if v is not None:
                    held[:, :, i + layer.side, layer.side : layer.side + columns] = v[:, :, 0]
                above = layer.vertical(held[:, :, i : i + layer.side + (not layer.first)])
                across.append(layer.across(above))
                v = _gate(above)
            right = [torch.zeros(n, width, 1, columns + k.side, device=where) for k in layers]
            for j in range(columns):
                h = right[0][..., j : j + 1]  # not looked at by the first layer
                for layer, held, above in zip(layers, right, across):
                    if not layer.first:
                        held[..., j + layer.side] = h[..., 0]
                    left = layer.horizontal(held[..., j : j + layer.side + (not layer.first)])
                    h = layer.join(above[..., j : j + 1], left, h)
                logits = self.head(h)[:, :, 0, 0].float().log_softmax(1)
                drawn = torch.multinomial(logits.exp(), 1)
                nats += logits.gather(1, drawn)[:, 0].double()
                grid[:, i, j] = drawn[:, 0]
                right[0][..., 0, j + layers[0].side] = self.embedding(drawn[:, 0])
            side = layers[0].side
            down[0][:, :, i + side, side : side + columns] = right[0][:, :, 0, side:]
        return grid, nats
