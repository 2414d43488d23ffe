"""The public release's yaml and checkpoints."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from .bundle import Diffusion
from .errors import InputError, listing, refuse_keys
from .modules import AutoencoderKL, ControlNet, UNet
from .programs import generator_programs
from .weights import Source

PREFIXES = ("control_model.", "model.diffusion_model.", "first_stage_model.")

_TRUNK_KEYS = (
    "in_channels",
    "model_channels",
    "channel_mult",
    "num_res_blocks",
    "attention_resolutions",
    "num_heads",
    "num_head_channels",
    "context_dim",
    "transformer_depth",
)
_AUTOENCODER_KEYS = (
    "ch",
    "ch_mult",
    "num_res_blocks",
    "z_channels",
    "in_channels",
    "out_ch",
    "resolution",
    "attn_resolutions",
)


@dataclass
class Generator:
    """The networks of a generator, on the meta device until weights come, and its settings."""

    unet: UNet
    control: ControlNet
    autoencoder: AutoencoderKL
    diffusion: Diffusion


def read_config(path: Path) -> Mapping[str, Any]:
    """`model.params` of a yaml of the public release."""
    try:
        text = path.read_text(encoding="utf-8")
        loaded = yaml.safe_load(text)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: not yaml: {reason}") from None
    try:
        params = loaded["model"]["params"]
    except (KeyError, TypeError):
        raise InputError(f"{path}: model.params is missing") from None
    return _Section(path, "model.params", params)


class _Section(Mapping[str, Any]):
    """A mapping of the yaml whose missing or mistyped entries are named in the error."""

    def __init__(self, path: Path, where: str, values: object) -> None:
        if not isinstance(values, dict):
            raise InputError(f"{path}: {where} is not a mapping")
        self.path, self.where, self._values = path, where, values

    def __getitem__(self, key: str) -> Any:
        if key not in self._values:
            raise InputError(f"{self.path}: {self.where}.{key} is missing")
        return self._values[key]

    def __iter__(self) -> Any:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, key: object) -> bool:
        return key in self._values

    def section(self, key: str) -> "_Section":
        return _Section(self.path, f"{self.where}.{key}", self[key])

    def number(self, key: str, default: float | None = None) -> float:
        value = default if default is not None and key not in self else self[key]
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise InputError(f"{self.path}: {self.where}.{key} is {value!r}, not a number")
        return value

    def take(self, keys: tuple[str, ...]) -> dict[str, Any]:
        return {key: self._values[key] for key in keys if key in self}


def build(
    params: Mapping[str, Any], hint: str = "conv", channels: int | None = None
) -> Generator:
    """The networks that a yaml describes, on the meta device; `channels` replaces those of the
    maps that it names."""
    assert isinstance(params, _Section)
    control = params.section("control_stage_config").section("params")
    unet = params.section("unet_config").section("params")
    first = params.section("first_stage_config").section("params")
    details = first.section("ddconfig")
    for section in (control, unet):
        if section.take(("use_linear_in_transformer",)).get("use_linear_in_transformer"):
            raise InputError(f"{section.path}: use_linear_in_transformer is not supported")
    size = control["image_size"]
    grid = (size, size) if isinstance(size, int) else tuple(size)
    try:
        with torch.device("meta"):
            u = UNet(unet.number("out_channels"), **unet.take(_TRUNK_KEYS))
            c = ControlNet(
                channels or control.number("hint_channels"),
                grid,
                control.number("hint_hidden_channels", 512),
                hint,
                **control.take(_TRUNK_KEYS),
            )
            a = AutoencoderKL(
                embed_dim=first.number("embed_dim"), **details.take(_AUTOENCODER_KEYS)
            )
    except (TypeError, ValueError, RuntimeError, ZeroDivisionError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{params.path}: no such networks: {reason}") from None
    if u.config != c.config:
        differing = [key for key in u.config if u.config[key] != c.config[key]]
        raise InputError(
            f"{params.path}: ControlNet and UNet differ in {listing(differing)}"
        )
    return Generator(u, c, a, _diffusion(params, grid, a))


def _diffusion(
    params: _Section, grid: tuple[int, int], autoencoder: AutoencoderKL
) -> Diffusion:
    kind = params["parameterization"] if "parameterization" in params else "eps"
    if kind not in ("eps", "v"):
        raise InputError(f"{params.path}: parameterization {kind!r}, there are eps and v")
    schedules = {"linear": "scaled_linear", "sqrt_linear": "linear", "cosine": "cosine"}
    schedule = params["beta_schedule"] if "beta_schedule" in params else "linear"
    if schedule not in schedules:
        raise InputError(f"{params.path}: beta_schedule {schedule!r} is not supported")
    factor = autoencoder.factor
    return Diffusion(
        latent=(autoencoder.embed_dim, *grid),
        image=(autoencoder.config["out_ch"], grid[0] * factor, grid[1] * factor),
        latent_scale=params.number("scale_factor", 1.0),
        prediction="epsilon" if kind == "eps" else "v",
        timesteps=int(params.number("timesteps", 1000)),
        beta_start=params.number("linear_start", 1e-4),
        beta_end=params.number("linear_end", 2e-2),
        beta_schedule=schedules[schedule],
    )


def schedule_buffers(diffusion: Diffusion) -> dict[str, np.ndarray]:
    """The 13 buffers that the release stores, float32, from float64 sums."""
    t = diffusion.timesteps
    if diffusion.beta_schedule == "scaled_linear":
        ends = math.sqrt(diffusion.beta_start), math.sqrt(diffusion.beta_end)
        betas = np.linspace(*ends, t, dtype=np.float64) ** 2
    elif diffusion.beta_schedule == "linear":
        betas = np.linspace(diffusion.beta_start, diffusion.beta_end, t, dtype=np.float64)
    else:
        angle = (np.arange(t + 1, dtype=np.float64) / t + 8e-3) / (1 + 8e-3) * math.pi / 2
        squared = np.cos(angle) ** 2
        betas = np.clip(1 - squared[1:] / squared[:-1], 0, 0.999)
    alphas = 1 - betas
    total = np.cumprod(alphas)
    previous = np.append(1.0, total[:-1])
    variance = betas * (1 - previous) / (1 - total)
    buffers = {
        "betas": betas,
        "alphas_cumprod": total,
        "alphas_cumprod_prev": previous,
        "sqrt_alphas_cumprod": np.sqrt(total),
        "sqrt_one_minus_alphas_cumprod": np.sqrt(1 - total),
        "log_one_minus_alphas_cumprod": np.log(1 - total),
        "sqrt_recip_alphas_cumprod": np.sqrt(1 / total),
        "sqrt_recipm1_alphas_cumprod": np.sqrt(1 / total - 1),
        "posterior_variance": variance,
        "posterior_log_variance_clipped": np.log(np.maximum(variance, 1e-20)),
        "posterior_mean_coef1": betas * np.sqrt(previous) / (1 - total),
        "posterior_mean_coef2": (1 - previous) * np.sqrt(alphas) / (1 - total),
        "logvar": np.zeros(t),
    }
    return {key: value.astype(np.float32) for key, value in buffers.items()}


def _ignored(key: str) -> bool:
    return (
        key.startswith(("model_ema.", "cond_stage_model."))
        or ".loss." in key
        or key.startswith("loss.")
        or key == "logvar"
    )


def check_weights(name: str, source: Source, generator: Generator) -> None:
    """Compares keys, shapes and schedule with what the networks need; raises a listing."""
    have = source.shapes()
    if have is None:
        return
    need: dict[str, tuple[int, ...]] = {}
    for program in generator_programs(
        generator.unet, generator.control, generator.autoencoder
    ):
        need.update(program.shapes())
    schedule = schedule_buffers(generator.diffusion)
    missing = sorted(need.keys() - have.keys())
    unexpected = sorted(
        key for key in have.keys() - need.keys() - schedule.keys() if not _ignored(key)
    )
    misshapen = sorted(
        key for key in need.keys() & have.keys() if tuple(have[key]) != need[key]
    )
    problems = {"missing": missing, "unexpected": unexpected, "of another shape": misshapen}
    refuse_keys(name, problems, grouped)
    _check_schedule(name, source, have, schedule)


def grouped(keys: list[str], depth: int = 4) -> str:
    """Keys counted by their first parts: `control_model.zero_convs.* 26, …`"""
    groups: dict[str, list[str]] = {}
    for key in keys:
        head = ".".join(key.split(".")[: min(depth, max(1, key.count(".") - 1))])
        groups.setdefault(head, []).append(key)
    shown = [
        members[0] if len(members) == 1 else f"{head}.* {len(members)}"
        for head, members in groups.items()
    ]
    return listing(shown, 12)


def _check_schedule(
    name: str, source: Source, have: Mapping[str, tuple[int, ...]], want: Mapping[str, np.ndarray]
) -> None:
    for key, expected in want.items():
        if key == "logvar" or key not in have:
            continue
        got = source.read(key, expected.shape).float().numpy()
        if got.shape != expected.shape:
            raise InputError(f"{name}: {key} has {got.size} steps, the yaml {expected.size}")
        if not np.allclose(got, expected, rtol=1e-4, atol=1e-7):
            at = int(np.argmax(np.abs(got - expected)))
            raise InputError(
                f"{name}: {key}[{at}] is {got[at]:g}, by the yaml it is {expected[at]:g}"
            )
