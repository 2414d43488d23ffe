"""The denoising network and its ControlNet, with the parameter names of the public release.

Both are ordinary differentiable modules. Their work is split in three, because a sampling run needs
each part a different number of times: `time` once per time step, `context` once per prompt, `step`
at every step. `forward` is the three in a row. Everything compiles with `torch.jit.script`.

Letters in shapes: B latents, S time steps, R prompts, L tokens, D context width, E width of the
bank of time projections, P width of the bank of keys and values, c latent channels, lh × lw grid.
"""

import math
from typing import List, Optional, Sequence, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .hint import ConvHint, PerceiverHint
from .layers import GroupNorm, double, zeroed

HintEncoder = ConvHint | PerceiverHint


class Float32Linear(nn.Linear):
    """A linear layer that computes in float32 whatever the dtype of its weights.

    bfloat16 keeps three digits, too few for the angle of a sinusoid and for what follows from it.
    """

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.float(), self.bias.float())


class Layer(nn.Module):
    """A layer of a block: its forward takes (x, bank, kv); most read neither bank nor kv."""

    def time(self, embedding: Tensor) -> List[Tensor]:
        """The layer's parts of the bank, from the time embedding (S, 4·model_channels)."""
        parts: List[Tensor] = []
        return parts

    def context(self, context: Tensor) -> List[Tensor]:
        """The layer's parts of the keys and values, from the context (R, L, D)."""
        parts: List[Tensor] = []
        return parts


class Stem(nn.Conv2d, Layer):
    """The first convolution."""

    def forward(self, x: Tensor, bank: Tensor, kv: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, self.bias, padding=1)


class Downsample(Layer):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor, bank: Tensor, kv: Tensor) -> Tensor:
        return self.op(x)


class Upsample(Layer):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, bank: Tensor, kv: Tensor) -> Tensor:
        return self.conv(double(x))


class ResBlock(Layer):
    """Two convolutions with the time projection added between them.

    `begin`, `end` are the columns of the bank that belong to this block.
    """

    __constants__ = ["begin", "end"]

    def __init__(self, inputs: int, outputs: int, embedding: int, groups: int) -> None:
        super().__init__()
        self.begin = 0
        self.end = outputs
        self.in_layers = nn.Sequential(
            GroupNorm(groups, inputs), nn.SiLU(), nn.Conv2d(inputs, outputs, 3, padding=1)
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), Float32Linear(embedding, outputs))
        # The release has a dropout of rate 0 in third place.
        self.out_layers = nn.Sequential(
            GroupNorm(groups, outputs),
            nn.SiLU(),
            nn.Identity(),
            zeroed(nn.Conv2d(outputs, outputs, 3, padding=1)),
        )
        self.skip_connection = (
            nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)
        )

    def forward(self, x: Tensor, bank: Tensor, kv: Tensor) -> Tensor:
        h = self.in_layers(x) + bank[:, self.begin : self.end, None, None]
        return self.skip_connection(x) + self.out_layers(h)

    def time(self, embedding: Tensor) -> List[Tensor]:
        return [self.emb_layers(embedding)]


