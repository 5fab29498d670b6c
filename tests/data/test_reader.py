"""The reader of videos, held to a decode from start to end by PyAV, and to the number that every frame shows."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import random
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
import pytest
import torch
from torch import Tensor

from evt.data import open_video
from evt.data.actions import Segment
from evt.data.clips import Clip
from evt.data.epic_kitchens import EpicKitchens
from evt.data.h264 import FrameNumbers
from evt.data.kinetics import Kinetics
from evt.data.opening import Reader
from evt.data.reader import VideoFile
from evt.data.something import SomethingSomething
from evt.errors import DataError
from tests.common import ROOT, SHARED
from tests.videos import write_video

VIDEOS = SHARED / "data/videos"
N = 70
FIRST = {"movflags": "faststart"}
B_FRAMES = {"bf": "3", "g": "15"}
KINDS = {
    "h264_b.mp4": ("libx264", {**B_FRAMES, "b-pyramid": "normal"}),
    "h264_open.mkv": ("libx264", {**B_FRAMES, "x264-params": "open-gop=1"}),
    "h264_refresh.mp4": ("libx264", {"bf": "0", "g": "20", "x264-params": "intra-refresh=1"}),
    "h264_b.avi": ("libx264", B_FRAMES),
    "h264_b.ts": ("libx264", B_FRAMES),
    "hevc_open.mp4": (
        "libx265",
        {"x265-params": "keyint=15:min-keyint=15:bframes=4:open-gop=1:log-level=none"},
    ),
    "hevc_closed.mkv": ("libx265", {"x265-params": "keyint=15:bframes=4:open-gop=0:log-level=none"}),
    "mpeg4_b.mp4": ("mpeg4", {"bf": "2", "g": "15"}),
    "mpeg4_b.avi": ("mpeg4", {"bf": "2", "g": "15"}),
    "mpeg2_b.mkv": ("mpeg2video", {"bf": "2", "g": "12"}),
    "mpeg2_b.mpg": ("mpeg2video", {"bf": "2", "g": "12"}),
    "wmv2.wmv": ("wmv2", {"g": "15"}),
    "vp8.webm": ("libvpx", {"auto-alt-ref": "1", "lag-in-frames": "16", "g": "30", "deadline": "realtime"}),
    "vp9.webm": (
        "libvpx-vp9",
        {"auto-alt-ref": "1", "lag-in-frames": "16", "g": "30", "deadline": "realtime"},
    ),
    "mjpeg.avi": ("mjpeg", {}),
}


def write_numbered(path: Path, codec: str, options: dict[str, str], pixels: str = "yuv420p") -> Path:
    """Frame i shows i as 8 vertical bars, lowest bit at the left."""
    with av.open(str(path), "w") as file:
        stream = cast(av.VideoStream, file.add_stream(codec, rate=30, options=options))
        stream.height, stream.width = 96, 128
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else pixels
        stream.bit_rate = 2_000_000
        noise = np.random.default_rng(0)
        for i in range(N):
            bars = np.repeat([(i >> bit & 1) * 255 for bit in range(8)], 16)[None].repeat(96, 0)
            picture = np.stack([bars] * 3, -1).astype(np.uint8)
            picture[:24] = noise.integers(0, 255, (24, 128, 3))
            file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        file.mux(stream.encode())
    return path


def numbers(frames: Tensor, rotation: int = 0) -> list[int]:
    grey = torch.rot90(frames, -(rotation // 90), (-2, -1)).float().mean(1)
    bars = grey[:, 40:80].unflatten(-1, (8, 16))[..., 4:12].mean((1, 3)) > 128  # (n, 8)
    return (bars * 2 ** torch.arange(8)).sum(1).tolist()


def decode(path: Path) -> list[Tensor]:
    """A decode from start to end."""
    with av.open(str(path)) as file:
        return [
            torch.from_numpy(frame.to_ndarray(format="rgb24")).permute(2, 0, 1)
            for frame in file.decode(video=0)
        ]


def check_orders(path: Path, expected: list[int], rotation: int = 0) -> None:
    """Forwards, backwards, at random and in strides: the same numbers, and the same pixels."""
    video = open_video(path)
    assert len(video) == len(expected)
    forwards = [video[i] for i in range(len(video))]
    assert numbers(torch.stack(forwards), rotation) == expected
    orders = [range(len(video))[::-7], range(0, len(video), 8), range(3, len(video), 33)]
    orders.append(random.Random(0).sample(range(len(video)), 12))  # type: ignore[arg-type]
    for order in orders:
        for i in order:
            assert torch.equal(video[i], forwards[i]), i
    few = [len(video) - 1, 0, len(video) // 2, 0]
    assert torch.equal(video[few], torch.stack([forwards[i] for i in few]))


@pytest.mark.parametrize("name", KINDS)
def test_whatever_the_order_frame_i_is_frame_i_of_a_decode(tmp_path: Path, name: str) -> None:
    path = write_numbered(tmp_path / name, *KINDS[name])
    whole = decode(path)
    check_orders(path, numbers(torch.stack(whole)))
    video = open_video(path)
    assert len(video) == len(whole)
    for i in (len(whole) - 1, 16, 0, 40):
        assert (video[i].float() - whole[i].float()).abs().mean() < 0.5
    assert video.size == (96, 128)
    assert video.truncated is None
    np.testing.assert_allclose(np.diff(video.times), 1 / 30, atol=2e-3)
    assert video.fps == pytest.approx(30, abs=0.5)


@pytest.mark.skipif(not VIDEOS.is_dir(), reason="the shared videos are not here")
def test_the_shared_videos_show_what_their_list_says(tmp_path: Path) -> None:
    truth = json.loads((VIDEOS / "truth.json").read_text())
    for name, expected in truth.items():
        path, shown = VIDEOS / name, expected["numbers"]
        video = open_video(path)
        if name == "narrow_144.mp4":  # without numbers to read: 40 frames as PyAV gives them
            for i, frame in enumerate(decode(path)):
                assert (video[i].float() - frame.float()).abs().mean() < 0.5
            continue
        check_orders(path, shown, expected["rotation"])
        # The packets of an AVI have other times than its frames; which are meant is not known to more than a few.
        np.testing.assert_allclose(video.times, expected["times"], atol=0.1 if name == "h264_b.avi" else 2e-3)
        clip = Clip(path, start=5, stride=10)
        assert numbers(torch.stack([frame.image for frame in clip]), expected["rotation"]) == shown[5::10]
        if video.truncated is None and not name.endswith(".avi"):  # of which the list has no times in order
            times = np.array(expected["times"]) - expected["times"][0]
            at = [int(np.abs(times - k / 25).argmin()) for k in range(0, 60, 7)]
            segment = Segment(path, name, 25)
            assert numbers(segment[list(range(0, 60, 7))], expected["rotation"]) == [shown[i] for i in at]


def test_every_data_set_of_clips_reads_by_it(tmp_path: Path) -> None:
    options = KINDS["hevc_open.mp4"]
    (tmp_path / "videos").mkdir()
    for name in ("P01_01.mp4", "a_000000_000003.mp4", "7.mp4"):
        write_numbered(tmp_path / "videos" / name, *options)
    (tmp_path / "EPIC_100_validation.csv").write_text(
        "narration_id,video_id,start_timestamp,stop_timestamp,verb_class\nP01_01_0,P01_01,00:00:01.00,00:00:02.00,1\n"
    )
    (tmp_path / "val.csv").write_text("label,youtube_id,time_start,time_end,split\nx,a,0,3,val\n")
    (tmp_path / "v.json").write_text('[{"id": "7", "template": "Holding [something]"}]')
    (tmp_path / "l.json").write_text('{"Holding something": "0"}')
    epic = EpicKitchens(tmp_path)[0].frames
    assert numbers(epic[[20, 0, 29]]) == [50, 30, 59]
    kinetics = Kinetics(tmp_path / "val.csv", tmp_path / "videos")[0].frames
    assert numbers(kinetics[[50, 10, 40]]) == [60, 12, 48]
    something = SomethingSomething(tmp_path / "v.json", tmp_path / "l.json", tmp_path / "videos")[0].frames
    assert numbers(something[[20, 4]]) == [20, 4]
    assert len(something) == N


def test_what_is_missing_at_the_end_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_numbered(tmp_path / "a.webm", *KINDS["vp9.webm"])
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    video = open_video(path)
    assert video.truncated is not None
    assert 10 < len(video) < 60
    with pytest.raises(DataError, match=r"no frame 69; the video is truncated at \d\.\d s of 2\.3 s"):
        video[69]
    with pytest.raises(DataError, match=r"a: .*a\.webm is truncated at"):
        len(Segment(path, "a", 25))
    assert len(Segment(path, "a", 30, 0.0, 0.2)) == 6
    with caplog.at_level(logging.WARNING):
        Clip(path, n_frames=65)
    assert "truncated at" in caplog.text
    assert "data.n_frames is 65, but" in caplog.text


def test_a_file_without_a_whole_packet_is_refused(tmp_path: Path) -> None:
    path = write_numbered(tmp_path / "a.webm", *KINDS["vp9.webm"])
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(DataError, match="no frame of the vp9 video in it can be decoded"):
        open_video(path)


def test_what_is_missing_at_the_end_of_an_avi_is_said(tmp_path: Path) -> None:
    """Its header counts the frames; the last packet may be cut off in the middle."""
    path = write_numbered(tmp_path / "a.avi", *KINDS["mpeg4_b.avi"])
    whole = [open_video(path)[i].clone() for i in range(N)]
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    video = open_video(path)
    assert video.truncated is not None
    assert video.truncated.endswith("of 2.3 s")
    assert all(reads_as(video, i, whole[i]) for i in range(len(video) - 2))
    reads_as(video, len(video) - 1, whole[len(video) - 1])


@pytest.mark.parametrize("name", ["h264_b.mp4", "vp9.webm", "h264_open.mkv", "mpeg4_b.avi", "wmv2.wmv"])
def test_a_file_cut_between_or_within_packets_is_said_to_be(tmp_path: Path, name: str) -> None:
    """Of 2.3 s the last third of a second, or half of the last packet."""
    path = write_numbered(tmp_path / name, *KINDS[name])
    if path.suffix == ".mp4":  # with the header in front, as on the web
        with av.open(str(path)) as file, av.open(str(tmp_path / "b.mp4"), "w", options=FIRST) as copy:
            stream = copy.add_stream_from_template(file.streams.video[0], opaque=True)
            for packet in file.demux(video=0):
                if packet.size:
                    packet.stream = stream
                    copy.mux(packet)
        path = tmp_path / "b.mp4"
    content = path.read_bytes()
    with av.open(str(path)) as file:
        packets = [(cast(int, packet.pos), packet.size) for packet in file.demux(video=0) if packet.size]
    assert VideoFile(path).truncated is None
    ends = [packets[60][0], packets[60][0] + packets[60][1] // 2, packets[69][0] + packets[69][1] // 2]
    for end in ends[: 2 if path.suffix == ".wmv" else 3]:
        path.write_bytes(content[:end])
        video = VideoFile(path)
        assert video.truncated is not None, end
        assert re.fullmatch(r"truncated at [12]\.\d s of (2\.3 s|more)", video.truncated)
        assert len(video) <= 70


@pytest.mark.parametrize(
    ("name", "codec", "times", "sound", "options"),
    [
        ("one.mp4", "libx264", [0], 0, {}),
        ("slow.mkv", "libx264", [0, 7000, 7100, 20000], 0, {}),
        ("slides.mp4", "libx264", [0, 7000, 14000], 0, {}),
        ("sound.avi", "mpeg4", list(range(0, 2000, 40)), 9, {}),
        ("sound.mp4", "libx264", list(range(0, 2000, 40)), 9, {}),
        ("sound.mkv", "libx264", list(range(0, 2000, 40)), 9, {}),
        ("late.mp4", "libx264", list(range(3000, 4000, 40)), 9, {}),
        ("gap.mp4", "libx264", [*range(0, 1000, 40), *range(2000, 3000, 40)], 0, {}),
        ("fragments.mp4", "libx264", list(range(0, 2000, 40)), 0, {"movflags": "frag_keyframe"}),
        ("live.webm", "libvpx-vp9", list(range(0, 2000, 40)), 0, {"live": "1"}),
    ],
)
def test_ordinary_files_are_complete(
    tmp_path: Path, name: str, codec: str, times: list[int], sound: int, options: dict[str, str]
) -> None:
    """times in milliseconds, and seconds of sound: one frame, none for long, less than the sound, in fragments."""
    path = tmp_path / name
    with av.open(str(path), "w", options=options) as file:
        stream = cast(av.VideoStream, file.add_stream(codec, rate=25, options={"g": "10"}))
        stream.height, stream.width, stream.pix_fmt = 64, 64, "yuv420p"
        base = Fraction(1, 25) if path.suffix == ".avi" else Fraction(1, 1000)
        stream.codec_context.time_base = base
        audio = file.add_stream("aac", rate=8000) if sound else None
        for i, at in enumerate(times):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 4 * i, np.uint8), format="rgb24")
            frame.pts, frame.time_base = round(at / 1000 / base), base
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
        for i in range(8 * sound):
            silence = av.AudioFrame.from_ndarray(
                np.zeros((1, 1000), np.float32), format="fltp", layout="mono"
            )
            silence.sample_rate, silence.pts, silence.time_base = 8000, 1000 * i, Fraction(1, 8000)
            assert audio
            file.mux(audio.encode(silence))
        if audio:
            file.mux(audio.encode())
    video = VideoFile(path)
    assert len(video) == len(times)
    assert video.truncated is None
    assert video[len(times) - 1].float().mean() == pytest.approx(4 * (len(times) - 1), abs=3)


def test_a_damaged_frame_is_an_error_and_never_a_copy(tmp_path: Path) -> None:
    """What does not depend on it is read as ever."""
    path = write_numbered(tmp_path / "a.mp4", *KINDS["h264_b.mp4"])
    whole = [frame.clone() for frame in open_video(path)[list(range(N))]]
    with av.open(str(path)) as file:
        packets = [(p.pos, p.size) for p in file.demux(video=0) if p.size]
    content = bytearray(path.read_bytes())
    for at, size in packets[17:24]:
        assert at is not None
        content[at + 4 : at + size] = b"\xff" * (size - 4)
    path.write_bytes(content)
    video = open_video(path)
    assert len(video) == N
    for order in (range(N), range(N)[::-1]):
        wrong = {i for i in order if not reads_as(video, i, whole[i])}
        assert 20 in wrong
        assert not {0, 5, 10, 35, 60} & wrong


@pytest.mark.parametrize(
    ("name", "at_least"),
    [("h264_b.mp4", 2), ("h264_refresh.mp4", 1), ("h264_b.avi", 2), ("hevc_open.mp4", 0), ("mpeg4_b.mp4", 2)],
)
def test_what_a_flipped_bit_spoils_is_refused_in_any_order(tmp_path: Path, name: str, at_least: int) -> None:
    """A frame is marked as corrupt after others that are built on it have come out, and is known by its packet."""
    codec, options = KINDS[name]
    if codec == "libx265":
        options = {"x265-params": options["x265-params"] + ":pools=none:frame-threads=1"}
    path = write_numbered(tmp_path / name, codec, {**options, "threads": "1"})
    whole = [frame.clone() for frame in VideoFile(path)[list(range(N))]]
    content = path.read_bytes()
    with av.open(str(path)) as file:
        packets = [(cast(int, packet.pos), packet.size) for packet in file.demux(video=0) if packet.size]
    chance = random.Random(0)
    told = 0
    for _ in range(6):
        at, size = chance.choice(packets[1:])
        damaged = bytearray(content)
        damaged[at + 8 + chance.randrange(size - 8)] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        forwards = answers(VideoFile(path), range(N))
        refused = [i for i in range(N) if forwards[i] is None]
        assert not refused or all(x is None or torch.equal(x, whole[i]) for i, x in forwards.items())
        told += bool(refused)
        video = VideoFile(path)
        for order in (range(N)[::-23], chance.sample(range(N), 3), refused[-1:] + refused[:1]):
            for i, again in answers(video, order).items():
                first = forwards[i]
                assert (again is None) == (first is None), i
                assert again is None or first is None or torch.equal(again, first), i
    assert told >= at_least


def answers(video: VideoFile, order: Iterable[int]) -> dict[int, Tensor | None]:
    """What is given for each frame; None where it is refused."""
    found: dict[int, Tensor | None] = {}
    for i in order:
        try:
            found[i] = video[i]
        except DataError as error:  # noqa: PERF203
            assert f"frame {i}, at" in str(error)  # noqa: PT017
            found[i] = None
    return found


def test_after_a_lost_frame_of_an_avi_none_passes_for_another(tmp_path: Path) -> None:
    """Its packets have no times: which frame is which is only known by counting them."""
    path = write_numbered(tmp_path / "a.avi", *KINDS["h264_b.avi"])
    content = bytearray(path.read_bytes())
    with av.open(str(path)) as file:
        places = [cast(int, packet.pos) for packet in file.demux(video=0) if packet.size]
    at = content.index(b"\0\0\1", places[22])
    for lost in (b"\xff" * 30, bytes([0, 0, 1, 0x0C])):  # nothing to be decoded, or padding by its type
        damaged = bytearray(content)
        damaged[at : at + len(lost)] = lost
        path.write_bytes(damaged)
        found = answers(VideoFile(path), range(N - 1))
        given = [i for i, frame in found.items() if frame is not None]
        assert numbers(torch.stack([cast(Tensor, found[i]) for i in given])) == given
        assert set(range(15)) <= set(given)
        assert max(given) < 30


@pytest.mark.parametrize("name", ["mpeg2_b.mkv", "mpeg4_b.mp4"])
def test_the_decoder_of_a_scanned_file_tells_damages_as_a_new_one_does(tmp_path: Path, name: str) -> None:
    """It is told to before its first packet; later it would not listen. Held to PyAV's own, opened for one decode."""
    path = write_numbered(tmp_path / name, *KINDS[name])
    content = path.read_bytes()
    with av.open(str(path)) as file:
        packets = [(cast(int, packet.pos), packet.size) for packet in file.demux(video=0) if packet.size]
    chance = random.Random(0)
    told = 0
    for _ in range(16):
        at, size = chance.choice(packets[16:60])
        damaged = bytearray(content)
        damaged[at + size // 3 + chance.randrange(size // 2)] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        shown, failed = strictly_decoded(path)
        video = VideoFile(path)
        assert len(video) == N
        refused = 0
        for i in (*range(0, N, 9), *range(N)):
            try:
                frame = video[i]
            except DataError:
                refused += 1
                continue
            assert torch.equal(frame, shown[round(video.times[i] * 30)]), i
        assert bool(refused) or not failed
        told += failed
    assert told >= 4


def strictly_decoded(path: Path) -> tuple[dict[int, Tensor], bool]:
    """The frames of a decode that ends packets where anything is wrong, by their places, and whether one was."""
    shown, failed = {}, False
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        stream.thread_type = "NONE"
        stream.codec_context.options = {"err_detect": "crccheck+explode"}
        for packet in file.demux(stream):
            try:
                for frame in stream.codec_context.decode(packet):
                    picture = torch.from_numpy(frame.to_ndarray(format="rgb24")).permute(2, 0, 1)
                    shown[round(cast(int, frame.pts) * cast(Fraction, frame.time_base) * 30)] = picture
            except av.error.FFmpegError:  # noqa: PERF203
                failed = True
    return shown, failed


@pytest.mark.parametrize(
    "name",
    ["h264_b.mp4", "h264_open.mkv", "h264_b.ts", "hevc_closed.mkv", "mpeg4_b.mp4", "mpeg2_b.mkv", "wmv2.wmv",
     "vp8.webm", "vp9.webm", "vp9.mp4"],
)  # fmt: skip
def test_frames_after_missing_packets_are_right_or_refused(tmp_path: Path, name: str) -> None:
    """Decoders go on with what they have, and what they make of it looks like video."""
    path = write_numbered(tmp_path / name, *KINDS.get(name, KINDS["vp9.webm"]))
    whole = [open_video(path)[i].clone() for i in range(N)]
    for lost in ({20}, {21, 22, 23}, set(range(33, 41))):
        holed = tmp_path / f"holed_{name}"
        drop_packets(path, holed, lost)
        video = open_video(holed)
        assert N - 2 * len(lost) <= len(video) <= N - len(lost)
        shown = ((video.times - video.times[0]) * 30).round().astype(int)
        refused = [i for i, number in enumerate(shown) if not reads_as(video, i, whole[number])]
        assert all(i >= 15 for i in refused)
        assert lost == {20} or refused
        if name != "h264_open.mkv":  # whose key frames do not begin anew
            assert all(i < 60 for i in refused)


@pytest.mark.parametrize("name", ["mpeg4_b.mp4", "mpeg4_b.avi", "mpeg2_b.mkv", "h264_b.mp4", "wmv2.wmv"])
def test_a_copy_from_the_middle_begins_with_its_first_whole_frame(tmp_path: Path, name: str) -> None:
    """What a decoder makes of the others is grey, or of another scene."""
    path = write_numbered(tmp_path / name, *KINDS[name])
    whole = open_video(path)
    pictures = [whole[i].clone() for i in range(N)]
    cut = tmp_path / f"cut_{name}"
    drop_packets(path, cut, set(range(22)))
    video = open_video(cut)
    assert N - 45 <= len(video) < N - 22
    assert all(reads_as(video, i, pictures[N - len(video) + i]) for i in range(len(video)))


def drop_packets(path: Path, to: Path, lost: set[int]) -> None:
    """Copy a video's packets but for some."""
    with av.open(str(path)) as file, av.open(str(to), "w") as copy:
        stream = copy.add_stream_from_template(file.streams.video[0], opaque=True)
        packets = [packet for packet in file.demux(video=0) if packet.size]
        for i, packet in enumerate(packets):
            if i not in lost:
                packet.stream = stream
                copy.mux(packet)


def test_the_numbers_of_h264s_frames_are_followed() -> None:
    """Parameters and slices by hand: 4 bits of a number, no gaps; numbers 0, 1, 2, 2 (not built on), 3, then 5."""
    bits = "010000100000000000011110" + "1" + "1" + "1" + "1" + "010" + "0" + "1" * 8  # profile 66
    parameters = b"\0\0\1\x67" + int(bits.ljust(48, "0"), 2).to_bytes(6, "big")

    def slice_of(kind: int, number: int) -> bytes:
        slice_bits = "1" + "1" + "1" + f"{number:04b}" + "1"  # place 0, type 0, parameters 0
        return b"\0\0\1" + bytes([kind, int(slice_bits, 2), 0x80])

    numbers = FrameNumbers(parameters)

    def read(part: bytes) -> tuple[bool, bool]:
        return numbers.read(part)[:2]

    assert read(slice_of(0x65, 0)) == (True, True)
    assert [read(slice_of(0x41, 1)), read(slice_of(0x41, 2))] == [(False, True)] * 2
    assert [read(slice_of(0x01, 3)), read(slice_of(0x01, 3)), read(slice_of(0x41, 3))] == [(False, True)] * 3
    assert read(slice_of(0x41, 5)) == (False, False)
    assert read(slice_of(0x65, 0)) == (True, True)


def reads_as(video: VideoFile, i: int, expected: Tensor) -> bool:
    """False where frame i is refused by its number."""
    try:
        frame = video[i]
    except DataError as error:
        if f"frame {i}, at" in str(error):
            return False
        raise
    assert torch.equal(frame, expected), i
    return True


def test_a_header_that_cannot_be_true_is_refused(tmp_path: Path) -> None:
    """A bit of the frames' duration makes days of two seconds (stts: version, entries, frames, duration)."""
    path = write_numbered(tmp_path / "a.mp4", *KINDS["mpeg4_b.mp4"])
    content = bytearray(path.read_bytes())
    at = content.index(b"stts")
    content[at + 16] |= 0x04
    path.write_bytes(content)
    with pytest.raises(
        DataError, match=r"a\.mp4: its frames last \d+\.\d s by their times and 2\.3 s by the header"
    ):
        open_video(path)


def test_rotation_and_what_is_no_video(tmp_path: Path) -> None:
    sound = tmp_path / "a.wav"
    with av.open(str(sound), "w") as file:
        stream = file.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate, frame.time_base = 8000, Fraction(1, 8000)
        file.mux(stream.encode(frame))
    with pytest.raises(DataError, match=r"a\.wav: has no video stream"):
        open_video(sound)
    with pytest.raises(DataError, match="no such file"):
        open_video(tmp_path / "gone.mp4")
    with pytest.raises(DataError, match="is a folder; a video file is needed"):
        open_video(tmp_path)
    with pytest.raises(DataError, match="/dev/zero: is a device or a pipe; a video file is needed"):
        open_video("/dev/zero")


def test_no_places_give_no_frames_of_the_right_size(tmp_path: Path) -> None:
    frames = open_video(write_video(tmp_path / "a.mp4", 12, 30))[[]]
    assert frames.shape == (0, 3, 64, 96)
    assert frames.dtype == torch.uint8


def set_header(path: Path, box: bytes, offset: int, *words: int) -> None:
    """Set 32-bit numbers of an mp4's header, at a distance from the name of a box."""
    content = bytearray(path.read_bytes())
    at = content.index(box) + offset
    content[at : at + 4 * len(words)] = b"".join((word % 2**32).to_bytes(4, "big") for word in words)
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("matrix", "corner"),
    [
        ((0, 1, -1, 0), (slice(-8, None), slice(None, 8))),  # (x, y) is shown at (-y, x)
        ((-1, 0, 0, -1), (slice(None, 8), slice(None, 8))),
        ((0, -1, 1, 0), (slice(None, 8), slice(-8, None))),
    ],
)
def test_frames_are_turned_as_the_header_says(
    tmp_path: Path, matrix: tuple[int, int, int, int], corner: tuple[slice, slice]
) -> None:
    """The marked corner was at the lower right."""
    path = write_video(tmp_path / "a.mp4", 12, 30)
    a, b, c, d = (0x10000 * x for x in matrix)
    set_header(path, b"tkhd", 44, a, b, 0, c, d)
    video = open_video(path)
    assert video.size == ((96, 64) if a == 0 else (64, 96))
    assert (video[1][:, corner[0], corner[1]] > 230).all()
    assert (video[[5, 1]][1] > 230).float().mean() == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize(
    ("name", "codec", "pixels", "options"),
    [
        ("gray.mp4", "libx264", "gray", {}),
        ("ten_bits.mkv", "libx265", "yuv420p10le", {"x265-params": "log-level=none"}),
        ("444.mp4", "libx264", "yuv444p", {}),
        ("alpha.mkv", "ffv1", "yuva420p", {}),
        ("alpha.mov", "png", "rgba", {}),
        ("interlaced.mp4", "libx264", "yuv420p", {"flags": "+ildct+ilme", "x264-params": "tff=1:bframes=2"}),
        ("interlaced.mkv", "mpeg2video", "yuv420p", {"flags": "+ildct+ilme", "bf": "2"}),
    ],
)
def test_other_pixels_are_those_of_a_decode(
    tmp_path: Path, name: str, codec: str, pixels: str, options: dict[str, str]
) -> None:
    path = write_numbered(tmp_path / name, codec, options, pixels)
    whole = decode(path)
    check_orders(path, list(range(N)))
    video = open_video(path)
    for i in (69, 0, 33):
        assert (video[i].float() - whole[i].float()).abs().mean() < 1


