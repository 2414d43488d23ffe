"""Statistics of the training maps: their values, and their way into a bundle."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from featinv.export import (
    BundleError,
    FeatureStatistics,
    InputError,
    add_files,
    cli,
    feature_statistics,
    update_features,
)
from test_verbs import check_files, verb

PERCENTILES = np.arange(101)


def planted(n: int = 300, channels: int = 12, seed: int = 0) -> np.ndarray:
    """Maps (n, channels, 3, 2) with three strong directions, weak noise and a mean."""
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.standard_normal((channels, 3)))[0]
    strong = rng.standard_normal((n, 3, 6)) * np.array([3.0, 2.0, 1.5])[:, None]
    scale = rng.uniform(0.5, 2.0, (n, 1, 1))
    noise = 0.1 * scale * rng.standard_normal((n, channels, 6))
    rows = np.einsum("cp,npk->nck", basis, strong) + noise + rng.standard_normal(channels)[:, None]
    return rows.reshape(n, channels, 3, 2).astype(np.float32)


def by_hand(maps: np.ndarray, directions: np.ndarray, mean: np.ndarray) -> list[np.ndarray]:
    """Percentiles of norms and residuals, through a projector."""
    rows = maps.astype(np.float64).transpose(0, 2, 3, 1).reshape(len(maps), -1, maps.shape[1])
    off = np.eye(maps.shape[1]) - directions @ directions.T
    left = (rows - mean) @ off
    return [np.percentile(np.linalg.norm(r, axis=2).mean(1), PERCENTILES) for r in (rows, left)]


def test_values() -> None:
    maps = planted()
    got = feature_statistics(maps)
    got.check(12)
    rows = maps.astype(np.float64).transpose(0, 2, 3, 1).reshape(-1, 12)
    assert np.abs(got.mean - rows.mean(0)).max() < 1e-6
    share = np.cumsum(np.linalg.eigvalsh(np.cov(rows.T))[::-1])
    wanted = int(np.argmax(share / share[-1] >= 0.9)) + 1
    assert got.directions.shape == (12, wanted) and wanted == 3
    gram = got.directions.T.astype(np.float64) @ got.directions
    assert np.abs(gram - np.eye(wanted)).max() < 1e-6
    leading = np.linalg.eigh(np.cov(rows.T))[1][:, -wanted:]
    assert np.linalg.svd(leading.T @ got.directions)[1].min() > 1 - 1e-6
    for table, value in zip(
        (got.norms, got.residuals), by_hand(maps, got.directions.astype(np.float64), got.mean)
    ):
        assert np.allclose(table, value, rtol=1e-5)
    assert got.residuals.max() < 0.5 * got.norms.min(), "three directions hold nearly all"


def test_parts_and_types_make_no_difference() -> None:
    maps = planted()
    whole = feature_statistics(maps)
    for other in (
        feature_statistics(maps, chunk=7),
        feature_statistics(torch.from_numpy(maps).double()),
        feature_statistics(maps, whole.mean),
    ):
        for key, value in whole.arrays().items():
            if key == "directions":  # up to sign
                value = value @ value.T
                assert np.abs(other.directions @ other.directions.T - value).max() < 1e-5
            else:
                assert np.allclose(getattr(other, key), value, rtol=1e-5, atol=1e-6), key
    half = feature_statistics(torch.from_numpy(maps).half())
    assert np.allclose(half.norms, whole.norms, rtol=1e-3)


def test_limits() -> None:
    maps = planted()
    assert feature_statistics(maps, max_directions=2).directions.shape == (12, 2)
    assert feature_statistics(maps, variance=0.999999).directions.shape[1] > 3
    few = feature_statistics(maps, max_positions=600)  # every third map
    again = feature_statistics(maps[::3], feature_statistics(maps).mean)
    spans = [each.directions @ each.directions.T for each in (few, again)]
    assert np.abs(spans[0] - spans[1]).max() < 1e-5
    assert len(np.unique(few.norms)) == 101, "percentiles come from all maps"
    constant = feature_statistics(np.ones((4, 3, 2, 2), np.float32))
    constant.check(3)
    assert not constant.residuals.any()


@pytest.mark.parametrize(
    ("maps", "mean", "text"),
    [
        (np.zeros((2, 3, 4), np.float32), None, "shape [2, 3, 4]"),
        (np.zeros((0, 3, 4, 4), np.float32), None, "shape [0, 3, 4, 4]"),
        (np.full((2, 3, 4, 4), np.nan, np.float32), None, "NaN"),
        (np.zeros((2, 3, 4, 4), np.float32), np.zeros(4), "other channels"),
    ],
)
def test_maps_that_cannot_be(maps, mean, text) -> None:
    with pytest.raises(InputError, match=text.replace("[", r"\[")):
        feature_statistics(maps, mean)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"mean": np.zeros(4, np.float32)}, "feature mean: shape [4], expected [12]"),
        ({"norms": None}, "directions, residuals without the others"),
        ({"norms": np.zeros(100, np.float32)}, "norms is no ascending row of 101"),
        ({"residuals": -np.arange(101.0)}, "residuals is no ascending row"),
        ({"directions": np.zeros((3, 12), np.float32)}, "directions has shape [3, 12]"),
        ({"directions": np.full((12, 2), np.inf)}, "directions is not finite"),
    ],
)
def test_statistics_that_cannot_be(change, text) -> None:
    statistics = feature_statistics(planted())
    for key, value in change.items():
        setattr(statistics, key, value)
    with pytest.raises(InputError) as caught:
        statistics.check(12)
    assert text in str(caught.value)


def test_features_file_is_replaced_and_nothing_else(tiny: Path, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(tiny, tmp_path / "b"))
    before = {path.name: path.read_bytes() for path in bundle.iterdir()}
    channels = json.loads(before["manifest.json"])["features"]["channels"]
    statistics = feature_statistics(planted(channels=channels))
    for _ in range(2):  # the file is added, then replaced
        update_features(bundle, statistics)
        check_files(bundle)
        after = {path.name: path.read_bytes() for path in bundle.iterdir()}
        changed = {name for name in after if after[name] != before.get(name)}
        assert changed == {"features.npz", "manifest.json"}
    with np.load(bundle / "features.npz") as archive:
        assert archive.files == ["mean", "directions", "norms", "residuals"]
        assert np.array_equal(archive["norms"], statistics.norms)
    again = json.loads(after["manifest.json"])
    assert again["files"].pop("features.npz")
    assert again == json.loads(before["manifest.json"])
    with pytest.raises(InputError, match="expected"):
        update_features(bundle, feature_statistics(planted(channels=channels + 1)))
    check_files(bundle)


def test_added_files_are_listed_and_nothing_else_changes(tiny: Path, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(tiny, tmp_path / "b"))
    before = {path.name: path.read_bytes() for path in bundle.iterdir()}
    files = {"concepts/one.npz": b"first", "concepts/two.npz": b""}
    for files in (files, {"concepts/one.npz": b"another"}):
        add_files(bundle, files)
        for name, data in files.items():
            assert (bundle / name).read_bytes() == data
    after = {p.name: p.read_bytes() for p in bundle.iterdir() if p.is_file()}
    assert {name for name in after if after[name] != before[name]} == {"manifest.json"}
    assert sorted(p.name for p in (bundle / "concepts").iterdir()) == ["one.npz", "two.npz"]
    again = json.loads(after["manifest.json"])
    for name, data in (("concepts/one.npz", b"another"), ("concepts/two.npz", b"")):
        digest = hashlib.sha256(data).hexdigest()
        assert again["files"].pop(name) == {"sha256": digest, "bytes": len(data)}
    assert again == json.loads(before["manifest.json"])


@pytest.mark.parametrize(
    "name", ["../x", "/x", "a/../x", ".x", "a/.x", "", "a//x", "a\\x", "manifest.json"]
)
def test_names_that_no_bundle_has_are_refused(tiny: Path, tmp_path: Path, name: str) -> None:
    bundle = Path(shutil.copytree(tiny, tmp_path / "b"))
    before = (bundle / "manifest.json").read_bytes()
    with pytest.raises(InputError, match="not a name"):
        add_files(bundle, {"good.npz": b"1", name: b"2"})
    assert (bundle / "manifest.json").read_bytes() == before and not (bundle / "good.npz").exists()
    (bundle / "manifest.json").write_text("[]")
    with pytest.raises(BundleError, match="not the manifest"):
        add_files(bundle, {"good.npz": b"1"})


def test_verbs_take_maps_or_statistics(tmp_path: Path, capsys) -> None:
    command = ["backbone", "timm:resnet18", "--weights", "random:1", "--input", "64"]
    maps = planted(channels=512)
    np.save(tmp_path / "maps.npy", maps)
    np.savez(tmp_path / "maps.npz", features=maps, logits=np.zeros((300, 4), np.float32))
    out = tmp_path / "b"
    assert verb(*command, "-o", out, "--feature-maps", tmp_path / "maps.npy") == 0
    check_files(out)
    first = (out / "features.npz").read_bytes()
    kept = shutil.copy(out / "features.npz", tmp_path / "kept.npz")
    for option, file in (("--feature-maps", tmp_path / "maps.npz"), ("--feature-mean", kept)):
        assert verb(*command, "-o", out, option, file, "--force") == 0
        assert (out / "features.npz").read_bytes() == first, option
    np.savez(tmp_path / "mean.npz", mean=maps.mean((0, 2, 3)))
    assert verb(*command, "-o", out, "--feature-mean", tmp_path / "mean.npz", "--force") == 0
    assert FeatureStatistics.read(np.load(out / "features.npz"), "").directions is None
    capsys.readouterr()
    for option, file, text in (
        ("--feature-maps", tmp_path / "nowhere.npy", "No such file"),
        ("--feature-maps", tmp_path / "mean.npz", "shape [512]"),
        ("--feature-mean", tmp_path / "maps.npz", "no array called mean"),
    ):
        assert verb(*command, "-o", out, option, file, "--force") == 3
        assert text in capsys.readouterr().err
    with pytest.raises(SystemExit) as caught:
        cli.main([*command, "-o", str(out), "--feature-maps", "a", "--feature-mean", "b"])
    assert caught.value.code == 2
