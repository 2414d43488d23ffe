"""`featinv concepts fit`: planted subspaces are found, options and rows are refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import scipy.sparse

from conftest import CLASSES, MAP, orthonormal


def planted(rng, counts, channels=8, dimension=2, noise=0.01) -> tuple[np.ndarray, np.ndarray]:
    """Unit rows of random subspaces and their numbers."""
    rows, labels = [], []
    for k, count in enumerate(counts):
        own = rng.normal(size=(count, dimension))
        own /= np.linalg.norm(own, axis=1, keepdims=True)
        own = own @ orthonormal(rng, channels, dimension).T
        rows.append(own + noise * rng.normal(size=own.shape))
        labels += [k] * count
    rows = np.concatenate(rows)
    order = rng.permutation(len(rows))
    rows = rows[order] / np.linalg.norm(rows[order], axis=1, keepdims=True)
    return rows.astype(np.float32), np.array(labels)[order]


@pytest.fixture
def rows(tmp_path):
    """Planted rows (90, 8) in three planes: (file, labels)."""
    values, labels = planted(np.random.default_rng(11), (30, 30, 30))
    np.save(tmp_path / "rows.npy", values)
    return tmp_path / "rows.npy", labels


def test_fit_finds_planted_subspaces(featinv, rows, tmp_path):
    path, labels = rows
    out = tmp_path / "c.npz"
    root = json.loads(featinv("concepts", "fit", "--features", path, "--count", 3,
                              "--outlier-quantile", 1, "-o", out, "--json", "--coefficients-out",
                              tmp_path / "s.npz").out)
    assert root["count"] == 3 and root["dimensions"] == [2, 2, 2] and root["rows"] == 90
    assert root["rows_removed"] == 0 and root["stationarity_residual"] < 1e-9
    assert root["seconds"] > 0 and 0 < root["smallest_angle"] <= np.pi / 2
    with np.load(out) as file:
        found, bases, offsets = file["labels"], file["bases"], file["offsets"]
    assert [c["rows"] for c in root["concepts"]] == [*np.bincount(found), None]
    values = np.load(path)
    for k in range(3):
        assert len(set(labels[found == k])) == 1, k  # a cluster holds one subspace
        own = bases[:, offsets[k]:offsets[k + 1]]
        rest = values[found == k] - values[found == k] @ own @ own.T
        assert np.linalg.norm(rest, axis=1).max() < 0.1
    check_coefficients(tmp_path / "s.npz", values, root)


def check_coefficients(path, values, root):
    """The objective of the coefficients that were written, by its definition, is the one said."""
    c = scipy.sparse.load_npz(path)
    assert c.shape == (len(values),) * 2 and c.dtype == np.float64 and c.format == "csr"
    assert not c.diagonal().any() and c.nnz > 0
    x = values.astype(float)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    gram = np.abs(x @ x.T)
    np.fill_diagonal(gram, 0)
    alpha = gram.max(1) / 10
    lengths = np.asarray(np.abs(c).sum(1)).ravel()
    objective = lengths + ((x - c @ x) ** 2).sum(1) / (2 * alpha)
    assert root["objective"] == pytest.approx(objective.sum(), rel=1e-6)


def test_fit_prints_a_table(featinv, rows, tmp_path):
    out = featinv("concepts", "fit", "--features", rows[0], "--count", 3, "-o",
                  tmp_path / "c.npz").out
    lines = out.splitlines()
    assert lines[0].split() == ["concept", "dimension", "rows"]
    assert [line.split()[0] for line in lines[1:5]] == ["0", "1", "2", "complement"]
    assert any("smallest angle" in line for line in lines) and lines[-1] == str(tmp_path / "c.npz")
    assert not featinv("concepts", "fit", "--features", rows[0], "--count", 3, "-o",
                       tmp_path / "c.npz", "-q").out


@pytest.mark.parametrize("degrees, warns", [(2, True), (20, False)])
def test_fit_warns_of_a_small_angle(featinv, tmp_path, degrees, warns):
    angle = np.radians(degrees)
    values = np.zeros((60, 6), np.float32)
    values[:30, 0] = 1
    values[30:, :2] = np.cos(angle), np.sin(angle)
    values += 1e-4 * np.random.default_rng(3).normal(size=values.shape).astype(np.float32)
    np.save(tmp_path / "r.npy", values)
    line = ["concepts", "fit", "--features", tmp_path / "r.npy", "--count", 2, "--method", "kmeans",
            "-o", tmp_path / "c.npz"]
    root = json.loads(featinv(*line, "--json").out)
    assert root["smallest_angle_degrees"] == pytest.approx(degrees, abs=0.05)
    assert (root["warning"] is not None) == warns
    assert ("warning: concepts 0 and 1" in featinv(*line).out) == warns


@pytest.mark.parametrize("method", ["kmeans", "pca"])
def test_the_simple_methods_need_a_count(featinv, rows, tmp_path, method):
    line = ["concepts", "fit", "--features", rows[0], "--method", method, "-o", tmp_path / "c.npz"]
    assert "--count" in featinv(*line, expect=2).err
    root = json.loads(featinv(*line, "--count", 3, "--json").out)
    assert root["dimensions"] == [1, 1, 1] and root["objective"] is None


def test_the_same_seed_gives_the_same_file(featinv, rows, tmp_path):
    for name in "ab":
        featinv("concepts", "fit", "--features", rows[0], "--count", 3, "--max-rows", 60, "--seed",
                7, "-o", tmp_path / f"{name}.npz", "-q")
    a, b = (dict(np.load(tmp_path / f"{name}.npz")) for name in "ab")
    for key in ("bases", "offsets", "labels"):
        assert np.array_equal(a[key], b[key]), key
    assert (a["labels"] == -1).sum() >= 30  # not sampled, and outliers


def test_maps_give_a_row_for_each_position(featinv, tmp_path):
    rng = np.random.default_rng(9)
    values, _ = planted(rng, (24, 24))
    np.save(tmp_path / "m.npy", values.reshape(3, 4, 4, 8).transpose(0, 3, 1, 2))
    np.save(tmp_path / "r.npy", values)
    for name in "mr":
        featinv("concepts", "fit", "--features", tmp_path / f"{name}.npy", "--count", 2, "-o",
                tmp_path / f"{name}.npz", "-q")
    maps, flat = (dict(np.load(tmp_path / f"{name}.npz")) for name in "mr")
    assert maps["labels"].shape == (3, 4, 4) and flat["labels"].shape == (48,)
    assert np.array_equal(maps["labels"].ravel(), flat["labels"])
    assert np.array_equal(maps["bases"], flat["bases"])


def test_a_class_keeps_its_rows(featinv, bundle, tmp_path):
    rng = np.random.default_rng(10)
    features = rng.normal(size=(12, *MAP)).astype(np.float32)
    logits = rng.normal(size=(12, len(CLASSES))).astype(np.float32)
    logits[::2, 3] = 9
    keep = logits.argmax(1) == 3
    np.savez(tmp_path / "f.npz", features=features, logits=logits)
    np.savez(tmp_path / "kept.npz", features=features[keep])
    line = ["-m", bundle, "--class", CLASSES[3], "--count", 1, "--json"]
    root = json.loads(featinv("concepts", "fit", "--features", tmp_path / "f.npz", *line, "-o",
                              tmp_path / "a.npz").out)
    # a file without logits is taken as a whole
    again = json.loads(featinv("concepts", "fit", "--features", tmp_path / "kept.npz", *line, "-o",
                               tmp_path / "b.npz").out)
    a, b = dict(np.load(tmp_path / "a.npz")), dict(np.load(tmp_path / "b.npz"))
    assert np.array_equal(a["bases"], b["bases"]) and a["labels"].shape == (keep.sum(), *MAP[1:])
    assert root["rows"] == again["rows"] == 4 * keep.sum() and root["class"] == CLASSES[3]
    # the fake head is no linear function of the map: what needs its weight is unknown or refused
    assert root["completeness"] is None and root["concepts"][0]["relevance"] is None
    for option in (["--orthogonalize"], ["--count", "completeness"]):
        result = featinv("concepts", "fit", "--features", tmp_path / "f.npz", *line[:4], *option,
                         "-o", tmp_path / "no.npz", expect=1)
        assert "head" in result.err and not (tmp_path / "no.npz").exists()


# Rows of the fake backbone's images lie on a line: only outputs are looked at here.
def test_images_are_extracted_and_bad_ones_reported(featinv, bundle, photos, tmp_path):
    photos[2].write_bytes(b"")
    result = featinv("concepts", "fit", photos[0].parent, "-m", bundle, "--method", "pca",
                     "--count", 1, "-o", tmp_path / "c.npz", "--json", expect=3)
    root = json.loads(result.out)
    assert [e["input"] for e in root["errors"]] == [str(photos[2])]
    assert root["images"] == [str(p) for p in photos if p != photos[2]]
    assert root["rows"] == 6 * MAP[1] * MAP[2]
    assert len(result.err.splitlines()) == 1


FIT_USAGE = [
    ("no input", ""), ("both inputs", "--features rows.npy photo.png"),
    ("no output", "--features rows.npy -o="), ("suffix", "--features rows.npy -o c.npy"),
    ("K 0", "--features rows.npy --count 0"), ("K -1", "--features rows.npy --count -1"),
    ("K above n", "--features rows.npy --count 91"), ("K a word", "--features rows.npy --count x"),
    ("gamma 0", "--features rows.npy --gamma 0"), ("gamma -1", "--features rows.npy --gamma -1"),
    ("gamma NaN", "--features rows.npy --gamma nan"), ("tau 0", "--features rows.npy --tau 0"),
    ("tau 1.1", "--features rows.npy --tau 1.1"), ("tau -1", "--features rows.npy --tau -1"),
    ("quantile 0", "--features rows.npy --outlier-quantile 0"),
    ("quantile 1.5", "--features rows.npy --outlier-quantile 1.5"),
    ("rows -1", "--features rows.npy --max-rows -1"),
    ("method", "--features rows.npy --method nmf"), ("basis", "--features rows.npy --basis pca"),
    ("memory", "--features rows.npy --memory 2T"), ("memory 0", "--features rows.npy --memory 0"),
    ("orthogonalize without a class", "--features rows.npy --orthogonalize"),
    ("completeness without a class", "--features rows.npy --count completeness"),
    ("class of no bundle's", "--features rows.npy --class nobody -m {b}"),
    ("coefficients suffix", "--features rows.npy --coefficients-out s.npy"),
]


@pytest.mark.parametrize("line", [c[1] for c in FIT_USAGE], ids=[c[0] for c in FIT_USAGE])
def test_fit_refuses_options(featinv, bundle, rows, tmp_path, line):
    result = featinv("concepts", "fit", "-o", tmp_path / "c.npz", *line.format(b=bundle).split(),
                     expect=2, cwd=tmp_path)
    assert len(result.err.splitlines()) == 1 and not (tmp_path / "c.npz").exists()


def bad_rows(name: str) -> np.ndarray:
    good = planted(np.random.default_rng(11), (30, 30, 30))[0]
    if name == "a row of zeros":
        good[17] = 0
    elif name == "NaN":
        good[17, 2] = np.nan
    elif name == "infinity":
        good[17, 2] = np.inf
    elif name == "no rows":
        return good[:0]
    elif name == "one number":
        return np.float32(1.0)
    elif name == "three dimensions":
        return good.reshape(9, 10, 8)
    elif name == "all zero":
        good[:] = 0
    return good


@pytest.mark.parametrize("name", ["a row of zeros", "NaN", "infinity", "no rows", "one number",
                                  "three dimensions", "all zero"])
def test_fit_refuses_rows(featinv, tmp_path, name):
    np.save(tmp_path / "bad.npy", bad_rows(name))
    result = featinv("concepts", "fit", "--features", tmp_path / "bad.npy", "--count", 2, "-o",
                     tmp_path / "c.npz", expect=3)
    assert "bad.npy" in result.err and len(result.err.splitlines()) == 1
    assert not (tmp_path / "c.npz").exists()


@pytest.mark.parametrize("name", ["missing.npy", "junk.npy", "text.npz"])
def test_fit_refuses_files(featinv, tmp_path, name):
    if name != "missing.npy":
        (tmp_path / name).write_bytes(b"not an array")
    result = featinv("concepts", "fit", "--features", tmp_path / name, "--count", 2, "-o",
                     tmp_path / "c.npz", expect=3)
    assert name in result.err


def test_what_is_odd_but_sound_works(featinv, tmp_path):
    rng = np.random.default_rng(12)
    values = planted(rng, (20, 20))[0]
    cases = {
        "duplicate rows": np.repeat(values, 2, axis=0),
        "rank-deficient rows": np.hstack([values, np.zeros((40, 4), np.float32)]),
        "one cluster": values, "disconnected": np.kron(np.eye(2, dtype=np.float32), values[:20])}
    for name, rows_of in cases.items():
        np.save(tmp_path / "r.npy", rows_of)
        count = 1 if name == "one cluster" else 2
        root = json.loads(featinv("concepts", "fit", "--features", tmp_path / "r.npy", "--count",
                                  count, "-o", tmp_path / "c.npz", "--json").out)
        assert root["count"] == count, name


def test_a_class_without_images_is_an_input_error(featinv, bundle, tmp_path):
    np.savez(tmp_path / "f.npz", features=np.ones((2, *MAP), np.float32),
             logits=np.eye(2, len(CLASSES), dtype=np.float32))
    result = featinv("concepts", "fit", "--features", tmp_path / "f.npz", "--class", CLASSES[5],
                     "-m", bundle, "-o", tmp_path / "c.npz", expect=3)
    assert CLASSES[5] in result.err
