"""Processes on this machine, started by mpirun, each with one thread."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "support"))
BUILD = Path(os.environ.get("FEATINV_BUILD", ROOT / "build"))
COMMAND = BUILD / "featinv"
FAKE = BUILD / "tests" / "libfake_backend.so"
SCENES = ROOT / "models" / "scenes"
CHECKPOINT = "checkpoint.safetensors"
MPIRUN = ["mpirun", "--allow-run-as-root", "--oversubscribe", "--bind-to", "none"]


def pytest_collection_modifyitems(items):
    missing = [name for name, there in (("mpirun", shutil.which("mpirun")),
                                        ("libfeatinv-mpi.so",
                                         (BUILD / "libfeatinv-mpi.so").exists())) if not there]
    for item in items:
        if missing:
            item.add_marker(pytest.mark.skip(reason=f"no {' and no '.join(missing)} here"))


def environment(**more) -> dict:
    """One thread a process; the shared-memory transport without ptrace, which containers forbid."""
    return dict(os.environ, OMP_NUM_THREADS="1", OMP_WAIT_POLICY="passive",
                OMPI_MCA_btl_vader_single_copy_mechanism="none", **more)


def command(count: int, *args) -> list[str]:
    """The command as `count` processes; 1: without mpirun."""
    start = [] if count == 1 else [*MPIRUN, "-n", str(count)]
    return [*start, str(COMMAND), *map(str, args)]


@pytest.fixture(scope="session")
def run():
    """Runs the command; returns its result with `lines`, those of featinv on stderr."""

    def call(count, *args, expect=0, env=None, timeout=120):
        result = subprocess.run(command(count, *args), capture_output=True, text=True,
                                env=environment(**(env or {})), timeout=timeout)
        assert result.returncode == expect, (args, result.returncode, result.stdout, result.stderr)
        result.lines = [x for x in result.stderr.splitlines() if x.startswith("featinv: ")]
        return result

    return call


@pytest.fixture(scope="session")
def scenes(tmp_path_factory):
    """Forty drawn scenes."""
    folder = tmp_path_factory.mktemp("mpi") / "scenes"
    subprocess.run([sys.executable, str(ROOT / "models" / "recipe" / "scenes.py"), "--count", "40",
                    "--seed", "5000", "-o", str(folder)], check=True)
    return folder


@pytest.fixture(scope="session")
def fake(tmp_path_factory):
    """A bundle for the fake backend (tests/fake), whose steps take no time."""
    spec = importlib.util.spec_from_file_location("fake_bundle", ROOT / "tests/cli/conftest.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.make_bundle(tmp_path_factory.mktemp("bundles") / "fake")


@pytest.fixture(scope="session")
def noise(tmp_path_factory):
    """Sixteen noisy images."""
    rng = np.random.default_rng(1)
    folder = tmp_path_factory.mktemp("images") / "noise"
    folder.mkdir()
    for i in range(16):
        pixels = rng.integers(0, 256, (14, 12 + i % 3, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:02}.png")
    return folder


def state_of(output: Path) -> Path:
    return output.with_name(output.name + ".training")


def log(output: Path) -> list[dict]:
    """log.jsonl but for times; the settings apart."""
    lines = [json.loads(x) for x in (state_of(output) / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in x.items() if k not in ("seconds", "samples_per_second")}
            for x in lines[1:]]


def steps(output: Path) -> list[dict]:
    return [x for x in log(output) if "loss" in x]


def checkpoint(output: Path) -> bytes:
    return (state_of(output) / CHECKPOINT).read_bytes()
