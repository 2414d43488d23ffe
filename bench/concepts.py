#!/usr/bin/env python3
"""CPU seconds of the sparse self-representation beside the published algorithm, in one run.

    bench/concepts.py [--problems small,middle,large] [--threads 1] [--repeat 3] [--write]

Rows of five planted subspaces (dimensions 4 to 12, noise 0.3 of a row's length), gamma 10, tau 1.
The published algorithm (You, Li, Robinson and Vidal 2016, as MCD uses it) solves row by row: LARS
on an active support of 100 rows, then the rows whose coherence with the residual exceeds the
threshold join. It is written here over scikit-learn's LARS, as the public implementation is. Both
run as processes of their own with the same number of threads, alternating; both solutions are
judged by the same float64 code. For the large problem the published algorithm solves 500 rows drawn
at random against the whole dictionary, and its time is scaled.

Needs the default build. --write keeps bench/results/concepts.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench" / "results" / "concepts.json"
GAMMA, TAU, NOISE, DIMENSIONS = 10.0, 1.0, 0.3, (4, 6, 8, 10, 12)
# name: rows, width, rows that the published algorithm solves (0: all), required ratio, goal
PROBLEMS = {"small": (2000, 256, 0, 20, 30), "middle": (6000, 512, 0, 12, 25),
            "large": (18816, 2048, 500, 25, 40)}


def planted(n: int, d: int, seed: int = 0) -> np.ndarray:
    """(n, d) float32 unit rows of subspaces through the origin, in random order."""
    random = np.random.default_rng(seed)
    parts = []
    for i, p in enumerate(DIMENSIONS):
        basis = np.linalg.qr(random.standard_normal((d, p)))[0]
        count = n // len(DIMENSIONS) + (i < n % len(DIMENSIONS))
        signal = random.standard_normal((count, p)) @ basis.T
        noise = random.standard_normal((count, d))
        parts.append(signal / np.linalg.norm(signal, axis=1, keepdims=True)
                     + NOISE * noise / np.linalg.norm(noise, axis=1, keepdims=True))
    rows = np.concatenate(parts)[random.permutation(n)]
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


# ---------------------------------------------------------------- the published algorithm -------


def solve_row(rows: np.ndarray, y: np.ndarray, alpha: float, coherence: np.ndarray) -> np.ndarray:
    """Coefficients (n) of y (1, d) over rows (n, d), whose own row is zero; coherence: |rows y|."""
    from sklearn.decomposition import sparse_encode

    n, size = len(rows), 100
    support = (np.arange(n) if n <= size else
               np.argpartition(-coherence, size)[:size])
    best = np.inf
    for _ in range(40):
        chosen = rows[support]
        c = sparse_encode(y, chosen, algorithm="lasso_lars", alpha=alpha)
        delta = (y - c @ chosen) / alpha
        objective = (TAU * np.abs(c).sum() + (1 - TAU) / 2 * (c ** 2).sum()
                     + alpha / 2 * (delta ** 2).sum())
        if best - objective < 1e-10 * best:
            break
        best = objective
        excess = np.abs(delta @ rows.T)[0]
        excess[support] = 0
        added = np.nonzero(excess > TAU + 1e-10)[0]
        if not added.size:
            break
        active = support[np.abs(c[0]) > 1e-10]
        if active.size > 0.8 * size:
            size = min(round(max(active.size, size) * 1.1), n)
        if active.size + added.size > size:
            room = size - active.size
            added = added[np.argpartition(-excess[added], room)[:room]]
        support = np.concatenate([active, added])
    out = np.zeros(n)
    out[support] = c[0]
    return out


def published(path: Path, chosen: np.ndarray, out: Path) -> dict:
    """Solves rows `chosen`; float32 in, as the public driver does."""
    from sklearn.decomposition import sparse_encode

    rows = np.load(path)
    sparse_encode(rows[:1], rows[1:3], algorithm="lasso_lars", alpha=0.1)  # imports
    coefficients = np.zeros((len(chosen), len(rows)))
    cpu, wall = time.process_time(), time.perf_counter()
    for k, j in enumerate(chosen):
        y = rows[j:j + 1].copy()
        rows[j] = 0
        coherence = np.abs(rows @ y[0])
        # a Python number: a NumPy one would widen all products to float64
        alpha = float(coherence.max()) / TAU / GAMMA
        coefficients[k] = solve_row(rows, y, alpha, coherence)
        rows[j] = y[0]
    result = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
    np.save(out, coefficients)
    return result


# ---------------------------------------------------------------- ours --------------------------


def build_driver(folder: Path, build: Path) -> Path:
    """Compiles bench/selfrep_driver.c against the core's archive of the build."""
    program = folder / "selfrep_driver"
    jansson = subprocess.run(["pkg-config", "--cflags", "--libs", "jansson"], check=True,
                             capture_output=True, text=True).stdout.split()
    subprocess.run([os.environ.get("CC", "cc"), "-std=c11", "-O2", "-D_GNU_SOURCE",
                    f"-I{ROOT / 'include'}", f"-I{ROOT / 'lib'}",
                    str(ROOT / "bench" / "selfrep_driver.c"), str(build / "libfeatinv_core.a"),
                    "-o", str(program), *jansson, "-lpng", "-ljpeg", "-lz", "-lcrypto", "-lpthread",
                    "-ldl", "-lm"], check=True)
    return program


