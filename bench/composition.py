#!/usr/bin/env python3
"""How well are two maps drawn that were composed, and how far does the paste reach?

    bench/composition.py [--pairs 60] [--write]

Pairs of unseen scenes; a square of B's map is pasted into A's at a random place, with an edge of a
quarter, three eighths and half of the picture, and `featinv compose` draws A, B and the composite. For each
size: the cosine between the drawn picture's map and B's in the cells of the square, and A's in the
cells around it, beside what the pictures of A and B alone reach there (the ceiling) and what the
other map would (the floor); the distance from the square at which the change of pixels has fallen to
10 % of that inside. Intervals are 95 % bootstraps over pairs. Needs the default build.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "models" / "recipe"), str(ROOT / "bench")]
from scenes import draw_scene  # noqa: E402
from validity import interval  # noqa: E402

SIZE, EDGES, FIRST = 64, (16, 24, 32), 1_000_000


def compose(build: Path, folder: Path, a: Path, b: Path, region: list[int], args) -> dict:
    """Figures of one composition, as the command prints them."""
    command = [str(build / "featinv"), "compose", str(a), str(b), "-m",
               str(ROOT / "models" / "scenes"), "--region", ",".join(map(str, region)), "-o",
               str(folder / "out"), "--threads", str(args.threads), "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout)


def figures_of(found: dict) -> dict[str, float]:
    """What is averaged, of one composition."""
    maps = found["maps"]
    radius = found["radius_10_percent"]
    return {"inside": found["fidelity_inside"], "inside ceiling": maps["b"]["inside_b"],
            "inside floor": maps["a"]["inside_b"], "outside": found["fidelity_outside"],
            "outside ceiling": maps["a"]["outside_a"], "outside floor": maps["b"]["outside_a"],
            "radius": np.nan if radius is None else radius,
            "norm percentile": maps["composite"]["norm_percentile"],
            "residual percentile": maps["composite"]["residual_percentile"]}


def survey(build: Path, folder: Path, edge: int, args, rng: np.random.Generator) -> dict:
    """All pairs with one size of the square."""
    rows, curves = [], []
    for i in range(args.pairs):
        paths = []
        for k, name in enumerate("ab"):
            paths.append(folder / f"{name}.png")
            Image.fromarray(draw_scene(FIRST + 2 * i + k).pixels).save(paths[-1])
        x, y = (int(v) for v in rng.integers(0, SIZE - edge + 1, 2))
        found = compose(build, folder, *paths, [x, y, x + edge, y + edge], args)
        rows.append(figures_of(found))
        curve = np.array(found["change_by_distance"], dtype=float)[:24]
        curves.append(np.pad(curve, (0, 24 - len(curve)), constant_values=np.nan))
    out = {"edge": edge, "pairs": len(rows)}
    for name in rows[0]:
        values = np.array([r[name] for r in rows])
        known = values[~np.isnan(values)]
        out[name] = interval(known, rng)
        if name == "radius":
            out["radius median"] = round(float(np.median(known)), 2)
            out["radius not reached"] = int(np.isnan(values).sum())
    out["change by distance"] = [round(float(v), 4) for v in np.nanmean(curves, axis=0)]
    print(f"edge {edge:2}: inside {out['inside'][0]:.3f} (floor {out['inside floor'][0]:.3f}, "
          f"ceiling {out['inside ceiling'][0]:.3f}), outside {out['outside'][0]:.3f} (floor "
          f"{out['outside floor'][0]:.3f}, ceiling {out['outside ceiling'][0]:.3f}), 10 % radius "
          f"{out['radius'][0]:.1f} px (median {out['radius median']}, beyond the picture "
          f"{out['radius not reached']} times)", flush=True)
    return out


def main() -> None:
    """Measure and print; --write keeps bench/results/composition.json."""
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--pairs", type=int, default=60)
    ap.add_argument("--threads", type=int, default=2)
    ap.add_argument("--build", type=Path, default=ROOT / "build")
    ap.add_argument("--write", action="store_true")
    args = ap.parse_args()
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        sizes = [survey(args.build, Path(name), edge, args, rng) for edge in EDGES]
    if args.write:
        path = ROOT / "bench" / "results" / "composition.json"
        settings = {k: v for k, v in vars(args).items() if k in ("pairs", "threads")}
        path.write_text(json.dumps({"settings": settings, "sizes": sizes}, indent=1) + "\n")


if __name__ == "__main__":
    main()
