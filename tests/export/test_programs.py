"""What the archives hold, and how they behave on other sizes and dtypes."""

import io
import re
import zipfile
from pathlib import Path

import pytest
import torch
from conftest import ROOT, Bundle
from featinv.export import ExportError, check, programs
from featinv.export.modules import AutoencoderKL, ControlNet, UNet

NAMES = ("hint", "control", "unet", "encoder", "decoder")
METHODS = {
    "hint": {"forward"},
    "control": {"time", "context", "step"},
    "unet": {"time", "context", "step"},
    "encoder": {"forward"},
    "decoder": {"forward"},
}
ABSOLUTE = re.compile(rb"(?<![\w./])/(home|root|usr|work|tmp|opt|var|mnt|build)\b|site-packages")


def members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.mark.parametrize("name", NAMES)
def test_archive_is_clean(name: str, tiny: Path) -> None:
    for member, data in members(tiny / f"{name}.ts").items():
        assert not member.endswith(".debug_pkl"), member
        assert not ABSOLUTE.search(data), member
        assert str(ROOT).encode() not in data, member


@pytest.mark.parametrize("name", NAMES)
def test_program_has_no_weights(name: str, tiny: Path) -> None:
    program = torch.jit.load(str(tiny / f"{name}.ts"))
    own = dict(program.named_parameters())
    assert own.keys() == Bundle(tiny).program(name).state_dict().keys()
    assert {p.untyped_storage().data_ptr() for p in own.values()}.__len__() == 1
    assert all(p.untyped_storage().nbytes() == 4 and not p.requires_grad for p in own.values())
    assert not list(program.named_buffers())


@pytest.mark.parametrize("name", NAMES)
def test_program_methods(name: str, tiny: Path) -> None:
    program = torch.jit.load(str(tiny / f"{name}.ts"))
    assert set(program._c._method_names()) == METHODS[name]
    for method in METHODS[name]:
        text = str(program._c._get_method(method).graph)
        assert "CallMethod" not in text and "CallFunction" not in text, method
        assert "Device = prim::Constant" not in text, method


def test_control_gives_a_tuple(tiny: Path) -> None:
    program = torch.jit.load(str(tiny / "control.ts"))
    returns = program._c._get_method("step").schema.returns
    assert len(returns) == 1 and str(returns[0].type) == f"Tuple[{', '.join(['Tensor'] * 13)}]"


def test_bank_stays_accurate_in_bfloat16(tiny: Path) -> None:
    """All of it in bfloat16 would be off by several per cent at large t."""
    bundle = Bundle(tiny)
    t = torch.tensor([1.0, 501.0, 981.0])
    want = bundle.program("unet").time(t)
    got = bundle.program("unet", torch.bfloat16).time(t)
    assert got.dtype == torch.bfloat16
    assert ((got.float() - want).norm() / want.norm()).item() < 6e-3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_programs_run_in_half_precision(dtype: torch.dtype, tiny: Path) -> None:
    bundle = Bundle(tiny)
    full = _one_step(bundle, torch.float32)
    half = _one_step(bundle, dtype)
    for a, b in zip(full, half):
        assert b.dtype == dtype
        # Measured: 0.047 and 0.006 at worst, on a deepest grid of 2×2 with one channel a group.
        limit = 0.08 if dtype == torch.bfloat16 else 0.01
        assert ((b.float() - a).norm() / a.norm()).item() < limit


