"""Short videos for tests, whose every frame says its number."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import av
import numpy as np
from torch import Tensor

STEP = 4
"""The grey of frame i is STEP * i, so that lossy coding cannot make one frame look like another."""


def write_video(path: Path, n_frames: int, fps: int, height: int = 64, width: int = 96) -> Path:
    """Write a video of at most 64 grey frames, with a key frame every 12 and a marked lower right corner."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as file:
        codec = "libvpx-vp9" if path.suffix == ".webm" else "libx264"
        stream = cast(av.VideoStream, file.add_stream(codec, rate=fps))
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        stream.options = {"crf": "10", "g": "12"}
        for i in range(n_frames):
            picture = np.full((height, width, 3), STEP * i, np.uint8)
            picture[height // 2 :, width // 2 :] = 255 - STEP * i
            file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        file.mux(stream.encode())
    return path


def frame_numbers(frames: Tensor) -> list[int]:
    """Which frames of such a video these are, (n, 3, H, W)."""
    greys = frames[:, :, :16, :16].float().mean(dim=(1, 2, 3))
    return (greys / STEP).round().int().tolist()
