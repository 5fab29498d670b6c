"""The plain Vision Transformer of ViTDet: patches, absolute positions, windowed and global blocks."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn

from evt.eventful import Block, Blocks, Policy, States, Stream, Variant, state_bytes
from evt.eventful.counting import add
from evt.eventful.derived import Derived
from evt.eventful.precision import wide


def check_whole(*, below: str = "model", **settings: int) -> None:
    """Refuse settings of a model, or of another node, that are not whole numbers of at least 1.

    Raises:
        ValueError: one is not; the message names it.
    """
    for name, value in settings.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{below}.{name} is {value!r}; it must be a whole number of at least 1")


def check_ratio(mlp_ratio: float, below: str = "model") -> None:
    """Refuse a hidden layer that has no width.

    Raises:
        ValueError: the ratio is not a finite number above 0.
    """
    if not 0 < mlp_ratio < math.inf:
        raise ValueError(f"{below}.mlp_ratio is {mlp_ratio}; it must be a finite number above 0")


def check_shape(x: Tensor, expected: tuple[str | int, ...], weight: Tensor | None = None) -> None:
    """Refuse what a network was not built for; a size that may be any is a letter.

    Raises:
        ValueError: the shape is another, or the values are whole numbers, or of another type than the weights where
            those are given.
    """
    fits = x.dim() == len(expected) and all(
        isinstance(size, str) or size == own for size, own in zip(expected, x.shape, strict=True)
    )
    if not fits or not x.is_floating_point() or (weight is not None and x.dtype != weight.dtype):
        kind = "floating-point numbers" if weight is None else weight.dtype
        raise ValueError(
            f"a frame is of shape {tuple(x.shape)} and type {x.dtype}; this network takes {kind} of shape "
            f"({', '.join(map(str, expected))})"
        )


class PatchEmbed(nn.Module):
    """Map each square patch of a picture to a token by one linear transform."""

    def __init__(self, patch_size: int, dim: int, in_chans: int = 3) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_chans, dim, kernel_size=patch_size, stride=patch_size)

    def forward(self, x: Tensor) -> Tensor:
        """Embed pictures, (B, C, H, W) to (B, N, D). Not counted, as in the paper."""
        proj = self.proj
        bias = None if proj.bias is None else wide(proj.bias)
        y = F.conv2d(wide(x), wide(proj.weight), bias, proj.stride).to(x.dtype)
        return y.flatten(2).transpose(1, 2)


class ViT(nn.Module):
    """The backbone of ViTDet (Li et al. 2022), under the parameter names of its published checkpoints.

    Args:
        grid: tokens of a frame as (rows, columns); `resize` gives another.
        patch_size: side of a patch in pixels.
        dim, depth, num_heads, mlp_ratio: width of a token, number of blocks, and their shape.
        window_size: side of a window in tokens.
        window_blocks: the blocks, from 0, whose attention is windowed; the others attend to all tokens.
        pretrain_grid: side of the grid for which `pos_embed` was made.
        rel_pos_grid: side of the grid for which the global blocks' relative positions were made.

    Raises:
        ValueError: a setting is not a whole number of at least 1 or mlp_ratio not above 0, a window block is not a
            block, or the heads do not divide the width.
    """

    def __init__(
        self,
        grid: tuple[int, int] = (64, 64),
        patch_size: PositiveInt = 16,
        dim: PositiveInt = 768,
        depth: PositiveInt = 12,
        num_heads: PositiveInt = 12,
        mlp_ratio: PositiveFloat = 4,
        window_size: PositiveInt = 14,
        window_blocks: Sequence[int] = (0, 1, 3, 4, 6, 7, 9, 10),
        pretrain_grid: PositiveInt = 14,
        rel_pos_grid: PositiveInt = 64,
    ) -> None:
        super().__init__()
        check_whole(
            below="model.backbone",
            patch_size=patch_size,
            dim=dim,
            depth=depth,
            num_heads=num_heads,
            window_size=window_size,
            pretrain_grid=pretrain_grid,
            rel_pos_grid=rel_pos_grid,
        )
        check_ratio(mlp_ratio, "model.backbone")
        if not set(window_blocks) <= set(range(depth)):
            raise ValueError(
                f"model.backbone.window_blocks is {list(window_blocks)}; the blocks are 0 to {depth - 1}"
            )
        self.grid = grid
        self.patch_size = patch_size
        self.dim = dim
        self.patch_embed = PatchEmbed(patch_size, dim)
        # The first position belongs to the class token of pre-training, which ViTDet does not use.
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + pretrain_grid**2, dim))
        self._positions = Derived(interpolated_positions)
        self.blocks = Blocks(
            Block(
                dim,
                num_heads,
                mlp_ratio,
                grid=grid,
                window_size=window_size if i in window_blocks else None,
                rel_pos_grid=rel_pos_grid,
            )
            for i in range(depth)
        )

    def resize(self, grid: tuple[int, int]) -> None:
        """Take frames of this many tokens, rows and columns, from now on."""
        self.grid = grid
        for block in self.blocks:
            block.attn.resize(grid)  # type: ignore[operator]

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """Of one frame, (1, C, H, W)."""
        return 1, self.patch_embed.proj.in_channels, *(self.patch_size * side for side in self.grid)

    def states(self, variant: Variant) -> States:
        """Empty states of its blocks."""
        return self.blocks.states(variant)

    def stream(self, variant: Variant, policy: Policy | None = None) -> Stream:
        """A new stream of frames (B, C, H, W) on these weights."""
        return Stream(self, variant, policy)

    def state_bytes(self, variant: Variant, frame_shape: Sequence[int]) -> int:
        """Bytes that a stream of such frames, (B, C, H, W), will keep from its first one on; see `state_bytes`."""
        return state_bytes(self, variant, frame_shape)

    def forward(self, x: Tensor, states: States | None = None, policy: Policy | None = None) -> Tensor:
        """Run frames through embedding and blocks, (B, C, H, W) to (B, N, D); densely without states.

        Raises:
            ValueError: the frames are of another shape or type.
        """
        proj, (rows, columns) = self.patch_embed.proj, self.grid
        side = self.patch_size
        check_shape(x, ("B", proj.in_channels, side * rows, side * columns), proj.weight)
        return self.forward_tokens(self.patch_embed(x), states, policy)

    def forward_tokens(self, x: Tensor, states: States | None = None, policy: Policy | None = None) -> Tensor:
        """Run patch embeddings through positions and blocks, (B, N, D) to (B, N, D)."""
        x = add(x, self._positions(self.pos_embed, self.grid))
        return self.blocks(x, states, policy)


def interpolated_positions(pos_embed: Tensor, grid: tuple[int, int]) -> Tensor:
    """The positions of a grid's tokens from those of another, (1, 1 + n, D) to (1, N, D), without the class token."""
    # The interpolation is not counted: it is the same for every frame (supplement, "Operation counting").
    positions = pos_embed[:, 1:]  # (1, n, D)
    side = math.isqrt(positions.shape[1])
    if grid != (side, side):
        positions = positions.transpose(1, 2).unflatten(-1, (side, side))
        positions = F.interpolate(positions, grid, mode="bicubic", align_corners=False)
        positions = positions.flatten(2).transpose(1, 2)
    return positions
