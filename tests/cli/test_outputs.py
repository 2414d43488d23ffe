"""What reconstruct, sample, extract and metrics write."""

import base64
import json
import os
import re

import numpy as np
import pytest
from PIL import Image

from conftest import BUILD, IMAGE, LATENT, MAP, REFERENCE, make_bundle, pictures, results, timeless


# ------------------------------------------------------------------ reconstruct

def test_reconstruct_writes_pictures_results_and_page(featinv, bundle, photos, tmp_path):
    out = tmp_path / "a" / "b"  # made with its parents
    words = featinv("reconstruct", photos[0].parent, "-m", bundle, "-o", out).out
    names = [p.stem for p in photos]
    assert sorted(os.listdir(out)) == sorted(
        [f"{n}-{k}.png" for n in names for k in ("0", "original")]
        + ["results.json", "report.html"])
    root = results(out)
    assert list(root) == ["items", "summary"]
    assert [i["input"] for i in root["items"]] == [str(p) for p in photos]
    for item, name in zip(root["items"], names):
        assert list(item)[:12] == [
            "input", "sample", "seed", "image", "cosine_median", "cosine_mean", "cosine_centred",
            "top1_original", "top1_sample", "match_top1", "match_top5", "seconds"]
        assert item["image"] == f"{name}-0.png" and "error" not in item
        assert isinstance(item["match_top1"], bool) and item["seconds"] > 0
        with Image.open(out / item["image"]) as picture:
            assert picture.size == (IMAGE[2], IMAGE[1]) and picture.mode == "RGB"
    summary = root["summary"]
    for key in ("cosine_median", "cosine_centred", "match_top1", "match_top5"):
        mean = np.mean([i[key] for i in root["items"]])
        assert summary[key] == pytest.approx(mean, rel=1e-12), key
    assert summary["images"] == 7 and summary["errors"] == 0 and summary["device"] == "cpu"
    assert len(summary["bundle_sha256"]) == 64 and summary["version"] == "0.1.0"
    assert f"cosine {summary['cosine_median']:.3f}" in words and "7 images in" in words
    check_page((out / "report.html").read_text(), root, out)


def check_page(page, root, out):
    inlined = [base64.b64decode(b) for b in re.findall(r"data:image/png;base64,([^\"]+)", page)]
    assert set(inlined) == set(pictures(out).values())
    for item in root["items"]:
        assert f"<b>cosine {item['cosine_median']:.3f}</b>" in page
    assert "http" not in page and "<script" not in page


def test_samples_get_a_spread_picture(featinv, bundle, photos, tmp_path):
    featinv("reconstruct", photos[0], "-m", bundle, "-o", tmp_path / "out", "--samples", 3,
            "--images-out", tmp_path / "i.npy")
    samples = np.load(tmp_path / "i.npy").astype(float)
    spread = np.sqrt(samples.var(0).mean(-1))
    assert spread.max() > 0
    with Image.open(tmp_path / "out" / "p0-spread.png") as picture:
        levels = np.asarray(picture)
    assert np.abs(levels[..., 0] - np.clip(spread * 255 / 64, 0, 255)).max() <= 0.51
    assert (levels[..., 0] == levels[..., 2]).all()
    assert {i["spread"] for i in results(tmp_path / "out")["items"]} == {"p0-spread.png"}


def test_the_same_command_twice_gives_the_same_files(featinv, bundle, photos, tmp_path):
    for name in "ab":
        featinv("reconstruct", *photos, "-m", bundle, "-o", tmp_path / name, "--samples", 2)
    assert pictures(tmp_path / "a") == pictures(tmp_path / "b")
    assert timeless(tmp_path / "a") == timeless(tmp_path / "b")


def test_json_is_the_results_file(featinv, bundle, photos, tmp_path):
    printed = featinv("reconstruct", photos[0], "-m", bundle, "-o", tmp_path / "out", "--json").out
    assert json.loads(printed) == results(tmp_path / "out")
    assert not featinv("reconstruct", photos[0], "-m", bundle, "-o", tmp_path / "q", "-q").out


