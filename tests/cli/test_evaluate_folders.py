"""`featinv evaluate`: how the work is dealt, stopped, resumed and refused, on the fake backend."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import COMMAND, make_bundle, safetensors
from evaluations import row_of, value


@pytest.fixture
def folders(tmp_path) -> Path:
    """Three classes of grey pictures, and a loose one that has no class."""
    root = tmp_path / "data"
    for c in range(3):
        (root / f"class {c}" / "deeper").mkdir(parents=True)
        for i in range(5):
            grey = np.random.default_rng(10 * c + i).integers(0, 256, (9 - i, 7 + c, 3), np.uint8)
            place = root / f"class {c}" / ("deeper" if i == 4 else ".") / f"{i}.png"
            Image.fromarray(grey).save(place)
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(root / "loose.png")
    return root


@pytest.fixture
def shared(bundle, folders) -> list:
    return ["evaluate", "--data", folders, "-m", bundle, "--ceiling", "--per-class", 4, "--scales",
            "1,2.5", "--weights", "0.5", "--bootstrap", 20, "--batch", 3]


def read(folder: Path) -> dict:
    return json.loads((folder / "tables.json").read_text())


@pytest.mark.parametrize("shards", [1, 2, 5])
def test_shards_are_the_whole(featinv, shared, tmp_path, shards):
    featinv(*shared, "-o", tmp_path / "whole")
    for i in reversed(range(shards)):
        result = featinv(*shared, "-o", tmp_path / "parts", "--shard", f"{i}/{shards}")
        assert ("parts are there" in result.out) == (i > 0)
    assert ((tmp_path / "parts" / "tables.json").read_bytes()
            == (tmp_path / "whole" / "tables.json").read_bytes())
    before = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "parts" / "parts").iterdir()}
    featinv(*shared, "-o", tmp_path / "parts", "--shard", f"0/{shards}")  # again: nothing to do
    assert before == {p.name: p.stat().st_mtime_ns
                      for p in (tmp_path / "parts" / "parts").iterdir()}


def test_chosen_images_depend_on_seed_and_path_alone(featinv, bundle, folders, tmp_path):
    chosen = []
    for i, seed in enumerate((1, 1, 2)):
        if i == 1:  # elsewhere, with another image beside them
            shutil.move(folders, tmp_path / "moved")
            folders = tmp_path / "moved"
        out = tmp_path / f"out{i}"
        featinv("evaluate", "--data", folders, "-m", bundle, "--per-class", 2, "--tables", 1,
                "--seed", seed, "-o", out, "--pictures", 99)
        chosen.append([p["id"] for p in read(out)["pictures"]])
    assert chosen[0] == chosen[1] != chosen[2]
    for ids in chosen:
        assert sorted(i.split("/")[0] for i in ids) == [f"class {c}" for c in (0, 0, 1, 1, 2, 2)]
        assert ids != sorted(ids), "in the order of the names"


def test_labels_file(featinv, bundle, folders, tmp_path):
    """The same classes by labels.json: the same figures."""
    featinv("evaluate", "--data", folders, "-m", bundle, "--tables", 1, "-o", tmp_path / "a")
    labels = {str(p.relative_to(folders)): {"class": p.relative_to(folders).parts[0]}
              for p in sorted(folders.rglob("*.png")) if p.name != "loose.png"}
    (folders / "labels.json").write_text(json.dumps(labels))
    featinv("evaluate", "--data", folders, "-m", bundle, "--tables", 1, "-o", tmp_path / "b")
    assert read(tmp_path / "a")["rows"] == read(tmp_path / "b")["rows"]
    for text in ("[]", "{", '{"a.png": {}}', "{}"):
        (folders / "labels.json").write_text(text)
        result = featinv("evaluate", "--data", folders, "-m", bundle, "-o", tmp_path / "c",
                         expect=3)
        assert "labels.json" in result.err and not (tmp_path / "c").exists()


def start(environment, *args, delay=0.0) -> subprocess.Popen:
    return subprocess.Popen([str(COMMAND), *map(str, args)], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, env=dict(environment, FAKE_DELAY=str(delay)))


def part_count(folder: Path) -> int:
    return len(list((folder / "parts").glob("[!.]*"))) if (folder / "parts").exists() else 0


def wait_for(condition, process) -> None:
    end = time.monotonic() + 20
    while not condition() and process.poll() is None:
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.002)


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT])
def test_stopped_and_resumed_is_the_whole(featinv, environment, shared, tmp_path, sent):
    featinv(*shared, "-o", tmp_path / "whole")
    out, stops = tmp_path / "out", 0
    for _ in range(60):
        before = part_count(out)
        process = start(environment, *shared, "-o", out, "--resume", delay=0.003)
        wait_for(lambda: part_count(out) > before + 4, process)
        process.send_signal(sent)
        _, err = process.communicate(timeout=20)
        if process.returncode == 0:
            break
        stops += 1
        assert part_count(out) >= before, "work is lost"
        if sent == signal.SIGINT:
            assert process.returncode == 130 and b"parts; --resume goes on" in err, err
            assert not list((out / "parts").glob(".*"))
        for path in (out / "parts").glob("[!.]*"):
            with np.load(path) as arrays:
                assert all(arrays[k] is not None for k in arrays.files)
    assert stops >= 2 and process.returncode == 0
    assert (out / "tables.json").read_bytes() == (tmp_path / "whole/tables.json").read_bytes()


def test_a_run_begins_anew_and_a_resume_does_not(featinv, shared, tmp_path):
    out = tmp_path / "out"
    featinv(*shared, "-o", out)
    first = (out / "tables.json").read_bytes()
    parts = sorted((out / "parts").iterdir())
    stamps = [p.stat().st_mtime_ns for p in parts]
    parts[3].unlink()
    featinv(*shared, "-o", out, "--resume")
    after = [p.stat().st_mtime_ns for p in parts]
    assert [a == b for a, b in zip(stamps, after)] == [i != 3 for i in range(len(parts))]
    for name in ("tables.json", "tables.md", "index.html"):
        (out / name).unlink()
    featinv(*shared, "-o", out, "--resume")  # nothing is left to do but the tables
    assert after == [p.stat().st_mtime_ns for p in parts]
    assert (out / "tables.json").read_bytes() == first and (out / "index.html").exists()
    featinv(*shared, "-o", out, "--force")  # all of it again
    assert all(p.stat().st_mtime_ns > t for p, t in zip(parts, after))
    assert (out / "tables.json").read_bytes() == first
    featinv(*shared, "-o", out, "--seed", 3, "--tables", "1", "--force")
    assert part_count(out) < len(parts) and (out / "tables.json").read_bytes() != first


def contents(folder: Path) -> dict:
    """Every file below and its bytes."""
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("change", [[], ["--seed", 3]])
def test_finished_parts_are_not_removed_unasked(featinv, shared, tmp_path, change):
    out = tmp_path / "out"
    out.mkdir()
    (out / "parts").mkdir()  # empty: nothing to lose
    (out / "notes.txt").write_text("mine")
    featinv(*shared, "-o", out)
    before = contents(out)
    result = featinv(*shared, *change, "-o", out, expect=2)
    assert str(out) in result.err and "--resume" in result.err and "--force" in result.err
    assert len(result.err.splitlines()) == 1 and contents(out) == before
    for other in (["--resume"], ["--shard", "0/2"]):
        assert other[0] in featinv(*shared, "-o", out, "--force", *other, expect=2).err
    assert contents(out) == before


def test_parts_of_other_settings_are_not_there(featinv, shared, tmp_path):
    """Even where nothing but the parts themselves says what they were made with."""
    out, other = tmp_path / "out", [*shared, "--seed", 3]
    featinv(*shared, "-o", out)
    featinv(*other, "-o", tmp_path / "other")
    (out / "settings.json").unlink()
    featinv(*other, "-o", out, "--resume")
    assert (out / "tables.json").read_bytes() == (tmp_path / "other/tables.json").read_bytes()
    stamps = [p.stat().st_mtime_ns for p in sorted((out / "parts").iterdir())]
    (out / "settings.json").unlink()
    featinv(*other, "-o", out, "--resume")  # its own parts are known without
    assert stamps == [p.stat().st_mtime_ns for p in sorted((out / "parts").iterdir())]
    torn = sorted((out / "parts").iterdir())[2]
    torn.write_bytes(torn.read_bytes()[:200])
    featinv(*other, "-o", out, "--resume")
    assert (out / "tables.json").read_bytes() == (tmp_path / "other/tables.json").read_bytes()


@pytest.mark.parametrize("how", [[], ["--shard", "0/2"]])
def test_two_evaluations_in_one_folder(featinv, environment, shared, tmp_path, how):
    """The one whose folder was taken ends in one line; the other's figures are its own."""
    out, other = tmp_path / "out", [*shared, "--seed", 3]
    featinv(*other, "-o", tmp_path / "other")
    first = start(environment, *shared, "-o", out, *how, delay=0.02)
    wait_for(lambda: part_count(out) > 3, first)
    featinv(*other, "-o", out, "--force")
    _, err = first.communicate(timeout=20)
    assert first.returncode == 1 and len(err.splitlines()) == 1, err
    assert b"settings.json: is no longer of this evaluation" in err
    featinv(*other, "-o", out, "--resume")
    for name in ("tables.json", "tables.md", "index.html"):
        assert (out / name).read_bytes() == (tmp_path / "other" / name).read_bytes(), name
    assert contents(out / "pictures").keys() >= {
        out / "pictures" / p.name for p in (tmp_path / "other" / "pictures").iterdir()}
    for path in (tmp_path / "other" / "pictures").iterdir():
        assert (out / "pictures" / path.name).read_bytes() == path.read_bytes(), path.name


