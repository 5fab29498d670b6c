"""Replays cases of run-length tokenization: a batch of clips, from pixels to logits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from evt.models.checkpoints import load_tensors
from evt.models.videomae import PIXEL_MEAN, PIXEL_STD, VideoMAE, published
from evt.tokens import RunLength
from evt.tokens.run_length import run_lengths


@torch.no_grad()
def rlt_outputs(case: dict[str, Any], tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Run a case; its outputs by name.

    Raises:
        ValueError: pixels are normalised in another way than for the published models.
    """
    if (tuple(case["pixel_mean"]), tuple(case["pixel_std"])) != (PIXEL_MEAN, PIXEL_STD):
        raise ValueError(
            f"pixels have mean {case['pixel_mean']} and deviation {case['pixel_std']}; "
            f"they must have {PIXEL_MEAN} and {PIXEL_STD}"
        )
    names = ("size", "classes", "tubelet", "dim", "depth", "mlp_ratio")
    settings = {name: case[name] for name in names}
    model = VideoMAE(**settings, view_frames=case["frames"], num_heads=case["heads"]).eval()
    prefix = "weights/"
    weights = {k.removeprefix(prefix): x for k, x in tensors.items() if k.startswith(prefix)}
    load_tensors(published(model), weights, "the case", only=True)
    clips = model.normalise(tensors["input/video"] / 255)
    rlt = RunLength(case["threshold"])
    keep = rlt.keep(clips, model.tubelet)
    # As recorded: of the kept tokens alone, clip by clip and place by place.
    lengths = run_lengths(keep, model.steps).unflatten(1, (model.steps, -1)).transpose(1, 2).flatten()
    return {
        "keep": keep.float(),
        "run_lengths": lengths[lengths > 0].float(),
        "logits_dense": model(clips),
        "logits_rlt": model(clips, rlt),
    }
