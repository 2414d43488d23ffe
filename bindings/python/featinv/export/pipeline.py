"""Diffusers folders: their UNet, autoencoder, text encoder and schedule under our key names."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .bundle import Diffusion
from .errors import InputError, listing
from .modules import AutoencoderKL, UNet
from .programs import generator_programs
from .weights import SafetensorsSource, Source, pickle_source

_RES = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
_UNET_ENDS = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}
_ATTENTION = {
    "norm": ("group_norm",),
    "q": ("to_q", "query"),
    "k": ("to_k", "key"),
    "v": ("to_v", "value"),
    "proj_out": ("to_out.0", "proj_attn"),
}


def _config(folder: Path, name: str = "config.json") -> dict[str, Any]:
    path = folder / name
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise InputError(f"{path}: not JSON: {error}") from None
    if not isinstance(loaded, dict):
        raise InputError(f"{path}: not a mapping")
    return loaded


def _weights(folder: Path) -> Source:
    stem = folder / "diffusion_pytorch_model"
    for path in (stem.with_suffix(".safetensors"), Path(f"{stem}.fp16.safetensors")):
        if path.is_file():
            return SafetensorsSource(path)
    if stem.with_suffix(".bin").is_file():
        return pickle_source(stem.with_suffix(".bin"))
    raise InputError(f"{folder}: no diffusion_pytorch_model.safetensors or .bin")


def _multipliers(folder: Path, widths: list[int]) -> tuple[int, ...]:
    if any(width % widths[0] for width in widths):
        raise InputError(f"{folder}: block widths {widths} are no multiples of the first")
    return tuple(width // widths[0] for width in widths)


def _same(folder: Path, name: str, value: object) -> Any:
    """A value that diffusers may give once or per block; ours holds for all blocks."""
    if isinstance(value, (list, tuple)):
        if len(set(value)) != 1:
            raise InputError(f"{folder}: {name} {list(value)} differs between blocks")
        return value[0]
    return value


def _refuse(folder: Path, config: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Settings of diffusers that change what is computed and that we do not have."""
    for key, plain in defaults.items():
        if config.get(key, plain) not in (plain, None):
            raise InputError(f"{folder}: {key} {config[key]!r} is not supported")


def _unet(folder: Path) -> UNet:
    config = _config(folder)
    _refuse(
        folder,
        config,
        {
            "act_fn": "silu",
            "class_embed_type": None,
            "addition_embed_type": None,
            "time_embedding_type": "positional",
            "resnet_time_scale_shift": "default",
            "mid_block_type": "UNetMidBlock2DCrossAttn",
            "flip_sin_to_cos": True,
            "freq_shift": 0,
            "downsample_padding": 1,
            "center_input_sample": False,
            "dual_cross_attention": False,
            "conv_in_kernel": 3,
            "encoder_hid_dim": None,
            "mid_block_scale_factor": 1,
            "only_cross_attention": False,
            "attention_type": "default",
        },
    )
    down = config["down_block_types"]
    kinds = {"CrossAttnDownBlock2D": True, "DownBlock2D": False}
    up = ["CrossAttnUpBlock2D" if "Cross" in kind else "UpBlock2D" for kind in reversed(down)]
    if not set(down) <= kinds.keys() or list(config["up_block_types"]) != up:
        raise InputError(
            f"{folder}: blocks {listing(sorted({*down, *config['up_block_types']}))} "
            "are not those of Stable Diffusion 1.x"
        )
    widths = list(config["block_out_channels"])
    # In Stable Diffusion 1.x `attention_head_dim` is the number of heads, by a slip that stayed.
    heads = config.get("num_attention_heads") or config.get("attention_head_dim", 8)
    with torch.device("meta"):
        return UNet(
            out_channels=config["out_channels"],
            in_channels=config["in_channels"],
            model_channels=widths[0],
            channel_mult=_multipliers(folder, widths),
            num_res_blocks=_same(folder, "layers_per_block", config.get("layers_per_block", 2)),
            attention_resolutions=[2**i for i, kind in enumerate(down) if kinds[kind]],
            num_heads=_same(folder, "attention_head_dim", heads),
            context_dim=_same(folder, "cross_attention_dim", config["cross_attention_dim"]),
            transformer_depth=_same(
                folder,
                "transformer_layers_per_block",
                config.get("transformer_layers_per_block", 1),
            ),
            groups=config.get("norm_num_groups", 32),
        )


