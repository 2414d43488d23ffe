#!/usr/bin/env python3
"""Do concept pictures show the parts of a scene? Concept maps against the true part masks.

    bench/validity.py [--classes "house on grass,boat on water"] [--images 100] [--write]

For each class: concepts are fitted on scenes under seed 1,000,000, each is named after the part that its
cluster covers best on those (8x8 cells, labels of the fit), and is then scored on unseen scenes of
the class where that part can be seen:
- FeatInv-Viz: the difference map of algorithm 1; "smooth": the same under a Gaussian of 4 pixels, half a
  cell of the feature map, so that both kinds of map are equally fine;
- activation: the concept's activation map, enlarged bilinearly to the picture;
- null: the difference map of random subspaces that change as much energy.
AUPRC is the average precision of the map's pixels for the part's mask; IoU is that of the map at or
above 0.33 of its maximum. Intervals are 95 % bootstraps over images. Then the curve of mixing: cosine of
what is drawn to the mixed map, by weight.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests" / "support"), str(ROOT / "models" / "recipe")]
import capi  # noqa: E402
from scenes import CLASSES, draw_factors, draw_scene  # noqa: E402

BUNDLE, MAP, SIZE = ROOT / "models" / "scenes", (96, 8, 8), (64, 64)
CLASSES_DEFAULT = "house on grass,boat on water,tree on snow"
SMALLEST = 8  # pixels of a part that count as seen
MAPS = ("viz", "smooth", "activation", "null")


def scenes_of(name: str, count: int, seed: int) -> list:
    """The first `count` scenes of a class from `seed` on."""
    out = []
    while len(out) < count:
        f = draw_factors(np.random.Generator(np.random.PCG64(seed)))
        if f"{f['object']} on {f['ground']}" == name:
            out.append(draw_scene(seed))
        seed += 1
    return out


def masks_of(scene) -> dict[str, np.ndarray]:
    """Masks of regions, and of the whole object."""
    masks = scene.masks()
    background = {"sky", "sun", "hills", "ground", "small1", "small2"}
    masks["object"] = np.any([m for n, m in masks.items() if n not in background], axis=0)
    return masks


def average_precision(heat: np.ndarray, mask: np.ndarray) -> float:
    """Area under the precision-recall curve in steps; pixels of equal heat count together."""
    order = np.argsort(-heat, axis=None, kind="stable")
    values, hits = heat.ravel()[order], mask.ravel()[order].cumsum()
    last = np.append(values[1:] != values[:-1], True)  # ends of runs of equal heat
    hits, ranks = hits[last], np.flatnonzero(last) + 1
    recall = np.diff(hits, prepend=0) / hits[-1]
    return float((recall * hits / ranks).sum())


def iou(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boolean arrays."""
    union = (a | b).sum()
    return float((a & b).sum() / union) if union else 0.0


def enlarge(heat: np.ndarray) -> np.ndarray:
    """(h,w) to the picture's size, bilinear."""
    return np.asarray(Image.fromarray(heat.astype(np.float32)).resize(SIZE[::-1], Image.BILINEAR))


def smoothed(heats: np.ndarray, sigma: float = 4.0) -> np.ndarray:
    """Maps (N,64,64) under a Gaussian of `sigma` pixels, borders mirrored."""
    reach = int(3 * sigma)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    for axis in (1, 2):
        pad = [(0, 0)] * 3
        pad[axis] = (reach, reach)
        windows = np.lib.stride_tricks.sliding_window_view(
            np.pad(heats, pad, mode="symmetric"), 2 * reach + 1, axis=axis)
        heats = windows @ (kernel / kernel.sum())
    return heats


def name_concepts(labels: np.ndarray, scenes: list) -> list[tuple[str, float]]:
    """For each concept the part whose cells its cluster covers best, and that mean IoU."""
    cells = {}
    for i, scene in enumerate(scenes):
        for part, mask in masks_of(scene).items():
            pooled = mask.reshape(8, 8, 8, 8).mean((1, 3)) >= 0.5
            cells.setdefault(part, []).append((i, pooled))
    out = []
    for concept in range(labels.max() + 1):
        scored = {}
        for part, rows in cells.items():
            seen = [(i, p) for i, p in rows if p.any()]
            if len(seen) >= len(scenes) / 4:
                scored[part] = np.mean([iou((labels[i] == concept)[labels[i] >= 0],
                                            p[labels[i] >= 0]) for i, p in seen])
        best = max(scored, key=scored.get)
        out.append((best, float(scored[best])))
    return out


def interval(values: np.ndarray, rng: np.random.Generator) -> list[float]:
    """Mean and a 95 % bootstrap interval."""
    means = rng.choice(values, (1000, len(values))).mean(1)
    return [round(float(x), 4) for x in (values.mean(), *np.percentile(means, (2.5, 97.5)))]


