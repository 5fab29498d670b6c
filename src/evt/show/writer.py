"""Pictures to an H.264 file that can be played whenever writing ends."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
from PIL import Image

from evt.errors import DataError
from evt.files import check_writable
from evt.interrupt import undisturbed


class VideoWriter:
    """A video file, H.264 in mp4 or mkv, yuv420p; made with its first picture.

    In a `with` block it is finished at the end, after Ctrl-C, too. mp4 is written in fragments, so that even what a
    killed process leaves can be played.

    Args:
        path: the file; it ends in .mp4, .mov or .mkv.
        fps: frames a second.

    Raises:
        DataError: it has another ending; while writing, a picture is of another size than the first.
        OSError: it cannot be written.
    """

    closed = False  # as a window may be, by its user

    def __init__(self, path: Path, fps: float) -> None:
        if path.suffix.lower() not in (".mp4", ".mov", ".mkv"):
            raise DataError(f"out is {path}; it must end in .mp4, .mov or .mkv")
        check_writable(path)
        self.path, self.fps, self.n_frames = path, Fraction(fps).limit_denominator(1001), 0
        self._container: av.container.OutputContainer | None = None
        self._size = (0, 0)

    def add(self, picture: Image.Image) -> None:
        """Write the next picture, RGB; both sides must be even."""
        if self._container is None:
            self._begin(picture)
        if picture.size != self._size:
            raise DataError(
                f"{self.path}: frame {self.n_frames} is of {picture.size} pixels, and those before it of "
                f"{self._size}; all pictures of a video must be of one size"
            )
        assert self._container is not None
        self._container.mux(self._stream.encode(av.VideoFrame.from_image(picture)))
        self.n_frames += 1

    def _begin(self, picture: Image.Image) -> None:
        self._size = picture.size
        fragments = "frag_keyframe+empty_moov+default_base_moof"
        options = {} if self.path.suffix.lower() == ".mkv" else {"movflags": fragments}
        self._container = av.open(str(self.path), "w", options=options)
        self._stream = self._container.add_stream("libx264", rate=self.fps)
        self._stream.width, self._stream.height = picture.size
        self._stream.pix_fmt = "yuv420p"
        # A key frame a second: that much is lost at most where a process is killed.
        self._stream.options = {"crf": "20", "preset": "veryfast", "g": str(max(1, round(float(self.fps))))}

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with undisturbed():  # a second Ctrl-C, of somebody impatient, would leave half a fragment
            if self._container is not None:
                self._container.mux(self._stream.encode(None))
                self._container.close()
                self._container = None
