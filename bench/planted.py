#!/usr/bin/env python3
"""Are planted subspaces found? Clusters, their number, dimensions and angles on 30 seeded problems.

    bench/planted.py [--problems 30] [--write]

Problem s: width d from 24 to 256, K from 2 to 8 random subspaces of 2 to 6 dimensions (at most 60 %
of d together), 15 rows a dimension and 30 more, Gaussian within the subspace, at unit length; noise
of 0 to 10 % of a row's length. Three methods see the same float32 rows:
- featinv: `featinv_concepts_fit` with its defaults (gamma 10, the .75 quantile, bases through the
  origin), K given, and K by the ratio and the gap rule;
- published: the published algorithm in float32 (bench/concepts.py has its LARS), the same removal,
  ARPACK on I - L from a random start, scikit-learn's k-means with 20 starts, K at the published end
  of the spectrum, centred bases with the published dimension; its error also with a dense eigensolver,
  since ARPACK misses copies of a repeated eigenvalue (affinities of several components);
- scikit-learn: SpectralClustering, affinity of 10 nearest neighbours and RBF (gamma 1), 20 starts.
Clustering error: share of wrong labels under the best matching of clusters, among the rows that
featinv and the published algorithm keep (for scikit-learn: those that featinv keeps). Dimensions:
subspaces whose dimension is the planted one. Angle: largest principal angle of a subspace to the
planted one, over the smaller dimension of both; median and largest over all subspaces of a problem.

Needs the default build and scikit-learn. --write keeps bench/results/planted.json.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from pathlib import Path

import numpy as np
from scipy.linalg import subspace_angles
from scipy.optimize import linear_sum_assignment
from scipy.sparse.linalg import eigsh

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests" / "support"), str(ROOT / "bench")]
import capi  # noqa: E402
from concepts import GAMMA, TAU, solve_row  # noqa: E402

RESULTS = ROOT / "bench" / "results" / "planted.json"
QUANTILE, STARTS, SHARE = 0.75, 20, 0.05


def problem(seed: int) -> dict:
    """Rows (n, d) float32, planted labels (n,), bases (d, p) and the settings drawn."""
    random = np.random.default_rng(seed)
    d = int(random.choice([24, 32, 48, 64, 96, 128, 192, 256]))
    count = int(random.integers(2, 9))
    dimensions = random.integers(2, 7, count)
    while dimensions.sum() > 0.6 * d:
        dimensions[dimensions.argmax()] -= 1
    noise = float(random.uniform(0, 0.1)) if seed % 5 else 0.0
    bases = [np.linalg.qr(random.standard_normal((d, p)))[0] for p in dimensions]
    rows, labels = [], []
    for k, basis in enumerate(bases):
        size = 30 + 15 * basis.shape[1]
        signal = random.standard_normal((size, basis.shape[1])) @ basis.T
        off = random.standard_normal((size, d))
        rows.append(signal / np.linalg.norm(signal, axis=1, keepdims=True)
                    + noise * off / np.linalg.norm(off, axis=1, keepdims=True))
        labels += [k] * size
    rows = np.concatenate(rows)
    order = random.permutation(len(rows))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True))[order].astype(np.float32)
    return {"rows": rows, "labels": np.array(labels)[order], "bases": bases, "d": d,
            "count": count, "dimensions": dimensions.tolist(), "noise": round(noise, 4)}


def matching(labels: np.ndarray, truth: np.ndarray) -> tuple[float, dict[int, int]]:
    """Share of wrong labels under the best matching, and cluster → planted subspace."""
    table = np.zeros((labels.max() + 1, truth.max() + 1), int)
    np.add.at(table, (labels, truth), 1)
    clusters, subspaces = linear_sum_assignment(-table)
    return (float(1 - table[clusters, subspaces].sum() / len(labels)),
            dict(zip(clusters.tolist(), subspaces.tolist())))


def score(p: dict, labels: np.ndarray, bases: list[np.ndarray] | None = None) -> dict:
    """Labels with -1 for removed rows, bases (d, q) by cluster."""
    kept = labels >= 0
    error, found = matching(labels[kept], p["labels"][kept])
    out = {"error": error, "rows_removed": int((~kept).sum())}
    if bases is not None:
        pairs = [(bases[a], p["bases"][b]) for a, b in found.items()]
        angles = [float(np.degrees(subspace_angles(a, b).max())) for a, b in pairs]
        out |= {"dimensions_right": sum(int(a.shape[1] == b.shape[1]) for a, b in pairs),
                "angle_median": float(np.median(angles)), "angle_largest": max(angles)}
    return out


# ---------------------------------------------------------------- three methods ------------------


def ours(p: dict, session) -> dict:
    cpu = time.process_time()
    got = capi.Concepts.fit(session, p["rows"], count=p["count"])
    cpu = time.process_time() - cpu
    out = score(p, got.labels, [got.basis(k) for k in range(got.count)]) | {"labels": got.labels}
    out |= {f"count_{rule}": capi.Concepts.fit(session, p["rows"], rule=rule, dimension=1).count
            for rule in ("ratio", "gap")}
    return out | {"cpu": cpu, "stationarity": got.info.stationarity}


def represent(rows: np.ndarray) -> np.ndarray:
    """Coefficients (n, n) by the published solver, float32 in."""
    rows = rows.copy()
    coefficients = np.zeros((len(rows), len(rows)))
    for j in range(len(rows)):
        y = rows[j:j + 1].copy()
        rows[j] = 0
        coherence = np.abs(rows @ y[0])
        coefficients[j] = solve_row(rows, y, coherence.max() / TAU / GAMMA, coherence)
        rows[j] = y[0]
    return coefficients


def spectrum(coefficients: np.ndarray) -> np.ndarray:
    """I - L (m, m) of the symmetric affinity."""
    length = np.linalg.norm(coefficients, axis=1, keepdims=True)
    c = np.abs(coefficients) / np.where(length > 0, length, 1)
    affinity = (c + c.T) / 2
    np.fill_diagonal(affinity, 0)
    root = np.sqrt(affinity.sum(1))
    inverse = np.where(root > 0, 1 / np.where(root > 0, root, 1), 0)
    return np.diag((root == 0).astype(float)) + inverse[:, None] * affinity * inverse


def published(p: dict) -> dict:
    from sklearn.cluster import KMeans

    cpu = time.process_time()
    rows, count = p["rows"], p["count"]
    scores = np.abs(represent(rows)).sum(1)
    kept = np.flatnonzero(~(scores > np.quantile(scores, QUANTILE)))
    similar = spectrum(represent(rows[kept]))
    start = np.random.default_rng(0).uniform(-1, 1, len(kept))
    vectors = eigsh(similar, k=count, which="LA", v0=start)[1]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    labels = np.full(len(rows), -1)
    labels[kept] = KMeans(count, n_init=STARTS, random_state=0).fit_predict(vectors)
    cpu = time.process_time() - cpu
    dense = np.linalg.eigh(similar)[1][:, -count:]
    dense /= np.linalg.norm(dense, axis=1, keepdims=True)
    labels_dense = KMeans(count, n_init=STARTS, random_state=0).fit_predict(dense)
    bases = []
    for k in range(count):
        members = rows[labels == k].astype(np.float64)
        if len(members) < 2:
            bases.append(members.T)
            continue
        _, singular, right = np.linalg.svd(members - members.mean(0), full_matrices=False)
        bases.append(right[:(singular ** 2 > SHARE * singular[0] ** 2).sum()].T)
    smallest = np.linalg.eigvalsh(similar)[:10]
    return score(p, labels, bases) | {"cpu": cpu, "labels": labels,
                                      "error_dense": matching(labels_dense,
                                                              p["labels"][kept])[0],
                                      "count": int(np.diff(smallest)[1:].argmax()) + 2}


def library(p: dict, affinity: str, kept: np.ndarray) -> dict:
    from sklearn.cluster import SpectralClustering

    cpu = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the neighbour graph may be disconnected
        labels = SpectralClustering(p["count"], affinity=affinity, gamma=1.0, n_init=STARTS,
                                    random_state=0).fit_predict(p["rows"].astype(np.float64))
    cpu = time.process_time() - cpu
    return {"error": matching(labels[kept], p["labels"][kept])[0], "cpu": cpu,
            "error_all_rows": matching(labels, p["labels"])[0]}


# ---------------------------------------------------------------- table --------------------------


def compare(seed: int, session) -> dict:
    p = problem(seed)
    found = {"featinv": ours(p, session), "published": published(p)}
    kept = found["featinv"]["labels"] >= 0
    for affinity in ("nearest_neighbors", "rbf"):
        found[affinity] = library(p, affinity, kept)
    for method in ("featinv", "published"):
        del found[method]["labels"]
    return {"seed": seed, "n": len(p["rows"]), **{key: p[key] for key in (
        "d", "count", "dimensions", "noise")}, **found}


def summary(results: list[dict]) -> dict:
    planted = sum(r["count"] for r in results)
    out = {"problems": len(results)}
    for method in ("featinv", "published", "nearest_neighbors", "rbf"):
        errors = [r[method]["error"] for r in results]
        out[method] = {"error_mean": float(np.mean(errors)), "error_largest": float(max(errors)),
                       "without_error": sum(e == 0 for e in errors),
                       "cpu": sum(r[method]["cpu"] for r in results)}
    for method in ("featinv", "published"):
        out[method] |= {
            "subspaces": planted,
            "dimensions_right": sum(r[method]["dimensions_right"] for r in results),
            "angle_median": float(np.median([r[method]["angle_median"] for r in results])),
            "angle_largest": max(r[method]["angle_largest"] for r in results)}
    for method, key in (("featinv", "count_ratio"), ("featinv", "count_gap"),
                        ("published", "count")):
        out[method][f"{key}_right"] = sum(int(r[method][key] == r["count"])
                                            for r in results)
    out["published"]["error_dense_mean"] = float(np.mean([r["published"]["error_dense"]
                                                          for r in results]))
    return out


def line(r: dict) -> str:
    a, b = r["featinv"], r["published"]
    return (f"{r['seed']:4} {r['d']:4} {r['n']:4} {r['count']:2} {r['noise']:6.3f} |"
            f" {a['error']:6.3f} {b['error']:6.3f} {b['error_dense']:6.3f}"
            f" {r['nearest_neighbors']['error']:6.3f}"
            f" {r['rbf']['error']:6.3f} | {a['count_ratio']:5} {a['count_gap']:4} {b['count']:5} |"
            f" {a['dimensions_right']:4} {b['dimensions_right']:5} | {a['angle_median']:6.2f}"
            f" {a['angle_largest']:6.2f} {b['angle_median']:6.2f} {b['angle_largest']:6.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--problems", type=int, default=30)
    parser.add_argument("--write", action="store_true", help=f"keep {RESULTS.relative_to(ROOT)}")
    args = parser.parse_args()
    session = capi.LinearSession(threads=1)
    print("                         | clustering error                   | count chosen     |"
          " dims right | angles, degrees")
    print("seed    d    n  K  noise |   ours  publ.  dense     nn    rbf | ratio  gap publ. |"
          " ours publ. |   ours  worst  publ.  worst")
    results = []
    for seed in range(args.problems):
        results.append(compare(seed, session))
        print(line(results[-1]), flush=True)
    total = summary(results)
    session.close()
    print(json.dumps(total, indent=1))
    if args.write:
        RESULTS.write_text(json.dumps({"summary": total, "problems": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
