"""The latent autoencoder (AutoencoderKL), with the parameter names of the public release.

Encoder and decoder are separate programs of a bundle, so each carries its own 1×1 convolution
under the name it has in the release: `encoder` with `quant_conv`, `decoder` with `post_quant_conv`.
"""

from typing import Dict, List, Sequence, Tuple

import torch.nn.functional as F
from torch import Tensor, nn

from .layers import GroupNorm, double


class ResnetBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, groups: int) -> None:
        super().__init__()
        self.norm1 = GroupNorm(groups, inputs, eps=1e-6)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm2 = GroupNorm(groups, outputs, eps=1e-6)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.nin_shortcut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return self.nin_shortcut(x) + h


class AttnBlock(nn.Module):
    """Single-head attention over all positions, as a residual."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.norm = GroupNorm(groups, channels, eps=1e-6)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        q = self.q(h).flatten(2).transpose(1, 2)[:, None]
        k = self.k(h).flatten(2).transpose(1, 2)[:, None]
        v = self.v(h).flatten(2).transpose(1, 2)[:, None]
        read = F.scaled_dot_product_attention(q, k, v)[:, 0]
        return x + self.proj_out(read.transpose(1, 2).reshape(x.shape))


class Downsample(nn.Module):
    """Stride 2 with padding below and to the right only."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, [0, 1, 0, 1]))


class Upsample(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(double(x))


class Middle(nn.Module):
    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.block_1 = ResnetBlock(channels, channels, groups)
        self.attn_1 = AttnBlock(channels, groups)
        self.block_2 = ResnetBlock(channels, channels, groups)

    def forward(self, x: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(x)))


def _stage(
    inputs: int, outputs: int, count: int, attention: bool, groups: int
) -> Tuple[nn.ModuleList, nn.ModuleList]:
    blocks: List[nn.Module] = []
    attentions: List[nn.Module] = []
    for _ in range(count):
        blocks.append(ResnetBlock(inputs, outputs, groups))
        attentions.append(AttnBlock(outputs, groups) if attention else nn.Identity())
        inputs = outputs
    return nn.ModuleList(blocks), nn.ModuleList(attentions)


class DownLevel(nn.Module):
    def __init__(
        self, inputs: int, outputs: int, count: int, attention: bool, last: bool, groups: int
    ) -> None:
        super().__init__()
        self.block, self.attn = _stage(inputs, outputs, count, attention, groups)
        self.downsample = nn.Identity() if last else Downsample(outputs)

    def forward(self, x: Tensor) -> Tensor:
        for block, attn in zip(self.block, self.attn):
            x = attn(block(x))
        return self.downsample(x)


class UpLevel(nn.Module):
    def __init__(
        self, inputs: int, outputs: int, count: int, attention: bool, last: bool, groups: int
    ) -> None:
        super().__init__()
        self.block, self.attn = _stage(inputs, outputs, count, attention, groups)
        self.upsample = nn.Identity() if last else Upsample(outputs)

    def forward(self, x: Tensor) -> Tensor:
        for block, attn in zip(self.block, self.attn):
            x = attn(block(x))
        return self.upsample(x)


