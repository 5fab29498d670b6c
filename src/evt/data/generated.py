"""A short video made from a seed: textured squares that move over a textured, still background."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from evt.data.clips import as_sequences
from evt.data.video import DataError, Frame


class MovingSquares:
    """Six squares that move on straight lines and bounce off the frame's edges.

    Args:
        n_frames: how many frames.
        height, width: of a frame in pixels, at least 64.
        seed: of textures, places and speeds.

    Raises:
        DataError: n_frames, height or width is too small.
    """

    name = "generated"
    fingerprint = ""

    def __init__(self, n_frames: int = 8, height: int = 360, width: int = 640, seed: int = 0) -> None:
        for key, value, least in (("n_frames", n_frames, 1), ("height", height, 64), ("width", width, 64)):
            if not isinstance(value, int) or value < least:
                raise DataError(f"data.{key} is {value!r}; it must be a whole number of at least {least}")
        self._n_frames = n_frames
        generator = torch.Generator().manual_seed(seed)

        def texture(rows: int, columns: int) -> Tensor:
            noise = torch.rand(1, 3, 2 + rows // 8, 2 + columns // 8, generator=generator)
            return (F.interpolate(noise, (rows, columns), mode="bicubic")[0].clamp(0, 1) * 255).byte()

        self._background = texture(height, width)
        sides = [min(height, width) // divisor for divisor in (3, 4, 5, 6, 8, 10)]
        self._squares = [texture(side, side) for side in sides]
        self._room = torch.tensor([[height - side, width - side] for side in sides], dtype=torch.float32)
        self._place = torch.rand(6, 2, generator=generator) * self._room
        self._speed = torch.randn(6, 2, generator=generator) * min(height, width) / 90  # pixels a frame

    def __len__(self) -> int:
        return self._n_frames

    def __iter__(self) -> Iterator[Frame]:
        return as_sequences((f"{self.name}:{i}", self.image(i)) for i in range(self._n_frames))

    def image(self, i: int) -> Tensor:
        """Picture i."""
        image = self._background.clone()
        # A bounce is a reflection: the place runs up and down a track of twice the room.
        track = (self._place + i * self._speed).remainder(2 * self._room)
        corners = torch.minimum(track, 2 * self._room - track).round().int().tolist()
        for square, (top, left) in zip(self._squares, corners, strict=True):
            side = square.shape[-1]
            image[:, top : top + side, left : left + side] = square
        return image