def test_frames_of_another_size_in_the_middle(tmp_path: Path) -> None:
    """Alone each has its own; together they are refused."""
    path = tmp_path / "a.webm"
    parts = [write_video(tmp_path / f"{i}.webm", 12, 30, height) for i, height in enumerate((64, 48))]
    with av.open(str(path), "w") as copy:
        for i, part in enumerate(parts):
            with av.open(str(part)) as file:
                if i == 0:
                    stream = copy.add_stream_from_template(file.streams.video[0], opaque=True)
                for packet in file.demux(video=0):
                    if packet.size:
                        packet.pts = packet.dts = cast(int, packet.pts) + 400 * i
                        packet.stream = stream
                        copy.mux(packet)
    video = open_video(path)
    assert len(video) == 24
    assert [video[i].shape[1] for i in (0, 11, 12, 23, 3)] == [64, 64, 48, 48, 64]
    with pytest.raises(DataError, match=r"frames 11 to 12 are of \(48, 96\) and \(64, 96\) pixels"):
        video[[11, 12]]


@pytest.mark.parametrize(
    ("box", "offset"), [("mvhd", 16), ("mvhd", 20), ("tkhd", 24), ("mdhd", 16), ("mdhd", 20)]
)
def test_a_flipped_bit_of_a_time_in_the_header_does_no_harm(tmp_path: Path, box: str, offset: int) -> None:
    """Scale and duration of film, track and pictures: the right frames at true times, or a sentence."""
    path = write_numbered(tmp_path / "a.mp4", *KINDS["h264_b.mp4"])
    content = path.read_bytes()
    at = content.index(box.encode()) + offset
    read = 0
    for bit in (0, 5, 12, 20, 27, 31):
        word = int.from_bytes(content[at : at + 4], "big") ^ (1 << bit)
        path.write_bytes(content[:at] + word.to_bytes(4, "big") + content[at + 4 :])
        try:
            video = VideoFile(path)
        except DataError as error:
            assert "header" in str(error) or "no frame of" in str(error)  # noqa: PT017
            continue
        read += 1
        last = min(60, len(video) - 1)
        assert numbers(video[[0, last]]) == [0, last]
        # By the clock of the film it looks like one that an edit list trims, with fewer frames at their true times.
        true = (len(video) if box == "mvhd" else N) / 30
        assert video.end - video.times[0] == pytest.approx(true, rel=0.1)
    assert read >= 2