@pytest.mark.parametrize("change", ["size", "time", "ood"])
def test_images_that_changed_are_refused(featinv, shared, folders, tmp_path, change):
    out, path, extra = tmp_path / "out", folders / "class 1" / "0.png", []
    if change == "ood":
        path = tmp_path / "ood" / "a.png"
        path.parent.mkdir()
        shutil.copy(folders / "loose.png", path)
        extra = ["--ood", path.parent]
    whole = [*shared, *extra, "--per-class", 9]
    featinv(*whole, "-o", out)
    before, was = contents(out), path.stat()
    featinv(*whole, "-o", out, "--resume")
    assert contents(out) == before
    if change == "time":  # the same bytes, written again
        os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns + 1000))
    else:
        Image.fromarray(np.full((5, 5, 3), 77, np.uint8)).save(path)
        assert path.stat().st_size != was.st_size
        os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))
    for how in ("--resume", "--shard"):
        result = featinv(*whole, "-o", out, how, *(["0/2"] if how == "--shard" else []), expect=2)
        folder = tmp_path / "ood" if change == "ood" else folders
        assert "other images" in result.err and str(folder) in result.err
        assert len(result.err.splitlines()) == 1
    assert contents(out) == before


@pytest.mark.parametrize("change, named", [
    (["--seed", 5], "seed"), (["--steps", 7], "steps"), (["--bootstrap", 30], "bootstrap"),
    (["--tables", "1,sweep"], "tables"), (["--scales", "1"], "scales"),
    (["--per-class", 2], "per_class"), (["--batch", 2], "batch"), (["--threads", 3], "threads")])
