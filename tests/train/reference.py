"""Training written plainly in PyTorch over the exporter's modules, to compare with."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import torch
from featinv.export.modules import ControlNet, UNet
from safetensors.torch import load_file

UNET, CONTROL = "model.diffusion_model.", "control_model."


def alphas(count: int = 1000) -> np.ndarray:
    """Products of 1 - beta, beta linear in its root from .00085 to .012."""
    beta = np.linspace(0.00085**0.5, 0.012**0.5, count) ** 2
    return np.cumprod(1 - beta)


class Loop:
    """The networks of a bundle and torch.optim.AdamW over what a mode trains."""

    def __init__(self, bundle: Path, mode: str = "locked", *, base: Path | None = None,
                 rate: float = 1e-5, epsilon: float = 1e-8, min_snr: float = 0.0,
                 clip: float = 0.0, average: float = 0.0) -> None:
        manifest = json.loads((bundle / "manifest.json").read_text())
        diffusion, made = manifest["diffusion"], manifest["provenance"]["architecture"]
        trunk = {k: v for k, v in made["unet"].items() if k != "out_channels"}
        weights = {}
        for name in ("unet", "control", "hint"):
            folder = base if base and name == "unet" else bundle
            weights |= {k: v.float() for k, v in load_file(folder / f"{name}.safetensors").items()}
        self.unet = UNet(**made["unet"])
        self.control = ControlNet(made["hint"]["channels"], tuple(diffusion["latent"][1:]),
                                  made["hint"]["hidden"], made["hint"]["hint"], **trunk)
        for module, prefix in ((self.unet, UNET), (self.control, CONTROL)):
            module.load_state_dict({k.removeprefix(prefix): v for k, v in weights.items()
                                    if k.startswith(prefix)})
        self.v = diffusion["prediction"] == "v"
        self.trained = {CONTROL + k: p for k, p in self.control.named_parameters()}
        for key, p in self.unet.named_parameters():
            decoder = key.startswith(("output_blocks.", "out."))
            p.requires_grad_(mode == "joint" or (mode == "unlocked" and decoder))
            if p.requires_grad:
                self.trained[UNET + key] = p
        self.start = {k: p.detach().clone() for k, p in self.trained.items()}
        self.averages = {k: v.clone() for k, v in self.start.items()}
        self.optimiser = torch.optim.AdamW(self.trained.values(), lr=rate, eps=epsilon)
        self.min_snr, self.clip, self.average, self.steps = min_snr, clip, average, 0

    def losses(self, latents, maps, context, timesteps, noise) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean squared error of each sample, and its weight; context (n, L, D)."""
        a = torch.tensor(alphas()[timesteps])
        z, e = torch.tensor(latents), torch.tensor(noise)
        signal, sigma = (r.float()[:, None, None, None] for r in (a.sqrt(), (1 - a).sqrt()))
        x, t, c = signal * z + sigma * e, torch.tensor(timesteps), torch.tensor(context)
        said = self.unet(x, t.float(), c, self.control(x, t.float(), c, torch.tensor(maps)))
        wanted = signal * e - sigma * z if self.v else e
        snr = a / (1 - a)
        weight = torch.ones_like(snr)
        if self.min_snr:
            weight = snr.clamp(max=self.min_snr) / (snr + 1 if self.v else snr)
        return (said - wanted).square().mean((1, 2, 3)), weight

    def step(self, **batch) -> tuple[float, float]:
        """One update: loss, and the gradient's norm before clipping."""
        self.optimiser.zero_grad()
        losses, weight = self.losses(**batch)
        loss = (losses * weight.float()).mean()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.trained.values(), self.clip or math.inf)
        self.optimiser.step()
        if self.average:
            keep = min(self.average, (self.steps + 1) / (self.steps + 10))
            with torch.no_grad():
                for key, value in self.trained.items():
                    self.averages[key].lerp_(value, 1 - keep)
        self.steps += 1
        return loss.item(), norm.item()

    def gradients(self) -> dict[str, np.ndarray]:
        return {key: p.grad.numpy() for key, p in self.trained.items()}
