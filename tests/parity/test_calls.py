"""Every recorded array of the published implementation, through the C calls.

Limits are those that reference/featinv suggests: measured float32 noise with room. Of some fields
the recording keeps every third row and column (`kept`); the results themselves are always whole.
"""

import capi
import numpy as np
import pytest
from capi import scaled
from recordings import kept

LATENT = (4, 32, 32)


@pytest.mark.parametrize("name", ["tiny", "vit", "nhwc"])
def test_hint_encoder(sessions, golden, name):
    data = golden("hint")
    key = "nchw" if name == "tiny" else name
    maps, wanted = data[f"{key}_in"], data[f"{key}_out"]
    if key == "vit":  # one class token, then a square grid, row by row
        side = round((maps.shape[1] - 1) ** 0.5)
        maps = maps[:, 1:].transpose(0, 2, 1).reshape(len(maps), -1, side, side)
    if key == "nhwc":
        maps = maps.transpose(0, 3, 1, 2)
    hint = np.zeros(wanted.shape, np.float32)
    sessions(name).denoise(None, None, None, maps, hint=hint, prediction=False)
    assert scaled(hint, wanted) < 1e-6


GUESS = [0.825 ** (12 - i) for i in range(13)]
ONLY_MID = [0.0] * 12 + [1.0]
CASES = [("eps", {}), ("eps_nocontrol", {"no_control": True}),
         ("eps_strength05", {"strengths": [0.5] * 13}), ("eps_guess", {"strengths": GUESS}),
         ("eps_only_mid", {"strengths": ONLY_MID})]


CASES = [("tiny", "eps", *case) for case in CASES] + [
    ("wide", "wide_eps", *case) for case in CASES[:2]]


@pytest.mark.parametrize("bundle,file,name,settings", CASES)
def test_eps(sessions, golden, bundle, file, name, settings):
    d = golden(file)
    eps = sessions(bundle).denoise(d["x_t"], d["t"], d["context"], d["hint"], **settings)
    assert scaled(eps, d[name]) < 1e-5


def test_hint_and_residuals(sessions, golden):
    d = golden("eps")
    sizes = [(32, 32)] * 3 + [(32, 16)] + [(64, 16)] * 2 + [(64, 8)] + [(32, 8)] * 2 + [(32, 4)] * 4
    hint = np.zeros((3, 32, 32, 32), np.float32)
    residuals = [np.zeros((3, c, s, s), np.float32) for c, s in sizes]
    sessions("tiny").denoise(d["x_t"], d["t"], d["context"], d["hint"], hint=hint,
                             residuals=residuals)
    assert scaled(kept(hint, d["guided_hint"]), d["guided_hint"]) < 1e-6
    for i, residual in enumerate(residuals):
        wanted = d[f"residual_{i:02}"]
        assert scaled(kept(residual, wanted), wanted) < 1e-5, i


def test_wide_time_and_residuals(sessions, golden):
    d = golden("wide_eps")
    eps = sessions("wide").denoise(d["x_t"], d["t"][::-1].copy(), d["context"], d["hint"])
    assert scaled(eps, d["eps_t_swapped"]) < 1e-5
    assert scaled(eps, d["eps"]) > 0.05  # the time step matters
    x = d["x_t"]
    sizes = [(64, 32)] * 3 + [(64, 16)] + [(128, 16)] * 2 + [(128, 8)] + [(256, 8)] * 2
    sizes += [(256, 4)] * 4
    residuals = [np.zeros((len(x), c, s, s), np.float32) for c, s in sizes]
    sessions("wide").denoise(x, d["t"], d["context"], d["hint"], residuals=residuals)
    assert scaled(residuals[12], d["residual_12"]) < 1e-5
    spread = np.array([[r[b].std(ddof=1) for r in residuals] for b in range(len(x))])
    assert np.abs(spread - d["residual_std"]).max() < 1e-4


DDIM = [(s, g, guess) for s in (5, 10, 50) for g in ("1", "1.75", "8") for guess in (0, 1)]


def ddim(session, d, **settings):
    return session.sample(d["hint"], LATENT, context=d["context_cond"][0],
                          uncontext=d["context_uncond"][0], **settings)


