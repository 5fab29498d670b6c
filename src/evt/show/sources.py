"""Where frames to be shown come from: a file, a folder of pictures, a camera, or generated video."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import torch
from torch import Tensor

from evt.data.clips import Clip
from evt.data.frames import FrameFolder
from evt.data.sprites import SpriteVideos
from evt.data.video import Frame, Video
from evt.errors import DataError

CAMERA = "camera:"
GENERATED = "generated"


@dataclass(frozen=True)
class Source:
    """What is to be shown.

    name: for the user.
    frames: of it, in order.
    fps: frames a second.
    length: how many frames there are; None where it goes on until it is ended.
    """

    name: str
    frames: Iterator[Frame]
    fps: float
    length: int | None


def open_source(source: str, n_frames: int | None = None, motion: bool = False) -> Source:
    """Open a source.

    Args:
        source: a video file, a folder of pictures, camera:N for the camera of that number, or "generated".
        n_frames: at most so many; None is all.
        motion: frames say how far the codec moved what they show, of a file.

    Raises:
        DataError: it is none of these, or cannot be opened; while reading, a frame cannot be decoded.
    """
    if n_frames is not None and n_frames < 1:
        raise DataError(f"n_frames is {n_frames}; it must be a whole number of at least 1")
    if source.startswith(CAMERA):
        return _camera(source, n_frames)
    video: Video
    fps = 25.0
    if source == GENERATED:
        video = SpriteVideos(
            n_videos=1, n_frames=90 if n_frames is None else n_frames, size=(192, 192)
        ).videos()[0]
    elif Path(source).is_dir():
        video = FrameFolder(source)
    else:
        if not Path(source).exists():
            raise DataError(
                f"source is {source}, which does not exist; it must be a video file, a folder of pictures, {CAMERA}0 "
                f"for the first camera, or {GENERATED}"
            )
        video = clip = Clip(source, motion=motion)
        fps = clip.fps
    length = len(video) if n_frames is None else min(n_frames, len(video))
    return Source(video.name, itertools.islice(video, n_frames), fps, length)


def _camera(source: str, n_frames: int | None) -> Source:
    number = source.removeprefix(CAMERA)
    if not number.isdecimal():
        raise DataError(f"source is {source}; a camera is named by its number, as {CAMERA}0")
    # Of ffmpeg, by system: the format of cameras, and how one is named.
    formats = {"linux": ("v4l2", f"/dev/video{number}"), "darwin": ("avfoundation", number)}
    if sys.platform not in formats:
        raise DataError(f"source is {source}; cameras can be read on Linux and macOS alone")
    kind, name = formats[sys.platform]
    try:
        container = av.open(name, format=kind)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"source is {source}: the camera {name} does not open ({reason})") from error
    rate = container.streams.video[0].average_rate

    def frames() -> Iterator[Frame]:
        with container:
            for i, picture in enumerate(itertools.islice(container.decode(video=0), n_frames)):
                pixels: Tensor = torch.from_numpy(picture.to_ndarray(format="rgb24")).permute(2, 0, 1)
                yield Frame(pixels, f"{source}:{i}", first=i == 0)

    return Source(source, frames(), float(rate or 25), n_frames)
