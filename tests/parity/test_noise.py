"""The noise that a run draws inside the library, seen through libtorch: the same bits for every
batch, thread count and order.

A run with only a seed must equal, bit for bit, the run of equal batch and threads that is handed
the noise of `featinv_noise`. Between batches or thread counts the results themselves may differ by
rounding, since libtorch's kernels split their sums otherwise.
"""

import ctypes

import capi
import numpy as np
import pytest
from capi import scaled

LATENT, LANES, STEPS, SEED = (4, 32, 32), 7, 2, 42


def noise(sample: int, step: int) -> np.ndarray:
    out = np.zeros(LATENT, np.float32)
    pointer = out.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    capi.check(capi.lib.featinv_noise(pointer, ctypes.c_size_t(out.size), ctypes.c_uint64(SEED),
                                      ctypes.c_uint32(sample), ctypes.c_uint32(step)))
    return out


@pytest.fixture(scope="module")
def given():
    """Start (LANES, C, h, w) and steps (STEPS, LANES, C, h, w), drawn from last to first."""
    rows = {(k, i): noise(k, i) for i in reversed(range(STEPS + 1)) for k in reversed(range(LANES))}
    start = np.stack([rows[k, 0] for k in range(LANES)])
    steps = np.stack([[rows[k, i] for k in range(LANES)] for i in range(1, STEPS + 1)])
    return start, steps


def draw(session, d, **settings):
    z, _, _ = session.sample(d["hint"], LATENT, context=d["context_cond"][0], samples=LANES,
                             steps=STEPS, scale=1.0, eta=1.0, **settings)
    return z


@pytest.fixture(scope="module")
def first(bundles, golden, given):
    session = capi.Session(bundles("tiny"), batch=1, threads=1)
    z = draw(session, golden("ddim"), noise=given[0], step_noise=given[1])
    session.close()
    return z


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("batch", [1, 2, 7, 32])
def test_seeded_noise_is_the_published_sequence(bundles, golden, given, first, batch, threads):
    session = capi.Session(bundles("tiny"), batch=batch, threads=threads)
    seeded = draw(session, golden("ddim"), seed=SEED)
    handed = draw(session, golden("ddim"), seed=7, noise=given[0], step_noise=given[1])
    session.close()
    assert np.array_equal(seeded, handed)
    assert scaled(seeded, first) < 1e-5
    assert all(not np.array_equal(seeded[0], other) for other in seeded[1:])
