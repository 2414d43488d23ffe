import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
import capi  # noqa: E402

GOLDEN = capi.REFERENCE / "featinv"


@pytest.fixture(scope="session")
def golden():
    """Loads one recorded .npz as a dict."""
    cache = {}

    def load(name):
        if name not in cache:
            with np.load(GOLDEN / f"{name}.npz") as data:
                cache[name] = {k: data[k] for k in data.files}
        return cache[name]

    return load


@pytest.fixture(scope="session")
def bundles(tmp_path_factory):
    """Bundles of the reference architectures with rule-made weights, made once."""
    folder, made = tmp_path_factory.mktemp("bundles"), {}

    def bundle(name):
        if name in made:
            return made[name]
        config, salt, extra = GOLDEN / "tiny.yaml", "tiny-a:", []
        if name == "wide":
            config, salt = GOLDEN / "wide.yaml", "tiny-w:"
        if name in ("vit", "nhwc"):
            channels, grid = {"vit": (24, "7,7"), "nhwc": (56, "12,12")}[name]
            text = yaml.safe_load(config.read_text())
            text["model"]["params"]["control_stage_config"]["params"]["hint_channels"] = channels
            config, salt = folder / f"{name}.yaml", f"tiny-a:{name}:"
            config.write_text(yaml.safe_dump(text))
            extra = ["--map", grid]
        else:
            extra = ["--map", "9,9"]
        made[name] = capi.export("checkpoint", "--config", config, "--weights", f"rule:{salt}",
                                 "--backbone", "none", *extra, out=folder / name)
        return made[name]

    return bundle


@pytest.fixture(scope="session")
def sessions(bundles):
    """Open sessions, one a bundle."""
    made = {}

    def session(name):
        if name not in made:
            made[name] = capi.Session(bundles(name))
        return made[name]

    yield session
    for each in made.values():
        each.close()
