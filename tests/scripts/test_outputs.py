"""Scripts find out before their work that what they write cannot be written, and leave what was there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
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


def test_curves_are_not_drawn_of_a_table_without_their_columns(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("variant,gflops\nbase,1\n")
    done = draw(table, tmp_path / "t.svg")
    assert done.returncode == 2
    assert "has no column interval, map50 or top1; its columns are variant, gflops" in done.stderr
    assert not (tmp_path / "t.svg").exists()


def test_error_over_frames_is_drawn_of_its_table(tmp_path: Path) -> None:
    table = tmp_path / "error.csv"
    table.write_text(
        "variant,r,every,error_1,error_8,error_1_interval,error_8_interval\n"
        "base,,,0,0,0,0\nskip,,4,0.1,0.3,0.01,0.02\ntemporal,64,,0.1,0.2,0.01,0.02\ntemporal,16,,0.2,0.5,0.01,0.02\n"
    )
    assert draw(table, tmp_path / "error.svg").returncode == 0
    text = (tmp_path / "error.svg").read_text()
    for shown in (
        "frames since the flush",
        "relative L2 error",
        "r = 64",
        "r = 16",
        "1 of 4 frames",
        "temporal",
    ):
        assert f"<!-- {shown}" in text
    table.write_text("variant,r,error_1\ntemporal,64,1\n")
    assert "has no column every" in draw(table, tmp_path / "error.svg").stderr


@pytest.mark.parametrize("figure", ["7", "8", "9"])
def test_figures_follow_from_the_tables(figure: str, tmp_path: Path) -> None:
    """A figure is another one where a table is, the same where it is not, and complains of one that lacks."""
    tables = tmp_path / "tables"
    shutil.copytree(ROOT / "results", tables)

    def drawn(out: str) -> subprocess.CompletedProcess[str]:
        script = str(ROOT / "scripts/draw_figures.py")
        command = [sys.executable, script, figure, str(tmp_path / out), "--tables", str(tables)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    for out in ("a", "b"):
        done = drawn(out)
        assert done.stdout == f"written to {tmp_path / out}.svg and {tmp_path / out}.png\n", done.stderr
    first = (tmp_path / "a.svg").read_text()
    assert first == (tmp_path / "b.svg").read_text()
    small = tables / ("table_d_mini.csv" if figure == "9" else "table_c_mini.csv")
    accuracy = "top1" if figure == "9" else "map50"
    table = pd.read_csv(small)
    table.loc[table.variant == "temporal", accuracy] -= 5
    table.to_csv(small, index=False)
    assert drawn("c").returncode == 0
    assert (tmp_path / "c.svg").read_text() != first
    table.drop(columns=accuracy).to_csv(small, index=False)
    assert f"has no column {accuracy}" in drawn("d").stderr
    table[accuracy] = table[accuracy].astype(str).replace(str(table[accuracy][0]), "abc")
    table.to_csv(small, index=False)
    assert f"column {accuracy} has values that are no numbers" in drawn("d").stderr
    table.replace({"variant": {"temporal": "tmporal"}}).assign(**{accuracy: 1}).to_csv(small, index=False)
    assert "has no row of variant temporal; there are" in drawn("d").stderr


SCRIPTS = sorted(path.name for path in (ROOT / "scripts").glob("*.py"))
COMMANDS = [
    *(
        ["-m", f"evt.{name}"]
        for name in ("run", "bench", "train", "reproduce", "claims", "conformance", "compare", "demo")
    ),
    ["-mevt.data.sprites", "OUT"],
    *([f"{ROOT}/scripts/{name}"] for name in SCRIPTS),
]


@pytest.fixture
def interrupting_imports(tmp_path: Path) -> dict[str, str]:
    """An environment in which the first import of a package that takes its time is met by a real Ctrl-C."""
    for name in ("av", "matplotlib", "numpy", "omegaconf", "pandas", "PIL", "torch", "tqdm"):
        (tmp_path / f"{name}.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT / "src")])}


@pytest.mark.parametrize("command", COMMANDS, ids=lambda x: x[-1].rpartition("/")[2])
def test_ctrl_c_during_imports_is_one_word(command: list[str], interrupting_imports: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, *command], env=interrupting_imports, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (130, "interrupted\n")


def test_ctrl_c_of_programs_that_import_the_package_stays_theirs(tmp_path: Path) -> None:
    """Whether they are packages themselves, run by name, with arguments like ours, or files."""
    (tmp_path / "evting").mkdir()
    (tmp_path / "evting/__init__.py").write_text("import evt\n")
    (tmp_path / "evting/train.py").write_text(
        "import signal\nprint(signal.getsignal(signal.SIGINT) is signal.default_int_handler)\n"
    )
    (tmp_path / "alone.py").write_text("import evt\n" + (tmp_path / "evting/train.py").read_text())
    for command in (["-m", "evting.train"], ["-m", "evting.train", "-m", "evt.run"], ["alone.py"]):
        done = subprocess.run(
            [sys.executable, *command],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT / "src")])},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout == "True\n", command


INTERRUPTED = """
import argparse, runpy, sys
def interrupt(*arguments):
    raise KeyboardInterrupt
argparse.ArgumentParser.parse_args = interrupt
sys.argv = [sys.argv[1]]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize("script", ["draw_curves", "check_videos"])
def test_ctrl_c_after_imports_is_one_word(script: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, ROOT / f"scripts/{script}.py"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert done.stderr == "interrupted\n"
