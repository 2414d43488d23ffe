"""Writes a bundle: programs, weights, contexts, classes and the manifest that binds them.

The folder is made under a temporary name beside its place and renamed when it is whole, so a failed
export leaves nothing behind.
"""

import hashlib
import io
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .. import __version__
from .backbones import Backbone
from .check import check_programs
from .errors import BundleError, ExportError, InputError, UsageError
from .features import FeatureStatistics, feature_statistics
from .modules import AutoencoderKL, ControlNet, UNet
from .programs import Program, backbone_programs, generator_programs
from .unet import fresh_hint
from .weights import (
    DTYPES,
    FreshControlSource,
    SafetensorsSource,
    Source,
    module_source,
    write_safetensors,
)

Report = Callable[[str], None]

FORMAT = "featinv-bundle"
VERSION = 1


@dataclass
class Diffusion:
    """How the generator was trained; `latent` and `image` are (C, H, W)."""

    latent: tuple[int, int, int]
    image: tuple[int, int, int]
    latent_scale: float = 0.18215
    prediction: str = "epsilon"
    timesteps: int = 1000
    beta_start: float = 0.00085
    beta_end: float = 0.012
    beta_schedule: str = "scaled_linear"

    def manifest(self) -> dict[str, Any]:
        return {
            "prediction": self.prediction,
            "timesteps": self.timesteps,
            "beta_start": self.beta_start,
            "beta_end": self.beta_end,
            "beta_schedule": self.beta_schedule,
            "latent": list(self.latent),
            "latent_scale": self.latent_scale,
            "image": list(self.image),
        }


@dataclass
class Defaults:
    """What a run uses where its caller says nothing."""

    steps: int = 50
    scale: float = 1.75
    hint_scale: float = 1.0
    seed: int = 100
    context: str = "default"
    uncontext: str = "empty"


@dataclass
class Base:
    """Another bundle that the UNet, the autoencoder and the contexts are taken from."""

    path: Path
    manifest: dict[str, Any]
    sha256: str

    @classmethod
    def open(cls, path: Path) -> "Base":
        """Reads the manifest of a bundle and follows its own base, so that there is one step."""
        file = path / "manifest.json"
        try:
            text = file.read_bytes()
            manifest = json.loads(text)
        except OSError as error:
            raise BundleError(f"{file}: {error.strerror}") from None
        except ValueError as error:
            raise BundleError(f"{file}: not JSON: {error}") from None
        if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
            raise BundleError(f"{file}: not the manifest of a bundle")
        if manifest.get("version") != VERSION:
            raise BundleError(f"{file}: version {manifest.get('version')}, expected {VERSION}")
        further = manifest.get("base")
        if further:
            return cls.open((path / further["path"]).resolve())
        if "unet.ts" not in manifest.get("files", {}):
            raise BundleError(f"{path}: holds no generator to build on")
        return cls(path.resolve(), manifest, hashlib.sha256(text).hexdigest())

    def diffusion(self) -> Diffusion:
        """Its diffusion settings."""
        values = dict(self._part("diffusion"))
        try:
            for key in ("latent", "image"):
                values[key] = tuple(values[key])
            return Diffusion(**values)
        except (KeyError, TypeError) as error:
            raise BundleError(f"{self.path}: diffusion: {error}") from None

    def defaults(self, scale: float | None = None) -> Defaults:
        """Its defaults, with another guidance scale where one is given."""
        try:
            defaults = Defaults(**self._part("defaults"))
        except TypeError as error:
            raise BundleError(f"{self.path}: defaults: {error}") from None
        return defaults if scale is None else replace(defaults, scale=scale)

    def fresh_control(
        self, channels: int, hint: str = "conv", hidden: int | None = None
    ) -> tuple[ControlNet, Source]:
        """A ControlNet on the meta device for maps of so many channels, and its first weights."""
        architecture = self._part("provenance").get("architecture", {})
        config = dict(architecture.get("unet", {}))
        if not config:
            raise BundleError(f"{self.path}: provenance.architecture.unet is missing")
        config.pop("out_channels", None)
        grid = self.diffusion().latent[1:]
        hidden = hidden or architecture.get("hint", {}).get("hidden", 512)
        try:
            with torch.device("meta"):
                control = ControlNet(channels, grid, hidden, hint, **config)
            encoder = fresh_hint(channels, control.model_channels, grid, hidden, hint)
        except (TypeError, ValueError) as error:
            raise BundleError(f"{self.path}: no such ControlNet: {error}") from None
        inner = SafetensorsSource(self.path / "unet.safetensors")
        return control, FreshControlSource(inner, encoder)

    def _part(self, key: str) -> dict[str, Any]:
        value = self.manifest.get(key)
        if not isinstance(value, dict):
            raise BundleError(f"{self.path}: the manifest has no {key}")
        return value


