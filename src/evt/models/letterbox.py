"""Pictures of any shape in a square: resized with their aspect kept, and padded on both sides."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Box(NamedTuple):
    """Where the picture lies in the square, in pixels."""

    top: int
    left: int
    height: int
    width: int

    @classmethod
    def of(cls, height: int, width: int, side: int) -> Box:
        """Where a picture of some height and width lies in a square: its longer edge fills it, and it is centred."""
        scale = side / max(height, width)
        height, width = max(1, round(scale * height)), max(1, round(scale * width))
        return cls((side - height) // 2, (side - width) // 2, height, width)

    def crop(self, x: Tensor) -> Tensor:
        """What of a map over the square, (..., side, side), lies on the picture, (..., height, width)."""
        return x[..., self.top : self.top + self.height, self.left : self.left + self.width]

    def patches(self, x: Tensor, patch: int) -> Tensor:
        """The patches that show some of the picture, of all in the square, (..., rows, columns, D) both."""
        bottom, right = self.top + self.height, self.left + self.width
        rows = slice(self.top // patch, -(-bottom // patch))
        columns = slice(self.left // patch, -(-right // patch))
        return x[..., rows, columns, :]

    def most(self, x: Tensor, side: int, grid: tuple[int, int]) -> Tensor:
        """What of a map over the picture as it was, (H, W), is largest in each token of the square, (rows, columns).

        It must not be negative; beyond the picture it is 0.
        """
        height, width = x.shape
        tall, wide = height / self.height, width / self.width  # pixels of the map to one of the square
        below, right = side - self.top - self.height, side - self.left - self.width
        edges = (round(wide * self.left), round(wide * right), round(tall * self.top), round(tall * below))
        return F.adaptive_max_pool2d(F.pad(x, edges)[None], grid)[0]

    def beyond(self, patch: int) -> tuple[int, int, int, int]:
        """How many pixels these patches reach beyond the picture: to the left, right, top and bottom."""
        right, bottom = -(self.left + self.width) % patch, -(self.top + self.height) % patch
        return self.left % patch, right, self.top % patch, bottom


def letterboxed(image: Tensor, side: int) -> Tensor:
    """Put a picture into a black square, (3, H, W) to (3, side, side) float32, still in [0, 255].

    As albumentations does it with OpenCV's INTER_AREA: every pixel is the mean of the area that it covers, rounded.

    Raises:
        ValueError: the image is not (3, H, W), or has NaN or infinite pixels.
    """
    check_picture(image)
    height, width = image.shape[-2:]
    box = Box.of(height, width, side)
    x = image.float()
    if (box.height, box.width) != (height, width):
        x = _overlaps(height, box.height, x.device) @ x @ _overlaps(width, box.width, x.device).T
        x = x.round()
    below, right = side - box.top - box.height, side - box.left - box.width
    return F.pad(x, (box.left, right, box.top, below))


def check_picture(image: Tensor) -> None:
    """Refuse what is no picture.

    Raises:
        ValueError: it is not (3, H, W), or has NaN or infinite pixels.
    """
    if image.ndim != 3 or image.shape[0] != 3:
        raise ValueError(f"a frame of shape {tuple(image.shape)}; it must be (3, H, W)")
    if image.is_floating_point() and not torch.isfinite(image).all():
        raise ValueError("a frame with NaN or infinite pixels; all must be finite numbers in [0, 255]")


def _overlaps(old: int, new: int, device: torch.device) -> Tensor:
    """How much of each new pixel along an axis is of each old one, (new, old); rows add up to 1."""
    # In double precision, since these are small differences of large numbers.
    ends = torch.arange(new + 1, dtype=torch.float64, device=device)[:, None] * old / new
    pixel = torch.arange(old, dtype=torch.float64, device=device)
    shared = torch.minimum(ends[1:], pixel + 1) - torch.maximum(ends[:-1], pixel)
    return (shared.clamp(min=0) * new / old).float()
