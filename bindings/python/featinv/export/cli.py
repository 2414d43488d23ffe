"""The command `python -m featinv.export VERB ... -o BUNDLE`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from . import bundle, checkpoint, contexts, pipeline
from .backbones import INTERPOLATIONS, LAYOUTS, Backbone, load_backbone
from .errors import ExportError, InputError, UsageError
from .features import FeatureStatistics, feature_statistics, read_maps
from .modules import ControlNet
from .unet import fresh_hint
from .weights import DTYPES, FreshControlSource, RuleSource, Source, open_weights

PRESETS = {"minisd": "", "tiny": "tiny-a:"}  # preset → salt of its weights
RELEASE_GRID = (9, 9)  # maps of the public release: 288 pixels, stride 32


def _pair(text: str) -> tuple[int, int]:
    """`H` or `H,W`"""
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not H or H,W") from None
    if len(numbers) not in (1, 2) or min(numbers) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not H or H,W")
    return numbers[0], numbers[-1]


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a count")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m featinv.export",
        description="Makes bundles for libfeatinv.",
        allow_abbrev=False,
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name: str, text: str) -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, help=text, description=text, allow_abbrev=False)
        _common(sub)
        return sub

    sub = verb("random", "A bundle with reproducible random weights.")
    sub.add_argument("--preset", choices=sorted(PRESETS), required=True)
    _generator(sub)

    sub = verb("checkpoint", "A bundle from a checkpoint of the public release.")
    sub.add_argument("--config", type=Path, required=True, metavar="FILE.yaml")
    sub.add_argument(
        "--weights", required=True, metavar="W", help="FILE.safetensors, FILE.ckpt or rule:[SALT]"
    )
    sub.add_argument("--tokenizer", type=Path, metavar="DIR", help="CLIP tokenizer, for prompts")
    _generator(sub)

    sub = verb("base", "A bundle from a diffusers folder, with a fresh ControlNet.")
    sub.add_argument("--pipeline", type=Path, required=True, metavar="DIR")
    sub.add_argument("--channels", type=_count, metavar="C", help="of the maps; with a backbone, its")
    sub.add_argument("--hint-hidden", type=_count, default=512, metavar="N")
    _generator(sub)

    sub = verb("backbone", "A bundle with a vision backbone only, or joined to a generator.")
    sub.add_argument("spec", metavar="SPEC", help="timm:NAME, torchvision:NAME or script:FILE.ts")
    sub.add_argument("--weights", metavar="W", help="FILE or random:SEED")
    sub.add_argument("--base", type=Path, metavar="BUNDLE", help="take the generator from there")
    sub.add_argument("--hint", choices=("conv", "perceiver"), default="conv")
    sub.add_argument("--hint-hidden", type=_count, metavar="N")
    sub.add_argument("--pooled", action="store_true")
    return parser


def _common(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("-o", "--output", type=Path, required=True, metavar="BUNDLE")
    sub.add_argument("--force", action="store_true", help="replace an existing bundle")
    sub.add_argument("--name", help="name in the manifest (default: the folder's)")
    sub.add_argument("--dtype", choices=tuple(DTYPES), default="fp32", help="of stored weights")
    sub.add_argument("-q", "--quiet", action="store_true", help="do not print the self-check")
    group = sub.add_argument_group("backbone")
    group.add_argument("--layer", metavar="L", help="the layer whose output is the map")
    group.add_argument("--input", type=_pair, metavar="H[,W]", help="size of its images")
    group.add_argument("--interpolation", choices=INTERPOLATIONS)
    group.add_argument("--crop", type=float, metavar="F")
    group.add_argument("--layout", choices=LAYOUTS, help="default: seen from the layer's shape")
    group.add_argument("--prefix-tokens", type=_count, metavar="N")
    group.add_argument("--map", type=_pair, metavar="H,W", help="grid of the maps")
    group.add_argument("--classes", type=Path, metavar="FILE.json", help="names of the logits")
    maps = group.add_mutually_exclusive_group()
    maps.add_argument(
        "--feature-mean",
        type=Path,
        metavar="F",
        help="npz with `mean`, the channel mean of the training maps, or all of a features.npz",
    )
    maps.add_argument(
        "--feature-maps",
        type=Path,
        metavar="F",
        help="training maps (N,C,h,w), npy or npz with `features`: their statistics are kept",
    )


def _generator(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--backbone", default="none", metavar="SPEC", help="as of `backbone`, or none")
    sub.add_argument("--backbone-weights", metavar="W", help="FILE or random:SEED")
    sub.add_argument("--pooled", action="store_true", help="the ControlNet reads the map's mean")
    sub.add_argument("--hint", choices=("conv", "perceiver"), default="conv")
    sub.add_argument("--contexts", type=Path, metavar="FILE.npz", help="encoded prompts")
    sub.add_argument("--prompts", type=Path, metavar="FILE", help="lines of NAME<TAB>text")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a verb; gives the exit code, and prints errors as one line."""
    options = _parser().parse_args(argv)
    try:
        VERBS[options.verb](options)
    except ExportError as error:
        print(f"featinv.export: {error}", file=sys.stderr)
        return error.code
    except MemoryError:
        print("featinv.export: out of memory", file=sys.stderr)
        return 5
    except KeyboardInterrupt:
        return 130
    return 0


