"""Given bases: decomposition, angles and the files they come in, against the published figures."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
import capi  # noqa: E402
from capi import COMPLEMENT, Concepts, FeatinvError  # noqa: E402

BASES = np.load(capi.REFERENCE / "mcd" / "bases.npz")


def stacked(rows):
    """Bases (p, C) each → columns (C, total) and offsets."""
    return np.concatenate(rows).T, np.cumsum([0] + [len(r) for r in rows])


def recorded(name, count, data=BASES):
    return Concepts.create(*stacked([data[f"{name}_{k}"] for k in range(count)]))


def as_maps(rows):
    """Rows (n, C) as maps of one position each."""
    return capi.f32(rows)[:, :, None, None]


@pytest.mark.parametrize("name", ["sym", "off"])
@pytest.mark.parametrize("kind", ["official", "uncentred"])
def test_decomposition_is_the_published_one(name, kind):
    concepts = recorded(f"{name}_basis_{kind}", 4)
    phi = BASES[f"{name}_phi"]
    parts = concepts.decompose(as_maps(phi))[..., 0, 0]
    want = BASES[f"{name}_components_{kind}"].transpose(1, 0, 2)
    assert np.abs(parts - want).max() <= 1e-6 * np.abs(want).max()
    assert np.abs(parts.sum(0, np.float32) - phi).max() <= 1e-5 * np.abs(phi).max()
    assert list(concepts.dimensions) == list(BASES[f"{name}_dim_{kind}"])
    sigma = np.linalg.svd(concepts.bases, compute_uv=False)
    assert abs(concepts.info.smallest_singular - sigma[-1]) <= 1e-12


def test_complement_is_orthogonal_to_every_concept():
    concepts = recorded("sym_basis_official", 4)
    maps = np.random.default_rng(1).standard_normal((3, 24, 9, 9)).astype(np.float32)
    parts = concepts.decompose(maps)
    inside = np.einsum("ct,nchw->nthw", concepts.bases, parts[-1])
    assert np.abs(inside).max() <= 2e-6 * np.abs(maps).max()
    for k in range(4):
        rest = parts[k] - np.einsum("cp,dp,ndhw->nchw", concepts.basis(k), concepts.basis(k),
                                    parts[k].astype(np.float64))
        assert np.abs(rest).max() <= 1e-6 * np.abs(parts[k]).max()


def test_full_size_maps_sum_to_themselves():
    rng = np.random.default_rng(2)
    dimensions = [12, 20, 7, 16]
    offsets = np.cumsum([0] + dimensions)
    concepts = Concepts.create(rng.standard_normal((2048, offsets[-1])), offsets, True)
    maps = np.abs(rng.standard_normal((3, 2048, 9, 9))).astype(np.float32)
    parts = concepts.decompose(maps)
    scale = np.linalg.norm(maps, axis=1, keepdims=True).max()
    assert np.abs(parts.sum(0, np.float32) - maps).max() <= 1e-5 * scale
    coefficients = np.linalg.lstsq(concepts.bases, maps[1, :, 3, 4].astype(np.float64))[0]
    for k in range(4):
        part = concepts.basis(k) @ coefficients[offsets[k]:offsets[k + 1]]
        assert np.abs(parts[k, 1, :, 3, 4] - part).max() <= 1e-6 * np.abs(part).max()


def test_shared_direction_is_refused_by_name():
    concepts = recorded("share_basis", 2)
    maps = as_maps(BASES["over_phi"][None])
    assert concepts.info.smallest_angle < 1e-8 and concepts.info.smallest_singular < 1e-8
    for call in (lambda: concepts.decompose(maps), lambda: concepts.attenuate(maps, 0, 0.25),
                 lambda: capi.activation(concepts, maps)):
        with pytest.raises(FeatinvError, match="concepts 0 and 1 overlap") as caught:
            call()
        assert caught.value.status == -4
    # what needs no decomposition still works: the span has 5 dimensions
    inside, rest = concepts.completeness(BASES["over_phi"])
    q = np.linalg.svd(concepts.bases, full_matrices=False)[0][:, :5]
    unit = BASES["over_phi"] / np.linalg.norm(BASES["over_phi"])
    assert abs(inside - np.linalg.norm(q.T @ unit)) <= 1e-12
    assert abs(inside**2 + rest**2 - 1) <= 1e-14


@pytest.mark.parametrize("row", range(11))
def test_parts_grow_until_they_are_refused(row):
    e, first, second, outside, _ = BASES["near_table"][row]
    q, phi = BASES["near_Q"], BASES["over_phi"]
    concepts = Concepts.create(*stacked([q[:3], [np.cos(e) * q[2] + np.sin(e) * q[5], q[3], q[4]]]))
    assert abs(concepts.info.smallest_angle - e) <= 1e-12
    maps = as_maps(phi[None])
    if e <= 1e-6:  # the smallest singular value is e / sqrt 2
        with pytest.raises(FeatinvError, match="under 1e-06"):
            concepts.decompose(maps)
        return
    parts = concepts.decompose(maps)[:, 0, :, 0, 0]
    norms = np.linalg.norm(parts.astype(np.float64), axis=1)
    assert np.abs(norms / [first, second, outside] - 1).max() <= 1e-6 / e
    assert np.abs(parts.sum(0, np.float32) - phi).max() <= 1e-5 * np.abs(phi).max()


def test_angles_against_numpy():
    rng = np.random.default_rng(5)
    a = Concepts.create(rng.standard_normal((40, 17)), [0, 1, 6, 17], True)
    b = Concepts.create(rng.standard_normal((40, 35)), [0, 30, 35], True)

    def whole(concepts, index):
        if index != COMPLEMENT:
            return concepts.basis(index)
        return np.linalg.svd(concepts.bases)[0][:, concepts.bases.shape[1]:]

    for i in (0, 1, 2, COMPLEMENT):
        for j in (0, 1, COMPLEMENT):
            left, right = whole(a, i), whole(b, j)
            count = min(left.shape[1], right.shape[1])
            cosines = np.linalg.svd(left.T @ right, compute_uv=False)[:count]
            distance, angles = capi.similarity(a, i, b, j)
            assert len(angles) == count and (np.diff(angles) <= 0).all()
            # arccos alone loses half of the digits near zero
            assert np.abs(np.cos(angles[::-1]) - np.minimum(cosines, 1)).max() <= 1e-12
            assert abs(distance - np.sqrt((angles**2).sum())) <= 1e-12


def test_a_file_written_by_numpy(tmp_path):
    columns, offsets = stacked([BASES[f"sym_basis_uncentred_{k}"] for k in range(4)])
    for dtype in (np.int32, np.int64):
        for order in ("C", "F"):
            np.savez(tmp_path / "c.npz", bases=np.asarray(columns, order=order),
                     offsets=offsets.astype(dtype), comment=np.arange(3.0))
            concepts = Concepts.open(tmp_path / "c.npz")
            assert np.array_equal(concepts.bases, columns)
            assert concepts.info.method == -1
    concepts.save(tmp_path / "d.npz")
    saved = np.load(tmp_path / "d.npz")
    assert saved["bases"].dtype == np.float64 and np.array_equal(saved["bases"], columns)
    assert saved["offsets"].dtype == np.int32 and np.array_equal(saved["offsets"], offsets)
    assert sorted(saved.files) == ["bases", "method", "offsets"]


@pytest.mark.parametrize("change, status, text", [
    ({"bases": np.eye(24, 3, dtype=np.float32)}, -15, "dtype is float32, not float64"),
    ({"bases": np.eye(3, 24)}, -13, "24 dimensions together, the features 3 channels"),
    ({"bases": 1.001 * np.eye(24, 3)}, -13, "concept 0 is not orthonormal"),
    ({"bases": np.where(np.eye(24, 3), 1, np.nan)}, -16, "NaN at row 0, column 1"),
    ({"bases": np.array([{}])}, -13, "bases"),
    ({"offsets": [1, 3]}, -13, "the first is 1, not 0"),
    ({"offsets": [0, 2]}, -13, "the last is 2, bases has 3"),
    ({"offsets": [0, 2, 1, 3]}, -13, "2 is followed by 1"),
    ({"offsets": [0.0, 3.0]}, -15, "dtype is float64, not int32"),
    ({"labels": np.array([0, 1], np.int32)}, -13, "labels: 1 at row 1, not -1 to 0"),
    ({"tau": 1.5}, -13, "tau is 1.5, out of range"),
])
def test_files_that_are_refused(tmp_path, change, status, text):
    members = {"bases": np.eye(24, 3), "offsets": np.array([0, 3], np.int32), **change}
    np.savez(tmp_path / "bad.npz", **members)
    with pytest.raises(FeatinvError) as caught:
        Concepts.open(tmp_path / "bad.npz")
    assert caught.value.status == status and text in caught.value.text
    assert "bad.npz" in caught.value.text and "\n" not in caught.value.text


def test_a_truncated_file_is_refused(tmp_path):
    np.savez(tmp_path / "whole.npz", bases=np.eye(24, 3), offsets=np.array([0, 3]))
    whole = (tmp_path / "whole.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FeatinvError, match="cut.npz"):
        Concepts.open(tmp_path / "cut.npz")


def test_one_concept_and_all_dimensions():
    rng = np.random.default_rng(3)
    maps = rng.standard_normal((2, 8, 3, 3)).astype(np.float32)
    one = Concepts.create(rng.standard_normal((8, 1)), [0, 1], True)
    parts = one.decompose(maps)
    assert parts.shape == (2, 2, 8, 3, 3) and one.info.smallest_angle == np.pi / 2
    assert np.abs(parts.sum(0) - maps).max() <= 1e-6
    whole = Concepts.create(rng.standard_normal((8, 8)), [0, 2, 5, 8], True)
    parts = whole.decompose(maps)
    assert not parts[-1].any()
    assert np.abs(parts.sum(0) - maps).max() <= 1e-5 * np.abs(parts).max()
    with pytest.raises(FeatinvError, match="9 dimensions together, the features 8 channels"):
        Concepts.create(np.ones((8, 9)), [0, 4, 9], True)


def test_other_channels_are_refused():
    concepts = recorded("sym_basis_official", 4)
    with pytest.raises(FeatinvError, match="maps: 23 channels, the concepts have 24") as caught:
        concepts.decompose(np.zeros((1, 23, 2, 2), np.float32))
    assert caught.value.status == -15
