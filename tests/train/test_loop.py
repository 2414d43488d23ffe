"""Every option of training against the same loop written in PyTorch (reference.py), on the
reference bundle: v-prediction, a UNet of 2.5 million weights.

AdamW divides by the root of the squared gradient, so that rounding decides the sign of steps whose
gradient is nothing but rounding; an epsilon above it makes the comparison of weights a fair one.
"""

import numpy as np
import pytest
import torch
from conftest import SCENES
from reference import Loop
from training import Trainer

COUNT, EPSILON = 4, 1e-4


@pytest.fixture(scope="module")
def batches():
    """Inputs of some steps, with different prompts in a batch."""
    rng = np.random.default_rng(3)
    with np.load(SCENES / "contexts.npz") as contexts:
        prompts = np.stack([contexts[name] for name in contexts.files[:COUNT]])
    return [{"latents": rng.normal(size=(COUNT, 4, 16, 16)).astype(np.float32),
             "maps": rng.normal(size=(COUNT, 96, 8, 8)).astype(np.float32),
             "context": prompts.astype(np.float32), "timesteps": rng.integers(0, 1000, COUNT),
             "noise": rng.normal(size=(COUNT, 4, 16, 16)).astype(np.float32)} for _ in range(3)]


KEEP = {"drop_hint": [0] * COUNT, "drop_prompt": [0] * COUNT}


def distance(a: dict, b: dict) -> float:
    """L2 over all tensors of the difference, relative to b."""
    square = sum(float(np.square(a[k].astype(np.float64) - b[k]).sum()) for k in b)
    return (square / sum(float(np.square(b[k].astype(np.float64)).sum()) for k in b)) ** 0.5


CASES = {
    "locked": ({}, {}),
    "unlocked": ({"mode": "unlocked"}, {}),
    "joint": ({"mode": "joint"}, {}),
    "min-SNR": ({"min_snr": 5.0}, {}),
    "clipping": ({"clip": 0.05}, {}),
    "average": ({"average": 0.5}, {}),
    "accumulation": ({}, {"accumulation": 3}),  # parts of two, and one left over
    "all": ({"mode": "unlocked", "min_snr": 1.0, "clip": 0.1, "average": 0.9},
            {"accumulation": 4}),
}


@pytest.mark.parametrize("name", CASES)
def test_three_steps(scenes, batches, name):
    shared, own = CASES[name]
    loop = Loop(SCENES, rate=1e-3, epsilon=EPSILON, **shared)
    with Trainer(scenes, rate=1e-3, epsilon=EPSILON, **shared, **own) as trainer:
        assert sorted(trainer.keys) == sorted(loop.trained)
        start = trainer.all()
        for key, value in loop.start.items():
            assert np.array_equal(start[key], value.numpy()), key
        for i, batch in enumerate(batches):
            loss, norm = loop.step(**batch)
            result, _ = trainer.step(COUNT, **batch, **KEEP)
            assert result.loss == pytest.approx(loss, rel=2e-5), i
            assert result.gradient_norm == pytest.approx(norm, rel=2e-4), i
            if not i:
                assert distance(trainer.all("gradient"), loop.gradients()) < 5e-5
                clipped = min(1.0, shared.get("clip", np.inf) / norm)
                seen = sum(np.square(g).sum() for g in trainer.all("gradient").values()) ** 0.5
                assert seen == pytest.approx(clipped * norm, rel=1e-3)
        moved = {k: v.detach().numpy() - loop.start[k].numpy() for k, v in loop.trained.items()}
        ours = {k: v - start[k] for k, v in trainer.all().items()}
        assert distance(ours, moved) < 1e-3
        assert distance(ours, {k: 0.9 * v for k, v in moved.items()}) > 0.05
        if "average" in shared:
            averages = {k: v.numpy() - loop.start[k].numpy() for k, v in loop.averages.items()}
            ours = {k: v - start[k] for k, v in trainer.all("average").items()}
            assert distance(ours, averages) < 1e-3
            assert distance(averages, moved) > 0.05


def test_every_case_differs_from_the_first(batches):
    """Else the table above would prove little."""
    ends = {}
    for name in ("locked", "min-SNR", "clipping"):
        loop = Loop(SCENES, rate=1e-3, epsilon=EPSILON, **CASES[name][0])
        for batch in batches[:1]:
            loop.step(**batch)
        ends[name] = {k: v.detach().numpy() - loop.start[k].numpy()
                      for k, v in loop.trained.items()}
    for name in ("min-SNR", "clipping"):
        assert distance(ends[name], ends["locked"]) > 0.05, name


