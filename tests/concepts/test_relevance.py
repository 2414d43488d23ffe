"""Activation, completeness and relevance: against the published figures, and through real heads."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
import capi  # noqa: E402
from capi import COMPLEMENT, Concepts, FeatinvError  # noqa: E402

DATA = np.load(capi.REFERENCE / "mcd" / "relevance.npz")
WEIGHT = DATA["w_raw"]
MODELS = capi.ROOT / "models"


@pytest.fixture(scope="module")
def concepts():
    rows = [DATA[f"basis_{k}"] for k in range(4)]
    return Concepts.create(np.concatenate(rows).T, np.cumsum([0] + [len(r) for r in rows]))


def test_completeness(concepts):
    inside, rest = concepts.completeness(WEIGHT)
    assert np.abs(np.subtract((inside, rest), DATA["completeness_official"])).max() <= 1e-12
    assert abs(inside**2 + rest**2 - DATA["completeness_squared_check"]) <= 1e-14


@pytest.mark.parametrize("kind, name", [("image", "global"), ("position", "vector")])
def test_activation(concepts, kind, name):
    got = capi.activation(concepts, DATA["feature_map"], kind)
    want = DATA[f"activation_{name}_norm"].transpose(1, 0, 2, 3)
    assert np.abs(got - want).max() <= 1e-6


def test_grassmann(concepts):
    for i in range(5):
        for j in range(5):
            index = [k if k < 4 else COMPLEMENT for k in (i, j)]
            distance, angles = capi.similarity(concepts, index[0], concepts, index[1])
            # a concept's distance to itself was recorded from cosines alone
            assert abs(distance - DATA["grassmann_official"][i, j]) <= (1e-12 if i != j else 1e-6)
            if i == j:
                assert distance <= 1e-14
            if i < j:
                assert np.abs(angles - DATA[f"angles_{i}_{j}"]).max() <= 1e-12


def test_angles_of_vectors(concepts):
    """Each feature vector as a concept of one dimension: no NaN inside of a subspace."""
    rows = DATA["thr_X"]
    own = [[] for _ in range(4)]
    for row, label, want in zip(rows, DATA["thr_labels"], DATA["thr_angles"].T):
        vector = Concepts.create(row[:, None], [0, 1], True)
        angles = [capi.similarity(vector, 0, concepts, k)[1][0] for k in range(4)]
        assert np.abs(angles - want).max() <= 1e-12
        own[label].append(angles[label])
    assert np.abs([np.median(o) for o in own] - DATA["thr_median_angle"]).max() <= 1e-12


def test_greedy(concepts):
    greedy, order = concepts.orthogonalize(WEIGHT)
    assert list(order) == list(DATA["greedy_order"])
    reached = 0.0
    for k in range(4):
        want = DATA[f"greedy_basis_{k}"]
        basis = greedy.basis(k)
        assert basis.shape == want.T.shape
        assert np.abs(basis @ basis.T - want.T @ want).max() <= 1e-12
        reached += ((basis.T @ WEIGHT) ** 2).sum() / (WEIGHT @ WEIGHT)
        assert abs(np.sqrt(reached) - DATA["greedy_completeness"][k]) <= 1e-12
    total = greedy.completeness(WEIGHT)
    assert np.abs(np.subtract(total, DATA["greedy_completeness_total"])).max() <= 1e-12
    assert np.abs(greedy.bases.T @ greedy.bases - np.eye(12)).max() <= 1e-14


# ---- through heads ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recorded_head(tmp_path_factory):
    """A bundle whose head has the recorded weight for class 1, and others beside it."""
    torch = pytest.importorskip("torch")
    from featinv.export import backbone, write_bundle

    class Small(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = torch.nn.Conv2d(3, 24, 4, 4)
            self.fc = torch.nn.Linear(24, 3)

        def forward(self, image):
            return self.fc(self.stem(image).mean((2, 3)))

    torch.manual_seed(0)
    model = Small().eval()
    with torch.no_grad():
        model.fc.weight[1] = torch.from_numpy(WEIGHT)
    folder = tmp_path_factory.mktemp("head") / "bundle"
    write_bundle(folder, backbone=backbone(model, "stem", input=36, mean=[0.5] * 3, std=[0.5] * 3,
                                           classes=["a", "b", "c"]))
    session = capi.Session(folder)
    yield session
    session.close()


def test_recorded_relevance_through_a_head(concepts, recorded_head):
    """float32 weights: 1e-5 as recorded."""
    weight = capi.class_weight(recorded_head, 1, 24)
    assert np.array_equal(weight, WEIGHT.astype(np.float32))
    pooled = capi.f32(DATA["pooled"])[:, :, None, None]
    global_, local, _ = capi.relevance(recorded_head, concepts, 1, pooled)
    assert np.abs(global_ - DATA["global_relevance_official"]).max() <= 1e-6
    assert np.abs(local - DATA["local_relevance_raw_w"]).max() <= 1e-5
    _, local, local_map = capi.relevance(recorded_head, concepts, 1, DATA["feature_map"])
    assert np.abs(local_map - DATA["local_relevance_map"].transpose(1, 0, 2, 3)).max() <= 1e-5
    assert np.abs(local_map.mean((2, 3)).T - local).max() <= 1e-5
    greedy, _ = concepts.orthogonalize(WEIGHT)
    global_, local, _ = capi.relevance(recorded_head, greedy, 1, pooled)
    assert np.abs(global_ - DATA["greedy_global_relevance"]).max() <= 1e-6
    assert abs((global_**2).sum() - 1) <= 1e-12
    assert np.abs(local - DATA["greedy_local_relevance_raw_w"]).max() <= 1e-5


def shipped(name):
    """A shipped bundle: session, its manifest, maps of random pictures, concepts of its space."""
    manifest = json.loads((MODELS / name / "manifest.json").read_text())
    features = manifest["features"]
    shape = features["channels"], features["height"], features["width"]
    session = capi.Session(MODELS / name)
    rng = np.random.default_rng(4)
    size = manifest["backbone"]["input"]
    pictures = [rng.integers(0, 256, (size["height"], size["width"], 3), np.uint8)
                for _ in range(3)]
    classes = len(json.loads((MODELS / name / "classes.json").read_text()))
    maps, logits = session.extract(pictures, shape, classes)
    offsets = [0, 4, 7, 17]
    found = Concepts.create(rng.standard_normal((shape[0], 17)), offsets, True)
    return session, maps, logits, found


def constants(name, logits):
    """The head's bias, with the shift of its normalisation where there is one."""
    from safetensors.numpy import load_file

    weights = {key: value.astype(np.float64) for key, value in
               load_file(MODELS / name / "head.safetensors").items()}
    constant = weights["head.fc.bias"]
    if "head.norm.bias" in weights:
        constant = constant + weights["head.fc.weight"] @ weights["head.norm.bias"]
    assert constant.shape == logits.shape[1:]
    return constant


