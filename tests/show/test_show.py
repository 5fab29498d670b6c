"""What is drawn on frames, and the videos that come of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from evt.data.clips import Clip
from evt.data.opening import open_video
from evt.demo import demo
from evt.errors import ConfigError, DataError
from evt.evaluate.watched import Watched
from evt.eventful import VARIANTS, TopR
from evt.show.draw import add_boxes, add_tokens, picture_of, sheet
from evt.show.sources import open_source
from evt.show.window import Window
from evt.show.writer import VideoWriter
from tests.commands import command
from tests.common import small_frames, small_vit
from tests.data.test_frames import write_frames
from tests.videos import write_video

SMALL = ["model=vitdet_mini", "n_frames=4", "policy.r=64"]


def test_what_passed_is_what_the_policy_selected_and_the_stream_is_as_without() -> None:
    net = small_vit()
    watched = Watched(TopR(9))
    for variant in ("temporal", "rows"):
        stream, plain = net.stream(VARIANTS[variant], watched), net.stream(VARIANTS[variant], TopR(9))
        for i, frame in enumerate(small_frames(4, changed=9)):
            watched.begin()
            assert torch.equal(stream(frame), plain(frame))
            share = watched.share(36)
            assert share.sum() == pytest.approx(36 if i == 0 else 9)
            if i:
                assert watched.share(36, watched.gates[0]).sum() == 9
                with pytest.raises(ValueError, match="gate is 99"):
                    watched.share(36, 99)


def test_tokens_that_were_not_computed_are_grey_and_dark() -> None:
    """A red picture: its left half was computed anew."""
    picture = Image.new("RGB", (40, 20), (200, 0, 0))
    share = torch.zeros(2, 4)
    share[:, :2] = 1
    drawn = np.asarray(add_tokens(picture, share)).astype(int)
    left, right = drawn[:, :20].reshape(-1, 3), drawn[:, 20:].reshape(-1, 3)
    assert (left == left[0]).all()
    assert (right == right[0]).all()
    assert (right[0] == right[0][0]).all()
    assert left[0][0] > 150 > right[0][0]


def test_a_box_is_where_it_was_found_in_the_colour_of_its_class() -> None:
    picture = picture_of(torch.zeros(3, 60, 80, dtype=torch.uint8), (60, 80))
    add_boxes(picture, torch.tensor([[10.0, 25, 50, 55]]), ["cow 0.9"], [1])
    drawn = np.asarray(picture)
    assert drawn[25, 30].tolist() == drawn[55, 30].tolist() == drawn[40, 10].tolist() == [0x56, 0xB4, 0xE9]
    assert drawn[40, 30].tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    "more",
    [
        [],
        ["compare=true", "variant=rows"],
        ["variant=base", "policy=none"],
        ["variant=skip", "policy=every", "~policy.r", "policy.every=2"],
        ["variant=frame", "gate=0"],
        ["model.checkpoint=null"],
    ],
)
def test_the_demo_leaves_a_video_of_as_many_frames(
    more: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It opens with the reader that all videos are read by."""
    chosen = [
        x for x in SMALL if not (x.startswith("policy.r") and any(y.startswith("policy=") for y in more))
    ]
    out = tmp_path / "o" / "a.mp4"
    command(
        monkeypatch,
        demo,
        *chosen,
        *(x for x in more if x[0] != "~"),
        f"out={out}",
        f"hydra.run.dir={tmp_path}/r",
    )
    video = open_video(out)
    assert len(video) == 4
    assert video.truncated is None
    width = 2 * 480 if "compare=true" in more else 480
    assert video.size[1] == width
    assert f"written to {out}" in capsys.readouterr().out


def test_a_file_and_a_folder_of_pictures_are_shown_at_their_rate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = write_video(tmp_path / "clip.mp4", 5, fps=10)
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(3):
        Image.new("RGB", (51, 33), (40 * i, 0, 0)).save(folder / f"{i}.png")
    for source, n, fps in ((clip, 4, 10), (folder, 3, 25)):
        out = tmp_path / f"{n}.mkv"
        command(monkeypatch, demo, *SMALL, f"source={source}", f"out={out}", f"hydra.run.dir={tmp_path}/r")
        video = open_video(out)
        assert (len(video), round(video.fps)) == (n, fps)


