"""The main job on the reference bundle over libtorch: stopped, resumed, sharded, repeated.

tests/cli has the table of cases over the fake backend; here it is the real one that is interrupted.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
import capi  # noqa: E402

PHOTOS = sorted((capi.ROOT / "models" / "examples").glob("*.png"))
JOB = ["reconstruct", *PHOTOS, "-m", capi.ROOT / "models" / "scenes", "--device", "cpu",
       "--samples", 2, "--steps", 40, "--batch", 4]


def pictures(folder: Path) -> dict:
    return {p.name: p.read_bytes() for p in folder.glob("*.png")}


def items(folder: Path) -> list:
    found = json.loads((folder / "results.json").read_text())["items"]
    return [{k: v for k, v in item.items() if k != "seconds"} for item in found]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The job undisturbed."""
    folder = tmp_path_factory.mktemp("whole") / "out"
    capi.run(*JOB, "-o", folder)
    return folder


def test_agreement(whole):
    """Far above the floor of other images of the class (.71) and of shuffled ones (.56)."""
    summary = json.loads((whole / "results.json").read_text())["summary"]
    assert summary["cosine_median"] > 0.95 and summary["match_top1"] > 0.8


def test_the_same_twice(whole, tmp_path):
    capi.run(*JOB, "-o", tmp_path / "out")
    assert pictures(tmp_path / "out") == pictures(whole)


def test_shards_are_the_whole(whole, tmp_path):
    for shard in ("1/2", "0/2"):
        capi.run(*JOB, "-o", tmp_path / "out", "--shard", shard)
    assert pictures(tmp_path / "out") == pictures(whole)
    assert items(tmp_path / "out") == items(whole)


@pytest.mark.parametrize("pictures_seen", [0, 1, 5, 9])
def test_interrupted_then_resumed(whole, tmp_path, pictures_seen):
    """The signal comes once so many pictures are there; what was finished is kept and right."""
    out = tmp_path / "out"
    child = subprocess.Popen([str(a) for a in (capi.COMMAND, *JOB, "-o", out)],
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while child.poll() is None and (not out.exists() or
                                    len(list(out.glob("*-[01].png"))) < pictures_seen):
        time.sleep(0.005)
    child.send_signal(signal.SIGINT)
    _, text = child.communicate(timeout=60)
    assert child.returncode == 130 and len(text.splitlines()) <= 1, (child.returncode, text)
    kept = items(out) if (out / "results.json").exists() else []
    assert pictures_seen <= len(kept) < 2 * len(PHOTOS)
    for item in kept:
        assert (out / item["image"]).read_bytes() == (whole / item["image"]).read_bytes()
    capi.run(*JOB, "-o", out, "--resume")
    assert pictures(out) == pictures(whole) and items(out) == items(whole)


@pytest.mark.parametrize("environment,part", [
    ({"FEATINV_LIBTORCH": "/nowhere"}, "/nowhere"), ({"FEATINV_BACKEND": "/no.so"}, "/no.so")])
def test_no_backend(tmp_path, environment, part):
    result = capi.run(*JOB, "-o", tmp_path / "out", expect=6, env={**os.environ, **environment})
    assert len(result.stderr.splitlines()) == 1 and part in result.stderr
