#!/usr/bin/env python3
"""Measure the reference bundle on unseen scenes.

    python models/recipe/measure.py [--count 500] [--seed 1000000] [--featinv build/featinv]

Writes docs/scenes-figures.md, docs/scenes-pairs.png, bench/results/scenes.json. The command draws
the reconstructions, the class-prompt pictures and all maps and logits, those of the judge too.
What it does not do is computed here with torch from the bundle's own weights: the autoencoder's
round trip, the blur, the deterministic decoder and the losses. `--torch` draws without the command
(other noise), for tuning on seeds under 1,000,000.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nets
import numpy as np
import torch
import torch.nn.functional as F
from autoencode import gradient_magnitude, latents_of, psnr
from backbones import cosine, maps_of, other_of_class
from data import draw_set
from diffusion import loss_of_maps, sample
from direct import direct_decoder
from PIL import Image
from safetensors.torch import load_file
from scenes import CLASSES
from torch import Tensor

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Parts:
    """The modules of a bundle in torch."""

    manifest: dict[str, Any]
    unet: nets.UNet
    control: nets.ControlNet
    autoencoder: nets.AutoencoderKL
    contexts: dict[str, Tensor]
    mean: Tensor  # (C,)

    @property
    def scale(self) -> float:
        """The latent scale."""
        return self.manifest["diffusion"]["latent_scale"]


def weights(folder: Path, prefix: str, *files: str) -> dict[str, Tensor]:
    """Tensors of a bundle's files under a prefix, without it, in float32."""
    out = {}
    for name in files:
        for key, value in load_file(folder / f"{name}.safetensors").items():
            if key.startswith(prefix):
                out[key[len(prefix) :]] = value.float()
    return out


def open_parts(folder: Path) -> Parts:
    """Read the generator of a bundle into torch modules."""
    unet, autoencoder = nets.base(), nets.autoencoder()
    unet.load_state_dict(weights(folder, "model.diffusion_model.", "unet"))
    control = nets.control(unet)
    control.load_state_dict(weights(folder, "control_model.", "control", "hint"))
    autoencoder.load_state_dict(weights(folder, "first_stage_model.", "encoder", "decoder"))
    contexts = {k: torch.from_numpy(v) for k, v in np.load(folder / "contexts.npz").items()}
    for module in (unet, control, autoencoder):
        module.eval().requires_grad_(False).to(memory_format=torch.channels_last)
    return Parts(json.loads((folder / "manifest.json").read_text()), unet, control, autoencoder,
                 contexts, torch.from_numpy(np.load(folder / "features.npz")["mean"]))


def decode(parts: Parts, z: Tensor, batch: int = 100) -> Tensor:
    """Scaled latents to uint8 (N,64,64,3)."""
    return torch.cat([nets.to_bytes(parts.autoencoder.decode(z[i : i + batch] / parts.scale))
                      for i in range(0, len(z), batch)])


def write_images(folder: Path, images: np.ndarray) -> Path:
    """PNG files 00000.png ... in a new folder."""
    folder.mkdir(parents=True)
    for i, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{i:05d}.png")
    return folder


