"""A session for linear algebra and the recorded clustering, shared by the concept tests."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
import capi  # noqa: E402


@pytest.fixture(scope="session")
def linear():
    """A session without a model, one thread."""
    opened = capi.LinearSession(threads=1)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def clustering() -> dict[str, np.ndarray]:
    """The recorded arrays of mcd/clustering.npz."""
    with np.load(capi.REFERENCE / "mcd" / "clustering.npz") as archive:
        return {name: archive[name] for name in archive.files}
