#!/usr/bin/env python3
"""Seconds a guided step at the paper's full size, against diffusers in eager mode.

    bench/full_size.py --bundle DIR [--threads 2] [--steps 2] [--repeat 3] [--json FILE]

Both sides hold the same weights, those of the bundle, in float32, and run on the CPU with the same
number of threads: the library in one process, diffusers' UNet2DConditionModel and ControlNetModel in
another, taking turns. A step is the ControlNet and the UNet on the guided and the unguided branch,
as one batch of two, then the DDIM update. The bundle is of Stable Diffusion 1.x architecture and
without a base; both sides together take 11 GB of memory. To make one:

    python -m featinv.export checkpoint --config tests/data/featinv/minisd-convnext.yaml \\
        --weights rule: -o build/full

Before anything is timed, the noise predictions and the latents of a run must agree within 1e-5 of
their largest value. The library's runs include what it does once (hint, time steps, prompts, which
diffusers does at every step, but for the hint, which it is given).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from machine import cpu_name

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # the idle side must not spin

import numpy as np  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests" / "support"), str(ROOT / "bindings" / "python")]

SCALE = 1.75
LIMIT = 1e-5
TIMES = (501, 21)  # noise predictions are compared at these time steps, one a branch

Inputs = dict[str, np.ndarray]


class Ours:
    """The library, through its C calls."""

    def __init__(self, bundle: Path, threads: int) -> None:
        import capi

        self.session = capi.Session(bundle, threads=threads)
        self.version = capi.lib.featinv_version
        self.version.restype = capi.c.c_char_p

    def versions(self) -> dict[str, str]:
        return {"featinv": self.version().decode()}

    def hint(self, inputs: Inputs, width: int) -> np.ndarray:
        """The encoded hint (1, width, lh, lw), which the other side is given."""
        out = np.zeros((1, width, *inputs["x"].shape[2:]), np.float32)
        self.session.denoise(inputs["x"], TIMES[:1], inputs["contexts"][:1], inputs["map"],
                             hint=out, prediction=False)
        return out

    def predict(self, inputs: Inputs) -> np.ndarray:
        """Noise predictions (2, c, lh, lw) of one latent under the two contexts."""
        twice = [np.repeat(inputs[key], 2, axis=0) for key in ("x", "map")]
        return self.session.denoise(twice[0], TIMES, inputs["contexts"], twice[1])

    def run(self, inputs: Inputs, steps: int) -> np.ndarray:
        """Latents (1, c, lh, lw) after a run."""
        latents, _, _ = self.session.sample(
            inputs["map"], inputs["x"].shape[1:], noise=inputs["x"], samples=1, steps=steps,
            scale=SCALE, context=inputs["contexts"][0], uncontext=inputs["contexts"][1])
        return latents


class Diffusers:
    """The same networks in diffusers."""

    def __init__(self, bundle: Path, threads: int) -> None:
        import diffusers
        import torch

        self.torch = torch
        torch.set_num_threads(threads)
        torch.set_grad_enabled(False)
        manifest = json.loads((bundle / "manifest.json").read_text())
        config = manifest["provenance"]["architecture"]["unet"]
        widths = [m * config["model_channels"] for m in config["channel_mult"]]
        attends = [2**i in config["attention_resolutions"] for i in range(len(widths))]
        common = {
            "in_channels": config["in_channels"],
            "block_out_channels": widths,
            "layers_per_block": config["num_res_blocks"],
            "attention_head_dim": config["num_heads"],  # which is their number, in SD 1.x
            "cross_attention_dim": config["context_dim"],
            "down_block_types": ["CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attends],
        }
        with torch.device("meta"):
            self.unet = diffusers.UNet2DConditionModel(
                sample_size=manifest["diffusion"]["latent"][-1],
                out_channels=config["out_channels"],
                up_block_types=[
                    "CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attends)],
                **common)
            self.control = diffusers.ControlNetModel(**common)
        self.control.controlnet_cond_embedding = torch.nn.Identity()
        for name, model in (("unet", self.unet), ("control", self.control)):
            fill(model.eval(), bundle / f"{name}.safetensors", config["num_res_blocks"])
        d = manifest["diffusion"]
        self.scheduler = diffusers.DDIMScheduler(
            num_train_timesteps=d["timesteps"], beta_start=d["beta_start"],
            beta_end=d["beta_end"], beta_schedule=d["beta_schedule"], clip_sample=False,
            set_alpha_to_one=False, steps_offset=1)

    def versions(self) -> dict[str, str]:
        import diffusers

        return {"diffusers": diffusers.__version__, "torch": self.torch.__version__}

    def _both(self, x: Any, t: Any, contexts: Any, hint: Any) -> Any:
        """Both branches as one batch: x (2, c, lh, lw), t (2) or one for both."""
        down, middle = self.control(x, t, contexts, controlnet_cond=hint, return_dict=False)
        return self.unet(x, t, contexts, down_block_additional_residuals=down,
                         mid_block_additional_residual=middle, return_dict=False)[0]

    def _tensors(self, inputs: Inputs) -> tuple[Any, Any, Any]:
        x, contexts, hint = (self.torch.from_numpy(inputs[k]) for k in ("x", "contexts", "hint"))
        return x, contexts, hint.expand(2, -1, -1, -1)

    def predict(self, inputs: Inputs) -> np.ndarray:
        x, contexts, hint = self._tensors(inputs)
        t = self.torch.tensor(TIMES)
        return self._both(x.expand(2, -1, -1, -1), t, contexts, hint).numpy()

    def run(self, inputs: Inputs, steps: int) -> np.ndarray:
        x, contexts, hint = self._tensors(inputs)
        self.scheduler.set_timesteps(steps)
        for t in self.scheduler.timesteps:
            guided, plain = self._both(x.expand(2, -1, -1, -1), t, contexts, hint).chunk(2)
            x = self.scheduler.step(plain + SCALE * (guided - plain), t, x).prev_sample
        return x.numpy()


def fill(model: Any, path: Path, num_res_blocks: int) -> None:
    """Puts a bundle's weights into a diffusers network; every tensor must find its place."""
    from featinv.export.pipeline import diffusers_name
    from safetensors import safe_open

    ends = {"zero_convs": "controlnet_down_blocks", "middle_block_out": "controlnet_mid_block"}
    state = {}
    with safe_open(path, "pt") as file:
        for key in file.keys():
            own = key.removeprefix("control_model.").removeprefix("model.diffusion_model.")
            first, *rest = own.split(".")
            if first in ends:
                number = rest[:1] if first == "zero_convs" else []
                name = ".".join([ends[first], *number, rest[-1]])
            else:
                name = diffusers_name(own, num_res_blocks)
            state[name] = file.get_tensor(key).float().clone()
    model.load_state_dict(state, strict=True, assign=True)