class Command:
    """Calls of the featinv command; its outputs go to a work folder."""

    def __init__(self, program: Path, bundles: dict[str, Path], work: Path, threads: int) -> None:
        self.program, self.bundles, self.work, self.threads = program, bundles, work, threads

    def call(self, *words: object) -> None:
        """Run it; a failure ends the measurement with the command's own message."""
        line = [str(self.program), *map(str, words), "-q", "--threads", str(self.threads)]
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{' '.join(line)}\n{done.stderr.strip()}")

    def maps(self, name: str, images: np.ndarray, bundle: str) -> tuple[Tensor, Tensor]:
        """Maps (N,C,h,w) and logits (N,K) of images."""
        folder = self.work / name
        if not folder.exists():
            write_images(folder, images)
        out = self.work / f"{name}-{bundle}.npz"
        self.call("extract", folder, "-m", self.bundles[bundle], "-o", out)
        with np.load(out) as f:
            return torch.from_numpy(f["features"]), torch.from_numpy(f["logits"])

    def reconstruct(self, name: str, images: np.ndarray,
                    *options: object) -> tuple[np.ndarray, dict[str, Any]]:
        """The main job: images and the summary of results.json; kept in the work folder."""
        folder, out = self.work / f"{name}-in", self.work / f"{name}-out"
        drawn, results = self.work / f"{name}.npy", self.work / f"{name}.json"
        if not folder.exists():
            write_images(folder, images)
        if not results.exists():
            self.call("reconstruct", folder, "-m", self.bundles["scenes"], "-o", out,
                      "--images-out", drawn, *options)
            results.write_bytes((out / "results.json").read_bytes())
        return np.load(drawn), json.loads(results.read_text())["summary"]

    def prompted(self, maps: Tensor, labels: np.ndarray, scale: float) -> np.ndarray:
        """Pictures from class prompts alone: the ControlNet's strength is 0."""
        out = np.empty((len(labels), 64, 64, 3), np.uint8)
        given, start, drawn = (self.work / f"{n}.npy" for n in ("given", "start", "drawn"))
        for c in np.unique(labels):
            rows = np.flatnonzero(labels == c)
            np.save(given, maps[rows].numpy())
            noise = np.random.default_rng(c).standard_normal((len(rows), *nets.LATENT))
            np.save(start, noise.astype(np.float32))
            self.call("sample", "--features", given, "-m", self.bundles["scenes"], "-o",
                      self.work / "prompts", "--strength", 0, "--hint-scale", 1, "--scale", scale,
                      "--noise", start,
                      "--context", f"class:{CLASSES[c]}", "--images-out", drawn)
            out[rows] = np.load(drawn)
        return out


def blurred(images: np.ndarray) -> np.ndarray:
    """A 5x5 box blur with repeated edges."""
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    x = F.avg_pool2d(F.pad(x, (2, 2, 2, 2), mode="replicate"), 5, 1)
    return x.round().byte().permute(0, 2, 3, 1).numpy()


def pairs(originals: np.ndarray, drawn: np.ndarray, count: int = 8, zoom: int = 2) -> Image.Image:
    """Originals above what was drawn from their maps, enlarged."""
    rows = [np.concatenate(list(x[:count]), 1) for x in (originals, drawn)]
    sheet = Image.fromarray(np.concatenate(rows, 0))
    return sheet.resize((sheet.width * zoom, sheet.height * zoom), Image.Resampling.NEAREST)


def agreement(maps: Tensor, logits: Tensor, own: Tensor, own_logits: Tensor,
              centre: Tensor) -> dict[str, float]:
    """Cosine, centred cosine and class agreement of pictures with the originals (`own`)."""
    c = centre.view(1, -1, 1, 1)
    first = own_logits.argmax(1)
    best = logits.topk(5, dim=1).indices
    return {"cosine": float(cosine(own, maps).mean()),
            "centred": float(cosine(own - c, maps - c).mean()),
            "top1": float((best[:, 0] == first).float().mean()),
            "top5": float((best == first[:, None]).any(1).float().mean())}


def losses(parts: Parts, z: Tensor, maps: Tensor) -> dict[str, float]:
    """v loss with the right map and with another image's."""
    context = parts.contexts["default"]
    right = loss_of_maps(parts.unet, parts.control, z, maps, context)
    other = loss_of_maps(parts.unet, parts.control, z, maps.roll(1, 0), context)
    return {"right": right, "shuffled": other, "ratio": other / right}


