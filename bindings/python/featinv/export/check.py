"""The self-check of an export: each written program against its eager module.

Both get the weights as they stand in the files, in float32. Sizes differ from those of the export,
so that a dimension baked into a program is found here.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from .errors import ExportError
from .programs import Program, TracedProgram, load, weights_in
from .unet import Trunk, UNet
from .weights import RuleSource, SafetensorsSource

LIMIT = 1e-5  # scaled difference between two runs of the same float32 operations

Case = tuple[str, str, list[object]]  # what it is, method, arguments


def check_programs(
    folder: Path, programs: list[Program], report: Callable[[str], None]
) -> dict[str, float]:
    """Runs the cases of every program; reports and returns the worst difference of each."""
    worst = {}
    for program in programs:
        with torch.no_grad():
            figures = dict(_compare(folder, program))
        worst[program.name] = max(figures.values())
        shown = ", ".join(f"{case} {figure:.1e}" for case, figure in figures.items())
        report(f"{program.name}: {shown}")
        if not worst[program.name] <= LIMIT:
            raise ExportError(
                f"{program.name}.ts differs from its module by {worst[program.name]:.1e} "
                f"(scaled), more than {LIMIT:.0e}"
            )
    return worst


def _compare(folder: Path, program: Program) -> Iterator[tuple[str, float]]:
    weights = _read(folder / f"{program.name}.safetensors")
    script = load((folder / f"{program.name}.ts").read_bytes(), weights)
    eager = program.eager()
    with weights_in(eager, weights):
        for label, method, arguments in _cases(program):
            got = getattr(script, method)(*arguments)
            target = eager if isinstance(program, TracedProgram) else _inner(eager, program)
            want = getattr(target, method)(*arguments)
            yield label, _difference(got, want)


def _inner(module: nn.Module, program: Program) -> nn.Module:
    return module.get_submodule(program.prefix)


def _read(path: Path) -> dict[str, Tensor]:
    """The weights in float32, zeros replaced: behind a zero convolution nothing would be seen."""
    source = SafetensorsSource(path)
    rule = RuleSource("check:")
    weights = {}
    for key, shape in source.shapes().items():
        tensor = source.read(key, shape).float()
        weights[key] = tensor if bool(tensor.any()) else rule.read(key, shape)
    return weights


def _difference(got: object, want: object) -> float:
    """The largest difference over the largest value, of tensors or of sequences of them."""
    if isinstance(got, Tensor) and isinstance(want, Tensor):
        if got.shape != want.shape:
            raise ExportError(f"shape {list(got.shape)}, expected {list(want.shape)}")
        if want.numel() == 0:
            return 0.0
        scale = max(want.abs().max().item(), 1e-30)
        return (got - want).abs().max().item() / scale
    assert isinstance(got, (tuple, list)) and isinstance(want, (tuple, list))
    if len(got) != len(want):
        raise ExportError(f"{len(got)} results, expected {len(want)}")
    return max(_difference(g, w) for g, w in zip(got, want))


def _cases(program: Program) -> Iterator[Case]:
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    if isinstance(program, TracedProgram):
        shape = program.example.shape[1:]
        for n in (1, 3):
            yield f"batch {n}", "forward", [random(n, *shape)]
        return
    module = program.module.get_submodule(program.prefix)
    if isinstance(module, Trunk):
        yield from _trunk_cases(module, random)
    elif program.name == "hint":
        for n, h, w in ((1, 9, 9), (3, 5, 7)):
            yield f"map {n}×{h}×{w}", "forward", [random(n, module.channels, h, w)]
    elif program.name == "head":
        for n, h, w in ((1, 9, 9), (3, 5, 7)):
            yield f"map {n}×{h}×{w}", "forward", [random(n, module.fc.in_features, h, w)]
    elif program.name == "encoder":
        for n, size in ((1, 64), (2, 32)):
            channels = module.encoder.conv_in.in_channels
            yield f"image {n}×{size}", "forward", [random(n, channels, size, size)]
    else:
        for n, size in ((1, 16), (2, 8)):
            channels = module.post_quant_conv.in_channels
            yield f"latent {n}×{size}", "forward", [random(n, channels, size, size)]


def _trunk_cases(module: Trunk, random: Callable[..., Tensor]) -> Iterator[Case]:
    config = module.config
    for count in (1, 3):
        t = torch.tensor([1.0, 501.0, 981.0])[:count]
        yield f"time {count}", "time", [t]
    for n, length in ((1, 77), (2, 5)):
        yield f"context {n}×{length}", "context", [random(n, length, config["context_dim"])]
    smallest = 2 ** (len(config["channel_mult"]) - 1)
    for n, length, size in ((1, 77, 4 * smallest), (3, 5, 2 * smallest)):
        x = random(n, config["in_channels"], size, size)
        state = [x, random(n, module.bank_width), random(n, length, module.kv_width)]
        label = f"step {n}×{size}"
        if not isinstance(module, UNet):
            hint = random(n, module.model_channels, size, size)
            yield label, "step", [*state, hint]
            continue
        yield label, "step", [*state, []]
        residuals = _residuals(module, n, size, random)
        yield label + " controlled", "step", [*state, residuals]


def _residuals(module: UNet, n: int, size: int, random: Callable[..., Tensor]) -> list[Tensor]:
    """Control residuals of the shapes that the encoder's outputs have."""
    out = []
    blocks_per_level = module.config["num_res_blocks"] + 1
    for i, channels in enumerate(module.skips):
        # The first block keeps the size; each level's last block is the downsampling one.
        level = i // blocks_per_level
        side = size >> level
        out.append(random(n, channels, side, side))
    side = size >> (len(module.config["channel_mult"]) - 1)
    out.append(random(n, module.middle_channels, side, side))
    return out
