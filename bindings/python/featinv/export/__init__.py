"""Writes bundles: from the public release's checkpoints, diffusers folders and vision backbones.

    python -m featinv.export checkpoint --config FILE.yaml --weights FILE.safetensors -o BUNDLE

or, with models in memory,

    from featinv.export import Diffusion, backbone, write_bundle

    write_bundle("mine", backbone=backbone(model, "layer4", input=64, classes=names))
"""

from .backbones import Backbone, backbone
from .bundle import Base, Defaults, Diffusion, add_files, update_features, write_bundle
from .errors import BundleError, ExportError, InputError, UsageError
from .features import FeatureStatistics, feature_statistics

__all__ = [
    "Backbone",
    "Base",
    "BundleError",
    "Defaults",
    "Diffusion",
    "ExportError",
    "FeatureStatistics",
    "InputError",
    "UsageError",
    "add_files",
    "backbone",
    "feature_statistics",
    "update_features",
    "write_bundle",
]