@dataclass
class _Writer:
    """Files of the folder being made, with their hashes."""

    folder: Path
    files: dict[str, dict[str, object]] = field(default_factory=dict)

    def add(self, name: str, data: bytes) -> None:
        try:
            (self.folder / name).write_bytes(data)
        except OSError as error:
            raise ExportError(f"{name}: cannot be written: {error.strerror}") from None
        self.files[name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}

    def add_weights(self, program: Program, source: Source, dtype: str) -> None:
        name = f"{program.name}.safetensors"
        self.files[name] = write_safetensors(
            self.folder / name, program.shapes(), source, dtype
        )


def write_bundle(
    out: str | os.PathLike[str],
    *,
    name: str | None = None,
    backbone: Backbone | None = None,
    unet: UNet | None = None,
    control: ControlNet | None = None,
    autoencoder: AutoencoderKL | None = None,
    weights: Source | None = None,
    base: Base | None = None,
    diffusion: Diffusion | None = None,
    defaults: Defaults | None = None,
    contexts: Mapping[str, np.ndarray] | None = None,
    feature_mean: np.ndarray | None = None,
    features: FeatureStatistics | torch.Tensor | np.ndarray | None = None,
    feature_grid: tuple[int, int] | None = None,
    pooled: bool = False,
    dtype: str = "fp32",
    force: bool = False,
    provenance: Mapping[str, Any] | None = None,
    report: Report | None = None,
) -> Path:
    """Writes a bundle and checks its programs against the modules.

    out           the folder to make; an existing bundle is replaced with `force` only
    backbone      from `featinv.export.backbone`: the vision model, its head and class names
    unet, control, autoencoder
                  trained modules; all three, or `control` alone with `base`
    weights       where the generator's tensors come from, by the release's full key names; the
                  modules may then live on the meta device. None: the modules' own
    base          take UNet, autoencoder, contexts from another bundle (`Base.open`)
    diffusion, defaults, contexts
                  with a generator; contexts are name → (L, D), at least `default` and `empty`
    feature_mean  (C,), the channel mean of the maps that the ControlNet was trained on
    features      statistics of those maps (`feature_statistics`), or the maps (N, C, h, w): with
                  them the library can say how usual a map is
    feature_grid  (h, w) of the maps, needed without a backbone
    dtype         fp32, fp16 or bf16: how the weights are stored
    report        gets the figures of the self-check, a line each
    """
    out = Path(out)
    _check_request(backbone, unet, control, autoencoder, base, diffusion, contexts, dtype)
    if base is not None:
        defaults = defaults or base.defaults()
    programs = generator_programs(unet, control, autoencoder)
    if weights is None:
        weights = module_source(
            {prefix: module for prefix, module in _prefixed(unet, control, autoencoder)}
        )
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "name": name or out.name,
        "backend": "torchscript",
    }
    with _folder(out, force) as folder:
        writer = _Writer(folder)
        if base is not None:
            # Relative to where the bundle will stand, so that both can be moved together.
            path = os.path.relpath(base.path, out.resolve())
            manifest["base"] = {"path": path, "manifest_sha256": base.sha256}
        manifest["files"] = writer.files
        for program in programs:
            writer.add(f"{program.name}.ts", program.archive())
            writer.add_weights(program, weights, dtype)
        if backbone is not None:
            vision = backbone_programs(backbone)
            for program in vision:
                writer.add(f"{program.name}.ts", program.archive())
                writer.add_weights(program, module_source({"": program.module}), dtype)
            programs = programs + vision
            manifest["backbone"] = backbone.manifest()
            writer.add("classes.json", _json(list(backbone.classes)))
        manifest["features"] = _features(backbone, control, feature_grid, pooled)
        if diffusion is not None:
            manifest["diffusion"] = diffusion.manifest()
            manifest["defaults"] = vars(defaults or Defaults())
        if contexts is not None:
            writer.add("contexts.npz", _npz(contexts))
        statistics = _statistics(feature_mean, features)
        if statistics is not None:
            statistics.check(manifest["features"]["channels"])
            writer.add("features.npz", _npz(statistics.arrays()))
        manifest["provenance"] = {
            **(provenance or {}),
            "exporter": __version__,
            "architecture": _architecture(unet, control, autoencoder, base),
        }
        check_programs(folder, programs, report or (lambda line: None))
        (folder / "manifest.json").write_bytes(_json(manifest))
    return out