def test_flipped_bits_of_the_tables_of_frames_lose_none_without_a_word(tmp_path: Path) -> None:
    """When each is shown, how long, and how large: all but the very last are there and themselves, or a sentence."""
    path = write_numbered(tmp_path / "a.mp4", *KINDS["h264_b.mp4"])
    content = path.read_bytes()
    chance = random.Random(0)
    read = 0
    for box, n in ((b"ctts", 24), (b"stsz", 12), (b"stts", 8), (b"elst", 8)):
        at = content.index(box)
        size = int.from_bytes(content[at - 4 : at], "big") - 8
        for _ in range(n):
            damaged = bytearray(content)
            damaged[at + 4 + chance.randrange(size)] ^= 1 << chance.randrange(8)
            path.write_bytes(damaged)
            try:
                video = VideoFile(path)
            except DataError:
                continue
            if video.truncated:
                continue
            assert len(video) >= N - 1, box
            for i in range(0, len(video), 9):
                with contextlib.suppress(DataError):
                    assert numbers(video[[i]]) == [i]
                    read += 1
    assert read > 100


def test_an_order_that_the_decoder_contradicts_is_not_taken_for_the_frames(tmp_path: Path) -> None:
    """The first entry of the table that says how long frames wait to be shown (ctts) is made that of them all."""
    path = write_numbered(tmp_path / "a.mp4", *KINDS["h264_b.mp4"])
    set_header(path, b"ctts", 12, N)
    for order in (range(N), range(N)[::-1]):
        found = answers(VideoFile(path), order)
        assert numbers(torch.stack([cast(Tensor, found[i]) for i in range(N)])) == list(range(N))


