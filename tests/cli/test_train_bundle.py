"""What `featinv train` leaves and says, over the fake backend: the bundle's name, the mean of its
training maps, the line that tells where to look, the page."""

from __future__ import annotations

import json
import os
import re
import subprocess

import numpy as np
import pytest
from PIL import Image

from conftest import COMMAND, make_bundle, write_manifest
from trainings import data, featinv, state_of, tree  # noqa: F401


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """A start without features.npz, as the exporter makes it from a backbone and a base alone."""
    folder = make_bundle(tmp_path_factory.mktemp("bare") / "start")
    (folder / "features.npz").unlink()
    write_manifest(folder)
    return folder


def extracted(featinv, bundle, paths, tmp_path):
    """The maps (N, C, h, w) of image files."""
    featinv("extract", *paths, "-m", bundle, "-o", tmp_path / "maps.npy")
    return np.load(tmp_path / "maps.npy").astype(np.float64)


def mean_of(output):
    with np.load(output / "features.npz") as file:
        assert file.files == ["mean"]
        return file["mean"]


# ------------------------------------------------------------------ name

def name_of(output):
    return json.loads((output / "manifest.json").read_text())["name"]


def test_a_bundle_is_named_after_its_folder(featinv, bundle, data, tmp_path):
    shared = ["train", "--data", data, "-m", bundle, "--steps", 2, "--batch", 2]
    featinv(*shared, "-o", f"{tmp_path}/mine//")
    assert name_of(tmp_path / "mine") == "mine"
    assert name_of(bundle) == "fake"
    featinv(*shared, "-o", "here", cwd=tmp_path)
    assert name_of(tmp_path / "here") == "here"
    foreign = tmp_path / os.fsdecode(b"caf\xe9")  # no name that a manifest could hold
    featinv(*shared, "-o", foreign)
    assert name_of(foreign) == "fake"


def test_validations_leave_no_trace_in_the_bundle(featinv, bare, data, tmp_path):
    shared = ["train", "--data", data, "-m", bare, "--steps", 4, "--batch", 2]
    results = [json.loads(featinv(*shared, "-o", tmp_path / folder / "mine", "--validate-every",
                                  every, "--json").out)
               for folder, every in (("often", 1), ("seldom", 100))]
    assert results[0]["sha256"] == results[1]["sha256"]
    assert tree(tmp_path / "often" / "mine") == tree(tmp_path / "seldom" / "mine")


# ------------------------------------------------------------------ mean of the training maps

def test_the_mean_of_the_training_maps(featinv, bare, data, tmp_path):
    """Of all images; with some held out, of exactly the others."""
    shared = ["train", "--data", data, "-m", bare, "--steps", 1, "--batch", 2]
    files = sorted(data.rglob("*.png"))
    for i, path in enumerate(files):
        Image.new("L", (12, 12), 15 * i).save(path)
    maps = extracted(featinv, bare, files, tmp_path).mean((2, 3))
    featinv(*shared, "-o", tmp_path / "all", "--validate-every", 0)
    found = mean_of(tmp_path / "all")
    assert found.dtype == np.float32 and found.shape == maps.shape[1:]
    assert np.allclose(found, maps.mean(0), rtol=1e-6, atol=0)
    featinv(*shared, "-o", tmp_path / "rest", "--validation", 0.25)
    held = [round(np.asarray(Image.open(path)).mean() / 15)
            for path in state_of(tmp_path / "rest").glob("original-*.png")]
    assert len(set(held)) == 4
    found = mean_of(tmp_path / "rest")
    assert not np.allclose(found, maps.mean(0), rtol=1e-4, atol=0)
    assert np.allclose(found, np.delete(maps, held, axis=0).mean(0), rtol=1e-6, atol=0)


def test_the_mean_makes_centred_cosines(featinv, bare, data, tmp_path):
    out = tmp_path / "out"
    featinv("train", "--data", data, "-m", bare, "-o", out, "--steps", 1, "--batch", 2)
    photo = data / "class0" / "00.png"
    for name, bundle in (("before", bare), ("after", out)):
        featinv("reconstruct", photo, "-m", bundle, "-o", tmp_path / name)
    before, after = (json.loads((tmp_path / name / "results.json").read_text())["items"][0]
                     for name in ("before", "after"))
    assert before["cosine_centred"] is None
    assert after["cosine_centred"] != pytest.approx(after["cosine_median"], abs=1e-3)


