"""Folders of frames, good and bad."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from evt.data.frames import FrameFolder
from evt.errors import DataError


def write_frames(folder: Path, names: list[str], sizes: list[tuple[int, int]] | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    for i, name in enumerate(names):
        height, width = sizes[i] if sizes else (32, 48)
        Image.fromarray(np.full((height, width, 3), i, np.uint8)).save(folder / name)
    return folder


def test_frames_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    folder = write_frames(tmp_path, ["f10.png", "f2.png", "f1.png"])
    (tmp_path / "notes.txt").write_text("not a frame")
    (tmp_path / "._f1.png").write_bytes(b"what macOS keeps of f1.png beside it")
    assert [Path(frame.name).name for frame in FrameFolder(folder)] == ["f1.png", "f2.png", "f10.png"]


@pytest.mark.parametrize(
    "names",
    [
        ["t0.05.png", "t0.25.png", "t0.5.png", "t1.0.png", "t2.png", "t10.125.png"],
        ["0.JPG", "0.5.jpeg", "1.PNG", "2.webp", "3.bmp", "4.tif", "5.TIFF"],
        ["clip.2.png", "clip.10.png"],
        ["2024.1.5.png", "2024.1.25.png", "2024.10.1.png"],
        ["a1_0.5s.png", "a1_2.0s.png", "a2_0.1s.png"],
    ],
)
def test_decimal_fractions_count_by_their_value(tmp_path: Path, names: list[str]) -> None:
    folder = write_frames(tmp_path, sorted(names)[::-1])
    assert [Path(frame.name).name for frame in FrameFolder(folder)] == names


@pytest.mark.parametrize(
    "names",
    [
        ["0001.jpg", "0001.png"],
        ["0001.png", "0001.PNG"],
        ["1.png", "01.png"],
        ["t0.5.png", "t0.50.png"],
        ["v1.1.png", "v1.10.png"],
    ],
)
def test_two_frames_of_one_number_are_refused(tmp_path: Path, names: list[str]) -> None:
    """Which of them came first would be chance, and one may be a copy of the other."""
    folder = write_frames(tmp_path, ["0000.png", *names])
    first, second = sorted(names)
    with pytest.raises(DataError, match=f"{first} and {second} are of the same number"):
        FrameFolder(folder)


def test_a_name_may_hold_digits_that_are_no_numbers(tmp_path: Path) -> None:
    folder = write_frames(tmp_path, ["1²10.png", "1²2.png"])
    assert [Path(frame.name).name for frame in FrameFolder(folder)] == ["1²2.png", "1²10.png"]


def test_the_fingerprint_tells_changed_files(tmp_path: Path) -> None:
    """Else a resumed run would take results of other frames for those of these."""
    folder = write_frames(tmp_path / "frames", ["0.png", "1.png", "2.png"])
    before = FrameFolder(folder).fingerprint
    assert FrameFolder(folder).fingerprint == before
    assert FrameFolder(folder, n_frames=2).fingerprint != before
    write_frames(folder, ["1.png"], [(64, 48)])
    resized = FrameFolder(folder).fingerprint
    (folder / "2.png").rename(folder / "3.png")
    assert len({before, resized, FrameFolder(folder).fingerprint}) == 3
    (folder / "4.png").symlink_to("nowhere.png")
    with pytest.raises(DataError, match=r"4\.png: the picture cannot be read"):
        _ = FrameFolder(folder).fingerprint


def test_frames_can_be_chosen(tmp_path: Path) -> None:
    folder = write_frames(tmp_path, [f"{i:03}.png" for i in range(10)])
    video = FrameFolder(folder, start=2, stride=3, n_frames=2)
    assert [int(frame.image[0, 0, 0]) for frame in video] == [2, 5]
    assert len(video) == 2
    assert len(FrameFolder(folder, start=8, n_frames=100)) == 2


def test_a_frame_is_rgb_bytes(tmp_path: Path) -> None:
    picture = np.zeros((2, 3, 3), np.uint8)
    picture[0, 1] = (10, 20, 30)
    Image.fromarray(picture).save(tmp_path / "0.png")
    [frame] = FrameFolder(tmp_path)
    assert frame.image.dtype == torch.uint8
    assert frame.image.shape == (3, 2, 3)
    assert frame.image[:, 0, 1].tolist() == [10, 20, 30]


def test_a_change_of_size_begins_a_new_sequence(tmp_path: Path) -> None:
    """Else the stream would meet a frame that does not fit its memory."""
    sizes = [(32, 48), (32, 48), (48, 32), (48, 32), (32, 48)]
    folder = write_frames(tmp_path, [f"{i}.png" for i in range(5)], sizes)
    assert [frame.first for frame in FrameFolder(folder)] == [True, False, True, False, True]


def test_a_folder_without_frames_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not a frame")
    with pytest.raises(DataError, match=r"has no frames; files that end in \.jpeg"):
        FrameFolder(tmp_path)


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="which is not a folder"):
        FrameFolder(tmp_path / "nowhere")


def test_a_truncated_jpeg_is_named(tmp_path: Path) -> None:
    folder = write_frames(tmp_path, ["0.jpeg", "1.jpeg"])
    whole = (folder / "1.jpeg").read_bytes()
    (folder / "1.jpeg").write_bytes(whole[: len(whole) // 2])
    frames = iter(FrameFolder(folder))
    next(frames)
    with pytest.raises(DataError, match=r"1\.jpeg"):
        next(frames)


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"start": 3}, "has 3 frames: it must be below 3"),
        ({"start": -1}, r"data\.start is -1"),
        ({"stride": 0}, r"data\.stride is 0"),
        ({"n_frames": 0}, r"data\.n_frames is 0"),
    ],
)
def test_frames_that_are_not_there_are_refused(tmp_path: Path, choice: dict[str, int], message: str) -> None:
    folder = write_frames(tmp_path, ["0.png", "1.png", "2.png"])
    with pytest.raises(DataError, match=message):
        FrameFolder(folder, **choice)
