"""The networks of the reference bundle: the exporter's modules, small, and two timm backbones."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from scenes import CLASSES
from timm.models.convnext import ConvNeXt
from timm.models.resnet import BasicBlock, ResNet
from timm.models.swin_transformer_v2 import SwinTransformerV2
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bindings" / "python"))
from featinv.export.modules import (AutoencoderKL, ControlNet, UNet,  # noqa: E402
                                    control_from_unet)

MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
MAP = (96, 8, 8)
LATENT = (4, 16, 16)
CONTEXT = (12, 64)  # prompt tokens, width
AUTOENCODER: dict[str, Any] = dict(ch=16, ch_mult=(1, 2, 4), num_res_blocks=1, z_channels=LATENT[0],
                                   embed_dim=LATENT[0], resolution=64, attn_resolutions=(),
                                   groups=8)
BASE: dict[str, Any] = dict(in_channels=LATENT[0], out_channels=LATENT[0], model_channels=32,
                            channel_mult=(1, 2, 3), num_res_blocks=1, attention_resolutions=(4,),
                            num_heads=4, context_dim=CONTEXT[1], groups=8)
CONTROL: dict[str, Any] = dict(hint_channels=MAP[0], grid=LATENT[1:], hint_hidden_channels=64)


def classifier(classes: int = len(CLASSES)) -> ResNet:
    """A timm ResNet with four basic blocks; its last map is 96x8x8 for 64x64 pixels."""
    return ResNet(BasicBlock, (1, 1, 1, 1), num_classes=classes, output_stride=8,
                  channels=(32, 64, 96, 96), stem_type="deep", stem_width=16)


def swin(classes: int = len(CLASSES)) -> SwinTransformerV2:
    """A small timm SwinV2; its last map is 8x8x96, channels last."""
    return SwinTransformerV2(img_size=64, patch_size=2, num_classes=classes, embed_dim=24,
                             depths=(1, 2, 2), num_heads=(2, 4, 6), window_size=8,
                             drop_path_rate=0.0)


def convnext(classes: int = len(CLASSES)) -> ConvNeXt:
    """A small timm ConvNeXt without layer scale; map 96x8x8."""
    return ConvNeXt(num_classes=classes, depths=(1, 2, 2, 1), dims=(24, 48, 96, 96), patch_size=2,
                    output_stride=8, ls_init_value=None)


def features(backbone: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """The last map (N,C,h,w) and the logits."""
    grid = backbone.forward_features(x)
    logits = backbone.forward_head(grid)
    return (grid.permute(0, 3, 1, 2) if isinstance(backbone, SwinTransformerV2) else grid), logits


def autoencoder() -> AutoencoderKL:
    """Factor 4: 64x64 pixels to a latent of 4x16x16."""
    return AutoencoderKL(**AUTOENCODER)


def base() -> UNet:
    """The diffusion network, v-prediction."""
    return UNet(**BASE)


def control(unet: UNet) -> ControlNet:
    """A fresh ControlNet on a base."""
    return control_from_unet(unet, **CONTROL)


def normalised(images: Tensor) -> Tensor:
    """uint8 (N,64,64,3) to the backbones' float input (N,3,64,64)."""
    x = images.permute(0, 3, 1, 2).float().div_(255)
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    return ((x - mean) / std).contiguous(memory_format=torch.channels_last)


def signed(images: Tensor) -> Tensor:
    """uint8 (N,64,64,3) to [-1,1] (N,3,64,64), as the autoencoder takes it."""
    x = images.permute(0, 3, 1, 2).float().div_(127.5).sub_(1)
    return x.contiguous(memory_format=torch.channels_last)


def to_bytes(images: Tensor) -> Tensor:
    """[-1,1] (N,3,H,W) to uint8 (N,H,W,3), rounded."""
    return (images * 127.5 + 127.5).clamp(0, 255).round().byte().permute(0, 2, 3, 1)


