"""Replays cases of run-length tokenization: a batch of clips, from pixels to logits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from evt.conformance.case import Outcome, check_pixels, weights_of
from evt.models.checkpoints import load_tensors
from evt.models.videomae import PIXEL_MEAN, PIXEL_STD, VideoMAE, published
from evt.tokens import RunLength
from evt.tokens.run_length import run_lengths

TOLERANCE = 1e-4


@torch.no_grad()
def run(case: dict[str, Any], tensors: dict[str, Tensor]) -> Outcome:
    """Run a case on `input/video`, (B, T, 3, H, W) uint8, on all tokens and on those that are kept.

    Raises:
        CaseError: pixels are normalised in another way than for the published models.
        CheckpointError: the weights do not fit.
    """
    check_pixels(case, PIXEL_MEAN, PIXEL_STD)
    model = videomae_of(case, tensors)
    clips = model.normalise(tensors["input/video"] / 255)
    rlt = RunLength(case["threshold"])
    keep = rlt.keep(clips, model.tubelet)
    # As recorded: of the kept tokens alone, clip by clip and place by place.
    lengths = run_lengths(keep, model.steps).unflatten(1, (model.steps, -1)).transpose(1, 2).flatten()
    outputs = {
        "keep": keep,
        "run_lengths": lengths[lengths > 0],
        "logits_dense": model(clips),
        "logits_rlt": model(clips, rlt),
    }
    return outputs, None


def videomae_of(case: dict[str, Any], tensors: dict[str, Tensor]) -> VideoMAE:
    """The VideoMAE of a case, with its weights.

    Raises:
        CheckpointError: the weights do not fit.
    """
    names = ("size", "classes", "tubelet", "dim", "depth", "mlp_ratio")
    settings = {name: case[name] for name in names}
    model = VideoMAE(**settings, view_frames=case["frames"], num_heads=case["heads"]).eval()
    load_tensors(published(model), weights_of(tensors), "the case", only=True)
    return model
