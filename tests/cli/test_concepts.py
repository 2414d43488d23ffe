"""`featinv concepts` and `attenuate`: what they write, against NumPy, and what they refuse."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from conftest import CLASSES, orthonormal

VERBS = ["concepts", "concepts fit", "concepts show", "concepts decompose", "concepts import",
         "attenuate", "viz", "mix", "compose"]


# ------------------------------------------------------------------ data

@pytest.fixture
def space(tmp_path, featinv):
    """Three oblique concepts of a space of 12 channels: (file, list of bases)."""
    rng = np.random.default_rng(5)
    bases = [orthonormal(rng, 12, k) for k in (3, 1, 4)]
    np.save(tmp_path / "bases.npy", np.hstack(bases))
    path = tmp_path / "space.npz"
    featinv("concepts", "import", "--bases", tmp_path / "bases.npy", "--offsets", "0,3,4,8",
            "-o", path)
    return path, bases


@pytest.fixture
def features(tmp_path):
    """Maps (2, 12, 3, 4)."""
    path = tmp_path / "features.npy"
    np.save(path, np.random.default_rng(6).normal(size=(2, 12, 3, 4)).astype(np.float32))
    return path


@pytest.fixture
def small(tmp_path, featinv):
    """Two concepts in the fake bundle's space of 3 channels."""
    np.save(tmp_path / "small.npy", np.eye(3)[:, :2])
    path = tmp_path / "small.npz"
    featinv("concepts", "import", "--bases", tmp_path / "small.npy", "--offsets", "0,1,2",
            "-o", path)
    return path


def oblique(bases: list[np.ndarray], maps: np.ndarray) -> np.ndarray:
    """Parts (K + 1, N, C, H, W) of maps by the definition: a square basis, solved."""
    stack = np.hstack(bases)
    rest = np.linalg.svd(stack)[0][:, stack.shape[1]:]
    square = np.hstack([stack, rest])
    vectors = np.moveaxis(maps.astype(float), 1, -1)
    coefficients = np.linalg.solve(square, vectors.reshape(-1, len(stack)).T)
    ends = np.cumsum([b.shape[1] for b in bases])
    parts = [square[:, a:b] @ coefficients[a:b]
             for a, b in zip([0, *ends], [*ends, len(stack)])]
    return np.stack([np.moveaxis(p.T.reshape(vectors.shape), -1, 1) for p in parts])


# ------------------------------------------------------------------ help

@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_has_its_help(featinv, verb):
    out = featinv(*verb.split(), "--help").out
    assert out.startswith(f"usage: featinv {verb}") and "--help" in out and "--json" in out
    assert all(len(line) <= 100 for line in out.splitlines()), out


def test_concepts_needs_a_part(featinv):
    assert "fit, show, decompose or import" in featinv("concepts", expect=2).err
    assert "finds" in featinv("concepts", "finds", expect=2).err


# ------------------------------------------------------------------ import

def test_import_writes_the_bases_as_they_are(featinv, space):
    path, bases = space
    with np.load(path) as file:
        assert np.array_equal(file["offsets"], [0, 3, 4, 8])
        assert file["bases"].dtype == np.float64
        assert np.abs(file["bases"] - np.hstack(bases)).max() < 1e-12


def test_import_can_make_bases_orthonormal(featinv, tmp_path):
    rng = np.random.default_rng(1)
    given = rng.normal(size=(6, 3))
    np.save(tmp_path / "b.npy", given)
    line = ["concepts", "import", "--bases", tmp_path / "b.npy", "--offsets", "0,2,3", "-o",
            tmp_path / "c.npz"]
    assert "b.npy" in featinv(*line, expect=3).err
    root = json.loads(featinv(*line, "--orthonormalize", "--json").out)
    assert root["count"] == 2 and root["dimensions"] == [2, 1] and root["channels"] == 6
    bases = np.load(tmp_path / "c.npz")["bases"]
    for a, b in ((0, 2), (2, 3)):
        own = bases[:, a:b]
        assert np.abs(own.T @ own - np.eye(b - a)).max() < 1e-12
        projected = own @ (own.T @ given[:, a:b])
        assert np.abs(projected - given[:, a:b]).max() < 1e-12  # the same subspace
    angle = np.arccos(np.linalg.svd(bases[:, :2].T @ bases[:, 2:])[1].max())
    assert root["smallest_angle"] == pytest.approx(angle, abs=1e-9)