def test_other_settings_are_refused(featinv, shared, tmp_path, change, named):
    out = tmp_path / "out"
    featinv(*shared, "-o", out)
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    for how in (["--resume"], ["--shard", "0/2"]):
        result = featinv(*shared, *change, "-o", out, *how, expect=2)
        assert f"other settings: {named}" in result.err and len(result.err.splitlines()) == 1
    assert before == {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}


@pytest.mark.parametrize("extra, code, said", [
    (["--tables", "4"], 2, '"4" is none of 1, 2, 3, sweep, mix, ood'),
    (["--tables", "1,"], 2, '"" is none of'),
    (["--tables", "ood"], 2, "ood needs --ood"),
    (["--tables", "1", "--ood", "."], 2, "none of --tables 1"),
    (["--tables", "3"], 2, "nothing to do"),
    (["--tables", "2"], 2, "2 needs two models"),
    (["--tables", "1,2"], 2, "2 needs two models"),
    (["--shard", "2/2"], 2, "I/N"),
    (["--weights", "0,2"], 2, "from 0 to 1"),
    (["--scales", "1,x"], 2, "--scales"),
    (["--scales", "1,2,1"], 2, "1 is given twice"),
    (["--per-class", "0"], 2, "--per-class"),
    (["--seed", str(2**63)], 2, "--seed"),
    (["--steps", "1000"], 2, "--steps"),
    (["--fid-features", "none"], 4, "none"),
    (["more"], 2, "takes no argument"),
    (["--ood", "/none"], 3, "no such folder")])
