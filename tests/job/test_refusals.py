"""What the command does over libtorch where it cannot write, has no device or the wrong libtorch,
is interrupted twice, or is installed where nothing may be written.

tests/cli has the same rows over the fake backend, with more places at which each can happen.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
import capi  # noqa: E402

PHOTOS = sorted((capi.ROOT / "models" / "examples").glob("*.png"))
BUNDLE = capi.ROOT / "models" / "scenes"
JOB = ["reconstruct", *PHOTOS[:3], "-m", BUNDLE, "--device", "cpu", "--steps", 2, "--batch", 1]
NOBODY = 65534
as_root = pytest.mark.skipif(os.getuid() != 0, reason="needs root: to mount, to be another user")


def one_line(result) -> str:
    """The error of a failed run."""
    assert len(result.stderr.splitlines()) == 1 and result.stderr.startswith("featinv: "), result
    return result.stderr


@pytest.fixture
def public():
    """A folder that other users reach; pytest's own are closed to them."""
    folder = Path(tempfile.mkdtemp(prefix="featinv-test-"))
    folder.chmod(0o755)
    yield folder
    subprocess.run(["chmod", "-R", "u+w", folder], check=True)
    shutil.rmtree(folder)


def another_user():
    os.setgid(NOBODY)
    os.setuid(NOBODY)


def others_reach_libtorch() -> bool:
    folder = Path(conf()["torch_lib"])
    return all(p.stat().st_mode & 0o005 == 0o005 for p in [folder, *folder.parents])


def conf() -> dict:
    text = (capi.BUILD / "libfeatinv-torch.conf").read_text()
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line and line[0] != "#")


# ------------------------------------------------------------------ outputs


def test_an_output_folder_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", tmp_path / "file" / "deeper"):
        assert str(tmp_path / "file") in one_line(capi.run(*JOB, "-o", out, expect=1))
    assert (tmp_path / "file").read_text() == "mine" and os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("out", ["locked", "locked/new"])
def test_a_read_only_output_folder(public, out):
    (public / "locked").mkdir(mode=0o555)
    if os.getuid() == 0 and not others_reach_libtorch():
        pytest.skip("root may write everywhere and other users cannot read libtorch")
    for photo in PHOTOS[:3]:
        shutil.copy(photo, public)
    shutil.copytree(BUNDLE, public / "scenes")
    copies = [public / p.name for p in PHOTOS[:3]]
    change = {"preexec_fn": another_user} if os.getuid() == 0 else {}
    result = capi.run("reconstruct", *copies, "-m", public / "scenes", "--device", "cpu",
                      "--steps", 2, "-o", public / out, expect=1, **change)
    assert str(public / "locked") in one_line(result) and not os.listdir(public / "locked")


