"""The packets of a video file: what each says of itself, and what the file says of them all."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import av

from evt.data.h264 import FrameNumbers, Picture, split
from evt.errors import DataError

MAX_PIXELS = 2**27
"""Of a frame; a header that claims more is taken for a damaged one."""

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


av.logging.set_level(None)  # ffmpeg's own lines are not for the user


class PacketInfo(NamedTuple):
    """Of a packet: when it is shown and decoded, whether frames can be read from here, whether the container says so,
    how long it lasts, whether it is not shown, whether it is cut off, whether none is known to be missing before it,
    and its place in the order of showing by the packet itself, where that says so."""

    pts: int | None
    dts: int | None
    key: bool
    flagged: bool
    duration: int
    discard: bool
    cut: bool
    follows: bool = True
    order: tuple[int, int] | None = None


@dataclass(frozen=True)
class Stored:
    """What is stored in a file.

    container: its kind, by ffmpeg's first name of it.
    codec: of the pictures.
    packets: of the pictures, in the order in which they are stored.
    seconds: how long it lasts by its header; None where that does not say.
    n_frames: how many it has by its header; 0 where that does not say.
    ends: where in the file each packet ends by the index of an mp4 or mov, in bytes.
    base: seconds of a unit of time.
    rate: frames a second by the header; 0 where that does not say.
    """

    path: Path
    container: str
    codec: str
    packets: list[PacketInfo]
    seconds: float | None
    n_frames: int
    ends: list[int]
    base: float
    rate: float

    @property
    def exact(self) -> bool:
        """Whether the container stores when each packet is shown."""
        return self.container in EXACT_TIMES

    @property
    def discards(self) -> bool:
        """Whether an edit list leaves out frames."""
        return any(packet.discard for packet in self.packets)


def open_stream(path: Path, motion: bool = False) -> tuple[av.container.InputContainer, av.VideoStream]:
    """A file and the stream of its pictures, whose decoder ends packets where anything is wrong.

    motion: frames come with their motion vectors, if the codec has them.

    Raises:
        DataError: it is no video, of an unknown codec, or its header claims pictures that cannot be.
    """
    try:
        container = av.open(str(path), metadata_errors="replace")
    except (av.error.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path}: ffmpeg cannot open this file as a video ({reason})") from error
    if not container.streams.video:
        raise DataError(f"{path}: has no video stream; a video is needed")
    stream = container.streams.video[0]
    context = stream.codec_context
    if context is None:
        raise DataError(f"{path}: its video is of a codec that ffmpeg does not know; convert it to .mp4")
    if context.width * context.height > MAX_PIXELS:
        raise DataError(
            f"{path}: its header claims frames of {context.width}x{context.height} pixels; at most "
            f"{MAX_PIXELS} pixels are allowed"
        )
    stream.thread_type = "NONE"
    # Of no effect after the first packet.
    context.options = {"err_detect": "crccheck+explode"} | ({"flags2": "+export_mvs"} if motion else {})
    return container, stream


def packets_of(container: av.container.InputContainer, stream: av.VideoStream) -> Iterator[av.Packet]:
    """The packets that hold anything, to the end or to where the file cannot be read any further.

    Raises:
        DataError: another stream begins within the file.
    """
    with contextlib.suppress(av.error.FFmpegError):
        try:
            yield from (packet for packet in container.demux(stream) if packet.size)
        except IndexError as error:
            raise DataError(
                f"{container.name}: a stream begins in its middle that is not in its beginning; it is damaged, or "
                "several files in one"
            ) from error


def is_intra(codec: str, packet: bytes, header: bytes) -> bool:
    """Whether a packet that the container calls a key frame is one; True where the packet is not looked at.

    A careless muxer marks all packets, and what decodes from one that is none is an error or another picture.
    """
    if codec == "hevc":  # ITU-T H.265, table 7-1: the pictures of random access
        bytes_of_length = (header[21] & 3) + 1 if len(header) > 21 and header[0] == 1 else 0
        kinds = (part[0] >> 1 & 63 for part in split(packet, bytes_of_length))
        return 16 <= next((kind for kind in kinds if kind < 32), 0) < 24
    beginning = {"mpeg4": b"\0\0\1\xb6", "mpeg1video": b"\0\0\1\0", "mpeg2video": b"\0\0\1\0"}.get(codec)
    if beginning is None:
        return True
    head = packet.partition(beginning)[2][:2]
    if len(head) < 2:
        return False
    return head[0] >> 6 == 0 if codec == "mpeg4" else head[1] >> 3 & 7 == 1


def read_stored(path: Path, container: av.container.InputContainer, stream: av.VideoStream) -> Stored:
    """Read all packets of a file that was just opened."""
    codec = stream.codec_context.codec.canonical_name
    kind = container.format.name.split(",")[0]
    rate = float(stream.average_rate or stream.guessed_rate or 0)
    seconds = container.duration / av.time_base if container.duration else None
    if kind == "avi" and rate and stream.frames:
        # ffmpeg's duration is that of what is there, sound too, and the header has the number of all frames.
        seconds = stream.frames / rate
    header = stream.codec_context.extradata or b""
    numbers = FrameNumbers(header) if codec == "h264" else None
    packets = []
    for packet in packets_of(container, stream):
        picture = numbers.read(bytes(packet)) if numbers else Picture()
        key = picture.key or (
            codec in CLEAN_KEYS and packet.is_keyframe and is_intra(codec, bytes(packet), header)
        )
        packets.append(
            PacketInfo(
                packet.pts,
                packet.dts,
                key,
                packet.is_keyframe,
                packet.duration or 0,
                packet.is_discard,
                packet.is_corrupt,
                picture.follows,
                picture.order,
            )
        )
    index = stream.index_entries if kind == "mov" else ()
    return Stored(
        path,
        kind,
        codec,
        packets,
        seconds,
        stream.frames,
        [entry.pos + entry.size for entry in index],
        float(stream.time_base or 0),
        rate,
    )
