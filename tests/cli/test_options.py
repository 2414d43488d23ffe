"""Options, exit codes and one-line errors: tables of good and bad command lines."""

import json
import os

import numpy as np
import pytest
from PIL import Image

from conftest import IMAGE, LATENT, MAP, make_bundle, results, write_manifest

VERBS = ["doctor", "info", "extract", "sample", "reconstruct", "metrics"]


# ------------------------------------------------------------------ help and version

@pytest.mark.parametrize("words", [["--help"], ["-h"], ["help"]])
def test_help_lists_every_verb(featinv, words):
    out = featinv(*words).out
    assert all(f"\n  {verb} " in out for verb in VERBS), out


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_has_its_help(featinv, verb):
    out = featinv(verb, "--help").out
    assert out.startswith(f"usage: featinv {verb}") and "--help" in out and "--json" in out
    assert all(len(line) <= 100 for line in out.splitlines()), out


def test_version(featinv):
    assert featinv("--version").out == "featinv 0.1.0\n"


def test_no_verb_is_wrong_usage(environment):
    import subprocess

    from conftest import COMMAND
    result = subprocess.run([str(COMMAND)], capture_output=True, env=environment)
    assert result.returncode == 2 and b"usage: featinv" in result.stderr and not result.stdout


# ------------------------------------------------------------------ wrong usage

# The line behind `sample --features MAPS -o OUT -m BUNDLE`.
BAD_SAMPLE = [
    ("steps 0", "--steps 0"), ("steps 1000", "--steps 1000"), ("negative", "--steps -1"),
    ("no number", "--steps ten"), ("junk behind", "--steps 10x"), ("fraction", "--steps 1.5"),
    ("empty", "--steps="), ("no value", "--steps"), ("a blank", "--steps= 5"),
    ("huge", "--steps 99999999999999999999"), ("option as value", "--steps --eta 0"),
    ("samples 0", "--samples 0"), ("samples huge", "--samples 1000001"),
    ("scale NaN", "--scale nan"), ("scale NaN with payload", "--scale nan(1)"),
    ("scale infinite", "--scale inf"), ("scale overflow", "--scale 1e999"),
    ("scale junk", "--scale 1.75,"), ("scale empty", "--scale="),
    ("hint scale NaN", "--hint-scale NaN"), ("strength NaN", "--strength nan"),
    ("eta NaN", "--eta nan"), ("eta above 1", "--eta 1.5"), ("eta below 0", "--eta -0.1"),
    ("seed negative", "--seed -1"), ("seed plus", "--seed +1"), ("seed junk", "--seed 1a"),
    ("seed beyond 64 bits", "--seed 18446744073709551616"),
    ("spacing", "--spacing linear"), ("dtype", "--dtype fp8"), ("fp16 on the CPU", "--dtype fp16"),
    ("device", "--device gpu"), ("device index", "--device cuda:"),
    ("device junk", "--device cuda:1x"), ("batch 0", "--batch 0"), ("threads 0", "--threads 0"),
    ("legacy count", "--legacy --steps 27"), ("legacy spacing", "--spacing legacy --steps 501"),
    ("guess mode", "--guess-mode --hint-scale 2"), ("no such context", "--context nobody"),
    ("no such uncontext", "--uncontext nobody"), ("shard 1/1", "--shard 1/1"),
    ("shard 2/2", "--shard 2/2"), ("shard -1/2", "--shard -1/2"), ("shard 0/0", "--shard 0/0"),
    ("shard 1", "--shard 1"), ("shard 1/2x", "--shard 1/2x"), ("shard /", "--shard /"),
    ("unknown option", "--temperature 1"), ("abbreviation", "--step 5"),
    ("unknown letter", "-z"), ("flag with value", "--guess-mode=1"), ("argument", "photo.png"),
    ("suffix of latents", "--latents-out z.bin"), ("suffix of images", "--images-out i.npz"),
    ("suffix of trace", "--trace t.npy"), ("option of another verb", "--max-pixels 5"),
    ("latents in and noise", "--latents-in z.npy --noise n.npy"),
    ("resume and latents", "--resume --latents-out z.npy"),
]


@pytest.mark.parametrize("line", [b[1] for b in BAD_SAMPLE], ids=[b[0] for b in BAD_SAMPLE])
def test_wrong_usage_of_sample(featinv, bundle, maps, tmp_path, line):
    words = ["--steps= 5"] if line == "--steps= 5" else line.split()
    out = tmp_path / "out"
    result = featinv("sample", "--features", maps, "-o", out, "-m", bundle, *words, expect=2,
                     cwd=tmp_path)
    assert len(result.err.splitlines()) == 1, result.err
    assert not result.out and not out.exists(), "something was written"


