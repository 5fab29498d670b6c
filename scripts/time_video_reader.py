"""Frames a second of the reader of videos, and of decord and plain PyAV, by turns, as medians.

python scripts/time_video_reader.py FILES...        # pip install decord2 for its column
python scripts/time_video_reader.py --minute        # of a video like those of EPIC-Kitchens, made for it
"""

from __future__ import annotations

from evt.interrupt import imports_are_done, leave_at_once

if __name__ == "__main__":
    leave_at_once()

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import av
import numpy as np

from evt.data.reader import VideoFile

AT_ONCE = 16


def ours(path: Path, positions: Sequence[int]) -> None:
    """The project's reader, opened anew."""
    video = VideoFile(path)
    for first in range(0, len(positions), AT_ONCE):
        video[positions[first : first + AT_ONCE]]


def decord(path: Path, positions: Sequence[int]) -> None:
    """decord, on one thread."""
    from decord import VideoReader, logging

    logging.set_level(logging.QUIET)
    video = VideoReader(str(path), num_threads=1)
    for first in range(0, len(positions), AT_ONCE):
        video.get_batch(positions[first : first + AT_ONCE]).asnumpy()


def pyav(path: Path, positions: Sequence[int]) -> None:
    """PyAV as its documentation shows it: decode from the start, turn the frames asked for into arrays."""
    wanted = set(positions)
    with av.open(str(path)) as file:
        for i, frame in enumerate(file.decode(video=0)):
            if i in wanted:
                frame.to_ndarray(format="rgb24")
            if i == max(wanted):
                break


def write_minute(path: Path) -> Path:
    """60 s of moving noise, 456x256 at 50 frames a second, H.264 with B-frames and a key frame every 250."""
    noise = np.random.default_rng(0).integers(0, 255, (32, 57, 3), np.uint8)
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=50, options={"preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = 456, 256, "yuv420p"
        for i in range(3000):
            picture = np.roll(noise.repeat(8, 0).repeat(8, 1), (i, 2 * i), (0, 1))
            file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        file.mux(stream.encode())
    return path


def main() -> None:
    """A Markdown table on stdout."""
    imports_are_done()
    parser = argparse.ArgumentParser(description="Time the reader of videos beside decord and PyAV.")
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE")
    parser.add_argument("--minute", action="store_true", help="time a made video of 60 s, too")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = [*arguments.files, *([write_minute(Path(folder, "minute.mp4"))] if arguments.minute else [])]
        if not files:
            parser.error("no FILE is given, and no --minute")
        print_table(files, arguments.repeats)


def print_table(files: Sequence[Path], repeats: int) -> None:
    """A row for each file and order of its frames."""
    readers: list[Callable[[Path, Sequence[int]], None]] = [ours, decord, pyav]
    print(f"| file | frames | {' | '.join(reader.__name__ for reader in readers)} |")
    print("|---|---|---|---|---|")
    for path in files:
        n = len(VideoFile(path))
        orders = {
            "all": list(range(n)),
            "every 8th": list(range(0, n, 8)),
            "16 of a segment": list(range(n // 2, min(n, n // 2 + 32), 2)),
            "32 at random": random.Random(0).sample(range(n), min(n, 32)),
        }
        for name, positions in orders.items():
            seconds: list[list[float]] = [[] for _ in readers]
            for _ in range(repeats):
                for times, reader in zip(seconds, readers, strict=True):
                    start = time.perf_counter()
                    reader(path, positions)
                    times.append(time.perf_counter() - start)
            rates = [f"{len(positions) / statistics.median(times):.0f}" for times in seconds]
            print(f"| {path.name} | {name} | {' | '.join(rates)} |")


if __name__ == "__main__":
    main()
