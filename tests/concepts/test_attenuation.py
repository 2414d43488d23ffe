"""Turning concepts down and up in maps, against the recorded arrays."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
import capi  # noqa: E402
from capi import COMPLEMENT, Concepts, FeatinvError  # noqa: E402

DATA = np.load(capi.REFERENCE / "mcd" / "attenuation.npz")


@pytest.fixture(scope="module")
def concepts():
    rows = [DATA[f"basis_{k}"] for k in range(3)]
    return Concepts.create(np.concatenate(rows).T, np.cumsum([0] + [len(r) for r in rows]))


@pytest.fixture(scope="module")
def maps():
    """(6, 24, 1, 1)"""
    return capi.f32(DATA["phi"])[:, :, None, None]


def number(k):
    return k if k < 3 else COMPLEMENT


def test_parts(concepts, maps):
    parts = concepts.decompose(maps)[..., 0, 0]
    want = DATA["components"].transpose(1, 0, 2)
    assert np.abs(parts - want).max() <= 1e-6 * np.abs(want).max()


@pytest.mark.parametrize("k", range(4))
@pytest.mark.parametrize("f", range(4))
def test_recorded_factors(concepts, maps, k, f):
    got = concepts.attenuate(maps, number(k), DATA["factors"][f])[..., 0, 0]
    want = DATA["phi_prime"][k, f]
    assert np.abs(got - want).max() <= 1e-6 * np.abs(want).max()


@pytest.mark.parametrize("k", range(4))
def test_factor_zero_leaves_nothing_and_one_copies(concepts, k):
    maps = np.random.default_rng(k).standard_normal((2, 24, 5, 7)).astype(np.float32)
    assert np.array_equal(concepts.attenuate(maps, number(k), 1.0).view(np.uint32),
                          maps.view(np.uint32))
    left = concepts.decompose(concepts.attenuate(maps, number(k), 0.0))[k]
    assert np.abs(left).max() <= 1e-6 * np.abs(maps).max()


def test_a_mask_weighs_positions(concepts):
    maps = np.random.default_rng(9).standard_normal((2, 24, 5, 7)).astype(np.float32)
    mask = np.random.default_rng(8).random((2, 5, 7)).astype(np.float32)
    mask[mask < 0.4] = 0
    part = concepts.decompose(maps)[1]
    for weights in (mask, mask[0]):
        got = concepts.attenuate(maps, 1, 0.25, np.ascontiguousarray(weights))
        spread = np.broadcast_to(weights, (2, 5, 7))[:, None]
        assert np.abs(got - (maps - 0.75 * spread * part)).max() <= 1e-6 * np.abs(part).max()
        still = np.broadcast_to(spread == 0, maps.shape)
        assert np.array_equal(got[still], maps[still])


@pytest.mark.parametrize("shape", [(7, 5), (5,), (3, 5, 7), (2, 5, 6)])
def test_masks_of_another_size_are_refused(concepts, shape):
    maps = np.zeros((2, 24, 5, 7), np.float32)
    with pytest.raises(FeatinvError, match="mask: shape is") as caught:
        concepts.attenuate(maps, 0, 0.25, np.zeros(shape, np.float32))
    assert caught.value.status == -15


@pytest.mark.parametrize("index, factor, mask, text", [
    (3, 0.5, None, "concept is 3: there are 0 to 2 and the complement"),
    (-2, 0.5, None, "concept is -2"),
    (0, np.nan, None, "factor is nan"),
    (0, np.inf, None, "factor is inf"),
    (0, 0.5, 1.5, "mask: 1.5 at element 0"),
    (0, 0.5, -0.5, "mask: -0.5 at element 0"),
])
def test_arguments_out_of_range_are_refused(concepts, index, factor, mask, text):
    maps = np.zeros((1, 24, 2, 2), np.float32)
    if mask is not None:
        mask = np.full((2, 2), mask, np.float32)
    with pytest.raises(FeatinvError, match=text) as caught:
        concepts.attenuate(maps, index, factor, mask)
    assert caught.value.status == -3