BAD_LINES = [
    ("unknown verb", "concept"), ("verb of a later version", "concepts fit"),
    ("no features", "sample -o out"), ("no folder", "sample --features m.npy"),
    ("no image", "reconstruct -o out"), ("reconstruct without folder", "reconstruct a.png"),
    ("extract without file", "extract a.png"), ("extract without image", "extract -o m.npz"),
    ("extract to another format", "extract a.png -o m.pt"),
    ("max-pixels 0", "reconstruct a.png -o out --max-pixels 0"),
    ("latents-in of reconstruct", "reconstruct a.png -o out --latents-in z.npy"),
    ("no metric", "metrics"), ("unknown metric", "metrics psnr a.npy b.npy"),
    ("one file", "metrics cosine a.npy"), ("three files", "metrics cosine a.npy b.npy c.npy"),
    ("centre of fid", "metrics fid a.npy b.npy --centre c.npy"),
    ("doctor with argument", "doctor now"), ("info with argument", "info bundle"),
    ("empty argument", "reconstruct  -o out"),
]


@pytest.mark.parametrize("line", [b[1] for b in BAD_LINES], ids=[b[0] for b in BAD_LINES])
def test_wrong_usage(featinv, tmp_path, line):
    result = featinv(*line.split(" "), expect=2, cwd=tmp_path)
    assert len(result.err.splitlines()) == 1 and not os.listdir(tmp_path)


def test_a_resume_of_an_input_given_twice_is_refused(featinv, bundle, photos, tmp_path):
    featinv("reconstruct", photos[0], photos[0], "-m", bundle, "-o", tmp_path / "out", "--resume",
            expect=2)


# ------------------------------------------------------------------ good options

GOOD_SAMPLE = [
    "--steps 1", "--steps=999", "--scale 1", "--scale -2.5", "--scale 0x1p1", "--scale=1e-320",
    "--seed 18446744073709551615", "--eta 1", "--eta 0", "--guess-mode", "--legacy --steps 50",
    "--legacy --spacing leading --steps 27", "--spacing trailing", "--context empty",
    "--device auto", "--device cpu", "--dtype bf16", "--batch 65536", "--threads 4",
    "--deterministic", "--hint-scale 1.5", "--strength 0", "--shard 0/1", "-q", "--samples 2",
]


@pytest.mark.parametrize("line", GOOD_SAMPLE)
def test_good_options_of_sample(featinv, bundle, maps, tmp_path, line):
    out = tmp_path / "out"
    featinv("sample", "--features", maps, "-o", out, "-m", bundle, *line.split())
    samples = 2 if "samples" in line else 1
    assert len(results(out)["items"]) == 3 * samples


def test_defaults_are_the_bundles(featinv, bundle, maps, tmp_path):
    """5 steps, scale 2.5, seed 42 stand in its manifest; options overrule them."""
    shared = ["sample", "--features", maps, "-m", bundle, "-o"]
    featinv(*shared, tmp_path / "a")
    first = results(tmp_path / "a")
    assert (first["summary"]["steps"], first["summary"]["scale"]) == (5, 2.5)
    assert {i["seed"] for i in first["items"]} == {42}
    featinv(*shared, tmp_path / "b", "--steps", 7, "--scale", 3, "--seed", 9)
    second = results(tmp_path / "b")
    assert (second["summary"]["steps"], second["summary"]["scale"]) == (7, 3)
    assert {i["seed"] for i in second["items"]} == {9}


def test_legacy_may_run_another_count(featinv, bundle, maps, tmp_path):
    featinv("sample", "--features", maps, "-m", bundle, "-o", tmp_path, "--legacy", "--steps", 30)
    assert results(tmp_path)["summary"]["steps"] == 31


def test_words_behind_two_dashes_are_inputs(featinv, bundle, tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "--json.png")
    featinv("reconstruct", "-m", bundle, "-o", "out", "--", "--json.png", cwd=tmp_path)
    assert results(tmp_path / "out")["items"][0]["input"] == "--json.png"


# ------------------------------------------------------------------ bad input files

def npy(tmp_path, array, name="f.npy"):
    np.save(tmp_path / name, array)
    return tmp_path / name


def odd(index, value):
    array = np.zeros((2, *MAP), np.float32)
    array.flat[index] = value
    return array


BAD_MAPS = [
    ("rank 3", np.zeros(MAP, np.float32)), ("rank 5", np.zeros((1, 1, *MAP), np.float32)),
    ("channels", np.zeros((2, 4, 2, 2), np.float32)), ("grid", np.zeros((2, 3, 3, 2), np.float32)),
    ("no map", np.zeros((0, *MAP), np.float32)), ("complex", np.zeros((2, *MAP), np.complex64)),
    ("text", np.array(["a", "b"])), ("NaN", odd(-1, np.nan)), ("infinity", odd(0, np.inf)),
]


