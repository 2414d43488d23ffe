"""Key names, the weight rule and the weight files."""

import hashlib
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from featinv.export import InputError, checkpoint, cli
from featinv.export.programs import generator_programs
from featinv.export.weights import RuleSource, SafetensorsSource, TensorSource, write_safetensors

PRESETS = Path(checkpoint.__file__).parent / "presets"


@pytest.mark.parametrize(
    ("config", "keys"), [("minisd.yaml", "keys.json"), ("tiny.yaml", "tiny_keys.json")]
)
def test_keys_are_the_release_s(config: str, keys: str, reference: Path) -> None:
    listed = json.loads((reference / keys).read_text())
    want = {
        entry["key"]: tuple(entry["shape"])
        for part in ("control_model", "model.diffusion_model", "first_stage_model")
        for entry in listed[part]
    }
    generator = checkpoint.build(checkpoint.read_config(PRESETS / config))
    got: dict[str, tuple[int, ...]] = {}
    parts = generator_programs(generator.unet, generator.control, generator.autoencoder)
    for program in parts:
        got.update(program.shapes())
    assert got == want
    assert sum(len(program.shapes()) for program in parts) == len(want), "a key is in two programs"


def test_schedule_is_the_release_s(reference: Path) -> None:
    recorded = json.loads((reference / "tiny_keys.json").read_text())["buffers"]
    generator = checkpoint.build(checkpoint.read_config(PRESETS / "tiny.yaml"))
    made = checkpoint.schedule_buffers(generator.diffusion)
    assert made.keys() == recorded.keys()
    for key, values in recorded.items():
        np.testing.assert_allclose(made[key], np.float32(values), rtol=2e-6, atol=1e-9, err_msg=key)


KNOWN = {
    "model.diffusion_model.time_embed.0.weight": (
        -0.9517906308174133,
        0.10639923810958862,
        -0.6071606278419495,
    ),
    "control_model.input_hint_block.block.1.bias": (
        -0.2026248574256897,
        -0.9803177714347839,
        -0.05620330572128296,
    ),
    "first_stage_model.decoder.norm_out.weight": (
        -0.94936603307724,
        0.48061639070510864,
        -0.5537175536155701,
    ),
}


@pytest.mark.parametrize("key", KNOWN)
def test_rule_known_values(key: str) -> None:
    assert RuleSource("")._uniform(key, 3).tolist() == list(np.float32(KNOWN[key]))


@pytest.mark.parametrize("shape", [(7,), (3, 5), (2, 3, 3, 3), (300, 500)])
@pytest.mark.parametrize("key", ["a.weight", "a.bias"])
def test_rule_is_bit_equal(shape: tuple[int, ...], key: str, reference: Path) -> None:
    script = reference / "make_weights.py"
    if not script.is_file():
        pytest.skip("the golden data lacks make_weights.py")
    spec = importlib.util.spec_from_file_location("make_weights", script)
    make_weights = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make_weights)
    want = make_weights.tensor("salt:", key, shape)
    got = RuleSource("salt:").read(key, shape).numpy()
    assert got.tobytes() == want.tobytes() and got.shape == want.shape


def test_rule_weights_in_a_bundle(tiny: Path, reference: Path) -> None:
    """The recorded hash over all tiny tensors, schedule buffers included."""
    listed = json.loads((reference / "tiny_keys.json").read_text())
    weights = {key: np.float32(values) for key, values in listed["buffers"].items()}
    for name in ("hint", "control", "unet", "encoder", "decoder"):
        source = SafetensorsSource(tiny / f"{name}.safetensors")
        weights |= {k: source.read(k, s).numpy() for k, s in source.shapes().items()}
    digest = hashlib.sha256(b"".join(k.encode() + weights[k].tobytes() for k in sorted(weights)))
    assert digest.hexdigest() == listed["sha256"]


@pytest.mark.parametrize("dtype", ["fp32", "fp16", "bf16"])
def test_file_round_trip(dtype: str, tmp_path: Path) -> None:
    tensors = {"b": torch.randn(3, 1, 2), "a": torch.randn(5), "scalar": torch.tensor(0.5)}
    shapes = {key: tuple(value.shape) for key, value in tensors.items()}
    path = tmp_path / "w.safetensors"
    entry = write_safetensors(path, shapes, TensorSource(tensors), dtype)
    data = path.read_bytes()
    assert entry == {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    read = SafetensorsSource(path)
    for key, value in tensors.items():
        back = read.read(key, shapes[key])
        assert torch.equal(back, value.to(back.dtype)), key
        assert back.dtype.itemsize == (4 if dtype == "fp32" else 2)


def test_fp16_overflow_is_refused(tmp_path: Path) -> None:
    source = TensorSource({"v": torch.tensor([1e5])})
    with pytest.raises(InputError, match="v: 100000 does not fit fp16"):
        write_safetensors(tmp_path / "w", {"v": (1,)}, source, "fp16")


def test_checkpoint_files(tiny: Path, reference: Path, tmp_path: Path) -> None:
    """A release-like checkpoint (wrapped state dict, extra keys) gives the same weight files."""
    state: dict[str, torch.Tensor] = {
        "model_ema.decay": torch.tensor(0.999),
        "first_stage_model.loss.logvar": torch.tensor(0.0),
    }
    generator = checkpoint.build(checkpoint.read_config(reference / "tiny.yaml"))
    for key, values in checkpoint.schedule_buffers(generator.diffusion).items():
        state[key] = torch.from_numpy(values)
    for name in ("hint", "control", "unet", "encoder", "decoder"):
        source = SafetensorsSource(tiny / f"{name}.safetensors")
        state |= {k: source.read(k, s) for k, s in source.shapes().items()}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "model.ckpt")
    command = ["checkpoint", "--config", str(reference / "tiny.yaml"), "-q"]
    command += ["--weights", str(tmp_path / "model.ckpt"), "-o", str(tmp_path / "out")]
    command += ["--contexts", str(tiny / "contexts.npz")]
    assert cli.main(command) == 0
    for name in ("hint", "control", "unet", "encoder", "decoder"):
        file = f"{name}.safetensors"
        assert (tmp_path / "out" / file).read_bytes() == (tiny / file).read_bytes(), name
