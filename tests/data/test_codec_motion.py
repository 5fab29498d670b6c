"""The motion vectors of a video file, as a map over its pixels."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import av
import numpy as np
import pytest
import torch

from evt.data.clips import Clip
from evt.errors import DataError
from evt.models.letterbox import Box


def write(path: Path, codec: str, pictures: list[np.ndarray], options: dict[str, str] | None = None) -> Path:
    """A video of pictures (H, W, 3)."""
    with av.open(str(path), "w") as container:
        stream = cast(av.VideoStream, container.add_stream(codec, rate=25, options=options or {}))
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def textured(height: int, width: int, seed: int) -> np.ndarray:
    """A picture (height, width, 3) of blurred noise, which looks like itself in one place alone."""
    x = np.random.default_rng(seed).uniform(0, 255, (height, width, 3))
    for axis in (0, 1):
        x = np.mean([np.roll(x, i, axis) for i in range(4)], 0)
    return x.astype(np.uint8)


def moving(n: int, step: int) -> list[np.ndarray]:
    """A square of 32 pixels that moves to the right, over a ground of 96 x 128."""
    ground, square = textured(96, 128, 0), textured(32, 32, 1)
    pictures = [ground.copy() for _ in range(n)]
    for i, picture in enumerate(pictures):
        picture[32:64, 16 + step * i : 48 + step * i] = square
    return pictures


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_what_moves_by_four_pixels_a_frame_is_said_to(codec: str, tmp_path: Path) -> None:
    options = (
        {"bf": "0", "refs": "1", "g": "100", "sc_threshold": "0", "crf": "18"}
        if codec == "libx264"
        else {"qscale": "3"}
    )
    path = write(tmp_path / "a.mp4", codec, moving(6, 4), options)
    frames = list(Clip(path, motion=True))
    assert frames[0].motion is not None
    assert (frames[0].motion == 16).all()  # nothing that it could be built on
    for i, frame in enumerate(frames[1:], 1):
        assert frame.motion is not None
        assert frame.motion.shape == (96, 128)
        inside = frame.motion[36:60, 20 + 4 * i : 44 + 4 * i]
        assert inside.median() == 4
        assert frame.motion[:16].max() == 0  # two macroblocks away
        assert frame.motion[80:].max() == 0


def test_a_picture_that_stands_still_moves_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", "libx264", moving(4, 0))
    for frame in list(Clip(path, motion=True))[1:]:
        assert frame.motion is not None
        assert frame.motion.max() == 0


def test_pictures_are_the_same_with_and_without_it(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", "libx264", moving(8, 3))
    for plain, told in zip(Clip(path, 2), Clip(path, 2, motion=True), strict=True):
        assert torch.equal(plain.image, told.image)
        assert plain.motion is None


def test_bad_input_is_told(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mkv", "ffv1", moving(2, 3))
    with pytest.raises(DataError, match="its video is ffv1, of which ffmpeg gives no motion vectors"):
        Clip(path, motion=True)
    with pytest.raises(DataError, match=r"data\.stride is 2"):
        Clip(path, stride=2, motion=True)
    with pytest.raises(DataError, match=r"data\.reader is decord"):
        Clip(path, reader="decord", motion=True)


def test_a_map_comes_to_the_tokens_that_show_it() -> None:
    """A picture twice as wide as high lies in the middle of a square of 8 x 8 tokens, 4 pixels each."""
    box = Box.of(40, 80, 32)
    motion = torch.zeros(40, 80)
    motion[0, 0], motion[39, 79], motion[15, 34] = 1, 2, 3
    expected = torch.zeros(8, 8)
    expected[2, 0], expected[5, 7], expected[3, 3] = 1, 2, 3
    assert torch.equal(box.most(motion, 32, (8, 8)), expected)
