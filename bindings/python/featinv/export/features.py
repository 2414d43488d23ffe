"""Statistics of the training maps: what a bundle's features.npz holds.

They say where a map lies among the maps that a ControlNet was trained on: the channel mean, the
leading principal directions of the positions, and percentiles over maps of two figures, each a mean
over the map's positions: the length of the feature vector, and the length of what is left of it off
the mean and the directions.
"""

import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from .errors import InputError

PERCENTILES = np.arange(101)
MAX_DIRECTIONS = 256  # that the library reads


@dataclass
class FeatureStatistics:
    """The arrays of features.npz, float32; the last three are there together or not at all."""

    mean: np.ndarray  # (C,)
    directions: np.ndarray | None = None  # (C, p), orthonormal columns
    norms: np.ndarray | None = None  # (101,), percentiles 0 to 100 over the training maps
    residuals: np.ndarray | None = None  # (101,)

    @classmethod
    def read(cls, arrays: Mapping[str, np.ndarray], name: str) -> "FeatureStatistics":
        """From the arrays of a file, whose name is for the error; others are ignored."""
        if "mean" not in arrays:
            raise InputError(f"{name}: no array called mean")
        keys = ("mean", "directions", "norms", "residuals")
        return cls(**{key: np.asarray(arrays[key], np.float32) for key in keys if key in arrays})

    def check(self, channels: int) -> None:
        """Raises InputError where the arrays do not fit maps of so many channels."""
        if self.mean.shape != (channels,):
            raise InputError(
                f"feature mean: shape {list(self.mean.shape)}, expected [{channels}]"
            )
        rest = {
            key: value
            for key in ("directions", "norms", "residuals")
            if (value := getattr(self, key)) is not None
        }
        if rest and len(rest) < 3:
            raise InputError(f"features: {', '.join(rest)} without the others")
        for key, value in {"mean": self.mean, **rest}.items():
            if not np.isfinite(value).all():
                raise InputError(f"features: {key} is not finite")
        if not rest:
            return
        shape, most = self.directions.shape, min(channels, MAX_DIRECTIONS)
        if len(shape) != 2 or shape[0] != channels or not 1 <= shape[1] <= most:
            raise InputError(f"features: directions has shape {list(shape)}, not [{channels}, p]")
        for key in ("norms", "residuals"):
            value = rest[key]
            if value.shape != PERCENTILES.shape or (np.diff(value) < 0).any() or value[0] < 0:
                raise InputError(f"features: {key} is no ascending row of {len(PERCENTILES)}")

    def arrays(self) -> dict[str, np.ndarray]:
        """Name → array of what is there, as features.npz holds it."""
        return {
            key: np.asarray(value, np.float32)
            for key, value in vars(self).items()
            if value is not None
        }


def feature_statistics(
    maps: torch.Tensor | np.ndarray,
    mean: np.ndarray | None = None,
    *,
    variance: float = 0.9,
    max_directions: int = 64,
    max_positions: int = 400_000,
    chunk: int = 500,
) -> FeatureStatistics:
    """Statistics of training maps (N, C, H, W) of any floating dtype.

    mean            (C,): the channel mean, where it is known already
    variance        share of the positions' variance that the directions must hold
    max_directions  at most so many of them
    max_positions   the directions come from every n-th map, so that about so many positions count;
                    the percentiles come from all maps
    chunk           maps in memory as float64 at a time
    """
    if isinstance(maps, np.ndarray):
        maps = torch.from_numpy(maps if maps.flags.writeable else maps.copy())
    if maps.ndim != 4 or min(maps.shape) < 1:
        raise InputError(f"training maps: shape {list(maps.shape)}, expected [N, C, H, W]")
    if mean is None:
        centre = sum(part.sum((0, 2)) for part in _chunks(maps, chunk))
        centre = centre / (len(maps) * maps.shape[2] * maps.shape[3])
    else:
        centre = torch.as_tensor(np.asarray(mean, np.float64))
    if centre.shape != (maps.shape[1],) or not torch.isfinite(centre).all():
        raise InputError("training maps: they or their mean hold NaN, infinity or other channels")
    positions = maps.shape[0] * maps.shape[2] * maps.shape[3]
    stride = -(-positions // max_positions)
    directions = _directions(_chunks(maps[::stride], chunk), centre, variance, max_directions)
    # The library computes with what is stored.
    stored = directions.float().double()
    centre = centre.float().double()
    norms, residuals = [], []
    for part in _chunks(maps, chunk):
        norms.append(part.norm(dim=1).mean(1))
        x = part - centre.view(1, -1, 1)
        left = x - torch.einsum("cp,npk->nck", stored, torch.einsum("cp,nck->npk", stored, x))
        residuals.append(left.norm(dim=1).mean(1))
    return FeatureStatistics(
        centre.float().numpy(),
        stored.float().numpy(),
        _percentiles(torch.cat(norms)),
        _percentiles(torch.cat(residuals)),
    )


def read_maps(path: Path) -> np.ndarray:
    """Maps (N, C, H, W) from an .npy, or an .npz with `features` or with one array only."""
    try:
        loaded = np.load(path, mmap_mode="c", allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            maps = loaded
        else:
            with loaded:
                names = loaded.files
                name = names[0] if len(names) == 1 else "features"
                if name not in names:
                    raise InputError(f"{path}: no array called features")
                maps = loaded[name]
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None
    except (ValueError, zipfile.BadZipFile, EOFError) as error:
        raise InputError(f"{path}: no usable array file: {error}") from None
    if maps.dtype.kind != "f":
        raise InputError(f"{path}: {maps.dtype}, expected floating point")
    return maps


def _chunks(maps: torch.Tensor, chunk: int) -> Iterator[torch.Tensor]:
    """(n, C, positions) float64."""
    for first in range(0, len(maps), chunk):
        yield maps[first : first + chunk].double().flatten(2)


def _directions(
    chunks: Iterator[torch.Tensor], centre: torch.Tensor, variance: float, limit: int
) -> torch.Tensor:
    """The fewest principal directions (C, p) of positions about centre that hold `variance`."""
    scatter = torch.zeros(len(centre), len(centre), dtype=torch.float64)
    for part in chunks:
        x = (part - centre.view(1, -1, 1)).transpose(0, 1).flatten(1)
        scatter += x @ x.T
    values, vectors = torch.linalg.eigh(scatter)
    values, vectors = values.flip(0).clamp(min=0), vectors.flip(1)
    share = values.cumsum(0) / values.sum().clamp(min=1e-300)
    count = int((share < variance).sum()) + 1
    return vectors[:, : max(1, min(count, limit, len(centre)))].contiguous()


def _percentiles(values: torch.Tensor) -> np.ndarray:
    table = np.percentile(values.numpy(), PERCENTILES).astype(np.float32)
    return np.maximum.accumulate(table)
