"""python -m evt.train task=vid: train what the tables need.

python -m evt.train task=vid data.vid.root=ILSVRC2015 model.checkpoint=coco_vitdet_b.pth
torchrun --nproc-per-node 4 -m evt.train task=vid data.vid.root=ILSVRC2015 model.checkpoint=coco_vitdet_b.pth
python -m evt.train task=vivit_temporal r=100 data.root=EPIC data.split=train model.checkpoint=vivit_b_epic.pth
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from evt.build import build, choice, choices
from evt.cli import run_command
from evt.data.loading import build_annotated, build_clips
from evt.data.reading import left_out
from evt.data.samples import FrameSamples, IndexedVideo
from evt.device import build_device, processes
from evt.errors import ConfigError
from evt.evaluate.classes import check_classes, class_names, in_model_order
from evt.evaluate.variants import build_reduction, check_policy, models_of_clips
from evt.eventful import VARIANTS, TopR
from evt.files import check_writable, write
from evt.models.checkpoints import save_checkpoint
from evt.models.loading import build_model, sees_of
from evt.models.vitdet import ViTDet
from evt.models.vivit import ViViT
from evt.training.loop import train
from evt.training.objectives.cells import CellClassifier, CellSamples, cell_losses
from evt.training.objectives.detection import detection_losses
from evt.training.objectives.motion import MotionLearner, MotionSamples, motion_losses
from evt.training.objectives.temporal import temporal_task
from evt.training.spatial_cache import fill_cache
from evt.training.task import Task
from evt.workers import is_first

T = TypeVar("T")


def train_task(cfg: DictConfig) -> None:
    """Train what the task names; a run that was killed goes on from its last checkpoint."""
    rank, _ = processes()
    device = build_device(cfg)
    if device.type == "cuda":
        device = torch.device("cuda", rank % torch.cuda.device_count())
        torch.cuda.set_device(device)
    folder = Path(HydraConfig.get().runtime.output_dir)
    recipe = build(cfg.train, "train")
    objective = choice(OBJECTIVES, "objective", cfg.objective)
    for name, able in OF_CLASSES.items():
        if getattr(recipe, name) and cfg.objective not in able:
            raise ConfigError(
                f"train.{name} is {getattr(recipe, name)}, which is for the objective {' or '.join(able)}; for "
                f"{cfg.objective} it must be 0"
            )
    task = objective(cfg, device, folder)
    path = folder / task.file
    if rank == 0:
        check_writable(path)
    train(task, recipe, folder, device)
    if rank == 0:
        save_checkpoint(task.weights(), path, task.classes)
        print(f"written to {path}")


def detection(cfg: DictConfig, device: torch.device, folder: Path) -> Task[Any, Any]:
    """A ViTDet on annotated videos."""
    videos: list[IndexedVideo] = []
    classes: Sequence[str] | None = None
    for name, chosen in cfg.data.items():
        found = build_annotated(chosen, f"data.{name}")
        classes = class_names(found, cfg.model.n_classes, classes)  # refuses data of other classes
        videos += found
    data = FrameSamples(videos, cfg.frames_per_video)
    model, weights = build_model(cfg.model, device, ViTDet, backbone_only=True)
    if is_first():
        print(f"weights to begin with: {weights}")
    return Task(model, data, detection_losses, origin_of(cfg), model.state_dict, classes)


def cells(cfg: DictConfig, device: torch.device, folder: Path) -> Task[Any, Any]:
    """A ViTDet's Transformer on what generated pictures show; the parameters are for a detector to begin with."""
    videos: Sequence[Any] = build_annotated(cfg.data.sprites, "data.sprites")
    if not hasattr(videos[0], "class_map"):
        raise ConfigError(
            f"data.sprites is {cfg.data.sprites.name}; it must be sprites, whose cells are known"
        )
    model, _ = build_model(cfg.model, device, ViTDet)
    return Task(
        drawn(lambda: CellClassifier(model), cfg.model.seed, device),
        CellSamples(videos, model.net.grid),
        cell_losses,
        origin_of(cfg),
        lambda: {name: x for name, x in model.state_dict().items() if name.startswith("backbone.")},
    )


