"""Replays cases of ViViT: a whole video, from its frames to the probabilities of its classes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from evt.conformance.case import Outcome, check_pixels, policy_of, variant_of, weights_of
from evt.eventful import count_ops
from evt.models.vivit import PIXEL_MEAN, PIXEL_STD, ViViT
from evt.models.vivit_weights import load_published

TOLERANCE = 1e-4


@torch.no_grad()
def run(case: dict[str, Any], tensors: dict[str, Tensor]) -> Outcome:
    """Run a case on `input/video`, (T, 3, H, W) uint8; operations are counted over the whole video.

    Raises:
        CaseError: variant or policy are none, or pixels are normalised in another way than for the published models.
        CheckpointError: the weights do not fit.
    """
    model = vivit_of(case, tensors)
    views = model.preprocess(tensors["input/video"])
    with count_ops() as ops:
        spatial = model.run_spatial(views, variant_of(case), policy_of(case))
        logits = model.classify(spatial)
    outputs = {
        "view_first": views[0],
        "view_last": views[-1],
        "spatial": spatial,
        "probabilities": logits.mean(dim=0, keepdim=True).softmax(dim=-1),
    }
    return outputs, [ops]


def vivit_of(case: dict[str, Any], tensors: dict[str, Tensor]) -> ViViT:
    """The ViViT of a case, with its weights; see `run` for what is raised."""
    check_pixels(case, PIXEL_MEAN, PIXEL_STD)
    of_views = ("temporal_stride", "view_frames", "temporal_views", "spatial_views")
    names = (*of_views, "classes", "tubelet", "dim", "mlp_ratio", "spatial_depth", "temporal_depth")
    settings = {name: case[name] for name in names}
    model = ViViT(size=case["view_size"], num_heads=case["heads"], **settings)
    load_published(model, weights_of(tensors), "the case")
    return model.eval()
