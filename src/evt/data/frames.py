"""A folder of frames: one video without ground truth."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from evt.data.clips import as_sequences, chosen_positions
from evt.data.images import read_image
from evt.data.video import DataError, Frame


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
        self._files = [files[i] for i in chosen_positions(str(path), len(files), start, stride, n_frames)]

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