def motion(cfg: DictConfig, device: torch.device, folder: Path) -> Task[Any, Any]:
    """A model of clips on generated ones, the whole model; a VideoMAE on fewer tokens, where the policy says so."""
    able = choices("model", lambda cls: hasattr(cls, "features")).values()
    choice(dict.fromkeys(able), "model.name", cfg.model.name)
    origin, how = origin_of(cfg), {}
    if "variant" in cfg:
        variant, dense = cfg.variant.name, "base"
        if variant not in (trainable := (dense, "rlt", "token_merging", "ats")):
            raise ConfigError(f"variant is {variant}; to train it must be one of {', '.join(trainable)}")
        if variant != dense and sees_of(cfg.model) != "clips":
            raise ConfigError(
                f"variant is {variant}, which is for {models_of_clips()}; for {cfg.model.name} it must be {dense}"
            )
        reduction = build_reduction(cfg)
        origin["policy"] = str(reduction)
        if reduction is not None:
            how["reduction"] = reduction
    # Last, since it takes a while; no others have the settings of these tasks.
    data: Any = build_clips(cfg.data.clips, "data.clips")
    model, _ = build_model(cfg.model, device)
    check_classes(model, data)
    if how:
        model.check(how["reduction"])
    return Task(
        drawn(lambda: MotionLearner(model, **how), cfg.model.seed, device),
        MotionSamples(data, model),
        partial(motion_losses, label_smoothing=cfg.train.label_smoothing),
        origin,
        model.published,
        data.classes,
    )


def temporal(cfg: DictConfig, device: torch.device, folder: Path) -> Task[Any, Any]:
    """ViViT's temporal sub-model; what the spatial one makes of the clips is kept in the run's folder."""
    if processes()[1] > 1:
        raise ConfigError("torchrun started several processes; this task runs in one")
    data: Any = build_clips(cfg.data)
    if not hasattr(data, "classes"):
        raise ConfigError(
            f"data is {cfg.data.name}, which has no labels; it must be epic, kinetics or sprite_clips"
        )
    model, weights = build_model(cfg.model, device, ViViT)
    classes = weights.classes or data.classes or None
    data = in_model_order(model, weights, data)
    policy = TopR(cfg.r)
    check_policy(policy, VARIANTS["temporal"], model)
    print(f"weights to begin with: {weights}; clips of {data.name}")
    outputs = fill_cache(folder / "spatial", model, VARIANTS["temporal"], policy, data, cfg.data.on_error)
    if lines := left_out(data.missing, outputs.skipped):
        write(folder / "left_out.txt", "\n".join(lines) + "\n")
        print(f"{len(lines)} clips are not trained on; {folder}/left_out.txt lists them", file=sys.stderr)
    return temporal_task(model, outputs, cfg.dropout, classes, cfg.train.label_smoothing, cfg.train.mixup)


OBJECTIVES: dict[str, Callable[[DictConfig, torch.device, Path], Task[Any, Any]]] = {
    "detection": detection,
    "cells": cells,
    "motion": motion,
    "temporal": temporal,
}
"""How each task is made from the config, its device and the run's folder."""

OF_CLASSES = {"label_smoothing": ("motion", "temporal"), "mixup": ("temporal",)}
"""Settings of recipes for the classes of clips, and for which objectives: motions in two clips cannot be mixed."""


def drawn(build: Callable[[], T], seed: int, device: torch.device) -> T:
    """What `build` makes on a device, whose weights are drawn from a seed."""
    with torch.random.fork_rng(), torch.device(device):
        torch.manual_seed(seed)
        return build()


def origin_of(cfg: DictConfig) -> dict[str, Any]:
    """What training depends on besides its recipe and weights, by the names of the settings."""
    chosen: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    groups = {"model.backbone": chosen["model"].pop("backbone", {}), "model": chosen["model"]}
    groups |= {f"data.{name}": x for name, x in chosen["data"].items()}
    settings = {f"{group}.{name}": x for group, below in groups.items() for name, x in below.items()}
    # Of the checkpoint its weights matter, and not where it lies; the budget is for runs.
    apart = ("model.checkpoint", "model.allow_pickle", "model.fine_tuned", "model.class_names")
    settings = {name: x for name, x in settings.items() if name not in apart and "._target_" not in name}
    return {**settings, **{name: x for name, x in chosen.items() if name == "frames_per_video"}}


if __name__ == "__main__":
    run_command("train", train_task, shared=True)
