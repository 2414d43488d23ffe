"""Vision models as backbones: image → (map, logits), with the map as (N, C, h, w)."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .errors import InputError, UsageError, listing, refuse_keys
from .weights import open_weights

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
LAYOUTS = ("nchw", "nhwc", "tokens")
INTERPOLATIONS = ("bilinear", "bicubic")


@dataclass
class ImageInput:
    """What a backbone wants to see: the preprocessing of its images."""

    height: int = 224
    width: int = 224
    channels: int = 3
    mean: Sequence[float] = IMAGENET_MEAN
    std: Sequence[float] = IMAGENET_STD
    interpolation: str = "bilinear"
    crop: float = 1.0

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise UsageError(f"input of {self.height}×{self.width} pixels")
        if self.interpolation not in INTERPOLATIONS:
            raise UsageError(
                f"interpolation {self.interpolation!r}, there are {', '.join(INTERPOLATIONS)}"
            )
        if not 0 < self.crop <= 1:
            raise UsageError(f"crop {self.crop} is outside (0, 1]")
        if len(self.mean) != self.channels or len(self.std) != self.channels:
            raise UsageError(f"mean and std must have {self.channels} values each")
        if not all(s > 0 for s in self.std):
            raise UsageError(f"std {list(self.std)} must be positive")


class Capture:
    """A forward hook that keeps the layer's output."""

    def __init__(self) -> None:
        self.output: object = None

    def __call__(self, module: nn.Module, inputs: object, output: object) -> None:
        self.output = output


class FeatureBackbone(nn.Module):
    """The model, and the map that one of its layers gives, in one call."""

    def __init__(
        self,
        model: nn.Module,
        layer: str,
        layout: str,
        prefix_tokens: int,
        grid: tuple[int, int],
        has_logits: bool,
    ) -> None:
        """An empty `layer` means that the model itself returns its map, or (map, logits)."""
        super().__init__()
        self.backbone = model
        self.layout = layout
        self.prefix_tokens = prefix_tokens
        self.grid = grid
        self.has_logits = has_logits
        self.capture = Capture()
        if layer:
            model.get_submodule(layer).register_forward_hook(self.capture)
        self.hooked = bool(layer)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3, H, W), normalised → map (N, C, h, w), logits (N, K), K = 0 without logits"""
        output = self.backbone(image)
        if self.hooked:
            layer_output, logits = self.capture.output, output
            self.capture.output = None
        elif isinstance(output, (tuple, list)):
            layer_output, logits = output[0], output[1]
        else:
            layer_output, logits = output, output
        feature_map = self.to_map(layer_output)
        if not self.has_logits:
            logits = feature_map.flatten(1)[:, :0]
        return feature_map, logits

    def to_map(self, x: Tensor) -> Tensor:
        """The layer's output in its own layout → (N, C, h, w)"""
        if self.layout == "nhwc":
            return x.permute(0, 3, 1, 2).contiguous()
        if self.layout == "tokens":
            tokens = x[:, self.prefix_tokens :]
            return tokens.transpose(1, 2).unflatten(2, self.grid).contiguous()
        return x


class Head(nn.Module):
    """Spatial mean, LayerNorm if there is one, linear."""

    def __init__(self, fc: nn.Linear, norm: nn.LayerNorm | None) -> None:
        super().__init__()
        self.fc = nn.Linear(fc.in_features, fc.out_features, fc.bias is not None)
        self.fc.load_state_dict(fc.state_dict())
        self.norm: nn.Module = nn.Identity()
        if norm is not None:
            affine = norm.elementwise_affine
            self.norm = nn.LayerNorm(norm.normalized_shape, norm.eps, affine)
            self.norm.load_state_dict(norm.state_dict())

    def forward(self, feature_map: Tensor) -> Tensor:
        """(N, C, h, w) → (N, K)"""
        return self.fc(self.norm(feature_map.mean((2, 3))))


