"""`featinv evaluate`: the figures of the shipped bundle, on the real backend, against NumPy."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import COMMAND, ROOT
from evaluations import row_of, value

sys.path.insert(0, str(ROOT / "models" / "recipe"))
import scenes  # noqa: E402

SCENES, JUDGE = ROOT / "models" / "scenes", ROOT / "models" / "judge"
CLASSES = ["ball on water", "boat on sand", "tree on grass"]
PER_CLASS, SCALES, WEIGHTS = 3, [3.0], [0.0, 0.5]
IMAGES = len(CLASSES) * PER_CLASS
DRAWN = ["controlnet", "class_prompt", "autoencoder"]
KINDS = ["controlnet", "class_prompt", "shuffled", "same_class", "autoencoder"]
FIGURES = ["cosine_median", "cosine_median_all", "cosine_centred", "cosine_pooled", "match_top1",
           "match_top5", "frechet", "reference_cosine", "reference_centred", "reference_top1",
           "gradient", "share"]
REAL = {k: v for k, v in os.environ.items() if k != "FEATINV_BACKEND"} | {
    "OMP_WAIT_POLICY": "passive"}


def command(*args, expect=0, env=None) -> str:
    """Runs the command on the real backend; its output."""
    result = subprocess.run([str(COMMAND), *map(str, args)], capture_output=True, text=True,
                            env=REAL | (env or {}), timeout=300)
    assert result.returncode == expect, (args, result.returncode, result.stdout, result.stderr)
    return result.stdout


# ------------------------------------------------------------------ the shipped bundle

@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Class folders of three scenes each, and two scenes of other classes as another kind."""
    folder = tmp_path_factory.mktemp("evaluate")
    wanted, others, seed = {name: PER_CLASS for name in CLASSES}, 2, 1_700_000
    while any(wanted.values()):
        scene = scenes.draw_scene(seed)
        seed += 1
        if wanted.get(scene.name, 0):
            wanted[scene.name] -= 1
            place = folder / "data" / scene.name
        elif others and scene.name not in wanted:
            others -= 1
            place = folder / "ood"
        else:
            continue
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(scene.pixels).save(place / f"{seed}.png")
    return folder


