"""`featinv train` over the fake backend: options, state, failures. A fake step takes no time, and
its weights depend on the images, the draws and each other as real ones do.

tests/train/kill.py kills trainings of the real backend; the last tests here train a little with it.
"""

from __future__ import annotations

import hashlib
import json
import os
import pty
import resource
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from conftest import BUILD, COMMAND, ROOT, make_bundle
from trainings import (CHECKPOINT, PREVIOUS, TIMES, data, featinv, lines, logged,  # noqa: F401
                       nameless, run, start, state_of, timeless, tree, wait_for, without_lock)


# ------------------------------------------------------------------ what is written

def test_a_training_writes_bundle_log_page_and_checkpoint(featinv, bundle, data, tmp_path):
    out = tmp_path / "out"
    result = json.loads(featinv("train", "--data", data, "-m", bundle, "-o", out, "--steps", 12,
                                "--batch", 3, "--validate-every", 5, "--lr", 1e-2, "--json").out)
    steps = [x for x in lines(out) if "loss" in x]
    checks = [x for x in lines(out) if "right_loss" in x]
    assert [x["step"] for x in steps] == list(range(1, 13))
    assert [x["step"] for x in checks] == [0, 5, 10, 12]
    assert set(steps[0]) == {"step", "loss", "gradient_norm", "rate", *TIMES}
    assert all(x["rate"] == 1e-2 and x["gradient_norm"] > 0 for x in steps)
    assert result["steps"] == 12 and result["images"] == 14 and result["validation_images"] == 2
    assert result["loss"] == pytest.approx(np.mean([x["loss"] for x in steps]))
    for key in ("right_loss", "shuffled_loss", "cosine"):
        assert result[key] == pytest.approx(checks[-1][key], rel=1e-12)
    assert checks[0]["right_loss"] != checks[0]["shuffled_loss"] and len(checks[0]["cosines"]) == 2
    manifest = (out / "manifest.json").read_bytes()
    assert result["sha256"] == hashlib.sha256(manifest).hexdigest()
    assert json.loads(manifest)["provenance"]["training"]["steps"] == 12
    settings = lines(out)[0]["settings"]
    assert settings["training"]["batch"] == 3 and settings["run"]["steps"] == 12
    names = {p.name for p in state_of(out).iterdir()}
    assert names == {CHECKPOINT, "log.jsonl", "lock", "index.html", "original-0.png",
                     "original-1.png", *(f"drawn-{s:08}-{i}.png" for s in (0, 5, 10, 12)
                                         for i in (0, 1))}
    page = (state_of(out) / "index.html").read_text()
    assert page.count('<svg class="plot"') == 3 and page.count("data:image/png;base64,") == 10
    assert "http-equiv" not in page and "src=\"/" not in page and "Finished." in page
    featinv("reconstruct", *data.rglob("*.png"), "-m", out, "-o", tmp_path / "drawn")


def test_epochs_end_with_all_images_seen(featinv, bundle, data, tmp_path):
    for epochs, batch, held, steps in ((2, 4, True, 7), (1, 5, False, 4), (3, 64, False, 1)):
        out = tmp_path / f"out{epochs}"
        result = json.loads(featinv(
            "train", "--data", data, "-m", bundle, "-o", out, "--epochs", epochs, "--batch", batch,
            "--json", *([] if held else ["--validate-every", 0])).out)
        assert result["steps"] == steps and result["images"] == (14 if held else 16)
        assert (result["cosine"] is None) == (not held)


def test_held_out_images_are_chosen_by_seed_and_never_trained_on(featinv, bundle, data, tmp_path):
    """Without those that are held out, the folder trains to the same weights to the bit."""
    chosen = []
    files = sorted(data.rglob("*.png"))
    for seed in (1, 1, 2):
        out = tmp_path / f"out{len(chosen)}"
        featinv("train", "--data", data, "-m", bundle, "-o", out, "--steps", 5, "--validation",
                0.25, "--seed", seed)
        settings = lines(out)[0]["settings"]["training"]
        assert settings["validation_images"] == 4 and settings["images"] == 12
        drawn = [(state_of(out) / f"original-{i}.png").read_bytes() for i in range(4)]
        chosen.append([path for path in files
                       if as_drawn(path, tmp_path, featinv, bundle) in drawn])
        assert len(chosen[-1]) == 4
    assert chosen[0] == chosen[1] != chosen[2]
    for path in chosen[2]:
        path.unlink()
    featinv("train", "--data", data, "-m", bundle, "-o", tmp_path / "rest", "--steps", 5,
            "--seed", 2, "--validate-every", 0)
    assert ((state_of(tmp_path / "rest") / CHECKPOINT).read_bytes()
            == (state_of(out) / CHECKPOINT).read_bytes())


