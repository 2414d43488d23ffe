"""Concept discovery as a whole, through featinv_concepts_fit: against the recorded pipeline,
against NumPy and SciPy, and on data whose answer is known."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
import capi  # noqa: E402
from capi import Concepts, FeatinvError  # noqa: E402

ARGUMENT, UNSUPPORTED, CANCELLED, NOT_FOUND = -3, -4, -5, -11
LIMIT, SHAPE, VALUE = -14, -15, -16


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def planted(dimensions, per=60, d=32, noise=0.0, seed=0):
    """Unit rows (n, d) in float32, shuffled, from random subspaces; their subspace."""
    random = np.random.default_rng(seed)
    rows, labels = [], []
    for k, p in enumerate(dimensions):
        basis = np.linalg.qr(random.standard_normal((d, p)))[0]
        rows.append(unit(random.standard_normal((per, p))) @ basis.T)
        labels += [k] * per
    rows = np.concatenate(rows)
    rows = unit(rows + noise / np.sqrt(d) * random.standard_normal(rows.shape))
    order = random.permutation(len(rows))
    return np.float32(rows[order]), np.array(labels)[order]


def same_partition(a, b) -> bool:
    """Adjusted Rand index 1, without a library: each label of one is one label of the other."""
    pairs = set(zip(np.asarray(a).tolist(), np.asarray(b).tolist()))
    return len(pairs) == len(set(np.asarray(a).tolist())) == len(set(np.asarray(b).tolist()))


def laplacian(coefficients, keep) -> np.ndarray:
    """Normalised Laplacian (m, m) of the kept rows, as the reference states it."""
    dense = np.abs(coefficients.toarray()[np.ix_(keep, keep)])
    length = np.linalg.norm(dense, axis=1, keepdims=True)
    dense = dense / np.where(length > 0, length, 1)
    affinity = (dense + dense.T) / 2
    np.fill_diagonal(affinity, 0)
    root = np.sqrt(affinity.sum(1))
    inverse = np.where(root > 0, 1 / np.where(root > 0, root, 1), 0)
    return np.diag((root > 0).astype(float)) - inverse[:, None] * affinity * inverse


def embedding_cost(eigenvectors, labels) -> float:
    """k-means cost of labels on the embedding's unit rows."""
    rows = unit(eigenvectors)
    return sum(((rows[labels == k] - rows[labels == k].mean(0)) ** 2).sum()
               for k in np.unique(labels))


# ---- the recorded pipeline ----------------------------------------------------------------------


@pytest.mark.parametrize("gamma", [10, 50])
@pytest.mark.parametrize("count", [3, 4, 5])
def test_recorded_clustering(linear, clustering, gamma, count):
    got = Concepts.fit(linear, clustering["X"], gamma=gamma, count=count, keep_coefficients=1)
    key = f"g{gamma}"
    removed = got.labels == -1
    assert np.array_equal(removed, clustering[f"{key}_outlier_mask"])
    assert got.info.rows == 300 and got.info.rows_removed == removed.sum() == 75
    assert np.abs(got.eigenvalues - clustering[f"{key}_laplacian_eig12"][:10]).max() <= 1e-6
    assert got.info.stationarity <= 1e-9
    dense = got.coefficients().toarray()
    assert not dense[removed].any() and not dense[:, removed].any()
    exact = clustering[f"{key}_C2_exact"]
    assert np.abs(dense[np.ix_(~removed, ~removed)] - exact).max() <= 1e-3  # float32 rows
    cost = embedding_cost(clustering[f"{key}_k{count}_embedding"], got.labels[~removed])
    assert cost <= float(clustering[f"{key}_k{count}_inertia"]) * (1 + 1e-6)
    if count == 4:
        assert same_partition(got.labels, clustering[f"{key}_k4_labels"])
    sizes = np.bincount(got.labels[~removed], minlength=count)
    assert (np.diff(sizes) <= 0).all()  # numbered by size


def test_maps_are_rows(linear, clustering):
    """Positions in the order image, row, column; the labels have the maps' shape."""
    maps = clustering["feature_maps"]
    got = Concepts.fit(linear, maps, count=4)
    rows = np.ascontiguousarray(maps.transpose(0, 2, 3, 1).reshape(-1, 24))
    of_rows = Concepts.fit(linear, rows, count=4)
    assert got.labels.shape == (12, 5, 5) and of_rows.labels.shape == (300,)
    assert np.array_equal(got.labels.ravel(), of_rows.labels)
    assert np.array_equal(got.bases, of_rows.bases)
    assert same_partition(got.labels.ravel(), clustering["g10_k4_labels"])