def attend(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """Attention of (B, n, C) queries to (B, m, C) keys and values, split in heads."""
    q = q.unflatten(-1, [heads, -1]).transpose(1, 2)
    k = k.unflatten(-1, [heads, -1]).transpose(1, 2)
    v = v.unflatten(-1, [heads, -1]).transpose(1, 2)
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


class SelfAttention(nn.Module):
    __constants__ = ["heads"]

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(channels, channels, bias=False)
        self.to_k = nn.Linear(channels, channels, bias=False)
        self.to_v = nn.Linear(channels, channels, bias=False)
        self.to_out = nn.Sequential(nn.Linear(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        return self.to_out(attend(self.to_q(x), self.to_k(x), self.to_v(x), self.heads))


class CrossAttention(nn.Module):
    """Attention to the prompt; `begin` is this layer's first column in the keys and values."""

    __constants__ = ["heads", "begin", "channels"]

    def __init__(self, channels: int, context: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.begin = 0
        self.channels = channels
        self.to_q = nn.Linear(channels, channels, bias=False)
        self.to_k = nn.Linear(context, channels, bias=False)
        self.to_v = nn.Linear(context, channels, bias=False)
        self.to_out = nn.Sequential(nn.Linear(channels, channels))

    def forward(self, x: Tensor, kv: Tensor) -> Tensor:
        middle = self.begin + self.channels
        k = kv[:, :, self.begin : middle]
        v = kv[:, :, middle : middle + self.channels]
        return self.to_out(attend(self.to_q(x), k, v, self.heads))

    def context(self, context: Tensor) -> List[Tensor]:
        return [self.to_k(context), self.to_v(context)]


class GatedGelu(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.proj = nn.Linear(inputs, 2 * outputs)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.proj(x).chunk(2, dim=-1)
        return value * F.gelu(gate)


class FeedForward(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        # The release has a dropout of rate 0 in second place.
        self.net = nn.Sequential(
            GatedGelu(channels, 4 * channels), nn.Identity(), nn.Linear(4 * channels, channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class TransformerBlock(nn.Module):
    def __init__(self, channels: int, context: int, heads: int) -> None:
        super().__init__()
        self.attn1 = SelfAttention(channels, heads)
        self.attn2 = CrossAttention(channels, context, heads)
        self.ff = FeedForward(channels)
        self.norm1 = nn.LayerNorm(channels)
        self.norm2 = nn.LayerNorm(channels)
        self.norm3 = nn.LayerNorm(channels)

    def forward(self, x: Tensor, kv: Tensor) -> Tensor:
        x = x + self.attn1(self.norm1(x))
        x = x + self.attn2(self.norm2(x), kv)
        return x + self.ff(self.norm3(x))

    def context(self, context: Tensor) -> List[Tensor]:
        return self.attn2.context(context)


class SpatialTransformer(Layer):
    """Transformer blocks over the positions of the grid, as a residual."""

    def __init__(self, channels: int, context: int, heads: int, depth: int, groups: int) -> None:
        super().__init__()
        self.norm = GroupNorm(groups, channels, eps=1e-6)
        self.proj_in = nn.Conv2d(channels, channels, 1)
        self.transformer_blocks = nn.ModuleList(
            TransformerBlock(channels, context, heads) for _ in range(depth)
        )
        self.proj_out = zeroed(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor, bank: Tensor, kv: Tensor) -> Tensor:
        h = self.proj_in(self.norm(x))
        tokens = h.flatten(2).transpose(1, 2)
        for block in self.transformer_blocks:
            tokens = block(tokens, kv)
        h = tokens.transpose(1, 2).reshape(h.shape)
        return x + self.proj_out(h)

    def context(self, context: Tensor) -> List[Tensor]:
        parts: List[Tensor] = []
        for block in self.transformer_blocks:
            parts = parts + block.context(context)
        return parts


class Block(nn.Sequential):
    """Layers in a row."""

    def forward(self, x: Tensor, bank: Tensor, kv: Tensor) -> Tensor:
        for layer in self:
            x = layer(x, bank, kv)
        return x

    def time(self, embedding: Tensor) -> List[Tensor]:
        parts: List[Tensor] = []
        for layer in self:
            parts = parts + layer.time(embedding)
        return parts

    def context(self, context: Tensor) -> List[Tensor]:
        parts: List[Tensor] = []
        for layer in self:
            parts = parts + layer.context(context)
        return parts


def sinusoid(t: Tensor, channels: int) -> Tensor:
    """Time steps (S) → (S, channels) float32, cosines first.

    The frequencies are computed, not stored: a constant would stay on the device of the export and
    a buffer would lose its precision with the weights'.
    """
    half = channels // 2
    steps = torch.arange(half, dtype=torch.float32, device=t.device)
    frequencies = torch.exp(steps * -math.log(10000.0) / half)
    angles = t.float()[:, None] * frequencies[None]
    return torch.cat([torch.cos(angles), torch.sin(angles)], dim=1)


class Trunk(nn.Module):
    """What UNet and ControlNet have in common: time embedding, encoder and middle block."""

    __constants__ = ["model_channels"]

    def __init__(
        self,
        in_channels: int = 4,
        model_channels: int = 320,
        channel_mult: Sequence[int] = (1, 2, 4, 4),
        num_res_blocks: int = 2,
        attention_resolutions: Sequence[int] = (4, 2, 1),
        num_heads: int = 8,
        num_head_channels: int = -1,
        context_dim: int = 768,
        transformer_depth: int = 1,
        groups: int = 32,
    ) -> None:
        """`attention_resolutions` counts downsamplings (1 is the latent grid itself);
        `num_head_channels`, when positive, fixes the width of a head in place of `num_heads`."""
        super().__init__()
        self.model_channels = model_channels
        self.config = {
            "in_channels": in_channels,
            "model_channels": model_channels,
            "channel_mult": tuple(channel_mult),
            "num_res_blocks": num_res_blocks,
            "attention_resolutions": tuple(attention_resolutions),
            "num_heads": num_heads,
            "num_head_channels": num_head_channels,
            "context_dim": context_dim,
            "transformer_depth": transformer_depth,
            "groups": groups,
        }
        width = 4 * model_channels
        self.time_embed = nn.Sequential(
            Float32Linear(model_channels, width), nn.SiLU(), Float32Linear(width, width)
        )
        channels = model_channels
        blocks = [Block(Stem(in_channels, channels, 3, padding=1))]
        skips = [channels]
        for level, mult in enumerate(channel_mult):
            for _ in range(num_res_blocks):
                layers: List[nn.Module] = [self._res(channels, mult * model_channels)]
                channels = mult * model_channels
                if 2**level in attention_resolutions:
                    layers.append(self._attention(channels))
                blocks.append(Block(*layers))
                skips.append(channels)
            if level != len(channel_mult) - 1:
                blocks.append(Block(Downsample(channels)))
                skips.append(channels)
        self.input_blocks = nn.ModuleList(blocks)
        self.middle_block = Block(
            self._res(channels, channels), self._attention(channels), self._res(channels, channels)
        )
        self.skips = tuple(skips)
        self.middle_channels = channels

    def _res(self, inputs: int, outputs: int) -> ResBlock:
        return ResBlock(inputs, outputs, 4 * self.model_channels, self.config["groups"])

    def _attention(self, channels: int) -> SpatialTransformer:
        c = self.config
        wide = c["num_head_channels"]
        heads = channels // wide if wide > 0 else c["num_heads"]
        if heads < 1 or channels % heads:
            raise ValueError(f"{channels} channels do not split into {heads} heads")
        return SpatialTransformer(
            channels, c["context_dim"], heads, c["transformer_depth"], c["groups"]
        )

    def _lay_out(self) -> None:
        """Gives each block its columns in the bank and in the keys and values, in module order."""
        bank = columns = 0
        for module in self.modules():
            if isinstance(module, ResBlock):
                module.begin, module.end = bank, bank + module.end - module.begin
                bank = module.end
            elif isinstance(module, CrossAttention):
                module.begin = columns
                columns += 2 * module.channels
        self.bank_width, self.kv_width = bank, columns

    def embed(self, t: Tensor) -> Tensor:
        """Time steps (S) → time embedding (S, 4·model_channels), float32."""
        return self.time_embed(sinusoid(t, self.model_channels))

    def dtype_of(self) -> Tensor:
        """A weight whose dtype is the one that the network runs in."""
        return self.time_embed[0].weight


class UNet(Trunk):
    """Noise (or v) prediction from latent, time step, prompt and control residuals."""

    def __init__(self, out_channels: int = 4, **trunk: object) -> None:
        """`trunk`: see `Trunk`."""
        super().__init__(**trunk)
        self.out_channels = out_channels
        c = self.config
        channels = self.middle_channels
        skips = list(self.skips)
        blocks = []
        for level, mult in reversed(list(enumerate(c["channel_mult"]))):
            for i in range(c["num_res_blocks"] + 1):
                outputs = mult * self.model_channels
                layers: List[nn.Module] = [self._res(channels + skips.pop(), outputs)]
                channels = outputs
                if 2**level in c["attention_resolutions"]:
                    layers.append(self._attention(channels))
                if level and i == c["num_res_blocks"]:
                    layers.append(Upsample(channels))
                blocks.append(Block(*layers))
        self.output_blocks = nn.ModuleList(blocks)
        self.out = nn.Sequential(
            GroupNorm(c["groups"], channels),
            nn.SiLU(),
            zeroed(nn.Conv2d(channels, out_channels, 3, padding=1)),
        )
        self._lay_out()

    def time(self, t: Tensor) -> Tensor:
        """Time steps (S) → bank (S, E) of every residual block's projection."""
        embedding = self.embed(t)
        parts: List[Tensor] = []
        for block in self.input_blocks:
            parts = parts + block.time(embedding)
        parts = parts + self.middle_block.time(embedding)
        for block in self.output_blocks:
            parts = parts + block.time(embedding)
        return torch.cat(parts, dim=1).to(self.dtype_of().dtype)

    def context(self, context: Tensor) -> Tensor:
        """Contexts (R, L, D) → keys and values (R, L, P) of every cross-attention layer."""
        parts: List[Tensor] = []
        for block in self.input_blocks:
            parts = parts + block.context(context)
        parts = parts + self.middle_block.context(context)
        for block in self.output_blocks:
            parts = parts + block.context(context)
        return torch.cat(parts, dim=2)

    def step(self, x: Tensor, bank: Tensor, kv: Tensor, residuals: List[Tensor]) -> Tensor:
        """Latents (B, c, lh, lw), bank (B, E), kv (B, L, P), residuals of the ControlNet in the
        order of the encoder blocks, middle block last, or none → prediction (B, c, lh, lw)."""
        skips: List[Tensor] = []
        for block in self.input_blocks:
            x = block(x, bank, kv)
            skips.append(x)
        x = self.middle_block(x, bank, kv)
        if len(residuals) > 0:
            x = x + residuals[-1]
            for i in range(len(skips)):
                skips[i] = skips[i] + residuals[i]
        for block in self.output_blocks:
            x = block(torch.cat([x, skips.pop()], dim=1), bank, kv)
        return self.out(x)

    @torch.jit.unused
    def forward(
        self, x: Tensor, t: Tensor, context: Tensor, residuals: Optional[List[Tensor]] = None
    ) -> Tensor:
        """x (B, c, lh, lw), t (B), context (B, L, D) → prediction (B, c, lh, lw)."""
        return self.step(x, self.time(t), self.context(context), list(residuals or []))


class ControlNet(Trunk):
    """A copy of the UNet's encoder that turns a feature map into residuals for its decoder."""

    def __init__(
        self,
        hint_channels: int,
        grid: Tuple[int, int],
        hint_hidden_channels: int = 512,
        hint: str = "conv",
        **trunk: object,
    ) -> None:
        """`grid` is the latent's (height, width), `hint` is conv or perceiver."""
        super().__init__(**trunk)
        if hint not in ("conv", "perceiver"):
            raise ValueError(f"unknown hint encoder {hint!r}, there are conv and perceiver")
        encoder = ConvHint if hint == "conv" else PerceiverHint
        self.grid = tuple(grid)
        self.input_hint_block: HintEncoder = encoder(
            hint_channels, self.model_channels, grid, hint_hidden_channels
        )
        self.zero_convs = nn.ModuleList(
            nn.Sequential(zeroed(nn.Conv2d(n, n, 1))) for n in self.skips
        )
        n = self.middle_channels
        self.middle_block_out = nn.Sequential(zeroed(nn.Conv2d(n, n, 1)))
        self._lay_out()

    @torch.jit.unused
    def hint(self, hint_map: Tensor) -> Tensor:
        """Feature map (B, C, h, w) → encoded hint (B, model_channels, lh, lw)."""
        return self.input_hint_block(hint_map)

    def time(self, t: Tensor) -> Tensor:
        """Time steps (S) → bank (S, E) of every residual block's projection."""
        embedding = self.embed(t)
        parts: List[Tensor] = []
        for block in self.input_blocks:
            parts = parts + block.time(embedding)
        parts = parts + self.middle_block.time(embedding)
        return torch.cat(parts, dim=1).to(self.dtype_of().dtype)

    def context(self, context: Tensor) -> Tensor:
        """Contexts (R, L, D) → keys and values (R, L, P) of every cross-attention layer."""
        parts: List[Tensor] = []
        for block in self.input_blocks:
            parts = parts + block.context(context)
        parts = parts + self.middle_block.context(context)
        return torch.cat(parts, dim=2)

    def step(self, x: Tensor, bank: Tensor, kv: Tensor, hint: Tensor) -> List[Tensor]:
        """Latents (B, c, lh, lw), bank (B, E), kv (B, L, P), encoded hint (B, M, lh, lw) →
        residuals in the order of the encoder blocks, middle block last, unscaled."""
        residuals: List[Tensor] = []
        for i, (block, zero_conv) in enumerate(zip(self.input_blocks, self.zero_convs)):
            x = block(x, bank, kv)
            if i == 0:
                x = x + hint
            residuals.append(zero_conv(x))
        residuals.append(self.middle_block_out(self.middle_block(x, bank, kv)))
        return residuals

    @torch.jit.unused
    def forward(self, x: Tensor, t: Tensor, context: Tensor, hint_map: Tensor) -> List[Tensor]:
        """x (B, c, lh, lw), t (B), context (B, L, D), map (B, C, h, w) → list of residuals."""
        return self.step(x, self.time(t), self.context(context), self.hint(hint_map))


def fresh_hint(
    channels: int, width: int, grid: Tuple[int, int], hidden: int = 512, hint: str = "conv"
) -> HintEncoder:
    """An untrained hint encoder; the same numbers every time."""
    encoder = ConvHint if hint == "conv" else PerceiverHint
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return encoder(channels, width, grid, hidden)


def control_from_unet(
    unet: UNet,
    hint_channels: int,
    grid: Tuple[int, int],
    hint_hidden_channels: int = 512,
    hint: str = "conv",
) -> ControlNet:
    """A fresh ControlNet: the UNet's encoder and middle block copied, its outputs zero."""
    control = ControlNet(hint_channels, grid, hint_hidden_channels, hint, **unet.config)
    control.input_hint_block = fresh_hint(
        hint_channels, unet.model_channels, grid, hint_hidden_channels, hint
    )
    own = control.state_dict()
    copied = {key: value for key, value in unet.state_dict().items() if key in own}
    control.load_state_dict(copied, strict=False)
    weight = unet.dtype_of()
    return control.to(device=weight.device, dtype=weight.dtype)
