"""`featinv mix` and `compose`: maps, figures and pages against NumPy, and what is refused."""

from __future__ import annotations

import base64
import json
import os
import re
import resource
import signal
import subprocess
import time

import numpy as np
import pytest
from PIL import Image

from conftest import COMMAND, IMAGE, MAP, make_bundle, tree


@pytest.fixture
def sides(tmp_path):
    """Two map files of one map each."""
    rng = np.random.default_rng(7)
    paths = [tmp_path / "a.npy", tmp_path / "b.npz"]
    np.save(paths[0], rng.normal(size=(1, *MAP)).astype(np.float32))
    np.savez(paths[1], features=rng.normal(size=(1, *MAP)).astype(np.float32))
    return paths


def maps_of(sides) -> tuple[np.ndarray, np.ndarray]:
    return np.load(sides[0])[0], np.load(sides[1])["features"][0]


def picture(path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.mode == "RGB"
        return np.asarray(image)


def pngs(folder) -> dict:
    return {name: data for name, data in tree(folder).items() if name.endswith(".png")}


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosine at each position of maps (C, H, W)."""
    return (a * b).sum(0) / np.linalg.norm(a, axis=0) / np.linalg.norm(b, axis=0)


# ------------------------------------------------------------------ mix

def mixed(a, b, w, mode):
    """The definitions, in float64, position by position."""
    a, b = a.astype(float), b.astype(float)
    if mode == "lerp":
        return (1 - w) * a + w * b
    la, lb = np.linalg.norm(a, axis=0), np.linalg.norm(b, axis=0)
    length = (1 - w) * la + w * lb
    if mode == "norm":
        line = (1 - w) * a + w * b
        return line / np.linalg.norm(line, axis=0) * length
    angle = np.arccos((a * b).sum(0) / la / lb)
    return (np.sin((1 - w) * angle) * a / la + np.sin(w * angle) * b / lb) / np.sin(angle) * length


@pytest.mark.parametrize("mode", ["lerp", "slerp", "norm"])
def test_mixed_maps_are_by_definition(featinv, bundle, sides, tmp_path, mode):
    featinv("mix", *sides, "-m", bundle, "--weights", "0,0.3,1", "--mode", mode, "-o",
            tmp_path / "out", "-q")
    a, b = maps_of(sides)
    with np.load(tmp_path / "out" / "mixed.npz") as file:
        out, weights = file["features"], file["weights"]
    assert out.shape == (3, *MAP) and weights.tolist() == [0, 0.3, 1]
    assert out[0].tobytes() == a.tobytes() and out[2].tobytes() == b.tobytes()
    assert np.abs(out[1] - mixed(a, b, 0.3, mode)).max() < 1e-6


def test_pictures_are_drawn_from_the_mixed_maps(featinv, bundle, sides, tmp_path):
    out = tmp_path / "out"
    featinv("mix", *sides, "-m", bundle, "--seed", 3, "--samples", 2, "-o", out, "--images-out",
            tmp_path / "i.npy", "--latents-out", tmp_path / "z.npy")
    featinv("sample", "--features", out / "mixed.npz", "-m", bundle, "--seed", 3, "--samples", 2,
            "-o", tmp_path / "s", "--images-out", tmp_path / "j.npy", "-q")
    drawn = np.load(tmp_path / "i.npy")
    assert drawn.tobytes() == np.load(tmp_path / "j.npy").tobytes()
    assert len(np.load(tmp_path / "z.npy")) == 10
    for i in range(5):
        for k in range(2):
            assert np.array_equal(picture(out / f"mix-{i}-{k}.png"), drawn[2 * i + k])
    strip = picture(out / "strip.png")  # a row is one sample at all weights
    height, width = IMAGE[1:]
    assert strip.shape == (2 * height + 4, 5 * width + 16, 3)
    for i in range(5):
        for k in range(2):
            y, x = k * (height + 4), i * (width + 4)
            assert np.array_equal(strip[y:y + height, x:x + width], drawn[2 * i + k])
    assert (strip[height:height + 4] == 255).all()


def test_mix_results_and_page(featinv, bundle, photos, tmp_path):
    out = tmp_path / "out"
    words = featinv("mix", photos[0], photos[5], "-m", bundle, "-o", out).out
    root = json.loads((out / "mix.json").read_text())
    assert list(root) == ["items", "weights", "summary"]
    assert [i["weight"] for i in root["items"]] == [0, 0.25, 0.5, 0.75, 1]
    assert root["summary"]["a"] == str(photos[0]) and root["summary"]["mode"] == "lerp"
    assert len(words.splitlines()) == 6
    scores = json.loads(featinv("sample", "--features", out / "mixed.npz", "-m", bundle, "-o",
                                tmp_path / "s", "--json").out)["items"]
    for item, row, score in zip(root["items"], root["weights"], scores):
        assert item["cosine_median"] == pytest.approx(score["cosine_median"], rel=1e-12)
        assert item["cosine_centred"] == pytest.approx(score["cosine_centred"], rel=1e-12)
        assert row["cosine_median"] == item["cosine_median"] and row["norm_percentile"] is None
        assert -1 <= item["cosine_a"] <= 1 and -1 <= item["cosine_b"] <= 1
    assert root["items"][0]["cosine_a"] == pytest.approx(root["items"][0]["cosine_median"])
    assert root["items"][4]["cosine_b"] == pytest.approx(root["items"][4]["cosine_median"])
    page = (out / "index.html").read_text()
    inlined = {base64.b64decode(b) for b in re.findall(r"data:image/png;base64,([^\"]+)", page)}
    files = pngs(out)
    assert set(files) == {*(f"mix-{i}.png" for i in range(5)), "strip.png", "a-original.png",
                          "b-original.png"}
    assert inlined == {data for name, data in files.items() if name != "strip.png"}
    for item in root["items"]:
        assert f"<b>cosine {item['cosine_median']:.3f}</b>" in page
    assert "http" not in page and "<script" not in page


def test_mix_without_a_backbone_has_no_scores(featinv, sides, tmp_path):
    bundle = make_bundle(tmp_path / "drawn", backbone=False)
    featinv("mix", *sides, "-m", bundle, "-o", tmp_path / "out", "-q")
    root = json.loads((tmp_path / "out" / "mix.json").read_text())
    assert {i["cosine_median"] for i in root["items"]} == {None}
    assert "no score" in (tmp_path / "out" / "index.html").read_text()


def test_an_older_folder_is_replaced_file_by_file(featinv, bundle, sides, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mix-0.png").write_text("older")
    (out / "mine.txt").write_text("kept")
    featinv("mix", *sides, "-m", bundle, "-o", out, "-q")
    assert picture(out / "mix-0.png").shape == (*IMAGE[1:], 3)
    assert (out / "mine.txt").read_text() == "kept"


MIX_REFUSED = [
    ("one side", "{a}", 2), ("three", "{a} {b} {a}", 2),
    ("weight above 1", "{a} {b} --weights 0,1.5", 2), ("below 0", "{a} {b} --weights -0.1", 2),
    ("weight NaN", "{a} {b} --weights 0,nan", 2), ("weight a word", "{a} {b} --weights 0,x", 2),
    ("nothing between", "{a} {b} --weights 0,,1", 2), ("mode", "{a} {b} --mode cubic", 2),
    ("steps 0", "{a} {b} --steps 0", 2), ("samples 0", "{a} {b} --samples 0", 2),
    ("missing", "{a} none.npy", 3), ("missing image", "{a} none.png", 3),
    ("no image", "{a} junk.png", 3), ("two maps", "{a} two.npy", 3),
    ("another space", "{a} other.npy", 3), ("NaN", "{a} nan.npy", 3), ("rows", "{a} rows.npy", 3),
    ("noise of another size", "{a} {b} --noise {a}", 3),
]


def make_bad_files(folder):
    np.save(folder / "two.npy", np.zeros((2, *MAP), np.float32))
    np.save(folder / "other.npy", np.zeros((1, 5, 2, 2), np.float32))
    np.save(folder / "nan.npy", np.full((1, *MAP), np.nan, np.float32))
    np.save(folder / "rows.npy", np.zeros((2, 3), np.float32))
    (folder / "junk.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(30))


@pytest.mark.parametrize("line, code", [c[1:] for c in MIX_REFUSED],
                         ids=[c[0] for c in MIX_REFUSED])
def test_mix_refuses(featinv, bundle, sides, tmp_path, line, code):
    make_bad_files(tmp_path)
    words = line.format(a=sides[0], b=sides[1]).split()
    result = featinv("mix", *words, "-m", bundle, "-o", "out", expect=code, cwd=tmp_path)
    assert len(result.err.splitlines()) == 1
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_a_folder_of_several_images_is_no_side(featinv, bundle, photos, tmp_path):
    result = featinv("mix", photos[0].parent, photos[1], "-m", bundle, "-o", tmp_path / "out",
                     expect=2)
    assert "7 images" in result.err


def test_ctrl_c_keeps_the_pictures_that_are_done(environment, bundle, sides, tmp_path):
    out = tmp_path / "out"
    process = subprocess.Popen(
        [str(COMMAND), "mix", *map(str, sides), "-m", str(bundle), "-o", str(out), "--batch", "1",
         "--steps", "1", "--weights", ",".join(str(i / 39) for i in range(40))],
        env=dict(environment, FAKE_DELAY="0.1"), stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    time.sleep(2)  # a picture takes a tenth of a second
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    items = json.loads((out / "mix.json").read_text())["items"]
    assert 1 <= len(items) < 40 and f"after {len(items)} of 40 pictures" in err.decode()
    assert set(pngs(out)) == {i["image"] for i in items} and (out / "index.html").exists()


# ------------------------------------------------------------------ compose

def region_mask(width, height, region) -> np.ndarray:
    """Share of each cell that the rectangle covers. The fake backbone resizes the shorter side
    to 4 and the other to what keeps the aspect, truncated, then crops the middle (torchvision's
    rules)."""
    wide, high = (4, 4 * height // width) if width <= height else (4 * width // height, 4)

    def shares(size, whole, first, last, cells):
        begin = round((whole - 4) / 2)  # halves to even
        edges = (begin + 4 * np.arange(cells + 1) / cells) * size / whole
        covered = np.minimum(edges[1:], last) - np.maximum(edges[:-1], first)
        return np.clip(covered, 0, None) / np.diff(edges)

    return np.outer(shares(height, high, region[1], region[3], MAP[1]),
                    shares(width, wide, region[0], region[2], MAP[2]))


def influence(before, after, inside):
    """Mean change by distance from the region, by brute force, and where it falls to a tenth."""
    change = np.sqrt(((before.astype(float) - after) ** 2).sum(-1)).reshape(len(before), -1) / 255
    points = np.argwhere(inside)
    grid = np.indices(inside.shape).reshape(2, -1).T
    away = np.sqrt(((grid[:, None] - points[None]) ** 2).sum(-1)).min(1)
    bins = np.ceil(away - 0.5).astype(int)
    means = [change[:, bins == d].mean() if (bins == d).any() else np.nan
             for d in range(bins.max() + 1)]
    last, value = 0, means[0]
    for d in range(1, len(means)):
        if np.isnan(means[d]):
            continue
        if means[d] <= 0.1 * means[0]:
            return means, last + (d - last) * (value - 0.1 * means[0]) / (value - means[d])
        last, value = d, means[d]
    return means, None


@pytest.mark.parametrize("region", [(0, 0, 6, 6), (3, 2, 8, 12), (2.5, 3.25, 7.125, 9)])
def test_compose_pastes_by_covered_area(featinv, bundle, tmp_path, region):
    for name, level in (("a", 40), ("b", 200)):
        Image.new("RGB", (12, 12), (level,) * 3).save(tmp_path / f"{name}.png")
    out = tmp_path / "out"
    featinv("compose", tmp_path / "a.png", tmp_path / "b.png", "--region",
            ",".join(map(str, region)), "-m", bundle, "-o", out, "-q")
    featinv("extract", tmp_path / "a.png", tmp_path / "b.png", "-m", bundle, "-o",
            tmp_path / "f.npy", "-q")
    a, b = np.load(tmp_path / "f.npy")
    mask = region_mask(12, 12, region)
    with np.load(out / "composed.npz") as file:
        assert np.abs(file["mask"] - mask).max() < 1e-6
        assert np.abs(file["features"][0] - ((1 - mask) * a + mask * b)).max() < 1e-6
    root = json.loads((out / "compose.json").read_text())
    assert root["summary"]["region"] == list(region)
    assert root["summary"]["share"] == pytest.approx(mask.mean(), abs=1e-6)


def test_the_region_counts_pixels_of_a_and_its_crop(featinv, bundle, tmp_path):
    Image.new("RGB", (20, 12), (40,) * 3).save(tmp_path / "a.png")
    Image.new("RGB", (7, 9), (200,) * 3).save(tmp_path / "b.png")
    region = (5, 1, 13, 7)
    featinv("compose", tmp_path / "a.png", tmp_path / "b.png", "--region", "5,1,13,7", "-m",
            bundle, "-o", tmp_path / "out", "-q")
    with np.load(tmp_path / "out" / "composed.npz") as file:
        assert np.abs(file["mask"] - region_mask(20, 12, region)).max() < 1e-6


def test_a_soft_mask(featinv, bundle, sides, tmp_path):
    grey = np.random.default_rng(2).integers(0, 256, size=(8, 8), dtype=np.uint8)
    Image.fromarray(grey).save(tmp_path / "m.png")
    featinv("compose", *sides, "--mask", tmp_path / "m.png", "-m", bundle, "-o", tmp_path / "out",
            "-q")
    mask = grey.reshape(2, 4, 2, 4).mean((1, 3)) / 255
    a, b = maps_of(sides)
    with np.load(tmp_path / "out" / "composed.npz") as file:
        assert np.abs(file["mask"] - mask).max() < 1e-6
        assert np.abs(file["features"][0] - ((1 - mask) * a + mask * b)).max() < 1e-6


def test_compose_figures(featinv, bundle, sides, tmp_path):
    out = tmp_path / "out"
    words = featinv("compose", *sides, "--region", "0,0,5,6", "-m", bundle, "--samples", 2, "-o",
                    out, "--images-out", tmp_path / "i.npy").out
    root = json.loads((out / "compose.json").read_text())
    drawn = np.load(tmp_path / "i.npy")
    assert len(drawn) == 6 and "inside: cosine with B" in words
    inside = np.zeros(IMAGE[1:], bool)
    inside[:6, :5] = True  # both sides are maps: the region counts pixels of a picture
    means, radius = influence(drawn[:2], drawn[4:], inside)
    assert root["change_by_distance"] == pytest.approx(means, rel=1e-9)
    assert root["radius_10_percent"] == (radius if radius is None else pytest.approx(radius))
    # what the backbone sees in each picture, resized to its input whole
    with np.load(out / "composed.npz") as file:
        mask = file["mask"].astype(float)
    a, b = (m.astype(float) for m in maps_of(sides))
    for item, image in zip(root["items"], drawn):
        small = np.asarray(Image.fromarray(image).resize((4, 4), Image.Resampling.BILINEAR))
        seen = (small / 255 / 0.2).mean() + np.arange(3.0)[:, None, None] + np.zeros((1, 2, 2))
        for key, other, weight in (("inside_a", a, mask), ("inside_b", b, mask),
                                   ("outside_a", a, 1 - mask), ("outside_b", b, 1 - mask)):
            wanted = (cosines(seen, other) * weight).sum() / weight.sum()
            assert item["fidelity"][key] == pytest.approx(wanted, abs=1e-5), key
    for i, name in enumerate(("a", "b", "composite")):
        rows = [r["fidelity"] for r in root["items"] if r["map"] == name]
        for key in rows[0]:
            mean = np.mean([r[key] for r in rows])
            assert root["maps"][name][key] == pytest.approx(mean), (name, key)
    assert root["fidelity_inside"] == root["maps"]["composite"]["inside_b"]
    assert root["fidelity_outside"] == root["maps"]["composite"]["outside_a"]


def test_compose_page_and_outline(featinv, bundle, photos, tmp_path):
    out = tmp_path / "out"
    featinv("compose", photos[0], photos[5], "--region", "3,1,6,4", "-m", bundle, "-o", out, "-q")
    files = pngs(out)
    assert set(files) == {"a.png", "b.png", "composite.png", "composite-outline.png",
                          "a-original.png", "b-original.png"}
    page = (out / "index.html").read_text()
    inlined = {base64.b64decode(b) for b in re.findall(r"data:image/png;base64,([^\"]+)", page)}
    assert inlined == {data for name, data in files.items() if name != "composite.png"}
    assert "http" not in page and "<script" not in page
    plain, outlined = picture(out / "composite.png"), picture(out / "composite-outline.png")
    factor = outlined.shape[0] // plain.shape[0]
    assert outlined.shape == (plain.shape[0] * factor, plain.shape[1] * factor, 3)
    level = plain[0, 0, 0]  # the fake decoder paints one grey: what differs is the line
    line = (outlined != level).any(-1)
    # 9 x 5 pixels become 7 x 4, of which columns 2 to 5 are seen: 18/7 to 54/7 of the image
    ys, xs = np.nonzero(line)
    across = (np.array([3, 6]) - 18 / 7) / (36 / 7)
    assert np.abs(np.array([xs.min(), xs.max()]) / outlined.shape[1] - across).max() < 0.08
    assert np.abs(np.array([ys.min(), ys.max()]) / outlined.shape[0] - [0.2, 0.8]).max() < 0.08


COMPOSE_REFUSED = [
    ("no region", "{a} {b}", 2), ("both", "{a} {b} --region 0,0,4,4 --mask m.png", 2),
    ("one side", "{a} --region 0,0,4,4", 2), ("three numbers", "{a} {b} --region 0,0,4", 2),
    ("five numbers", "{a} {b} --region 0,0,4,4,4", 2), ("a word", "{a} {b} --region 0,0,x,4", 2),
    ("NaN", "{a} {b} --region 0,0,nan,4", 2), ("empty", "{a} {b} --region 3,0,3,4", 2),
    ("turned", "{a} {b} --region 4,0,3,4", 2), ("beyond", "{a} {b} --region 0,0,11,4", 2),
    ("before", "{a} {b} --region -1,0,4,4", 2),
    ("outside the crop", "wide.png {b} --region 0,0,3,12", 2),
    ("mask of another size", "wide.png {b} --mask m.png", 3),
    ("black mask", "{a} {b} --mask black.png", 3), ("missing mask", "{a} {b} --mask none.png", 3),
    ("no mask", "{a} {b} --mask junk.png", 3), ("missing", "{a} none.npy --region 0,0,4,4", 3),
    ("two maps", "{a} two.npy --region 0,0,4,4", 3),
    ("another space", "{a} other.npy --region 0,0,4,4", 3),
    ("NaN in a map", "{a} nan.npy --region 0,0,4,4", 3),
]


@pytest.mark.parametrize("line, code", [c[1:] for c in COMPOSE_REFUSED],
                         ids=[c[0] for c in COMPOSE_REFUSED])
def test_compose_refuses(featinv, bundle, sides, tmp_path, line, code):
    make_bad_files(tmp_path)
    Image.new("RGB", (24, 12)).save(tmp_path / "wide.png")
    Image.new("L", (8, 8), 255).save(tmp_path / "m.png")
    Image.new("L", (8, 8)).save(tmp_path / "black.png")
    words = line.format(a=sides[0], b=sides[1]).split()
    result = featinv("compose", *words, "-m", bundle, "-o", "out", expect=code, cwd=tmp_path)
    assert len(result.err.splitlines()) == 1
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_json_is_the_file(featinv, bundle, sides, tmp_path):
    for verb, more in (("mix", []), ("compose", ["--region", "0,0,5,6"])):
        printed = featinv(verb, *sides, *more, "-m", bundle, "-o", tmp_path / verb, "--json").out
        assert json.loads(printed) == json.loads((tmp_path / verb / f"{verb}.json").read_text())


# ------------------------------------------------------------------ outputs that cannot be written

@pytest.mark.parametrize("verb", ["mix", "compose", "viz", "show"])
@pytest.mark.parametrize("size", [60, 2500])
def test_a_full_disk_is_one_line_and_leaves_no_half_file(featinv, bundle, sides, photos, tmp_path,
                                                         verb, size):
    """Files may not grow beyond size bytes: the first picture fails, or the page does."""
    np.save(tmp_path / "bases.npy", np.eye(3)[:, :1])
    featinv("concepts", "import", "--bases", tmp_path / "bases.npy", "--offsets", "0,1", "-o",
            tmp_path / "c.npz")
    out = tmp_path / "out"
    line = {"mix": ["mix", *sides], "compose": ["compose", *sides, "--region", "0,0,5,6"],
            "viz": ["viz", photos[0], "--concepts", tmp_path / "c.npz", "--pairs", 1],
            "show": ["concepts", "show", photos[0], "--concepts", tmp_path / "c.npz"]}[verb]
    result = featinv(*line, "-m", bundle, "-o", out, "-q", expect=1,
                     preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)))
    assert len(result.err.splitlines()) == 1 and "cannot be written" in result.err
    assert not out.exists() or not [p for p in out.iterdir() if p.name.startswith(".")]
    assert not (out / "index.html").exists()


@pytest.mark.parametrize("verb", ["mix", "compose"])
def test_an_output_folder_that_is_a_file(featinv, bundle, sides, tmp_path, verb):
    (tmp_path / "out").write_text("a file")
    more = ["--region", "0,0,5,6"] if verb == "compose" else []
    result = featinv(verb, *sides, *more, "-m", bundle, "-o", tmp_path / "out", expect=1)
    assert "out" in result.err and (tmp_path / "out").read_text() == "a file"
