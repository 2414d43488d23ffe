"""Vision models as backbones: what is found in them, and that the program computes the same."""

from pathlib import Path

import pytest
import torch
from conftest import Bundle, scaled
from featinv.export import InputError, UsageError, backbone, write_bundle
from featinv.export.backbones import Backbone, load_backbone
from torch import Tensor, nn


class Small(nn.Module):
    """Convolutions, pooling, a linear head; no library knows it."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.body = nn.Sequential(nn.ReLU(), nn.Conv2d(8, 12, 3, stride=2, padding=1), nn.ReLU())
        self.fc = nn.Linear(12, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.body(self.stem(x)).mean((2, 3)))


class Returns(nn.Module):
    """Gives (map, logits) itself."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Small()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        feature_map = self.inner.body(self.inner.stem(x))
        return feature_map, self.inner.fc(feature_map.mean((2, 3)))


def small(seed: int = 0) -> Small:
    torch.manual_seed(seed)
    return Small()


def programs_agree(vision: Backbone, out: Path) -> dict[str, object]:
    """Writes the bundle, runs its programs on another image and gives its manifest."""
    write_bundle(out, backbone=vision)
    bundle = Bundle(out)
    size = vision.input
    image = torch.randn(3, 3, size.height, size.width, generator=torch.manual_seed(5))
    want_map, want_logits = vision.module(image)
    got_map, got_logits = bundle.program("backbone")(image)
    assert scaled(got_map, want_map.numpy()) < 1e-5
    assert got_logits.shape == want_logits.shape
    if want_logits.shape[1]:
        assert scaled(got_logits, want_logits.numpy()) < 1e-5
    if vision.head is not None:
        assert scaled(bundle.program("head")(want_map), want_logits.numpy()) < 1e-4
    assert (out / "head.ts").exists() == (vision.head is not None)
    features = bundle.manifest["features"]
    assert [features[k] for k in ("channels", "height", "width")] == list(got_map.shape[1:])
    return bundle.manifest


# spec, side, layout, prefix tokens, grid, head
MODELS = [
    ("timm:resnet18", 64, "nchw", 0, 2, "linear"),
    ("timm:convnext_atto", 64, "nchw", 0, 2, "layernorm-linear"),
    ("timm:swinv2_cr_tiny_224", None, "nchw", 0, 7, "linear"),
    ("timm:swinv2_tiny_window8_256", None, "nhwc", 0, 8, "linear"),
    ("timm:vit_tiny_patch16_224", 64, "tokens", 1, 4, "none"),
    ("timm:vit_small_patch14_reg4_dinov2", 56, "tokens", 5, 4, "none"),
    ("torchvision:resnet18", 64, "nchw", 0, 2, "linear"),
]


@pytest.mark.parametrize(("spec", "side", "layout", "prefix", "grid", "head"), MODELS)
def test_known_models(
    spec: str, side: int | None, layout: str, prefix: int, grid: int, head: str, tmp_path: Path
) -> None:
    vision = load_backbone(spec, "random:1", input=None if side is None else (side, side))
    features = programs_agree(vision, tmp_path / "b")["features"]
    assert (features["layout"], features["prefix_tokens"]) == (layout, prefix)
    assert (features["height"], features["width"]) == (grid, grid)
    assert vision.head_kind == head


def test_random_weights_are_reproducible() -> None:
    def first(seed: str) -> Tensor:
        vision = load_backbone("timm:resnet18", seed, input=(32, 32))
        return next(vision.module.parameters())

    assert torch.equal(first("random:3"), first("random:3"))
    assert not torch.equal(first("random:3"), first("random:4"))


def test_own_module(tmp_path: Path) -> None:
    vision = backbone(small(), input=(24, 32), classes=["a", "b", "c", "d", "e"])
    manifest = programs_agree(vision, tmp_path / "b")
    assert vision.layer.startswith("body") and vision.head_kind == "linear"
    assert (manifest["features"]["height"], manifest["features"]["width"]) == (6, 8)


def test_named_layer(tmp_path: Path) -> None:
    """The logits do not follow from the mean of an early layer, so there is no head."""
    vision = backbone(small(), "stem", input=16)
    manifest = programs_agree(vision, tmp_path / "b")
    assert manifest["features"]["layer"] == "stem" and manifest["features"]["channels"] == 8
    assert manifest["backbone"]["head"] == "none"


def test_without_logits() -> None:
    vision = backbone(small(), input=16, classes=[])
    assert vision.module(torch.zeros(1, 3, 16, 16))[1].shape == (1, 0)
    assert vision.head is None


def test_module_that_returns_its_map(tmp_path: Path) -> None:
    vision = backbone(Returns(), input=16)
    assert programs_agree(vision, tmp_path / "b")["features"]["channels"] == 12


def test_torchscript(tmp_path: Path) -> None:
    path = tmp_path / "returns.ts"
    torch.jit.trace(Returns().eval(), torch.zeros(2, 3, 16, 16)).save(str(path))
    vision = load_backbone(f"script:{path}", input=(16, 16))
    assert programs_agree(vision, tmp_path / "b")["backbone"]["name"] == "returns"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"layer": "neck"}, "layer 'neck' is not in the model; at its top are stem, body, fc"),
        ({"layer": "fc"}, "layer 'fc' gives no map: a tensor of shape \\[2, 5\\]"),
        ({"classes": ["a", "b"]}, "2 class names for 5 logits"),
        ({"layout": "tokens"}, "which is not tokens"),
        ({"grid": (3, 3)}, "the maps are 4×4, not 3×3"),
        ({"prefix_tokens": 1}, "a nchw layer has no prefix tokens"),
        ({"crop": 1.5}, "crop 1.5 is outside"),
        ({"interpolation": "nearest"}, "interpolation 'nearest', there are bilinear, bicubic"),
        ({"std": (1, 0, 1)}, "must be positive"),
    ],
)
def test_refused_requests(arguments: dict[str, object], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        backbone(small(), input=16, **arguments)


@pytest.mark.parametrize(
    ("spec", "weights", "error", "text"),
    [
        ("resnet18", None, UsageError, "expected timm:NAME"),
        ("timm:no_such_model", "random:1", UsageError, "timm has no model 'no_such_model'"),
        ("torchvision:nothing", "random:1", UsageError, "torchvision has no model 'nothing'"),
        ("timm:resnet18", "random:x", UsageError, "the seed is not a number"),
        ("timm:resnet18", "no/such.safetensors", InputError, "no/such.safetensors: no such file"),
        ("script:no/such.ts", None, InputError, "no/such.ts: no such file"),
        ("script:x.ts", "random:1", UsageError, "holds its own weights"),
    ],
)
def test_refused_specs(spec: str, weights: str | None, error: type, text: str) -> None:
    with pytest.raises(error, match=text):
        load_backbone(spec, weights)


def test_weights_that_do_not_fit(tmp_path: Path) -> None:
    model = load_backbone("timm:resnet18", "random:1", input=(32, 32)).module.backbone
    state = model.state_dict()
    del state["conv1.weight"]
    state["more.weight"] = torch.zeros(2)
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(InputError, match="1 keys missing .conv1.weight.; 1 keys unexpected"):
        load_backbone("timm:resnet18", str(tmp_path / "w.pt"))


def test_no_weights_and_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    def unreachable(*args: object, **kwargs: object) -> None:
        raise OSError("cannot reach the hub")

    monkeypatch.setattr(timm, "create_model", unreachable)
    with pytest.raises(InputError, match="give a file or random:SEED.*cannot reach the hub"):
        load_backbone("timm:resnet18")