def test_refusals(featinv, shared, tmp_path, extra, code, said):
    result = featinv(*shared, "-o", tmp_path / "out", *extra, expect=code)
    assert said in result.err and len(result.err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_folders_without_classes(featinv, bundle, photos, tmp_path):
    out = tmp_path / "out"
    for data, said in ((photos[0].parent, "no class folders"), (tmp_path / "none", "no such"),
                       (photos[0], "is no folder")):
        result = featinv("evaluate", "--data", data, "-m", bundle, "-o", out, expect=3)
        assert said in result.err and not out.exists()
    featinv("evaluate", "-m", bundle, "-o", out, expect=2)
    featinv("evaluate", "--data", tmp_path, "-m", bundle, expect=2)


def test_bundles_that_cannot_be_evaluated(featinv, folders, tmp_path):
    for i, kind in enumerate(({"backbone": False}, {"generator": False})):
        bundle = make_bundle(tmp_path / f"b{i}", **kind)
        result = featinv("evaluate", "--data", folders, "-m", bundle, "-o", tmp_path / "out",
                         expect=1)
        assert "this bundle has no" in result.err
    featinv("evaluate", "--data", folders, *(["-m", bundle] * 17), "-o", tmp_path / "out",
            expect=2)


def test_a_corrupt_picture(featinv, shared, folders, tmp_path):
    """It is left out everywhere, named once, and the tables are those without it."""
    bad = folders / "class 1" / "2.png"
    bad.write_bytes(bad.read_bytes()[:40])
    for how in ([], ["--shard", "1/2"], ["--shard", "0/2"]):
        out = tmp_path / ("shards" if how else "out")
        result = featinv(*shared, "--per-class", 5, "-o", out, *how, expect=3)
        assert result.err.count(str(bad)) <= 1
        assert "Traceback" not in result.err
    tables = read(tmp_path / "out")
    assert (tmp_path / "out/tables.json").read_bytes() == (
        tmp_path / "shards/tables.json").read_bytes()
    assert [p["input"] for p in tables["problems"]] == [str(bad)]
    assert all(np.isfinite(value(r, "cosine_median")) for r in tables["rows"])
    assert "class 1/2.png" not in [p["id"] for p in tables["pictures"]]
    bad.unlink()
    featinv(*shared, "--per-class", 5, "-o", tmp_path / "without")
    for key in ("cosine_median", "match_top1", "frechet", "gradient"):
        assert value(row_of(tables, "controlnet"), key) == pytest.approx(
            value(row_of(read(tmp_path / "without"), "controlnet"), key), rel=1e-6), key


def test_a_bundle_given_twice(featinv, shared, bundle, tmp_path):
    shutil.copytree(bundle, tmp_path / "copy")
    result = featinv(*shared, "-m", tmp_path / "copy", "-o", tmp_path / "out", expect=2)
    assert f"{tmp_path}/copy: is the same bundle as" in result.err and str(bundle) in result.err
    assert len(result.err.splitlines()) == 1 and not (tmp_path / "out").exists()


@pytest.mark.parametrize("counts, pairs", [((5, 5, 5), 7), ((1, 5, 2), 3), ((1, 1, 2), 2)])
def test_mixes_pair_all_images_that_can_be(featinv, bundle, folders, tmp_path, counts, pairs):
    """Half of the images, or those outside a class that is larger than all others."""
    for c, count in enumerate(counts):
        for path in sorted((folders / f"class {c}").rglob("*.png"))[count:]:
            path.unlink()
    out = tmp_path / "out"
    featinv("evaluate", "--data", folders, "-m", bundle, "--tables", "mix", "--weights", "0,1",
            "--pictures", 99, "-o", out)
    tables = read(out)
    assert [row["pairs"] for row in tables["mix"]] == [pairs, pairs]
    first, last = tables["mix"]  # weight 0 is A alone, 1 is B alone
    assert first["cosine_mixed"] == first["cosine_a"] and last["cosine_mixed"] == last["cosine_b"]


def test_one_image_and_one_class(featinv, shared, bundle, folders, tmp_path):
    """No pair to mix, no interval, and words in the singular."""
    for c in (1, 2):
        shutil.rmtree(folders / f"class {c}")
    result = featinv(*shared, "--tables", "mix", "-o", tmp_path / "none", expect=2)
    assert "mix needs images of two classes" in result.err and result.err.endswith("holds 1\n")
    featinv(*shared, "--per-class", 1, "-o", tmp_path / "out")
    row = row_of(read(tmp_path / "out"), "controlnet")
    assert row["cosine_median"]["value"] is not None
    assert row["cosine_median"]["low"] is row["cosine_median"]["high"] is None
    assert "\n1 image of 1 class (" in (tmp_path / "out" / "tables.md").read_text()


def test_a_bundle_without_the_mean_says_so(featinv, folders, tmp_path):
    bundle = make_bundle(tmp_path / "bundle")
    out, line = tmp_path / "out", "No centred cosine of fake: the bundle has no features.npz"
    run = ["evaluate", "--data", folders, "-m", bundle, "--tables", 1, "-o", out]
    featinv(*run)
    assert line not in (out / "tables.md").read_text()
    (bundle / "features.npz").unlink()
    manifest = json.loads((bundle / "manifest.json").read_text())
    del manifest["files"]["features.npz"]
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    featinv(*run, "--force")
    for name in ("tables.md", "index.html"):
        assert (out / name).read_text().count(line) == 1, name


def test_the_autoencoder_is_shown_once_per_base(featinv, shared, bundle, tmp_path):
    """A bundle, one that draws with its UNet and decoder, and one with a base of its own."""
    first, derived, other = (tmp_path / name for name in ("first", "derived", "other"))
    for folder in (first, derived, other):
        shutil.copytree(bundle, folder)
    manifest = json.loads((derived / "manifest.json").read_text())
    for name in ("unet.ts", "unet.safetensors", "encoder.ts", "decoder.ts", "contexts.npz"):
        (derived / name).unlink()
        del manifest["files"][name]
    (derived / "control.safetensors").write_bytes(safetensors(["control.a"]))
    manifest["files"]["control.safetensors"] = {
        "sha256": hashlib.sha256((derived / "control.safetensors").read_bytes()).hexdigest(),
        "bytes": (derived / "control.safetensors").stat().st_size}
    sha256 = hashlib.sha256((first / "manifest.json").read_bytes()).hexdigest()
    manifest["base"] = {"path": "../first", "manifest_sha256": sha256}
    (derived / "manifest.json").write_text(json.dumps(manifest))
    manifest = json.loads((other / "manifest.json").read_text()) | {"name": "other"}
    (other / "manifest.json").write_text(json.dumps(manifest))
    models = ["-m", first, "-m", derived, "-m", other]
    at = shared.index("-m")
    featinv(*shared[:at], *models, *shared[at + 2:], "--tables", 1, "-o", tmp_path / "out")
    tables = read(tmp_path / "out")
    assert [r["model"] for r in tables["rows"] if r["kind"] == "autoencoder"] == [0, 1, 2]
    for picture in tables["pictures"]:
        shown = [item["model"] for item in picture["items"] if item["what"] == "autoencoder"]
        assert shown == [0, 2]


def limited(size):
    """No file may grow beyond size: writing fails in the middle, as on a full disk."""
    import resource
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@pytest.mark.parametrize("size", [0, 300, 1500, 5000])
def test_a_full_disk(featinv, shared, tmp_path, size):
    """At the settings, at a part, at tables.json, at the page."""
    out = tmp_path / "out"
    result = featinv(*shared, "-o", out, expect=1, preexec_fn=limited(size))
    assert "cannot be written" in result.err and len(result.err.splitlines()) == 1
    assert not [p for p in out.rglob(".featinv*")], "a temporary file is left"
    featinv(*shared, "-o", out, "--resume")
    featinv(*shared, "-o", tmp_path / "whole")
    assert (out / "tables.json").read_bytes() == (tmp_path / "whole/tables.json").read_bytes()


def test_the_output_is_none_of_the_images(featinv, shared, folders):
    """-o below --data: neither its pictures nor its folder become a class, of no later run."""
    for name, how in (("first", []), ("first", ["--force"]), ("second", []), ("third", [])):
        featinv(*shared, "-o", folders / name, *how)
        tables = read(folders / name)
        assert tables["settings"]["classes"] == 3 and tables["settings"]["images"] == 12
        (folders / "second" / "settings.json").unlink(missing_ok=True)  # its tables tell
    assert (folders / "first" / "pictures").exists() and (folders / "first/settings.json").exists()


@pytest.mark.parametrize("option", ["--data", "--ood"])
def test_the_output_is_not_the_folder_of_images(featinv, shared, folders, tmp_path, option):
    out = folders
    if option == "--ood":
        out = tmp_path / "ood"
        shutil.copytree(folders / "class 1", out)
        shared = [*shared, "--ood", out]
    before = contents(out)
    result = featinv(*shared, "-o", f"{out}/.", expect=2)
    assert f"is the folder of {option}" in result.err and len(result.err.splitlines()) == 1
    assert contents(out) == before
