"""Where weights come from, and how they are written: one tensor at a time, never all in memory."""

import hashlib
import json
import math
import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from .errors import ExportError, InputError

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
_SAFETENSORS_NAME = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}


class Source(Protocol):
    """Named tensors that are read on demand."""

    def shapes(self) -> Mapping[str, tuple[int, ...]] | None:
        """Every key with its shape; None where any key of any shape can be had."""

    def read(self, key: str, shape: tuple[int, ...]) -> Tensor:
        """The tensor of that key, on the CPU; `shape` is the one expected."""


class SafetensorsSource:
    """A safetensors file, mapped into memory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = safe_open(path, framework="pt")
            self._shapes = {
                key: tuple(self._file.get_slice(key).get_shape()) for key in self._file.keys()
            }
        except (SafetensorError, OSError, ValueError) as error:
            raise InputError(f"{path}: no usable safetensors file: {error}") from None

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        return self._shapes

    def read(self, key: str, shape: tuple[int, ...]) -> Tensor:
        return self._file.get_tensor(key)


class TensorSource:
    """Tensors in memory, or mapped from a pickle."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = tensors

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        return {key: tuple(value.shape) for key, value in self._tensors.items()}

    def read(self, key: str, shape: tuple[int, ...]) -> Tensor:
        return self._tensors[key].detach().cpu()


def pickle_source(path: Path) -> TensorSource:
    """A PyTorch checkpoint, read with `weights_only` so that it cannot run code."""
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (pickle.UnpicklingError, RuntimeError, OSError, EOFError, ValueError) as error:
        reason = str(error).strip().split("\n")[0]
        raise InputError(f"{path}: no checkpoint of plain tensors: {reason}") from None
    if isinstance(loaded, dict) and isinstance(loaded.get("state_dict"), dict):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, dict):
        raise InputError(f"{path}: holds a {type(loaded).__name__}, not a state dict")
    tensors = {key: value for key, value in loaded.items() if isinstance(value, Tensor)}
    if not tensors:
        raise InputError(f"{path}: holds no tensors")
    return TensorSource(tensors)


def module_source(modules: Mapping[str, nn.Module]) -> TensorSource:
    """The parameters and floating-point buffers of modules, each under its prefix."""
    return TensorSource(
        {
            prefix + key: value
            for prefix, module in modules.items()
            for key, value in tensors_of(module).items()
        }
    )


class RuleSource:
    """Weights made from their keys alone (the rule of the golden data), bit for bit."""

    CHUNK = 1 << 16  # elements; the working set of a chunk stays in the second-level cache

    def __init__(self, salt: str) -> None:
        if not salt.isascii():
            raise InputError(f"rule salt {salt!r} is not ASCII")
        self.salt = salt

    def shapes(self) -> None:
        return None

    @staticmethod
    def _hash(text: str) -> int:
        """FNV-1a, 64 bit."""
        h = 0xCBF29CE484222325
        for byte in text.encode("ascii"):
            h = ((h ^ byte) * 0x100000001B3) % 2**64
        return h

    def _uniform(self, key: str, count: int) -> np.ndarray:
        """`count` float32 values, uniform in (−1, 1), exact: splitmix64 from the key's hash."""
        step = 0x9E3779B97F4A7C15
        start = self._hash(self.salt + key)
        out = np.empty(count, np.float32)
        u64 = np.uint64
        ramp = np.arange(1, min(count, self.CHUNK) + 1, dtype=u64) * u64(step)
        scratch = np.empty_like(ramp)
        for begin in range(0, count, self.CHUNK):
            n = min(count - begin, self.CHUNK)
            z = ramp[:n] + u64((start + begin * step) % 2**64)
            t = scratch[:n]
            for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
                np.right_shift(z, u64(shift), out=t)
                np.bitwise_xor(z, t, out=z)
                np.multiply(z, u64(factor), out=z)
            np.right_shift(z, u64(31), out=t)
            np.bitwise_xor(z, t, out=z)
            np.right_shift(z, u64(40), out=z)
            odd = 2 * z.view(np.int64) + (1 - (1 << 24))
            # |odd| < 2^24, so both the conversion and the scaling are exact
            np.multiply(odd.astype(np.float32), np.float32(2.0**-24), out=out[begin : begin + n])
        return out

    def read(self, key: str, shape: tuple[int, ...]) -> Tensor:
        w = self._uniform(key, math.prod(shape))
        if len(shape) >= 2:
            w *= np.float32(math.sqrt(3) / math.sqrt(math.prod(shape[1:])))
        elif key.endswith(".weight"):
            w *= np.float32(0.1 * math.sqrt(3))
            w += np.float32(1)
        else:
            w *= np.float32(0.02 * math.sqrt(3))
        return torch.from_numpy(w.reshape(shape))