@pytest.mark.parametrize("array", [b[1] for b in BAD_MAPS], ids=[b[0] for b in BAD_MAPS])
def test_bad_maps_are_refused(featinv, bundle, tmp_path, array):
    path, out = npy(tmp_path, array), tmp_path / "out"
    result = featinv("sample", "--features", path, "-o", out, "-m", bundle, expect=3)
    assert result.err.startswith(f"featinv: {path}: ") and len(result.err.splitlines()) == 1
    assert not out.exists()


BAD_BYTES = [("empty", b""), ("no array", b"hello"), ("truncated", None), ("missing", False),
             ("folder", True)]


@pytest.mark.parametrize("content", [b[1] for b in BAD_BYTES], ids=[b[0] for b in BAD_BYTES])
def test_bad_files_are_refused(featinv, bundle, maps, tmp_path, content):
    path, out = tmp_path / "f.npy", tmp_path / "out"
    if content is True:
        path.mkdir()
    elif content is None:
        path.write_bytes(maps.read_bytes()[:-4])
    elif content is not False:
        path.write_bytes(content)
    for verb in (["sample", "--features", path, "-o", out, "-m", bundle],
                 ["sample", "--features", maps, "-o", out, "-m", bundle, "--noise", path],
                 ["sample", "--latents-in", path, "-o", out, "-m", bundle],
                 ["metrics", "cosine", maps, path], ["metrics", "fid", path, maps]):
        result = featinv(*verb, expect=3)
        assert result.err.startswith(f"featinv: {path}: ") and len(result.err.splitlines()) == 1
    assert not out.exists()


LANES = (6, *LATENT)  # 3 maps, 2 samples
BAD_GIVEN = [
    ("noise rows", "--noise", np.zeros((5, *LATENT), np.float32)),
    ("noise grid", "--noise", np.zeros((6, 4, 5, 5), np.float32)),
    ("noise rank", "--noise", np.zeros(LATENT, np.float32)),
    ("noise NaN", "--noise", np.full(LANES, np.nan, np.float32)),
    ("step noise steps", "--step-noise", np.zeros((4, *LANES), np.float32)),
    ("step noise lanes", "--step-noise", np.zeros((5, 1, *LATENT), np.float32)),
    ("step noise infinite", "--step-noise", np.full((5, *LANES), np.inf, np.float32)),
    ("context rank", "--context", np.zeros((1, 2, 5), np.float32)),
    ("context width", "--context", np.zeros((2, 6), np.float32)),
    ("context empty", "--context", np.zeros((0, 5), np.float32)),
    ("context NaN", "--context", np.full((2, 5), np.nan, np.float32)),
    ("uncontext width", "--uncontext", np.zeros((2, 4), np.float32)),
    ("latents rows", "--latents-in", np.zeros((5, *LATENT), np.float32)),
    ("latents channels", "--latents-in", np.zeros((6, 3, 6, 5), np.float32)),
    ("latents NaN", "--latents-in", np.full(LANES, np.nan, np.float32)),
]


@pytest.mark.parametrize("option, array", [b[1:] for b in BAD_GIVEN], ids=[b[0] for b in BAD_GIVEN])
def test_given_arrays_that_do_not_fit_are_refused(featinv, bundle, maps, tmp_path, option, array):
    out, given = tmp_path / "out", npy(tmp_path, array)
    result = featinv("sample", "--features", maps, "-o", out, "-m", bundle, "--samples", 2,
                     option, given, expect=3)
    assert len(result.err.splitlines()) == 1 and not out.exists()
    assert "context" not in option or str(given) in result.err


def test_logits_that_do_not_fit_are_refused(featinv, bundle, maps, tmp_path):
    path, out = tmp_path / "f.npz", tmp_path / "out"
    for logits in (np.zeros((3, 6)), np.zeros((2, 7)), np.full((3, 7), np.nan)):
        np.savez(path, features=np.load(maps), logits=logits.astype(np.float32))
        featinv("sample", "--features", path, "-o", out, "-m", bundle, expect=3)
        assert not out.exists()


# ------------------------------------------------------------------ bundle, backend, device