@pytest.mark.parametrize(
    ("name", "to"), [("h264_b.avi", "mp4"), ("h264_b.avi", "mkv"), ("h264_b.mp4", "mkv")]
)
def test_times_that_are_not_those_of_showing_are_not_taken_for_them(
    tmp_path: Path, name: str, to: str
) -> None:
    """Packets copied out of an AVI keep times that were guessed; those of an mp4 are right, and stay so."""
    path = write_numbered(tmp_path / name, *KINDS[name])
    copied = copy_packets(path, tmp_path / f"copied.{to}")
    check_orders(copied, list(range(N)))


@pytest.mark.parametrize("to", ["mkv", "mov"])
def test_a_copy_that_begins_within_a_longer_video_begins_with_its_first_frame(
    tmp_path: Path, to: str
) -> None:
    """As a cut without encoding does: no decode has those before, and those after may need what is not there."""
    path = write_numbered(tmp_path / "a.mkv", *KINDS["h264_open.mkv"])
    with av.open(str(path)) as file:
        begin = [i for i, packet in enumerate(file.demux(video=0)) if packet.is_keyframe][1]
    cut = tmp_path / f"cut.{to}"
    drop_packets(path, cut, set(range(begin)))
    expected = numbers(torch.stack(decode(cut)))
    assert expected == list(range(expected[0], N))
    for order in (range(len(expected)), range(len(expected))[::-1]):
        found = answers(VideoFile(cut), order)
        assert found[0] is not None
        given = [i for i, frame in found.items() if frame is not None]
        assert numbers(torch.stack([cast(Tensor, found[i]) for i in given])) == [expected[i] for i in given]


