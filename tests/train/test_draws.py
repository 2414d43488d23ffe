"""What the library draws for a step, written again here: Philox at (position, step, stream)."""

import json
import shutil

import capi
import numpy as np
import pytest
from conftest import SCENES
from training import Trainer

NOISE, POSTERIOR, CHOICES = 16, 17, 18
SEED, COUNT, MASK = 0x0123456789ABCDEF, 6, 0xFFFFFFFF
LATENT, NO_STEP = (4, 16, 16), MASK


def philox(counter, key):
    """Philox4x32 with ten rounds (Salmon et al. 2011)."""
    c, k = list(counter), list(key)
    for _ in range(10):
        a, b = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(b >> 32) ^ c[1] ^ k[0], b & MASK, (a >> 32) ^ c[3] ^ k[1], a & MASK]
        k = [(k[0] + 0x9E3779B9) & MASK, (k[1] + 0xBB67AE85) & MASK]
    return c


def words(position, step, stream, element=0):
    return philox((position, step, stream, element), (SEED & MASK, SEED >> 32))


def normals(position, step, stream):
    """A latent of normal numbers, as docs/numerics.md makes them."""
    r = np.array([words(position, step, stream, i) for i in range(np.prod(LATENT) // 4)], float)
    u = (r.reshape(-1, 2) + 0.5) / 2**32
    radius, angle = np.sqrt(-2 * np.log(u[:, 0])), 2 * np.pi * u[:, 1]
    pairs = np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)
    return pairs.reshape(LATENT).astype(np.float32)


def drawn(step, position=0, *, hint=0.1, prompt=0.1, joint=0.0):
    """Timesteps, noise and dropped parts of a batch."""
    choices = np.array([words(position + i, step, CHOICES) for i in range(COUNT)], np.uint64)
    u = (choices.astype(float) + 0.5) / 2**32
    both = u[:, 3] < joint
    return {"timesteps": (choices[:, 0] * 1000 >> np.uint64(32)).astype(np.int64),
            "noise": np.stack([normals(position + i, step, NOISE) for i in range(COUNT)]),
            "drop_hint": both | (u[:, 1] < hint), "drop_prompt": both | (u[:, 2] < prompt)}


@pytest.fixture(scope="module")
def given():
    rng = np.random.default_rng(8)
    return {"latents": rng.normal(size=(COUNT, *LATENT)).astype(np.float32),
            "maps": rng.normal(size=(COUNT, 96, 8, 8)).astype(np.float32)}


DROPOUTS = [{}, {"hint": 0.5, "prompt": 0.5}, {"hint": 1.0, "prompt": 0.0},
            {"hint": 0.0, "prompt": 1.0}, {"hint": 0.0, "prompt": 0.0, "joint": 0.5},
            {"hint": 0.3, "prompt": 0.2, "joint": 0.3}]


@pytest.mark.parametrize("settings", DROPOUTS)
@pytest.mark.parametrize("position", [0, 1000])
def test_a_step_draws_this(scenes, given, settings, position):
    options = {f"{k}_dropout": v for k, v in settings.items()}
    dropped = 0
    with Trainer(scenes, seed=SEED, rate=1e-3, **options) as free, \
            Trainer(scenes, rate=1e-3) as told:
        for step in range(3):
            draws = drawn(step, position, **settings)
            dropped += draws["drop_hint"].sum() + draws["drop_prompt"].sum()
            _, losses = free.step(COUNT, **given, position=position)
            _, wanted = told.step(COUNT, **given, **draws)
            assert losses == pytest.approx(wanted, rel=1e-5), step
    if max(settings.values(), default=0.0) >= 0.5:
        assert dropped


def test_the_validation_draws(scenes, given):
    draws = drawn(NO_STEP, hint=0.0, prompt=0.0)
    with Trainer(scenes, seed=SEED, hint_dropout=1.0) as trainer:
        _, losses = trainer.loss(COUNT, **given)
        _, wanted = trainer.loss(COUNT, **given, **draws)
    assert losses == pytest.approx(wanted, rel=1e-5)


def test_what_is_dropped(scenes, given):
    """The map becomes zeros, the prompt the empty one; the other samples of the batch stay."""
    with np.load(SCENES / "contexts.npz") as contexts:
        default, empty = contexts["default"], contexts["empty"]
    draws = drawn(0, hint=0.0, prompt=0.0)
    fixed = {"timesteps": draws["timesteps"], "noise": draws["noise"]}
    flags = {"drop_hint": [1, 0, 1, 0, 0, 0], "drop_prompt": [1, 1, 0, 0, 0, 0]}
    maps = given["maps"].copy()
    maps[[0, 2]] = 0
    prompts = np.stack([empty, empty, default, default, default, default])
    none = {"drop_hint": [0] * COUNT, "drop_prompt": [0] * COUNT}
    with Trainer(scenes) as trainer:
        _, losses = trainer.loss(COUNT, **given, **fixed, **flags)
        _, wanted = trainer.loss(COUNT, latents=given["latents"], maps=maps, context=prompts,
                                 **fixed, **none)
        _, kept = trainer.loss(COUNT, **given, **fixed, **none)
        _, named = trainer.loss(COUNT, **given, **fixed, **none, context=default)
    assert np.array_equal(losses, wanted)
    assert np.array_equal(kept, named)
    assert (losses[:3] != kept[:3]).all() and np.array_equal(losses[3:], kept[3:])


def test_another_prompt_by_name(scenes, given):
    with np.load(SCENES / "contexts.npz") as contexts:
        name = contexts.files[5]
        data = contexts[name]
    with Trainer(scenes, context=name.encode()) as trainer, Trainer(scenes) as other:
        _, losses = trainer.loss(COUNT, **given)
        assert np.array_equal(losses, trainer.loss(COUNT, **given, context=data)[1])
        assert not np.array_equal(losses, other.loss(COUNT, **given)[1])


def test_a_samples_loss_is_its_own(scenes, given):
    """What a sample gets depends on its position, not on the batch that it comes in."""
    with Trainer(scenes, seed=SEED) as trainer:
        _, whole = trainer.loss(COUNT, **given)
        parts = []
        for first, n in ((0, 2), (2, 1), (3, 3)):
            part = {k: v[first : first + n] for k, v in given.items()}
            parts += list(trainer.loss(n, **part, position=first)[1])
    assert parts == pytest.approx(whole, rel=1e-5)


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(2)
    coarse = rng.integers(0, 256, (COUNT, 8, 8, 3), dtype=np.uint8)
    return coarse.repeat(8, 1).repeat(8, 2)


def test_pictures_become_latents_and_maps(scenes, pictures):
    """images: encoded, one draw of the posterior; views: the backbone's maps of those bytes."""
    mean, logvar = scenes.encode(pictures, LATENT)
    scale = 0.3918002247810364  # of the bundle
    draws = np.stack([normals(i, 0, POSTERIOR) for i in range(COUNT)])
    latents = (mean + np.exp(logvar / 2) * draws) * np.float32(scale)
    maps, _ = scenes.extract(list(pictures), (96, 8, 8))
    with Trainer(scenes, seed=SEED) as trainer, Trainer(scenes, seed=SEED) as given:
        _, losses = trainer.step(COUNT, images=pictures, views=pictures)
        _, wanted = given.step(COUNT, latents=latents, maps=maps)
        assert losses == pytest.approx(wanted, rel=1e-5)
        _, at_mean = given.loss(COUNT, latents=mean * np.float32(scale), maps=maps,
                                timesteps=[1] * COUNT)
        _, drawn_once = given.loss(COUNT, images=pictures, maps=maps, timesteps=[1] * COUNT)
    assert (at_mean != drawn_once).all()


def test_the_pictures_mix_with_arrays(scenes, pictures):
    maps, _ = scenes.extract(list(pictures), (96, 8, 8))
    with Trainer(scenes, seed=SEED) as trainer:
        _, views = trainer.loss(COUNT, images=pictures, views=pictures)
        _, arrays = trainer.loss(COUNT, images=pictures, maps=maps)
        other = trainer.loss(COUNT, images=pictures, views=pictures[::-1].copy())[1]
    assert np.array_equal(views, arrays)
    assert not np.array_equal(views, other)


BAD = [
    ("no sample", 0, {}, -3, "1 to"),
    ("a wrong shape", COUNT, {"maps": np.zeros((COUNT, 95, 8, 8))}, -15, "maps"),
    ("a row too few", COUNT, {"latents": np.zeros((COUNT - 1, *LATENT))}, -15, "latents"),
    ("NaN", COUNT, {"latents": np.full((COUNT, *LATENT), np.nan)}, -16, "latents"),
    ("infinite noise", COUNT, {"noise": np.full((COUNT, *LATENT), np.inf)}, -16, "noise"),
    ("a late timestep", COUNT, {"timesteps": [0, 1, 2, 3, 4, 1000]}, -3, "timestep 1000"),
    ("a timestep below 0", COUNT, {"timesteps": [0, 1, 2, 3, 4, -1]}, -3, "timestep -1"),
    ("a narrow prompt", COUNT, {"context": np.zeros((12, 63))}, -15, "context_data"),
    ("an empty prompt", COUNT, {"context": np.zeros((0, 64))}, -15, "context_data"),
    ("a position below 0", COUNT, {"position": -1}, -3, "position"),
    ("a position too far", COUNT, {"position": 2**32}, -3, "position"),
    ("both", COUNT, {"images": np.zeros((COUNT, 64, 64, 3), np.uint8)}, -3, "images or latents"),
    ("no maps", COUNT, {"maps": None}, -3, "views or maps"),
    ("small views", COUNT, {"maps": None, "views": np.zeros((COUNT, 63, 64, 3), np.uint8)}, -15,
     "views"),
    ("float images", COUNT, {"latents": None, "images": np.zeros((COUNT, 64, 64, 3), np.float32)},
     -15, "images"),
    ("a longer prompt that is dropped", COUNT, {"context": np.zeros((13, 64)),
                                                "drop_prompt": [1] * COUNT}, -15, "13 tokens"),
]


@pytest.mark.parametrize("count,changed,status,text", [
    pytest.param(*case[1:], id=case[0]) for case in BAD])
def test_refused_batches(scenes, given, count, changed, status, text):
    """A refused step changes nothing, and the trainer goes on."""
    with Trainer(scenes, rate=1e-3) as trainer:
        before = trainer.all()
        with pytest.raises(capi.FeatinvError) as caught:
            trainer.step(count, **(given | changed))
        assert caught.value.status == status and text in caught.value.text
        assert trainer.steps == 0
        for key, value in trainer.all().items():
            assert np.array_equal(value, before[key]), key
        assert trainer.step(COUNT, **given)[0].step == 1


@pytest.mark.parametrize("parts", [1, 3])
def test_a_loss_that_is_not_finite_is_not_applied(scenes, given, parts, tmp_path):
    """Weights, optimiser and step stay the last good ones: the next step is as if it was not."""
    noise = np.ones((COUNT, *LATENT), np.float32)
    broken = noise.copy()
    broken[4] *= 1e30
    states = []
    for stumble in (False, True):
        with Trainer(scenes, rate=1e-3, average=0.9, accumulation=parts) as trainer:
            trainer.step(COUNT, **given, noise=noise)
            if stumble:
                with pytest.raises(capi.FeatinvError) as caught:
                    trainer.step(COUNT, **given, noise=broken, timesteps=[999] * COUNT)
                assert caught.value.status == -32
                assert "step 2: the loss of sample 4 (timestep 999)" in caught.value.text
                assert trainer.steps == 1
            trainer.step(COUNT, **given, noise=noise)
            trainer.save(tmp_path / "state.safetensors")
            states.append((tmp_path / "state.safetensors").read_bytes())
    assert states[0] == states[1]


OPTIONS = [("rate", -1.0), ("rate", float("nan")), ("warmup", -1), ("decay_floor", 2.0),
           ("beta1", 1.0), ("beta2", -0.1), ("epsilon", 0.0), ("weight_decay", -1.0),
           ("clip", float("inf")), ("average", 1.0), ("min_snr", -1.0), ("hint_dropout", 1.1),
           ("prompt_dropout", -0.1), ("joint_dropout", float("nan")), ("accumulation", 0),
           ("precision", 2), ("precision", 3), ("mode", 3)]


@pytest.mark.parametrize("name,value", OPTIONS)
def test_refused_options(scenes, name, value):
    with pytest.raises(capi.FeatinvError) as caught:
        Trainer(scenes, **{name: value})
    assert caught.value.status == -3 and name in caught.value.text


def test_refused_names_and_bundles(scenes):
    with pytest.raises(capi.FeatinvError, match='no context is named "nobody"'):
        Trainer(scenes, context=b"nobody")
    judge = capi.Session(capi.ROOT / "models" / "judge", threads=1)
    with pytest.raises(capi.FeatinvError, match="nothing to train without a generator") as caught:
        Trainer(judge)
    judge.close()
    assert caught.value.status == -4
    with pytest.raises(capi.FeatinvError) as caught:
        Trainer(capi.LinearSession())
    assert caught.value.status == -4
    with Trainer(scenes) as trainer:
        with pytest.raises(capi.FeatinvError, match='"control_model.nothing"'):
            trainer.shape("control_model.nothing")
        with pytest.raises(capi.FeatinvError, match="no moving average"):
            trainer.read("average", trainer.keys[0])


def test_pictures_need_their_programs(session):
    """The tiny bundle has no backbone."""
    with Trainer(session) as trainer:
        with pytest.raises(capi.FeatinvError) as caught:
            trainer.step(1, latents=np.zeros((1, 4, 32, 32)),
                         views=np.zeros((1, 8, 8, 3), np.uint8))
    assert caught.value.status == -4 and "no backbone" in caught.value.text


def test_a_pooled_bundle_is_trained_on_means(scenes, given, tmp_path):
    """`pooled` in the manifest: the ControlNet sees the map's mean at every position."""
    folder = tmp_path / "pooled"
    shutil.copytree(SCENES, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["features"]["pooled"] = True
    (folder / "manifest.json").write_text(json.dumps(manifest))
    session = capi.Session(folder, threads=1)
    means = np.broadcast_to(given["maps"].mean((2, 3), keepdims=True), given["maps"].shape)
    with Trainer(session) as pooled, Trainer(scenes) as spatial:
        _, losses = pooled.loss(COUNT, **given)
        _, wanted = spatial.loss(COUNT, latents=given["latents"], maps=means)
        _, other = spatial.loss(COUNT, **given)
    session.close()
    assert losses == pytest.approx(wanted, rel=1e-5)
    assert (np.abs(losses - other) > 1e-3 * other).any()
