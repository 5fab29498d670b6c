"""One video without ground truth: a clip that decord reads, or a folder of frames."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from evt.data.images import read_image
from evt.data.video import DataError, Frame


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
    """The frames of a video file, decoded by decord.

    Args:
        path: the file.
        start, stride, n_frames: the first frame, the step from frame to frame, and how many at most.

    Raises:
        DataError: decord cannot open or decode the file, or the frames asked for are not in it.
    """

    def __init__(
        self, path: str | Path, start: int = 0, stride: int = 1, n_frames: int | None = None
    ) -> None:
        # Imported here, so that all else works where no build of decord exists.
        import decord

        if not Path(path).is_file():
            raise DataError(f"data.path is {path}, which is not a file; a video file is needed")
        self.name = Path(path).name
        self._path = path
        try:
            self._reader = decord.VideoReader(str(path), ctx=decord.cpu(0), num_threads=1)
            length = len(self._reader)
        except Exception as error:  # decord raises RuntimeError and DECORDError, with a C++ trace as message
            raise DataError(f"{path}: decord cannot open this file as a video; is it complete?") from error
        self._positions = _positions(str(path), length, start, stride, n_frames)
        self.fingerprint = f"{os.path.getsize(path)} bytes, {self._positions}"

    def __len__(self) -> int:
        return len(self._positions)

    def __iter__(self) -> Iterator[Frame]:
        return as_sequences((f"{self.name}:{at}", self.image(i)) for i, at in enumerate(self._positions))

    def image(self, i: int) -> Tensor:
        """Picture i of those chosen."""
        at = self._positions[i]
        try:
            pixels = self._reader[at].asnumpy()  # (H, W, 3)
        except Exception as error:
            raise DataError(
                f"{self._path}: decord cannot decode frame {at}; is the file complete?"
            ) from error
        return torch.from_numpy(pixels).permute(2, 0, 1)


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
    return range(start, length, stride)[:n_frames]
