"""Pictures of merged patches, against one that was made by hand, and the script that draws them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from evt.tokens.picture import draw_groups
from tests.common import ROOT
from tests.videos import write_video


def test_groups_have_their_mean_color_and_a_border() -> None:
    """Two steps of 1 x 3 patches of 2 x 2 pixels: a group within a step, one over both, and one patch dropped."""
    frames = torch.zeros(2, 3, 2, 6)
    frames[0, 0, :, :2], frames[0, 0, :, 2:4] = 0.2, 0.6  # group 0, red
    frames[0, 1, :, 4:], frames[1, 1, :, 4:] = 0.5, 0.1  # group 1, green
    frames[1, 2, :, 2:4] = 1  # dropped, blue
    picture = draw_groups(frames, torch.tensor([[[0, 0, 1]], [[2, -1, 1]]]))
    red, green, black, white = (0.4, 0, 0), (0, 0.3, 0), (0, 0, 0), (1, 1, 1)
    for step, row in enumerate(([red] * 4 + [white, green], [black, black, white, black, white, green])):
        for y in range(2):
            torch.testing.assert_close(picture[step, :, y].T, torch.tensor(row))


def test_what_are_no_whole_patches_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(2, 3, 2, 5\); they must be 2 steps of 1 by 3 patches"):
        draw_groups(torch.zeros(2, 3, 2, 5), torch.zeros(2, 1, 3, dtype=torch.int64))


def drawn(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, ROOT / "scripts/draw_merging.py", *arguments],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_a_video_is_drawn(tmp_path: Path) -> None:
    """Frames and groups, a column for each of the 8 steps, three times as large as the model sees them."""
    write_video(tmp_path / "clip.mp4", n_frames=16, fps=25)
    done = drawn(tmp_path / "clip.mp4", tmp_path / "out.png", "--r", "100", "50", "--blocks", "1", "6")
    assert done.stdout.endswith(f"written to {tmp_path}/out.png\n"), done.stderr
    pixels = np.asarray(Image.open(tmp_path / "out.png"))
    assert pixels.shape == (3 * 3 * 80, 8 * 3 * 80, 3)
    _, once, twice = np.split(pixels, 3)
    edges = [int((part == 255).all(-1).sum()) for part in (once, twice)]
    assert edges[0] > edges[1] > 0
    done = drawn(tmp_path / "clip.mp4", tmp_path / "out.png", "--blocks", "7")
    assert (done.returncode, done.stderr) == (2, "error: --blocks has 7; the blocks are 1 to 6\n")