def test_a_tall_clip_is_made_no_taller_than_can_be_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stands in the middle above its text, which needs more width than it has."""
    (tmp_path / "tall").mkdir()
    for i in range(2):
        Image.new("RGB", (33, 501), (200, 0, 0)).save(tmp_path / f"tall/{i}.png")
    out = tmp_path / "a.mp4"
    places = [f"source={tmp_path}/tall", f"out={out}", f"hydra.run.dir={tmp_path}/r"]
    command(monkeypatch, demo, "model=vitdet_mini", "variant=base", "policy=none", *places)
    image = Clip(out).image(0)
    assert image.shape == (3, 500 + 44, 480)
    red = image[0, 250].int()
    assert (red[230:250] > 150).all()
    assert (red[:200] < 60).all()
    assert (red[-200:] < 60).all()


def test_a_white_token_has_a_border_on_the_white_sheet() -> None:
    white = Image.new("RGB", (10, 30), "white")
    drawn = np.asarray(sheet([[white, white], [white, white]], ["frame 10", "frame 200"], ["a", "b"]))
    dark = (drawn.max(-1) < 140).any(0).nonzero()[0]
    assert drawn.shape[1] - 16 < dark.max() < drawn.shape[1]
    columns = (drawn[20:45].max(-1) == 128).all(0).nonzero()[0]  # beside the upper two
    assert (np.diff(columns)[[0, 2]] == 11).all()
    assert columns[2] - columns[0] > 50  # so that heads do not run into one another


@pytest.mark.parametrize("times", [1, 3])
def test_after_ctrl_c_what_there_is_can_be_played(tmp_path: Path, times: int) -> None:
    """A user who has seen enough keeps what she has seen, however impatient she is."""
    out = tmp_path / "a.mp4"
    arguments = [
        "-m",
        "evt.demo",
        "n_frames=3000",
        "policy.r=64",
        f"out={out}",
        f"hydra.run.dir={tmp_path}/r",
    ]
    with subprocess.Popen(
        [sys.executable, *arguments],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        for _ in range(600):
            if out.exists() and out.stat().st_size > 2000:
                break
            time.sleep(0.1)
        for _ in range(times):
            process.send_signal(signal.SIGINT)
            time.sleep(0.03)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"frames are in {out}" in said
    n = int(said.split(f" frames are in {out}")[0].split()[-1])
    assert len(open_video(out)) == n > 0


def test_a_window_shows_until_q_is_pressed(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Any] = []
    fake: Any = types.ModuleType("cv2")
    fake.WINDOW_AUTOSIZE, fake.error = 1, RuntimeError
    fake.namedWindow = fake.destroyWindow = lambda *_: None
    fake.imshow = lambda name, pixels: shown.append(pixels)
    fake.waitKey = lambda ms: ord("q") if len(shown) == 2 else -1
    monkeypatch.setitem(sys.modules, "cv2", fake)
    with Window("a") as window:
        window.add(Image.new("RGB", (2, 2), (255, 0, 0)))
        assert not window.closed
        window.add(Image.new("RGB", (2, 2), (255, 0, 0)))
        assert window.closed
    assert shown[0][0, 0].tolist() == [0, 0, 255]  # OpenCV's order
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ConfigError, match="pip install opencv-python"):
        Window("a")


def test_bad_input_is_told(tmp_path: Path) -> None:
    for source, sentence in (
        (str(tmp_path / "none.mp4"), "does not exist; it must be a video file"),
        ("camera:x", "a camera is named by its number"),
        ("camera:77", "does not open"),
        (str(tmp_path), "has no frames"),
    ):
        with pytest.raises(DataError, match=sentence):
            open_source(source)
    with pytest.raises(DataError, match="it must end in"):
        VideoWriter(tmp_path / "a.gif", 25)
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError):
        VideoWriter(tmp_path / "file" / "a.mp4", 25)
    with VideoWriter(tmp_path / "a.mp4", 25) as writer:
        writer.add(Image.new("RGB", (64, 48)))
        with pytest.raises(DataError, match="all pictures of a video must be of one size"):
            writer.add(Image.new("RGB", (62, 48)))


def test_settings_that_cannot_be_are_told_before_a_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clip, sheet = tmp_path / "clip.mp4", f"sheet.out={tmp_path / 's.png'}"
    write_video(clip, 3, 25)
    before = clip.read_bytes()
    picture = write_frames(tmp_path / "pictures", ["1.png", "2.png"]) / "2.png"
    pictures, of_picture = picture.parent, picture.read_bytes()
    for more, sentence in (
        (["gate=99"], "gate is 99, and variant temporal has 36 gates; it must be from 0 to 35"),
        (["gate=x"], "gate is 'x'; it must be a whole number of at least 0, or null"),
        (["gate=1", "variant=base", "policy=none"], "gate is 1, and variant base has no gates"),
        ([sheet, "variant=base", "policy=none"], "sheet.gate is 6, and variant base has no gates"),
        ([f"sheet.out={tmp_path}/s.jpg"], "it must end in .png"),
        ([sheet, "sheet.frames=1"], "sheet.frames is 1; it must be a list of at least 1"),
        (["n_frames=0"], "n_frames is 0; it must be"),
        (["width=3"], "width is 3; it must be a whole number of at least 64"),
        (["confidence=2"], "confidence is 2; it must be"),
        (
            ["variant=frame", "policy=codec", "policy.keep=0.25"],
            "policy is codec and source is generated; it must be a video file",
        ),
        ([f"source={clip}", f"out={clip}"], "which is source as well; it must be another file"),
        (
            [f"source={pictures}", f"sheet.out={picture}"],
            "among the pictures of source; it must lie elsewhere",
        ),
    ):
        with pytest.raises(SystemExit):
            command(monkeypatch, demo, "n_frames=2", f"hydra.run.dir={tmp_path}/r", *more)
        assert sentence in capsys.readouterr().err
    assert clip.read_bytes() == before
    assert picture.read_bytes() == of_picture


def test_a_sheet_of_frames_that_did_not_come_is_told_after_the_video(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = [f"out={tmp_path}/a.mp4", f"sheet.out={tmp_path}/s.png", "sheet.frames=[50]"]
    with pytest.raises(SystemExit) as ended:
        command(monkeypatch, demo, "n_frames=2", f"hydra.run.dir={tmp_path}/r", *out)
    assert ended.value.code == 2
    assert "sheet.frames are [50], and there were 2: no" in capsys.readouterr().err
    assert len(open_video(tmp_path / "a.mp4")) == 2


def test_what_was_written_before_a_picture_that_cannot_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = write_frames(tmp_path / "pictures", ["1.png", "2.png", "3.png"])
    (pictures / "3.png").write_bytes((pictures / "3.png").read_bytes()[:60])
    source = [f"source={pictures}", f"out={tmp_path}/a.mp4", f"hydra.run.dir={tmp_path}/r"]
    with pytest.raises(SystemExit):
        command(monkeypatch, demo, *source)
    assert f"2 frames are in {tmp_path}/a.mp4" in capsys.readouterr().err
    assert len(open_video(tmp_path / "a.mp4")) == 2