@pytest.mark.parametrize("name", ["scenes", "judge"])
def test_shares_sum_to_the_logit(name):
    session, maps, logits, found = shipped(name)
    constant = constants(name, logits)
    for index in (0, 5, logits.shape[1] - 1):
        global_, local, local_map = capi.relevance(session, found, index, maps)
        total = local.sum(1, np.float64) + constant[index]
        assert np.abs(total - logits[:, index]).max() <= 1e-4 * np.abs(logits).max()
        assert np.abs(local_map.mean((2, 3), np.float64).T - local).max() <= 1e-5
        weight = capi.class_weight(session, index, maps.shape[1])
        unit = weight / np.linalg.norm(weight)
        coefficients = np.linalg.lstsq(found.bases, unit)[0]
        want = [np.linalg.norm(coefficients[found.offsets[k]:found.offsets[k + 1]])
                for k in range(3)]
        want.append(np.linalg.norm(unit - found.bases @ coefficients))
        assert np.abs(global_ - want).max() <= 1e-12
    session.close()


def test_normalisation_is_taken_into_account():
    """A feature's mean and spread move no logit of ConvNeXt's head, and no share beside scale."""
    session, maps, logits, found = shipped("judge")
    weight = capi.class_weight(session, 2, maps.shape[1])
    assert abs(weight.sum()) <= 1e-12 * np.abs(weight).sum()
    doubled = capi.classify(session, 2 * maps + 3, logits.shape[1])
    assert np.abs(doubled - logits).max() <= 1e-3 * np.abs(logits).max()
    _, local, _ = capi.relevance(session, found, 2, maps)
    _, twice, _ = capi.relevance(session, found, 2, 2 * maps)
    assert np.abs(local - twice).max() <= 1e-3 * np.abs(local).max()
    # the derivative: moving a map a little along a direction moves the logit by weight over spread
    step = np.random.default_rng(6).standard_normal(maps.shape[1])
    step -= step.mean()
    x = maps.mean((2, 3), np.float64)
    spread = x.std(1)
    centred = x - x.mean(1, keepdims=True)
    slope = (weight @ step - (centred @ step) / (maps.shape[1] * spread**2) * (x @ weight)) / spread
    size = 1e-2
    moved = (maps + (size * step)[None, :, None, None]).astype(np.float32)
    back = (maps - (size * step)[None, :, None, None]).astype(np.float32)
    change = capi.classify(session, moved, logits.shape[1]) \
        - capi.classify(session, back, logits.shape[1])
    assert np.abs(change[:, 2] / (2 * size) - slope).max() <= 1e-2 * np.abs(slope).max()
    session.close()


