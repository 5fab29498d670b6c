"""Which frames a video file has, in the order in which they are shown, and which of them may lack what they are
built on."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple, cast

import numpy as np

from evt.data.decoding import decode
from evt.data.packets import (
    CLEAN_KEYS,
    EXACT_TIMES,
    NO_REORDERING,
    ONE_FRAME_A_PACKET,
    Stored,
    open_stream,
    packets_of,
)

NOTICED_IF_MISSING = frozenset({"h264", "hevc"})
"""The codecs of which a missing packet shows in those that are there: in H.264 by the numbers of the frames, in HEVC
by the lists of the frames that a picture is built on, which the decoder holds against what it has."""

IN_ORDER = NO_REORDERING | {"vp8", "vp9", "av1"}
"""The codecs whose frames are shown in the order in which they are stored, but for hidden ones."""

STORED_TIMES = EXACT_TIMES | {"asf", "mpeg", "mpegts"}
"""The containers in which the time of a packet does not depend on whether those before it are there."""

ASKED = 64
"""Packets of HEVC of which the decoder is asked for the order; no frame waits for more than 16 others."""

MAX_GAPS = 3
"""In the times of frames at a steady rate; a video with more of them has just no steady rate."""


class Frames(NamedTuple):
    """Of each frame, as shown: its time in the units of the file, and the number of its packet.

    by_time: whether a frame is known by its time; else they are counted.
    misnumbered: the first that may be another one, since a packet before it lost its frame; None where none may be.
    """

    pts: list[int]
    numbers: list[int]
    by_time: bool
    misnumbered: int | None = None


def frames_of(stored: Stored) -> Frames:
    """By the times of the packets where these tell, else by a decode from the start.

    Of a copy that begins within a longer video, from its first key frame on, where the codec's decoder would make up
    what earlier ones are built on.
    """
    frames = _all_frames(stored)
    if stored.codec not in CLEAN_KEYS - NOTICED_IF_MISSING:
        return frames
    key = next((i for i, packet in enumerate(stored.packets) if packet.key), len(stored.packets))
    if not key:
        return frames
    # Frames that are stored after it and shown before it are built on earlier ones, too.
    begin = next((i for i, number in enumerate(frames.numbers) if number == key), len(frames.numbers))
    misnumbered = None if frames.misnumbered is None else max(0, frames.misnumbered - begin)
    times = frames.pts[begin:]
    return Frames(
        times if frames.by_time else [at - times[0] for at in times],
        frames.numbers[begin:],
        frames.by_time,
        misnumbered,
    )


def _all_frames(stored: Stored) -> Frames:
    packets = stored.packets
    one_each = stored.codec in NO_REORDERING or (stored.exact and stored.codec in ONE_FRAME_A_PACKET)
    if not (one_each and times_tell(stored)):
        return _scan(stored)
    numbers = [i for i, packet in enumerate(packets) if not packet.discard]
    numbers.sort(key=lambda i: cast(int, packets[i].pts))
    if _contradicted(stored, numbers):
        return _scan(stored, contradicted=True)
    numbers = _without_beginning(stored, numbers)
    return Frames([cast(int, packets[i].pts) for i in numbers], numbers, True)


def times_tell(stored: Stored) -> bool:
    """Whether each packet has a time, and those that are shown have all another one."""
    shown = [packet.pts for packet in stored.packets if not packet.discard]
    return all(packet.pts is not None for packet in stored.packets) and len(set(shown)) == len(shown)


def _without_beginning(stored: Stored, numbers: list[int]) -> list[int]:
    """The packets, as shown, from the first of which a decoder makes a frame.

    A copy that begins within a longer video has others before it, built on what was there.
    """
    if not numbers or stored.packets[0].discard or (stored.packets[0].key and numbers[0] == 0):
        return numbers
    came: set[int] = set()
    left = ASKED
    for frames in _decoded(stored):
        came.update(frames or ())
        left -= bool(came)
        if not left:
            break
    return list(itertools.dropwhile(lambda number: number not in came, numbers))


def _contradicted(stored: Stored, numbers: list[int]) -> bool:
    """Whether packets, in the order of their times, say of themselves that they are shown in another one.

    Those of HEVC are asked through the decoder, and only the first of them.
    """
    if stored.codec == "hevc":
        came = [number for frames in itertools.islice(_decoded(stored), ASKED) for number in frames or ()]
        place = {number: i for i, number in enumerate(numbers)}
        places = [place[number] for number in came if number in place]
        return places != sorted(places)
    orders = [order for number in numbers if (order := stored.packets[number].order) is not None]
    return orders != sorted(orders)


def _decoded(stored: Stored) -> Iterator[list[int] | None]:
    """Of each packet, as it goes into a decoder, which packets' frames come out, by number; None where it fails.

    The last is of what has waited until the end.
    """
    container, stream = open_stream(stored.path)
    context = stream.codec_context
    context.options = {}  # damaged frames come out, too
    with container:
        for number, packet in enumerate(itertools.chain(packets_of(container, stream), [None])):
            frames = decode(context, packet, number)
            yield None if frames is None else [cast(int, frame.pts) for frame in frames]


def _scan(stored: Stored, contradicted: bool = False) -> Frames:
    """The frames of a decode from the start; contradicted: the times of the packets are not those of showing."""
    numbers: dict[int, None] = {}
    came = []  # how many frames, before each packet
    failed = set()
    for number, frames in enumerate(_decoded(stored)):
        came.append(len(numbers))
        if frames is None:
            failed.add(number)
        numbers.update(dict.fromkeys(frames or ()))
    order = list(numbers)
    times = [stored.packets[number].pts for number in order]
    known = sorted(at for at in times if at is not None)
    all_known = len(set(known)) == len(times)
    # Where the container stores the times, those that come in another order do so for a packet that is missing.
    if all_known and ((stored.exact and not contradicted) or known == times):
        order.sort(key=lambda number: cast(int, stored.packets[number].pts))
        return Frames(known, order, True)
    # A packet without its frame, after the first that has one, leaves those that follow with numbers too low.
    one_each = stored.container == "avi" and stored.codec in ONE_FRAME_A_PACKET
    n = len(came) - 1  # the last is of no packet
    lost = (number for number in range(n) if number in failed or (one_each and number not in numbers))
    misnumbered = next((came[number] for number in lost if came[number]), None)
    # The times of AVI come with the packets: as many, but some in another order.
    return Frames(known if all_known else list(range(len(times))), order, False, misnumbered)


def unsure(stored: Stored, frames: Frames) -> set[int]:
    """The places of frames that may be others, or be built on packets which are not in the file.

    Where the codec does not tell, packets are taken to be missing where the times of frames at a steady rate have a
    gap.
    """
    n = len(frames.pts)
    misnumbered = set() if frames.misnumbered is None else set(range(frames.misnumbered, n))
    return misnumbered | _not_in_order(stored, frames) | _after_missing(stored, frames)


def _not_in_order(stored: Stored, frames: Frames) -> set[int]:
    """The places of frames whose times are in another order than their packets, of a codec that does not do so."""
    if not (frames.by_time and stored.codec in IN_ORDER):
        return set()
    times = np.array([cast(int, stored.packets[number].pts) for number in sorted(frames.numbers)])
    early = times < np.maximum.accumulate(times)
    late = times > np.minimum.accumulate(times[::-1])[::-1]
    places = np.argsort(np.argsort(times))
    return {int(i) for i in places[early | late]}


def _after_missing(stored: Stored, frames: Frames) -> set[int]:
    n, found = len(frames.pts), set()
    if stored.codec == "h264":
        place = {number: i for i, number in enumerate(frames.numbers)}
        whole = True
        for i, packet in enumerate(stored.packets):
            whole = packet.key or (whole and packet.follows)
            if not whole and not frames.by_time:
                # Which frame this is, is not known; at most 16 of them wait to be shown.
                return set(range(max(0, i - 16), n))
            if not whole and i in place:
                found.add(place[i])
        return found
    times = np.array([packet.pts for packet in stored.packets if packet.pts is not None])
    if stored.codec in NOTICED_IF_MISSING or stored.container not in STORED_TIMES or not len(times):
        return found
    if not frames.by_time:
        holes = gaps(np.unique(times))
        first = int((times <= holes[0][0]).sum()) - 16 if holes else n
        return set(range(max(0, first), n))
    pts = np.array(frames.pts)
    keys = sorted(packet.pts for packet in stored.packets if packet.key and packet.pts is not None)
    # A packet may be needed by frames that are shown this much before it, and where bytes are gone, the packet before
    # the gap is damaged, too.
    ahead = int((np.maximum.accumulate(times) - times).max(initial=0))
    for before, after in gaps(pts):
        until = next((key for key in keys if key >= after), pts[-1] + 1)
        found.update(np.flatnonzero((pts >= before - ahead) & (pts < until)).tolist())
    return found


def gaps(pts: np.ndarray) -> list[tuple[int, int]]:
    """Where frames at a steady rate are missing: the times before and after."""
    steps = np.diff(pts)
    if len(steps) < 3:
        return []
    usual = int(np.median(steps))
    holes = np.flatnonzero(steps >= 1.75 * usual)
    steady = np.abs(steps - usual) <= np.maximum(1, usual // 4)
    if len(holes) > MAX_GAPS or not np.delete(steady, holes).all():
        return []
    return [(int(pts[i]), int(pts[i + 1])) for i in holes]