def _report(options: argparse.Namespace) -> bundle.Report:
    return (lambda line: None) if options.quiet else (lambda line: print(line, flush=True))


def _backbone(
    options: argparse.Namespace, spec: str, weights: str | None, **defaults: object
) -> Backbone | None:
    """The backbone of the options; `defaults` replace the model's own preprocessing."""
    if spec == "none":
        return None
    given = {
        "input": options.input,
        "interpolation": options.interpolation,
        "crop": options.crop,
    }
    return load_backbone(
        spec,
        weights,
        layer=options.layer,
        layout=options.layout,
        prefix_tokens=options.prefix_tokens,
        grid=options.map,
        classes=bundle.read_classes(options.classes) if options.classes else None,
        **{key: defaults.get(key) if value is None else value for key, value in given.items()},
    )


def _features(options: argparse.Namespace) -> FeatureStatistics | None:
    """Statistics of the training maps, ready or to be made."""
    if options.feature_mean is not None:
        arrays = contexts.read_arrays(options.feature_mean)
        return FeatureStatistics.read(arrays, str(options.feature_mean))
    if options.feature_maps is not None:
        return feature_statistics(read_maps(options.feature_maps))
    return None


def _contexts(
    options: argparse.Namespace, source: Source, width: int
) -> dict[str, np.ndarray]:
    """From the file that was given, the checkpoint's text encoder, or the rule."""
    if options.contexts is not None:
        if options.prompts is not None:
            raise UsageError("--contexts and --prompts exclude each other")
        return contexts.read_contexts(options.contexts)
    if isinstance(source, RuleSource):
        if options.prompts is not None:
            raise UsageError("rule: weights have no text encoder for --prompts")
        return contexts.rule_contexts(source.salt, width)
    encoder = contexts.release_text_encoder(source, width)
    if options.tokenizer is None:
        raise UsageError("prompts need --tokenizer DIR (of CLIP), or give --contexts FILE.npz")
    tokenizer = contexts.load_tokenizer(options.tokenizer)
    return contexts.encode_prompts(contexts.read_prompts(options.prompts), tokenizer, encoder)


def _write_generator(
    options: argparse.Namespace,
    config: Path,
    source: Source,
    source_name: str,
    vision: Backbone | None,
    channels: int | None = None,
) -> None:
    """What `random` and `checkpoint` have in common."""
    generator = checkpoint.build(checkpoint.read_config(config), options.hint, channels)
    checkpoint.check_weights(source_name, source, generator)
    bundle.write_bundle(
        options.output,
        name=options.name,
        backbone=vision,
        unet=generator.unet,
        control=generator.control,
        autoencoder=generator.autoencoder,
        weights=source,
        diffusion=generator.diffusion,
        defaults=bundle.Defaults(scale=8.0 if options.pooled else 1.75),
        contexts=_contexts(options, source, generator.unet.config["context_dim"]),
        features=_features(options),
        feature_grid=options.map or RELEASE_GRID,
        pooled=options.pooled,
        dtype=options.dtype,
        force=options.force,
        provenance={"source": options.verb, "config": config.name, "weights": source_name},
        report=_report(options),
    )


def _random(options: argparse.Namespace) -> None:
    salt = PRESETS[options.preset]
    config = Path(__file__).parent / "presets" / f"{options.preset}.yaml"
    vision = _backbone(options, options.backbone, options.backbone_weights)
    channels = None if vision is None else vision.channels
    _write_generator(options, config, RuleSource(salt), f"rule:{salt}", vision, channels)


