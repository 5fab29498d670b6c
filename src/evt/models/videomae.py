"""VideoMAE's Vision Transformer for clips (Tong et al. 2022), on all tokens of a clip or on those that are kept."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evt.eventful.block import Mlp
from evt.eventful.counting import add, linear, record
from evt.models.vivit import TubeletEmbed

PIXEL_MEAN = (0.485, 0.456, 0.406)
PIXEL_STD = (0.229, 0.224, 0.225)


def attend_packed(q: Tensor, k: Tensor, v: Tensor, lengths: Sequence[int]) -> Tensor:
    """Attention of the tokens of each clip among themselves, (K, H, d) each to (K, H, d).

    lengths: tokens of each clip; their sum is K.
    """
    record("matmul", sum(2 * n * n for n in lengths) * q.shape[1] * q.shape[2])
    if len(set(lengths)) == 1:
        q, k, v = (x.unflatten(0, (len(lengths), -1)).transpose(1, 2) for x in (q, k, v))  # (B, H, n, d)
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(0, 1)
    parts = [
        F.scaled_dot_product_attention(*(x.transpose(0, 1).unsqueeze(0) for x in clip))
        .squeeze(0)
        .transpose(0, 1)
        for clip in zip(q.split(list(lengths)), k.split(list(lengths)), v.split(list(lengths)), strict=True)
    ]
    return torch.cat(parts)


class Attention(nn.Module):
    """Self-attention whose queries and values have biases of their own and whose keys have none."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"dim is {dim} and num_heads {num_heads}: dim must be a multiple of num_heads")
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(dim))
        self.v_bias = nn.Parameter(torch.zeros(dim))
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, lengths: Sequence[int]) -> Tensor:
        """Attend within clips, (K, D) to (K, D)."""
        bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        qkv = add(linear(self.qkv, x), bias)
        q, k, v = qkv.unflatten(-1, (3, self.num_heads, -1)).unbind(1)  # (K, H, d) each
        return linear(self.proj, attend_packed(q, k, v, lengths).flatten(1))


class Block(nn.Module):
    """norm1 -> attn -> norm2 -> mlp with two skip connections, on the tokens of several clips laid end to end."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))

    def forward(self, x: Tensor, lengths: Sequence[int]) -> Tensor:
        """Run tokens, (K, D) to (K, D)."""
        x = add(self.attn(self.norm1(x), lengths), x)
        return add(self.mlp(self.norm2(x)), x)


class VideoMAE(nn.Module):
    """VideoMAE ViT-B as fine-tuned for classification, under the parameter names of its published checkpoints.

    Args:
        size: side of a clip in pixels.
        frames: of a clip.
        classes: of the classifier.
        tubelet: frames, rows and columns of pixels that make a token.
        dim, depth, num_heads, mlp_ratio: width D of a token, number of blocks, and their shape.

    Raises:
        ValueError: a clip is not made of whole tubelets, or the heads do not divide D.
    """

    def __init__(
        self,
        size: int = 224,
        frames: int = 16,
        classes: int = 400,
        tubelet: Sequence[int] = (2, 16, 16),
        dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4,
    ) -> None:
        super().__init__()
        for name, length, part in (
            ("frames", frames, tubelet[0]),
            ("size", size, tubelet[1]),
            ("size", size, tubelet[2]),
        ):
            if length % part:
                raise ValueError(f"model.{name} is {length}; it must be a multiple of the tubelet's {part}")
        self.size, self.frames = size, frames
        self.tubelet = (tubelet[0], tubelet[1], tubelet[2])
        self.steps = frames // tubelet[0]
        self.patch_embed = TubeletEmbed(self.tubelet, dim)
        n_tokens = self.steps * (size // tubelet[1]) * (size // tubelet[2])
        self.pos_embed: Tensor
        self.register_buffer("pos_embed", sine_cosine(n_tokens, dim), persistent=False)
        self.blocks = nn.ModuleList(Block(dim, num_heads, mlp_ratio) for _ in range(depth))
        self.fc_norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = nn.Linear(dim, classes)

    @property
    def n_tokens(self) -> int:
        """Tokens of a clip, all of them."""
        return int(self.pos_embed.shape[0])

    def normalise(self, clips: Tensor) -> Tensor:
        """Pixels in [0, 255] to what `forward` takes, (B, T, 3, H, W) float32."""
        mean, std = (torch.tensor(x, device=clips.device).view(3, 1, 1) for x in (PIXEL_MEAN, PIXEL_STD))
        return (clips.float() / 255 - mean) / std

    def forward(self, clips: Tensor, keep: Tensor | None = None) -> Tensor:
        """The logits of clips, (B, T, 3, H, W) normalised to (B, classes).

        keep: (B, N) bool, the tokens that the blocks see, at least one of each clip; None for all.

        Raises:
            ValueError: the clips are of another shape than the model's.
        """
        expected = (self.frames, 3, self.size, self.size)
        if clips.ndim != 5 or tuple(clips.shape[1:]) != expected or len(clips) == 0:
            sizes = ", ".join(map(str, expected))
            raise ValueError(
                f"clips have shape {tuple(clips.shape)}; it must be (B, {sizes}), with B at least 1"
            )
        x = self.patch_embed(clips).flatten(1, 2)  # (B, N, D)
        x = add(x, self.pos_embed)
        if keep is None:
            lengths = [x.shape[1]] * len(x)
            x = x.flatten(0, 1)
        else:
            lengths = keep.sum(1).tolist()
            x = x[keep]
        for block in self.blocks:
            x = block(x, lengths)
        pooled = torch.stack([part.mean(0) for part in x.split(lengths)])
        return linear(self.head, self.fc_norm(pooled))


def sine_cosine(n: int, dim: int) -> Tensor:
    """Sinusoidal positions of a sequence (Vaswani et al. 2017, section 3.5), (n, dim)."""
    angles = torch.arange(n, dtype=torch.float64)[:, None] / 10000 ** (
        2 * (torch.arange(dim, dtype=torch.float64) // 2) / dim
    )
    table = angles.clone()
    table[:, 0::2] = angles[:, 0::2].sin()
    table[:, 1::2] = angles[:, 1::2].cos()
    return table.float()
