#!/usr/bin/env python3
"""ControlNets, trained by `featinv train`: of models/scenes, other backbones and pooled maps.

    python models/recipe/inverses.py scenes           # from build/recipe/start/scenes of export.py
    python models/recipe/inverses.py [NAME...] [--threads 1] [--steps N]

Each is a start bundle (backbone, fresh ControlNet; `base` points at models/scenes) and a run of
`featinv train` on it: build/recipe/start/NAME, build/recipe/trained/NAME. All but `scenes` begin
with the trunk of models/scenes. A run that was cut off goes on at its last checkpoint; a finished one
stays. Those of whole maps with the usual hint encoder take their place in models/; `scenes`, which
all others refer to, is made only if it is asked for by name.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import nets
import torch
from backbones import maps_of
from data import TRAIN_COUNT, TRAIN_SEED, Scenes, cached_set
from export import history, plain
from PIL import Image
from scenes import CLASSES
from train import GENERATOR_COUNT, load_backbone

from featinv.export import Base, add_files, backbone, feature_statistics, write_bundle

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Inverse:
    """A ControlNet to train: for which backbone's maps, and how."""

    stage: str  # of train.py: the backbone
    layer: str
    pooled: bool = False
    hint: str = "conv"
    steps: int = 1500
    rate: float = 1e-3
    images: int = 12_000  # scenes: the first of those that the base was trained on


INVERSES = {
    "scenes": Inverse("classifier", "layer4", steps=14_000, rate=1.5e-3,
                      images=GENERATOR_COUNT),
    "resnet-pooled": Inverse("classifier", "layer4", pooled=True, steps=1000),
    "convnext": Inverse("convnext", "stages"),
    "convnext-pooled": Inverse("convnext", "stages", pooled=True, steps=1000),
    "convnext-perceiver": Inverse("convnext", "stages", hint="perceiver", steps=1000),
    "swin": Inverse("swin", "norm"),
    "swin-pooled": Inverse("swin", "norm", pooled=True, steps=1000),
}
SHIPPED = ("scenes", "convnext", "swin")  # in models/
BATCH, AVERAGE, WARMUP = 32, 0.998, 100


def write_images(scenes: Scenes, count: int, folder: Path) -> Path:
    """Scenes as the folder of pictures that a user would have."""
    if not (folder / "done").exists():
        folder.mkdir(parents=True, exist_ok=True)
        for i, pixels in enumerate(scenes.images[:count]):
            Image.fromarray(pixels).save(folder / f"{i:05}.png", compress_level=1)
        (folder / "done").touch()
    return folder


def install(trained: Path, place: Path) -> None:
    """Puts a bundle in another's place, whose concept sets stay if the backbone is the same."""
    kept = {}
    if (place / "manifest.json").is_file():
        files = [json.loads((b / "manifest.json").read_bytes())["files"] for b in (place, trained)]
        sets = [n for n in files[0] if n.startswith("concepts/")]
        if files[0]["backbone.safetensors"] == files[1]["backbone.safetensors"]:
            kept = {n: (place / n).read_bytes() for n in sets}
        print(f"{place}: {len(kept)} of {len(sets)} concept sets stay (models/recipe/concepts.py)")
        shutil.rmtree(place)
    shutil.copytree(trained, place)
    manifest = json.loads((place / "manifest.json").read_bytes())
    if "base" in manifest:
        base = (trained / manifest["base"]["path"]).resolve()
        manifest["base"]["path"] = os.path.relpath(base, place.resolve())
        text = json.dumps(manifest, indent=1, ensure_ascii=False)
        (place / "manifest.json").write_text(text + "\n")
    add_files(place, kept)


def write_start(out: Path, inverse: Inverse, folder: Path, scenes: Scenes, base: Base) -> None:
    """The bundle that training starts from."""
    if (out / "manifest.json").exists():
        return
    model = plain(load_backbone(folder, inverse.stage))
    family = {"classifier": "resnet"}.get(inverse.stage, inverse.stage)
    vision = backbone(model, inverse.layer, input=64, mean=nets.MEAN, std=nets.STD,
                      classes=CLASSES, name=family)
    control, weights = base.fresh_control(vision.channels, inverse.hint)
    stages = history(folder)
    write_bundle(
        out, name=out.name, backbone=vision, base=base, control=control, weights=weights,
        diffusion=base.diffusion(), defaults=base.defaults(), pooled=inverse.pooled, dtype="fp16",
        features=feature_statistics(maps_of(model, scenes.images[:2000])[0]), report=print,
        provenance={"recipe": "models/recipe", "training_seeds": [TRAIN_SEED, TRAIN_COUNT],
                    "stages": {inverse.stage: stages.get(inverse.stage)},
                    "license": "Apache-2.0"})


def train(name: str, inverse: Inverse, start: Path, images: Path, args: argparse.Namespace) -> None:
    """featinv train, which says itself what it needs to be resumed with."""
    out = args.folder / "trained" / name
    if (out / "manifest.json").exists():
        print(f"{out}: there")
        return
    out.parent.mkdir(exist_ok=True)
    steps = args.steps or inverse.steps
    line = [args.command, "train", "--data", images, "-m", start, "-o", out,
            "--no-augment", "--cache", "--batch", BATCH, "--lr", inverse.rate, "--warmup", WARMUP,
            "--steps", steps, "--decay-steps", steps, "--clip", 1, "--ema", AVERAGE,
            "--validation", 0.002, "--validate-every", max(steps // 6, 1),
            "--checkpoint-every", 200, "--threads", args.threads, "--json"]
    if name != "scenes":
        line += ["--warm-start", args.base]
    if (args.folder / "trained" / f"{name}.training").exists():
        line.append("--resume")
    done = subprocess.run([str(word) for word in line], stdout=subprocess.PIPE, text=True,
                          check=False)
    if done.returncode:
        sys.exit(done.returncode)
    print(name, json.dumps(json.loads(done.stdout), indent=1))


def main() -> None:
    """Make what is asked for, in the order of INVERSES."""
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("names", nargs="*", metavar="NAME", help=", ".join(INVERSES))
    ap.add_argument("--folder", type=Path, default=Path("build/recipe"))
    ap.add_argument("--base", type=Path, default=ROOT / "models" / "scenes")
    ap.add_argument("--command", type=Path, default=ROOT / "build" / "featinv")
    ap.add_argument("--threads", type=int, default=1)
    ap.add_argument("--steps", type=int, help="in place of each one's own")
    args = ap.parse_args()
    unknown = [name for name in args.names if name not in INVERSES]
    if unknown:
        ap.error(f"{unknown[0]}: not one of {', '.join(INVERSES)}")
    torch.set_num_threads(args.threads)
    scenes = cached_set(args.folder, TRAIN_SEED, TRAIN_COUNT)
    for name in args.names or list(INVERSES)[1:]:
        start = args.folder / "start" / name
        if name != "scenes":
            write_start(start, INVERSES[name], args.folder, scenes, Base.open(args.base))
        count = INVERSES[name].images
        images = write_images(scenes, count, args.folder / f"images-{count}")
        train(name, INVERSES[name], start, images, args)
        if name in SHIPPED:
            install(args.folder / "trained" / name, args.base.with_name(name))


if __name__ == "__main__":
    main()
