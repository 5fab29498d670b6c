"""A detector's boxes and classes, of frames with their ground truth."""

from __future__ import annotations

import torch

from evt.data.video import Boxes, Frame
from evt.models.vitdet import ViTDet
from evt.training.task import Losses


def detection_losses(model: ViTDet, batch: list[Frame]) -> Losses:
    """The losses of ViTDet on frames with their targets, as `evt.data.samples.FrameSamples` gives them."""
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