def test_the_mean_of_many_images_is_of_some_all_over_them(featinv, bare, tmp_path):
    rng = np.random.default_rng(5)
    folder = tmp_path / "many"
    folder.mkdir()
    for i in range(300):
        Image.fromarray(rng.integers(i // 2, 256, (8, 8, 3), np.uint8)).save(
            folder / f"{i:03}.png")
    out = tmp_path / "out"
    featinv("train", "--data", folder, "-m", bare, "-o", out, "--steps", 1, "--batch", 2,
            "--validate-every", 0)
    maps = extracted(featinv, bare, [folder / f"{i * 300 // 256:03}.png" for i in range(256)],
                     tmp_path)
    assert np.allclose(mean_of(out), maps.mean((0, 2, 3)), rtol=1e-6, atol=0)


def test_the_mean_leaves_out_what_cannot_be_read(featinv, bare, data, tmp_path):
    files = sorted(data.rglob("*.png"))
    files[3].write_bytes(files[3].read_bytes()[:60])
    result = featinv("train", "--data", data, "-m", bare, "-o", tmp_path / "out", "--epochs", 1,
                     "--batch", 2, "--validate-every", 0, expect=3)
    assert len(result.err.splitlines()) == 1 and result.err.endswith(": left out\n")
    maps = extracted(featinv, bare, files[:3] + files[4:], tmp_path)
    assert np.allclose(mean_of(tmp_path / "out"), maps.mean((0, 2, 3)), rtol=1e-6, atol=0)


@pytest.mark.parametrize("more", [[], ["--no-augment", "--cache"]], ids=["files", "cache"])
def test_resumed_to_the_same_bundle(featinv, bare, data, tmp_path, more):
    whole, parts = tmp_path / "whole" / "mine", tmp_path / "parts" / "mine"
    shared = ["train", "--data", data, "-m", bare, "--batch", 3, *more]
    featinv(*shared, "-o", whole, "--steps", 7)
    for steps in (2, 7, 7):
        featinv(*shared, "-o", parts, "--steps", steps, "--resume", "--force")
    assert "features.npz" in tree(whole) and tree(whole) == tree(parts)


def test_a_start_keeps_its_own_mean(featinv, bundle, data, tmp_path):
    featinv("train", "--data", data, "-m", bundle, "-o", tmp_path / "out", "--steps", 1)
    assert ((tmp_path / "out" / "features.npz").read_bytes()
            == (bundle / "features.npz").read_bytes())


# ------------------------------------------------------------------ what is said and shown

def test_the_first_line_tells_where_to_look(environment, bundle, data, tmp_path):
    shared = [COMMAND, "train", "--data", data, "-m", bundle, "--steps", 1]
    for options, wanted in (([], True), (["-q"], False), (["--json"], False)):
        out = tmp_path / f"out{''.join(options)}"
        result = subprocess.run([*map(str, shared), "-o", str(out), *options], text=True,
                                capture_output=True, env=environment, timeout=60, check=True)
        page = state_of(out) / "index.html"
        line = f"featinv: {page} shows this training: 14 images, 2 held out\n"
        assert result.stderr == (line if wanted else "")
        assert page.exists()


def test_the_page_is_there_before_the_first_step(environment, bundle, data, tmp_path):
    out = tmp_path / "out"
    process = subprocess.Popen(
        [str(COMMAND), "train", "--data", str(data), "-m", str(bundle), "-o", str(out), "--steps",
         "1", "--validate-every", "0"], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=dict(environment, FAKE_DELAY="2"))
    line = process.stderr.readline()
    page = (state_of(out) / "index.html").read_text()
    process.kill()
    process.communicate()
    assert "16 images, 0 held out" in line
    assert "Running." in page and "0 of 1" in page


def test_the_page_after_nothing_was_left_to_do(featinv, bundle, data, tmp_path):
    out = tmp_path / "out"
    shared = ["train", "--data", data, "-m", bundle, "-o", out, "--steps", 3]
    featinv(*shared)
    page = state_of(out) / "index.html"
    assert "samples a second" in page.read_text()
    featinv(*shared, "--resume", "--force")
    assert "samples a second" not in page.read_text() and "3 of 3" in page.read_text()


@pytest.mark.parametrize("steps, ticks", [
    (1, [0, 1]), (3, [0, 1, 2, 3]), (12, [0, 5, 10]), (43, [0, 20, 40]),
    (90, [0, 50])])
def test_ticks_are_round_steps(featinv, bundle, data, tmp_path, steps, ticks):
    out = tmp_path / "out"
    featinv("train", "--data", data, "-m", bundle, "-o", out, "--steps", steps, "--batch", 1)
    page = (state_of(out) / "index.html").read_text()
    axes = re.findall(r'<svg class="plot".*?</svg>', page, re.DOTALL)
    assert len(axes) == 3
    for axis in axes:
        found = re.findall(r'<text x="([\d.]+)" y="223" text-anchor="middle">(\d+)</text>', axis)
        assert [int(text) for _, text in found] == ticks
        for x, text in found:  # where the line has that step: the axis begins at 58, 300 wide
            assert float(x) == pytest.approx(58 + 300 * int(text) / steps, abs=0.06)
