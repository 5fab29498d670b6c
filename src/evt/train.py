"""python -m evt.train task=vid: train what the tables need.

python -m evt.train task=vid data.vid.root=ILSVRC2015 model.checkpoint=coco_vitdet_b.pth
torchrun --nproc-per-node 4 -m evt.train task=vid data.vid.root=ILSVRC2015 model.checkpoint=coco_vitdet_b.pth
python -m evt.train task=vivit_temporal r=100 data.root=EPIC data.split=train model.checkpoint=vivit_b_epic.pth
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from evt import setup
from evt.cli import run_command
from evt.data.reading import left_out
from evt.data.samples import FrameSamples, IndexedVideo
from evt.data.sprites import SpriteClips, SpriteVideos
from evt.data.video import Boxes, Frame
from evt.errors import ConfigError
from evt.eventful import VARIANTS, TopR
from evt.files import check_writable, write
from evt.models import videomae, vivit_weights
from evt.models.checkpoints import save_checkpoint
from evt.models.vitdet import ViTDet
from evt.tokens import RunLength
from evt.training.dense_signals import (
    CellClassifier,
    CellSamples,
    MotionLearner,
    MotionSamples,
    cell_losses,
    motion_losses,
)
from evt.training.finetune import fine_tune
from evt.training.loop import Losses, processes, train
from evt.training.spatial_cache import fill_cache

Named = tuple[dict[str, Tensor], Sequence[str] | None]
"""Parameters, and the names of the classes that they tell apart."""


def train_task(cfg: DictConfig) -> None:
    """Train what the task names; a run that was killed goes on from its last checkpoint."""
    rank, world = processes()
    device = setup.build_device(cfg)
    if device.type == "cuda":
        device = torch.device("cuda", rank % torch.cuda.device_count())
        torch.cuda.set_device(device)
    folder = Path(HydraConfig.get().runtime.output_dir)
    if cfg.task.startswith("vivit_temporal"):
        if world > 1:
            raise ConfigError("torchrun started several processes; this task runs in one")
        path = fine_tune_vivit(cfg, device, folder)
    else:
        tasks = {
            "vitdet_mini_cells": pretrain_vitdet,
            "vivit_mini": train_vivit,
            "videomae_mini": train_videomae,
        }
        path = folder / "weights.safetensors"
        if rank == 0:
            check_writable(path)
        tensors, classes = tasks.get(cfg.task, train_vitdet)(cfg, device, folder, rank)
        if rank == 0:
            save_checkpoint(tensors, path, classes)
    if rank == 0:
        print(f"written to {path}")


def train_vitdet(cfg: DictConfig, device: torch.device, folder: Path, rank: int) -> Named:
    """Train a detector on annotated videos; its parameters."""
    recipe = setup.build_recipe(cfg.train)
    videos: list[IndexedVideo] = []
    classes: Sequence[str] | None = None
    for name, part in cfg.data.items():
        found = setup.build_training_data(part, f"data.{name}")
        classes = setup.class_names(found, cfg.model.n_classes, classes)  # refuses data of other classes
        videos += found
    data = FrameSamples(videos, cfg.frames_per_video)
    model, weights = setup.build_vitdet(cfg.model, device, backbone_only=True)
    if rank == 0:
        print(f"weights to begin with: {weights}")
    train(model, data, detection_losses, recipe, folder, device, origin_of(cfg))
    return model.state_dict(), classes


def pretrain_vitdet(cfg: DictConfig, device: torch.device, folder: Path, rank: int) -> Named:
    """Teach a small ViTDet's Transformer what generated pictures show; parameters for its detector to begin with."""
    recipe = setup.build_recipe(cfg.train)
    videos = setup.build_training_data(cfg.data.sprites, "data.sprites")
    assert isinstance(videos, SpriteVideos)
    model, _ = setup.build_vitdet(cfg.model, device)
    with torch.random.fork_rng(), torch.device(device):
        torch.manual_seed(cfg.model.seed)
        classifier = CellClassifier(model)
    train(
        classifier, CellSamples(videos, model.net.grid), cell_losses, recipe, folder, device, origin_of(cfg)
    )
    return {name: x for name, x in model.state_dict().items() if name.startswith("backbone.")}, None