@pytest.mark.parametrize(
    ("name", "to"),
    [("hevc_open.mp4", "mp4"), ("hevc_open.mp4", "mkv"), ("mpeg4_b.mp4", "mp4"), ("mpeg2_b.mkv", "mov")],
)
def test_marks_of_key_frames_that_are_none_do_no_harm(tmp_path: Path, name: str, to: str) -> None:
    """A careless muxer marks all packets; what was read first must not decide which frames can be."""
    path = write_numbered(tmp_path / name, *KINDS[name])
    check_orders(copy_packets(path, tmp_path / f"copied.{to}", all_keys=True), list(range(N)))


def copy_packets(path: Path, to: Path, all_keys: bool = False) -> Path:
    """A file in another container, its packets as they are, but for the marks of key frames."""
    with av.open(str(path)) as file, av.open(str(to), "w") as copy:
        stream = copy.add_stream_from_template(file.streams.video[0], opaque=True)
        for packet in file.demux(video=0):
            if packet.size:
                packet.is_keyframe = packet.is_keyframe or all_keys
                packet.stream = stream
                copy.mux(packet)
    return to


def test_frames_of_a_webm_whose_times_are_not_in_order_are_refused(tmp_path: Path) -> None:
    """One block's time, before a byte of flags and what it holds (RFC 9559, section 10.2), is 90 ms late."""
    path = write_numbered(tmp_path / "a.webm", *KINDS["vp9.webm"])
    content = bytearray(path.read_bytes())
    with av.open(str(path)) as file:
        held = [bytes(packet) for packet in file.demux(video=0) if packet.size]
    at = content.index(held[21]) - 3
    content[at : at + 2] = (int.from_bytes(content[at : at + 2], "big") + 90).to_bytes(2, "big")
    path.write_bytes(content)
    for order in (range(N), range(N)[::-1]):
        found = answers(VideoFile(path), order)
        refused = {i for i, frame in found.items() if frame is None}
        assert {21, 22} <= refused <= set(range(30))
        given = sorted(set(found) - refused)
        assert numbers(torch.stack([cast(Tensor, found[i]) for i in given])) == given


