"""ViTDet: frames in, backbone features out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evt.models.vit import ViT

# Mean and deviation over ImageNet of the red, green and blue channel in [0, 255], as detectron2 uses them.
PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)


class ViTDet(nn.Module):
    """The ViTDet-B of the paper (section 5.1), under the parameter names of its published checkpoints.

    Args:
        size: side of the square, in pixels, that a frame is resized and padded to.
        patch_size and the rest: see `ViT`.

    Raises:
        ValueError: size is not a positive multiple of patch_size.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        size: int = 1024,
        patch_size: int = 16,
        dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4,
        window_size: int = 14,
        window_blocks: Sequence[int] = (0, 1, 3, 4, 6, 7, 9, 10),
        pretrain_grid: int = 14,
        rel_pos_grid: int = 64,
    ) -> None:
        super().__init__()
        if not isinstance(size, int) or size < patch_size or size % patch_size:
            raise ValueError(f"model.size is {size!r}; it must be a multiple of the patch size, {patch_size}")
        self.size = size
        self.backbone = nn.Module()
        self.backbone.net = ViT(
            (size // patch_size, size // patch_size),
            patch_size,
            dim,
            depth,
            num_heads,
            mlp_ratio,
            window_size,
            window_blocks,
            pretrain_grid,
            rel_pos_grid,
        )
        self.register_buffer("pixel_mean", torch.tensor(PIXEL_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(PIXEL_STD).view(3, 1, 1), persistent=False)

    @property
    def net(self) -> ViT:
        """The Transformer, which `stream` runs frame by frame."""
        return self.backbone.net  # type: ignore[return-value]

    @property
    def n_tokens(self) -> int:
        """Tokens of a frame."""
        return self.net.grid[0] * self.net.grid[1]

    def preprocess(self, image: Tensor) -> Tensor:
        """Resize a frame as for VID, normalise it, and pad it at the bottom and the right.

        Args:
            image: (3, H, W) RGB in [0, 255], uint8 or floating point.

        Returns:
            (1, 3, size, size) float32 on the model's device.

        Raises:
            ValueError: the image is not (3, H, W), or has NaN or infinite pixels.
        """
        if image.ndim != 3 or image.shape[0] != 3:
            raise ValueError(f"a frame of shape {tuple(image.shape)}; it must be (3, H, W)")
        if image.is_floating_point() and not torch.isfinite(image).all():
            raise ValueError("a frame with NaN or infinite pixels; all must be finite numbers in [0, 255]")
        x = resize(image, self.size).to(self.pixel_mean.device, torch.float32)
        x = (x - self.pixel_mean) / self.pixel_std
        height, width = x.shape[-2:]
        return F.pad(x, (0, self.size - width, 0, self.size - height)).unsqueeze(0)


def vid_scale(height: int, width: int, size: int) -> float:
    """The factor by which a frame is resized: short edge 640, long edge at most 1024, both scaled by size / 1024."""
    return min((640 * size // 1024) / min(height, width), size / max(height, width))


def resize(image: Tensor, size: int) -> Tensor:
    """Resize (3, H, W) by `vid_scale`, bilinear with antialiasing; uint8 stays uint8."""
    height, width = image.shape[-2:]
    scale = vid_scale(height, width, size)
    new = (max(1, round(scale * height)), max(1, round(scale * width)))
    if new == (height, width):
        return image
    return F.interpolate(image.unsqueeze(0), new, mode="bilinear", antialias=True).squeeze(0)
