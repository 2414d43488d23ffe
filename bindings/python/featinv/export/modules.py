"""The network definitions of a bundle in one place.

    unet = UNet(model_channels=320, ...)
    control = control_from_unet(unet, hint_channels=1024, grid=(32, 32))
    autoencoder = AutoencoderKL(ch=128, ...)

    residuals = control(x, t, context, hint_map)
    prediction = unet(x, t, context, residuals)
    mean, logvar = autoencoder.encode(image)
    image = autoencoder.decode(z)

State dicts have the public release's keys, without their first part: `model.diffusion_model.`
before those of the UNet, `control_model.` and `first_stage_model.` before the others'.
"""

from .autoencoder import AutoencoderKL
from .hint import ConvHint, PerceiverHint
from .unet import ControlNet, UNet, control_from_unet

__all__ = [
    "AutoencoderKL",
    "ControlNet",
    "ConvHint",
    "PerceiverHint",
    "UNet",
    "control_from_unet",
]