def test_inputs_of_one_name_do_not_overwrite_each_other(featinv, bundle, tmp_path):
    inputs = []
    for folder, name in [("a", "x.png"), ("b", "x.png"), ("b", "x.jpg"), ("c", "x-2.png"),
                         ("c", "x")]:
        (tmp_path / folder).mkdir(exist_ok=True)
        path = tmp_path / folder / name
        level = 40 * len(inputs)
        Image.new("RGB", (5, 5), (level,) * 3).save(path, "JPEG" if name == "x.jpg" else "PNG")
        inputs.append(path)
    featinv("reconstruct", *inputs, inputs[0], "-m", bundle, "-o", tmp_path / "out")
    items = results(tmp_path / "out")["items"]
    assert [i["input"] for i in items] == [str(p) for p in [*inputs, inputs[0]]]
    assert len({i["image"] for i in items}) == len({i["reference"] for i in items}) == 6
    for item, level in zip(items, [0, 40, 80, 120, 160, 0]):
        with Image.open(tmp_path / "out" / item["reference"]) as picture:
            assert np.asarray(picture).mean() == pytest.approx(level, abs=1)


def test_a_folder_stands_for_its_own_images(featinv, bundle, tmp_path):
    folder = tmp_path / "photos"
    (folder / "deeper").mkdir(parents=True)
    picture = Image.new("RGB", (5, 5))
    for name in ("b.png", "B.PNG", "a.JPEG", "~.jpg", "deeper/x.png", ".hidden.png"):
        picture.save(folder / name, "JPEG" if "j" in name.lower() else "PNG")
    picture.save(folder / "no-suffix", "PNG")
    (folder / "notes.txt").write_text("not an image")
    os.mkfifo(folder / "pipe.png")
    featinv("reconstruct", folder, "-m", bundle, "-o", tmp_path / "out")
    inputs = [os.path.basename(i["input"]) for i in results(tmp_path / "out")["items"]]
    assert inputs == ["B.PNG", "a.JPEG", "b.png", "no-suffix", "~.jpg"]  # by bytes


def test_bad_inputs_are_reported_and_the_rest_is_done(featinv, bundle, photos, tmp_path):
    (tmp_path / "empty").mkdir()
    photos[1].write_bytes(photos[1].read_bytes()[:40])
    photos[4].write_bytes(b"")
    inputs = [tmp_path / "gone.png", *photos, tmp_path / "empty"]
    result = featinv("reconstruct", *inputs, "-m", bundle, "-o", tmp_path / "out", "--batch", 3,
                     "--latents-out", tmp_path / "z.npy", "--images-out", tmp_path / "i.npy",
                     expect=3)
    bad = [0, 2, 5, 8]
    lines = result.err.splitlines()
    assert [line.split(": ")[1] for line in lines] == [str(inputs[i]) for i in bad]
    root = results(tmp_path / "out")
    assert [i["input"] for i in root["items"]] == [str(p) for p in inputs]
    assert [k for k, i in enumerate(root["items"]) if "error" in i] == bad
    for k in bad:
        assert root["items"][k]["image"] is None and root["items"][k]["cosine_median"] is None
        assert root["items"][k]["error"] in lines[bad.index(k)]
    assert root["summary"]["images"] == 5 and root["summary"]["errors"] == 4
    page = (tmp_path / "out" / "report.html").read_text()
    assert all(str(inputs[k]) in page for k in bad)
    latents, images = np.load(tmp_path / "z.npy"), np.load(tmp_path / "i.npy")
    assert [k for k in range(9) if np.isnan(latents[k]).all()] == bad
    assert [k for k in range(9) if not images[k].any()] == bad
    assert not np.isnan(np.delete(latents, bad, 0)).any()

    # the good ones are what they are alone, whatever their neighbours
    featinv("reconstruct", photos[2], "-m", bundle, "-o", tmp_path / "alone")
    assert (tmp_path / "alone/p2-0.png").read_bytes() == (tmp_path / "out/p2-0.png").read_bytes()


def test_a_bad_only_input_leaves_nothing(featinv, bundle, photos, tmp_path):
    photos[0].write_bytes(b"GIF89a")
    (tmp_path / "empty").mkdir()
    for path in (photos[0], tmp_path / "gone.png", tmp_path / "empty"):
        featinv("reconstruct", path, "-m", bundle, "-o", tmp_path / "out", expect=3)
        featinv("extract", path, "-m", bundle, "-o", tmp_path / "m.npz", expect=3)
        assert not (tmp_path / "out").exists() and not (tmp_path / "m.npz").exists()


