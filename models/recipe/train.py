#!/usr/bin/env python3
"""Train all networks but the ControlNets, stage by stage; a stage goes on where it was cut off.

    python models/recipe/train.py --stage all
    python models/recipe/train.py --stage autoencoder --threads 1
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import nets
import torch
from data import TRAIN_COUNT, TRAIN_SEED, VALID_COUNT, VALID_SEED, Scenes, cached_set
from diffusion import Latents, train_base
from loop import Plan, write_atomically

STAGES = ("data", "classifier", "autoencoder", "prepare", "decoder", "judge", "base", "direct",
          "convnext", "swin")
GENERATOR_COUNT = 30_000  # scenes that base and ControlNets see: the first of the training set
PLANS = {
    "classifier": Plan("classifier", steps=2000, batch=64, lr=2e-3, decay=0.05, ema=0.998),
    "judge": Plan("judge", steps=1500, batch=64, lr=1.5e-3, decay=0.05, ema=0.998, seed=2),
    # The classifier's task for two other families of backbones.
    "convnext": Plan("convnext", steps=1200, batch=64, lr=2e-3, decay=0.05, ema=0.998, seed=9),
    "swin": Plan("swin", steps=1200, batch=64, lr=1e-3, decay=0.05, ema=0.998, seed=10),
    # The encoder is frozen three quarters through the schedule, so that the base can start; the
    # decoder goes on alone.
    "autoencoder": Plan("autoencoder", steps=3200, batch=8, lr=2e-3, decay=0.0, ema=0.998, seed=3,
                        warmup=150, stop=2400),
    "decoder": Plan("decoder", steps=900, batch=8, lr=8e-4, decay=0.0, ema=0.995, seed=4,
                    warmup=20),
    "base": Plan("base", steps=5500, batch=32, lr=1.5e-3, ema=0.999, seed=5, warmup=200),
    "direct": Plan("direct", steps=900, batch=64, lr=1.5e-3, ema=0.995, seed=7, warmup=100),
}


def sets(folder: Path) -> tuple[Scenes, Scenes]:
    """Training and validation scenes."""
    return (cached_set(folder, TRAIN_SEED, TRAIN_COUNT),
            cached_set(folder, VALID_SEED, VALID_COUNT))


def average_of(model: torch.nn.Module, folder: Path, stage: str) -> torch.nn.Module:
    """A stage's averaged weights, from its checkpoint, whether it is finished or not; frozen."""
    model.load_state_dict(torch.load(folder / f"{stage}.pt", weights_only=True)["average"])
    return model.eval().requires_grad_(False)


def load_backbone(folder: Path, name: str) -> torch.nn.Module:
    """The classifier or the judge."""
    from backbones import Probe

    make = {"classifier": nets.classifier, "judge": lambda: nets.convnext(80),
            "convnext": nets.convnext, "swin": nets.swin}[name]
    return average_of(Probe(make(), nets.MAP[0]), folder, name).backbone


def prepare(train: Scenes, valid: Scenes, folder: Path) -> None:
    """Latents and maps of the scenes that the generator is trained on, kept in the folder."""
    from autoencode import latents_of
    from backbones import maps_of

    out = folder / "prepared.pt"
    if out.exists():
        return
    model = average_of(nets.autoencoder(), folder, "autoencoder").to(
        memory_format=torch.channels_last)
    train_z = latents_of(model, train.images[:GENERATOR_COUNT])
    mean = train_z.mean((0, 2, 3), keepdim=True)
    scale = 1 / (train_z - mean).std()
    valid_z = latents_of(model, valid.images)
    write_atomically(out, {"train": (train_z - mean) * scale, "valid": (valid_z - mean) * scale,
                           "mean": mean.flatten(), "scale": float(scale)})
    backbone = load_backbone(folder, "classifier").to(memory_format=torch.channels_last)
    maps, _ = maps_of(backbone, train.images[:GENERATOR_COUNT])
    valid_maps, _ = maps_of(backbone, valid.images)
    write_atomically(folder / "maps.pt", {"train": maps.half(), "valid": valid_maps.half(),
                                          "mean": maps.mean((0, 2, 3))})


def latents(folder: Path, train: Scenes, valid: Scenes, maps: bool) -> tuple[Latents, Latents]:
    """What prepare() kept, with the scenes' factors."""
    z = torch.load(folder / "prepared.pt", weights_only=True)
    m = torch.load(folder / "maps.pt", weights_only=True) if maps else {}
    return tuple(Latents(z[k], torch.from_numpy(s.codes[: len(z[k])].astype("int64")),
                         torch.from_numpy(s.values[: len(z[k])]), m.get(k))
                 for k, s in (("train", train), ("valid", valid)))


def run(stage: str, folder: Path) -> None:
    """Run one stage."""
    train, valid = sets(folder)
    if stage in ("classifier", "judge", "convnext", "swin"):
        from backbones import train_backbone

        train_backbone(stage, train, valid, folder, PLANS[stage])
    elif stage in ("autoencoder", "decoder"):
        from autoencode import train_autoencoder

        whole = None
        if stage == "decoder":
            whole = average_of(nets.autoencoder(), folder, "autoencoder")
        train_autoencoder(train, valid, folder, PLANS[stage], whole=whole)
    elif stage == "prepare":
        prepare(train, valid, folder)
    elif stage == "base":
        train_base(*latents(folder, train, valid, False), folder, PLANS["base"])
    elif stage == "direct":  # for comparison only
        from direct import train_direct

        t, v = latents(folder, train, valid, True)
        train_direct(t.z, t.maps, (v.z, v.maps), folder, PLANS["direct"])


def main() -> None:
    """Parse, then run the stages in order."""
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--stage", choices=("all", *STAGES), default="all")
    ap.add_argument("--folder", type=Path, default=Path("build/recipe"),
                    help="cache and checkpoints")
    ap.add_argument("--threads", type=int, default=1)
    args = ap.parse_args()
    torch.set_num_threads(args.threads)
    for stage in STAGES if args.stage == "all" else (args.stage,):
        run(stage, args.folder)


if __name__ == "__main__":
    main()
