"""The table of real video: its groups and figures, on videos made here."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch

from evt.data.real import RealVideos
from evt.data.video import Frame
from evt.errors import DataError
from evt.evaluate.trace import Seen, Step
from evt.models.features import Features
from evt.tables.real import Agreement, Following, FrameTime
from tests.data.test_davis import write_tree
from tests.metrics.test_motion import picture
from tests.videos import write_video


def seen(error: float, columns: int = 0, mask: torch.Tensor | None = None) -> list[Seen]:
    """Twenty frames, each shifted against the one before; the second half is that far from the dense model."""
    found = []
    for i in range(20):
        frame = Frame(picture().roll(i * columns, 2), f"x/video/{i}.jpg", i == 0, mask=mask)
        dense = torch.ones(1, 4, 3)
        own = dense * (1 + (error if i >= 10 else 100))
        steps = [Step(x, Counter(linear=6), 0.002 * (1 + i % 2), 7_000_000, i == 0) for x in (own, dense)]
        features = (
            torch.eye(64 * 96)[:, :8].clone()
            if mask is None
            else torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
        )
        prediction = Features(None, features, (8, 8))
        found.append(Seen(frame, steps[:1], steps[1:], prediction, 0, 0.0))
    return found


def test_videos_are_told_apart_by_the_motion_of_the_camera() -> None:
    """By hand: errors of 0.1 and 0.3 before a camera that stands still, of 0.5 under one that moves."""
    metric = Agreement(settled=10)
    records = [metric.record(video, None) for video in (seen(0.1), seen(0.5, columns=4), seen(0.3))]
    assert metric.columns(records, None) == {"still": 2, "moving": 1}
    estimates = metric.estimates(records, None)
    assert estimates["error_still"].value == pytest.approx(0.2)
    assert estimates["error_moving"].value == pytest.approx(0.5)
    assert estimates["error_moving"].interval == 0
    assert "error_moving" not in metric.estimates(records[:1], None)


def test_objects_are_followed_where_there_are_masks() -> None:
    mask = torch.zeros(256, 384, dtype=torch.uint8)
    mask[:, :192] = 1
    metric = Following()
    records = [metric.record(video, None) for video in (seen(0.1), seen(0.1, mask=mask))]
    assert records[0] is None
    assert metric.columns(records, None) == {"with_masks": 1}
    assert metric.estimates(records, None)["jf"].value > 90, "the object does not move"
    assert metric.estimates(records[:1], None) == {}


def test_the_time_of_a_later_frame() -> None:
    metric = FrameTime()
    cells = metric.columns([metric.record(seen(0.1), None)], None)
    assert cells["ms"] == pytest.approx((10 * 4 + 9 * 2) / 19)
    assert cells["state_mb"] == 7


def test_videos_are_found_and_left_out(tmp_path: Path) -> None:
    write_tree(tmp_path)
    names = [video.name for video in RealVideos(davis=str(tmp_path), n_frames=2)]
    assert names
    rest = RealVideos(davis=str(tmp_path), n_frames=2, leave_out=(names[0],))
    assert [video.name for video in rest] == names[1:]
    with pytest.raises(DataError, match="no videos: data"):
        RealVideos()
    with pytest.raises(DataError, match="is nowhere, which is not a folder"):
        RealVideos(files="nowhere")
    with pytest.raises(DataError, match=r"data.folders has nowhere, which is not a folder"):
        RealVideos(folders=("nowhere",))


def test_segments_are_spread_over_a_file(tmp_path: Path) -> None:
    """From its first frame to its last, and no more of them than fit."""
    write_video(tmp_path / "clip.mp4", n_frames=20, fps=10)

    def positions(segments: int) -> list[list[str]]:
        videos = RealVideos(files=str(tmp_path), n_frames=6, segments=segments)
        return [[frame.name.rpartition(":")[2] for frame in video][::5] for video in videos]

    assert positions(1) == [["0", "5"]]
    assert positions(2) == [["0", "5"], ["14", "19"]]
    assert positions(3) == positions(9) == [["0", "5"], ["7", "12"], ["14", "19"]]
