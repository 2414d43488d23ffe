"""The command over a small bundle for the fake backend (tests/fake): a run takes milliseconds."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("FEATINV_BUILD", ROOT / "build"))
REFERENCE = Path(os.environ.get("FEATINV_REFERENCE", ROOT / "tests" / "data"))
COMMAND = BUILD / "featinv"
FAKE = BUILD / "tests" / "libfake_backend.so"
MAP, LATENT, IMAGE = (3, 2, 2), (4, 6, 5), (3, 12, 10)  # C, H, W
CLASSES = list("abcdefg")


def safetensors(keys) -> bytes:
    """A file of float32 tensors (2, 2)."""
    header = {key: {"dtype": "F32", "shape": [2, 2], "data_offsets": [16 * i, 16 * i + 16]}
              for i, key in enumerate(keys)}
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(16 * len(keys))


def make_bundle(folder: Path, backbone=True, generator=True, **diffusion) -> Path:
    """A bundle of programs that the fake backend runs; keys of the diffusion section as given."""
    folder.mkdir()
    names = ["backbone.ts", "head.ts"] if backbone else []
    if generator:
        names += ["hint.ts", "encoder.ts", "decoder.ts"]
        (folder / "unet.ts").write_text("model.a 2 2\nmodel.b 2 2\n")
        (folder / "control.ts").write_text("control.a 2 2\nmodel.a 2 2\n")
        (folder / "unet.safetensors").write_bytes(safetensors(["model.a", "model.b", "control.a"]))
        np.savez(folder / "contexts.npz", empty=np.zeros((2, 5), np.float32),
                 default=np.ones((2, 5), np.float32))
    for name in names:
        (folder / name).write_text("\n")
    if backbone:
        (folder / "classes.json").write_text(json.dumps(CLASSES))
        np.savez(folder / "features.npz", mean=np.full(MAP[0], 0.1, np.float32))
    write_manifest(folder, backbone, generator, diffusion)
    return folder


def write_manifest(folder: Path, backbone=True, generator=True, diffusion=None) -> None:
    files = {p.name: {"sha256": hashlib.sha256(p.read_bytes()).hexdigest(),
                      "bytes": p.stat().st_size}
             for p in sorted(folder.iterdir()) if p.name != "manifest.json"}
    manifest = {
        "format": "featinv-bundle", "version": 1, "name": "fake", "backend": "torchscript",
        "files": files,
        "features": {"layout": "nchw", "prefix_tokens": 0, "channels": MAP[0], "height": MAP[1],
                     "width": MAP[2], "layer": "last", "pooled": False},
        "provenance": {}}
    if backbone:
        manifest["backbone"] = {
            "name": "mean", "head": "linear",
            "input": {"height": 4, "width": 4, "channels": 3, "mean": [0, 0, 0],
                      "std": [0.2, 0.2, 0.2], "interpolation": "bilinear", "crop": 1.0}}
    if generator:
        manifest["diffusion"] = {
            "prediction": "epsilon", "timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012,
            "beta_schedule": "scaled_linear", "latent": LATENT, "latent_scale": 0.5,
            "image": IMAGE, **(diffusion or {})}
        manifest["defaults"] = {"steps": 5, "scale": 2.5, "hint_scale": 1.0, "seed": 42,
                                "context": "default", "uncontext": "empty"}
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.fixture(scope="session")
def environment():
    return dict(os.environ, FEATINV_BACKEND=str(FAKE), OMP_WAIT_POLICY="passive")


@pytest.fixture(scope="session")
def bundle(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("bundles") / "fake")


@pytest.fixture(scope="session")
def featinv(environment):
    """Runs the command; an error must be one line that begins with `featinv: `."""

    def run(*args, expect=0, env=None, **kwargs):
        result = subprocess.run([str(COMMAND), *map(str, args)], capture_output=True,
                                env=dict(environment, **(env or {})), timeout=60, **kwargs)
        result.out = result.stdout.decode()
        result.err = result.stderr.decode("utf-8", "replace")
        assert result.returncode == expect, (args, result.returncode, result.out, result.err)
        for line in result.err.splitlines():
            assert line.startswith("featinv: "), (args, result.err)
        if expect not in (0, 130):
            assert result.err, (args, "fails without a word")
        if expect == 0:
            assert not result.err, (args, result.err)
        return result

    return run


@pytest.fixture
def photos(tmp_path):
    """Seven small images of different sizes and grey levels in a folder, and their paths."""
    folder = tmp_path / "photos"
    folder.mkdir()
    paths = []
    for i in range(7):
        image = Image.fromarray(np.full((5 + i, 9 - i, 3), 20 + 30 * i, np.uint8))
        paths.append(folder / f"p{i}.{'jpg' if i == 3 else 'png'}")
        image.save(paths[-1])
    return paths


@pytest.fixture
def maps(tmp_path):
    """Three random maps in a .npy file."""
    path = tmp_path / "maps.npy"
    np.save(path, np.random.default_rng(0).normal(size=(3, *MAP)).astype(np.float32))
    return path


def results(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())


def tree(folder: Path) -> dict:
    """Every file of a folder and its bytes."""
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}


def pictures(folder: Path) -> dict:
    return {name: data for name, data in tree(folder).items() if name.endswith(".png")}


def timeless(folder: Path) -> dict:
    """results.json without what differs between equal runs."""
    root = results(folder)
    for entry in [root["summary"], *root["items"]]:
        for key in ("seconds", "seconds_per_sample"):
            entry.pop(key, None)
    return root


def orthonormal(rng, channels: int, dimension: int) -> np.ndarray:
    """Columns of a random subspace, (channels, dimension)."""
    return np.linalg.qr(rng.normal(size=(channels, dimension)))[0]
