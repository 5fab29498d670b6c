"""python -m evt.train task=vid: train what the tables need.

python -m evt.train task=vid data.vid.root=ILSVRC2015 model.checkpoint=coco_vitdet_b.pth
torchrun --nproc-per-node 4 -m evt.train task=vid data.vid.root=ILSVRC2015 model.checkpoint=coco_vitdet_b.pth
"""

from __future__ import annotations

from pathlib import Path

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from torch import nn

from evt.data.samples import FrameSamples
from evt.data.video import Frame
from evt.harness import setup
from evt.harness.cli import run_command
from evt.harness.train import Losses, processes, train
from evt.models.boxes import Targets
from evt.models.checkpoints import save_checkpoint
from evt.models.vitdet import ViTDet


def train_task(cfg: DictConfig) -> None:
    """Train what the task names; a run that was killed goes on from its last checkpoint."""
    rank, _ = processes()
    device = setup.build_device(cfg)
    if device.type == "cuda":
        device = torch.device("cuda", rank % torch.cuda.device_count())
        torch.cuda.set_device(device)
    recipe = setup.build_recipe(cfg.train)
    model, weights = setup.build_model(cfg.model, device, backbone_only=True)
    if rank == 0:
        print(f"weights to begin with: {weights}")
    data = [video for part in cfg.data.values() for video in setup.build_training_data(part)]
    folder = Path(HydraConfig.get().runtime.output_dir)
    train(model, FrameSamples(data, cfg.frames_per_video), detection_losses, recipe, folder, device)
    if rank == 0:
        save_checkpoint(model.state_dict(), folder / "weights.safetensors")
        print(f"written to {folder / 'weights.safetensors'}")


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
            Targets((frame.target.boxes * scale).to(images.device), frame.target.labels.to(images.device))
        )
    return model.losses(images, targets)


if __name__ == "__main__":
    run_command("train", train_task)
