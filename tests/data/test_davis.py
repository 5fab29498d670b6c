"""DAVIS from a small tree in each of its layouts, and trees that lack something."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from evt.data.davis import DAVIS, read_mask
from evt.data.loading import build_data
from evt.errors import ConfigError, DataError
from tests.common import SHARED
from tests.data.test_loading import settings

SHARED_DAVIS = SHARED / "data/davis"
HEIGHT, WIDTH = 12, 16


def pixels(number: int) -> np.ndarray:
    """Background, object 1, object 2 and pixels that do not count, in columns; the frame's number moves them."""
    return np.roll(
        np.repeat(np.array([0, 1, 2, 255], np.uint8), WIDTH // 4)[None].repeat(HEIGHT, 0), number, 1
    )


def write_mask(path: Path, values: np.ndarray, indexed: bool = True) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(values)
    if indexed:
        picture.putpalette(bytes(range(256)) * 3)
    picture.save(path)


def write_video(root: Path, name: str, n: int = 4, indexed: bool = True) -> None:
    """Frames whose pixels are their number; grey masks are of 0 and 255 as those of 2016."""
    pictures = root / "JPEGImages/480p" / name
    pictures.mkdir(parents=True)
    for i in range(n):
        Image.new("RGB", (WIDTH, HEIGHT), (i, i, i)).save(pictures / f"{i:05}.jpg")
        values = pixels(i) if indexed else np.where(pixels(i) > 0, 255, 0).astype(np.uint8)
        write_mask(root / "Annotations/480p" / name / f"{i:05}.png", values, indexed)


def write_tree(root: Path, indexed: bool = True) -> Path:
    for name in ("cows", "ants", "bear"):
        write_video(root, name, indexed=indexed)
    return root


def test_frames_come_with_their_masks(tmp_path: Path) -> None:
    data = DAVIS(write_tree(tmp_path))
    assert [video.name for video in data.videos()] == ["ants", "bear", "cows"]
    assert (data.name, len(data), len(data[0])) == ("DAVIS, 3 videos", 3, 4)
    for i, frame in enumerate(data[1]):
        assert frame.name == str(tmp_path / f"JPEGImages/480p/bear/{i:05}.jpg")
        assert (frame.first, frame.target) == (i == 0, None)
        assert frame.image.tolist() == torch.full((3, HEIGHT, WIDTH), i).tolist()
        assert frame.mask is not None
        assert frame.mask.dtype == torch.uint8
        assert frame.mask.tolist() == pixels(i).tolist()


def test_grey_masks_are_of_one_object(tmp_path: Path) -> None:
    """As in DAVIS 2016, where 255 is the object; a file of it has four equal channels."""
    path = tmp_path / "0.png"
    write_mask(path, np.array([[0, 255], [255, 0]], np.uint8), indexed=False)
    assert read_mask(path).tolist() == [[0, 1], [1, 0]]
    Image.open(path).convert("RGBA").save(path)
    assert read_mask(path).tolist() == [[0, 1], [1, 0]]


def test_the_objects_of_2017_are_one_for_2016(tmp_path: Path) -> None:
    [first, *_] = DAVIS(write_tree(tmp_path), year=2016)[0]
    assert first.mask is not None
    assert first.mask[0].tolist() == [0] * 4 + [1] * 8 + [255] * 4


def test_lists_of_both_years(tmp_path: Path) -> None:
    lists = write_tree(tmp_path) / "ImageSets"
    (lists / "480p").mkdir(parents=True)
    lines = [f"/JPEGImages/480p/{name}/0000{i}.jpg /Annotations/480p/{name}/0000{i}.png" for name in ("cows", "bear")
             for i in range(4)]  # fmt: skip
    (lists / "480p/val.txt").write_text("\n".join(lines) + "\n")
    assert [video.name for video in DAVIS(tmp_path)] == ["cows", "bear"]
    (lists / "2017").mkdir()
    (lists / "2017/val.txt").write_text("ants\r\ncows\r\n")
    assert [video.name for video in DAVIS(tmp_path)] == ["ants", "cows"]
    assert [video.name for video in DAVIS(tmp_path, year=2016)] == ["cows", "bear"]
    assert DAVIS(tmp_path, year=2016, n_videos=1).name == "DAVIS 2016 val, first 1 of 2 videos"
    assert DAVIS(tmp_path, year=2017).name == "DAVIS 2017 val"
    named = DAVIS(tmp_path, names=["bear"])
    assert ([video.name for video in named], named.name) == (["bear"], "DAVIS, 1 video")
    with pytest.raises(
        DataError, match=r"data\.split is train, but .* has no train\.txt in 2017 or 2016 or 480p"
    ):
        DAVIS(tmp_path, split="train")


def test_parts_can_be_chosen(tmp_path: Path) -> None:
    data = DAVIS(write_tree(tmp_path), n_videos=2, n_frames=3)
    assert [(video.name, len(list(video))) for video in data] == [("ants", 3), ("bear", 3)]
    (tmp_path / "JPEGImages/480p").rename(tmp_path / "JPEGImages/1080p")
    (tmp_path / "Annotations/480p").rename(tmp_path / "Annotations/1080p")
    assert len(DAVIS(tmp_path, resolution="1080p")) == 3


def test_the_fingerprint_tells_changed_files(tmp_path: Path) -> None:
    before = DAVIS(write_tree(tmp_path))[0].fingerprint
    assert DAVIS(tmp_path)[0].fingerprint == before
    assert DAVIS(tmp_path, n_frames=3)[0].fingerprint != before
    write_mask(tmp_path / "Annotations/480p/ants/00001.png", np.eye(HEIGHT, WIDTH, dtype=np.uint8))
    assert DAVIS(tmp_path)[0].fingerprint != before
    video = DAVIS(tmp_path)[0]
    (tmp_path / "Annotations/480p/ants/00001.png").unlink()
    with pytest.raises(DataError, match=r"00001\.png: the picture cannot be read"):
        _ = video.fingerprint


def test_trees_that_lack_something_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere: no such folder; data\.root must be the folder DAVIS"):
        DAVIS(tmp_path / "nowhere")
    (tmp_path / "JPEGImages/480p").mkdir(parents=True)
    with pytest.raises(DataError, match="Annotations/480p: no such folder"):
        DAVIS(tmp_path)
    (tmp_path / "Annotations/480p").mkdir(parents=True)
    with pytest.raises(DataError, match=r"no videos; folders of pictures in .* are needed"):
        DAVIS(tmp_path)
    write_video(tmp_path, "ants")
    with pytest.raises(DataError, match="JPEGImages/480p/wasps: no such video"):
        DAVIS(tmp_path, names=["wasps"])
    (tmp_path / "Annotations/480p/ants").rename(tmp_path / "masks")
    with pytest.raises(DataError, match="Annotations/480p/ants: no masks of video ants"):
        DAVIS(tmp_path)
    (tmp_path / "masks").rename(tmp_path / "Annotations/480p/ants")
    (tmp_path / "Annotations/480p/ants/00002.png").unlink()
    with pytest.raises(DataError, match=r"00002\.jpg: no mask .*00002\.png; each frame needs one"):
        DAVIS(tmp_path)
    assert len(DAVIS(tmp_path, n_frames=2)[0]) == 2


def test_a_video_of_one_frame_is_refused(tmp_path: Path) -> None:
    write_video(tmp_path, "ants", n=1)
    with pytest.raises(DataError, match="480p/ants: too few frames, 1; at least 2"):
        DAVIS(tmp_path)
    with pytest.raises(DataError, match=r"data\.n_frames is 1; it must be a whole number of at least 2"):
        DAVIS(tmp_path, n_frames=1)


def test_masks_that_cannot_be_are_refused_when_read(tmp_path: Path) -> None:
    write_video(tmp_path, "ants")
    path = tmp_path / "Annotations/480p/ants/00001.png"
    write_mask(path, np.zeros((HEIGHT, WIDTH + 2), np.uint8))
    with pytest.raises(DataError, match=r"00001\.png: the mask is 18x12 pixels, but its picture is 16x12"):
        list(DAVIS(tmp_path)[0])
    Image.new("RGB", (WIDTH, HEIGHT), (128, 0, 0)).save(path)
    with pytest.raises(
        DataError, match=r"00001\.png: a picture of mode RGB; a mask must be indexed, or grey"
    ):
        list(DAVIS(tmp_path)[0])
    Image.fromarray(np.full((HEIGHT, WIDTH), 400, np.uint16)).save(path)
    with pytest.raises(DataError, match=r"00001\.png: a picture of mode I;16; a mask"):
        list(DAVIS(tmp_path)[0])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"00001\.png: the picture is truncated or broken"):
        list(DAVIS(tmp_path)[0])


def test_from_a_config(tmp_path: Path) -> None:
    write_tree(tmp_path)
    cfg = settings("davis", root=str(tmp_path), names=["cows", "ants"])
    videos = build_data(cfg, "data", "videos").videos()
    assert [video.name for video in videos] == ["cows", "ants"]
    assert not hasattr(videos, "classes")  # masks are no boxes with classes
    with pytest.raises(ConfigError, match=r"data\.year is 2018; it must be 2016 or 2017 or null"):
        build_data(settings("davis", root=str(tmp_path), year=2018), "data", "videos")


@pytest.mark.skipif(not SHARED_DAVIS.is_dir(), reason="the shared part of DAVIS is not here")
def test_the_shared_videos() -> None:
    data = DAVIS(SHARED_DAVIS, n_frames=2)
    assert (len(data), data[4].name) == (10, "dog")
    for frame in data[4]:
        assert frame.mask is not None
        assert frame.mask.shape == frame.image.shape[1:] == (480, 854)
        assert frame.mask.unique().tolist() == [0, 1]
