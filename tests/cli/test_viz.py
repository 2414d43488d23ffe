"""`featinv viz`: algorithm 1 of the paper recomputed in NumPy from the written pictures."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import subprocess
import time

import numpy as np
import pytest
from PIL import Image

from conftest import CLASSES, COMMAND, IMAGE, MAP, tree


@pytest.fixture
def concepts(tmp_path, featinv):
    """Two oblique concepts in the fake bundle's 3 channels."""
    bases = np.array([[1, 1, 0], [0, 1, 1.0]]).T / np.sqrt(2)
    np.save(tmp_path / "bases.npy", bases)
    path = tmp_path / "concepts.npz"
    featinv("concepts", "import", "--bases", tmp_path / "bases.npy", "--offsets", "0,1,2", "-o",
            path)
    return path


def picture(path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.mode == "RGB"
        return np.asarray(image)


def difference(folder, name: str, part: str, pairs: int) -> np.ndarray:
    """Per pixel the median over pairs of the distance over RGB in [0, 1]."""
    first = np.stack([picture(folder / f"{name}-pair-{k}.png") for k in range(pairs)]) / 255
    second = np.stack([picture(folder / f"{name}-{part}-pair-{k}.png")
                       for k in range(pairs)]) / 255
    return np.median(np.sqrt(((first - second) ** 2).sum(-1)), axis=0)


def run_viz(featinv, bundle, concepts, photos, out, *options):
    featinv("viz", *photos, "--concepts", concepts, "-m", bundle, "-o", out, "-q", *options)
    return json.loads((out / "viz.json").read_text()), dict(np.load(out / "viz.npz"))


PARTS = ["concept-0", "concept-1", "complement"]


@pytest.mark.parametrize("normalize", ["max", "minmax"])
@pytest.mark.parametrize("pairs", [1, 4, 5])
def test_maps_and_masks_are_algorithm_1(featinv, bundle, concepts, photos, tmp_path, pairs,
                                        normalize):
    out = tmp_path / "out"
    root, arrays = run_viz(featinv, bundle, concepts, photos[:2], out, "--pairs", pairs,
                           "--normalize", normalize, "--factor", 0, "--threshold", 0.5)
    assert arrays["maps"].shape == (2, 3, *IMAGE[1:]) == arrays["masks"].shape
    seen = 0
    for i, name in enumerate(["p0", "p1"]):
        for k, part in enumerate(PARTS):
            median = difference(out, name, part, pairs)
            low = median.min() if normalize == "minmax" else 0
            span = median.max() - low
            wanted = (median - low) / span if span > 0 else np.zeros_like(median)
            assert np.abs(arrays["maps"][i, k] - wanted).max() < 1e-6, (name, part)
            mask = wanted < 0.5
            close = np.abs(wanted - 0.5) < 1e-6
            assert (arrays["masks"][i, k].astype(bool) == mask)[~close].all()
            assert arrays["maxima"][i, k] == pytest.approx(median.max(), abs=1e-12)
            concept = root["items"][i]["concepts"][k]
            assert concept["maximum"] == pytest.approx(median.max(), abs=1e-12)
            assert concept["affected"] == pytest.approx(1 - arrays["masks"][i, k].mean())
            seen += median.max() > 0
    assert seen >= 4  # not a table of zeros


def test_files_results_and_page(featinv, bundle, concepts, photos, tmp_path):
    out = tmp_path / "out"
    root, arrays = run_viz(featinv, bundle, concepts, photos[:2], out, "--pairs", 2, "--seed", 9)
    names = {f"p{i}-{what}.png" for i in range(2)
             for what in ["original", "pair-0", "pair-1"]
             + [f"{part}-{w}" for part in PARTS
                for w in ("viz", "activation", "mask", "pair-0", "pair-1")]}
    assert set(tree(out)) == names | {"viz.json", "viz.npz", "index.html"}
    assert list(root) == ["items", "summary"]
    summary = root["summary"]
    assert summary["pairs"] == 2 and summary["factor"] == 0.25 and summary["threshold"] == 0.33
    assert summary["seed"] == "9" and summary["normalize"] == "max" and summary["steps"] == 5
    for item, photo in zip(root["items"], photos):
        assert item["input"] == str(photo) and item["class"] in CLASSES
        assert [c["concept"] for c in item["concepts"]] == [0, 1, "complement"]
        for row in [item, *item["concepts"]]:
            mean = np.mean([p["cosine_median"] for p in row["pictures"]])
            assert row["cosine_median"] == pytest.approx(mean)
            assert row["norm_percentile"] is None  # this bundle keeps no statistics
            for entry in row["pictures"]:
                assert picture(out / entry["image"]).shape == (*IMAGE[1:], 3)
    page = (out / "index.html").read_text()
    inlined = {base64.b64decode(b) for b in re.findall(r"data:image/png;base64,([^\"]+)", page)}
    assert inlined == {data for name, data in tree(out).items() if name.endswith(".png")}
    assert "http" not in page and "<script" not in page
    for item in root["items"]:
        for row in [item, *item["concepts"]]:
            for entry in row["pictures"]:
                assert f"<b>cosine {entry['cosine_median']:.3f}</b>" in page


def test_pairs_are_what_sample_draws(featinv, bundle, concepts, photos, tmp_path):
    """Pair k of the map and of the attenuated map: sample k of the same seed."""
    out = tmp_path / "out"
    run_viz(featinv, bundle, concepts, photos[:1], out, "--pairs", 3, "--concept", 1, "--seed", 4)
    assert not (out / "p0-concept-0-viz.png").exists()
    featinv("extract", photos[0], "-m", bundle, "-o", tmp_path / "f.npy", "-q")
    featinv("attenuate", "--features", tmp_path / "f.npy", "--concepts", concepts, "--concept", 1,
            "-o", tmp_path / "g.npy", "-q")
    for name, prefix in (("f", "p0-pair"), ("g", "p0-concept-1-pair")):
        featinv("sample", "--features", tmp_path / f"{name}.npy", "-m", bundle, "--samples", 3,
                "--seed", 4, "-o", tmp_path / name, "-q")
        for k in range(3):
            drawn = picture(tmp_path / name / f"{name}-{k}.png")
            assert np.array_equal(drawn, picture(out / f"{prefix}-{k}.png")), (name, k)


def test_activation_stands_beside(featinv, bundle, concepts, photos, tmp_path):
    _, arrays = run_viz(featinv, bundle, concepts, photos[:2], tmp_path / "out", "--pairs", 1)
    featinv("extract", *photos[:2], "-m", bundle, "-o", tmp_path / "f.npz", "-q")
    featinv("concepts", "decompose", "--features", tmp_path / "f.npz", "--concepts", concepts,
            "-o", tmp_path / "parts.npz", "-q")
    maps = np.load(tmp_path / "f.npz")["features"].astype(float)
    parts = np.load(tmp_path / "parts.npz")["parts"].astype(float)
    largest = np.linalg.norm(maps, axis=1).max((1, 2))
    wanted = np.linalg.norm(parts, axis=2).transpose(1, 0, 2, 3) / largest[:, None, None, None]
    assert arrays["activation"].shape == (2, 3, *MAP[1:])
    assert np.abs(arrays["activation"] - wanted).max() < 1e-5


def test_a_threshold_from_the_null(featinv, bundle, concepts, photos, tmp_path):
    out = tmp_path / "out"
    root, arrays = run_viz(featinv, bundle, concepts, photos[:1], out, "--threshold", "null",
                           "--pairs", 2)
    assert root["summary"]["threshold"] == "null"
    assert arrays["null_maps"].shape == (1, 3, *IMAGE[1:])
    for k, part in enumerate(PARTS):
        assert (out / f"p0-{part}-null.png").exists()
        threshold = np.percentile(arrays["null_maps"][0, k].astype(float), 95)
        away = np.abs(arrays["maps"][0, k] - threshold) > 1e-6
        below = arrays["maps"][0, k] < threshold
        assert (arrays["masks"][0, k].astype(bool) == below)[away].all()


def test_a_factor_of_one_changes_nothing(featinv, bundle, concepts, photos, tmp_path):
    root, arrays = run_viz(featinv, bundle, concepts, photos[:1], tmp_path / "out", "--factor", 1,
                           "--pairs", 2)
    assert not arrays["maps"].any() and arrays["masks"].all() and not arrays["maxima"].any()
    assert [c["affected"] for c in root["items"][0]["concepts"]] == [0, 0, 0]


def test_the_same_command_twice_gives_the_same_files(featinv, bundle, concepts, photos, tmp_path):
    trees = []
    for name in "ab":
        run_viz(featinv, bundle, concepts, photos[:2], tmp_path / name, "--pairs", 2)
        trees.append(tree(tmp_path / name))
    assert trees[0] == trees[1]


def test_json_is_the_file(featinv, bundle, concepts, photos, tmp_path):
    printed = featinv("viz", photos[0], "--concepts", concepts, "-m", bundle, "--pairs", 1, "-o",
                      tmp_path / "out", "--json").out
    assert json.loads(printed) == json.loads((tmp_path / "out" / "viz.json").read_text())


def test_bad_images_are_reported_and_the_rest_is_done(featinv, bundle, concepts, photos, tmp_path):
    photos[1].write_bytes(b"")
    result = featinv("viz", *photos[:3], tmp_path / "gone.png", "--concepts", concepts, "-m",
                     bundle, "--pairs", 1, "-o", tmp_path / "out", expect=3)
    items = json.loads((tmp_path / "out" / "viz.json").read_text())["items"]
    assert [i["input"] for i in items] == [str(p) for p in (photos[0], photos[2], photos[1],
                                                            tmp_path / "gone.png")]
    assert ["error" in i for i in items] == [False, False, True, True]
    assert len(result.err.splitlines()) == 2
    assert "Not done" in (tmp_path / "out" / "index.html").read_text()


def test_names_are_escaped_on_the_page(featinv, bundle, concepts, tmp_path):
    path = tmp_path / "<b>&'x.png"
    Image.new("RGB", (5, 5), (90, 90, 90)).save(path)
    featinv("viz", path, "--concepts", concepts, "-m", bundle, "--pairs", 1, "-o",
            tmp_path / "out", "-q")
    page = (tmp_path / "out" / "index.html").read_text()
    assert "&lt;b&gt;&amp;&#39;x" in page and "<b>&'x" not in page


# The line behind `viz p0.png -o out -m BUNDLE`; {c}: the concepts.
REFUSED = [
    ("no concepts", "", 2), ("no such concept", "--concepts {c} --concept 2", 2),
    ("negative", "--concepts {c} --concept -1", 2), ("a word", "--concepts {c} --concept none", 2),
    ("pairs 0", "--concepts {c} --pairs 0", 2), ("pairs 1.5", "--concepts {c} --pairs 1.5", 2),
    ("factor NaN", "--concepts {c} --factor nan", 2),
    ("threshold -1", "--concepts {c} --threshold -1", 2),
    ("threshold 2", "--concepts {c} --threshold 2", 2),
    ("threshold word", "--concepts {c} --threshold none", 2),
    ("normalize", "--concepts {c} --normalize mean", 2), ("steps 0", "--concepts {c} --steps 0", 2),
    ("scale NaN", "--concepts {c} --scale nan", 2), ("samples", "--concepts {c} --samples 2", 2),
    ("context", "--concepts {c} --context nobody", 2),
    ("missing concepts", "--concepts none.npz", 3), ("another space", "--concepts other.npz", 3),
    ("overlapping", "--concepts same.npz", 3), ("device", "--concepts {c} --device cuda:0", 6),
    ("no bundle", "--concepts {c} -m none", 4),
]


@pytest.mark.parametrize("line, code", [c[1:] for c in REFUSED], ids=[c[0] for c in REFUSED])
def test_refused(featinv, bundle, concepts, photos, tmp_path, line, code):
    np.savez(tmp_path / "other.npz", bases=np.eye(5)[:, :3], offsets=np.array([0, 3], np.int32))
    np.savez(tmp_path / "same.npz", bases=np.eye(3)[:, [0, 0]],
             offsets=np.array([0, 1, 2], np.int32))
    words = line.format(c=concepts).split()
    model = [] if "-m" in words else ["-m", bundle]
    result = featinv("viz", photos[0], "-o", "out", *model, *words, expect=code, cwd=tmp_path)
    assert len(result.err.splitlines()) == 1
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_no_images_and_no_output(featinv, bundle, concepts, photos):
    assert "images" in featinv("viz", "--concepts", concepts, "-m", bundle, "-o", "x", expect=2).err
    assert "-o" in featinv("viz", photos[0], "--concepts", concepts, "-m", bundle, expect=2).err


def test_bundles_that_cannot_draw_or_see(featinv, concepts, photos, tmp_path):
    from conftest import make_bundle
    for name, parts in (("drawn", {"backbone": False}), ("seen", {"generator": False})):
        bundle = make_bundle(tmp_path / name, **parts)
        result = featinv("viz", photos[0], "--concepts", concepts, "-m", bundle, "-o",
                         tmp_path / "out", expect=1)
        assert ("backbone" if name == "drawn" else "generator") in result.err
        assert not (tmp_path / "out").exists()


def test_ctrl_c_keeps_whole_images(environment, bundle, concepts, photos, tmp_path):
    out = tmp_path / "out"
    process = subprocess.Popen(
        [str(COMMAND), "viz", *map(str, photos), "--concepts", str(concepts), "-m", str(bundle),
         "-o", str(out), "--pairs", "1", "--concept", "0"],
        env=dict(environment, FAKE_DELAY="0.1"), stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    limit = time.monotonic() + 60
    while not (out / "p0-concept-0-pair-0.png").exists() and time.monotonic() < limit:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    items = json.loads((out / "viz.json").read_text())["items"]
    assert 1 <= len(items) < len(photos)
    assert f"after {len(items)} of 7 images" in err.decode()
    for item in items:
        for concept in item["concepts"]:
            assert (out / concept["map"]).exists() and (out / concept["mask"]).exists()
    assert not list(out.glob("*.tmp")) and not list(out.glob(".*"))
