"""What the tests of `featinv train` share: a folder of images, quiet runs, readers of what is left.
"""

from __future__ import annotations

import json
import subprocess
import time

import numpy as np
import pytest
from PIL import Image

from conftest import COMMAND

CHECKPOINT = "checkpoint.safetensors"
PREVIOUS = "checkpoint-previous.safetensors"
TIMES = ("seconds", "samples_per_second")


@pytest.fixture
def featinv(featinv):
    """Runs the command, `train` without the line that says where it can be watched."""
    def run(verb, *args, **kwargs):
        return featinv(verb, *(["-q"] if verb == "train" else []), *args, **kwargs)

    return run


@pytest.fixture
def data(tmp_path):
    """Sixteen noisy images in a folder of two class folders."""
    rng = np.random.default_rng(1)
    folder = tmp_path / "data"
    for i in range(16):
        path = folder / f"class{i % 2}" / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (14, 12 + i % 3, 3), np.uint8)).save(path)
    return folder


def lines(output):
    """log.jsonl of a training as objects."""
    path = output.with_name(output.name + ".training") / "log.jsonl"
    return [json.loads(text) for text in path.read_text().splitlines()]


def timeless(output):
    """The log but for times and the output's name."""
    out = [{k: v for k, v in line.items() if k not in TIMES} for line in lines(output)]
    out[0]["settings"]["run"].pop("output")
    return out


def state_of(output):
    return output.with_name(output.name + ".training")


def tree(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*"))
            if p.is_file()}


def nameless(output):
    """A trained bundle's files; its manifest without the name, which is the folder's."""
    files = tree(output)
    manifest = json.loads(files["manifest.json"])
    assert manifest.pop("name") == output.name
    return {**files, "manifest.json": json.dumps(manifest)}


def without_lock(output):
    """The state folder's files; the lock names the process that held it last."""
    return {name: data for name, data in tree(state_of(output)).items() if name != "lock"}


def assert_same_training(a, b):
    """Weights, optimiser, log and output bundle of two trainings are the same bytes."""
    assert (state_of(a) / CHECKPOINT).read_bytes() == (state_of(b) / CHECKPOINT).read_bytes()
    assert timeless(a) == timeless(b)
    assert nameless(a) == nameless(b)


def run(environment, *args):
    """Runs the command; exit code and standard error."""
    result = subprocess.run([str(COMMAND), *map(str, args), "-q"], capture_output=True,
                            env=environment, timeout=60)
    assert result.returncode in (0, 3), result.stderr
    return result.returncode, result.stderr.decode()


def start(environment, *args, delay):
    return subprocess.Popen([str(COMMAND), *map(str, args), "-q"], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, env=dict(environment, FAKE_DELAY=str(delay)))


def wait_for(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.005)


def logged(output):
    """The last whole step line's step of a log that is being written."""
    path = state_of(output) / "log.jsonl"
    if not path.exists():
        return 0
    found = [0]
    for text in path.read_text().splitlines():
        try:
            found.append(json.loads(text).get("step", 0))
        except json.JSONDecodeError:
            pass
    return max(found)
