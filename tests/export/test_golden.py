"""Exported programs against arrays recorded from the published implementation.

Of some fields the recording keeps every third row and column (`kept`).
"""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Bundle, scaled
from featinv.export.modules import ConvHint
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
from recordings import encoder_input, kept  # noqa: E402

Golden = Callable[[str], dict[str, np.ndarray]]
SCALE = 0.18215


def tensors(arrays: dict[str, np.ndarray], *names: str) -> list[torch.Tensor]:
    return [torch.from_numpy(arrays[name]) for name in names]


def run(bundle: Bundle, arrays: dict[str, np.ndarray], t: torch.Tensor | None = None):
    """Residuals, and a function from residuals to the prediction."""
    x, context, hint_map = tensors(arrays, "x_t", "context", "hint")
    t = torch.from_numpy(arrays["t"]).float() if t is None else t
    control, unet = bundle.program("control"), bundle.program("unet")
    hint = bundle.program("hint")(hint_map)
    residuals = control.step(x, control.time(t), control.context(context), hint)
    bank, kv = unet.time(t), unet.context(context)
    return hint, residuals, lambda scales: unet.step(
        x, bank, kv, [s * r for s, r in zip(scales, residuals)]
    )


ONES = [1.0] * 13
SCALES = {
    "eps": ONES,
    "eps_nocontrol": [],
    "eps_strength05": [0.5] * 13,
    "eps_guess": [0.825 ** (12 - i) for i in range(13)],
    "eps_only_mid": [0.0] * 12 + [1.0],
}


def test_tiny_denoising(tiny: Path, golden: Golden) -> None:
    arrays = golden("eps.npz")
    hint, residuals, predict = run(Bundle(tiny), arrays)
    assert scaled(kept(hint, arrays["guided_hint"]), arrays["guided_hint"]) <= 1e-6
    assert len(residuals) == 13
    for i, residual in enumerate(residuals):
        want = arrays[f"residual_{i:02d}"]
        assert scaled(kept(residual, want), want) <= 1e-5, f"residual {i}"
    for name, scales in SCALES.items():
        assert scaled(predict(scales), arrays[name]) <= 1e-5, name


def test_wide_denoising(wide: Path, golden: Golden) -> None:
    """With several channels a group, the time step matters in every block."""
    arrays = golden("wide_eps.npz")
    hint, residuals, predict = run(Bundle(wide), arrays)
    assert scaled(residuals[12], arrays["residual_12"]) <= 1e-5
    for name in SCALES.keys() & arrays.keys():
        assert scaled(predict(SCALES[name]), arrays[name]) <= 1e-5, name
    swapped = torch.from_numpy(arrays["t"]).float().flip(0)
    *_, predict = run(Bundle(wide), arrays, swapped)
    got = predict(ONES)
    assert scaled(got, arrays["eps_t_swapped"]) <= 1e-5
    assert scaled(got, arrays["eps"]) > 1e-2, "the time step has no effect"


def test_wide_decoder(wide: Path, golden: Golden) -> None:
    arrays = golden("wide_eps.npz")
    (z,) = tensors(arrays, "z_small")
    image = Bundle(wide).program("decoder")(z / SCALE)
    assert scaled(image, arrays["image_small"]) <= 2e-5


def test_tiny_hint(tiny: Path, golden: Golden) -> None:
    arrays = golden("hint.npz")
    got = Bundle(tiny).program("hint")(torch.from_numpy(arrays["nchw_in"]))
    assert scaled(got, arrays["nchw_out"]) <= 1e-6


@pytest.mark.parametrize("layout", ["vit", "nhwc"])
def test_other_layouts(layout: str, reference: Path, golden: Golden) -> None:
    """Tokens and channels-last maps reach the encoder as NCHW, as a backbone program gives them."""
    arrays = golden("hint.npz")
    x = torch.from_numpy(arrays[f"{layout}_in"])
    if layout == "vit":
        x = x[:, 1:].transpose(1, 2).unflatten(2, (7, 7))
    else:
        x = x.permute(0, 3, 1, 2)
    prefix = "control_model.input_hint_block."
    weights = load_file(reference / f"hint_{layout}.safetensors")
    encoder = ConvHint(x.shape[1], 32, (32, 32), 32)
    encoder.load_state_dict({key.removeprefix(prefix): w for key, w in weights.items()})
    assert scaled(encoder(x), arrays[f"{layout}_out"]) <= 1e-6


@pytest.mark.parametrize("size", ["", "_small"])
def test_tiny_decoder(size: str, tiny: Path, golden: Golden) -> None:
    arrays = golden("decode.npz")
    (z,) = tensors(arrays, f"z{size}")
    image = Bundle(tiny).program("decoder")(z / SCALE)
    assert image.shape[2:] == (8 * z.shape[2], 8 * z.shape[3])
    assert scaled(kept(image, arrays[f"image{size}"]), arrays[f"image{size}"]) <= 2e-5


def test_tiny_encoder(tiny: Path, golden: Golden) -> None:
    arrays = golden("encode.npz")
    pixels = torch.from_numpy(encoder_input(arrays["image_u8"]))
    mean, logvar = Bundle(tiny).program("encoder")(pixels)
    assert scaled(mean, arrays["mean"]) <= 1e-5
    assert scaled(logvar, arrays["logvar"]) <= 1e-5