@dataclass
class Backbone:
    """A vision model ready for export; made by `backbone` or `load_backbone`."""

    name: str
    module: FeatureBackbone
    input: ImageInput
    layer: str
    channels: int
    head: Head | None
    head_kind: str
    classes: Sequence[str]

    def manifest(self) -> dict[str, Any]:
        size = asdict(self.input)
        size["mean"], size["std"] = list(self.input.mean), list(self.input.std)
        return {"name": self.name, "input": size, "head": self.head_kind}

    def features(self) -> dict[str, Any]:
        return {
            "layout": self.module.layout,
            "prefix_tokens": self.module.prefix_tokens,
            "channels": self.channels,
            "height": self.module.grid[0],
            "width": self.module.grid[1],
            "layer": self.layer,
        }


def backbone(
    module: nn.Module,
    layer: str | None = None,
    *,
    input: int | tuple[int, int] = 224,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    interpolation: str = "bilinear",
    crop: float = 1.0,
    classes: Sequence[str] | None = None,
    layout: str | None = None,
    prefix_tokens: int | None = None,
    grid: tuple[int, int] | None = None,
    name: str | None = None,
) -> Backbone:
    """Prepares your own vision model for export.

    layer           the dotted name of the layer whose output is the map; None: the last layer
                    with a spatial output, before pooling
    input           side or (height, width) of the images that the model is trained on
    mean, std       per channel, of pixels in [0, 1]
    interpolation, crop
                    how photographs are brought to that size: bilinear or bicubic, and the part of
                    the shorter side that the centre crop keeps
    classes         names of the logits in order; None: their numbers. An empty sequence: the
                    model's output is no logits
    layout, prefix_tokens, grid
                    how the layer lays out its output: nchw, nhwc or tokens (N, prefix + h·w, C);
                    None: seen from its shape
    """
    height, width = (input, input) if isinstance(input, int) else input
    size = ImageInput(height, width, len(mean), mean, std, interpolation, crop)
    module = module.eval().float().cpu()
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    image = torch.rand(2, size.channels, height, width, generator=torch.manual_seed(0))
    with torch.no_grad():
        found = _find_layer(module, image, layer)
        if layout is None:
            layout = _layout_of(found.output)
        grid, prefix_tokens = _grid_of(found, layout, grid, prefix_tokens)
        logits = found.logits
        has_logits = logits is not None and not (classes is not None and len(classes) == 0)
        wrapped = FeatureBackbone(module, found.layer, layout, prefix_tokens, grid, has_logits)
        feature_map, _ = wrapped(image)
        count = logits.shape[1] if has_logits and logits is not None else 0
        names = list(classes) if classes else [str(i) for i in range(count)]
        if len(names) != count:
            raise UsageError(f"{len(names)} class names for {count} logits")
        head, kind = (None, "none")
        if has_logits:
            head, kind = _find_head(module, image, feature_map, logits)
    return Backbone(
        name or type(module).__name__.lower(),
        wrapped,
        size,
        found.layer,
        feature_map.shape[1],
        head,
        kind,
        names,
    )


@dataclass
class _Found:
    """A layer by name (empty: the model's own output), its output and the model's logits."""

    layer: str
    output: Tensor
    logits: Tensor | None


