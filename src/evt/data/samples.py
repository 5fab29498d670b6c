"""Single frames of videos, augmented, to train a detector on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import torch

from evt.data.video import Boxes, Frame
from evt.errors import DataError


class IndexedVideo(Protocol):
    """A video whose frames can be read in any order."""

    @property
    def name(self) -> str:
        """See `Video`."""

    def __len__(self) -> int: ...

    def __getitem__(self, i: int) -> Frame: ...


class FrameSamples:
    """Frames at even distances in each video, mirrored half of the time.

    Common practice trains on 15 frames of each VID video (Zhu et al. 2017); a picture of DET is a video of one frame.

    Args:
        videos: with ground truth.
        frames_per_video: at most so many of each; null is all.

    Raises:
        DataError: frames_per_video is not a whole number of at least 1; while reading, a frame is broken or has no
            ground truth.
    """

    def __init__(self, videos: Sequence[IndexedVideo], frames_per_video: int | None = 15) -> None:
        whole = isinstance(frames_per_video, int) and not isinstance(frames_per_video, bool)
        if frames_per_video is not None and (not whole or frames_per_video < 1):
            raise DataError(
                f"frames_per_video is {frames_per_video!r}; it must be a whole number of at least 1, or null"
            )
        self._frames = [
            (video, i) for video in videos for i in _spread(len(video), frames_per_video or len(video))
        ]

    def __len__(self) -> int:
        return len(self._frames)

    def sample(self, i: int, generator: torch.Generator) -> Frame:
        """A frame with its target, mirrored or not."""
        video, index = self._frames[i]
        frame = video[index]
        if frame.target is None:
            raise DataError(
                f"{frame.name}: there is no annotation of this frame; training needs one for each"
            )
        target = frame.target.without_crowds()
        if torch.rand((), generator=generator) < 0.5:
            return replace(frame, target=target)
        x0, y0, x1, y1 = target.boxes.unbind(-1)
        width = frame.image.shape[-1]
        mirrored = Boxes(torch.stack([width - x1, y0, width - x0, y1], -1), target.labels)
        return Frame(frame.image.flip(-1), frame.name, frame.first, mirrored)


def _spread(length: int, n: int) -> list[int]:
    """At most n places at even distances in 0 .. length - 1, each in the middle of its share."""
    n = min(n, length)
    return [(2 * i + 1) * length // (2 * n) for i in range(n)]