def test_images_above_the_limit_are_refused(featinv, bundle, photos, tmp_path):
    args = ["reconstruct", photos[0], "-m", bundle, "-o", tmp_path / "out", "--max-pixels"]
    featinv(*args, 44, expect=3)  # 9 x 5
    featinv(*args, 45)


def test_an_image_of_extreme_aspect_works(featinv, photos, tmp_path):
    """A pixel wide and 400,000 long: only the window that the crop keeps is resized."""
    bundle = make_bundle(tmp_path / "bundle")
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["backbone"]["input"].update(height=288, width=288)
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    Image.new("RGB", (1, 400_000)).save(tmp_path / "photos" / "p1.png")
    featinv("reconstruct", *photos, "-m", bundle, "-o", tmp_path / "out")
    items = results(tmp_path / "out")["items"]
    assert len(items) == 7 and not any("error" in i for i in items)


# ------------------------------------------------------------------ sample

def test_sample_numbers_its_maps(featinv, bundle, maps, tmp_path):
    featinv("sample", "--features", maps, "-m", bundle, "-o", tmp_path / "out")
    items = results(tmp_path / "out")["items"]
    assert [i["input"] for i in items] == [f"{maps}[{k}]" for k in range(3)]
    assert [i["image"] for i in items] == [f"maps-{k}-0.png" for k in range(3)]
    assert all(0 < i["cosine_median"] < 1 for i in items if i["cosine_median"] > 0)
    np.save(maps, np.load(maps)[:1])
    featinv("sample", "--features", maps, "-m", bundle, "-o", tmp_path / "one")
    assert [i["input"] for i in results(tmp_path / "one")["items"]] == [str(maps)]
    assert (tmp_path / "one" / "maps-0.png").exists()


@pytest.mark.parametrize("change", [
    lambda a: a.astype("<f8"), lambda a: a.astype(">f4"), lambda a: np.asfortranarray(a)])
def test_sample_takes_every_layout(featinv, bundle, maps, tmp_path, change):
    featinv("sample", "--features", maps, "-m", bundle, "-o", tmp_path / "a")
    np.save(maps, change(np.load(maps)))
    featinv("sample", "--features", maps, "-m", bundle, "-o", tmp_path / "b")
    assert pictures(tmp_path / "a") == pictures(tmp_path / "b")


def test_sample_uses_the_logits_of_the_file(featinv, bundle, maps, tmp_path):
    logits = np.eye(7, dtype=np.float32)[[6, 0, 3]]
    np.savez_compressed(tmp_path / "m.npz", features=np.load(maps), logits=logits)
    featinv("sample", "--features", tmp_path / "m.npz", "-m", bundle, "-o", tmp_path / "out")
    items = results(tmp_path / "out")["items"]
    assert [i["top1_original"] for i in items] == [6, 0, 3]
    assert [i["class_original"] for i in items] == ["g", "a", "d"]


def test_given_noise_traces_and_outputs(featinv, bundle, maps, tmp_path):
    """The fake sampler steps by x += (mean(map) - x) / 8 + noise / 100."""
    rng = np.random.default_rng(1)
    noise = rng.normal(size=(6, *LATENT)).astype(np.float32)
    steps = rng.normal(size=(4, 6, *LATENT)).astype(np.float32)
    np.save(tmp_path / "n.npy", noise)
    np.save(tmp_path / "s.npy", steps)
    shared = ["sample", "--features", maps, "-m", bundle, "--samples", 2, "--steps", 4,
              "--eta", 1, "--noise", tmp_path / "n.npy", "--step-noise", tmp_path / "s.npy"]
    x, xs = noise.astype(np.float64), []
    means = np.repeat(np.load(maps).mean((1, 2, 3)), 2)[:, None, None, None]
    for z in steps:
        x = x + 0.125 * (means - x) + 0.01 * z
        xs.append(x)
    for batch in (1, 2, 3, 8):  # gathered by batches of one, two, all maps
        out = tmp_path / f"out{batch}"
        featinv(*shared, "-o", out, "--batch", batch, "--latents-out", tmp_path / "z.npy",
                "--images-out", tmp_path / "i.npy", "--trace", tmp_path / "t.npz")
        assert np.abs(np.load(tmp_path / "z.npy") - x).max() < 1e-5
        with np.load(tmp_path / "t.npz") as trace:
            assert np.abs(trace["x"] - np.stack(xs)).max() < 1e-5
            assert np.abs(trace["x0"] - means).max() < 1e-6 and trace["x0"].shape == steps.shape
        images = np.load(tmp_path / "i.npy")
        assert images.shape == (6, IMAGE[1], IMAGE[2], 3) and images.dtype == np.uint8
        for n in range(3):
            for k in range(2):
                with Image.open(out / f"maps-{n}-{k}.png") as picture:
                    assert (np.asarray(picture) == images[2 * n + k]).all()


