"""Clips that cannot be read: left out and listed, or the end of the work."""

from __future__ import annotations

import logging
from functools import partial

import pytest

from evt.data.reading import check_missing, left_out, read_or_skip
from evt.errors import DataError
from tests.vivit import Clips


def test_a_clip_that_cannot_be_read_is_skipped_and_told(caplog: pytest.LogCaptureFixture) -> None:
    skipped: dict[str, str] = {}
    data = Clips(3, broken=(1,))
    lengths = [read_or_skip(clip.name, partial(len, clip.frames), True, skipped) for clip in data]
    assert lengths == [6, None, 6]
    assert skipped == {"clip_1": "broken.mp4: ffmpeg cannot open this file as a video"}
    assert [record.message for record in caplog.records] == [f"left out: {skipped['clip_1']}"]
    assert caplog.records[0].levelno == logging.WARNING


def test_where_none_may_be_left_out_the_first_ends_the_work() -> None:
    skipped: dict[str, str] = {}
    with pytest.raises(DataError, match=r"^broken\.mp4: ffmpeg cannot"):
        read_or_skip("clip_0", partial(len, Clips(1, broken=(0,))[0].frames), False, skipped)
    assert not skipped
    check_missing(Clips(1, missing=("a", "b")), "skip")
    with pytest.raises(DataError, match=r"^noise: the videos of 2 clips are not on disk, the first a;"):
        check_missing(Clips(1, missing=("a", "b")), "fail")


def test_nothing_but_what_cannot_be_read_is_skipped() -> None:
    """Else a fault of the model would look like one of the data."""

    def fail() -> None:
        raise ValueError("of the model")

    with pytest.raises(ValueError, match="of the model"):
        read_or_skip("clip_0", fail, True, {})


def test_what_is_left_out_has_a_line_with_its_name_once() -> None:
    assert left_out(["a"], {"b": "b: the segment is empty", "c": "c.mp4: is broken"}) == [
        "a: not on disk",
        "b: the segment is empty",
        "c: c.mp4: is broken",
    ]
