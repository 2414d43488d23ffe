"""The installed tree: examples built through CMake and pkg-config, run, moved elsewhere, run again."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "support"),
                str(Path(__file__).resolve().parents[2] / "models" / "recipe")]
import capi  # noqa: E402
from scenes import CLASSES, draw_factors, draw_scene  # noqa: E402

PHOTO = capi.ROOT / "models" / "examples" / "car-on-grass.png"


def call(*args, **kwargs):
    result = subprocess.run([str(a) for a in args], capture_output=True, text=True, timeout=300,
                            **kwargs)
    assert result.returncode == 0, (args, result.stdout, result.stderr)
    return result.stdout


@pytest.fixture(scope="module")
def prefix(tmp_path_factory):
    folder = tmp_path_factory.mktemp("installed") / "prefix"
    call("cmake", "--install", capi.BUILD, "--prefix", folder)
    return folder


def library_folder(prefix: Path) -> Path:
    return next(prefix.rglob("libfeatinv.so")).parent


def run_example(program, prefix, out):
    environment = {k: v for k, v in os.environ.items() if k != "FEATINV_MODEL"}
    environment["LD_LIBRARY_PATH"] = str(library_folder(prefix))
    text = call(program, PHOTO, out, env=environment)
    assert "cosine 0.9" in text and "car on grass -> car on grass" in text
    assert out.read_bytes().startswith(b"\x89PNG")


def run_extract_and_cancel(folder, prefix):
    environment = {k: v for k, v in os.environ.items() if k != "FEATINV_MODEL"}
    environment["LD_LIBRARY_PATH"] = str(library_folder(prefix))
    call(folder / "extract", folder / "maps.npz", PHOTO, env=environment)
    call(capi.BUILD / "featinv", "extract", PHOTO, "-q", "-o", folder / "command.npz",
         env=environment)
    own, command = (np.load(folder / name) for name in ("maps.npz", "command.npz"))
    assert own.files == ["features", "logits"] and np.ptp(own["features"]) > 1
    for name in own.files:
        assert np.array_equal(own[name], command[name]), name
    text = call(folder / "cancel", folder / "maps.npz", folder / "c.png", env=environment)
    done = int(re.search(r"cancelled after (\d+) of 1000 \w+", text)[1])
    assert 20 <= done < 1000 and "\ndrawn\n" in text
    assert (folder / "c.png").read_bytes().startswith(b"\x89PNG")


def draw_photos(folder: Path, name: str, count: int) -> list[Path]:
    """Scenes of a class as files, from seed 900,000 on."""
    out, seed = [], 900_000
    while len(out) < count:
        f = draw_factors(np.random.Generator(np.random.PCG64(seed)))
        if f"{f['object']} on {f['ground']}" == name:
            out.append(folder / f"scene-{seed}.png")
            Image.fromarray(draw_scene(seed).pixels).save(out[-1])
        seed += 1
    return out


def run_concepts(folder, prefix):
    """Completeness as the command has it; the grass is what makes it a car on grass."""
    environment = {k: v for k, v in os.environ.items() if k != "FEATINV_MODEL"}
    environment["LD_LIBRARY_PATH"] = str(library_folder(prefix))
    photos = [PHOTO, *draw_photos(folder, "car on grass", 20)]
    text = call(folder / "concepts", folder / "seen.png", CLASSES.index("car on grass"), 0, *photos,
                env=environment)
    figures = re.fullmatch(r"car on grass: completeness (\S+), logit (\S+), with less of it (\S+)\n",
                           text)
    complete, logit, less = (float(x) for x in figures.groups())
    fitted = json.loads(call(capi.BUILD / "featinv", "concepts", "fit", *photos, "--count", 5,
                             "--class", "car on grass", "--json", "-o", folder / "c.npz",
                             env=environment))
    assert complete == round(fitted["completeness"], 2) and less < logit - 0.5
    before, after = (np.asarray(Image.open(p).convert("RGB"), int) for p in (photos[0],
                                                                          folder / "seen.png"))
    changed = np.abs(after - before).max(-1) > 30
    assert before.shape == after.shape and 0.02 < changed.mean() < 0.6
    assert changed[len(changed) // 2:].mean() > 3 * changed[:len(changed) // 2].mean(), "the ground"
    wrong = subprocess.run([folder / "concepts", folder / "x.png", "99", "0", PHOTO],
                           capture_output=True, text=True, env=environment)
    assert wrong.returncode == 1 and "99" in wrong.stderr and not (folder / "x.png").exists()


def test_cmake_package(prefix, tmp_path):
    call("cmake", "-S", capi.ROOT / "examples", "-B", tmp_path, f"-DCMAKE_PREFIX_PATH={prefix}")
    call("cmake", "--build", tmp_path)
    run_example(tmp_path / "reconstruct", prefix, tmp_path / "a.png")
    run_extract_and_cancel(tmp_path, prefix)
    run_concepts(tmp_path, prefix)


def test_pkg_config_and_a_moved_tree(prefix, tmp_path):
    moved = tmp_path / "else where" / "prefix"
    shutil.copytree(prefix, moved, symlinks=True)
    environment = dict(os.environ, PKG_CONFIG_PATH=str(library_folder(moved) / "pkgconfig"))
    import shlex
    flags = shlex.split(call("pkg-config", "--cflags", "--libs", "featinv", env=environment))
    call("cc", "-std=c11", "-Wall", "-Wextra", "-Werror", capi.ROOT / "examples" / "reconstruct.c",
         *flags, "-o", tmp_path / "reconstruct")
    run_example(tmp_path / "reconstruct", moved, tmp_path / "b.png")
    command = next(moved.rglob("bin/featinv"))
    info = call(command, "info", env={k: v for k, v in os.environ.items() if k != "FEATINV_MODEL"})
    assert str(moved) in info