def test_one_row_of_noise_is_shared(featinv, bundle, maps, tmp_path):
    noise = np.random.default_rng(2).normal(size=(1, *LATENT)).astype(np.float32)
    np.save(tmp_path / "one.npy", noise)
    np.save(tmp_path / "all.npy", np.repeat(noise, 6, 0))
    for name in ("one", "all"):
        featinv("sample", "--features", maps, "-m", bundle, "--samples", 2, "-o", tmp_path / name,
                "--noise", tmp_path / f"{name}.npy", "--latents-out", tmp_path / f"z-{name}.npy")
    assert (np.load(tmp_path / "z-one.npy") == np.load(tmp_path / "z-all.npy")).all()


def test_latents_in_are_decoded_and_scored(featinv, bundle, maps, tmp_path):
    shared = ["sample", "-m", bundle, "--samples", 2]
    featinv(*shared, "--features", maps, "-o", tmp_path / "a", "--latents-out",
            tmp_path / "z.npy", "--images-out", tmp_path / "a.npy")
    for name, features in (("b", ["--features", maps]), ("c", [])):
        featinv(*shared, *features, "--latents-in", tmp_path / "z.npy", "-o", tmp_path / name,
                "--images-out", tmp_path / f"{name}.npy")
    first, again, bare = (np.load(tmp_path / f"{n}.npy") for n in "abc")
    assert (again == bare).all() and again.shape == first.shape
    scored, unscored = results(tmp_path / "b"), results(tmp_path / "c")
    assert len(scored["items"]) == len(unscored["items"]) == 6
    assert scored["items"][0]["cosine_median"] is not None
    assert unscored["items"][0]["cosine_median"] is None
    assert scored["summary"]["steps"] is None and scored["summary"]["scale"] is None


def test_latents_of_another_grid_are_decoded(featinv, bundle, tmp_path):
    np.save(tmp_path / "z.npy", np.zeros((2, 4, 3, 10), np.float32))
    featinv("sample", "-m", bundle, "--latents-in", tmp_path / "z.npy", "-o", tmp_path / "out")
    with Image.open(tmp_path / "out" / "z-1-0.png") as picture:
        assert picture.size == (20, 6)


# ------------------------------------------------------------------ extract

def test_extract_writes_maps_and_logits(featinv, bundle, photos, tmp_path):
    """The fake map's channel c is the normalised image's mean + c."""
    path = tmp_path / "m.npz"
    featinv("extract", photos[0].parent, "-m", bundle, "-o", path, "--batch", 2)
    with np.load(path) as data:
        maps, logits = data["features"], data["logits"]
    assert maps.shape == (7, *MAP) and maps.dtype == np.float32 and logits.shape == (7, 7)
    levels = (20 + 30 * np.arange(7)) / 255 / 0.2
    expected = levels[:, None] + np.arange(3)
    assert np.abs(maps - expected[..., None, None]).max() < 0.02  # one is a JPEG
    assert np.abs(logits + np.abs(np.arange(7) - levels[:, None])).max() < 0.02
    featinv("extract", photos[0].parent, "-m", bundle, "-o", tmp_path / "m.npy")
    assert (np.load(tmp_path / "m.npy") == maps).all()


def test_extract_says_which_row_is_whose(featinv, bundle, photos, tmp_path):
    photos[3].write_bytes(b"")
    result = featinv("extract", *photos, "-m", bundle, "-o", tmp_path / "m.npz", "--json",
                     "--batch", 2, expect=3)
    root = json.loads(result.out)
    assert root["shape"] == [6, *MAP]
    assert [i["row"] for i in root["items"]] == [0, 1, 2, None, 3, 4, 5]
    assert root["items"][3]["error"] in result.err
    featinv("extract", *photos[4:], "-m", bundle, "-o", tmp_path / "rest.npz")
    assert (np.load(tmp_path / "m.npz")["features"][3:]
            == np.load(tmp_path / "rest.npz")["features"]).all()


