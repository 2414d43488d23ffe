"""How jobs show their progress, are shared out, stop, go on and fail to write."""

import json
import os
import pty
import shutil
import signal
import subprocess
import time

import numpy as np
import pytest
from PIL import Image

from conftest import COMMAND, pictures, results, timeless, tree


# ------------------------------------------------------------------ the terminal

def test_the_bar_is_shown_on_a_terminal_only(environment, bundle, maps, tmp_path):
    outputs = {}
    for quiet in ([], ["-q"]):
        leader, follower = pty.openpty()
        process = subprocess.Popen(
            [str(COMMAND), "sample", "--features", str(maps), "-m", str(bundle), "-o",
             str(tmp_path / "out"), "--batch", "1", *quiet],
            stdout=subprocess.PIPE, stderr=follower, env=environment)
        os.close(follower)
        text = b""
        while chunk := read_terminal(leader):
            text += chunk
        os.close(leader)
        assert process.wait(timeout=20) == 0
        process.stdout.close()
        outputs[bool(quiet)] = text
    assert b"sample 0/3 images [" in outputs[False] and b"sample 2/3 images [" in outputs[False]
    assert outputs[False].endswith(b"\r\x1b[K"), "the line is left clean"
    assert b"100%" in outputs[False] and not outputs[True]


def read_terminal(leader):
    try:
        return os.read(leader, 4096)
    except OSError:  # the other end is closed
        return b""


# ------------------------------------------------------------------ shards, resume, Ctrl-C

@pytest.mark.parametrize("samples, batch", [(1, 2), (3, 4), (2, 1)])
def test_shards_are_the_whole(featinv, bundle, photos, tmp_path, samples, batch):
    photos[2].write_bytes(b"")  # a bad one among them
    shared = ["reconstruct", *photos, "-m", bundle, "--batch", batch, "--samples", samples]
    featinv(*shared, "-o", tmp_path / "whole", expect=3)
    codes = []
    for i in (2, 0, 1):  # into one folder, in any order
        group = max(1, batch // samples)
        mine = [k for k in range(7) if k // group % 3 == i]
        codes.append(3 if 2 in mine else 0)
        featinv(*shared, "-o", tmp_path / "parts", "--shard", f"{i}/3", expect=codes[-1])
        featinv(*shared, "-o", tmp_path / f"part{i}", "--shard", f"{i}/3", expect=codes[-1])
        inputs = {r["input"] for r in results(tmp_path / f"part{i}")["items"]}
        assert inputs == {str(photos[k]) for k in mine}
    assert sorted(codes) == [0, 0, 3]
    assert pictures(tmp_path / "parts") == pictures(tmp_path / "whole")
    assert timeless(tmp_path / "parts") == timeless(tmp_path / "whole")


def start(environment, *args, delay):
    return subprocess.Popen([str(COMMAND), *map(str, args)], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, env=dict(environment, FAKE_DELAY=str(delay)))


def wait_for(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.01)


def test_interrupted_and_resumed_is_the_whole(featinv, environment, bundle, photos, tmp_path):
    photos[0].write_bytes(b"")
    shared = ["reconstruct", *photos, "-m", bundle, "--batch", 2, "--steps", 10]
    featinv(*shared, "-o", tmp_path / "whole", expect=3)
    out = tmp_path / "out"
    stops = 0
    for _ in range(10):  # each time a batch or two further
        before = len(pictures(out)) if out.exists() else 0
        process = start(environment, *shared, "-o", out, "--resume", delay=0.03)
        wait_for(lambda: process.poll() is not None
                 or (out.exists() and len(pictures(out)) > before))
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=20)
        root = results(out)
        done = [i for i in root["items"] if i["image"]]
        assert all((out / i["image"]).exists() for i in done)
        assert root["summary"]["images"] == len(done)
        if process.returncode == 3:
            break
        assert process.returncode == 130, (process.returncode, stderr)
        assert b"interrupted after" in stderr and (out / "report.html").exists()
        stops += 1
        assert len(done) < 6
    assert stops >= 2, "was not interrupted"
    assert pictures(out) == pictures(tmp_path / "whole")
    assert timeless(out) == timeless(tmp_path / "whole")
    assert not (out / "journal.jsonl").exists()


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_answers_within_a_step(environment, bundle, maps, tmp_path, sent):
    """Steps of .3 s, 999 of them; at the first batch nothing is there to keep."""
    out = tmp_path / "out"
    process = start(environment, "sample", "--features", maps, "-m", bundle, "-o", out,
                    "--steps", 999, delay=0.3)
    wait_for(out.exists)
    time.sleep(0.4)
    process.send_signal(sent)
    sent = time.monotonic()
    _, stderr = process.communicate(timeout=20)
    assert process.returncode == 130 and time.monotonic() - sent < 1.5
    assert stderr.startswith(b"featinv: interrupted after 0 of 3 inputs") and not out.exists()


def test_samples_that_are_done_are_kept(environment, bundle, maps, tmp_path):
    """One map, many samples: those of whole forwards stay, with their scores."""
    np.save(maps, np.load(maps)[:1])
    out, calls = tmp_path / "out", 0.02 * 5
    process = start(environment, "sample", "--features", maps, "-m", bundle, "-o", out,
                    "--samples", 100, "--batch", 2, "--latents-out", tmp_path / "z.npy",
                    delay=0.02)
    wait_for(out.exists)
    time.sleep(5 * calls)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 130
    items = results(out)["items"]
    assert 2 <= len(items) < 100 and len(items) % 2 == 0
    assert all(i["cosine_median"] is not None for i in items)
    assert [i["sample"] for i in items] == list(range(len(items)))
    latents = np.load(tmp_path / "z.npy")
    assert np.isnan(latents).all((1, 2, 3)).tolist() == [k >= len(items) for k in range(100)]


def test_a_second_ctrl_c_ends_at_once(environment, bundle, maps, tmp_path):
    process = start(environment, "sample", "--features", maps, "-m", bundle, "-o",
                    tmp_path / "out", delay=5)
    wait_for((tmp_path / "out").exists)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    assert process.poll() is None, "the running step is finished first"
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=2) == 130