@pytest.mark.parametrize("eps", [1e-5, 1e-6, 1e-3, 2.5e-4])
def test_any_epsilon_is_found(tmp_path, eps):
    """Features so small that the epsilon decides."""
    torch = pytest.importorskip("torch")
    from featinv.export import backbone, write_bundle

    class Small(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = torch.nn.Conv2d(3, 16, 4, 4)
            self.norm = torch.nn.LayerNorm(16, eps=eps)
            self.fc = torch.nn.Linear(16, 3)

        def forward(self, image):
            return self.fc(self.norm(self.stem(image).mean((2, 3))))

    torch.manual_seed(1)
    model = Small().eval()
    with torch.no_grad():
        model.norm.weight.copy_(torch.rand(16) + 0.5)
        model.norm.bias.copy_(torch.randn(16))
    write_bundle(tmp_path / "b", backbone=backbone(model, "stem", input=8, mean=[0.5] * 3,
                                                   std=[0.5] * 3, classes=["a", "b", "c"]))
    session = capi.Session(tmp_path / "b")
    maps = (1e-3 * np.random.default_rng(7).standard_normal((4, 16, 2, 2))).astype(np.float32)
    found = Concepts.create(np.eye(16, 5), [0, 2, 5])
    logits = capi.classify(session, maps, 3)
    constant = (model.fc.weight @ model.norm.bias + model.fc.bias).detach().numpy()
    _, local, _ = capi.relevance(session, found, 1, maps)
    assert np.abs(local.sum(1) + constant[1] - logits[:, 1]).max() <= 1e-4
    session.close()


@pytest.mark.parametrize("own, called, text", [
    ("judge", "linear", "head.norm"),  # tensors that a linear layer has not
    ("scenes", "layernorm-linear", "its logits deviate by"),
])
def test_a_head_called_by_the_wrong_name_is_refused(tmp_path, own, called, text):
    folder = tmp_path / "b"
    shutil.copytree(MODELS / own, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["backbone"]["head"] = called
    (folder / "manifest.json").write_text(json.dumps(manifest))
    session = capi.Session(folder)
    with pytest.raises(FeatinvError, match=f'head is not the "{called}" it is called: {text}') as e:
        capi.class_weight(session, 0, 96)
    assert e.value.status == -4
    session.close()


def test_classes_and_channels_are_checked(concepts):
    session, maps, logits, found = shipped("scenes")
    for index in (-1, logits.shape[1]):
        with pytest.raises(FeatinvError, match=f"class {index}") as caught:
            capi.relevance(session, found, index, maps)
        assert caught.value.status == -11
    with pytest.raises(FeatinvError, match="concepts of 24 channels") as caught:
        capi.relevance(session, concepts, 0)
    assert caught.value.status == -15
    with pytest.raises(FeatinvError, match="maps: 24 channels"):
        capi.relevance(session, found, 0, DATA["feature_map"])
    session.close()


def test_a_head_that_is_none_is_refused(tmp_path):
    torch = pytest.importorskip("torch")
    from featinv.export import backbone, write_bundle

    class Maxed(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = torch.nn.Conv2d(3, 8, 4, 4)
            self.fc = torch.nn.Linear(8, 3)

        def forward(self, image):
            return self.fc(self.stem(image).amax((2, 3)))

    write_bundle(tmp_path / "b", backbone=backbone(Maxed().eval(), "stem", input=8,
                                                   mean=[0.5] * 3, std=[0.5] * 3,
                                                   classes=["a", "b", "c"]))
    session = capi.Session(tmp_path / "b")
    for call in (lambda: capi.class_weight(session, 0, 8),
                 lambda: capi.relevance(session, Concepts.create(np.eye(8, 2), [0, 1, 2]), 0)):
        with pytest.raises(FeatinvError, match="not a function of the spatial map") as caught:
            call()
        assert caught.value.status == -4
    session.close()
