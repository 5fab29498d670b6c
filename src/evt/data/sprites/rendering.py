"""How a frame is made: a stretch of background, and sprites from back to front.

Sprites have hard edges: a pixel shows one sprite or the background, never a blend, so what is visible of an object
is a set of pixels, and a box can bound it exactly.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from evt.data.sprites.shapes import Sprite


@dataclass(frozen=True)
class Pose:
    """Where a sprite is in a frame.

    x, y: its middle, in pixels of the frame; pixel (0, 0) has its middle at (0.5, 0.5).
    scale: pixels of the frame for each of the master.
    angle: clockwise, in radians.
    """

    x: float
    y: float
    scale: float
    angle: float


def cut_out(background: np.ndarray, x: float, y: float, size: tuple[int, int]) -> np.ndarray:
    """The frame (H, W, 3) uint8 of a background whose upper left corner is at (x, y), between pixels bilinear."""
    left, top = int(np.floor(x)), int(np.floor(y))
    # Sixteenths of a pixel, so that 255 x 16 x 16 fits in 16 bits.
    right, down = round((x - left) * 16), round((y - top) * 16)
    height, width = size
    if not right and not down:
        return background[top : top + height, left : left + width].copy()
    rows = background[top : top + height + 1, left : left + width + 1].astype(np.uint16)
    rows = rows[:-1] * np.uint16(16 - down) + rows[1:] * np.uint16(down)
    blend = rows[:, :-1] * np.uint16(16 - right) + rows[:, 1:] * np.uint16(right)
    blend += np.uint16(128)
    blend >>= np.uint16(8)
    return blend.astype(np.uint8)


def paste(image: np.ndarray, ids: np.ndarray | None, number: int, sprite: Sprite, pose: Pose) -> None:
    """Draw a sprite over an image.

    Args:
        image: (H, W, 3) uint8, drawn on.
        ids: (H, W) int16, set to `number` where the sprite shows; None to leave that out.
        number: of the sprite.
        sprite, pose: what is drawn where.
    """
    height, width = image.shape[:2]
    reach = sprite.radius * pose.scale + 1
    x0, x1 = max(int(pose.x - reach), 0), min(int(pose.x + reach) + 1, width)
    y0, y1 = max(int(pose.y - reach), 0), min(int(pose.y + reach) + 1, height)
    if x0 >= x1 or y0 >= y1:
        return
    # From a pixel of the window to a point of the master: back by the pose, then to the master's middle.
    cos, sin = np.cos(pose.angle) / pose.scale, np.sin(pose.angle) / pose.scale
    dx, dy, middle = x0 - pose.x, y0 - pose.y, sprite.master.width / 2
    matrix = (
        float(cos),
        float(sin),
        float(cos * dx + sin * dy + middle),
        float(-sin),
        float(cos),
        float(-sin * dx + cos * dy + middle),
    )
    drawn = np.asarray(
        sprite.master.transform((x1 - x0, y1 - y0), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
    )
    mask = drawn[..., 3] >= 128
    np.copyto(image[y0:y1, x0:x1], drawn[..., :3], where=mask[..., None])
    if ids is not None:
        ids[y0:y1, x0:x1][mask] = number