def table(rows: dict[str, dict[str, float]]) -> str:
    """The rows as a Markdown table."""
    heads = (("cosine", "cosine"), ("centred", "centred"), ("top1", "top-1"), ("top5", "top-5"),
             ("judge_cosine", "judge cosine"), ("judge_centred", "judge centred"),
             ("judge_top1", "judge top-1"), ("gradient", "gradient"), ("psnr", "PSNR dB"))
    lines = ["| pictures | " + " | ".join(h for _, h in heads) + " |",
             "| --- |" + " ---: |" * len(heads)]
    for name, row in rows.items():
        cells = [f"{row[k]:.3f}" if k != "psnr" else f"{row[k]:.1f}" if k in row else "" for k, _ in
                 heads]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def report(result: dict[str, Any]) -> str:
    """docs/scenes-figures.md"""
    rows, loss, d = result["rows"], result["loss"], result["defaults"]
    ours, floor = rows["ControlNet, locked base"], rows["floor: another image of the class"]
    top = rows["ceiling: autoencoder"]
    part = (ours["centred"] - floor["centred"]) / (top["centred"] - floor["centred"])
    goals = [("cosine", ours["cosine"], "≥ .97"),
             ("(centred − floor) / (ceiling − floor)", part, "≥ .95"),
             ("top-1", ours["top1"], "≥ .90"), ("judge top-1", ours["judge_top1"], "≥ .90"),
             ("gradient magnitude", ours["gradient"], ".85 to 1.1"),
             ("shuffled ÷ right loss", loss["ratio"], "≥ 2.2"),
             ("autoencoder, dB", top["psnr"], "≥ 29"),
             ("same-class centred floor", floor["centred"], "≤ .65")]
    lines = [
        "# The scenes bundle, measured", "",
        f"{result['count']} unseen scenes, seeds {result['seed']} and up; {d['steps']} steps, "
        f"guidance {d['scale']}, hint scale {d['hint_scale']}: the bundle's defaults. Written by "
        "`python models/recipe/measure.py`"
        f" ({result['engine']}).", "",
        "Cosine: per image the median over positions, then the mean over images. Centred: with the "
        "channel mean of the training maps removed from both. Top-1 and top-5: the class that the "
        "backbone gives the original (40 classes). The judge is a ConvNeXt with another task "
        "(object, side of the light, kind of sky: 80 classes) that no training has seen. Gradient: "
        "mean length of the luminance gradient over the originals'. A blur scores a high cosine, "
        "so read the columns together, and look at the pictures.", "", table(rows), "",
        "![The first eight scenes, above what was drawn from their maps](scenes-pairs.png)", "",
        f"Loss (v, default prompt): {loss['right']:.4f} with the right map, {loss['shuffled']:.4f} "
        f"with another image's, ratio {loss['ratio']:.2f}. Class prompts alone are recognised in "
        f"{100 * rows['class prompt only']['top1']:.0f} % (object and ground both right).",
        *([f"Two seeds of one map differ by {result['summary']['seeds_rms_difference']:.1f} grey "
           "levels (root mean square)."] if "seeds_rms_difference" in result["summary"] else []),
        "",
        "| figure | measured | target |", "| --- | ---: | ---: |",
        *[f"| {n} | {v:.3f} | {goal} |" for n, v, goal in goals], ""]
    return "\n".join(lines)


