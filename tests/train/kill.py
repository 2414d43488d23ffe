#!/usr/bin/env python3
"""Kill a training at random moments, resume it, and compare with one that was left alone.

    python tests/train/kill.py [--kills 50] [--steps 200] [--seed S] [--featinv build/featinv]

One training runs through; another is killed (SIGKILL) --kills times, each time at a random moment
after it started or resumed, and resumed until it is done. Fails unless the output bundle, the
checkpoint and the log (but for times) are the same bytes, no resume had to do without a damaged
file, and nothing half written is left.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TIMES = ("seconds", "samples_per_second")


def command(args: argparse.Namespace, data: Path, output: Path) -> list[str]:
    """The training as a command line."""
    return [str(args.featinv), "train", "--data", str(data), "-m", str(args.model), "-o",
            str(output), "--steps", str(args.steps), "--batch", str(args.batch), "--lr", "1e-4",
            "--threads", "1", "--workers", "2", "--checkpoint-every", str(args.checkpoint_every),
            "--validate-every", str(args.validate_every), "--ema", "0.99", "-q"]


def log_lines(state: Path) -> list[dict]:
    """log.jsonl without the settings' output and the times."""
    lines = [json.loads(text) for text in (state / "log.jsonl").read_text().splitlines()]
    lines[0]["settings"]["run"].pop("output")
    return [{k: v for k, v in line.items() if k not in TIMES} for line in lines]


def files(folder: Path) -> dict[str, bytes]:
    """Every file of a bundle and its bytes."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*"))
            if p.is_file()}


def compare(whole: Path, killed: Path) -> list[str]:
    """What differs between two trainings: one line each."""
    wrong = []
    if files(whole) != files(killed):
        wrong.append("the output bundles differ")
    a, b = (p.with_name(p.name + ".training") for p in (whole, killed))
    if (a / "checkpoint.safetensors").read_bytes() != (b / "checkpoint.safetensors").read_bytes():
        wrong.append("the last checkpoints differ")
    if log_lines(a) != log_lines(b):
        wrong.append("the logs differ")
    if sorted(p.name for p in a.iterdir()) != sorted(p.name for p in b.iterdir()):
        wrong.append(f"other files are left: {sorted(p.name for p in b.iterdir())}")
    return wrong


def last_step(state: Path) -> int:
    """Of the log, torn or not."""
    step = 0
    if (state / "log.jsonl").exists():
        for text in (state / "log.jsonl").read_text().splitlines():
            try:
                step = max(step, json.loads(text).get("step", 0))
            except json.JSONDecodeError:
                pass
    return step


def wait(process: subprocess.Popen, state: Path, args: argparse.Namespace,
         moments: random.Random, kills: int) -> bool:
    """Until a random moment: in one of four runs somewhere near its start, else after a random
    number of steps and a part of one. False where the process ended before."""
    if moments.random() < 0.25:
        time.sleep(moments.uniform(0.0, 2.0))
        return process.poll() is None
    done = last_step(state)
    further = moments.randint(0, 2 * (args.steps - done) // (args.kills - kills + 1))
    target = min(done + further, args.steps - 1)
    while process.poll() is None and last_step(state) < target:
        time.sleep(0.02)
    time.sleep(moments.uniform(0.0, 0.4))
    return process.poll() is None


TOO_FAST = 3  # exit code: a training ended before its last kills


def main() -> int:
    """Run both trainings and compare."""
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--kills", type=int, default=50)
    ap.add_argument("--steps", type=int, default=200)
    ap.add_argument("--batch", type=int, default=4)
    ap.add_argument("--checkpoint-every", type=int, default=5)
    ap.add_argument("--validate-every", type=int, default=40)
    ap.add_argument("--images", type=int, default=40)
    ap.add_argument("--seed", type=int, default=0, help="of the moments")
    ap.add_argument("--featinv", type=Path, default=ROOT / "build" / "featinv")
    ap.add_argument("--model", type=Path, default=ROOT / "models" / "scenes")
    args = ap.parse_args()
    moments = random.Random(args.seed)
    environment = dict(os.environ, OMP_WAIT_POLICY="passive")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = folder / "data"
        whole, killed = folder / "whole" / "made", folder / "killed" / "made"  # one name
        state = killed.with_name("made.training")
        subprocess.run([sys.executable, str(ROOT / "models" / "recipe" / "scenes.py"), "--count",
                        str(args.images), "--seed", "5000", "-o", str(data)], check=True)
        started = time.monotonic()
        subprocess.run(command(args, data, whole), check=True, env=environment)
        seconds = time.monotonic() - started
        print(f"left alone: {args.steps} steps in {seconds:.1f} s", flush=True)
        steps: list[int] = []
        while True:
            with subprocess.Popen(command(args, data, killed) + ["--resume"], env=environment,
                                  stderr=subprocess.PIPE) as process:
                if len(steps) < args.kills and wait(process, state, args, moments, len(steps)):
                    process.send_signal(signal.SIGKILL)
                _, text = process.communicate()
            if process.returncode == -signal.SIGKILL:
                steps.append(last_step(state))
            if text or process.returncode not in (0, -signal.SIGKILL):
                print(f"exit code {process.returncode}: {text.decode()}", file=sys.stderr)
                return 1
            if process.returncode == 0:
                break
        kills = len(steps)
        print(f"killed {kills} times, at steps {steps}")
        wrong = compare(whole, killed)
        for line in wrong:
            print(line, file=sys.stderr)
        print("the same bytes" if not wrong else "not the same")
        if wrong:
            return 1
        return 0 if kills == args.kills else TOO_FAST


if __name__ == "__main__":
    sys.exit(main())
