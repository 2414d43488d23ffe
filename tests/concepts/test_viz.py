"""Difference maps against the recorded ones, and FeatInv-Viz on the scenes bundle."""

from __future__ import annotations

import ctypes as c
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "support"))
import capi  # noqa: E402

SCENES = ROOT / "models" / "scenes"
EXAMPLES = ("ball-on-water", "tree-on-water")


@pytest.fixture(scope="module")
def recorded():
    with np.load(capi.REFERENCE / "mcd" / "attenuation.npz") as archive:
        return {name: archive[name] for name in archive.files}


@pytest.fixture(scope="module")
def session():
    opened = capi.Session(SCENES, threads=1)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def maps(session):
    from PIL import Image

    images = [np.asarray(Image.open(ROOT / "models" / "examples" / f"{name}.png").convert("RGB"))
              for name in EXAMPLES]
    return session.extract(images, (96, 8, 8))[0]


@pytest.fixture(scope="module")
def concepts():
    """Two orthonormal subspaces of 4 and 3 dimensions."""
    basis = np.linalg.qr(np.random.default_rng(0).standard_normal((96, 7)))[0]
    handle, bases = c.c_void_p(), capi.view(np.ascontiguousarray(basis))
    capi.check(capi.lib.featinv_concepts_create(c.byref(handle), capi.ref(bases),
                                                (c.c_int32 * 3)(0, 4, 7), c.c_int32(2),
                                                c.c_int32(1)))
    yield handle
    capi.lib.featinv_concepts_release(handle)


@pytest.mark.parametrize("normalize", ["max", "minmax"])
def test_recorded_maps(recorded, normalize):
    """To the bit of float32, the mask and the maximum exactly."""
    got, mask, maximum = capi.difference_map(recorded["u8_original"], recorded["u8_attenuated"],
                                             normalize)
    wanted = recorded[f"u8_norm_{normalize}"]
    assert np.array_equal(got, wanted.astype(np.float32))
    assert np.array_equal(mask, recorded[f"u8_mask_{normalize}"])
    assert maximum == recorded["u8_median"].max()
    assert 0.0 < float(recorded[f"u8_margin_{normalize}"])  # no pixel on the threshold itself


def test_recorded_distances(recorded):
    """Each pair alone is its own median."""
    for k in range(5):
        pair = slice(k, k + 1)
        wanted = recorded["u8_diff"][k]
        got, _, maximum = capi.difference_map(recorded["u8_original"][pair],
                                              recorded["u8_attenuated"][pair])
        assert maximum == wanted.max()
        assert np.array_equal(got, (wanted / wanted.max()).astype(np.float32))


def test_scope_is_what_numpy_says(session, maps):
    with np.load(SCENES / "features.npz") as archive:
        kept = {name: archive[name].astype(np.float64) for name in archive.files}
    norm, residual = capi.scope(session.model, maps)
    rows = maps.astype(np.float64).reshape(len(maps), 96, 64)
    x = rows - kept["mean"][:, None]
    left = x - np.einsum("cp,dp,ndk->nck", kept["directions"], kept["directions"], x)
    for got, values, table in ((norm, np.linalg.norm(rows, axis=1).mean(1), kept["norms"]),
                               (residual, np.linalg.norm(left, axis=1).mean(1), kept["residuals"])):
        assert np.allclose(got, np.interp(values, table, np.arange(101)), atol=1e-6)
        assert (got > 0).all() and (got < 100).all()


def test_scope_tells_strange_maps(session, maps):
    noise = np.random.default_rng(1).standard_normal(maps.shape).astype(np.float32)
    noise *= np.linalg.norm(maps) / np.linalg.norm(noise)
    assert (capi.scope(session.model, noise)[1] == 100).all()
    assert (capi.scope(session.model, 2 * maps)[0] == 100).all()
    assert (capi.scope(session.model, np.ascontiguousarray(0.5 * maps))[0] == 0).all()


def test_visualize_is_its_parts(session, maps, concepts):
    steps = {"steps": 3}
    got = capi.visualize(session, concepts, [1, -1], maps, (64, 64), pairs=3, sampling=steps)
    drawn = session.sample(maps, (4, 16, 16), image=(64, 64, 3), samples=3, **steps)[1]
    drawn = drawn.reshape(2, 3, 64, 64, 3)
    for n in range(2):
        for k in range(2):
            changed = session.sample(got["altered_maps"][n, k][None], (4, 16, 16),
                                     image=(64, 64, 3), samples=3, **steps)[1]
            # the last bits of a network change with the number of lanes in a batch
            assert np.abs(got["altered"][n, k].astype(int) - changed).max() <= 1
            assert np.abs(got["originals"][n].astype(int) - drawn[n]).max() <= 1
            heat, mask, maximum = capi.difference_map(got["originals"][n], got["altered"][n, k])
            assert np.array_equal(got["map"][n, k], heat) and got["maxima"][n, k] == maximum
            assert np.array_equal(got["mask"][n, k].astype(bool), mask)
            assert maximum > 0.02 and 0 < mask.mean() < 1


def test_factor_one_shows_nothing(session, maps, concepts):
    got = capi.visualize(session, concepts, [0], maps, (64, 64), pairs=3, factor=1.0,
                         sampling={"steps": 2})
    assert np.array_equal(got["altered_maps"][:, 0], maps)
    assert np.array_equal(got["altered"][:, 0], got["originals"])
    assert not got["map"].any() and got["mask"].all() and not got["maxima"].any()


def test_threshold_from_the_null(session, maps, concepts):
    """A random concept against random subspaces: pixels above the null's 95th percentile are few or
    many as chance has it, but the threshold is exactly that percentile."""
    got = capi.visualize(session, concepts, [0], maps[:1], (64, 64), pairs=3, threshold=-1.0,
                         null_draws=4, null_seed=3, sampling={"steps": 2})
    null = got["null_map"][0, 0].astype(np.float64)
    threshold = np.percentile(null, 95)
    clear = np.abs(got["map"][0, 0] - threshold) > 1e-6
    assert np.array_equal(got["mask"][0, 0].astype(bool)[clear],
                          (got["map"][0, 0] < threshold)[clear])
    assert 0.2 < null.max() < 5  # equal energy: of the same order as the concept's own