class Encoder(nn.Module):
    def __init__(
        self,
        in_channels: int,
        ch: int,
        ch_mult: Sequence[int],
        num_res_blocks: int,
        z_channels: int,
        resolution: int,
        attn_resolutions: Sequence[int],
        groups: int,
    ) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(in_channels, ch, 3, padding=1)
        levels = []
        channels = ch
        for i, mult in enumerate(ch_mult):
            attention = resolution // 2**i in attn_resolutions
            last = i == len(ch_mult) - 1
            levels.append(
                DownLevel(channels, mult * ch, num_res_blocks, attention, last, groups)
            )
            channels = mult * ch
        self.down = nn.ModuleList(levels)
        self.mid = Middle(channels, groups)
        self.norm_out = GroupNorm(groups, channels, eps=1e-6)
        self.conv_out = nn.Conv2d(channels, 2 * z_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Image (N, 3, H, W) → moments (N, 2·z, lh, lw)"""
        x = self.conv_in(x)
        for level in self.down:
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(self.mid(x))))


class Decoder(nn.Module):
    def __init__(
        self,
        out_ch: int,
        ch: int,
        ch_mult: Sequence[int],
        num_res_blocks: int,
        z_channels: int,
        resolution: int,
        attn_resolutions: Sequence[int],
        groups: int,
    ) -> None:
        super().__init__()
        channels = ch_mult[-1] * ch
        self.conv_in = nn.Conv2d(z_channels, channels, 3, padding=1)
        self.mid = Middle(channels, groups)
        levels: Dict[str, nn.Module] = {}
        for i, mult in reversed(list(enumerate(ch_mult))):
            attention = resolution // 2**i in attn_resolutions
            levels[str(i)] = UpLevel(
                channels, mult * ch, num_res_blocks + 1, attention, i == 0, groups
            )
            channels = mult * ch
        # The release counts from the finest level, which runs last.
        self.up = nn.ModuleDict(levels)
        self.norm_out = GroupNorm(groups, channels, eps=1e-6)
        self.conv_out = nn.Conv2d(channels, out_ch, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        """(N, z, lh, lw) → image (N, 3, H, W)"""
        x = self.mid(self.conv_in(z))
        for level in self.up.values():
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(x)))


def split_moments(moments: Tensor) -> Tuple[Tensor, Tensor]:
    """(N, 2·c, lh, lw) → mean, logvar (N, c, lh, lw), logvar clamped to [−30, 20]."""
    mean, logvar = moments.chunk(2, dim=1)
    return mean, logvar.clamp(-30.0, 20.0)


class AutoencoderKL(nn.Module):
    """Images in [−1, 1] to latents and back; latents here are unscaled."""

    def __init__(
        self,
        ch: int = 128,
        ch_mult: Sequence[int] = (1, 2, 4, 4),
        num_res_blocks: int = 2,
        z_channels: int = 4,
        embed_dim: int = 4,
        in_channels: int = 3,
        out_ch: int = 3,
        resolution: int = 256,
        attn_resolutions: Sequence[int] = (),
        groups: int = 32,
    ) -> None:
        """`resolution` only says at which levels `attn_resolutions` puts attention."""
        super().__init__()
        self.config = {
            "ch": ch,
            "ch_mult": tuple(ch_mult),
            "num_res_blocks": num_res_blocks,
            "z_channels": z_channels,
            "embed_dim": embed_dim,
            "in_channels": in_channels,
            "out_ch": out_ch,
            "resolution": resolution,
            "attn_resolutions": tuple(attn_resolutions),
            "groups": groups,
        }
        shape = (ch, ch_mult, num_res_blocks, z_channels, resolution, attn_resolutions, groups)
        self.factor = 2 ** (len(ch_mult) - 1)
        self.embed_dim = embed_dim
        self.encoder = Encoder(in_channels, *shape)
        self.decoder = Decoder(out_ch, *shape)
        self.quant_conv = nn.Conv2d(2 * z_channels, 2 * embed_dim, 1)
        self.post_quant_conv = nn.Conv2d(embed_dim, z_channels, 1)

    def encode(self, image: Tensor) -> Tuple[Tensor, Tensor]:
        """Image (N, 3, H, W) → mean, logvar (N, c, lh, lw), logvar clamped to [−30, 20]."""
        return split_moments(self.quant_conv(self.encoder(image)))

    def decode(self, z: Tensor) -> Tensor:
        """Unscaled latent (N, c, lh, lw) → image (N, 3, H, W), not clamped."""
        return self.decoder(self.post_quant_conv(z))

    def forward(self, image: Tensor) -> Tensor:
        """Image → image through the posterior mean."""
        return self.decode(self.encode(image)[0])


class ImageEncoder(nn.Module):
    """The encoding half of an autoencoder, sharing its weights."""

    def __init__(self, autoencoder: AutoencoderKL) -> None:
        super().__init__()
        self.encoder = autoencoder.encoder
        self.quant_conv = autoencoder.quant_conv

    def forward(self, image: Tensor) -> Tuple[Tensor, Tensor]:
        return split_moments(self.quant_conv(self.encoder(image)))


class ImageDecoder(nn.Module):
    """The decoding half of an autoencoder, sharing its weights."""

    def __init__(self, autoencoder: AutoencoderKL) -> None:
        super().__init__()
        self.decoder = autoencoder.decoder
        self.post_quant_conv = autoencoder.post_quant_conv

    def forward(self, z: Tensor) -> Tensor:
        return self.decoder(self.post_quant_conv(z))
