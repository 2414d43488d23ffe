"""What sample, reconstruct, extract and metrics write, and how jobs stop and go on."""

import base64
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import time

import numpy as np
import pytest
from PIL import Image

from conftest import BUILD, COMMAND, IMAGE, LATENT, MAP, REFERENCE, make_bundle, results, tree

SECONDS = ("seconds", "seconds_per_sample")


def pictures(folder):
    return {name: data for name, data in tree(folder).items() if name.endswith(".png")}


def timeless(folder):
    """results.json without what differs between equal runs."""
    root = results(folder)
    for entry in [root["summary"], *root["items"]]:
        for key in SECONDS:
            entry.pop(key, None)
    return root


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


# ------------------------------------------------------------------ the terminal

def test_the_bar_is_shown_on_a_terminal_only(environment, bundle, maps, tmp_path):
    outputs = {}
    for quiet in ([], ["-q"]):
        leader, follower = pty.openpty()
        process = subprocess.Popen(
            [str(COMMAND), "sample", "--features", str(maps), "-m", str(bundle), "-o",
             str(tmp_path / "out"), "--batch", "1", *quiet],
            stdout=subprocess.PIPE, stderr=follower, env=environment)
        os.close(follower)
        text = b""
        while chunk := read_terminal(leader):
            text += chunk
        os.close(leader)
        assert process.wait(timeout=20) == 0
        process.stdout.close()
        outputs[bool(quiet)] = text
    assert b"sample 0/3 images [" in outputs[False] and b"sample 2/3 images [" in outputs[False]
    assert outputs[False].endswith(b"\r\x1b[K"), "the line is left clean"
    assert b"100%" in outputs[False] and not outputs[True]


def read_terminal(leader):
    try:
        return os.read(leader, 4096)
    except OSError:  # the other end is closed
        return b""


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


# ------------------------------------------------------------------ shards, resume, Ctrl-C

@pytest.mark.parametrize("samples, batch", [(1, 2), (3, 4), (2, 1)])
def test_shards_are_the_whole(featinv, bundle, photos, tmp_path, samples, batch):
    photos[2].write_bytes(b"")  # a bad one among them
    shared = ["reconstruct", *photos, "-m", bundle, "--batch", batch, "--samples", samples]
    featinv(*shared, "-o", tmp_path / "whole", expect=3)
    codes = []
    for i in (2, 0, 1):  # into one folder, in any order
        group = max(1, batch // samples)
        mine = [k for k in range(7) if k // group % 3 == i]
        codes.append(3 if 2 in mine else 0)
        featinv(*shared, "-o", tmp_path / "parts", "--shard", f"{i}/3", expect=codes[-1])
        featinv(*shared, "-o", tmp_path / f"part{i}", "--shard", f"{i}/3", expect=codes[-1])
        inputs = {r["input"] for r in results(tmp_path / f"part{i}")["items"]}
        assert inputs == {str(photos[k]) for k in mine}
    assert sorted(codes) == [0, 0, 3]
    assert pictures(tmp_path / "parts") == pictures(tmp_path / "whole")
    assert timeless(tmp_path / "parts") == timeless(tmp_path / "whole")


def start(environment, *args, delay):
    return subprocess.Popen([str(COMMAND), *map(str, args)], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, env=dict(environment, FAKE_DELAY=str(delay)))


def wait_for(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.01)


def test_interrupted_and_resumed_is_the_whole(featinv, environment, bundle, photos, tmp_path):
    photos[0].write_bytes(b"")
    shared = ["reconstruct", *photos, "-m", bundle, "--batch", 2, "--steps", 10]
    featinv(*shared, "-o", tmp_path / "whole", expect=3)
    out = tmp_path / "out"
    stops = 0
    for _ in range(10):  # each time a batch or two further
        before = len(pictures(out)) if out.exists() else 0
        process = start(environment, *shared, "-o", out, "--resume", delay=0.03)
        wait_for(lambda: process.poll() is not None
                 or (out.exists() and len(pictures(out)) > before))
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=20)
        root = results(out)
        done = [i for i in root["items"] if i["image"]]
        assert all((out / i["image"]).exists() for i in done)
        assert root["summary"]["images"] == len(done)
        if process.returncode == 3:
            break
        assert process.returncode == 130, (process.returncode, stderr)
        assert b"interrupted after" in stderr and (out / "report.html").exists()
        stops += 1
        assert len(done) < 6
    assert stops >= 2, "was not interrupted"
    assert pictures(out) == pictures(tmp_path / "whole")
    assert timeless(out) == timeless(tmp_path / "whole")
    assert not (out / "journal.jsonl").exists()


def test_ctrl_c_answers_within_a_step(environment, bundle, maps, tmp_path):
    """Steps of .3 s, 999 of them; at the first batch nothing is there to keep."""
    out = tmp_path / "out"
    process = start(environment, "sample", "--features", maps, "-m", bundle, "-o", out,
                    "--steps", 999, delay=0.3)
    wait_for(out.exists)
    time.sleep(0.4)
    process.send_signal(signal.SIGINT)
    sent = time.monotonic()
    _, stderr = process.communicate(timeout=20)
    assert process.returncode == 130 and time.monotonic() - sent < 1.5
    assert stderr.startswith(b"featinv: interrupted after 0 of 3 inputs") and not out.exists()


def test_samples_that_are_done_are_kept(environment, bundle, maps, tmp_path):
    """One map, many samples: those of whole forwards stay, with their scores."""
    np.save(maps, np.load(maps)[:1])
    out, calls = tmp_path / "out", 0.02 * 5
    process = start(environment, "sample", "--features", maps, "-m", bundle, "-o", out,
                    "--samples", 100, "--batch", 2, "--latents-out", tmp_path / "z.npy",
                    delay=0.02)
    wait_for(out.exists)
    time.sleep(5 * calls)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 130
    items = results(out)["items"]
    assert 2 <= len(items) < 100 and len(items) % 2 == 0
    assert all(i["cosine_median"] is not None for i in items)
    assert [i["sample"] for i in items] == list(range(len(items)))
    latents = np.load(tmp_path / "z.npy")
    assert np.isnan(latents).all((1, 2, 3)).tolist() == [k >= len(items) for k in range(100)]


def test_a_second_ctrl_c_ends_at_once(environment, bundle, maps, tmp_path):
    process = start(environment, "sample", "--features", maps, "-m", bundle, "-o",
                    tmp_path / "out", delay=5)
    wait_for((tmp_path / "out").exists)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    assert process.poll() is None, "the running step is finished first"
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=2) == 130