def as_drawn(path, tmp_path, featinv, bundle):
    """The picture at the generator's size, as `reconstruct` keeps it."""
    folder = tmp_path / "originals"
    if not (folder / f"{path.stem}-original.png").exists():
        featinv("reconstruct", path, "-m", bundle, "-o", folder, "--steps", 1)
    return (folder / f"{path.stem}-original.png").read_bytes()


def test_state_of_a_training_inside_its_data_is_no_data(featinv, bundle, data, tmp_path):
    out = data / "out"
    shared = ["train", "--data", data, "-m", bundle, "-o", out, "--batch", 4]
    featinv(*shared, "--steps", 3)
    featinv(*shared, "--steps", 6, "--resume", "--force")
    assert lines(out)[0]["settings"]["training"]["images"] == 14


@pytest.mark.parametrize("options, wanted", [
    ([], {"hint_dropout": 0.1, "prompt_dropout": 0.1, "joint_dropout": 0.0, "lr": 1e-5,
          "batch": 8, "mode": "locked", "seed": "100", "augmentation": True, "legacy": False}),
    (["--legacy"], {"hint_dropout": 0.0, "prompt_dropout": 0.0, "joint_dropout": 0.15}),
    (["--legacy", "--hint-dropout", "0.3"], {"hint_dropout": 0.3, "joint_dropout": 0.15}),
    (["--ema", "0.9", "--min-snr", "5", "--clip", "2", "--warmup", "3", "--decay-steps", "9",
      "--decay-floor", "0.5", "--mode", "joint", "--accumulation", "2", "--seed", "7"],
     {"ema": 0.9, "min_snr": 5.0, "clip": 2.0, "warmup": 3, "decay_steps": 9, "decay_floor": 0.5,
      "mode": "joint", "accumulation": 2, "seed": "7"})])
def test_options_become_settings(featinv, bundle, data, tmp_path, options, wanted):
    featinv("train", "--data", data, "-m", bundle, "-o", tmp_path / "out", "--steps", 1,
            "--validate-every", 0, *options)
    settings = lines(tmp_path / "out")[0]["settings"]["training"]
    assert {k: settings[k] for k in wanted} == wanted


def read_terminal(leader):
    try:
        return os.read(leader, 4096)
    except OSError:  # the other end is closed
        return b""


def test_workers_and_progress_change_nothing(featinv, environment, bundle, data, tmp_path):
    shared = ["train", "--data", data, "-m", bundle, "--steps", 9, "--batch", 4]
    featinv(*shared, "-o", tmp_path / "a", "--workers", 1)
    leader, follower = pty.openpty()
    process = subprocess.Popen([str(COMMAND), *map(str, shared), "-o", str(tmp_path / "b"),
                                "--workers", "3"], stdout=subprocess.PIPE, stderr=follower,
                               env=environment)
    os.close(follower)
    text = b""
    while chunk := read_terminal(leader):
        text += chunk
    os.close(leader)
    process.communicate(timeout=20)
    assert process.returncode == 0
    assert b"b.training/index.html shows this training: 14 images, 2 held out" in text
    assert b"train 9/9 steps, loss " in text and b"samples/s" in text
    assert text.endswith(b"\r\x1b[K"), "the line is left clean"
    a, b = timeless(tmp_path / "a"), timeless(tmp_path / "b")
    assert a[1:] == b[1:]
    assert nameless(tmp_path / "a") == nameless(tmp_path / "b")


