"""The log of a budget that follows something: of each video by its name, from its own first frame on."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from evt.evaluate.kept import BUDGET, SAMPLES
from evt.run import run
from tests.commands import command


def test_each_video_has_its_own_frames_and_does_not_depend_on_those_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Operations are those that the run measured; a second video begins at `high`, as the first one does."""
    arguments = [
        "model=vitdet_mini",
        "variant=rows",
        "policy=operations",
        "policy.per_second=5",
        "policy.fps=25",
    ]
    arguments += ["policy.high=128", "data.n_videos=2", "data.n_frames=4", "compare=false"]
    command(monkeypatch, run, *arguments, f"hydra.run.dir={tmp_path}")
    table = pd.read_csv(tmp_path / BUDGET)
    assert list(table.columns) == ["video", "frame", "r", "GFlops a second"]
    samples = [json.loads(line) for line in (tmp_path / SAMPLES).read_text().splitlines()[1:]]
    assert len({sample["content"] for sample in samples}) == 2
    for sample in samples:
        own = table[table.video == sample["name"]]
        assert own.frame.tolist() == [1, 2, 3]
        assert own.r.iloc[0] == 128 > own.r.iloc[2]
        gflops = [sum(step["ops"].values()) / 1e9 for step in sample["records"]["cost"]]
        assert own["GFlops a second"].tolist() == pytest.approx([25 * x for x in gflops[1:]], rel=1e-5)


def test_a_clip_is_logged_step_by_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Labelled clips by their names, and a video without a label by its own."""
    arguments = ["model=vivit_mini", "variant=rows", "policy=latency", "policy.target_ms=9", "compare=false"]
    for data, n in (["data.n_clips=2"], 2), (["data=sprites", "data.n_videos=1", "data.n_frames=16"], 1):
        command(monkeypatch, run, *arguments, *data, f"hydra.run.dir={tmp_path}/{n}")
        table = pd.read_csv(tmp_path / str(n) / BUDGET)
        assert table.video.nunique() == n
        assert table.frame.tolist() == [1, 2, 3, 4, 5, 6, 7] * n
