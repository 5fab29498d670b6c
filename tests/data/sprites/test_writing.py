"""The real loaders are tried on what is written, so what comes back must be what was generated."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

from evt.data import open_video
from evt.data.sprites import ACTIONS, SpriteClips, SpriteVideos
from evt.data.sprites.__main__ import main
from evt.data.sprites.writing import write_kinetics, write_vid
from evt.data.vid import VID
from evt.errors import DataError

SIZE = ("--size", "96", "128")


@pytest.mark.parametrize("split", ["val", "train"])
def test_vid_reads_back_what_was_generated(tmp_path: Path, split: str) -> None:
    main([str(tmp_path), "--n", "2", "--n-frames", "3", "--split", split, "--seed", "4", *SIZE])
    generated = SpriteVideos(2, 3, (96, 128), 4, split)
    read = VID(tmp_path, split)
    assert len(read) == 2
    n_boxes = 0
    for video, original in zip(read, generated, strict=True):
        assert video.name.endswith(original.name)
        for frame, expected in zip(video, original, strict=True):
            assert torch.equal(frame.image, expected.image)
            assert frame.first == expected.first
            assert frame.target is not None
            assert expected.target is not None
            assert torch.equal(frame.target.boxes, expected.target.boxes)
            assert torch.equal(frame.target.labels, expected.target.labels)
            n_boxes += len(frame.target.labels)
    assert n_boxes > 5


def test_jpeg_is_close_and_smaller(tmp_path: Path) -> None:
    videos = SpriteVideos(1, 2, (96, 128), 0, "val", "static")
    write_vid(videos, tmp_path, "val", "jpeg")
    frame, expected = VID(tmp_path)[0][1], videos[0][1]
    assert (frame.image.float() - expected.image.float()).abs().mean() < 6
    assert Path(frame.name).suffix == ".JPEG"


def test_frames_of_two_runs_do_not_mix(tmp_path: Path) -> None:
    videos = SpriteVideos(1, 1, (96, 128))
    write_vid(videos, tmp_path, "val", "png")
    with pytest.raises(DataError, match="is there already"):
        write_vid(videos, tmp_path, "val", "png")


def test_what_has_no_place_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DataError, match="allowed are train, val"):
        write_vid(SpriteVideos(1, 1, split="test"), tmp_path, "test", "png")
    with pytest.raises(DataError, match="allowed are png, jpeg"):
        write_vid(SpriteVideos(1, 1), tmp_path, "val", "gif")
    (tmp_path / "file").touch()
    for arguments, sentence in (
        ([str(tmp_path), "--n", "0"], "error: data.n_videos is 0; it must be"),
        ([str(tmp_path / "file"), "--n", "1"], "file: not a directory"),
    ):
        with pytest.raises(SystemExit, match="2"):
            main(arguments)
        assert sentence in capsys.readouterr().err


def test_a_tree_of_other_classes_is_read_by_its_own_names(tmp_path: Path) -> None:
    write_vid(SpriteVideos(1, 1, (96, 128)), tmp_path, "val", "png")
    classes = tmp_path / "classes.txt"
    classes.write_text("cat\ndog\n")
    with pytest.raises(DataError, match="is of an unknown synset; allowed are cat, dog"):
        VID(tmp_path)[0][0]
    classes.write_text("cat\ncat\n")
    with pytest.raises(DataError, match=r"classes.txt is empty or names a class twice"):
        VID(tmp_path)
    classes.unlink()
    with pytest.raises(DataError, match="allowed are the 30 of ImageNet VID"):
        VID(tmp_path)[0][0]


def test_clips_are_laid_out_as_kinetics(tmp_path: Path) -> None:
    main([str(tmp_path), "--kind", "action", "--n", "2", "--n-frames", "30", *SIZE])
    with open(tmp_path / "val.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for row, clip in zip(rows, SpriteClips(2, 30, (96, 128)), strict=True):
        assert row["label"] == ACTIONS[clip.label]
        assert row["split"] == "val"
        start, end = int(row["time_start"]), int(row["time_end"])
        reader = open_video(tmp_path / "val" / f"{row['youtube_id']}_{start:06d}_{end:06d}.mp4")
        assert len(reader) == 30
        decoded = reader[20].float()
        assert torch.equal(decoded, clip[[20]][0].float())


@pytest.mark.parametrize("size", [(96, 128), (97, 131)])
def test_clips_are_kept_pixel_by_pixel(tmp_path: Path, size: tuple[int, int]) -> None:
    """Else a model would find other actions in them than in those that are generated as they are read."""
    (clip,) = SpriteClips(1, 6, size).clips()
    write_kinetics([clip], tmp_path, "val")
    (path,) = (tmp_path / "val").iterdir()
    assert torch.equal(open_video(path)[list(range(6))], clip[list(range(6))])
