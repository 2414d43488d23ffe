#!/usr/bin/env python3
"""Write models/judge, and what models/scenes is trained from, from the checkpoints.

    python models/recipe/export.py [--folder build/recipe] [-o models] [--steps 20]
    python models/recipe/export.py --only features    # features.npz of the bundles that are there
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import nets
import torch
from autoencode import standardise_by
from backbones import maps_of
from data import TRAIN_COUNT, TRAIN_SEED, Scenes, cached_set
from diffusion import BETA_END, BETA_START, TIMESTEPS, Prompted
from scenes import CLASSES, LIGHTS, OBJECTS, SKIES
from train import PLANS, average_of, load_backbone

from featinv.export import (Defaults, Diffusion, FeatureStatistics, backbone,
                            feature_statistics, update_features, write_bundle)

JUDGE_CLASSES = tuple(f"{o}, light from the {side}, {s} sky"
                      for o in OBJECTS for side in LIGHTS for s in SKIES)


def load_autoencoder(folder: Path) -> tuple[torch.nn.Module, float]:
    """The autoencoder with zero-mean latents, and the latent scale."""
    stage = "decoder" if (folder / "decoder.pt").exists() else "autoencoder"
    model = average_of(nets.autoencoder(), folder, stage)
    kept = torch.load(folder / "prepared.pt", weights_only=True)
    standardise_by(model, kept["mean"])
    return model.to(memory_format=torch.contiguous_format), kept["scale"]


def history(folder: Path) -> dict[str, Any]:
    """Each stage's plan, minutes and last validation figures, from its log."""
    out = {}
    for stage in PLANS:
        log = folder / f"{stage}.jsonl"
        if not log.exists():
            continue
        records = [json.loads(line) for line in log.read_text().splitlines()]
        checks = [r["check"] for r in records if "check" in r]
        out[stage] = {"plan": next(r["plan"] for r in records if "plan" in r),
                      "steps": max((r["step"] for r in records if "step" in r), default=0),
                      "minutes": round(max(r["seconds"] for r in records) / 60, 1),
                      "validation": checks[-1] if checks else None}
    return out


def plain(module: torch.nn.Module) -> torch.nn.Module:
    """A module in evaluation mode with contiguous weights."""
    return module.eval().requires_grad_(False).to(memory_format=torch.contiguous_format)


def scenes_features(folder: Path) -> FeatureStatistics:
    """Statistics of the maps that the ControlNet was trained on."""
    kept = torch.load(folder / "maps.pt", weights_only=True)
    return feature_statistics(kept["train"], kept["mean"].numpy())


def judge_features(folder: Path, train: Scenes) -> FeatureStatistics:
    """Statistics of the judge's maps of the first 2,000 training scenes."""
    judge = plain(load_backbone(folder, "judge"))
    return feature_statistics(maps_of(judge, train.images[:2000])[0])


def main() -> None:
    """Export both."""
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--folder", type=Path, default=Path("build/recipe"))
    ap.add_argument("-o", "--out", type=Path, default=Path("models"))
    ap.add_argument("--scale", type=float, default=1.75, help="default guidance")
    ap.add_argument("--hint-scale", type=float, default=1.75, help="default guidance of the map")
    ap.add_argument("--steps", type=int, default=20, help="default number of steps")
    ap.add_argument("--only", choices=("features",), help="change no other file of the bundles")
    args = ap.parse_args()
    torch.set_num_threads(1)
    train = cached_set(args.folder, TRAIN_SEED, TRAIN_COUNT)
    if args.only:
        update_features(args.out / "scenes", scenes_features(args.folder))
        update_features(args.out / "judge", judge_features(args.folder, train))
        return
    provenance = {"recipe": "models/recipe", "training_seeds": [TRAIN_SEED, TRAIN_COUNT],
                  "stages": history(args.folder), "license": "Apache-2.0"}
    image = dict(input=64, mean=nets.MEAN, std=nets.STD)

    prompted = average_of(Prompted(), args.folder, "base")
    contexts = prompted.prompts.contexts()
    autoencoder, scale = load_autoencoder(args.folder)
    write_bundle(
        args.folder / "start" / "scenes", name="scenes",
        backbone=backbone(plain(load_backbone(args.folder, "classifier")), "layer4",
                          classes=CLASSES, name="resnet", **image),
        unet=plain(prompted.unet), control=plain(nets.control(prompted.unet)),
        autoencoder=autoencoder,
        diffusion=Diffusion(latent=nets.LATENT, image=(3, 64, 64), latent_scale=scale,
                            prediction="v", timesteps=TIMESTEPS, beta_start=BETA_START,
                            beta_end=BETA_END),
        defaults=Defaults(steps=args.steps, scale=args.scale, hint_scale=args.hint_scale),
        contexts=contexts,
        features=scenes_features(args.folder), dtype="fp16", force=True, provenance=provenance,
        report=print)
    if (args.folder / "judge.pt").exists():
        judge = plain(load_backbone(args.folder, "judge"))
        write_bundle(
            args.out / "judge", name="judge",
            backbone=backbone(judge, "stages", classes=JUDGE_CLASSES, name="convnext", **image),
            features=judge_features(args.folder, train), dtype="fp16", force=True,
            provenance=provenance, report=print)


if __name__ == "__main__":
    main()
