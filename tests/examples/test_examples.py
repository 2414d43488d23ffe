"""The installed tree: examples built through CMake and pkg-config, run, moved elsewhere, run again."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
import capi  # noqa: E402

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


def test_cmake_package(prefix, tmp_path):
    call("cmake", "-S", capi.ROOT / "examples", "-B", tmp_path, f"-DCMAKE_PREFIX_PATH={prefix}")
    call("cmake", "--build", tmp_path)
    run_example(tmp_path / "reconstruct", prefix, tmp_path / "a.png")
    run_extract_and_cancel(tmp_path, prefix)


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