def test_cache_gives_the_same_at_any_start(featinv, bundle, data, tmp_path):
    shared = ["train", "--data", data, "-m", bundle, "--batch", 5, "--no-augment", "--cache"]
    featinv(*shared, "-o", tmp_path / "a", "--steps", 8)
    featinv(*shared, "-o", tmp_path / "b", "--steps", 3)
    featinv(*shared, "-o", tmp_path / "b", "--steps", 8, "--resume", "--force",
            "--validate-every", 1)
    assert ((state_of(tmp_path / "a") / CHECKPOINT).read_bytes()
            == (state_of(tmp_path / "b") / CHECKPOINT).read_bytes())
    losses = [x["loss"] for x in lines(tmp_path / "a") if "loss" in x]
    assert len(set(losses)) == 8


# ------------------------------------------------------------------ refusals

def refusals(data, bundle, out):
    base = ["--data", data, "-m", bundle, "-o", out]
    yield 2, "--data DIR is missing", ["-m", bundle, "-o", out]
    yield 2, "-o BUNDLE is missing", ["--data", data, "-m", bundle]
    yield 2, "train takes no arguments", [*base, "photo.png"]
    yield 2, "give one of them", [*base, "--steps", 5, "--epochs", 1]
    yield 2, "--cache: needs --no-augment", [*base, "--cache"]
    yield 2, "--batch 0: must be", [*base, "--batch", 0]
    yield 2, "--lr 0: must be", [*base, "--lr", 0]
    yield 2, "--hint-dropout 1.5: must be", [*base, "--hint-dropout", 1.5]
    yield 2, "--ema 1: must be", [*base, "--ema", 1]
    yield 2, "--mode all: must be", [*base, "--mode", "all"]
    yield 2, "--precision fp16: must be", [*base, "--precision", "fp16"]
    yield 2, "precision bf16 needs a CUDA device", [*base, "--precision", "bf16"]
    yield 2, "--accumulation 9: a batch has 8 images", [*base, "--accumulation", 9]
    yield 2, "--epochs 1000001: must be", [*base, "--epochs", 1000001]
    yield 2, "no such option", [*base, "--lora", 4]
    yield 3, "no such folder", ["--data", out, "-m", bundle, "-o", out]
    yield 3, "is no folder", ["--data", COMMAND, "-m", bundle, "-o", out]
    yield 4, "", ["--data", data, "-m", data, "-o", out]
    yield 1, "exists and is not a bundle", ["--data", data, "-m", bundle, "-o", data]
    yield 1, "exists and is not a bundle", [*base[:4], "-o", data, "--force"]
    yield 1, "exists, --force replaces it", ["--data", data, "-m", bundle, "-o", bundle]
    yield 1, "is in use by this training", [*base[:4], "-o", bundle, "--force"]
    yield 1, "", ["--data", data, "-m", bundle, "-o", COMMAND / "under" / "a" / "file"]


def test_refusals(featinv, bundle, data, tmp_path):
    out = tmp_path / "out"
    for code, text, args in refusals(data, bundle, out):
        result = featinv("train", *args, expect=code)
        assert text in result.err and len(result.err.splitlines()) == 1, (args, result.err)
        assert not out.exists() and not state_of(out).exists(), args


@pytest.mark.parametrize("change, code, text", [
    ({"backbone": False}, 1, "no backbone"), ({"generator": False}, 1, "no generator")])
def test_bundles_that_cannot_be_trained(featinv, data, tmp_path, change, code, text):
    part = make_bundle(tmp_path / "part", **change)
    result = featinv("train", "--data", data, "-m", part, "-o", tmp_path / "out", expect=code)
    assert text in result.err and len(result.err.splitlines()) == 1
    assert not state_of(tmp_path / "out").exists()


def test_too_few_images(featinv, bundle, data, tmp_path):
    few = tmp_path / "few"
    (few / "empty").mkdir(parents=True)
    out = tmp_path / "out"
    shared = ["train", "--data", few, "-m", bundle, "-o", out, "--steps", 2, "--batch", 2]
    assert "no image files" in featinv(*shared, expect=3).err
    shutil.copy(data / "class0" / "00.png", few)
    assert "none can be held out" in featinv(*shared, expect=2).err
    assert not state_of(out).exists()
    featinv(*shared, "--validate-every", 0)
    shutil.copy(data / "class0" / "02.png", few)
    result = json.loads(featinv(*shared[:5], "-o", tmp_path / "two", *shared[7:], "--json").out)
    assert result["images"] == 1 and result["validation_images"] == 1
    assert result["right_loss"] > 0 and result["shuffled_loss"] is None


