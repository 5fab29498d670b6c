"""What a detector is taught of frames: their boxes, where they are once a frame is resized."""

from __future__ import annotations

import torch

from evt.data.video import Boxes, Frame
from evt.training.objectives.detection import detection_losses
from tests.common import small_detector


def test_boxes_are_resized_as_their_frames_are() -> None:
    """At 64 the short edge becomes 40, or the long one 64: 20x80 is scaled by 0.8, and 80x80 by a half."""
    model = small_detector()
    boxes = torch.tensor([[10.0, 5, 30, 15], [40, 10, 80, 20]])
    images = [torch.randint(0, 256, (3, height, 80), dtype=torch.uint8) for height in (20, 80)]
    labels = torch.tensor([2, 0])
    batch = [Frame(image, "", True, Boxes(boxes, labels)) for image in images]
    inputs = torch.cat([model.preprocess(image) for image in images])
    torch.manual_seed(1)  # training looks at a random choice of boxes
    expected = model.losses(inputs, [Boxes(boxes * 0.8, labels), Boxes(boxes * 0.5, labels)])
    torch.manual_seed(1)
    losses = detection_losses(model, batch)
    assert {name: x.item() for name, x in losses.items()} == {name: x.item() for name, x in expected.items()}
    torch.manual_seed(1)
    elsewhere = model.losses(inputs, [Boxes(boxes * 0.8, labels), Boxes(boxes * 0.8, labels)])
    assert any(losses[name] != x for name, x in elsewhere.items())