@pytest.mark.parametrize("gamma", [10, 50])
@pytest.mark.parametrize("rule, recorded", [("ratio", "ratio"), ("gap", "corrected"),
                                            ("legacy", "official")])
def test_recorded_counts(linear, clustering, gamma, rule, recorded):
    got = Concepts.fit(linear, clustering["X"], gamma=gamma, rule=rule, dimension=1)
    assert got.count == int(clustering[f"g{gamma}_gap_k_{recorded}"])


@pytest.mark.parametrize("rule, column", [("legacy", 1), ("gap", 3), ("ratio", 0)])
def test_gap_table(linear, clustering, rule, column):
    """Separated blocks of rows, K from 2 to 6."""
    for row in clustering["gap_table"]:
        rows = clustering[f"gap_K{row[0]}_X"]
        got = Concepts.fit(linear, rows, rule=rule, outlier_quantile=1, dimension=1)
        assert got.count == row[column], row


def test_disconnected(linear, clustering):
    """Noise-free subspaces: the affinity falls apart into the planted ones, whatever the seed."""
    truth = clustering["disc_planted"]
    k = int(clustering["disc_n_components"])
    for seed in range(5):
        got = Concepts.fit(linear, clustering["disc_X"], count=k, outlier_quantile=1, seed=seed)
        assert same_partition(got.labels, truth)
        assert not got.eigenvalues[:k].any() and (got.eigenvalues[k:] > 0.01).all()


def test_plain_kmeans(linear, clustering):
    got = Concepts.fit(linear, clustering["X"], method="kmeans", count=4)
    rows = clustering["X"].astype(np.float64)
    centres = np.stack([rows[got.labels == k].mean(0) for k in range(4)])
    cost = ((rows - centres[got.labels]) ** 2).sum()
    assert cost <= 1.02 * float(clustering["kmeans_inertia_ninit10"])
    assert got.dimensions.tolist() == [1] * 4
    assert np.abs(unit(centres).T - got.bases).max() <= 1e-6
    nearest = ((rows[:, None] - centres) ** 2).sum(2).argmin(1)
    assert np.array_equal(nearest, got.labels)  # Lloyd's iteration has come to rest


@pytest.mark.parametrize("count", [1, 4, 10])
def test_recorded_principal_directions(linear, clustering, count):
    """Of the features as they are, centred; through the origin against NumPy."""
    rows = np.ascontiguousarray(clustering["feature_maps"].transpose(0, 2, 3, 1).reshape(-1, 24)
                                [clustering["pca_subsample_index"]])
    got = Concepts.fit(linear, rows, method="pca", count=count, basis="centred")
    wanted = clustering["pca_components"][:count]
    assert np.abs(np.abs((wanted * got.bases.T).sum(1)) - 1).max() <= 1e-9
    origin = Concepts.fit(linear, rows, method="pca", count=count)
    wanted = np.linalg.svd(rows.astype(np.float64))[2][:count]
    assert np.abs(np.abs((wanted * origin.bases.T).sum(1)) - 1).max() <= 1e-9
    assert origin.labels is None and got.dimensions.tolist() == [1] * count


# ---- the parts of the pipeline ------------------------------------------------------------------


def test_eigenvalues_of_own_coefficients(linear):
    """Against a dense solver; more than a thousand rows take the iterative one."""
    rows, _ = planted([4, 6, 8], per=450, d=48, noise=0.3)
    got = Concepts.fit(linear, rows, count=3, keep_coefficients=1)
    keep = got.labels.ravel() >= 0
    assert keep.sum() > 1000
    dense = np.linalg.eigvalsh(laplacian(got.coefficients(), keep))
    assert np.abs(dense[:10] - got.eigenvalues).max() <= 1e-10


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_planted_subspaces(linear, noise):
    """Labels, dimensions, bases and the count of subspaces that are far from each other."""
    dimensions = [2, 3, 4]
    rows, truth = planted(dimensions, per=80, d=40, noise=noise, seed=3)
    got = Concepts.fit(linear, rows)
    assert got.count == 3
    keep = got.labels >= 0
    assert same_partition(got.labels[keep], truth[keep])
    for k in range(3):
        members = rows[got.labels == k].astype(np.float64)
        assert len(members) >= 20
        spectrum = np.linalg.svd(members, compute_uv=False) ** 2
        assert got.dimensions[k] == (spectrum > 0.05 * spectrum[0]).sum()
        right = np.linalg.svd(members)[2][:got.dimensions[k]]
        assert np.abs(right.T @ right - got.basis(k) @ got.basis(k).T).max() <= 1e-6


