#!/usr/bin/env python3
"""The reference bundle on a GPU against the CPU: latents of one run, float32 and bf16."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "support"))
import capi  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", default=str(ROOT / "models" / "scenes"))
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    manifest = json.loads((Path(args.bundle) / "manifest.json").read_text())
    f, latent = manifest["features"], manifest["diffusion"]["latent"]
    maps = np.random.default_rng(0).standard_normal(
        (3, f["channels"], f["height"], f["width"])).astype(np.float32)
    results = {}
    for device, dtype in (("cpu", "fp32"), ("cuda", "fp32"), ("cuda", "bf16"), ("cuda", "fp16")):
        session = capi.Session(args.bundle, device=device, dtype=dtype)
        results[device, dtype], _, _ = session.sample(maps, latent, steps=10, scale=1.75)
        session.close()
    wanted = results.pop(("cpu", "fp32"))
    rows = {f"{d} {t}": capi.scaled(z, wanted) for (d, t), z in results.items()}
    for name, value in rows.items():
        print(f"{name}: {value:.2e} scaled from cpu fp32")
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")
    if rows["cuda fp32"] > 1e-4:
        sys.exit("cuda fp32 is too far from the CPU")


if __name__ == "__main__":
    main()
