"""VideoMAE's Vision Transformer for clips (Tong et al. 2022), on all tokens of a clip or on fewer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evt.eventful.block import Mlp
from evt.eventful.counting import add, linear, record
from evt.models.views import Clip, Views
from evt.models.vivit import TubeletEmbed
from evt.tokens.merging import merge
from evt.tokens.packed import attend_packed
from evt.tokens.random_drop import random_mask
from evt.tokens.reduction import Merge, RandomDrop, Reduction, RunLength
from evt.tokens.run_length import checked_tubelet, keep_mask, run_lengths

PIXEL_MEAN = (0.485, 0.456, 0.406)
PIXEL_STD = (0.229, 0.224, 0.225)


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
        q, k, v = self._qkv(x).unbind(-3)  # (K, H, d) each
        return linear(self.proj, attend_packed(q, k, v, lengths).flatten(1))

    def with_sizes(self, x: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
        """Attend where tokens stand for several (ToMe, equation 1), (B, N, D); also what they are compared by.

        Args:
            x: (B, N, D).
            size: (B, N), how many tokens each stands for.

        Returns:
            The result (B, N, D) and the mean of the keys over the heads (B, N, d).
        """
        q, k, v = (part.transpose(1, 2) for part in self._qkv(x).unbind(-3))  # (B, H, N, d) each
        record("matmul", 2 * q.numel() * q.shape[2])
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=size.log()[:, None, None])
        return linear(self.proj, out.transpose(1, 2).flatten(2)), k.mean(1)

    def _qkv(self, x: Tensor) -> Tensor:
        """Queries, keys and values, (..., D) to (..., 3, H, d)."""
        bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        return add(linear(self.qkv, x), bias).unflatten(-1, (3, self.num_heads, -1))


class Block(nn.Module):
    """norm1 -> attn -> norm2 -> mlp with two skip connections."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))

    def forward(self, x: Tensor, lengths: Sequence[int]) -> Tensor:
        """Run the tokens of several clips laid end to end, (K, D) to (K, D)."""
        x = add(self.attn(self.norm1(x), lengths), x)
        return add(self.mlp(self.norm2(x)), x)

    def merging(self, x: Tensor, size: Tensor, r: int) -> tuple[Tensor, Tensor]:
        """Run tokens, (B, N, D), and merge r pairs of them between attention and MLP (ToMe, section 3)."""
        attended, keys = self.attn.with_sizes(self.norm1(x), size)
        x, size = merge(add(attended, x), size, keys, r)
        return add(self.mlp(self.norm2(x)), x), size