@as_root
@pytest.mark.parametrize("size", ["4k", "40k"])
def test_a_full_output_folder(tmp_path, size):
    """A file system of so many bytes: nothing fits, then some pictures do; later there is room."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", disk],
                             capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"cannot mount here: {mounted.stderr.strip()}")
    try:
        out = disk / "out"
        result = capi.run(*JOB, "--samples", 2, "-o", out, expect=1)
        assert "No space left on device" in one_line(result) and str(out) in result.stderr
        left = list(out.iterdir()) if out.exists() else []
        assert bool(left) == (size == "40k")
        assert not [p for p in left if p.name.startswith(".")], "a temporary file is left"
        for path in left:
            if path.suffix == ".png":
                Image.open(path).load()
            if path.suffix == ".json":
                json.loads(path.read_text())
        subprocess.run(["mount", "-o", "remount,size=8m", disk], check=True)
        capi.run(*JOB, "--samples", 2, "-o", out, "--resume")
        capi.run(*JOB, "--samples", 2, "-o", tmp_path / "whole")
        for path in (tmp_path / "whole").glob("*.png"):
            assert (out / path.name).read_bytes() == path.read_bytes(), path.name
        assert not (out / "journal.jsonl").exists()
    finally:
        subprocess.run(["umount", disk], check=True)


# ------------------------------------------------------------------ device and libtorch


@pytest.mark.parametrize("device", ["cuda:99"])
def test_no_such_device(tmp_path, device):
    job = [device if a == "cpu" else a for a in JOB]
    assert one_line(capi.run(*job, "-o", tmp_path / "out", expect=6)).count(device) == 1
    assert not (tmp_path / "out").exists()


def test_a_latent_that_the_programs_do_not_draw(tmp_path):
    bundle = tmp_path / "bundle"
    shutil.copytree(BUNDLE, bundle)
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["diffusion"]["latent"][1] -= 1
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    job = [bundle if a == BUNDLE else a for a in JOB]
    error = one_line(capi.run(*job, "-o", tmp_path / "out", expect=4))
    assert "hint.ts gave" in error and "15, 16" in error


def copied(folder: Path, configuration: str | None) -> Path:
    """The command and its libraries in a folder, beside another configuration."""
    for name in ("featinv", "libfeatinv.so.0", "libfeatinv-torch.so", "libfeatinv-torch.conf"):
        shutil.copy((capi.BUILD / name).resolve(), folder / name)
    if configuration is not None:
        (folder / "libfeatinv-torch.conf").write_text(configuration)
    return folder / "featinv"


def foreign(folder: Path) -> Path:
    """A library that calls itself libtorch, of a torch 1.13.1."""
    library = folder / "torch" / "lib" / "libtorch_cpu.so"
    library.parent.mkdir(parents=True)
    (library.parents[1] / "version.py").write_text("__version__ = '1.13.1'\n")
    source = folder / "empty.c"
    source.write_text("int nothing;\n")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
    return library


@pytest.mark.parametrize("case", ["absent", "other version", "foreign"])
def test_another_libtorch(tmp_path, case):
    configuration, part = {
        "absent": ("torch_version=2.11.0\ntorch_lib=/nowhere/lib\n", "/nowhere/lib"),
        "other version": (f"torch_version=2.4.0\ntorch_lib={conf()['torch_lib']}\n", "2.4.0"),
        "foreign": (None, "1.13.1")}[case]
    command = copied(tmp_path, configuration)
    environment = {k: v for k, v in os.environ.items() if k != "FEATINV_LIBTORCH"}
    if case == "foreign":
        environment["LD_PRELOAD"] = str(foreign(tmp_path))
    result = subprocess.run([str(a) for a in (command, *JOB, "-o", tmp_path / "out")],
                            capture_output=True, text=True, env=environment, timeout=120)
    assert result.returncode == 6, result
    assert part in one_line(result) and not (tmp_path / "out").exists()


# ------------------------------------------------------------------ Ctrl-C, and a bare machine


def test_a_second_ctrl_c_ends_at_once(tmp_path):
    """One step of 2048 lanes takes seconds: the first signal waits for its end, the second not."""
    out = tmp_path / "out"
    child = subprocess.Popen(
        [str(a) for a in (capi.COMMAND, "reconstruct", PHOTOS[0], "-m", BUNDLE, "--device", "cpu",
                          "--samples", 2048, "--batch", 2048, "--steps", 999, "-o", out)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while child.poll() is None and not out.exists():
        time.sleep(0.005)
    time.sleep(1)
    child.send_signal(signal.SIGINT)
    time.sleep(0.1)
    assert child.poll() is None, "the running step is finished first"
    child.send_signal(signal.SIGINT)
    sent = time.monotonic()
    _, text = child.communicate(timeout=60)
    took = time.monotonic() - sent
    assert child.returncode == 130 and not text, (child.returncode, text)
    print(f"ended {took:.2f} s after the second signal")
    assert took < 1 and (not out.exists() or not list(out.glob("*-[0-9].png")))
    capi.run(*JOB, "-o", out)  # what was left is no obstacle


@as_root
def test_a_read_only_install_on_one_core(public):
    """Another user, to whom everything but the output is closed for writing, with one processor."""
    if not others_reach_libtorch():
        pytest.skip("other users cannot read libtorch where it is")
    prefix = public / "prefix"
    subprocess.run(["cmake", "--install", capi.BUILD, "--prefix", prefix], check=True,
                   capture_output=True)
    shutil.copy(PHOTOS[0], public / "photo.png")
    subprocess.run(["chmod", "-R", "a-w,a+rX", public], check=True)
    public.chmod(0o1777)
    before = sorted(prefix.rglob("*"))

    def bare():
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        another_user()

    result = capi.run("reconstruct", public / "photo.png", "-o", public / "out", "--steps", 5,
                      command=next(prefix.rglob("bin/featinv")), preexec_fn=bare,
                      env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent"}, cwd="/")
    assert not result.stderr
    summary = json.loads((public / "out" / "results.json").read_text())["summary"]
    assert summary["device"] == "cpu" and summary["cosine_median"] > 0.9
    assert sorted(prefix.rglob("*")) == before
