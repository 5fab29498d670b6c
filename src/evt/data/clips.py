"""One video without ground truth: a clip, or a folder of frames."""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from evt.data.images import read_image
from evt.data.reader import VideoFile
from evt.data.video import DataError, Frame

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

    Raises:
        DataError: the file cannot be opened as a video, or the frames asked for are not in it; while reading, a frame
            cannot be decoded.
    """

    def __init__(
        self, path: str | Path, start: int = 0, stride: int = 1, n_frames: int | None = None
    ) -> None:
        if not Path(path).is_file():
            raise DataError(f"data.path is {path}, which is not a file; a video file is needed")
        self.name = Path(path).name
        self._video = VideoFile(path)
        self._positions = _positions(str(path), len(self._video), start, stride, n_frames)
        if self._video.truncated and self._positions[-1] + stride >= len(self._video):
            log.warning("%s is %s; what is there is used", path, self._video.truncated)
        self.fingerprint = f"{os.path.getsize(path)} bytes, {self._positions}"

    def __len__(self) -> int:
        return len(self._positions)

    def __iter__(self) -> Iterator[Frame]:
        return as_sequences((f"{self.name}:{at}", self.image(i)) for i, at in enumerate(self._positions))

    def image(self, i: int) -> Tensor:
        """Picture i of those chosen."""
        return self._video[self._positions[i]]


class FrameFolder:
    """The JPEG and PNG files of a folder, in the order of the numbers in their names.

    Args:
        path: the folder.
        start, stride, n_frames: the first frame, the step from frame to frame, and how many at most.

    Raises:
        DataError: the folder is missing or has no frames, the frames asked for are not in it, or, while reading,
            a file is broken.
    """

    def __init__(
        self, path: str | Path, start: int = 0, stride: int = 1, n_frames: int | None = None
    ) -> None:
        folder = Path(path)
        if not folder.is_dir():
            raise DataError(
                f"data.path is {path}, which is not a folder; a folder of JPEG or PNG frames is needed"
            )
        files = sorted(
            (file for file in folder.iterdir() if file.suffix.lower() in {".jpeg", ".jpg", ".png"}),
            key=lambda file: [
                int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", file.name)
            ],
        )
        if not files:
            raise DataError(f"{path} has no frames; files that end in .jpeg, .jpg or .png are needed")
        self.name = folder.resolve().name
        self._files = [files[i] for i in _positions(str(path), len(files), start, stride, n_frames)]

    @property
    def fingerprint(self) -> str:
        """A hash of the frames' files by name and size."""
        try:
            sizes = [f"{file}\n{file.stat().st_size}\n" for file in self._files]
        except OSError as error:
            raise DataError(f"{error.filename}: the picture cannot be read ({error.strerror})") from error
        return hashlib.sha1(os.fsencode("".join(sizes))).hexdigest()

    def __len__(self) -> int:
        return len(self._files)

    def __iter__(self) -> Iterator[Frame]:
        return as_sequences((str(file), self.image(i)) for i, file in enumerate(self._files))

    def image(self, i: int) -> Tensor:
        """Picture i of those chosen."""
        return read_image(self._files[i])


def _positions(path: str, length: int, start: int, stride: int, n_frames: int | None) -> range:
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