def read_solution(path: Path, chosen: np.ndarray, n: int) -> np.ndarray:
    """Rows `chosen` of the coefficients, dense (len(chosen), n) float64."""
    with np.load(path) as arrays:
        offsets, indices, values = arrays["offsets"], arrays["indices"], arrays["values"]
    out = np.zeros((len(chosen), n))
    for k, j in enumerate(chosen):
        part = slice(offsets[j], offsets[j + 1])
        out[k, indices[part]] = values[part]
    return out


# ---------------------------------------------------------------- judging -----------------------


def judge(rows: np.ndarray, chosen: np.ndarray, coefficients: np.ndarray,
          zero_below: float = 1e-10) -> tuple[np.ndarray, float]:
    """Objective (len(chosen)) and the largest violation of the conditions, in float64. zero_below:
    magnitude that counts as zero; LARS in float32 leaves entries of 1e-8 with the wrong sign."""
    wide = rows.astype(np.float64)
    objectives, largest = np.zeros(len(chosen)), 0.0
    for first in range(0, len(chosen), 500):
        part = slice(first, first + 500)
        j, c = chosen[part], coefficients[part]
        products = np.abs(wide[j] @ wide.T)
        own = np.arange(len(j)), j
        products[own] = 0
        alpha = products.max(axis=1, keepdims=True) / TAU / GAMMA
        delta = (wide[j] - c @ wide) / alpha
        objectives[part] = (TAU * np.abs(c).sum(axis=1) + (1 - TAU) / 2 * (c ** 2).sum(axis=1)
                            + (alpha * delta ** 2).sum(axis=1) / 2)
        gradient = delta @ wide.T - (1 - TAU) * c
        zero = np.abs(c) <= zero_below
        excess = np.where(zero, np.maximum(np.abs(gradient) - TAU, 0),
                          np.abs(gradient - TAU * np.sign(c)))
        excess[own] = 0
        largest = max(largest, float(excess.max()))
    return objectives, largest


def run(command: list[str], threads: int) -> dict:
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    environment = dict(os.environ, OMP_WAIT_POLICY="passive", **dict.fromkeys(names, str(threads)))
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(done.stderr or f"{command[0]} ended with {done.returncode}")
    return json.loads(done.stdout)


def measure(name: str, program: Path, folder: Path, threads: int, repeat: int) -> dict:
    n, d, subset, required, goal = PROBLEMS[name]
    rows = planted(n, d)
    chosen = (np.sort(np.random.default_rng(1).choice(n, subset, replace=False)) if subset
              else np.arange(n))
    inputs, ours_out, theirs_out = folder / "rows.npy", folder / "ours.npz", folder / "theirs.npy"
    np.save(inputs, rows)
    np.save(folder / "chosen.npy", chosen)
    ours, theirs = [], []
    for _ in range(repeat):
        ours.append(run([str(program), str(inputs), str(ours_out), str(GAMMA), str(TAU),
                         str(2 << 30), str(threads), "1"], threads))
        theirs.append(run([sys.executable, __file__, "--published", str(folder)], threads))
    scale = n / len(chosen)
    cpu_ours, cpu_theirs = (min(r["cpu"] for r in runs) for runs in (ours, theirs))
    objective_ours, kkt_ours = judge(rows, chosen, read_solution(ours_out, chosen, n))
    objective_theirs, kkt_theirs = judge(rows, chosen, np.load(theirs_out), 1e-6)
    return {"problem": name, "n": n, "d": d, "published_rows": len(chosen),
            "cpu_ours": cpu_ours, "cpu_published": cpu_theirs * scale, "scaled": bool(subset),
            "ratio": cpu_theirs * scale / cpu_ours, "required": required, "goal": goal,
            "wall_ours": min(r["wall"] for r in ours), "peak_bytes": ours[0]["peak_bytes"],
            "entries_per_row": ours[0]["entries"] / n, "passes": ours[0]["passes"],
            "certificate": ours[0]["stationarity"], "stationarity_ours": kkt_ours,
            "stationarity_published": kkt_theirs,
            "objective_ours": float(objective_ours.sum()),
            "objective_published": float(objective_theirs.sum()),
            "rows_worse_by_1e-12": int((objective_ours > objective_theirs * (1 + 1e-12)).sum())}


def cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--problems", default="small,middle,large")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--build", type=Path, default=ROOT / "build")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--published", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.published:
        print(json.dumps(published(args.published / "rows.npy",
                                   np.load(args.published / "chosen.npy"),
                                   args.published / "theirs.npy")))
        return
    os.environ.setdefault("FEATINV_BACKEND", str(args.build / "libfeatinv-torch.so"))
    results = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        program = build_driver(folder, args.build)
        for problem in args.problems.split(","):
            r = measure(problem, program, folder, args.threads, args.repeat)
            results.append(r)
            print(f"n {r['n']:5} d {r['d']:4}  published {r['cpu_published']:8.2f} s"
                  f"{' (scaled)' if r['scaled'] else ''}  ours {r['cpu_ours']:7.3f} s"
                  f"  {r['ratio']:5.1f} times (at least {r['required']}, goal {r['goal']})"
                  f"  stationarity {r['stationarity_ours']:.1e} (published "
                  f"{r['stationarity_published']:.1e})  objective "
                  f"{r['objective_ours'] / r['objective_published'] - 1:+.1e}"
                  f"  peak {r['peak_bytes'] / 1e9:.2f} GB", flush=True)
    if args.write:
        RESULTS.write_text(json.dumps(
            {"bench": "concepts", "gamma": GAMMA, "tau": TAU, "noise": NOISE,
             "dimensions": DIMENSIONS, "threads": args.threads, "repeat": args.repeat,
             "cpu": cpu_name(), "cores": os.cpu_count(), "load": os.getloadavg()[0],
             "rows": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