def test_a_resume_with_other_settings_is_refused(featinv, environment, bundle, photos, tmp_path):
    out = tmp_path / "out"
    shared = ["reconstruct", *photos, "-m", bundle, "-o", out, "--batch", 1]
    process = start(environment, *shared, delay=0.03)
    wait_for(lambda: (out / "p1-0.png").exists())
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) == 130
    before = tree(out)
    for change in (["--steps", 6], ["--seed", 1], ["--eta", 0.5], ["--context", "empty"]):
        featinv(*shared, "--resume", *change, expect=2)
    featinv(*shared[:-2], "--batch", 2, "--resume", expect=2)
    featinv("reconstruct", *photos[1:], *shared[8:], "--resume", expect=2)
    assert tree(out) == before
    featinv(*shared, "--resume")
    assert results(out)["summary"]["images"] == 7


# ------------------------------------------------------------------ outputs that cannot be written

def test_an_output_folder_that_is_a_file(featinv, bundle, photos, maps, tmp_path):
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", tmp_path / "file" / "deeper"):
        featinv("reconstruct", photos[0], "-m", bundle, "-o", out, expect=1)
        featinv("sample", "--features", maps, "-m", bundle, "-o", out, expect=1)
    assert (tmp_path / "file").read_text() == "mine"


def test_output_files_that_cannot_be_written(featinv, bundle, photos, maps, tmp_path):
    (tmp_path / "folder.npz").mkdir()
    for path in (tmp_path / "none" / "m.npz", tmp_path / "folder.npz"):
        featinv("extract", photos[0], "-m", bundle, "-o", path, expect=1)
        featinv("sample", "--features", maps, "-m", bundle, "-o", tmp_path / "out", "--trace",
                path, expect=1)
    assert not (tmp_path / "out").exists()


def unprivileged():
    """Write protection does not bind root, so the command runs as another user."""
    os.setgid(65534)
    os.setuid(65534)


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to become someone else")
def test_a_read_only_output_folder(environment, bundle, photos, tmp_path):
    shared = tmp_path.parent / "shared"
    shutil.rmtree(shared, ignore_errors=True)
    (shared / "locked").mkdir(parents=True)
    shutil.copytree(bundle, shared / "bundle")
    shutil.copy(photos[0], shared / "photo.png")
    base = subprocess.run(["mktemp", "-d"], capture_output=True, text=True).stdout.strip()
    shutil.copytree(shared, base, dirs_exist_ok=True)
    os.chmod(base, 0o755)
    os.chmod(f"{base}/locked", 0o555)
    try:
        for out in ("locked", "locked/new"):
            result = subprocess.run(
                [str(COMMAND), "reconstruct", "photo.png", "-m", "bundle", "-o", out], cwd=base,
                env=environment, capture_output=True, text=True, preexec_fn=unprivileged)
            assert result.returncode == 1, result.stderr
            assert result.stderr.startswith("featinv: locked") and not os.listdir(f"{base}/locked")
    finally:
        shutil.rmtree(base)


def limited(size):
    """No file may grow beyond size: writing fails in the middle, as on a full disk."""
    import resource
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@pytest.mark.parametrize("size", [0, 50, 600, 2500])
def test_a_full_disk(featinv, environment, bundle, photos, tmp_path, size):
    """At the journal, at a picture, at the journal's second batch, at the page."""
    out = tmp_path / "out"
    result = featinv("reconstruct", *photos, "-m", bundle, "-o", out, "--batch", 1, expect=1,
                     preexec_fn=limited(size))
    assert "File too large" in result.err and len(result.err.splitlines()) == 1
    left = tree(out) if out.exists() else {}
    assert not [n for n in left if n.startswith(".featinv")], "a temporary file is left"
    for name, data in left.items():
        if name.endswith(".png"):
            Image.open(out / name).load()
        if name == "results.json":
            json.loads(data)
        if name == "report.html":
            assert data.endswith(b"</html>\n")
    if size == 0:
        assert not out.exists()
    # and then there is room again
    featinv("reconstruct", *photos, "-m", bundle, "-o", out, "--batch", 1, "--resume")
    assert results(out)["summary"]["images"] == 7


def test_files_are_replaced_and_others_left(featinv, bundle, photos, tmp_path):
    (tmp_path / "p0-0.png").write_text("old")
    (tmp_path / "notes.txt").write_text("mine")
    featinv("reconstruct", photos[0], "-m", bundle, "-o", tmp_path)
    Image.open(tmp_path / "p0-0.png").load()
    assert (tmp_path / "notes.txt").read_text() == "mine"


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