class FreshControlSource:
    """A ControlNet that starts as a copy of the UNet's encoder: its zero convolutions are zero,
    its hint encoder is new. Other keys come from the UNet's own source."""

    def __init__(self, inner: Source, hint: nn.Module) -> None:
        self._inner = inner
        self._hint = module_source({"control_model.input_hint_block.": hint})

    def shapes(self) -> None:
        return None

    def read(self, key: str, shape: tuple[int, ...]) -> Tensor:
        prefix = "control_model."
        if not key.startswith(prefix):
            return self._inner.read(key, shape)
        if key.startswith(prefix + "input_hint_block."):
            return self._hint.read(key, shape)
        if key.startswith((prefix + "zero_convs.", prefix + "middle_block_out.")):
            return torch.zeros(shape)
        return self._inner.read("model.diffusion_model." + key.removeprefix(prefix), shape)


def open_weights(spec: str) -> Source:
    """`rule:[SALT]`, a safetensors file or a PyTorch checkpoint."""
    if spec.startswith("rule:"):
        return RuleSource(spec[len("rule:") :])
    path = Path(spec)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if path.suffix == ".safetensors":
        return SafetensorsSource(path)
    return pickle_source(path)


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and floating-point buffers, also those that a state dict leaves out."""
    named = dict(module.named_parameters())
    named.update((k, b) for k, b in module.named_buffers() if b.is_floating_point())
    return named


def _bytes_of(key: str, tensor: Tensor, dtype: torch.dtype) -> memoryview:
    if not tensor.is_floating_point():
        raise InputError(f"{key}: is {tensor.dtype}, expected a floating-point tensor")
    converted = tensor.to(dtype).contiguous()
    if dtype == torch.float16 and not bool(torch.isfinite(converted).all()):
        largest = tensor.abs().max().item()
        raise InputError(f"{key}: {largest:g} does not fit fp16, use bf16 or fp32")
    return memoryview(converted.reshape(-1).view(torch.uint8).numpy())


def write_safetensors(
    path: Path, shapes: Mapping[str, tuple[int, ...]], source: Source, dtype: str
) -> dict[str, object]:
    """Writes the tensors one by one; gives {"sha256", "bytes"} of the file."""
    target = DTYPES[dtype]
    header: dict[str, object] = {}
    offset = 0
    for key, shape in shapes.items():
        end = offset + math.prod(shape) * target.itemsize
        header[key] = {
            "dtype": _SAFETENSORS_NAME[target],
            "shape": list(shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    digest = hashlib.sha256()

    def pieces() -> Iterable[bytes | memoryview]:
        yield len(text).to_bytes(8, "little")
        yield text
        for key, shape in shapes.items():
            tensor = source.read(key, shape)
            if tuple(tensor.shape) != shape:
                raise InputError(f"{key}: shape {list(tensor.shape)}, expected {list(shape)}")
            yield _bytes_of(key, tensor, target)

    try:
        with path.open("wb") as file:
            for piece in pieces():
                digest.update(piece)
                file.write(piece)
    except OSError as error:
        raise ExportError(f"{path.name}: cannot be written: {error.strerror}") from None
    return {"sha256": digest.hexdigest(), "bytes": 8 + len(text) + offset}
