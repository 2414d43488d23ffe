#!/usr/bin/env python3
"""Training steps a second of featinv_trainer_step beside a plain PyTorch loop, in one run.

    bench/training.py [--threads 2] [--repeat 15] [--batches 8,32] [--write]

Both train the ControlNet of models/scenes with equal inputs (latents, maps, prompts, timesteps,
noise given), AdamW, float32, on the CPU. The loop runs the exporter's own modules in eager mode with
torch.optim.AdamW, fused or not, whichever is faster. They alternate; medians are compared. Needs the
default build.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np  # noqa: E402
import torch  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / p) for p in ("tests/support", "tests/train", "bindings/python", "bench")]
import capi  # noqa: E402
from machine import cpu_name  # noqa: E402
from reference import Loop  # noqa: E402
from training import Trainer  # noqa: E402

BUNDLE, LATENT, MAP = ROOT / "models" / "scenes", (4, 16, 16), (96, 8, 8)


def inputs(n: int) -> dict[str, np.ndarray]:
    """What a step is given: latents, maps, contexts (n, 12, 64), timesteps, noise."""
    rng = np.random.default_rng(n)
    prompt = np.load(BUNDLE / "contexts.npz")["default"].astype(np.float32)
    return {"latents": rng.normal(size=(n, *LATENT)).astype(np.float32),
            "maps": rng.normal(size=(n, *MAP)).astype(np.float32),
            "context": np.repeat(prompt[None], n, 0), "timesteps": rng.integers(0, 1000, n),
            "noise": rng.normal(size=(n, *LATENT)).astype(np.float32)}


def eager(fused: bool) -> Loop:
    loop = Loop(BUNDLE)
    loop.optimiser = torch.optim.AdamW(loop.trained.values(), lr=1e-5, fused=fused)
    return loop


def measure(session, n: int, repeat: int) -> dict:
    """Medians of seconds a step with n samples."""
    given = inputs(n)
    with Trainer(session) as trainer:
        plain, fused = eager(False), eager(True)
        steps = {"ours": lambda: trainer.step(n, **given), "eager": lambda: plain.step(**given),
                 "eager, fused AdamW": lambda: fused.step(**given)}
        seconds = {name: [] for name in steps}
        for _ in range(repeat + 2):
            for name, step in steps.items():
                start = time.perf_counter()
                step()
                seconds[name].append(time.perf_counter() - start)
    medians = {name: float(np.median(v[2:])) for name, v in seconds.items()}
    best = min(v for name, v in medians.items() if name != "ours")
    row = {"batch": n, "seconds": {k: round(v, 4) for k, v in medians.items()},
           "samples a second": {k: round(n / v, 1) for k, v in medians.items()},
           "ratio": round(best / medians["ours"], 3)}
    print(f"batch {n:3}:", ", ".join(f"{k} {1e3 * v:.0f} ms" for k, v in medians.items()),
          f"-> {row['ratio']:.2f} times the faster loop", flush=True)
    return row


def main() -> None:
    """Measure and print; --write keeps bench/results/training.json."""
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--threads", type=int, default=2)
    ap.add_argument("--repeat", type=int, default=15)
    ap.add_argument("--batches", default="8,32")
    ap.add_argument("--write", action="store_true")
    args = ap.parse_args()
    torch.set_num_threads(args.threads)
    session = capi.Session(BUNDLE, threads=args.threads)
    rows = [measure(session, int(n), args.repeat) for n in args.batches.split(",")]
    if args.write:
        out = {"bench": "training", "threads": args.threads, "repeat": args.repeat,
               "cpu": cpu_name(), "cores": os.cpu_count(), "load": os.getloadavg()[0],
               "torch": torch.__version__, "rows": rows}
        (ROOT / "bench" / "results" / "training.json").write_text(json.dumps(out, indent=1) + "\n")


if __name__ == "__main__":
    main()
