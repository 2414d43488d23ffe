"""Training of the diffusion base, and sampling in PyTorch to look at it and at ControlNets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from backbones import ARITY
from data import CODES, VALUES
from loop import Draw, Plan, fit
from nets import CONTEXT, ControlNet, UNet, base
from scenes import CLASSES, GROUNDS
from torch import Tensor, nn

TIMESTEPS, BETA_START, BETA_END = 1000, 0.00085, 0.012

# A prompt: one token for each slot, from integer and real factors of the scene. Slot 0 is the same
# in every prompt but the empty one.
SLOTS: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    ((), ()),
    (("object",), ()),
    (("ground",), ()),
    (("sky",), ("level",)),
    (("colour",), ("r", "g", "b")),
    (("second",), ("r2", "g2", "b2")),
    (("light", "facing"), ("tilt", "shape")),
    ((), ("x", "y", "size")),
    (("hills",), ("horizon",)),
    (("sun", "clouds"), ("sun_x", "sun_y")),
    (("small1", "small1_colour", "small1_side"), ("small1_x", "small1_y")),
    (("small2", "small2_colour", "small2_side"), ("small2_x", "small2_y")),
)
assert len(SLOTS) == CONTEXT[0]


class Prompts(nn.Module):
    """Factors to contexts (N, L, D): the base's text encoder, trained with it, used only here.

    What a bundle keeps of it are the contexts `default` (every slot unsaid), `empty`, and
    `class:NAME` (object and ground said).
    """

    def __init__(self) -> None:
        super().__init__()
        length, width = CONTEXT
        self.unsaid = nn.Parameter(torch.randn(length, width))
        self.empty = nn.Parameter(torch.randn(length, width))
        names = sorted({c for codes, _ in SLOTS for c in codes})
        self.codes = nn.ModuleDict({c: nn.Embedding(ARITY[c], width) for c in names})
        self.values = nn.ModuleList(nn.Linear(max(len(v), 1), width) for _, v in SLOTS)

    def said(self, codes: Tensor, values: Tensor) -> Tensor:
        """All slots said: codes (N, len(CODES)) int64, values (N, len(VALUES)) to (N, L, D)."""
        tokens = []
        for k, (integers, reals) in enumerate(SLOTS):
            token = self.unsaid[k].expand(len(codes), -1)
            if integers or reals:
                token = 0.5 * token
            for name in integers:
                token = token + self.codes[name](codes[:, CODES.index(name)])
            if reals:
                picked = values[:, [VALUES.index(v) for v in reals]]
                token = token + self.values[k](4 * picked - 2)
            tokens.append(token)
        return torch.stack(tokens, 1)

    def forward(self, codes: Tensor, values: Tensor, keep: Tensor, blank: Tensor) -> Tensor:
        """keep (N, L) bool: slots that are said; blank (N,) bool: the empty prompt instead."""
        tokens = torch.where(keep[..., None], self.said(codes, values), self.unsaid)
        return torch.where(blank[:, None, None], self.empty, tokens)

    @torch.no_grad()
    def contexts(self) -> dict[str, np.ndarray]:
        """What contexts.npz holds."""
        out = {"default": self.unsaid, "empty": self.empty}
        for i, name in enumerate(CLASSES):
            codes = torch.zeros(1, len(CODES), dtype=torch.int64)
            codes[0, CODES.index("object")] = i // len(GROUNDS)
            codes[0, CODES.index("ground")] = i % len(GROUNDS)
            said = self.said(codes, torch.zeros(1, len(VALUES)))[0]
            out[f"class:{name}"] = torch.cat([self.unsaid[:1], said[1:3], self.unsaid[3:]])
        return {k: v.detach().float().numpy().copy() for k, v in out.items()}


def choose_slots(n: int, g: torch.Generator) -> tuple[Tensor, Tensor]:
    """Which slots are said: nothing (30 %), class only (15 %), else each slot mostly; 8 % empty."""
    u = torch.rand(n, generator=g)
    keep = torch.rand(n, CONTEXT[0], generator=g) > torch.where(u < 0.75, 0.15, 0.6)[:, None]
    keep[u > 0.55] = False
    only = torch.zeros(CONTEXT[0], dtype=torch.bool)
    only[1:3] = True
    keep[(u > 0.55) & (u < 0.70)] = only
    return keep, torch.rand(n, generator=g) < 0.08


def alphas_bar() -> Tensor:
    """Cumulated alphas (1000,) of the scaled-linear schedule, float64 sums."""
    betas = torch.linspace(BETA_START**0.5, BETA_END**0.5, TIMESTEPS, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, 0).float()


ALPHAS = alphas_bar()


def noised(z: Tensor, g: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Latents to x_t, t and the v target; t stratified over the batch."""
    n = len(z)
    u = (torch.randperm(n, generator=g) + torch.rand(n, generator=g)) / n
    t = (u * TIMESTEPS).long().clamp(max=TIMESTEPS - 1)
    a = ALPHAS[t].view(-1, 1, 1, 1)
    noise = torch.randn(z.shape, generator=g)
    return a.sqrt() * z + (1 - a).sqrt() * noise, t, a.sqrt() * noise - (1 - a).sqrt() * z


