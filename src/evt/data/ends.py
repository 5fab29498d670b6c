"""When the frames of a video file are shown, and whether that can be true by what else its headers say."""

from __future__ import annotations

import contextlib
from typing import NamedTuple

import av
import numpy as np

from evt.data.containers import declared_end, track_lasts
from evt.data.order import Frames, gaps
from evt.data.packets import ONE_FRAME_A_PACKET, Stored, open_stream
from evt.errors import DataError

MAX_RATE = 1000
"""Frames a second; a header that claims more is taken for a damaged one."""


class Times(NamedTuple):
    """times: (n,) when each frame appears, in seconds, as stored.
    end: when the last one has been shown.
    truncated: a sentence about what is missing at the end; None for a file that is complete.
    """

    times: np.ndarray
    end: float
    truncated: str | None


def times_of(stored: Stored, frames: Frames) -> Times:
    """Seconds that can be true.

    Raises:
        DataError: they cannot be; the header is damaged.
    """
    if stored.container == "mov":
        _check_order(stored, frames)
    pts, base = frames.pts, stored.base
    if not frames.by_time and pts == list(range(len(pts))) and stored.rate:
        base = 1 / stored.rate
    times = np.array(pts, np.float64) * base
    last = {packet.pts: packet.duration * base for packet in stored.packets}.get(pts[-1], 0.0)
    if not last:
        last = float(times[-1] - times[-2]) if len(pts) > 1 else 1 / (stored.rate or 25)
    lasts = float(times[-1] - times[0]) + last
    longest = float(np.diff(times).max(initial=0))
    truncated = None
    if _cut_off(stored, lasts, last, max(longest, last)):
        of = f"{stored.seconds:.1f} s" if stored.seconds else "more"
        truncated = f"truncated at {lasts:.1f} s of {of}"
    low, high, seconds = _bounds(stored, longest, cut=truncated is not None)
    if stored.exact and not low - longest <= lasts + max(0.0, float(times[0])) <= high + longest:
        raise DataError(
            f"{stored.path}: its frames last {lasts:.1f} s by their times and {seconds:.1f} s by the header; the "
            "header is damaged"
        )
    if len(pts) / lasts > MAX_RATE:
        raise DataError(
            f"{stored.path}: has {len(pts) / lasts:.0f} frames a second by its header; at most {MAX_RATE} are allowed"
        )
    return Times(times, float(times[-1]) + last, truncated)


def _check_order(stored: Stored, frames: Frames) -> None:
    """Refuse an mp4 or mov in which frames are lost to times that cannot be true."""
    one_each = stored.codec in ONE_FRAME_A_PACKET
    # Those before the first one that gives a frame are left out.
    n_shown = sum(
        not packet.discard and (packet.pts is None or packet.pts >= frames.pts[0])
        for packet in stored.packets
    )
    if one_each and (len(frames.pts) < n_shown or (stored.discards and not frames.by_time)):
        raise DataError(
            f"{stored.path}: several of its frames are to be shown at once; the header is damaged"
        )
    if stored.n_frames and stored.seconds is None:
        raise DataError(f"{stored.path}: its header does not say how long it lasts, and is damaged")
    # Frames at a steady rate, decoded without a gap, are shown without a gap; else one was given another time.
    dts = np.array([packet.dts for packet in stored.packets if packet.dts is not None])
    if one_each and frames.by_time and gaps(np.array(frames.pts)) and len(dts) > 3:
        steps = np.diff(dts)
        if np.abs(steps - np.median(steps)).max() <= max(1, np.median(steps) // 4):
            raise DataError(
                f"{stored.path}: frames are missing where those around them are decoded without a gap; the header is "
                "damaged"
            )


def _bounds(stored: Stored, longest: float, *, cut: bool) -> tuple[float, float, float | None]:
    """How long the frames last at least and at most if the header is right, and how long it says, in seconds.

    longest: seconds that a frame is shown.
    cut: whether frames are missing at the end.
    """
    seconds = stored.seconds
    if stored.container == "mov" and stored.n_frames and not cut:
        found = track_lasts(stored.path)
        seconds, sure = found or (seconds, False)
        if seconds is not None and sure:
            # An edit list leaves out what is before and after it, and no more.
            trimmed = stored.discards or len(stored.ends) < stored.n_frames
            low = seconds - longest / 2 if trimmed else 0.9 * seconds - 0.5
            return low, 1.1 * seconds + 0.5, seconds
        if seconds is not None and found:
            return seconds / 1.5 - 1, 1.5 * seconds + 1, seconds
    return 0.0, float("inf") if seconds is None else 1.5 * seconds + 1, seconds


def _cut_off(stored: Stored, lasts: float, last: float, longest: float) -> bool:
    """Whether frames are missing at the end.

    lasts, last, longest: seconds that all frames, the last one and the longest are shown.
    """
    size = stored.path.stat().st_size
    if stored.container == "mov":
        return len(stored.ends) > len(stored.packets) or any(end > size for end in stored.ends)
    declared = declared_end(stored.path)
    cut = (declared or 0) > size
    if stored.container == "matroska" and declared:
        return cut
    if stored.seconds is None:
        return cut
    missing = stored.seconds - lasts
    if stored.container == "avi":
        return (cut and stored.packets[-1].cut) or (
            stored.n_frames > len(stored.packets) and missing > (last / 2 if cut else 0.5)
        )
    if cut:
        return missing > last / 2
    # The file may be as long as the sound alone.
    return (
        stored.container in {"matroska", "flv"}
        and missing > 1.5 * longest
        and stored.seconds - _last_end(stored) > 1.5 * longest
    )


def _last_end(stored: Stored) -> float:
    """When the longest of all streams ends, in seconds."""
    container, _ = open_stream(stored.path)
    end = 0.0
    with container, contextlib.suppress(av.error.FFmpegError):
        for packet in container.demux():
            if packet.pts is not None and packet.time_base is not None:
                end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
    return end
