"""The architecture of the paper at its full size (1.3 billion parameters), with rule-made weights.

Needs 13 GB of memory and 6 GB of disk; FEATINV_SKIP_FULL=1 leaves it out.
"""

import os
import shutil
import subprocess

import capi
import numpy as np
import pytest
from capi import scaled
from recordings import kept

LATENT = (4, 32, 32)
MEMORY_LIMIT = 9e9


def available_memory() -> int:
    with open("/proc/meminfo") as lines:
        return next(int(line.split()[1]) << 10 for line in lines if "MemAvailable" in line)


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    if os.environ.get("FEATINV_SKIP_FULL"):
        pytest.skip("FEATINV_SKIP_FULL is set")
    folder = tmp_path_factory.mktemp("full")
    if available_memory() < 13e9 or shutil.disk_usage(folder).free < 8e9:
        pytest.skip("the full size needs 13 GB of memory and 8 GB of disk")
    given = os.environ.get("FEATINV_FULL_BUNDLE")
    yield given or capi.export(
        "checkpoint", "--config", capi.REFERENCE / "featinv" / "minisd-convnext.yaml",
        "--weights", "rule:", "--backbone", "none", "--map", "9,9", out=folder / "bundle",
        timeout=1500)
    shutil.rmtree(folder)


def test_sample_command(full, golden, tmp_path):
    """Latents and bytes of a five-step run through `featinv sample`, within the memory limit."""
    d = golden("full_eps")
    for name, array in {"map": d["hint"], "x": d["x_T"], "c": d["context_cond"][0],
                        "u": d["context_uncond"][0]}.items():
        np.save(tmp_path / f"{name}.npy", array)
    command = [capi.COMMAND, "sample", "-m", full, "--features", tmp_path / "map.npy",
               "--noise", tmp_path / "x.npy", "--context", tmp_path / "c.npy",
               "--uncontext", tmp_path / "u.npy", "--steps", "5", "--scale", "1.75", "--legacy",
               "--device", "cpu", "--latents-out", tmp_path / "z.npy",
               "--images-out", tmp_path / "images.npy", "-o", tmp_path / "out"]
    with open(tmp_path / "log", "w+") as log:
        child = subprocess.Popen([str(a) for a in command], stdout=log, stderr=log)
        _, status, usage = os.wait4(child.pid, 0)
        log.seek(0)
        assert os.waitstatus_to_exitcode(status) == 0, log.read()
    print(f"peak memory {usage.ru_maxrss / 1e6:.2f} GB")
    assert usage.ru_maxrss * 1024 < MEMORY_LIMIT
    assert scaled(np.load(tmp_path / "z.npy"), d["z_S5_g1.75"]) < 1e-5
    off = np.abs(np.load(tmp_path / "images.npy").astype(int) - d["image_S5_u8"].astype(int))
    assert off.max() <= 1 and (off > 0).mean() < 1e-3


def test_calls(full, golden):
    """Hint, residuals, ε and the autoencoder through the C calls."""
    d = golden("full_eps")
    session = capi.Session(full)
    sizes = [(320, 32)] * 3 + [(320, 16)] + [(640, 16)] * 2 + [(640, 8)] + [(1280, 8)] * 2
    sizes += [(1280, 4)] * 4
    hint = np.zeros((1, 320, 32, 32), np.float32)
    residuals = [np.zeros((1, c, s, s), np.float32) for c, s in sizes]
    x, t, maps = d["x_T"], d["t"], d["hint"]
    cond = session.denoise(x, t, d["context_cond"], maps, hint=hint, residuals=residuals)
    uncond = session.denoise(x, t, d["context_uncond"], maps)
    alone = session.denoise(x, t, d["context_cond"], maps, no_control=True)
    assert scaled(kept(hint, d["guided_hint"]), d["guided_hint"]) < 1e-6
    assert scaled(cond, d["eps_cond"]) < 1e-5
    assert scaled(uncond, d["eps_uncond"]) < 1e-5
    assert scaled(alone, d["eps_cond_nocontrol"]) < 1e-5
    for i, residual in enumerate(residuals):
        corner = d[f"residual_{i:02}_corner"]
        limit = 1e-5 * np.abs(residual).max()
        assert np.abs(residual[:, :8, :2, :2] - corner).max() < limit, i
        assert abs(residual.std(ddof=1) / d["residual_std"][i] - 1) < 1e-5, i
        norm = np.linalg.norm(residual.astype(np.float64))
        assert abs(norm / d["residual_norm"][i] - 1) < 1e-5, i
    assert scaled(residuals[11], d["residual_11"]) < 1e-5
    assert scaled(residuals[12], d["residual_12"]) < 1e-5
    z2, _, _ = session.sample(maps, LATENT, noise=x, steps=2, scale=1.75,
                              context=d["context_cond"][0], uncontext=d["context_uncond"][0])
    assert scaled(z2, d["z_S2_g1.75"]) < 1e-5
    image = session.decode(d["z_S5_g1.75"], np.zeros((1, 3, 256, 256), np.float32))
    assert scaled(kept(image, d["image_S5"]), d["image_S5"]) < 2e-5
    mean, logvar = session.encode(d["encode_image_u8"], LATENT)
    assert scaled(mean, d["encode_mean"]) < 1e-5
    assert scaled(logvar, d["encode_logvar"]) < 1e-5
    session.close()
