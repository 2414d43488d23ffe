"""featinv_image_resize is bit-equal to Pillow's Image.resize."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

import core

FILTERS = {False: Image.Resampling.BILINEAR, True: Image.Resampling.BICUBIC}


def assert_equal(pixels: np.ndarray, width: int, height: int, bicubic: bool) -> None:
    ours = core.image_resize(pixels, width, height, bicubic)
    theirs = np.asarray(Image.fromarray(pixels).resize((width, height), FILTERS[bicubic]))
    assert np.array_equal(ours, theirs), (
        f"{pixels.shape[1]}x{pixels.shape[0]} to {width}x{height}: "
        f"{np.count_nonzero(ours != theirs)} bytes differ")


@pytest.mark.parametrize("bicubic", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_random_sizes(bicubic: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(150):
        size = np.exp(rng.uniform(0, np.log(300), 4)).astype(int)
        pixels = rng.integers(0, 256, (size[0], size[1], 3), np.uint8)
        if rng.random() < 0.5:  # hard edges overshoot in bicubic
            pixels = (pixels > 127).astype(np.uint8) * 255
        assert_equal(pixels, int(size[2]), int(size[3]), bicubic)


@pytest.mark.parametrize("bicubic", [False, True])
@pytest.mark.parametrize("before, after", [
    ((1, 1), (1, 1)), ((1, 1), (7, 5)), ((64, 64), (1, 1)), ((1, 500), (3, 2)),
    ((500, 1), (2, 300)), ((64, 48), (64, 20)), ((64, 48), (20, 48)), ((64, 48), (64, 48)),
    ((64, 48), (65, 49)), ((2000, 3), (1, 3)), ((3, 2000), (3000, 1)), ((1600, 1200), (288, 288)),
    ((2, 2), (1000, 1000)), ((256, 256), (288, 288)), ((5000, 4), (7, 4)),
])
def test_named_sizes(bicubic: bool, before: tuple[int, int], after: tuple[int, int]) -> None:
    pixels = np.random.default_rng(7).integers(0, 256, (before[1], before[0], 3), np.uint8)
    assert_equal(pixels, *after, bicubic)


def test_rows_apart() -> None:
    pixels = np.random.default_rng(8).integers(0, 256, (40, 50, 3), np.uint8)
    part = pixels[3:33, 5:42]
    ours = core.image_resize(part, 17, 23, True)
    theirs = Image.fromarray(np.ascontiguousarray(part)).resize((17, 23), FILTERS[True])
    assert np.array_equal(ours, np.asarray(theirs))


@pytest.mark.parametrize("width, height, filter_", [(0, 4, 0), (4, 0, 0), (-1, 4, 0), (4, 4, 2)])
def test_refused(width: int, height: int, filter_: int) -> None:
    pixels = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(core.Refused) as refused:
        core.check(core._lib.featinv_image_resize(pixels.ctypes.data, width, height,
                                                  core.as_image(pixels), filter_))
    assert refused.value.status == "ARGUMENT"