IMPORT_REFUSED = [
    ("offsets that fall", "0,4,3,8", 2), ("an empty concept", "0,3,3,8", 2),
    ("not from 0", "1,3,4,8", 2), ("another end", "0,3,4,7", 2), ("beyond the end", "0,3,4,9", 2),
    ("one number", "8", 2), ("a fraction", "0,2.5,8", 2), ("a word", "0,x,8", 2),
    ("nothing between", "0,,8", 2), ("negative", "0,-3,8", 2), ("NaN", "0,nan,8", 2),
]


@pytest.mark.parametrize("offsets, code", [c[1:] for c in IMPORT_REFUSED],
                         ids=[c[0] for c in IMPORT_REFUSED])
def test_import_refuses_offsets(featinv, space, tmp_path, offsets, code):
    result = featinv("concepts", "import", "--bases", tmp_path / "bases.npy", "--offsets", offsets,
                     "-o", tmp_path / "no.npz", expect=code)
    assert offsets in result.err and len(result.err.splitlines()) == 1
    assert not (tmp_path / "no.npz").exists()


BASES_REFUSED = {
    "not orthonormal": 2.0 * np.eye(4)[:, :2], "skew": np.array([[1, 1], [0, 1], [0, 0]]) / 1.0,
    "NaN": np.full((4, 2), np.nan), "infinite": np.full((4, 2), np.inf), "one row": np.ones((1, 2)),
    "more than its channels": np.eye(3)[:, [0, 1, 2, 0]], "a vector": np.ones(4),
}


@pytest.mark.parametrize("name", BASES_REFUSED)
def test_import_refuses_bases(featinv, tmp_path, name):
    bases = BASES_REFUSED[name]
    np.save(tmp_path / "b.npy", bases)
    result = featinv("concepts", "import", "--bases", tmp_path / "b.npy", "--offsets",
                     f"0,{bases.shape[-1]}", "-o", tmp_path / "no.npz", expect=3)
    assert "b.npy" in result.err and len(result.err.splitlines()) == 1
    assert not (tmp_path / "no.npz").exists()


# ------------------------------------------------------------------ decompose

def test_decompose_is_the_oblique_decomposition(featinv, space, features, tmp_path):
    path, bases = space
    out = featinv("concepts", "decompose", "--features", features, "--concepts", path, "-o",
                  tmp_path / "parts.npz").out
    assert "complement" in out and "concept 2" in out
    maps = np.load(features)
    with np.load(tmp_path / "parts.npz") as file:
        assert file.files == ["parts"]
        parts = file["parts"]
    wanted = oblique(bases, maps)
    assert parts.shape == (4, *maps.shape) and parts.dtype == np.float32
    assert np.abs(parts - wanted).max() < 2e-6 * np.abs(wanted).max()
    assert np.abs(parts.sum(0) - maps).max() < 1e-5 * np.abs(maps).max()


def test_concepts_may_span_everything(featinv, features, tmp_path):
    rng = np.random.default_rng(2)
    np.save(tmp_path / "b.npy", np.hstack([orthonormal(rng, 12, 7), orthonormal(rng, 12, 5)]))
    featinv("concepts", "import", "--bases", tmp_path / "b.npy", "--offsets", "0,7,12", "-o",
            tmp_path / "c.npz")
    featinv("concepts", "decompose", "--features", features, "--concepts", tmp_path / "c.npz",
            "-o", tmp_path / "parts.npz", "-q")
    parts = np.load(tmp_path / "parts.npz")["parts"]
    maps = np.load(features)
    assert not parts[2].any()
    assert np.abs(parts.sum(0) - maps).max() < 1e-5 * np.abs(parts).max()


def test_overlapping_concepts_are_refused_where_parts_are_wanted(featinv, features, tmp_path):
    shared = np.eye(12)[:, [0, 1, 1, 2]]
    np.save(tmp_path / "b.npy", shared)
    out = featinv("concepts", "import", "--bases", tmp_path / "b.npy", "--offsets", "0,2,4", "-o",
                  tmp_path / "c.npz").out
    assert "warning: the concepts overlap" in out
    for line in (["concepts", "decompose", "-o", tmp_path / "p.npz"],
                 ["attenuate", "--concept", "0", "-o", tmp_path / "p.npy"]):
        result = featinv(*line, "--features", features, "--concepts", tmp_path / "c.npz", expect=3)
        assert "c.npz" in result.err and len(result.err.splitlines()) == 1
    assert not list(tmp_path.glob("p.np*"))


# ------------------------------------------------------------------ attenuate

