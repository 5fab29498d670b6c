"""A folder of frames: one video without ground truth."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
from collections.abc import Iterable, Iterator
from decimal import Decimal
from pathlib import Path

from torch import Tensor

from evt.data.actions import UnlabelledClip
from evt.data.clips import PicturesAt, as_sequences, chosen_positions
from evt.data.images import ENDINGS, read_image
from evt.data.video import Frame
from evt.errors import DataError

# A decimal fraction, unless more points and digits are around it, as in dates and versions; else a whole number.
_NUMBER = re.compile(r"((?<!\d)(?<!\d\.)\d+\.\d+(?!\.?\d)|\d+)")


class FrameFolder:
    """The pictures of a folder, in the order of the numbers in their names, decimal fractions too.

    Hidden files, as some systems put beside each picture, are none of them.

    Args:
        path: the folder.
        start, stride, n_frames: the first frame, the step from frame to frame, and how many at most.

    Raises:
        DataError: the folder is missing or has no frames, two of them have names with the same numbers, the frames
            asked for are not in it, or, while reading, a file is broken.
    """

    def __init__(
        self, path: str | Path, start: int = 0, stride: int = 1, n_frames: int | None = None
    ) -> None:
        folder = Path(path)
        if not folder.is_dir():
            raise DataError(f"data.path is {path}, which is not a folder; a folder of pictures is needed")
        files = _in_order(
            file
            for file in folder.iterdir()
            if file.name.lower().endswith(ENDINGS) and not file.name.startswith(".")
        )
        if not files:
            raise DataError(f"{path} has no frames; files that end in {', '.join(ENDINGS)} are needed")
        self.name, self._path = folder.resolve().name, str(path)
        self._files = [files[i] for i in chosen_positions(str(path), len(files), start, stride, n_frames)]

    @property
    def fingerprint(self) -> str:
        """A hash of the frames' files by name and size."""
        try:
            sizes = [f"{file.name}\n{file.stat().st_size}\n" for file in self._files]
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

    def videos(self) -> list[FrameFolder]:
        """Itself, alone."""
        return [self]

    def clips(self) -> list[UnlabelledClip]:
        """Itself, alone, under its path."""
        return [UnlabelledClip(self._path, PicturesAt(self))]


def _in_order(files: Iterable[Path]) -> list[Path]:
    """Files in the order of the texts and numbers of which their names, less the endings, consist.

    Raises:
        DataError: two are equal in that.
    """
    keyed = sorted((_order(file), file) for file in files)
    for (order, file), (following_order, following) in itertools.pairwise(keyed):
        if order == following_order:
            raise DataError(
                f"{file} and {following.name} are of the same number; a frame may be there only once (1.1 and 1.10 "
                "are decimal fractions, so counts behind a point need leading zeros)"
            )
    return [file for _, file in keyed]


def _order(file: Path) -> list[str | Decimal]:
    """Texts and numbers in turn, so that like is compared with like."""
    parts = _NUMBER.split(file.stem)
    return [Decimal(part) if i % 2 else part for i, part in enumerate(parts)]
