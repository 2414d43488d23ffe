"""Hint encoders: from a feature map to something that is added inside the ControlNet.

Maps come as (N, C, h, w) whatever the layout of the backbone's layer.
"""

import math
from typing import Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import bilinear, zeroed


class Resize(nn.Module):
    """Bilinear to a fixed grid, half-pixel centres, no antialiasing."""

    __constants__ = ["height", "width"]

    def __init__(self, grid: Tuple[int, int]) -> None:
        super().__init__()
        self.height, self.width = grid

    def forward(self, x: Tensor) -> Tensor:
        return bilinear(x, self.height, self.width)


class ConvHint(nn.Module):
    """Resize to the latent grid, then three 3×3 convolutions (the published encoder)."""

    def __init__(
        self, channels: int, width: int, grid: Tuple[int, int], hidden: int = 512
    ) -> None:
        """`channels` of the map, `width` of the ControlNet's first block, `grid` of the latent."""
        super().__init__()
        self.channels = channels
        self.config = {"hint": "conv", "channels": channels, "hidden": hidden}
        self.block = nn.Sequential(
            Resize(grid),
            nn.Conv2d(channels, hidden, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(hidden, hidden, 3, padding=1),
            nn.SiLU(),
            zeroed(nn.Conv2d(hidden, width, 3, padding=1)),
        )

    def forward(self, hint_map: Tensor) -> Tensor:
        """(N, C, h, w) → (N, width, lh, lw)"""
        return self.block(hint_map)


def position_code(height: int, width: int, channels: int, like: Tensor) -> Tensor:
    """Sinusoids of the position in [0, 1]²: (height·width, channels), a quarter of the channels
    each for sine and cosine of y and of x; on the device and in the dtype of `like`."""
    quarter = channels // 4
    octaves = torch.arange(quarter, dtype=torch.float32, device=like.device) / max(quarter - 1, 1)
    frequencies = math.pi * torch.exp(octaves * math.log(64.0))
    ys = torch.arange(height, dtype=torch.float32, device=like.device)
    xs = torch.arange(width, dtype=torch.float32, device=like.device)
    y = ((ys + 0.5) / height)[:, None] * frequencies[None]
    x = ((xs + 0.5) / width)[:, None] * frequencies[None]
    rows = torch.cat([torch.sin(y), torch.cos(y)], dim=1)[:, None]
    columns = torch.cat([torch.sin(x), torch.cos(x)], dim=1)[None]
    half = 2 * quarter
    grid = torch.cat(
        [rows.expand(height, width, half), columns.expand(height, width, half)], dim=2
    )
    return grid.flatten(0, 1).to(like.dtype)


class PerceiverHint(nn.Module):
    """One learned query per latent position attends to all positions of the map.

    The paper's ablation of the convolutional encoder: nothing ties a position of the map to the
    same position of the latent but what training finds.
    """

    __constants__ = ["heads", "hidden", "height", "width"]

    def __init__(
        self,
        channels: int,
        width: int,
        grid: Tuple[int, int],
        hidden: int = 512,
        heads: int = 8,
    ) -> None:
        super().__init__()
        if hidden % (4 * heads):
            raise ValueError(f"hint hidden width {hidden} is not a multiple of {4 * heads}")
        self.channels = channels
        self.config = {"hint": "perceiver", "channels": channels, "hidden": hidden}
        self.height, self.width = grid
        self.heads = heads
        self.hidden = hidden
        self.queries = nn.Parameter(torch.randn(self.height * self.width, hidden) * 0.02)
        self.norm_map = nn.LayerNorm(channels)
        self.proj_map = nn.Linear(channels, hidden)
        self.norm_query = nn.LayerNorm(hidden)
        self.to_q = nn.Linear(hidden, hidden, bias=False)
        self.to_k = nn.Linear(hidden, hidden, bias=False)
        self.to_v = nn.Linear(hidden, hidden, bias=False)
        self.to_out = nn.Linear(hidden, hidden)
        self.norm_ff = nn.LayerNorm(hidden)
        self.ff = nn.Sequential(
            nn.Linear(hidden, 4 * hidden), nn.GELU(), nn.Linear(4 * hidden, hidden)
        )
        self.out = zeroed(nn.Conv2d(hidden, width, 3, padding=1))

    def forward(self, hint_map: Tensor) -> Tensor:
        """(N, C, h, w) → (N, width, lh, lw)"""
        n, _, h, w = hint_map.shape
        tokens = self.proj_map(self.norm_map(hint_map.flatten(2).transpose(1, 2)))
        tokens = tokens + position_code(h, w, self.hidden, tokens)
        x = self.queries + position_code(self.height, self.width, self.hidden, self.queries)
        q = self.to_q(self.norm_query(x)).expand(n, -1, -1)
        q = q.unflatten(-1, [self.heads, -1]).transpose(1, 2)
        k = self.to_k(tokens).unflatten(-1, [self.heads, -1]).transpose(1, 2)
        v = self.to_v(tokens).unflatten(-1, [self.heads, -1]).transpose(1, 2)
        read = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + self.to_out(read)
        x = x + self.ff(self.norm_ff(x))
        return self.out(x.transpose(1, 2).unflatten(2, [self.height, self.width]))