def train_vivit(cfg: DictConfig, device: torch.device, folder: Path, rank: int) -> Named:
    """Train a ViViT, both sub-models together; its parameters under their published names."""
    recipe = setup.build_recipe(cfg.train)
    data = setup.build_clips(DictConfig(cfg.data.clips))
    assert isinstance(data, SpriteClips)
    model, _ = setup.build_vivit(cfg.model, device)
    setup.check_classes(model, data)
    with torch.random.fork_rng(), torch.device(device):
        torch.manual_seed(cfg.model.seed)
        learner = MotionLearner(model)
    train(learner, MotionSamples(data, model), motion_losses, recipe, folder, device, origin_of(cfg))
    return vivit_weights.published(model), data.classes


def train_videomae(cfg: DictConfig, device: torch.device, folder: Path, rank: int) -> Named:
    """Train a VideoMAE on all tokens or, where the policy says so, on those that do not repeat; its parameters.

    Under their published names, as ViViT's.
    """
    recipe = setup.build_recipe(cfg.train)
    data = setup.build_clips(DictConfig(cfg.data.clips))
    assert isinstance(data, SpriteClips)
    reduction = setup.build_reduction(cfg)
    if reduction is not None and not isinstance(reduction, RunLength):
        raise ConfigError(f"variant is {cfg.variant.name}; to train it must be base or rlt")
    model, _ = setup.build_videomae(cfg.model, device)
    setup.check_classes(model, data)
    setup.check_fits(reduction, model)
    with torch.random.fork_rng(), torch.device(device):
        torch.manual_seed(cfg.model.seed)
        learner = MotionLearner(model, reduction)
    origin = {**origin_of(cfg), "policy": str(reduction)}
    train(learner, MotionSamples(data, model), motion_losses, recipe, folder, device, origin)
    return videomae.published(model), data.classes


def origin_of(cfg: DictConfig) -> dict[str, Any]:
    """What training depends on besides its recipe and weights, by the names of the settings."""
    chosen: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    groups = {"model": chosen["model"], **{f"data.{name}": part for name, part in chosen["data"].items()}}
    settings = {f"{group}.{name}": x for group, below in groups.items() for name, x in below.items()}
    # Of the checkpoint its weights matter, and not where it lies; the budget is for runs.
    apart = ("model.checkpoint", "model.allow_pickle", "model.fine_tuned", "model.class_names")
    settings = {name: x for name, x in settings.items() if name not in apart and "._target_" not in name}
    return {**settings, **{name: x for name, x in chosen.items() if name == "frames_per_video"}}


def fine_tune_vivit(cfg: DictConfig, device: torch.device, folder: Path) -> Path:
    """Fine-tune ViViT's temporal sub-model; what the spatial one makes of the clips is kept in the run folder."""
    recipe = setup.build_recipe(cfg.train)
    data = setup.build_clips(cfg.data)
    if not isinstance(data, setup.LABELLED):
        raise ConfigError(
            f"data is {cfg.data.name}, which has no labels; it must be epic, kinetics or sprite_clips"
        )
    model, weights = setup.build_vivit(cfg.model, device)
    named = weights.classes or getattr(data, "classes", None) or None
    data = setup.in_model_order(model, weights, data)
    policy = TopR(cfg.r)
    setup.check_budget(policy, model.n_tokens)
    print(f"weights to begin with: {weights}; clips of {data.name}")
    outputs = fill_cache(folder / "spatial", model, VARIANTS["temporal"], policy, data, cfg.data.on_error)
    if lines := left_out(data.missing, outputs.skipped):
        write(folder / "left_out.txt", "\n".join(lines) + "\n")
        print(f"{len(lines)} clips are not trained on; {folder}/left_out.txt lists them", file=sys.stderr)
    return fine_tune(model, outputs, recipe, folder, cfg.dropout, named)


def detection_losses(model: nn.Module, batch: list[Frame]) -> Losses:
    """The losses of ViTDet on frames with their targets."""
    assert isinstance(model, ViTDet)
    images = torch.cat([model.preprocess(frame.image) for frame in batch])
    targets = []
    for frame in batch:
        assert frame.target is not None
        height, width = frame.image.shape[-2:]
        scale = model.input_scale((height, width))
        targets.append(
            Boxes((frame.target.boxes * scale).to(images.device), frame.target.labels.to(images.device))
        )
    return model.losses(images, targets)


if __name__ == "__main__":
    run_command("train", train_task)
