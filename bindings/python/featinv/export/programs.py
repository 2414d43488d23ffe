"""TorchScript programs without weights.

A program's parameters are one zero, expanded to the parameter's shape; their names are the keys of
the weights. The archives hold no debug records, which would carry the paths of this machine, and no
methods but the program's own: everything is inlined into those.
"""

import copy
import io
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .autoencoder import AutoencoderKL, ImageDecoder, ImageEncoder
from .backbones import Backbone
from .unet import ControlNet, UNet
from .weights import tensors_of


class Shell(nn.Module):
    """A module that only gives another one its name."""

    def __init__(self, name: str, inner: nn.Module) -> None:
        super().__init__()
        self.add_module(name, inner)


def nested(prefix: str, inner: nn.Module) -> nn.Module:
    """Wraps a module so that its parameters are called `prefix.…`; dots nest."""
    first, *further = prefix.split(".")
    for name in reversed(further):
        inner = Shell(name, inner)
    # A class of its own: the compiler shares types between modules of one class and structure,
    # and a program's methods can be defined only once for a type.
    return type("Shell", (Shell,), {})(first, inner)


def placeholders(module: nn.Module) -> nn.Module:
    """A copy of the module whose floating-point tensors are one expanded zero."""
    zero = torch.zeros(1)
    memo: dict[int, object] = {}
    for tensor in tensors_of(module).values():
        stand_in = zero.expand(tensor.shape)
        if isinstance(tensor, nn.Parameter):
            stand_in = nn.Parameter(stand_in, requires_grad=False)
        memo[id(tensor)] = stand_in
    return copy.deepcopy(module, memo).eval()


def without(module: nn.Module, name: str) -> nn.Module:
    """The module, sharing everything, less one child."""
    lighter = copy.copy(module)
    lighter._modules = {k: v for k, v in module._modules.items() if k != name}
    return lighter


_TIME_AND_CONTEXT = """
def time(self, t: Tensor) -> Tensor:
    return self.{prefix}.time(t)
def context(self, context: Tensor) -> Tensor:
    return self.{prefix}.context(context)
"""

_UNET_STEP = """
def step(self, x: Tensor, bank: Tensor, kv: Tensor, residuals: List[Tensor]) -> Tensor:
    return self.{prefix}.step(x, bank, kv, residuals)
"""

_CONTROL_STEP = """
def step(self, x: Tensor, bank: Tensor, kv: Tensor, hint: Tensor) -> Tuple[{types}]:
    r = self.{prefix}.step(x, bank, kv, hint)
    return ({items})
"""

_FORWARD = """
def forward(self, {argument}: Tensor) -> {result}:
    return self.{prefix}({argument})
"""


class Program:
    """A module under its prefix, with the methods that a bundle's program of that name has."""

    def __init__(self, name: str, prefix: str, module: nn.Module, methods: str) -> None:
        self.name = name
        self.module = nested(prefix, module)
        self.methods = methods
        self.prefix = prefix

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every key that the program needs from the weights."""
        return {key: tuple(value.shape) for key, value in tensors_of(self.module).items()}

    def eager(self) -> nn.Module:
        """A copy without weights whose inner module computes what the program must."""
        return placeholders(self.module)

    def archive(self) -> bytes:
        """The program as a TorchScript file."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            script = torch.jit.script(placeholders(self.module))
            script.define(self.methods)
            return pack(script)


def generator_programs(
    unet: UNet | None, control: ControlNet | None, autoencoder: AutoencoderKL | None
) -> list[Program]:
    """The programs of a generator; the modules may live on the meta device."""
    programs = []
    if control is not None:
        prefix = "control_model"
        count = len(control.skips) + 1
        step = _CONTROL_STEP.format(
            prefix=prefix,
            types=", ".join(["Tensor"] * count),
            items=", ".join(f"r[{i}]" for i in range(count)),
        )
        hint_prefix = prefix + ".input_hint_block"
        programs += [
            Program(
                "hint",
                hint_prefix,
                control.input_hint_block,
                _FORWARD.format(prefix=hint_prefix, argument="map", result="Tensor"),
            ),
            Program(
                "control",
                prefix,
                without(control, "input_hint_block"),
                _TIME_AND_CONTEXT.format(prefix=prefix) + step,
            ),
        ]
    if unet is not None:
        prefix = "model.diffusion_model"
        methods = (_TIME_AND_CONTEXT + _UNET_STEP).format(prefix=prefix)
        programs.append(Program("unet", prefix, unet, methods))
    if autoencoder is not None:
        prefix = "first_stage_model"
        encode = _FORWARD.format(prefix=prefix, argument="image", result="Tuple[Tensor, Tensor]")
        decode = _FORWARD.format(prefix=prefix, argument="z", result="Tensor")
        programs += [
            Program("encoder", prefix, ImageEncoder(autoencoder), encode),
            Program("decoder", prefix, ImageDecoder(autoencoder), decode),
        ]
    return programs


class TracedProgram(Program):
    """A vision model: any module, so it is traced rather than compiled."""

    def __init__(self, name: str, module: nn.Module, example: Tensor) -> None:
        self.name = name
        self.module = module
        self.example = example

    def eager(self) -> nn.Module:
        return self.module

    def archive(self) -> bytes:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            script = torch.jit.trace(self.module, self.example, check_trace=False)
            tidy(script.graph)
            follow_input(script.graph)
            zero = torch.zeros(1)
            stand_ins = {k: zero.expand(t.shape) for k, t in tensors_of(script).items()}
            with weights_in(script, stand_ins):
                return pack(script)


