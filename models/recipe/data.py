"""The training cache: scenes of a range of seeds as arrays, drawn once by several processes."""

from __future__ import annotations

import json
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scenes import (CLASSES, GROUNDS, OBJECTS, OWN_COLOURS, REGIONS, SIZE, SKIES, Scene,
                    draw_scene)

TRAIN_SEED, TRAIN_COUNT = 0, 50_000
VALID_SEED, VALID_COUNT = 900_000, 2_000
FIGURE_SEED = 1_000_000
COLOUR_NAMES = tuple(sorted({c for own in OWN_COLOURS.values() for c in own} | {"white", "brown"}))

# Integer factors of a scene, in the order of the columns of `codes`; small objects count from 1,
# 0 where there is none.
CODES = ("object", "ground", "sky", "light", "sun", "clouds", "hills", "colour", "second",
         "facing", "small1", "small2", "small1_colour", "small2_colour", "small1_side",
         "small2_side")  # fmt: skip
# Real factors, about in [0, 1].
VALUES = ("x", "y", "size", "horizon", "level", "sun_x", "sun_y", "tilt", "shape", "r", "g", "b",
          "r2", "g2", "b2", "small1_x", "small1_y", "small2_x", "small2_y")  # fmt: skip


def codes_of(scene: Scene) -> list[int]:
    """The integer factors of a scene."""
    f, m = scene.factors, scene.factors["main"]
    out = [OBJECTS.index(f["object"]), GROUNDS.index(f["ground"]), SKIES.index(f["sky"]),
           int(f["light"] == "right"), int(f["sun"]), f["clouds"], f["hills"],
           COLOUR_NAMES.index(m["colour"]), COLOUR_NAMES.index(m["second"]),
           int(m["facing"] > 0)]  # fmt: skip
    small = f["small"] + [None] * (2 - len(f["small"]))
    out += [0 if s is None else 1 + OBJECTS.index(s["object"]) for s in small]
    out += [0 if s is None else 1 + COLOUR_NAMES.index(s["colour"]) for s in small]
    out += [0 if s is None else 1 + int(s["x"] > m["x"]) for s in small]
    return out


def values_of(scene: Scene) -> list[float]:
    """The real factors of a scene."""
    f, m = scene.factors, scene.factors["main"]
    out = [m["x"], m["y"], m["size"], f["horizon"], f["level"], f["sun_x"], f["sun_y"],
           m["tilt"], m["shape"], *m["colour_rgb"], *m["second_rgb"]]  # fmt: skip
    for k in range(2):
        s = f["small"][k] if k < len(f["small"]) else {"x": 0.0, "y": 0.0}
        out += [s["x"], s["y"]]
    return out


def _chunk(job: tuple[int, int]) -> tuple[np.ndarray, ...]:
    first, count = job
    drawn = [draw_scene(first + i) for i in range(count)]
    return (np.stack([s.pixels for s in drawn]), np.stack([s.regions for s in drawn]),
            np.array([codes_of(s) for s in drawn], np.int16),
            np.array([values_of(s) for s in drawn], np.float32))


@dataclass
class Scenes:
    """A set of scenes: images (N,64,64,3) uint8, regions (N,64,64) uint8, codes, values."""

    images: np.ndarray
    regions: np.ndarray
    codes: np.ndarray  # (N, len(CODES)) int16
    values: np.ndarray  # (N, len(VALUES)) float32

    def __len__(self) -> int:
        return len(self.images)

    def code(self, name: str) -> np.ndarray:
        """One integer factor, (N,) int64."""
        return self.codes[:, CODES.index(name)].astype(np.int64)

    @property
    def labels(self) -> np.ndarray:
        """Class numbers (N,) int64, index into scenes.CLASSES."""
        return self.code("object") * len(GROUNDS) + self.code("ground")


def draw_set(seed: int, count: int, workers: int = 1) -> Scenes:
    """Draw scenes seed .. seed+count-1."""
    jobs = [(seed + i, min(250, count - i)) for i in range(0, count, 250)]
    if workers > 1:
        with ProcessPoolExecutor(workers) as pool:
            chunks = list(pool.map(_chunk, jobs))
    else:
        chunks = [_chunk(j) for j in jobs]
    return Scenes(*(np.concatenate(parts) for parts in zip(*chunks)))


def cached_set(folder: Path, seed: int, count: int, workers: int | None = None) -> Scenes:
    """The same, kept as .npy files in folder (arrays are memory-mapped where they are large)."""
    name = folder / f"set-{seed}-{count}"
    if not (name / "done.json").exists():
        name.mkdir(parents=True, exist_ok=True)
        drawn = draw_set(seed, count, workers or os.cpu_count() or 1)
        for key in ("images", "regions", "codes", "values"):
            np.save(name / f"{key}.npy", getattr(drawn, key))
        (name / "done.json").write_text(json.dumps({"seed": seed, "count": count}) + "\n")
    return Scenes(*(np.load(name / f"{key}.npy", mmap_mode="r" if key == "regions" else None)
                    for key in ("images", "regions", "codes", "values")))


assert len(CLASSES) == len(OBJECTS) * len(GROUNDS) and len(REGIONS) < 256 and SIZE == 64
