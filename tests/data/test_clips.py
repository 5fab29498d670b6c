"""Clips, good and bad."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from evt.data.clips import Clip
from evt.errors import DataError
from tests.common import CLIP, needs_clip


def write_gif(path: Path, n_frames: int) -> Path:
    """A clip that needs no video encoder."""
    pictures = [Image.fromarray(np.full((32, 64, 3), 20 * i, np.uint8)) for i in range(n_frames)]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=40)
    return path


def test_the_fingerprint_tells_another_clip_or_choice(tmp_path: Path) -> None:
    clip = write_gif(tmp_path / "clip.gif", 8)
    fingerprints = [Clip(clip).fingerprint, Clip(clip).fingerprint, Clip(clip, n_frames=3).fingerprint]
    write_gif(clip, 9)
    fingerprints.append(Clip(clip, n_frames=3).fingerprint)
    assert fingerprints[0] == fingerprints[1]
    assert len(set(fingerprints)) == 3


def test_a_clip_is_read(tmp_path: Path) -> None:
    clip = Clip(write_gif(tmp_path / "clip.gif", 8), start=1, stride=2, n_frames=3)
    frames = list(clip)
    assert len(clip) == len(frames) == 3
    assert [frame.name for frame in frames] == ["clip.gif:1", "clip.gif:3", "clip.gif:5"]
    for frame, level in zip(frames, (20, 60, 100), strict=True):
        assert abs(int(frame.image.float().mean()) - level) <= 2
    assert [frame.first for frame in frames] == [True, False, False]


def test_a_file_that_is_no_video_is_named(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"not a video")
    with pytest.raises(DataError, match=r"clip\.mp4: ffmpeg cannot open"):
        Clip(tmp_path / "clip.mp4")
    with pytest.raises(DataError, match="no such file"):
        Clip(tmp_path / "nowhere.mp4")


@needs_clip
def test_a_real_clip_is_read() -> None:
    frames = list(Clip(CLIP, start=5, stride=10, n_frames=4))
    assert len(frames) == 4
    assert all(frame.image.float().std() > 10 for frame in frames)
    assert not torch.equal(frames[0].image, frames[3].image)