def backbone_programs(backbone: Backbone) -> list[Program]:
    """The programs of a vision model: the model itself, and its head where it has one."""
    size = backbone.input
    example = torch.zeros(2, size.channels, size.height, size.width)
    programs: list[Program] = [TracedProgram("backbone", backbone.module, example)]
    if backbone.head is not None:
        forward = _FORWARD.format(prefix="head", argument="map", result="Tensor")
        programs.append(Program("head", "head", backbone.head, forward))
    return programs


@contextmanager
def weights_in(module: nn.Module, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Puts other data into the module's tensors for the length of the block."""
    own = tensors_of(module)
    kept = {key: tensor.data for key, tensor in own.items()}
    try:
        for key, tensor in own.items():
            tensor.data = weights[key]
        yield
    finally:
        for key, tensor in own.items():
            tensor.data = kept[key]


def follow_input(graph: torch._C.Graph) -> None:
    """Makes constants of a trace follow the first argument's device and dtype.

    A trace records the device of the export wherever the model makes a tensor, and tensors that it
    computed in Python as constants; neither moves with the module.
    """
    image = list(graph.inputs())[1]
    device = graph.create("prim::device", [image], 1)
    device.output().setType(torch._C.DeviceObjType.get())
    graph.prependNode(device)
    for node in graph.findAllNodes("prim::Constant", True):
        value = node.output()
        if value.type().kind() == "DeviceObjType":
            value.replaceAllUsesWith(device.output())
        elif node.hasAttribute("value") and node.kindOf("value") == "t":
            constant = node.t("value")
            if constant.dim() == 0:
                continue  # a scalar mixes with any device
            if constant.is_floating_point():
                moved = graph.create("aten::type_as", [value, image], 1)
            else:
                none = graph.create("prim::Constant", [], 1)
                none.output().setType(torch._C.NoneType.get())
                no = graph.create("prim::Constant", [], 1)
                no.i_("value", 0)
                no.output().setType(torch._C.BoolType.get())
                for extra in (none, no):
                    graph.prependNode(extra)
                inputs = [value, device.output(), none.output(), no.output(), no.output()]
                moved = graph.create("aten::to", inputs, 1)
            moved.insertAfter(node)
            value.replaceAllUsesWith(moved.output())
            moved.replaceInput(0, value)
    torch._C._jit_pass_lint(graph)


def pack(script: torch.jit.ScriptModule) -> bytes:
    """Inlines and tidies the methods of a script module and gives its archive."""
    for name in script._c._method_names():
        tidy(script._c._get_method(name).graph)
    buffer = io.BytesIO()
    torch.jit.save(script, buffer)
    return strip(buffer.getvalue())


def tidy(graph: torch._C.Graph) -> None:
    """Inlines every call and folds what only depends on constants."""
    torch._C._jit_pass_inline(graph)
    # A trace notes the shapes that it saw, and folding would make constants of them.
    torch._C._jit_pass_erase_shape_information(graph)
    for _ in range(2):
        torch._C._jit_pass_constant_propagation(graph)
        torch._C._jit_pass_peephole(graph)
        torch._C._jit_pass_dce(graph)


_METHODS = re.compile(r"^  def .*?(?=^class |^def |\Z)", re.MULTILINE | re.DOTALL)
_STAMP = (1980, 1, 1, 0, 0, 0)


def strip(archive: bytes) -> bytes:
    """Drops debug records, and the methods of all classes but the outermost one."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(out, "w") as new:
        names = [name for name in old.namelist() if not name.endswith(".debug_pkl")]
        root = _root_class(old)
        for name in names:
            data = old.read(name)
            if "/code/" in name and name.endswith(".py"):
                data = _drop_methods(name, data.decode(), root).encode()
                if not data:
                    continue
            info = zipfile.ZipInfo("program" + name[name.index("/") :], _STAMP)
            deflate = "/code/" in name
            info.compress_type = zipfile.ZIP_DEFLATED if deflate else zipfile.ZIP_STORED
            new.writestr(info, data)
    return out.getvalue()


def _root_class(archive: zipfile.ZipFile) -> tuple[str, str]:
    """The outermost module's class: the file that declares it and its name there."""
    name = next(n for n in archive.namelist() if n.endswith("/data.pkl"))
    found = re.search(rb"c(__torch__[\w.]*)\n(\w+)\n", archive.read(name))
    assert found, "no class in the archive's data"
    module, cls = found[1].decode(), found[2].decode()
    return "code/" + module.replace(".", "/") + ".py", cls


def _drop_methods(name: str, code: str, root: tuple[str, str]) -> str:
    """The class declarations of a file, with methods for the root class only."""
    file, cls = root
    keep = []
    for part in re.split(r"^(?=class |def )", code, flags=re.MULTILINE):
        if part.startswith("class "):
            is_root = name.endswith("/" + file) and part.startswith(f"class {cls}(")
            keep.append(part if is_root else _METHODS.sub("", part))
        elif not part.startswith("def "):
            keep.append(part)
    return "".join(keep)


def load(archive: bytes, weights: Mapping[str, Tensor]) -> torch.jit.ScriptModule:
    """A program with its weights in, as the library puts them in; for checks."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.jit.load(io.BytesIO(archive))
    for key, tensor in tensors_of(program).items():
        tensor.data = weights[key]
    return program
