"""Training from nothing: a fresh ControlNet on the generator of another bundle, as users start."""

import json

import capi
import numpy as np
import pytest
from conftest import SCENES
from reference import Loop
from training import Trainer

COUNT = 2


@pytest.fixture(scope="module", params=["conv", "perceiver"])
def fresh(request, tmp_path_factory):
    """A ResNet with random weights, its ControlNet untrained; everything else from `base`."""
    return capi.export("backbone", "timm:resnet18", "--weights", "random:1", "--base", SCENES,
                       "--input", "64", "--hint", request.param, "--hint-hidden", "64",
                       out=tmp_path_factory.mktemp("fresh") / request.param)


def test_the_first_steps(fresh, tmp_path):
    manifest = json.loads((fresh / "manifest.json").read_text())
    features = manifest["features"]
    rng = np.random.default_rng(4)
    with np.load(SCENES / "contexts.npz") as contexts:
        prompt = np.stack([contexts["default"]] * COUNT)
    shape = (COUNT, features["channels"], features["height"], features["width"])
    # a fresh ControlNet ends in zeros, so most gradients are nothing but rounding at first, and
    # AdamW's usual epsilon of 1e-8 would make whole steps of it
    loop = Loop(fresh, base=SCENES, rate=1e-3, epsilon=1e-4)
    session = capi.Session(fresh, threads=1)
    with Trainer(session, rate=1e-3, epsilon=1e-4) as trainer:
        start = trainer.all()
        for i in range(4):
            batch = {"latents": rng.normal(size=(COUNT, 4, 16, 16)).astype(np.float32),
                     "maps": rng.normal(size=shape).astype(np.float32), "context": prompt,
                     "timesteps": rng.integers(0, 1000, COUNT),
                     "noise": rng.normal(size=(COUNT, 4, 16, 16)).astype(np.float32)}
            loss, norm = loop.step(**batch)
            result, _ = trainer.step(COUNT, **batch, drop_hint=[0, 0], drop_prompt=[0, 0])
            assert result.loss == pytest.approx(loss, rel=1e-5), i
            assert result.gradient_norm == pytest.approx(norm, rel=1e-3), i
        end = trainer.all()
        moved = {k: v.detach().numpy() - loop.start[k].numpy() for k, v in loop.trained.items()}
        error = sum(np.square(end[k] - start[k] - moved[k]).sum() for k in moved)
        assert error < 1e-4 * sum(np.square(m).sum() for m in moved.values())
        for key in trainer.keys:  # every part of the hint encoder takes part by now
            if "input_hint_block" in key:
                assert np.abs(end[key] - start[key]).max() > 1e-6, key
        trainer.export(tmp_path / "trained")
    session.close()
    again = capi.Session(tmp_path / "trained", threads=1)
    pixels = rng.integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
    maps, _ = again.extract(list(pixels), shape[1:])
    latents, _, _ = again.sample(maps, (4, 16, 16), steps=2)
    again.close()
    assert np.isfinite(latents).all()
