"""What an action recognition data set is: short clips of videos, each with one label."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from torch import Tensor

from evt.data.opening import Reader, open_video
from evt.errors import DataError

VIDEO_SUFFIXES = frozenset(
    (
        ".3gp",
        ".avi",
        ".flv",
        ".m4v",
        ".mkv",
        ".mov",
        ".mp4",
        ".mpeg",
        ".mpg",
        ".mts",
        ".ogv",
        ".ts",
        ".webm",
        ".wmv",
    )
)
"""The endings of files that are taken for videos, in small or capital letters."""


def videos_in(folder: Path) -> list[Path]:
    """The files of a folder that are taken for videos, in order."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in VIDEO_SUFFIXES)


OVERHANG = 1.0
"""Seconds by which a segment may end after its video does, as annotated times are rounded and drift."""


class Frames(Protocol):
    """The frames of a clip: a tensor (t, 3, H, W), or what decodes those that are asked for when they are read."""

    def __len__(self) -> int: ...

    def __getitem__(self, positions: list[int], /) -> Tensor:
        """Frames by position, each position once and rising, (n, 3, H, W) RGB in [0, 255]."""


@dataclass(frozen=True)
class LabelledClip:
    """One clip.

    name: unique in its data set.
    label: its class, from 0.
    frames: nothing is opened before they are counted or read; both raise DataError where that fails.
    fingerprint: what a resumed run knows the frames by, without reading them.
    """

    name: str
    label: int
    frames: Frames
    fingerprint: str = ""


class AnyClip(Protocol):
    """A clip, labelled or not."""

    @property
    def name(self) -> str:
        """For messages, and unique in a data set."""

    @property
    def frames(self) -> Frames:
        """See `LabelledClip`."""


@dataclass(frozen=True)
class UnlabelledClip:
    """A clip of which nothing is known but its name and its frames."""

    name: str
    frames: Frames


class ActionClip(AnyClip, Protocol):
    """What `LabelledClip` is, or a clip that holds its own frames."""

    @property
    def label(self) -> int:
        """See `LabelledClip`."""

    @property
    def fingerprint(self) -> str:
        """See `LabelledClip`."""


class ActionData(Protocol):
    """An action recognition data set: clips, those whose video is not on disk apart."""

    @property
    def name(self) -> str:
        """A short name, for messages."""

    @property
    def n_classes(self) -> int:
        """How many classes its labels are of."""

    @property
    def classes(self) -> Sequence[str]:
        """The names of these, in order; none where they are not known."""

    @property
    def missing(self) -> Sequence[str]:
        """The names of the clips whose video is not on disk; they are not among the clips."""

    def __len__(self) -> int: ...

    def __getitem__(self, i: int, /) -> ActionClip: ...

    def __iter__(self) -> Iterator[ActionClip]: ...


