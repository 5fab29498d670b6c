"""Classifying a data set: what is counted, what is left out, and resuming."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import pytest

from evt.data.actions import ActionData
from evt.data.epic_kitchens import EpicKitchens
from evt.data.kinetics import Kinetics
from evt.data.reading import OnError
from evt.errors import DataError
from evt.evaluate import recognition
from evt.evaluate.ledger import Ledger
from evt.evaluate.recognition import Recognition
from evt.evaluate.shapes import operations_of_clip
from evt.evaluate.shares import Share
from evt.evaluate.trace import Subject
from evt.eventful import VARIANTS, TopR, Variant
from evt.models.vivit import ViViT
from tests.videos import write_video
from tests.vivit import Clips, small_vivit

TEMPORAL = VARIANTS["temporal"]


def recognise(
    model: ViViT,
    variant: Variant,
    policy: TopR | None,
    data: ActionData,
    ledger: Ledger,
    key: str,
    *rest: OnError,
) -> Recognition:
    subject = Subject(model, model.stream(variant, policy))
    return recognition.recognise(subject, model.views.reach, data, ledger, key, *rest)


def test_every_clip_is_predicted_as_alone_and_its_operations_counted(tmp_path: Path) -> None:
    model, data = small_vivit(), Clips(3)
    result = recognise(model, TEMPORAL, TopR(5), data, Ledger(tmp_path / "done"), "r=5")
    for clip, prediction in zip(data, result.predictions, strict=True):
        assert prediction.name == clip.name
        alone = model.predict_views(model.preprocess(clip.frames), TEMPORAL, TopR(5))
        assert prediction.top[0] == int(alone.argmax())
    assert {clip["ops"] for clip in result.clips} == {operations_of_clip(model, TEMPORAL, TopR(5))}
    figures = result.compute()
    assert figures["top1"] == 100 * sum(p.top[0] == p.label for p in result.predictions) / 3
    assert figures["top5"] == 100  # of 5 classes
    assert figures["tflops"] == result.clips[0]["ops"] / 1e12
    assert figures["seconds"] > 0


def test_a_share_whose_clips_are_all_broken_is_no_reason_to_stop(tmp_path: Path) -> None:
    """The other processes of the run have clips that can be read."""
    model, ledger = small_vivit(), Ledger(tmp_path / "done")
    subject = Subject(model, model.stream(TEMPORAL, TopR(5)))
    share: Any = Share(Clips(3, broken=(1,)), [1])
    reach = model.views.reach
    seen = recognition.recognise(subject, reach, share, ledger, "a", "skip", whole=False)
    assert (len(seen.clips), list(seen.skipped)) == (0, ["clip_1"])
    with pytest.raises(DataError, match="none of its 1 clips could be read"):
        recognition.recognise(subject, reach, share, ledger, "a", "skip")


def test_broken_and_missing_clips_are_listed_and_in_no_average(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = Clips(3, broken=(1,), missing=("gone_1", "gone_2"))
    with caplog.at_level(logging.WARNING):
        result = recognise(small_vivit(), VARIANTS["base"], None, data, Ledger(tmp_path / "done"), "base")
    assert {key: result.compute()[key] for key in ("clips", "skipped", "missing")} == {
        "clips": 2,
        "skipped": 1,
        "missing": 2,
    }
    assert result.left_out() == [
        "gone_1: not on disk",
        "gone_2: not on disk",
        "clip_1: broken.mp4: ffmpeg cannot open this file as a video",
    ]
    assert "2 of 5 clips are not on disk and in no average, the first gone_1" in caplog.text
    assert "left out: broken.mp4" in caplog.text


def test_a_broken_clip_stops_a_run_that_is_to_fail(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"broken\.mp4"):
        recognise(small_vivit(), TEMPORAL, TopR(5), Clips(3, (1,)), Ledger(tmp_path / "done"), "a", "fail")


def test_a_stopped_run_goes_on_with_the_clips_that_it_lacks(tmp_path: Path) -> None:
    """And a clip that was broken is tried again; another key begins anew."""
    model, path = small_vivit(), tmp_path / "done"
    whole = recognise(model, TEMPORAL, TopR(5), Clips(4), Ledger(tmp_path / "other"), "r=5")
    with pytest.raises(DataError):
        recognise(model, TEMPORAL, TopR(5), Clips(4, (2,)), Ledger(path), "r=5", "fail")
    for parameter in model.parameters():
        parameter.data.zero_()  # what is done is not computed again, or this would show
    resumed = recognise(model, TEMPORAL, TopR(5), Clips(4), Ledger(path), "r=5")
    assert resumed.predictions[:2] == whole.predictions[:2]
    assert resumed.predictions[2].top == [0, 1, 2, 3, 4]
    anew = recognise(model, TEMPORAL, TopR(6), Clips(4), Ledger(path), "r=6")
    assert [p.top for p in anew.predictions] == [[0, 1, 2, 3, 4]] * 4


def test_videos_of_both_data_sets_run_from_csv_to_accuracy(tmp_path: Path) -> None:
    """With a corrupt video, one that is not there, and segments of which none or a part is in their video."""
    (tmp_path / "val.csv").write_text(
        "label,youtube_id,time_start,time_end,split\n"
        "archery,good,0,10,val\nbowling,gone,0,10,val\ncrying,junk,0,10,val\n"
    )
    write_video(tmp_path / "videos/archery/good_000000_000010.mp4", 50, 25)
    (tmp_path / "videos/junk_000000_000010.mp4").write_bytes(b"0" * 5000)
    columns = "narration_id,video_id,start_timestamp,stop_timestamp,verb,verb_class"
    rows = [
        "P01_01_0,P01_01,00:00:00.10,00:00:00.50,put,1",
        "P01_01_1,P01_01,00:01:00.00,00:01:01.00,put,1",
        "P01_01_2,P01_01,00:00:00.50,00:00:00.50,put,1",
        "P01_02_0,P01_02,00:00:00.10,00:00:00.50,take,0",
    ]
    (tmp_path / "EPIC_100_validation.csv").write_text("\n".join([columns, *rows]) + "\n")
    write_video(tmp_path / "P01/videos/P01_01.MP4", 60, 60)

    model, ledger = small_vivit(), Ledger(tmp_path / "done")
    kinetics, epic = Kinetics(tmp_path / "val.csv", tmp_path / "videos"), EpicKitchens(tmp_path)
    results = [recognise(model, TEMPORAL, TopR(5), data, ledger, data.name) for data in (kinetics, epic)]
    assert [[p.name for p in result.predictions] for result in results] == [
        ["good_000000_000010"],
        ["P01_01_0"],
    ]
    left_out = [re.sub(r"[^ ]*/|,.*", "", line) for result in results for line in result.left_out()]
    assert left_out == [
        "gone_000000_000010: not on disk",
        "junk_000000_000010: junk_000000_000010.mp4: ffmpeg cannot open this file as a video "
        "(Invalid data found when processing input)",
        "P01_02_0: not on disk",
        "P01_01_1: the segment from 60 to 61 s is not in P01_01.MP4",
        "P01_01_2: the segment starts at 0.5 s and stops at 0.5 s; it must stop after it starts",
    ]
    for data, missing in ((kinetics, "the first gone_000000_000010"), (epic, "the first P01_02_0")):
        with pytest.raises(DataError, match=missing):
            recognise(model, TEMPORAL, TopR(5), data, ledger, data.name, "fail")
        data.missing.clear()
    for data, message in ((kinetics, "junk_000000_000010.mp4: ffmpeg cannot open"), (epic, "is not in")):
        with pytest.raises(DataError, match=message):
            recognise(model, TEMPORAL, TopR(5), data, ledger, data.name, "fail")
