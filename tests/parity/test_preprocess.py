"""Image to map and sample to map against Pillow and torch, where sizes differ and crop < 1.

The scenes bench has 64 = 64 and would hide a mistake here.
"""

import capi
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
CASES = [((96, 96), 0.875, "bicubic"), ((40, 40), 0.9, "bilinear"), ((64, 48), 0.8, "bilinear"),
         ((56, 56), 1.0, "bicubic")]
SIZES = [(300, 200), (37, 211), (64, 64), (1, 1), (500, 20), (97, 96), (3, 2)]


class Patches(nn.Module):
    """A backbone whose map shows every pixel."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.last = nn.Conv2d(3, 24, 8, stride=8)
        self.fc = nn.Linear(24, 5)

    def forward(self, x):
        return self.fc(self.last(x).mean((2, 3)))


@pytest.fixture(scope="module", params=CASES, ids=lambda p: f"{p[0][0]}x{p[0][1]}-{p[1]}-{p[2]}")
def case(request, tmp_path_factory):
    import sys
    sys.path.insert(0, str(capi.ROOT / "bindings" / "python"))
    from featinv import export
    size, crop, interpolation = request.param
    module = Patches().eval()
    folder = tmp_path_factory.mktemp("bundle") / "patches"
    spec = export.backbone(module, layer="last", input=size, mean=MEAN, std=STD,
                           interpolation=interpolation, crop=crop, classes=list("abcde"))
    export.write_bundle(folder, name="patches", backbone=spec, dtype="fp32")
    session = capi.Session(folder, batch=3)
    yield session, module, request.param
    session.close()


def normalised(image: Image.Image) -> torch.Tensor:
    x = torch.from_numpy(np.asarray(image)).permute(2, 0, 1).float() / 255
    return (x - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def cropped(photo: np.ndarray, size, crop, interpolation) -> Image.Image:
    """Shorter side to floor(size / crop), the longer truncated; then the centre."""
    image = Image.fromarray(photo)
    height, width = (int(np.floor(s / crop)) for s in size)
    if image.width * height <= image.height * width:
        to = (width, width * image.height // image.width)
    else:
        to = (height * image.width // image.height, height)
    image = image.resize(to, FILTERS[interpolation])
    top, left = round((to[1] - size[0]) / 2), round((to[0] - size[1]) / 2)
    return image.crop((left, top, left + size[1], top + size[0]))


def test_image_to_map(case):
    session, module, (size, crop, interpolation) = case
    rng = np.random.default_rng(1)
    photos = [rng.integers(0, 256, (h, w, 3), np.uint8) for h, w in SIZES]
    maps, logits = session.extract(photos, (24, size[0] // 8, size[1] // 8), classes=5)
    with torch.no_grad():
        x = torch.stack([normalised(cropped(p, size, crop, interpolation)) for p in photos])
        wanted, wanted_logits = module.last(x), module(x)
    assert capi.scaled(maps, wanted.numpy()) < 2e-6
    assert capi.scaled(logits, wanted_logits.numpy()) < 1e-5


def test_sample_to_map(case):
    session, module, (size, _, _) = case
    rng = np.random.default_rng(2)
    samples = rng.integers(0, 256, (4, 72, 80, 3), np.uint8)  # the generator's size
    maps = rng.standard_normal((2, 24, size[0] // 8, size[1] // 8)).astype(np.float32)
    session_maps = session.score_maps(samples, np.repeat(maps, 2, axis=0))
    with torch.no_grad():
        x = torch.stack([normalised(Image.fromarray(s).resize(
            (size[1], size[0]), Image.Resampling.BILINEAR)) for s in samples])
        wanted = module.last(x).numpy()
    assert capi.scaled(session_maps, wanted) < 2e-6
