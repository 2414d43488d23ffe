#!/usr/bin/env python3
"""How soon a warm start gets there, and what independent dropout of map and prompt is worth.

    bench/training_study.py warm-start [--write]
    bench/training_study.py dropout [--write]

Both train ControlNets on the base of models/scenes with `featinv train`, in stretches that --resume
joins, and score the bundle after each stretch with `featinv reconstruct` on unseen scenes.

warm-start: a backbone of another kind (timm resnet18, layer2, random weights) gets a ControlNet from
scratch and one that begins with the trunk of models/scenes; the figure is the step at which each
reaches 95 % of what the start from scratch ends with (centred cosine, linear between stretches).
dropout: the backbone of models/scenes, from scratch; map and prompt dropped independently
(probability 0.1 each) against together (0.15, as published); cosine at equal steps, and at the end
over the hint scale. Needs the default build.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / p) for p in ("models/recipe", "bench")]
from machine import cpu_name  # noqa: E402
from scenes import draw_scene  # noqa: E402
from validity import interval  # noqa: E402

SCENES = ROOT / "models" / "scenes"
TRAIN_FIRST, UNSEEN_FIRST = 10_000, 1_000_000
HINT_SCALES = (1.0, 1.25, 1.75, 2.5, 4.0)


class Study:
    """The command on the pictures of one study."""

    def __init__(self, args: argparse.Namespace, work: Path) -> None:
        self.args, self.work = args, work
        self.photos = self.draw("photos", TRAIN_FIRST, args.images)
        self.unseen = self.draw("unseen", UNSEEN_FIRST, args.unseen)

    def draw(self, name: str, first: int, count: int) -> Path:
        """A folder of scenes."""
        from PIL import Image

        folder = self.work / name
        folder.mkdir()
        for i in range(count):
            Image.fromarray(draw_scene(first + i).pixels).save(folder / f"{i:05}.png")
        return folder

    def call(self, *words: object) -> dict:
        """The command's own summary."""
        line = [self.args.build / "featinv", *words, "--threads", self.args.threads, "--json"]
        done = subprocess.run([str(w) for w in line], capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{' '.join(map(str, line))}\n{done.stderr.strip()}")
        return json.loads(done.stdout)

    def start(self, spec: str, *options: object) -> Path:
        """A backbone joined to the base of models/scenes by a fresh ControlNet."""
        out, maps = self.work / "start", self.work / "maps.npz"
        environment = os.environ | {"PYTHONPATH": str(ROOT / "bindings" / "python")}
        line = [sys.executable, "-m", "featinv.export", "backbone", spec, "--input", "64", "--base",
                SCENES, "-o", out, *options]
        # The second time with the statistics of its maps, which a centred cosine needs.
        for more in ((), ("--feature-maps", maps, "--force")):
            subprocess.run([str(w) for w in (*line, *more)], env=environment, check=True,
                           stdout=subprocess.DEVNULL)
            if not more:
                self.call("extract", self.photos, "-m", out, "-o", maps)
        return out

    def start_afresh(self) -> Path:
        """The backbone of models/scenes with a ControlNet that has not been trained."""
        import nets
        from safetensors.torch import load_file
        from scenes import CLASSES

        from featinv.export import Base, backbone, write_bundle

        model = nets.classifier()
        model.load_state_dict({key.split(".", 1)[1]: value for part in ("backbone", "head") for
                               key, value in load_file(SCENES / f"{part}.safetensors").items()})
        base = Base.open(SCENES)
        control, weights = base.fresh_control(nets.MAP[0])
        with np.load(SCENES / "features.npz") as kept:
            mean = kept["mean"]
        return write_bundle(
            self.work / "start", base=base, control=control, weights=weights,
            backbone=backbone(model, "layer4", input=64, mean=nets.MEAN, std=nets.STD,
                              classes=CLASSES),
            diffusion=base.diffusion(), feature_mean=mean)

    def train(self, name: str, start: Path, stretches: list[int], *options: object) -> list[dict]:
        """Figures after each stretch; the last bundle stays as work/name."""
        out, rows = self.work / name, []
        for k, steps in enumerate(stretches):
            joined = ("--resume", "--force") if k else ()
            found = self.call("train", "--data", self.photos, "-m", start, "-o", out, "--steps",
                              steps, "--batch", self.args.batch, "--lr", self.args.rate, "--warmup",
                              50, "--clip", 1, "--no-augment", "--cache", "--validate-every", 0,
                              "--seed", self.args.seed, *joined, *options)
            rows.append({"steps": steps, "loss": found["loss"], **self.score(out)})
            print(f"{name:12} {steps:5} steps: {rows[-1]['cosine']['value']:.3f}, centred "
                  f"{rows[-1]['centred']['value']:.3f}", flush=True)
        return rows

    def score(self, bundle: Path, *options: object) -> dict:
        """Cosine and centred cosine of the unseen scenes, with intervals."""
        out = self.work / "drawn"
        self.call("reconstruct", self.unseen, "-m", bundle, "-o", out, *options)
        items = json.loads((out / "results.json").read_text())["items"]
        found = {}
        for name, key in (("cosine", "cosine_median"), ("centred", "cosine_centred")):
            values = np.array([item[key] for item in items])
            found[name] = dict(zip(("value", "low", "high"),
                                   interval(values, np.random.default_rng(0)), strict=True))
        return found


def reached(rows: list[dict], goal: float) -> float | None:
    """The step at which the centred cosine passes the goal, linear between stretches."""
    for before, after in zip(rows, rows[1:], strict=False):
        a, b = before["centred"]["value"], after["centred"]["value"]
        if a < goal <= b:
            return before["steps"] + (goal - a) / (b - a) * (after["steps"] - before["steps"])
    return float(rows[0]["steps"]) if rows[0]["centred"]["value"] >= goal else None


def warm_start(study: Study) -> dict:
    """A start from scratch beside a warm one."""
    start = study.start("timm:resnet18", "--layer", "layer2", "--weights", "random:1")
    stretches = [50, 100, 150, 200, 300, 400, 600]
    scratch = study.train("scratch", start, stretches)
    warm = study.train("warm", start, stretches, "--warm-start", SCENES)
    goal = 0.95 * scratch[-1]["centred"]["value"]
    at = {name: reached(rows, goal) for name, rows in (("scratch", scratch), ("warm", warm))}
    print(f"centred cosine {goal:.3f} after {at['scratch']} steps from scratch, {at['warm']} warm")
    return {"goal": goal, "steps_to_goal": at, "scratch": scratch, "warm": warm}


def dropout(study: Study) -> dict:
    """Independent dropout beside joint dropout."""
    start, out = study.start_afresh(), {}
    for name, options in (("independent", ("--hint-dropout", 0.1, "--prompt-dropout", 0.1)),
                          ("joint", ("--legacy",))):
        rows = study.train(name, start, [300, 600, 1200], *options)
        scales = [{"hint_scale": h, **study.score(study.work / name, "--hint-scale", h)}
                  for h in HINT_SCALES]
        for row in scales:
            print(f"{name:12} hint scale {row['hint_scale']}: {row['cosine']['value']:.3f}, "
                  f"centred {row['centred']['value']:.3f}", flush=True)
        out[name] = {"steps": rows, "hint_scale": scales}
    return out


def main() -> None:
    """Run one study; --write keeps its figures."""
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    studies = {"warm-start": warm_start, "dropout": dropout}
    ap.add_argument("study", choices=studies)
    ap.add_argument("--build", type=Path, default=ROOT / "build")
    ap.add_argument("--images", type=int, default=4000, help="scenes to train on")
    ap.add_argument("--unseen", type=int, default=60, help="scenes to score")
    ap.add_argument("--batch", type=int, default=16)
    ap.add_argument("--rate", type=float, default=1e-3)
    ap.add_argument("--seed", type=int, default=100)
    ap.add_argument("--threads", type=int, default=1)
    ap.add_argument("--write", action="store_true")
    args = ap.parse_args()
    began = time.time()
    with tempfile.TemporaryDirectory() as work:
        found = studies[args.study](Study(args, Path(work)))
    if args.write:
        kept = {"bench": args.study, "settings": {k: v for k, v in vars(args).items()
                                                  if k not in ("study", "build", "write")},
                "cpu": cpu_name(), "minutes": round((time.time() - began) / 60, 1), **found}
        name = args.study.replace("-", "_")
        (ROOT / "bench" / "results" / f"{name}.json").write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
