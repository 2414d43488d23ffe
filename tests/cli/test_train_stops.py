"""`featinv train` stopped, killed and resumed, over the fake backend."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time

import pytest

from trainings import (CHECKPOINT, PREVIOUS, assert_same_training, data, featinv,  # noqa: F401
                       logged, run, start, state_of, timeless, wait_for)


def settings(data, bundle):
    return ["train", "--data", data, "-m", bundle, "--steps", 40, "--batch", 3, "--lr", 1e-2,
            "--ema", 0.9, "--checkpoint-every", 4, "--validate-every", 7]


def test_ctrl_c_saves_and_resume_goes_on_the_same(featinv, environment, bundle, data, tmp_path):
    shared, out = settings(data, bundle), tmp_path / "out"
    featinv(*shared, "-o", tmp_path / "whole")
    stops = []
    for _ in range(4):
        process = start(environment, *shared, "-o", out, "--resume", delay=0.02)
        before = stops[-1] if stops else 0
        wait_for(lambda: logged(out) > before + 2)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
        assert process.returncode == 130 and len(err.splitlines()) == 1, err
        assert b"interrupted after step " in err and b"--resume" in err
        stops.append(int(err.split(b"after step ")[1].split()[0]))
        assert stops[-1] > before and logged(out) == stops[-1]
        page = (state_of(out) / "index.html").read_text()
        assert "http-equiv" not in page and "--resume goes on" in page
        assert not (state_of(out) / "validation").exists() and not out.exists()
    featinv(*shared, "-o", out, "--resume")
    assert_same_training(out, tmp_path / "whole")


def test_a_second_ctrl_c_ends_at_once(environment, bundle, data, tmp_path):
    process = start(environment, "train", "--data", data, "-m", bundle, "-o", tmp_path / "out",
                    "--validate-every", 0, "--batch", 1, delay=3)
    wait_for(lambda: (state_of(tmp_path / "out") / "log.jsonl").exists())
    time.sleep(0.3)
    begin = time.monotonic()
    process.send_signal(signal.SIGINT)
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 130 and time.monotonic() - begin < 1.5


def test_killed_at_random_moments_and_resumed(featinv, environment, bundle, data, tmp_path):
    shared, out = settings(data, bundle), tmp_path / "out"
    featinv(*shared, "-o", tmp_path / "whole")
    moments = random.Random(3)
    kills = 0
    while kills < 8:
        process = start(environment, *shared, "-o", out, "--resume", delay=0.004)
        time.sleep(moments.uniform(0.0, 0.5))
        process.kill()
        _, err = process.communicate(timeout=20)
        assert not err
        if process.returncode == 0:  # this one was through: once more from the start
            shutil.rmtree(out)
            shutil.rmtree(state_of(out))
            continue
        assert process.returncode == -signal.SIGKILL
        kills += 1
    result = featinv(*shared, "-o", out, "--resume", *(["--force"] if out.exists() else []))
    assert not result.err
    assert_same_training(out, tmp_path / "whole")
    assert sorted(p.name for p in state_of(out).iterdir()) == sorted(
        p.name for p in state_of(tmp_path / "whole").iterdir())


def test_what_killed_runs_left_half_written_is_removed(featinv, bundle, data, tmp_path):
    """In the state folder anything; beside the output what the run before left, and no more."""
    shared, out = settings(data, bundle), tmp_path / "out"
    featinv(*shared, "-o", out, "--steps", 5)
    gone = subprocess.Popen(["true"])
    gone.wait()
    (state_of(out) / "lock").write_text(f"{gone.pid}\n")
    mine = tmp_path / f".featinv-{gone.pid}-3.tmp"
    other = tmp_path / f".featinv-{os.getpid()}-0.tmp"
    for folder in (mine, other, state_of(out) / ".featinv-7-0.tmp", state_of(out) / "validation"):
        folder.mkdir()
        (folder / "unet.ts").write_text("half")
    (state_of(out) / ".featinv-8-1.tmp").write_text("half")
    featinv(*shared, "-o", out, "--steps", 6, "--resume", "--force")
    assert not mine.exists() and (other / "unet.ts").exists()
    assert not [p for p in state_of(out).iterdir()
                if p.name.startswith(".") or p.name == "validation"]


@pytest.mark.parametrize("moves", [
    [(CHECKPOINT, "checkpoint-next.safetensors"), (PREVIOUS, CHECKPOINT)],
    [(CHECKPOINT, "checkpoint-next.safetensors")]], ids=["before", "between"])
def test_killed_while_checkpoints_change_places(featinv, bundle, data, tmp_path, moves):
    """The two moments between whole files and their names."""
    shared, out = settings(data, bundle), tmp_path / "out"
    featinv(*shared, "-o", tmp_path / "whole")
    featinv(*shared, "-o", out, "--steps", 22)
    for source, target in moves:
        (state_of(out) / source).rename(state_of(out) / target)
    featinv(*shared, "-o", out, "--resume", "--force")
    assert ((state_of(out) / CHECKPOINT).read_bytes()
            == (state_of(tmp_path / "whole") / CHECKPOINT).read_bytes())


def test_a_damaged_checkpoint_falls_back_to_the_one_before(featinv, environment, bundle,
                                                           data, tmp_path):
    shared, out = settings(data, bundle), tmp_path / "out"
    featinv(*shared, "-o", tmp_path / "whole")
    featinv(*shared, "-o", out, "--steps", 22)  # checkpoints of 20 and 22
    damaged = bytearray((state_of(out) / CHECKPOINT).read_bytes())
    damaged[-100] ^= 1
    (state_of(out) / CHECKPOINT).write_bytes(damaged)
    code, err = run(environment, *shared, "-o", out, "--resume", "--force")
    assert code == 0 and len(err.splitlines()) == 1, err
    assert CHECKPOINT in err and "going on from step 20 of " + PREVIOUS in err
    assert (state_of(out) / "checkpoint-damaged.safetensors").read_bytes() == damaged
    assert ((state_of(out) / CHECKPOINT).read_bytes()
            == (state_of(tmp_path / "whole") / CHECKPOINT).read_bytes())
    for name in (CHECKPOINT, PREVIOUS):
        path = state_of(out) / name
        path.write_bytes(path.read_bytes()[:-50])
    text = featinv(*shared, "-o", out, "--resume", "--force", expect=3).err
    assert "nor can the one before be used" in text
    assert text.endswith(f"; delete {state_of(out)} to start anew\n")
    (state_of(out) / PREVIOUS).unlink()
    for content, code in (((state_of(out) / CHECKPOINT).read_bytes(), 3), (damaged, 4)):
        (state_of(out) / CHECKPOINT).write_bytes(content)
        text = featinv(*shared, "-o", out, "--resume", "--force", expect=code).err
        assert len(text.splitlines()) == 1 and CHECKPOINT in text
        assert text.endswith(f"; delete {state_of(out)} to start anew\n")


def test_a_loss_that_is_not_finite_keeps_the_last_checkpoint(featinv, bundle, data, tmp_path):
    shared, out = settings(data, bundle), tmp_path / "out"
    featinv(*shared, "-o", tmp_path / "whole")
    text = featinv(*shared, "-o", out, env={"FAKE_NORM": "nan"}, expect=1).err
    assert "step 1: the gradient is not finite; there is no checkpoint yet" in text
    assert not state_of(out).exists()
    featinv(*shared, "-o", out, "--steps", 9)
    kept = (state_of(out) / CHECKPOINT).read_bytes()
    text = featinv(*shared, "-o", out, "--resume", "--force", env={"FAKE_NORM": "inf"},
                   expect=1).err
    assert "step 10: the gradient is not finite; the checkpoint of step 9 stays" in text
    assert len(text.splitlines()) == 1 and (state_of(out) / CHECKPOINT).read_bytes() == kept
    featinv(*shared, "-o", out, "--resume", "--force")
    assert_same_steps(out, tmp_path / "whole")


def assert_same_steps(a, b):
    """Equal checkpoints and step lines; validations lie where the shorter run ended, too."""
    assert (state_of(a) / CHECKPOINT).read_bytes() == (state_of(b) / CHECKPOINT).read_bytes()
    assert ([x for x in timeless(a) if "loss" in x] == [x for x in timeless(b) if "loss" in x])
