"""Replays ViViT cases: a whole video, from its frames to the probabilities of its classes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from evt.eventful import Policy, Variant
from evt.models.vivit import PIXEL_MEAN, PIXEL_STD, ViViT
from evt.models.vivit_weights import load_published


def vivit_of(case: dict[str, Any], tensors: dict[str, Tensor]) -> ViViT:
    """The ViViT of a case, with its weights.

    Raises:
        ValueError: the weights do not fit, or pixels are normalised in another way than for the published models.
    """
    if (case["pixel_mean"], case["pixel_std"]) != (PIXEL_MEAN, PIXEL_STD):
        raise ValueError(
            f"pixels have mean {case['pixel_mean']} and deviation {case['pixel_std']}; "
            f"they must have {PIXEL_MEAN} and {PIXEL_STD}"
        )
    model = ViViT(
        size=case["view_size"],
        classes=case["classes"],
        temporal_stride=case["temporal_stride"],
        view_frames=case["view_frames"],
        temporal_views=case["temporal_views"],
        spatial_views=case["spatial_views"],
        tubelet=case["tubelet"],
        dim=case["dim"],
        num_heads=case["heads"],
        mlp_ratio=case["mlp_ratio"],
        spatial_depth=case["spatial_depth"],
        temporal_depth=case["temporal_depth"],
    )
    prefix = "weights/"
    weights = {name.removeprefix(prefix): x for name, x in tensors.items() if name.startswith(prefix)}
    load_published(model, weights, "the case")
    return model.eval()


@torch.no_grad()
def vivit_outputs(
    case: dict[str, Any], tensors: dict[str, Tensor], variant: Variant, policy: Policy | None
) -> dict[str, Tensor]:
    """Run a case; its outputs by name."""
    model = vivit_of(case, tensors)
    views = model.preprocess(tensors["input/video"])
    spatial = model.run_spatial(views, variant, policy)
    logits = model.classify(spatial)
    return {
        "view_first": views[0],
        "view_last": views[-1],
        "spatial": spatial,
        "probabilities": logits.mean(dim=0, keepdim=True).softmax(dim=-1),
    }
