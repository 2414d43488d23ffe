"""Concept sets that a bundle ships: named by --concepts, listed by info, checked by their hashes."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest

from conftest import MAP, make_bundle

NAMES = ("plain", "two words", "café")


@pytest.fixture
def shipping(tmp_path, featinv):
    """A bundle with three sets, each of two random concepts of one dimension, and their bases."""
    bundle = make_bundle(tmp_path / "shipping")
    (bundle / "concepts").mkdir()
    manifest = json.loads((bundle / "manifest.json").read_text())
    bases = {}
    for seed, name in enumerate(NAMES):
        bases[name] = np.linalg.qr(np.random.default_rng(seed).normal(size=(MAP[0], 2)))[0]
        file = bundle / "concepts" / f"{name}.npz"
        np.savez(file, bases=bases[name], offsets=[0, 1, 2])
        manifest["files"][f"concepts/{name}.npz"] = {
            "sha256": hashlib.sha256(file.read_bytes()).hexdigest(), "bytes": file.stat().st_size}
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    return bundle, bases


def without(maps, basis, k):
    """Maps less what they have in the basis vector k of two orthogonal ones."""
    values = np.load(maps).astype(float)
    return values - np.einsum("c,d,ndhw->nchw", basis[:, k], basis[:, k], values)


@pytest.mark.parametrize("name", NAMES)
def test_a_name_stands_for_the_file(featinv, shipping, maps, tmp_path, name):
    bundle, bases = shipping
    common = ("attenuate", "--features", maps, "--concept", 1, "--factor", 0, "-q")
    featinv(*common, "-m", bundle, "--concepts", name, "-o", tmp_path / "name.npy")
    featinv(*common, "--concepts", bundle / "concepts" / f"{name}.npz", "-o", tmp_path / "file.npy")
    featinv(*common, "--concepts", name, "-o", tmp_path / "env.npy",
            env={"FEATINV_MODEL": str(bundle)})
    got = np.load(tmp_path / "name.npy")
    assert np.allclose(got, without(maps, bases[name], 1), atol=1e-5)
    for other in ("file", "env"):
        assert np.array_equal(got, np.load(tmp_path / f"{other}.npy"))


def test_every_verb_takes_a_name(featinv, shipping, maps, photos, tmp_path):
    bundle, _ = shipping
    named = ("-m", bundle, "--concepts", "plain", "-q")
    featinv("concepts", "decompose", "--features", maps, *named, "-o", tmp_path / "parts.npz")
    featinv("concepts", "show", *photos[:1], *named, "-o", tmp_path / "show")
    featinv("viz", *photos[:1], *named, "--pairs", 1, "-o", tmp_path / "viz")
    parts = np.load(tmp_path / "parts.npz")["parts"]
    assert parts.shape == (3, 3, *MAP) and np.allclose(parts.sum(0), np.load(maps), atol=1e-5)


def test_a_file_goes_before_a_name(featinv, shipping, maps, tmp_path):
    bundle, bases = shipping
    (tmp_path / "plain").write_bytes((bundle / "concepts" / "café.npz").read_bytes())
    featinv("attenuate", "--features", maps, "--concept", 0, "--factor", 0, "-q", "-m", bundle,
            "--concepts", "plain", "-o", "out.npy", cwd=tmp_path)
    assert np.allclose(np.load(tmp_path / "out.npy"), without(maps, bases["café"], 0), atol=1e-5)


def test_an_unknown_name_is_answered_with_the_known_ones(featinv, shipping, bundle, maps, tmp_path):
    own, _ = shipping
    for options in (("attenuate", "--concept", 0, "-o", tmp_path / "o.npy"),
                    ("concepts", "decompose", "-o", tmp_path / "o.npz")):
        common = (*options, "--features", maps, "--concepts", "nope")
        error = featinv(*common, "-m", own, expect=3).err
        assert "--concepts nope: no such file" in error and str(own) in error
        assert error.rstrip().endswith(": plain, two words, café")
        assert "holds no concept sets" in featinv(*common, "-m", bundle, expect=3).err
    assert not list(tmp_path.glob("o.np*"))


@pytest.mark.parametrize("path", ["nope.npz", "concepts/plain", "./plain", "../plain"])
def test_a_path_is_no_name(featinv, shipping, maps, tmp_path, path):
    error = featinv("attenuate", "--features", maps, "--concept", 0, "-m", shipping[0],
                    "--concepts", path, "-o", "o.npy", expect=3, cwd=tmp_path).err
    assert path in error and "bundle" not in error


def test_a_changed_set_refuses_the_bundle(featinv, shipping, maps, tmp_path):
    bundle, _ = shipping
    file = bundle / "concepts" / "plain.npz"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    error = featinv("attenuate", "--features", maps, "--concept", 0, "-m", bundle, "--concepts",
                    "plain", "-o", tmp_path / "o.npy", expect=4).err
    assert "plain.npz" in error and "SHA-256" in error
    file.rename(file.with_name("unlisted.npz"))
    assert "unlisted.npz" in featinv("info", "-m", bundle, expect=4).err


def test_info_lists_the_sets(featinv, shipping, bundle):
    own, _ = shipping
    assert json.loads(featinv("info", "-m", own, "--json").out)["concepts"] == list(NAMES)
    assert "concepts   3: plain, two words, café\n" in featinv("info", "-m", own).out
    assert json.loads(featinv("info", "-m", bundle, "--json").out)["concepts"] == []
    assert "\nconcepts" not in featinv("info", "-m", bundle).out