def test_extract_shards_are_whole_batches(featinv, bundle, photos, tmp_path):
    featinv("extract", *photos, "-m", bundle, "-o", tmp_path / "all.npy")
    whole = np.load(tmp_path / "all.npy")
    for i, rows in enumerate([[0, 1, 4, 5], [2, 3, 6]]):
        featinv("extract", *photos, "-m", bundle, "-o", tmp_path / "part.npy", "--batch", 2,
                "--shard", f"{i}/2")
        assert (np.load(tmp_path / "part.npy") == whole[rows]).all()


# ------------------------------------------------------------------ metrics

def recorded():
    with np.load(REFERENCE / "mcd" / "fid.npz") as data:
        return {key: data[key] for key in data.files}


def test_metrics_cosine_equals_the_recorded_values(featinv, tmp_path):
    golden = recorded()
    for side in "AB":
        np.save(tmp_path / f"{side}.npy", golden[f"cos_{side}"])
    args = ["metrics", "cosine", tmp_path / "A.npy", tmp_path / "B.npy"]
    value = json.loads(featinv(*args, "--json").out)
    assert value["value"] == pytest.approx(golden["cos_median_then_mean"], abs=1e-14)
    assert value["median_all"] == pytest.approx(golden["cos_global_median"], abs=1e-14)
    assert value["per_image"] == pytest.approx(golden["cos_per_image_median"], abs=1e-14)
    centre = golden["cos_centre"]
    a, b = (golden[f"cos_{s}"].astype(float) - centre[:, None, None] for s in "AB")
    cosine = (a * b).sum(1) / np.sqrt((a * a).sum(1) * (b * b).sum(1))
    centred = np.median(cosine.reshape(7, -1), axis=1)
    assert value["per_image_centred"] == pytest.approx(centred, abs=1e-13)
    assert value["centred"] == pytest.approx(centred.mean(), abs=1e-13)
    np.savez(tmp_path / "f.npz", mean=np.zeros(24, np.float32), other=np.zeros(2))
    zero = json.loads(featinv(*args, "--json", "--centre", tmp_path / "f.npz").out)
    assert zero["centred"] == value["value"]
    np.save(tmp_path / "c.npy", np.zeros(23, np.float32))
    featinv(*args, "--centre", tmp_path / "c.npy", expect=3)
    assert f"{value['value']:.6f}" in featinv(*args).out


@pytest.mark.parametrize("name, tolerance", [("full0", 2e-12), ("full1", 2e-12),
                                             ("rankdef", 1e-12)])
def test_metrics_fid_equals_the_recorded_values(featinv, tmp_path, name, tolerance):
    """Over libtorch's linear algebra; rows, and the same rows as maps."""
    golden = recorded()
    for side in "AB":
        rows = golden[f"{name}_{side}"]
        np.save(tmp_path / f"{side}.npy", rows)
        np.save(tmp_path / f"{side}-maps.npy", np.tile(rows[..., None, None], (1, 1, 2, 2)))
    real = {"FEATINV_BACKEND": str(BUILD / "libfeatinv-torch.so")}
    for suffix in ("", "-maps"):
        paths = [tmp_path / f"{side}{suffix}.npy" for side in "AB"]
        value = json.loads(featinv("metrics", "fid", *paths, "--json", "--threads", 1,
                                   env=real).out)
        assert value["value"] == pytest.approx(float(golden[f"{name}_fid_factor"]), rel=tolerance)
        assert (value["rows_a"], value["rows_b"]) == (len(golden[f"{name}_A"]),
                                                      len(golden[f"{name}_B"]))


def test_metrics_refuses_maps_that_do_not_fit(featinv, maps, tmp_path):
    np.save(tmp_path / "other.npy", np.zeros((3, 4, 2, 2), np.float32))
    featinv("metrics", "cosine", maps, tmp_path / "other.npy", expect=3)
    featinv("metrics", "fid", maps, tmp_path / "other.npy", expect=3)
    np.save(tmp_path / "one.npy", np.zeros((1, 3), np.float32))
    featinv("metrics", "fid", maps, tmp_path / "one.npy", expect=3)