def forget_peak() -> None:
    """From here on, the kernel's peak is that of what follows."""
    Path("/proc/self/clear_refs").write_text("5")


def peak() -> float:
    """Peak resident memory in GB since `forget_peak`."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 / 1e9 for line in lines if line.startswith("VmHWM"))


def serve(pipe: Connection, side: type, bundle: Path, threads: int) -> None:
    """A child: builds its side and answers (method, arguments) with (seconds, result)."""
    own = side(bundle, threads)
    functions = {"peak": peak, "forget_peak": forget_peak}
    while (call := pipe.recv()) is not None:
        name, *arguments = call
        start = time.perf_counter()
        result = (functions.get(name) or getattr(own, name))(*arguments)
        pipe.send((time.perf_counter() - start, result))


class Child:
    """A side in a process of its own, idle between calls."""

    def __init__(self, side: type, bundle: Path, threads: int) -> None:
        spawn = multiprocessing.get_context("spawn")
        self.pipe, theirs = spawn.Pipe()
        self.process = spawn.Process(target=serve, args=(theirs, side, bundle, threads))
        self.process.start()
        theirs.close()

    def __call__(self, *call: object) -> tuple[float, Any]:
        self.pipe.send(call)
        try:
            return self.pipe.recv()
        except EOFError:
            sys.exit("a child ended early; its error is above")

    def close(self) -> None:
        try:
            self.pipe.send(None)
        except OSError:
            pass
        self.process.join()


def make_inputs(bundle: Path) -> Inputs:
    """One map, one latent and the bundle's two contexts, (2, L, D)."""
    manifest = json.loads((bundle / "manifest.json").read_text())
    f, random = manifest["features"], np.random.default_rng(0)
    with np.load(bundle / "contexts.npz") as contexts:
        pair = np.stack([contexts["default"], contexts["empty"]])
    return {
        "map": random.standard_normal((1, f["channels"], f["height"], f["width"]), np.float32),
        "x": random.standard_normal((1, *manifest["diffusion"]["latent"]), np.float32),
        "contexts": pair,
    }


