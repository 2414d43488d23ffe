"""The command: its verbs, and what it refuses with which exit code."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import Bundle, scaled
from featinv.export import checkpoint, cli
from featinv.export.weights import SafetensorsSource
from test_programs import ABSOLUTE, members

PROGRAMS = ("hint", "control", "unet", "encoder", "decoder")


def verb(*arguments: object) -> int:
    return cli.main([*map(str, arguments), "-q"])


def check_files(folder: Path) -> None:
    """Every file is listed with its hash, none besides; archives know no folder of this machine."""
    manifest = json.loads((folder / "manifest.json").read_text())
    present = {path.name for path in folder.iterdir()} - {"manifest.json"}
    assert present == manifest["files"].keys()
    for name, entry in manifest["files"].items():
        data = (folder / name).read_bytes()
        assert entry == {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}, name
        if name.endswith(".ts"):
            for member, content in members(folder / name).items():
                assert not ABSOLUTE.search(content), (name, member)
    assert not ABSOLUTE.search((folder / "manifest.json").read_bytes())


def test_random_is_the_tiny_golden_model(tmp_path: Path, tiny: Path) -> None:
    assert verb("random", "--preset", "tiny", "-o", tmp_path / "b", "--name", "mine") == 0
    check_files(tmp_path / "b")
    for name in PROGRAMS:
        file = f"{name}.safetensors"
        assert (tmp_path / "b" / file).read_bytes() == (tiny / file).read_bytes(), name
    assert json.loads((tmp_path / "b" / "manifest.json").read_text())["name"] == "mine"


def test_backbone_on_a_base(tmp_path: Path, tiny: Path) -> None:
    """A fresh ControlNet for another backbone: the UNet's encoder, outputs of zero."""
    out = tmp_path / "joined"
    command = ["backbone", "timm:resnet18", "--weights", "random:1", "--input", "64"]
    assert verb(*command, "--base", tiny, "-o", out) == 0
    check_files(out)
    bundle = Bundle(out)
    assert {"unet.ts", "decoder.ts", "contexts.npz"}.isdisjoint(bundle.manifest["files"])
    base = bundle.manifest["base"]
    assert (out / base["path"]).resolve() == tiny.resolve()
    text = (tiny / "manifest.json").read_bytes()
    assert base["manifest_sha256"] == hashlib.sha256(text).hexdigest()
    assert bundle.manifest["features"]["channels"] == 512
    control = SafetensorsSource(out / "control.safetensors")
    unet = SafetensorsSource(tiny / "unet.safetensors")
    for key, shape in control.shapes().items():
        value = control.read(key, shape)
        if key.startswith(("control_model.zero_convs", "control_model.middle_block_out")):
            assert not value.any(), key
        else:
            other = key.replace("control_model.", "model.diffusion_model.")
            assert torch.equal(value, unet.read(other, shape)), key


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small diffusers folder with random weights, without a text encoder."""
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("pipeline")
    unet = diffusers.UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(32, 64),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        attention_head_dim=4,
        cross_attention_dim=24,
        norm_num_groups=8,
    )
    vae = diffusers.AutoencoderKL(
        block_out_channels=(16, 32),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=8,
    )
    scheduler = diffusers.DDIMScheduler(beta_schedule="scaled_linear")
    for name, part in (("unet", unet), ("vae", vae), ("scheduler", scheduler)):
        part.save_pretrained(folder / name)
    contexts = {n: np.random.default_rng(0).random((7, 24), np.float32) for n in ("default", "empty")}
    np.savez(folder / "contexts.npz", **contexts)
    return folder


def base_verb(pipeline: Path, out: Path, *more: object) -> int:
    given = ["--channels", "10", "--map", "3", "--contexts", pipeline / "contexts.npz"]
    return verb("base", "--pipeline", pipeline, "-o", out, *given, *more)


def test_base_computes_what_diffusers_does(pipeline: Path, tmp_path: Path) -> None:
    import diffusers

    assert base_verb(pipeline, tmp_path / "b") == 0
    check_files(tmp_path / "b")
    bundle = Bundle(tmp_path / "b")
    g = torch.Generator().manual_seed(1)
    x, context = torch.randn(2, 4, 8, 8, generator=g), torch.randn(2, 7, 24, generator=g)
    t = torch.tensor([21.0, 801.0])
    program = bundle.program("unet")
    want = diffusers.UNet2DConditionModel.from_pretrained(pipeline / "unet")(x, t, context).sample
    got = program.step(x, program.time(t), program.context(context), [])
    assert scaled(got, want.numpy()) < 1e-5
    vae = diffusers.AutoencoderKL.from_pretrained(pipeline / "vae")
    assert scaled(bundle.program("decoder")(x), vae.decode(x).sample.numpy()) < 1e-5
    image = torch.randn(1, 3, 16, 16, generator=g)
    mean, logvar = bundle.program("encoder")(image)
    posterior = vae.encode(image).latent_dist
    assert scaled(mean, posterior.mean.numpy()) < 1e-5
    assert scaled(logvar, posterior.logvar.numpy()) < 1e-5
    assert bundle.manifest["diffusion"]["beta_schedule"] == "scaled_linear"


def test_base_refuses_what_it_cannot_compute(
    pipeline: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    copy = shutil.copytree(pipeline, tmp_path / "p")
    config = json.loads((copy / "unet" / "config.json").read_text())
    (copy / "unet" / "config.json").write_text(json.dumps({**config, "act_fn": "gelu"}))
    assert base_verb(copy, tmp_path / "b") == 3
    assert "act_fn 'gelu' is not supported" in capsys.readouterr().err
    assert not (tmp_path / "b").exists()


def test_existing_bundle(pipeline: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "b"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    assert base_verb(pipeline, out, "--force") == 1, "a folder that is no bundle"
    assert (out / "notes.txt").read_text() == "mine"
    (out / "notes.txt").rename(out / "manifest.json")
    assert base_verb(pipeline, out) == 1
    assert "exists, --force replaces it" in capsys.readouterr().err
    assert base_verb(pipeline, out, "--force") == 0
    check_files(out)
    assert [path.name for path in tmp_path.iterdir()] == ["b"], "nothing temporary is left"


def state_of(tiny: Path, reference: Path) -> dict[str, torch.Tensor]:
    state = {}
    for name in PROGRAMS:
        source = SafetensorsSource(tiny / f"{name}.safetensors")
        state |= {key: source.read(key, shape) for key, shape in source.shapes().items()}
    generator = checkpoint.build(checkpoint.read_config(reference / "tiny.yaml"))
    for key, values in checkpoint.schedule_buffers(generator.diffusion).items():
        state[key] = torch.from_numpy(values)
    return state


def refused(tmp_path: Path, reference: Path, state: dict[str, torch.Tensor]) -> int:
    torch.save(state, tmp_path / "w.ckpt")
    config, out = reference / "tiny.yaml", tmp_path / "out"
    code = verb("checkpoint", "--config", config, "--weights", tmp_path / "w.ckpt", "-o", out)
    assert not out.exists()
    return code


def test_checkpoint_keys_are_grouped(
    tiny: Path, reference: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = state_of(tiny, reference)
    gone = [key for key in state if key.startswith("control_model.zero_convs.")]
    for key in gone:
        del state[key]
    state["lora.up.weight"] = torch.zeros(1)
    state["control_model.time_embed.0.bias"] = torch.zeros(3)
    assert refused(tmp_path, reference, state) == 3
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and f"{len(gone)} keys missing" in error
    assert "1 keys unexpected (lora.up.weight)" in error
    assert "1 keys of another shape (control_model.time_embed.0.bias)" in error


def test_checkpoint_of_another_schedule(
    tiny: Path, reference: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = state_of(tiny, reference)
    state["betas"][500] *= 1.01
    assert refused(tmp_path, reference, state) == 3
    assert "betas[500] is" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda text: "a: [", "not yaml"),
        (lambda text: "a: 1", "model.params is missing"),
        (lambda text: _edited(text, "scale_factor", "x"), "scale_factor is 'x', not a number"),
        (lambda text: _edited(text, "parameterization", "x0"), "parameterization 'x0'"),
        (lambda text: _edited(text, "unet_config", 3), "unet_config is not a mapping"),
    ],
)
def test_bad_yaml(change, text, reference, tmp_path, capsys) -> None:
    (tmp_path / "c.yaml").write_text(change((reference / "tiny.yaml").read_text()))
    command = ["checkpoint", "--config", tmp_path / "c.yaml", "--weights", "rule:"]
    assert verb(*command, "-o", tmp_path / "b") == 3
    assert text in capsys.readouterr().err


def _edited(text: str, key: str, value: object) -> str:
    loaded = yaml.safe_load(text)
    loaded["model"]["params"][key] = value
    return yaml.safe_dump(loaded)


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("backbone", "none"), 2, "nothing to export"),
        (("backbone", "timm:resnet18", "--weights", "random:1", "--base", "nowhere"), 4, "nowhere"),
        (("backbone", "timm:resnet18", "--weights", "random:1", "--pooled"), 2, "needs --base"),
        (("base", "--pipeline", "nowhere"), 3, "nowhere: no such folder"),
    ],
)
def test_refused_requests(arguments, code, text, tmp_path, capsys) -> None:
    assert verb(*arguments, "-o", tmp_path / "b") == code
    assert text in capsys.readouterr().err
