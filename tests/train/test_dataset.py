"""Training pairs of featinv_dataset against torchvision and Pillow.

The random numbers are the project's own generator, written here a second time; torchvision's
RandomResizedCrop decides on the crop with them, Pillow crops, resizes and flips.
"""

from __future__ import annotations

import ctypes as c
import math
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.transforms.transforms as transforms
from PIL import Image
from torchvision.transforms import functional

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
import capi  # noqa: E402

FILTERS = {0: Image.Resampling.BILINEAR, 1: Image.Resampling.BICUBIC}
ORDER, AUGMENT, ROUNDS = 48, 49, 12
SIZES = [(61, 47), (40, 90), (33, 33), (200, 9), (9, 160), (1, 1), (97, 64)]


class Options(c.Structure):
    _fields_ = [("struct_size", c.c_uint32), ("batch", c.c_int32), ("image_height", c.c_int32),
                ("image_width", c.c_int32), ("view_height", c.c_int32),
                ("view_width", c.c_int32), ("filter", c.c_int32), ("augment", c.c_int32),
                ("crop", c.c_double), ("scale_min", c.c_double), ("scale_max", c.c_double),
                ("ratio_min", c.c_double), ("ratio_max", c.c_double),
                ("flip_horizontal", c.c_double), ("flip_vertical", c.c_double),
                ("legacy_target", c.c_int32), ("shuffle", c.c_int32), ("threads", c.c_int32),
                ("prefetch", c.c_int32), ("seed", c.c_uint64), ("max_pixels", c.c_int64)]


lib = capi.lib
lib.featinv_dataset_size.restype = lib.featinv_dataset_problems.restype = c.c_int64
lib.featinv_dataset_problem.restype = c.c_char_p


