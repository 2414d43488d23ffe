"""The recorded runs through the command: latents, traces, bytes; and its repeatability."""

import re

import capi
import numpy as np
import pytest
from capi import scaled
from recordings import kept


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


def command_line(name):
    """z_S10_g1.75_guess1_strength0.5 → its options; absent parts keep the recording's defaults."""
    words = dict(re.findall(r"_([A-Za-z]+)([\d.]+)", name))
    options = ["--steps", words["S"], "--scale", words["g"]]
    if words.get("guess") == "1":
        options.append("--guess-mode")
    return options + (["--strength", words["strength"]] if "strength" in words else [])


CASES = [f"z_S{s}_g{g}_guess{m}" for s in (5, 10, 50) for g in ("1", "1.75", "8") for m in (0, 1)]
CASES += ["z_S5_g1.75_strength0.5", "z_S5_g1.75_guess1_strength0.5"]
ELSEWHERE = {"z_S5_g1.75_pair", "z_S10_g1.75_eta1"}  # have tests of their own below


def test_every_recorded_latent_has_a_case(golden):
    assert {n for n in golden("ddim") if n.startswith("z_")} == {*CASES, *ELSEWHERE}


@pytest.mark.parametrize("name", CASES)
def test_latents(bundles, arrays, golden, tmp_path, name):
    z, _ = sample(bundles, arrays, tmp_path, *command_line(name))
    assert scaled(z, golden("ddim")[name]) < (3e-5 if "_g8_" in name else 1e-5)


def test_legacy_spacing_lists_the_same_steps(bundles, arrays, golden, tmp_path):
    """5 divides 1000, so the published spacing and the default one agree."""
    name = "z_S5_g1_guess0"
    z, _ = sample(bundles, arrays, tmp_path, *command_line(name), "--spacing", "legacy")
    assert scaled(z, golden("ddim")[name]) < 1e-5


# The first step of so many, with its time step; rows of the recordings that were made at it.
FIRST_STEP = [("tiny", "eps", 1, 1, "eps", 0), ("tiny", "eps", 2, 501, "eps", 1),
              ("wide", "wide_eps", 1, 1, "eps", 0), ("wide", "wide_eps", 2, 501, "eps", 1),
              ("wide", "wide_eps", 1, 1, "eps_t_swapped", 2),
              ("wide", "wide_eps", 2, 501, "eps_nocontrol", 1)]


@pytest.mark.parametrize("bundle,file,steps,t,name,row", FIRST_STEP)
def test_prediction(bundles, golden, tmp_path, bundle, file, steps, t, name, row):
    """ε from the trace of x̂0: x = √a x̂0 + √(1 − a) ε."""
    d = golden(file)
    for array in ("x_t", "hint", "context"):
        np.save(tmp_path / f"{array}.npy", d[array][row:row + 1])
    np.save(tmp_path / "context.npy", d["context"][row])
    strength = 0 if name == "eps_nocontrol" else 1
    capi.run("sample", "-m", bundles(bundle), "--features", tmp_path / "hint.npy", "--noise",
             tmp_path / "x_t.npy", "--context", tmp_path / "context.npy", "--steps", steps,
             "--spacing", "legacy", "--scale", 1, "--strength", strength, "--device", "cpu",
             "-o", tmp_path / "o", "--trace", tmp_path / "trace.npz")
    with np.load(tmp_path / "trace.npz") as trace:
        x0 = trace["x0"][0].astype(np.float64)
    a = float(golden("ddim")["alphas_cumprod"][t])
    eps = (d["x_t"][row].astype(np.float64) - a ** 0.5 * x0) / (1 - a) ** 0.5
    assert scaled(eps[0], d[name][row]) < 1e-5


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


# Bundle, recording, its latents and floats; the bytes are recorded where an _u8 array is there, and
# follow from the floats elsewhere, of which every third row and column may be all (`kept`).
DECODED = [("tiny", "decode", "z", "image"), ("tiny", "decode", "z_small", "image_small"),
           ("wide", "wide_eps", "z_small", "image_small")]


@pytest.mark.parametrize("bundle,file,latents,image", DECODED)
@pytest.mark.parametrize("legacy", [False, True])
def test_decoded_bytes(bundles, golden, tmp_path, bundle, file, latents, image, legacy):
    d = golden(file)
    np.save(tmp_path / "z.npy", d[latents])
    capi.run("sample", "-m", bundles(bundle), "--latents-in", tmp_path / "z.npy", "--device",
             "cpu", "-o", tmp_path / "o", "--images-out", tmp_path / "i.npy",
             *["--legacy"] * legacy)
    exact = np.clip(d[image] * np.float32(127.5) + np.float32(127.5), 0, 255)
    wanted = np.trunc(exact) if legacy else np.rint(exact)
    if legacy and f"{image}_u8" in d:
        wanted = d[f"{image}_u8"].transpose(0, 3, 1, 2)
    got = np.load(tmp_path / "i.npy").astype(int).transpose(0, 3, 1, 2)
    off = np.abs(kept(got, wanted) - wanted)
    assert off.max() <= 1 and (off > 0).mean() < 1e-3


def test_the_same_twice(bundles, arrays, tmp_path):
    runs = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        runs.append(sample(bundles, arrays, tmp_path / name, "--steps", 5, "--eta", 0.5))
    assert np.array_equal(runs[0][0], runs[1][0]) and np.array_equal(runs[0][1], runs[1][1])
