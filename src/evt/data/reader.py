"""Pictures from a video file by PyAV: frame i is frame i of a decode from start to end."""

from __future__ import annotations

import bisect
import itertools
import operator
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast, overload

import av
import numpy as np
import torch
from av.video.reformatter import VideoReformatter
from torch import Tensor

from evt.data.codec_motion import check_tells, motion_of
from evt.data.decoding import LONGEST_WAIT, outcomes, trusted
from evt.data.ends import times_of
from evt.data.order import NOTICED_IF_MISSING, frames_of, times_tell, unsure
from evt.data.packets import Stored, open_stream, packets_of, read_stored
from evt.errors import DataError

NEAR = 64
"""Frames that are rather decoded on the way than jumped over where there is a key frame between."""

_after_fork = threading.Lock()


def _make_lock() -> None:
    """The parent may have held it."""
    global _after_fork
    _after_fork = threading.Lock()


os.register_at_fork(after_in_child=_make_lock)


class VideoFile:
    """A video, decoded by PyAV (ffmpeg).

    Opening reads the packets once, for their times. Where those do not say when each frame appears (AVI, transport
    and program streams, codecs with hidden or empty frames), it decodes the file once. Reading goes on from the last
    frame read where the next one is near ahead, else from the last key frame that frames can be read from, else from
    the start; each frame is known by the number of its packet, so that no other frame can pass for it. What a
    damaged packet may have spoiled is refused, whatever the order of reading (`evt.data.decoding`).

    Frames are turned into 8-bit RGB by ffmpeg's swscale: by the matrix and range that the stream names, BT.601 and
    limited range where it names none, chroma interpolated bilinearly.

    Args:
        path: the file.
        motion: `motion` will be asked for.

    Attributes:
        times: (n,) when each frame appears, in seconds, as stored: the first need not appear at 0.
        end: when the last frame has been shown.
        fps: frames a second, on average.
        size: (height, width) of the first frame as shown.
        truncated: a sentence about what is missing at the end; None for a file that is complete.
        not_plain: why a reader without checks of its own might go wrong; None where nothing is known.

    Raises:
        DataError: the file is missing, is no video, or its header cannot be true; of its codec there is no motion to
            be had.
    """

    def __init__(self, path: str | Path, motion: bool = False) -> None:
        self.path, self._motion = Path(path), motion
        check_is_file(self.path)
        self._container, self._stream = open_stream(self.path, motion)
        self._format = VideoReformatter()
        stored = read_stored(self.path, self._container, self._stream)
        if motion:
            check_tells(self.path, stored.codec)
        frames = frames_of(stored)
        if not frames.pts:
            raise DataError(
                f"{path}: no frame of the {stored.codec} video in it can be decoded; at least 1 is needed"
            )
        self.times, self.end, self.truncated = times_of(stored, frames)
        self.fps = len(self) / (self.end - float(self.times[0]))
        self._numbers = frames.numbers  # of the packets of the frames
        self._place = {number: i for i, number in enumerate(frames.numbers)}
        self._shown = [
            packet.pts if frames.by_time else self._place.get(i) for i, packet in enumerate(stored.packets)
        ]
        self._as_stored = frames.by_time and frames.numbers == sorted(frames.numbers)
        self._clean = {i for i, packet in enumerate(stored.packets) if packet.key}
        # A jump is safe where packets are known by their times, in a container that stores them.
        jumps = stored.exact and frames.by_time and times_tell(stored)
        self._keys = sorted((self._place[i], i) for i in self._clean if jumps and i in self._place)
        self._stored_at = {packet.pts: i for i, packet in reversed([*enumerate(stored.packets)])}
        self._unsure = unsure(stored, frames)
        told = stored.codec in NOTICED_IF_MISSING
        self._or_pause = "" if told else ", or its times jump, which means the same in most files"
        self.not_plain = _not_plain(stored)
        if self._unsure or self.truncated or not frames.by_time:
            self.not_plain = self.not_plain or "it is damaged or incomplete"
        self._own()
        first = VideoFile._read(self, 0)
        self.size = (first.shape[-2], first.shape[-1])

    def __len__(self) -> int:
        return len(self.times)

    @overload
    def __getitem__(self, i: int, /) -> Tensor: ...
    @overload
    def __getitem__(self, i: Sequence[int], /) -> Tensor: ...

    def __getitem__(self, i: int | Sequence[int], /) -> Tensor:
        """Frame i, (3, H, W), or the frames at several places, (n, 3, H, W), uint8 RGB, rotated as the file asks.

        Raises:
            DataError: a frame cannot be decoded; the message names it. Frames at several places differ in size.
        """
        self._be_in_this_process()
        if not isinstance(i, Sequence):
            with self._lock:
                return self._read(operator.index(i))
        if not i:
            return torch.empty((0, 3, *self.size), dtype=torch.uint8)
        places = sorted(set(i))
        with self._lock:
            frames = dict(zip(places, self._read_all(places), strict=True))
        sizes = sorted({tuple(frame.shape[-2:]) for frame in frames.values()})
        if len(sizes) > 1:
            raise DataError(
                f"{self.path}: frames {min(i)} to {max(i)} are of {sizes[0]} and {sizes[1]} pixels; those of a clip "
                "must be of one size"
            )
        return torch.stack([frames[at] for at in i])

    def motion(self, i: int) -> Tensor:
        """How far the codec moved what each pixel of frame i shows, (H, W) float32; see `codec_motion.motion_of`.

        Raises:
            DataError: the frame cannot be decoded; the message names it.
        """
        self._be_in_this_process()
        with self._lock:
            frame = self._decoded(operator.index(i))
        return _turned(motion_of(frame), frame)

    def _be_in_this_process(self) -> None:
        if self._process != os.getpid():
            with _after_fork:
                if self._process != os.getpid():
                    self._reopen()

    def _reopen(self) -> None:
        """A file that was opened before a fork is at one place for parent and children; this is for a child alone."""
        self._container, self._stream = open_stream(self.path, self._motion)
        self._own()

    def _own(self) -> None:
        """Begin to read anew, in this process; its threads take turns."""
        self._lock = threading.Lock()
        self._damaged = False  # what the decoder may remember
        self._begin(None)
        self._process = os.getpid()

    def _begin(self, key: int | None) -> None:
        """Read from a key frame's packet on, or from the start."""
        # By place, what may be asked for next.
        self._ready: dict[int, av.VideoFrame | None] = {}
        self._judged = (key or 0) - 1
        self._first = 0 if key is None else self._place[key]
        self._frames = self._decode(key)

    def _read_all(self, places: Sequence[int]) -> list[Tensor]:
        """Frames at rising places."""
        return [self._read(i) for i in places]

    def _check(self, i: int) -> None:
        """Refuse a frame that is not there, or that may be built on what is missing."""
        if not 0 <= i < len(self):
            why = f"is {self.truncated}" if self.truncated and i >= len(self) else f"has {len(self)} frames"
            raise DataError(f"{self.path}: there is no frame {i}; the video {why}")
        if i in self._unsure:
            raise DataError(
                f"{self.path}: frame {i}, at {self.times[i]:.2f} s of {self.end:.2f} s, cannot be decoded right: "
                f"packets that it may be built on are missing from the file{self._or_pause}"
            )

    def _read(self, i: int) -> Tensor:
        return self._picture(self._decoded(i))

    def _decoded(self, i: int) -> av.VideoFrame:
        """Frame i, as the decoder gives it."""
        self._check(i)
        number = self._numbers[i]
        before = bisect.bisect(self._keys, i, key=operator.itemgetter(0))
        while before and self._keys[before - 1][1] > number:
            before -= 1  # a key frame that is shown before this one, but stored after it
        key = self._keys[before - 1][1] if before else None
        ahead = number - self._judged
        if i < self._first or (
            i not in self._ready and (ahead <= 0 or (ahead > NEAR and (key or 0) > self._judged))
        ):
            self._begin(key)
        self._ready = {at: frame for at, frame in self._ready.items() if at >= i}
        while i not in self._ready and (found := next(self._frames, None)):
            self._judged, frame = found
            if (at := self._place.get(self._judged, -1)) >= i:
                self._ready[at] = frame
        if frame := self._ready.get(i):
            return frame
        raise DataError(
            f"{self.path}: frame {i}, at {self.times[i]:.2f} s of {self.end:.2f} s, cannot be decoded; the file is "
            f"damaged there{'' if number > LONGEST_WAIT else ', or was cut there out of a longer one'}"
        )

    def _decode(self, key: int | None) -> Iterator[tuple[int, av.VideoFrame | None]]:
        """From a key frame on, or from the start, the number of each packet and its frame, where that is trusted."""
        number = key or 0
        anew = {packet for _, packet in self._keys}
        while True:
            first = 0 if key is None else self._place[key]

            def gives_frame(i: int, first: int = first) -> bool:
                """A frame that is shown before the one where decoding begins is left out, or wrong."""
                return self._place.get(i, -1) >= first

            packets = itertools.islice(self._packets_from(key), len(self._shown) - number)
            results = outcomes(self._stream.codec_context, packets, number, gives_frame, self._as_stored)
            for number, frame in trusted(results, self._clean, self._shown.__getitem__, anew):
                self._damaged = self._damaged or (frame is None and gives_frame(number))
                yield number, frame if gives_frame(number) else None
            number = key = number + 1
            if key not in anew:
                return

    def _packets_from(self, key: int | None) -> Iterator[av.Packet]:
        """The packets from a key frame on, or all of them, for a decoder that remembers nothing damaged."""
        if key is None or self._damaged:
            self._open_anew()
        if key is not None:
            pts = self._shown[key]
            if self._seek(key, cast(int, pts)):
                # Where that was to an earlier packet, what comes before the key frame is passed by.
                return itertools.dropwhile(
                    lambda packet: packet.pts != pts, packets_of(self._container, self._stream)
                )
            self._open_anew()
        return itertools.islice(packets_of(self._container, self._stream), key or 0, None)

    def _open_anew(self) -> None:
        self._container.close()
        self._container, self._stream = open_stream(self.path, self._motion)
        self._damaged = False

    def _seek(self, key: int, key_pts: int) -> bool:
        """Go to the packet of a key frame, or to one that is stored before it; whether that was possible."""
        try:
            self._container.seek(key_pts, stream=self._stream)
            first = next(packets_of(self._container, self._stream))
            # One that is shown before the key frame may still be stored after it.
            if self._stored_at.get(first.pts, key + 1) > key:
                return False
            # The packet is gone, so go there again.
            self._container.seek(key_pts, stream=self._stream)
        except (av.error.FFmpegError, StopIteration):
            return False
        return True

    def _picture(self, frame: av.VideoFrame) -> Tensor:
        """(3, H, W) uint8."""
        pixels = self._format.reformat(frame, format="rgb24", threads=1).to_ndarray()  # (H, W, 3)
        return _turned(pixels, frame).permute(2, 0, 1)


def _turned(pixels: np.ndarray, frame: av.VideoFrame) -> Tensor:
    """(H, W, ...) as the frame is shown."""
    # The angle is counted against the clock, as numpy's is.
    return torch.from_numpy(np.ascontiguousarray(np.rot90(pixels, round(frame.rotation / 90) % 4)))


def _not_plain(stored: Stored) -> str | None:
    """Why a reader without checks of its own might go wrong, damages apart."""
    if stored.codec != "h264" or not stored.exact:
        return f"its video is {stored.codec} in {stored.container}, not H.264 in mp4, mov or mkv"
    if stored.discards:
        return "it has an edit list that leaves out frames"
    if any(packet.flagged != packet.key for packet in stored.packets):
        return "frames cannot be read from all of its key frames"
    return None


def check_is_file(path: Path) -> None:
    """Say what is there where that is no file.

    Raises:
        DataError: a folder, a device or nothing is there.
    """
    if path.is_dir():
        raise DataError(f"{path}: is a folder; a video file is needed (a folder of pictures is data=frames)")
    if path.exists() and not path.is_file():
        raise DataError(f"{path}: is a device or a pipe; a video file is needed")
    if not path.is_file():
        raise DataError(f"{path}: no such file; a video is needed")