def _checkpoint(options: argparse.Namespace) -> None:
    source = open_weights(options.weights)
    is_rule = isinstance(source, RuleSource)
    name = options.weights if is_rule else Path(options.weights).name
    # What the release's backbones were trained on, which is not what timm says of them.
    release = {"input": (288, 288), "interpolation": "bilinear", "crop": 1.0}
    vision = _backbone(options, options.backbone, options.backbone_weights, **release)
    _write_generator(options, options.config, source, name, vision)


def _base(options: argparse.Namespace) -> None:
    pipe = pipeline.read_pipeline(options.pipeline)
    vision = _backbone(options, options.backbone, options.backbone_weights)
    channels = vision.channels if vision is not None else options.channels
    if not channels:
        raise UsageError("base needs --backbone SPEC, or --channels C of the maps")
    if vision is not None and options.channels not in (None, channels):
        raise UsageError(f"--channels {options.channels}, but the backbone's maps have {channels}")
    try:
        with torch.device("meta"):
            control = ControlNet(
                channels, pipe.grid, options.hint_hidden, options.hint, **pipe.unet.config
            )
        hint = fresh_hint(
            channels, control.model_channels, pipe.grid, options.hint_hidden, options.hint
        )
    except ValueError as error:
        raise UsageError(str(error)) from None
    bundle.write_bundle(
        options.output,
        name=options.name,
        backbone=vision,
        unet=pipe.unet,
        control=control,
        autoencoder=pipe.autoencoder,
        weights=FreshControlSource(pipe.source, hint),
        diffusion=pipe.diffusion,
        defaults=bundle.Defaults(scale=8.0 if options.pooled else 1.75),
        contexts=_pipeline_contexts(options),
        features=_features(options),
        feature_grid=options.map or RELEASE_GRID,
        pooled=options.pooled,
        dtype=options.dtype,
        force=options.force,
        provenance={"source": "base", "pipeline": options.pipeline.resolve().name},
        report=_report(options),
    )


def _pipeline_contexts(options: argparse.Namespace) -> dict[str, np.ndarray]:
    if options.contexts is not None:
        if options.prompts is not None:
            raise UsageError("--contexts and --prompts exclude each other")
        return contexts.read_contexts(options.contexts)
    folder = options.pipeline
    if not (folder / "text_encoder").is_dir():
        raise InputError(f"{folder}: no text_encoder, give --contexts FILE.npz")
    prompts = contexts.read_prompts(options.prompts)
    tokenizer = contexts.load_tokenizer(folder / "tokenizer")
    encoder = contexts.load_text_encoder(folder / "text_encoder")
    return contexts.encode_prompts(prompts, tokenizer, encoder)


def _backbone_verb(options: argparse.Namespace) -> None:
    vision = _backbone(options, options.spec, options.weights)
    if vision is None:
        raise UsageError("backbone none: nothing to export")
    joined: dict[str, object] = {}
    if options.base is not None:
        base = bundle.Base.open(options.base)
        control, source = base.fresh_control(
            vision.channels, options.hint, options.hint_hidden
        )
        joined = {
            "base": base,
            "control": control,
            "weights": source,
            "diffusion": base.diffusion(),
            "defaults": base.defaults(8.0 if options.pooled else None),
        }
    elif options.pooled:
        raise UsageError("--pooled is about a ControlNet: it needs --base")
    bundle.write_bundle(
        options.output,
        name=options.name,
        backbone=vision,
        features=_features(options),
        pooled=options.pooled,
        dtype=options.dtype,
        force=options.force,
        provenance={"source": "backbone", "backbone": _origin(options.spec, options.weights)},
        report=_report(options),
        **joined,
    )


def _origin(spec: str, weights: str | None) -> str:
    """Where a backbone came from, without folders of this machine."""
    kind, _, name = spec.partition(":")
    text = f"{kind}:{Path(name).name if kind == 'script' else name}"
    if weights is None:
        return text
    return f"{text}, {weights if weights.startswith('random:') else Path(weights).name}"


VERBS = {
    "random": _random,
    "checkpoint": _checkpoint,
    "base": _base,
    "backbone": _backbone_verb,
}