@torch.no_grad()
def measure(args: argparse.Namespace, work: Path) -> dict[str, Any]:
    """All rows."""
    scenes = draw_set(args.seed, args.count)
    images, labels = scenes.images, scenes.labels
    parts = open_parts(args.model)
    d = parts.manifest["defaults"]
    if args.scale is not None:
        d["scale"] = args.scale
    if args.steps is not None:
        d["steps"] = args.steps
    started = time.perf_counter()
    if args.torch:
        from train import load_backbone

        nets_of = {k: load_backbone(args.folder, n) for k, n in (("scenes", "classifier"),
                                                                 ("judge", "judge"))}

        def look(name: str, pictures: np.ndarray, bundle: str) -> tuple[Tensor, Tensor]:
            return maps_of(nets_of[bundle], pictures)
    else:
        command = Command(args.featinv, {"scenes": args.model, "judge": args.judge}, work,
                          args.threads)
        look = command.maps
    own = {b: look("originals", images, b) for b in ("scenes", "judge")}
    maps = own["scenes"][0]
    summary: dict[str, Any] = {}
    empty = parts.contexts["empty"]
    if args.torch:
        drawn = torch.cat([decode(parts, sample(
            parts.unet, parts.control, maps[i : i + 100], parts.contexts["default"], empty,
            (len(maps[i : i + 100]), *nets.LATENT), d["steps"], d["scale"], d["hint_scale"]))
            for i in range(0, len(maps), 100)])
        ours = drawn.numpy()
        context = torch.stack([parts.contexts[f"class:{CLASSES[c]}"] for c in labels])
        prompts = torch.cat([decode(parts, sample(
            parts.unet, None, None, context[i : i + 50], empty, (len(context[i : i + 50]),
                                                                  *nets.LATENT), d["steps"], 3.0,
            1.0, seed=i)) for i in range(0, len(maps), 50)]).numpy()
    else:
        ours, summary = command.reconstruct("ours", images)
        plain, _ = command.reconstruct("plain", images, "--hint-scale", 1)
        # Another seed of one map: what differs is what the map leaves open.
        other, _ = command.reconstruct("other", images[:100], "--seed", 101)
        summary["seeds_rms_difference"] = float(np.sqrt(np.square(
            other.astype(float) - ours[:100]).mean()))
        prompts = command.prompted(maps, labels, 3.0)
    z = latents_of(parts.autoencoder, images) * parts.scale
    mate = other_of_class(labels)
    pictures = {
        "ControlNet, locked base": ours,
        **({} if args.torch else {"the same, hint scale 1": plain}),
        "deterministic map → latent decoder": decode(parts, direct_decoder()(maps)).numpy(),
        "class prompt only": prompts,
        "floor: shuffled originals": np.roll(images, 1, 0),
        "floor: another image of the class": images[mate],
        "original, 5×5 blur": blurred(images),
        "ceiling: autoencoder": decode(parts, z).numpy(),
    }
    if not args.torch:
        pairs(images, ours).save(args.page.with_name("scenes-pairs.png"))
    centre = {"scenes": parts.mean,
              "judge": torch.from_numpy(np.load(args.judge / "features.npz")["mean"])}
    rows = {}
    original = torch.from_numpy(images)
    for k, (name, drawn_images) in enumerate(pictures.items()):
        row: dict[str, float] = {}
        for b, prefix in (("scenes", ""), ("judge", "judge_")):
            found = agreement(*look(f"row{k}", drawn_images, b), *own[b], centre[b])
            row |= {prefix + key: value for key, value in found.items()}
        shown = torch.from_numpy(np.ascontiguousarray(drawn_images))
        row["gradient"] = float((gradient_magnitude(shown).mean()
                                 / gradient_magnitude(original).mean()))
        row["psnr"] = float(psnr(shown, original).mean())
        rows[name] = {key: round(value, 4) for key, value in row.items()}
    return {"seed": args.seed, "count": args.count, "defaults": d, "rows": rows,
            "loss": {k: round(v, 5) for k, v in losses(parts, z, maps).items()},
            "engine": "torch" if args.torch else "through the command", "summary": summary,
            "manifest_provenance": parts.manifest["provenance"].get("stages"),
            "seconds": round(time.perf_counter() - started, 1)}


def main() -> None:
    """Measure and write the two files."""
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--count", type=int, default=500)
    ap.add_argument("--seed", type=int, default=1_000_000)
    ap.add_argument("--featinv", type=Path, default=ROOT / "build" / "featinv")
    ap.add_argument("--model", type=Path, default=ROOT / "models" / "scenes")
    ap.add_argument("--judge", type=Path, default=ROOT / "models" / "judge")
    ap.add_argument("--folder", type=Path, default=ROOT / "build" / "recipe")
    ap.add_argument("--threads", type=int, default=1)
    ap.add_argument("--torch", action="store_true", help="without the command, for tuning")
    ap.add_argument("--scale", type=float, help="another guidance (with --torch)")
    ap.add_argument("--steps", type=int, help="another number of steps (with --torch)")
    ap.add_argument("--work", type=Path, help="keep what the command draws, and use what is there")
    ap.add_argument("--json", type=Path, default=ROOT / "bench" / "results" / "scenes.json")
    ap.add_argument("--page", type=Path, default=ROOT / "docs" / "scenes-figures.md")
    args = ap.parse_args()
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as work:
        if args.work is not None:
            args.work.mkdir(parents=True, exist_ok=True)
        result = measure(args, args.work or Path(work))
    text = report(result)
    print(text)
    if not args.torch:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
        args.page.write_text(text)


if __name__ == "__main__":
    main()