def score(part: str, scenes: list, heats: dict[str, np.ndarray], rng) -> dict:
    """AUPRC and IoU of each kind of map (N,64,64), and their paired differences."""
    rows = {f"{kind} {m}": [] for kind in MAPS for m in ("auprc", "iou")}
    area = []
    for i, scene in enumerate(scenes):
        mask = masks_of(scene)[part]
        if mask.sum() < SMALLEST:
            continue
        area.append(mask.mean())
        for kind in MAPS:
            heat = heats[kind][i]
            rows[f"{kind} auprc"].append(average_precision(heat, mask))
            rows[f"{kind} iou"].append(iou(heat >= 0.33 * max(heat.max(), 1e-12), mask))
    out = {"part": part, "images": len(area), "chance": round(float(np.mean(area)), 4)}
    out |= {k: interval(np.array(v), rng) for k, v in rows.items()}
    for m in ("auprc", "iou"):
        for kind, other in (("viz", "activation"), ("viz", "null"), ("smooth", "activation")):
            out[f"{kind} - {other} {m}"] = interval(
                np.array(rows[f"{kind} {m}"]) - np.array(rows[f"{other} {m}"]), rng)
    return out


def class_figures(session, name: str, args, rng) -> dict:
    """Fit, name, draw and score the concepts of one class."""
    train = scenes_of(name, args.fit, 900_000)
    test = scenes_of(name, args.images, 1_000_000)
    maps = session.extract([s.pixels for s in train], MAP)[0]
    concepts = capi.Concepts.fit(session, maps, count=args.count, gamma=args.gamma,
                                 max_rows=args.rows)
    names = name_concepts(concepts.labels, train)
    unseen = session.extract([s.pixels for s in test], MAP)[0]
    norms = np.linalg.norm(concepts.decompose(unseen), axis=2)  # (K + 1, N, 8, 8)
    out = {"class": name, "concepts": []}
    seen = capi.visualize(session, concepts.handle, list(range(concepts.count)), unseen, SIZE,
                          pairs=args.pairs, null_draws=1, sampling={"steps": args.steps},
                          factor=args.factor)
    for k in range(concepts.count):
        heats = {"viz": seen["map"][:, k], "null": seen["null_map"][:, k],
                 "smooth": smoothed(seen["map"][:, k]),
                 "activation": np.stack([enlarge(a) for a in norms[k]])}
        figures = score(names[k][0], test, heats, rng)
        figures |= {"concept": k, "dimension": int(concepts.dimensions[k]),
                    "fit iou": round(names[k][1], 3)}
        out["concepts"].append(figures)
        print(f"{name:16} {k} {figures['part']:6} n={figures['images']} AUPRC",
              *(f"{m} {figures[f'{m} auprc'][0]:.3f}" for m in MAPS),
              f"chance {figures['chance']:.3f} | IoU",
              *(f"{m} {figures[f'{m} iou'][0]:.3f}" for m in MAPS), flush=True)
    return out


def mixing(session, args, rng) -> dict:
    """Cosine between the mixed map and the map of what is drawn from it, for each weight and mode."""
    scenes = [draw_scene(1_000_000 + i) for i in range(2 * args.mixes)]
    maps = session.extract([s.pixels for s in scenes], MAP)[0]
    a, b = np.ascontiguousarray(maps[::2]), np.ascontiguousarray(maps[1::2])
    out = {}
    for mode in ("lerp", "slerp", "norm"):
        curve = {}
        for weight in (0, 0.25, 0.5, 0.75, 1):
            mixed = capi.mix_maps(a, b, weight, mode)
            drawn = session.sample(mixed, (4, 16, 16), image=(*SIZE, 3), steps=args.steps)[1]
            back = session.score_maps(drawn, mixed)
            dots = (back * mixed).sum(1) / np.linalg.norm(back, axis=1)
            cosine = dots / np.maximum(np.linalg.norm(mixed, axis=1), 1e-12)
            curve[str(weight)] = interval(np.median(cosine.reshape(len(a), -1), 1), rng)
        out[mode] = curve
        print(f"mix {mode:6}", {w: v[0] for w, v in curve.items()}, flush=True)
    return out


def main() -> None:
    """Measure and print; --write keeps bench/results/validity.json."""
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--classes", default=CLASSES_DEFAULT)
    ap.add_argument("--images", type=int, default=100, help="unseen scenes of each class")
    ap.add_argument("--fit", type=int, default=60, help="scenes that concepts are fitted on")
    ap.add_argument("--rows", type=int, default=0)
    ap.add_argument("--count", type=int, default=5, help="concepts of a class, 0: ratio rule")
    ap.add_argument("--gamma", type=float, default=10)
    ap.add_argument("--pairs", type=int, default=3)
    ap.add_argument("--factor", type=float, default=0.25)
    ap.add_argument("--steps", type=int, default=10)
    ap.add_argument("--mixes", type=int, default=60, help="pairs of scenes to mix")
    ap.add_argument("--threads", type=int, default=2)
    ap.add_argument("--write", action="store_true")
    args = ap.parse_args()
    rng, start = np.random.default_rng(0), time.perf_counter()
    session = capi.Session(BUNDLE, threads=args.threads, batch=32)
    figures = {"settings": vars(args), "classes": [], "mixing": {}}
    for name in filter(None, args.classes.split(",")):
        assert name in CLASSES, name
        figures["classes"].append(class_figures(session, name, args, rng))
    if args.mixes:
        figures["mixing"] = mixing(session, args, rng)
    figures["seconds"] = round(time.perf_counter() - start)
    if args.write:
        path = ROOT / "bench" / "results" / "validity.json"
        path.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
