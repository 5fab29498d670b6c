"""From configs to objects: what a config may name, and that all that is wrong with a command is told at once."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest
from omegaconf import DictConfig, OmegaConf

from evt.build import build, check, class_of, code_of, nodes
from evt.errors import ConfigError
from evt.eventful import TopR
from evt.models.vitdet import ViTDet
from evt.settings import CONFIG_DIR
from tests.commands import Refused

CONFIGS = sorted(CONFIG_DIR.rglob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to(CONFIG_DIR)))
def test_all_that_the_configs_name_is_there(path: Path) -> None:
    cfg = OmegaConf.load(path)
    assert isinstance(cfg, DictConfig)
    for where, node in nodes(cfg):
        assert isinstance(class_of(node, where), type)


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "subprocess.Popen",
        "evt.files.os.system",
        "evt.files.Path",  # a class, of another package
        "evt.files.write",  # of this package, and no class
        "evt.nothing.Here",
        "evt.eventful.Nothing",
        "evtil.Class",
        "evt",
        "",
        None,
        3,
        ["evt.eventful.TopR"],
    ],
)
def test_nothing_but_classes_of_the_package_is_built(target: object) -> None:
    node = OmegaConf.create({"_target_": target, "r": 3})
    for refuse in (lambda: build(node, "policy"), lambda: check(OmegaConf.create({"policy": node}))):
        with pytest.raises(
            ConfigError, match=r"^policy\._target_ is .*; it must be a class of the package evt$"
        ):
            refuse()


@pytest.mark.parametrize("key", ["_partial_", "_args_", "_recursive_", "_convert_"])
def test_what_hydra_would_do_with_a_node_is_no_setting(key: str) -> None:
    node = OmegaConf.create({"_target_": "evt.eventful.TopR", "name": "top_r", "r": 3})
    policy = build(node, "policy")
    assert isinstance(policy, TopR)
    assert policy.r == 3
    with pytest.raises(
        ConfigError, match=f"^policy.{key} is not a setting; those of policy=top_r are r, norm$"
    ):
        build(OmegaConf.merge(node, {key: True}), "policy")  # type: ignore[arg-type]


def test_a_target_inside_a_setting_is_a_value_of_the_wrong_type() -> None:
    inside = {"_target_": "os.system", "_args_": ["ls"]}
    with pytest.raises(ConfigError, match=r"^policy\.r is \{.*\}; it must be a number$"):
        build(OmegaConf.create({"_target_": "evt.eventful.TopR", "name": "top_r", "r": inside}), "policy")


def test_a_node_inside_a_node_is_built_first() -> None:
    part = {"_target_": "evt.models.vit.ViT", "patch_size": 8, "dim": 24, "depth": 1, "num_heads": 3}
    node = {"_target_": "evt.models.vitdet.ViTDet", "name": "vitdet", "size": 64, "fpn_channels": 16}
    cfg = OmegaConf.create({**node, "backbone": {**part, "window_blocks": []}})
    model = build(cfg, "model")
    assert isinstance(model, ViTDet)
    assert (model.net.patch_size, model.net.grid) == (8, (8, 8))
    for changed, said in (
        (
            {"size": -1, "backbone": {"dim": 0}},
            r"^model\.size is -1; it must be .*\. model\.backbone\.dim is 0; it must be a whole number of",
        ),
        (
            {"n_classes": "???", "backbone": {"depth": "", "wide": True}},
            r"^model\.n_classes is not set; .*\. model\.backbone\.depth is not set; .*\. "
            r"model\.backbone\.wide is not a setting; those of model\.backbone are .*patch_size, dim",
        ),
        ({"backbone": 3}, r"^model\.backbone is 3; it must be a ViT$"),
        ({"backbone": {"_target_": "evt.eventful.TopR"}}, r"^model\.backbone is \{.*\}; it must be a ViT"),
        (
            {"backbone": {"_target_": "os.system"}},
            r"^model\.backbone\._target_ is os\.system; it must be a class of the package evt$",
        ),
    ):
        with pytest.raises(ConfigError, match=said):
            build(OmegaConf.merge(cfg, changed), "model")  # type: ignore[arg-type]


def test_the_code_of_a_config_changes_with_that_of_its_classes_and_of_the_policies(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Else a table that was killed would go on with figures of the metric or policy as it was before."""
    file = tmp_path / "own.py"
    module = ModuleType("evt.own")
    module.Own, module.__file__ = type("Own", (), {"__module__": "evt.own"}), str(file)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "evt.own", module)
    cfg = OmegaConf.create({"table": {"metrics": {"own": {"_target_": "evt.own.Own"}}}})
    found = []
    for text in ("1", "1", "2"):
        file.write_text(text)
        found.append(code_of(cfg))
    assert found[0] == found[1] != found[2]
    shutil.copytree(CONFIG_DIR / "policy", tmp_path / "configs/policy")
    (tmp_path / "configs/policy/own.yaml").write_text("_target_: evt.own.Own\nname: own\n")
    monkeypatch.setattr("evt.build.CONFIG_DIR", tmp_path / "configs")
    before = code_of(OmegaConf.create({}))
    file.write_text("3")
    assert code_of(OmegaConf.create({})) != before


def test_all_that_is_wrong_with_a_command_is_told_at_once(
    refused: Refused, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    said = refused(
        "fast=yes", "threads=0", "model.backbone.dim=x", "model.detector=mine", "model.seed=-1",
        "model.score_threshold=nan", "policy=threshold", "policy.h=-1", "variant.pool=true", "data=vid",
        "data.n_videos=1.0", "data.require_annotations=1",
    )  # fmt: skip
    for sentence in (
        "fast is 'yes'; it must be true or false",
        "threads is 0; it must be a whole number from 1 to ",
        "model.backbone.dim is 'x'; it must be a whole number",
        "model.detector is 'mine'; it must be builtin or detectron2",
        "model.seed is -1; it must be a whole number of at least 0 and below 9223372036854775808",
        "model.score_threshold is nan; it must be a number",
        "policy.h is -1; it must be a finite number, 0 or more",
        "variant.pool is True; it must be a whole number",
        "data.root is not set; give it on the command line as data.root=...",
        "data.n_videos is 1.0; it must be a whole number",
        "data.require_annotations is 1; it must be true or false",
    ):
        assert sentence in said


def test_a_list_that_is_too_short_is_not_taken_for_none(refused: Refused) -> None:
    assert "data.size is [10]; it must be a list of 2, each a whole number" in refused("data.size=[10]")


def test_policy_and_variant_are_told_of_beside_the_model(
    refused: Refused, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    said = refused("policy.r=-3", "model.size=-16", "variant.pool=0")
    assert said == (
        "error: model.size is -16; it must be a whole number of at least 1. "
        "policy.r is -3; it must be a whole number of at least 0, or a share of the tokens above 0 and at most 1, "
        "as 0.125. pool is 0; it must be at least 1"
    )