def test_basis_of_centred_rows(linear):
    rows, _ = planted([3, 3], per=60, d=30, seed=5)
    rows = np.float32(unit(rows + 0.3))
    got = Concepts.fit(linear, rows, count=2, basis="centred", dimension=2, outlier_quantile=1)
    for k in range(2):
        members = rows[got.labels == k].astype(np.float64)
        members /= np.linalg.norm(members, axis=1, keepdims=True)
        right = np.linalg.svd(members - members.mean(0))[2][:2]
        assert np.abs(right.T @ right - got.basis(k) @ got.basis(k).T).max() <= 1e-6


def test_subsampling_is_real(linear):
    rows, _ = planted([2, 3], per=100, d=24, seed=1)
    draws = {}
    for seed in (0, 1):
        got = Concepts.fit(linear, rows, count=2, max_rows=70, seed=seed, outlier_quantile=1,
                           keep_coefficients=1)
        drawn = np.flatnonzero(got.labels >= 0)
        assert len(drawn) == got.info.rows == 70 and got.info.rows_removed == 0
        dense = got.coefficients().toarray()
        assert set(np.flatnonzero(dense.any(1))) == set(drawn)
        assert set(np.flatnonzero(dense.any(0))) <= set(drawn)
        alone = Concepts.fit(linear, np.ascontiguousarray(rows[drawn]), count=2, seed=seed,
                             outlier_quantile=1)
        assert np.array_equal(alone.labels, got.labels[drawn])
        assert np.array_equal(alone.bases, got.bases)
        draws[seed] = drawn.tolist()
    assert draws[0] != draws[1]


def test_each_row_is_drawn_alike_often(linear):
    """Over 400 seeds, 3 of 12 rows: expected 100 times each, standard deviation 8.7."""
    rows, _ = planted([12], per=12, d=12, seed=2)
    times = np.zeros(12)
    for seed in range(400):
        got = Concepts.fit(linear, rows, method="kmeans", count=1, max_rows=3, seed=seed)
        times += got.labels >= 0
    assert times.sum() == 1200 and np.abs(times - 100).max() < 40


def test_outliers_are_above_the_quantile(linear):
    """The scores that decide are those of the first solve, on all rows."""
    rows, _ = planted([2, 3], per=50, d=24, noise=0.2, seed=4)
    first = Concepts.fit(linear, rows, count=2, outlier_quantile=1, keep_coefficients=1)
    score = np.abs(first.coefficients().toarray()).sum(1)
    for quantile in (0.3, 0.75, 0.9):
        got = Concepts.fit(linear, rows, count=2, outlier_quantile=quantile)
        assert np.array_equal(got.labels == -1, score > np.quantile(score, quantile))
    assert (first.labels >= 0).all()


def test_completeness_rule(linear):
    """The smallest count whose span holds enough of the weight, and no smaller one does."""
    rows, _ = planted([2, 2, 2, 2], per=60, d=32, seed=6)
    weight = rows.astype(np.float64).sum(0)
    reached = {k: Concepts.fit(linear, rows, count=k, dimension=2).completeness(weight)[0]
               for k in range(2, 6)}
    for threshold in (0.5, 0.75, 0.9, 0.95):
        got = Concepts.fit(linear, rows, rule="completeness", weight=weight, dimension=2,
                           completeness=threshold, max_count=5)
        wanted = next((k for k in range(2, 6) if reached[k] >= threshold), 5)
        assert got.count == wanted, (threshold, reached)
    assert len({next((k for k in range(2, 6) if reached[k] >= t), 5)
                for t in (0.5, 0.75, 0.9, 0.95)}) > 1  # the thresholds tell counts apart