@pytest.mark.parametrize(
    ("offset", "bit"),
    [
        (16, 14),  # the track's clock twice as fast
        (16, 18),
        (0, 0),  # the box gone
    ],
)
def test_a_clock_that_other_times_contradict_is_refused(tmp_path: Path, offset: int, bit: int) -> None:
    """The clock of the film says that the track lasts 2.3 s."""
    path = write_numbered(tmp_path / "a.mp4", *KINDS["h264_b.mp4"])
    content = path.read_bytes()
    at = content.index(b"mdhd") + offset
    word = int.from_bytes(content[at : at + 4], "big") ^ (1 << bit)
    path.write_bytes(content[:at] + word.to_bytes(4, "big") + content[at + 4 :])
    with pytest.raises(DataError, match="header"):
        VideoFile(path)


@pytest.mark.parametrize(("height", "width"), [(64, 32), (64, 48), (64, 96), (176, 144), (90, 142)])
def test_narrow_widths_are_read(tmp_path: Path, height: int, width: int) -> None:
    path = write_video(tmp_path / "a.mp4", 12, 30, height, width)
    assert open_video(path)[[0, 11]].shape == (2, 3, height, width)


def test_check_videos_says_which_are_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    from check_videos import main as check_videos

    good, bad = write_video(tmp_path / "a.mp4", 12, 30), tmp_path / "b.mp4"
    bad.write_bytes(b"no video")
    cut = write_video(tmp_path / "c.webm", 40, 30)
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size * 3 // 4])
    assert check_videos([str(good)]) == 0
    assert check_videos([str(cut)]) == 1
    assert check_videos([str(good), str(bad)]) == 1
    out = capsys.readouterr().out
    assert "12 frames of 96x64" in out
    assert "WRONG" in out
    assert "ffmpeg cannot open" in out
    assert re.search(r"WRONG .*c\.webm: .*truncated at \d\.\d s of 1\.3 s", out)


