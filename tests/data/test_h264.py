"""H.264 with stretches of zeros, as files have them that were not downloaded whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from evt.data import open_video
from evt.errors import DataError
from tests.data.test_reader import KINDS, write_numbered


@pytest.mark.parametrize("zeros", [4, 188, 3000])
def test_zeros_end_in_a_sentence_or_a_picture(tmp_path: Path, zeros: int) -> None:
    """Else a part of a packet that says it is of no length would end a run in a traceback."""
    path = write_numbered(tmp_path / "a.mp4", *KINDS["h264_b.mp4"])
    content = path.read_bytes()
    begin = content.index(b"mdat") + 4
    refused = 0
    for at in range(begin, len(content) - zeros, (len(content) - begin) // 12):
        path.write_bytes(content[:at] + bytes(zeros) + content[at + zeros :])
        try:
            video = open_video(path)
            for i in range(0, len(video), 3):
                video[i]
        except DataError:
            refused += 1
    assert refused > 6
