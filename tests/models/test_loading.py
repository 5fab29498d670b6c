"""From a config to a model with its weights: the names of its classes, and what no machine can hold."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from safetensors import safe_open
from safetensors.torch import load_file

from evt.data.sprites import ACTIONS, CLASSES
from evt.errors import CheckpointError, ConfigError
from evt.eventful import Variant
from evt.models.checkpoints import classes_in, read_class_names, save_checkpoint
from evt.models.loading import build_model
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


def test_names_come_from_a_file_where_weights_carry_none(tmp_path: Path) -> None:
    bare = tmp_path / "bare.safetensors"
    save_checkpoint(load_file(FOLDER / "vivit_mini.safetensors"), bare)
    assert classes_in(bare) is None
    names = tmp_path / "names.txt"
    names.write_text("".join(f"action {i}\n" for i in range(12)))
    _, weights = build_model(_model(checkpoint=str(bare), class_names=str(names)), CPU)
    assert weights.classes == [f"action {i}" for i in range(12)]
    names.write_text("a\nb\n")
    with pytest.raises(ConfigError, match="names 2 classes, but the model has 12"):
        build_model(_model(checkpoint=str(bare), class_names=str(names)), CPU)
    names.write_text("a\na\n")
    with pytest.raises(CheckpointError, match="'a' is there twice"):
        read_class_names(names)


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
        build_model(_model(**changed, checkpoint=None), CPU)


def test_no_block_merges_more_than_half_of_the_tokens() -> None:
    cfg = OmegaConf.load(ROOT / "configs/model/videomae_mini.yaml")
    model, _ = build_model(cfg, CPU)  # type: ignore[arg-type]
    model.check(Merge(256))
    with pytest.raises(ConfigError, match=r"policy\.r is 257, .* of which a view has 512.* at most 256"):
        model.check(Merge(257))


def test_a_pool_is_no_larger_than_a_window() -> None:
    cfg = DictConfig(OmegaConf.load(ROOT / "configs/model/vitdet_mini.yaml"))
    del cfg["defaults"]
    model, _ = build_model(cfg, CPU)
    with pytest.raises(ConfigError, match=r"variant\.pool is 9, .* has 8 tokens"):
        model.check(Variant(pool=9))