def test_existing_outputs_and_states_are_kept(featinv, bundle, data, tmp_path):
    out = tmp_path / "out"
    shared = ["train", "--data", data, "-m", bundle, "-o", out, "--steps", 3]
    featinv(*shared)
    kept, state = tree(out), without_lock(out)
    assert "--force replaces it" in featinv(*shared, expect=1).err
    assert "holds a training" in featinv(*shared, "--force", expect=1).err
    for option, value in (("--batch", 4), ("--lr", 1e-3), ("--seed", 1), ("--legacy", None),
                          ("--no-augment", None), ("--mode", "joint"), ("--validation", 0.4)):
        text = featinv(*shared, "--force", "--resume", option,
                       *([] if value is None else [value]), expect=2).err
        assert "cannot be resumed: " in text and len(text.splitlines()) == 1
    Image.new("RGB", (9, 9)).save(data / "class0" / "more.png")
    assert "cannot be resumed: images was 14, now it is 15" in featinv(
        *shared, "--force", "--resume", expect=2).err
    (data / "class0" / "more.png").unlink()
    text = featinv(*shared[:-1], 2, "--force", "--resume", expect=2).err
    assert "is at step 3 already, beyond the 2 asked for" in text
    assert tree(out) == kept and without_lock(out) == state
    featinv(*shared, "--force", "--resume")
    assert tree(out) == kept


def test_one_training_in_a_folder_at_a_time(featinv, environment, bundle, data, tmp_path):
    out = tmp_path / "out"
    shared = ["train", "--data", data, "-m", bundle, "-o", out, "--validate-every", 0, "--steps",
              1000, "--batch", 1, "--resume"]
    process = start(environment, *shared, delay=0.05)
    wait_for(lambda: logged(out) > 2)
    assert "another training is running" in featinv(*shared, expect=1).err
    process.kill()
    process.communicate(timeout=20)


# ------------------------------------------------------------------ images that cannot be read

def test_corrupt_images_are_left_out_and_reported_once(featinv, environment, bundle, data,
                                                       tmp_path):
    bad = sorted(data.rglob("*.png"))[2:6]
    for path in bad:
        path.write_bytes(path.read_bytes()[:60])
    shared = ["train", "--data", data, "-m", bundle, "--batch", 4, "--validate-every", 20]
    for option in ([], ["--no-augment", "--cache"]):
        out, parts = tmp_path / f"out{len(option)}", tmp_path / f"parts{len(option)}"
        result = featinv(*shared, *option, "-o", out, "--steps", 16, "--json", expect=3)
        reported = [line for line in result.err.splitlines() if line.endswith(": left out")]
        assert sorted(line.split(":")[1].strip() for line in reported) == list(map(str, bad))
        problems = [x["problem"] for x in lines(out) if "problem" in x]
        assert sorted(json.loads(result.out)["problems"]) == sorted(problems)
        assert len(problems) == 4 and (out / "manifest.json").exists()
        assert all(str(path) in (state_of(out) / "index.html").read_text() for path in bad)
        for steps in (1, 3, 7, 16):  # resumed: each file once, too
            run(environment, *shared, *option, "-o", parts, "--steps", steps, "--resume", "--force")
        again = [x["problem"] for x in lines(parts) if "problem" in x]
        assert sorted(again) == sorted(problems)
        assert nameless(parts) == nameless(out)


def test_a_folder_of_corrupt_images_only(featinv, bundle, data, tmp_path):
    for path in data.rglob("*.png"):
        path.write_bytes(b"\x89PNG\r\n\x1a\n")
    shared = ["train", "--data", data, "-m", bundle, "-o", tmp_path / "out", "--steps", 3]
    result = featinv(*shared, expect=3)
    assert len(result.err.splitlines()) == 1 and ".png: " in result.err
    assert not state_of(tmp_path / "out").exists()
    result = featinv(*shared, "--no-augment", "--cache", expect=3)
    assert "none of its images can be read" in result.err.splitlines()[-1]


