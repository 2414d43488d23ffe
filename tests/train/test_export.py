"""A trained bundle: whole, readable by every reader, and with the trained weights in it."""

import ctypes as c
import hashlib
import json
import os
import shutil

import capi
import numpy as np
import pytest
from conftest import SCENES
from safetensors import safe_open
from safetensors.numpy import load_file
from training import ExportOptions, Trainer

LATENT = (4, 16, 16)


@pytest.fixture(scope="module")
def given():
    rng = np.random.default_rng(8)
    return {"latents": rng.normal(size=(2, *LATENT)).astype(np.float32),
            "maps": rng.normal(size=(2, 96, 8, 8)).astype(np.float32)}


def trained(session, given, steps=2, **settings):
    trainer = Trainer(session, rate=1e-3, **settings)
    for _ in range(steps):
        trainer.step(2, **given)
    return trainer


def weights(bundle, names=("hint", "control", "unet")):
    out = {}
    for name in names:
        path = bundle / f"{name}.safetensors"
        out |= load_file(path) if path.exists() else {}
    return out


def files(folder):
    return {str(p.relative_to(folder)): p.read_bytes()
            for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("mode", ["locked", "unlocked", "joint"])
@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
def test_an_exported_bundle(scenes, given, tmp_path, mode, dtype):
    out = tmp_path / "bundle"
    with trained(scenes, given, mode=mode) as trainer:
        trainer.export(out, dtype=dtype, name="retrained")
        values, later = trainer.all(), trainer.loss(2, **given)[0].loss
    old, new = files(SCENES), files(out)
    assert set(old) == set(new)
    changed = {name for name in old if old[name] != new[name]}
    wanted = {"manifest.json", "hint.safetensors", "control.safetensors"}
    assert changed == wanted | ({"unet.safetensors"} if mode != "locked" else set())

    manifest = json.loads(new["manifest.json"])
    for name, listed in manifest["files"].items():
        assert listed == {"sha256": hashlib.sha256(new[name]).hexdigest(),
                          "bytes": len(new[name])}, name
    assert manifest["name"] == "retrained"
    training = manifest["provenance"].pop("training")
    assert training == {"from": hashlib.sha256(old["manifest.json"]).hexdigest(), "mode": mode,
                        "steps": 2, "rate": 1e-3, "average": False}
    before = json.loads(old["manifest.json"])
    assert {**manifest, "files": 0, "name": 0} == {**before, "files": 0, "name": 0}
    assert list(manifest) == list(before) and list(manifest["files"]) == list(before["files"])

    stored, original = weights(out), weights(SCENES)
    assert set(stored) == set(original)
    for key, value in stored.items():
        if key in values:
            assert value.dtype == {"fp32": np.float32, "fp16": np.float16}[dtype], key
            assert np.array_equal(value, values[key].astype(value.dtype)), key
        else:
            assert value.dtype == original[key].dtype, key
            assert np.array_equal(value, original[key]), key

    again = capi.Session(out, threads=1)
    with Trainer(again) as trainer:
        loss = trainer.loss(2, **given)[0].loss
        first = Trainer(scenes)
        untrained = first.loss(2, **given)[0].loss
        first.close()
    assert loss == pytest.approx(later, rel=1e-6 if dtype == "fp32" else 2e-3)
    assert abs(untrained - later) > 0.05 * later
    pictures, _, _ = again.sample(given["maps"], LATENT, steps=2)
    before, _, _ = scenes.sample(given["maps"], LATENT, steps=2)
    again.close()
    assert capi.scaled(pictures, before) > 0.01


def test_the_average_is_exported(scenes, given, tmp_path):
    with trained(scenes, given, average=0.9) as trainer:
        trainer.export(tmp_path / "average")
        trainer.export(tmp_path / "latest", latest=True)
        values, averages = trainer.all(), trainer.all("average")
    assert json.loads((tmp_path / "average" / "manifest.json").read_text())[
        "provenance"]["training"]["average"] is True
    for folder, wanted, other in (("average", averages, values), ("latest", values, averages)):
        stored = weights(tmp_path / folder)
        assert any(not np.array_equal(wanted[k], other[k]) for k in wanted)
        for key, value in wanted.items():
            assert np.array_equal(stored[key], value.astype(stored[key].dtype)), key


@pytest.fixture(scope="module")
def based(tmp_path_factory):
    """Bundles a/base and a/derived: UNet, autoencoder and prompts of the second are the first's."""
    folder = tmp_path_factory.mktemp("based")
    base, derived = folder / "base", folder / "derived"
    shutil.copytree(SCENES, base)
    shutil.copytree(SCENES, derived)
    manifest = json.loads((derived / "manifest.json").read_text())
    for name in list(manifest["files"]):
        if name.split(".")[0] in ("unet", "encoder", "decoder", "contexts"):
            (derived / name).unlink()
            del manifest["files"][name]
    sha256 = hashlib.sha256((base / "manifest.json").read_bytes()).hexdigest()
    manifest["base"] = {"path": "../base", "manifest_sha256": sha256}
    (derived / "manifest.json").write_text(json.dumps(manifest))
    return base, derived


@pytest.mark.parametrize("mode", ["locked", "joint"])
@pytest.mark.parametrize("place", ["derived", "away/further/new"])
def test_a_bundle_with_a_base(based, given, tmp_path, mode, place):
    """A base stays referred to, from wherever the new bundle lies; a trained UNet moves over."""
    base, derived = based
    out = derived.parent / f"new-{mode}" if place == "derived" else tmp_path / place
    out.parent.mkdir(parents=True, exist_ok=True)
    session = capi.Session(derived, threads=1)
    with trained(session, given, mode=mode) as trainer:
        trainer.export(out, dtype="fp32")
        later = trainer.loss(2, **given)[0].loss
    session.close()
    manifest = json.loads((out / "manifest.json").read_text())
    path = manifest["base"]["path"]
    assert not os.path.isabs(path) and (out / path).resolve() == base.resolve()
    own = {"unet.ts", "unet.safetensors"} if mode == "joint" else set()
    assert set(files(out)) == set(files(derived)) | own
    again = capi.Session(out, threads=1)
    with Trainer(again) as trainer:
        assert trainer.loss(2, **given)[0].loss == pytest.approx(later, rel=1e-6)
    again.close()


class WithMean(c.Structure):
    """The export's options, with what came after the first version of them."""

    _fields_ = [*ExportOptions._fields_, ("feature_mean", c.POINTER(capi.Tensor))]


def export_with_mean(trainer, path, mean):
    options, tensor = WithMean(), capi.view(mean)
    capi.check(capi.lib.featinv_trainer_export_options_init(c.byref(options),
                                                            c.c_size_t(c.sizeof(options))))
    options.feature_mean = c.pointer(tensor)
    capi.check(capi.lib.featinv_trainer_export(trainer.handle, str(path).encode(),
                                               c.byref(options)))


def test_a_mean_for_a_bundle_that_has_none(scenes, given, tmp_path):
    start = tmp_path / "start"
    shutil.copytree(SCENES, start)
    manifest = json.loads((start / "manifest.json").read_text())
    (start / "features.npz").unlink()
    del manifest["files"]["features.npz"]
    (start / "manifest.json").write_text(json.dumps(manifest))
    mean = np.random.default_rng(3).normal(size=96).astype(np.float32)
    session = capi.Session(start, threads=1)
    with trained(session, given, steps=1) as trainer:
        export_with_mean(trainer, tmp_path / "a", mean)
        export_with_mean(trainer, tmp_path / "b", mean)
        trainer.export(tmp_path / "none")
        for wrong, status in ((mean[:95].copy(), -15), (mean.astype(np.float64), -15),
                              (np.where(np.arange(96) == 7, np.nan, mean).astype(np.float32), -16)):
            error = refusal(export_with_mean, trainer, tmp_path / "bad", wrong)
            assert error.status == status and "feature_mean" in error.text
        assert not (tmp_path / "bad").exists()
    session.close()
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert not (tmp_path / "none" / "features.npz").exists()
    with np.load(tmp_path / "a" / "features.npz") as file:
        assert file.files == ["mean"] and np.array_equal(file["mean"], mean)
    listed = json.loads((tmp_path / "a" / "manifest.json").read_text())["files"]["features.npz"]
    assert listed["sha256"] == hashlib.sha256(files(tmp_path / "a")["features.npz"]).hexdigest()
    capi.Session(tmp_path / "a", threads=1).close()
    with trained(scenes, given, steps=1) as trainer:
        export_with_mean(trainer, tmp_path / "own", mean)
    assert files(tmp_path / "own")["features.npz"] == files(SCENES)["features.npz"]


def refusal(call, *args, **settings):
    with pytest.raises(capi.FeatinvError) as caught:
        call(*args, **settings)
    assert "\n" not in caught.value.text
    return caught.value


def test_an_existing_folder(scenes, given, tmp_path):
    out = tmp_path / "bundle"
    with trained(scenes, given, steps=1) as trainer:
        trainer.export(out)
        first = files(out)
        error = refusal(trainer.export, out)
        assert error.status == -10 and "exists" in error.text and files(out) == first
        trainer.step(2, **given)
        (out / "concepts" / "more.npz").write_bytes(b"not listed")
        trainer.export(f"{out}/", force=True)
        assert files(out)["control.safetensors"] != first["control.safetensors"]
        assert set(files(out)) == set(first)
        (tmp_path / "other").mkdir()
        (tmp_path / "other" / "photo.jpg").write_bytes(b"mine")
        error = refusal(trainer.export, tmp_path / "other", force=True)
        assert error.status == -10 and "not a bundle" in error.text
        assert files(tmp_path / "other") == {"photo.jpg": b"mine"}
        (tmp_path / "file").write_bytes(b"mine")
        assert refusal(trainer.export, tmp_path / "file", force=True).status == -10
        assert refusal(trainer.export, tmp_path / "none" / "bundle").status == -10
        error = refusal(trainer.export, SCENES, force=True)
        assert error.status == -10 and "trained from" in error.text
        assert refusal(trainer.export, tmp_path / "x", dtype="bf16").status == -3
        assert refusal(trainer.export, tmp_path / "x", name="").status == -3
    assert sorted(os.listdir(tmp_path)) == ["bundle", "file", "other"]


def test_weights_that_fp16_cannot_hold(scenes, given, tmp_path):
    """A decay of 1e6 a step takes weights beyond 65504; nothing is left behind."""
    with Trainer(scenes, rate=1e3, weight_decay=1e3) as trainer:
        trainer.step(2, **given)
        assert max(np.abs(v).max() for v in trainer.all().values()) > 65504
        error = refusal(trainer.export, tmp_path / "bundle", dtype="fp16")
        assert error.status == -16 and "fp16" in error.text
        assert os.listdir(tmp_path) == []
        trainer.export(tmp_path / "bundle", dtype="fp32")


def test_a_changed_source_is_noticed(given, tmp_path):
    """A file that is no longer the one that was opened does not reach the new bundle."""
    source = tmp_path / "source"
    shutil.copytree(SCENES, source)
    session = capi.Session(source, threads=1)
    with Trainer(session) as trainer:
        for name in ("decoder.safetensors", "control.safetensors", "contexts.npz"):
            path = source / name
            whole = path.read_bytes()
            path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
            error = refusal(trainer.export, tmp_path / "bundle")
            assert error.status == -21 and name in error.text
            path.write_bytes(whole)
        assert os.listdir(tmp_path) == ["source"]
        trainer.export(tmp_path / "bundle")
    session.close()
    with safe_open(tmp_path / "bundle" / "hint.safetensors", "numpy") as file:
        assert len(list(file.keys())) == 6
