"""A deterministic decoder from map to latent: only for comparison, not part of the bundle."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from loop import Draw, Plan, fit
from nets import LATENT, MAP
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

WEIGHTS = Path(__file__).with_name("direct.safetensors")


class Block(nn.Module):
    """Two 3x3 convolutions, as a residual."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.GroupNorm(8, channels), nn.SiLU(),
                                  nn.Conv2d(channels, channels, 3, padding=1),
                                  nn.GroupNorm(8, channels), nn.SiLU(),
                                  nn.Conv2d(channels, channels, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class Direct(nn.Sequential):
    """Map (N,96,8,8) to the scaled latent (N,4,16,16) that squared error finds best."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(MAP[0], 96, 3, padding=1), Block(96), Block(96),
                         nn.Conv2d(96, 256, 3, padding=1), nn.PixelShuffle(2), Block(64),
                         Block(64), nn.Conv2d(64, LATENT[0], 3, padding=1))


def direct_decoder() -> Direct:
    """The trained decoder that is kept beside the recipe."""
    model = Direct()
    model.load_state_dict({k: v.float() for k, v in load_file(WEIGHTS).items()})
    return model.eval().requires_grad_(False)


def train_direct(z: Tensor, maps: Tensor, valid: tuple[Tensor, Tensor], folder: Path,
                 plan: Plan) -> Direct:
    """Train it on squared error and write its weights in float16."""
    torch.manual_seed(plan.seed)
    model = Direct().to(memory_format=torch.channels_last)

    def loss_of(draw: Draw) -> tuple[Tensor, dict[str, float]]:
        return F.mse_loss(model(maps[draw.rows].float()), z[draw.rows]), {}

    def check(best: nn.Module) -> dict[str, float]:
        return {"mse": round(float(F.mse_loss(best(valid[1].float()), valid[0])), 5)}

    best = fit(plan, model, loss_of, len(z), folder, check, check_every=500)
    save_file({k: v.detach().half().contiguous() for k, v in best.state_dict().items()}, WEIGHTS)
    return best
