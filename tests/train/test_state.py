"""Saving and going on: bit-equal, across processes, and nothing half done."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import capi
import numpy as np
import pytest
from safetensors import safe_open
from training import Trainer

HERE = Path(__file__).resolve()
SUPPORT = HERE.parents[1] / "support"
SETTINGS = {"seed": 7, "rate": 1e-3, "average": 0.9, "clip": 0.5, "warmup": 3, "accumulation": 2}

# Everything but the weights is drawn by the library: timesteps, noise and dropout.
SCRIPT = """
import sys
sys.path[:0] = [{support!r}]
import numpy as np
from capi import Session
from training import Trainer
data = np.load({data!r})
session = Session({bundle!r}, threads=1)
with Trainer(session, **{settings!r}) as trainer:
    if {resume!r}:
        trainer.resume({resume!r})
    losses = [trainer.step(3, latents=data["latents"], maps=data["maps"])[0].loss
              for _ in range({steps})]
    trainer.save({out!r})
    assert trainer.steps == {total}
session.close()
print(losses)
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    rng = np.random.default_rng(5)
    path = tmp_path_factory.mktemp("data") / "batch.npz"
    np.savez(path, latents=rng.normal(size=(3, 4, 32, 32)).astype(np.float32),
             maps=rng.normal(size=(3, 48, 9, 9)).astype(np.float32))
    return path


def run(bundle, data, out, *, steps, total, resume=None):
    """Some steps in a process of their own, saved; gives the losses."""
    script = SCRIPT.format(support=str(SUPPORT), data=str(data), bundle=str(bundle),
                           settings=SETTINGS, resume=resume and str(resume), steps=steps,
                           total=total, out=str(out))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True,
                          timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def tensors(path):
    with safe_open(path, "numpy") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata()


def test_a_resumed_run_is_bit_equal(tiny, data, tmp_path):
    whole, first, second = (tmp_path / f"{name}.safetensors" for name in ("whole", "one", "two"))
    losses = run(tiny, data, whole, steps=5, total=5)
    halves = run(tiny, data, first, steps=2, total=2)
    halves += run(tiny, data, second, steps=3, total=5, resume=first)
    assert losses == halves and len(set(losses)) == 5
    assert whole.read_bytes() == second.read_bytes()
    assert whole.read_bytes() != first.read_bytes()
    values, metadata = tensors(whole)
    assert len(values) == 4 * 330 + 1
    assert metadata["step"] == "5" and metadata["seed"] == "7" and metadata["clip"] == "0.5"
    for key in ("control_model.input_hint_block.block.1.weight", "control_model.time_embed.0.bias"):
        for part in ("exp_avg", "exp_avg_sq"):
            assert np.abs(values[f"{part}/{key}"]).max() > 0
        assert np.abs(values[f"value/{key}"] - values[f"average/{key}"]).max() > 0


@pytest.fixture(scope="module")
def trained(session, data, tmp_path_factory):
    """A trainer after two steps, the inputs, and its saved state."""
    d = np.load(data)
    inputs = {"latents": d["latents"][:1], "maps": d["maps"][:1]}
    path = tmp_path_factory.mktemp("state") / "state.safetensors"
    trainer = Trainer(session, rate=1e-3)
    for _ in range(2):
        trainer.step(1, **inputs)
    trainer.save(path)
    yield trainer, inputs, path
    trainer.close()


def refusal(trainer, path):
    """The error of a resume that must change nothing."""
    before, steps = trainer.all(), trainer.steps
    with pytest.raises(capi.FeatinvError) as caught:
        trainer.resume(path)
    assert "\n" not in caught.value.text and str(path) in caught.value.text
    assert trainer.steps == steps
    for key, value in trainer.all().items():
        assert np.array_equal(value, before[key]), key
    return caught.value