@pytest.mark.parametrize("concept, place", [("0", 0), ("2", 2), ("complement", 3)])
@pytest.mark.parametrize("factor", [0, 0.25, 2.5, -1])
def test_attenuate_takes_away_a_share_of_the_part(featinv, space, features, tmp_path, concept,
                                                  place, factor):
    path, bases = space
    featinv("attenuate", "--features", features, "--concepts", path, "--concept", concept,
            "--factor", factor, "-o", tmp_path / "g.npy")
    maps, out = np.load(features), np.load(tmp_path / "g.npy")
    parts = oblique(bases, maps)
    assert np.abs(out - (maps - (1 - factor) * parts[place])).max() < 4e-6 * np.abs(parts).max()
    if factor == 0:
        assert np.abs(oblique(bases, out)[place]).max() < 1e-5 * np.abs(parts).max()


def test_a_factor_of_one_is_the_identity_bit_for_bit(featinv, space, features, tmp_path):
    featinv("attenuate", "--features", features, "--concepts", space[0], "--concept", 1,
            "--factor", 1, "-o", tmp_path / "g.npz")
    with np.load(tmp_path / "g.npz") as file:
        assert file.files == ["features"]
        assert file["features"].tobytes() == np.load(features).tobytes()


def test_the_usual_factor_is_a_quarter(featinv, space, features, tmp_path):
    line = ["attenuate", "--features", features, "--concepts", space[0], "--concept", 0]
    featinv(*line, "-o", tmp_path / "a.npy")
    root = json.loads(featinv(*line, "--factor", 0.25, "-o", tmp_path / "b.npy", "--json").out)
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()
    maps, out = np.load(features), np.load(tmp_path / "b.npy")
    assert root["shape"] == [2, 12, 3, 4] and root["norm_percentile"] is None
    assert root["change"] == pytest.approx(np.linalg.norm(out - maps) / np.linalg.norm(maps))


def test_a_mask_says_where(featinv, space, features, tmp_path):
    mask = np.random.default_rng(3).uniform(size=(2, 3, 4)).astype(np.float32)
    mask[0, 0] = 0
    np.save(tmp_path / "m.npy", mask)
    line = ["attenuate", "--features", features, "--concepts", space[0], "--concept", 0,
            "--factor", 0, "-o", tmp_path / "g.npy", "--mask"]
    featinv(*line, tmp_path / "m.npy")
    maps, part = np.load(features), oblique(space[1], np.load(features))[0]
    out = np.load(tmp_path / "g.npy")
    assert np.abs(out - (maps - mask[:, None] * part)).max() < 4e-6 * np.abs(part).max()
    assert out[0, :, 0].tobytes() == maps[0, :, 0].tobytes()  # untouched
    np.save(tmp_path / "m.npy", mask[1])
    featinv(*line, tmp_path / "m.npy")
    shared = maps - mask[1] * part
    assert np.abs(np.load(tmp_path / "g.npy") - shared).max() < 4e-6 * np.abs(part).max()


def test_a_picture_masks_by_area(featinv, space, features, tmp_path):
    grey = np.random.default_rng(4).integers(0, 256, size=(9, 10), dtype=np.uint8)
    Image.fromarray(grey).save(tmp_path / "m.png")
    featinv("attenuate", "--features", features, "--concepts", space[0], "--concept", 0,
            "--factor", 0, "-o", tmp_path / "g.npy", "--mask", tmp_path / "m.png")
    # 9 x 10 pixels to 3 x 4 cells: whole rows, columns of two and a half
    rows = np.kron(np.eye(3), np.ones(3)) / 3
    columns = np.kron(np.eye(4), np.ones(5)).reshape(4, 10, 2).sum(2) / 5
    mask = rows @ (grey / 255) @ columns.T
    maps, part = np.load(features), oblique(space[1], np.load(features))[0]
    out = np.load(tmp_path / "g.npy")
    assert np.abs(out - (maps - mask * part)).max() < 4e-6 * np.abs(part).max()


def test_a_named_bundle_says_whether_the_maps_are_usual(featinv, bundle, small, maps, tmp_path):
    root = json.loads(featinv("attenuate", "--features", maps, "--concepts", small, "--concept", 0,
                              "-m", bundle, "-o", tmp_path / "g.npy", "--json").out)
    assert root["norm_percentile"] == [None] * 3  # this bundle keeps no statistics
    assert root["residual_percentile"] == [None] * 3


