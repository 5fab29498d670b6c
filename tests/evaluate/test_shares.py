"""A run in several processes: the very figures of one."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evt.cli import fail, run_command
from evt.evaluate.shares import Share, places_of
from evt.run import run
from evt.workers import quiet_unless_first
from tests.commands import command, failed

ROOT = Path(__file__).parents[2]
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
TIMES = {"ms", "dense_ms", "detector_ms", "seconds", "dense_seconds", "peak_memory_bytes", "first", "later"}


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, *TORCHRUN, "-m", "evt.run", *arguments, f"hydra.run.dir={folder}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    )


def finished(folder: Path, *arguments: str) -> str:
    with start(folder, *arguments) as process:
        said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    return said


def untimed(part: Any) -> Any:
    """Less what is a time."""
    if isinstance(part, dict):
        return {name: untimed(x) for name, x in part.items() if name not in TIMES or isinstance(x, dict)}
    return [untimed(x) for x in part] if isinstance(part, list) else part


def figures(folder: Path) -> Any:
    return untimed(json.loads((folder / "metrics.json").read_text()))


def samples(folder: Path) -> Any:
    return [untimed(json.loads(line)) for line in (folder / "samples.jsonl").read_text().splitlines()]


def files(folder: Path) -> dict[str, bytes]:
    """Those that have no time in them."""
    found = [folder / "detections.jsonl", folder / "budget.csv", *folder.glob("trace/*")]
    return {path.name: path.read_bytes() for path in found}


VIDEOS = [
    *("model=vitdet_mini", "variant=rows", "data.n_videos=5", "data.n_frames=3", "trace=true"),
    *("policy=operations", "policy.per_second=5", "policy.fps=25", "policy.high=128"),
]


def test_two_processes_give_the_figures_of_one_also_after_a_kill(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """All but times, byte for byte; of a budget, too, that follows what frames took, whichever video came before.

    One process is killed, as the system does where memory is short, and the others end with it.
    """
    command(monkeypatch, run, *VIDEOS, f"hydra.run.dir={tmp_path}/one")
    with start(tmp_path / "killed", *VIDEOS) as process:
        for _ in range(6000):
            if any(path.stat().st_size for path in (tmp_path / "killed").glob("videos.*.jsonl")):
                break
            time.sleep(0.05)
        workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(workers[-1]), signal.SIGKILL)
        process.communicate(timeout=60)
    assert process.returncode != 0
    kept = sum(path.read_text().count("\n") for path in (tmp_path / "killed").glob("videos.*.jsonl"))
    assert 1 <= kept <= 5
    assert finished(tmp_path / "killed", *VIDEOS).count("written to") == 1
    one = files(tmp_path / "one")
    assert len(one) == 2 + 5
    assert files(tmp_path / "killed") == one
    assert samples(tmp_path / "killed") == samples(tmp_path / "one")
    assert figures(tmp_path / "killed") == figures(tmp_path / "one")
    assert not list((tmp_path / "killed").glob("videos*.jsonl"))


def test_clips_are_shared_as_well(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clips = ["model=vivit_mini", "variant=base", "policy=none", "data.n_clips=5", "compare=false"]
    command(monkeypatch, run, *clips, f"hydra.run.dir={tmp_path}/one")
    finished(tmp_path / "two", *clips)
    assert figures(tmp_path / "two") == figures(tmp_path / "one")


def test_other_processes_leave_it_to_the_first_one_to_say_what_is_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """But one that goes on alone says it, after all; warnings of what all read are the first one's."""
    waited: list[float] = []
    monkeypatch.setattr("evt.workers.time.sleep", waited.append)
    for rank in (0, 1):
        monkeypatch.setenv("RANK", str(rank))
        with pytest.raises(SystemExit) as end:
            fail("it is wrong")
        assert (end.value.code, len(waited)) == (2, rank)
        with quiet_unless_first():
            logging.getLogger("evt").warning("it is odd")
    assert capsys.readouterr().err.count("it is wrong") == 2
    assert caplog.messages == ["it is odd"]


@pytest.mark.parametrize(
    ("arguments", "shared", "sentence"),
    [
        (["-m", "policy.r=1,2"], True, "2 processes, which share one run, and -m asks for a sweep"),
        ([], False, "2 processes, and evt.bench runs in one: start it by python -m evt.bench"),
    ],
)
def test_what_processes_cannot_share_is_refused(
    arguments: list[str],
    shared: bool,
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Each would do all of it, and write to the same files."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr("sys.argv", ["evt", *arguments])
    assert sentence in failed(capsys, lambda: run_command("bench", lambda cfg: None, shared))


@given(st.lists(st.integers(1, 100), max_size=20), st.integers(1, 5))
def test_each_unit_is_done_once_and_nobody_has_much_more_to_do(lengths: list[int], world: int) -> None:
    shares = [places_of(lengths, rank, world) for rank in range(world)]
    assert sorted(place for share in shares for place in share) == list(range(len(lengths)))
    loads = [sum(lengths[place] for place in share) for share in shares]
    assert max(loads) - min(loads) <= max(lengths, default=0)


def test_a_share_is_its_data_set_for_everything_else() -> None:
    class Data(list[str]):
        classes = ("a", "b")
        missing = ("gone",)

    share = Share(Data("vwxyz"), [1, 3])
    assert ([*share], len(share), share[1], share.classes) == (["w", "y"], 2, "y", ("a", "b"))
    assert share.missing == ()
    with pytest.raises(AttributeError):
        _ = share.nothing