OTHER = {"rate": 2e-3, "warmup": 4, "decay_steps": 100, "decay_floor": 0.5, "beta1": 0.8,
         "beta2": 0.99, "epsilon": 1e-7, "weight_decay": 0.0, "clip": 1.0, "average": 0.5,
         "min_snr": 5.0, "hint_dropout": 0.2, "prompt_dropout": 0.2, "joint_dropout": 0.1,
         "accumulation": 2, "seed": 1, "mode": "unlocked", "uncontext": b"default"}


@pytest.mark.parametrize("name", sorted(OTHER))
def test_other_settings_are_refused(session, trained, name):
    with Trainer(session, **({"rate": 1e-3} | {name: OTHER[name]})) as other:
        error = refusal(other, trained[2])
    assert error.status == -4 and f"trained with {name} " in error.text


def test_another_bundle_is_refused(tiny, trained, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(tiny, other)
    manifest = json.loads((other / "manifest.json").read_text())
    manifest["name"] = "other"
    (other / "manifest.json").write_text(json.dumps(manifest))
    session = capi.Session(other, threads=1)
    with Trainer(session, rate=1e-3) as trainer:
        error = refusal(trainer, trained[2])
    session.close()
    assert error.status == -4 and "another bundle" in error.text


def damaged(data: bytes, kind: str) -> bytes:
    header = 8 + int.from_bytes(data[:8], "little")
    flipped = bytearray(data)
    if kind == "a bit of the data":
        flipped[header + 4 * 1000] ^= 1
        return bytes(flipped)
    if kind == "the step":
        return data.replace(b'"step":"2"', b'"step":"3"', 1)
    if kind == "the seal":
        flipped[-1] ^= 1
        return bytes(flipped)
    return {"nothing": b"", "cut in the header": data[:100], "cut in the data": data[:-1000],
            "one byte more": data + b"\0", "another file": b"\x10" + bytes(7) + b"{}" + b" " * 14,
            }[kind]


@pytest.mark.parametrize("kind,status", [
    ("nothing", -13), ("cut in the header", -13), ("cut in the data", -13), ("one byte more", -13),
    ("another file", -13), ("a bit of the data", -21), ("the step", -21), ("the seal", -21)])
def test_damage_is_refused(session, trained, tmp_path, kind, status):
    path = tmp_path / "damaged.safetensors"
    whole = trained[2].read_bytes()
    path.write_bytes(damaged(whole, kind))
    assert path.read_bytes() != whole
    with Trainer(session, rate=1e-3) as other:
        assert refusal(other, path).status == status


def test_missing_and_unwritable_files(session, trained, tmp_path):
    trainer = trained[0]
    assert refusal(trainer, tmp_path / "nowhere.safetensors").status == -11
    folder = tmp_path / "folder"
    folder.mkdir()
    for path in (folder, tmp_path / "none" / "state.safetensors"):
        with pytest.raises(capi.FeatinvError) as caught:
            trainer.save(path)
        assert caught.value.status == -10
    assert os.listdir(tmp_path) == ["folder"]


def test_a_full_disk_keeps_the_older_file(tiny, data, tmp_path):
    """A limit on the size of files stands in for the disk: the write fails half-way."""
    state = tmp_path / "state.safetensors"
    run(tiny, data, state, steps=1, total=1)
    older = state.read_bytes()
    script = SCRIPT.format(support=str(SUPPORT), data=str(data), bundle=str(tiny),
                           settings=SETTINGS, resume=str(state), steps=1, total=2, out=str(state))
    limit = ("import resource, signal\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
             "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))\n")
    done = subprocess.run([sys.executable, "-c", limit + script], capture_output=True, text=True,
                          timeout=300)
    assert done.returncode == 1 and "cannot be written" in done.stderr, done.stderr
    assert state.read_bytes() == older
    assert os.listdir(tmp_path) == ["state.safetensors"]


def test_the_state_is_what_the_trainer_holds(trained):
    trainer, _, path = trained
    values, metadata = tensors(path)
    assert metadata["format"] == "featinv-trainer"
    for key in trainer.keys:
        assert np.array_equal(values[f"value/{key}"], trainer.read("parameter", key)), key
