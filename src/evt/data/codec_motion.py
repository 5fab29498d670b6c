"""How far a video's codec moved what each of its frames shows: known from decoding, without looking at a picture."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np

from evt.errors import DataError

TELLING = frozenset(
    {
        "h264",
        "mpeg1video",
        "mpeg2video",
        "mpeg4",
        "msmpeg4v1",
        "msmpeg4v2",
        "msmpeg4v3",
        "h263",
        "flv1",
        "wmv1",
        "wmv2",
    }
)
"""The codecs of which ffmpeg hands out the motion vectors (flags2=+export_mvs)."""

CELL = 4
"""Side in pixels of the smallest block that such a codec moves."""

ANEW = 16.0
"""Pixels by which what was coded anew, not moved from another frame, counts as moved: the side of a macroblock."""


def check_tells(path: Path, codec: str) -> None:
    """Refuse a codec whose motion vectors are not to be had.

    Raises:
        DataError: it is one.
    """
    if codec not in TELLING:
        raise DataError(
            f"{path}: data.motion is true, but its video is {codec}, of which ffmpeg gives no motion vectors; it "
            "must be H.264, MPEG-1, -2 or -4, H.263 or WMV: convert the file, or take a policy that looks at pictures"
        )


def motion_of(frame: av.VideoFrame) -> np.ndarray:
    """How far what each pixel shows was moved from the frame that it is built on, (H, W) float32, in pixels.

    What was not built on another frame counts as `ANEW`; of a block that was built on two, the longer way.
    """
    rows, columns = -(-frame.height // CELL), -(-frame.width // CELL)
    cells = np.full((rows, columns), -1, np.float32)
    if vectors := frame.side_data.get("MOTION_VECTORS"):
        found = vectors.to_ndarray()
        moved = np.hypot(found["motion_x"], found["motion_y"]) / np.maximum(found["motion_scale"], 1)
        for width, height in {(int(w), int(h)) for w, h in zip(found["w"], found["h"], strict=True)}:
            these = (found["w"] == width) & (found["h"] == height)
            x, y = (
                (found[f"dst_{axis}"][these] - side // 2) // CELL
                for axis, side in (("x", width), ("y", height))
            )
            for i in range(max(1, height // CELL)):
                for j in range(max(1, width // CELL)):
                    inside = (y + i >= 0) & (y + i < rows) & (x + j >= 0) & (x + j < columns)
                    place = (y[inside] + i, x[inside] + j)
                    np.maximum.at(cells, place, moved[these][inside])
    cells[cells < 0] = ANEW
    return cells.repeat(CELL, 0).repeat(CELL, 1)[: frame.height, : frame.width]
