import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
import capi  # noqa: E402

GOLDEN = capi.REFERENCE / "featinv"
SCENES = capi.ROOT / "models" / "scenes"


@pytest.fixture(scope="session")
def recorded():
    """train.npz: three optimiser steps of the published implementation."""
    with np.load(GOLDEN / "train.npz") as data:
        return {name: data[name] for name in data.files}


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """The tiny reference model as a bundle, with its encoder."""
    return capi.export("checkpoint", "--config", GOLDEN / "tiny.yaml", "--weights", "rule:tiny-a:",
                       "--backbone", "none", "--map", "9,9",
                       out=tmp_path_factory.mktemp("train") / "tiny")


@pytest.fixture(scope="session")
def session(tiny):
    """One thread, as the recordings: sums in one order."""
    made = capi.Session(tiny, threads=1)
    yield made
    made.close()


@pytest.fixture(scope="session")
def scenes():
    """The reference bundle: v-prediction, with backbone and encoder."""
    made = capi.Session(SCENES, threads=1)
    yield made
    made.close()
