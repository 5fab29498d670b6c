"""Frames a second of the reader of videos, and of decord and plain PyAV, by turns, as medians.

python scripts/time_video_reader.py FILES...        # pip install decord2 for its column
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import av

from evt.data.reader import VideoFile
from evt.interrupt import imports_are_done

AT_ONCE = 16


def ours(path: Path, positions: Sequence[int]) -> None:
    """The project's reader, opened anew."""
    video = VideoFile(path)
    for first in range(0, len(positions), AT_ONCE):
        video[positions[first : first + AT_ONCE]]


def decord(path: Path, positions: Sequence[int]) -> None:
    """decord, on one thread."""
    from decord import VideoReader, logging  # type: ignore[import-untyped, import-not-found, unused-ignore]

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


def main() -> None:
    """A Markdown table on stdout."""
    imports_are_done()
    parser = argparse.ArgumentParser(description="Time the reader of videos beside decord and PyAV.")
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    readers: list[Callable[[Path, Sequence[int]], None]] = [ours, decord, pyav]
    print(f"| file | frames | {' | '.join(reader.__name__ for reader in readers)} |")
    print("|---|---|---|---|---|")
    for path in arguments.files:
        n = len(VideoFile(path))
        orders = {
            "all": list(range(n)),
            "every 8th": list(range(0, n, 8)),
            "32 at random": random.Random(0).sample(range(n), min(n, 32)),
        }
        for name, positions in orders.items():
            seconds: list[list[float]] = [[] for _ in readers]
            for _ in range(arguments.repeats):
                for times, reader in zip(seconds, readers, strict=True):
                    start = time.perf_counter()
                    reader(path, positions)
                    times.append(time.perf_counter() - start)
            rates = [f"{len(positions) / statistics.median(times):.0f}" for times in seconds]
            print(f"| {path.name} | {name} | {' | '.join(rates)} |")


if __name__ == "__main__":
    main()
