"""The concept verbs over the embedded bundle: what needs a real head and statistics."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from PIL import Image

from conftest import BUILD, ROOT

BACKEND = BUILD / "libfeatinv-torch.so"
SCENES = ROOT / "models" / "scenes"
EXAMPLES = sorted((ROOT / "models" / "examples").glob("*.png"))
pytestmark = pytest.mark.skipif(not BACKEND.exists(), reason="built without the libtorch backend")


@pytest.fixture(scope="module")
def run(featinv):
    """The command over libtorch and the embedded bundle."""

    def call(*args, **kwargs):
        return featinv(*args, env={"FEATINV_BACKEND": str(BACKEND), "FEATINV_MODEL": str(SCENES)},
                       **kwargs)

    return call


@pytest.fixture(scope="module")
def found(run, tmp_path_factory):
    """Concepts of the example images, their maps, and what the fit said."""
    folder = tmp_path_factory.mktemp("found")
    root = json.loads(run("concepts", "fit", EXAMPLES[0].parent, "-o", folder / "c.npz", "--count",
                          3, "--json").out)
    run("extract", *EXAMPLES, "-o", folder / "maps.npz", "-q")
    return folder, root


def test_fit_on_images(found):
    folder, root = found
    assert root["count"] == 3 and root["stationarity_residual"] < 1e-9
    assert root["images"] == [str(p) for p in EXAMPLES] and root["rows"] == 64 * len(EXAMPLES)
    with np.load(folder / "c.npz") as file:
        assert file["labels"].shape == (len(EXAMPLES), 8, 8)
        for k in range(3):
            own = file["bases"][:, file["offsets"][k]:file["offsets"][k + 1]]
            assert np.abs(own.T @ own - np.eye(own.shape[1])).max() < 1e-9


def test_a_class_gives_completeness(run, found, tmp_path):
    name = "boat on sand"
    root = json.loads(run("concepts", "fit", *EXAMPLES, "--class", name, "--count", 2, "-o",
                          tmp_path / "c.npz", "--json").out)
    assert [os.path.basename(p) for p in root["images"]] == ["boat-on-sand.png"]
    relevance = [c["relevance"] for c in root["concepts"]]
    assert 0 < root["completeness"] < 1
    # the complement is orthogonal to the span, and the squares of both sum to 1
    assert root["completeness"] ** 2 + relevance[-1] ** 2 == pytest.approx(1, abs=1e-9)
    orthogonal = json.loads(run("concepts", "fit", *EXAMPLES, "--class", name, "--count", 2,
                                "--orthogonalize", "-o", tmp_path / "o.npz", "--json").out)
    assert orthogonal["smallest_angle_degrees"] == pytest.approx(90, abs=1e-5)
    assert orthogonal["completeness"] == pytest.approx(root["completeness"], abs=1e-9)
    squares = sum(c["relevance"] ** 2 for c in orthogonal["concepts"])
    assert squares == pytest.approx(1, abs=1e-9)


def test_relevances_and_the_bias_sum_to_the_logit(run, found, tmp_path):
    folder, _ = found
    run("concepts", "show", "--concepts", folder / "c.npz", *EXAMPLES, "-o", tmp_path / "out", "-q")
    root = json.loads((tmp_path / "out" / "numbers.json").read_text())
    classes = json.loads((SCENES / "classes.json").read_text())
    with np.load(folder / "maps.npz") as file:
        logits = file["logits"]
    by_class = {}
    for item, row in zip(root["items"], logits):
        assert item["class"] == classes[row.argmax()]
        assert item["logit"] == pytest.approx(float(row.max()), abs=1e-4)
        by_class.setdefault(item["class"], []).append(item["logit"] - sum(item["local_relevance"]))
    # what is left is a constant of the class: the same for every image, whatever its parts
    assert max(abs(v) for values in by_class.values() for v in values) < 1
    again = tmp_path / "again.png"
    with Image.open(EXAMPLES[0]) as image:
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(again)
    run("concepts", "show", "--concepts", folder / "c.npz", EXAMPLES[0], again, "-o",
        tmp_path / "two", "-q")
    items = json.loads((tmp_path / "two" / "numbers.json").read_text())["items"]
    rest = [i["logit"] - sum(i["local_relevance"]) for i in items]
    assert items[0]["class"] == items[1]["class"]
    assert items[0]["local_relevance"] != items[1]["local_relevance"]
    assert rest[0] == pytest.approx(rest[1], abs=1e-4)
    with np.load(tmp_path / "two" / "numbers.npz") as file:
        mean = file["local_relevance_map"].mean((2, 3)).T
        assert np.abs(mean - file["local_relevance"]).max() < 1e-5


def test_attenuated_maps_are_compared_with_training_maps(run, found, tmp_path):
    folder, _ = found
    line = ["attenuate", "--features", folder / "maps.npz", "--concepts", folder / "c.npz",
            "--concept", 0, "-m", SCENES, "--json"]
    usual = json.loads(run(*line, "--factor", 1, "-o", tmp_path / "a.npy").out)
    far = json.loads(run(*line, "--factor", 6, "-o", tmp_path / "b.npy").out)
    assert all(0 <= p <= 100 for p in usual["norm_percentile"] + usual["residual_percentile"])
    assert np.median(usual["norm_percentile"]) < 99
    assert np.mean(far["norm_percentile"]) > np.mean(usual["norm_percentile"])
    assert max(far["norm_percentile"]) > 99
    said = run(*line[:-1], "--factor", 6, "-o", tmp_path / "b.npy").out
    assert "out of scope" in said


def test_viz_differs_over_the_picture(run, found, tmp_path):
    folder, _ = found
    out = tmp_path / "out"
    run("viz", EXAMPLES[0], "--concepts", folder / "c.npz", "--concept", 0, "--pairs", 3, "--steps",
        4, "-o", out, "-q")
    item = json.loads((out / "viz.json").read_text())["items"][0]
    with np.load(out / "viz.npz") as file:
        heat, mask = file["maps"][0, 0], file["masks"][0, 0]

    def pictures(prefix):
        return np.stack([np.asarray(Image.open(out / f"{prefix}-{k}.png")) for k in range(3)]) / 255

    name = EXAMPLES[0].stem
    median = np.median(np.sqrt(((pictures(f"{name}-pair") - pictures(f"{name}-concept-0-pair"))
                                ** 2).sum(-1)), axis=0)
    assert np.abs(heat - median / median.max()).max() < 1e-6
    assert heat.max() == 1 and heat.std() > 0.02 and 0 < mask.mean() < 1
    for row in (item, *item["concepts"]):
        assert 0 <= row["residual_percentile"] <= 100
        assert all(0 < p["cosine_median"] <= 1 for p in row["pictures"])


def test_a_pasted_region_follows_b_and_leaves_the_rest_to_a(run, tmp_path):
    out = tmp_path / "out"
    run("compose", EXAMPLES[7], EXAMPLES[4], "--region", "0,0,32,64", "--steps", 8, "-o", out, "-q")
    root = json.loads((out / "compose.json").read_text())
    with np.load(out / "composed.npz") as file:
        assert file["mask"].tolist() == [[1] * 4 + [0] * 4] * 8
    composite, alone = root["maps"]["composite"], root["maps"]["a"]
    assert composite["inside_b"] > alone["inside_b"] + 0.05
    assert composite["inside_b"] > composite["inside_a"]
    assert composite["outside_a"] > composite["outside_b"]
    change = root["change_by_distance"]
    assert len(change) == 33 and change[0] > 3 * np.mean(change[20:])


def test_a_map_between_is_drawn_less_well(run, tmp_path):
    out = tmp_path / "out"
    run("mix", EXAMPLES[2], EXAMPLES[7], "--weights", "0,0.5,1", "--steps", 8, "-o", out, "-q")
    root = json.loads((out / "mix.json").read_text())
    first, middle, last = (w["cosine_median"] for w in root["weights"])
    assert middle < min(first, last)
    assert all(0 <= w["norm_percentile"] <= 100 for w in root["weights"])
