#!/usr/bin/env python3
"""Makes this folder from a whole reference folder; README.md says what is left out and why.

    thin.py REFERENCE            writes featinv/ and mcd/ beside this file

Equal inputs give equal files: members keep their order and carry one fixed date.
"""

from __future__ import annotations

import io
import shutil
import sys
import zipfile
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "support"))
from recordings import STRIDE, encoder_input  # noqa: E402

# Fields (..., H, W) of which every third row and column stays.
STRIDED = {
    "featinv/eps": ["guided_hint", "residual_0[0-5]"],
    "featinv/decode": ["image"],
    "featinv/full_eps": ["guided_hint", "image_S5"],
}

# Arrays that follow from others that stay; each with how, checked before it goes.
DERIVED = {
    "featinv/encode": {"image": lambda a, name: encoder_input(a["image_u8"])},
    "mcd/clustering": {
        "g*_k?_projector": lambda a, name: projector(a[name.replace("projector", "embedding")]),
    },
}

# Arrays that no test reads.
UNREAD = {
    "featinv/train": ["posterior_noise"],
    "mcd/attenuation": ["f32_*", "even_median", "*_eachmax", "*_median_rgb"],
    "mcd/bases": ["*_planted_basis_?", "*_mean_?", "*_eig_centred_?", "*_sv_uncentred_?",
                  "*_complement_official", "*_cond_official", "*_sum_error"],
    "mcd/clustering": ["planted", "planted_basis_?", "g*_C1_*", "g*_score_*", "g*_threshold",
                       "g*_alpha?", "g*_degree", "g*_n_components", "g*_k[35]_labels",
                       "g*_k?_embedding_rownorm", "g*_k?_accuracy_inliers", "g*_k?_ari_inliers",
                       "g*_laplacian_eig_top10", "g*_affinity_nn3", "g*_f32_*",
                       "kmeans_labels_*", "kmeans_inertia_as_called", "pca_explained_variance",
                       "disc_ari_*"],
    "mcd/fid": ["*_mu[12]", "*_cov[12]", "*_fid_sqrtm*", "*_fid_eig", "*_fid_analytic", "diag_*",
                "cos_map", "cos_flat_per_image"],
    "mcd/relevance": ["w_unit", "w_components", "complement", "bounds_*", "cross_term_true",
                      "local_relevance_unit_w"],
    "mcd/selfrep": ["*_planted", "*_kkt_*", "*_gap_*", "*_obj_official", "*_cap5",
                    "small_fixed10_t100_alpha", "small_fixed10_t100_C_official",
                    "small_g50_t90_C_official"],
}

# Read by tests/shim without zlib; nearly incompressible anyway.
STORED = {"featinv/ddim", "featinv/decode", "featinv/encode", "featinv/eps", "featinv/wide_eps"}


def projector(embedding: np.ndarray) -> np.ndarray:
    """Orthonormal columns (n, k) to the projector on their span (n, n)."""
    return (embedding @ embedding.T).astype(np.float32)


def fits(name: str, patterns) -> str | None:
    return next((pattern for pattern in patterns if fnmatchcase(name, pattern)), None)


def thinned(stem: str, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What stays of one file; every pattern must have met an array."""
    derived, met, stays = DERIVED.get(stem, {}), set(), {}
    for name, array in arrays.items():
        if pattern := fits(name, UNREAD.get(stem, [])):
            met.add(pattern)
        elif pattern := fits(name, derived):
            met.add(pattern)
            if not np.array_equal(derived[pattern](arrays, name), array):
                sys.exit(f"{stem}.npz: {name} does not follow from the other arrays")
        elif pattern := fits(name, STRIDED.get(stem, [])):
            met.add(pattern)
            stays[name] = np.ascontiguousarray(array[..., ::STRIDE, ::STRIDE])
        else:
            stays[name] = array
    if idle := {*UNREAD.get(stem, []), *derived, *STRIDED.get(stem, [])} - met:
        sys.exit(f"{stem}.npz: no array is called {', '.join(sorted(idle))}")
    return stays


def write(path: Path, arrays: dict[str, np.ndarray], method: int) -> None:
    with zipfile.ZipFile(path, "w", method, compresslevel=9) as archive:
        for name, array in arrays.items():
            data = io.BytesIO()
            np.lib.format.write_array(data, array, allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
            entry.compress_type = method
            archive.writestr(entry, data.getvalue(), compresslevel=9)


def main(reference: Path) -> None:
    for folder in ("featinv", "mcd"):
        (HERE / folder).mkdir(exist_ok=True)
        for source in sorted((reference / folder).iterdir()):
            target, stem = HERE / folder / source.name, f"{folder}/{source.stem}"
            changed = any(stem in table for table in (STRIDED, DERIVED, UNREAD))
            if source.suffix == ".npz" and (changed or stem not in STORED):
                with np.load(source) as archive:
                    arrays = {name: archive[name] for name in archive.files}
                method = zipfile.ZIP_STORED if stem in STORED else zipfile.ZIP_DEFLATED
                write(target, thinned(stem, arrays), method)
            elif source.suffix != ".md":
                shutil.copyfile(source, target)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