def add_files(path: str | os.PathLike[str], files: Mapping[str, bytes]) -> None:
    """Adds or replaces files of a bundle, and their entries in the manifest; no other byte changes.

    files   relative path ("concepts/boat.npz") → content

    Bundles whose `base` is this one know it by the hash of its manifest: export them again.
    """
    path = Path(path)
    manifest = _manifest(path)
    for name in files:
        parts = name.split("/")
        if name == "manifest.json" or any(not p or p.startswith(".") or "\\" in p for p in parts):
            raise InputError(f"{name}: not a name for a file of a bundle")
    for name, data in files.items():
        manifest["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    # The manifest last: cut off on the way, the bundle is refused for a file's hash or its name.
    for name, data in (*files.items(), ("manifest.json", _json(manifest))):
        place = path / name
        try:
            place.parent.mkdir(exist_ok=True)
            place.with_name(f".{place.name}").write_bytes(data)
            os.replace(place.with_name(f".{place.name}"), place)
        except OSError as error:
            raise ExportError(f"{place}: cannot be written: {error.strerror}") from None


def update_features(path: str | os.PathLike[str], features: FeatureStatistics) -> None:
    """Replaces a bundle's features.npz, as `add_files` does."""
    features.check(_manifest(Path(path))["features"]["channels"])
    add_files(path, {"features.npz": _npz(features.arrays())})


def _manifest(path: Path) -> dict[str, Any]:
    """The manifest of a bundle, as far as it is needed to change files."""
    try:
        manifest = json.loads((path / "manifest.json").read_bytes())
        manifest["features"]["channels"], manifest["files"].items()
    except OSError as error:
        raise BundleError(f"{path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BundleError(f"{path}: not the manifest of a bundle: {error}") from None
    return manifest


def read_classes(path: Path) -> list[str]:
    """A JSON list of class names."""
    try:
        names = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise InputError(f"{path}: not JSON: {error}") from None
    if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
        raise InputError(f"{path}: not a list of class names")
    return names


def _check_request(
    backbone: Backbone | None,
    unet: UNet | None,
    control: ControlNet | None,
    autoencoder: AutoencoderKL | None,
    base: Base | None,
    diffusion: Diffusion | None,
    contexts: Mapping[str, np.ndarray] | None,
    dtype: str,
) -> None:
    if dtype not in DTYPES:
        raise UsageError(f"unknown dtype {dtype!r}, there are {', '.join(DTYPES)}")
    if control is None:
        if unet is not None or autoencoder is not None or base is not None:
            raise UsageError("a generator needs a ControlNet")
        if backbone is None:
            raise UsageError("nothing to export: neither a backbone nor a generator")
        return
    if diffusion is None:
        raise UsageError("a generator needs its diffusion settings")
    if base is not None:
        if unet is not None or autoencoder is not None or contexts is not None:
            raise UsageError("with a base, UNet, autoencoder and contexts are taken from there")
    elif unet is None or autoencoder is None:
        raise UsageError("a generator needs a UNet and an autoencoder, or a base")
    else:
        _check_contexts(contexts, unet.config["context_dim"])
    if backbone is not None:
        channels = control.input_hint_block.channels
        if backbone.channels != channels:
            raise UsageError(
                f"the backbone's maps have {backbone.channels} channels, "
                f"the ControlNet reads {channels}"
            )


def _check_contexts(contexts: Mapping[str, np.ndarray] | None, width: int) -> None:
    for name in ("default", "empty"):
        if name not in (contexts or {}):
            raise InputError(f"contexts: {name!r} is missing")
    for name, value in (contexts or {}).items():
        if value.ndim != 2 or value.shape[1] != width or not np.isfinite(value).all():
            raise InputError(
                f"contexts: {name!r} has shape {list(value.shape)}, "
                f"expected finite [length, {width}]"
            )


def _statistics(
    mean: np.ndarray | None, features: FeatureStatistics | torch.Tensor | np.ndarray | None
) -> FeatureStatistics | None:
    if isinstance(features, FeatureStatistics):
        if mean is not None:
            raise UsageError("statistics of the maps hold their mean: give one of the two")
        return features
    if features is not None:
        return feature_statistics(features, mean)
    return None if mean is None else FeatureStatistics(np.asarray(mean, np.float32))


def _prefixed(
    unet: UNet | None, control: ControlNet | None, autoencoder: AutoencoderKL | None
) -> Iterator[tuple[str, Any]]:
    if unet is not None:
        yield "model.diffusion_model.", unet
    if control is not None:
        yield "control_model.", control
    if autoencoder is not None:
        yield "first_stage_model.", autoencoder


def _features(
    backbone: Backbone | None,
    control: ControlNet | None,
    grid: tuple[int, int] | None,
    pooled: bool,
) -> dict[str, Any]:
    if backbone is not None:
        return {**backbone.features(), "pooled": pooled}
    assert control is not None
    if grid is None:
        raise UsageError("without a backbone, the grid of the maps must be given")
    return {
        "layout": "nchw",
        "prefix_tokens": 0,
        "channels": control.input_hint_block.channels,
        "height": grid[0],
        "width": grid[1],
        "layer": "",
        "pooled": pooled,
    }


def _architecture(
    unet: UNet | None,
    control: ControlNet | None,
    autoencoder: AutoencoderKL | None,
    base: Base | None,
) -> dict[str, Any]:
    """Constructor arguments of the modules, from which `--base` builds a fresh ControlNet."""
    out: dict[str, Any] = {}
    if base is not None:
        out.update(base.manifest.get("provenance", {}).get("architecture", {}))
    if unet is not None:
        out["unet"] = {**unet.config, "out_channels": unet.out_channels}
    if control is not None:
        out["hint"] = control.input_hint_block.config
    if autoencoder is not None:
        out["autoencoder"] = autoencoder.config
    return out


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()


def _npz(arrays: Mapping[str, np.ndarray]) -> bytes:
    """An uncompressed .npz whose bytes depend on the arrays only."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for key, value in arrays.items():
            member = io.BytesIO()
            np.save(member, np.ascontiguousarray(value, np.float32))
            info = zipfile.ZipInfo(f"{key}.npy", (1980, 1, 1, 0, 0, 0))
            archive.writestr(info, member.getvalue())
    return out.getvalue()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@contextmanager
def _folder(out: Path, force: bool) -> Iterator[Path]:
    """A temporary folder that takes the place of `out` when the block ends well."""
    old = out.is_dir() and any(out.iterdir())
    if out.exists() and not out.is_dir():
        raise ExportError(f"{out}: is a file, not a folder")
    if old and not force:
        raise ExportError(f"{out}: exists, --force replaces it")
    if old and not (out / "manifest.json").is_file():
        raise ExportError(f"{out}: exists and is no bundle, so it is not replaced")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise ExportError(f"{out}: cannot be made: {error.strerror}") from None
    try:
        yield temporary
        temporary.chmod(0o777 & ~_umask())
        if out.exists():
            aside = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
            os.replace(out, aside)
            os.replace(temporary, out)
            shutil.rmtree(aside, ignore_errors=True)
        else:
            os.replace(temporary, out)
    except OSError as error:
        raise ExportError(f"{out}: cannot be written: {error.strerror}") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