class Dataset:
    """featinv_dataset over files; settings are fields of the options."""

    def __init__(self, paths: list[Path], **settings) -> None:
        self.options, self.handle = Options(), c.c_void_p()
        capi.check(lib.featinv_dataset_options_init(
            c.byref(self.options), c.c_size_t(c.sizeof(Options)), None))
        for name, value in settings.items():
            assert hasattr(self.options, name), name
            setattr(self.options, name, value)
        names = (c.c_char_p * len(paths))(*[str(path).encode() for path in paths])
        capi.check(lib.featinv_dataset_create(c.byref(self.handle), names,
                                              c.c_int64(len(paths)), c.byref(self.options)))

    def __enter__(self) -> Dataset:
        return self

    def __exit__(self, *_) -> None:
        lib.featinv_dataset_destroy(self.handle)

    def batch(self, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """images (n, h, w, 3), views (n, H, W, 3), indices (n)."""
        o = self.options
        images = np.zeros((o.batch, o.image_height, o.image_width, 3), np.uint8)
        views = np.zeros((o.batch, o.view_height, o.view_width, 3), np.uint8)
        indices = np.zeros(o.batch, np.int64)
        i, v = capi.view(images), capi.view(views)
        capi.check(lib.featinv_dataset_batch(
            capi.ref(i), capi.ref(v), indices.ctypes.data_as(c.POINTER(c.c_int64)), self.handle,
            c.c_int64(k)))
        return images, views, indices

    def problems(self) -> list[tuple[int, str]]:
        found, index = [], c.c_int64()
        for i in range(lib.featinv_dataset_problems(self.handle)):
            text = lib.featinv_dataset_problem(c.byref(index), self.handle, c.c_int64(i))
            found.append((index.value, text.decode()))
        return found


# ---- the generator, a second time ---------------------------------------------------------------


def philox(counter: list[int], seed: int) -> list[int]:
    """Philox4x32-10 (Salmon et al. 2011)."""
    mask, (a, b, x, y), (k, m) = 2**32 - 1, counter, (seed & (2**32 - 1), seed >> 32)
    for _ in range(10):
        p, q = 0xD2511F53 * a, 0xCD9E8D57 * x
        a, b, x, y = (q >> 32) ^ b ^ k, q & mask, (p >> 32) ^ y ^ m, p & mask
        k, m = (k + 0x9E3779B9) & mask, (m + 0xBB67AE85) & mask
    return [a, b, x, y]


def order(seed: int, epoch: int, count: int, place: int) -> int:
    """A Feistel network over pairs of numbers below the root of count, walked into range."""
    side = math.isqrt(count - 1) + 1
    while True:
        left, right = divmod(place, side)
        for r in range(ROUNDS):
            word = philox([right, epoch, ORDER, r], seed)[0]
            left, right = right, (left + (word * side >> 32)) % side
        place = left * side + right
        if place < count:
            return place


class Draws:
    """The numbers of one place, in the order drawn: 64 bits each, two a block."""

    def __init__(self, seed: int, epoch: int, image: int) -> None:
        self.seed, self.epoch, self.image, self.words, self.block = seed, epoch, image, [], 0

    def word(self) -> int:
        if not self.words:
            self.words = philox([self.image, self.epoch, AUGMENT, self.block], self.seed)
            self.block += 1
        high, low, *self.words = self.words
        return high << 32 | low

    def unit(self) -> float:
        return (self.word() >> 11) / 2**53

    def below(self, bound: int) -> int:
        surplus = 2**64 % bound
        while (word := self.word()) > 2**64 - 1 - surplus:
            pass
        return word % bound

    def stand_in(self) -> types.SimpleNamespace:
        """What RandomResizedCrop asks of torch, over these numbers in double."""
        boxed = lambda value: types.SimpleNamespace(item=lambda: value)  # noqa: E731
        uniform = types.SimpleNamespace(
            uniform_=lambda low, high: Boxed(low + (high - low) * self.unit()))
        return types.SimpleNamespace(
            tensor=list, log=lambda values: [math.log(v) for v in values],
            exp=lambda value: Boxed(math.exp(value)), empty=lambda _: uniform,
            randint=lambda low, high, size: boxed(low + self.below(high - low)))


class Boxed(float):
    def item(self) -> float:
        return float(self)


# ---- the expected pair --------------------------------------------------------------------------


def expected_view(picture: Image.Image, options: Options, epoch: int, index: int,
                  monkeypatch) -> Image.Image:
    """The flipped view; index: the image whose place it is."""
    draws = Draws(options.seed, epoch, index)
    with monkeypatch.context() as patch:
        patch.setattr(transforms, "torch", draws.stand_in())
        top, left, height, width = transforms.RandomResizedCrop.get_params(
            picture, [options.scale_min, options.scale_max],
            [options.ratio_min, options.ratio_max])
    view = picture.crop((left, top, left + width, top + height)).resize(
        (options.view_width, options.view_height), FILTERS[options.filter])
    if draws.unit() < options.flip_horizontal:
        view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if draws.unit() < options.flip_vertical:
        view = view.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    return view


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> tuple[list[Path], list[Image.Image]]:
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    paths, loaded = [], []
    for i, (width, height) in enumerate(SIZES):
        pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
        if i % 2:
            pixels = (pixels > 127).astype(np.uint8) * 255  # hard edges overshoot in bicubic
        paths.append(folder / f"{i}.png")
        loaded.append(Image.fromarray(pixels))
        loaded[-1].save(paths[-1])
    return paths, loaded


CASES = [
    dict(),
    dict(filter=1, seed=2**63 + 5, view_height=31, view_width=52, image_height=40,
         image_width=24),
    dict(scale_min=0.5, scale_max=0.6, ratio_min=1.0, ratio_max=1.0, flip_horizontal=1.0,
         flip_vertical=0.0),
    dict(flip_horizontal=0.0, flip_vertical=1.0, image_height=36, image_width=36, threads=3),
]


@pytest.mark.parametrize("case", range(len(CASES)))
def test_pairs_are_those_of_torchvision_and_pillow(pictures, case, monkeypatch):
    paths, loaded = pictures
    settings = dict(batch=5, view_height=36, view_width=36, image_height=32, image_width=32,
                    seed=17) | CASES[case]
    with Dataset(paths, **settings) as data:
        assert lib.featinv_dataset_size(data.handle) == len(paths)
        for k in range(9):
            images, views, indices = data.batch(k)
            for i in range(5):
                epoch, place = divmod(5 * k + i, len(paths))
                index = order(data.options.seed, epoch, len(paths), place)
                assert indices[i] == index
                view = expected_view(loaded[index], data.options, epoch, index, monkeypatch)
                target = view.resize((data.options.image_width, data.options.image_height),
                                     Image.Resampling.BILINEAR)
                what = f"batch {k}, image {index} of {loaded[index].size}"
                assert np.array_equal(views[i], np.asarray(view)), what
                assert np.array_equal(images[i], np.asarray(target)), what
        assert data.problems() == []


def test_the_legacy_target_is_the_published_one(pictures):
    """To half a level, by which the published floats are rounded; and torch's plain interpolation
    exactly where the weights are (36 to 32: sixteenths)."""
    paths, _ = pictures
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    with Dataset(paths, batch=14, view_height=36, view_width=36, image_height=32, image_width=32,
                 legacy_target=1) as data:
        images, views, _ = data.batch(0)
    for image, view in zip(images, views):
        floats = functional.normalize(functional.to_tensor(Image.fromarray(view)), mean, std)
        small = functional.resize(floats, [32, 32], antialias=False)
        levels = small.permute(1, 2, 0).numpy() * np.float32(std) + np.float32(mean)
        assert np.abs(np.clip(levels, 0, 1) * 255 - image).max() <= 0.5 + 1e-3
    plain = torch.nn.functional.interpolate(
        torch.from_numpy(views).permute(0, 3, 1, 2).double(), (32, 32), mode="bilinear",
        align_corners=False)
    assert np.array_equal(plain.round().to(torch.uint8).permute(0, 2, 3, 1).numpy(), images)


def test_without_augmentation_torchvision_resizes_and_crops(pictures):
    paths, loaded = pictures
    with Dataset(paths, batch=len(paths), view_height=28, view_width=28, image_height=20,
                 image_width=20, crop=0.875, augment=0, shuffle=0) as data:
        images, views, indices = data.batch(3)
    assert list(indices) == list(range(len(paths)))
    for picture, image, view in zip(loaded, images, views):
        wanted = functional.center_crop(functional.resize(picture, 32), [28, 28])
        assert np.array_equal(view, np.asarray(wanted)), picture.size
        target = wanted.resize((20, 20), Image.Resampling.BILINEAR)
        assert np.array_equal(image, np.asarray(target)), picture.size


def test_a_stand_in_takes_the_place_of_a_damaged_file(pictures, tmp_path, monkeypatch):
    paths, loaded = pictures
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(paths[0].read_bytes()[:-100])
    files, bad = [damaged, *paths[1:5], tmp_path / "none.jpg", paths[6]], {0, 5}
    with Dataset(files, batch=7, view_height=24, view_width=24, image_height=24, image_width=24,
                 threads=2, prefetch=3) as data:
        for k in range(4):
            _, views, indices = data.batch(k)
            assert sorted(index for index, _ in data.problems()) == [0, 5]
            for i in range(7):
                own, passed = order(100, k, 7, i), 0
                while order(100, k, 7, (i + passed) % 7) in bad:
                    passed += 1
                index = order(100, k, 7, (i + passed) % 7)
                assert indices[i] == index
                view = expected_view(loaded[index], data.options, k, own, monkeypatch)
                assert np.array_equal(views[i], np.asarray(view))
        texts = dict(data.problems())
    assert texts[0].startswith(f"{damaged}: ") and texts[5] == f"{files[5]}: no such file"


def test_defaults_are_the_papers():
    options = Options()
    capi.check(lib.featinv_dataset_options_init(c.byref(options), c.c_size_t(c.sizeof(Options)),
                                                None))
    assert options.struct_size == c.sizeof(Options)
    crop = transforms.RandomResizedCrop(288)
    assert (options.scale_min, options.scale_max) == tuple(crop.scale)
    assert (options.ratio_min, options.ratio_max) == tuple(crop.ratio)
    assert (options.flip_horizontal, options.flip_vertical) == (0.5, 0.5)
    assert (options.batch, options.view_height, options.image_height) == (8, 288, 256)
    assert (options.augment, options.shuffle, options.legacy_target) == (1, 1, 0)