def _one_step(bundle: Bundle, dtype: torch.dtype) -> list[torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    # A corner of the grid: half precision is emulated on most processors, and slow.
    x = torch.randn(1, 4, 16, 16, generator=g).to(dtype)
    context = torch.randn(1, 9, 32, generator=g).to(dtype)
    hint_map = torch.randn(1, 48, 9, 9, generator=g).to(dtype)
    t = torch.tensor([501.0])
    control, unet = bundle.program("control", dtype), bundle.program("unet", dtype)
    hint = bundle.program("hint", dtype)(hint_map)[:, :, :16, :16]
    residuals = control.step(x, control.time(t), control.context(context), hint)
    eps = unet.step(x, unet.time(t), unet.context(context), list(residuals))
    return [hint, *residuals, eps, bundle.program("decoder", dtype)(x[:, :, :4, :4])]


def test_step_on_parts_of_a_batch(tiny: Path) -> None:
    """A batch of two equals two batches of one; time and context can be computed beforehand."""
    unet = Bundle(tiny).program("unet")
    g = torch.Generator().manual_seed(2)
    x, context = torch.randn(2, 4, 16, 24, generator=g), torch.randn(2, 9, 32, generator=g)
    bank = unet.time(torch.tensor([7.0, 900.0, 33.0]))[[1, 2]]
    kv = unet.context(context)
    both = unet.step(x, bank, kv, [])
    for i in range(2):
        one = unet.step(x[i : i + 1], bank[i : i + 1], kv[i : i + 1], [])
        torch.testing.assert_close(one, both[i : i + 1], rtol=1e-5, atol=1e-5)


def small(hint: str = "conv") -> tuple[UNet, ControlNet, AutoencoderKL]:
    """An architecture unlike the golden ones in every number."""
    torch.manual_seed(0)
    trunk = {
        "in_channels": 3,
        "model_channels": 24,
        "channel_mult": (1, 2),
        "num_res_blocks": 1,
        "attention_resolutions": (2,),
        "num_head_channels": 12,
        "context_dim": 20,
        "transformer_depth": 2,
        "groups": 6,
    }
    unet = UNet(out_channels=3, **trunk)
    control = ControlNet(10, (8, 12), 32, hint, **trunk)
    autoencoder = AutoencoderKL(
        ch=16,
        ch_mult=(1, 2, 2),
        num_res_blocks=1,
        z_channels=5,
        embed_dim=3,
        resolution=32,
        attn_resolutions=(16,),
        groups=4,
    )
    return unet, control, autoencoder


@pytest.mark.parametrize("hint", ["conv", "perceiver"])
def test_other_architectures(hint: str, tmp_path: Path) -> None:
    modules = small(hint)
    parts = programs.generator_programs(*modules)
    from featinv.export.bundle import _prefixed
    from featinv.export.weights import module_source, write_safetensors

    source = module_source(dict(_prefixed(*modules)))
    for part in parts:
        (tmp_path / f"{part.name}.ts").write_bytes(part.archive())
        write_safetensors(tmp_path / f"{part.name}.safetensors", part.shapes(), source, "fp32")
    worst = check.check_programs(tmp_path, parts, lambda line: None)
    assert worst.keys() == set(NAMES) and max(worst.values()) < 1e-5


def test_self_check_sees_another_network(tmp_path: Path, tiny: Path) -> None:
    """A program that computes something else does not pass: here, one head more than the module."""
    trunk = {"model_channels": 32, "channel_mult": (1, 2, 1, 1), "context_dim": 32}
    (right,) = programs.generator_programs(UNet(num_heads=4, **trunk), None, None)
    (wrong,) = programs.generator_programs(UNet(num_heads=8, **trunk), None, None)
    (tmp_path / "unet.ts").write_bytes(wrong.archive())
    (tmp_path / "unet.safetensors").write_bytes((tiny / "unet.safetensors").read_bytes())
    with pytest.raises(ExportError, match="unet.ts differs from its module"):
        check.check_programs(tmp_path, [right], lambda line: None)


def test_gradients_reach_every_parameter(tiny: Path) -> None:
    """The same programs train: put trainable weights in and differentiate."""
    bundle = Bundle(tiny)
    control, unet = bundle.program("control"), bundle.program("unet")
    hint = bundle.program("hint")
    trained = [*control.parameters(), *hint.parameters()]
    with torch.enable_grad():
        for parameter in trained:
            parameter.requires_grad_(True)
        x, context = torch.randn(1, 4, 32, 32), torch.randn(1, 5, 32)
        t = torch.tensor([400.0])
        residuals = control.step(
            x, control.time(t), control.context(context), hint(torch.randn(1, 48, 9, 9))
        )
        unet.step(x, unet.time(t), unet.context(context), list(residuals)).square().mean().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in trained)
    assert all(p.grad is None for p in unet.parameters())


def test_archive_loads_from_memory(tiny: Path) -> None:
    data = (tiny / "hint.ts").read_bytes()
    program = torch.jit.load(io.BytesIO(data))
    assert program(torch.zeros(2, 48, 3, 3)).shape == (2, 32, 32, 32)
