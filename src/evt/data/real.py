"""Real videos of several kinds, to see where a method helps: files, folders of frames, and DAVIS with its masks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import PositiveInt

from evt.data.actions import videos_in
from evt.data.clips import Clip
from evt.data.davis import DAVIS
from evt.data.frames import FrameFolder
from evt.data.video import Video
from evt.errors import DataError


class RealVideos(list[Video]):
    """Frames of each video that is found.

    Args:
        files: a folder of video files.
        segments: of each file, so many, from its first frame to its last in equal steps; of other videos the first
            frames alone are taken.
        folders: folders of pictures, a video each.
        davis: the folder DAVIS, whose frames have masks of objects.
        n_frames: of each video, or segment.
        leave_out: names of videos; those that settings were chosen on.

    Raises:
        DataError: a folder is missing, or there is no video.
    """

    def __init__(
        self,
        files: str | None = None,
        folders: tuple[str, ...] = (),
        davis: str | None = None,
        n_frames: PositiveInt = 32,
        segments: PositiveInt = 1,
        leave_out: tuple[str, ...] = (),
    ) -> None:
        found: list[Video] = []
        if files is not None:
            if not Path(files).is_dir():
                raise DataError(f"data.files is {files}, which is not a folder; a folder of videos is needed")
            paths = (path for path in videos_in(Path(files)) if path.name not in leave_out)
            found += [segment for path in paths for segment in _segments(path, n_frames, segments)]
        for path in folders:
            if not Path(path).is_dir():
                raise DataError(f"data.folders has {path}, which is not a folder; one of pictures is needed")
        found += [
            FrameFolder(path, n_frames=n_frames) for path in folders if Path(path).name not in leave_out
        ]
        if davis is not None:
            found += [video for video in DAVIS(davis, n_frames=n_frames) if video.name not in leave_out]
        if not found:
            raise DataError("no videos: data.files, data.folders or data.davis must name some")
        super().__init__(found)
        self.name = f"{len(self)} real videos"

    def videos(self) -> Sequence[Video]:
        """Itself."""
        return self


def _segments(path: Path, n_frames: int, number: int) -> list[Video]:
    """Segments of a video file; fewer than asked for where they would overlap."""
    whole = Clip(path)
    number = max(1, min(number, len(whole) // n_frames))
    step = (len(whole) - n_frames) // max(1, number - 1)
    return [Clip(path, start=i * step, n_frames=n_frames) for i in range(number)]
