"""A label counts as the class of its name: in whatever order the data set numbers it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from evt.data.sprites import ACTIONS, CLASSES, SpriteClips, SpriteVideos
from evt.data.sprites.writing import write_kinetics
from evt.errors import ConfigError
from evt.evaluate.classes import class_names, in_model_order, warn_of_generated
from evt.models.loading import Weights, build_model
from tests.common import ROOT


def test_clips_on_disk_score_as_those_that_they_were_written_from(tmp_path: Path) -> None:
    clips = SpriteClips(n_clips=12, n_frames=16, size=(80, 80))
    write_kinetics(clips, tmp_path, "val")
    top1 = []
    for data in (
        ["data=sprite_clips", "data.n_clips=12", "data.n_frames=16", "data.size=[80,80]"],
        ["data=kinetics", f"data.annotations={tmp_path}/val.csv", f"data.videos={tmp_path}/val"],
    ):
        folder = tmp_path / data[0]
        arguments = [*data, f"hydra.run.dir='{folder}'", "model=vivit_mini", "variant=base", "policy=none"]
        done = subprocess.run(
            [sys.executable, "-m", "evt.run", *arguments, "compare=false"], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        top1.append(json.loads((folder / "metrics.json").read_text())["recognition"]["top1"])
    # mp4 changes pixels, and one clip of 12 with them; labels of other classes would leave 1 of 12, or none.
    assert min(top1) > 80
    assert abs(top1[0] - top1[1]) < 9


def test_labels_are_renumbered_by_name_and_other_names_are_refused() -> None:
    model, weights = build_model(
        DictConfig(OmegaConf.load(ROOT / "configs/model/vivit_mini.yaml")), torch.device("cpu")
    )
    data = SpriteClips(n_clips=12, n_frames=16)
    data.classes = sorted(ACTIONS)  # the labels now stand for other actions, as in a csv's alphabetical order
    mapped = in_model_order(model, weights, data)
    assert [ACTIONS[clip.label] for clip in mapped] == [sorted(ACTIONS)[clip.label] for clip in data]
    data.classes = ["juggling", *ACTIONS[1:]]
    with pytest.raises(ConfigError, match="the data alone has 'juggling'; the model alone has 'moving left'"):
        in_model_order(model, weights, data)


def test_a_detector_refuses_objects_of_other_names_and_of_another_order() -> None:
    videos = SpriteVideos(n_videos=1, n_frames=1)
    assert class_names(videos, 8, CLASSES) == videos.classes
    with pytest.raises(ConfigError, match="the data have other classes than the model: the data alone"):
        class_names(videos, 8, [f"thing {i}" for i in range(8)])
    with pytest.raises(ConfigError, match="in another order"):
        class_names(videos, 8, CLASSES[::-1])


def test_generated_classes_on_other_videos_are_told(caplog: pytest.LogCaptureFixture) -> None:
    weights = Weights("x", "0", CLASSES)
    warn_of_generated(weights, SpriteVideos(n_videos=1, n_frames=1))
    written = SimpleNamespace(classes=CLASSES)  # as files they are read as those of real data
    warn_of_generated(weights, written)
    assert not caplog.records
    warn_of_generated(weights, [])
    assert "only know classes of generated videos" in caplog.text