@pytest.mark.parametrize("reader", ["av", "decord"])
def test_a_video_opened_before_a_fork_is_read_by_all_children_at_once(tmp_path: Path, reader: Reader) -> None:
    """A file has one place for all that share it."""
    if reader == "decord":
        pytest.importorskip("decord", reason="decord is not installed")
    path = write_numbered(tmp_path / "a.mp4", *KINDS["h264_b.mp4"])
    video = open_video(path, reader)
    whole = [video[i].numpy().tobytes() for i in range(N)]  # torch's own threads are not for children
    children = []
    for seed in range(4):
        if not (child := os.fork()):
            status = 1
            with contextlib.suppress(BaseException):
                places = random.Random(seed).choices(range(N), k=40)
                status = int(any(video[i].numpy().tobytes() != whole[i] for i in places))
            os._exit(status)
        children.append(child)
    assert [video[i].numpy().tobytes() == whole[i] for i in (60, 3, 33)] == [True] * 3
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 4


def test_threads_take_turns_in_a_video(tmp_path: Path) -> None:
    video = open_video(write_numbered(tmp_path / "a.mp4", *KINDS["h264_b.mp4"]))
    places = [random.Random(seed).choices(range(N), k=3) for seed in range(40)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda some: numbers(video[some]), places)) == places
