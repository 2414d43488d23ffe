"""Self-representation over libtorch: the unit tests again, and the published algorithm beside."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("FEATINV_BUILD", ROOT / "build"))
ENVIRONMENT = dict(os.environ, FEATINV_BACKEND=str(BUILD / "libfeatinv-torch.so"),
                   OMP_WAIT_POLICY="passive")
sys.path.insert(0, str(ROOT / "bench"))

import concepts as bench  # noqa: E402


def test_unit_tests_over_libtorch():
    """Every case of tests/unit/test_selfrep.c, with libtorch's products instead of plain loops."""
    done = subprocess.run([str(BUILD / "tests" / "test_selfrep")], env=ENVIRONMENT, cwd=ROOT,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "test_recorded" in done.stdout + done.stderr


@pytest.fixture(scope="module")
def program(tmp_path_factory) -> Path:
    return bench.build_driver(tmp_path_factory.mktemp("driver"), BUILD)


def solve(program: Path, folder: Path, rows: np.ndarray, memory: int) -> tuple[np.ndarray, dict]:
    """Dense coefficients (n, n) and what the driver reports."""
    np.save(folder / "rows.npy", rows)
    done = subprocess.run([str(program), str(folder / "rows.npy"), str(folder / "out.npz"), "10",
                           "1", str(memory), "2", "1"], env=ENVIRONMENT, capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stderr
    everything = np.arange(len(rows))
    return (bench.read_solution(folder / "out.npz", everything, len(rows)),
            json.loads(done.stdout))


def test_planted_subspaces_beside_the_published_algorithm(program, tmp_path):
    """Both paths of the Gram matrix: stationary over all rows, never above the published objective
    on a sample of rows, and the coefficients near its own."""
    rows = bench.planted(1200, 96, seed=3)
    everything, sample = np.arange(1200), np.arange(0, 1200, 40)
    kept, report = solve(program, tmp_path, rows, 1 << 30)
    made, _ = solve(program, tmp_path, rows, 0)
    objective, stationarity = bench.judge(rows, everything, kept)
    assert stationarity < 1e-9 and report["stationarity"] < 1e-9
    assert stationarity < report["stationarity"] + 1e-11
    assert abs(objective.sum() / report["objective"] - 1) < 1e-12
    assert np.abs(kept - made).max() < 1e-9

    np.save(tmp_path / "chosen.npy", sample)
    bench.published(tmp_path / "rows.npy", sample, tmp_path / "theirs.npy")
    theirs = np.load(tmp_path / "theirs.npy")
    objective_theirs, _ = bench.judge(rows, sample, theirs)
    assert (objective[sample] <= objective_theirs * (1 + 1e-12)).all()
    assert (objective[sample] >= objective_theirs * (1 - 1e-6)).all()
    assert np.abs(kept[sample] - theirs).max() < 5e-3
