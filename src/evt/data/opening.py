"""`open_video`, the one way to pictures from a video file."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Literal

from evt.data.decord_reader import DecordFile
from evt.data.reader import VideoFile, check_is_file

Reader = Literal["auto", "av", "decord"]


def open_video(path: str | Path, reader: Reader = "auto", motion: bool = False) -> VideoFile:
    """A video; the last one stays open, as the segments of a long video follow one another.

    Args:
        path: the file.
        reader: "auto" and "av" are PyAV; "decord" see `evt.data.decord_reader`.
        motion: see `VideoFile`.

    Raises:
        DataError: see `VideoFile` and `DecordFile`.
    """
    path = Path(path)
    check_is_file(path)
    state = path.stat()
    return _cached(path, reader, motion, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=1)
def _cached(path: Path, reader: Reader, motion: bool, size: int, changed: int) -> VideoFile:
    if reader == "decord":
        return DecordFile(path)
    return VideoFile(path, motion)