def test_a_resume_with_other_settings_is_refused(featinv, environment, bundle, photos, tmp_path):
    out = tmp_path / "out"
    shared = ["reconstruct", *photos, "-m", bundle, "-o", out, "--batch", 1]
    process = start(environment, *shared, delay=0.03)
    wait_for(lambda: (out / "p1-0.png").exists())
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) == 130
    before = tree(out)
    for change in (["--steps", 6], ["--seed", 1], ["--eta", 0.5], ["--context", "empty"]):
        featinv(*shared, "--resume", *change, expect=2)
    featinv(*shared[:-2], "--batch", 2, "--resume", expect=2)
    featinv("reconstruct", *photos[1:], *shared[8:], "--resume", expect=2)
    assert tree(out) == before
    featinv(*shared, "--resume")
    assert results(out)["summary"]["images"] == 7


# ------------------------------------------------------------------ outputs that cannot be written

def test_an_output_folder_that_is_a_file(featinv, bundle, photos, maps, tmp_path):
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", tmp_path / "file" / "deeper"):
        featinv("reconstruct", photos[0], "-m", bundle, "-o", out, expect=1)
        featinv("sample", "--features", maps, "-m", bundle, "-o", out, expect=1)
    assert (tmp_path / "file").read_text() == "mine"


def test_output_files_that_cannot_be_written(featinv, bundle, photos, maps, tmp_path):
    (tmp_path / "folder.npz").mkdir()
    for path in (tmp_path / "none" / "m.npz", tmp_path / "folder.npz"):
        featinv("extract", photos[0], "-m", bundle, "-o", path, expect=1)
        featinv("sample", "--features", maps, "-m", bundle, "-o", tmp_path / "out", "--trace",
                path, expect=1)
    assert not (tmp_path / "out").exists()


def unprivileged():
    """Write protection does not bind root, so the command runs as another user."""
    os.setgid(65534)
    os.setuid(65534)


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to become someone else")
def test_a_read_only_output_folder(environment, bundle, photos, tmp_path):
    shared = tmp_path.parent / "shared"
    shutil.rmtree(shared, ignore_errors=True)
    (shared / "locked").mkdir(parents=True)
    shutil.copytree(bundle, shared / "bundle")
    shutil.copy(photos[0], shared / "photo.png")
    base = subprocess.run(["mktemp", "-d"], capture_output=True, text=True).stdout.strip()
    shutil.copytree(shared, base, dirs_exist_ok=True)
    os.chmod(base, 0o755)
    os.chmod(f"{base}/locked", 0o555)
    try:
        for out in ("locked", "locked/new"):
            result = subprocess.run(
                [str(COMMAND), "reconstruct", "photo.png", "-m", "bundle", "-o", out], cwd=base,
                env=environment, capture_output=True, text=True, preexec_fn=unprivileged)
            assert result.returncode == 1, result.stderr
            assert result.stderr.startswith("featinv: locked") and not os.listdir(f"{base}/locked")
    finally:
        shutil.rmtree(base)


def limited(size):
    """No file may grow beyond size: writing fails in the middle, as on a full disk."""
    import resource
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@pytest.mark.parametrize("size", [0, 50, 600, 2500])
def test_a_full_disk(featinv, environment, bundle, photos, tmp_path, size):
    """At the journal, at a picture, at the journal's second batch, at the page."""
    out = tmp_path / "out"
    result = featinv("reconstruct", *photos, "-m", bundle, "-o", out, "--batch", 1, expect=1,
                     preexec_fn=limited(size))
    assert "File too large" in result.err and len(result.err.splitlines()) == 1
    left = tree(out) if out.exists() else {}
    assert not [n for n in left if n.startswith(".featinv")], "a temporary file is left"
    for name, data in left.items():
        if name.endswith(".png"):
            Image.open(out / name).load()
        if name == "results.json":
            json.loads(data)
        if name == "report.html":
            assert data.endswith(b"</html>\n")
    if size == 0:
        assert not out.exists()
    # and then there is room again
    featinv("reconstruct", *photos, "-m", bundle, "-o", out, "--batch", 1, "--resume")
    assert results(out)["summary"]["images"] == 7


def test_files_are_replaced_and_others_left(featinv, bundle, photos, tmp_path):
    (tmp_path / "p0-0.png").write_text("old")
    (tmp_path / "notes.txt").write_text("mine")
    featinv("reconstruct", photos[0], "-m", bundle, "-o", tmp_path)
    Image.open(tmp_path / "p0-0.png").load()
    assert (tmp_path / "notes.txt").read_text() == "mine"