def test_a_refused_bundle(featinv, maps, tmp_path):
    good = tmp_path / "bundle"
    make_bundle(good)
    cases = {
        "missing": lambda: (good / "unet.ts").unlink(),
        "unlisted": lambda: (good / "more.txt").write_text(""),
        "changed": lambda: (good / "unet.ts").write_text("model.a 2 3\nmodel.b 2 2\n"),
        "no JSON": lambda: (good / "manifest.json").write_text("{"),
        "weights": lambda: (good / "unet.safetensors").write_bytes(
            (good / "unet.safetensors").read_bytes()[:-1] + b"\1"),
        "lying header": lambda: ((good / "unet.safetensors").write_bytes(b"\xff" * 40),
                                 write_manifest(good)),
        "gone": lambda: None,
    }
    for name, damage in cases.items():
        import shutil
        shutil.rmtree(good)
        if name != "gone":
            make_bundle(good)
        damage()
        for verb in (["info"], ["sample", "--features", maps, "-o", tmp_path / "out"]):
            weights = verb == ["info"] and name in ("weights", "lying header")
            expect = 0 if weights else 4  # weights are looked at when they are needed
            result = featinv(*verb, "-m", good, expect=expect)
            assert len(result.err.splitlines()) == (0 if weights else 1), (name, result.err)
            assert not (tmp_path / "out").exists(), name


def test_no_such_device_or_backend(featinv, bundle, maps, tmp_path):
    sample = ["sample", "--features", maps, "-m", bundle, "-o", tmp_path / "out"]
    featinv(*sample, "--device", "cuda", expect=6)
    featinv(*sample, "--device", "cuda:7", expect=6)
    featinv(*sample, expect=6, env={"FEATINV_BACKEND": str(tmp_path / "none.so")})
    featinv(*sample, expect=6, env={"FAKE_REFUSE": "1"})
    assert not (tmp_path / "out").exists()
    result = featinv("doctor", "-m", bundle, expect=6, env={"FAKE_REFUSE": "1"})
    assert "the fake backend refuses" in result.out


def test_a_part_that_the_bundle_lacks(featinv, maps, photos, tmp_path):
    draws = make_bundle(tmp_path / "draws", backbone=False)
    sees = make_bundle(tmp_path / "sees", generator=False)
    out = tmp_path / "out"
    featinv("reconstruct", photos[0], "-o", out, "-m", draws, expect=1)
    featinv("extract", photos[0], "-o", tmp_path / "m.npz", "-m", draws, expect=1)
    featinv("reconstruct", photos[0], "-o", out, "-m", sees, expect=1)
    featinv("sample", "--features", maps, "-o", out, "-m", sees, expect=1)
    assert not out.exists() and not (tmp_path / "m.npz").exists()
    featinv("sample", "--features", maps, "-o", out, "-m", draws)
    assert {i["cosine_median"] for i in results(out)["items"]} == {None}
    assert results(out)["summary"]["cosine_median"] is None


def test_a_failing_backend(featinv, bundle, maps, tmp_path):
    for function in ("sampler_create", "sampler_hints", "sampler_start", "sampler_step",
                     "sampler_decode", "backbone", "program_load", "program_finish"):
        expect = 4 if function == "program_load" else 1  # a program that does not load
        result = featinv("sample", "--features", maps, "-o", tmp_path / "out", "-m", bundle,
                         expect=expect, env={"FAKE_FAIL": function})
        assert "failed on request" in result.err and not (tmp_path / "out").exists(), function


# ------------------------------------------------------------------ doctor, info

def test_doctor_and_info_in_words_and_json(featinv, bundle):
    assert "fake backend" in featinv("doctor", "-m", bundle).out
    doctor = json.loads(featinv("doctor", "-m", bundle, "--json").out)
    assert doctor["backend"] == {"usable": True, "info": "fake backend"}
    assert doctor["bundle"] == {"usable": True, "path": str(bundle)} and doctor["cuda"] is False
    assert doctor["processors"] >= 1 and doctor["memory_gib"] > 0
    words = featinv("info", "-m", bundle).out
    assert "backbone   mean" in words and "3 channels, 2 x 2" in words
    info = json.loads(featinv("info", "-m", bundle, "--json").out)
    assert info["map"] == list(MAP) and info["classes"] == list("abcdefg")
    assert info["generator"]["latent"] == list(LATENT)
    assert info["generator"]["image"] == list(IMAGE)
    assert info["generator"]["defaults"]["steps"] == 5
    assert info["manifest"]["format"] == "featinv-bundle"
    assert info["sha256"] in featinv("info", "-m", bundle).out
    assert not featinv("info", "-m", bundle, "-q").out


def test_the_environment_names_the_default_bundle(featinv, bundle):
    env = {"FEATINV_MODEL": str(bundle)}
    assert json.loads(featinv("info", "--json", env=env).out)["name"] == "fake"
    featinv("info", expect=4, env={"FEATINV_MODEL": str(bundle / "none")})


def test_a_full_standard_output_is_an_error(featinv, bundle):
    import subprocess

    from conftest import COMMAND
    with open("/dev/full", "w") as full:
        result = subprocess.run([str(COMMAND), "info", "-m", str(bundle)], stdout=full,
                                stderr=subprocess.PIPE)
    assert result.returncode == 1 and result.stderr.startswith(b"featinv: standard output: ")