# The line behind `attenuate --features F -o G.npy`; {c}: the concepts.
ATTENUATE_REFUSED = [
    ("no concepts", "--concept 0", 2), ("no concept", "--concepts {c}", 2),
    ("concept 3 of 3", "--concepts {c} --concept 3", 2),
    ("concept -1", "--concepts {c} --concept -1", 2),
    ("all", "--concepts {c} --concept all", 2),
    ("factor NaN", "--concepts {c} --concept 0 --factor nan", 2),
    ("factor infinite", "--concepts {c} --concept 0 --factor inf", 2),
    ("mask of another size", "--concepts {c} --concept 0 --mask wide.npy", 3),
    ("mask of other maps", "--concepts {c} --concept 0 --mask many.npy", 3),
    ("mask above 1", "--concepts {c} --concept 0 --mask above.npy", 3),
    ("mask NaN", "--concepts {c} --concept 0 --mask nan.npy", 3),
    ("mask missing", "--concepts {c} --concept 0 --mask none.png", 3),
    ("mask no picture", "--concepts {c} --concept 0 --mask junk.png", 3),
    ("concepts missing", "--concepts none.npz --concept 0", 3),
    ("concepts of another space", "--concepts other.npz --concept 0", 3),
    ("concepts without bases", "--concepts empty.npz --concept 0", 3),
    ("concepts that are no archive", "--concepts junk.npz --concept 0", 3),
    ("concepts that are truncated", "--concepts half.npz --concept 0", 3),
    ("concepts not orthonormal", "--concepts skew.npz --concept 0", 3),
    ("concepts with NaN", "--concepts nan.npz --concept 0", 3),
    ("concepts with more than C", "--concepts many.npz --concept 0", 3),
    ("offsets beyond the bases", "--concepts beyond.npz --concept 0", 3),
    ("an argument", "--concepts {c} --concept 0 more", 2),
    ("suffix", "--concepts {c} --concept 0 -o G.bin", 2),
    ("bundle of another space", "--concepts {c} --concept 0 -m {b}", 3),
]


def make_bad_files(folder, good):
    bases, rng = np.eye(12)[:, :3], np.random.default_rng(0)
    np.save(folder / "wide.npy", np.ones((4, 3), np.float32))
    np.save(folder / "many.npy", np.ones((3, 3, 4), np.float32))
    np.save(folder / "above.npy", np.full((3, 4), 1.5, np.float32))
    np.save(folder / "nan.npy", np.full((3, 4), np.nan, np.float32))
    (folder / "junk.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(30))
    (folder / "junk.npz").write_bytes(bytes(100))
    (folder / "half.npz").write_bytes(good.read_bytes()[:300])
    np.savez(folder / "empty.npz", offsets=np.array([0, 3]))
    np.savez(folder / "other.npz", bases=np.eye(5)[:, :3], offsets=np.array([0, 3], np.int32))
    np.savez(folder / "skew.npz", bases=rng.normal(size=(12, 3)),
             offsets=np.array([0, 3], np.int32))
    np.savez(folder / "nan.npz", bases=bases * np.nan, offsets=np.array([0, 3], np.int32))
    np.savez(folder / "many.npz", bases=np.hstack([np.eye(12), np.eye(12)]),
             offsets=np.array([0, 12, 24], np.int32))
    np.savez(folder / "beyond.npz", bases=bases, offsets=np.array([0, 2, 9], np.int32))


@pytest.mark.parametrize("line, code", [c[1:] for c in ATTENUATE_REFUSED],
                         ids=[c[0] for c in ATTENUATE_REFUSED])
def test_attenuate_refuses(featinv, bundle, space, features, tmp_path, line, code):
    make_bad_files(tmp_path, space[0])
    words = line.format(c=space[0], b=bundle).split()
    result = featinv("attenuate", "--features", features, "-o", tmp_path / "g.npy", *words,
                     expect=code, cwd=tmp_path)
    assert len(result.err.splitlines()) == 1
    assert not (tmp_path / "g.npy").exists()


def test_an_output_that_cannot_be_written_is_said_so(featinv, space, features, tmp_path):
    for path in ("none/g.npy", "folder"):
        (tmp_path / "folder").mkdir(exist_ok=True)
        name = path + ("" if path.endswith("npy") else ".npy")
        if path == "folder":
            (tmp_path / name).mkdir()
        result = featinv("attenuate", "--features", features, "--concepts", space[0], "--concept",
                         0, "-o", tmp_path / name, expect=1)
        assert name in result.err


# ------------------------------------------------------------------ show

def test_show_without_images_opens_no_bundle(featinv, space, tmp_path):
    path, bases = space
    featinv("concepts", "show", "--concepts", path, "-o", tmp_path / "out", "-q",
            env={"FEATINV_MODEL": str(tmp_path / "none")})
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "index.html", "numbers.json", "numbers.npz"]
    root = json.loads((tmp_path / "out" / "numbers.json").read_text())
    assert [c["concept"] for c in root["concepts"]] == [0, 1, 2, "complement"]
    assert [c["dimension"] for c in root["concepts"]] == [3, 1, 4, 4]
    with np.load(tmp_path / "out" / "numbers.npz") as file:
        grassmann, smallest = file["grassmann"], file["smallest_angle"]
    stack = np.hstack(bases)
    all_bases = [*bases, np.linalg.svd(stack)[0][:, 8:]]
    for i, a in enumerate(all_bases):
        for j, b in enumerate(all_bases):
            angles = np.arccos(np.clip(np.linalg.svd(a.T @ b)[1], -1, 1))
            assert grassmann[i, j] == pytest.approx(np.linalg.norm(angles), abs=1e-6)
            assert smallest[i, j] == pytest.approx(angles.min(), abs=1e-6)


