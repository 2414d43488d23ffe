#!/usr/bin/env python3
"""Fit the concept sets that models/scenes ships, one for each of four classes.

    python models/recipe/concepts.py [--command build/featinv] [-o models/scenes] [--count 5]

Each is what `featinv concepts fit --class NAME --count 5 --seed 0` finds on the first 60 scenes of the
class from seed 900,000 on, less the time that it took: the same bytes each time on one machine.
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import tempfile
import zipfile
from pathlib import Path

import numpy as np
from data import VALID_SEED
from PIL import Image
from scenes import Scene, draw_factors, draw_scene

from featinv.export import add_files

NAMES = ("car on grass", "house on snow", "boat on sand", "tree on water")


def scenes_of(name: str, count: int, seed: int = VALID_SEED) -> list[Scene]:
    """The first `count` scenes of a class from `seed` on."""
    out: list[Scene] = []
    while len(out) < count:
        factors = draw_factors(np.random.Generator(np.random.PCG64(seed)))
        if f"{factors['object']} on {factors['ground']}" == name:
            out.append(draw_scene(seed))
        seed += 1
    return out


def timeless(archive: bytes) -> bytes:
    """A concept file without the seconds that the fit took."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(out, "w") as new:
        for member in old.namelist():
            if member != "seconds.npy":
                new.writestr(zipfile.ZipInfo(member, (1980, 1, 1, 0, 0, 0)), old.read(member))
    return out.getvalue()


def fit(name: str, args: argparse.Namespace) -> tuple[bytes, dict]:
    """The concept file of a class, and what the command says of it."""
    with tempfile.TemporaryDirectory() as folder:
        photos, out = Path(folder, "photos"), Path(folder, "concepts.npz")
        photos.mkdir()
        for i, scene in enumerate(scenes_of(name, args.images)):
            Image.fromarray(scene.pixels).save(photos / f"{i:03}.png")
        said = subprocess.run(
            [args.command, "concepts", "fit", photos, "--class", name, "--count", str(args.count),
             "--seed", "0", "--threads", "1", "-m", args.out, "-o", out, "--json"],
            check=True, stdout=subprocess.PIPE).stdout
        return timeless(out.read_bytes()), json.loads(said)


def main() -> None:
    """Fit the sets and put them into the bundle."""
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--command", type=Path, default=Path("build/featinv"))
    ap.add_argument("-o", "--out", type=Path, default=Path("models/scenes"))
    ap.add_argument("--images", type=int, default=60, help="scenes of each class")
    ap.add_argument("--count", type=int, default=5, help="concepts of each set")
    args = ap.parse_args()
    files = {}
    for name in NAMES:
        path = f"concepts/{name.replace(' ', '-')}.npz"
        files[path], figures = fit(name, args)
        print(f"{path}: {len(files[path])} bytes, dimensions {figures['dimensions']}, "
              f"smallest angle {figures['smallest_angle_degrees']:.1f} degrees, "
              f"completeness {figures['completeness']:.2f}")
    add_files(args.out, files)


if __name__ == "__main__":
    main()