@dataclass
class Latents:
    """What the generator is trained on: scaled latents (N,c,16,16), factors, and maps."""

    z: Tensor
    codes: Tensor
    values: Tensor
    maps: Tensor | None = None  # (N,C,8,8), float16

    def __len__(self) -> int:
        return len(self.z)


class Prompted(nn.Module):
    """The base with its prompt encoder."""

    def __init__(self) -> None:
        super().__init__()
        self.unet, self.prompts = base(), Prompts()


def fixed_draws(seed: int) -> torch.Generator:
    """A generator for validation: always the same times and noise."""
    return torch.Generator().manual_seed(seed)


def train_base(train: Latents, valid: Latents, folder: Path, plan: Plan,
               compiled: bool = True) -> Prompted:
    """Train UNet and prompts on v."""
    torch.manual_seed(plan.seed)
    model = Prompted()
    model.unet.to(memory_format=torch.channels_last)
    run: Callable[..., Tensor] = torch.compile(model.unet) if compiled else model.unet

    def loss_of(draw: Draw) -> tuple[Tensor, dict[str, float]]:
        rows, g = draw.rows, draw.generator
        x, t, v = noised(train.z[rows], g)
        context = model.prompts(train.codes[rows], train.values[rows], *choose_slots(len(rows), g))
        out = run(x.contiguous(memory_format=torch.channels_last), t, context)
        return F.mse_loss(out, v), {}

    def check(best: nn.Module) -> dict[str, float]:
        g = fixed_draws(5)
        x, t, v = noised(valid.z[:512], g)
        none = torch.zeros(512, CONTEXT[0], dtype=torch.bool)
        out = {}
        for name, keep in (("rich", ~none), ("default", none)):
            context = best.prompts(valid.codes[:512], valid.values[:512], keep, none[:, 0])
            out[name] = round(float(F.mse_loss(best.unet(x, t, context), v)), 5)
        return out

    return fit(plan, model, loss_of, len(train), folder, check, check_every=500)


@torch.no_grad()
def loss_of_maps(unet: UNet, net: ControlNet, z: Tensor, maps: Tensor, context: Tensor,
                 seed: int = 6, batch: int = 128) -> float:
    """v loss over scaled latents with given maps; times (uniform) and noise come from the seed."""
    x, t, v = noised(z, fixed_draws(seed))
    prompt = context.expand(len(z), -1, -1)
    total = 0.0
    for i in range(0, len(z), batch):
        s = slice(i, i + batch)
        out = unet(x[s], t[s], prompt[s], net(x[s], t[s], prompt[s], maps[s].float()))
        total += float((out - v[s]).pow(2).mean((1, 2, 3)).sum())
    return total / len(z)


@torch.no_grad()
def sample(unet: UNet, net: ControlNet | None, maps: Tensor | None, context: Tensor,
           empty: Tensor, shape: tuple[int, ...], steps: int = 25, scale: float = 1.75,
           hint_scale: float = 1.0, seed: int = 100) -> Tensor:
    """Deterministic DDIM as in docs/numerics.md: scaled latents (N,c,h,w).

    One noise for all images, as the library does (its generator differs).
    """
    n = shape[0]
    x = torch.randn((1, *shape[1:]), generator=torch.Generator().manual_seed(seed)).expand(shape)
    x = x.contiguous(memory_format=torch.channels_last)
    times = [1 + TIMESTEPS * i // steps for i in range(steps)]
    branches = [empty.expand(n, -1, -1), context.expand(n, -1, -1)]
    hints = [] if net is None else [net.hint(maps.float())] * 2
    if net is not None and hint_scale != 1:
        branches.append(empty.expand(n, -1, -1))
        hints.append(net.hint(torch.zeros_like(maps, dtype=torch.float32)))
    prompts, hint = torch.cat(branches), torch.cat(hints) if hints else None
    for i in reversed(range(steps)):
        a = ALPHAS[times[i]]
        a_prev = ALPHAS[times[i - 1]] if i else ALPHAS[0]
        t = torch.full((len(prompts),), times[i])
        copies = x.repeat(len(branches), 1, 1, 1)
        residuals = [] if net is None else net.step(copies, net.time(t), net.context(prompts), hint)
        parts = unet(copies, t, prompts, residuals).chunk(len(branches))
        v = parts[0] + scale * (parts[1] - parts[0])
        if len(parts) == 3:
            v = v + (hint_scale - 1) * (parts[0] - parts[2])
        x0 = a.sqrt() * x - (1 - a).sqrt() * v
        noise = a.sqrt() * v + (1 - a).sqrt() * x
        x = a_prev.sqrt() * x0 + (1 - a_prev).sqrt() * noise
    return x