def test_orthogonalisation(linear):
    rows, _ = planted([2, 3, 2], per=60, d=20, seed=7)
    weight = np.linspace(-1, 1, 20)
    plain = Concepts.fit(linear, rows, count=3, seed=1)
    got = Concepts.fit(linear, rows, count=3, seed=1, orthogonalize=1, weight=weight)
    wanted, order = plain.orthogonalize(weight)
    assert np.abs(got.bases.T @ got.bases - np.eye(got.info.total)).max() <= 1e-12
    assert np.array_equal(got.bases, wanted.bases)
    keep = got.labels >= 0
    assert np.array_equal(order[got.labels[keep]], plain.labels[keep])
    assert got.info.gamma == 10 and len(got.eigenvalues) == 10


def test_same_seed_same_bits(linear):
    rows, _ = planted([3, 4, 5], per=300, d=48, noise=0.3, seed=8)
    settings = {"max_rows": 800, "seed": 5, "keep_coefficients": 1}
    a, b = (Concepts.fit(linear, rows, **settings) for _ in range(2))
    assert np.array_equal(a.labels, b.labels)
    for name in ("bases", "eigenvalues"):
        assert getattr(a, name).tobytes() == getattr(b, name).tobytes()
    assert a.coefficients().data.tobytes() == b.coefficients().data.tobytes()
    assert a.info.objective == b.info.objective


def test_details(linear):
    rows, _ = planted([2, 3], per=40, d=16, seed=9)
    got = Concepts.fit(linear, rows, count=2, gamma=7, tau=0.9, seed=3, class_name="boat")
    info = got.info
    assert (info.method, info.basis, info.gamma, info.tau, info.outlier_quantile) == (
        0, 0, 7, 0.9, 0.75)
    assert (info.seed, info.class_name, info.rows, info.eigenvalue_count) == (3, b"boat", 80, 10)
    assert info.objective > 0 and info.stationarity <= 1e-9 and info.seconds > 0
    with pytest.raises(FeatinvError) as error:
        got.coefficients()
    assert error.value.status == NOT_FOUND
    simple = Concepts.fit(linear, rows, method="kmeans", count=2).info
    assert all(np.isnan([simple.gamma, simple.tau, simple.objective, simple.stationarity]))
    assert simple.method == 1 and simple.eigenvalue_count == 0


# ---- what must work -----------------------------------------------------------------------------


def test_one_concept(linear):
    rows, _ = planted([3], per=50, d=16, seed=10)
    got = Concepts.fit(linear, rows, count=1, outlier_quantile=1)
    assert got.count == 1 and not got.labels.any()
    right = np.linalg.svd(rows.astype(np.float64))[2][:3]
    assert got.dimensions.tolist() == [3]
    assert np.abs(right.T @ right - got.bases @ got.bases.T).max() <= 1e-6
    assert Concepts.fit(linear, rows, method="kmeans", count=1).count == 1


def test_duplicates_and_low_rank(linear):
    """Rows three times each, in subspaces of a space that has room for more."""
    rows, truth = planted([1, 2, 2], per=20, d=24, seed=11)
    rows, truth = np.ascontiguousarray(np.repeat(rows, 3, 0)), np.repeat(truth, 3)
    got = Concepts.fit(linear, rows, count=3, outlier_quantile=1)
    assert got.count == 3 and (got.labels >= 0).all()
    assert np.isfinite(got.bases).all() and got.info.stationarity <= 1e-9
    repeated = got.labels.reshape(-1, 3)
    assert (repeated[:, 0] == repeated[:, 1]).all() and (repeated[:, 0] == repeated[:, 2]).all()


def test_identical_rows(linear):
    row = np.float32(np.random.default_rng(0).standard_normal((1, 12)))
    got = Concepts.fit(linear, np.repeat(row, 9, 0), count=1)
    assert got.dimensions.tolist() == [1]
    assert abs(abs(got.bases[:, 0] @ unit(row.astype(np.float64))[0]) - 1) <= 1e-6


def test_all_channels_taken(linear):
    rows, truth = planted([2, 3], per=60, d=5, seed=12)
    got = Concepts.fit(linear, rows, count=2, outlier_quantile=1, gamma=50)
    if got.info.total != 5:  # the lPCA dimension of a mixed cluster may differ
        got = Concepts.fit(linear, rows, count=1, dimension=5)
    assert got.info.total == 5
    parts = got.decompose(rows.reshape(-1, 5, 1, 1))
    assert np.abs(parts[-1]).max() <= 1e-6


