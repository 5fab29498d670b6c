"""The option decord: frames that are those of PyAV, or a sentence."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import pytest
import torch

from evt.data import open_video
from evt.data.decord_reader import DecordFile
from evt.errors import DataError
from tests.data.test_reader import KINDS, VIDEOS, N, write_numbered

ORDERS = (range(N)[::-7], range(0, N, 8), random.Random(0).sample(range(N), 12), range(N))
RIGHT = {"h264_b.mp4", "h264_closed.mkv"}
RIGHT_OF_SHARED = {"h264_b.mp4", "vfr.mp4"}
"""narrow_144.mp4 and rot90.mp4, 96 wide, are right on some processors and refused on others, which pad their rows."""


@pytest.fixture(autouse=True)
def _needs_decord() -> None:
    pytest.importorskip("decord", reason="decord is not installed")


@pytest.mark.parametrize("name", [*KINDS, "h264_closed.mkv"])
def test_frames_are_those_of_pyav_or_refused(tmp_path: Path, name: str) -> None:
    """Else what is fast would be wrong without a word, as decord is on many kinds of files."""
    codec, options = KINDS.get(name, KINDS["h264_b.mp4"])
    path = write_numbered(tmp_path / name, codec, options)
    if name not in RIGHT:
        with pytest.raises(DataError, match=r"data.reader is decord, but .*; data.reader=av reads the file"):
            open_video(path, "decord")
        return
    ours, theirs = open_video(path, "av"), open_video(path, "decord")
    assert isinstance(theirs, DecordFile)
    for order in ORDERS:
        assert torch.equal(theirs[list(order)], ours[list(order)])
    assert (theirs.times == ours.times).all()
    with pytest.raises(DataError, match=f"there is no frame {N}; the video has {N} frames"):
        theirs[N]


@pytest.mark.skipif(not VIDEOS.is_dir(), reason="the shared videos are not here")
@pytest.mark.parametrize(
    "name", sorted(json.loads((VIDEOS / "truth.json").read_text())) if VIDEOS.is_dir() else []
)
def test_the_shared_videos_are_read_as_by_pyav_or_refused(name: str) -> None:
    ours = open_video(VIDEOS / name)
    whole = ours[list(range(len(ours)))]
    try:
        theirs = open_video(VIDEOS / name, "decord")
    except DataError as error:
        assert "data.reader=av reads the file" in str(error)  # noqa: PT017
        assert name not in RIGHT_OF_SHARED
        return
    for i in random.Random(0).sample(range(len(whole)), len(whole)):
        assert torch.equal(theirs[i], whole[i]), i


def test_what_decord_cannot_decode_is_refused_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some processors pad rows of some widths, and then decord stops at its own error, in frames that it counts."""
    import decord

    def fails(*_: object) -> None:
        raise decord.DECORDError("Check failed: from_size == to_size (101376 vs. 76032)")

    path = write_numbered(tmp_path / "a.mp4", *KINDS["h264_b.mp4"])
    monkeypatch.setattr(decord.VideoReader, "get_batch", fails)
    with pytest.raises(DataError, match=r"decord cannot decode frames 0 to 0; data.reader=av reads the file"):
        open_video(path, "decord")


def test_how_to_get_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_numbered(tmp_path / "a.mp4", *KINDS["h264_b.mp4"])
    monkeypatch.setitem(sys.modules, "decord", None)
    with pytest.raises(DataError, match="not installed: pip install decord2"):
        open_video(path, "decord")