def test_show_writes_pictures_numbers_and_a_page(featinv, bundle, small, photos, tmp_path):
    out = tmp_path / "out"
    words = featinv("concepts", "show", "--concepts", small, *photos[:3], "-m", bundle, "-o",
                    out).out
    assert words == f"{out}/index.html\n"
    names = {f"p{i}-{part}.png" for i in range(3)
             for part in ("original", "concept-0", "concept-1", "complement")}
    assert {p.name for p in out.iterdir()} == names | {"index.html", "numbers.json", "numbers.npz"}
    root = json.loads((out / "numbers.json").read_text())
    featinv("extract", *photos[:3], "-m", bundle, "-o", tmp_path / "f.npz", "-q")
    with np.load(tmp_path / "f.npz") as file:
        maps, logits = file["features"].astype(float), file["logits"]
    with np.load(out / "numbers.npz") as file:
        numbers = {k: file[k] for k in file.files}
    # these concepts are the first two channels, and the complement is the third
    norms = np.linalg.norm(maps, axis=1).max((1, 2))
    wanted = np.abs(maps.transpose(1, 0, 2, 3)) / norms[None, :, None, None]
    assert np.abs(numbers["activation"] - wanted).max() < 1e-6
    for item, row, own in zip(root["items"], logits, wanted.transpose(1, 0, 2, 3)):
        assert item["class"] == CLASSES[row.argmax()]
        assert item["logit"] == pytest.approx(float(row.max()), rel=1e-6)
        assert item["activation_maximum"] == pytest.approx(own.max((1, 2)).tolist(), rel=1e-5)
    for k, concept in enumerate(root["concepts"]):
        order = np.argsort(-wanted[k].max((1, 2)), kind="stable")
        got = [p["maximum"] for p in concept["prototypes"]]
        assert got == pytest.approx(wanted[k].max((1, 2))[order].tolist(), rel=1e-5), k
    page = (out / "index.html").read_text()
    assert "http" not in page and "<script" not in page and page.count("data:image/png") >= 12
    assert "Complement" in page and page.index("Concept 1") < page.index("Complement")


def test_show_does_without_what_the_head_cannot_say(featinv, bundle, small, photos, tmp_path):
    featinv("concepts", "show", "--concepts", small, photos[0], "-m", bundle, "-o",
            tmp_path / "out")  # the head's weights are not to be found
    root = json.loads((tmp_path / "out" / "numbers.json").read_text())
    assert root["items"][0]["local_relevance"] is None
    assert root["concepts"][0]["global_relevance"] is None


def test_show_reports_bad_images_and_does_the_rest(featinv, bundle, small, photos, tmp_path):
    photos[1].write_bytes(b"")
    result = featinv("concepts", "show", "--concepts", small, *photos[:3], "-m", bundle, "-o",
                     tmp_path / "out", expect=3)
    root = json.loads((tmp_path / "out" / "numbers.json").read_text())
    assert [bool(i.get("error")) for i in root["items"]] == [False, False, True]
    assert root["items"][2]["input"] == str(photos[1]) and len(result.err.splitlines()) == 1
    assert "p1.png" in (tmp_path / "out" / "index.html").read_text()


@pytest.mark.parametrize("line, code", [
    ("-o out", 2), ("--concepts {c}", 2), ("--concepts none.npz -o out", 3),
    ("--concepts {c} none.png -o out -m {b}", 3), ("--concepts other.npz p.png -o out -m {b}", 3)])
def test_show_refuses(featinv, bundle, small, space, tmp_path, line, code):
    make_bad_files(tmp_path, space[0])
    Image.new("RGB", (4, 4)).save(tmp_path / "p.png")
    words = line.format(c=small, b=bundle).split()
    featinv("concepts", "show", *words, expect=code, cwd=tmp_path)
    assert not (tmp_path / "out").exists()