@dataclass(frozen=True)
class Segment:
    """The frames of a video between two times, at a frame rate that need not be the video's.

    Frame k is the one that the video shows nearest to `start + k / fps`.

    path: the video.
    name: for messages.
    fps: frames a second; None takes the video's own frames.
    start, stop: in seconds from the first frame; the whole video where stop is None.
    reader: see `open_video`.

    Raises (when counted or read):
        DataError: the video is broken, or the segment is empty or not in the video.
    """

    path: Path
    name: str
    fps: float | None = None
    start: float = 0.0
    stop: float | None = None
    reader: Reader = "auto"

    def labelled(self, label: int) -> LabelledClip:
        """The segment as a clip; its fingerprint changes with the file's size and the times."""
        fingerprint = f"{self.path.name} {self.path.stat().st_size} {self.fps} {self.start} {self.stop}"
        return LabelledClip(self.name, label, self, fingerprint)

    def __len__(self) -> int:
        return len(self._positions())

    def __getitem__(self, positions: list[int], /) -> Tensor:
        in_video = self._positions()
        return open_video(self.path, self.reader)[[int(in_video[i]) for i in positions]]

    def _positions(self) -> np.ndarray:
        """The video's frame at each of this segment's."""
        if self.stop is not None and self.stop <= self.start:
            raise DataError(
                f"{self.name}: the segment starts at {self.start:g} s and stops at {self.stop:g} s; "
                "it must stop after it starts"
            )
        video = open_video(self.path, self.reader)
        appear, end = video.times - video.times[0], video.end - float(video.times[0])
        stop = end if self.stop is None else self.stop
        if video.truncated and (self.stop is None or stop > end):
            raise DataError(f"{self.name}: {self.path} is {video.truncated}; the whole segment is needed")
        if self.start >= end or stop > end + OVERHANG:
            raise DataError(
                f"{self.name}: the segment from {self.start:g} to {stop:g} s is not in {self.path}, "
                f"which is {end:.2f} s long; it must end with the video or before"
            )
        if self.fps is None:
            return np.flatnonzero((appear >= self.start) & (appear < stop))
        # Times are rounded to the file's own unit, so a whole number of frames may come out as a little more.
        n = max(1, math.ceil((min(stop, end) - self.start) * self.fps - 1e-2))
        times = self.start + np.arange(n) / self.fps
        after = np.searchsorted(appear, times).clip(1, max(1, len(appear) - 1))
        if len(appear) == 1:
            return np.zeros(n, np.int64)
        nearer_before = times - appear[after - 1] <= appear[after] - times
        return after - nearer_before


class Segments:
    """Segments of videos in order, each with its label, to be a data set of clips.

    segments: each with its label.
    missing: the names of those whose video is not on disk.
    """

    classes: Sequence[str] = ()

    def __init__(self, segments: Sequence[tuple[Segment, int]], missing: list[str]) -> None:
        self._segments = segments
        self.missing = missing

    def clips(self) -> Segments:
        """Itself: the clips are labelled."""
        return self

    def __len__(self) -> int:
        return len(self._segments)

    def __getitem__(self, i: int) -> LabelledClip:
        segment, label = self._segments[i]
        return segment.labelled(label)

    def __iter__(self) -> Iterator[LabelledClip]:
        return (self[i] for i in range(len(self)))


def whole_videos(
    labels: Mapping[str, int],
    source: Path,
    folder: Path,
    usual: str,
    fps: float | None = None,
    reader: Reader = "auto",
    below: bool = False,
) -> tuple[list[tuple[Segment, int]], list[str]]:
    """The videos of an annotation file that are in a folder, each in a file of its name; and the names of the others.

    Args:
        labels: of the videos, by name.
        source: the file that has them, for messages.
        folder: where the videos are.
        usual: the usual ending of their files, for messages.
        fps, reader: see `Segment`.
        below: whether they may be in the folders of this folder, too.

    Raises:
        DataError: there is no such folder, it has two files of one name, or none of the videos.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; the videos of {source} are needed")
    folders = sorted(path for path in folder.iterdir() if path.is_dir()) if below else []
    files = find_videos([folder, *folders])
    missing = [name for name in labels if name not in files]
    if len(missing) == len(labels):
        here = "here or one folder below" if below else "here"
        raise DataError(
            f"{folder}: none of the {len(missing)} videos of {source} is {here}, "
            f"the first as {missing[0]}{usual}; at least 1 is needed"
        )
    found = [
        (Segment(files[name], name, fps, reader=reader), label)
        for name, label in labels.items()
        if name in files
    ]
    return found, missing


def find_videos(folders: Sequence[Path]) -> dict[str, Path]:
    """The video files directly in some folders, by name without ending; folders that do not exist have none.

    Raises:
        DataError: two files of one name, of which only one can be meant.
    """
    found: dict[str, Path] = {}
    for folder in folders:
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if path.suffix.lower() not in VIDEO_SUFFIXES:
                continue
            if path.stem in found:
                raise DataError(f"{found[path.stem]} and {path} are both {path.stem}; keep one of them")
            found[path.stem] = path
    return found
