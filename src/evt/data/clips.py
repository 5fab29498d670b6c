"""One video without ground truth: a clip, and what it shares with a folder of frames."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from evt.data.actions import UnlabelledClip
from evt.data.opening import Reader, open_video
from evt.data.video import Frame
from evt.errors import DataError

log = logging.getLogger(__name__)


def as_sequences(images: Iterable[tuple[str, Tensor]]) -> Iterator[Frame]:
    """Make frames of (name, picture) pairs; a change of the pictures' size begins a new sequence."""
    shape = None
    for name, image in images:
        yield Frame(image, name, first=image.shape != shape)
        shape = image.shape


class Pictures(Protocol):
    """A video whose pictures can be read in any order."""

    def __len__(self) -> int: ...

    def image(self, i: int) -> Tensor:
        """Picture i, (3, H, W) uint8, RGB."""


class PicturesAt:
    """Pictures read many at a time, as `evt.models.views.Clip`.

    Raises:
        DataError: when read, a picture is broken or of another size than the others.
    """

    def __init__(self, pictures: Pictures) -> None:
        self._pictures = pictures

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, positions: list[int], /) -> Tensor:
        images = [self._pictures.image(i) for i in positions]
        sizes = sorted({tuple(image.shape[-2:]) for image in images})
        if len(sizes) > 1:
            raise DataError(
                f"frames {positions[0]} to {positions[-1]} are of {sizes[0]} and {sizes[1]} pixels; "
                "those of a clip must be of one size"
            )
        return torch.stack(images)


class Clip:
    """The frames of a video file.

    Args:
        path: the file.
        start, stride, n_frames: the first frame, the step from frame to frame, and how many at most.
        reader: see `open_video`.
        motion: frames say how far the codec moved what they show (`Frame.motion`). That is from frame to frame, so
            that stride must be 1.

    Raises:
        DataError: the file cannot be opened as a video, or the frames asked for are not in it; while reading, a frame
            cannot be decoded.
    """

    def __init__(
        self,
        path: str | Path,
        start: int = 0,
        stride: int = 1,
        n_frames: int | None = None,
        reader: Reader = "auto",
        motion: bool = False,
    ) -> None:
        if motion and (stride != 1 or reader == "decord"):
            given = "data.reader is decord" if reader == "decord" else f"data.stride is {stride}"
            raise DataError(
                f"data.motion is true and {given}: a codec says how a frame differs from the one before it, and only "
                "PyAV hands that out; data.stride must be 1, and data.reader auto or av"
            )
        self.name, self._path, self.motion = Path(path).name, str(path), motion
        self._video = open_video(path, reader, motion)
        self._positions = chosen_positions(str(path), len(self._video), start, stride, n_frames)
        if self._video.truncated and self._positions[-1] + stride >= len(self._video):
            log.warning("%s is %s; what is there is used", path, self._video.truncated)
        self.fingerprint = f"{os.path.getsize(path)} bytes, {self._positions}"

    def __len__(self) -> int:
        return len(self._positions)

    def __iter__(self) -> Iterator[Frame]:
        frames = as_sequences((f"{self.name}:{at}", self.image(i)) for i, at in enumerate(self._positions))
        if not self.motion:
            return frames
        return (
            replace(frame, motion=self._video.motion(at))
            for frame, at in zip(frames, self._positions, strict=True)
        )

    @property
    def fps(self) -> float:
        """Frames of it a second."""
        return self._video.fps / self._positions.step

    def image(self, i: int) -> Tensor:
        """Picture i of those chosen."""
        return self._video[self._positions[i]]

    def videos(self) -> list[Clip]:
        """Itself, alone."""
        return [self]

    def clips(self) -> list[UnlabelledClip]:
        """Itself, alone, under its path."""
        return [UnlabelledClip(self._path, PicturesAt(self))]


def chosen_positions(path: str, length: int, start: int, stride: int, n_frames: int | None) -> range:
    """The positions of the frames that are asked for, of a video of this many.

    Raises:
        DataError: a number cannot be, or no frame is left.
    """
    for name, value, least in (("start", start, 0), ("stride", stride, 1), ("n_frames", n_frames, 1)):
        if value is not None and (not isinstance(value, int) or value < least):
            raise DataError(f"data.{name} is {value!r}; it must be a whole number of at least {least}")
    if start >= length:
        raise DataError(f"data.start is {start}, but {path} has {length} frames: it must be below {length}")
    positions = range(start, length, stride)[:n_frames]
    if n_frames is not None and len(positions) < n_frames:
        log.warning(
            "data.n_frames is %d, but %s has %d frames, which from %d on in steps of %d make %d: only these are used",
            n_frames,
            path,
            length,
            start,
            stride,
            len(positions),
        )
    return positions
