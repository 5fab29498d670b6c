"""A run in several processes: the very figures of one."""

from __future__ import annotations

import json
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

from evt.evaluate.shares import Share, places_of

ROOT = Path(__file__).parents[2]
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
TIMES = {"ms", "dense_ms", "detector_ms", "seconds", "dense_seconds", "peak_memory_bytes", "first", "later"}


def start(launcher: list[str], folder: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, *launcher, "-m", "evt.run", *arguments, f"hydra.run.dir={folder}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    )


def finished(launcher: list[str], folder: Path, *arguments: str) -> str:
    with start(launcher, folder, *arguments) as process:
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


VIDEOS = ["model=vitdet_mini", "variant=rows", "policy.r=64", "data.n_videos=5", "data.n_frames=3"]


def test_two_processes_give_the_figures_of_one_also_after_a_kill(tmp_path: Path) -> None:
    """Detections byte for byte. What was finished before the kill is not run again, by fewer processes either."""
    finished([], tmp_path / "one", *VIDEOS)
    said = finished(TORCHRUN, tmp_path / "two", *VIDEOS)
    assert said.count("written to") == 1
    with start(TORCHRUN, tmp_path / "killed", *VIDEOS) as process:
        for _ in range(1200):
            if any(path.stat().st_size for path in (tmp_path / "killed").glob("videos.*.jsonl")):
                break
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    kept = sum(path.read_text().count("\n") for path in (tmp_path / "killed").glob("videos.*.jsonl"))
    assert 1 <= kept <= 5
    finished([], tmp_path / "killed", *VIDEOS)
    one = (tmp_path / "one/detections.jsonl").read_bytes()
    for folder in ("two", "killed"):
        assert (tmp_path / folder / "detections.jsonl").read_bytes() == one
        assert figures(tmp_path / folder) == figures(tmp_path / "one")
        assert not list((tmp_path / folder).glob("videos*.jsonl"))


def test_clips_are_shared_as_well(tmp_path: Path) -> None:
    clips = ["model=vivit_mini", "variant=base", "policy=none", "data.n_clips=5", "compare=false"]
    finished([], tmp_path / "one", *clips)
    finished(TORCHRUN, tmp_path / "two", *clips)
    assert figures(tmp_path / "two") == figures(tmp_path / "one")


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
