"""Scripts find out before their work that what they write cannot be written, and leave what was there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def draw(table: Path, out: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, ROOT / "scripts/draw_curves.py", table, out],
        capture_output=True,
        text=True,
        check=False,
    )


def test_curves_that_cannot_be_written_are_said_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    done = draw(ROOT / "results/table_c_mini.csv", tmp_path / "file/curves.svg")
    assert done.returncode == 2
    assert done.stderr == f"error: {tmp_path}/file: not a directory\n"
    assert (tmp_path / "file").read_text() == "kept"


def test_curves_are_written_whole_and_into_a_new_folder(tmp_path: Path) -> None:
    done = draw(ROOT / "results/table_c_mini.csv", tmp_path / "new/curves.svg")
    assert done.stdout == f"written to {tmp_path}/new/curves.svg\n", done.stderr
    assert (tmp_path / "new/curves.svg").read_text().rstrip().endswith("</svg>")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["curves.svg"]


INTERRUPTED = """
import argparse, runpy, sys
def interrupt(*arguments):
    raise KeyboardInterrupt
argparse.ArgumentParser.parse_args = interrupt
sys.argv = [sys.argv[1]]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize("script", ["draw_curves", "check_videos"])
def test_ctrl_c_is_one_word(script: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, ROOT / f"scripts/{script}.py"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert done.stderr == "interrupted\n"
