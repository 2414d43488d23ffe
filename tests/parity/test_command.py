"""The recorded runs through the command: latents, traces, bytes; and its repeatability."""

import capi
import numpy as np
import pytest
from capi import scaled


@pytest.fixture(scope="module")
def arrays(golden, tmp_path_factory):
    d, folder = golden("ddim"), tmp_path_factory.mktemp("arrays")
    for name, array in {"map": d["hint"], "x": d["x_T"], "pair": d["x_T_pair"],
                        "c": d["context_cond"][0], "u": d["context_uncond"][0],
                        "steps": d["eta1_noise_S10"]}.items():
        np.save(folder / f"{name}.npy", array)
    return folder


def sample(bundles, arrays, out, *extra, noise="x"):
    capi.run("sample", "-m", bundles("tiny"), "--features", arrays / "map.npy",
             "--noise", arrays / f"{noise}.npy", "--context", arrays / "c.npy",
             "--uncontext", arrays / "u.npy", "--device", "cpu", "-o", out / "o",
             "--latents-out", out / "z.npy", "--images-out", out / "i.npy", *extra)
    return np.load(out / "z.npy"), np.load(out / "i.npy")


CASES = [("z_S50_g1.75_guess0", ["--steps", 50, "--scale", 1.75]),
         ("z_S10_g8_guess0", ["--steps", 10, "--scale", 8]),
         ("z_S10_g1.75_guess1", ["--steps", 10, "--scale", 1.75, "--guess-mode"]),
         ("z_S5_g1_guess0", ["--steps", 5, "--scale", 1, "--spacing", "legacy"]),
         ("z_S5_g1.75_strength0.5", ["--steps", 5, "--scale", 1.75, "--strength", 0.5])]


@pytest.mark.parametrize("name,options", CASES, ids=[c[0] for c in CASES])
def test_latents(bundles, arrays, golden, tmp_path, name, options):
    z, _ = sample(bundles, arrays, tmp_path, *options)
    assert scaled(z, golden("ddim")[name]) < (3e-5 if "_g8_" in name else 1e-5)


def test_step_noise_and_trace(bundles, arrays, golden, tmp_path):
    d = golden("ddim")
    z, _ = sample(bundles, arrays, tmp_path, "--steps", 10, "--scale", 1.75, "--eta", 1,
                  "--step-noise", arrays / "steps.npy")
    assert scaled(z, d["z_S10_g1.75_eta1"]) < 1e-5
    sample(bundles, arrays, tmp_path, "--steps", 5, "--scale", 1.75,
           "--trace", tmp_path / "trace.npz")
    with np.load(tmp_path / "trace.npz") as trace:
        x, x0 = (trace[k].reshape(5, 4, 32, 32) for k in ("x", "x0"))
    assert scaled(x, d["trace_x_S5_g1.75"]) < 1e-5
    assert scaled(x0, d["trace_x0_S5_g1.75"]) < 1e-5


def test_pair(bundles, arrays, golden, tmp_path):
    z, _ = sample(bundles, arrays, tmp_path, "--steps", 5, "--scale", 1.75, "--samples", 2,
                  noise="pair")
    assert scaled(z, golden("ddim")["z_S5_g1.75_pair"]) < 1e-5


def test_decoded_bytes(bundles, golden, tmp_path):
    d = golden("decode")
    np.save(tmp_path / "z.npy", d["z"])
    for legacy in ([], ["--legacy"]):
        capi.run("sample", "-m", bundles("tiny"), "--latents-in", tmp_path / "z.npy", "--device",
                 "cpu", "-o", tmp_path / "o", "--images-out", tmp_path / "i.npy", *legacy)
        image = d["image"].transpose(0, 2, 3, 1) * np.float32(127.5) + np.float32(127.5)
        exact = np.clip(image, 0, 255)
        wanted = d["image_u8"] if legacy else np.rint(exact)
        off = np.abs(np.load(tmp_path / "i.npy").astype(int) - wanted)
        assert off.max() <= 1 and (off > 0).mean() < 1e-3


def test_the_same_twice(bundles, arrays, tmp_path):
    runs = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        runs.append(sample(bundles, arrays, tmp_path / name, "--steps", 5, "--eta", 0.5))
    assert np.array_equal(runs[0][0], runs[1][0]) and np.array_equal(runs[0][1], runs[1][1])