def scaled(got: np.ndarray, want: np.ndarray) -> float:
    return float(np.abs(got - want).max() / np.abs(want).max())


def compare(ours: Child, theirs: Child, inputs: Inputs, steps: int) -> dict[str, float]:
    """Scaled differences between the two sides; ends the run where they are too large."""
    differences = {
        what: scaled(ours(what, inputs, *more)[1], theirs(what, inputs, *more)[1])
        for what, more in (("predict", ()), ("run", (steps,)))
    }
    for what, difference in differences.items():
        print(f"{what}: differ by {difference:.1e} (scaled)", flush=True)
        if not difference < LIMIT:
            sys.exit(f"the two sides do not compute the same: {what} differs by {difference:.1e}")
    return differences


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--steps", type=int, default=2, help="a run; a divisor of 1000")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", type=Path, default=ROOT / "bench" / "results" / "full_size.json")
    args = parser.parse_args()
    if args.steps < 1 or 1000 % args.steps:
        parser.error("--steps must divide 1000, where both sides choose the same time steps")

    manifest = json.loads((args.bundle / "manifest.json").read_text())
    inputs = make_inputs(args.bundle)
    sides = {side.__name__.lower(): Child(side, args.bundle, args.threads)
             for side in (Ours, Diffusers)}
    try:
        width = manifest["provenance"]["architecture"]["unet"]["model_channels"]
        inputs["hint"] = sides["ours"]("hint", inputs, width)[1]
        differences = compare(sides["ours"], sides["diffusers"], inputs, args.steps)
        versions: dict[str, str] = {}
        for child in sides.values():
            versions |= child("versions")[1]
            child("forget_peak")
        load = os.getloadavg()[0]
        times: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(args.repeat):
            for name, child in sides.items():
                seconds, _ = child("run", inputs, args.steps)
                times[name].append(seconds / args.steps)
                print(f"{name:10} {times[name][-1]:.3f} s/step", flush=True)
        peaks = {name: child("peak")[1] for name, child in sides.items()}
    finally:
        for child in sides.values():
            child.close()
    medians = {name: statistics.median(values) for name, values in times.items()}
    ratio = medians["diffusers"] / medians["ours"]
    for name in sides:
        print(f"{name:10} median {medians[name]:.3f} s/step, peak {peaks[name]:.2f} GB")
    print(f"ratio      {ratio:.2f}")
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps({
        "bench": "full_size", "cpu": cpu_name(), "cores": os.cpu_count(),
        "threads": args.threads, "load": {"before": load, "after": os.getloadavg()[0]},
        "versions": versions, "dtype": "fp32", "steps": args.steps, "repeat": args.repeat,
        "differences": differences, "seconds_per_step": times, "median": medians,
        "ratio": ratio, "peak_gb": peaks}, indent=1) + "\n")


if __name__ == "__main__":
    main()
