"""python -m evt.occupancy, and the policy that its files are for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from evt import bench
from evt.data.video import Boxes, Frame
from evt.errors import ConfigError, DataError
from evt.evaluate.occupancy import MappedRegions, Occupancy
from evt.evaluate.variants import check_policy
from evt.eventful import VARIANTS, Regions
from evt.occupancy import occupancy_task
from evt.run import run
from tests.commands import Refused, command
from tests.common import small_detector

MINI = ["model=vitdet_mini", "data.n_videos=1", "data.n_frames=5", "threads=1"]


def frame(*boxes: list[float], crowd: bool = False, labelled: bool = True) -> Frame:
    """Of 64 x 64 pixels, which become 40 x 40 of 64 x 64: patches of 16 are 25.6 pixels."""
    found = torch.tensor(boxes).reshape(-1, 4)
    target = Boxes(found, torch.zeros(len(boxes), dtype=torch.long), torch.full((len(boxes),), crowd))
    return Frame(torch.zeros(3, 64, 64, dtype=torch.uint8), "", False, target if labelled else None)


def test_a_share_is_of_labelled_frames_and_of_single_objects() -> None:
    """Two objects over a token in one frame count once there, a crowd and a frame without labels not at all."""
    frames = [
        frame([0, 0, 20, 20], [10, 10, 24, 24]),
        frame([0, 0, 30, 10]),
        frame([0, 0, 60, 60], crowd=True),
        frame(),
        frame([0, 0, 60, 60], labelled=False),
    ]
    found = Occupancy.of(small_detector(), frames, "these")
    assert found == Occupancy("these", [4, 4], 4, [[0.5, 0.25, 0, 0], *[[0.0] * 4 for _ in range(3)]])
    with pytest.raises(DataError, match="these: no frame of it has boxes"):
        Occupancy.of(small_detector(), frames[-1:], "these")


def test_a_map_is_made_and_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The detector's own boxes lead: with a confidence that nothing reaches and no map, whole frames alone cost."""
    path = tmp_path / "where.json"
    command(
        monkeypatch,
        occupancy_task,
        *MINI,
        "data.split=train",
        f"out={path}",
        f"hydra.run.dir={tmp_path}/o",
    )
    assert "sprites train, 5 frames, 16 x 16 tokens" in capsys.readouterr().out
    gflops = {}
    chosen = ["variant=frame", "policy=regions", "compare=false", f"hydra.run.dir={tmp_path}/r"]
    for more in ("policy.confidence=1", "policy.confidence=0.3", f"policy.map={path} policy.at_least=1e-4"):
        command(monkeypatch, run, *MINI, *chosen, *more.split())
        later = json.loads((tmp_path / "r/metrics.json").read_text())["later"]
        gflops[more] = later["gflops"]
    nothing, boxes, mapped = gflops.values()
    assert nothing < boxes < mapped


def test_another_size_is_refused_and_a_file_that_was_edited(tmp_path: Path, refused: Refused) -> None:
    path = tmp_path / "where.json"
    Occupancy("a", [4, 4], 9, [[0.5] * 4] * 4).write(path)
    chosen = ["model=vitdet_mini", "variant=frame", "policy=regions", f"policy.map={path}"]
    assert f"objects tend to be, policy.map={path}, has 4 x 4 tokens, and a frame has 16" in refused(*chosen)
    assert "has 4 x 4 tokens, and a frame has 16 x 16; it must be made for frames of this" in refused(*chosen)
    text = path.read_text()
    for damaged, sentence in (
        (text.replace("0.5", "0.6", 1), "damaged or edited; its sha256 is of other content"),
        (text[:50], "damaged, or no file that `python -m evt.occupancy` wrote"),
    ):
        path.write_text(damaged)
        with pytest.raises(DataError, match=sentence):
            MappedRegions(map=path)
    with pytest.raises(DataError, match=r"there is no such file; `python -m evt\.occupancy` writes one"):
        MappedRegions(map=tmp_path / "none.json")


@pytest.mark.parametrize("policy", ["regions", "rollout policy.keep=64"])
def test_without_a_detector_it_is_refused(policy: str, refused: Refused) -> None:
    """Of random weights nothing is detected, and no race detects; before the work and not after it."""
    chosen = ["variant=frame", f"policy={policy.split()[0]}", *policy.split()[1:]]
    assert "here nothing is detected: python -m evt.run and tables do" in refused("model=vitdet", *chosen)
    raced = refused("model=vitdet_mini", *chosen, task=bench.bench)
    assert "here nothing is detected" in raced
    with pytest.raises(ConfigError, match="follows what a detector finds, and this model has none"):
        check_policy(Regions(), VARIANTS["frame"], object())
