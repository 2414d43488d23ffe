#!/usr/bin/env python3
"""docs/results.md: the paper's tables of all bundles on the scenes, by `featinv evaluate` alone.

    bench/evaluation.py [--per-class 3] [--bundles models/scenes,...] [-o build/evaluation]

Draws unseen scenes (seeds from 1,000,000 on, `scenes.py`) and pictures that are no scenes, runs the
command on them, and keeps what it wrote: tables.md as docs/results.md, tables.json as
bench/results/evaluation.json. A run that was cut off goes on. Needs the default build.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

ROOT = Path(__file__).resolve().parents[1]
RECIPE = ROOT / "models" / "recipe"
sys.path.insert(0, str(RECIPE))
from scenes import draw_scene  # noqa: E402

SEED, COUNT, SIDE = 1_000_000, 600, 64


def stripes(rng: np.random.Generator) -> Image.Image:
    """A plane wave of two colours."""
    y, x = np.mgrid[:SIDE, :SIDE]
    angle, pitch = rng.uniform(0, np.pi), rng.uniform(4, 20)
    part = 0.5 + 0.5 * np.sin(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / pitch)
    a, b = rng.integers(0, 256, (2, 3))
    return Image.fromarray((a + part[..., None] * (b - a)).astype(np.uint8))


def noise(rng: np.random.Generator) -> Image.Image:
    """Independent pixels."""
    return Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8))


def polygons(rng: np.random.Generator) -> Image.Image:
    """Overlapping triangles."""
    image = Image.new("RGB", (SIDE, SIDE), tuple(rng.integers(0, 256, 3)))
    for _ in range(8):
        points = [tuple(p) for p in rng.integers(-8, SIDE + 8, (3, 2)).tolist()]
        ImageDraw.Draw(image).polygon(points, fill=tuple(rng.integers(0, 256, 3).tolist()))
    return image


def turned(rng: np.random.Generator) -> Image.Image:
    """A scene upside down."""
    scene = draw_scene(SEED + 500_000 + int(rng.integers(100_000)))
    return Image.fromarray(np.ascontiguousarray(scene.pixels[::-1]))


def negative(rng: np.random.Generator) -> Image.Image:
    """A scene in inverted colours."""
    return Image.fromarray(255 - draw_scene(SEED + 500_000 + int(rng.integers(100_000))).pixels)


STRANGE = (stripes, noise, polygons, turned, negative)


def draw_strange(folder: Path, each: int) -> None:
    """Pictures that no training has seen the like of, named after their kind."""
    folder.mkdir(exist_ok=True)
    for kind in STRANGE:
        for i in range(each):
            kind(np.random.default_rng(i)).save(folder / f"{kind.__name__}-{i}.png")


def relative(path: Path) -> str:
    """As it shows in the tables, of whatever checkout."""
    return os.path.relpath(path.resolve(), ROOT)


def main() -> None:
    """Draw, evaluate, keep."""
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--bundles", help="comma-separated; default: models/scenes and what is under "
                    "build/recipe/trained")
    ap.add_argument("--per-class", type=int, default=3)
    ap.add_argument("--strange", type=int, default=8, help="pictures of each kind that is no scene")
    ap.add_argument("--scales", default="1,1.75,3,5", help="of guidance")
    ap.add_argument("--shards", type=int, default=os.cpu_count(), help="processes, a thread each")
    ap.add_argument("--build", type=Path, default=ROOT / "build")
    ap.add_argument("-o", "--out", type=Path, default=ROOT / "build" / "evaluation")
    args = ap.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    data, strange = args.out / "scenes", args.out / "strange"
    if not (data / "labels.json").exists():
        subprocess.run([sys.executable, RECIPE / "scenes.py", "--count", str(COUNT), "--seed",
                        str(SEED), "-o", data], check=True)
    draw_strange(strange, args.strange)
    trained = sorted(p.parent for p in (ROOT / "build/recipe/trained").glob("*/manifest.json"))
    bundles = args.bundles.split(",") if args.bundles else ["models/scenes", *map(relative, trained)]
    line = [args.build / "featinv", "evaluate", "--data", relative(data), "--per-class",
            args.per_class, "--ood", relative(strange), "--fid-features", "models/judge",
            "--ceiling", "--tables", "1,2,3,sweep,mix,ood", "--scales", args.scales, "--threads", 1,
            "-o", relative(args.out / "tables"), *(w for b in bundles for w in ("-m", b))]
    shards = [subprocess.Popen([str(word) for word in (*line, "--shard", f"{i}/{args.shards}")],
                               cwd=ROOT) for i in range(args.shards)]
    if any([shard.wait() for shard in shards]):
        sys.exit(1)
    shutil.copy(args.out / "tables" / "tables.md", ROOT / "docs" / "results.md")
    shutil.copy(args.out / "tables" / "tables.json", ROOT / "bench" / "results" / "evaluation.json")


if __name__ == "__main__":
    main()