def test_parts_of_a_batch_change_rounding_only(scenes, batches):
    ends = []
    for parts in (1, 2, 4):
        with Trainer(scenes, rate=1e-3, epsilon=EPSILON, accumulation=parts) as trainer:
            losses = [trainer.step(COUNT, **batch, **KEEP)[0].loss for batch in batches]
            ends.append((losses, trainer.all()))
    for losses, weights in ends[1:]:
        assert losses == pytest.approx(ends[0][0], rel=1e-5)
        for key, value in weights.items():
            assert np.abs(value - ends[0][1][key]).max() < 1e-5, key


def rates(session, batch, steps, **settings):
    with Trainer(session, **settings) as trainer:
        return [trainer.step(1, **batch)[0].rate for _ in range(steps)]


def test_learning_rate(scenes, batches):
    batch = {k: v[:1] for k, v in batches[0].items()}
    assert rates(scenes, batch, 5, rate=1e-3, warmup=4) == pytest.approx(
        [0.25e-3, 0.5e-3, 0.75e-3, 1e-3, 1e-3])
    wanted = [0.5e-3, 1e-3] + [1e-3 * (0.1 + 0.9 * 0.5 * (1 + np.cos(np.pi * i / 4)))
                               for i in range(4)] + [1e-4] * 2
    assert rates(scenes, batch, 8, rate=1e-3, warmup=2, decay_steps=6,
                 decay_floor=0.1) == pytest.approx(wanted)


def test_the_rate_is_applied(scenes, batches):
    """A weight whose gradient is large moves by the rate in a first step of AdamW."""
    batch, key = batches[0], "control_model.middle_block_out.0.weight"
    with Trainer(scenes, rate=1e-3, warmup=4, weight_decay=0.0) as trainer:
        before = trainer.read("parameter", key)
        trainer.step(COUNT, **batch, **KEEP)
        moved = np.abs(trainer.read("parameter", key) - before)
    assert np.median(moved) == pytest.approx(0.25e-3, rel=1e-3)


def test_weight_decay_and_betas(scenes, batches):
    """One step from zero moments: the update does not depend on beta, the decay is rate * decay."""
    key = "control_model.middle_block_out.0.weight"
    ends = {}
    for decay in (0.0, 0.5):
        with Trainer(scenes, rate=1e-2, weight_decay=decay) as trainer:
            before = trainer.read("parameter", key)
            trainer.step(COUNT, **batches[0], **KEEP)
            ends[decay] = trainer.read("parameter", key)
    assert np.abs(ends[0.0] - ends[0.5] - before * 0.5e-2).max() < 1e-7


def test_the_sessions_pictures_stay(scenes, batches):
    """Training has weights of its own."""
    maps, shape = batches[0]["maps"][:1], (4, 16, 16)
    before, _, _ = scenes.sample(maps, shape, steps=2)
    with Trainer(scenes, mode="joint", rate=1e-2) as trainer:
        trainer.step(COUNT, **batches[0])
        again, _, _ = scenes.sample(maps, shape, steps=2)
    assert np.array_equal(before, again)


def test_validation_loss(scenes, batches):
    """As in a step, without dropout or an update; the same draws at every step."""
    batch = batches[0]
    loop = Loop(SCENES)
    with Trainer(scenes, rate=1e-3, hint_dropout=1.0, prompt_dropout=1.0) as trainer:
        before = trainer.all()
        result, losses = trainer.loss(COUNT, **batch)
        wanted = loop.losses(**batch)[0].detach().numpy()
        assert losses == pytest.approx(wanted, rel=1e-5)
        assert result.loss == pytest.approx(wanted.mean(), rel=1e-5) and result.step == 0
        for key, value in trainer.all().items():
            assert np.array_equal(value, before[key]), key
        drawn = {"latents": batch["latents"], "maps": batch["maps"]}
        first, _ = trainer.loss(COUNT, **drawn)
        assert first.loss == trainer.loss(COUNT, **drawn)[0].loss
        trainer.step(COUNT, **batch)
        assert trainer.steps == 1
        later, _ = trainer.loss(COUNT, **drawn)
        assert later.loss != first.loss
        shuffled = trainer.loss(COUNT, **(drawn | {"maps": batch["maps"][::-1].copy()}))[0]
        assert shuffled.loss != later.loss


def test_gradients_do_not_gather_over_steps(scenes, batches):
    with Trainer(scenes, rate=0.0, weight_decay=0.0) as trainer:
        norms = [trainer.step(COUNT, **batches[0], **KEEP)[0].gradient_norm for _ in range(2)]
    assert norms[0] == norms[1] > 0


@pytest.fixture(autouse=True)
def threads():
    """As many as the session has: the modules' sums are then split alike."""
    torch.set_num_threads(1)
