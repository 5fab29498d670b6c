"""What a decoder makes of packets, in the order of the packets, and which of its frames can be trusted.

A frame is built on others that were decoded before it, and shown before or after them. So a sign of damage, an error
or a frame that is marked, speaks against all that are decoded from there on to the next key frame; and it may come
after frames that it speaks against, which the decoder shows first. In the order of their packets frames can be judged
one by one, and the verdict on one does not depend on where decoding began.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple, cast

import av

LONGEST_WAIT = 40
"""Packets after which a frame that has not come out is missing: 16 frames of two fields at most wait to be shown."""


class Outcome(NamedTuple):
    """Of a packet: its number, the frame that it gave, if any, and whether nothing was seen to be wrong."""

    number: int
    frame: av.VideoFrame | None
    well: bool


def decode(
    context: av.VideoCodecContext, packet: av.Packet | None, number: int = 0
) -> list[av.VideoFrame] | None:
    """The frames that come out once a packet has gone in, each with its packet's number as its time; None: an error.

    packet: the next one; None for what has waited until the end.
    """
    if packet is not None:
        packet.pts = number
    try:
        return context.decode(packet)
    except av.error.FFmpegError:
        return None


def outcomes(
    context: av.VideoCodecContext,
    packets: Iterator[av.Packet],
    first: int,
    gives_frame: Callable[[int], bool],
    as_stored: bool,
) -> Iterator[Outcome]:
    """What became of each packet, in their order.

    context: of a decoder that knows nothing from before.
    packets: from where decoding begins.
    first: the number of the first of them.
    gives_frame: whether a frame is to be expected of the packet of a number.
    as_stored: whether by their times all frames are shown in the order of their packets; the decoder must agree.
    """
    waiting: dict[int, av.VideoFrame | None] = {}
    wrong: set[int] = set()

    def judged(until: int) -> Iterator[Outcome]:
        """From the first that waits on, as long as it can be told or is overdue."""
        for number, frame in list(waiting.items()):
            if frame is None and number not in wrong and gives_frame(number) and number > until:
                return
            well = number not in wrong and (
                not gives_frame(number) if frame is None else not frame.is_corrupt
            )
            wrong.discard(number)
            del waiting[number]
            yield Outcome(number, frame, well)

    number = first - 1
    for number, packet in enumerate(packets, first):
        waiting[number] = None
        cut = packet.is_corrupt  # or with a gap within it
        frames = decode(context, packet, number)
        if cut or frames is None:
            wrong.add(number)
        for frame in frames or ():
            if as_stored:
                wrong.update(i for i in waiting if i < cast(int, frame.pts) and gives_frame(i))
            if frame.pts in waiting:
                waiting[frame.pts] = frame
        yield from judged(number - LONGEST_WAIT)
    waiting.update({at: frame for frame in decode(context, None) or () if (at := frame.pts) in waiting})
    yield from judged(number)


def trusted(
    results: Iterator[Outcome],
    keys: Collection[int],
    shown: Callable[[int], int | None],
    anew: Collection[int],
) -> Iterator[tuple[int, av.VideoFrame | None]]:
    """Each packet's number, with its frame where neither that nor what it may be built on was seen to be damaged.

    results: from a key frame on, or from the start.
    keys: the numbers of key frames, of which all frames shown after them need nothing from before.
    shown: when the frame of a packet is shown, in any unit; None where it is not, or that is not known.
    anew: the numbers of those before which to stop after a damage, for a decoder that does not remember it.
    """
    whole = before = True
    key_shown: int | None = None
    for number, frame, well in results:
        if number in keys:
            if number in anew and not whole:
                return
            before, whole, key_shown = whole and well, True, shown(number)
        at = shown(number)
        if at is not None and key_shown is not None and at < key_shown:
            # Shown before the key frame, and so perhaps built on what was before it; nothing is built on it later.
            before = good = before and well
        else:
            whole = good = whole and well
        yield number, frame if good else None