class VideoMAE(nn.Module):
    """VideoMAE ViT-B as fine-tuned for classification, under the parameter names of its published checkpoints.

    Args:
        size: side of a view in pixels.
        classes: of the classifier.
        temporal_stride: from frame to frame of a view; 4 for Kinetics-400, None spreads the frames over the
            video, for Something-Something v2.
        view_frames, temporal_views, spatial_views: see `Views`.
        tubelet: frames, rows and columns of pixels that make a token.
        dim, depth, num_heads, mlp_ratio: width D of a token, number of blocks, and their shape.
        length_embedding: learn an embedding of run lengths; zero at first.

    Raises:
        ValueError: a view is not made of whole tubelets, a tubelet is not three whole numbers, or the heads do not
            divide D.
    """

    def __init__(
        self,
        size: int = 224,
        classes: int = 400,
        temporal_stride: int | None = 4,
        view_frames: int = 16,
        temporal_views: int = 5,
        spatial_views: int = 3,
        tubelet: Sequence[int] = (2, 16, 16),
        dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4,
        length_embedding: bool = False,
    ) -> None:
        super().__init__()
        self.views = Views(view_frames, size, temporal_stride, temporal_views, spatial_views)
        t, h, w = checked_tubelet(tubelet)
        for name, length, part in (("view_frames", view_frames, t), ("size", size, h), ("size", size, w)):
            if length % part:
                raise ValueError(f"model.{name} is {length}; it must be a multiple of the tubelet's {part}")
        self.size, self.view_frames, self.tubelet = size, view_frames, (t, h, w)
        self.steps = view_frames // t
        self.patch_embed = TubeletEmbed(self.tubelet, dim)
        self.pos_embed: Tensor
        n_tokens = self.steps * (size // h) * (size // w)
        self.register_buffer("pos_embed", sine_cosine(n_tokens, dim), persistent=False)
        self.length_embed = nn.Embedding(self.steps + 1, dim) if length_embedding else None
        self.blocks = nn.ModuleList(Block(dim, num_heads, mlp_ratio) for _ in range(depth))
        self.fc_norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = nn.Linear(dim, classes)
        if self.length_embed is not None:
            nn.init.zeros_(self.length_embed.weight)

    @property
    def n_tokens(self) -> int:
        """Tokens of a view, all of them."""
        return len(self.pos_embed)

    def preprocess(self, clip: Clip) -> Tensor:
        """Cut a video into normalised views, (V, T, 3, size, size) float32 on the model's device.

        Raises:
            ValueError: see `Views.cut`.
        """
        return self.normalise(self.views.cut(clip))

    def normalise(self, views: Tensor) -> Tensor:
        """Normalise what `Views.cut` gave, and put it on the model's device."""
        views = views.to(self.head.weight.device)
        mean, std = (torch.tensor(x, device=views.device).view(3, 1, 1) for x in (PIXEL_MEAN, PIXEL_STD))
        return (views - mean) / std

    def keep(self, views: Tensor, reduction: Reduction | None) -> Tensor | None:
        """Which tokens of views the blocks see, (V, N) bool; None for all. See `keep_mask` for what is raised.

        Raises:
            TypeError: the reduction is none.
        """
        if reduction is None or isinstance(reduction, Merge):
            return None
        if not isinstance(reduction, RunLength | RandomDrop):
            raise TypeError(
                f"reduction is {reduction!r}; it must be a RunLength, a RandomDrop, a Merge or None"
            )
        mask = keep_mask(views, self.tubelet, reduction.threshold)
        return random_mask(mask, reduction.seed) if isinstance(reduction, RandomDrop) else mask

    def share_kept(self, views: Tensor, reduction: Reduction | None) -> float | None:
        """The share of the tokens of views that the blocks see; None where the reduction drops none before them."""
        keep = self.keep(views, reduction)
        return None if keep is None else float(keep.float().mean())

    def forward(self, views: Tensor, reduction: Reduction | None = None) -> Tensor:
        """The logits of views, (V, T, 3, size, size) as from `preprocess` to (V, classes).

        Raises:
            ValueError: see `encode`.
        """
        if isinstance(reduction, Merge):
            return self._merged(self._embed(views), reduction.r)
        tokens, lengths, _ = self.encode(views, reduction)
        return self.classify(torch.stack([part.mean(0) for part in tokens.split(lengths)]))

    def encode(
        self, views: Tensor, reduction: RunLength | RandomDrop | None = None
    ) -> tuple[Tensor, list[int], Tensor | None]:
        """Run the blocks over the tokens that are kept.

        Returns:
            What the last block makes of them, view after view, (K, D); how many each view has; and which they are,
            (V, N) bool, None for all.

        Raises:
            ValueError: the views are of another shape than the model's, or the reduction adds an embedding of run
                lengths and the model has none.
        """
        x = self._embed(views)
        keep = self.keep(views, reduction)
        if keep is None:
            lengths, x = [x.shape[1]] * len(x), x.flatten(0, 1)
        else:
            lengths = keep.sum(1).tolist()
            x = x[keep]
            if isinstance(reduction, RunLength) and reduction.lengths:
                if self.length_embed is None:
                    raise ValueError(
                        "policy.lengths is true, but the model has no embedding of run lengths: "
                        "model.length_embedding must be true"
                    )
                x = add(x, self.length_embed(run_lengths(keep, self.steps)[keep]))
        for block in self.blocks:
            x = block(x, lengths)
        return x, lengths, keep

    def classify(self, pooled: Tensor) -> Tensor:
        """The logits of pooled tokens, (V, D) to (V, classes)."""
        return linear(self.head, self.fc_norm(pooled))

    def _embed(self, views: Tensor) -> Tensor:
        expected = (self.view_frames, 3, self.size, self.size)
        if views.ndim != 5 or tuple(views.shape[1:]) != expected or len(views) == 0:
            sizes = ", ".join(map(str, expected))
            raise ValueError(
                f"clips have shape {tuple(views.shape)}; it must be (B, {sizes}), with B at least 1"
            )
        return add(self.patch_embed(views).flatten(1, 2), self.pos_embed)  # (V, N, D)

    def _merged(self, x: Tensor, r: int) -> Tensor:
        size = x.new_ones(x.shape[:2])
        for block in self.blocks:
            x, size = block.merging(x, size, r)  # type: ignore[operator]
        return self.classify((x * size.unsqueeze(-1)).sum(1) / size.sum(1, keepdim=True))

    @torch.no_grad()
    def predict_views(self, views: Tensor, variant: Reduction | None, policy: None = None) -> Tensor:
        """The probabilities of a video's classes from its views, (V, T, 3, size, size) to (classes,).

        They are the softmax of the logits' mean over the views, as ViViT's.
        """
        return self(views, variant).mean(dim=0).softmax(dim=-1)


def sine_cosine(n: int, dim: int) -> Tensor:
    """Sinusoidal positions of a sequence (Vaswani et al. 2017, section 3.5), (n, dim)."""
    pairs = 2 * (torch.arange(dim, dtype=torch.float64) // 2)
    angles = torch.arange(n, dtype=torch.float64)[:, None] / 10000 ** (pairs / dim)
    return torch.where(torch.arange(dim) % 2 == 0, angles.sin(), angles.cos()).float()