def _positions(x: object) -> int:
    """Positions of a map or of a token sequence, 0 for anything else."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        return 0
    if x.dim() == 4:
        a, b, c = x.shape[1:]
        return a * b if a == b and b != c else b * c
    return x.shape[1] if x.dim() == 3 else 0


def _find_layer(model: nn.Module, image: Tensor, layer: str | None) -> _Found:
    if isinstance(model, torch.jit.ScriptModule):
        return _returned(model, image, layer)
    names = dict(model.named_modules())
    if layer is not None and layer not in names:
        known = [name for name, _ in model.named_children()]
        raise UsageError(f"layer {layer!r} is not in the model; at its top are {listing(known, 12)}")
    events: list[tuple[str, object]] = []

    def keep(name: str) -> Any:
        return lambda module, inputs, output: events.append((name, output))

    hooks = [m.register_forward_hook(keep(n)) for n, m in names.items() if n]
    try:
        output = model(image)
    finally:
        for hook in hooks:
            hook.remove()
    if layer is not None:
        outputs = [value for name, value in events if name == layer]
        if not outputs:
            raise UsageError(f"layer {layer!r} does not run")
        if _positions(outputs[-1]) < 1:
            raise UsageError(f"layer {layer!r} gives no map: {_describe(outputs[-1])}")
        return _Found(layer, outputs[-1], _as_logits(output))
    if _as_logits(output) is None and _positions(output) > 0 or isinstance(output, (tuple, list)):
        return _returned(model, image, None)
    spatial = [(name, value) for name, value in events if _positions(value) > 1]
    if not spatial:
        raise UsageError("the model has no layer with a spatial output; name one with layer")
    last = spatial[-1][1]
    same = [name for name, value in spatial if value is last]
    return _Found(min(same, key=lambda name: name.count(".")), last, _as_logits(output))


def _returned(model: nn.Module, image: Tensor, layer: str | None) -> _Found:
    """For models that return their map: map or (map, logits)."""
    if layer is not None:
        raise UsageError("layers of a TorchScript file cannot be named; it must return its map")
    output = model(image)
    pair = isinstance(output, (tuple, list))
    feature_map = output[0] if pair and output else output
    if _positions(feature_map) < 1 or (pair and len(output) != 2):
        raise InputError(
            f"the model returns {_describe(output)}, expected its map or (map, logits)"
        )
    return _Found("", feature_map, _as_logits(output[1]) if pair else None)


def _as_logits(output: object) -> Tensor | None:
    ok = isinstance(output, Tensor) and output.dim() == 2 and output.shape[1] > 0
    return output if ok else None


def _describe(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {list(value.shape)}"
    if isinstance(value, (tuple, list)):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__}"


def _layout_of(output: Tensor) -> str:
    """Grids are square far more often than not, which tells NHWC from NCHW."""
    if output.dim() == 3:
        return "tokens"
    a, b, c = output.shape[1:]
    return "nhwc" if a == b and b != c else "nchw"


def _grid_of(
    found: _Found, layout: str, grid: tuple[int, int] | None, prefix: int | None
) -> tuple[tuple[int, int], int]:
    shape = found.output.shape
    if layout not in LAYOUTS:
        raise UsageError(f"layout {layout!r}, there are {', '.join(LAYOUTS)}")
    if len(shape) != (3 if layout == "tokens" else 4):
        raise UsageError(f"layer {found.layer!r} gives {list(shape)}, which is not {layout}")
    if layout != "tokens":
        own = tuple(shape[2:4]) if layout == "nchw" else tuple(shape[1:3])
        if grid is not None and tuple(grid) != own:
            raise UsageError(f"the maps are {own[0]}×{own[1]}, not {grid[0]}×{grid[1]}")
        if prefix:
            raise UsageError(f"a {layout} layer has no prefix tokens")
        return (own[0], own[1]), 0
    length = shape[1]
    if grid is not None:
        prefix = length - grid[0] * grid[1] if prefix is None else prefix
    elif prefix is None:
        side = math.isqrt(length)
        grid, prefix = (side, side), length - side * side
    else:
        side = math.isqrt(max(length - prefix, 0))
        grid = (side, side)
    if prefix < 0 or prefix + grid[0] * grid[1] != length:
        raise UsageError(
            f"{length} tokens are not {prefix} and a grid of {grid[0]}×{grid[1]}"
        )
    return grid, prefix


def _find_head(
    model: nn.Module, image: Tensor, feature_map: Tensor, logits: Tensor
) -> tuple[Head | None, str]:
    """The linear layer that makes the logits from the map's mean, and a LayerNorm before it.

    Found by what they compute, not by their names; none where the logits depend on more.
    """
    if isinstance(model, torch.jit.ScriptModule):
        return None, "none"
    channels = feature_map.shape[1]
    runs: list[tuple[nn.Linear, Tensor]] = []

    def keep(module: nn.Linear, inputs: tuple[Tensor], output: Tensor) -> None:
        if output.shape == logits.shape and torch.equal(output, logits):
            runs.append((module, inputs[0]))

    linears = [m for m in model.modules() if isinstance(m, nn.Linear) and m.in_features == channels]
    hooks = [m.register_forward_hook(keep) for m in linears]
    try:
        model(image)
    finally:
        for hook in hooks:
            hook.remove()
    norms: list[nn.LayerNorm | None] = [None]
    norms += [
        m
        for m in model.modules()
        if isinstance(m, nn.LayerNorm) and tuple(m.normalized_shape) == (channels,)
    ]
    for fc, rows in reversed(runs):
        for norm in norms:
            head = Head(fc, norm).eval().requires_grad_(False)
            want = head.norm(feature_map.mean((2, 3)))
            if torch.allclose(want, rows, rtol=1e-4, atol=1e-4 * rows.abs().max().item()):
                return head, "linear" if norm is None else "layernorm-linear"
    return None, "none"


def load_backbone(
    spec: str,
    weights: str | None = None,
    *,
    layer: str | None = None,
    input: tuple[int, int] | None = None,
    interpolation: str | None = None,
    crop: float | None = None,
    classes: Sequence[str] | None = None,
    layout: str | None = None,
    prefix_tokens: int | None = None,
    grid: tuple[int, int] | None = None,
) -> Backbone:
    """A backbone by name: `timm:NAME`, `torchvision:NAME` or `script:FILE.ts`.

    `weights` is a file or `random:SEED`; None fetches the published ones. What is None otherwise
    comes from the model's own configuration.
    """
    kind, colon, name = spec.partition(":")
    loaders = {"timm": _load_timm, "torchvision": _load_torchvision, "script": _load_script}
    if not colon or not name or kind not in loaders:
        raise UsageError(f"backbone {spec!r}: expected timm:NAME, torchvision:NAME, script:FILE.ts")
    loaded = loaders[kind](name, weights, input)
    own = loaded.input
    return backbone(
        loaded.model,
        layer,
        input=input or (own.height, own.width),
        mean=own.mean,
        std=own.std,
        interpolation=interpolation or own.interpolation,
        crop=own.crop if crop is None else crop,
        classes=classes if classes is not None else loaded.classes,
        layout=layout or loaded.layout,
        prefix_tokens=loaded.prefix_tokens if prefix_tokens is None else prefix_tokens,
        grid=grid,
        name=loaded.name,
    )


@dataclass
class _Loaded:
    """A model with what its library knows of it."""

    name: str
    model: nn.Module
    input: ImageInput
    classes: Sequence[str] | None = None
    layout: str | None = None
    prefix_tokens: int | None = None


def _seed_of(weights: str | None) -> int | None:
    """The seed of `random:SEED`, None for a file or nothing."""
    if weights is None or not weights.startswith("random:"):
        return None
    text = weights.removeprefix("random:")
    if not text.isdecimal():
        raise UsageError(f"weights {weights!r}: the seed is not a number")
    return int(text)


def _state_dict(weights: str) -> dict[str, Tensor]:
    source = open_weights(weights)
    shapes = source.shapes()
    if shapes is None:
        raise UsageError("rule: weights are for generators; a backbone takes FILE or random:SEED")
    return {key: source.read(key, shape) for key, shape in shapes.items()}


def _fill(model: nn.Module, weights: str, state: dict[str, Tensor]) -> None:
    """Loads a state dict; what does not fit is listed."""
    own = model.state_dict()
    missing = sorted(own.keys() - state.keys())
    missing = [key for key in missing if not key.endswith("num_batches_tracked")]
    unexpected = sorted(state.keys() - own.keys())
    misshapen = sorted(k for k in own.keys() & state.keys() if own[k].shape != state[k].shape)
    problems = {"missing": missing, "unexpected": unexpected, "of another shape": misshapen}
    refuse_keys(weights, problems, listing)
    model.load_state_dict(state, strict=False)


def _no_weights(spec: str, error: Exception) -> InputError:
    reason = str(error).strip().split("\n")[0] or type(error).__name__
    return InputError(
        f"{spec}: no weights: give a file or random:SEED, the published ones cannot be had: {reason}"
    )


def _load_timm(name: str, weights: str | None, size: tuple[int, int] | None) -> _Loaded:
    try:
        import timm
    except ImportError:
        raise UsageError("timm: backbones need the timm package") from None
    if not timm.is_model(name.removeprefix("hf-hub:")) and not name.startswith("hf-hub:"):
        raise UsageError(f"timm has no model {name!r}")
    arguments: dict[str, Any] = {}
    seed = _seed_of(weights)
    state = _state_dict(weights) if weights is not None and seed is None else None
    config = timm.get_pretrained_cfg(name)
    if size is not None and config is not None and config.fixed_input_size:
        arguments["img_size"] = size
    if state is not None and config is not None:
        classifier = config.classifier
        weight = state.get(f"{classifier}.weight") if isinstance(classifier, str) else None
        if weight is not None:
            arguments["num_classes"] = weight.shape[0]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed or 0)
        try:
            model = timm.create_model(name, pretrained=weights is None, **arguments)
        except Exception as error:  # whatever the hub's client raises without a network
            if weights is None:
                raise _no_weights(f"timm:{name}", error) from None
            raise UsageError(f"timm:{name}: {str(error).splitlines()[0]}") from None
    if state is not None:
        _fill(model, str(weights), state)
    own = timm.data.resolve_model_data_config(model)
    interpolation = own["interpolation"]
    return _Loaded(
        name,
        model,
        ImageInput(
            *own["input_size"][1:],
            own["input_size"][0],
            own["mean"],
            own["std"],
            interpolation if interpolation in INTERPOLATIONS else "bicubic",
            own["crop_pct"],
        ),
        _timm_classes(model),
        "nhwc" if getattr(model, "output_fmt", None) == "NHWC" else None,
        getattr(model, "num_prefix_tokens", None),
    )


def _timm_classes(model: nn.Module) -> Sequence[str] | None:
    """ImageNet's names where the number of logits says that they are ImageNet's."""
    from timm.data import ImageNetInfo, infer_imagenet_subset

    count = getattr(model, "num_classes", None)
    if count == 0:
        return []
    subset = infer_imagenet_subset(model)
    if subset is None:
        return None
    names = ImageNetInfo(subset).label_descriptions(detailed=False)
    return names if len(names) == count else None


def _load_torchvision(name: str, weights: str | None, size: tuple[int, int] | None) -> _Loaded:
    try:
        import torchvision.models as models
    except ImportError:
        raise UsageError("torchvision: backbones need the torchvision package") from None
    try:
        published = models.get_model_weights(name).DEFAULT
    except ValueError:
        raise UsageError(f"torchvision has no model {name!r}") from None
    transform = published.transforms()
    if not hasattr(transform, "crop_size"):
        raise UsageError(f"torchvision:{name} is no image classifier")
    seed = _seed_of(weights)
    state = _state_dict(weights) if weights is not None and seed is None else None
    arguments: dict[str, Any] = {}
    if state is not None:
        last = [k for k in state if k.endswith(".weight") and state[k].dim() == 2]
        if last:
            arguments["num_classes"] = state[last[-1]].shape[0]
    if size is not None and size[0] == size[1] and name.startswith("vit_"):
        arguments["image_size"] = size[0]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed or 0)
        try:
            model = models.get_model(name, weights=published if weights is None else None, **arguments)
        except Exception as error:  # whatever the download raises without a network
            if weights is None:
                raise _no_weights(f"torchvision:{name}", error) from None
            raise UsageError(f"torchvision:{name}: {str(error).splitlines()[0]}") from None
    if state is not None:
        _fill(model, str(weights), state)
    crop, resize = transform.crop_size[0], transform.resize_size[0]
    names = published.meta["categories"]
    return _Loaded(
        name,
        model,
        ImageInput(
            crop,
            crop,
            3,
            transform.mean,
            transform.std,
            str(transform.interpolation.value),
            crop / resize,
        ),
        names if state is None else None,
    )


def _load_script(name: str, weights: str | None, size: tuple[int, int] | None) -> _Loaded:
    if weights is not None:
        raise UsageError("a TorchScript file holds its own weights")
    if not Path(name).is_file():
        raise InputError(f"{name}: no such file")
    try:
        model = torch.jit.load(name, map_location="cpu")
    except RuntimeError as error:
        raise InputError(f"{name}: no TorchScript file: {str(error).splitlines()[0]}") from None
    return _Loaded(Path(name).stem, model, ImageInput())
