"""Decode videos from start to end and from the end to the start, and say of each whether it reads right.

python scripts/check_videos.py FILES...
"""

from __future__ import annotations

from evt.interrupt import imports_are_done, leave_at_once

if __name__ == "__main__":
    leave_at_once()

import argparse
import hashlib
import sys
from pathlib import Path

from evt.data import open_video
from evt.errors import DataError


def check(path: Path) -> tuple[bool, str]:
    """Whether a file reads right, and what it is or what is wrong with it."""
    try:
        video = open_video(path)
        hashes = [hashlib.sha1(video[i].numpy().tobytes()).digest() for i in range(len(video))]
        step = max(1, len(video) // 16)
        for i in range(len(video) - 1, -1, -step):
            if hashlib.sha1(video[i].numpy().tobytes()).digest() != hashes[i]:
                return False, f"frame {i} is another one when it is read alone"
    except DataError as error:
        return False, str(error).removeprefix(f"{path}: ")
    height, width = video.size
    seconds = video.end - video.times[0]
    what = f"{len(video)} frames of {width}x{height}, {seconds:.2f} s, {video.fps:.2f} a second, read by PyAV"
    return video.truncated is None, f"{what}, {video.truncated}" if video.truncated else what


def main(arguments: list[str] | None = None) -> int:
    """A line for each file; 1 where one does not read right."""
    imports_are_done()
    parser = argparse.ArgumentParser(
        description="Say of each video whether it reads right, and what is wrong."
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    wrong = 0
    for path in parser.parse_args(arguments).files:
        right, sentence = check(path)
        wrong += not right
        print(f"{'ok   ' if right else 'WRONG'} {path}: {sentence}")
    return min(wrong, 1)


if __name__ == "__main__":
    sys.exit(main())