# ------------------------------------------------------------------ the real backend

@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Forty drawn scenes."""
    folder = tmp_path_factory.mktemp("scenes")
    subprocess.run([sys.executable, str(ROOT / "models" / "recipe" / "scenes.py"), "--count", "40",
                    "--seed", "7000", "-o", str(folder)], check=True)
    return folder


@pytest.fixture(scope="module")
def untrained(tmp_path_factory):
    """The scenes bundle with a hint encoder of half the weights: it draws badly."""
    folder = tmp_path_factory.mktemp("bundles") / "untrained"
    shutil.copytree(ROOT / "models" / "scenes", folder)
    path = folder / "hint.safetensors"
    weights = load_file(path)
    for name in weights:
        weights[name] = (0.5 * weights[name].astype(np.float32)).astype(weights[name].dtype)
    save_file(weights, path)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][path.name] = {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
                                    "bytes": path.stat().st_size}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


needs_backend = pytest.mark.skipif(not (BUILD / "libfeatinv-torch.so").exists(),
                                   reason="a build without libtorch")
REAL = {"FEATINV_BACKEND": str(BUILD / "libfeatinv-torch.so")}


@needs_backend
def test_a_short_training_learns_and_its_bundle_draws(featinv, untrained, scenes, tmp_path):
    out = tmp_path / "out"
    result = json.loads(featinv(
        "train", "--data", scenes, "-m", untrained, "-o", out, "--steps", 20, "--lr", 1e-3,
        "--no-augment", "--cache", "--validate-every", 100, "--threads", 1, "--json",
        env=REAL).out)
    first = next(x for x in lines(out) if "right_loss" in x)
    assert result["right_loss"] < 0.7 * first["right_loss"]
    assert result["cosine"] > first["cosine"] + 0.05
    assert result["shuffled_loss"] > 2.0 * result["right_loss"]
    featinv("reconstruct", scenes / "00000.png", "-m", out, "-o", tmp_path / "drawn", "--steps", 5,
            "--threads", 1, env=REAL)
    root = json.loads((tmp_path / "drawn" / "results.json").read_text())
    assert root["summary"]["bundle_sha256"] == result["sha256"]


@needs_backend
def test_the_real_backend_killed_three_times(environment):
    """tests/train/kill.py in small."""
    result = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "train" / "kill.py"), "--kills", "3", "--steps", "40",
         "--batch", "2", "--checkpoint-every", "3", "--validate-every", "0", "--images", "12",
         "--featinv", str(COMMAND)], capture_output=True, text=True, timeout=300,
        env=dict(environment, **REAL))
    assert result.returncode in (0, 3), result.stderr  # 3: on a fast machine it ended before
    assert "the same bytes" in result.stdout and "killed 0 times" not in result.stdout


@needs_backend
def test_a_full_disk_keeps_the_checkpoint_before(featinv, untrained, scenes, tmp_path):
    """Files over 8 MB cannot be written: checkpoints have 14."""
    out = tmp_path / "out"
    shared = ["train", "--data", scenes, "-m", untrained, "-o", out, "--batch", 1,
              "--validate-every", 0, "--checkpoint-every", 2, "--threads", 1]

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (8 << 20, 8 << 20))

    featinv(*shared, "--steps", 2, env=REAL)
    kept = (state_of(out) / CHECKPOINT).read_bytes()
    result = featinv(*shared, "--steps", 6, "--resume", "--force", env=REAL, preexec_fn=limit,
                     expect=1)
    assert len(result.err.splitlines()) == 1 and "cannot be written" in result.err
    assert "the checkpoint of step 2 stays" in result.err
    assert (state_of(out) / CHECKPOINT).read_bytes() == kept
    assert not list(state_of(out).glob(".featinv*"))
    featinv(*shared, "--steps", 3, "--resume", "--force", env=REAL)
    assert (state_of(out) / PREVIOUS).read_bytes() == kept
