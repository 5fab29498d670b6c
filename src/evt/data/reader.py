"""The one way to pictures from a video file: frame i is frame i of a decode from start to end."""

from __future__ import annotations

import bisect
import contextlib
import itertools
import operator
import os
import threading
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple, cast, overload

import av
import numpy as np
import torch
from av.video.reformatter import VideoReformatter
from torch import Tensor

from evt.data.containers import declared_end, track_lasts
from evt.data.decoding import decode, outcomes, packets_of, trusted
from evt.data.h264 import FrameNumbers
from evt.errors import DataError

Reader = Literal["auto", "av", "decord"]

MAX_PIXELS = 2**27
"""Of a frame; a header that claims more is taken for a damaged one."""

NEAR = 64
"""Frames that are rather decoded on the way than jumped over where there is a key frame between."""

EXACT_TIMES = frozenset({"mov", "matroska"})
"""The containers (by ffmpeg's first name) that store when each packet is shown. AVI stores no such times, and those
of transport and program streams, or of a packet that holds half a frame, are partly guessed."""

ONE_FRAME_A_PACKET = frozenset({"h264", "hevc", "vp9", "av1"})
"""The codecs of which a packet in those containers is exactly one frame. VP8 has hidden frames, MPEG-4 empty ones."""

NO_REORDERING = frozenset(
    {"mjpeg", "msmpeg4", "msmpeg4v1", "msmpeg4v2", "msmpeg4v3", "wmv1", "wmv2", "h263", "flv1"}
)
"""The codecs whose frames are shown in the order in which they are stored."""

CLEAN_KEYS = frozenset({"hevc", "vp8", "vp9", "av1", "mpeg4", "mpeg1video", "mpeg2video"}) | NO_REORDERING
"""The codecs of which a key frame, and all frames shown after it, need nothing from before it. H.264 marks points of
gradual recovery as key frames, too, so there the packet itself is looked at."""

NOTICED_IF_MISSING = frozenset({"h264", "hevc"})
"""The codecs of which a missing packet shows in those that are there: in H.264 by the numbers of the frames, in HEVC
by the lists of the frames that a picture is built on, which the decoder holds against what it has."""

STORED_TIMES = EXACT_TIMES | {"asf", "mpeg", "mpegts"}
"""The containers in which the time of a packet does not depend on whether those before it are there."""

MAX_RATE = 1000
"""Frames a second; a header that claims more is taken for a damaged one."""

MAX_GAPS = 3
"""In the times of frames at a steady rate; a video with more of them has just no steady rate."""

_after_fork = threading.Lock()


def _make_lock() -> None:
    """The parent may have held it."""
    global _after_fork
    _after_fork = threading.Lock()


os.register_at_fork(after_in_child=_make_lock)
av.logging.set_level(None)  # ffmpeg's own lines are not for the user


