"""A warm start: the ControlNet of a trained bundle under a new backbone's hint encoder."""

import json

import capi
import numpy as np
import pytest
from conftest import SCENES
from PIL import Image
from safetensors.numpy import load_file
from training import Trainer

HINT = "control_model.input_hint_block."


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """A ResNet with random weights on the reference bundle's generator; nothing trained."""
    return capi.export("backbone", "timm:resnet18", "--layer", "layer2", "--weights", "random:1",
                       "--base", SCENES, "--input", "64", "--hint-hidden", "64",
                       out=tmp_path_factory.mktemp("warm") / "fresh")


def same(a: dict, b: dict) -> bool:
    return all(np.array_equal(a[k], b[k]) for k in a)


def test_all_but_the_hint_encoder_is_taken(fresh):
    learnt = load_file(SCENES / "control.safetensors")
    session = capi.Session(fresh, threads=1)
    with Trainer(session, average=0.9) as trainer:
        before = trainer.all()
        trainer.warm_start(SCENES)
        for what in ("parameter", "average"):
            after = trainer.all(what)
            for key, value in after.items():
                wanted = before[key] if key.startswith(HINT) else learnt[key].astype(np.float32)
                assert np.array_equal(value, wanted), (what, key)
        assert any(not np.array_equal(before[k], learnt[k]) for k in learnt if k in before)
    session.close()


def test_of_a_bundle_with_a_unet_of_its_own(fresh):
    session, learnt = capi.Session(fresh, threads=1), load_file(SCENES / "unet.safetensors")
    with Trainer(session, mode="unlocked") as trainer:
        trainer.warm_start(SCENES)
        for key in trainer.keys:
            if key.startswith("model."):
                assert np.array_equal(trainer.read("parameter", key),
                                      learnt[key].astype(np.float32))
    session.close()


def test_refusals_change_nothing(fresh, tiny, tmp_path):
    session = capi.Session(fresh, threads=1)
    with Trainer(session) as trainer:
        before = trainer.all()
        for bundle, part in ((tiny, "another shape"), (SCENES.parent / "judge", "it lacks"),
                             (tmp_path / "none", "none")):
            with pytest.raises(capi.FeatinvError, match=part):
                trainer.warm_start(bundle)
        assert same(before, trainer.all())
        rng = np.random.default_rng(1)
        trainer.step(1, latents=rng.normal(size=(1, 4, 16, 16)),
                     maps=rng.normal(size=(1, 128, 8, 8)))
        with pytest.raises(capi.FeatinvError, match="after 1 steps"):
            trainer.warm_start(SCENES)
    session.close()


def test_the_command(fresh, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    rng = np.random.default_rng(2)
    for i in range(4):
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)).save(photos / f"{i}.png")
    shared = ["train", "--data", photos, "-m", fresh, "--steps", 2, "--batch", 2,
              "--validate-every", 0, "--lr", 1e-30, "--threads", 1]
    capi.run(*shared, "-o", tmp_path / "warm", "--warm-start", SCENES)
    learnt, made = (load_file(b / "control.safetensors") for b in (SCENES, tmp_path / "warm"))
    moved = [k for k in learnt if not k.startswith(HINT) and not np.array_equal(learnt[k], made[k])]
    assert not moved
    log = tmp_path / "warm.training" / "log.jsonl"
    settings = json.loads(log.read_text().splitlines()[0])["settings"]["training"]
    assert len(settings["warm_start_sha256"]) == 64
    again = [*shared, "-o", tmp_path / "warm", "--force", "--resume"]
    again[again.index("--steps") + 1] = 3
    assert "warm_start_sha256" in capi.run(*again, expect=2).stderr
    capi.run(*again, "--warm-start", SCENES)
    bad = capi.run(*shared, "-o", tmp_path / "bad", "--warm-start", tmp_path, expect=4)
    assert len(bad.stderr.splitlines()) == 1
    assert not (tmp_path / "bad").exists() and not (tmp_path / "bad.training").exists()