def _autoencoder(folder: Path) -> AutoencoderKL:
    config = _config(folder)
    _refuse(
        folder,
        config,
        {
            "act_fn": "silu",
            "use_quant_conv": True,
            "use_post_quant_conv": True,
            "mid_block_add_attention": True,
            "shift_factor": None,
        },
    )
    for key, kind in (
        ("down_block_types", "DownEncoderBlock2D"),
        ("up_block_types", "UpDecoderBlock2D"),
    ):
        if set(config[key]) != {kind}:
            raise InputError(f"{folder}: {key} {listing(config[key])} are not supported")
    widths = list(config["block_out_channels"])
    with torch.device("meta"):
        return AutoencoderKL(
            ch=widths[0],
            ch_mult=_multipliers(folder, widths),
            num_res_blocks=config.get("layers_per_block", 1),
            z_channels=config["latent_channels"],
            embed_dim=config["latent_channels"],
            in_channels=config["in_channels"],
            out_ch=config["out_channels"],
            groups=config.get("norm_num_groups", 32),
        )


def diffusers_name(key: str, num_res_blocks: int) -> str:
    """Our key of a UNet's tensor, without prefix → diffusers' key."""
    stem, dot, last = key.rpartition(".")
    if stem in _UNET_ENDS:
        return f"{_UNET_ENDS[stem]}.{last}"
    side, block, *rest = key.split(".")
    if side == "middle_block":
        part = {"0": "resnets.0", "1": "attentions.0", "2": "resnets.1"}[block]
        return f"mid_block.{part}.{_inside('.'.join(rest))}"
    layer, tail = int(rest[0]), ".".join(rest[1:])
    per_level = num_res_blocks + 1
    if side == "input_blocks":
        level, i = divmod(int(block) - 1, per_level)
        where = f"down_blocks.{level}"
        if tail.startswith("op."):
            return f"{where}.downsamplers.0.conv.{tail.removeprefix('op.')}"
    else:
        level, i = divmod(int(block), per_level)
        where = f"up_blocks.{level}"
        if tail.startswith("conv."):
            return f"{where}.upsamplers.0.conv.{tail.removeprefix('conv.')}"
    return f"{where}.{'attentions' if layer else 'resnets'}.{i}.{_inside(tail)}"


def _inside(tail: str) -> str:
    """The part of a key inside a residual block or a transformer, whose names are the same."""
    stem, dot, last = tail.rpartition(".")
    return f"{_RES[stem]}.{last}" if stem in _RES else tail


def _autoencoder_names(key: str, levels: int) -> list[str]:
    """Our key, without prefix → diffusers' key, in its newer and its older spelling."""
    key = key.replace("nin_shortcut", "conv_shortcut").replace("norm_out", "conv_norm_out")
    parts = key.split(".")
    if len(parts) > 2 and parts[1] == "mid":
        side, _, block, *rest = parts
        if block == "attn_1":
            return [
                f"{side}.mid_block.attentions.0.{name}.{rest[1]}" for name in _ATTENTION[rest[0]]
            ]
        return [f"{side}.mid_block.resnets.{int(block[-1]) - 1}.{'.'.join(rest)}"]
    if len(parts) > 2 and parts[1] in ("down", "up"):
        side, way, level, what, *rest = parts
        n = int(level) if way == "down" else levels - 1 - int(level)
        what = {"block": "resnets", "downsample": "downsamplers.0", "upsample": "upsamplers.0"}[what]
        return [f"{side}.{way}_blocks.{n}.{what}.{'.'.join(rest)}"]
    return [key]