class PacketInfo(NamedTuple):
    """Of a packet: when it is shown and decoded, whether frames can be read from here, whether the container says so,
    how long it lasts, whether it is not shown, whether it is cut off, and whether none is known to be missing before
    it."""

    pts: int | None
    dts: int | None
    key: bool
    flagged: bool
    duration: int
    discard: bool
    cut: bool
    follows: bool


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

    Attributes:
        times: (n,) when each frame appears, in seconds from the first.
        end: when the last frame has been shown.
        fps: frames a second, on average.
        size: (height, width) of the first frame as shown.
        truncated: a sentence about what is missing at the end; None for a file that is complete.
        not_plain: why a reader without checks of its own might go wrong; None where nothing is known.

    Raises:
        DataError: the file is missing, is no video, or its header cannot be true.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise DataError(f"{path}: no such file; a video is needed")
        self._container, self._stream = self._open()
        self._format = VideoReformatter()
        self.truncated: str | None = None
        packets = self._read_packets()
        known = all(packet.pts is not None for packet in packets)
        shown = [packet.pts for packet in packets if not packet.discard and packet.pts is not None]
        codec = self._codec
        exact = self._in in EXACT_TIMES
        known = known and len(set(shown)) == len(shown)
        self._first_misnumbered: int | None = None
        if known and shown and (codec in NO_REORDERING or (exact and codec in ONE_FRAME_A_PACKET)):
            self._by_time = True
            numbers = [i for i, packet in enumerate(packets) if not packet.discard]
            numbers.sort(key=lambda i: cast(int, packets[i].pts))
            pts = sorted(shown)
        else:
            pts, numbers, self._by_time = self._scan(packets, exact)
        if not pts:
            raise DataError(
                f"{path}: no frame of the {codec} video in it can be decoded; at least 1 is needed"
            )
        self._pts = pts
        if self._in == "mov":
            self._check_times(packets, len(shown))
        self._numbers = numbers  # of the packets of the frames
        self._place = {number: i for i, number in enumerate(numbers)}
        self._shown = [
            packet.pts if self._by_time else self._place.get(i) for i, packet in enumerate(packets)
        ]
        self._clean = {i for i, packet in enumerate(packets) if packet.key}
        # A jump is safe where packets are known by their times, in a container that stores them.
        self._keys = sorted((self._place[i], i) for i in self._clean if exact and known and i in self._place)
        self._unsure = self._after_missing(packets)
        self._set_times(packets)
        self.not_plain = self._not_plain(packets)
        self._own()
        first = VideoFile._read(self, 0)
        self.size = (first.shape[-2], first.shape[-1])

    def __len__(self) -> int:
        return len(self._pts)

    @overload
    def __getitem__(self, i: int, /) -> Tensor: ...
    @overload
    def __getitem__(self, i: Sequence[int], /) -> Tensor: ...

    def __getitem__(self, i: int | Sequence[int], /) -> Tensor:
        """Frame i, (3, H, W), or the frames at several places, (n, 3, H, W), uint8 RGB, rotated as the file asks.

        Raises:
            DataError: a frame cannot be decoded; the message names it. Frames at several places differ in size.
        """
        if self._process != os.getpid():
            with _after_fork:
                if self._process != os.getpid():
                    self._reopen()
        if not isinstance(i, Sequence):
            with self._lock:
                return self._read(operator.index(i))
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

    def _reopen(self) -> None:
        """A file that was opened before a fork is at one place for parent and children; this is for a child alone."""
        self._container, self._stream = self._open()
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
                "packets that it may be built on are missing from the file"
            )

    def _read(self, i: int) -> Tensor:
        self._check(i)
        number = self._numbers[i]
        before = bisect.bisect(self._keys, i, key=operator.itemgetter(0))
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
            return self._picture(frame)
        raise DataError(
            f"{self.path}: frame {i}, at {self.times[i]:.2f} s of {self.end:.2f} s, cannot be decoded; the file is "
            "damaged there"
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
            results = outcomes(self._stream.codec_context, packets, number, gives_frame)
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
            if self._seek(cast(int, pts)):
                # Where that was to an earlier packet, what comes before the key frame is passed by.
                return itertools.dropwhile(
                    lambda packet: packet.pts != pts, packets_of(self._container, self._stream)
                )
            self._open_anew()
        return itertools.islice(packets_of(self._container, self._stream), key or 0, None)

    def _open_anew(self) -> None:
        self._container.close()
        self._container, self._stream = self._open()
        self._damaged = False

    def _seek(self, key_pts: int) -> bool:
        """Go to the packet of a key frame, or to one before it; whether that was possible."""
        try:
            self._container.seek(key_pts, stream=self._stream)
            first = next(packets_of(self._container, self._stream))
            # The packet is gone, so go there again.
            if first.pts is None or first.pts > key_pts:
                return False
            self._container.seek(key_pts, stream=self._stream)
        except (av.error.FFmpegError, StopIteration):
            return False
        return True

    def _picture(self, frame: av.VideoFrame) -> Tensor:
        """(3, H, W) uint8."""
        pixels = self._format.reformat(frame, format="rgb24", threads=1).to_ndarray()  # (H, W, 3)
        # The angle is counted against the clock, as numpy's is.
        turned = np.ascontiguousarray(np.rot90(pixels, round(frame.rotation / 90) % 4))
        return torch.from_numpy(turned).permute(2, 0, 1)

    def _open(self) -> tuple[av.container.InputContainer, av.VideoStream]:
        try:
            container = av.open(str(self.path), metadata_errors="replace")
        except (av.error.FFmpegError, OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise DataError(f"{self.path}: ffmpeg cannot open this file as a video ({reason})") from error
        if not container.streams.video:
            raise DataError(f"{self.path}: has no video stream; a video is needed")
        stream = container.streams.video[0]
        context = stream.codec_context
        if context is None:
            raise DataError(
                f"{self.path}: its video is of a codec that ffmpeg does not know; convert it to .mp4"
            )
        if context.width * context.height > MAX_PIXELS:
            raise DataError(
                f"{self.path}: its header claims frames of {context.width}x{context.height} pixels; at most "
                f"{MAX_PIXELS} pixels are allowed"
            )
        stream.thread_type = "NONE"
        context.options = {"err_detect": "crccheck+explode"}  # of no effect after the first packet
        return container, stream

    @property
    def _codec(self) -> str:
        return self._stream.codec_context.codec.canonical_name

    @property
    def _in(self) -> str:
        """The container, by ffmpeg's first name of it."""
        return self._container.format.name.split(",")[0]

    def _read_packets(self) -> list[PacketInfo]:
        packets = []
        codec = self._codec
        numbers = FrameNumbers(self._stream.codec_context.extradata)
        self._seconds = self._container.duration / av.time_base if self._container.duration else None
        for packet in packets_of(self._container, self._stream):
            key, follows = packet.is_keyframe and codec in CLEAN_KEYS, True
            if codec == "h264":
                key, follows = numbers.read(bytes(packet))
            packets.append(
                PacketInfo(
                    packet.pts,
                    packet.dts,
                    key,
                    packet.is_keyframe,
                    packet.duration or 0,
                    packet.is_discard,
                    packet.is_corrupt,
                    follows,
                )
            )
        return packets

    def _scan(self, packets: list[PacketInfo], exact: bool) -> tuple[list[int], list[int], bool]:
        """The times of all frames of a decode from the start, the numbers of their packets, and whether a frame is
        known by its time.

        exact: the container stores them. Then those that come in another order do so for a packet that is missing.
        """
        one_each = self._in == "avi" and self._codec in ONE_FRAME_A_PACKET
        numbers: dict[int, None] = {}
        came = []  # how many frames, before each packet
        failed = set()
        container, stream = self._open()
        context = stream.codec_context
        context.options = {}  # damaged frames have times, too
        with container:
            for number, packet in enumerate(packets_of(container, stream)):
                came.append(len(numbers))
                frames = decode(context, packet, number)
                if frames is None:
                    failed.add(number)
                numbers.update({cast(int, frame.pts): None for frame in frames or ()})
            numbers.update({cast(int, frame.pts): None for frame in decode(context, None) or ()})
        order = list(numbers)
        times = [packets[number].pts for number in order]
        known = [at for at in times if at is not None]
        if len(set(known)) == len(times) and (exact or known == sorted(known)):
            order.sort(key=lambda number: cast(int, packets[number].pts))
            return sorted(known), order, True
        # A packet without its frame, after the first that has one, leaves those that follow with numbers too low.
        self._first_misnumbered = min(
            (
                count
                for number, count in enumerate(came)
                if count and (number in failed or (one_each and number not in numbers))
            ),
            default=None,
        )
        # Those of AVI come with the packets: as many, but some in another order.
        if len(set(known)) == len(times):
            return sorted(known), order, False
        return list(range(len(times))), order, False

    def _after_missing(self, packets: list[PacketInfo]) -> set[int]:
        """The places of frames that may be built on packets which are not in the file.

        Where the codec does not tell, packets are taken to be missing where the times of frames at a steady rate have
        a gap.
        """
        unsure: set[int] = set()
        if self._first_misnumbered is not None:
            unsure.update(range(self._first_misnumbered, len(self)))
        if self._codec == "h264":
            whole = True
            for i, packet in enumerate(packets):
                whole = packet.key or (whole and packet.follows)
                if whole:
                    continue
                if (
                    not self._by_time
                ):  # which frame this is, is not known; at most 16 of them wait to be shown
                    return set(range(max(0, i - 16), len(self)))
                if i in self._place:
                    unsure.add(self._place[i])
            return unsure
        stored = self._in in STORED_TIMES
        times = np.array([packet.pts for packet in packets if packet.pts is not None])
        if self._codec in NOTICED_IF_MISSING or not stored or not len(times):
            return unsure
        pts = np.array(self._pts)
        if not self._by_time:
            gaps = _gaps(np.unique(times))
            first = int((times <= gaps[0][0]).sum()) - 16 if gaps else len(self)
            return set(range(max(0, first), len(self)))
        keys = sorted(packet.pts for packet in packets if packet.key and packet.pts is not None)
        # A packet may be needed by frames that are shown this much before it, and where bytes are gone, the packet
        # before the gap is damaged, too.
        ahead = int((np.maximum.accumulate(times) - times).max(initial=0))
        for before, after in _gaps(pts):
            until = next((key for key in keys if key >= after), pts[-1] + 1)
            unsure.update(np.flatnonzero((pts >= before - ahead) & (pts < until)).tolist())
        return unsure

    def _not_plain(self, packets: list[PacketInfo]) -> str | None:
        if self._codec != "h264" or self._in not in EXACT_TIMES:
            return f"its video is {self._codec} in {self._in}, not H.264 in mp4, mov or mkv"
        if any(packet.discard for packet in packets):
            return "it has an edit list that leaves out frames"
        if any(packet.flagged != packet.key for packet in packets):
            return "frames cannot be read from all of its key frames"
        if self._unsure or self.truncated or not self._by_time:
            return "it is damaged or incomplete"
        return None

    def _set_times(self, packets: list[PacketInfo]) -> None:
        """Seconds, and whether they can be true."""
        base = float(self._stream.time_base or 0)
        rate = float(self._stream.average_rate or self._stream.guessed_rate or 0)
        if not self._by_time and self._pts == list(range(len(self._pts))) and rate:
            base = 1 / rate
        self.times = (np.array(self._pts, np.float64) - self._pts[0]) * base
        lasts = {packet.pts: packet.duration * base for packet in packets}
        last = lasts.get(self._pts[-1], 0.0)
        if not last:
            last = float(self.times[-1] - self.times[-2]) if len(self) > 1 else 1 / (rate or 25)
        self.end = float(self.times[-1]) + last
        self.fps = len(self) / self.end
        if self._in == "avi" and rate and self._stream.frames:
            # ffmpeg's duration is that of what is there, sound too, and the header has the number of all frames.
            self._seconds = self._stream.frames / rate
        if self._cut_off(packets, last):
            of = f"{self._seconds:.1f} s" if self._seconds else "more"
            self.truncated = f"truncated at {self.end:.1f} s of {of}"
        self._check_end(base, any(packet.discard for packet in packets))

    def _check_times(self, packets: list[PacketInfo], n_shown: int) -> None:
        """Refuse an mp4 or mov in which frames are lost to times that cannot be true."""
        discarded = any(packet.discard for packet in packets)
        one_each = self._codec in ONE_FRAME_A_PACKET
        if one_each and (len(self._pts) < n_shown or (discarded and not self._by_time)):
            raise DataError(
                f"{self.path}: several of its frames are to be shown at once; the header is damaged"
            )
        if self._stream.frames and self._seconds is None:
            raise DataError(f"{self.path}: its header does not say how long it lasts, and is damaged")
        # Frames at a steady rate, decoded without a gap, are shown without a gap; else one was given another time.
        dts = np.array([packet.dts for packet in packets if packet.dts is not None])
        if one_each and self._by_time and _gaps(np.array(self._pts)) and len(dts) > 3:
            steps = np.diff(dts)
            if np.abs(steps - np.median(steps)).max() <= max(1, np.median(steps) // 4):
                raise DataError(
                    f"{self.path}: frames are missing where those around them are decoded without a gap; the header "
                    "is damaged"
                )

    def _check_end(self, base: float, discarded: bool) -> None:
        """Refuse a file whose frames last longer or shorter than the header says they do.

        base: seconds of a unit of time.
        discarded: whether packets are not shown.
        """
        seconds, low, high = self._seconds, 0.0, float("inf")
        longest = float(np.diff(self.times).max(initial=0))
        if self._in == "mov" and self._stream.frames and not self.truncated:
            found = track_lasts(self.path)
            seconds, sure = found or (self._seconds, False)
            if seconds is not None:
                low = 0.9 * seconds - 0.5 if sure else seconds / 1.5 - 1 if found else 0.0
                high = 1.1 * seconds + 0.5 if sure else 1.5 * seconds + 1
                if sure and (discarded or len(self._stream.index_entries) < self._stream.frames):
                    low = (
                        seconds - longest / 2
                    )  # an edit list leaves out what is before and after it, and no more
        elif seconds is not None:
            high = 1.5 * seconds + 1
        end = self.end + max(0.0, self._pts[0] * base)
        if self._in in EXACT_TIMES and not low - longest <= end <= high + longest:
            raise DataError(
                f"{self.path}: its frames last {self.end:.1f} s by their times and {seconds:.1f} s by the header; "
                "the header is damaged"
            )
        if self.fps > MAX_RATE:
            raise DataError(
                f"{self.path}: has {self.fps:.0f} frames a second by its header; at most {MAX_RATE} are allowed"
            )

    def _cut_off(self, packets: list[PacketInfo], last: float) -> bool:
        """Whether frames are missing at the end.

        last: seconds that the last frame is shown.
        """
        size = self.path.stat().st_size
        if self._in == "mov":
            index = self._stream.index_entries
            return len(index) > len(packets) or any(entry.pos + entry.size > size for entry in index)
        cut = (declared_end(self.path) or 0) > size
        if cut and (self._in == "matroska" or self._seconds is None):
            return True
        if self._seconds is None:
            return False
        missing = self._seconds - self.end
        if self._in == "avi":
            return (cut and packets[-1].cut) or (
                self._stream.frames > len(packets) and missing > (last / 2 if cut else 0.5)
            )
        if cut:
            return missing > last / 2
        longest = float(np.diff(self.times).max(initial=last))
        # The file may be as long as the sound alone.
        return (
            self._in == "matroska"
            and missing > 1.5 * longest
            and self._seconds - self._last_end() > 1.5 * longest
        )

    def _last_end(self) -> float:
        """When the longest of all streams ends, in seconds."""
        container, _ = self._open()
        end = 0.0
        with container, contextlib.suppress(av.error.FFmpegError):
            for packet in container.demux():
                if packet.pts is not None and packet.time_base is not None:
                    end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
        return end


def _gaps(pts: np.ndarray) -> list[tuple[int, int]]:
    """Where frames at a steady rate are missing: the times before and after."""
    steps = np.diff(pts)
    if len(steps) < 3:
        return []
    usual = int(np.median(steps))
    gaps = np.flatnonzero(steps >= 1.75 * usual)
    steady = np.abs(steps - usual) <= np.maximum(1, usual // 4)
    if len(gaps) > MAX_GAPS or not np.delete(steady, gaps).all():
        return []
    return [(int(pts[i]), int(pts[i + 1])) for i in gaps]


def open_video(path: str | Path, reader: Reader = "auto") -> VideoFile:
    """A video; the last one stays open, as the segments of a long video follow one another.

    Args:
        path: the file.
        reader: "auto" and "av" are PyAV; "decord" see `evt.data.decord_reader`.

    Raises:
        DataError: see `VideoFile` and `DecordFile`.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file; a video is needed")
    state = path.stat()
    return _cached(path, reader, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=1)
def _cached(path: Path, reader: Reader, size: int, changed: int) -> VideoFile:
    if reader == "decord":
        # Imported here, since it builds on this file.
        from evt.data.decord_reader import DecordFile

        return DecordFile(path)
    return VideoFile(path)
