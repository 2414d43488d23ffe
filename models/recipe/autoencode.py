"""Training of the autoencoder, and the latents of a set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from data import Scenes
from loop import Draw, Plan, fit
from nets import AutoencoderKL, autoencoder, signed, to_bytes
from torch import Tensor, nn


def gradients(x: Tensor) -> tuple[Tensor, Tensor]:
    """Differences of neighbouring pixels, (..., H, W-1) and (..., H-1, W)."""
    return x[..., 1:] - x[..., :-1], x[..., 1:, :] - x[..., :-1, :]


def gradient_magnitude(images: Tensor) -> Tensor:
    """Mean length of the luminance gradient per image; uint8 (N,H,W,3) to (N,)."""
    grey = images.float() @ torch.tensor([0.299, 0.587, 0.114])
    dx = grey[:, :-1, 1:] - grey[:, :-1, :-1]
    dy = grey[:, 1:, :-1] - grey[:, :-1, :-1]
    return torch.hypot(dx, dy).mean((1, 2))


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Per image, uint8 (N,H,W,3), in dB."""
    error = (a.float() - b.float()).pow(2).mean((1, 2, 3)).clamp(min=1e-3)
    return 10 * torch.log10(255**2 / error)


def reconstruction_loss(y: Tensor, x: Tensor) -> Tensor:
    """Absolute and squared error, and absolute error of gradients at two scales."""
    loss = F.l1_loss(y, x) + 2.0 * F.mse_loss(y, x)
    for scale in (1, 2):
        a, b = (y, x) if scale == 1 else (F.avg_pool2d(y, 2), F.avg_pool2d(x, 2))
        for ga, gb in zip(gradients(a), gradients(b)):
            loss = loss + 0.5 * F.l1_loss(ga, gb)
    return loss


@torch.no_grad()
def round_trip(model: AutoencoderKL, images: np.ndarray, batch: int = 100) -> Tensor:
    """uint8 (N,64,64,3) through the posterior mean and back."""
    out = [to_bytes(model(signed(torch.from_numpy(images[i : i + batch]))))
           for i in range(0, len(images), batch)]
    return torch.cat(out)


def train_autoencoder(train: Scenes, valid: Scenes, folder: Path, plan: Plan,
                      compiled: bool = True, whole: AutoencoderKL | None = None) -> AutoencoderKL:
    """Train it; the weight on KL is small, the posterior's noise keeps the latent smooth.

    With `whole`, an autoencoder trained before, its encoder is frozen and the decoder goes on.
    """
    torch.manual_seed(plan.seed)
    model = autoencoder() if whole is None else whole
    model = model.to(memory_format=torch.channels_last)
    if whole is None:
        with torch.no_grad():  # the posterior starts narrow
            model.quant_conv.bias[model.embed_dim :] -= 4.0
    else:
        model.requires_grad_(True)
        model.encoder.requires_grad_(False)
        model.quant_conv.requires_grad_(False)
    reference = torch.from_numpy(valid.images[:300])

    def forward(x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, logvar = model.encode(x)
        z = mean + noise * torch.exp(0.5 * logvar)
        return model.decode(z), mean, logvar

    run = torch.compile(forward) if compiled else forward

    def loss_of(draw: Draw) -> tuple[Tensor, dict[str, float]]:
        x = signed(torch.from_numpy(train.images[draw.rows.numpy()]))
        noise = torch.randn(len(x), model.embed_dim, 16, 16, generator=draw.generator)
        y, mean, logvar = run(x, noise)
        kl = 0.5 * (mean.pow(2) + logvar.exp() - 1 - logvar).mean()
        rec = reconstruction_loss(y, x)
        return rec + 1e-4 * kl, {"rec": float(rec.detach()), "kl": float(kl.detach()),
                                 "mse_db": float(-10 * torch.log10(F.mse_loss(y, x).detach() / 4))}

    def check(best: nn.Module) -> dict[str, float]:
        back = round_trip(best, valid.images[:300])
        ratio = gradient_magnitude(back).mean() / gradient_magnitude(reference).mean()
        return {"psnr": round(float(psnr(back, reference).mean()), 3),
                "gradient_ratio": round(float(ratio), 4)}

    best = fit(plan, model, loss_of, len(train), folder, check, check_every=500, save_every=200)
    return best


@torch.no_grad()
def latents_of(model: AutoencoderKL, images: np.ndarray, batch: int = 100) -> Tensor:
    """uint8 (N,64,64,3) to posterior means (N,c,16,16), unscaled."""
    return torch.cat([model.encode(signed(torch.from_numpy(images[i : i + batch])))[0].contiguous()
                      for i in range(0, len(images), batch)])


@torch.no_grad()
def standardise_by(model: AutoencoderKL, mean: Tensor) -> None:
    """Move each latent channel's mean (c,) to zero, inside the two 1x1 convolutions.

    Decoding what is encoded is unchanged; the diffusion sees latents without an offset.
    """
    model.quant_conv.bias[: model.embed_dim] -= mean
    model.post_quant_conv.bias += model.post_quant_conv.weight[:, :, 0, 0] @ mean