def test_count_equals_rows(linear):
    rows = np.float32(np.eye(6) + 0.01 * np.random.default_rng(1).standard_normal((6, 6)))
    got = Concepts.fit(linear, rows, count=6, outlier_quantile=1)
    assert sorted(got.labels.tolist()) == list(range(6)) and got.info.total == 6


def test_strided_features(linear, clustering):
    """A transposed view of the same maps, as a framework may hand it over."""
    maps = clustering["feature_maps"]
    turned = np.ascontiguousarray(maps.transpose(0, 2, 3, 1))
    tensor = capi.view(turned)
    shape = (capi.c.c_int64 * 4)(*maps.shape)
    strides = (capi.c.c_int64 * 4)(*(s // 4 for s in turned.transpose(0, 3, 1, 2).strides))
    tensor.shape, tensor.strides = shape, strides
    handle = capi.c.c_void_p()
    capi.check(capi.lib.featinv_concepts_fit(capi.c.byref(handle), linear.handle,
                                             capi.ref(tensor),
                                             capi.c.byref(capi.fit_options(count=4))))
    assert np.array_equal(Concepts(handle).labels, Concepts.fit(linear, maps, count=4).labels)


# ---- progress and cancel ------------------------------------------------------------------------


def test_progress(linear):
    rows, _ = planted([2, 3], per=100, d=24, seed=13)
    seen = []
    Concepts.fit(linear, rows, count=2, progress=lambda done, total: seen.append((done, total)))
    done, totals = zip(*seen)
    assert set(totals) == {600} and done[-1] == 600
    assert list(done) == sorted(done) and done.count(600) == 1


@pytest.mark.parametrize("after", [1, 200, 400])
def test_cancel(linear, after):
    """From the progress call and from another call, at each stage; a later fit is not affected."""
    rows, _ = planted([2, 3], per=100, d=24, seed=13)
    with pytest.raises(FeatinvError) as error:
        Concepts.fit(linear, rows, count=2, progress=lambda done, _: done >= after)
    assert error.value.status == CANCELLED and "cancelled" in error.value.text

    def cancel(done, _):
        if done >= after:
            capi.lib.featinv_session_cancel(linear.handle)

    with pytest.raises(FeatinvError) as error:
        Concepts.fit(linear, rows, count=2, progress=cancel)
    assert error.value.status == CANCELLED
    assert Concepts.fit(linear, rows, count=2).count == 2


# ---- what must be refused -----------------------------------------------------------------------


ROWS, _ = planted([2, 3], per=20, d=12, seed=14)


def spoilt(position, value) -> np.ndarray:
    rows = ROWS.copy()
    rows[position] = value
    return rows


def spoilt_maps() -> np.ndarray:
    maps = np.float32(np.random.default_rng(0).standard_normal((2, 12, 3, 4)))
    maps[1, :, 2, 1] = 0
    return maps


REFUSED = {
    "not a number": (spoilt((7, 3), np.nan), {"count": 2}, VALUE, "NaN"),
    "infinity": (spoilt((7, 3), np.inf), {"count": 2}, VALUE, "inf"),
    "row of zeros": (spoilt(7, 0), {"count": 2}, VALUE, "row 7 of the features: all zeros"),
    "position of zeros": (spoilt_maps(), {"count": 2}, VALUE, "image 1, row 2, column 1"),
    "constant row": (spoilt(9, 0.5), {"count": 2}, VALUE, "row 9 of the features: the same value"),
    "constant rows": (np.ones((20, 12), np.float32), {"count": 2}, VALUE, "row 0"),
    "count above rows": (ROWS, {"count": 41}, ARGUMENT, "count is 41, but there are 40 rows"),
    "count above rows left": (ROWS, {"count": 35}, ARGUMENT, "35 concepts are wanted of 30 rows"),
    "negative count": (ROWS, {"count": -1}, ARGUMENT, "count is -1"),
    "kmeans by a rule": (ROWS, {"method": "kmeans"}, ARGUMENT, "count is 0"),
    "pca by a rule": (ROWS, {"method": "pca"}, ARGUMENT, "count is 0"),
    "no such method": (ROWS, {"method": 3}, ARGUMENT, "method 3"),
    "no such rule": (ROWS, {"rule": 4}, ARGUMENT, "rule 4"),
    "no such basis": (ROWS, {"basis": 2, "count": 2}, ARGUMENT, "basis 2"),
    "gamma 0": (ROWS, {"gamma": 0}, ARGUMENT, "gamma is 0"),
    "gamma below 0": (ROWS, {"gamma": -1}, ARGUMENT, "gamma is -1"),
    "gamma not a number": (ROWS, {"gamma": np.nan}, ARGUMENT, "gamma is nan"),
    "gamma infinite": (ROWS, {"gamma": np.inf}, ARGUMENT, "gamma is inf"),
    "tau 0": (ROWS, {"tau": 0}, ARGUMENT, "tau is 0"),
    "tau above 1": (ROWS, {"tau": 1.5}, ARGUMENT, "tau is 1.5"),
    "quantile 0": (ROWS, {"outlier_quantile": 0}, ARGUMENT, "outlier_quantile is 0"),
    "quantile above 1": (ROWS, {"outlier_quantile": 1.1}, ARGUMENT, "outlier_quantile is 1.1"),
    "max_count 1": (ROWS, {"max_count": 1}, ARGUMENT, "max_count is 1"),
    "max_rows below 0": (ROWS, {"max_rows": -1, "count": 2}, ARGUMENT, "max_rows is -1"),
    "memory below 0": (ROWS, {"memory": -1, "count": 2}, ARGUMENT, "memory is -1"),
    "no restarts": (ROWS, {"restarts": 0, "count": 2}, ARGUMENT, "restarts is 0"),
    "dimension below 0": (ROWS, {"dimension": -1, "count": 2}, ARGUMENT, "dimension is -1"),
    "dimension above channels": (ROWS, {"dimension": 13, "count": 2}, ARGUMENT,
                                 "dimension is 13, but there are 12 channels"),
    "dimension of kmeans": (ROWS, {"method": "kmeans", "count": 2, "dimension": 2}, ARGUMENT,
                            "dimension is 2"),
    "dimensions above channels": (ROWS, {"dimension": 2, "count": 7}, UNSUPPORTED,
                                  "but there are 12 channels"),
    "pca above channels": (ROWS, {"method": "pca", "count": 13}, UNSUPPORTED, "12 channels"),
    "pca above rank": (ROWS, {"method": "pca", "count": 6}, ARGUMENT, "only 5 principal"),
    "completeness without weight": (ROWS, {"rule": "completeness"}, ARGUMENT, "needs a weight"),
    "orthogonal without weight": (ROWS, {"orthogonalize": 1, "count": 2}, ARGUMENT,
                                  "needs a weight"),
    "weight of zeros": (ROWS, {"weight": np.zeros(12), "count": 2}, VALUE, "all zeros"),
    "weight not a number": (ROWS, {"weight": np.full(12, np.nan), "count": 2}, VALUE,
                            "channel 0 is nan"),
    "one row": (ROWS[:1], {"count": 1}, ARGUMENT, "one row"),
    "no rows": (ROWS[:0], {"count": 1}, SHAPE, "empty"),
    "rank 3": (ROWS.reshape(20, 2, 12), {"count": 2}, SHAPE, "3 dimensions"),
    "float64": (ROWS.astype(np.float64), {"count": 2}, SHAPE, "float64"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(linear, case):
    features, settings, status, text = REFUSED[case]
    with pytest.raises(FeatinvError) as error:
        Concepts.fit(linear, np.ascontiguousarray(features), **settings)
    assert error.value.status == status and text in error.value.text, str(error.value)
    assert "\n" not in error.value.text


# ---- against SciPy ------------------------------------------------------------------------------


def test_kmeans_is_no_worse_than_scipy(linear):
    from scipy.cluster.vq import kmeans2

    for seed, count in itertools.product(range(3), (3, 8)):
        rows = unit(np.random.default_rng(seed).standard_normal((400, 9)))
        rows = np.float32(unit(rows + 2 * np.eye(9)[np.arange(400) % 5]))
        got = Concepts.fit(linear, rows, method="kmeans", count=count, seed=seed)
        exact = rows.astype(np.float64)

        def cost(labels):
            return sum(((exact[labels == k] - exact[labels == k].mean(0)) ** 2).sum()
                       for k in np.unique(labels))

        theirs = min(cost(kmeans2(exact, count, iter=100, minit="++", rng=start)[1])
                     for start in range(20))
        assert cost(got.labels) <= theirs * 1.01, (seed, count)
