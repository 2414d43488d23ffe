"""Fixtures of the exporter's tests."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "bindings" / "python"))

from featinv.export import cli, programs  # noqa: E402
from featinv.export.weights import SafetensorsSource  # noqa: E402


def _reference() -> Path | None:
    places = [ROOT / "tests" / "data"]
    if "FEATINV_REFERENCE" in os.environ:
        places.insert(0, Path(os.environ["FEATINV_REFERENCE"]))
    for place in places:
        for folder in (place / "featinv", place):
            if (folder / "tiny.yaml").is_file():
                return folder
    return None


@pytest.fixture(scope="session")
def reference() -> Path:
    """The golden data."""
    folder = _reference()
    if folder is None:
        pytest.skip("no golden data: set FEATINV_REFERENCE")
    return folder


@pytest.fixture(scope="session")
def golden(reference: Path) -> Callable[[str], dict[str, np.ndarray]]:
    """Arrays of one of the golden files, by name."""

    def read(name: str) -> dict[str, np.ndarray]:
        path = reference / name
        if not path.is_file():
            pytest.skip(f"the golden data lacks {name}")
        with np.load(path) as archive:
            return {key: archive[key] for key in archive.files}

    return read


@pytest.fixture(scope="session")
def tiny(reference: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny golden model as a bundle."""
    return _export(reference, tmp_path_factory, "tiny", "rule:tiny-a:")


@pytest.fixture(scope="session")
def wide(reference: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wide golden model as a bundle."""
    return _export(reference, tmp_path_factory, "wide", "rule:tiny-w:")


def _export(
    reference: Path, factory: pytest.TempPathFactory, name: str, weights: str
) -> Path:
    out = factory.mktemp("bundles") / name
    config = str(reference / f"{name}.yaml")
    code = cli.main(["checkpoint", "--config", config, "--weights", weights, "-o", str(out), "-q"])
    assert code == 0
    return out


class Bundle:
    """A written bundle as its reader sees it: programs with their weights in, float32."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = json.loads((folder / "manifest.json").read_text())

    def program(self, name: str, dtype: torch.dtype = torch.float32) -> torch.jit.ScriptModule:
        source = SafetensorsSource(self.folder / f"{name}.safetensors")
        weights = {key: source.read(key, shape).to(dtype) for key, shape in source.shapes().items()}
        return programs.load((self.folder / f"{name}.ts").read_bytes(), weights)


@pytest.fixture(scope="session")
def tiny_bundle(tiny: Path) -> Bundle:
    return Bundle(tiny)


@pytest.fixture(autouse=True, scope="session")
def no_gradients() -> None:
    torch.set_grad_enabled(False)


def scaled(got: torch.Tensor, want: np.ndarray) -> float:
    """Largest difference over largest reference value."""
    assert tuple(got.shape) == want.shape
    return float(np.abs(got.float().numpy() - want).max() / np.abs(want).max())
