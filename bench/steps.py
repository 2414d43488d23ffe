#!/usr/bin/env python3
"""Seconds a sampling step, weights packed against plain, alternating in one run.

    bench/steps.py [--bundle DIR] [--lanes 1,4,8] [--steps 4] [--repeat 3] [--device cpu] [--dtype fp32]

Prints medians and their ratio; --json FILE keeps them with the machine's name. Each measurement is a
process of its own, since packing is decided when weights load.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from machine import cpu_name

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "support"))


def measure(bundle: str, lanes: int, steps: int, device: str, dtype: str, threads: int) -> dict:
    """Seconds a step in this process: two runs of different length, so that start-up cancels."""
    import capi
    import numpy as np

    manifest = json.loads((Path(bundle) / "manifest.json").read_text())
    f, latent = manifest["features"], manifest["diffusion"]["latent"]
    maps = np.random.default_rng(0).standard_normal(
        (1, f["channels"], f["height"], f["width"])).astype(np.float32)
    session = capi.Session(bundle, device=device, dtype=dtype, batch=lanes, threads=threads)

    def run(count: int) -> float:
        start = time.perf_counter()
        session.sample(maps, latent, samples=lanes, steps=count, scale=1.75)
        return time.perf_counter() - start

    run(1)
    short, long = run(1), run(1 + steps)
    session.close()
    return {"seconds_per_step": (long - short) / steps}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", default=str(ROOT / "models" / "scenes"))
    parser.add_argument("--lanes", default="1,4,8")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="fp32")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.bundle, args.one, args.steps, args.device, args.dtype,
                                 args.threads)))
        return
    rows = []
    for lanes in map(int, args.lanes.split(",")):
        times: dict[str, list[float]] = {"plain": [], "packed": []}
        for _ in range(args.repeat):
            for kind in times:
                environment = dict(os.environ, FEATINV_PACK="0" if kind == "plain" else "1",
                                   OMP_WAIT_POLICY=os.environ.get("OMP_WAIT_POLICY", "passive"))
                command = [sys.executable, __file__, "--one", str(lanes), "--bundle", args.bundle,
                           "--steps", str(args.steps), "--device", args.device, "--dtype",
                           args.dtype, "--threads", str(args.threads)]
                out = subprocess.run(command, capture_output=True, text=True, env=environment)
                if out.returncode:
                    sys.exit(out.stderr)
                times[kind].append(json.loads(out.stdout)["seconds_per_step"])
        plain, packed = (statistics.median(times[k]) for k in ("plain", "packed"))
        rows.append({"lanes": lanes, "plain": plain, "packed": packed, "ratio": plain / packed})
        print(f"{lanes:3} lanes  plain {plain:.4f} s/step  packed {packed:.4f}  "
              f"ratio {plain / packed:.2f}")
    if args.json:
        args.json.write_text(json.dumps(
            {"bench": "steps", "bundle": Path(args.bundle).name, "device": args.device,
             "dtype": args.dtype, "cpu": cpu_name(), "cores": os.cpu_count(),
             "load": os.getloadavg()[0], "steps": args.steps, "repeat": args.repeat,
             "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
