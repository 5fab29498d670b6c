"""How a video becomes the views that ViViT classifies (section 5.2)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from evt.data.actions import AnyClip, Frames
from evt.errors import DataError
from evt.models.vit import check_whole

READ_AT_ONCE = 16
"""Frames in memory at their stored size, which may be far larger than a view: 16 of 1920x1080 are 100 MB."""

SETTINGS = {"frames": "view_frames", "temporal": "temporal_views", "spatial": "spatial_views"}
"""What the models call a number of their views, where they call it otherwise."""


@dataclass(frozen=True)
class Views:
    """Which frames and which squares of them the views of a video are.

    frames: of a view.
    size: side of a view in pixels.
    temporal_stride: from frame to frame of a view; None cuts the whole video into as many equal parts and
        takes a frame of each.
    temporal: views spread evenly from the first to the last frame; a single one is central. Without a stride they
        begin at even distances in each part, as where VideoMAE is evaluated on Something-Something v2 (its
        `SSVideoClsDataset` in test mode); a single one takes the middles.
    spatial: squares spread evenly along the longer edge; a single one is central.

    Raises:
        ValueError: a number is less than 1.
    """

    frames: int = 32
    size: int = 224
    temporal_stride: int | None = 2
    temporal: int = 4
    spatial: int = 3

    def __post_init__(self) -> None:
        numbers = {SETTINGS.get(name, name): value for name, value in vars(self).items()}
        if self.temporal_stride is None:
            del numbers["temporal_stride"]
        check_whole(**numbers)

    def __len__(self) -> int:
        return self.temporal * self.spatial

    def of(self, clip: AnyClip) -> Tensor:
        """What `cut` makes of a clip's frames.

        Raises:
            DataError: they cannot be read or used; the message names the file or the clip.
        """
        try:
            return self.cut(clip.frames)
        except DataError:
            raise
        except ValueError as error:
            raise DataError(f"{clip.name}: {error}") from error

    @property
    def numbers(self) -> int:
        """How many numbers the views of a video are, all together."""
        return len(self) * self.frames * 3 * self.size**2

    @property
    def reach(self) -> int:
        """Frames of a video from the first of a view to the last; a shorter video repeats frames."""
        return (self.frames - 1) * (self.temporal_stride or 1) + 1

    def positions(self, length: int) -> list[list[int]]:
        """The frames of each temporal view of a video of `length` frames.

        A short one repeats its last frame, and where they are spread, all of them.
        """
        if self.temporal_stride is None:
            # In units of half a view's share of a part, so that all is exact.
            middle = 1 if self.temporal == 1 else 0
            return [
                [
                    length * (2 * (i * self.temporal + k) + middle) // (2 * self.temporal * self.frames)
                    for i in range(self.frames)
                ]
                for k in range(self.temporal)
            ]
        span = self.frames * self.temporal_stride
        starts = _spread(max(length, span) - span, self.temporal)
        return [
            [min(start + i * self.temporal_stride, length - 1) for i in range(self.frames)]
            for start in starts
        ]

    def cut(self, clip: Frames) -> Tensor:
        """Resize and cut a video, (temporal * spatial, frames, 3, size, size) float32 in [0, 1].

        All temporal views of the first square come first, then those of the second. Only the frames that some
        view shows are read, each once and in order.

        Raises:
            ValueError: the clip has no frames, or frames that are not (3, H, W) or not finite.
        """
        if len(clip) == 0:
            raise ValueError("a clip without frames; at least 1 is needed")
        positions = self.positions(len(clip))
        needed = sorted({i for view in positions for i in view})
        resized = torch.cat(
            [
                self._resize(clip[needed[first : first + READ_AT_ONCE]])
                for first in range(0, len(needed), READ_AT_ONCE)
            ]
        )  # (n, 3, h, w), the shorter edge = size
        place = {i: row for row, i in enumerate(needed)}
        rows = torch.tensor([[place[i] for i in view] for view in positions])  # (temporal, frames)
        height, width = resized.shape[-2:]
        corners = zip(
            _spread(height - self.size, self.spatial), _spread(width - self.size, self.spatial), strict=True
        )
        return torch.cat(
            [
                resized[..., top : top + self.size, left : left + self.size][rows.to(resized.device)]
                for top, left in corners
            ]
        )

    def _resize(self, frames: Tensor) -> Tensor:
        """Resize (n, 3, H, W) so that the square just fits, bilinear with antialiasing."""
        if frames.ndim != 4 or frames.shape[1] != 3:
            raise ValueError(f"frames of shape {tuple(frames.shape)}; they must be (n, 3, H, W)")
        if frames.is_floating_point() and not torch.isfinite(frames).all():
            raise ValueError("a frame with NaN or infinite pixels; all must be finite numbers in [0, 255]")
        height, width = frames.shape[-2:]
        scale = self.size / min(height, width)
        new = (round(scale * height), round(scale * width))
        resized = []
        for frame in frames.split(1):  # one at a time: as float a frame is four times as large
            x = frame.float() / 255
            if new != (height, width):
                x = F.interpolate(x, new, mode="bilinear", antialias=True, align_corners=False)
            resized.append(x)
        return torch.cat(resized)


def _spread(room: int, n: int) -> list[int]:
    """`n` whole places spread evenly from 0 to `room`, rounded down; a single one in the middle."""
    if n == 1:
        return [room // 2]
    return [int(k * (room / (n - 1))) for k in range(n)]