class PipelineSource:
    """UNet and autoencoder of a diffusers folder, under the release's key names."""

    def __init__(
        self, unet: UNet, autoencoder: AutoencoderKL, unet_folder: Path, vae_folder: Path
    ) -> None:
        sources = {
            "model.diffusion_model.": _weights(unet_folder),
            "first_stage_model.": _weights(vae_folder),
        }
        folders = {"model.diffusion_model.": unet_folder, "first_stage_model.": vae_folder}
        levels = len(autoencoder.config["ch_mult"])
        depth = unet.config["num_res_blocks"]
        self._names: dict[str, tuple[Source, str]] = {}
        used: dict[str, set[str]] = {prefix: set() for prefix in sources}
        missing: list[str] = []
        for program in generator_programs(unet, None, autoencoder):
            for key in program.shapes():
                prefix = next(p for p in sources if key.startswith(p))
                rest = key.removeprefix(prefix)
                own = prefix == "first_stage_model."
                names = _autoencoder_names(rest, levels) if own else [diffusers_name(rest, depth)]
                have = sources[prefix].shapes() or {}
                name = next((n for n in names if n in have), None)
                if name is None:
                    missing.append(f"{folders[prefix].name}: {names[0]}")
                    continue
                self._names[key] = (sources[prefix], name)
                used[prefix].add(name)
        unexpected = [
            f"{folders[prefix].name}: {name}"
            for prefix, source in sources.items()
            for name in sorted((source.shapes() or {}).keys() - used[prefix])
        ]
        for what, keys in (("missing", missing), ("unexpected", unexpected)):
            if keys:
                raise InputError(f"{unet_folder.parent}: {len(keys)} keys {what} ({listing(keys)})")

    def shapes(self) -> None:
        return None

    def read(self, key: str, shape: tuple[int, ...]) -> Tensor:
        source, name = self._names[key]
        tensor = source.read(name, shape)
        # diffusers has linear layers in some places where the release has 1×1 convolutions
        if tensor.dim() == 2 and len(shape) == 4 and shape[2:] == (1, 1):
            tensor = tensor[:, :, None, None]
        return tensor


@dataclass
class Pipeline:
    """The parts of a diffusers folder; the networks are on the meta device."""

    unet: UNet
    autoencoder: AutoencoderKL
    source: PipelineSource
    diffusion: Diffusion
    grid: tuple[int, int]


def read_pipeline(folder: Path) -> Pipeline:
    """Reads `unet`, `vae` and `scheduler` of a diffusers folder."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    try:
        unet, autoencoder = _unet(folder / "unet"), _autoencoder(folder / "vae")
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{folder}: no such networks: {error}") from None
    size = _config(folder / "unet").get("sample_size")
    if not isinstance(size, (int, list)):
        raise InputError(f"{folder}/unet: sample_size is {size!r}")
    grid = (size, size) if isinstance(size, int) else (size[0], size[1])
    source = PipelineSource(unet, autoencoder, folder / "unet", folder / "vae")
    scheduler = _config(folder / "scheduler", "scheduler_config.json")
    latent_scale = _config(folder / "vae").get("scaling_factor", 0.18215)
    diffusion = _diffusion(folder, scheduler, autoencoder, grid, latent_scale)
    return Pipeline(unet, autoencoder, source, diffusion, grid)


def _diffusion(
    folder: Path,
    scheduler: Mapping[str, Any],
    autoencoder: AutoencoderKL,
    grid: tuple[int, int],
    latent_scale: float,
) -> Diffusion:
    predictions = {"epsilon": "epsilon", "v_prediction": "v"}
    schedules = {"scaled_linear": "scaled_linear", "linear": "linear"}
    prediction = scheduler.get("prediction_type", "epsilon")
    schedule = scheduler.get("beta_schedule", "linear")
    if prediction not in predictions:
        raise InputError(f"{folder}/scheduler: prediction_type {prediction!r} is not supported")
    if schedule not in schedules or scheduler.get("trained_betas") is not None:
        raise InputError(f"{folder}/scheduler: beta_schedule {schedule!r} is not supported")
    _refuse(folder / "scheduler", scheduler, {"rescale_betas_zero_snr": False})
    factor = autoencoder.factor
    return Diffusion(
        latent=(autoencoder.embed_dim, *grid),
        image=(autoencoder.config["out_ch"], grid[0] * factor, grid[1] * factor),
        latent_scale=latent_scale,
        prediction=predictions[prediction],
        timesteps=scheduler.get("num_train_timesteps", 1000),
        beta_start=scheduler.get("beta_start", 1e-4),
        beta_end=scheduler.get("beta_end", 2e-2),
        beta_schedule=schedules[schedule],
    )