@pytest.fixture(scope="module")
def pooled(data) -> Path:
    """The shipped bundle as one that reads the mean of the map."""
    folder = data / "pooled"
    shutil.copytree(SCENES, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["features"]["pooled"] = True
    manifest["name"] = "scenes-pooled"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def arguments(data: Path, pooled: Path) -> list:
    return ["evaluate", "--data", data / "data", "-m", SCENES, "-m", pooled, "--fid-features",
            JUDGE, "--ceiling", "--ood", data / "ood", "--per-class", PER_CLASS, "--steps", 3,
            "--scales", "3", "--weights", "0,0.5", "--pictures", 100, "--bootstrap", 40,
            "--batch", 4, "--threads", 1]


@pytest.fixture(scope="module")
def whole(data, pooled) -> Path:
    """One run of everything."""
    text = command(*arguments(data, pooled), "-o", data / "whole", "--json")
    summary = json.loads(text)
    assert summary["complete"] and summary["images"] == 9 and summary["seconds"] > 0
    assert summary["parts"] == summary["parts_there"] == len(list((data / "whole/parts").iterdir()))
    assert [r["kind"] for r in summary["rows"]] == 2 * KINDS
    return data / "whole"


@pytest.fixture(scope="module")
def tables(whole) -> dict:
    return json.loads((whole / "tables.json").read_text())


def test_every_table_is_there(tables):
    assert tables["format"] == "featinv-evaluation" and tables["version"] == 1
    s = tables["settings"]
    assert (s["images"], s["classes"], s["per_class"], s["bootstrap"]) == (9, 3, 3, 40)
    assert s["tables"] == ["1", "2", "3", "sweep", "mix", "ood"] and "seconds" not in s
    assert [m["name"] for m in tables["models"]] == ["scenes", "scenes-pooled"]
    assert [m["pooled"] for m in tables["models"]] == [False, True]
    assert all(m["steps"] == 3 and m["reads_classes"] for m in tables["models"])
    assert tables["frechet"] == {"features": "convnext", "dimension": 96}
    assert [(r["table"], r["model"], r["kind"]) for r in tables["rows"]] == [
        (1, 0, k) for k in KINDS] + [(3, 1, k) for k in KINDS]
    assert [(c["condition"], c["evaluate"]) for c in tables["cross"]] == [
        (0, 0), (0, 1), (1, 0), (1, 1)]
    assert [(r["model"], r["scale"], r["hint_scale"]) for r in tables["sweep"]] == [
        (m, s, 1.0) for m in (0, 1) for s in SCALES]
    assert [(r["model"], r["weight"], r["mode"]) for r in tables["mix"]] == [
        (m, w, "lerp") for m in (0, 1) for w in WEIGHTS]
    assert [r["model"] for r in tables["ood"]["rows"]] == [0, 1] and tables["ood"]["images"] == 2
    assert tables["pooled_pairs"] == [{"spatial": 0, "pooled": 1}]
    assert tables["problems"] == [] and len(tables["pictures"]) == 9


def test_every_figure_has_its_interval(tables):
    nothing = {"shuffled": {"frechet", "gradient", "share"},
               "same_class": {"frechet", "gradient", "share"},
               "class_prompt": {"share"}, "autoencoder": {"share"}, "controlnet": set()}
    for row in tables["rows"]:
        for key in FIGURES:
            figure, where = row[key], (row["model"], row["kind"], key)
            assert (figure is None) == (key in nothing[row["kind"]]), where
            if figure is None:
                continue
            assert figure["low"] <= figure["high"], where
            slack = 1e-12 if key != "frechet" else 10  # of 9 images with 96 features each
            assert figure["low"] - slack <= figure["value"] <= figure["high"] + slack, where
    wide = row_of(tables, "shuffled")["cosine_median"]
    assert wide["high"] - wide["low"] > 0.005, "all resamples are alike"


def test_floors_lie_below_the_ceiling(tables):
    order = [value(row_of(tables, k), "cosine_centred")
             for k in ("shuffled", "same_class", "controlnet", "autoencoder")]
    assert order == sorted(order) and order[0] < 0.5 < order[2], order
    reference = [value(row_of(tables, k), "reference_centred")
                 for k in ("shuffled", "same_class", "autoencoder")]
    assert reference == sorted(reference)
    assert value(row_of(tables, "class_prompt"), "cosine_centred") < order[2]
    spatial, pooled = row_of(tables, "controlnet"), row_of(tables, "controlnet", 1)
    assert value(spatial, "cosine_centred") > value(pooled, "cosine_centred") + 0.1
    share = (order[2] - order[1]) / (order[3] - order[1])
    assert value(spatial, "share") == pytest.approx(share, abs=1e-12)
    # the same base draws the same pictures from a prompt, and is drawn from but once
    assert row_of(tables, "class_prompt") == row_of(tables, "class_prompt", 1) | {
        "table": 1, "model": 0}


def test_mixing_begins_at_the_first_image(tables):
    for row in tables["mix"]:
        assert row["pairs"] == IMAGES // 2
        if row["weight"] == 0.0:
            assert row["cosine_mixed"] == row["cosine_a"]
    first, half = tables["mix"][:2]  # of the spatial model
    assert value(first, "cosine_b") < value(half, "cosine_b") < value(half, "cosine_mixed")
    assert value(half, "cosine_a") < value(first, "cosine_a")


# ------------------------------------------------------------------ against NumPy

def extracted(bundle: Path, paths: list[Path], folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Maps (N, C, H, W) and logits (N, classes) of files, by `featinv extract`."""
    out = folder / "maps.npz"
    command("extract", *paths, "-m", bundle, "-o", out, "--threads", 1)
    with np.load(out) as arrays:
        return arrays["features"].astype(np.float64), arrays["logits"]


@pytest.fixture(scope="module")
def seen(data, whole, tables) -> dict:
    """(bundle, kind) → maps and logits of the pictures, in their order; kind "input" too."""
    files = {"input": [data / "data" / p["id"] for p in tables["pictures"]]}
    for kind in DRAWN:
        files[kind] = drawn_files(tables, whole, kind)
        assert len(files[kind]) == len(files["input"]) == IMAGES
    out = {}
    for bundle in (SCENES, JUDGE):
        maps, logits = extracted(bundle, sum(files.values(), []), data)
        for i, kind in enumerate(files):
            part = slice(i * IMAGES, (i + 1) * IMAGES)
            out[bundle, kind] = maps[part], logits[part]
    return out


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(N, positions)"""
    dot = (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    return dot.reshape(len(a), -1)


def luminance_gradient(path: Path) -> float:
    grey = np.asarray(Image.open(path).convert("RGB"), np.float64) @ [0.299, 0.587, 0.114]
    dx, dy = grey[:-1, 1:] - grey[:-1, :-1], grey[1:, :-1] - grey[:-1, :-1]
    return np.hypot(dx, dy).mean()


def drawn_files(tables: dict, whole: Path, what: str) -> list[Path]:
    return [whole / item["image"] for p in tables["pictures"] for item in p["items"]
            if item["model"] == 0 and item["what"] == what]


@pytest.mark.parametrize("kind", DRAWN)
def test_figures_are_those_of_the_files(data, whole, tables, seen, tmp_path, kind):
    inputs = [data / "data" / p["id"] for p in tables["pictures"]]
    drawn, row = drawn_files(tables, whole, kind), row_of(tables, kind)
    (a, logits_a), (b, logits_b) = seen[SCENES, "input"], seen[SCENES, kind]
    mean = np.load(SCENES / "features.npz")["mean"].astype(np.float64)[None, :, None, None]
    plain, centred = cosines(a, b), cosines(a - mean, b - mean)
    top = np.argsort(-logits_b, 1, kind="stable")
    best = logits_a.argmax(1)
    expected = {"cosine_median": np.median(plain, 1).mean(),
                "cosine_median_all": np.median(plain),
                "cosine_centred": np.median(centred, 1).mean(),
                "cosine_pooled": cosines(a.mean((2, 3)), b.mean((2, 3))).mean(),
                "match_top1": (top[:, 0] == best).mean(),
                "match_top5": (top[:, :5] == best[:, None]).any(1).mean()}
    (judge_a, judge_logits), (judge_b, judge_seen) = seen[JUDGE, "input"], seen[JUDGE, kind]
    expected["reference_cosine"] = np.median(cosines(judge_a, judge_b), 1).mean()
    expected["reference_top1"] = (judge_logits.argmax(1) == judge_seen.argmax(1)).mean()
    expected["gradient"] = (sum(map(luminance_gradient, drawn))
                            / sum(map(luminance_gradient, inputs)))
    for key, wanted in expected.items():
        assert value(row, key) == pytest.approx(wanted, abs=2e-5), key
    for i, maps in enumerate((judge_a, judge_b)):
        np.save(tmp_path / f"{i}.npy", maps.astype(np.float32))
    distance = json.loads(command("metrics", "fid", tmp_path / "0.npy", tmp_path / "1.npy",
                                  "--json"))["value"]
    assert value(row, "frechet") == pytest.approx(distance, rel=1e-4)
    shown = [item["cosine"] for p in tables["pictures"] for item in p["items"]
             if item["model"] == 0 and item["what"] == kind]
    assert shown == pytest.approx(np.median(plain, 1), abs=2e-5)


def test_floors_are_pairs_of_the_images(tables, seen):
    """Shuffled: each with the next one of the list. Same class: one of the same class."""
    maps, _ = seen[SCENES, "input"]
    shuffled = np.median(cosines(maps, np.roll(maps, -1, 0)), 1).mean()
    assert value(row_of(tables, "shuffled"), "cosine_median") == pytest.approx(shuffled, abs=2e-5)
    classes = [p["class"] for p in tables["pictures"]]
    assert classes == [Path(p["id"]).parent.name for p in tables["pictures"]]
    low = high = 0.0
    for i in range(IMAGES):  # all images of a class are among them here
        others = [j for j in range(IMAGES) if j != i and classes[j] == classes[i]]
        each = np.median(cosines(np.repeat(maps[i:i + 1], len(others), 0), maps[others]), 1)
        low, high = low + each.min() / IMAGES, high + each.max() / IMAGES
    assert low - 1e-5 <= value(row_of(tables, "same_class"), "cosine_median") <= high + 1e-5


def noise_seed(name: str, seed: int) -> int:
    """FNV-1a of the relative path through SplitMix64's finaliser, added to the seed."""
    mask = 2**64 - 1
    h = 0xcbf29ce484222325
    for byte in name.encode():
        h = (h ^ byte) * 0x100000001b3 & mask
    h = (h ^ h >> 30) * 0xbf58476d1ce4e5b9 & mask
    h = (h ^ h >> 27) * 0x94d049bb133111eb & mask
    return (seed + (h ^ h >> 31)) & mask


def test_pictures_are_what_reconstruct_draws(tmp_path):
    """Of a photo that is no square: the same pictures and the same original, bit for bit."""
    photo = tmp_path / "data" / "boat on sand" / "photo.png"
    photo.parent.mkdir(parents=True)
    rng = np.random.default_rng(5)
    pixels = Image.fromarray(rng.integers(0, 256, (5, 8, 3), np.uint8)).resize((173, 91))
    pixels.save(photo)
    shared = ["-m", SCENES, "--steps", 3, "--threads", 1, "--batch", 1]
    command("evaluate", "--data", tmp_path / "data", *shared, "--tables", "1,sweep", "--scales", 3,
            "--seed", 7, "-o", tmp_path / "evaluation")
    made = tmp_path / "evaluation" / "pictures"
    seed = ["--seed", noise_seed("boat on sand/photo.png", 7)]
    prompt = ["--scale", 3, "--hint-scale", 1]
    for name, options in (("drawn", []), ("scale3", prompt), ("class", [
            *prompt, "--strength", 0, "--context", "class:boat on sand"])):
        out = tmp_path / name
        command("reconstruct", photo, *shared, *seed, *options, "-o", out)
        for mine, theirs in ((f"0000-{name}-m0", "photo-0"), ("0000-original", "photo-original")):
            assert np.array_equal(Image.open(made / f"{mine}.png"),
                                  Image.open(out / f"{theirs}.png")), (name, mine)
    tables = json.loads((tmp_path / "evaluation" / "tables.json").read_text())
    assert row_of(tables, "controlnet")["frechet"] is None, "one image has no covariance"
    assert row_of(tables, "shuffled")["cosine_median"] is None
    assert row_of(tables, "same_class")["cosine_median"] is None
    assert tables["cross"] == [] and tables["settings"]["tables"] == ["1", "sweep"]


def test_the_ceiling_is_a_round_trip(data, whole, tables):
    """The autoencoder's pictures are the originals within a few levels, but not the same."""
    for p, drawn in zip(tables["pictures"], drawn_files(tables, whole, "autoencoder")):
        a = np.asarray(Image.open(data / "data" / p["id"]), np.float64)
        difference = np.abs(a - np.asarray(Image.open(drawn))).mean()
        assert 0.1 < difference < 10, (p["id"], difference)


def test_shards_make_the_same_tables(data, tmp_path):
    """On the real backend: three shards into one folder, the last one first."""
    shared = ["evaluate", "--data", data / "data", "-m", SCENES, "--fid-features", JUDGE,
              "--ceiling", "--per-class", 2, "--steps", 2, "--batch", 2, "--threads", 1,
              "--tables", 1]
    command(*shared, "-o", tmp_path / "whole")
    for i in (2, 0, 1):
        text = command(*shared, "-o", tmp_path / "shards", "--shard", f"{i}/3")
        assert ("of 3:" in text) == (i != 1), text
    for name in ("tables.json", "tables.md", "index.html"):
        assert ((tmp_path / "shards" / name).read_bytes()
                == (tmp_path / "whole" / name).read_bytes()), name
