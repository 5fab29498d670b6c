"""EPIC-Kitchens and Kinetics: which frames a clip is made of, what is found on disk, and bad input."""

from __future__ import annotations

import csv
from pathlib import Path

import av
import pytest
import torch

from evt.data.actions import Segment, find_videos
from evt.data.epic_kitchens import EpicKitchens, read_segments
from evt.data.kinetics import Kinetics
from evt.errors import DataError
from tests.common import CLIP, SHARED, needs_clip
from tests.videos import frame_numbers, write_video

EPIC = SHARED / "data/epic_kitchens"
EPIC_COLUMNS = "narration_id,video_id,start_timestamp,stop_timestamp,verb,verb_class"
KINETICS_COLUMNS = "label,youtube_id,time_start,time_end,split"


def write_csv(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def epic_tree(root: Path, *rows: str, columns: str = EPIC_COLUMNS) -> Path:
    write_csv(root / "EPIC_100_validation.csv", columns, *rows)
    return root


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One second at 60 frames a second."""
    return write_video(tmp_path_factory.mktemp("video") / "P01_01.mp4", 60, 60)


def frames_of(clip: Segment) -> list[int]:
    return frame_numbers(clip[list(range(len(clip)))])


def test_a_segment_is_resampled_by_the_videos_own_rate(video: Path) -> None:
    """By hand: at 60 frames a second, 30 a second from 0.2 to 0.6 s are frames 12, 14, ... 34."""
    assert frames_of(Segment(video, "a", 30, 0.2, 0.6)) == list(range(12, 36, 2))
    assert frames_of(Segment(video, "a", 60, 0.5, 0.55)) == [30, 31, 32]
    assert frames_of(Segment(video, "a", 30)) == list(range(0, 60, 2))


def test_a_slower_video_repeats_frames(tmp_path: Path) -> None:
    """By hand: 10 frames a second shown at 30 are each the nearest one to three moments."""
    path = write_video(tmp_path / "slow.mkv", 10, 10)
    assert frames_of(Segment(path, "a", 30, 0.2, 0.5)) == [2, 2, 3, 3, 3, 4, 4, 4, 5]
    assert len(Segment(path, "a", 30)) == 30


def test_frames_are_read_by_position_also_backwards_over_key_frames(video: Path) -> None:
    """Else a view shows other moments than it should; a seek lands on a key frame, every 12th here."""
    clip = Segment(video, "a", 60)
    assert frame_numbers(clip[[50, 3, 23, 25]]) == [50, 3, 23, 25]
    assert frame_numbers(clip[[11]]) == [11]


@needs_clip
def test_a_real_clip_gives_the_frames_that_pyav_gives() -> None:
    """28 frames a second shown at 25, against another decoder: position, colours and all."""
    with av.open(str(CLIP)) as file:
        pictures = [(frame.time, frame.to_ndarray(format="rgb24")) for frame in file.decode(video=0)]
    clip = Segment(CLIP, "arm_wrestling", 25)
    assert len(clip) == 250
    for k, frame in zip((0, 1, 99, 200, 249), clip[[0, 1, 99, 200, 249]], strict=True):
        _, nearest = min(pictures, key=lambda picture: abs(picture[0] - pictures[0][0] - k / 25))
        difference = frame.permute(1, 2, 0).float() - torch.from_numpy(nearest).float()
        assert difference.abs().mean() < 2, k  # colour conversion rounds differently


def test_a_segment_shorter_than_a_frame_has_one(video: Path) -> None:
    assert frames_of(Segment(video, "a", 30, 0.5, 0.501)) == [30]


def test_a_segment_may_end_a_little_after_its_video(video: Path) -> None:
    """Annotated times are rounded; what is there is taken."""
    assert frames_of(Segment(video, "a", 30, 0.9, 1.5)) == [54, 56, 58]


@pytest.mark.parametrize(
    ("start", "stop", "message"),
    [
        (0.5, 3.0, r"P01_01_7: the segment from 0.5 to 3 s is not in .*P01_01.mp4, which is 1.00 s long"),
        (1.2, 1.4, "the segment from 1.2 to 1.4 s is not in"),
        (0.5, 0.5, "starts at 0.5 s and stops at 0.5 s; it must stop after it starts"),
        (0.5, 0.4, "it must stop after it starts"),
    ],
)
def test_a_segment_that_cannot_be_is_refused(video: Path, start: float, stop: float, message: str) -> None:
    """Also when its length is all that is asked for."""
    with pytest.raises(DataError, match=message):
        len(Segment(video, "P01_01_7", 30, start, stop))


def test_a_broken_video_is_named(tmp_path: Path, video: Path) -> None:
    junk, cut = tmp_path / "junk.mp4", tmp_path / "cut.mp4"
    junk.write_bytes(b"0" * 5000)
    cut.write_bytes(video.read_bytes()[:1500])
    for path in (junk, cut):
        with pytest.raises(DataError, match=rf"{path.name}: ffmpeg cannot open this file as a video"):
            len(Segment(path, "a", 30))
    with pytest.raises(DataError, match="no such file"):
        len(Segment(tmp_path / "gone.mp4", "a", 30))


def test_a_video_without_frame_times_is_read_in_order(tmp_path: Path) -> None:
    """H.264 in AVI, which does not say when each frame appears: else labels meet wrong frames."""
    path = write_video(tmp_path / "a.avi", 30, 30)
    clip = Segment(path, "a", 30)
    assert frames_of(clip) == list(range(30))
    assert frame_numbers(clip[[20, 3, 29]]) == [20, 3, 29]


def test_the_real_validation_csv_has_its_segments_and_verbs() -> None:
    """9,668 segments; two rows by eye, and the class of every verb that is the name of a class."""
    if not EPIC.is_dir():
        pytest.skip("the shared EPIC-Kitchens annotations are not here")
    segments = read_segments(EPIC / "EPIC_100_validation.csv")
    assert len(segments) == 9668
    assert segments[0] == ("P01_11_0", "P01_11", 0, 0.0, 1.89)
    assert segments[3] == ("P01_11_100", "P01_11", 2, 5 * 60 + 27.28, 5 * 60 + 31.97)
    with (EPIC / "EPIC_100_verb_classes.csv").open() as file:
        names = {int(row["id"]): row["key"] for row in csv.DictReader(file)}
    with (EPIC / "EPIC_100_validation.csv").open() as file:
        verbs = [row["verb"] for row in csv.DictReader(file)]
    assert len(names) == 97
    named = 0
    for (name, _, verb_class, start, stop), verb in zip(segments, verbs, strict=True):
        if verb in names.values():
            assert verb == names[verb_class], name
            named += 1
        assert 0 <= start < stop
    assert named > 4000


@pytest.mark.parametrize(
    "place",
    [
        "videos/P01_01.MP4",
        "videos/P01_01.mkv",
        "P01/videos/P01_01.MP4",
        "EPIC-KITCHENS/P01/videos/P01_01.mov",
    ],
)
def test_videos_are_found_where_they_are_distributed(tmp_path: Path, place: str) -> None:
    root = epic_tree(
        tmp_path,
        "P01_01_0,P01_01,00:00:00.20,00:00:00.60,put-down,1",
        "P01_02_0,P01_02,00:00:01.00,00:00:02.00,take,0",
        "P01_01_1,P01_01,00:00:00.50,00:00:01.00,wash,2",
    )
    write_video(root / place, 60, 60)
    (root / "videos").mkdir(exist_ok=True)
    (root / "videos/P01_02.txt").touch()
    data = EpicKitchens(root)
    assert [(clip.name, clip.label) for clip in data] == [("P01_01_0", 1), ("P01_01_1", 2)]
    assert data.missing == ["P01_02_0"]
    clip = data[0].frames
    assert frame_numbers(clip[list(range(len(clip)))]) == list(range(12, 36, 2))


@pytest.mark.parametrize(
    ("row", "columns", "message"),
    [
        ("P01_01_0,P01_01,00:00:00.20,00:00:00.60,fly,97", EPIC_COLUMNS, "line 2: verb_class is '97'"),
        ("P01_01_0,P01_01,00:00:00.20,00:00:00.60,fly,fly", EPIC_COLUMNS, "verb_class is 'fly'"),
        ("P01_01_0,P01_01,00:00:00.20,0.60,put,1", EPIC_COLUMNS, "line 2: '0.60' is no time"),
        (
            "P01_01_0,P01_01,1,2,1",
            "narration_id,video_id,start,stop,verb_class",
            "no column start_timestamp, stop",
        ),
    ],
)
def test_a_bad_epic_csv_says_where(tmp_path: Path, row: str, columns: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        EpicKitchens(epic_tree(tmp_path, row, columns=columns))


def test_a_csv_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"EPIC_100_validation.csv: no such annotation file"):
        EpicKitchens(tmp_path)
    with pytest.raises(DataError, match="has no rows"):
        EpicKitchens(epic_tree(tmp_path))
    (tmp_path / "EPIC_100_train.csv").write_bytes(b"")
    with pytest.raises(DataError, match="not a csv file"):
        EpicKitchens(tmp_path, "train")


def test_no_video_at_all_is_refused(tmp_path: Path) -> None:
    """Else a wrong path would be an accuracy over nothing."""
    root = epic_tree(tmp_path, "P01_01_0,P01_01,00:00:00.20,00:00:00.60,put,1")
    with pytest.raises(DataError, match=r"none of the 1 videos of EPIC_100_validation.csv is in videos/"):
        EpicKitchens(root)
    annotations = write_csv(tmp_path / "val.csv", KINETICS_COLUMNS, "archery,abc,1,11,val")
    with pytest.raises(DataError, match=r"none of the 1 videos .* as abc_000001_000011.mp4"):
        Kinetics(annotations, root)
    with pytest.raises(DataError, match="nowhere: no such folder"):
        Kinetics(annotations, root / "nowhere")


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    for name in ("videos/P01_01.mp4", "P01/videos/P01_01.MP4"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    with pytest.raises(DataError, match="are both P01_01; keep one of them"):
        find_videos([tmp_path / "videos", tmp_path / "P01/videos"])


def test_kinetics_videos_are_found_flat_and_by_label_and_the_missing_listed(tmp_path: Path) -> None:
    """Labels are numbered in alphabetical order, whatever the order and number of the rows."""
    annotations = write_csv(
        tmp_path / "val.csv",
        KINETICS_COLUMNS,
        "zumba,-_zz,0,10,val",
        "arm wrestling,a_b,37,47,val",
        "crying,gone,5,15,val",
        "archery,tr,5,15,train",
    )
    write_video(tmp_path / "videos/-_zz_000000_000010.mp4", 50, 25)
    write_video(tmp_path / "videos/arm wrestling/a_b_000037_000047.mp4", 50, 50)
    data = Kinetics(annotations, tmp_path / "videos", "val")
    assert data.classes == ["archery", "arm wrestling", "crying", "zumba"]
    assert [(clip.name, clip.label) for clip in data] == [("-_zz_000000_000010", 3), ("a_b_000037_000047", 1)]
    assert data.missing == ["gone_000005_000015"]
    assert [len(clip.frames) for clip in data] == [50, 25]  # as 25 frames a second
    assert frame_numbers(data[1].frames[[0, 1, 24]]) == [0, 2, 48]

    selection = write_csv(tmp_path / "one.csv", KINETICS_COLUMNS, "zumba,-_zz,0,10,val")
    assert Kinetics(selection, tmp_path / "videos", labels_from=annotations)[0].label == 3
    with pytest.raises(DataError, match="no row is of split test; allowed are val"):
        Kinetics(selection, tmp_path / "videos", "test")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            ["youtube_id,time_start,time_end,split", "abc,1,11,test"],
            "has no column label; its columns are youtube_id",
        ),
        ([KINETICS_COLUMNS, "archery,abc,soon,11,val"], "line 2: 'soon' is no time"),
        ([KINETICS_COLUMNS, "archery,abc,1.5,11,val"], "line 2: '1.5' is no time"),
    ],
)
def test_a_bad_kinetics_csv_says_where(tmp_path: Path, lines: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Kinetics(write_csv(tmp_path / "val.csv", *lines), tmp_path)


def test_verbs_have_the_names_of_their_csv_where_it_lies_there(tmp_path: Path, video: Path) -> None:
    """Else weights with names could not be told to be of other verbs."""
    root = epic_tree(tmp_path, "P01_01_0,P01_01,00:00:00.20,00:00:00.60,take,1")
    (root / "videos").mkdir()
    (root / "videos/P01_01.mp4").symlink_to(video)
    assert list(EpicKitchens(root).classes) == []
    rows = [f"{i},verb {i},[],x" for i in reversed(range(97))]
    write_csv(root / "EPIC_100_verb_classes.csv", "id,key,instances,category", *rows)
    assert EpicKitchens(root).classes == [f"verb {i}" for i in range(97)]
    write_csv(root / "EPIC_100_verb_classes.csv", "id,key,instances,category", *rows[1:])
    with pytest.raises(DataError, match="whole numbers from 0 to 96, each once"):
        EpicKitchens(root)