@pytest.mark.parametrize("steps,scale,guess", DDIM)
def test_ddim(sessions, golden, steps, scale, guess):
    d = golden("ddim")
    z, _, _ = ddim(sessions("tiny"), d, noise=d["x_T"], steps=steps, scale=float(scale),
                   guess_mode=guess)
    assert scaled(z, d[f"z_S{steps}_g{scale}_guess{guess}"]) < (3e-5 if scale == "8" else 1e-5)


@pytest.mark.parametrize("guess", [0, 1])
def test_ddim_strength(sessions, golden, guess):
    d = golden("ddim")
    z, _, _ = ddim(sessions("tiny"), d, noise=d["x_T"], steps=5, scale=1.75, strength=0.5,
                   guess_mode=guess)
    name = "z_S5_g1.75_guess1_strength0.5" if guess else "z_S5_g1.75_strength0.5"
    assert scaled(z, d[name]) < 1e-5


def test_ddim_pair_shares_the_hint(sessions, golden):
    d = golden("ddim")
    z, _, _ = ddim(sessions("tiny"), d, noise=d["x_T_pair"], samples=2, steps=5, scale=1.75)
    assert scaled(z, d["z_S5_g1.75_pair"]) < 1e-5


def test_ddim_trace(sessions, golden):
    d = golden("ddim")
    _, _, (x, x0) = ddim(sessions("tiny"), d, noise=d["x_T"], steps=5, scale=1.75, trace=5)
    wanted = d["trace_x_S5_g1.75"].reshape(x.shape)
    assert scaled(x, wanted) < 1e-5
    assert scaled(x0, d["trace_x0_S5_g1.75"].reshape(x.shape)) < 1e-5


def test_ddim_eta(sessions, golden):
    d = golden("ddim")
    z, _, _ = ddim(sessions("tiny"), d, noise=d["x_T"], steps=10, scale=1.75, eta=1.0,
                   step_noise=d["eta1_noise_S10"])
    assert scaled(z, d["z_S10_g1.75_eta1"]) < 1e-5


def test_batches_agree(sessions, bundles, golden):
    """A result does not depend on its neighbours beyond the rounding of another batch size."""
    d = golden("ddim")
    maps = np.concatenate([d["hint"], golden("eps")["hint"]])
    settings = dict(steps=5, scale=1.75, context=d["context_cond"][0],
                    uncontext=d["context_uncond"][0], samples=2)
    whole, _, _ = sessions("tiny").sample(maps, LATENT, **settings)
    single = capi.Session(bundles("tiny"), batch=3)
    again, _, _ = single.sample(maps, LATENT, **settings)
    single.close()
    assert scaled(again, whole) < 1e-5
    same, _, _ = sessions("tiny").sample(maps, LATENT, **settings)
    assert np.array_equal(same, whole)


def test_decode(sessions, golden):
    d = golden("decode")
    image = sessions("tiny").decode(d["z"], np.zeros((2, 3, 256, 256), np.float32))
    assert scaled(kept(image, d["image"]), d["image"]) < 2e-5
    bytes_ = sessions("tiny").decode(d["z"], np.zeros_like(d["image_u8"]), legacy=True)
    off = np.abs(bytes_.astype(int) - d["image_u8"].astype(int))
    assert off.max() <= 1 and (off > 0).mean() < 1e-3
    rounded = sessions("tiny").decode(d["z"], np.zeros_like(d["image_u8"]))
    exact = np.clip(np.rint(d["image"] * 127.5 + 127.5), 0, 255)
    off = np.abs(kept(rounded.transpose(0, 3, 1, 2).astype(int), exact) - exact)
    assert off.max() <= 1 and (off > 0).mean() < 1e-3
    small = sessions("tiny").decode(d["z_small"], np.zeros_like(d["image_small"]))
    assert scaled(small, d["image_small"]) < 2e-5


def test_wide_decode(sessions, golden):
    d = golden("wide_eps")
    image = sessions("wide").decode(d["z_small"], np.zeros_like(d["image_small"]))
    assert scaled(image, d["image_small"]) < 2e-5


def test_encode(sessions, golden):
    d = golden("encode")
    mean, logvar = sessions("tiny").encode(d["image_u8"], LATENT)
    assert scaled(mean, d["mean"]) < 1e-5
    assert scaled(logvar, d["logvar"]) < 1e-5
    latent = 0.18215 * (mean + np.exp(0.5 * logvar) * d["noise"])
    assert scaled(latent, d["latent"]) < 1e-5
