"""Encoded prompts: from a file, from a text encoder, or by the weight rule."""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .errors import InputError, UsageError
from .weights import RuleSource

LENGTH = 77  # tokens of a prompt in CLIP

# The published code appends ", " to the prompt at inference.
PROMPTS = {"default": "a high-quality, detailed, and professional image, ", "empty": ""}


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The floating-point arrays of an .npz, as float32."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None
    except (ValueError, zipfile.BadZipFile, AttributeError, EOFError) as error:
        raise InputError(f"{path}: no usable npz: {error}") from None
    for name, value in arrays.items():
        if value.dtype.kind != "f":
            raise InputError(f"{path}: {name!r} is {value.dtype}, expected floating point")
    return {name: value.astype(np.float32) for name, value in arrays.items()}


def read_contexts(path: Path) -> dict[str, np.ndarray]:
    """name → (L, D) float32 from an .npz; a leading dimension of one is dropped."""
    return {
        name: value[0] if value.ndim == 3 and value.shape[0] == 1 else value
        for name, value in read_arrays(path).items()
    }


def read_prompts(path: Path | None) -> dict[str, str]:
    """name → text from lines of NAME<TAB>text, on top of `default` and `empty`."""
    prompts = dict(PROMPTS)
    if path is None:
        return prompts
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        name, tab, text = line.partition("\t")
        if not tab or not name.strip():
            raise InputError(f"{path}:{number}: expected NAME<TAB>text, found {line!r}")
        prompts[name.strip()] = text
    return prompts


def rule_contexts(salt: str, width: int) -> dict[str, np.ndarray]:
    """`default` and `empty` by the weight rule, keys `contexts.NAME`, shape (77, width)."""
    rule = RuleSource(salt)
    return {name: rule.read(f"contexts.{name}", (LENGTH, width)).numpy() for name in PROMPTS}


def encode_prompts(
    prompts: Mapping[str, str], tokenizer: Any, encoder: torch.nn.Module
) -> dict[str, np.ndarray]:
    """Prompts → last hidden states (77, D) of a CLIP text encoder, one at a time."""
    length = min(LENGTH, tokenizer.model_max_length)
    contexts = {}
    encoder = encoder.eval().float()
    for name, text in prompts.items():
        tokens = tokenizer(
            text, truncation=True, max_length=length, padding="max_length", return_tensors="pt"
        )
        with torch.no_grad():
            hidden = encoder(input_ids=tokens["input_ids"])[0]
        contexts[name] = hidden[0].numpy().astype(np.float32)
    return contexts


def load_tokenizer(folder: Path) -> Any:
    from transformers import CLIPTokenizer

    try:
        return CLIPTokenizer.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError, TypeError) as error:
        reason = str(error).strip().split("\n")[0]
        raise InputError(f"{folder}: no CLIP tokenizer: {reason}") from None


def load_text_encoder(folder: Path) -> torch.nn.Module:
    from transformers import CLIPTextModel

    try:
        return CLIPTextModel.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError, TypeError) as error:
        reason = str(error).strip().split("\n")[0]
        raise InputError(f"{folder}: no CLIP text encoder: {reason}") from None


def release_text_encoder(source: Any, width: int) -> torch.nn.Module:
    """The text encoder inside a checkpoint, `cond_stage_model.transformer.*`."""
    from transformers import CLIPTextConfig, CLIPTextModel

    prefix = "cond_stage_model.transformer."
    shapes = {k: v for k, v in (source.shapes() or {}).items() if k.startswith(prefix)}
    if not shapes:
        raise UsageError(
            "the checkpoint has no text encoder (cond_stage_model): give --contexts FILE.npz"
        )
    layers = {k.split(".layers.")[1].split(".")[0] for k in shapes if ".layers." in k}
    # CLIP ViT-L/14's text half, the only one that Stable Diffusion 1.x and the release use
    config = CLIPTextConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=len(layers),
        num_attention_heads=max(1, width // 64),
        hidden_act="quick_gelu",
        projection_dim=width,
    )
    model = CLIPTextModel(config)
    state = {
        key[len(prefix) :]: source.read(key, shape).float()
        for key, shape in shapes.items()
        if not key.endswith("position_ids")
    }
    missing, unexpected = _load_either(model, state)
    if missing or unexpected:
        raise InputError(
            f"text encoder: {len(missing)} keys missing, {len(unexpected)} unexpected "
            f"({(missing + unexpected)[0]})"
        )
    return model


def _load_either(
    model: torch.nn.Module, state: Mapping[str, torch.Tensor]
) -> tuple[list[str], list[str]]:
    """Loads a state dict with or without the `text_model.` that versions of transformers differ in."""
    own = model.state_dict().keys()
    head = "text_model."
    if not any(key.startswith(head) for key in own):
        state = {key.removeprefix(head): value for key, value in state.items()}
    try:
        result = model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise InputError(f"text encoder: {str(error).splitlines()[-1].strip()}") from None
    return list(result.missing_keys), list(result.unexpected_keys)
