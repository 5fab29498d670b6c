"""The weights that ship must see what their cards say, on generated data and through the readers of files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from evt.data.sprites import SpriteVideos
from evt.data.sprites.writing import write_vid
from evt.run import run
from tests.commands import command


def ran(monkeypatch: pytest.MonkeyPatch, folder: Path, *arguments: str) -> dict[str, Any]:
    command(monkeypatch, run, *arguments, "compare=false", f"hydra.run.dir={folder}")
    metrics: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    return metrics


def test_a_written_tree_gives_the_same_map50_as_the_videos_themselves(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Frames and boxes must survive the way through PNG, XML and the reader of ImageNet VID."""
    of = ("model=vitdet_mini", "policy.r=64")
    made = ran(monkeypatch, tmp_path / "made", *of, "data.n_videos=3", "data.n_frames=6")
    write_vid(SpriteVideos(3, 6, (192, 192), split="val"), tmp_path / "tree", "val", "png")
    read = ran(monkeypatch, tmp_path / "read", *of, "data=vid", f"data.root={tmp_path}/tree")
    assert made["detection"]["map50"] == read["detection"]["map50"]
    assert made["detection"]["n_detections"] == read["detection"]["n_detections"]
    assert made["all"]["gflops"] == read["all"]["gflops"]
    assert made["detection"]["map50"] > 60


def test_the_small_vivit_tells_motions_apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    metrics = ran(monkeypatch, tmp_path, "model=vivit_mini", "variant=base", "policy=none", "data.n_clips=48")
    assert metrics["recognition"]["top1"] > 75
