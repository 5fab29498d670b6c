"""A label counts as the class of its name: in whatever order the data set numbers it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from safetensors import safe_open
from safetensors.torch import load_file

from evt import setup
from evt.data.sprites import ACTIONS, CLASSES, SpriteClips, SpriteVideos
from evt.data.sprites.writing import write_kinetics
from evt.errors import CheckpointError, ConfigError
from evt.eventful import Variant
from evt.models.checkpoints import classes_in, read_class_names, save_checkpoint
from evt.models.shipped import FOLDER
from evt.tokens import Merge
from tests.common import ROOT

CPU = torch.device("cpu")


def _model(**changed: object) -> DictConfig:
    return OmegaConf.merge(OmegaConf.load(ROOT / "configs/model/vivit_mini.yaml"), changed)  # type: ignore[return-value]


def test_all_that_ships_carries_the_names_that_its_data_have() -> None:
    for path in FOLDER.glob("*.safetensors"):
        expected = CLASSES if path.stem.startswith("vitdet") else ACTIONS
        with safe_open(path, "pt") as file:
            assert json.loads(file.metadata()["evt.classes"]) == list(expected)
        assert ", ".join(expected) in path.with_suffix(".md").read_text()


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
    model, weights = setup.build_vivit(_model(), CPU)
    data = SpriteClips(n_clips=12, n_frames=16)
    data.classes = sorted(ACTIONS)  # the labels now stand for other actions, as in a csv's alphabetical order
    mapped = setup.in_model_order(model, weights, data)
    assert [ACTIONS[clip.label] for clip in mapped] == [sorted(ACTIONS)[clip.label] for clip in data]
    data.classes = ["juggling", *ACTIONS[1:]]
    with pytest.raises(ConfigError, match="the data alone has 'juggling'; the model alone has 'moving left'"):
        setup.in_model_order(model, weights, data)


def test_names_come_from_a_file_where_weights_carry_none(tmp_path: Path) -> None:
    bare = tmp_path / "bare.safetensors"
    save_checkpoint(load_file(FOLDER / "vivit_mini.safetensors"), bare)
    assert classes_in(bare) is None
    names = tmp_path / "names.txt"
    names.write_text("".join(f"action {i}\n" for i in range(12)))
    _, weights = setup.build_vivit(_model(checkpoint=str(bare), class_names=str(names)), CPU)
    assert weights.classes == [f"action {i}" for i in range(12)]
    names.write_text("a\nb\n")
    with pytest.raises(ConfigError, match="names 2 classes, but the model has 12"):
        setup.build_vivit(_model(checkpoint=str(bare), class_names=str(names)), CPU)
    names.write_text("a\na\n")
    with pytest.raises(CheckpointError, match="'a' is there twice"):
        read_class_names(names)


def test_a_detector_refuses_objects_of_other_names_and_of_another_order() -> None:
    videos = SpriteVideos(n_videos=1, n_frames=1)
    assert setup.class_names(videos, 8, CLASSES) == videos.classes
    with pytest.raises(ConfigError, match="the data have other classes than the model: the data alone"):
        setup.class_names(videos, 8, [f"thing {i}" for i in range(8)])
    with pytest.raises(ConfigError, match="in another order"):
        setup.class_names(videos, 8, CLASSES[::-1])


def test_generated_classes_on_other_videos_are_told(caplog: pytest.LogCaptureFixture) -> None:
    weights = setup.Weights("x", "0", CLASSES)
    videos = SpriteVideos(n_videos=1, n_frames=1)
    setup.warn_of_generated(weights, "sprites", videos)
    setup.warn_of_generated(weights, "vid", videos)  # written out, they are read as those of real data
    assert not caplog.records
    setup.warn_of_generated(weights, "video", [])
    assert "only know classes of generated videos" in caplog.text


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"seed": 2**64}, "model.seed is"),
        ({"spatial_depth": 1_000_000_000}, "model.spatial_depth=1000000000"),
        ({"classes": 10**12}, "model.classes=1000000000000"),
        ({"temporal_views": 10**9}, "model.temporal_views=1000000000"),
        ({"classes": 10**30}, "model.classes="),
        ({"dim": 4_000_000}, "model.dim=4000000"),
    ],
)
def test_models_that_no_memory_holds_are_refused_by_name(changed: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        setup.build_vivit(_model(**changed, checkpoint=None), CPU)


def test_curves_are_not_drawn_of_a_table_without_their_columns(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("variant,gflops\nbase,1\n")
    done = subprocess.run(
        [sys.executable, ROOT / "scripts/draw_curves.py", table, tmp_path / "t.svg"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "has no column interval, map50 or top1; its columns are variant, gflops" in done.stderr
    assert not (tmp_path / "t.svg").exists()


def test_no_block_merges_more_than_half_of_the_tokens() -> None:
    cfg = OmegaConf.load(ROOT / "configs/model/videomae_mini.yaml")
    model, _ = setup.build_videomae(cfg, CPU)  # type: ignore[arg-type]
    setup.check_fits(Merge(256), model)
    with pytest.raises(ConfigError, match=r"policy\.r is 257, .* of which a view has 512.* at most 256"):
        setup.check_fits(Merge(257), model)


def test_a_pool_is_no_larger_than_a_window() -> None:
    cfg = DictConfig(OmegaConf.load(ROOT / "configs/model/vitdet_mini.yaml"))
    del cfg["defaults"]
    model, _ = setup.build_vitdet(cfg, CPU)
    with pytest.raises(ConfigError, match=r"variant\.pool is 9, .* has 8 tokens"):
        setup.check_fits(Variant(pool=9), model)
